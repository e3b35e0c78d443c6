"""examples/li2026 with DATA=gaia, from the archives to mass functions: stand-ins of them hold a small mock universe."""

import csv
import os
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from servers import serving

from fetch.archives import EXAMPLE, made, opened, words

SMALL = ("ETA_EPOCHS=15", "FEH_EPOCHS=2", "MASS_EPOCHS=2")


@pytest.fixture(scope="module")
def archive(xp, tmp_path_factory):
    """`archive(*targets)` makes them with results in `archive.out`; the archives' log is `archive.there`."""
    if not shutil.which("make"):
        pytest.skip("make is not here")
    place = tmp_path_factory.mktemp("gaia")
    universe = made(place / "archives", xp.program, 6000, 1500, 12_000)

    def run(*targets):
        fixed = (f"OUT={place / 'out'}", f"XP='{xp.program}' -q", f"PYTHON='{sys.executable}'")
        line = ["make", "-C", EXAMPLE, *words(place / "archives"), *fixed, *SMALL, *targets]
        return subprocess.run(line, capture_output=True, text=True, timeout=600, env=os.environ | known, check=False)

    with serving() as there:
        known = opened(there, place / "archives", universe) | {"NO_PROXY": "127.0.0.1"}
        run.out, run.there, run.universe = place / "out", there, universe
        yield run


def test_from_the_archives_to_mass_functions(archive):
    out = archive.out
    done = archive("table1", "table5", out / "spectra.parquet", out / "known.parquet")
    assert done.returncode == 0, done.stderr[-3000:]
    with (out / "table1.csv").open(newline="") as stream:
        flow = {row["cut"]: int(row["stars"]) for row in csv.DictReader(stream)}
    assert list(flow) == ["parent sample", "isochrone", "cstar", "eta", "fidelity", "feh", "magnitude"]
    assert flow["parent sample"] == archive.universe.num_rows > 1000 and 0 < flow["eta"] < flow["cstar"]
    sample = pq.read_table(out / "sample.parquet")
    assert sample.num_rows == flow["magnitude"] and sample["mass"].null_count == 0
    assert len(pq.read_table(out / "phi-text.parquet")) == 56
    assert pq.read_schema(out / "known.parquet").names == ["source_id", "mass", "feh", "feh_err", "fe_h"]
    assert "model_flux" in pq.read_schema(out / "spectra.parquet").names


def test_a_spoilt_file_is_fetched_again(archive):
    spectra = archive.out / "spectra-all.parquet"
    whole = spectra.read_bytes()
    spectra.write_bytes(whole[:-500])
    done = archive("table1")
    assert done.returncode == 0 and "not as it was made" in done.stdout, done.stderr[-3000:]
    assert pq.read_table(spectra).equals(pq.read_table(pa.BufferReader(whole)))
    assert archive("table5").returncode == 0


def test_what_is_there_is_not_asked_for_again(archive):
    assert archive("-q", "table1", "table5").returncode == 0
    before = len(archive.there.log)
    (archive.out / "table1.csv").unlink()
    (archive.out / "sample.parquet").unlink()
    assert archive("table1").returncode == 0
    assert len(archive.there.log) == before
