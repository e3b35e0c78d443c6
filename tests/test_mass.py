"""`xp mass`: columns, errors, flags and sentences through the real program and from Python."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import xptools
from xptools import artefact
from xptools.cores import sequence
from xptools.errors import DataError


def table(n=500, seed=1, **more):
    rng = np.random.default_rng(seed)
    mass, mh = rng.uniform(0.15, 0.7, n), rng.uniform(-2, 0, n)
    M_G, colour = sequence.absolute(mass, mh, 10.0)
    columns = {"mg0": M_G.astype(np.float32), "bp_rp0": colour.astype(np.float32), "true_mass": mass, "feh": mh}
    return pa.table({"source_id": np.arange(n), **columns, **more})


def batch(t):
    return t.combine_chunks().to_batches()[0]


@pytest.fixture(scope="module")
def small_model(tmp_path_factory, xp):
    """A three-input model, trained in a second."""
    path = tmp_path_factory.mktemp("model") / "feh.safetensors"
    done = xp("train", "mass", "--feh-input", "--points", 4000, "--epochs", 20, "--hidden", "16,16", "--batch", 512,
              "--rate", 0.01, "--ages", "10", "-o", path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return path


def test_masses_come_back_through_the_program(xp, tmp_path):
    pq.write_table(table(), tmp_path / "in.parquet")
    done = xp("mass", tmp_path / "in.parquet", "-o", tmp_path / "out.parquet")
    assert done.returncode == 0, done.stderr
    out = pq.read_table(tmp_path / "out.parquet")
    assert out.schema.names[-5:] == ["mass", "mass_err", "mh_phot", "mh_phot_err", "mass_flag"]
    assert np.abs(out["mass"].to_numpy() - out["true_mass"].to_numpy()).max() < 0.05
    assert out.schema.field("mass").metadata[b"unit"] == b"solMass"


def test_errors_are_used_if_there(tmp_path):
    n = 100
    plain = xptools.op("mass")(batch(table(n)))
    noisy = xptools.op("mass")(batch(table(n, mg0_err=np.full(n, 0.1, np.float32))))
    assert (noisy["mass_err"].to_numpy() > plain["mass_err"].to_numpy()).all()
    assert noisy["mass"].equals(plain["mass"])


def test_null_nan_and_infinite_rows():
    n = 6
    t = table(n)
    mg0 = pa.array([5.0, None, np.nan, np.inf, 3.5, 8.0], pa.float32())
    t = t.set_column(t.schema.get_field_index("mg0"), "mg0", mg0)
    t = t.set_column(t.schema.get_field_index("bp_rp0"), "bp_rp0", pa.array([0.9, 1, 1, 1, 0.6, 1.5], pa.float32()))
    out = xptools.op("mass")(batch(t))
    assert [x & 7 for x in out["mass_flag"].to_pylist()] == [0, 4, 4, 4, 1, 0]
    unknown = np.isnan(out["mass"].to_numpy(zero_copy_only=False))
    assert unknown.tolist() == [False, True, True, True, False, False]


def test_alpha_enhancement_moves_the_comparison():
    n = 50
    t = table(n)
    shifted = t.set_column(t.schema.get_field_index("feh"), "feh", pa.array(t["feh"].to_numpy() - 0.65))
    scaled = xptools.op("mass")(batch(shifted))["mass_flag"].to_numpy()
    enhanced = xptools.op("mass --alpha-fe 0.4")(batch(shifted))["mass_flag"].to_numpy()
    assert (scaled & 8).sum() > (enhanced & 8).sum()


def test_model_with_metallicity_input(small_model):
    step = xptools.op(f"mass --model {small_model}")
    out = step(batch(table(200)))
    assert "mh_phot" not in out.schema.names and out.schema.names[-3:] == ["mass", "mass_err", "mass_flag"]
    assert np.abs(out["mass"].to_numpy() - out["true_mass"].to_numpy()).mean() < 0.05
    with pytest.raises(DataError, match="feh"):
        step(batch(table(5).drop_columns("feh")))


def test_missing_columns_name_the_command_that_makes_them(xp, tmp_path):
    gaia = {"phot_g_mean_mag": [15.0], "parallax": [5.0], "bp_rp": [1.0]}
    pq.write_table(pa.table(gaia), tmp_path / "gaia.parquet")
    done = xp("mass", tmp_path / "gaia.parquet", "-o", tmp_path / "o.parquet")
    assert done.returncode == 65 and b"mg0" in done.stderr and b"xp deredden --map none" in done.stderr
    assert not (tmp_path / "o.parquet").exists()


def test_wrong_models_are_refused(xp, tmp_path):
    pq.write_table(table(5), tmp_path / "in.parquet")
    eta = artefact.About("eta", [], [])
    artefact.save(tmp_path / "eta.safetensors", eta, {"a": np.zeros(1)})
    for model, code, words in (
        (tmp_path / "eta.safetensors", 65, b"model for xp eta, not for xp mass"),
        (tmp_path / "in.parquet", 65, b"not a model file"),
        (tmp_path / "absent", 66, b"cannot open the model"),
    ):
        done = xp("mass", "--model", model, tmp_path / "in.parquet", "-o", tmp_path / "o.parquet")
        assert done.returncode == code and words in done.stderr and b"TRY:" in done.stderr


def test_history_names_the_model(xp, tmp_path):
    pq.write_table(table(5), tmp_path / "in.parquet")
    assert xp("mass", tmp_path / "in.parquet", "-o", tmp_path / "o.parquet").returncode == 0
    meta = pq.read_schema(tmp_path / "o.parquet").metadata
    text = b" ".join(meta.values()).decode(errors="replace")
    assert "mass_default.safetensors" in text and "sha256" in json.dumps(text)


def test_real_stars_within_100_pc(shared_data):
    """12,366 real stars: most of those on the main sequence get a mass, and the masses fall with M_G."""
    import pyarrow.csv as csv

    t = csv.read_csv(shared_data / "gaia" / "gaia_100pc_12k.csv")
    names = {n.lower(): n for n in t.schema.names}
    G, parallax = (t[names[n]].to_numpy(zero_copy_only=False).astype(float) for n in ("phot_g_mean_mag", "parallax"))
    colour = t[names["bp_rp"]].to_numpy(zero_copy_only=False).astype(float)
    M_G = G + 5 * np.log10(parallax / 100)
    stars = pa.table({"mg0": M_G.astype(np.float32), "bp_rp0": colour.astype(np.float32)})
    out = xptools.op("mass")(batch(stars))
    flag, mass = out["mass_flag"].to_numpy(), out["mass"].to_numpy(zero_copy_only=False)
    good = (flag & 7) == 0
    assert 0.5 < good.mean() < 0.98
    assert 0.08 < np.nanmin(mass[good]) and np.nanmax(mass[good]) < 1.3
    medians = [np.median(mass[good & (M_G > m) & (M_G < m + 1)]) for m in range(5, 13)]
    assert (np.diff(medians) < 0).all()
