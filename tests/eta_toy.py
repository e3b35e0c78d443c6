"""Small mixtures for tests: random ones, and one whose eta has a closed form; and model files made of them."""

from itertools import pairwise

import numpy as np

from xptools import artefact
from xptools.cores import mixture

NORM = {
    "norm.mean": np.array([200.0, 10.0, 0.0, -5.0]), "norm.std": np.array([90.0, 40.0, 50.0, 60.0]),
    "norm.ra_cut": np.array([95.0]), "norm.clip": np.array([1000.0]),
    "norm.context_centre": np.array([-0.5]), "norm.context_scale": np.array([0.5]),
}  # fmt: skip


def network(K=5, hidden=16, seed=0, scale=0.2):
    """A random network with `K` components, float64."""
    rng = np.random.default_rng(seed)
    sizes = [1, hidden, hidden, mixture.PER_COMPONENT * K]
    return {
        f"net.{k}.{name}": scale * rng.normal(size=shape)
        for k, (n, m) in enumerate(pairwise(sizes))
        for name, shape in (("weight", (m, n)), ("bias", (m,)))
    }


def model(**options):
    """A random model with 40 cells of [Fe/H], 12 of them below -1."""
    feh = np.arange(-1.475, 0.5, 0.05)
    return network(**options) | NORM | {"mdf.feh": feh, "mdf.count": np.round(1 + 1000 * np.exp(2 * feh))}


def sliding(a=(0.3, -0.2), poor=-1.5, rich=-0.5, numbers=(20.0, 300.0)):
    """One Gaussian of unit covariance whose means of v slide with c as a c, and two cells of [Fe/H]."""
    arrays = {f"net.{k}.{n}": np.zeros(s) for k, n, s in (
        (0, "weight", (4, 1)), (0, "bias", (4,)), (1, "weight", (4, 4)), (1, "bias", (4,)), (2, "weight", (15, 4)),
        (2, "bias", (15,)))}  # fmt: skip
    arrays["net.0.weight"][0], arrays["net.0.bias"][0] = 1.0, 10.0  # c + 10 is positive: ReLU lets it pass
    arrays["net.1.weight"][0, 0] = 1.0
    arrays["net.2.weight"][3:5, 0], arrays["net.2.bias"][3:5] = a, -10.0 * np.array(a)
    arrays["net.2.bias"][5:9] = np.log(1.0 - mixture.EPSILON)
    return arrays | NORM | {"mdf.feh": np.array([poor, rich]), "mdf.count": np.array(numbers)}


def saved(arrays, path):
    """The arrays as a model file of kind eta."""
    inputs = [{"name": n, "unit": None} for n in ("ra", "dec", "v_ra", "v_dec", "feh")]
    artefact.save(path, artefact.About("eta", inputs, [{"name": "log_prob", "unit": None}]), arrays)
    return path


def stars(n, seed=3):
    """ra, dec [deg], v_ra, v_dec [km/s]."""
    rng = np.random.default_rng(seed)
    return rng.uniform(0, 360, n), rng.uniform(-80, 80, n), rng.normal(0, 90, n), rng.normal(-20, 90, n)
