"""xp run: the same bytes as the shell's pipe, folds and sources at its ends, and its own complaints."""

import subprocess

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xptools.commands.run import plans
from xptools.errors import UsageError

STEPS = ("convert --rename a=b", "convert --keep source_id,b", "convert --unit b=mas")


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "in.parquet"
    pq.write_table(
        pa.table({"source_id": np.arange(40_000), "a": np.random.default_rng(0).random(40_000), "c": np.zeros(40_000)}),
        path,
    )
    return path


def test_run_gives_the_bytes_of_the_pipe(xp, table):
    piped = subprocess.run(
        " | ".join(f"'{xp.program}' {step}" for step in STEPS).replace(STEPS[0], f"{STEPS[0]} '{table}'"),
        shell=True, capture_output=True, check=True,
    ).stdout  # fmt: skip
    ran = xp("run", " | ".join(STEPS), table)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == piped
    assert len(piped) > 40_000 * 16


def test_what_is_given_to_run_holds_for_its_steps(inside, tmp_path):
    def made(name, *words):
        code, _, err = inside(*words, "-o", tmp_path / name)
        assert code == 0, err
        return (tmp_path / name).read_bytes()

    (tmp_path / "c.toml").write_text("seed = 5\n[mock]\nbinaries = 0.0\n")
    known = made("a.parquet", "mock", 50, "--seed", 5)
    assert known == made("b.parquet", "run", "--seed", 5, "mock 50") == made("c.parquet", "--seed", 5, "run", "mock 50")
    assert known == made("d.parquet", "run", "--seed", 6, "mock 50 --seed 5")
    single = made("e.parquet", "mock", 50, "--config", tmp_path / "c.toml")
    assert single != known and single == made("f.parquet", "run", "--config", tmp_path / "c.toml", "mock 50")
    made("g.parquet", "run", "deredden --map none", tmp_path / "a.parquet")
    made("h.parquet", "run", "--replace", "deredden --map none", tmp_path / "g.parquet")


def test_a_cut_in_the_middle_gives_the_bytes_of_the_pipe(xp, table):
    steps = ["select --where 'a > 0.7'", "deredden --map none --e-column c", "select --where 'mg0 > -9'"]
    source = table.with_name("stars.arrows")
    stars = pq.read_table(table)
    n = stars.num_rows
    for name in ("parallax", "phot_g_mean_mag", "bp_rp"):
        stars = stars.append_column(name, pa.array(np.linspace(1, 2, n)))
    with pa.ipc.new_stream(str(source), stars.schema) as out:
        out.write_table(stars, 5_000)
    piped = subprocess.run(
        f"cat '{source}' | " + " | ".join(f"'{xp.program}' -q {step}" for step in steps),
        shell=True, capture_output=True, check=True,
    ).stdout  # fmt: skip
    ran = xp("-q", "run", " | ".join(steps), stdin=source.read_bytes())
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == piped


def test_xp_before_each_command_and_quotes_are_understood():
    got = plans("xp convert --keep 'a,b' | xp convert --rename a=c")
    assert [p.step.name for p in got] == ["convert", "convert"]
    assert got[0].step.keep == ("a", "b")


@pytest.mark.parametrize(
    ("pipe", "words"),
    [
        ("convert | | convert", "empty step"),
        ("convert | nonsense", "no command 'nonsense'"),
        ("convert --nope", "No such option"),
        ("convert | doctor", "not a step"),
        ("fetch xp", "info, join"),
        ("convert -o there.parquet | mass", "no --output of its own"),
        ("convert | mass -O csv", "no -O of its own"),
        ("convert -P", "no -P of its own"),
        ("convert | info", "info is `info --stats`"),
    ],
)
def test_a_bad_pipe_says_what_is_wrong(pipe, words):
    with pytest.raises(UsageError, match=words):
        plans(pipe)


def test_a_bad_pipe_exits_2(xp, table):
    out = xp("run", "convert | nonsense", table)
    assert (out.returncode, out.stdout) == (2, b"")


def test_a_step_with_an_input_of_its_own_is_refused():
    with pytest.raises(UsageError, match="no INPUT of its own"):
        plans("convert stars.parquet | convert")
