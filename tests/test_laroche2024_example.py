"""The scripts of examples/laroche2024: the forest, the four classifiers, the tracks, the paper's catalogue."""

import importlib
import runpy
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from vae_toy import wide

pytest.importorskip("matplotlib")
FOLDER = Path(__file__).parents[1] / "examples" / "laroche2024"
OWN = ("tables", "forest", "alpha", "tracks", "apogee")


@pytest.fixture
def script(monkeypatch):
    """The example's modules by name; none stays loaded, for tests have a module `tables` too."""
    kept = {name: sys.modules.pop(name, None) for name in OWN}
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module
    for name in OWN:
        sys.modules.pop(name, None)
        if kept[name] is not None:
            sys.modules[name] = kept[name]


def run(monkeypatch, name, *words):
    monkeypatch.setattr(sys, "argv", [name, *map(str, words)])
    runpy.run_path(str(FOLDER / name), run_name="__main__")


def test_the_forest_finds_what_no_single_feature_tells(script, monkeypatch):
    forest, rng = script("forest"), np.random.default_rng(0)
    monkeypatch.setattr(forest, "TREES", 30)
    x = rng.normal(size=(3000, 4))
    classes = x[:, 0] * x[:, 1] > 0
    guess = forest.classified(x[:2000], classes[:2000], x[2000:])
    assert (guess == classes[2000:]).mean() > 0.93
    assert np.array_equal(guess, forest.classified(x[:2000], classes[:2000], x[2000:]))  # the seed says all
    noise = rng.random(2000) < 0.3
    assert (forest.classified(x[:2000], noise, x[2000:])).mean() < 0.1  # what cannot be told is the majority


def test_a_split_is_the_purest(script):
    forest, rng = script("forest"), np.random.default_rng(1)
    x, y = np.round(rng.normal(size=60), 1), (rng.random(60) < 0.4).astype(float)
    cuts = np.unique(x)

    def purity(cut):
        return sum(((y[s] == 0).sum() ** 2 + (y[s] == 1).sum() ** 2) / s.sum() for s in (x <= cut, x > cut))

    best, threshold = forest.parted(x, y, np.arange(60))
    assert best == pytest.approx(max(purity(c) for c in cuts[:-1])) == pytest.approx(purity(threshold))
    assert forest.parted(np.ones(5), y[:5], np.arange(5))[0] == 0


def stars(n, seed=0):
    """Giants and dwarfs whose latents are their labels in disguise; alpha of the giants in the third."""
    rng = np.random.default_rng(seed)
    dwarf = rng.random(n) < 0.3
    teff = np.where(dwarf, rng.uniform(4500, 6300, n), rng.uniform(3800, 5200, n))
    logg = np.where(dwarf, np.where(teff < 5000, 4.6, 7.1 - teff / 2000), (teff / 1000 - 3.59) / 0.44)
    feh = rng.uniform(-1, 0.4, n)
    alpha = np.where(dwarf, np.nan, np.where(rng.random(n) < 0.4, 0.3, 0.03) - 0.1 * feh)
    z = np.stack([teff / 600 - 8, logg - 3, 10 * np.nan_to_num(alpha) + feh, 2 * feh, *rng.normal(size=(2, n))], -1)
    out = {"source_id": np.arange(n) * 977, "phot_g_mean_flux": np.full(n, 1e4), "phot_g_mean_mag": np.full(n, 15.0),
           "phot_rp_mean_mag": 14.4 + 0.01 * rng.normal(size=n), "bp_rp": teff / 5000, "teff": teff, "logg": logg,
           "mh": feh + 0.05 * rng.normal(size=n), "true_teff": teff, "true_logg": logg, "true_feh": feh,
           "true_mh": np.where(dwarf, np.nan, feh), "true_alpha_m": alpha}  # fmt: skip
    out |= {f"z{k + 1}": z[:, k] + 0.02 * rng.normal(size=n) for k in range(6)}
    for band in ("bp", "rp"):
        out[f"{band}_coefficients"] = wide(1e4 * rng.normal(size=(n, 55)))
    return pa.table(out)


def test_four_classifiers(script, monkeypatch, tmp_path):
    pq.write_table(stars(2500), tmp_path / "z.parquet")
    run(monkeypatch, "alpha.py", tmp_path / "z.parquet", "-o", tmp_path / "alpha.txt")
    head, _, *rows = (tmp_path / "alpha.txt").read_text().splitlines()
    found = {row[:20].strip(): [float(v) for v in row[20:].split()] for row in rows}
    assert list(found) == ["[M/H]", "labels", "labels + colours", "latents", "all coefficients"]
    assert float(head.split()[2]) == pytest.approx(0.4, abs=0.03)
    assert min(found["latents"]) > 0.97  # latents tell all, labels nothing
    assert found["[M/H]"][0] < 0.65 and found["labels"][0] < 0.68


def test_precision_is_not_recall(script):
    truth = np.repeat([True, True, False, False], [30, 10, 20, 140])
    guess = np.repeat([True, False, True, False], [30, 10, 20, 140])
    numbers = [float(v) for v in script("alpha").scores(truth, guess, np.ones(200, bool)).split()]
    assert numbers == [0.85, 0.6, 0.75, 0.933, 0.875, 0.85]


def test_tracks(script, monkeypatch, tmp_path):
    pq.write_table(stars(3000), tmp_path / "z.parquet")
    run(monkeypatch, "tracks.py", tmp_path / "z.parquet", "-o", tmp_path / "tracks.png")
    assert (tmp_path / "tracks.png").read_bytes()[:4] == b"\x89PNG"
    tracks = script("tracks")
    assert tracks.main_sequence(np.array([4800, 5000, 6300])).tolist() == [4.6, 4.6, 3.95]
    assert tracks.giant_branch(np.array([0.0, 3.65])) == pytest.approx([3590, 5200])
    assert np.ptp([tracks.giant_branch(g) for g in (3.6499, 3.6501)]) < 10  # no jump, as one code has


def test_the_paper_s_catalogue_becomes_a_table(script, monkeypatch, tmp_path, inside):
    """A small file laid out as Zenodo's: spectra, labels and the pristine sample; its alpha classes are told."""
    h5py, rng, n = pytest.importorskip("h5py"), np.random.default_rng(2), 400
    labels = ["TEFF", "LOGG", "M_H", "TEFF_ERR", "LOGG_ERR", "M_H_ERR", "FE_H", "MG_FE", "ALPHA_M", "J", "H", "K"]
    kinds = [("ids", "i8"), ("coeffs", "f8", 110), ("coeff_errs", "f8", 110), ("phot_g_mean_flux", "f8")]
    kinds += [(name, "f4") for name in labels] + [("STARFLAG", "i4"), ("ASPCAPFLAG", "i8")]
    rows = np.zeros(n, kinds)
    rows["ids"], rows["phot_g_mean_flux"] = np.arange(n) * 7919, 1e5
    rows["coeffs"], rows["coeff_errs"] = 1e5 * rng.normal(size=(n, 110)), 10.0
    values = [4500, 2.5, -0.3, 10, 0.05, 0.03, -0.3, 0.0, 0.1, 10, 9.5, 9.3]
    for name, value in zip(labels, values, strict=True):
        rows[name] = value + (0.1 * rng.normal(size=n) if not name.endswith("_ERR") else 0)
    rows["MG_FE"] = np.where(np.arange(n) % 3 == 0, 0.3, 0.0)
    for k, (name, bad) in enumerate((("TEFF_ERR", 50), ("LOGG_ERR", 0.2), ("STARFLAG", 1), ("ASPCAPFLAG", 1 << 19))):
        rows[name][k] = bad
    with h5py.File(tmp_path / "cat.h5", "w") as file:
        file["__astropy_table__"] = rows
    run(monkeypatch, "apogee.py", tmp_path / "cat.h5", "-o", tmp_path / "t.parquet")
    table = pq.read_table(tmp_path / "t.parquet")
    assert table["pristine"].to_pylist() == [False] * 4 + [True] * (n - 4)
    assert np.allclose(np.stack(table["rp_coefficients"].to_numpy(zero_copy_only=False)), rows["coeffs"][:, 55:])
    code, _, err = inside("vae", tmp_path / "t.parquet", "-o", tmp_path / "z.parquet")
    assert code == 0, err
    run(monkeypatch, "alpha.py", tmp_path / "z.parquet", "-o", tmp_path / "alpha.txt")
    assert (tmp_path / "alpha.txt").read_text().startswith(f"{n - 4} stars, 0.33")


def test_mocks_are_gathered(script, monkeypatch, tmp_path):
    one, two = (pa.table([pa.array(range(5)), pa.array([value] * 5)],
                         pa.schema([pa.field("source_id", pa.int64(), False), pa.field(name, pa.int16(), False)]))
                for name, value in (("true_clump", 1), ("true_q", 2)))  # fmt: skip
    for name, table in (("a", one), ("b", two)):
        pq.write_table(table, tmp_path / name)
    run(monkeypatch, "tables.py", "gather", tmp_path / "a", tmp_path / "b", "-o", tmp_path / "all")
    whole = pq.read_table(tmp_path / "all")
    assert len(set(whole["source_id"].to_pylist())) == 10 and whole["true_clump"].null_count == 5
    assert (script("tables").column(whole, "true_q") == 2).sum() == 5
