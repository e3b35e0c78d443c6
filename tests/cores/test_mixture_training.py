"""The training of the conditional mixture: gradients, start, recovery of a known mixture; the sample's preparation."""

import numpy as np
import pytest

from xptools import train
from xptools.cores import mixture, mixture_sample, mixture_training
from xptools.cores._jax import configure
from xptools.cores.mixture_fitting import Plan, trained

ALL = {"ra": 10.0, "dec": 20.0, "pmra": 3.0, "pmdec": -4.0, "parallax": 2.0, "feh": -0.5}


def columns(n, **changes):
    out = {k: np.full(n, v) for k, v in ALL.items()} | {"source_id": np.arange(n) * 2**35}
    return out | {k: np.asarray(v) for k, v in changes.items()}


def known(c):
    """A disc and a halo, shares and means follow the context: weights (N, 2), means (N, 2, 4), factor L (2, 4, 4)."""
    halo = 1 / (1 + np.exp(3 * (c + 1)))
    shift = 0.3 * c[:, None]
    mean = np.stack([np.zeros((len(c), 4)) + shift, np.array([0, 0, 0.5, 0.2]) + shift], 1)
    L = np.stack([1.8 * np.eye(4), np.diag([0.9, 0.8, 0.5, 0.4])])
    L[1, 3, 2], L[0, 1, 0] = 0.3, -0.5
    return np.stack([halo, 1 - halo], 1), mean, L


def drawn(n, seed):
    rng = np.random.default_rng(seed)
    c = rng.normal(0, 1, n)
    share, mean, L = known(c)
    k = (rng.random(n) > share[:, 0]).astype(int)
    return mean[np.arange(n), k] + np.einsum("nij,nj->ni", L[k], rng.normal(size=(n, 4))), c


def truth(x, c):
    share, mean, L = known(c)
    z = np.einsum("kij,nkj->nki", np.linalg.inv(L), x[:, None] - mean)
    each = np.log(share) - 0.5 * (z**2).sum(-1) - np.log(np.linalg.det(L)) - 2 * np.log(2 * np.pi)
    return np.logaddexp(*each.T)


def test_the_gradient_is_that_of_the_density():
    """Against JAX's own derivative of mixture.log_prob, in float64."""
    jax = configure()
    rng = np.random.default_rng(0)
    x, c, w = rng.normal(0, 2, (200, 4)), rng.uniform(-4, 2, 200), rng.uniform(0, 3, 200)
    params = mixture_training.start(x, w, 7, (32, 32), 0)
    params = {k: v.astype(np.float64) + rng.normal(0, 0.1, v.shape) for k, v in params.items()}
    out = mixture_training.network(params, c, jax)
    np.testing.assert_allclose(out.T, mixture.network(params, c), rtol=1e-12)
    found = mixture_training.log_density(out, x.T, jax.numpy)
    np.testing.assert_allclose(found, mixture.log_prob(params, x, c), rtol=1e-12)

    def slow(p):
        return -(w * mixture.log_prob(p, x, c, jax.numpy)).sum()

    def quick(p):
        out, back = jax.vjp(lambda p: mixture_training.network(p, c, jax), p)
        loss, slope = mixture_training.weighted_loss(out, x.T, w, jax.numpy)
        return loss, back(slope)[0]

    loss, expected = jax.jit(jax.value_and_grad(slow))(params)
    got, gradients = jax.jit(quick)(params)
    assert float(got) == pytest.approx(float(loss), rel=1e-12)
    for name, g in gradients.items():
        np.testing.assert_allclose(g, expected[name], rtol=1e-8, atol=1e-9 * np.abs(expected[name]).max())


def test_a_step_does_not_depend_on_how_the_batch_is_cut_nor_on_the_loss_scale(monkeypatch):
    """A batch beyond one chunk is summed chunk by chunk; what fills the last chunk counts nothing."""
    x, c = drawn(700, 1)
    w = np.random.default_rng(2).uniform(0, 2, 700)
    params = mixture_training.start(x, w, 4, (32, 32), 0)
    after = []
    for chunk, batch, gain in ((4096, 700, 1e6), (4096, 700, 1.0), (4096, 4000, 1e6), (128, 700, 1e6)):
        monkeypatch.setattr(mixture_training, "CHUNK", chunk)
        learner = mixture_training.MixtureLearner(x, c, w, params, batch, gain)
        losses = [learner.step(np.arange(700)[::-1], 1e-3), learner.step(np.arange(600), 1e-3)]
        after.append((losses, learner.score(np.arange(700)), learner.arrays()))
    for losses, score, _ in after[1:]:
        assert losses == pytest.approx(after[0][0], rel=1e-5) and score == pytest.approx(after[0][1], rel=1e-5)
    for _, _, arrays in after[2:]:
        assert all(np.allclose(arrays[k], after[0][2][k], atol=2e-5) for k in arrays)


def test_the_start_is_a_mixture_of_the_sample():
    """k-means finds far clusters, each with its share and its shape, at every context."""
    rng = np.random.default_rng(0)
    centres = 20 * np.eye(4)
    own = rng.choice(4, 8000, p=[0.4, 0.3, 0.2, 0.1])
    x = centres[own] + rng.normal(size=(8000, 4)) * [1, 2, 0.5, 1]
    params = mixture_training.start(x, np.ones(8000), 4, (32, 32), 5)
    weight, mean, L = mixture.components(params, np.array([-3.0, 1.0]))
    order = mean[0].argmax(1)
    assert sorted(order) == [0, 1, 2, 3]
    assert np.abs(np.exp(weight[0]) - np.array([0.4, 0.3, 0.2, 0.1])[order]).max() < 0.03
    assert np.abs(mean[1] - centres[order]).max() < 0.3
    variance = (L[1] @ L[1].transpose(0, 2, 1)).diagonal(axis1=1, axis2=2)
    assert np.abs(variance / [1, 4, 0.25, 1] - 1).max() < 0.2


def test_the_start_stands_clusters_of_nothing():
    x = np.repeat(np.arange(4.0)[:, None], 4, 1).repeat(100, 0)  # four points only
    params = mixture_training.start(x, np.ones(400), 20, (32, 32), 0)
    assert all(np.isfinite(v).all() for v in params.values())


def test_it_recovers_a_known_conditional_mixture():
    """Held-out likelihood within sampling error of the truth's, and densities that agree, at rare contexts too."""
    x, c = drawn(40_000, 4)
    w = mixture_sample.weights(c, "mdf").astype(float)
    rows, held = train.split(len(x), 0.1, 0)
    learner = mixture_training.MixtureLearner(
        x, c, w, mixture_training.start(x[rows], w[rows], 6, (32, 32), 0), 2048, 1e6
    )
    fit = train.fit(learner, rows, held, train.plateau(3e-3, 0.5, 2, 1e-5, 1e-4, end=True), 80, 2048, 0, stride=4)
    right, found = truth(x, c)[held], learner.log_density(fit.arrays, held)
    assert abs((right - found).mean()) < right.std() / np.sqrt(len(held))  # 0.03
    assert 0 < (right - found).mean() + 2 * (right - found).std() / np.sqrt(len(held)) < 0.04
    other, context = drawn(4000, 5)
    wide = {k: v.astype(np.float64) for k, v in fit.arrays.items()}
    for some in (context < -1, np.abs(context) < 1, context > 1):
        miss = mixture.log_prob(wide, other[some], context[some]) - truth(other[some], context[some])
        assert np.median(np.abs(miss)) < 0.2 and abs(miss.mean()) < 0.06


@pytest.mark.parametrize("turn", [0.0, 90.0, 200.0, 359.5])
def test_right_ascension_is_cut_where_no_stars_are(turn):
    """Stars around `turn`: one piece after the cut, and the same standardised values wherever they lie."""
    rng = np.random.default_rng(0)
    away = rng.normal(0, 15, 3000)
    stars = [
        mixture_sample.Giants((away + t) % 360, rng.normal(0, 20, 3000), *(3 * [np.zeros(3000)]), np.zeros(3000, bool))
        for t in (turn, 180.0)
    ]
    norm, other = (mixture_sample.norms(s) for s in stars)
    assert 0 <= norm["norm.ra_cut"] < 360 and norm["norm.std"][0] == pytest.approx(away.std(), rel=1e-6)
    x, y = mixture_sample.standard(stars[0], norm)[0][:, 0], mixture_sample.standard(stars[1], other)[0][:, 0]
    np.testing.assert_allclose(x, y, atol=1e-4)


def test_the_emptiest_degree():
    everywhere = np.arange(0, 360, 0.1)
    assert mixture_sample.emptiest(everywhere) == 0.0
    assert mixture_sample.emptiest(everywhere[(everywhere < 100) | (everywhere >= 110)]) == 105.0
    assert mixture_sample.emptiest(everywhere[(everywhere >= 4) & (everywhere < 350)]) == 357.0
    assert mixture_sample.emptiest(np.concatenate([everywhere, everywhere[everywhere < 250]])) == 305.0


def test_what_is_no_training_star_is_left_out_and_counted():
    nan = np.nan
    table = columns(
        8, parallax=[2, 0, nan, -1, 2, 2, 2, 2.0], pmra=[3, 3, 3, 3, nan, 3, 3, 3.0],
        feh=[-0.5, -0.5, -0.5, -0.5, -0.5, nan, -9999, -0.5],
    )  # fmt: skip
    keep = np.array([True] * 7 + [False])
    stars, flow = mixture_sample.giants(table, keep, 0.1, 0)
    assert [n for _, n in flow] == [6, 3, 1] and len(stars.ra) == 1
    assert stars.v_ra[0] == pytest.approx(4.740470463 * 1.5) and stars.v_dec[0] == pytest.approx(-4.740470463 * 2)


def test_the_held_out_stars_are_a_star_s_own():
    ids = np.random.default_rng(0).integers(2**60, 2**62, 20_000)

    def sample(ids, seed=0):
        return mixture_sample.giants(columns(len(ids), source_id=ids), np.ones(len(ids), bool), 0.1, seed)[0]

    stars, back, other = sample(ids), sample(ids[::-1]), sample(ids, 1)
    assert np.array_equal(back.held[::-1], stars.held) and abs(stars.held.mean() - 0.1) < 0.01
    assert abs((other.held & stars.held).mean() - 0.01) < 0.003
    parts = mixture_sample.joined([sample(i) for i in np.split(ids, 2)])
    assert all(np.array_equal(a, b) for a, b in zip(parts, stars, strict=True))


def test_weights_make_the_rare_count_but_not_without_end():
    feh = np.concatenate([np.full(100_000, -0.15), np.full(10_000, -0.95), np.full(3, -2.25)]).astype(np.float32)
    w = mixture_sample.weights(feh, "mdf")
    assert w.mean() == pytest.approx(1, rel=1e-5)
    assert w[100_000] / w[0] == pytest.approx(10, rel=1e-5) and w[-1] / w[0] == pytest.approx(20, rel=1e-5)
    assert (mixture_sample.weights(feh, "none") == 1).all()


def test_the_metallicity_distribution():
    feh = np.array([-0.5, -0.5, -0.489, 0.011, 0.031], np.float32)
    found = mixture_sample.mdf(feh)
    assert found["mdf.feh"][0] == pytest.approx(-0.49) and np.allclose(np.diff(found["mdf.feh"]), 0.02)
    assert found["mdf.count"].sum() == 5 and found["mdf.count"][[0, -2, -1]].tolist() == [3, 1, 1]


def test_the_whole_chooses_a_size_and_describes_it():
    """Quantiles of the density are those of the mixture averaged over [Fe/H], by brute force."""
    x, c = drawn(3000, 6)
    v = x * [40, 20, 60, 60] + [180, 0, 0, 0]
    held = np.random.default_rng(0).random(3000) < 0.2
    stars = mixture_sample.Giants(*v.T.astype(np.float32), (c / 2 - 0.5).astype(np.float32), held)
    seen = []
    plan = Plan((1, 3), epochs=6, check=3, batch=512, rate=5e-3, seed=3)
    arrays, metrics = trained(stars, plan, lambda what, record: seen.append(what), train)
    assert seen == ["K = 1"] * 6 + ["K = 3"] * 6
    assert metrics["components"] == 3 and mixture.size(arrays) == 3
    assert [t["components"] for t in metrics["tried"]] == [1, 3] and metrics["tried"][1]["score"] == metrics["score"]
    assert sum(row["n"] for row in metrics["held"]) <= metrics["held_rows"] == held.sum()
    share = arrays["mdf.count"] / arrays["mdf.count"].sum()
    y, _ = mixture_sample.standard(stars, arrays)
    each = [
        mixture.log_prob(arrays, y.astype(float), np.full(3000, mixture.context(arrays, f))) for f in arrays["mdf.feh"]
    ]
    with np.errstate(divide="ignore"):
        total = np.logaddexp.reduce(np.array(each) + np.log(share)[:, None], 0)
    assert metrics["log_prob_quantiles"]["0.01"] == pytest.approx(np.quantile(total, 0.01), abs=1e-3)
    assert metrics["log_prob_quantiles"]["0.5"] == pytest.approx(np.median(total), abs=1e-3)
