"""The report of examples/zhang2026: what it says of known answers, with and without XGBoost; heads it compares."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from vae_toy import wide

from xptools import artefact

SCRIPT = str(Path(__file__).parents[1] / "examples" / "zhang2026" / "report.py")


def table(rows: int, seed: int) -> pa.Table:
    """Giants whose mass is in the first coefficient, with answers 0.1 off and errors that say so."""
    rng = np.random.default_rng(seed)
    mass, age, G = rng.uniform(0.8, 2, rows), rng.uniform(1, 12, rows), rng.uniform(12, 15, rows)
    flux = 10 ** ((25.6873668671 - G) / 2.5)
    columns = {"true_mass": mass, "true_age": age, "mass": mass + 0.3, "age": age, "phot_g_mean_mag": G,
               "bp_rp": rng.normal(size=rows), "bp_n_relevant_bases": np.full(rows, 20),
               "rp_n_relevant_bases": np.full(rows, 40)}  # fmt: skip
    for name, truth in (("mass", mass), ("age", age)):
        for letter in "bcdef":
            columns[f"{name}_{letter}"] = truth + 0.1 * rng.normal(size=rows)
            columns[f"{name}_{letter}_err"] = np.full(rows, 0.1)
    out = {k: pa.array(v) for k, v in columns.items()}
    for band in ("bp", "rp"):
        values = rng.normal(size=(rows, 55))
        values[:, 0] = mass
        out[f"{band}_coefficients"] = wide(values * flux[:, None])
    return pa.table(out)


def report(monkeypatch, capsys, *words) -> list[str]:
    """What the script prints, line by line."""
    monkeypatch.setattr(sys, "argv", [SCRIPT, *map(str, words)])
    runpy.run_path(SCRIPT, run_name="__main__")
    return capsys.readouterr().out.splitlines()


def test_panels_in_numbers_and_what_is_left_out(monkeypatch, capsys, tmp_path):
    pq.write_table(table(2000, 0), tmp_path / "p.parquet")
    monkeypatch.setitem(sys.modules, "xgboost", None)  # as if it were not installed
    for words, why in (((), "no --train"), (("--train", tmp_path / "p.parquet"), "not installed")):
        lines = report(monkeypatch, capsys, "panels", tmp_path / "p.parquet", *words)
        assert why in lines[0] and not any(line.startswith("a: XGBoost, same") for line in lines)
    b, f = (next(x for x in lines if x.startswith(letter) and " mass " in x).split() for letter in "bf")
    assert float(b[-5]) == pytest.approx(0.1, abs=0.01) and float(b[-2]) == pytest.approx(1.0, abs=0.05)
    assert float(f[-4]) == pytest.approx(np.hypot(0.1, 0.3), abs=0.01)  # f is held against the label it was shown


def test_panel_a_is_trained_on_the_same_stars(monkeypatch, capsys, tmp_path):
    pytest.importorskip("xgboost", reason="the package xgboost is for comparison only")
    for name, rows in (("t", 300), ("p", 200)):
        pq.write_table(table(rows, rows), tmp_path / f"{name}.parquet")
    words = ("--train", tmp_path / "t.parquet", "--trees", 60)
    lines = report(monkeypatch, capsys, "panels", tmp_path / "p.parquet", *words)
    found = {line.split()[4]: line.split() for line in lines if line.startswith("a: XGBoost, same")}
    assert float(found["mass"][6]) < 0.1  # the label it was given is 0.3 off, everywhere alike
    assert float(found["age"][6]) > 2


def test_heads_are_compared_only_if_nothing_else_differs(monkeypatch, capsys, tmp_path):
    scores = {"mass": {"stars": 90, "nll": 1.0, "crps": 0.4}}
    training = dict.fromkeys(("input", "sha256", "seed", "rows", "epochs", "batch", "rate", "requests"), 1)
    for name, components, gain, seed in (("g", 1, 0.0, 1), ("m", 4, 0.1, 1), ("o", 4, 0.1, 2)):
        told = {k: v - gain if k != "stars" else v for k, v in scores["mass"].items()}
        about = artefact.About("ask", [], [], {"sizes": {"components": components}}, training | {"seed": seed},
                               {"labels": {"mass": told}}, {})  # fmt: skip
        artefact.save(tmp_path / name, about, {"a": np.zeros(1, np.float32)})
    words = report(monkeypatch, capsys, "heads", tmp_path / "g", tmp_path / "m")[1].split()
    assert words == ["mass", "90", "1.0000", "0.9000", "+0.1000", "0.4000", "0.3000", "+0.1000"]
    with pytest.raises(SystemExit, match="seed"):
        report(monkeypatch, capsys, "heads", tmp_path / "g", tmp_path / "o")
