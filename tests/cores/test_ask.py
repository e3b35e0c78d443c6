"""The generalist's cores: its size, what it may not depend on, its loss and scores, its calibration, its randomness."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.special import ndtri

from xptools.cores import ask, ask_calibration, ask_errors, ask_latent
from xptools.cores.ask_model import PRESETS, Answer, Generalist, Sizes, log_likelihood, parameters
from xptools.cores.ask_training import PLANS, AskLearner, Plan, Sample, Sampler, standards
from xptools.cores.ask_vocabulary import Vocabulary, flux_of
from xptools.errors import DataError

SIX = [{"name": n, "value": n, "error": f"{n}_err", "ask": n in "ab"} for n in "abcdef"]


def engine(components: int = 1, context: int = 64, entries=SIX, seed: int = 3) -> ask.Engine:
    """An untrained engine."""
    vocabulary = Vocabulary.of(entries)
    torch.manual_seed(seed)
    n = len(vocabulary.tokens)
    network = Generalist(n, replace(PRESETS["tiny"], components=components, context=context)).eval()
    tokens = {"centre": np.arange(n), "scale": np.full(n, 2.0), "low": np.full(n, -9.0), "high": np.full(n, 9.0)}
    tokens |= {"spread": np.ones(n), "usable": np.ones(n)}
    return ask.Engine(network, vocabulary, **{k: v.astype(np.float32) for k, v in tokens.items()})


@pytest.mark.parametrize(("tokens", "count"), [(118, 8_845_529), (120, 8_846_041)])
def test_the_network_of_leung_and_bovy_has_its_number_of_parameters(tokens, count):
    with torch.device("meta"):
        assert parameters(Generalist(tokens, PRESETS["lb23"])) == count


@pytest.mark.parametrize("sizes", [PRESETS["small"], PRESETS["tiny"], Sizes(32, ((4, 64),), ((8, 64),), (32,))])
def test_order_and_padding_of_the_context_do_not_matter(sizes):
    torch.manual_seed(1)
    network = Generalist(20, sizes).eval()
    ids, values = torch.arange(1, 13).repeat(4, 1), torch.randn(4, 12)
    asked = torch.tensor([[2, 14, 20]]).repeat(4, 1)
    with torch.no_grad():
        plain = network(ids, values, asked)
        turned = network(ids.flip(1), values.flip(1), asked)
        padded = network(
            torch.nn.functional.pad(ids, (0, 9)), torch.nn.functional.pad(values, (0, 9), value=7.0), asked,
            torch.nn.functional.pad(torch.ones(4, 12, dtype=torch.bool), (0, 9)),
        )  # fmt: skip
        alone = network(ids, values, asked[:, 1:2])
    for other in (turned, padded):
        assert (other.mean - plain.mean).abs().max() < 1e-5 and (other.s - plain.s).abs().max() < 1e-5
    assert (alone.mean[:, 0] - plain.mean[:, 1]).abs().max() < 1e-5  # requests do not see one another


def test_an_engine_packs_stars_with_holes_as_the_network_takes_them_one_by_one():
    e = engine()
    rng = np.random.default_rng(0)
    z = rng.normal(size=(70, 6)).astype(np.float32)
    z[rng.random(z.shape) < 0.4] = np.nan
    z[:3] = np.nan
    mean, variance, weight = e.answers(z, np.array([0, 4]))
    assert (weight == 1).all()
    for i in range(0, 70, 7):
        known = np.flatnonzero(np.isfinite(z[i]))
        with torch.no_grad():
            got = e.network(torch.tensor(known + 1)[None], torch.tensor(z[i, known])[None], torch.tensor([[1, 5]]))
        np.testing.assert_allclose(mean[i], got.mean[0], atol=1e-5)
        np.testing.assert_allclose(variance[i], got.s[0].exp(), rtol=1e-5)
    assert np.ptp(mean[:3], axis=0).max() == 0  # nothing known: the same prior for all


def test_a_context_too_long_loses_its_high_orders_first():
    entries = [{"name": "c", "value": "c", "width": 5}, {"name": "t", "value": "t"}]
    e = engine(context=4, entries=entries)
    z = np.random.default_rng(1).normal(size=(2, 6)).astype(np.float32)
    less = z.copy()
    less[:, 3:5] = np.nan
    np.testing.assert_array_equal(e.answers(z, np.array([5]))[0], e.answers(less, np.array([5]))[0])


def test_the_loss_is_that_of_leung_and_bovy_and_of_a_mixture():
    torch.manual_seed(0)
    mean, s, y, sigma = torch.randn(3, 2, 1), torch.randn(3, 2, 1), torch.randn(3, 2), torch.rand(3, 2)
    got = log_likelihood(Answer(mean, s, torch.zeros(3, 2, 1)), y, sigma)
    v = s[..., 0].exp() + sigma**2
    assert torch.allclose(got, -0.5 * ((y - mean[..., 0]) ** 2 / v + torch.log(v)))
    two = Answer(torch.tensor([[[-1.0, 2.0]]]), torch.tensor([[[0.0, 1.0]]]), torch.log(torch.tensor([[[0.3, 0.7]]])))

    def density(x):
        return float(log_likelihood(two, torch.tensor([[x]]), torch.tensor([[0.5]])).exp()) / np.sqrt(2 * np.pi)

    assert quad(density, -15, 15)[0] == pytest.approx(1.0, abs=1e-4)


def test_scores_against_the_integral():
    y, s = np.array([0.3]), np.array([0.2])
    mean, variance, weight = np.array([[-0.5, 1.0]]), np.array([[0.3, 0.5]]), np.array([[0.4, 0.6]])
    from scipy.stats import norm

    def cdf(x):
        return (weight * norm.cdf(x, mean, np.sqrt(variance + s**2))).sum()

    crps = quad(lambda x: (cdf(x) - (x >= 0.3)) ** 2, -8, 0.3)[0] + quad(lambda x: (cdf(x) - 1) ** 2, 0.3, 8)[0]
    got = ask_calibration.scores(y, s, mean, variance, weight)
    assert got["crps"] == pytest.approx(crps, rel=1e-5)
    assert got["nll"] == pytest.approx(-np.log((weight * norm.pdf(0.3, mean, np.sqrt(variance + 0.04))).sum()))


def corrected(e, mean, variance, known, off, sigma, kind=2):
    """Means and total variances of some of the answers to b, as a function of which, after a fit to all of them."""
    x = e.errors.inputs(mean[:, None], variance[:, None].astype(np.float32), known, known, np.array([1]))[:, 0]
    layers = ask_errors.fitted({kind: ask_errors.Rows.of(x, variance, mean, off, sigma)}, 12, len(x))
    made = ask_errors.Errors(e.vocabulary, e.usable, layers)

    def found(p):
        moved, total = made.corrected(mean[p, None], variance[p, None], known[p], known[p], np.array([1]))
        return moved[:, 0], total[:, 0] ** 2

    return found


def test_errors_are_corrected_for_what_was_shown_and_have_a_floor():
    """Answers that are 1.6 times worse than said where c is not shown, and never better than 0.4 where it is."""
    rng = np.random.default_rng(5)
    e = engine()
    n = 40_000
    variance, sigma = rng.uniform(0.05, 1.0, n), rng.uniform(0, 0.3, n)
    known = rng.random((n, 6)) < 0.5
    known[:, 1] = False
    truth = np.where(known[:, 2], variance + 0.4**2, 1.6**2 * variance)
    mean, off = rng.normal(size=n), rng.normal(size=n) * np.sqrt(truth + sigma**2)
    answers = corrected(e, mean, variance, known, off, sigma)
    found = answers(slice(None))[1]
    assert np.median(np.abs(np.log(found / truth))) < 0.06
    pulls = off / np.sqrt(found + sigma**2)
    for part in (known[:, 2], ~known[:, 2], variance < 0.2, known[:, 5]):
        assert pulls[part].std() == pytest.approx(1.0, abs=0.03)
    np.testing.assert_array_equal(answers(slice(5))[1], found[:5])


@pytest.mark.parametrize("seen", [False, True])
def test_answers_that_err_to_one_side_are_moved(seen):
    """By half where c is shown, by nothing where not, whether they are hidden or shown; the total is what is left."""
    rng, n = np.random.default_rng(8), 20_000
    known = rng.random((n, 6)) < 0.5
    known[:, 1] = seen
    mean, variance = rng.normal(size=n), np.full(n, 0.01)
    off = 0.3 * rng.normal(size=n) + 0.5 * known[:, 2]
    moved, total = corrected(engine(), mean, variance, known, off, np.zeros(n), kind=2 + seen)(slice(None))
    np.testing.assert_allclose(moved - mean, 0.5 * known[:, 2], atol=0.1)
    assert np.median(np.abs(np.log(total / 0.09))) < 0.06


def test_what_is_withheld_of_an_array_counts_only_where_some_of_it_is_shown():
    entries = [{"name": "c", "value": "c", "width": 6}, {"name": "t", "value": "t"}]
    e = engine(entries=entries)
    there = np.array([[1, 1, 1, 1, 0, 0, 1], [1, 1, 0, 0, 0, 0, 1], [1, 1, 1, 1, 0, 0, 1]], bool)
    known = np.array([[1, 1, 0, 0, 0, 0, 1], [1, 1, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 1]], bool)
    x = e.errors.inputs(np.zeros((3, 1)), np.ones((3, 1)), known, there, np.array([6]))[:, 0]
    np.testing.assert_allclose(x[:, -1], [0.5, 0.0, 0.0])
    np.testing.assert_array_equal(x[0, :-1], x[1, :-1])
    for wide, deep in ((x.shape[1] - 1, 2), (x.shape[1], 1)):
        layers = {"errors.0.w": np.zeros((4, wide, deep), "f4"), "errors.0.b": np.zeros((4, 1, deep), "f4")}
        with pytest.raises(DataError, match="another version"):
            ask_errors.Errors.of(e.vocabulary, e.usable, layers)


def test_errors_are_right_where_a_label_s_error_goes_with_its_value():
    """Labels lognormal, their errors a quarter of them, the answer always the mean: total is the true scatter."""
    rng = np.random.default_rng(6)
    truth, n = np.exp(0.4 * rng.normal(size=40_000)), 40_000
    sigma, mean = 0.25 * truth, np.full(n, truth.mean())
    off = truth - mean + sigma * rng.normal(size=n)
    answers = corrected(engine(), mean, np.ones(n), np.zeros((n, 6), bool), off, sigma)
    assert np.sqrt(answers(slice(1))[1][0]) == pytest.approx(truth.std(), rel=0.04)


def test_orders_of_an_array_are_corrected_one_by_one():
    """Coefficients 0 and 1 err to opposite sides and by different amounts; the others are as they are said to be."""
    entries = [{"name": "c", "value": "c", "width": 6}, {"name": "t", "value": "t"}]
    e, rng, n = engine(entries=entries), np.random.default_rng(9), 60_000
    token, nothing = rng.integers(0, 6, n), np.zeros((n, 7), bool)
    shift, width = np.array([0.3, -0.3, 0, 0, 0, 0]), np.array([0.6, 0.3, 0.5, 0.5, 0.5, 0.5])
    mean, variance = rng.normal(size=n), np.full(n, 0.25, np.float32)
    off = shift[token] + width[token] * rng.normal(size=n)
    each = (e.errors.inputs(*a, nothing[:1], nothing[:1], np.array([t]))[:, 0] for *a, t in zip(
        mean[:, None, None], variance[:, None, None], token, strict=True))  # fmt: skip
    rows = ask_errors.Rows.of(np.concatenate(list(each)), variance, mean, off, np.zeros(n))
    made = ask_errors.Errors(e.vocabulary, e.usable, ask_errors.fitted({0: rows}, 4, n))
    moved, total = made.corrected(np.zeros((1, 6)), np.full((1, 6), 0.25), nothing[:1], nothing[:1], np.arange(6))
    np.testing.assert_allclose(moved[0], shift, atol=0.05)
    np.testing.assert_allclose(total[0], width, rtol=0.08)


@pytest.mark.parametrize("share", [0.0, 0.003, 0.03])
def test_wild_errors_of_labels_do_not_hide_what_the_others_say(share):
    """Answers whose variance is told as 0.1 and is 0.4: labels with an error of 100 leave that as it is found."""
    rng, n = np.random.default_rng(7), 20_000
    sigma = np.where(rng.random(n) < share, 100.0, 0.3)
    off = np.sqrt(0.4) * rng.normal(size=n) + sigma * rng.normal(size=n)
    answers = corrected(engine(), np.zeros(n), np.full(n, 0.1), np.zeros((n, 6), bool), off, sigma)
    assert answers(slice(1))[1][0] == pytest.approx(0.4, rel=0.06)


# --- the linear model ----------------------------------------------------------------------------------------------


def factors(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values (n, 12) that three hidden numbers make, the loadings, and the variances of the noise."""
    L = np.random.default_rng(7).normal(size=(12, 3))
    noise = np.linspace(0.01, 0.2, 12)
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 3)) @ L.T + 0.3 + rng.normal(size=(n, 12)) * np.sqrt(noise), L, noise


def told(model: ask_latent.Latent, z: np.ndarray) -> ask_latent.Told:
    values = np.pad(np.nan_to_num(z), ((0, 0), (1, 0)))
    return model(torch.tensor(values, dtype=torch.float32), torch.tensor(np.pad(np.isfinite(z), ((0, 0), (1, 0)))))


def test_the_linear_model_answers_as_the_normal_distribution_does():
    z, L, noise = factors(20, 1)
    z[np.random.default_rng(2).random(z.shape) < 0.4] = np.nan
    model = ask_latent.Latent(12, 3)
    model.set(L, np.full(12, 0.3), noise)
    mean, spread = model.guess(told(model, z), torch.arange(1, 13).expand(20, -1))
    C = L @ L.T
    for i in range(20):
        k = np.isfinite(z[i])
        gain = C[:, k] @ np.linalg.inv(C[np.ix_(k, k)] + np.diag(noise[k]))
        np.testing.assert_allclose(mean[i], 0.3 + gain @ (z[i, k] - 0.3), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(spread[i].exp(), np.diag(C - gain @ C[k]) + noise, rtol=1e-3)


def test_the_linear_model_is_found_from_a_table_with_holes():
    z, L, noise = factors(4000, 3)
    z[np.random.default_rng(4).random(z.shape) < 0.3] = np.nan
    z = np.hstack([z, np.full((4000, 1), np.nan)])
    loadings, offset, got = ask_latent.fitted(z, np.zeros_like(z), 3)
    np.testing.assert_allclose(loadings[:12] @ loadings[:12].T, L @ L.T, atol=0.12 * np.abs(L @ L.T).max())
    np.testing.assert_allclose(offset[:12], 0.3, atol=0.12)
    np.testing.assert_allclose(got[:12], noise, rtol=0.35, atol=0.02)
    assert (loadings[12] == 0).all() and got[12] == 1


def test_joint_samples_follow_the_chain():
    e = engine(components=3)
    z = np.random.default_rng(2).normal(size=(5, 6)).astype(np.float32)
    z[:, [0, 1]] = np.nan
    u = ask.uniforms(4, np.arange(5) + 10**15, 3000, 4).reshape(5, 3000, 2, 2)
    draws = ask.joint(e, z, np.isfinite(z), np.array([0, 1]), u)
    mean, variance = ask.moments(*e.answers(z, np.array([0])))
    np.testing.assert_allclose(draws[:, :, 0].mean(1), mean[:, 0], atol=5 * np.sqrt(variance.max() / 3000))
    np.testing.assert_allclose(draws[:, :, 0].std(1), np.sqrt(variance[:, 0]), rtol=0.06)
    state = z.copy()
    state[:, 0] = draws[:, 7, 0]
    mean, variance, weight = e.answers(state, np.array([1]))
    pick = (u[:, 7, 1, :1] > weight[:, 0].cumsum(-1)).sum(-1)
    own = mean[np.arange(5), 0, pick] + np.sqrt(variance[np.arange(5), 0, pick]) * ndtri(u[:, 7, 1, 1])
    np.testing.assert_allclose(draws[:, 7, 1], own, rtol=1e-4, atol=1e-5)


def test_uniforms_are_uniform_and_know_star_and_seed_only():
    u = ask.uniforms(1, np.arange(2000) * 128 + 2**60, 5, 3)
    assert 0 < u.min() and u.max() < 1
    assert abs(u.mean() - 0.5) < 4 / np.sqrt(12 * u.size) and abs(np.corrcoef(u[:, 0, 0], u[:, 1, 2])[0, 1]) < 0.08
    np.testing.assert_array_equal(ask.uniforms(1, np.array([2**60 + 128]), 5, 3)[0], u[1])
    assert (ask.uniforms(2, np.array([2**60 + 128]), 5, 3)[0] != u[1]).all()


def test_the_loss_of_withheld_groups_is_zero_for_what_was_not_known():
    e = engine()
    z = np.random.default_rng(3).normal(size=(8, 6)).astype(np.float32)
    z[:, 5] = np.nan
    lost = ask.losses(e, z, np.array([0]), {"c": np.array([2]), "f": np.array([5])})
    assert (lost["c"] >= 0).all() and lost["c"].max() > 0
    np.testing.assert_allclose(lost["f"], 0, atol=1e-6)


# --- training ------------------------------------------------------------------------------------------------------


def test_contexts_and_requests_are_drawn_from_what_is_known():
    vocabulary = Vocabulary.of(SIX)
    rng = np.random.default_rng(0)
    z = rng.normal(size=(4000, 6)).astype(np.float32)
    z[:, 5] = np.nan
    drawn = Sampler(vocabulary, 4, Plan(blank=3, requests=2), np.ones(6, bool)).draw(rng, z, np.zeros_like(z))
    assert drawn.real.all() and set(np.unique(drawn.requests)) == {1, 2, 3, 4, 5}
    assert 6 not in drawn.ids and drawn.count.max() == 4 and drawn.count.min() == 1
    np.testing.assert_allclose(np.bincount(drawn.count, minlength=5)[1:] / 4000, 0.25, atol=0.03)
    first = drawn.ids[:, 0]
    np.testing.assert_array_equal(drawn.values[:, 0], z[np.arange(4000), first - 1])
    np.testing.assert_array_equal(drawn.y, np.take_along_axis(z, drawn.requests - 1, 1))


def test_balanced_requests_do_not_drown_in_coefficients():
    entries = [{"name": "c", "value": "c", "width": 50}, {"name": "t", "value": "t", "ask": True}]
    z, sigma = np.ones((5000, 51), np.float32), np.zeros((5000, 51), np.float32)
    for balanced, share in ((False, 1 / 51), (True, 1 / 3)):
        plan = Plan(blank=10, requests=1, balanced=balanced)
        drawn = Sampler(Vocabulary.of(entries), 64, plan, np.ones(51, bool)).draw(np.random.default_rng(1), z, sigma)
        assert np.mean(drawn.requests == 51) == pytest.approx(share, abs=0.02)


def line(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Values and errors: a and b = 2 a + 0.3 noise, seen as noisy c, d; f has nothing to do with it."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=n)
    b = 2 * a + 0.3 * rng.normal(size=n)
    values = np.stack([a, b, a + 0.1 * rng.normal(size=n), b + 0.5 * rng.normal(size=n), a**2, rng.normal(size=n)], 1)
    return values.astype(np.float32), np.full((n, 6), np.nan, np.float32)


@pytest.fixture(scope="module")
def learnt() -> tuple[ask.Engine, np.ndarray]:
    """A tiny generalist of the line, and new stars."""
    values, errors = line(4000, 0)
    sample = Sample(values, errors, *standards(values))
    learner = AskLearner(sample, Vocabulary.of(SIX), PRESETS["tiny"], PLANS["tiny"], 0)
    for k in range(600):
        learner.step(np.random.default_rng(k).integers(0, 4000, 128), 1e-2 * (1 - k / 600))
    tokens = {"centre": sample.centre, "scale": sample.scale, "low": values.min(0), "high": values.max(0)}
    tokens |= {"spread": np.ones(6), "usable": np.ones(6)}
    made = ask.Engine(learner.network.eval(), Vocabulary.of(SIX), **tokens)
    return made, line(1500, 1)[0]


def asked(learnt, token: int, shown: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Truth, answers and errors of a token from others."""
    made, values = learnt
    z = made.standardised(values)
    hidden = np.full_like(z, np.nan)
    hidden[:, shown] = z[:, shown]
    mean, variance = ask.moments(*made.answers(hidden, np.array([token])))
    k = token
    return values[:, k], mean[:, 0] * made.scale[k] + made.centre[k], np.sqrt(variance[:, 0]) * made.scale[k]


def test_it_learns_a_line_and_its_scatter(learnt):
    truth, answer, error = asked(learnt, 1, [0])  # of a scatter of 2.02, 0.3 of it noise, in 5 seconds
    assert 0.25 < np.std(truth - answer) < 0.75
    assert np.median(error) == pytest.approx(np.std(truth - answer), rel=0.5)


def test_what_is_shown_comes_back(learnt):
    truth, answer, _ = asked(learnt, 0, [0, 2])
    assert np.std(truth - answer) < 0.15


def test_an_uninformative_context_and_none_give_the_scatter_of_the_label(learnt):
    for shown in ([5], []):
        _, answer, error = asked(learnt, 0, shown)
        assert np.median(error) == pytest.approx(1.0, rel=0.15) and np.abs(answer).mean() < 0.25


def test_a_training_goes_on_from_what_was_kept():
    values, errors = line(500, 0)
    sample = Sample(values, errors, *standards(values))
    sizes = replace(PRESETS["tiny"], dropout=0.2)

    def learner():
        return AskLearner(sample, Vocabulary.of(SIX), sizes, PLANS["tiny"], 5)

    one, other = learner(), learner()
    rows = np.arange(64)
    for _ in range(3):
        one.step(rows, 1e-3)
    kept = {k: v.copy() for k, v in one.kept().items()}
    for _ in range(2):
        one.step(rows, 1e-3)
    other.restore(kept)
    for _ in range(2):
        other.step(rows, 1e-3)
    for name, array in one.arrays().items():
        np.testing.assert_array_equal(array, other.arrays()[name], err_msg=name)


# --- the vocabulary ------------------------------------------------------------------------------------------------


def test_spectra_are_over_the_flux_in_g_and_end_with_the_relevant_coefficients():
    entries = [
        {"name": "bp", "value": "c", "error": "e", "relevant": "n", "width": 3, "per_flux": True},
        {"name": "j", "value": "a - b", "error": "e_a"},
    ]
    v = Vocabulary.of(entries)
    assert v.tokens == ("bp0", "bp1", "bp2", "j") and v.columns() == ("c", "phot_g_mean_mag", "n", "e", "a", "b", "e_a")
    G = np.array([15.0, np.nan])
    columns = {"c": np.ones((2, 3)), "e": np.full((2, 3), 0.1), "n": np.array([2, 3]), "phot_g_mean_mag": G}
    values, errors = v.read({**columns, "a": np.array([2.0, 3.0]), "b": np.array([1.0, np.inf])}, 2)
    flux = 10 ** ((25.6873668671 - 15) / 2.5)
    assert flux_of(G)[0] == pytest.approx(flux, rel=1e-6)
    np.testing.assert_allclose(values[0], [1 / flux, 1 / flux, np.nan, 1.0], rtol=1e-6)
    np.testing.assert_allclose(errors[0, :2], 0.1 / flux, rtol=1e-5)
    assert np.isnan(values[1]).all()
    assert np.isfinite(v.read(columns, 2, whole=True)[0][0, :3]).all()
    assert Vocabulary.of(v.rows()) == v


@pytest.mark.parametrize(
    ("rows", "word"),
    [
        ([{"name": "a"}], "value is missing"),
        ([{"name": "a", "value": "a", "wdith": 3}], "wdith"),
        ([{"name": "a", "value": "a"}, {"name": "a", "value": "b"}], "twice"),
        ([{"name": "a", "value": "a", "width": -3}], "width is not 0 to 4096"),
        ([{"name": "a", "value": "open('x')"}], "the vocabulary has"),
    ],
)
def test_a_wrong_vocabulary_says_what_is_wrong(rows, word):
    with pytest.raises(DataError, match=word):
        Vocabulary.of(rows, "mine.toml")
