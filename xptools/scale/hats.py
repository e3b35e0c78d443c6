"""What makes a folder of partitions a HATS catalogue: properties, partition_info.csv, _common_metadata and _metadata.

The partitions keep their names and their rows' order, so the catalogue keeps its division of the sky. A partition that
no row is left of is left out.
"""

import io
import re
from pathlib import Path

from xptools import atomic
from xptools.archive.hats import PROPERTIES
from xptools.errors import DataError
from xptools.scale.units import pixel

INDEX = ("hats_col_healpix", "hats_col_healpix_order")
MAPPED = ("hats_skymap_order", "hats_skymap_alt_orders")
MAPS = ("skymap*.fits", "point_map.fits")


def properties(root: Path) -> dict[str, str]:
    """What a catalogue says of itself."""
    name = next(n for n in PROPERTIES if (root / n).is_file())
    pairs = re.findall(r"^([^#!\s=]+)[ \t]*=[ \t]*(.*?)[ \t]*$", (root / name).read_text(), re.M)
    return dict(pairs)


def check(root: Path, names: list[str]) -> None:
    """DataError unless the columns that place a row on the sky are still there."""
    said = properties(root)
    for key in ("hats_col_ra", "hats_col_dec"):
        if key in said and said[key] not in names:
            raise DataError(f"the pipe drops {said[key]}, which a HATS catalogue needs. {root}. TRY: keep it")


def write(out: Path, root: Path, rows: dict[str, int], schema, whole: bool) -> None:
    """Complete the catalogue `out` made of `root`: part -> rows, in the order of the sky; `whole` if no row is lost."""
    import xptools

    parts = [part for part, n in rows.items() if n]
    if not parts:
        raise DataError(f"no row is left, and a HATS catalogue without rows is none. {out}. TRY: a wider cut")
    _dataset(out / "dataset", [p.removeprefix("dataset/") for p in parts], schema)
    pixels = dict.fromkeys(pixel(part) for part in parts)
    lines = ["Norder,Npix", *(f"{order},{number}" for order, number in pixels)]
    atomic.write(out / "partition_info.csv", ("\n".join(lines) + "\n").encode(), "partition_info.csv")
    said = properties(root)
    lost = [*(MAPPED if not whole else ()), *(INDEX if said.get(INDEX[0]) not in schema.names else ()), "hats_estsize"]
    said = {k: v for k, v in said.items() if k not in lost}
    said |= {"hats_nrows": str(sum(rows.values())), "hats_builder": f"xptools {xptools.__version__}"}
    if "hats_cols_default" in said:
        before, had = said["hats_cols_default"].split(), _names(root)
        said["hats_cols_default"] = " ".join(n for n in schema.names if n in before or n not in had)
    text = "".join(f"{key}={value}\n" for key, value in said.items()).encode()
    for name in PROPERTIES:
        atomic.write(out / name, text, "the catalogue's properties")
    for pattern in MAPS if whole else ():
        for path in root.glob(pattern):
            atomic.write(out / path.name, path.read_bytes(), "the catalogue's map")


def _dataset(dataset: Path, parts: list[str], schema) -> None:
    import pyarrow.parquet as pq

    from xptools.io import open_writer

    with open_writer(str(dataset / "_common_metadata"), schema, "parquet"):
        pass  # a Parquet file without rows: the schema with all its words
    every = None
    for part in parts:
        footer = pq.read_metadata(dataset / part)
        footer.set_file_path(part)
        if every is None:
            every = footer
        else:
            every.append_row_groups(footer)
    text = io.BytesIO()
    every.write_metadata_file(text)
    atomic.write(dataset / "_metadata", text.getvalue(), "_metadata")


def _names(root: Path) -> list[str]:
    import pyarrow.parquet as pq

    return pq.read_schema(next(root.glob("dataset/**/Npix=*.parquet"))).names
