"""Mock giants as the archives have real ones: APOGEE's allStar and DistMass, Gaia's table, spectra by DataLink."""

import io
import zipfile

import numpy as np
import pyarrow as pa
from astropy.table import Table
from servers import Server

from fetch.spectra import COLUMNS, LISTS, DataLink, csv
from xptools import metadata
from xptools.arrays import to_numpy
from xptools.columns import GAIA
from xptools.mock import Mock

BADLY = 30  # stars that are out of DistMass's bounds


def giants(rows: int) -> pa.Table:
    """A third of `rows` are seen."""
    mock = Mock(rows, seed=12, sample="giants", max_distance=3.0, spectra=True, map="toy")
    return pa.Table.from_batches(list(mock.record_batches(16384)), mock.schema()).sort_by("source_id").combine_chunks()


def catalogues(table: pa.Table) -> dict[str, bytes]:
    """Both files by their names: every star twice, first by a poor spectrum with worthless labels."""
    rng = np.random.default_rng(1)
    n = len(table)
    ids = np.repeat(table["source_id"].to_numpy(), 2)
    poor = np.tile([True, False], n)

    def twice(name, factor=1.0):
        return np.where(poor, rng.normal(size=2 * n), np.repeat(factor * to_numpy(table[name]), 2))

    names = [f"2M{k:08d}" for k in np.arange(2 * n) // 2]
    stars = {"APOGEE_ID": names, "GAIAEDR3_SOURCE_ID": ids, "SNR": np.where(poor, 20.0, 200.0)}
    stars |= {key: twice(name) for key, name in (("TEFF", "teff"), ("LOGG", "logg"), ("M_H", "mh"))}
    stars |= {f"{key}_ERR": np.abs(twice(f"{name}_err")) for key, name in
              (("TEFF", "teff"), ("LOGG", "logg"), ("M_H", "mh"))}  # fmt: skip
    bright, colour = (np.repeat(to_numpy(table[name]), 2) for name in ("phot_g_mean_mag", "bp_rp"))
    stars |= {key: bright - k * colour for key, k in (("J", 1.35), ("H", 1.8), ("K", 1.9))}
    stars |= {"STARFLAG": np.zeros(2 * n, "i8"), "ASPCAPFLAG": np.zeros(2 * n, "i8")}
    masses = {"APOGEE_ID": names, "MASS": twice("mass"), "MASS_ERR": np.abs(twice("mass_err"))}
    masses |= {"AGE_COR_SS": twice("age", 1e9), "AGE_ERR": np.abs(twice("age_err", 1e9))}
    masses["BITMASK"] = np.where(np.arange(2 * n) < 2 * BADLY, 2, 1)
    return {"allStar-dr17-synspec_rev1.fits": fits(stars), "APOGEE_DistMass-DR17_v1.6.1.fits": fits(masses)}


def fits(columns: dict) -> bytes:
    out = io.BytesIO()
    Table({k: np.asarray(v, "f4") if np.asarray(v).dtype == float else v for k, v in columns.items()}).write(
        out, format="fits"
    )
    return out.getvalue()


def gaia(table: pa.Table) -> pa.Table:
    """The archive's table: what the mock does not have is unknown."""
    fields = [metadata.field_of(name, column).with_nullable(True) for name, column in GAIA.items()]
    arrays = [
        table[f.name].cast(f.type) if f.name in table.schema.names else pa.nulls(len(table), f.type) for f in fields
    ]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


class Spectra(DataLink):
    """DataLink with the spectra of a table."""

    def __init__(self, there: Server, table: pa.Table):
        super().__init__(there)
        known = {name: to_numpy(table[name]) for name in COLUMNS if name in table.schema.names}
        known |= {f"{band}_coefficient_correlations": np.zeros((len(table), 1485), "i2") for band in ("bp", "rp")}
        known |= {name: np.ones(len(table), kind) for name, kind in COLUMNS.items()
                  if name not in known and not name.endswith(tuple(LISTS))}  # fmt: skip
        ids = table["source_id"].to_pylist()
        self.stars = {i: {name: values[k] for name, values in known.items()} for k, i in enumerate(ids)}

    def packed(self, ids: list[int]) -> bytes:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.writestr("XP_CONTINUOUS_RAW.csv", csv({i: self.stars[i] for i in ids}))
        return packed.getvalue()
