"""zuko's GMM beside xp's mixture: the same density for the same weights, whoever trained them.

Runs where zuko is importable: pip install --no-deps zuko in an environment that has xptools.
"""

import numpy as np
import pytest

pytest.importorskip("zuko", reason="zuko is not installed")

import torch
import zuko

from xptools.cores import mixture, mixture_training
from xptools.cores._jax import configure
from xptools.cores.mixture_zuko import from_zuko, to_zuko
from xptools.errors import DataError

RNG = np.random.default_rng(0)
X, C = RNG.normal(0, 1.5, (4000, 4)).astype(np.float32), RNG.uniform(-4, 2, 4000).astype(np.float32)


def theirs(model, x=X, c=C, dtype=torch.float64) -> np.ndarray:
    with torch.no_grad():
        model, x, c = model.to(dtype), torch.tensor(x, dtype=dtype), torch.tensor(c, dtype=dtype)
        return model(c[:, None]).log_prob(x).numpy()


def gmm(components):
    return zuko.mixtures.GMM(4, 1, components=components, hidden_features=(32, 32))


@pytest.fixture(scope="module")
def trained():
    """A small mixture trained by xp."""
    x = np.where(C[:, None] < -1, 1.5, 0.5) * X
    w = np.ones(len(x))
    params = mixture_training.start(x, w, 6, (32, 32), 0)
    learner = mixture_training.MixtureLearner(x, C, w, params, 512, 1e6)
    for _ in range(20):
        for i in range(0, len(x), 512):
            learner.step(np.arange(i, min(i + 512, len(x))), 3e-3)
    return learner.arrays()


def assert_equal_densities(params, model):
    expected = theirs(model)
    wide = {k: v.astype(np.float64) for k, v in params.items()}
    np.testing.assert_allclose(mixture.log_prob(wide, X.astype(float), C.astype(float)), expected, rtol=1e-12)
    jax = configure()
    found = jax.jit(lambda p, x, c: mixture.log_prob(p, x, c, jax.numpy))(params, X, C)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    learner = mixture_training.MixtureLearner(X, C, np.ones(len(X)), params, 512, 1.0)
    np.testing.assert_allclose(learner.log_density(params, np.arange(len(X))), expected, rtol=1e-5, atol=1e-5)


def test_ours_into_zuko(trained, tmp_path):
    path = tmp_path / "ours.pt"
    torch.save({k: torch.tensor(v) for k, v in to_zuko(trained).items()}, path)
    model = gmm(6)
    model.load_state_dict(torch.load(path, weights_only=True), strict=True)
    assert_equal_densities(trained, model)


@pytest.mark.parametrize("components", [1, 20])
def test_zuko_s_into_ours(components):
    torch.manual_seed(1)
    model = gmm(components)
    params = from_zuko({k: v.numpy() for k, v in model.state_dict().items()}, components)
    assert sum(v.size for v in params.values()) == (11_020 if components == 20 else 1_120 + 33 * 15)
    assert_equal_densities(params, model)


def test_gradients_of_the_training_are_zuko_s(trained):
    """One step of gradient: the weighted likelihood's, with respect to every weight."""
    model = gmm(6).double()
    model.load_state_dict({k: torch.tensor(v, dtype=torch.float64) for k, v in to_zuko(trained).items()})
    x, c, w = torch.tensor(X[:500].astype(float)), torch.tensor(C[:500].astype(float)), RNG.uniform(0, 3, 500)
    loss = -(torch.tensor(w) * model(c[:, None]).log_prob(x)).sum()
    loss.backward()
    expected = from_zuko({k: p.grad.numpy() for k, p in model.named_parameters()}, 6)
    learner = mixture_training.MixtureLearner(X, C, np.ones(len(X)), trained, 512, 1.0)
    found, gradients = learner._gradient(learner.params, X[:500].T, C[:500], w.astype(np.float32))
    assert float(found) == pytest.approx(loss.item(), rel=1e-5)
    for name, g in expected.items():
        np.testing.assert_allclose(gradients[name], g, atol=2e-5 * np.abs(g).max())


@pytest.mark.parametrize("model", [zuko.flows.NSF(4, 1), zuko.mixtures.GMM(3, 1, 8), zuko.mixtures.GMM(4, 2, 8)])
def test_other_models_are_refused(model):
    with pytest.raises(DataError, match="conditional mixture of 8"):
        from_zuko({k: v.numpy() for k, v in model.state_dict().items()}, 8)
