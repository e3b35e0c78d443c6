"""The universe against its own statements: bits, counts, masses, [Fe/H], motions, light, errors."""

import io
import itertools
import json

import healpy
import numpy as np
import pyarrow as pa
import pytest
from astropy import units as u
from astropy.coordinates import CartesianDifferential, Galactocentric, SkyCoord
from scipy import stats

import xptools
from xptools import metadata, progress, universe
from xptools.columns import GAIA
from xptools.cores import astrometry, galaxy, photometry, sequence, veff
from xptools.cores.imf import PiecewiseIMF
from xptools.cores.mock_population import COMPONENTS
from xptools.mock import Mock

EXACT = {"noise": 0.0, "outliers": 0.0, "spurious": 0.0, "select": "true"}
FLAT = "breaks = [0.1, 1.1]\nfeh_edges = [-2.5, 0.5]\nslopes = [[-1.0]]\n"


def columns(mock, rows=100_000):
    """The whole universe as one dictionary of arrays."""
    batches = list(mock.batches(rows))
    return {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}


@pytest.fixture(scope="module")
def exact():
    """No noise, no pairs, limits on true values, single slope, one age: closed forms hold."""
    return Mock(300_000, seed=5, fractions=(0.4, 0.3, 0.3), binaries=0.0, age=10.0, **EXACT)


@pytest.fixture(scope="module")
def exact_stars(exact):
    return columns(exact)


@pytest.fixture(scope="module")
def noisy():
    """Everything on, but selected on true values: pulls are not biased by the selection."""
    return columns(Mock(200_000, seed=6, select="true"))


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    """One mass function for all [Fe/H], so that [Fe/H] at fixed mass follows the populations' own law."""
    path = tmp_path_factory.mktemp("imf") / "flat.toml"
    path.write_text(FLAT)
    mock = Mock(400_000, seed=8, fractions=(0.3, 0.3, 0.4), imf=str(path), binaries=0.5, age=10.0, **EXACT)
    return mock, columns(mock)


# --- star i from (seed, i) ------------------------------------------------------------------------------------------


def test_bits_do_not_depend_on_batches(noisy):
    for rows in (1000, 77_777):
        other = columns(Mock(200_000, seed=6, select="true"), rows)
        for name, values in noisy.items():
            assert values.tobytes() == other[name].tobytes(), name


def test_bits_do_not_depend_on_blocks_or_threads(monkeypatch):
    mock = Mock(20_000, seed=2)
    whole = columns(mock)
    for block, threads in ((1000, 1), (4096, 7), (65_536, 2)):
        monkeypatch.setattr(universe, "BLOCK", block)
        monkeypatch.setattr(universe.settings, "threads", lambda n=threads: n)
        other = columns(mock)
        for name, values in whole.items():
            assert values.tobytes() == other[name].tobytes(), (name, block)


def test_a_universe_goes_on_at_any_star():
    whole = columns(Mock(30_000, seed=2))
    for cut in (1, 12_345, 16_384):
        head, tail = columns(Mock(cut, seed=2)) if cut > 1 else None, columns(_same_density(30_000, cut))
        kept = 0 if head is None else len(head["ra"])
        start = len(whole["ra"]) - len(tail["ra"])
        assert head is None or kept == start
        for name, values in whole.items():
            assert values[start:].tobytes() == tail[name].tobytes(), name


def _same_density(stars, first):
    return Mock(stars - first, seed=2, first=first)


def test_seeds_differ():
    a, b = columns(Mock(2000, seed=1)), columns(Mock(2000, seed=2))
    assert not np.isin(a["parallax"], b["parallax"]).any()


# --- what it states -------------------------------------------------------------------------------------------------


def expected_counts(mock, feh_edges, mass_edges):
    """Stars per bin from the statement alone: sum over populations of n0 w P([Fe/H]) int phi(M) V_k(M_G) dM."""
    state = mock.meta_out(None)["xp.mock"]
    imf = PiecewiseIMF.from_dict({k: v for k, v in state["phi"].items() if k != "density"})
    total = np.zeros((len(feh_edges) - 1, len(mass_edges) - 1))
    for part in state["components"]:
        volume = veff.Volume(veff.Survey(mock.g_limit, 1.0, mock.mg_limit, galaxy.Disc(part["h_r"], part["h_z"])))
        mean, sigma, lo, hi = part["feh"]
        law = stats.truncnorm((lo - mean) / sigma, (hi - mean) / sigma, mean, sigma)
        for i, (f0, f1) in enumerate(itertools.pairwise(feh_edges)):
            fine = np.linspace(f0, f1, 25)
            for a, b in itertools.pairwise(fine):
                total[i] += part["fraction"] * (law.cdf(b) - law.cdf(a)) * _seen(imf, volume, 0.5 * (a + b), mass_edges)
    return state["density"] * total


def _seen(imf, volume, feh, mass_edges, points=40):
    edges = np.asarray(mass_edges)
    M = edges[:-1, None] + np.diff(edges)[:, None] * (np.arange(points) + 0.5) / points
    dwarf = sequence.turn_off(feh) >= M
    V = np.where(dwarf, volume(sequence.absolute(M, np.full(M.shape, feh))[0].ravel()).reshape(M.shape), 0.0)
    return (imf.pdf(M, feh) * V).mean(axis=1) * np.diff(edges)


def test_counts_are_those_of_the_stated_mass_function(exact, exact_stars):
    feh_edges = [-2.5, -2.2, -1.8, -1.6, -1.4, -1.1, -0.7, -0.4, 0.0, 0.5]
    mass_edges = [0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.7, 0.8, 0.9, 1.1]
    got, _, _ = np.histogram2d(exact_stars["true_feh"], exact_stars["true_mass"], [feh_edges, mass_edges])
    expected = expected_counts(exact, feh_edges, mass_edges)
    big = expected > 10
    pulls = (got - expected)[big] / np.sqrt(expected[big])
    assert big.sum() > 60
    assert got.sum() > 40_000 and abs(got.sum() / expected.sum() - 1) < 0.015
    assert stats.chi2.sf((pulls**2).sum(), big.sum()) > 1e-3
    assert (got[expected == 0] == 0).all()


def test_masses_follow_phi_times_the_volume(exact, exact_stars):
    mine = (exact_stars["true_feh"] > -1.6) & (exact_stars["true_feh"] < -1.4)
    edges = np.linspace(0.1, 1.1, 401)
    cumulative = np.r_[0, np.cumsum(expected_counts(exact, [-1.6, -1.4], edges)[0])]
    law = cumulative / cumulative[-1]
    assert mine.sum() > 1000
    assert stats.kstest(exact_stars["true_mass"][mine], lambda m: np.interp(m, edges, law)).pvalue > 1e-3


@pytest.mark.parametrize("k", range(3))
def test_metallicities_of_a_complete_mass_range_follow_their_law(flat, k):
    _, stars = flat
    mean, sigma, lo, hi = COMPONENTS[k].feh
    # no star of this mass is too faint at 1 kpc, too bright for M_G > 4, or gone
    mine = (stars["true_component"] == k) & (stars["true_mass"] > 0.70) & (stars["true_mass"] < 0.73)
    law = stats.truncnorm((lo - mean) / sigma, (hi - mean) / sigma, mean, sigma)
    assert mine.sum() > 1500
    assert stars["true_feh"][mine].min() >= lo and stars["true_feh"][mine].max() <= hi
    assert stats.kstest(stars["true_feh"][mine], law.cdf).pvalue > 1e-3


@pytest.mark.parametrize("k", range(3))
def test_distances_follow_the_density_law(flat, k):
    _, stars = flat
    mine = (stars["true_component"] == k) & (stars["true_mass"] > 0.70) & (stars["true_mass"] < 0.73)
    survey = veff.Survey(law=galaxy.Disc(COMPONENTS[k].h_r, COMPONENTS[k].h_z))
    grid = np.linspace(0.01, 1, 200)
    inside = np.r_[0, grid**3 * veff.mean_density(survey, grid)]
    law = inside / inside[-1]
    assert stats.kstest(stars["true_distance"][mine] / 1000, lambda d: np.interp(d, np.r_[0, grid], law)).pvalue > 1e-3


def test_only_halo_below_minus_1_1(exact_stars):
    poor = exact_stars["true_feh"] < -1.1
    assert poor.sum() > 1000 and (exact_stars["true_component"][poor] == 2).all()


def test_statement_survives_json_and_integrates_to_its_density(exact):
    state = json.loads(json.dumps(exact.meta_out(None)["xp.mock"]))
    phi = PiecewiseIMF.from_dict(state["phi"])
    assert sum(phi.density) == pytest.approx(state["density"])
    assert state["density"] * state["volume"] == pytest.approx(exact.stars)


def test_poisson_numbers():
    drawn = [universe.drawn(Mock(400, seed=s, poisson=True)) for s in range(1000)]
    assert abs(np.mean(drawn) - 400) < 4 * 20 / np.sqrt(1000)
    assert 0.85 < np.var(drawn) / 400 < 1.15
    assert Mock(400, seed=3, poisson=True).universe().drawn == drawn[3]
    assert Mock(400, poisson=True).universe().density == Mock(400).universe().density


# --- motions --------------------------------------------------------------------------------------------------------


def galactocentric(stars):
    """v_R, v_phi, v_Z [km/s] by astropy, from the columns."""
    sky = SkyCoord(
        ra=stars["ra"] * u.deg, dec=stars["dec"] * u.deg, distance=1000 / stars["parallax"] * u.pc,
        pm_ra_cosdec=stars["pmra"] * u.mas / u.yr, pm_dec=stars["pmdec"] * u.mas / u.yr,
        radial_velocity=stars["true_radial_velocity"] * u.km / u.s,
    )  # fmt: skip
    frame = Galactocentric(
        galcen_distance=8.122 * u.kpc,
        z_sun=0 * u.pc,
        galcen_v_sun=CartesianDifferential([12.9, 245.6, 7.78] * u.km / u.s),
    )
    c = sky.transform_to(frame)
    x, y, vx, vy, vz = (q.value for q in (c.x.to(u.kpc), c.y.to(u.kpc), c.v_x, c.v_y, c.v_z))
    R = np.hypot(x, y)
    return (x * vx + y * vy) / R, (y * vx - x * vy) / R, vz


def test_velocity_ellipsoids(exact_stars):
    v = galactocentric(exact_stars)
    for k, part in enumerate(COMPONENTS):
        mine = np.flatnonzero(exact_stars["true_component"] == k)[:8000]
        v0, slope, pivot = part.rotation
        means = (0.0, v0 + slope * (exact_stars["true_feh"][mine] - pivot), 0.0)
        for got, mean, sigma in zip(v, means, part.sigma, strict=True):
            # astropy's centre lies 0.07 deg from l = 0, which turns 0.3 km/s of rotation
            assert stats.kstest((got[mine] - mean) / sigma, "norm").pvalue > 1e-3, part.name


def test_sky_positions_agree_with_galactic_ones(exact_stars):
    l, b = astrometry.galactic(exact_stars["ra"], exact_stars["dec"])
    np.testing.assert_allclose(b, exact_stars["b"], atol=1e-9)
    np.testing.assert_allclose((l - exact_stars["l"] + 180) % 360, 180, atol=1e-6)
    sin_beta = astrometry.sin_ecliptic_latitude(exact_stars["ra"], exact_stars["dec"])
    np.testing.assert_allclose(np.sin(np.radians(exact_stars["ecl_lat"])), sin_beta, atol=1e-12)


# --- light ----------------------------------------------------------------------------------------------------------


def test_exact_stars_lie_on_the_sequence_and_have_no_excess(exact_stars):
    M_G, BP_RP = sequence.absolute(exact_stars["true_mass"], exact_stars["true_feh"], 10.0)
    np.testing.assert_allclose(exact_stars["true_mg"], M_G, atol=1e-9)
    np.testing.assert_allclose(exact_stars["bp_rp"], BP_RP, atol=5e-6)
    G = M_G + 5 * np.log10(exact_stars["true_distance"] / 10)
    np.testing.assert_allclose(exact_stars["phot_g_mean_mag"], G, atol=5e-6)
    np.testing.assert_allclose(exact_stars["parallax"], 1000 / exact_stars["true_distance"])
    C_star = photometry.excess_corrected(exact_stars["phot_bp_rp_excess_factor"], BP_RP)
    assert np.abs(C_star).max() < 1e-12


def test_pairs_add_their_light(flat):
    _, stars = flat
    single = np.isnan(stars["true_q"])
    mass, q, feh = stars["true_mass"][~single], stars["true_q"][~single], stars["true_feh"][~single]
    shines = q * mass >= 0.1
    one = sequence.absolute(mass, feh)
    other = sequence.absolute(np.where(shines, q * mass, 0.1), feh)
    flux = 10 ** (-0.4 * one[0]) + np.where(shines, 10 ** (-0.4 * other[0]), 0)
    np.testing.assert_allclose(stars["true_mg"][~single], -2.5 * np.log10(flux), atol=1e-9)
    gain = one[0] - stars["true_mg"][~single]
    assert 0.7 < gain.max() < 0.7526 and gain.min() >= -1e-12
    # the colour lies between those of the two stars, the redder one pulls it
    redder = stars["true_bp_rp"][~single] - one[1]
    assert (redder > -1e-9).all() and (stars["true_bp_rp"][~single][shines] <= other[1][shines] + 1e-9).all()


def test_shares_and_mass_ratios_of_pairs_where_all_are_seen(flat):
    _, stars = flat
    mine = (stars["true_mass"] > 0.60) & (stars["true_mass"] < 0.66) & (stars["true_feh"] > -1.0)
    pair = ~np.isnan(stars["true_q"][mine])
    assert abs(pair.mean() - 0.5) < 4 * 0.5 / np.sqrt(mine.sum())
    assert stats.kstest(stars["true_q"][mine][pair], "uniform").pvalue > 1e-3


def test_toy_dust_dims_by_the_coefficients_of_deredden():
    from xptools.cores.extinction import coefficients

    stars = columns(Mock(20_000, seed=3, map="toy", binaries=0.0, age=10.0, **EXACT))
    A = [a * stars["true_ext_e"] for a in coefficients(stars["true_bp_rp"], stars["true_ext_e"])]
    np.testing.assert_allclose(stars["true_ag"], A[0], atol=1e-6)
    np.testing.assert_allclose(stars["bp_rp"], stars["true_bp_rp"] + A[1] - A[2], atol=1e-5)
    d, z = stars["true_distance"] / 1000, np.abs(np.sin(np.radians(stars["b"]))) * stars["true_distance"] / 1000
    np.testing.assert_allclose(stars["true_ext_e"], 0.1 * d * -np.expm1(-z / 0.1) / (z / 0.1), rtol=1e-6)
    C_star = photometry.excess_corrected(stars["phot_bp_rp_excess_factor"], stars["bp_rp"])
    assert np.abs(C_star).max() < 0.02


# --- errors ---------------------------------------------------------------------------------------------------------


def pulls_of(stars):
    good = (stars["true_outlier"] & 1) == 0
    light = 10 ** (0.4 * (photometry.ZERO_POINT["G"] - stars["true_mg"])) / (stars["true_distance"] / 10) ** 2
    yield "parallax", ((stars["parallax"] - stars["true_parallax"]) / stars["parallax_error"])[good]
    yield "G", (stars["phot_g_mean_flux"] - light) / stars["phot_g_mean_flux_error"]
    yield "feh", (stars["feh"] - stars["true_feh"]) / stars["feh_err"]
    seen = np.isfinite(stars["radial_velocity"])
    difference = stars["radial_velocity"] - stars["true_radial_velocity"]
    yield "radial velocity", (difference / stars["radial_velocity_error"])[seen]


def test_pulls_are_standard_normal(noisy):
    for name, pulls in pulls_of(noisy):
        assert len(pulls) > 10_000
        assert stats.kstest(pulls, "norm").pvalue > 1e-3, name


def test_proper_motion_noise_is_of_its_stated_size():
    noise, exact = (columns(Mock(50_000, seed=4, select="true", noise=x)) for x in (1.0, 0.0))
    assert np.array_equal(noise["source_id"], exact["source_id"])
    for name in ("pmra", "pmdec"):
        assert stats.kstest((noise[name] - exact[name]) / noise[f"{name}_error"], "norm").pvalue > 1e-3
        assert np.array_equal(noise[f"{name}_error"], exact[f"{name}_error"])


def test_colour_noise_is_of_its_stated_size():
    noise, exact = (columns(Mock(50_000, seed=4, select="true", noise=x)) for x in (1.0, 0.0))
    tags = ("bp", "rp")
    sigma = np.hypot(*(photometry.magnitude_error(noise[f"phot_{t}_mean_flux_over_error"]) for t in tags))
    difference = noise["bp_rp"] - exact["bp_rp"]
    assert 0.97 < np.std(difference / sigma) < 1.03
    for tag in tags:
        flux, error = noise[f"phot_{tag}_mean_flux"], noise[f"phot_{tag}_mean_flux_error"]
        np.testing.assert_allclose(noise[f"phot_{tag}_mean_flux_over_error"], flux / error, rtol=1e-6)


def test_excess_factor_is_the_ratio_of_fluxes_and_has_the_width_of_the_real_one(noisy):
    total = noise_sum = noisy["phot_bp_mean_flux"] + noisy["phot_rp_mean_flux"]
    np.testing.assert_allclose(noisy["phot_bp_rp_excess_factor"], total / noisy["phot_g_mean_flux"], rtol=1e-12)
    assert noise_sum.min() > 0
    G = noisy["phot_g_mean_mag"]
    z = photometry.excess_corrected(noisy["phot_bp_rp_excess_factor"], noisy["bp_rp"]) / photometry.excess_sigma(G)
    clean = (noisy["true_outlier"] & 2) == 0
    assert 0.35 < 1.4826 * np.median(np.abs(z[clean])) < 0.45
    assert (np.abs(z[clean]) > 3).mean() < 1e-3
    assert 0.03 < (np.abs(z) > 3).mean() < 0.05


def test_spurious_solutions_have_low_fidelity_and_too_much_parallax(noisy):
    wild = (noisy["true_outlier"] & 1) > 0
    assert 0.003 < wild.mean() < 0.007
    assert (noisy["fidelity_v2"][~wild] >= 0.5).all() and (noisy["fidelity_v2"][wild] < 0.5).mean() > 0.8
    assert (noisy["parallax"] - noisy["true_parallax"])[wild].min() > 0.5


def test_observed_metallicity_errors(noisy):
    poor, rich = noisy["true_feh"] < -1.05, noisy["true_feh"] > -0.4
    assert 0.2 < np.median(noisy["feh_err"][poor]) < 0.3 and 0.09 < np.median(noisy["feh_err"][rich]) < 0.13
    exact, fixed = (columns(Mock(3000, feh_error=e)) for e in (0.0, 0.2))
    assert np.array_equal(exact["feh"], exact["true_feh"]) and (exact["feh_err"] == 0).all()
    assert 0.15 < np.std(fixed["feh"] - fixed["true_feh"]) < 0.25


# --- selection ------------------------------------------------------------------------------------------------------


def test_observed_stars_satisfy_the_archive_query_as_written():
    t = _table(Mock(60_000, seed=9))
    c = {name: t[name].to_numpy() for name in t.column_names}
    assert (c["parallax"] > 1).all() and (c["parallax_over_error"] > 10).all() and (c["phot_g_mean_mag"] < 17.5).all()
    assert (c["phot_g_mean_mag"] + 5 * np.log10(c["parallax"] / 100) > 4).all()
    assert 0.4 < t.num_rows / 60_000 < 0.5
    # stars from beyond 1 kpc came in by their noise, and the reach of the parent sample was not felt
    beyond = c["true_distance"] > 1000
    assert 0.02 < beyond.mean() < 0.15 and c["true_distance"][(c["true_outlier"] & 1) == 0].max() < 1450


def test_a_wider_parent_sample_would_add_nothing(monkeypatch):
    """The same universe with a parent reaching farther gives the same selected density of stars."""
    from xptools.cores import mock_population

    near = Mock(150_000, seed=10)
    count, density = len(columns(near)["ra"]), near.universe().density
    monkeypatch.setattr(mock_population.Limits, "farthest", lambda self: 1.9)
    monkeypatch.setattr(mock_population, "parallax_error", lambda G: np.full(np.shape(G), 0.13))
    universe_wide = universe.Universe(Mock(150_000, seed=10))
    wide = sum(len(b["ra"]) for b in universe_wide.blocks())
    assert universe_wide.density < 0.95 * density
    one, other = count / density, wide / universe_wide.density
    assert abs(one / other - 1) < 4 * np.sqrt(1 / count + 1 / wide)


# --- columns and the program ----------------------------------------------------------------------------------------


def _table(mock):
    return pa.Table.from_batches(list(mock.record_batches(50_000)), mock.schema())


def test_columns_are_the_archive_s():
    t = _table(Mock(5000))
    for name, column in GAIA.items():
        field = t.schema.field(name)
        assert field.type == metadata.arrow_type(column.type), name
        assert metadata.unit_of(field) == (column.unit or ""), name
    for name in ("true_mass", "true_feh", "true_parallax", "true_component", "feh", "feh_err"):
        assert name in t.column_names
    floats = [f.name for f in t.schema if pa.types.is_floating(f.type)]
    may_miss = {"radial_velocity", "radial_velocity_error", "pseudocolour", "nu_eff_used_in_astrometry", "true_q"}
    for name in floats:
        assert name in may_miss or np.isfinite(t[name].to_numpy()).all(), name
    assert metadata.value_of(t.schema, "xp.mock")["stars"] == 5000


def test_identifiers_are_unique_and_know_their_pixel():
    t = _table(Mock(60_000, first=2**28 - 30_000))
    ids, ra, dec = (t[n].to_numpy() for n in ("source_id", "ra", "dec"))
    assert len(np.unique(ids)) == len(ids) and ids.min() > 0
    assert np.array_equal(ids >> 35, healpy.ang2pix(4096, ra, dec, nest=True, lonlat=True))


@pytest.mark.parametrize("stars", [0, 1, 2])
def test_few_stars(stars, xp):
    done = xp("mock", stars, "--select", "true")
    assert done.returncode == 0, done.stderr
    with pa.ipc.open_stream(io.BytesIO(done.stdout)) as reader:
        t = reader.read_all()
    assert t.num_rows <= stars and set(GAIA) <= set(t.column_names)


def test_the_program_and_python_give_the_same(xp):
    done = xp("mock", 3000, "--seed", 4, "--map", "toy", "--fractions", 0.5, 0.3, 0.2, "--batch-rows", 100)
    assert done.returncode == 0, done.stderr
    with pa.ipc.open_stream(io.BytesIO(done.stdout)) as reader:
        t = reader.read_all()
    step = xptools.op("mock 3000 --seed 4 --map toy --fractions 0.5 0.3 0.2")
    assert step == Mock(3000, seed=4, map="toy", fractions=(0.5, 0.3, 0.2))
    for name, column in zip(t.column_names, _table(step).columns, strict=True):
        np.testing.assert_array_equal(t[name].to_numpy(), column.to_numpy(), err_msg=name)


def test_giants_have_labels_and_the_same_kinematics():
    t = _table(Mock(60_000, seed=1, sample="giants", max_distance=3.0))
    c = {name: t[name].to_numpy() for name in t.column_names}
    assert "true_q" not in c and len(c["ra"]) > 20_000
    assert (c["parallax_over_error"] > 10).all() and (c["true_mg"] < 3.2).all()
    assert 3500 < np.quantile(c["teff"], 0.001) and np.quantile(c["teff"], 0.99) < 6000
    assert 0.5 < np.median(c["logg"]) < 3.5
    for name in ("teff", "logg", "mh", "alpha_m", "mass", "age"):
        pull = (c[name] - c[f"true_{name}"]) / c[f"{name}_err"]
        assert np.std(pull) == pytest.approx(1.0, abs=0.03) and abs(np.mean(pull)) < 0.03, name
    np.testing.assert_allclose(c["mass_err"] / c["true_mass"], 0.18722 - 0.03477 * c["true_logg"], rtol=1e-5)
    for name in ("feh_err", "teff_err", "logg_err"):
        cut = {"feh_err": 0.1, "teff_err": 50, "logg_err": 0.1}[name]
        assert 0.3 < (c[name] < cut).mean() < 0.99, name
    speed = 4.74047 * np.hypot(c["pmra"], c["pmdec"]) / c["parallax"]
    medians = [np.median(speed[c["true_component"] == k]) for k in range(3)]
    assert medians[0] < medians[1] < medians[2] and medians[2] > 150
    assert c["true_feh"][c["true_component"] == 2].max() < -0.69


def test_giants_masses_ages_and_light_belong_together():
    t = _table(Mock(20_000, seed=2, sample="giants", max_distance=3.0, alpha_fe=0.1))
    c = {name: t[name].to_numpy() for name in t.column_names}
    log_L = np.log10(c["true_mass"]) + 4 * np.log10(c["true_teff"] / 5772) - (c["true_logg"] - 4.438)
    correction = 4.77 - 2.5 * log_L - c["true_mg"]
    assert correction.min() > -1.5 and correction.max() < 0.3
    young, metals = c["true_age"] < 2, np.abs(c["true_mh"]) < 0.1
    assert np.median(c["true_mass"][young & metals]) == pytest.approx(1.85, abs=0.1)
    assert np.median(c["true_mass"][(c["true_age"] > 9) & metals]) == pytest.approx(1.0, abs=0.05)
    clump = t["true_clump"].to_numpy(zero_copy_only=False)
    assert 0.25 < clump.mean() < 0.5 and np.abs(c["true_mg"][clump & metals] - 0.55).max() < 0.6
    thin, halo = (np.median(c["true_alpha_m"][c["true_component"] == k]) for k in (0, 2))
    assert halo > thin + 0.05


def test_giants_of_real_tables_are_close_to_the_parametric_ones(shared_data):
    folder = shared_data / "isochrones" / "parsec_ybc"
    table = folder / "cmd_gaiaedr3_mh-1.5..0.0_10-13.5Gyr.dat"
    if not table.exists():
        pytest.skip("no PARSEC table of 10 Gyr here")
    fractions = {"fractions": (0, 1, 0), "age": 11.0, "sample": "giants", "max_distance": 2.0}
    mock = Mock(3000, seed=5, isochrones=str(table), **fractions)
    assert "red giants of" in mock.meta_out(None)["xp.mock"]["isochrones"]
    real, made = columns(mock), columns(Mock(3000, seed=5, **fractions))
    both, one, other = np.intersect1d(real["source_id"], made["source_id"], return_indices=True)
    assert len(both) > 500
    branch = made["true_logg"][other] > 2.6
    for name, near in (("true_mass", 0.02), ("true_teff", 40.0), ("true_mg", 0.06), ("true_bp_rp", 0.03)):
        off = np.abs(real[name][one] - made[name][other])[branch]
        assert np.quantile(off, 0.98) < near, (name, np.quantile(off, 0.98))


def test_giants_are_refused_from_tables_without_them(xp, shared_data):
    table = shared_data / "isochrones" / "other" / "mist_feh-1.14.iso.cmd"
    done = xp("mock", 10, "--sample", "giants", "--isochrones", table)
    assert done.returncode in (65, 66) and b"giants" in done.stderr, done.stderr


def test_map_file_of_a_real_kind_is_what_dims(tmp_path):
    from dustmap_files import write_edenhofer

    path = write_edenhofer(tmp_path / "map.fits")
    stars = columns(Mock(4000, seed=3, map="edenhofer2023", map_file=str(path), **EXACT))
    from xptools.dustfiles import open_map

    E = open_map("edenhofer2023", str(path)).query(stars["l"], stars["b"], stars["true_distance"]).E
    np.testing.assert_allclose(stars["true_ext_e"], np.nan_to_num(E), rtol=1e-6)
    assert (stars["true_ext_e"] > 0).any()


def test_real_isochrones_may_replace_the_sequence(shared_data):
    folder = shared_data / "isochrones" / "parsec_ybc" / "cmd_gaiaedr3_mh-1.5..0.0_10-13.5Gyr.dat"
    if not folder.exists():
        pytest.skip("no PARSEC table of 10 Gyr here")
    mock = Mock(5000, fractions=(0, 0, 1), isochrones=str(folder), age=10.0, binaries=0.0, **EXACT)
    stars = columns(mock)
    assert len(stars["ra"]) > 500
    M_G, _ = sequence.absolute(stars["true_mass"], stars["true_feh"], 10.0)
    low = (stars["true_mass"] > 0.15) & (stars["true_mass"] < 0.75)
    assert np.abs(stars["true_mg"] - M_G)[low].max() < 0.08
    assert "PARSEC" in mock.meta_out(None)["xp.mock"]["isochrones"].upper()


def test_populations_without_isochrones_are_announced(shared_data, capsys, monkeypatch):
    monkeypatch.delenv("XP_QUIET", raising=False)
    progress.repeated()  # a warning is said once in a process
    folder = shared_data / "isochrones" / "parsec_ybc" / "cmd_gaiaedr3_mh-1.5..0.0_10-13.5Gyr.dat"
    Mock(10, seed=99, fractions=(0, 0, 1), isochrones=str(folder)).universe()
    assert "of the local density has no isochrone" in capsys.readouterr().err


def test_a_universe_without_isochrones_is_refused(xp, shared_data):
    folder = shared_data / "isochrones" / "parsec_ybc" / "cmd_gaiaedr3_mh-1.5..0.0_10-13.5Gyr.dat"
    done = xp("mock", 10, "--isochrones", folder, "--age", 2)
    assert done.returncode == 65 and b"no star can be seen" in done.stderr, done.stderr


def test_everything_cited_is_in_the_bibliography():
    from importlib import resources

    bibliography = (resources.files("xptools") / "data" / "references.bib").read_text()
    for mock in (Mock(), Mock(map="toy"), Mock(map="edenhofer2023"), Mock(isochrones="x")):
        for key in mock.cites:
            assert f"{{{key}," in bibliography, key


def test_wrong_settings_say_so(xp, tmp_path):
    bad = tmp_path / "bad.toml"
    bad.write_text("breaks = [0.1, 1.0]\nslopes = [[1.0, 2.0]]\n")
    cases = [
        (("--imf", bad), 65, b"slopes"),
        (("--imf", tmp_path / "none.toml"), 66, b"none.toml"),
        (("--fractions", 0, 0, 0), 2, b"--fractions"),
        (("--binaries", 1.5), 2, b"binaries"),
        (("--max-distance", 9), 2, b"max-distance"),
        (("--max-distance", -1), 2, b"max-distance"),
        (("--map", "toy", "--map-file", bad), 2, b"--map-file has no effect"),
    ]
    for args, code, word in cases:
        done = xp("mock", 10, *args)
        assert (done.returncode, word in done.stderr) == (code, True), done.stderr
        assert done.stdout == b""
    bad.write_text("breaks = [0.1, 1.0\n")
    assert xp("mock", 10, "--imf", bad).returncode == 65
