"""Design matrices as a command asks for them: those of Gaia DR3 that come with xp, or a file's.

A file is what tests/make_xp_design.py writes, numpy's .npz. For each band X in bp, rp: X.bases (K, H) = transformation
times inverse bases, for K coefficients; X.hermite (2,) scale and offset of x = scale u + offset; X.dispersion (2, m)
wavelength [nm] and pseudo-wavelength u; X.response (2, m) wavelength [nm] and response. X.passbands (K, 3),
photo-electrons/s in G, BP, RP per coefficient, is for synthetic magnitudes only.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from xptools.errors import DataError, InputError
from xptools.stamp import stamp

if TYPE_CHECKING:
    from xptools.cores.xpdesign import Arrays, Design

NEEDED = ("bases", "hermite", "dispersion", "response")
FEWEST = 4  # points of a spline
COLUMNS = 3


def bases(path: str = "") -> dict[str, int]:
    """How many coefficients each band has: DR3's 55, or as a design file says."""
    arrays = _arrays(path, stamp(path))
    return {band: len(arrays[f"{band}.bases"]) for band in ("bp", "rp")}


def designed(grid: tuple[float, ...], path: str = "") -> Design:
    """The matrices on a grid [nm]; made once per process."""
    return _designed(grid, path, stamp(path))


def passbands(path: str = "") -> Design:
    """The integrals over G, BP and RP, as `cores.synthetic` takes them."""
    return _passbands(path, stamp(path))


@lru_cache(maxsize=8)
def _designed(grid: tuple[float, ...], path: str, stamp: int) -> Design:
    import numpy as np

    from xptools.cores import xpdesign

    return xpdesign.evaluate(np.array(grid), _arrays(path, stamp)) if path else xpdesign.design(grid)


@lru_cache(maxsize=2)
def _passbands(path: str, stamp: int) -> Design:
    from xptools.cores import synthetic

    if not path:
        return synthetic.integrals()
    arrays = _arrays(path, stamp)
    both = [arrays.get(f"{band}.passbands") for band in ("bp", "rp")]
    if any(one is None for one in both):
        raise DataError(f"{path} has no passbands, of which synthetic magnitudes are made. TRY: without --synthetic")
    return synthetic.as_design(*both)


@lru_cache(maxsize=4)
def _arrays(path: str, _stamp: int) -> Arrays:
    import zipfile

    import numpy as np

    from xptools.cores import xpdesign

    if not path:
        return xpdesign.gaia_dr3()
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as fault:
        if not Path(path).is_file():
            raise InputError(f"there is no design file {path}. TRY: another --design") from fault
        raise DataError(f"{path} is no design file of numpy's .npz format. TRY: xp help calibrate") from fault
    for band in ("bp", "rp"):
        _check(path, band, arrays)
    return arrays


def _check(path: str, band: str, arrays: Arrays) -> None:
    for kind in NEEDED:
        array = arrays.get(f"{band}.{kind}")
        shape = () if array is None else array.shape
        fits = shape == (2,) if kind == "hermite" else len(shape) == 2
        if kind in ("dispersion", "response"):
            fits = fits and shape[0] == 2 and shape[1] >= FEWEST
        if not fits or array.dtype.kind != "f":
            raise DataError(f"{path} has no {band}.{kind} of the shape it needs. TRY: xp help calibrate, DESIGN FILE")
    from xptools.cores.xpdesign import STORED

    widths = {"passbands": COLUMNS} | {name: len(grid) for grid, name in STORED.items()}
    for name, width in widths.items():
        own = arrays.get(f"{band}.{name}")
        if own is not None and own.shape != (len(arrays[f"{band}.bases"]), width):
            raise DataError(f"{path} has {name} that do not fit {band}.bases. TRY: xp help calibrate, DESIGN FILE")


__all__ = ["bases", "designed", "passbands"]
