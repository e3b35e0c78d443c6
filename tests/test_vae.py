"""`xp vae`: what it adds, its draws, the way back from latents, the ranking of latents, flags and wrong inputs."""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.stats import kstest
from tables import read

import xptools
from xptools import artefact
from xptools.cores import vae, vae_fit, vae_fitting, vae_inspect
from xptools.errors import DataError, MissingColumns, UsageError

sys.path.insert(0, str(Path(__file__).parent))
import vae_toy as toy


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A toy's model file: not trained, but a network all the same."""
    arrays = vae.init(4, toy.K, (16, 8), 2)
    held = vae_fitting.Sample.of(*(a.astype("f4") for a in toy.sample(400, 1)[1:]))
    norms = {"norm.mean": np.full(toy.K, 0.1), "norm.scale": np.full(toy.K, 0.7)}
    arrays, metrics, domain = vae_fitting.finished(arrays, norms, held, 0)
    shape = {"hidden": [16, 8], "latents": 2, "bands": list(toy.BANDS)}
    path = tmp_path_factory.mktemp("vae") / "m.safetensors"
    artefact.save(path, artefact.About("vae", [], [], shape, {}, metrics, domain), arrays)
    return path


def run(model, line, table):
    (batch,) = table.combine_chunks().to_batches()
    return pa.Table.from_batches([xptools.op(f"vae --model {model} {line}")(batch)])


def block(table, name):
    return np.concatenate([np.stack(table[f"{b}_{name}"].to_numpy(zero_copy_only=False)) for b in ("bp", "rp")], 1)


def test_what_is_added_is_what_was_asked_for(model):
    t = toy.table(60, 2)
    out = run(model, "--add latent,fit", t)
    assert out.schema.names[len(t.schema) :] == [
        "z1", "z2", "z1_err", "z2_err", "vae_chi2", "vae_rmse", "vae_p", "vae_flag"
    ]  # fmt: skip
    out = run(model, "--add reconstruction,scatter,denoised,residuals", t)
    values, errors = block(t, "coefficients"), block(t, "coefficient_errors")
    made, spread = block(out, "reconstruction"), block(out, "scatter")
    assert np.allclose(block(out, "residuals"), (values - made) / errors, rtol=1e-3, atol=1e-3)
    w = 1 / errors**2, 1 / spread**2
    assert np.allclose(block(out, "denoised"), (values * w[0] + made * w[1]) / (w[0] + w[1]), rtol=1e-3, atol=1)
    assert np.allclose(block(out, "denoised_err"), 1 / np.sqrt(w[0] + w[1]), rtol=1e-3)


def test_brightness_scales_out(model):
    """A star seen twice as bright, with twice the errors, has the same latents; a magnitude will do for a flux."""
    from xptools.cores.photometry import POGSON, ZERO_POINT

    one, two = toy.table(50, 3), toy.table(50, 3, G=2e4)
    a, b = run(model, "", one), run(model, "", two)
    mag = pa.array(ZERO_POINT["G"] - POGSON * np.log(np.full(50, 1e4)))
    c = run(model, "", one.drop_columns("phot_g_mean_flux").append_column("syn_g", mag))
    for name in ("z1", "z2", "vae_chi2"):
        assert np.allclose(a[name], b[name], atol=1e-5) and np.allclose(a[name], c[name], rtol=1e-4, atol=1e-5)


def test_draws_are_the_star_s_own_and_have_the_posterior_s_spread(model):
    t = toy.table(400, 4)
    out, other = (run(model, f"--sample 200 --seed {s}", t) for s in (1, 2))
    draws = np.stack(out["z1_sample"].to_numpy(zero_copy_only=False))
    assert np.allclose(draws.mean(1), out["z1"], atol=0.4)
    pull = (draws - out["z1"].to_numpy()[:, None]) / out["z1_err"].to_numpy()[:, None]
    assert abs(pull.mean()) < 0.02 and abs(pull.std() - 1) < 0.02
    second = np.stack(out["z2_sample"].to_numpy(zero_copy_only=False)) - out["z2"].to_numpy()[:, None]
    assert abs(np.corrcoef(pull.ravel(), second.ravel())[0, 1]) < 0.02
    assert out["z1_sample"] != other["z1_sample"]
    again = run(model, "--sample 200 --seed 1", t.take(np.arange(399, -1, -1)))
    assert again["z1_sample"].to_pylist()[::-1] == out["z1_sample"].to_pylist()
    assert "z1_sample" not in run(model, "", t).schema.names


def test_under_the_model_the_outlier_probability_is_uniform(model):
    """Draws of the generative model, calibrated on half of them: the other half's quantiles, to the tail."""
    network, rng, n = vae.Model(artefact.load(model, "vae").arrays), np.random.default_rng(6), 40_000
    z, sigma = rng.normal(size=(n, 2)), np.exp(rng.uniform(-4, 0, (n, 1))) * np.ones(toy.K)
    spread = np.hypot(sigma, network.scatter(z))
    drawn = (network.decode(z) + spread * rng.normal(size=(n, toy.K))).astype("f4")
    first, rest = (vae_fit.judged(network, drawn[k::2], sigma[k::2].astype("f4")) for k in (0, 1))
    arrays = network.arrays | vae_fit.calibration(first.chi2, first.share)
    p = vae_fit.probability(arrays, rest.chi2, rest.known, rest.share)
    assert kstest(p, "uniform").statistic < 0.02
    for value, most in ((0.1, 0.1), (0.01, 0.3), (0.001, 0.9)):  # a share of 0.001 is 20 stars
        assert (p < value).mean() == pytest.approx(value, rel=most)


def test_decode_is_the_way_back(model):
    t = toy.table(80, 5)
    made = run(model, "--add latent,reconstruction,scatter", t)
    bare = made.select(["source_id", "phot_g_mean_flux", "z1", "z2"])
    out = run(model, "--decode", bare)
    assert np.allclose(block(out, "coefficients"), block(made, "reconstruction"), rtol=1e-6)
    assert np.allclose(block(out, "coefficient_errors"), block(made, "scatter"), rtol=1e-6)
    without = run(model, "--decode --decode-g 12", bare.drop_columns("phot_g_mean_flux"))
    ratio = block(without, "coefficients") / block(out, "coefficients")
    assert np.allclose(ratio, 10 ** (0.4 * (25.6873668671 - 12)) / 1e4, rtol=1e-4)
    holes = bare.set_column(2, "z1", pa.array([None, 99.0] + [0.0] * 78, pa.float32()))
    assert run(model, "--decode", holes)["vae_flag"].to_pylist()[:2] == [1, 4]


def test_flags(model):
    t = toy.table(5, 6)
    values = np.stack(t["bp_coefficients"].to_numpy(zero_copy_only=False))
    values[0, 2], values[1], values[2, 0] = np.nan, np.nan, 1e9
    flux = [1e4, 1e4, 1e4, np.nan, 1e4]
    t = t.set_column(t.schema.get_field_index("bp_coefficients"), "bp_coefficients", toy.wide(values))
    t = t.set_column(1, "phot_g_mean_flux", pa.array(flux))
    out = run(model, "--add latent,fit,reconstruction,denoised", t)
    flags = np.array(out["vae_flag"].to_pylist())
    assert flags[0] & 2 and flags[1] & 2 and flags[2] & 8 and flags[3] == 1 and flags[4] == 0
    assert np.isfinite(out["z1"].to_numpy()[[0, 1, 4]]).all() and np.isnan(out["z1"].to_numpy()[3])
    missing = block(out, "denoised")[1, :6]
    assert np.allclose(missing, block(out, "reconstruction")[1, :6])  # what is unknown is the model's


def test_other_widths_are_refused_before_any_row(model):
    t = toy.table(5, 7)
    wrong = toy.wide(np.ones((5, 51)))
    t = t.set_column(t.schema.get_field_index("bp_coefficients"), "bp_coefficients", wrong)
    with pytest.raises(DataError, match="51 coefficients, as DR4's BP has, but the model expects 6"):
        xptools.op(f"vae --model {model}").schema(t.schema)
    with pytest.raises(MissingColumns, match="phot_g_mean_flux"):
        xptools.op(f"vae --model {model}").schema(toy.table(5, 7).drop_columns("phot_g_mean_flux").schema)
    with pytest.raises(MissingColumns, match="z1"):
        xptools.op(f"vae --model {model} --decode").schema(t.schema)


@pytest.mark.parametrize("line", ["--add latents", "--decode --inspect x", "--inspect ,", "--add ''"])
def test_wrong_options(line):
    with pytest.raises(UsageError):
        xptools.op(f"vae {line}")


def test_another_command_s_model_is_refused(inside, tmp_path):
    path = Path(xptools.__file__).parent / "data" / "mass_default.safetensors"
    pq.write_table(toy.table(5, 7), tmp_path / "in.parquet")
    code, _, err = inside("vae", "--model", path, tmp_path / "in.parquet", "-o", tmp_path / "x.parquet")
    assert code == 65 and "not for xp vae" in err


def test_inspect_ranks_latents(model, inside, tmp_path):
    t = run(model, "", toy.table(3000, 8))
    rng = np.random.default_rng(0)
    z1, z2 = t["z1"].to_numpy(), t["z2"].to_numpy()
    t = t.append_column("loud", pa.array(np.exp(z2) + 0.01 * rng.normal(size=3000)))
    t = t.append_column("mixed", pa.array(z1 - z2)).append_column("noise", pa.array(rng.normal(size=3000)))
    pq.write_table(t, tmp_path / "in.parquet")
    line = ("vae", "--model", model, "--inspect", "loud,mixed,noise")
    code, _, err = inside(*line, tmp_path / "in.parquet", "-o", tmp_path / "out.parquet")
    assert code == 0, err
    rows = read(tmp_path / "out.parquet").to_pylist()
    first = {r["label"]: r for r in rows if r["rank"] == 1}
    probes = {(r["label"], r["axis"]): r["rho"] for r in rows if not r["rank"]}
    assert first["loud"]["axis"] == "z2" and abs(first["loud"]["rho"]) > 0.95 and first["loud"]["n"] == 3000
    for probe in ("linear", "quadratic", "forest"):
        assert probes["mixed", probe] > 0.98 and abs(probes["noise", probe]) < 0.1
    x = block(t, "coefficients") / t["phot_g_mean_flux"].to_numpy()[:, None]
    for label in ("loud", "mixed", "noise"):
        rho = [vae_inspect.spearman(c, t[label].to_numpy()) for c in x.T]
        k = int(np.abs(rho).argmax())
        assert probes[label, f"{'bp' if k < 6 else 'rp'}_coefficients[{k % 6}]"] == pytest.approx(rho[k], abs=1e-6)
    assert all(r["information"] < 0.05 for r in rows if r["label"] == "noise" and r["rank"])
    pq.write_table(t.drop_columns([n for n in t.schema.names if n.startswith(("z1", "z2"))]), tmp_path / "bare.parquet")
    code, _, err = inside(*line, tmp_path / "bare.parquet", "-o", tmp_path / "same.parquet")
    assert code == 0 and read(tmp_path / "same.parquet").to_pylist() == [pytest.approx(r, nan_ok=True) for r in rows]
    dark = t.drop_columns([n for n in t.schema.names if n.startswith("phot_g_mean")])
    short = t.drop_columns(["bp_coefficients"]).append_column(
        "bp_coefficients", pa.array([[1.0]] * 3000, pa.list_(pa.float64(), 1))
    )
    for bare in (dark, short):  # without a coefficient that could be compared
        pq.write_table(bare, tmp_path / "bare.parquet")
        code, _, err = inside(*line, tmp_path / "bare.parquet", "-o", tmp_path / "less.parquet")
        assert code == 0, err
        assert not any(str(r["axis"]).endswith("]") for r in read(tmp_path / "less.parquet").to_pylist())


def test_rank_measures():
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 20_000))
    rho = 0.8
    c = rho * a + np.sqrt(1 - rho**2) * b
    assert vae_inspect.mutual_information(a, c) == pytest.approx(-0.5 * np.log(1 - rho**2), rel=0.05)
    assert vae_inspect.mutual_information(a, b) < 0.005
    assert vae_inspect.spearman(a, c) == pytest.approx(6 / np.pi * np.arcsin(rho / 2), abs=0.01)
    assert vae_inspect.spearman(np.exp(a), -a) == -1 and vae_inspect.spearman(a, np.ones_like(a)) == 0
    z = np.stack([a, b], 1)
    probes = {name: vae_inspect.spearman(guess, a * b) for name, guess in vae_inspect.probed(z, a * b).items()}
    assert abs(probes["linear"]) < 0.05 and probes["quadratic"] > 0.99 and probes["forest"] > 0.98
    columns = np.stack([b, np.where(np.arange(len(c)) % 3, -c, np.nan), np.full(len(c), np.nan)], 1)
    assert vae_inspect.single(columns, a) == (1, pytest.approx(-vae_inspect.spearman(a, c), abs=0.01))
