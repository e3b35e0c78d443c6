"""The scripts of examples/laroche2024: the four classifiers, the tracks, the paper's catalogue."""

import importlib
import runpy
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from vae_toy import wide

from xptools.cores import extinction

pytest.importorskip("matplotlib")
FOLDER = Path(__file__).parents[1] / "examples" / "laroche2024"
OWN = ("tables", "alpha", "tracks", "apogee", "science")


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
    labels.append("SFD_EBV")
    kinds = [("ids", "i8"), ("coeffs", "f8", 110), ("coeff_errs", "f8", 110), ("phot_g_mean_flux", "f8")]
    kinds += [(name, "f4") for name in labels] + [("STARFLAG", "i4"), ("ASPCAPFLAG", "i8")]
    rows = np.zeros(n, kinds)
    rows["ids"], rows["phot_g_mean_flux"] = np.arange(n) * 7919, 1e5
    rows["coeffs"], rows["coeff_errs"] = 1e5 * rng.normal(size=(n, 110)), 10.0
    values = [4500, 2.5, -0.3, 10, 0.05, 0.03, -0.3, 0.0, 0.1, 10, 9.5, 9.3, 0.5]
    for name, value in zip(labels, values, strict=True):
        rows[name] = value + (0.1 * rng.normal(size=n) if not name.endswith("_ERR") else 0)
    rows["MG_FE"] = np.where(np.arange(n) % 3 == 0, 0.3, 0.0)
    for k, (name, bad) in enumerate((("TEFF_ERR", 50), ("LOGG_ERR", 0.2), ("STARFLAG", 1), ("ASPCAPFLAG", 1 << 19))):
        rows[name][k] = bad
    rows["ALPHA_M"][5] = rows["LOGG_ERR"][6] = -9999
    with h5py.File(tmp_path / "cat.h5", "w") as file:
        file["__astropy_table__"] = rows
    run(monkeypatch, "apogee.py", tmp_path / "cat.h5", "-o", tmp_path / "t.parquet")
    table = pq.read_table(tmp_path / "t.parquet")
    assert table["pristine"].to_pylist() == [k > 3 and k != 6 for k in range(n)]
    assert np.isnan(table["alpha_m"][5].as_py()) and table["alpha_m"][4].as_py() == pytest.approx(rows["ALPHA_M"][4])
    A_V = table["sfd_e"].to_numpy() * extinction.visual()
    assert np.allclose(A_V, 2.742 * rows["SFD_EBV"])  # Schlafly & Finkbeiner (2011)
    assert np.allclose(np.stack(table["rp_coefficients"].to_numpy(zero_copy_only=False)), rows["coeffs"][:, 55:])
    ids, ones = rows["ids"][:-2], np.ones(n - 2)  # two are not in Gaia
    gaia = {"source_id": ids, "parallax": ones, "parallax_error": 0.1 * ones, "bp_rp": ones}
    gaia["bp_rp"] = np.where(ids == ids[8], 4.5, 1.5)
    pq.write_table(pa.table({**gaia, **{f"phot_{b}_mean_mag": 13 * ones for b in ("g", "bp", "rp")}}), tmp_path / "g")
    steps = f"join --with {tmp_path / 'g'} | deredden --map none --e-column sfd_e | vae"
    code, _, err = inside("run", steps, tmp_path / "t.parquet", "-o", tmp_path / "z.parquet")
    assert code == 0, err
    table = pq.read_table(tmp_path / "z.parquet")
    assert np.allclose(table["ext_e"].to_numpy(), table["sfd_e"].to_numpy(), rtol=1e-6)
    assert table["mg0"].null_count + np.isnan(table["mg0"].to_numpy()).sum() == 2
    run(monkeypatch, "alpha.py", tmp_path / "z.parquet", "-o", tmp_path / "alpha.txt")
    assert (tmp_path / "alpha.txt").read_text().startswith(f"{n - 8} stars, 0.33")


def test_a_part_is_the_star_s_own(script, monkeypatch, tmp_path):
    ids = np.random.default_rng(0).integers(2**60, 2**62, 5000)
    for name, some in (("a", ids), ("b", ids[::-2])):
        pq.write_table(pa.table({"source_id": some}), tmp_path / name)
        run(monkeypatch, "tables.py", "part", tmp_path / name, "-o", tmp_path / f"{name}")
    train, test, other = (set(pq.read_table(tmp_path / f"{n}.parquet")["source_id"].to_pylist())
                          for n in ("a-train", "a-test", "b-test"))  # fmt: skip
    assert len(test) == pytest.approx(500, abs=70) and train | test == set(ids.tolist()) and not train & test
    assert other == test & set(ids[::-2].tolist())


def test_the_network_of_labels_is_at_its_star_s_distance_and_behind_its_dust(script):
    """A star that is what the network says: the flux told is that flux, dimmed by distance and dust."""
    from xptools import artefact
    from xptools.commands.feh import DEFAULT
    from xptools.cores import feh

    science, model = script("science"), feh.Model(artefact.load(DEFAULT, "feh").arrays)
    labels = {"teff": 5000.0, "mg0": 6.0, "feh": -0.5, "parallax": 5.0, "ext_e": 0.2}
    table = pa.table({name: [value] * 2 for name, value in labels.items()})
    table = table.set_column(table.schema.get_field_index("parallax"), "parallax", pa.array([5.0, -1.0]))
    told = science.told_flux(table, model)
    want = 1e-18 * np.exp(model.ln_flux(np.array([[0.0, -1 / 3, 0.0]], np.float32)))[0] * (5 / 100) ** 2
    want *= 10 ** (-0.4 * 0.2 * extinction.curve(model.wavelength))
    assert told[0] == pytest.approx(want, rel=1e-5) and np.isnan(told[1]).all()


def test_the_archive_s_steps_are_planned(planned):
    steps = planned(FOLDER, "DATA=gaia")
    order = ("recipe laroche2024 catalogue", "apogee.py", "recipe laroche2024 gaia", "join --with", "tables.py part",
             "train vae --stream", "train feh", "vae --add reconstruction", "science.py reconstruction")  # fmt: skip
    assert all(words in steps for words in order) and "mock" not in steps
    places = [steps.index(words) for words in order if "train" not in words]
    assert places == sorted(places)
    own = f"TABLE=../../tests/{Path(__file__).name}"
    assert "fetch" not in planned(FOLDER) and "fetch" not in planned(FOLDER, "catalogue", own)


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
