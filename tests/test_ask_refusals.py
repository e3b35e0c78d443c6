"""What `xp ask` cannot answer or take it says: by a small model of a table with labels that hardly any star has."""

import numpy as np
import pyarrow as pa
import pytest
from tables import write

import xptools

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
    """Spectra over the flux of G = 15, colours, speeds and masses of them; few stars have `rare`, all the same `same`."""
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
