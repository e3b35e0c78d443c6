"""`xp train ask`: a table with holes to one model file, by a recipe of one's own; killed and gone on; wrong recipes."""

import json
import re

import numpy as np
import pyarrow as pa
import pytest
from tables import write

import xptools
from xptools import artefact, checkpoint
from xptools.cores.ask_training import AskLearner, standards

RECIPE = """tokens = [
  { name = "s", value = "spectrum", error = "spectrum_err", relevant = "n", width = 4, group = "s" },
  { name = "colour", value = "blue - red", unit = "mag", ucd = "phot.color", text = "Blue minus red" },
  { name = "mass", value = "mass", error = "mass_err", unit = "solMass", ucd = "phys.mass", text = "Mass", ask = true },
  { name = "absent", value = "nowhere", ask = true },
]
"""
SELECTION = """[selection]
keep = "blue > 0"
quantiles = [0.02, 0.98]
blank = [ { tokens = ["mass"], where = "bad == 1" } ]
"""


def table(rows: int = 900, seed: int = 0) -> pa.Table:
    """Masses that a spectrum and a colour tell, with holes."""
    rng = np.random.default_rng(seed)
    mass = rng.normal(1.2, 0.3, rows)
    spectrum = np.stack([mass, mass**2, rng.normal(size=rows), rng.normal(size=rows)], 1)
    spectrum += 0.05 * rng.normal(size=spectrum.shape)
    columns = {"source_id": np.arange(rows) + 10**16, "blue": 5 + mass, "red": 4 + 0.1 * rng.normal(size=rows),
               "mass": np.where(rng.random(rows) < 0.3, np.nan, mass), "mass_err": np.full(rows, 0.05),
               "n": rng.integers(2, 5, rows), "bad": (rng.random(rows) < 0.1).astype(int)}  # fmt: skip
    columns["blue"][:50] = -1.0
    arrays = {k: pa.array(v) for k, v in columns.items()}
    arrays["spectrum"] = pa.FixedSizeListArray.from_arrays(pa.array(spectrum.ravel()), 4)
    return pa.table(arrays)


@pytest.fixture
def files(tmp_path):
    """(table, recipe with selection, plain recipe)."""
    write(table(), tmp_path / "t.parquet", rows=500)
    (tmp_path / "cut.toml").write_text(RECIPE + SELECTION)
    (tmp_path / "plain.toml").write_text(RECIPE)
    return tmp_path / "t.parquet", tmp_path / "cut.toml", tmp_path / "plain.toml"


def train(inside, source, recipe, output, *more):
    """(stderr, about) of a short training."""
    code, out, err = inside("train", "ask", source, "--recipe", recipe, "--preset", "tiny", "--epochs", 3, "-o", output,
                            *more)  # fmt: skip
    assert (code, out) == (0, ""), err
    return err, artefact.about(output)


def test_a_table_with_holes_becomes_a_model_that_answers(inside, files, tmp_path):
    source, _, recipe = files
    err, about = train(inside, source, recipe, tmp_path / "m.safetensors", "--epochs", 12)
    assert "no columns for absent (nowhere): not trained" in err and "mass" in err and "total pull" in err
    assert about.kind == "ask" and about.shape["sizes"]["dim"] == 16
    m = about.metrics["labels"]["mass"]
    assert 150 < about.training["rows"] / 5 < 170 and m["mad_std"] < 0.25
    assert 0.3 < m["total_pull"] < 1.6  # the labels of this table are better than their errors say
    assert {"nll", "crps", "error", "total_error"} <= set(m)
    assert "absent" not in about.domain and about.domain["colour"][1] > 1
    new = table(400, 1)
    step = xptools.op(f"ask mass --model {tmp_path / 'm.safetensors'} --replace")
    out = step(new.drop_columns(["mass", "mass_err"]).to_batches()[0])
    truth, got = np.asarray(new["blue"]) - 5, out.column(out.schema.get_field_index("mass")).to_numpy()
    assert np.corrcoef(truth[50:], got[50:])[0, 1] > 0.8
    with pytest.raises(artefact.DataError, match="not for xp feh"):
        artefact.load(tmp_path / "m.safetensors", "feh")


def test_the_selection_keeps_and_blanks(inside, files, tmp_path):
    source, recipe, _ = files
    err, about = train(inside, source, recipe, tmp_path / "m.safetensors", "-v", "--head", "mixture")
    assert "850 rows left: selection of" in err and "rows left: coefficients within their quantiles" in err
    assert about.training["rows"] + about.training["held_rows"] < 820
    assert about.shape["sizes"]["components"] == 4
    lines = [json.loads(line) for line in err.splitlines() if line.startswith("{")]
    assert [line["epoch"] for line in lines] == [0, 1, 2] and all(np.isfinite(line["score"]) for line in lines)
    step = xptools.op(f"ask mass --model {tmp_path / 'm.safetensors'} --joint 5 --replace")
    out = step(table(30, 2).to_batches()[0], True)
    assert np.isfinite(out.column(out.schema.get_field_index("mass_samples")).flatten().to_numpy()).all()


def test_a_killed_training_goes_on_to_the_same_result(inside, files, tmp_path, monkeypatch):
    source, _, recipe = files
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    monkeypatch.setattr(checkpoint, "SECONDS", 0.0)
    output = tmp_path / "m.safetensors"
    train(inside, source, recipe, output)
    whole = output.read_bytes()
    output.unlink()
    score, calls = AskLearner.score, []

    def dying(self, rows):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return score(self, rows)

    monkeypatch.setattr(AskLearner, "score", dying)
    words = ("train", "ask", source, "--recipe", recipe, "--preset", "tiny", "--epochs", 3, "-o", output)
    assert inside(*words)[0] == 130 and not output.exists()
    assert (tmp_path / "m.safetensors.checkpoint").exists()
    monkeypatch.setattr(AskLearner, "score", score)
    code, _, err = inside(*words, "--rate", 1e-4)
    assert code == 65 and "another training: other rate." in err
    err, _ = train(inside, source, recipe, output)
    assert "goes on after epoch 2" in err
    assert output.read_bytes() == whole and not (tmp_path / "m.safetensors.checkpoint").exists()


def test_labels_that_cannot_be_trained_are_named(inside, files, tmp_path):
    source, _, recipe = files
    lines = "".join(f'  {{ name = "{n}", value = "{n}", ask = true }},\n' for n in ("few", "same", "mostly"))
    recipe.write_text(recipe.read_text().replace("]\n", f"{lines}]\n"))
    few, mostly = np.full(900, np.nan), np.zeros(900)
    few[:20], mostly[::3] = np.arange(20), np.asarray(table()["blue"])[::3]
    more = table().append_column("few", pa.array(few)).append_column("same", pa.array(np.full(900, 0.1)))
    write(more.append_column("mostly", pa.array(mostly)), source, rows=500)
    err, about = train(inside, source, recipe, tmp_path / "m.safetensors")
    assert "not trained: few (20 known of 900 stars; at least 50), same (all the same)\n" in err
    assert set(about.metrics["labels"]) == {"mass", "mostly"} and not {"few", "same"} & set(about.domain)


def test_a_table_without_labels_trains_to_the_end(inside, files, tmp_path):
    source, _, recipe = files
    write(table().drop_columns(["mass", "mass_err"]), source, rows=500)
    err, about = train(inside, source, recipe, tmp_path / "m.safetensors")
    assert "no label (ask = true) is trained: nothing to tell" in err and "1.48 MAD" not in err
    assert about.metrics["labels"] == {} and "colour" in about.domain and "mass" not in about.domain
    step = xptools.op(f"ask colour --model {tmp_path / 'm.safetensors'} --replace")
    out = step(table(30, 2).to_batches()[0])
    assert np.isfinite(out.column(out.schema.get_field_index("colour")).to_numpy()).all()
    write(table().select(["source_id", "mass"]).set_column(1, "mass", pa.array(np.ones(900))), source, rows=500)
    code, _, err = inside("train", "ask", source, "--recipe", recipe, "-o", tmp_path / "n.safetensors")
    assert code == 65 and "mass (all the same)" in err and "no number of the recipe can be trained" in err


def test_too_few_held_out_stars_are_told_of(inside, files, tmp_path):
    source, _, recipe = files
    err, about = train(inside, source, recipe, tmp_path / "m.safetensors", "--held", 0.03)
    assert about.metrics["labels"] == {} and "1.48 MAD" not in err
    assert re.search(r"too few held-out stars to tell anything of mass \((\d|1\d)\): 20 that know it", err)


def test_numbers_that_stand_for_unknown_ones_are_taken_as_unknown(files, monkeypatch):
    from xptools.commands import _ask_sample as part

    source, recipe, _ = files
    monkeypatch.setattr(part, "ROWS", 64)
    said, wrong = [], table()
    mass, red = np.asarray(wrong["mass"]).copy(), np.asarray(wrong["red"]).astype(np.float32)
    mass[100:400], mass[400:420], red[500:530] = -9999, -999, -9999.99
    for name, column in (("mass", mass), ("red", red)):
        wrong = wrong.set_column(wrong.column_names.index(name), name, pa.array(column))
    write(wrong, source, rows=500)
    recipe.write_text(recipe.read_text().replace("quantiles", "# quantiles"))  # only the keep and the blank rule
    found, rows, kept, origin = part.sample(str(source), part.Recipe(str(recipe)), None, 200, said.append)
    words = "taken as unknown, for it is far from all other values"
    assert f"xp train ask: column mass: {words}: -9999 (" in said[-1] and "-999 (20 times)" in said[-1]
    assert said[-2] == f"xp train ask: column red: {words}: -9999.99 (30 times)" and "absent" in said[-3]
    assert len(rows) == 850 and [line for line, _ in origin.flow[-2:]] == [line[14:] for line in said[-2:]]
    tokens = part.Recipe(str(recipe)).vocabulary.tokens
    colour, mass = (tokens.index(name) for name in ("colour", "mass"))
    assert np.isnan(found.values[50:370, mass]).all() and np.isnan(found.values[450:480, colour]).all()
    assert np.isfinite(found.values[[*range(450), *range(480, 850)], colour]).all()
    assert 0 < kept["low"][mass] and kept["high"][mass] < 3 and kept["spread"][mass] < 2 < kept["spread"][colour] < 4


def test_standards_of_rare_and_of_repeated_numbers():
    rng = np.random.default_rng(0)
    values = rng.normal(5, 2, (3000, 5)).astype(np.float32)
    rare = rng.permutation(3000)[:80]  # a tenth of the rows has about 8 of them
    values[np.setdiff1d(np.arange(3000), rare), 1] = np.nan
    values[:2000, 2] = 7.0
    values[:, 3] = 0.1
    values[40:, 4] = np.nan
    centre, scale, usable = standards(values, 300)
    assert usable.tolist() == [True, True, True, False, False] and centre[2] == 7.0
    assert centre[1] == np.median(values[rare, 1].astype(float))
    np.testing.assert_allclose(scale, [2, 2, np.std(values[:, 2]), 1, 1], rtol=0.4)


def test_a_rule_for_tokens_that_are_not_trained_needs_no_columns(files):
    from xptools.commands._ask_sample import Recipe, Tokens
    from xptools.errors import MissingColumns

    _, recipe, _ = files
    rule = '  { tokens = ["absent"], where = "ruwe > 1.4" },\n'
    recipe.write_text(recipe.read_text().replace("blank = [ ", f"blank = [\n{rule} "))
    schema = table(10).schema
    assert [list(tokens) for tokens, _ in Tokens(schema, Recipe(recipe), None, ()).blank] == [[5]]
    recipe.write_text(recipe.read_text().replace('["absent"]', '["absent", "mass"]'))
    with pytest.raises(MissingColumns, match="ruwe"):
        Tokens(schema, Recipe(recipe), None, ())


def test_wrong_recipes_say_so(inside, files, tmp_path):
    source, _, plain = files
    cases = {
        "none.toml": (None, 66, "none.toml"),
        "broken.toml": ("tokens = [", 65, "not TOML"),
        "empty.toml": ("", 65, "or none"),
        "key.toml": ('tokens = [{ name = "a", value = "a", wide = 3 }]', 65, "'wide'"),
        "other.toml": ('tokens = [{ name = "a", value = "elsewhere" }]', 65, "elsewhere missing"),
        "blank.toml": (plain.read_text() + '[selection]\nblank = [{ tokens = ["x"], where = "n > 1" }]', 65, "'x'"),
        "unit.toml": ('tokens = [{ name = "a", value = "mass", unit = "parsnip" }]', 65, "'parsnip' is no unit"),
        "type.toml": ('tokens = [{ name = "a", value = 3 }]', 65, "no str"),
        "list.toml": ("tokens = 3", 65, "list of tables"),
        "half.toml": (plain.read_text() + '[selection]\nblank = [{ tokens = ["mass"] }]', 65, "tokens and where"),
        "share.toml": (plain.read_text() + "[selection]\nquantiles = [3, 98]", 65, "two numbers"),
        "typo.toml": (plain.read_text() + '[selection]\nkep = "bad == 0"', 65, "selection is not"),
        "keep.toml": (plain.read_text() + '[selection]\nkeep = "quality > 1"', 65, "quality missing"),
    }
    for name, (text, code, word) in cases.items():
        if text is not None:
            (tmp_path / name).write_text(text)
        got, _, err = inside("train", "ask", source, "--recipe", tmp_path / name, "-o", tmp_path / "m.safetensors")
        assert (got, word in err) == (code, True), (name, err)
    code, _, err = inside("train", "ask", source, "--recipe", plain, "--where", "blue > 99", "-o", tmp_path / "m.s")
    assert code == 65 and "fewer than" in err
    code, _, err = inside("train", "ask", source, "--recipe", plain, "--components", 8, "-o", tmp_path / "m.s")
    assert code == 2 and "--head mixture" in err


@pytest.mark.parametrize(("name", "tokens"), [("lb23", 118), ("distmass", 120), ("giants", 119)])
def test_the_shipped_recipes_are_whole(name, tokens):
    from xptools.commands._ask_sample import Recipe

    recipe = Recipe(name)
    assert len(recipe.vocabulary.tokens) == tokens
    if name != "giants":
        assert recipe.quantiles == [0.002, 0.998] and "starflag" in recipe.keep
        assert sum(len(t) for t, _ in recipe.blank) == (4 if name == "lb23" else 6)
