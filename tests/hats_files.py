"""A small HATS catalogue for tests: partitions of two orders, as the archive's own are laid out."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SPLIT = 3  # pixels of order 0 from here on are divided into those of order 1


def pixels(ids: np.ndarray) -> list[tuple[int, int, np.ndarray]]:
    """(order, pixel, which rows) of every partition, in the order of the sky, from Gaia's identifiers."""
    base, finer = ids >> 59, ids >> 57
    out = []
    for number in np.unique(base):
        if number < SPLIT:
            out.append((0, int(number), np.flatnonzero(base == number)))
        else:
            below = np.unique(finer[base == number])
            out += [(1, int(k), np.flatnonzero(finer == k)) for k in below]
    return out


def catalogue(table: pa.Table, folder: Path) -> Path:
    """Write the rows of a table as a HATS catalogue."""
    ids = table["source_id"].to_numpy()
    table = table.add_column(0, "_healpix_29", pa.array(ids >> 1))
    parts = pixels(ids)
    for order, number, rows in parts:
        path = folder / f"dataset/Norder={order}/Dir=0/Npix={number}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        own = table.take(pa.array(rows)).sort_by("_healpix_29")
        pq.write_table(own, path)
    pq.write_metadata(table.schema, folder / "dataset/_common_metadata")
    lines = ["Norder,Npix", *(f"{order},{number}" for order, number, _ in parts)]
    (folder / "partition_info.csv").write_text("\n".join(lines) + "\n")
    said = {
        "obs_collection": "mock", "dataproduct_type": "object", "hats_nrows": table.num_rows, "hats_col_ra": "ra",
        "hats_col_dec": "dec", "hats_cols_default": "source_id ra dec parallax", "hats_col_healpix": "_healpix_29",
        "hats_col_healpix_order": 29, "hats_skymap_order": 4, "hats_estsize": 99, "hats_builder": "by hand",
    }  # fmt: skip
    (folder / "hats.properties").write_text("#HATS catalog\n" + "".join(f"{k} = {v}\n" for k, v in said.items()))
    (folder / "skymap.fits").write_bytes(b"a map of the sky")
    return folder
