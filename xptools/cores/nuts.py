"""The posterior of `mf.py` sampled with NumPyro's NUTS, and the measures of its convergence."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from xptools.cores import mf
from xptools.cores._jax import configure

UNTOLD, BEARABLE = 0.001, 0.005  # share of divergent draws that is not worth a word, and that ends no run


@dataclass(frozen=True)
class Sampled:
    """Draws of ln Phi (chains, draws, K), R-hat and effective sample size (K,), divergences, lowest E-BFMI."""

    ln_phi: np.ndarray
    rhat: np.ndarray
    ess: np.ndarray
    divergences: int
    bfmi: float
    rejected: int = 0  # draws of Hamiltonian Monte Carlo at fixed length, which only rejects a proposal that diverges

    def trouble(self) -> list[str]:
        """What speaks against convergence; empty if nothing does."""
        rhat, ess = float(np.max(self.rhat)), float(np.min(self.ess))
        found = [
            (not rhat <= 1.01, f"R-hat {rhat:.3f} > 1.01"),
            (not ess >= 400, f"effective sample size {ess:.0f} < 400"),
            (self.divergences > BEARABLE * self.rejected, f"{self.divergences} divergent transitions"),
            (not self.bfmi >= 0.3, f"E-BFMI {self.bfmi:.2f} < 0.3"),
        ]
        return [words for bad, words in found if bad]

    def doubt(self) -> str:
        """What is to be told of draws that have converged; empty if nothing is."""
        told = not self.trouble() and self.divergences > UNTOLD * self.rejected
        words = f"{self.divergences} of {self.rejected:,} transitions diverged and were rejected, though chains agree"
        return words if told else ""


@lru_cache(maxsize=8)
def potential(noisy, prior):
    """-ln p(u, eps | n) + const of n_k ~ Poisson(exp(y_k)), eps_k ~ Normal(0, 1), a function of {"u", "eps"} and data.

    With `mixing` (K, K), n_k ~ Poisson(sum_j mixing_kj exp(y_j)): stars counted elsewhere than where they belong.

    y = ln(n + 1/2) + u / sqrt(n + 1/2) has about unit width in u, and ln Phi_k = y_k - ln(V_k dM_k) - s_k eps_k:
    all coordinates are independent and alike, so the sampler needs little warm-up and takes long steps.
    """
    shape = mf.PRIORS[prior]

    def energy(z, data):
        import jax.numpy as jnp

        n, mixing = data
        y = log_rate(n, z["u"], jnp)
        if mixing is None:
            log_p = n * y - jnp.exp(y)
        else:
            rate = mixing @ jnp.exp(y)
            log_p = n * jnp.log(rate) - rate
        if shape is None:
            log_p = log_p - 0.5 * ((y - jnp.log(n + 0.5)) / mf.DATA_WIDTH) ** 2
        else:
            log_p = log_p + shape * y
        return -jnp.sum(log_p) + (0.5 * jnp.sum(z["eps"] ** 2) if noisy else 0.0)

    return energy


def log_rate(n, u, xp=np):
    """y = ln lambda (..., K) at the standardised coordinate u (..., K)."""
    return xp.log(n + 0.5) + u / xp.sqrt(n + 0.5)


def sample(
    n, offset, s, seed, *, chains=4, warmup=1000, draws=1000, target_accept=0.9, prior="jeffreys", mixing=None
) -> Sampled:
    """NUTS on counts n (K,), offset = ln(V dM) (K,) and s = sigma_V / V (K,), perhaps mixed (`potential`); float64.

    All chains are one compiled program, kept in the compile cache: NumPyro's MCMC class compiles over a hundred small
    ones on every start, and its draws change with its progress bar.
    """
    jax = configure()
    n, s = np.asarray(n, dtype=np.float64), np.asarray(s, dtype=np.float64)
    noisy = bool(np.any(s > 0))
    # starts spread over the posterior's width, so that R-hat means something
    rng = np.random.default_rng((seed, 1))
    start = {"u": rng.standard_normal((chains, len(n)))}
    if noisy:
        start["eps"] = rng.standard_normal((chains, len(n)))
    keys = jax.random.split(jax.random.PRNGKey(seed), chains)
    run = program(potential(noisy, prior), warmup, draws, target_accept)
    z, diverging, energy = jax.tree.map(np.asarray, run((n, mixing), keys, start))
    ln_phi = log_rate(n, z["u"]) - offset - (s * z["eps"] if noisy else 0.0)
    return Sampled(ln_phi, *convergence(ln_phi), int(diverging.sum()), bfmi(energy))


@lru_cache(maxsize=8)
def program(energy, warmup, draws, target_accept):
    """NUTS on energy(z, data), compiled: (data, keys (C,), starts) -> z (C, draws, ...), divergences, energies."""
    jax = configure()
    from numpyro.infer.hmc import hmc

    def chain(data, key, start):
        init, step = hmc(lambda z: energy(z, data), algo="NUTS")
        state = init(start, warmup, target_accept_prob=target_accept, rng_key=key)

        def collect(state, _):
            state = step(state)
            return state, (state.z, state.diverging, state.energy)

        # warm-up and draws in one loop: the sampler's tree is compiled once
        kept = jax.lax.scan(collect, state, None, length=warmup + draws)[1]
        return jax.tree.map(lambda x: x[warmup:], kept)

    return jax.jit(jax.vmap(chain, in_axes=(None, 0, 0)))


def convergence(x):
    """Split R-hat and effective sample size (K,) of draws (chains, draws, K) (Gelman+ 2013, Vehtari+ 2021)."""
    from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

    return np.asarray(split_gelman_rubin(x)), np.asarray(effective_sample_size(x))


def bfmi(energy) -> float:
    """Lowest energy fraction of missing information over chains (Betancourt 2016)."""
    return float(np.min(np.mean(np.diff(energy, axis=1) ** 2, axis=1) / np.var(energy, axis=1)))
