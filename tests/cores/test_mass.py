"""The mass network: recovery on isochrones, errors that mean what they say, flags, and its table against itself."""

import numpy as np
import pytest

from xptools import artefact, train
from xptools.cores import isochrone, mass, mass_training, sequence

OLD = (8.0, 13.5)


@pytest.fixture(scope="module")
def model():
    from xptools.commands.mass import DEFAULT

    return mass.Emulator(artefact.load(DEFAULT, "mass").arrays)


def trained(grid, ages, feh_input=False, epochs=60, points=20_000, mh=(-2.2, 0.5)):
    drawn = mass_training.draw(grid, ages, mh, points, 0)
    rows, held = train.split(points, 0.2, 0)
    learner = mass_training.MassLearner(drawn, feh_input, (32, 32), 2048, 0)
    fit = train.fit(learner, rows, held, train.cosine(5e-3, 1e-5, epochs), epochs, 2048, 0)
    arrays, metrics = mass_training.finish(fit.arrays, drawn, held)
    return mass.Emulator(arrays), metrics


@pytest.fixture(scope="module")
def with_feh():
    return trained(isochrone.load(None), (1.0, 10.0), feh_input=True)


def stars(n=4000, age=OLD, seed=5, top=0.75, mh=(-2.0, 0.0)):
    rng = np.random.default_rng(seed)
    M, h, t = rng.uniform(0.12, top, n), rng.uniform(*mh, n), rng.uniform(*age, n)
    M_G, colour = sequence.absolute(M, h, t)
    return M, h, M_G.astype(np.float32), colour.astype(np.float32)


def test_masses_of_the_parametric_sequence_come_back(model):
    M, h, M_G, colour = stars()
    out = mass.infer(model, M_G, colour)
    wrong = out["mass"] - M
    low = M < 0.5
    assert np.sqrt((wrong[low] ** 2).mean()) < 0.006 and np.sqrt((wrong**2).mean()) < 0.015
    assert abs(np.median(wrong)) < 0.002
    assert np.sqrt(((out["mh_phot"] - h) ** 2).mean()) < 0.1


def test_errors_mean_what_they_say(model):
    """With noise in both inputs the pulls have unit width, in mass and [M/H]."""
    M, h, M_G, colour = stars(20_000, top=0.7)
    rng = np.random.default_rng(6)
    s = rng.uniform(0.01, 0.1, len(M)), rng.uniform(0.005, 0.03, len(M))
    out = mass.infer(model, M_G + s[0] * rng.normal(size=len(M)), colour + s[1] * rng.normal(size=len(M)), *s)
    ok = out["flag"] == 0
    for value, error, truth in ((out["mass"], out["mass_err"], M), (out["mh_phot"], out["mh_phot_err"], h)):
        pull = ((value - truth) / error)[ok]
        assert abs(pull.mean()) < 0.12 and 0.8 < pull.std() < 1.1
        assert np.mean(np.abs(pull) < 1) == pytest.approx(0.68, abs=0.07)


def test_errors_grow_with_the_photometric_errors(model):
    _, _, M_G, colour = stars(200)
    none = mass.infer(model, M_G, colour)["mass_err"]
    some = mass.infer(model, M_G, colour, np.full(200, 0.1, np.float32))["mass_err"]
    more = mass.infer(model, M_G, colour, np.full(200, 0.1, np.float32), np.full(200, 0.05, np.float32))["mass_err"]
    assert (none > 0).all() and (some > none).all() and (more > some).all()


def test_the_table_is_the_network(model):
    _, _, M_G, colour = stars(5000, top=0.8)
    looked, _ = model(M_G, colour)
    exact = model.network(M_G, colour).T
    assert np.abs(looked - exact).max(1) == pytest.approx([0, 0], abs=0.02)
    assert np.abs(looked[0] - exact[0]).max() < 1e-3 and (np.abs(looked - exact).mean(1) < [1e-4, 2e-3]).all()


def test_slopes_against_finite_differences_of_the_network(model):
    _, _, M_G, colour = stars(500)
    _, slope = model(M_G, colour)
    double = mass.Emulator({k: np.asarray(v, np.float64) for k, v in model.arrays.items()})
    h = 1e-2
    for k, (dg, dc) in enumerate(((h, 0), (0, h))):
        up, down = double.network(M_G + dg, colour + dc), double.network(M_G - dg, colour - dc)
        want = ((up - down) / (2 * h)).T
        assert np.abs(slope[0, k] - want[0]).mean() < 0.02 * np.abs(want[0]).mean()


def test_flags(model):
    M_G = np.array([5.0, 3.5, np.nan, np.inf, 8.0, 8.0, 60.0, 8.0, 8.0], np.float32)
    colour = np.array([0.9, 0.6, 1.0, 1.0, 0.1, np.nan, 1.0, 1.5, 1.5], np.float32)
    mh = np.array([np.nan, np.nan, 0, 0, 0, 0, 0, -3.0, np.nan], np.float32)
    out = mass.infer(model, M_G, colour, mh=mh)
    assert (out["flag"] & 7).tolist() == [0, 1, 4, 4, 2, 4, 2, 0, 0]
    assert (out["flag"] & 8).tolist() == [0, 0, 0, 0, out["flag"][4] & 8, 0, 0, 8, 0]
    assert np.isnan(out["mass"]).tolist() == [False, False, True, True, False, True, True, False, False]
    assert (np.isnan(out["mass"]) == np.isnan(out["mass_err"])).all()


def test_hull_holds_its_own_training_points(model):
    _, _, M_G, colour = stars(5000, mh=(-2.1, 0.4))
    inside = mass.infer(model, M_G, colour)["flag"] & 2 == 0
    assert inside.mean() > 0.98


@pytest.mark.parametrize("which", ["model", "with_feh"])
def test_a_star_does_not_feel_its_neighbours(which, request):
    emulator = request.getfixturevalue(which)
    emulator = emulator[0] if isinstance(emulator, tuple) else emulator
    _, h, M_G, colour = stars(5000)
    s = np.full(5000, 0.03, np.float32)
    whole = mass.infer(emulator, M_G, colour, s, s, h)
    for cut in (slice(0, 1), slice(17, 1033), slice(4999, 5000)):
        part = mass.infer(emulator, M_G[cut], colour[cut], s[cut], s[cut], h[cut])
        assert all(part[k].tobytes() == whole[k][cut].tobytes() for k in whole)


def test_spectroscopic_metallicity_helps_where_age_is_open(with_feh):
    """Three inputs, one output; Salaris' shift moves the mass."""
    emulator, metrics = with_feh
    M, h, M_G, colour = stars(3000, age=(1.0, 10.0), top=0.7)
    out = mass.infer(emulator, M_G, colour, mh=h)
    assert set(out) == {"mass", "mass_err", "flag"} and "rms_mh" not in metrics
    assert np.sqrt(((out["mass"] - M) ** 2).mean()) < 0.015 and metrics["rms_mass"] < 0.03
    assert (mass.infer(emulator, M_G, colour, mh=h + isochrone.salaris(0.3))["mass"] > out["mass"]).mean() > 0.9
    gone = mass.infer(emulator, M_G[:1], colour[:1], mh=np.array([np.nan]))
    assert np.isnan(gone["mass"][0]) and gone["flag"][0] == mass.MISSING


def test_training_points_are_main_sequence_and_evenly_weighted():
    p = mass_training.draw(isochrone.load(None), (1.0, 10.0), (-2.0, 0.0), 20_000, 3)
    assert (p.M_G > 3).all() and (p.mass <= sequence.turn_off(p.mh, p.age)).all()
    assert p.weight.mean() == pytest.approx(1) and p.mh.min() >= -2 and p.mh.max() <= 0
    low = np.histogram(p.mass, np.linspace(0.1, 0.7, 7), weights=p.weight)[0]
    assert low.std() / low.mean() < 0.05
    assert p.age.min() >= 1 and np.log(p.age[p.mass < 0.5]).mean() == pytest.approx(np.log(10) / 2, abs=0.05)


def test_summary_as_stars_is_the_error_of_a_sample_drawn_from_kroupas_mass_function():
    """Weights against a sample: residuals that depend on mass, told for masses drawn by the mass function itself."""
    p = mass_training.draw(isochrone.load(None), (1.0, 10.0), (-2.0, 0.0), 200_000, 3)
    rows = np.arange(200_000)
    residual = np.column_stack([0.1 * p.mass**2, 0.2 * p.mass])
    told = mass_training.summary(p, rows, residual)
    faint = p.M_G > 4
    chance = p.weight * np.where(p.mass < 0.5, p.mass**-1.3, 0.5 * p.mass**-2.3) * faint
    some = np.random.default_rng(1).choice(rows, 400_000, p=chance / chance.sum())
    expected = np.sqrt((residual[some] ** 2).mean(0))
    assert (told["rms_mass_as_stars"], told["rms_mh_as_stars"]) == pytest.approx(tuple(expected), rel=0.01)
    assert told["rms_mass_as_stars"] < 0.7 * told["rms_mass"]


def test_default_model_holds_what_it_promises():
    from xptools.commands.mass import DEFAULT

    told = artefact.about(DEFAULT)
    assert told.metrics["rms_mass"] < 0.02 and told.metrics["rms_mh"] < 0.1
    assert "parametric main sequence fitted to PARSEC" in told.training["isochrones"]
    assert told.training["ages_gyr"] == [8.0, 13.5]


# real tables


@pytest.fixture(scope="module")
def real(shared_data):
    return isochrone.read(shared_data / "isochrones" / "parsec_ybc")


def test_default_model_on_the_real_tables(model, real):
    """The sequence is fitted, the network is trained on it: masses of real PARSEC rows, never seen, come back."""
    for i in real.isochrones:
        rows = (i.mass > 0.12) & (i.mass < 0.7)
        if not (10 <= i.age <= 13.1 and i.mh <= 0):
            continue
        out = mass.infer(model, i.M_G[rows].astype(np.float32), i.bp_rp[rows].astype(np.float32))
        assert np.sqrt(((out["mass"] - i.mass[rows]) ** 2).mean()) < 0.016, (i.mh, i.age)
        assert np.sqrt(((out["mh_phot"] - i.mh) ** 2).mean()) < 0.1, (i.mh, i.age)


def test_trained_on_the_real_tables(real):
    """Old stars, a small network: 0.01 Msun and 0.07 dex held out (SCIENCE 6.2: 0.012, 0.05), pulls of unit width."""
    emulator, metrics = trained(real, (10.0, 13.5))
    assert metrics["rms_mass"] < 0.012 and metrics["rms_mh"] < 0.09
    rng = np.random.default_rng(8)
    M, h, t = rng.uniform(0.12, 0.75, 5000), rng.uniform(-1.5, 0, 5000), rng.choice([10.0, 11.0, 12.0, 13.0], 5000)
    M_G, colour = real.absolute(M, h, t)
    s = np.full(5000, 0.05), np.full(5000, 0.02)
    out = mass.infer(emulator, M_G + s[0] * rng.normal(size=5000), colour + s[1] * rng.normal(size=5000), *s)
    pull = ((out["mass"] - M) / out["mass_err"])[out["flag"] == 0]
    assert abs(pull.mean()) < 0.15 and 0.8 < pull.std() < 1.1


def test_all_ages_of_the_real_tables_are_at_the_irreducible_scatter(real):
    """Held-out RMS against the scatter in cells of 0.05 x 0.02 mag, which no function of two colours can beat."""
    _, metrics = trained(real, (0.1, 10.0), points=40_000)
    p = mass_training.draw(real, (0.1, 10.0), (-2.2, 0.5), 100_000, 9)
    faint = p.M_G > 4
    cell = np.unique((np.floor(p.M_G / 0.05) * 1000 + np.floor(p.bp_rp / 0.02))[faint], return_inverse=True)[1]
    w, m = p.weight[faint], p.mass[faint]
    mean = np.bincount(cell, w * m) / np.bincount(cell, w)
    floor = np.sqrt((w * (m - mean[cell]) ** 2).sum() / w.sum())
    assert metrics["rms_mass"] < 1.2 * floor
    assert metrics["rms_mass_as_stars"] < 0.02 and metrics["rms_mh_as_stars"] < 0.1  # Li+ 2026 App. C.1
