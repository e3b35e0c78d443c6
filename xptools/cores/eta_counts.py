"""What a cut on eta does, counted over a table of any length in fixed memory.

Purity is the share of metal-poor stars among those with eta above a threshold; completeness is the share of the
metal-poor, or of a (mass, [Fe/H]) bin, that is above it. A star whose eta is unknown is never above.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from xptools.cores.bins import locate

LOW, HIGH, FINE = -4.0, 6.0, 0.01  # [dex] of eta; what lies beyond counts in the last cell
CELLS = round((HIGH - LOW) / FINE)
IGNORANCE = 12.0**-0.5  # standard deviation of a share of which nothing is known


def cell_of(eta: np.ndarray) -> np.ndarray:
    """The cell (N,) of eta in LOW ... HIGH; unknown counts in the lowest."""
    with np.errstate(invalid="ignore"):
        place = np.floor((np.nan_to_num(eta, nan=LOW, posinf=HIGH, neginf=LOW) - LOW) / FINE + 1e-9)
    return np.clip(place, 0, CELLS - 1).astype(np.int64)


def share(some: np.ndarray, of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A share and its error from counts: mean and sd of its posterior under Jeffreys' prior; NaN of none."""
    some, of = np.asarray(some, np.float64), np.asarray(of, np.float64)
    p = np.where(of > 0, (some + 0.5) / (of + 1.0), np.nan)
    return p, np.sqrt(p * (1.0 - p) / (of + 2.0))


@dataclass
class Thresholds:
    """Stars by mass bin, kind (all, metal-poor, halo) and eta: counts (B + 1, 3, CELLS), the last bin holds all."""

    edges: np.ndarray
    counts: np.ndarray = field(init=False)

    def __post_init__(self):
        self.counts = np.zeros((len(self.edges), 3, CELLS), np.int64)

    def add(self, eta, poor, halo, mass) -> None:
        """Count stars (N,): eta, whether they are metal-poor, whether of the halo, mass [Msun] (or None)."""
        cell = cell_of(eta)
        bins = np.full(len(eta), -1) if mass is None else locate(mass, self.edges)
        for k, kind in enumerate((np.ones(len(eta), bool), poor, halo)):
            self.counts[-1, k] += np.bincount(cell[kind], minlength=CELLS)
            own = kind & (bins >= 0)
            flat = np.bincount(bins[own] * CELLS + cell[own], minlength=(len(self.edges) - 1) * CELLS)
            self.counts[:-1, k] += flat.reshape(-1, CELLS)

    def numbers(self, thresholds: np.ndarray) -> dict[str, np.ndarray]:
        """Per mass bin (all last, 0 to inf) and threshold: stars, purity, completeness, halo kept, with errors."""
        above = self.counts[:, :, ::-1].cumsum(-1)[:, :, ::-1]
        at = above[:, :, np.round((thresholds - LOW) / FINE).astype(int)]
        whole = above[:, :, 0]
        B, T = len(self.edges), len(thresholds)
        lo, hi = np.append(self.edges[:-1], 0.0), np.append(self.edges[1:], np.inf)
        out = {"mass_lo": np.repeat(lo, T), "mass_hi": np.repeat(hi, T), "threshold": np.tile(thresholds, B),
               "n": at[:, 0].ravel(), "n_poor": at[:, 1].ravel()}  # fmt: skip
        pairs = {"purity": (at[:, 1], at[:, 0]), "completeness": (at[:, 1], whole[:, 1, None]),
                 "halo_kept": (at[:, 2], whole[:, 2, None])}  # fmt: skip
        for name, (some, of) in pairs.items():
            value, error = share(*np.broadcast_arrays(some, of))
            out |= {name: value.ravel(), f"{name}_err": error.ravel()}
        return out


@dataclass
class Completeness:
    """Stars and stars kept by [Fe/H] and mass bin: counts (F, B, 2)."""

    feh_edges: np.ndarray
    mass_edges: np.ndarray
    counts: np.ndarray = field(init=False)

    def __post_init__(self):
        self.counts = np.zeros((len(self.feh_edges) - 1, len(self.mass_edges) - 1, 2), np.int64)

    def add(self, kept, feh, mass) -> None:
        """Count stars (N,): whether they are kept, their [Fe/H] [dex] and mass [Msun]; outside the bins they do not."""
        f, m = locate(feh, self.feh_edges), locate(mass, self.mass_edges)
        B = self.counts.shape[1]
        for k, some in enumerate((np.ones(len(kept), bool), kept)):
            inside = some & (f >= 0) & (m >= 0)
            flat = np.bincount(f[inside].astype(np.int64) * B + m[inside], minlength=self.counts[..., 0].size)
            self.counts[..., k] += flat.reshape(-1, B)

    def numbers(self) -> dict[str, np.ndarray]:
        """Per bin: n, kept, completeness and its error. A bin without stars gets that of its [Fe/H], error 0.29."""
        n, kept = self.counts[..., 0], self.counts[..., 1]
        value, error = share(kept, n)
        pooled = np.broadcast_to(share(kept.sum(1), n.sum(1))[0][:, None], n.shape)
        value, error = np.where(n > 0, value, pooled), np.where(n > 0, error, IGNORANCE)
        f, m = self.feh_edges, self.mass_edges
        F, B = n.shape
        return {
            "feh_lo": np.repeat(f[:-1], B), "feh_hi": np.repeat(f[1:], B), "mass_lo": np.tile(m[:-1], F),
            "mass_hi": np.tile(m[1:], F), "n": n.ravel(), "kept": kept.ravel(), "completeness": value.ravel(),
            "completeness_err": error.ravel(),
        }  # fmt: skip


@dataclass
class Density:
    """Stars by [Fe/H] and eta, on a grid of STEP dex in both: counts (F, E)."""

    FEH = (-3.0, 1.0)
    ETA = (-4.0, 5.0)
    STEP = (0.1, 0.05)
    FEWEST = 20

    counts: np.ndarray = field(init=False)
    rows: int = 0

    def __post_init__(self):
        spans = ((b - a) / s for (a, b), s in zip((self.FEH, self.ETA), self.STEP, strict=True))
        self.counts = np.zeros(tuple(round(s) for s in spans), np.int64)

    def add(self, feh, eta) -> None:
        """Count stars (N,); those outside the grid or unknown are not drawn."""
        self.rows += len(feh)
        known = np.isfinite(feh) & np.isfinite(eta)
        edges = [np.linspace(*r, n + 1) for r, n in zip((self.FEH, self.ETA), self.counts.shape, strict=True)]
        self.counts += np.histogram2d(feh[known], eta[known], edges)[0].astype(np.int64)

    def numbers(self) -> dict[str, np.ndarray]:
        """Rows of kind cell (x, y, n, density: n over its column's most) and median (x, y, lo, hi: 16, 84 %, n)."""
        i, j = np.nonzero(self.counts)
        x, y = (r[0] + (k + 0.5) * s for r, k, s in zip((self.FEH, self.ETA), (i, j), self.STEP, strict=True))
        n = self.counts[i, j]
        column = self.counts.sum(1)
        enough = np.flatnonzero(column >= self.FEWEST)
        edges = np.linspace(*self.ETA, self.counts.shape[1] + 1)
        quantiles = np.array([self._quantiles(self.counts[k], edges) for k in enough]).reshape(-1, 3).T
        nan = np.full(len(i), np.nan)
        return {
            "kind": np.array(["cell"] * len(i) + ["median"] * len(enough)),
            "x": np.concatenate([x, self.FEH[0] + (enough + 0.5) * self.STEP[0]]),
            "y": np.concatenate([y, quantiles[1]]), "lo": np.concatenate([nan, quantiles[0]]),
            "hi": np.concatenate([nan, quantiles[2]]), "n": np.concatenate([n, column[enough]]),
            "density": np.concatenate([n / self.counts.max(1)[i], np.full(len(enough), np.nan)]),
        }  # fmt: skip

    @staticmethod
    def _quantiles(counts, edges):
        below = np.concatenate([[0], np.cumsum(counts)]) / counts.sum()
        return np.interp((0.15865, 0.5, 0.84135), below, edges)
