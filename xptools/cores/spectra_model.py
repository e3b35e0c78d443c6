"""A model of stellar spectra for the mock: a black body under the features that XP spectra show.

    ln f(lambda) = ln B_lambda(Teff) - sum_k tau_k(Teff, log g, [Fe/H], [alpha/Fe]) phi_k(lambda)

Physically motivated, not computed from atmospheres: every feature stands where it does in real stars, grows with metals
and falls or rises with temperature and gravity as it does there, with strengths set by hand to those of real stars.
What a network learns from these spectra is this model. It is good from 2,600 to 12,000 K and has no carbon stars, no
emission, no rotation, and of evolution nothing but gravity.

Features: the Balmer lines and jump, the Paschen jump; Ca H and K, the G band, Mg b with MgH, Na D, CaH, TiO, VO, FeH,
the Ca triplet; iron's blanketing towards the blue, and two blends of iron. phi are at most about 1, at the resolution
of XP (a few nm); tau saturate by tau = T (1 - exp(-t / T)) with T = 2.5.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from xptools.cores.extinction import HC_OVER_K
from xptools.cores.photometry import POGSON, ZERO_POINT

SATURATED = 2.5
COOLEST, HOTTEST = 2600.0, 12000.0  # [K]
# head [nm], length of the tail to the red [nm], strength relative to the others
TIO = (
    (451, 12, 0.5), (476, 14, 1.1), (495.5, 14, 0.9), (516.7, 18, 1.0), (544.9, 14, 1.1), (584.7, 14, 1.1),
    (615.0, 24, 1.3), (665.1, 22, 1.4), (705.3, 28, 1.6), (758.9, 26, 1.2), (820.6, 12, 0.4), (843.2, 20, 0.9),
    (885.9, 16, 0.6), (920.9, 26, 0.5),
)  # fmt: skip
BALMER = ((656.3, 3.2, 0.55), (486.1, 3.6, 0.85), (434.0, 3.8, 0.95), (410.2, 4.0, 1.0), (393.0, 8.0, 0.9))
SINGLE = ("jump", "paschen", "calcium", "ch", "mgb", "mgh", "sodium", "cah", "vo", "feh", "triplet", "iron", "blend")


def temperature_of(bp_rp, feh) -> np.ndarray:
    """Teff [K] of dwarfs of intrinsic BP-RP [mag] and [Fe/H].

    Mucciarelli, Bellazzini & Massari 2021 (A&A 653, A90, Table 1) for blue stars, Mann+ 2015 (ApJ 804, 64, Table 2) for
    red ones, from 1.2 to 1.9 mag a blend with two continuous derivatives: a kink would be one of the spectra too, which
    no star has. Clamped to the model's temperatures.
    """
    C, M = np.asarray(bp_rp, np.float64), np.clip(feh, -3.0, 0.6)
    c = np.clip(C, -0.3, 1.9)
    theta = 0.4929 + c * (0.5092 - 0.0353 * c) + M * (0.0192 - 0.0020 * M - 0.0395 * c)
    d = np.clip(C, 1.35, 4.2)
    cool = 3500.0 * (3.172 + d * (-2.475 + d * (1.082 + d * (-0.2231 + 0.01738 * d))))
    u = np.clip((C - 1.2) / 0.7, 0.0, 1.0)
    u = u**3 * (10.0 - 15.0 * u + 6.0 * u**2)
    return np.clip((1.0 - u) * 5040.0 / theta + u * cool, COOLEST, HOTTEST)


def gravity_of(M_G) -> np.ndarray:
    """log g of dwarfs of absolute magnitude M_G: 4.44 for the Sun, 5.3 at the bottom of the main sequence."""
    return np.interp(M_G, (2.5, 4.67, 8.0, 12.0, 15.0), (4.0, 4.44, 4.65, 5.05, 5.3))


def flux_at_10pc(teff, logg, feh, alpha_fe, M_G, wavelength_nm) -> np.ndarray:
    """Flux (N, n) [W m^-2 nm^-1] at 10 pc of stars of absolute magnitude M_G, at wavelengths (n,) [nm].

    Labels (N,) or scalars. M_G is met by the integral over G's passband from 330 to 1050 nm; the colour is the model's
    own, up to 0.2 mag redder than that of real dwarfs of this Teff (the mock bends its spectra to the right colour).
    """
    teff, logg, feh, alpha_fe, M_G = np.broadcast_arrays(*map(np.atleast_1d, (teff, logg, feh, alpha_fe, M_G)))
    grid, T = _passband()
    shape = np.exp(log_shape(teff, logg, feh, alpha_fe, grid))
    rate = np.einsum("ij,j->i", shape, T[0])
    scale = np.exp((ZERO_POINT["G"] - M_G) / POGSON) / rate
    return scale[:, None] * np.exp(log_shape(teff, logg, feh, alpha_fe, np.asarray(wavelength_nm, np.float64)))


def log_shape(teff, logg, feh, alpha_fe, wavelength: np.ndarray) -> np.ndarray:
    """ln of the flux (N, n) up to a constant for each star; labels (N,)."""
    from xptools.cores._xpkernels import product

    teff = np.clip(np.asarray(teff, np.float64), COOLEST, HOTTEST)
    x = 1e9 * HC_OVER_K / wavelength
    tau = strengths(teff, logg, feh, alpha_fe)
    out = np.empty((len(teff), len(wavelength)))
    product(tau, profiles(tuple(wavelength.tolist())), out)
    # ln of Planck's law, minus its value at 600 nm
    planck = -np.log(np.expm1(x / teff[:, None])) + np.log(np.expm1(1e9 * HC_OVER_K / 600.0 / teff))[:, None]
    return planck - 5.0 * np.log(wavelength / 600.0) - out


@lru_cache(maxsize=8)
def profiles(wavelength: tuple[float, ...]) -> np.ndarray:
    """phi (features, n) at wavelengths [nm]: one row for each column of `strengths`."""
    w = np.array(wavelength)

    def line(centre, width):
        return np.exp(-0.5 * ((w - centre) / width) ** 2)

    def band(head, tail):  # degraded to the red, its head as sharp as XP shows it
        return _step((w - head) / 2.0) * np.exp(-np.maximum(w - head, 0.0) / tail)

    rows = {
        "balmer": sum(s * line(centre, width) for centre, width, s in BALMER),
        "jump": _step((370.0 - w) / 5.0),
        "paschen": _step((830.0 - w) / 8.0) * np.exp(-np.maximum(820.0 - w, 0.0) / 150.0),
        "calcium": line(395.1, 4.5),
        "ch": line(430.5, 4.0),
        "mgb": line(517.5, 4.0),
        "mgh": line(512.0, 12.0) + 0.5 * line(478.0, 6.0),
        "sodium": line(589.3, 4.0) + 0.35 * line(819.0, 4.0),
        "cah": line(638.5, 5.0) + 1.3 * line(685.0, 9.0),
        "vo": band(740.0, 12.0) + band(785.0, 12.0) + 0.6 * band(851.0, 12.0),
        "feh": band(869.0, 8.0) * 0.4 + band(989.6, 18.0),
        "triplet": 0.6 * line(849.8, 4.0) + line(854.2, 4.0) + 0.9 * line(866.2, 4.0),
        "iron": np.exp(-((w - 330.0) / 75.0)) + 0.12 * _step((440.0 - w) / 8.0),
        "blend": line(438.5, 5.0) + 0.9 * line(527.0, 4.0) + 0.5 * line(495.0, 6.0) + 0.3 * line(560.0, 10.0),
        "tio": sum(s * band(head, tail) for head, tail, s in TIO),
    }
    assert tuple(rows) == ("balmer", *SINGLE, "tio")
    return np.ascontiguousarray(np.stack(list(rows.values())))


def strengths(teff, logg, feh, alpha_fe) -> np.ndarray:
    """tau (N, features) of labels (N,): temperature [K], log g [cgs], [Fe/H], [alpha/Fe] [dex]."""
    T, g, M = np.asarray(teff, np.float64), np.asarray(logg, np.float64) - 4.5, np.asarray(feh, np.float64)
    A = M + np.asarray(alpha_fe, np.float64)
    lnT = np.log(T / 5000.0)
    cool = np.exp(-8.0 * lnT)  # 1 at 5000 K, 6 at 4000 K
    rows = (
        0.55 * np.exp(-(((lnT - 0.60) / 0.42) ** 2)),
        1.10 * np.exp(-(((lnT - 0.65) / 0.42) ** 2)) * 10 ** (-0.10 * g),
        0.18 * np.exp(-(((lnT - 0.65) / 0.40) ** 2)),
        0.50 * 10 ** (0.30 * A) * _step((6600.0 - T) / 700.0),
        0.22 * 10 ** (0.35 * M) * np.exp(-(((lnT - 0.02) / 0.16) ** 2)) * 10 ** (-0.06 * g),
        0.09 * 10 ** (0.40 * A + 0.10 * g) * np.minimum(cool, 8.0) ** 0.6,
        0.05 * 10 ** (0.45 * A + 0.15 * g) * np.minimum(cool, 8.0) * _step((5400.0 - T) / 300.0),
        0.10 * 10 ** (0.40 * M + 0.12 * g) * np.minimum(cool, 14.0) ** 0.7,
        0.05 * 10 ** (0.20 * A + 0.25 * g) * np.minimum(cool, 30.0) * _step((4300.0 - T) / 150.0),
        0.80 * 10 ** (0.50 * A) * _step((3150.0 - T) / 120.0),
        0.35 * 10 ** (0.30 * M + 0.30 * g) * _step((3400.0 - T) / 200.0),
        0.10 * 10 ** (0.35 * A - 0.06 * g) * _step((7500.0 - T) / 900.0),
        1.15 * 10 ** (0.42 * M) * _step((6400.0 - T) / 650.0) * (1.0 + 0.25 * np.clip(-lnT, 0.0, 0.5)),
        0.12 * 10 ** (0.45 * M) * np.minimum(cool, 4.0) ** 0.5,
        0.75 * 10 ** (0.55 * M + 0.30 * (A - M)) * _step((3750.0 - T) / 160.0),
    )
    tau = np.stack(np.broadcast_arrays(*rows), axis=-1)
    return np.ascontiguousarray(SATURATED * -np.expm1(-tau / SATURATED))


def _step(x):
    """1 for x >> 0, 0 for x << 0."""
    return 1.0 / (1.0 + np.exp(-np.clip(x, -60.0, 60.0)))


@lru_cache(maxsize=1)
def _passband() -> tuple[np.ndarray, np.ndarray]:
    """Wavelengths [nm] and what turns flux into photo-electrons/s per nm in G, BP, RP (3, n)."""
    from xptools.cores.mock_spectra import passbands_on_grid

    return passbands_on_grid()


__all__ = ["flux_at_10pc", "gravity_of", "log_shape", "profiles", "strengths", "temperature_of"]
