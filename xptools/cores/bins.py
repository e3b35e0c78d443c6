"""The grid of (mass, [Fe/H]) bins: where a star falls, and the effective volume averaged over each bin.

    V_k = (1/dM) int_bin V(M) dM   [kpc3]

V falls by half across a bin of 0.05 Msun, so its value at the centre is wrong by up to 0.03 dex (Li+ 2026 eqs 3 and 8
differ in this); its run inside the bin is kept, because slopes and mass ratios need it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from xptools.errors import DataError

MASS_EDGES = tuple(np.linspace(0.15, 0.90, 15).tolist())  # Msun; Li+ 2026 Table 5 (inferred from the centres)
FEH_EDGES = (-2.2, -1.8, -1.6, -1.4, -1.1)  # Li+ 2026 Fig. 4
POINTS = 21  # values of V kept per bin, both edges included
FORMAT = 1


@dataclass(frozen=True)
class BinTable:
    """Edges (K + 1,) [Msun] and (B + 1,), V_k and its error (B, K) [kpc3], V(M) at P even points per bin (B, K, P)."""

    mass_edges: np.ndarray
    feh_edges: np.ndarray
    veff: np.ndarray
    veff_err: np.ndarray
    fine: np.ndarray

    def to_dict(self) -> dict:
        """JSON-able form, volumes rounded to eight digits."""
        return {
            "format": FORMAT,
            "mass_edges": [float(v) for v in self.mass_edges],
            "feh_edges": [float(v) for v in self.feh_edges],
            "veff": rounded(self.veff),
            "veff_err": rounded(self.veff_err),
            "fine": rounded(self.fine),
        }

    @classmethod
    def from_dict(cls, table: dict) -> BinTable:
        """The table of `to_dict`; anything else is a DataError."""
        try:
            if table["format"] != FORMAT:
                raise DataError(f"xp.veff has format {table['format']}, not {FORMAT}. TRY: xp veff again")
            names = ("mass_edges", "feh_edges", "veff", "veff_err", "fine")
            arrays = [np.asarray(table[name], dtype=np.float64) for name in names]
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"the table of effective volumes is damaged ({error}). TRY: xp veff again") from None
        return cls(*arrays).checked()

    def checked(self) -> BinTable:
        """Itself if the shapes fit together and no volume is negative; else a DataError."""
        shape = (len(self.feh_edges) - 1, len(self.mass_edges) - 1)
        fits = self.veff.shape == shape == self.veff_err.shape and self.fine.shape[:2] == shape
        if not fits or np.any(np.diff(self.mass_edges) <= 0) or np.any(np.diff(self.feh_edges) <= 0):
            raise DataError("the table of effective volumes does not fit its own edges. TRY: xp veff again")
        if any(np.any((a < 0) | np.isinf(a)) for a in (self.veff, self.veff_err, self.fine)):
            raise DataError("the table of effective volumes has some below 0 or infinite. TRY: xp veff again")
        return self

    @property
    def width(self) -> np.ndarray:
        """dM (K,) [Msun]."""
        return np.diff(self.mass_edges)

    @property
    def centre(self) -> np.ndarray:
        """Bin centres (K,) [Msun]."""
        return 0.5 * (self.mass_edges[1:] + self.mass_edges[:-1])

    def part(self, masses) -> BinTable:
        """The table of consecutive mass bins, true in `masses` (K,)."""
        k = np.flatnonzero(masses)
        edges = self.mass_edges[k[0] : k[-1] + 2]
        return BinTable(edges, self.feh_edges, self.veff[:, k], self.veff_err[:, k], self.fine[:, k])

    def volume(self, b: int, k: int, mass):
        """V (N,) [kpc3] at masses inside bin (b, k): linear between the kept points, scaled to the bin's average."""
        grid = np.linspace(self.mass_edges[k], self.mass_edges[k + 1], self.fine.shape[2])
        mean = simpson(self.fine[b, k])
        scale = self.veff[b, k] / mean if mean > 0 else 0.0
        return scale * np.interp(mass, grid, self.fine[b, k])

    def shaped_like(self, other: BinTable) -> BinTable:
        """The same volumes; V runs inside a bin as in that of `other` with the same edges, constant if it has none."""
        rows, masses = (_same_bins(getattr(self, e), getattr(other, e)) for e in ("feh_edges", "mass_edges"))
        there = np.ix_(rows, masses)
        known = (rows >= 0)[:, None] & (masses >= 0) & (self.veff > 0) & (other.veff[there] > 0)
        factor = np.divide(self.veff, other.veff[there], out=np.ones_like(self.veff), where=known)
        return replace(self, fine=np.where(known[..., None], other.fine[there] * factor[..., None], self.fine))


def _same_bins(edges, others):
    """The number (N,) of each bin among the bins of other edges; -1 if it is none of them."""
    nearest = np.abs(others[:-1, None] - edges[:-1]).argmin(axis=0)
    same = (np.abs(others[nearest] - edges[:-1]) < 1e-9) & (np.abs(others[nearest + 1] - edges[1:]) < 1e-9)
    return np.where(same, nearest, -1)


def rounded(array) -> list:
    """Values to eight digits, as lists: so that a table is the same from its metadata and from its rows."""
    return [rounded(row) for row in array] if np.ndim(array) > 1 else [float(f"{v:.8g}") for v in array]


def locate(values, edges):
    """Index (N,) int16 of the half-open bin [lo, hi) of each value; -1 outside and for NaN."""
    values = np.asarray(values, dtype=np.float64)
    index = np.searchsorted(edges, values, side="right") - 1
    return np.where((index >= 0) & (index < len(edges) - 1) & np.isfinite(values), index, -1).astype(np.int16)


def simpson(values):
    """Mean over an interval of values at an odd number of even points, both ends included (last axis)."""
    p = values.shape[-1]
    weight = np.ones(p)
    weight[1:-1:2], weight[2:-1:2] = 4.0, 2.0
    return values @ weight / (3.0 * (p - 1))


def average(volume, mass_edges, refine=1, points=POINTS):
    """V_k (K,) and V at `points` per bin (K, P), for volume(mass (N,)) -> kpc3 (N,); Simpson on `refine` times as many.

    `volume` is 0 above the mass where no star of the sample is left.
    """
    mass_edges = np.asarray(mass_edges, dtype=np.float64)
    count = (points - 1) * refine + 1
    mass = mass_edges[:-1, None] + np.diff(mass_edges)[:, None] * np.linspace(0.0, 1.0, count)
    V = volume(mass.ravel()).reshape(mass.shape)
    mean = simpson(V)
    for k in np.flatnonzero((V > 0).any(axis=1) & (V[:, -1] <= 0)):
        mean[k] = _below_the_cut(volume, mass[k], V[k])
    return mean, V[:, ::refine]


def _below_the_cut(volume, mass, V):
    """Mean over a bin in which V drops to 0 at the turn-off or the bright limit, found to 1e-7 of a step."""
    last = int(np.flatnonzero(V > 0)[-1])
    low, high = mass[last], mass[last + 1]
    for _ in range(3):
        tried = np.linspace(low, high, 201)
        end = int(np.flatnonzero(np.append(volume(tried[:-1]), 0.0) > 0)[-1])
        low, high = tried[end], tried[end + 1]
    share = (low - mass[0]) / (mass[-1] - mass[0])
    return share * simpson(volume(np.linspace(mass[0], low, len(mass)))) if share > 0 else 0.0
