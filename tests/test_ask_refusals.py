"""What `xp ask` cannot answer or take it says: by a small model of a table with labels that hardly any star has."""

import numpy as np
import pyarrow as pa
import pytest
from tables import write

import xptools
from xptools.cores.ask_vocabulary import Vocabulary
from xptools.errors import DataError, UsageError

RECIPE = """tokens = [
  { name = "bp", value = "c", relevant = "n", width = 6, per_flux = true, group = "bp" },
  { name = "colour", value = "blue - red", unit = "mag" },
  { name = "Vr", value = "Speed", unit = "km/s", ask = true },
  { name = "mass", value = "mass", error = "mass_err", unit = "solMass", ask = true },
  { name = "rare", value = "rare", ask = true },
  { name = "same", value = "same", ask = true },
  { name = "absent", value = "nowhere - red", ask = true },
]
"""


def table(rows: int = 900, seed: int = 0, width: int = 6) -> pa.Table:
    """Spectra of stars of G = 15, their colours, speeds and masses; few stars have `rare`, all the same `same`."""
    rng = np.random.default_rng(seed)
    mass, flux = rng.normal(1.2, 0.3, rows), 10 ** ((25.6873668671 - 15.0) / 2.5)
    spectra = flux * (mass[:, None] + rng.normal(size=(rows, width)))
    columns = {"source_id": np.arange(rows) + 10**16, "blue": 5 + mass, "red": 4 + 0.1 * rng.normal(size=rows),
               "Speed": 10 * mass, "mass": mass, "mass_err": np.full(rows, 0.05),
               "rare": np.where(np.arange(rows) < 5, mass, np.nan), "same": np.ones(rows),
               "n": rng.integers(2, 5, rows), "phot_g_mean_mag": np.full(rows, 15.0)}  # fmt: skip
    arrays = {k: pa.array(v) for k, v in columns.items()}
    return pa.table({**arrays, "c": pa.FixedSizeListArray.from_arrays(pa.array(spectra.ravel()), width)})


@pytest.fixture(scope="module")
def model(xp, tmp_path_factory):
    """A model file that was not taught the orders from 4 on, `rare`, `same` and `absent`."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "mine.toml").write_text(RECIPE)
    done = xp("train", "ask", write(table(), folder / "t.parquet"), "--recipe", folder / "mine.toml", "--preset",
              "tiny", "--epochs", 1, "-q", "-o", folder / "m.safetensors")  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "m.safetensors"


def changed(given: pa.Table, name: str, values) -> pa.Table:
    return given.set_column(given.schema.get_field_index(name), name, pa.array(values))


def asked(line: str, model, given: pa.Table) -> pa.Table:
    out = xptools.op(f"ask {line} --model {model} --suffix _x")(given.to_batches()[0])
    return pa.Table.from_batches([out])


@pytest.mark.parametrize("name", ["Vr", "vr", "VR", "Speed", "speed"])
def test_capitals_of_a_name_do_not_matter(model, name):
    few = table(40, 1)
    want = asked("Vr --context colour,c", model, few)["Vr_x"].to_numpy()
    assert np.isfinite(want).all()
    np.testing.assert_array_equal(asked(f"{name} --context COLOUR,Bp", model, few)["Vr_x"].to_numpy(), want)
    shown = asked(f"mass --given {name}", model, few)
    assert set(shown["ask_flag"].to_pylist()) <= {0, 2, 4, 6} and np.ptp(shown["mass_x"].to_numpy()) > 0


@pytest.mark.parametrize("line", ["rare", "mass same", "absent", "mass rare --joint 3", "mass --given rare",
                                  "mass --given bp[4:6]", "mass --context same"])  # fmt: skip
def test_what_was_not_taught_is_neither_answered_nor_shown(model, line):
    word = next(w for w in ("rare", "same", "absent", "bp[4:6]") if w in line)
    with pytest.raises(UsageError) as refused:
        asked(line, model, table(40, 1))
    told = str(refused.value)
    assert f"not taught '{word}'" in told and str(model) in told and "TRY: one of c, colour, Vr, mass; or" in told


def test_the_refusal_of_a_label_has_its_exit_code(model, inside, tmp_path):
    words = ("ask", "rare", "--model", model, write(table(40, 1), tmp_path / "t.parquet"), "-o", tmp_path / "o.parquet")
    code, out, err = inside(*words)
    assert (code, out) == (2, "") and err.startswith("xp ask: error: the model was not taught 'rare'")
    assert not (tmp_path / "o.parquet").exists()


def test_what_was_not_taught_may_be_hidden_and_is_no_label(model):
    few = table(40, 1)
    out = asked("", model, few)
    assert {"Vr_x", "mass_x"} < set(out.schema.names) and not {"rare_x", "same_x", "absent_x"} & set(out.schema.names)
    plain, hidden = (asked(f"mass {more} --explain", model, few) for more in ("", "--context -rare,-same"))
    made = [n for n in plain.schema.names if n not in few.schema.names]
    assert plain.select(made).to_pydict() == hidden.select(made).to_pydict()
    assert "mass_x_loss_rare" not in plain.schema.names


def test_coefficients_that_were_not_taught_are_their_scatter(model):
    out = asked("c --given mass", model, table(40, 1))
    value, error = (np.stack(out[n].to_numpy()) for n in ("c_x", "c_err_x"))
    assert (value[:, 4:] == 0).all() and (value[:, :4] != 0).all()
    rms = np.sqrt(np.mean(np.stack(table()["c"].to_numpy())[:, 4:] ** 2, 0))
    np.testing.assert_allclose(error[:, 4:], np.tile(rms, (40, 1)), rtol=1e-3)


def lacking(line, model, given) -> np.ndarray:
    return asked(line, model, given)["ask_flag"].to_numpy() & 16 > 0


def test_a_given_array_of_which_no_order_asked_for_is_known_is_lacking(model):
    few, n = table(40, 1), np.arange(40) % 5
    some = changed(few, "n", n)
    np.testing.assert_array_equal(lacking("mass --given bp[2:4]", model, some), n <= 2)
    np.testing.assert_array_equal(lacking("mass --given bp[2:4],c[0:1]", model, some), n == 0)
    np.testing.assert_array_equal(lacking("mass --given c,colour", model, some), n == 0)
    first = np.stack(few["c"].to_numpy())
    first[:, 0] = np.nan
    holed = changed(few, "c", pa.FixedSizeListArray.from_arrays(pa.array(first.ravel()), 6))
    assert not lacking("mass --given c", model, holed).any() and lacking("mass --given c[0:1]", model, holed).all()
    faint = changed(few, "phot_g_mean_mag", np.where(n > 2, np.nan, 15.0))
    np.testing.assert_array_equal(lacking("mass --given c", model, faint), n > 2)
    np.testing.assert_array_equal(lacking("mass --given colour", model, changed(few, "red", [*n[:39] * 0.1, None])),
                                  np.arange(40) == 39)  # fmt: skip
    assert not lacking("mass --context bp[2:4]", model, changed(few, "n", np.zeros(40))).any()


@pytest.mark.parametrize(
    ("column", "value"),
    [("red", 1e39), ("red", -np.inf), ("red", 1e30), ("c", 1e45), ("c", 1e300), ("c", -np.inf),
     ("phot_g_mean_mag", 99.0), ("phot_g_mean_mag", -999.0), ("phot_g_mean_mag", np.inf)],
)  # fmt: skip
def test_what_no_network_can_take_is_left_out_and_flagged(model, column, value):
    """Of some stars only, whose neighbours' answers stay as they are; where it is not shown it does not matter."""
    few, bad = table(40, 1), np.arange(40) % 4 == 0
    old = np.stack(few[column].to_numpy())
    new = np.where(bad.reshape(-1, *[1] * (old.ndim - 1)), value, old)
    wrong = changed(few, column, pa.FixedSizeListArray.from_arrays(pa.array(new.ravel()), 6) if column == "c" else new)
    shown, other = ("c", "colour") if column != "red" else ("colour", "c")
    whole, spoilt = (asked(f"mass --context {shown}", model, t) for t in (few, wrong))
    flag, before = (t["ask_flag"].to_numpy() for t in (spoilt, whole))
    assert (flag[bad] & 2 == 2).all()
    np.testing.assert_array_equal(flag[~bad], before[~bad])
    np.testing.assert_array_equal(spoilt["mass_x"].to_numpy()[~bad], whole["mass_x"].to_numpy()[~bad])
    if abs(value) > 1e38 or column == "phot_g_mean_mag":
        gone = asked(f"mass --context {shown}", model, changed(few, column, pa.nulls(40, few[column].type)))
        np.testing.assert_array_equal(spoilt["mass_x"].to_numpy()[bad], gone["mass_x"].to_numpy()[bad])
        assert (flag[bad] == 3).all()
    clean, unseen = (asked(f"mass --context {other}", model, t)["ask_flag"].to_pylist() for t in (few, wrong))
    assert clean == unseen


def test_spectra_for_a_magnitude_that_no_star_has_are_flagged(model):
    few = table(40, 1)
    for value, bit in ((15.0, 0), (np.nan, 0), (99.0, 2), (np.inf, 2)):
        out = asked("c --given mass", model, changed(few, "phot_g_mean_mag", np.full(40, value)))
        assert (out["ask_flag"].to_numpy()[:10] & 2 == bit).mean() > 0.8, value
        assert np.isfinite(np.stack(out["c_x"].to_numpy())).all()


@pytest.mark.parametrize("width", [5, 7])
def test_arrays_of_another_length_are_refused(model, width):
    with pytest.raises(DataError, match=f"column c has {width} numbers, the model's vocabulary expects 6"):
        asked("mass", model, table(40, 1, width))


@pytest.mark.parametrize(("values", "errors", "name"), [(5, 6, "c"), (6, 5, "c_err"), (6, 7, "c_err"), (7, 7, "c")])
def test_a_vocabulary_takes_values_and_errors_of_its_width_only(values, errors, name):
    v = Vocabulary.of([{"name": "c", "value": "c", "error": "c_err", "width": 6}])
    with pytest.raises(DataError, match=f"column {name} has [57] numbers, the model's vocabulary expects 6"):
        v.read({"c": np.ones((0, values)), "c_err": np.ones((0, errors))}, 0)


def test_an_array_that_no_star_of_a_batch_has_is_unknown(model):
    few = table(40, 1)
    want = asked("mass --context c,colour", model, changed(few, "c", pa.nulls(40, pa.list_(pa.float64(), 6))))
    for kind in (pa.list_(pa.float64()), pa.null()):
        got = asked("mass --context c,colour", model, changed(few, "c", pa.nulls(40, kind)))
        assert got.select(want.schema.names[-4:]) == want.select(want.schema.names[-4:])
