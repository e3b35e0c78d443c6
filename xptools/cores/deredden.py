"""Magnitudes and colours without dust, from E: A_G, A_BP, A_RP, M_G0, (BP-RP)_0 and their errors (Li+ 2026 Sec. 2).

Arrays (stars,) in float64; NaN in, NaN out. Extinction depends on the intrinsic colour, which depends on extinction:
the coefficients are found by ROUNDS rounds on (BP-RP)_0, starting from the observed colour.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xptools.cores.extinction import Bands, coefficients, gaia_bands, inside, scale
from xptools.cores.photometry import absolute_magnitude, magnitude_error

ROUNDS = 3
PARALLAX_TERM = 5.0 / np.log(10.0)  # sigma_M = 2.1715 sigma_parallax / parallax
BLOCK = 8192  # stars at a time: what one round touches stays in the processor's cache


class Dereddened(NamedTuple):
    """A_X, their errors from E alone, M_G0 and (BP-RP)_0 with errors [mag]; known_law: inside the coefficient table."""

    A_G: np.ndarray
    A_BP: np.ndarray
    A_RP: np.ndarray
    A_G_err: np.ndarray
    A_BP_err: np.ndarray
    A_RP_err: np.ndarray
    M_G0: np.ndarray
    M_G0_err: np.ndarray
    BP_RP0: np.ndarray
    BP_RP0_err: np.ndarray
    known_law: np.ndarray


class Errors(NamedTuple):
    """What is known of the errors, None where nothing: E, parallax [mas], and flux over error of G, BP, RP."""

    E: np.ndarray | None = None
    parallax: np.ndarray | None = None
    G: np.ndarray | None = None
    BP: np.ndarray | None = None
    RP: np.ndarray | None = None


def intrinsic(BP_RP, E, unit: str = "mag", bands: Bands | None = None, xp=np):
    """A_G / E, A_BP / E, A_RP / E and (BP-RP)_0 [mag] from observed BP-RP [mag] and E: the reference, numpy or JAX."""
    BP_RP0 = BP_RP
    for _ in range(ROUNDS):
        k = coefficients(BP_RP0, E, unit, bands, xp)
        BP_RP0 = BP_RP - E * (k[1] - k[2])
    return (*k, BP_RP0)


def intrinsic_compiled(BP_RP, E, unit: str = "mag", bands: Bands | None = None):
    """The same as `intrinsic` for arrays (stars,), by a compiled kernel: ten times faster than gathers in numpy."""
    from xptools.cores import _dustkernels as kernels

    bands = gaia_bands() if bands is None else bands
    out = np.empty((4, len(E)))
    kernels.intrinsic(
        BP_RP, np.broadcast_to(E, out.shape[1:]), bands.values, bands.colour, bands.reddening, scale(unit), ROUNDS, out
    )
    return tuple(out)


def deredden(
    G, BP_RP, parallax, E, errors: Errors | None = None, unit: str = "mag", bands: Bands | None = None
) -> Dereddened:
    """Remove extinction E from G and BP-RP [mag]; parallax [mas] gives M_G0 = G - A_G + 5 log10(parallax / 100).

    Errors: M_G0 from parallax, G and E; (BP-RP)_0 from BP, RP and E. A term whose error is not known (a map without
    samples, no flux errors) is left out, but without a parallax error there is no error of M_G0, and without flux
    errors none of (BP-RP)_0. The error that E has through the distance is not included.
    """
    columns = (G, BP_RP, parallax, E, *(errors or Errors()))
    arrays = [None if c is None else np.asarray(c, np.float64) for c in columns]
    parts = []
    for start in range(0, len(arrays[0]), BLOCK):
        some = slice(start, start + BLOCK)
        parts.append(_block(*(None if a is None else a[some] for a in arrays), unit=unit, bands=bands))
    return Dereddened(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _block(G, BP_RP, parallax, E, E_err, parallax_err, snr_G, snr_BP, snr_RP, unit, bands):
    unknown = np.full(len(G), np.nan)
    sE = unknown if E_err is None else E_err
    dust = np.where(np.isnan(sE), 0.0, sE)
    if E.any() or dust.any():
        kG, kBP, kRP, BP_RP0 = intrinsic_compiled(BP_RP, E, unit, bands)
    else:
        # Without dust the coefficients multiply zeros only: a second for loading the kernel is saved.
        kG, kBP, kRP, BP_RP0 = *(3 * (np.where(np.isnan(BP_RP), np.nan, 0.0),)), BP_RP
    positive = np.where(parallax > 0, parallax, np.nan)
    distance = unknown if parallax_err is None else PARALLAX_TERM * parallax_err / positive
    sG = 0.0 if snr_G is None else np.nan_to_num(magnitude_error(snr_G))
    colour = unknown if snr_BP is None or snr_RP is None else np.hypot(magnitude_error(snr_BP), magnitude_error(snr_RP))
    M_G0 = absolute_magnitude(G - kG * E, parallax)
    return Dereddened(
        A_G=kG * E,
        A_BP=kBP * E,
        A_RP=kRP * E,
        A_G_err=kG * sE,
        A_BP_err=kBP * sE,
        A_RP_err=kRP * sE,
        M_G0=M_G0,
        M_G0_err=np.where(np.isnan(M_G0), np.nan, np.sqrt(distance**2 + sG**2 + (kG * dust) ** 2)),
        BP_RP0=BP_RP0,
        BP_RP0_err=np.hypot(colour, (kBP - kRP) * dust),
        known_law=inside(BP_RP0, E, unit, bands),
    )
