"""Where errors of mass and [Fe/H] put stars: from true cells to observed ones.

True cells are the mass bins with one more at each end, by slices of [Fe/H] that reach beyond the table on both sides,
because stars from there are scattered in. Observed cells are the mass bins by slices of [Fe/H], and by class of
sigma([Fe/H]), because a star with a small error says more. With rates T (K, C) of true cells after the mass errors,

    rate(k, s, o) = sum_c P(o | s, c) P(s | k, c) T(k, c),    T = P(k | k', c) rate_true(k', c),

where P(o | s, c) is a Gaussian of the class's error, averaged over the true slice, and P(s | k, c), how errors are
spread at a true [Fe/H], is found from the counts themselves (`shares`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
from scipy.special import ndtr

from xptools.cores import dirichlet
from xptools.cores.bins import BinTable
from xptools.cores.errortable import GRID, ErrorTable

STEP = 0.1  # [dex]: widest slice
CLASSES = np.array([0.0, 0.02, 0.04, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4, np.inf])  # edges of sigma([Fe/H]) [dex]
MASS_CLASSES = np.r_[0.0, np.geomspace(0.001, 0.2, 23), np.inf]  # edges of sigma(mass) [Msun]
REACH = 2.5  # the true range goes this many rms errors beyond the table
FURTHEST = 1.0  # [dex], and no further
NODES = 8  # points per true slice, and per true mass bin, over which a Gaussian is averaged


@dataclass(frozen=True)
class Counts:
    """Stars n (K, S, O), sum of sigma([Fe/H])^2 (K, S), stars by class of sigma(mass) (K, M), others; they add."""

    n: np.ndarray
    square: np.ndarray
    mass: np.ndarray
    outside: int

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def part(self, masses: np.ndarray) -> Counts:
        """Those of the mass bins that are true in `masses` (K,)."""
        return Counts(self.n[masses], self.square[masses], self.mass[masses], self.outside)


def slices(feh_edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Edges (O + 1,) of the slices of all bins, at most STEP wide, and the bin (O,) of each."""
    pairs = list(pairwise(feh_edges))
    pieces = [max(1, int(np.ceil((hi - lo) / STEP - 1e-9))) for lo, hi in pairs]
    cuts = [np.linspace(lo, hi, p + 1)[:-1] for (lo, hi), p in zip(pairs, pieces, strict=True)]
    return np.append(np.concatenate(cuts), feh_edges[-1]), np.repeat(np.arange(len(pieces)), pieces)


def count(table: BinTable, mass, feh, feh_err, mass_err=None) -> Counts:
    """Counts of stars (N,); those outside the table, or without mass or [Fe/H], count nowhere."""
    edges, _ = slices(table.feh_edges)
    k, o = (np.searchsorted(e, v, side="right") - 1 for e, v in ((table.mass_edges, mass), (edges, feh)))
    K, S, O, M = len(table.width), len(CLASSES) - 1, len(edges) - 1, len(MASS_CLASSES) - 1
    ok = (k >= 0) & (k < K) & (o >= 0) & (o < O) & np.isfinite(mass) & np.isfinite(feh)
    k, o, sigma = k[ok], o[ok], np.asarray(feh_err, np.float64)[ok]
    s = np.searchsorted(CLASSES, sigma, side="right") - 1
    m = np.zeros(len(k), int)
    if mass_err is not None:
        m = np.searchsorted(MASS_CLASSES, np.nan_to_num(np.asarray(mass_err, np.float64)[ok]), side="right") - 1
    n = np.bincount((k * S + s) * O + o, minlength=K * S * O).reshape(K, S, O)
    square = np.bincount(k * S + s, sigma**2, K * S).reshape(K, S)
    return Counts(n, square, np.bincount(k * M + m, minlength=K * M).reshape(K, M), int((~ok).sum()))


@dataclass(frozen=True)
class Truth:
    """True cells: mass edges (K + 3,), slices (C + 1,), the bin (C,) of each (-1: beyond), V (K + 2, C) [kpc3]."""

    mass_edges: np.ndarray
    feh_edges: np.ndarray
    bin: np.ndarray
    volume: np.ndarray
    relative_error: np.ndarray  # sigma_V / V (K + 2, B)

    @property
    def size(self) -> np.ndarray:
        """dM d[Fe/H] (K + 2, C) [Msun dex]."""
        return np.diff(self.mass_edges)[:, None] * np.diff(self.feh_edges)


def truth_of(table: BinTable, counts: Counts, sigma: float | None = None) -> Truth:
    """The true cells that the counts can tell of, and the volumes there: ln V linear in [Fe/H] between bins.

    sigma: rms error of [Fe/H] [dex], if not that which the stars state.
    """
    sigma = np.sqrt(counts.square.sum() / max(counts.n.sum(), 1)) if sigma is None else sigma
    beyond = int(np.ceil(min(REACH * sigma, FURTHEST) / STEP))
    inner, bins = slices(table.feh_edges)
    below, above = inner[0] - STEP * np.arange(beyond, 0, -1), inner[-1] + STEP * np.arange(1, beyond + 1)
    edges = np.r_[below, inner, above]
    masses = table.mass_edges
    masses = np.r_[max(masses[0] - table.width[0], 0.5 * masses[0]), masses, masses[-1] + table.width[-1]]
    V = _with_ends(table)
    centre = 0.5 * (edges[1:] + edges[:-1])
    middle = 0.5 * (table.feh_edges[1:] + table.feh_edges[:-1])
    volume = np.stack([_along(centre, middle, column) for column in V.T])
    s = np.nan_to_num(table.veff_err / np.where(table.veff > 0, table.veff, np.inf)).T
    outside = np.full(beyond, -1)
    return Truth(masses, edges, np.r_[outside, bins, outside], volume, np.pad(s, ((1, 1), (0, 0)), "edge"))


def _with_ends(table: BinTable) -> np.ndarray:
    """V (B, K + 2): beyond both ends it goes on as it runs in the outermost bin."""
    V = np.nan_to_num(table.veff)
    ends = []
    for k, p in ((0, 0), (-1, -1)):
        edge = np.nan_to_num(table.fine[:, k, p])
        ends.append(np.where(V[:, k] > 0, edge**2 / np.where(V[:, k] > 0, V[:, k], 1.0), 0.0))
    return np.column_stack([ends[0], V, ends[1]])


def _along(feh, middle, V):
    """V (C,) at [Fe/H] from bins' V (B,): logarithms interpolated, the nearest bin's where a neighbour has none."""
    nearest = V[np.argmin(np.abs(feh[:, None] - middle), axis=1)]
    if len(V) == 1 or not (V > 0).all():
        return nearest
    return np.exp(np.interp(feh, middle, np.log(V)))


def mass_matrix(truth: Truth, counts: Counts, known: ErrorTable | None = None) -> np.ndarray:
    """P (K, K + 2, C) that a star of a true mass bin and slice is observed in a bin.

    By the errors of the stars seen there, and as known stars tell whose true mass is known, too: errors of photometric
    masses are not all scatter, and a slope is easily mistaken by what is not.
    """
    edges, K = truth.mass_edges, counts.mass.shape[0]
    centre = np.r_[0.0, np.sqrt(MASS_CLASSES[1:-2] * MASS_CLASSES[2:-1]), MASS_CLASSES[-2]]
    spread = np.maximum(counts.mass, 0) + 1e-9 * (np.arange(len(centre)) == 0)  # an empty bin: exact
    spread = np.pad(spread / spread.sum(axis=1, keepdims=True), ((1, 1), (0, 0)), "edge")
    u = (np.arange(NODES) + 0.5) / NODES
    at = edges[:-1, None] + np.diff(edges)[:, None] * u
    z = (edges[None, None, 1:-1, None] - at[:, :, None, None]) / np.maximum(centre, 1e-9)
    inside = np.diff(ndtr(z), axis=2)  # (K + 2, nodes, K, M)
    stated = np.einsum("inkm,im->ik", inside, spread) / NODES if K else np.zeros((2, 0))
    stated = np.repeat(stated[:, :, None], len(truth.bin), axis=2)
    if known is not None and np.isfinite(known.true_mass).any():
        stars = known.masses(edges, truth.feh_edges, edges[1:-1])
        stated = dirichlet.posterior(stars, _with_none(stated, axis=1))[:, :-1]
    return stated.transpose(1, 0, 2)


def feh_matrix(truth: Truth, counts: Counts, edges: np.ndarray) -> np.ndarray:
    """P (K, S, O, C) that a star of a true slice is observed in a slice, given its class of error."""
    stars = counts.n.sum(axis=2)
    sigma = np.where(stars > 0, np.sqrt(counts.square / np.maximum(stars, 1)), _typical())
    z = (edges[:, None, None] - _nodes(truth)) / np.maximum(sigma, 1e-6)[:, :, None, None, None]
    return np.diff(ndtr(z), axis=2).mean(axis=-1)  # of (K, S, O + 1, C, nodes)


def measured_matrix(truth: Truth, edges: np.ndarray, known: ErrorTable) -> np.ndarray:
    """P (K, O, C) that a star of a true slice is observed in a slice, as stars of known [Fe/H] tell."""
    mass, feh, shape = _places(truth)
    off, out = edges[:, None, None] - _nodes(truth), np.empty((shape[0], len(edges) - 1, shape[1]))
    for row, (i, j) in zip(known.distribution(mass, feh), np.ndindex(shape), strict=True):
        out[i, :, j] = np.diff(np.interp(off[:, j], GRID, row), axis=0).mean(axis=-1)
    return out


def by_known(truth: Truth, counts: Counts, edges: np.ndarray, known: ErrorTable) -> tuple[np.ndarray, ...]:
    """By class of stated error: counts, known stars (K, S, O), P of a slice (K, S, O, C), P of the class (K, S, C).

    A star with a small error says more of where it belongs; what a stated error is worth, known stars tell. Where the
    counted ones state none, all are of one class. Where many are known in a cell their shares are what counts, where
    few, what the stars near there say (dirichlet.py).
    """
    stated = counts.square.any()
    classes = known.classes(CLASSES) if stated else CLASSES[[0, -1]]
    n, near = [], []
    for low, high in pairwise(classes):
        n.append(counts.n[:, (CLASSES[:-1] >= low) & (CLASSES[:-1] < high)].sum(axis=1))
        near.append(measured_matrix(truth, edges, known.part(low, high)))
    k, c, shape = _places(truth)
    share = known.shares(classes, k, c).reshape(*shape, -1).transpose(0, 2, 1)
    stars = known.cells(truth.mass_edges[1:-1], truth.feh_edges, classes, edges)
    near = _with_none(np.stack(near, axis=1), axis=2) * share[:, :, None, :]
    flat = [v.reshape(len(v), -1, v.shape[-1]) for v in (stars, near)]
    P = dirichlet.posterior(*flat).reshape(stars.shape)
    share = P.sum(axis=2)
    return np.stack(n, axis=1), stars[:, :, :-1].sum(axis=3), P[:, :, :-1] / share[:, :, None], share


def _with_none(P: np.ndarray, axis: int) -> np.ndarray:
    """P with one place more along `axis`: what is left to 1."""
    return np.concatenate([P, np.maximum(1.0 - P.sum(axis=axis, keepdims=True), 0.0)], axis=axis)


def _places(truth: Truth) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
    """Mass and [Fe/H] of the middles of the table's masses by true slices, each (K C,), and (K, C)."""
    mass, feh = (0.5 * (e[1:] + e[:-1]) for e in (truth.mass_edges[1:-1], truth.feh_edges))
    return *(v.ravel() for v in np.meshgrid(mass, feh, indexing="ij")), (len(mass), len(feh))


def _nodes(truth: Truth) -> np.ndarray:
    """[Fe/H] (C, NODES) evenly over every true slice."""
    u = (np.arange(NODES) + 0.5) / NODES
    return truth.feh_edges[:-1, None] + np.diff(truth.feh_edges)[:, None] * u


def shares(truth: Truth, counts: Counts, level: np.ndarray, trend: float) -> np.ndarray:
    """P (K, S, C) of the class of error at a true slice: ln P = level (K, S) + trend [Fe/H] ln sigma, normalised.

    This is exact where ln sigma is Gaussian about a mean that is linear in [Fe/H]: larger errors at low [Fe/H].
    """
    centre = 0.5 * (truth.feh_edges[1:] + truth.feh_edges[:-1])
    ln_p = level[:, :, None] + trend * np.log(_typical())[:, None] * (centre - centre.mean())
    p = np.exp(ln_p - ln_p.max(axis=1, keepdims=True))
    return p / p.sum(axis=1, keepdims=True)


def releveled(stars: np.ndarray, level: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """`level` (K, S) moved so that each class's expected stars (K, S) come nearer to those counted (K, S)."""
    return level + np.log((stars + 0.1) / (expected + 0.1))


def _typical() -> np.ndarray:
    """The error (S,) [dex] that stands for a class where no star has it."""
    return np.r_[0.5 * (CLASSES[1:-1] + CLASSES[:-2]), CLASSES[-2]]


def plain_shares(counts: Counts) -> np.ndarray:
    """The fractions (K, S) of the classes among the stars seen in a mass bin; all stars' where there are none."""
    stars = counts.n.sum(axis=2) + 1e-3 * counts.n.sum(axis=(0, 2)) / max(counts.n.sum(), 1) + 1e-12
    return stars / stars.sum(axis=1, keepdims=True)
