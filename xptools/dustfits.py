"""Reading the dust map files that xp converts: Edenhofer 2023 (FITS) and Bayestar (HDF5).

Every file is checked before it is used: what it is, whether it is whole, whether it holds what the map must hold.
Conversion reads a few thousand pixels at a time, so a map of 19 GB takes no more memory than one of 1 GB.
"""

import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xptools import mapcache
from xptools.errors import DataError

KIND = "edenhofer-1"  # the converted form and its version
PIXELS = 16384  # converted at a time
INNER = re.compile(r"inner density integrated within\s*([0-9.eE+-]+)\s*pc", re.IGNORECASE)
CUBES = ("", "primary", "mean", "samples", "healpix times distance")
MAGIC = {
    b"SIMPLE  =": "FITS",
    b"\x89HDF\r\n\x1a\n": "HDF5",
    b"\x1f\x8b": "gzip",
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow",
}


def kind_of(path: Path) -> str:
    """FITS or HDF5; raises DataError for a web page, a compressed file or anything else."""
    with path.open("rb") as f:
        head = f.read(512)
    kind = next((name for magic, name in MAGIC.items() if head.startswith(magic)), "")
    if kind in ("FITS", "HDF5"):
        return kind
    if head.lstrip()[:1] == b"<":
        raise DataError(
            f"{path.name} is a web page (HTML), not a dust map: the download failed. {path}. TRY: download it again"
        )
    if not head:
        raise DataError(f"{path.name} is empty, not a dust map. {path}. TRY: download it again")
    what = f"a {kind} file" if kind else "neither FITS nor HDF5"
    cure = "gunzip it" if kind == "gzip" else "--map-file with the map's own file"
    raise DataError(f"{path.name} is {what}, not a dust map. {path}. TRY: {cure}")


@dataclass(frozen=True)
class Shells:
    """What the headers of an Edenhofer 2023 file say; main and inner are HDU numbers, inner None if there is none."""

    nside: int
    nested: bool
    samples: int
    centres: np.ndarray
    boundaries: np.ndarray
    r_inner: float | None
    main: int
    inner: int | None


def read_shells(path: Path) -> Shells:
    """Check an Edenhofer 2023 file and read its layout; raises DataError."""
    from astropy.io import fits

    if kind_of(path) != "FITS":
        raise DataError(f"{path.name} is HDF5, not the FITS of edenhofer2023. {path}. TRY: --map bayestar2019")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # astropy warns of a truncated file; the check below refuses it
        try:
            with fits.open(path, memmap=False, lazy_load_hdus=True) as hdus:
                return _shells(path, hdus)
        except (OSError, TypeError, ValueError, fits.VerifyError) as fault:
            raise DataError(f"{path.name} cannot be read as FITS, {fault}. {path}. TRY: download it again") from fault


def convert_shells(path: Path, shells: Shells, folder: Path) -> dict:
    """Write ln of the integrated extinction, (pixels in ring order, samples, nodes), to folder/lnE.npy.

    The arithmetic, float32 sums included, is that of dustmaps' Edenhofer2023Query, so that both give the same numbers.
    """
    import healpy
    from astropy.io import fits

    pixels, extra = 12 * shells.nside**2, int(shells.inner is not None)
    shape = (pixels, max(1, shells.samples), len(shells.centres) + extra)
    out, flush = mapcache.create(folder / "lnE.npy", shape)
    depth = np.diff(shells.boundaries)[:, None]
    with fits.open(path, memmap=False) as hdus, np.errstate(divide="ignore", invalid="ignore"):
        main = hdus[shells.main].section
        inner = hdus[shells.inner].section if extra else None
        for start in range(0, pixels, PIXELS):
            some = slice(start, min(start + PIXELS, pixels))
            index = np.arange(some.start, some.stop)
            ring = healpy.nest2ring(shells.nside, index) if shells.nested else index
            for s in range(shape[1]):
                at = (s, some) if shells.samples else (some,)
                rho = np.array(main[(*at[:-1], slice(None), some)], dtype=np.float32)
                np.multiply(depth, rho, out=rho, casting="same_kind")
                if extra:
                    first = np.array(inner[at], dtype=np.float32)
                    out[ring, s, 0] = np.log(first)
                    rho[0] += first
                np.cumsum(rho, axis=0, out=rho)
                out[ring, s, extra:] = np.log(rho, out=rho).T
            flush()
    return {
        "nside": shells.nside,
        "samples": shells.samples,
        "centres": shells.centres.tolist(),
        "boundaries": shells.boundaries.tolist(),
        "r_inner": shells.r_inner,
    }


def nodes(about: dict, shell_correct: bool) -> np.ndarray:
    """Distances [pc] at which the stored E stand.

    As dustmaps has it, E at a shell's centre includes the whole shell: half a shell too much. With `shell_correct`
    each E stands at the outer edge of its shell, where it is exact.
    """
    places = about["boundaries"][1:] if shell_correct else about["centres"]
    return np.array([*([] if about["r_inner"] is None else [about["r_inner"]]), *places])


def _shells(path: Path, hdus) -> Shells:
    main = inner = centres = edges = None
    for i, hdu in enumerate(hdus):
        _whole(path, hdu)
        name = hdu.name.lower()
        if hdu.is_image and hdu.header["NAXIS"] and name in CUBES:
            main = i
        elif hdu.is_image and name.startswith(("mean of integrated inner", "integrated inner")):
            inner = i
        elif not hdu.is_image:
            columns = [c.strip().lower() for c in hdu.columns.names]
            centres = np.array(hdu.data.field(0), float) if columns == ["radial pixel centers"] else centres
            edges = np.array(hdu.data.field(0), float) if columns == ["radial pixel boundaries"] else edges
    wrong = "not an Edenhofer 2023 map"
    if main is None or centres is None or edges is None:
        parts = {"density cube": main, "radial pixel centers": centres, "radial pixel boundaries": edges}
        missing = ", ".join(name for name, part in parts.items() if part is None)
        raise _refusal(path, f"{wrong}: it has no {missing}")
    head = hdus[main].header
    shape = tuple(head[f"NAXIS{k}"] for k in range(head["NAXIS"], 0, -1))
    nside = head.get("NSIDE", 0)
    if len(shape) not in (2, 3) or shape[-1] != 12 * nside**2 or shape[-2] != len(centres):
        raise _refusal(path, f"{wrong}: a cube of {shape} does not fit NSIDE {nside} and {len(centres)} shells")
    r_inner = None
    if inner is not None:
        ctype = str(hdus[inner].header.get("CTYPE", hdus[inner].header.get("CTYPE1", "")))
        found = INNER.search(ctype)
        if not found:
            raise _refusal(path, f"{wrong}: CTYPE {ctype!r} of the inner layer names no radius in pc")
        r_inner = float(found[1])
    rising = np.all(np.diff(centres) > 0) and np.all(np.diff(edges) > 0) and len(edges) == len(centres) + 1
    if not rising or centres[0] <= (r_inner or 0.0):
        raise _refusal(path, f"{wrong}: its radii do not rise from the inner layer outwards")
    nested = str(head.get("ORDERING", "")).lower().startswith("nest")
    return Shells(nside, nested, shape[0] if len(shape) == 3 else 0, centres, edges, r_inner, main, inner)


def _whole(path: Path, hdu) -> None:
    where = hdu.fileinfo()
    end, size = where["datLoc"] + where["datSpan"], path.stat().st_size
    if end > size:
        raise DataError(
            f"{path.name} is truncated: {size:,} bytes, at least {end:,} expected. {path}. TRY: download it again"
        )


def _refusal(path: Path, why: str) -> DataError:
    return DataError(f"{path.name} is {why}. {path}. TRY: --map with the map's name, or another --map-file")
