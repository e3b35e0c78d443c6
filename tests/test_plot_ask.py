"""`xp plot ask`: the scatter, bias and error it states are those of the stars; its panels are the answers there are."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tables import write

pytest.importorskip("matplotlib")
from xptools.figures.ask import Tally


def answers(rows: int = 5000) -> pa.Table:
    """True masses and two sets of answers with errors of 0.1 and 0.3, the second 0.05 too high."""
    rng = np.random.default_rng(0)
    true = rng.uniform(0.8, 2.0, rows)
    columns = {"source_id": np.arange(rows), "true_mass": true}
    for name, error, bias in (("b", 0.1, 0.0), ("c", 0.3, 0.05)):
        columns[f"mass_{name}"] = true + bias + error * rng.normal(size=rows)
        columns |= {f"mass_{name}_err{n}": np.full(rows, error) for n in ("", "_net")}
    columns["mass_b"][:10] = np.nan
    return pa.table(columns)


def test_scatter_bias_and_error_in_any_pieces():
    t = {n: c.to_numpy() for n, c in zip(answers().column_names, answers().columns, strict=True)}
    whole, parts = (Tally.empty(0.5, 2.5, ("c",)) for _ in range(2))
    whole.add(0, t["true_mass"], t["mass_c"], t["mass_c_err"])
    for k in range(0, 5000, 777):
        parts.add(0, *(t[n][k : k + 777] for n in ("true_mass", "mass_c", "mass_c_err")))
    np.testing.assert_array_equal(whole.residuals, parts.residuals)
    numbers = whole.numbers()
    panel = {n: v[numbers["kind"] == "panel"][0] for n, v in numbers.items()}
    off = t["mass_c"] - t["true_mass"]
    assert panel["y"] == pytest.approx(np.median(off), abs=2e-3)
    assert panel["scatter"] == pytest.approx(1.4826 * np.median(np.abs(off - np.median(off))), abs=4e-3)
    assert panel["error"] == pytest.approx(0.3, abs=2e-3) and panel["n"] == 5000
    assert numbers["n"][numbers["kind"] == "cell"].sum() > 4800


def test_the_figure_and_its_numbers(inside, tmp_path):
    path = write(answers(), tmp_path / "t.parquet")
    words = ("plot", "ask", "--label", "mass", path, "-o", tmp_path / "m.pdf", "-q")
    assert inside(*words)[0] == 0
    assert (tmp_path / "m.pdf").read_bytes().startswith(b"%PDF")
    beside = pq.read_table(tmp_path / "m.pdf.parquet").to_pydict()
    panels = {p: n for p, n, k in zip(*(beside[c] for c in ("panel", "n", "kind")), strict=True) if k == "panel"}
    assert panels == {"b": 4990, "c": 5000}
    assert inside(*words, "--panels", "c:wide", "--range", "0:3")[0] == 0
    assert inside("plot", "ask", "--label", "radius", path, "-o", tmp_path / "r.pdf")[0] == 2
    code, _, err = inside("plot", "ask", "--label", "age", path, "-o", tmp_path / "r.pdf")
    assert code == 65 and "age_a" in err
