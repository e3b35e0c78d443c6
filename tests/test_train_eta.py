"""`xp train eta`: the file it makes, repeatability, a kill and its resumption, cuts, sizes, and wrong inputs."""

import json
import signal
import subprocess

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xptools import artefact
from xptools.cores import mixture

SMALL = ("--components", 4, "--epochs", 8, "--check", 2, "--batch", 512, "--rate", "0.005")


@pytest.fixture(scope="module")
def giants(xp, tmp_path_factory):
    """Mock giants in a file."""
    path = tmp_path_factory.mktemp("giants") / "giants.parquet"
    done = xp("mock", 50_000, "--sample", "giants", "--seed", 8, "-o", path)
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def trained(xp, giants):
    done = xp("train", "eta", giants, *SMALL, "-v", "-o", giants.parent / "m.safetensors")
    assert done.returncode == 0, done.stderr
    return artefact.load(giants.parent / "m.safetensors", "eta"), done


def test_the_file_describes_itself(trained, giants):
    model, done = trained
    told, rows = model.about, pq.read_metadata(giants).num_rows
    assert done.stdout == b"" and f"{rows:>9,} rows left: with [Fe/H]" in done.stderr.decode()
    assert told.training["rows"] == rows == model.arrays["mdf.count"].sum()
    assert told.training["input"] == "giants.parquet" and told.training["input_history"][0]["cmd"] == "mock"
    assert told.shape["components"] == mixture.size(model.arrays) == 4
    assert [i["name"] for i in told.inputs] == ["ra", "dec", "v_ra", "v_dec", "feh"]
    assert {*told.domain} == {"ra", "dec", "v_ra", "v_dec", "feh"} and told.domain["dec"][0] < -60
    held = told.metrics["held"]
    assert sum(r["n"] for r in held) <= told.metrics["held_rows"] and abs(told.metrics["held_rows"] / rows - 0.1) < 0.02
    assert all(r["error"] > 0 and r["hi"] - r["lo"] == 0.25 for r in held)
    assert not (giants.parent / "m.safetensors.checkpoint").exists()


def test_verbose_is_one_line_of_json_per_check(trained):
    lines = [json.loads(x) for x in trained[1].stderr.decode().splitlines() if x.startswith("{")]
    assert [r["epoch"] for r in lines] == [1, 3, 5, 7] and {"training", "loss", "score", "rate"} <= set(lines[0])
    assert lines[-1]["score"] < lines[0]["score"]


def test_it_knows_the_halo_by_its_motion(trained):
    """A metal-poor star of 300 km/s is likelier than a metal-rich one; at rest it is the other way round."""
    arrays = trained[0].arrays
    x = mixture.standardise(arrays, np.full(2, 180.0), np.zeros(2), np.array([300.0, 5.0]), np.array([-200.0, 0.0]))
    poor, rich = (mixture.log_prob(arrays, x, np.full(2, mixture.context(arrays, feh))) for feh in (-1.6, 0.0))
    assert poor[0] - rich[0] > 3 and poor[1] - rich[1] < -1


def test_the_same_seed_gives_the_same_model(xp, giants, trained, tmp_path):
    for name, seed in (("same", 0), ("other", 1)):
        done = xp("train", "eta", giants, *SMALL, "--seed", seed, "-q", "-o", tmp_path / name)
        assert done.returncode == 0 and done.stderr == b""
    same, other = (artefact.load(tmp_path / n, "eta").arrays for n in ("same", "other"))
    assert all(same[k].tobytes() == v.tobytes() for k, v in trained[0].arrays.items())
    assert any(same[k].tobytes() != other[k].tobytes() for k in same)


def test_a_killed_training_goes_on_to_the_same_file(xp, giants, tmp_path):
    words = ["train", "eta", str(giants), "--components", "5", "--epochs", "60", "--check", "2", "--batch", "256",
             "--stop", "60", "-v", "-o", "m"]  # fmt: skip
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir(), killed.mkdir()
    assert xp(*words, cwd=whole).returncode == 0
    pipes = {"stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    with subprocess.Popen([xp.program, *words], cwd=killed, **pipes) as process:
        for line in process.stderr:
            if b'"epoch": 3' in line:
                break
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL, "it ended before it was killed"
    assert (killed / "m.checkpoint").exists() and not (killed / "m").exists()
    other = xp(*words, "--rate", "0.01", cwd=killed)
    assert other.returncode == 65 and b"another training: other rate." in other.stderr
    done = xp(*words, cwd=killed)
    assert done.returncode == 0 and b"goes on after epoch" in done.stderr
    assert [p.name for p in killed.iterdir()] == ["m"]
    assert (killed / "m").read_bytes() == (whole / "m").read_bytes()


def test_held_out_stars_choose_the_size(xp, giants, tmp_path):
    done = xp("train", "eta", giants, "--components", "1:4:3", "--epochs", 3, "--check", 1, "-o", tmp_path / "m")
    assert done.returncode == 0 and b"is chosen" in done.stderr, done.stderr
    told = artefact.about(tmp_path / "m")
    tried = told.metrics["tried"]
    assert [t["components"] for t in tried] == [1, 4]
    assert told.metrics["score"] == min(t["score"] for t in tried)
    assert told.shape["components"] == min(tried, key=lambda t: t["score"])["components"]
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_aspgap_quality(xp, giants, tmp_path):
    t = pq.read_table(giants)
    done = xp("train", "eta", giants, "--quality", "aspgap", "--where", "dec > 0", *SMALL, "-o", tmp_path / "m")
    assert done.returncode == 0, done.stderr
    d = {n: t[n].to_numpy() for n in t.schema.names}
    keep = (d["feh_err"] < 0.1) & (d["teff_err"] < 50) & (d["logg_err"] < 0.1) & (d["ruwe"] < 1.4)
    keep &= (d["phot_rp_mean_flux_over_error"] > 50) & (d["parallax"] / d["parallax_error"] > 10)
    told = artefact.about(tmp_path / "m").training
    assert told["quality"] == "aspgap" and told["rows"] == (keep & (d["dec"] > 0)).sum()
    assert ["error of [Fe/H] < 0.1", int((d["feh_err"] < 0.1).sum())] in told["cuts"]
    names = {"feh": "moh_xp", "feh_err": "e_moh_xp", "teff_err": "e_teff_xp", "logg_err": "e_logg_xp"}
    pq.write_table(t.rename_columns([names.get(n, n) for n in t.schema.names]), tmp_path / "aspgap.parquet")
    done = xp("train", "eta", tmp_path / "aspgap.parquet", "--feh", "moh_xp", "--quality", "aspgap", *SMALL,
              "--where", "dec > 0", "-o", tmp_path / "n")  # fmt: skip
    assert done.returncode == 0, done.stderr
    a, b = (artefact.load(tmp_path / n, "eta").arrays for n in "mn")
    assert all(a[k].tobytes() == b[k].tobytes() for k in a)
    pq.write_table(t.drop_columns("ruwe"), tmp_path / "no.parquet")
    done = xp("train", "eta", tmp_path / "no.parquet", "--quality", "aspgap", "-o", tmp_path / "o")
    assert done.returncode == 65 and b"ruwe" in done.stderr


def test_rows_without_a_parallax_are_left_out_and_counted(xp, giants, tmp_path):
    t = pq.read_table(giants)
    bad = t["parallax"].to_numpy().copy()
    for k, value in enumerate((0.0, -1.0, np.nan, -np.inf)):
        bad[k::8] = value
    t = t.set_column(t.schema.get_field_index("parallax"), "parallax", pa.array(bad))
    pq.write_table(t, tmp_path / "in.parquet")
    done = xp("train", "eta", tmp_path / "in.parquet", *SMALL, "-o", tmp_path / "m")
    left = int((bad > 0).sum())
    assert done.returncode == 0 and f"{left:,} rows left: with parallax above 0" in done.stderr.decode()
    told = artefact.about(tmp_path / "m")
    assert told.training["rows"] == left and np.isfinite(list(told.domain.values())).all()


@pytest.mark.parametrize(
    ("change", "options", "code", "words"),
    [
        (lambda t: t.drop_columns("pmra"), (), 65, b"pmra"),
        (lambda t: t.drop_columns("source_id"), (), 65, b"source_id"),
        (lambda t: t.slice(0, 500), (), 65, b"need 1,000"),
        (lambda t: t, ("--feh", "moh_xp"), 65, b"moh_xp"),
        (lambda t: t, ("--where", "feh < -9"), 65, b"need 1,000"),
        (lambda t: t, ("--where", "feh <"), 2, b"TRY"),
        (lambda t: t, ("--components", "many"), 2, b"no number or range"),
        (lambda t: t, ("--components", "9:3"), 2, b"rising"),
        (lambda t: t.cast(t.schema.set(t.schema.get_field_index("pmra"), pa.field(
            "pmra", pa.float64(), metadata={"unit": "deg/yr"}))), (), 65, b"is in deg"),
        (lambda t: t.set_column(0, "source_id", t["source_id"].cast(pa.float64(), safe=False)), (), 65, b"last digits"),
        (lambda t: t, ("--feh", "name"), 65, b"holds text"),
        (lambda t: t, ("--rate", "1e30", "--epochs", "2"), 70, b"smaller --rate"),
    ],
)  # fmt: skip
def test_wrong_input_has_its_sentence(xp, giants, tmp_path, change, options, code, words):
    t = pq.read_table(giants)
    pq.write_table(change(t.append_column("name", pa.array(["a"] * len(t)))), tmp_path / "in.parquet")
    done = xp("train", "eta", tmp_path / "in.parquet", *options, "-o", tmp_path / "m")
    assert done.returncode == code and words in done.stderr, done.stderr
    assert not (tmp_path / "m").exists()
