"""Training points, learner and held-out figures of the mass network (SCIENCE: Li+ 2026 App. C.1).

Points are drawn from isochrones: log age uniform within the range asked for, [M/H] uniform over what is described at
that age, masses uniform, M_G > 3, main sequence only. Weights make ([M/H], mass) uniform where the tables are not.
The loss is Huber's on (Delta M / 0.02 Msun, Delta [M/H] / 0.1 dex).

differs from Li+ 2026 App. C.1, which does not state inputs, layers, loss or age prior:
1. two inputs and two outputs, because 0.02 Msun and 0.1 dex are what the two colours can give;
2. 64-64-64 with GELU and AdamW.
"""

from dataclasses import dataclass

import numpy as np

from xptools.cores import nn
from xptools.cores._jax import Resumable, configure
from xptools.cores.imf import KROUPA
from xptools.cores.isochrone import Grid, Sequence
from xptools.errors import DataError

UNIT = np.array([0.02, 0.1], np.float32)  # of the loss [Msun, dex]
BEND = 5.0  # units: Huber's loss is quadratic below; near the turn-off the mean is wanted, not the median
CENTRE, SCALE = (7.0, 1.5, -1.0), (3.0, 0.8, 1.0)  # M_G0 [mag], (BP-RP)_0 [mag], [M/H]
BRIGHT = 3.0  # [mag]: a magnitude above the cut, so that the network is not at its edge there
MASS_RANGE = (0.1, 1.5)  # [Msun]


@dataclass(frozen=True)
class Points:
    """Stars drawn from isochrones, each (N,): M_G, colour [mag], mass [Msun], [M/H], age [Gyr], weight (mean 1)."""

    M_G: np.ndarray
    bp_rp: np.ndarray
    mass: np.ndarray
    mh: np.ndarray
    age: np.ndarray
    weight: np.ndarray


def draw(isochrones: Grid | Sequence, ages: tuple[float, float], mh_range: tuple[float, float], n: int, seed: int):
    """n Points of the main sequence with M_G > 3, of these ages [Gyr] and this [M/H]."""
    rng, kept, have = np.random.default_rng(seed), [], 0
    for _ in range(200):
        u = rng.random((max(n, 1000), 3))
        age = isochrones.ages(*ages, u[:, 0])
        low, high = np.clip(isochrones.mh_covering(age), *mh_range)
        mh = low + (high - low) * u[:, 1]
        bottom, top = max(MASS_RANGE[0], isochrones.mass_range[0]), min(MASS_RANGE[1], isochrones.mass_range[1])
        mass = bottom + (top - bottom) * u[:, 2]
        M_G, bp_rp = isochrones.absolute(mass, mh, age)
        ok = (M_G > BRIGHT) & (mass <= isochrones.turn_off(mh, age)) & (mh >= mh_range[0]) & (mh <= mh_range[1])
        kept.append(np.column_stack([M_G, bp_rp, mass, mh, age])[ok])
        have += ok.sum()
        if have >= n:
            break
    else:
        raise DataError(f"too few main-sequence points. {isochrones.origin}. TRY: other --ages or --mh")
    columns = np.concatenate(kept)[:n].T
    return Points(*columns, weight=_uniform(columns[2], columns[3]))


def _uniform(mass, mh) -> np.ndarray:
    """Weights (mean 1) that make 20 x 12 cells of (mass, [M/H]) equal, none above ten times the median."""
    cell = np.zeros(len(mass), int)
    for value, bins in ((mass, 20), (mh, 12)):
        span = np.ptp(value) or 1.0
        cell = cell * bins + np.minimum(((value - value.min()) / span * bins).astype(int), bins - 1)
    weight = 1.0 / np.bincount(cell)[cell]
    weight = np.minimum(weight, 10 * np.median(weight))
    return weight / weight.mean()


class MassLearner(Resumable):
    """The network in training (train.Learner), in JAX, float32."""

    def __init__(self, points: Points, feh_input: bool, hidden: tuple[int, ...], batch: int, seed: int):
        self.jax, self.batch = configure(), batch
        inputs, outputs = (3, 1) if feh_input else (2, 2)
        self.norm = {
            "norm.mean": np.array(CENTRE[:inputs], np.float32),
            "norm.scale": np.array(SCALE[:inputs], np.float32),
            "norm.out_mean": np.array([0.5, -1.0][:outputs], np.float32),
            "norm.out_scale": np.array([0.25, 0.75][:outputs], np.float32),
        }
        x = np.stack([points.M_G, points.bp_rp, points.mh][:inputs], -1)
        y = np.stack([points.mass, points.mh][:outputs], -1)
        put = self.jax.numpy.asarray
        self.x = put(((x - self.norm["norm.mean"]) / self.norm["norm.scale"]).astype(np.float32))
        self.y, self.weight = put(y.astype(np.float32)), put(points.weight.astype(np.float32))
        self.params = self.jax.tree.map(put, nn.init(seed, (inputs, *hidden, outputs)))
        zero = self.jax.tree.map(self.jax.numpy.zeros_like, self.params)
        self.state = (put(np.float32(0)), zero, zero)
        self._step, self._score = self.jax.jit(self._stepped), self.jax.jit(self._loss)

    def _loss(self, params, rows, use):
        """Huber loss of some rows; `use` is 0 for padding."""
        jnp = self.jax.numpy
        y = nn.apply(params, self.x[rows], jnp) * self.norm["norm.out_scale"] + self.norm["norm.out_mean"]
        r = jnp.abs(y - self.y[rows]) / UNIT[: y.shape[1]]
        huber = jnp.where(r < BEND, 0.5 * r * r, BEND * (r - 0.5 * BEND)).sum(-1)
        return (huber * self.weight[rows] * use).sum() / use.sum()

    def _stepped(self, params, state, rows, use, rate):
        loss, gradients = self.jax.value_and_grad(self._loss)(params, rows, use)
        return loss, *nn.adamw(self.jax.tree.map, rate, params, gradients, state)

    def _padded(self, rows, size):
        """Row numbers and their use, at one shape for all batches."""
        use = np.zeros(size, np.float32)
        use[: len(rows)] = 1
        return np.pad(rows, (0, size - len(rows))).astype(np.int32), use

    def step(self, rows: np.ndarray, rate: float) -> float:
        loss, self.params, self.state = self._step(
            self.params, self.state, *self._padded(rows, self.batch), np.float32(rate)
        )
        return float(loss)

    def score(self, rows: np.ndarray) -> float:
        return float(self._score(self.params, *self._padded(rows, len(rows))))

    def arrays(self) -> dict[str, np.ndarray]:
        return {**nn.flatten(self.params), **self.norm}


def hull(points: Points) -> dict[str, np.ndarray]:
    """Bluest and reddest training colour at magnitudes 0.1 apart; bins without points lean on their neighbours."""
    first, last = np.floor(points.M_G.min() * 10) / 10, points.M_G.max()
    bins = int(np.ceil((last - first) / 0.1))
    k = np.minimum(((points.M_G - first) / 0.1).astype(int), bins - 1)
    blue, red = np.full(bins, np.inf), np.full(bins, -np.inf)
    np.minimum.at(blue, k, points.bp_rp)
    np.maximum.at(red, k, points.bp_rp)
    full = np.isfinite(blue)
    centre = first + 0.1 * (np.arange(bins) + 0.5)
    at = np.r_[points.M_G.min(), centre[full][1:-1], last]  # the ends reach the outermost points
    return {k: v.astype(np.float32) for k, v in (("hull.M_G", at), ("hull.blue", blue[full]), ("hull.red", red[full]))}


def _rms(residual, weight) -> np.ndarray:
    return np.sqrt((residual**2 * weight[:, None]).sum(0) / weight.sum())


def errors(M_G: np.ndarray, residual: np.ndarray, weight: np.ndarray) -> dict[str, np.ndarray]:
    """Held-out RMS of (N, outputs) residuals in half-magnitude bins with 20 points or more, at their mean M_G."""
    k = np.floor(M_G * 2).astype(int)
    full = [b for b in np.unique(k) if (k == b).sum() >= 20] or [None]
    where = [np.ones(len(k), bool) if b is None else k == b for b in full]
    return {
        "error.M_G": np.array([M_G[w].mean() for w in where], np.float32),
        "error.rms": np.array([np.maximum(_rms(residual[w], weight[w]), 1e-4) for w in where], np.float32),
    }


def summary(points: Points, rows: np.ndarray, residual: np.ndarray) -> dict[str, float]:
    """Held-out RMS [Msun, dex] at M_G > 4, (mass, [M/H]) cells weighing the same: all, and some subsets.

    `_as_stars` weighs by Kroupa's mass function instead: what is wrong for the stars of a volume.
    """
    mass, age, faint = points.mass[rows], points.age[rows], points.M_G[rows] > 4
    subsets = {
        "": faint,
        "_0.1_0.5": faint & (mass < 0.5),
        "_0.5_0.7": faint & (mass >= 0.5) & (mass < 0.7),
        "_0.7_0.9": faint & (mass >= 0.7) & (mass < 0.9),
        "_mh_above_-1.5": faint & (points.mh[rows] >= -1.5),
        "_oldest": faint & (age >= 0.95 * age.max()),
    }
    out, even = {"held_rows": int(faint.sum())}, points.weight[rows]
    weights = {"_as_stars": even * KROUPA.pdf(mass, 0.0)}
    for name, chosen in (subsets | {"_as_stars": faint}).items():
        if chosen.sum() > 20:
            rms = _rms(residual[chosen], weights.get(name, even)[chosen])
            out |= {f"{what}{name}": round(float(r), 5) for what, r in zip(("rms_mass", "rms_mh"), rms, strict=False)}
    return out


def finish(arrays: dict, points: Points, held: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """All arrays of the model file and the metrics, from the best weights and the held-out rows."""
    from xptools.cores.mass import Emulator  # the one place where an answer's training needs the answer

    whole = {**arrays, **hull(points)}
    columns = (points.M_G, points.bp_rp, points.mh)
    model = Emulator({**whole, "error.M_G": np.zeros(1), "error.rms": np.zeros((1, 1))})
    predicted = model.network(*(c[held] for c in columns[: len(arrays["norm.mean"])]))
    truth = np.stack([points.mass, points.mh][: predicted.shape[1]], -1)[held]
    residual = predicted - truth
    return whole | errors(points.M_G[held], residual, points.weight[held]), summary(points, held, residual)
