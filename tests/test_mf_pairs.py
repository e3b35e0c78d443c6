"""`xp mf --binaries` as a command: the single stars behind pairs, the report, and wrong input."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from calibration_pairs import LAWS, SEGMENTS, VOLUMES, counted, paired, universe
from test_mf import check, files, run

import xptools
from xptools.commands._mf_report import true_phi
from xptools.errors import DataError, UsageError

QUICK = f"mf --binaries fraction=0.4,q=uniform --draws 500 --warmup 500 --chains 2 {SEGMENTS}"


@pytest.fixture(scope="module")
def systems():
    """(stars with their bins, the law behind, the volumes) of a universe with 40 % pairs."""
    rng, veff = np.random.default_rng(4), xptools.op(VOLUMES)
    law = universe(rng).with_density([2e4] * 4)
    stars = veff(counted(veff.table(), law, LAWS["uniform"], rng).combine_chunks().to_batches()[0])
    import pyarrow as pa

    return pa.Table.from_batches([stars]), law, veff.table()


@pytest.fixture(scope="module")
def result(systems):
    return run(QUICK, systems[0])


def test_it_finds_what_counting_misses(systems, result):
    rows, law, volumes = systems
    true = np.log10(true_phi(volumes, law)).ravel()
    pulls = []
    for out in (result, run(f"mf --method exact {SEGMENTS}", rows)):
        pulls.append((out["log_phi"].to_numpy() - true) / out["log_phi_sd"].to_numpy())
    joint, plain = (np.sqrt(np.nanmean(p**2)) for p in pulls)
    assert joint < 1.4 and plain > 2.0


def test_intervals_hold_the_truth():
    found = paired(2, seed=30, draws=500)
    for name in ("log Phi", "alpha1"):
        assert all(abs(c["off"]) < 3.5 for c in found[name].coverage().values())


def test_companions_add_stars(result):
    every, alone = (result[n].to_numpy() for n in ("log_phi_all_median", "log_phi_median"))
    assert (every[np.isfinite(alone)] > alone[np.isfinite(alone)]).all()


def test_no_pairs_is_the_plain_function(systems):
    lines = (f"mf --method exact {SEGMENTS} {more}" for more in ("", "--binaries fraction=0,q=twins"))
    one, other = (run(line, systems[0]) for line in lines)
    for name in one.column_names:
        np.testing.assert_array_equal(one[name].to_numpy(), other[name].to_numpy())


def test_report_and_volumes_from_a_file(systems, result, xp, tmp_path):
    pq.write_table(systems[0].drop_columns(["mass_bin", "feh_bin"]), tmp_path / "s.parquet")
    xp(*VOLUMES.split(), "--table", "-o", tmp_path / "v.parquet")
    done = xp(*QUICK.split(), "--veff", tmp_path / "v.parquet", "--report", tmp_path / "r.json", tmp_path / "s.parquet",
              "-o", tmp_path / "o.parquet")  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "r.json").read_text())
    schema = json.loads((files("xptools") / "data" / "mf_report.schema.json").read_text())
    check(report, schema, schema)
    assert report["binaries"] == "fraction=0.4,q=uniform" and len(report["feh"][0]["all_stars"]) == 2
    written = pq.read_table(tmp_path / "o.parquet")
    np.testing.assert_allclose(written["log_phi"].to_numpy(), result["log_phi"].to_numpy())


@pytest.mark.parametrize("spec", ["q=uniform", "fraction=1.5", "fraction=0.4,q=heavy", "fraction=0.4,r=1", "half",
                                  "fraction=0.4,fraction=0.5", "fraction=nan", "fraction=0.4,cut=nan"])
def test_pairs_that_mean_nothing(spec):
    with pytest.raises(UsageError, match="TRY: --binaries fraction"):
        xptools.op(f"mf --binaries {spec}")


def test_wrong_input(systems, xp, tmp_path):
    with pytest.raises(UsageError, match="sampled"):
        xptools.op("mf --binaries fraction=0.4 --method exact")
    with pytest.raises(UsageError, match="--model"):
        xptools.op("mf --model m.safetensors")
    xp(*VOLUMES.split(), "--table", "-o", tmp_path / "v.csv")
    with pytest.raises(DataError, match="they do not say"):
        xptools.op(f"{QUICK} --veff {tmp_path / 'v.csv'}").reads(systems[0].schema)
