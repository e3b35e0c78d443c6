"""Gaia DR3's errors as functions of magnitude, fitted to 2,390 complete rows of gaia_source (a cone at ra 45, dec 0).

parallax_error   sqrt(138 + 822 z + 23.7 z^2) uas, z = 10^(0.4 max(G - 15, -2)): the medians of 5-parameter solutions to
                 3 % for 14 < G < 20 and 10 % at 13 < G < 14; about it a log-normal scatter of 12 %
other errors     ra 0.846, dec 0.803, pmra 1.109, pmdec 1.001 times the parallax error, scatter 13 % (ra, dec 7 %)
ruwe             log-normal about 1.03 with 6 %; one star in ten has a Pareto tail above 1.4 (index 1.35). The stated
                 errors of the tail grow with its ruwe, as in the real rows, so that pulls stay standard normal
flux errors      relative errors below at the nodes of G, BP, RP; log-normal scatter 0.09, 0.14, 0.15 dex
C*               scatter 0.37 sigma_C*(G) of Riello+ 2021: the robust width of the real rows at 12 < G < 17; one star in
                 twenty is blended and has an exponential tail of mean 0.12, as there
RV error         medians of 0.2 to 7.5 km/s for 9 < G < 15, scatter 0.25 dex, present for RP < 14
nu_eff           1.76 - 1.61/pi atan(0.531 (BP-RP)) (Lindegren+ 2021 A&A 649, A2, eq. 3): within 0.01 of the real rows
"""

from __future__ import annotations

import numpy as np

from xptools.cores.draws import power_law
from xptools.cores.photometry import POGSON, excess_expected, excess_sigma

ASTROMETRY = {"ra": (0.846, 0.07), "dec": (0.803, 0.07), "pmra": (1.109, 0.13), "pmdec": (1.001, 0.13)}
RUWE_CORE, RUWE_SCATTER, RUWE_TAIL, RUWE_INDEX, RUWE_LIMIT = 1.03, 0.06, 0.10, 1.35, 1.4
FLUX = {  # band: (nodes [mag], log10 of the median relative error of the mean flux, scatter [dex])
    "G": (
        (10.4, 11.7, 12.5, 13.6, 14.5, 15.4, 16.54, 17.57, 18.56, 19.38, 20.36),
        (-3.615, -3.571, -3.52, -3.623, -3.534, -3.357, -3.135, -2.897, -2.661, -2.426, -2.081),
        0.09,
    ),
    "BP": (
        (10.6, 12.54, 13.43, 14.62, 15.57, 16.56, 17.48, 18.54, 19.45, 20.38),
        (-3.252, -3.057, -3.037, -2.849, -2.624, -2.31, -2.005, -1.642, -1.32, -0.996),
        0.14,
    ),
    "RP": (
        (9.6, 10.67, 11.59, 12.46, 13.62, 14.48, 15.57, 16.52, 17.52, 18.39, 19.49, 20.17),
        (-3.448, -3.415, -3.237, -3.22, -3.005, -2.78, -2.465, -2.156, -1.788, -1.495, -1.056, -0.807),
        0.15,
    ),
}
EXCESS_SCATTER, BLEND_MEAN = 0.37, 0.12
VELOCITY = ((9.0, 10.5, 11.5, 12.5, 13.5, 14.5, 15.5), (0.19, 0.47, 0.94, 1.64, 3.0, 5.74, 7.54), 0.25)
VELOCITY_LIMIT = 14.0  # RP [mag], in the place of G_RVS


def parallax_error(G: np.ndarray) -> np.ndarray:
    """Median parallax error [mas] of a 5-parameter solution at magnitude G."""
    z = np.exp((np.maximum(G, 13.0) - 15.0) / POGSON)
    return np.sqrt(138.0 + z * (822.0 + 23.7 * z)) / 1000.0


def ruwe(u: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Renormalised unit weight error: log-normal core, Pareto tail for u < RUWE_TAIL."""
    core = RUWE_CORE * np.exp(RUWE_SCATTER * normal)
    tail = u < RUWE_TAIL
    core[tail] = RUWE_LIMIT * (u[tail] / RUWE_TAIL) ** (-1.0 / RUWE_INDEX)
    return core


def inflation(ruwe: np.ndarray) -> np.ndarray:
    """What a bad fit multiplies the stated errors by."""
    return np.where(ruwe > RUWE_LIMIT, ruwe / RUWE_CORE, 1.0)


def relative_flux_error(mag: np.ndarray, normal: np.ndarray, band: str) -> np.ndarray:
    """Error of the mean flux over the mean flux at magnitude `mag`."""
    nodes, medians, scatter = FLUX[band]
    return np.exp(np.log(10.0) * (np.interp(mag, nodes, medians) + scatter * normal))


def excess_offset(G, BP_RP, share_BP, errors, normal, u_blend, blended: float):
    """Factor (n,) on BP and RP that makes up the rest of the scatter of C*, and who is blended.

    G, BP-RP and the share of BP in BP + RP are noise-free; `errors` are the relative errors of G, BP, RP, whose own
    contribution to C* is taken off; a share `blended` of stars gets light of neighbours besides.
    """
    C = excess_expected(BP_RP)
    e_G, e_BP, e_RP = errors
    # BP noise raises C and reddens nothing but the colour f is taken at: d f/d(BP-RP) from a difference
    slope = (excess_expected(BP_RP + 0.01) - C) * 100.0 * POGSON
    own = ((C * share_BP + slope) * e_BP) ** 2 + ((C * (1 - share_BP) - slope) * e_RP) ** 2 + (C * e_G) ** 2
    rest = np.sqrt(np.maximum((EXCESS_SCATTER * excess_sigma(G)) ** 2 - own, 0.0))
    blend = u_blend < blended
    tail = np.where(blend, -BLEND_MEAN * np.log(np.maximum(u_blend, 1e-300) / max(blended, 1e-300)), 0.0)
    return 1.0 + (rest * normal + tail) / C, blend


def velocity_error(G: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """Radial velocity error [km/s] at magnitude G."""
    nodes, medians, scatter = VELOCITY
    return np.exp(np.interp(G, nodes, np.log(medians)) + np.log(10.0) * scatter * normal)


def effective_wavenumber(BP_RP: np.ndarray) -> np.ndarray:
    """nu_eff [um^-1] of a colour."""
    return 1.76 - 1.61 / np.pi * np.arctan(0.531 * BP_RP)


def metallicity_error(feh: np.ndarray, G: np.ndarray, normal: np.ndarray) -> np.ndarray:
    """sigma of the observed [Fe/H] [dex]: 0.10 above -0.5, 0.25 below -1 (Li+ 2026 Sec. 2.2); a tenth per mag > 16."""
    base = 0.25 - 0.15 * np.clip((feh + 1.0) / 0.5, 0.0, 1.0)
    return base * (1.0 + 0.1 * np.clip(G - 16.0, 0.0, 3.0)) * np.exp(0.1 * normal)


def spurious_parallax(u: np.ndarray) -> np.ndarray:
    """Offsets [mas] of spurious solutions: x^-2 between 1 and 30 mas."""
    return power_law(u, 1.0, 30.0, -2.0)


def fidelity(u: np.ndarray, spurious: np.ndarray) -> np.ndarray:
    """fidelity_v2: 1 to 0.5 for good solutions (median 0.998), near 0 for spurious ones (nine in ten below 0.5)."""
    return np.where(spurious, u**7, 1.0 - 0.5 * u**8)
