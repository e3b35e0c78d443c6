"""`xp plot vae`: the numbers beside each figure are what the tables say."""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tables import read

from xptools import artefact

sys.path.insert(0, str(Path(__file__).parent))
import vae_toy as toy

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Two latents, a label that is their sum, residuals of unit spread about 0.5."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(4000, 2)).astype("f4")
    R = rng.normal(0.5, 1, (4000, 110))
    R[:, 3] = np.nan
    columns = {"z1": z[:, 0], "z2": z[:, 1], "label": z.sum(1)}
    bands = {"bp_residuals": toy.wide(R[:, :55]), "rp_residuals": toy.wide(R[:, 55:])}
    path = tmp_path_factory.mktemp("plot") / "t.parquet"
    pq.write_table(pa.table({**columns, **bands}), path)
    return path


def drawn(inside, *words):
    code, _, err = inside("plot", "vae", *words)
    assert code == 0, err
    out = Path(words[-1])
    assert out.read_bytes()[:4] == b"\x89PNG"
    return {k: np.array(v) for k, v in read(f"{out}.parquet").to_pydict().items()}


def test_latents(inside, table, tmp_path):
    numbers = drawn(inside, table, "--colour", "label", "-o", tmp_path / "f.png")
    assert numbers["n"].sum() > 0.97 * 4000
    assert np.abs(numbers["value"] - numbers["x"] - numbers["y"]).max() < 0.15


def test_residuals(inside, table, tmp_path):
    numbers = drawn(inside, "--kind", "residuals", table, "-o", tmp_path / "f.png")
    assert len(numbers["x"]) == 109 and 4 not in numbers["x"][numbers["part"] == "bp"]
    assert np.abs(numbers["y"] - 0.5).max() < 0.1 and np.abs(numbers["hi"] - numbers["lo"] - 2).max() < 0.2


def test_curve(inside, tmp_path):
    told = artefact.About("vae", [], [], training={"curve": [[0, 5.0, 4.0], [1, 3.0, 2.5]]})
    artefact.save(tmp_path / "m.safetensors", told, {"x": np.zeros(1)})
    other = pa.table({"epoch": [0, 1, 2], "loss": [1.0, 0.5, 0.2], "score": [2.0, 1.0, 0.9]})
    pq.write_table(other, tmp_path / "o.parquet")
    line = ("--kind", "curve", "--background", tmp_path / "o.parquet", tmp_path / "m.safetensors")
    numbers = drawn(inside, *line, "-o", tmp_path / "f.png")
    assert numbers["y"].tolist() == [5, 3, 4, 2.5, 1, 0.5, 0.2, 2, 1, 0.9]
    assert numbers["x"].tolist() == [1, 2, 1, 2, 1, 2, 3, 1, 2, 3]


def test_what_cannot_be_drawn(inside, table, tmp_path):
    out = ("-o", tmp_path / "f.png")
    assert inside("plot", "vae", "--background", table, table, *out)[0] == 2
    code, _, err = inside("plot", "vae", "--colour", "nothing", table, *out)
    assert code == 65 and "nothing" in err
    artefact.save(tmp_path / "m.safetensors", artefact.About("vae", [], []), {"x": np.zeros(1)})
    code, _, err = inside("plot", "vae", "--kind", "curve", tmp_path / "m.safetensors", *out)
    assert code == 65 and "no learning curve" in err
