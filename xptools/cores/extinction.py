"""The extinction curve of Zhang, Green & Rix 2023 and what it does to Gaia's G, BP and RP.

E is the extinction parameter of that paper (not E(B-V)); A(lambda) = R(lambda) E. Passbands enter only through the
table of A_X / E that `tabulate` integrates: photon counting over black bodies, on a grid of (BP-RP)_0 and E.
Elementwise over arrays of any one shape; NaN in, NaN out. `xp` is numpy or jax.numpy.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from xptools.cores.photometry import ZERO_POINT

DATA = Path(__file__).parent.parent / "data"
TAU_TO_MAG = 2.5 / np.log(10.0)  # A [mag] = 1.0857 tau
HC_OVER_K = 0.014387768775039337  # [m K], CODATA 2018
V_BAND = 541.4  # [nm], where A_V is compared between extinction laws (Landolt V)

COLOURS = (-0.4, 4.0, 45)  # (BP-RP)_0 of the table [mag]: first, last, nodes
REDDENINGS = (0.0, 4.0, 17)  # E of the table
BANDS = ("G", "BP", "RP")


class Bands(NamedTuple):
    """A_X / E at the nodes: values (3 bands, colours, reddenings), equally spaced from first to last node."""

    colour: tuple[float, float]
    reddening: tuple[float, float]
    values: np.ndarray


def curve(wavelength: np.ndarray, unit: str = "mag") -> np.ndarray:
    """R = A / E [mag] at wavelengths [nm], linear in (ln lambda, ln R) (Zhang, Green & Rix 2023).

    Blueward of 392 nm the slope from the first to the sixth point goes on; redward of 4.6 um there is no value.
    `unit` says how the published numbers are read: "mag", or "tau" (optical depth: 8.6 % more extinction).
    """
    x, y, slope = _curve()
    t = np.log(np.asarray(wavelength, np.float64))
    t = np.where(t <= x[-1], t, np.nan)
    r = np.exp(np.where(t < x[0], y[0] + slope * (t - x[0]), np.interp(t, x, y)))
    return r * scale(unit)


def scale(unit: str) -> float:
    """What one unit of the published curve is in magnitudes."""
    return {"mag": 1.0, "tau": TAU_TO_MAG}[unit]


def black_body(wavelength: np.ndarray, Teff: float) -> np.ndarray:
    """Planck's law per unit wavelength, up to a constant factor; wavelength [nm], Teff [K]."""
    m = np.asarray(wavelength, np.float64) * 1e-9
    return (500e-9 / m) ** 5 / np.expm1(HC_OVER_K / (m * Teff))


def band_extinction(wavelength: np.ndarray, T: np.ndarray, flux: np.ndarray, E: float, unit: str = "mag") -> np.ndarray:
    """A_X [mag] of a spectrum: -2.5 log10 of the photons that pass over those without dust.

    wavelength (N,) [nm] equally spaced, T (N, bands) transmission, flux (N,) per unit wavelength. At E = 0 the limit
    A_X / E times E, that is 0; use `mean_curve` for the ratio there.
    """
    photons = _photons(wavelength, T, flux)
    dimmed = photons * 10 ** (-0.4 * curve(wavelength, unit) * E)[:, None]
    return -2.5 * np.log10(dimmed.sum(axis=0) / photons.sum(axis=0))


def mean_curve(wavelength: np.ndarray, T: np.ndarray, flux: np.ndarray) -> np.ndarray:
    """A_X / E for E -> 0: the photon-weighted mean of R over each band."""
    photons = _photons(wavelength, T, flux)
    return (photons * curve(wavelength)[:, None]).sum(axis=0) / photons.sum(axis=0)


def colour(wavelength: np.ndarray, T: np.ndarray, flux: np.ndarray) -> float:
    """Synthetic BP-RP [mag] of a spectrum, Vega system; T has the bands G, BP, RP."""
    _, bp, rp = _photons(wavelength, T, flux).sum(axis=0)
    return float(-2.5 * np.log10(bp / rp) + ZERO_POINT["BP"] - ZERO_POINT["RP"])


def tabulate(wavelength: np.ndarray, T: np.ndarray) -> Bands:
    """A_X / E for black bodies on the grid of (BP-RP)_0 and E; passbands T (N, 3) at equal steps of wavelength [nm]."""
    temperatures = np.geomspace(1400.0, 60000.0, 1500)
    colours = np.array([colour(wavelength, T, black_body(wavelength, t)) for t in temperatures])
    nodes, reddenings = np.linspace(*COLOURS), np.linspace(*REDDENINGS)
    at = np.exp(np.interp(nodes, colours[::-1], np.log(temperatures[::-1])))
    values = np.empty((3, len(nodes), len(reddenings)))
    for i, Teff in enumerate(at):
        flux = black_body(wavelength, Teff)
        values[:, i, 0] = mean_curve(wavelength, T, flux)
        for j, E in enumerate(reddenings[1:], start=1):
            values[:, i, j] = band_extinction(wavelength, T, flux, E) / E
    return Bands(COLOURS[:2], REDDENINGS[:2], values)


@cache
def gaia_bands() -> Bands:
    """The shipped table for Gaia EDR3's G, BP, RP (data/extinction_coefficients.json, which says how it was made)."""
    table = _data("extinction_coefficients.json")
    values = np.array([table["A_over_E"][band] for band in BANDS])
    return Bands(tuple(table["colour"]), tuple(table["reddening"]), values)


def coefficients(bp_rp0, E, unit: str = "mag", bands: Bands | None = None, xp=np):
    """A_G / E, A_BP / E, A_RP / E [mag] for intrinsic colours (BP-RP)_0 [mag] and E.

    Quadratic between nodes of the table. Beyond the table's edges (see `inside`) the value at the edge is used.
    """
    bands = gaia_bands() if bands is None else bands
    stretch = scale(unit)  # A = (R scale) E = R (scale E): one table serves both readings
    i, wi = _quadratic(bp_rp0, *bands.colour, bands.values.shape[1], xp)
    j, wj = _quadratic(stretch * E, *bands.reddening, bands.values.shape[2], xp)
    out = []
    for k in bands.values:
        flat, width = xp.asarray(k).reshape(-1), k.shape[1]
        rows = (sum(w * flat[(i + m) * width + j + n] for n, w in enumerate(wj)) for m in range(3))
        out.append(stretch * sum(w * row for w, row in zip(wi, rows, strict=True)))
    return tuple(out)


def inside(bp_rp0, E, unit: str = "mag", bands: Bands | None = None):
    """True where colour and E lie inside the table."""
    bands = gaia_bands() if bands is None else bands
    E = scale(unit) * np.asarray(E)
    in_colour = (bp_rp0 >= bands.colour[0]) & (bp_rp0 <= bands.colour[1])
    return in_colour & (E >= bands.reddening[0]) & (E <= bands.reddening[1])


def visual(unit: str = "mag") -> float:
    """A_V / E [mag] at 541.4 nm: the bridge to maps in other units."""
    return float(curve(V_BAND, unit))


def _quadratic(x, first, last, nodes, xp):
    """Index of the first of three nodes about x, and Lagrange's three weights; x is clamped, NaN gives NaN weights."""
    t = (xp.clip(x, first, last) - first) * ((nodes - 1) / (last - first))
    centre = xp.clip(xp.floor(xp.where(xp.isnan(t), 1.0, t) + 0.5), 1, nodes - 2)
    u = t - centre
    return centre.astype("int32") - 1, (0.5 * u * (u - 1.0), 1.0 - u * u, 0.5 * u * (u + 1.0))


def _photons(wavelength, T, flux):
    return (np.asarray(flux) * np.asarray(wavelength))[:, None] * np.asarray(T)


@cache
def _curve():
    table = _data("extinction_curve.json")
    x, y = np.log(table["wavelength_nm"]), np.log(table["R"])
    return x, y, (y[5] - y[0]) / (x[5] - x[0])


def _data(name: str) -> dict:
    return json.loads((DATA / name).read_text())
