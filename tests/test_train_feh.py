"""`xp train feh`: the file it makes, its cross-validation, repeatability, quality cuts, and wrong inputs."""

import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tables import exploded, stars

from xptools import artefact
from xptools.cores import feh, feh_training, quality

sys.path.insert(0, str(Path(__file__).parent))
import feh_toy as toy

SMALL = ("--hidden", "48,48", "--guess", "32", "--epochs", 40, "--batch", 128, "--rate", "0.01")


def table(n=1500, seed=3, **more):
    """Toy stars as `xp calibrate --covariance` would write them."""
    s = toy.spectra(n, seed)
    grid = json.dumps({"wavelength": toy.WAVELENGTH.tolist(), "unit": "nm"})

    def wide(a):
        return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(a).ravel()), a.shape[1])

    G = s["labels"][:, 1] - 5 * np.log10(s["parallax"] / 100)
    columns = {
        "source_id": np.arange(n) + 10**6 * seed, "parallax": s["parallax"], "parallax_error": s["parallax_error"],
        "phot_g_mean_mag": G, "teff": s["labels"][:, 0], "feh": s["labels"][:, 2], **more,
    }  # fmt: skip
    out = pa.table({**columns, "flux": wide(s["flux"]), "flux_cov": wide(feh.packed(s["cov"]))})
    return out.replace_schema_metadata({"xp.grid": grid})


@pytest.fixture(scope="module")
def trained(xp, tmp_path_factory):
    folder = tmp_path_factory.mktemp("feh")
    pq.write_table(table(), folder / "in.parquet")
    done = xp("train", "feh", folder / "in.parquet", *SMALL, "-o", folder / "m.safetensors")
    assert done.returncode == 0, done.stderr
    return folder, done


def test_the_file_describes_itself(trained):
    folder, done = trained
    assert b"3-fold cross-validation" in done.stderr and done.stdout == b""
    model = artefact.load(folder / "m.safetensors", "feh")
    told = model.about
    assert told.shape["hidden"] == [48, 48] and told.shape["activation"] == "gelu-tanh"
    assert told.shape["wavelength"] == toy.WAVELENGTH.tolist()
    assert set(told.domain) == {"teff", "mg", "feh"} and told.training["rows"] == 1500
    rows = told.metrics["validation"]
    assert rows[0]["bin"] == "all" and rows[0]["n"] > 1300
    assert {r["bin"] for r in rows} == {"all", "mg", "feh"}
    assert abs(rows[0]["bias_feh"]) < 0.1 and rows[0]["mad_feh"] < 0.25 and rows[0]["mad_teff"] < 120
    assert model.arrays["error.cov"].shape[1:] == (61, 61)
    assert np.linalg.eigvalsh(model.arrays["error.cov"][0].astype(float)).min() > 0


def test_the_model_inverts_other_stars(trained):
    folder, _ = trained
    model = feh.Model(artefact.load(folder / "m.safetensors", "feh").arrays)
    s = toy.spectra(500, 9)
    out = feh.infer(model, feh.Spectra(s["flux"], feh.packed(s["cov"]), s["parallax"], s["parallax_error"]))
    assert np.median(np.abs(out["feh"] - s["labels"][:, 2])) < 0.15
    assert np.median(np.abs(out["teff"] - s["labels"][:, 0])) < 80


def test_the_same_seed_gives_the_same_model(xp, trained):
    folder, _ = trained
    quick = ("--hidden", "8", "--guess", "8", "--epochs", 2, "--folds", 2)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        done = xp("train", "feh", folder / "in.parquet", *quick, "--seed", seed, "-q", "-o", folder / name)
        assert done.returncode == 0 and done.stderr == b""
    a, b, c = (artefact.load(folder / n, "feh").arrays for n in "abc")
    assert all(a[k].tobytes() == b[k].tobytes() for k in a)
    assert any(a[k].tobytes() != c[k].tobytes() for k in a)


def test_verbose_gives_one_line_of_json_per_epoch(xp, trained):
    folder, _ = trained
    done = xp("train", "feh", folder / "in.parquet", "--hidden", 8, "--guess", 8, "--epochs", 2, "--folds", 2, "-v",
              "-o", folder / "v")  # fmt: skip
    lines = [json.loads(x) for x in done.stderr.decode().splitlines() if x.startswith("{")]
    assert len(lines) == 3 * 2 * 2 and {"training", "epoch", "loss", "score"} <= set(lines[0])


def test_aspcap_quality(xp, tmp_path):
    n = 600
    rng = np.random.default_rng(0)
    more = {
        "logg": rng.uniform(3.8, 4.9, n), "e_fe_h": rng.uniform(0, 0.12, n), "e_teff": rng.uniform(0, 110, n),
        "flag_warn": (rng.random(n) < 0.1).astype(int), "flag_bad": np.zeros(n, int),
        "e_v_rad": rng.uniform(0, 1.1, n), "bp_mag": np.full(n, 12.0), "rp_mag": np.full(n, 11.0),
    }  # fmt: skip
    t = table(n, 4, **more).rename_columns(
        ["fe_h" if c == "feh" else c for c in table(2, 4, **{k: v[:2] for k, v in more.items()}).schema.names]
    )
    t = t.replace_schema_metadata(table(2, 4).schema.metadata)
    pq.write_table(t, tmp_path / "in.parquet")
    quick = ("--hidden", "8", "--guess", "8", "--epochs", 1, "--folds", 2)
    done = xp("train", "feh", tmp_path / "in.parquet", "--quality", "aspcap", *quick, "-o", tmp_path / "m")
    assert done.returncode == 0, done.stderr
    keep = (more["logg"] > 4) & (more["e_fe_h"] < 0.1) & (more["e_teff"] < 100) & (more["flag_warn"] == 0)
    keep &= more["e_v_rad"] < 1
    told = artefact.about(tmp_path / "m").training
    assert told["rows"] == keep.sum() and told["quality"] == "aspcap"
    assert ["log g > 4", int((more["logg"] > 4).sum())] in told["cuts"]
    pq.write_table(t.drop_columns("e_v_rad"), tmp_path / "no.parquet")
    done = xp("train", "feh", tmp_path / "no.parquet", "--quality", "aspcap", *quick, "-o", tmp_path / "n")
    assert done.returncode == 65 and b"e_v_rad" in done.stderr


def test_quality_never_keeps_the_unknown():
    columns = {c: np.array([np.nan, 1.0]) for c in quality.wanted("aspcap")}
    keep, flow = quality.select("aspcap", columns)
    assert not keep.any() and len(flow) == len(quality.ASPCAP)


def test_single_stars_are_told_by_either_name():
    n = 4
    columns = {c: np.full(n, 0.5) for c in quality.wanted("aspcap")}
    fine = {"logg": 4.5, "parallax": 5, "bp_mag": 1, "flag_warn": 0, "flag_bad": 0, "ag": 0, "e_fe_h": 0}
    columns |= {name: np.full(n, float(value)) for name, value in fine.items()}
    columns |= {"chi2_single": np.array([4.0, 6.0, 4.0, 4.0]), "chi2_binary": np.array([3.5, 5.5, 2.5, 3.5]),
                "feh_flag": np.array([0.0, 0.0, 0.0, 4.0])}  # fmt: skip
    assert quality.select("aspcap", columns)[0].tolist() == [True, False, False, False]
    del columns["chi2_single"]
    columns["chi2"] = np.array([60.0, 60.0, 60.0, 60.0])
    columns["chi2_binary"] = np.array([59.5, 61.0, 50.0, 59.5])
    assert quality.select("aspcap", columns)[0].tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("change", "options", "code", "words"),
    [
        (lambda t: t.drop_columns("teff"), (), 65, b"teff"),
        (lambda t: t.drop_columns("flux_cov"), (), 65, b"flux_err"),
        (lambda t: t.drop_columns(["flux", "flux_cov"]), (), 65, b"bp_coefficients"),
        (lambda t: t.slice(0, 50), (), 65, b"fewer than 100"),
        (lambda t: t, ("--hidden", "a"), 2, b"widths"),
        (lambda t: t, ("--teff", "temperature"), 65, b"temperature"),
        (lambda t: t, ("--where", "feh >"), 2, b"TRY"),
    ],
)
def test_wrong_input_has_its_sentence(xp, tmp_path, change, options, code, words):
    pq.write_table(change(table(200)), tmp_path / "in.parquet")
    done = xp("train", "feh", tmp_path / "in.parquet", *options, "-o", tmp_path / "m")
    assert done.returncode == code and words in done.stderr, done.stderr
    assert not (tmp_path / "m").exists()


def test_coefficients_in_a_column_each(tmp_path):
    """The sample is the same, whether coefficients are arrays or a column for each."""
    from xptools.commands import _feh_sample

    whole = stars(150, spectra=True).append_column("teff", pa.array(np.linspace(4000.0, 6000.0, 150)))
    names = {n: n for n in whole.schema.names if n.endswith(("p_coefficients", "coefficient_errors"))}
    samples, path, default = [], tmp_path / "in.parquet", dict.fromkeys(("teff", "feh", "mg"), "")
    for table in (whole, exploded(whole, names, 1)):
        pq.write_table(table.drop_columns([n for n in table.schema.names if "correl" in n]), path)
        samples.append(_feh_sample.table(str(path), default, None, None, "mag", False, print).sample)
    assert len(samples[0].labels) == 150 and np.array_equal(samples[0].labels, samples[1].labels)
    for one, other in zip(samples[0].spectra, samples[1].spectra, strict=True):
        assert one is other or np.array_equal(one, other)


def test_folds_are_a_star_s_own():
    ids = np.random.default_rng(0).integers(2**60, 2**62, 9000)
    fold = feh_training.folds(ids)
    assert np.array_equal(feh_training.folds(ids[::-1]), fold[::-1])
    assert np.bincount(fold).min() > 2800
    assert np.bincount(feh_training.folds(np.arange(9000) * 2**35)).min() > 2800


def test_the_covariance_of_what_a_model_misses_is_recovered():
    rng = np.random.default_rng(1)
    n, N = 20, 4000
    k = np.arange(n)
    S = 0.01**2 * np.exp(-np.abs(k[:, None] - k) / 4)
    noise = 0.015**2 * np.exp(-(((k[:, None] - k) / 1.5) ** 2)) + 1e-6 * np.eye(n)
    ln_model = rng.normal(3, 1, (N, n))
    y = np.exp(ln_model)
    miss = rng.multivariate_normal(np.zeros(n), S + noise, N)
    cov = feh.packed(noise[None] * y[:, :, None] * y[:, None, :])
    spectra = feh.Spectra(y * (1 + miss) * 1e-18, cov * 1e-36, np.full(N, 100.0), np.zeros(N))
    found = feh_training.model_covariance(feh_training.Sample(np.zeros((N, 3)), spectra), ln_model)
    # the sampling error of a covariance of N stars is (S + noise) sqrt(2 / N), 0.072 of the largest S on the diagonal;
    # three of those bound the largest of 210 elements
    expected = np.sqrt(2 / N) * (S + noise).max()
    assert np.abs(found - S).max() < 3 * expected
    exact = spectra._replace(flux=y * (1 + rng.multivariate_normal(np.zeros(n), S, N)) * 1e-18)
    found = feh_training.model_covariance(feh_training.Sample(np.zeros((N, 3)), exact, True), ln_model)
    assert np.abs(found - S).max() < 4 * np.sqrt(2 / N) * S.max()


def test_noise_drawn_for_exact_stars_has_their_covariance():
    s = toy.spectra(1, 3)
    n, y = 20_000, toy.flux(s["labels"]) * ((s["parallax"] / 100) ** 2)[:, None]
    spectra = feh.Spectra(np.repeat(y, n, 0), np.repeat(feh.packed(s["cov"]), n, 0), np.full(n, 5.0), np.full(n, 0.1))
    exact = feh_training.Sample(np.repeat(s["labels"], n, 0), spectra, True)
    seen = exact.seen(0).spectra
    sigma = np.sqrt(np.diagonal(s["cov"][0]))
    found = np.cov((seen.flux - spectra.flux).T) / np.outer(sigma, sigma)
    assert np.abs(found - s["cov"][0] / np.outer(sigma, sigma)).max() < 5 * np.sqrt(2 / n)
    assert abs(np.std(seen.parallax) / 0.1 - 1) < 0.03
    assert feh_training.Sample(exact.labels, spectra).seen(0).spectra is spectra


def test_noise_free_stars_train_a_model(xp, tmp_path):
    s = toy.spectra(600, 5)
    t = table(600, 5)
    y = toy.flux(s["labels"]) * ((t["parallax"].to_numpy() / 100) ** 2)[:, None]
    flux = pa.FixedSizeListArray.from_arrays(pa.array(y.ravel()), 61)
    pq.write_table(t.set_column(t.schema.get_field_index("flux"), "flux", flux), tmp_path / "in.parquet")
    done = xp("train", "feh", "--noise-free", tmp_path / "in.parquet", *SMALL, "-o", tmp_path / "m")
    assert done.returncode == 0, done.stderr
    told = artefact.about(tmp_path / "m")
    assert told.training["noise_free"] is True and all(0.4 < w < 1.6 for w in told.metrics["pull_width"])
