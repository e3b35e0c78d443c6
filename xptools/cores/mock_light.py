"""Light of mock stars in G, BP and RP: single stars, unresolved pairs, dust.

Isochrones give M_G and BP-RP. The third number, BP + RP over G, is the excess factor f(BP-RP) of a well-behaved star
(Riello+ 2021), so that the fluxes of a clean single star have C* = 0. A pair's light adds and dust dims in each band.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xptools.cores.photometry import ZERO_POINT, excess_expected

_STEP = np.log(10.0) / 2.5


class Light(NamedTuple):
    """Fluxes [electron/s] that Gaia would record at 10 pc (or wherever `dimmed` put them); arrays of one shape."""

    G: np.ndarray
    BP: np.ndarray
    RP: np.ndarray


def magnitude(flux: np.ndarray, band: str) -> np.ndarray:
    """Vega magnitude of a positive flux."""
    return ZERO_POINT[band] - np.log(flux) / _STEP


def flux(mag: np.ndarray, band: str) -> np.ndarray:
    """Flux [electron/s] of a Vega magnitude."""
    return np.exp((ZERO_POINT[band] - mag) * _STEP)


def single(M_G: np.ndarray, BP_RP: np.ndarray) -> Light:
    """Fluxes of stars of absolute magnitude M_G and colour BP-RP [mag]."""
    G = flux(M_G, "G")
    ratio = np.exp((ZERO_POINT["BP"] - ZERO_POINT["RP"] - BP_RP) * _STEP)  # BP over RP
    RP = excess_expected(BP_RP) * G / (1.0 + ratio)
    return Light(G, ratio * RP, RP)


def together(one: Light, other: Light, pair: np.ndarray) -> Light:
    """`one`, plus `other` (m rows) in the rows listed in `pair` (m,). A dark companion (NaN) adds nothing."""
    added = []
    for a, b in zip(one, other, strict=True):
        total = a.copy()
        total[pair] += np.nan_to_num(b)
        added.append(total)
    return Light(*added)


def dimmed(light: Light, loss_G, loss_BP=None, loss_RP=None) -> Light:
    """Fluxes after losses [mag], one for all bands or one for each."""
    losses = (loss_G, loss_G if loss_BP is None else loss_BP, loss_G if loss_RP is None else loss_RP)
    return Light(*(f * np.exp(-_STEP * loss) for f, loss in zip(light, losses, strict=True)))


def colour(light: Light) -> np.ndarray:
    """BP-RP [mag]."""
    return ZERO_POINT["BP"] - ZERO_POINT["RP"] - np.log(light.BP / light.RP) / _STEP
