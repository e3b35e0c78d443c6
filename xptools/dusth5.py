"""Reading Bayestar's map files (HDF5) and converting them once."""

from pathlib import Path

import numpy as np

from xptools import mapcache
from xptools.errors import DataError

KIND = "bayestar-1"  # the converted form and its version
ROWS = 8192  # converted at a time
PARTS = ("pixel_info", "samples", "best_fit")
ARRAYS = ("profiles", "start", "row", "width", "coarse", "modulus", "quality")


def check_sights(path: Path) -> int:
    """Check a Bayestar file; returns about how many bytes it takes converted, 0 if it is. Raises DataError."""
    if mapcache.known(path, KIND):
        return 0
    import h5py

    from xptools.dustfits import kind_of

    if kind_of(path) != "HDF5":
        raise DataError(f"{path.name} is FITS, not the HDF5 of a Bayestar map. {path}. TRY: --map edenhofer2023")
    try:
        with h5py.File(path, "r") as f:
            missing = [name for name in PARTS if name not in f]
            if missing or "DM_bin_edges" not in f["pixel_info"].attrs:
                what = ", ".join(missing) or "DM_bin_edges"
                raise DataError(f"{path.name} is not a Bayestar map: it has no {what}. {path}. TRY: another --map-file")
            rows, samples, bins = f["samples"].shape
            if f["best_fit"].shape != (rows, bins) or f["pixel_info"].shape != (rows,):
                raise DataError(f"{path.name} is not a Bayestar map: its parts differ in length. {path}. TRY: another")
            return rows * (samples + 1) * bins * 4 + rows * 48
    except OSError as fault:
        raise DataError(f"{path.name} is truncated or damaged, {fault}. {path}. TRY: download it again") from fault


def convert_sights(path: Path, folder: Path) -> dict:
    """Write a Bayestar file as the arrays of `cores.dustpixels.Pixels`, a few thousand lines of sight at a time."""
    import h5py

    from xptools.cores.dustpixels import index_pixels

    with h5py.File(path, "r") as f:
        info = f["pixel_info"][:]
        modulus = np.asarray(f["pixel_info"].attrs["DM_bin_edges"], np.float64)
        rows, samples, bins = f["samples"].shape
        profiles, flush = mapcache.create(folder / "profiles.npy", (rows, samples + 1, bins))
        for start in range(0, rows, ROWS):
            some = slice(start, start + ROWS)
            profiles[some, 0] = f["best_fit"][some]
            profiles[some, 1:] = f["samples"][some]
            flush()
    start, row, width, coarse, top, base = index_pixels(info["nside"], info["healpix_index"])
    low, high = (info[f"DM_reliable_{end}"].astype(np.float32) for end in ("min", "max"))
    quality = np.stack([info["converged"], np.where(np.isfinite(low), low, np.inf),
                        np.where(np.isfinite(high), high, -np.inf)], axis=1).astype(np.float32)
    small = {"start": start, "row": row, "width": width, "coarse": coarse, "modulus": modulus, "quality": quality}
    for name, array in small.items():
        np.save(folder / f"{name}.npy", array)
    return {"top": top, "base": base}


def open_sights(path: Path):
    """The map of a Bayestar file as `cores.dustpixels.Pixels`, converted on first use."""
    from xptools.cores.dustpixels import Pixels

    size = check_sights(path)
    folder, about = mapcache.converted(path, KIND, size, lambda half: convert_sights(path, half))
    arrays = {name: mapcache.opened(folder / f"{name}.npy") for name in ARRAYS}
    return Pixels(
        **{name: array for name, (array, _) in arrays.items()}, **about, release=arrays["profiles"][1]
    )
