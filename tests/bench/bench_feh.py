"""Labels from spectra with full 61 x 61 covariances: xp's methods against scipy's BFGS with JAX gradients, in one run.

python tests/bench/bench_feh.py [--stars 20000] [--few 200] [--repeat 5] [--model FILE] [--network trained|paper|both]

All minimise the same chi2 of the same mock stars, from the same first guess. What is timed: of xp everything from the
stars' 61 x 61 flux covariances (packed) to labels, errors and flags in `labels`, or to the minimum alone in `lm`: first
guess, first look, covariance with the model's own, its factor and inverse, descent, further starts. scipy gets its
covariances inverted, its start and its gradient compiled before the clock starts, one star after the other in float64.
Reading files and making flux covariances of coefficients is not in it. The limit, `fit`, is what a fit's parts cost
when timed alone; `misses` is the fraction of stars whose chi2 / 2, on the network, is more than 0.02 above the lowest
that any method found. With --network paper the network is untrained but has the paper's size, 512-256-128-64, and makes
its own stars.
"""

import argparse
import os
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from common import absent, best, compared, goal, spent, turns

from xptools.cores import feh, feh_binary, nn

PEER, TREES = "scipy BFGS, JAX grad", "XGBoost, 1000 trees"
LOOKED, DESCENDED = 2, 4  # what a star takes, as counted in these fits: 2.0 and 4.2
DEMO = Path(__file__).parents[2] / "xptools" / "data" / "feh_demo.safetensors"


def main() -> None:
    args = arguments()
    for network in ("trained", "paper") if args.network == "both" else (args.network,):
        measure(args, network)


def measure(args, network) -> None:
    """All ways on one network; of the paper's size, only those that the goal compares."""
    model = loaded(args, network)
    spectra = stars(model, args.stars)
    few, quarter = (spectra.part(slice(0, n)) for n in (args.few, args.stars // 4))
    threads = len(os.sched_getaffinity(0))
    print(f"{network}: hidden layers {[len(layer['b']) for layer in model.net[:-1]]}, {threads} cores")
    print(f"table made in {spent(lambda: model.table.padded)[0]:.2f} s")
    look = feh.fitted(model, few, look_only=True)
    peer = Scipy(model, few, look)
    jobs = {
        PEER: (len(few.flux), peer.run),
        "lm, 1 thread": (args.stars, lambda: feh.fitted(model, spectra).chi2),
        f"labels, {threads} threads": (args.stars, lambda: feh.infer(model, spectra, threads=threads)),
    }
    if network == "trained":
        jobs |= {
            "bfgs": (len(few.flux), lambda: feh.refined(model, few, look, "bfgs").chi2),
            "lm-network": (len(few.flux), lambda: feh.refined(model, few, look, "lm-network").chi2),
            f"lm, {threads} threads": (args.stars, lambda: feh.fitted(model, spectra, threads=threads).chi2),
            f"pairs, {threads} threads": (args.stars // 4, lambda: pairs(model, quarter, threads)),
            **trees(args.stars),
        }
    rates = turns(jobs, args.repeat)
    off = agreement(model, few, look, peer)
    ideal = limit(model, spectra)
    tell(network, jobs, rates, off, ideal)


def tell(network, jobs, rates, off, ideal) -> None:
    """Record all ways against scipy, and labels against trees."""
    size = "" if network == "trained" else ", network of the paper's size"
    for name in (n for n in jobs if n not in (PEER, TREES)):
        share = {"share": rates[name][:, 1].max() / ideal, "limit_by": "fit"} if name.startswith("lm,") else {}
        compared("feh", name + size, jobs, rates, name, PEER, goals=wanted(network, name, rates, off), **share)
        if TREES in jobs and name.startswith("labels"):
            ratio = np.median(rates[TREES][:, 1] / rates[name][:, 1])
            goals = [goal("trees <= 3 x as fast, per core", ratio, high=3)]
            compared("feh", f"{name}, against trees", jobs, rates, name, TREES, goals=goals)


def wanted(network, name, rates, off) -> list[dict]:
    """The goals of a way to fit: against scipy per core and by the clock, at the optimum, in rate."""
    if name.startswith("lm,"):
        wall, core = np.median(rates[name] / rates[PEER], 0)
        goals = [goal(">= 300 x scipy's BFGS per core", core, low=300)]
        if name == "lm, 1 thread":
            return [*goals, goal("99.9 % at the optimum", 100 * np.mean(off["lm"] <= 0.02), low=99.9)]
        return [*goals, goal("the same by the clock", wall, low=300)]
    if name.startswith("labels") and network == "trained":
        return [goal(">= 25 k stars per core-second [k]", rates[name][:, 1].max() / 1e3, low=25)]
    return []


def trees(stars) -> dict:
    """XGBoost as a regression of [Fe/H] from 110 features: 1000 trees of depth 6; what they learn is no matter."""
    if not find_spec("xgboost"):
        absent("feh", TREES, "pip install xgboost-cpu")
        return {}
    import xgboost

    rng = np.random.default_rng(0)
    x = rng.normal(size=(4000, 110)).astype(np.float32)
    options = {"max_depth": 6, "nthread": 1, "tree_method": "hist", "max_bin": 64}
    model = xgboost.train(options, xgboost.DMatrix(x, x[:, 0] + rng.normal(size=len(x))), 1000)
    asked = rng.normal(size=(stars, 110)).astype(np.float32)
    return {TREES: (stars, lambda: model.inplace_predict(asked))}


def pairs(model, spectra, threads):
    """As `xp feh --binary`: single stars, their labels, and the best pairs."""
    fit = feh.solution(model, spectra, threads=threads)
    return feh.labelled(model, spectra, fit), feh_binary.fitted(model, spectra, fit, threads)


def agreement(model, few, look, peer) -> dict:
    """Every method's solution judged on the network in float64: chi2 / 2 above the lowest found, per star."""
    quick = feh.fitted(model, few)
    found = {"scipy": peer.p, "lm": quick.p}
    found |= {m: feh.refined(model, few, look, m).p for m in ("bfgs", "lm-network")}
    polished = feh.refined(model, few, quick, "lm-network")
    chi2 = {name: peer.judged(p) for name, p in found.items()}
    lowest = np.min([*chi2.values(), peer.judged(polished.p)], 0)
    off = {name: (values - lowest) / 2 for name, values in chi2.items()}
    for name, above in off.items():
        print(f"{name:12} misses {np.mean(above > 0.02):.4f}   99 % within {np.quantile(above, 0.99):.4f}   "
              f"worst {above.max():.4f}")
    return off


def limit(model, spectra) -> float:
    """The rate of the parts alone: covariance, factor and inverse once, a look and a descent of given length."""
    from numba import njit

    from xptools.cores import _fehkernels as kernels
    from xptools.cores import _fehmodel as parts

    grid, errors = model.compiled
    p, single, s = np.zeros(4, np.float32), np.empty((0, 3), np.float32), np.float32(0.02)
    one = spectra.part(slice(0, 1))
    gain, packed = one.gain()[0].copy(), one.noise[0]
    work = parts.scratch(len(gain))
    kernels_ = (parts.gathered, parts.reference, parts.prepared, parts.modelled, parts.products)
    gathered, reference, prepared, modelled, products = kernels_
    full, weights = np.bool_(True), np.bool_(False)
    y = one.flux[0] * gain

    @njit
    def preparing(times, grid, errors, y, gain, packed, p, s, work):
        for _ in range(times):
            gathered(y, gain, packed, False, work)
            reference(grid, p, s, weights, work)
            prepared(gain, packed, packed, False, errors, 0.0, work)

    @njit
    def evaluations(times, whole, grid, p, single, s, work):
        for _ in range(times):
            modelled(grid, p, single, s, work)
            products(p, whole, work, work.H[0])

    cost = [each(preparing, 4000, grid, errors, y, gain, packed, p, s, work),
            *(each(evaluations, 4000, whole, grid, p, single, s, work) for whole in (full, weights))]  # fmt: skip
    print(f"covariance, factor and inverse {cost[0]:.2f} us, one evaluation {cost[1]:.2f} us, without correlations "
          f"{cost[2]:.2f} us; width {kernels.WIDTH}")  # fmt: skip
    ideal = 1e6 / (cost[0] + LOOKED * cost[2] + DESCENDED * cost[1])
    print(f"a star of {LOOKED} evaluations without and {DESCENDED} with correlations: {ideal:,.0f}/s of CPU")
    return ideal


def each(function, times, *more) -> float:
    """Microseconds per call, best of five."""
    function(1, *more)
    return best(lambda: function(times, *more), 5)[1] / times * 1e6


class Scipy:
    """scipy.optimize.minimize(method="BFGS") with a compiled value and gradient, star after star."""

    def __init__(self, model, spectra, look):
        from xptools.cores import lm
        from xptools.cores._jax import configure

        jax = self.jax = configure()
        jnp, n = jax.numpy, spectra.flux.shape[1]
        weights = {k: jnp.asarray(v, jnp.float64) for k, v in model.network_arrays().items()}
        i, j = np.tril_indices(n)
        cov = np.zeros((len(spectra.flux), n, n))
        cov[:, i, j] = cov[:, j, i] = spectra.noise
        gain = spectra.gain()
        ln_ref = model.table(look.ref[:, :3])[0] - (spectra.spread() * look.ref[:, 3])[:, None]
        self.star = lm.whiten(
            jnp, jax.scipy.linalg, spectra.flux * gain, gain, cov, model.floor_at(look.ref[:, 0]), ln_ref,
            spectra.spread(),
        )
        middle, half = model.box.mean(0), np.ptp(model.box, axis=0) / 2
        x = np.arctanh(np.clip((look.ref[:, :3] - middle) / half, -0.999, 0.999))
        self.begin = np.concatenate([x, look.ref[:, 3:]], -1)

        def labels(q):
            return jnp.concatenate([middle + half * jnp.tanh(q[:3]), q[3:]])

        def chi2(p, star):
            one = lm.Whitened(*(s[None] for s in star))
            r = lm.residuals(jnp, lambda t: model.ln_flux(t, jnp, weights), p[None], one)
            return (r * r).sum() + p[3] ** 2

        self.value = jax.jit(jax.value_and_grad(lambda q, star: 0.5 * chi2(labels(q), star)))
        self.labels, self.judge = jax.jit(jax.vmap(labels)), jax.jit(jax.vmap(chi2))
        self.stars = [lm.Whitened(*(jnp.asarray(s[k]) for s in self.star)) for k in range(len(cov))]
        self.p = np.asarray(self.labels(jnp.asarray(self.begin)))

    def run(self):
        from scipy.optimize import minimize

        def both(q, star):
            f, g = self.value(q, star)
            return float(f), np.asarray(g)

        found = [
            minimize(both, q, (star,), "BFGS", jac=True, options={"gtol": 1e-4, "maxiter": 50}).x
            for q, star in zip(self.begin, self.stars, strict=True)
        ]
        self.p = np.asarray(self.labels(self.jax.numpy.asarray(np.array(found))))
        return found

    def judged(self, p) -> np.ndarray:
        """chi2 (N,) of labels and shift (N, 4)."""
        return np.asarray(self.judge(self.jax.numpy.asarray(p, "float64"), self.star))


def loaded(args, network):
    from xptools.artefact import load

    arrays = load(args.model, "feh").arrays
    if network == "paper":
        arrays = {k: v for k, v in arrays.items() if not k.startswith("net.")}
        arrays |= {k: 0.5 * v for k, v in nn.flatten(nn.init(1, (3, 512, 256, 128, 64, 61))).items()}
    return feh.Model(arrays)


def stars(model, n):
    """Spectra of the model's own, at training labels, noise with correlations, S/N of 30 to 300."""
    rng = np.random.default_rng(1)
    known = model.arrays["hull.labels"]
    p = known[rng.integers(0, len(known), n)] + rng.normal(0, 0.01, (n, 3))
    parallax = rng.uniform(2, 10, n)
    y = np.exp(model.ln_flux(p.astype(np.float32)).astype(np.float64)) * ((parallax / 100) ** 2)[:, None] * 1e-18
    k = np.arange(y.shape[1])
    rho = 0.8 * np.exp(-0.5 * ((k[:, None] - k) / 2.2) ** 2) + 0.2 * np.eye(len(k))
    unit = np.linalg.cholesky(rho)
    sigma = (0.5 + 1.5 * np.exp(-k / 12)) * y / np.exp(rng.uniform(*np.log([30, 300]), n))[:, None]
    noisy = y + sigma * (rng.normal(size=y.shape) @ unit.T)
    i, j = np.tril_indices(len(k))
    packed = np.ascontiguousarray(sigma[:, i] * sigma[:, j] * rho[i, j])
    return feh.Spectra(noisy, packed, parallax, np.full(n, 0.03))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stars", type=int, default=20_000)
    parser.add_argument("--few", type=int, default=200, help="stars of the slow methods")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--model", default=str(DEMO))
    parser.add_argument("--network", choices=["trained", "paper", "both"], default="both")
    return parser.parse_args()


if __name__ == "__main__":
    main()
