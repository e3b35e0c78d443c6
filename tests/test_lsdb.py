"""Catalogues of xp run as hats and LSDB see them, and steps inside LSDB as the manual of xp run shows them."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hats_files import catalogue
from tables import stars

import xptools

lsdb = pytest.importorskip("lsdb", reason="lsdb is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")
ADDED = ("mass", "mass_err", "mh_phot", "mass_flag")


@pytest.fixture(scope="module")
def sky(tmp_path_factory):
    """A catalogue of 900 stars over the sky, without masses, and what xp mass appends by identifier."""
    table = stars(900).drop_columns(["mass", "mass_err"])
    wanted = xptools.through("mass", table).read_all().select(["source_id", *ADDED]).to_pandas()
    return catalogue(table, tmp_path_factory.mktemp("hats") / "gaia"), wanted.set_index("source_id").sort_index()


def agree(got: pd.DataFrame, wanted: pd.DataFrame) -> None:
    """The same stars, and the same values bit for bit."""
    got = got.set_index("source_id").sort_index()
    np.testing.assert_array_equal(got.index.to_numpy(np.int64), wanted.index.to_numpy(np.int64))
    for name in ADDED:
        np.testing.assert_array_equal(got[name].to_numpy(wanted[name].dtype), wanted[name].to_numpy(), name)


def test_what_run_makes_is_a_valid_catalogue_that_lsdb_reads(inside, sky, tmp_path):
    from hats.io.validation import is_valid_catalog

    code, _, err = inside("run", "mass", sky[0], tmp_path / "out")
    assert code == 0, err
    assert is_valid_catalog(str(tmp_path / "out"), strict=True)
    agree(lsdb.open_catalog(tmp_path / "out", columns="all").compute(), sky[1])


def test_a_catalogue_that_rows_were_cut_from_is_valid(inside, sky, tmp_path):
    from hats.io.validation import is_valid_catalog

    code, _, err = inside("run", "mass | select --where 'mass > 0.5'", sky[0], tmp_path / "out")
    assert code == 0, err
    assert is_valid_catalog(str(tmp_path / "out"), strict=True)
    agree(lsdb.open_catalog(tmp_path / "out", columns="all").compute(), sky[1][sky[1]["mass"] > 0.5])


def test_lsdb_maps_partitions(sky):
    def masses(frame):
        table = pa.Table.from_pandas(pd.DataFrame(frame), preserve_index=False)
        return xptools.through("mass", table).read_all().to_pandas()

    agree(lsdb.open_catalog(sky[0], columns="all").map_partitions(masses).compute(), sky[1])
