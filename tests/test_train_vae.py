"""`xp train vae`: the ELBO's closed form, what it finds on a toy, repeatability, resuming, streaming, wrong inputs."""

import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import multivariate_normal

from xptools import artefact, train
from xptools.cores import keyed, vae, vae_fit, vae_fitting, vae_training
from xptools.cores.vae_training import Learner, Objective, Sample

sys.path.insert(0, str(Path(__file__).parent))
import vae_toy as toy

SMALL = ("--hidden", "16,8", "--latents", 2, "--batch", 64, "--rate", "5e-3", "--settle", 0)  # one compilation
PLAN = vae_fitting.Plan(hidden=(24, 12), latents=2, epochs=50, batch=64, rate=5e-3, settle=0.4)


def linear(K=5, L=2, seed=0):
    """A linear network: z = A x, x^ = W z + b, scatter 1/2, and its arrays."""
    rng = np.random.default_rng(seed)
    arrays = vae.init(seed, K, (), L)
    W, b = rng.normal(0, 0.7, (L, K)), rng.normal(0, 0.2, K)
    arrays |= {"decoder.0.w": W.astype("f4"), "decoder.0.b": b.astype("f4")}
    arrays |= {"scatter.0.w": np.zeros((L, K), "f4"), "scatter.0.b": np.zeros(K, "f4")}  # sigmoid(0) = 1/2
    return arrays, W, b


def test_the_elbo_of_a_linear_network_is_its_closed_form():
    """With the exact posterior in the encoder the negative ELBO is -ln N(x; b, W^T W + V) - K/2 ln 2 pi; with another
    it is larger by the divergence of the two."""
    arrays, W, b = linear()
    L, K = W.shape
    rng = np.random.default_rng(1)
    sigma = rng.uniform(0.2, 0.6, K)
    V = sigma**2 + 0.25
    S = np.linalg.inv(np.eye(L) + (W / V) @ W.T)  # the posterior's covariance; W is chosen so that it is diagonal
    root = np.linalg.qr(rng.normal(size=(K, L)))[0].T * np.sqrt(V)
    W = np.diag([1.5, 0.6]) @ root
    S = 1 / (1 + np.array([1.5, 0.6]) ** 2)
    A = S[:, None] * W / V
    arrays["decoder.0.w"] = W.astype("f4")
    arrays |= {"mu.w": A.T.astype("f4"), "mu.b": (-A @ b).astype("f4")}
    arrays |= {"log_var.w": np.zeros((K, L), "f4"), "log_var.b": np.log(S).astype("f4")}
    x = rng.multivariate_normal(b, W.T @ W + np.diag(V), 64)
    sample = Sample.of(x.astype("f4"), np.broadcast_to(sigma, x.shape).astype("f4"))
    evidence = multivariate_normal(b, W.T @ W + np.diag(V)).logpdf(x).mean()

    def loss(shift=0.0, kl=1.0):
        moved = {**arrays, "mu.b": arrays["mu.b"] + np.float32(shift)}
        learner = Learner(moved, Objective("code", kl), 64, 0, lambda _: iter(()), sample)
        many = Sample(np.repeat(sample.x, 400, 0), np.repeat(sample.variance, 400, 0))
        epsilon = np.random.default_rng(2).normal(size=(len(many.x), L)).astype("f4")
        use = np.ones(len(many.x), np.float32)
        return float(learner._loss(learner.params, learner.stats, many, use, epsilon, False)[0])

    found = loss()
    assert found == pytest.approx(-evidence - K / 2 * np.log(2 * np.pi), abs=0.01)
    divergence = 0.5 * (0.3**2 / S).sum()
    assert loss(0.3) - found == pytest.approx(divergence, rel=0.05)
    mu = x @ A.T - A @ b
    KL = 0.5 * (mu**2 + S - 1 - np.log(S)).sum(1).mean()
    assert loss(kl=3.0) - found == pytest.approx(2 * KL, rel=1e-4)


def test_the_paper_s_loss_averages_both_sums():
    arrays, _, _ = linear()
    rng = np.random.default_rng(3)
    sample = Sample.of(rng.normal(size=(8, 5)).astype("f4"), np.full((8, 5), 0.3, "f4"))
    epsilon, use = rng.normal(size=(8, 2)).astype("f4"), np.ones(8, np.float32)

    def parts(loss, weight):
        learner = Learner(arrays, Objective(loss, weight), 8, 0, lambda _: iter(()), sample)
        return float(learner._loss(learner.params, learner.stats, sample, use, epsilon, False)[0])

    code, paper = (np.array([parts(n, 0.0), parts(n, 1.0) - parts(n, 0.0)]) for n in ("code", "paper"))
    assert np.allclose(paper, code * [2 / 5, 2 / 2], rtol=1e-5)


def test_the_weight_of_the_kl_term_rises():
    arrays, _, _ = linear()
    arrays["log_var.w"], arrays["log_var.b"] = 0 * arrays["log_var.w"], np.full(2, -30, "f4")  # draws are the mean
    x = np.random.default_rng(8).normal(size=(32, 5)).astype("f4")
    sample = Sample.of(x, np.full(x.shape, 0.3, "f4"))
    learner = Learner(arrays, Objective(), 32, 0, lambda _: iter((sample,)), sample, warm=3)
    losses = [learner.epoch(k, 0.0) for k in range(5)]
    mu = x @ arrays["mu.w"] + arrays["mu.b"]
    KL = 0.5 * (mu**2 - 1 + 30).sum(1).mean()
    assert np.diff(losses) == pytest.approx([KL / 4, KL / 4, KL / 4, 0], abs=1e-3)
    assert learner.score(None) == pytest.approx(losses[-1], abs=1e-3)  # held-out stars count all of it


def test_unknown_coefficients_do_not_reach_the_loss():
    x = np.random.default_rng(4).normal(size=(6, 5)).astype("f4")
    sigma = np.full((6, 5), 0.3, "f4")
    x[:, 3], sigma[:, 3] = np.nan, np.inf
    import jax

    sample = Sample.of(x, sigma)
    out, scatter = np.zeros((6, 5), "f4"), np.full((6, 5), 0.5, "f4")
    found = vae_training.misfit(jax, sample, out, scatter)
    v = 0.34
    want = 0.5 * (np.delete(x, 3, 1) ** 2 / v + np.log(v)).sum(1)
    assert np.allclose(found, want, rtol=1e-5)


def test_the_correlated_misfit_is_the_normal_law_and_has_its_slopes():
    rng, k, n = np.random.default_rng(5), 6, 70  # more stars than the kernel takes at a time
    rho = np.corrcoef(rng.normal(size=(k, 3 * k)))
    sigma, scatter = rng.uniform(0.2, 1, (n, 2 * k)), rng.uniform(0.1, 0.5, (n, 2 * k))
    x, out = rng.normal(size=(n, 2 * k)), rng.normal(size=(n, 2 * k)).astype("f4")
    packed = np.zeros((99, 2, k * (k - 1) // 2), "f4")
    packed[::-1][:n] = rho[np.tril_indices(k, -1)]
    x[0, 2], sigma[0, 2] = np.nan, np.inf
    sample, rows = Sample.of(x.astype("f4"), sigma), 98 - np.arange(n)
    found, by_out, by_extra, _, _ = vae_training.correlated(sample, packed, rows, out, scatter)

    def law(i, out, extra):
        want = 0.0
        for half in (slice(0, k), slice(k, 2 * k)):
            use = np.isfinite(x[i, half])
            C = rho * np.outer(*[np.where(use, sigma[i, half], 0)] * 2) + np.diag(extra[half])
            C, r = C[np.ix_(use, use)], (x[i, half] - out[half])[use]
            want -= multivariate_normal(np.zeros(use.sum()), C).logpdf(r) + use.sum() / 2 * np.log(2 * np.pi)
        return want

    for i in (0, 1, 63, 64, 69):
        at = np.float64(out[i]), scatter[i] ** 2
        assert float(found[i]) == pytest.approx(law(i, *at), rel=1e-4)
        for j in (2, 5, 7):
            step = 1e-4 * (np.arange(2 * k) == j)
            slopes = [law(i, at[0] + step, at[1]) - law(i, at[0] - step, at[1]),
                      law(i, at[0], at[1] + step) - law(i, at[0], at[1] - step)]  # fmt: skip
            want = [s / 2e-4 for s in slopes]
            assert [by_out[i, j], by_extra[i, j]] == pytest.approx(want, rel=2e-3, abs=2e-3)


def test_the_slope_of_a_normed_gelu_is_that_of_its_parts():
    import jax

    rng = np.random.default_rng(7)
    x, gamma, beta, d = (rng.normal(size=s) for s in ((9, 3), 3, 3, (9, 3)))
    w = np.array([1, 1, 1, 1, 1, 1, 1, 0, 0]) / 7

    def plain(x, gamma, beta):
        mean = w @ x
        var = w @ (x - mean) ** 2
        u = gamma * (x - mean) / jax.numpy.sqrt(var + vae.EPSILON) + beta
        return (d * (w[:, None] > 0) * jax.nn.gelu(u, approximate=False)).sum()

    def fused(x, gamma, beta):
        return (d * (w[:, None] > 0) * vae_training.normed_gelu(jax)(x, gamma, beta, w)[0]).sum()

    want, found = (jax.grad(f, (0, 1, 2))(x, gamma, beta) for f in (plain, fused))
    for a, b in zip(want, found, strict=True):
        assert np.allclose(a, b, atol=1e-5)


def test_no_row_is_dropped():
    for n, batch in ((1000, 64), (65, 64), (5, 64), (128, 64)):
        order, use = vae_training.dealt(n, batch, np.random.default_rng(0))
        assert sorted(order[use > 0].tolist()) == list(range(n))
        assert order.shape[1] <= batch and np.ptp(use.sum(1)) <= 1


def test_moments_merge():
    rng = np.random.default_rng(6)
    x = rng.normal(3, 2, (500, 4)) * [1, 1e3, 1, 0]
    x[rng.random(x.shape) < 0.2] = np.nan
    moments = vae_fitting.Moments()
    for part in np.array_split(x, 7):
        moments.add(part)
    norms = moments.norms()
    assert np.allclose(norms["norm.mean"], np.nanmean(x, 0)) and norms["norm.scale"][3] == 1
    assert np.allclose(norms["norm.scale"][:3], np.nanstd(x, 0)[:3])


@pytest.fixture(scope="module")
def known():
    """A model trained on the toy in this process, and stars it has not seen."""
    _, x, sigma = toy.sample(6000, 1)
    moments = vae_fitting.Moments()
    moments.add(x)
    norms = moments.norms()

    def standard(x, sigma):
        return Sample.of(*vae.standardised(norms, x, sigma, np.ones(len(x))))

    rest, held = standard(x[:5000], sigma[:5000]), standard(x[5000:], sigma[5000:])
    learner = vae_fitting.learner(PLAN, norms, lambda _: iter((rest,)), held)
    fit = vae_fitting.trained(PLAN, learner, train, None)
    arrays, metrics, _ = vae_fitting.finished(fit.arrays, norms, held, 0)
    return vae.Model(arrays), metrics, fit


def test_noise_and_injected_scatter_are_found(known):
    """Standardised residuals of new stars have unit variance, and the scatter is the toy's, not that without it."""
    model, _, _ = known
    t, x, sigma = toy.sample(8000, 9)
    x, sigma = model.standardised(x, sigma, np.ones(len(x)))
    verdict = vae_fit.judged(model, x, sigma)
    pulls = vae_fitting.predictive_pulls(model, x, sigma, verdict, 1)
    assert np.abs(pulls.var(0) - 1).max() < 0.15 and abs(pulls.var() - 1) < 0.05
    inner = (np.abs(t) < 1.2).all(1)
    found = np.median(verdict.scatter[inner], 0) * model.arrays["norm.scale"]
    assert np.median(np.abs(found / toy.scatter() - 1)) < 0.2


def test_the_outlier_probability_is_uniform_for_new_stars_and_finds_strange_ones(known):
    model, _, _ = known
    _, x, sigma = toy.sample(6000, 10)
    strange = x[:600] + 0.5 * np.sign(np.random.default_rng(0).normal(size=(600, toy.K)))
    given = [model.standardised(v, sigma[: len(v)], np.ones(len(v))) for v in (x, strange)]
    p = [vae_fit.judged(model, *one).probability for one in given]
    shares = np.histogram(p[0], np.linspace(0, 1, 11))[0] / len(x)
    assert np.abs(shares - 0.1).max() < 0.035
    assert (p[0][:, None] > p[1][None, ::5]).mean() > 0.9  # the area under the curve


def test_latents_know_the_toy_s_numbers(known):
    from xptools.cores import vae_inspect

    model, _, _ = known
    t, x, sigma = toy.sample(4000, 11)
    x, sigma = model.standardised(x, sigma, np.ones(len(x)))
    mu = model.encode(np.nan_to_num(x))[0]
    for k in range(2):
        alone = max(abs(vae_inspect.spearman(c, t[:, k])) for c in x.T)
        guess = vae_inspect.probed(mu, t[:, k])
        assert all(vae_inspect.spearman(v, t[:, k]) > max(alone, 0.9) for v in guess.values())


@pytest.fixture(scope="session")
def xp(xp):
    """The program with patience: on a busy machine compiling takes minutes."""
    run = partial(xp, timeout=600)
    run.program = xp.program
    return run


@pytest.fixture(scope="module")
def trained(xp, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    pq.write_table(toy.table(1200, 3), folder / "in.parquet", row_group_size=300)
    done = xp("train", "vae", folder / "in.parquet", *SMALL, "--epochs", 6, "-v", "-o", folder / "m.safetensors")
    assert done.returncode == 0, done.stderr
    return folder, done


def test_the_file_describes_itself(trained):
    folder, done = trained
    told = artefact.load(folder / "m.safetensors", "vae").about
    assert told.shape["hidden"] == [16, 8] and told.shape["bands"] == [6, 6] and told.shape["latents"] == 2
    assert set(told.domain) == {"z1", "z2"} and told.shape["parameters"] == vae.count(vae.init(0, 12, (16, 8), 2))
    assert 1000 < told.training["rows"] < 1150 and told.metrics["held_rows"] == 1200 - told.training["rows"]
    lines = [json.loads(x) for x in done.stderr.decode().splitlines() if x.startswith("{")]
    assert [r["epoch"] for r in lines] == list(range(6))
    assert {"loss", "score", "rate", "rows_per_second"} <= set(lines[0])


def test_held_out_stars_are_their_own_whatever_the_table():
    ids = np.random.default_rng(0).integers(2**60, 2**62, 20_000)
    lots = keyed.uniform(ids, 5)
    assert np.array_equal(keyed.uniform(ids[::-1], 5), lots[::-1])
    assert np.abs(np.histogram(lots, 20, (0, 1))[0] / 1000 - 1).max() < 0.12
    assert np.abs(np.corrcoef(lots, keyed.uniform(ids, 6))[0, 1]) < 0.03
    z = keyed.normal(np.arange(20_000), 1, 2)
    assert abs(z.std() - 1) < 0.02 and abs(np.corrcoef(z.T)[0, 1]) < 0.03


def test_the_same_seed_gives_the_same_model_and_streaming_nearly_the_same(xp, trained):
    folder, _ = trained
    for name, more in (("a", ()), ("s1", ("--stream",)), ("s2", ("--stream",))):
        done = xp("train", "vae", folder / "in.parquet", *SMALL, "--epochs", 6, "-q", *more, "-o", folder / name)
        assert done.returncode == 0 and done.stderr == b""
    first, a, s1, s2 = (artefact.load(folder / n, "vae") for n in ("m.safetensors", "a", "s1", "s2"))
    assert all(first.arrays[k].tobytes() == a.arrays[k].tobytes() for k in a.arrays)
    assert all(s1.arrays[k].tobytes() == s2.arrays[k].tobytes() for k in a.arrays)
    assert s1.about.training["rows"] == a.about.training["rows"]
    assert np.allclose(s1.arrays["norm.scale"], a.arrays["norm.scale"], rtol=1e-12)
    assert abs(s1.about.metrics["score"] - a.about.metrics["score"]) < 2


def test_a_killed_training_goes_on_to_the_same_model(xp, trained):
    folder, _ = trained
    line = ["train", "vae", folder / "in.parquet", *SMALL, "--epochs", 40]
    assert xp(*line, "-q", "-o", folder / "whole").returncode == 0
    kept = folder / "again.checkpoint"
    words = [xp.program, *map(str, line), "-v", "-o", str(folder / "again")]
    with subprocess.Popen(words, stderr=subprocess.PIPE, env=os.environ) as process:
        for raw in process.stderr:
            if b'"epoch": 4' in raw:
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert kept.exists() and not (folder / "again").exists()
    for words, what in ((("--kl-weight", 2), b"kl_weight"), (("--precision", "bfloat16"), b"precision")):
        other = xp(*line, *words, "-o", folder / "again")
        assert other.returncode == 65 and b"another training: other " + what in other.stderr
    done = xp(*line, "-o", folder / "again")
    assert done.returncode == 0 and b"goes on after" in done.stderr and not kept.exists(), done.stderr
    one, two = (artefact.load(folder / n, "vae") for n in ("whole", "again"))
    assert all(one.arrays[k].tobytes() == two.arrays[k].tobytes() for k in one.arrays)
    assert one.about.training["curve"] == two.about.training["curve"]


def test_a_rounded_product_and_its_slopes():
    """Factors have eight bits, sums many: as the plain product of rounded factors, and no other slope."""
    import jax

    rng, product = np.random.default_rng(9), vae_training.rounded_product(jax)
    x, w, d = (rng.normal(size=s).astype("f4") for s in ((700, 90), (90, 70), (700, 70)))

    def rounded(a):
        return np.asarray(jax.numpy.asarray(a, jax.numpy.bfloat16), np.float64)

    out, back = jax.vjp(product, x, w)
    for found, want in zip((out, *back(jax.numpy.asarray(d))),
                           (rounded(x) @ rounded(w), rounded(d) @ rounded(w).T, rounded(x).T @ rounded(d)),
                           strict=True):  # fmt: skip
        assert found.dtype == np.float32 and np.allclose(found, want, rtol=1e-4, atol=1e-4)
    assert not np.array_equal(np.asarray(out), x @ w)


def test_training_in_bfloat16_ends_near_single_precision():
    """Held-out losses are in single precision whatever the training is in, so they can be compared."""
    _, x, sigma = toy.sample(2500, 21)
    sample = Sample.of(x.astype("f4"), sigma.astype("f4"))
    rest, held = sample.rows(slice(0, 2000)), sample.rows(slice(2000, None))
    arrays, scores = vae.init(1, toy.K, (16, 8), 2), {}
    for precision in ("float32", "bfloat16"):
        learner = Learner(arrays, Objective(precision=precision), 64, 3, lambda _: iter((rest,)), held, settle=20)
        first = learner.score(None)
        losses = [learner.epoch(k, 5e-3) for k in range(25)]
        scores[precision] = first, losses[-1], learner.score(None)
        assert all(v.dtype == np.float32 for v in learner.kept().values())
    one, two = (np.array(scores[p]) for p in ("float32", "bfloat16"))
    assert one[0] == two[0] and one[2] < one[0] - 5
    assert 0 < np.abs(one - two)[1:].max() < 0.1 * (one[0] - one[2])


def test_which_precision_is_chosen(trained, tmp_path, monkeypatch, inside):
    """auto is bfloat16 on a GPU; what was chosen stands in the file, and a checkpoint belongs to it."""
    from xptools.commands._training import chosen_precision

    assert [chosen_precision("auto", gpu) for gpu in (True, False)] == ["bfloat16", "float32"]
    assert all(chosen_precision(p, gpu) == p for p in ("float32", "bfloat16") for gpu in (True, False))
    folder, _ = trained
    assert artefact.about(folder / "m.safetensors").training["precision"] == "float32"
    line = ("train", "vae", folder / "in.parquet", *SMALL, "--epochs", 2, "-o", tmp_path / "m")
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")  # the way it goes there, on this processor
    code, _, err = inside(*line)
    assert code == 0 and artefact.about(tmp_path / "m").training["precision"] == "bfloat16", err
    code, _, err = inside(*line, "--precision", "half")
    assert code == 2 and "float32" in err and "bfloat16" in err


def test_a_training_in_bfloat16_goes_on_to_the_same_model():
    """From what a checkpoint keeps, to the bit."""
    _, x, sigma = toy.sample(400, 22)
    sample = Sample.of(x.astype("f4"), sigma.astype("f4"))

    def fresh():
        return Learner(vae.init(1, toy.K, (8,), 2), Objective(precision="bfloat16"), 64, 3, lambda _: iter((sample,)),
                       sample, settle=3)  # fmt: skip

    whole, parts = fresh(), fresh()
    for k in range(4):
        whole.epoch(k, 1e-3)
    for k in range(2):
        parts.epoch(k, 1e-3)
    again = fresh()
    again.restore(parts.kept())
    for k in range(2, 4):
        again.epoch(k, 1e-3)
    assert all(v.tobytes() == again.kept()[n].tobytes() for n, v in whole.kept().items())


def test_the_number_of_latents_is_chosen_by_held_out_loss(xp, trained):
    folder, _ = trained
    line = ("--hidden", "16", "--latents", "1,2", "--batch", 64, "--rate", "1e-2", "--epochs", 15, "--settle", 0)
    done = xp("train", "vae", folder / "in.parquet", *line, "-o", folder / "l")
    assert done.returncode == 0 and b"2 latents: held-out loss" in done.stderr, done.stderr
    told = artefact.about(folder / "l")
    tried = told.training["latents_tried"]
    assert told.shape["latents"] == int(min(tried, key=tried.get)) == 2


def test_covariance_and_no_batch_norm_train(xp, tmp_path):
    t = toy.table(300, 5)
    rho = toy.wide(np.full((300, 15), 0.2, np.float32))
    t = t.append_column("bp_coefficient_correlations", rho).append_column("rp_coefficient_correlations", rho)
    pq.write_table(t, tmp_path / "in.parquet")
    line = ("--hidden", 8, "--epochs", 2, "--settle", 0, "--covariance", "--no-batch-norm", "--loss", "paper")
    done = xp("train", "vae", tmp_path / "in.parquet", *line, "-o", tmp_path / "m")
    assert done.returncode == 0, done.stderr
    told = artefact.about(tmp_path / "m")
    assert told.training["covariance"] and not told.shape["batch_norm"]


@pytest.mark.parametrize(
    ("change", "options", "code", "words"),
    [
        (lambda t: t.drop_columns("bp_coefficients"), (), 65, b"bp_coefficients"),
        (lambda t: t.drop_columns("phot_g_mean_flux"), (), 65, b"phot_g_mean_flux"),
        (lambda t: t.drop_columns("source_id"), (), 65, b"source_id"),
        (lambda t: t, ("--covariance",), 65, b"correlations"),
        (lambda t: t.slice(0, 20), (), 65, b"too few"),
        (lambda t: t, ("--hidden", "x"), 2, b"widths"),
        (lambda t: t, ("--import", "w.pt"), 2, b"--normalise"),
    ],
)
def test_wrong_input_has_its_sentence(inside, tmp_path, change, options, code, words):
    pq.write_table(change(toy.table(150, 4)), tmp_path / "in.parquet")
    found, _, err = inside("train", "vae", tmp_path / "in.parquet", "--epochs", 1, *options, "-o", tmp_path / "m")
    assert found == code and words.decode() in err, err
    assert not (tmp_path / "m").exists()


def test_a_stream_comes_from_a_pipe_and_needs_room_on_disk(xp, trained, tmp_path, monkeypatch):
    folder, _ = trained
    line = ("train", "vae", *SMALL, "--epochs", 6, "-q", "--stream")
    assert xp(*line, "-", "-o", tmp_path / "m", stdin=(folder / "in.parquet").read_bytes()).returncode == 0
    assert xp(*line, folder / "in.parquet", "-o", tmp_path / "n").returncode == 0
    one, two = (artefact.load(tmp_path / n, "vae").arrays for n in "mn")
    assert all(one[k].tobytes() == two[k].tobytes() for k in one)
    monkeypatch.setenv("XP_TMPDIR", str(tmp_path / "nowhere"))
    done = xp(*line, folder / "in.parquet", "-o", tmp_path / "o")
    assert done.returncode == 74 and b"XP_TMPDIR" in done.stderr, done.stderr


def test_a_stream_gives_every_star_once_in_another_order_each_epoch(monkeypatch):
    from xptools.commands import _vae_stream as stream

    monkeypatch.setattr(stream, "PIECE", 16)
    monkeypatch.setattr(stream, "BLOCK", 64)
    rng, scratch = np.random.default_rng(0), stream.Scratch()
    x, sigma = rng.normal(3, 2, (203, 4)), rng.uniform(0.1, 1, (203, 4))
    sigma[::7, 2] = np.inf
    for part in np.split(np.arange(203), [50, 60, 150]):
        scratch.add(np.where(np.isinf(sigma), 0, x)[part], sigma[part] ** 2, np.arange(203.0)[part, None] * [1, 1])
    norms = {"norm.mean": np.full(4, 3.0), "norm.scale": np.array([2.0, 1.0, 0.5, 2.0])}
    want = Sample.of(((x - 3) / norms["norm.scale"]).astype("f4"), sigma / norms["norm.scale"])
    orders = []
    for epoch in (0, 1):
        blocks = list(stream.Blocks(scratch, norms, 5)(epoch))
        assert max(len(b.x) for b in blocks) == 64
        orders.append(np.concatenate([b.correlations[:, 0, 0] for b in blocks]).astype(int))
        for name in ("x", "variance"):
            got = np.concatenate([getattr(b, name) for b in blocks])
            np.testing.assert_allclose(got, getattr(want, name)[orders[-1]], rtol=1e-5, atol=1e-6)
    assert not np.array_equal(*orders) and np.array_equal(*map(np.sort, orders))
