"""Model files: self-describing, read by any safetensors reader, whole or absent, refused when wrong."""

import json
import os
import stat

import numpy as np
import pytest

from xptools import artefact
from xptools.errors import DataError, DiskError, InputError, OutputError

ABOUT = artefact.About(
    kind="mass",
    inputs=[{"name": "mg0", "unit": "mag"}],
    outputs=[{"name": "mass", "unit": "solMass"}],
    shape={"hidden": [4]},
    training={"seed": 1},
    metrics={"rms": 0.01},
    domain={"mg0": [3.0, 15.0]},
)
ARRAYS = {"net.0.w": np.arange(6, dtype=np.float32).reshape(2, 3), "norm.mean": np.array([1.0]), "n": np.array([1, 2])}


@pytest.fixture
def model(tmp_path):
    artefact.save(tmp_path / "m.safetensors", ABOUT, ARRAYS)
    return tmp_path / "m.safetensors"


def test_round_trip_to_the_bit(model):
    got = artefact.load(model, "mass")
    assert got.about == ABOUT
    assert set(got.arrays) == set(ARRAYS)
    for name, a in ARRAYS.items():
        assert got.arrays[name].dtype == a.dtype and got.arrays[name].tobytes() == a.tobytes()


def test_any_safetensors_reader_opens_it(model):
    from safetensors import safe_open

    with safe_open(str(model), "np") as f:
        assert set(f.keys()) == set(ARRAYS)
        assert json.loads(f.metadata()["xptools"])["kind"] == "mass"


def test_torch_reads_the_same_bits(model):
    torch = pytest.importorskip("safetensors.torch")
    assert (torch.load_file(str(model))["net.0.w"].numpy() == ARRAYS["net.0.w"]).all()


def test_about_reads_the_header_only(model, monkeypatch):
    monkeypatch.setattr("safetensors.numpy.load_file", lambda *_: pytest.fail("read the arrays"))
    assert artefact.about(model) == ABOUT


def test_description_is_a_mapping_too(model):
    told = {**artefact.about(model)}
    assert told["kind"] == "mass" and "format" not in told and told["domain"] == {"mg0": [3.0, 15.0]}


def test_same_content_same_bytes(model, tmp_path):
    artefact.save(tmp_path / "n.safetensors", ABOUT, dict(reversed(ARRAYS.items())))
    assert (tmp_path / "n.safetensors").read_bytes() == model.read_bytes()


def test_another_kind_is_refused_by_name(model):
    with pytest.raises(DataError, match=r"model for xp mass, not for xp eta.*TRY: xp train eta"):
        artefact.load(model, "eta")


EIGHT = b"\0\0\0\0\0\0\0"


@pytest.mark.parametrize(
    "raw", [b"", b"PAR1 something", b"\xff" * 100, b"\x02" + EIGHT + b"[]", b"\x05" + EIGHT + b"hello"]
)
def test_other_files_are_no_models(tmp_path, raw):
    (tmp_path / "x").write_bytes(raw)
    with pytest.raises(DataError, match="not a model file"):
        artefact.about(tmp_path / "x")


def test_truncated_foreign_and_other_format(model, tmp_path):
    raw = model.read_bytes()
    (tmp_path / "short").write_bytes(raw[:-3])
    with pytest.raises(DataError, match=f"cut short: {len(raw) - 3} of {len(raw)}"):
        artefact.load(tmp_path / "short", "mass")
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(2)}, str(tmp_path / "foreign"))
    with pytest.raises(DataError, match="not written by xp"):
        artefact.about(tmp_path / "foreign")
    save_file({"a": np.zeros(2)}, str(tmp_path / "later"), metadata={"xptools": json.dumps({"format": 99})})
    with pytest.raises(DataError, match="format 99, this xp reads 1"):
        artefact.about(tmp_path / "later")
    with pytest.raises(InputError, match="cannot open the model"):
        artefact.about(tmp_path / "absent")


def test_written_whole_or_not_at_all(model, tmp_path):
    before = model.read_bytes()
    with pytest.raises(ValueError):
        artefact.save(model, artefact.About("mass", [], [], metrics={"rms": float("nan")}), ARRAYS)
    assert model.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]
    with pytest.raises(OutputError, match="cannot write the model"):
        artefact.save(tmp_path / "no" / "m.safetensors", ABOUT, ARRAYS)
    with pytest.raises(DiskError, match="No space left"):
        artefact.save("/dev/full", ABOUT, ARRAYS)
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(model.stat().st_mode) == 0o666 & ~mask


def test_a_device_is_written_in_place():
    artefact.save("/dev/null", ABOUT, ARRAYS)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
