"""The same steps from Python, polars and notebooks: one parser, one result."""

import pickle

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

import xptools
from xptools import metadata
from xptools.errors import UsageError

CUT = "select --where 'parallax > 2'"


@pytest.fixture
def stars():
    rng = np.random.default_rng(3)
    n = 3_000
    return pa.table(
        {
            "source_id": np.arange(n),
            "parallax": rng.uniform(1, 10, n),
            "phot_g_mean_mag": rng.uniform(8, 17, n).astype("f4"),
            "bp_rp": rng.uniform(0.5, 3, n).astype("f4"),
        }
    )


def test_an_op_is_a_value():
    one, other = xptools.op("deredden --map none"), xptools.op("deredden --map=none")
    assert one == other and hash(one) == hash(other)
    assert pickle.loads(pickle.dumps(one)) == one
    assert one != xptools.op("deredden --map none --zero-point lindegren2021")


def test_a_batch_a_stream_and_the_shell_agree(stars, xp, tmp_path):
    step = xptools.op("deredden --map none")
    batch = step(stars.to_batches()[0])
    table = xptools.through(step, stars, rows=100).read_all()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, stars.schema) as writer:
        writer.write_table(stars)
    shell = xp("deredden", "--map", "none", stdin=sink.getvalue().to_pybytes())
    assert shell.returncode == 0, shell.stderr
    piped = pa.ipc.open_stream(shell.stdout).read_all()
    for name in ("mg0", "bp_rp0", "deredden_flag"):
        np.testing.assert_array_equal(batch[name], table[name])
        np.testing.assert_array_equal(piped[name], table[name])


def test_polars_in_and_out(stars):
    frame = pl.from_arrow(stars)
    out = pl.from_arrow(xptools.through(f"{CUT} | deredden --map none", frame))
    expected = frame.filter(pl.col("parallax") > 2)
    assert out["source_id"].equals(expected["source_id"])
    mg0 = expected["phot_g_mean_mag"] + 5 * (expected["parallax"] / 100).log10()
    np.testing.assert_allclose(out["mg0"], mg0, atol=2e-6)


def test_units_and_history_come_with_the_reader(stars):
    schema = xptools.through("deredden --map none", stars).schema
    assert metadata.unit_of(schema.field("mg0")) == "mag"
    assert [r["cmd"] for r in metadata.history(schema)] == ["deredden"]


def test_replace_and_folds_in_a_pipe_of_text(stars):
    line = "deredden --map none"
    once = xptools.through(line, stars).read_all()
    again = xptools.through(f"{line} --replace | deredden --map none --replace", once).read_all()
    assert again["mg0"].equals(once["mg0"])
    phi = xptools.through(f"{line} | mass | convert --rename mh_phot=feh | veff | mf --method exact", stars).read_all()
    assert phi.num_rows == 56 and phi["n"].to_numpy().sum() >= 0
    for line in ("mf --method exact | convert", "mock 10"):
        with pytest.raises(UsageError, match="no step from rows to rows"):
            xptools.through(line, stars)


@pytest.mark.parametrize("line", ["deredden --help", "info", "nonsense", "deredden --nope"])
def test_what_is_no_step_is_refused(line):
    with pytest.raises(UsageError):
        xptools.op(line)
