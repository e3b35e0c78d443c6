"""Hamiltonian Monte Carlo at given hyperparameters, in coordinates that Laplace's approximation makes round.

y = centre + stretch @ w has w about Normal(0, 1), so trajectories of fixed length do, and little warm-up is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from xptools.cores._jax import configure
from xptools.cores.nuts import bfmi

QUARTER = 1.5  # trajectory length: a quarter of a period of a round posterior, after which a draw is a new one
SPREAD = 0.5  # lengths are uniform within this share, so that no direction comes back to where it was
PILOTS = 2  # runs that only find the widths


@dataclass(frozen=True)
class Frame:
    """Data of the energy at some hyperparameters (a tree of arrays), centre (D,) and stretch (D, D)."""

    data: Any
    centre: np.ndarray
    stretch: np.ndarray


def sample(energy, frames: list[Frame], seed: int, chains: int, warmup: int, draws: int, target_accept: float):
    """y (chains, frames draws, D) in order of frames, divergences, median E-BFMI; energy(y, data) is a module's own.

    Every frame starts where the last one ended, with its variances: totals are so well known that the level gives way
    to all else, and lies far from its mode. Two runs at the first frame are thrown away, and how they fared with them.
    """
    jax, rng = configure(), np.random.default_rng((seed, 1))
    w = 0.5 * rng.standard_normal((chains, 2, len(frames[0].centre)))
    runs = len(frames) + PILOTS
    keys = jax.random.split(jax.random.PRNGKey(seed), runs * chains).reshape(runs, chains, -1)
    run = _program(energy, warmup, draws, target_accept)
    y, diverging, energies = [], [], []
    for frame, k in zip([frames[0]] * PILOTS + frames, keys, strict=True):
        widths = w.var(axis=(0, 1)).clip(0.5)
        got = run(frame.data, frame.centre, frame.stretch, widths, k, w[:, -1])
        w, lost, e = jax.tree.map(np.asarray, got)
        y.append(frame.centre + w @ frame.stretch.T)
        diverging, energies = [*diverging, int(lost.sum())], [*energies, bfmi(e)]
    return np.concatenate(y[PILOTS:], axis=1), sum(diverging[PILOTS:]), float(np.median(energies[PILOTS:]))


@lru_cache(maxsize=4)
def _program(energy, warmup, draws, target_accept):
    """(data, centre (D,), stretch (D, D), variances (D,), keys, starts) -> draws of w, divergences, energies."""
    jax = configure()
    from numpyro.infer.hmc import hmc

    def chain(data, centre, stretch, variances, key, start):
        own, lengths = jax.random.split(key)
        init, step = hmc(lambda w: energy(centre + stretch @ w, data), algo="HMC")
        state = init(start, warmup, target_accept_prob=target_accept, rng_key=own, step_size=0.1,
                     inverse_mass_matrix=variances, trajectory_length=QUARTER, adapt_mass_matrix=False)  # fmt: skip

        def collect(state, length):
            state = step(state._replace(trajectory_length=length))
            return state, (state.z, state.diverging, state.energy)

        lengths = QUARTER * jax.random.uniform(lengths, (warmup + draws,), minval=1 - SPREAD, maxval=1 + SPREAD)
        kept = jax.lax.scan(collect, state, lengths)[1]
        return jax.tree.map(lambda v: v[warmup:], kept)

    return jax.jit(jax.vmap(chain, in_axes=(None, None, None, None, 0, 0)))
