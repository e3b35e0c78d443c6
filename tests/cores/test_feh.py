"""The inversion: kernels against NumPy, the quick way against converged references, errors against known truth."""

import ast
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from scipy import stats

from xptools.cores import feh, feh_binary, nn
from xptools.cores import feh_training as training

sys.path.insert(0, str(Path(__file__).parents[1]))
import feh_toy as toy


class Known(feh.Model):
    """The toy universe itself as the model: nothing is missed but one part in a thousand."""

    def __init__(self):
        labels = toy.labels(4000, 1)
        scaled = (labels - feh.LABEL_MEAN) / feh.LABEL_SCALE
        y = toy.flux(labels) * 1e18
        sample = training.Sample(labels, feh.Spectra(y * 1e-18, y * 1e-20, np.full(len(y), 100.0), np.zeros(len(y))))
        norm = training.norms(y, labels)
        A = np.hstack([feh.guess_input(y, norm["init.mean"], norm["init.scale"]), np.ones((len(y), 1))])
        c = np.linalg.lstsq(A, scaled, rcond=None)[0].astype(np.float32)  # a first guess of one layer
        super().__init__({
            **norm, **training.hull(labels, 0), "init.0.w": c[:-1], "init.0.b": c[-1], "box": training.box(labels),
            "wavelength": toy.WAVELENGTH, "error.cov": 1e-6 * np.eye(61)[None], "error.teff": np.zeros(1),
            "sequence": training.sequence(labels),
        })  # fmt: skip
        assert len(sample.observed()) == 2

    def ln_flux(self, scaled, xp=np, arrays=None):
        assert xp is np
        return np.log(toy.flux(scaled * feh.LABEL_SCALE + feh.LABEL_MEAN) * 1e18)


def network(hidden=(24, 24), seed=3):
    """A model with an untrained, hence wavy, network; its own spectra are its truth."""
    labels = toy.labels(3000, 2)
    y = toy.flux(labels) * 1e18
    norm = training.norms(y, labels)
    nets = {}
    for prefix, sizes in (("net.", (3, *hidden, 61)), ("init.", (61, 8, 3))):
        nets |= {prefix + k[4:]: 0.3 * v for k, v in nn.flatten(nn.init(seed, sizes)).items()}
    return feh.Model({
        **nets, **norm, **training.hull(labels, 0), "box": training.box(labels), "wavelength": toy.WAVELENGTH,
        "error.cov": 1e-6 * np.eye(61)[None], "error.teff": np.zeros(1), "sequence": training.sequence(labels),
    })  # fmt: skip


def stars(n, seed, **more):
    s = toy.spectra(n, seed, **more)
    return s["labels"], feh.Spectra(s["flux"], feh.packed(s["cov"]), s["parallax"], s["parallax_error"])


@pytest.fixture(scope="module")
def known():
    return Known()


# --- kernels -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "within"), [(np.float32, 2e-5), (np.float64, 1e-12)])
def test_factor_inverse_and_whitening_against_numpy(kind, within):
    from xptools.cores import _fehkernels as kernels

    rng = np.random.default_rng(0)
    A = rng.normal(size=(64, 64))
    A = A @ A.T + np.eye(64)
    R, inverse, V = A.astype(kind).ravel(), np.empty(64, kind), np.empty(4 * 16 * 16, kind)
    assert kernels.factorised(R, inverse, V, 1e-7)
    lower = np.tril(R.reshape(64, 64))
    assert np.abs(lower.T @ lower - A).max() < 10 * within and np.abs(inverse * np.diag(lower) - 1).max() < within
    for k, block in enumerate(V.reshape(4, 16, 16)):
        own = slice(16 * k, 16 * (k + 1))
        assert np.abs(block @ lower[own, own] - np.eye(16)).max() < within
    x = rng.normal(size=5 * 64).astype(kind)
    want = np.linalg.solve(lower.T, x.reshape(5, 64).T).T
    z, one = np.empty_like(x), np.empty(64, kind)
    kernels.whiten(R, V, x[64:128].copy(), one)
    kernels.whiten_five(R, V, x, z)
    assert np.abs(z.reshape(5, 64) - want).max() < within and np.abs(one - want[1]).max() < within
    assert not kernels.factorised((-A).astype(kind).ravel(), inverse, V, 1e-7)


def test_no_kernel_calls_a_kernel():
    """Else the process that compiles and those that load what it compiled differ (cores/_numba.py)."""
    files = [Path(feh.__file__).with_name(f"_feh{name}.py") for name in ("kernels", "guess", "model", "fits")]
    functions = [f for file in files for f in ast.parse(file.read_text()).body if isinstance(f, ast.FunctionDef)]
    kernels = {f.name for f in functions if any(ast.unparse(d) == "kernel" for d in f.decorator_list)}
    assert kernels == {"guess_stars", "fit_stars", "fit_pairs"}
    called = {n.func.id for f in functions for n in ast.walk(f) if isinstance(n, ast.Call) and hasattr(n.func, "id")}
    assert not called & kernels


def test_products_of_rows():
    from xptools.cores._fehtiles import dot_products

    @numba.njit
    def compiled(z, out):
        dot_products(z, out)

    z, out = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32), np.empty(15, np.float32)
    compiled(z.ravel(), out)
    rows = z[[4, 0, 1, 2, 3]].astype(float)
    assert np.abs(out - (rows @ rows.T)[np.triu_indices(5)]).max() < 1e-4


def test_the_covariance_is_assembled_as_written():
    from xptools.cores import _fehkernels as kernels

    rng, n = np.random.default_rng(1), 61
    packed, scale, there = rng.normal(size=n * (n + 1) // 2) * 1e-36, np.zeros(64), np.ones(n, bool)
    scale[:n], there[7] = 1e18 * rng.uniform(1, 2, n), False
    floor = np.zeros((2, 64, 64), np.float32)
    floor[:, :n, :n] = rng.normal(size=(2, n, n))
    errors = kernels.Errors(floor.reshape(2, -1), np.ones((2, 64), np.float32), np.array([0.0, 2.0]))
    i, j = np.tril_indices(n)
    for diagonal in (False, True):
        a = np.empty(64 * 64)
        kernels.assembled(scale, packed[:n] if diagonal else packed, packed, diagonal, errors, 0.5, there, a)
        want = np.zeros((64, 64))
        if diagonal:
            want[np.arange(n), np.arange(n)] = (scale[:n] * packed[:n]) ** 2
        else:
            want[i, j] = scale[i] * scale[j] * packed
        want[:n, :n] += 0.75 * floor[0, :n, :n] + 0.25 * floor[1, :n, :n]
        want[7], want[:, 7] = 0, 0
        want[7, 7], want[range(n, 64), range(n, 64)] = kernels.GONE, 1
        assert np.abs(np.tril(a.reshape(64, 64)) - np.tril(want)).max() < 1e-6


def test_exponentials_and_logarithms():
    from xptools.cores._fehkernels import exponentials
    from xptools.cores._fehtiles import logarithm_tile

    @numba.njit
    def logarithms(x):
        for tile in range(0, 64, 16):
            logarithm_tile(x, tile)

    x = np.linspace(-29, 29, 64).astype(np.float32)
    y = x.copy()
    exponentials(y, 64)
    assert np.abs(y / np.exp(x.astype(float)) - 1).max() < 3e-7
    y = np.geomspace(1e-30, 1e30, 64).astype(np.float32)
    want = np.log(y.astype(float))
    logarithms(y)
    assert np.abs(y - want).max() < 1e-5 and np.abs(y / want - 1).max() < 5e-7


def test_the_first_guess_is_the_network(known):
    """Compiled as in arrays; a sample that is unknown counts as typical, one without light as the faintest."""
    _, spectra = stars(300, 11)
    y = spectra.flux * spectra.gain()
    y[0, 3], y[1, 5], y[2, 60] = np.nan, -1.0, np.inf
    for model, within in ((known, 0.05), (network(), 2e-4)):  # the former's weights are large and of either sign
        x = feh.guess_input(y, model.arrays["init.mean"], model.arrays["init.scale"])
        want = np.clip(nn.apply(model.init, x), *model.box)
        assert np.abs(model.guess(y) - want).max() < within


def test_packing():
    a = np.random.default_rng(0).normal(size=(2, 5, 5))
    a = a + a.transpose(0, 2, 1)
    p = feh.packed(a)
    assert p.shape == (2, 15) and p[0, :3].tolist() == [a[0, 0, 0], a[0, 1, 0], a[0, 1, 1]]
    assert np.array_equal(p[:, feh.diagonal_places(5)], a.diagonal(axis1=1, axis2=2))


# --- the minimum ---------------------------------------------------------------------------------------------------


def chi2_of(model, spectra, p, ref):
    """chi2 of p (N, 4), slowly: dense matrices, float64, the network or whatever the model is."""
    y, gain, spread = spectra.flux * spectra.gain(), spectra.gain(), spectra.spread()
    i, j = np.tril_indices(y.shape[1])
    out = np.empty(len(y))
    y0 = np.exp(model.table(ref[:, :3])[0] - (spread * ref[:, 3])[:, None])
    model_y = np.exp(model.ln_flux(p[:, :3]) - (spread * p[:, 3])[:, None])
    for k in range(len(y)):
        C = np.zeros((61, 61))
        C[i, j] = C[j, i] = spectra.noise[k]
        C = C * np.outer(gain[k], gain[k]) + model.floor_at(ref[k : k + 1, 0])[0] * np.outer(y0[k], y0[k])
        r = model_y[k] - y[k]
        out[k] = r @ np.linalg.solve(C, r) + p[k, 3] ** 2
    return out


def test_chi2_is_the_one_written_down(known):
    _, spectra = stars(60, 4)
    fit = feh.fitted(known, spectra)
    slow = chi2_of(known, spectra, fit.p, fit.ref)
    assert np.abs(fit.chi2 - slow).max() < 2e-3 * slow.max()


def test_noise_far_above_what_the_model_misses_is_factorised_in_double(known):
    """Errors as large as the flux: single precision no longer holds a floor of one in a thousand beside them."""
    _, spectra = stars(60, 4, snr=(0.5, 3))
    fit = feh.fitted(known, spectra)
    fine = fit.state == 0
    assert fine.mean() > 0.9
    slow = chi2_of(known, spectra, fit.p, fit.ref)
    assert np.abs(fit.chi2 / slow - 1)[fine].max() < 0.01


def test_it_is_the_minimum_of_many_starts(known):
    """0.02 in chi2 / 2 for 99.9 % of stars, against 20 starts all over the box."""
    _, spectra = stars(2500, 5)
    quick = feh.fitted(known, spectra)
    begin = np.random.default_rng(1).uniform(*known.box, (2500, 20, 3))
    begin[:, 0] = known.guess(spectra.flux * spectra.gain())
    begin[:, 1:, 1] = quick.p[:, None, 1]
    many = feh.fitted(known, spectra, begin)
    worse = (quick.chi2 - many.chi2) / 2 > 0.02
    assert worse.mean() <= 1e-3


def test_a_second_minimum_is_found_where_there_is_one(known):
    """Faint stars have two, on either side of a metallicity without information."""
    _, spectra = stars(2000, 6, snr=(5, 20))
    quick = feh.fitted(known, spectra)
    begin = np.random.default_rng(1).uniform(*known.box, (2000, 20, 3))
    begin[:, 0] = known.guess(spectra.flux * spectra.gain())
    begin[:, 1:, 1] = quick.p[:, None, 1]
    many = feh.fitted(known, spectra, begin)
    assert ((quick.chi2 - many.chi2) / 2 > 0.02).mean() <= 1e-3


def test_the_methods_agree_on_the_network():
    """Table and kernel, table in JAX, network in JAX by LM and by BFGS: one minimum, one covariance."""
    model = network()
    rng = np.random.default_rng(0)
    n = 300
    p = rng.uniform(0.7 * model.box[0] + 0.3 * model.box[1], 0.3 * model.box[0] + 0.7 * model.box[1], (n, 3))
    y = np.exp(model.ln_flux(p)) * 1e-18
    cov = toy.noise_covariance(y, np.full(n, 150.0))
    seen = y + np.einsum("nij,nj->ni", np.linalg.cholesky(cov * 1e30) * 1e-15, rng.normal(size=y.shape))
    spectra = feh.Spectra(seen, feh.packed(cov), np.full(n, 100.0), np.full(n, 1.0))
    begin = (p + rng.normal(0, 0.05, p.shape))[:, None]
    quick = feh.fitted(model, spectra, begin)
    look = feh.fitted(model, spectra, begin, look_only=True)
    assert np.isnan(look.p).all() and np.array_equal(look.ref, quick.ref)
    fits = {m: feh.refined(model, spectra, look, m) for m in ("table", "lm-network", "bfgs")}
    on_network = chi2_of(model, spectra, quick.p, quick.ref)
    for m, fit in fits.items():
        assert (fit.state == 0).mean() > 0.99, m
        best = fit.chi2 if m != "table" else quick.chi2
        assert np.mean((on_network if m != "table" else fit.chi2) / 2 > best / 2 + 0.02) <= 0.01, m
    assert np.mean(np.abs(fits["bfgs"].chi2 - fits["lm-network"].chi2) > 0.02) <= 0.01
    one, other = (np.linalg.inv(f.curvature)[:, :3, :3] for f in (quick, fits["lm-network"]))
    assert np.median(np.abs(one / other - 1)) < 0.02


def test_what_runs_on_a_gpu_finds_the_same(known):
    """The way of --device cuda, here with JAX on the CPU: it starts once, so a second minimum may be missed."""
    _, spectra = stars(200, 12, snr=(60, 400))
    one, other = feh.infer(known, spectra), feh.infer(known, spectra, on_gpu=True)
    assert (np.abs(one["chi2"] - other["chi2"]) / 2 < 0.02).mean() > 0.97
    for name in feh.LABELS:
        assert np.median(np.abs(one[name] - other[name]) / one[f"{name}_err"]) < 0.05


def test_exact_hessian_against_differences():
    model = network()
    n, rng = 6, np.random.default_rng(2)
    p = rng.uniform(0.6 * model.box[0] + 0.4 * model.box[1], 0.4 * model.box[0] + 0.6 * model.box[1], (n, 3))
    y = np.exp(model.ln_flux(p)) * 1e-18
    spectra = feh.Spectra(y * rng.normal(1, 0.03, y.shape), 0.03 * y, np.full(n, 100.0), np.full(n, 1.0))
    look = feh.fitted(model, spectra, p[:, None], look_only=True)
    fit = feh.refined(model, spectra, look, "lm-network", exact=True)
    packed = feh.packed(np.einsum("ni,ij->nij", spectra.noise**2, np.eye(61)))
    dense, h = spectra._replace(noise=packed), 1e-3
    half = lambda q: chi2_of(model, dense, q, fit.ref) / 2  # noqa: E731
    for a in range(4):
        for b in range(4):
            da, db = np.eye(4)[a] * h, np.eye(4)[b] * h
            d2 = half(fit.p + da + db) - half(fit.p + da - db) - half(fit.p - da + db) + half(fit.p - da - db)
            scale = np.sqrt(fit.curvature[:, a, a] * fit.curvature[:, b, b])
            assert np.abs(d2 / (4 * h * h) - fit.curvature[:, a, b]).max() < 0.02 * scale.max()


# --- errors --------------------------------------------------------------------------------------------------------


def calibration(out, labels):
    """Median and width of the pulls (3,), and the Kolmogorov-Smirnov p of the Mahalanobis distances."""
    names = feh.LABELS
    good = out["flag"] == 0
    d = np.stack([out[n] for n in names], -1)[good] - labels[good]
    e = np.stack([out[f"{n}_err"] for n in names], -1)[good]
    rho = np.tile(np.eye(3), (good.sum(), 1, 1))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        rho[:, i, j] = rho[:, j, i] = out[f"{names[i]}_{names[j]}"][good]
    pull = d / e
    distance = np.einsum("ni,nij,nj->n", pull, np.linalg.inv(rho), pull)
    return np.median(pull, 0), pull.std(0), stats.kstest(distance, "chi2", args=(3,)).pvalue, good.mean()


def test_errors_are_calibrated(known):
    """Pulls of unit width within 10 %, no bias beyond 0.1 sigma, and the correlations right."""
    labels, spectra = stars(3000, 7, snr=(60, 400))
    bias, width, p, used = calibration(feh.infer(known, spectra), labels)
    assert used > 0.9
    assert np.abs(bias).max() < 0.1 and np.abs(width - 1).max() < 0.1
    assert p > 1e-3


def test_without_the_correlations_they_are_not(known):
    """The same stars with the same errors, correlations ignored: this must fail, or the test above says nothing."""
    labels, spectra = stars(3000, 7, snr=(60, 400))
    alone = spectra._replace(noise=np.sqrt(spectra.noise[:, feh.diagonal_places(61)]))
    _, width, p, _ = calibration(feh.infer(known, alone), labels)
    assert np.abs(width - 1).max() > 0.2
    assert p < 1e-10


def test_the_parallax_counts_once(known):
    """sigma(M_G) is that of the distance modulus where the flux is precise, however precise the flux."""
    _, spectra = stars(300, 8, snr=(300, 400), parallax_error=0.2)
    out = feh.infer(known, spectra)
    modulus = 5 / np.log(10) * spectra.parallax_error / spectra.parallax
    assert np.abs(np.median(out["mg_err"] / modulus) - 1) < 0.05


# --- rows that are not as they should be ---------------------------------------------------------------------------


def test_flags(known):
    labels, spectra = stars(12, 9)
    flux, parallax = spectra.flux.copy(), spectra.parallax.copy()
    flux[0] = np.nan
    parallax[1], parallax[2] = np.nan, -1
    flux[3, :25] = np.nan
    flux[4] *= np.where(np.arange(61) % 2, 3, 1)
    flux[5, :8] = -np.abs(flux[5, :8])
    flux[6] *= 1e-3
    out = feh.infer(known, spectra._replace(flux=flux, parallax=parallax))
    flag = out["flag"]
    assert (flag[:3] & feh.NO_DATA > 0).all() and np.isnan(out["feh"][:3]).all() and np.isnan(out["chi2"][:3]).all()
    assert flag[3] & feh.MISSING_BAND and np.isfinite(out["feh"][3])
    assert abs(out["teff"][3] - labels[3, 0]) < 6 * out["teff_err"][3]
    assert flag[4] & feh.BAD_FIT and flag[5] & feh.NEGATIVE and flag[6] & feh.OUTSIDE_HULL
    assert (flag[7:] == 0).all()


def test_a_star_is_fitted_by_itself(known):
    _, spectra = stars(3000, 10)
    whole = feh.infer(known, spectra)
    threads = feh.infer(known, spectra, threads=2)
    parts = [feh.infer(known, spectra.part(slice(a, a + 700))) for a in range(0, 3000, 700)]
    for name, values in whole.items():
        assert np.array_equal(values, threads[name], equal_nan=True)
        assert np.array_equal(values, np.concatenate([p[name] for p in parts]), equal_nan=True)


# --- binaries ------------------------------------------------------------------------------------------------------


def off_the_lowest(model, spectra, monkeypatch):
    """How far chi2 / 2 (N,) of the best pair is above the lowest of fits from 13 secondaries, each to its end."""
    single = feh.solution(model, spectra)
    _, quick = feh_binary.fitted(model, spectra, single)
    lowest = quick.copy()
    with monkeypatch.context() as patched:
        for excess in np.linspace(0.0, 6.0, 13):
            patched.setattr(feh_binary, "EXCESSES", (excess,))
            lowest = np.fmin(lowest, feh_binary.fitted(model, spectra, single)[1])
    return (quick - lowest) / 2


def test_pairs_are_told_from_single_stars(known, monkeypatch):
    rng = np.random.default_rng(0)
    n = 200
    scaled = np.stack([np.zeros(n), rng.uniform(-0.6, 0.5, n), rng.uniform(-1, 1, n)], -1)
    c = known.arrays["sequence"]

    def on(M_G):
        teff = training.terms(M_G, scaled[:, 2]) @ c[:6].ravel()
        return np.exp(known.ln_flux(np.stack([teff, M_G, scaled[:, 2]], -1))) * 1e-18

    excess = rng.uniform(0.2, 0.6, n)
    single, double = on(scaled[:, 1]), on(scaled[:, 1]) + on(scaled[:, 1] + excess)
    for y, pair in ((single, False), (double, True)):
        seen = y * (1 + 0.005 * rng.normal(size=y.shape))
        spectra = feh.Spectra(seen, 0.005 * y, np.full(n, 100.0), np.full(n, 0.1))
        fit = feh.solution(known, spectra)
        found = feh_binary.pairs(known, spectra, fit)
        better = fit.chi2 - found["chi2_binary"]
        assert (np.median(better) > 20) == pair
        assert (off_the_lowest(known, spectra, monkeypatch) > 0.02).mean() <= 0.01
        if pair:
            p, _ = feh_binary.fitted(known, spectra, fit)
            assert np.median(np.abs(p[:, 0] - scaled[:, 1])) < 0.05 and np.median(np.abs(p[:, 1] - excess)) < 0.1
            q = found["q"][np.isfinite(found["q"])]
            assert len(q) > 20 and (q > 0.2).all() and (q <= 1.0 + 1e-9).all()


def test_masses_come_back_from_the_isochrone():
    from xptools.cores import isochrone

    sequence = isochrone.load()
    mass = np.linspace(0.2, 0.75, 30)
    mh = np.linspace(-1.5, 0, 30)
    M_G, _ = sequence.absolute(mass, mh, 10.0)
    assert np.abs(feh_binary.mass(sequence, M_G, mh, 10.0) - mass).max() < 0.005
    assert np.isnan(feh_binary.mass(sequence, np.array([30.0]), np.array([0.0]), 10.0)).all()
