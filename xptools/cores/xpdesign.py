"""The design matrices of Gaia's BP and RP spectra: flux [W m^-2 nm^-1] that one unit of each coefficient gives.

    D_X(lambda) = T B phi(x) h c / (A_pupil R_X(lambda) lambda),   x = scale u_X(lambda) + offset,   X = BP, RP

phi_n are Hermite functions, u the pseudo-wavelength (a spline), R the response (a spline), T B the inverse bases of the
DR3 instrument model (Montegriffo+ 2023; De Angeli+ 2023). f = w_BP D_BP^T c_BP + w_RP D_RP^T c_RP with w_BP falling
from 1 at 635 nm to 0 at 643 nm and w_RP = 1 - w_BP. On exactly 336, 338 ... 1020 nm the matrices are ESA's XpSampling
tables, which GaiaXPy uses there: six digits, up to 4e-3 of the model's own values below 400 nm and 3e-6 elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from xptools.cores.cubic import Cubic

Arrays = dict[str, np.ndarray]

TABLE = Path(__file__).parent.parent / "data" / "xp_design.npz"
RANGE = (330.0, 1050.0)  # [nm] where the instrument model holds
OVERLAP = (635.0, 643.0)  # [nm]
PUPIL = 0.7278  # [m^2]
HC_NM = 1e9 * 2.99792458e8 * 6.62607004e-34  # h c [J nm]: the constants of the calibration itself
DEFAULT_GRID = tuple(float(w) for w in range(392, 993, 10))
PUBLISHED_GRID = tuple(float(w) for w in range(336, 1021, 2))
BANDS = ("G", "BP", "RP")
# Grids whose matrices a design file may hold ready: ESA's own, and the model's where it is wanted most.
STORED = {PUBLISHED_GRID: "published", DEFAULT_GRID: "default"}


@dataclass(frozen=True, eq=False)
class Design:
    """Matrices on a grid of n ascending wavelengths [nm]; K is the number of coefficients of a band.

    bp, rp (K, n): merge weights w_bp, w_rp (n,) included, zero where the band does not count.
    bp_alone, rp_alone (K, n): without weights, for a star that has only this band, zero where its weight is zero.
    """

    wavelength: np.ndarray
    bp: np.ndarray
    rp: np.ndarray
    bp_alone: np.ndarray
    rp_alone: np.ndarray
    w_bp: np.ndarray
    w_rp: np.ndarray


def merge_weights(wavelength: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """w_BP and w_RP at wavelengths [nm]; they add up to 1."""
    low, high = OVERLAP
    w_rp = np.clip((np.asarray(wavelength, np.float64) - low) / (high - low), 0.0, 1.0)
    return 1.0 - w_rp, w_rp


def evaluate(wavelength: np.ndarray, arrays: Arrays) -> Design:
    """The matrices on any ascending wavelengths [nm] within RANGE, from the arrays of a design file."""
    wavelength = np.ascontiguousarray(wavelength, np.float64)
    weights = merge_weights(wavelength)
    stored = STORED.get(tuple(wavelength.tolist()), "")
    alone = []
    for band, weight in zip(("bp", "rp"), weights, strict=True):
        ready = arrays.get(f"{band}.{stored}")
        whole = model(wavelength, arrays, band) if ready is None else ready
        alone.append(np.where(weight > 0, whole, 0.0))
    merged = [whole * weight for whole, weight in zip(alone, weights, strict=True)]
    return Design(wavelength, *merged, *alone, *weights)


def model(wavelength: np.ndarray, arrays: Arrays, band: str) -> np.ndarray:
    """D (K, n) of one band, "bp" or "rp", from dispersion, bases and response; zero where the response is not positive.

    The other band's end of a spline runs off: call it only where the band counts.
    """
    u, R = Cubic(*arrays[f"{band}.dispersion"])(wavelength), Cubic(*arrays[f"{band}.response"])(wavelength)
    scale, offset = arrays[f"{band}.hermite"]
    bases = arrays[f"{band}.bases"]
    D = bases @ hermite(scale * u + offset, bases.shape[1])
    return D * np.where(R > 0, HC_NM / (PUPIL * np.where(R > 0, R, 1.0) * wavelength), 0.0)


def hermite(x: np.ndarray, count: int) -> np.ndarray:
    """The Hermite functions phi_0 ... phi_(count - 1) (count, n) at x (n,), orthonormal on the real line."""
    phi = np.empty((count, len(x)))
    phi[0] = np.pi**-0.25 * np.exp(-0.5 * x * x)
    if count > 1:
        phi[1] = np.sqrt(2.0) * x * phi[0]
    for n in range(2, count):
        phi[n] = np.sqrt(2.0 / n) * x * phi[n - 1] - np.sqrt((n - 1) / n) * phi[n - 2]
    return phi


@lru_cache(maxsize=16)
def design(grid: tuple[float, ...] = DEFAULT_GRID) -> Design:
    """The matrices of Gaia DR3 on a grid of ascending wavelengths [nm]; made once per process."""
    return evaluate(np.array(grid), gaia_dr3())


def passbands() -> tuple[np.ndarray, np.ndarray]:
    """Photo-electrons/s in G, BP, RP (K, 3) per coefficient of BP and of RP (passbands of Riello+ 2021)."""
    arrays = gaia_dr3()
    return arrays["bp.passbands"], arrays["rp.passbands"]


@lru_cache(maxsize=1)
def gaia_dr3() -> Arrays:
    """The arrays of the design file that comes with xp (data/xp_design.npz, which says where they come from)."""
    with TABLE.open("rb") as stream, np.load(stream) as file:
        return {name: file[name] for name in file.files if name != "what"}
