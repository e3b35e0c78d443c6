"""HATS out of xp run under the reference implementations: strictly valid for hats, read and crossmatched by LSDB.

pip install hats lsdb
python -m pytest tests/comparison/test_lsdb.py
"""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hats_files import catalogue
from tables import stars

import xptools

hats = pytest.importorskip("hats", reason="hats is not installed")
lsdb = pytest.importorskip("lsdb", reason="lsdb is not installed")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def sky(tmp_path_factory):
    """A catalogue of 600 stars, and they as a table."""
    table = stars(600).drop_columns(["mass", "mass_err", "note"])
    return catalogue(table, tmp_path_factory.mktemp("lsdb") / "gaia"), table


@pytest.mark.parametrize("pipe", ["mass", "select --parallax 5: | mass"])
def test_a_catalogue_is_valid_and_read(inside, sky, tmp_path, pipe):
    from hats.io.validation import is_valid_catalog

    source, table = sky
    code, _, err = inside("run", pipe, source, tmp_path / "out")
    assert code == 0, err
    assert is_valid_catalog(tmp_path / "out", strict=True)
    kept = table["parallax"].to_numpy() > (5 if "select" in pipe else 0)
    wanted = xptools.through("mass", table).read_all().filter(pa.array(kept)).sort_by("source_id")
    got = lsdb.open_catalog(tmp_path / "out", columns="all").compute().sort_values("source_id")
    assert len(lsdb.open_catalog(tmp_path / "out")) == kept.sum() == len(got)
    for name in ("source_id", "mass", "mass_flag"):
        np.testing.assert_array_equal(got[name].to_numpy(), wanted[name].to_numpy())


def test_a_step_inside_lsdb(sky):
    source, table = sky

    def masses(frame):
        rows = pa.Table.from_pandas(pd.DataFrame(frame), preserve_index=False)
        return xptools.through("mass", rows).read_all().to_pandas()

    open_ = lsdb.open_catalog(source, columns="all")
    got = open_.map_partitions(masses).compute().sort_values("source_id")
    wanted = xptools.through("mass", table).read_all().sort_by("source_id")
    np.testing.assert_array_equal(got["mass"].to_numpy(), wanted["mass"].to_numpy())
