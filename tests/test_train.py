"""The training loop with a learner of one number, and `xp train`."""

import json
import math

import numpy as np
import pytest

from xptools import checkpoint, train
from xptools.checkpoint import Checkpoints
from xptools.errors import ComputeError, DataError


class Mean:
    """Learns the mean of x by gradient descent; remembers what it was shown."""

    def __init__(self, x):
        self.x, self.m, self.seen = x, 0.0, []

    def step(self, rows, rate):
        self.seen.append(rows)
        r = self.x[rows] - self.m
        self.m += rate * 2 * r.mean()
        return float((r**2).mean())

    def score(self, rows):
        return float(((self.x[rows] - self.m) ** 2).mean())

    def arrays(self):
        return {"m": np.array(self.m)}

    kept = arrays

    def restore(self, kept):
        self.m = float(kept["m"])


X = np.random.default_rng(0).normal(3, 0.2, 103)


def test_it_learns_and_gives_back_the_best_epoch():
    rows, held = train.split(len(X), 0.2, 0)
    fit = train.fit(Mean(X), rows, held, train.cosine(0.1, 1e-4, 50), 50, 16, 0)
    scores = [h["score"] for h in fit.history]
    assert fit.score == min(scores) and fit.epoch == int(np.argmin(scores))
    assert fit.arrays["m"] == pytest.approx(X[rows].mean(), abs=0.2)


def test_split_is_a_partition_and_depends_on_n_fraction_and_seed_alone():
    a, b = train.split(1000, 0.2, 7)
    assert len(b) == 200 and sorted([*a, *b]) == list(range(1000))
    assert (train.split(1000, 0.2, 7)[1] == b).all() and not np.array_equal(train.split(1000, 0.2, 8)[1], b)


def test_no_row_is_dropped_and_order_changes():
    learner = Mean(X)
    fit = train.fit(learner, np.arange(103), np.arange(3), train.cosine(1e-9, 1e-9, 2), 2, 25, 0)
    assert [len(r) for r in learner.seen] == [25, 25, 25, 25, 3] * 2
    epochs = np.concatenate(learner.seen[:5]), np.concatenate(learner.seen[5:])
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(103)) and not np.array_equal(*epochs)
    assert fit.history[0]["loss"] == pytest.approx((X**2).mean(), rel=1e-6)  # batches weigh by their rows


def test_repeatable_by_seed():
    runs = [train.fit(Mean(X), np.arange(90), np.arange(90, 103), train.cosine(0.1, 0, 5), 5, 8, s) for s in (1, 1, 2)]
    assert runs[0].history == runs[1].history != runs[2].history


def test_schedules():
    at = train.cosine(1.0, 0.1, 11)
    assert at(0, []) == 1.0 and at(10, []) == pytest.approx(0.1) and at(5, []) == pytest.approx(0.55)
    again = train.cosine(1.0, 0.1, 20, restarts=1)
    assert again(0, []) == again(10, []) == 1.0 and again(9, []) == pytest.approx(0.1)
    down = train.plateau(1.0, 0.5, 2, 0.3)
    assert down(0, []) == down(2, [3, 2]) == 1.0
    assert down(4, [3, 2, 2, 2]) == 0.5 and down(9, [3, 2, 2, 2, 2, 2, 2, 2]) == 0.3
    ends = train.plateau(1.0, 0.5, 2, 0.3, threshold=0.1, end=True)
    assert ends(3, [3, 2.95, 2.85]) == 1.0 and ends(3, [3, 2.95, 2.92]) == 0.5 and ends(5, [-3, -3, -3, -3, -3]) is None


def test_stride_early_stop_and_log():
    seen = []
    rows = np.arange(90), np.arange(90, 103)
    fit = train.fit(Mean(X), *rows, train.cosine(0.1, 0.1, 9), 9, 90, 0, seen.append, stride=4)
    assert ["score" in r for r in seen] == [False, False, False, True, False, False, False, True, True]
    assert all(json.loads(json.dumps(r)) == r for r in fit.history)
    flat = train.fit(Mean(X), np.arange(90), np.arange(90, 103), lambda *_: 0.0, 50, 90, 0, stop_after=3)
    assert len(flat.history) == 4


class Killed(Exception):
    """Stands for a signal."""


def run(slot, until=None):
    """A training that ends early by its scores; `until` epochs, then killed."""

    def log(record):
        if record["epoch"] == until:
            raise Killed

    at = train.plateau(0.3, 0.5, 2, 1e-3, 1e-9, end=True)
    return train.fit(Mean(X), np.arange(90), np.arange(90, 103), at, 400, 8, 3, log, 2, 30, slot)


def test_a_killed_training_goes_on_to_the_same_result(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    whole, said = run(None), []
    assert 20 < len(whole.history) < 400  # the schedule ended it
    for until in (7, 12):
        with pytest.raises(Killed):
            run(Checkpoints(tmp_path / "m", {"a": 1}, "mass", said.append).slot("K1"), until)
    assert [p.name for p in tmp_path.iterdir()] == ["m.K1.checkpoint"]
    points = Checkpoints(tmp_path / "m", {"a": 1}, "mass", said.append)
    again = run(points.slot("K1"))
    assert again == whole and said == [
        f"xp train mass: goes on after epoch {n} from {tmp_path}/m.K1.checkpoint" for n in (7, 12)
    ]
    finished = run(points.slot("K1"), until=0)  # not one epoch more
    assert finished == whole
    points.clear()
    assert not [*tmp_path.iterdir()]


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    run(Checkpoints(tmp_path / "m", {"seed": 1}, "mass", print).slot())
    with pytest.raises(DataError, match="other input or options"):
        run(Checkpoints(tmp_path / "m", {"seed": 2}, "mass", print).slot())
    (tmp_path / "m.checkpoint").write_bytes(b"PK no zip")
    with pytest.raises(DataError, match="not a checkpoint"):
        run(Checkpoints(tmp_path / "m", {"seed": 1}, "mass", print).slot())
    assert Checkpoints("/dev/null", {}, "mass", print).slot() is None  # no place beside a device


@pytest.mark.parametrize("rate", [math.nan, 1e200])
def test_nan_stops_with_a_sentence(rate):
    with np.errstate(all="ignore"), pytest.raises(ComputeError, match="smaller --rate"):
        train.fit(Mean(X), np.arange(90), np.arange(90, 103), lambda *_: rate, 5, 8, 0)


def test_xp_train_mass(xp, tmp_path):
    """The command: a small model, self-described; the same seed gives the same arrays, another seed others."""
    from xptools import artefact

    small = ("train", "mass", "--points", 2000, "--epochs", 3, "--hidden", "8,8", "--ages", "10", "--batch", 500)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        done = xp(*small, "--seed", seed, "-o", tmp_path / name)
        assert done.returncode == 0, done.stderr
        assert b"parametric main sequence" in done.stderr and b"held-out RMS" in done.stderr and done.stdout == b""
    a, b, c = (artefact.load(tmp_path / n, "mass") for n in "abc")
    assert all(a.arrays[k].tobytes() == b.arrays[k].tobytes() for k in a.arrays)
    assert any(a.arrays[k].tobytes() != c.arrays[k].tobytes() for k in a.arrays)
    told = a.about
    assert told.training["ages_gyr"] == [10.0, 10.0] and told.training["seed"] == 1 and told.metrics["held_rows"] > 300
    assert [i["name"] for i in told.inputs] == ["mg0", "bp_rp0"] and set(told.domain) == {"mg0", "bp_rp0"}
    assert told.shape == {"hidden": [8, 8], "activation": "gelu-tanh"}


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (("--ages", "old"), 2, b"no range"),
        (("--ages", "10:5"), 2, b"no rising range"),
        (("--hidden", "a"), 2, b"widths"),
        (("--ages", "20:30"), 65, b"knows 1 to 13.5 Gyr"),
        (("--mh", "1:2"), 65, b"too few main-sequence points"),
        (("--isochrones", "nowhere.dat"), 66, b"cannot open"),
        (("--isochrones", "pyproject.toml"), 65, b"not a PARSEC"),
    ],
)
def test_wrong_input_has_its_sentence(xp, tmp_path, options, code, words):
    from pathlib import Path

    done = xp("train", "mass", *options, "-o", tmp_path / "m", cwd=Path(__file__).parents[1])
    assert done.returncode == code and words in done.stderr and b"TRY:" in done.stderr
    assert not (tmp_path / "m").exists()


def test_a_target_that_cannot_be_written_is_said_before_training(xp, tmp_path):
    done = xp("train", "mass", "-o", tmp_path / "no" / "m", timeout=10)
    assert done.returncode == 73 and b"cannot write the model" in done.stderr


def test_real_tables_through_the_command(xp, shared_data, tmp_path):
    """Old PARSEC tables: files and their sums in the description, left-out files named, families not mixed."""
    from xptools import artefact

    tables = shared_data / "isochrones" / "parsec_ybc"
    small = ("train", "mass", "--ages", "10:13.5", "--points", 4000, "--epochs", 3, "--hidden", "8", "--batch", 500)
    done = xp(*small, "--isochrones", tables, "-o", tmp_path / "m")
    assert done.returncode == 0 and b"left out: loci_derived_masses.csv" in done.stderr
    told = artefact.about(tmp_path / "m").training
    assert told["family"] == "PARSEC YBC" and told["ages_gyr"] == [10.0, 13.5] and len(told["files"]) == 8
    other = tables.parent / "other" / "parsec_not_ybc_mh-1.49.dat"
    done = xp(*small, "--isochrones", f"{tables},{other}", "-o", tmp_path / "n")
    assert done.returncode == 65 and b"different families" in done.stderr


def test_groups_are_light_and_name_their_models(xp):
    done = xp("train", "--help")
    assert done.returncode == 0 and b"mass" in done.stdout
    assert xp("train", "nothing").returncode == 2
