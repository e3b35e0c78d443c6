"""M_G and BP-RP of main-sequence stars at any (mass, [M/H], age): from isochrone files, or from the built-in sequence.

`load(None)` is the parametric Sequence, `load(paths)` a Grid of real tables: both have `absolute`, `locus`, `turn_off`.
A Grid interpolates linearly in initial mass at fixed ([M/H], age), in log age at fixed mass and [M/H], then in [M/H];
never between points of equal row number. Outside its tables, and beyond the turn-off, it answers NaN.
"""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import numpy as np

from xptools.cores import sequence
from xptools.cores._isochrone_files import Isochrone, NotAnIsochrone, read_file, salaris
from xptools.errors import DataError, InputError

__all__ = ["Grid", "NotAnIsochrone", "Sequence", "load", "read", "salaris", "tables"]

_SPAN = 1e3  # separates the segments in a concatenated search key: larger than any mass, [M/H] or log age
_NEAR = 2e-5  # the files round log age to 5 decimals


class Sequence:
    """The parametric main sequence (cores/sequence.py) with the methods of a Grid."""

    family = "parametric"
    origin = sequence.ORIGIN
    mass_range, mh_range, age_range = sequence.MASS_RANGE, sequence.MH_RANGE, sequence.AGE_RANGE
    absolute = staticmethod(sequence.absolute)
    turn_off = staticmethod(sequence.turn_off)

    def ages(self, low: float, high: float, u: np.ndarray) -> np.ndarray:
        """Ages [Gyr] between low and high, uniform in log age, from uniform numbers u (N,)."""
        first, last = np.clip([low, high], *self.age_range)
        if not (low <= self.age_range[1] and high >= self.age_range[0]):
            raise DataError(f"the built-in sequence knows 1 to 13.5 Gyr, not {low:g} to {high:g}. TRY: another --ages")
        return first * (last / first) ** u

    def known(self, age: float) -> None:
        """DataError for an age [Gyr] beyond its range, where `absolute` keeps to the nearest."""
        if not self.age_range[0] <= age <= self.age_range[1]:
            raise DataError(f"the built-in sequence knows 1 to 13.5 Gyr, not {age:g}. TRY: another --age")

    def mh_covering(self, age: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest [M/H] described at each age."""
        return np.full(np.shape(age), self.mh_range[0]), np.full(np.shape(age), self.mh_range[1])

    def locus(self, mh: float, age: float = 10.0) -> tuple[np.ndarray, np.ndarray]:
        """(BP-RP rising, M_G) [mag] of the main sequence up to the turn-off, 400 points."""
        self.known(age)
        if not self.mh_range[0] <= mh <= self.mh_range[1]:
            raise DataError(f"the built-in sequence knows [M/H] from -2.5 to 0.5, not {mh:g}. TRY: another --locus")
        end = min(float(sequence.turn_off(mh, age)), self.mass_range[1])
        M_G, bp_rp = sequence.absolute(np.linspace(end, self.mass_range[0], 400), mh, age)
        return bp_rp, M_G


class Grid:
    """Main-sequence isochrones of one family, at any set of ([M/H], age) nodes."""

    def __init__(self, isochrones: Iterable[Isochrone], skipped: tuple[str, ...] = ()):
        nodes = {(round(i.mh, 4), round(np.log10(i.age), 5)): i for i in isochrones}
        self.isochrones = [nodes[k] for k in sorted(nodes, key=lambda k: (k[1], k[0]))]
        self.skipped = skipped
        families = sorted({i.family for i in self.isochrones})
        if len(families) != 1:
            raise DataError(
                f"the isochrone files are of different families: {', '.join(families)}; their colours differ by up to "
                "0.2 mag. TRY: give files of one family"
            )
        self.family = families[0]
        self.log_age = np.array([np.log10(i.age) for i in self.isochrones])
        self.mh = np.array([i.mh for i in self.isochrones])
        self._first = np.cumsum([0, *(len(i.mass) for i in self.isochrones)])
        self._mass = np.concatenate([i.mass for i in self.isochrones])
        self._value = np.concatenate([self.columns(i) for i in self.isochrones])
        self._key = self._mass + _SPAN * np.repeat(np.arange(len(self.isochrones)), np.diff(self._first))
        self._cells()

    @staticmethod
    def columns(isochrone: Isochrone) -> np.ndarray:
        """What is interpolated (n, q): M_G, BP-RP."""
        return np.column_stack([isochrone.M_G, isochrone.bp_rp])

    @property
    def origin(self) -> str:
        """What the files are, for provenance."""
        (h0, h1), (t0, t1) = self.mh_range, self.age_range
        return f"{len(self.isochrones)} {self.family} isochrones, [M/H] {h0:.2f} to {h1:.2f}, {t0:.3g} to {t1:.3g} Gyr"

    @property
    def mass_range(self) -> tuple[float, float]:
        return float(self._mass.min()), float(self._mass.max())

    @property
    def mh_range(self) -> tuple[float, float]:
        return float(self.mh.min()), float(self.mh.max())

    @property
    def age_range(self) -> tuple[float, float]:
        return float(10 ** self.log_age.min()), float(10 ** self.log_age.max())

    def _cells(self) -> None:
        """Age cells: 2a is the age node a, 2a + 1 the interval up to node a + 1; in each the [M/H] that cover it.

        Per (cell, [M/H]): the isochrones below and above, as one sorted list searched by cell * _SPAN + [M/H].
        """
        self._ages = np.unique(self.log_age.round(5))
        key, below, above = [], [], []
        for cell in range(2 * len(self._ages) - 1):
            low, high = self._ages[cell // 2], self._ages[(cell + 1) // 2]
            for mh in np.unique(self.mh):
                mine = np.flatnonzero(self.mh == mh)
                under = mine[self.log_age[mine] <= low + _NEAR]
                over = mine[self.log_age[mine] >= high - _NEAR]
                if len(under) and len(over):
                    key.append(cell * _SPAN + mh)
                    below.append(under[-1])
                    above.append(over[0])
        self._node_key, self._below, self._above = np.array(key), np.array(below), np.array(above)
        self._node_cell = np.floor_divide(self._node_key + _SPAN / 2, _SPAN).astype(int)

    def _cell(self, log_age):
        """Cell of each age, -1 outside."""
        a = np.searchsorted(self._ages, log_age - _NEAR)
        near = self._ages[np.clip(a, 0, len(self._ages) - 1)]
        cell = np.where(np.abs(near - log_age) <= _NEAR, 2 * a, 2 * a - 1)
        return np.where((cell >= 0) & (cell < 2 * len(self._ages) - 1) & np.isfinite(log_age), cell, -1)

    def _brackets(self, mh, age):
        """Nodes below and above each [M/H] (N,), their weight, log age; -1 where nothing covers the star."""
        log_age = np.log10(age)
        cell = self._cell(log_age)
        wanted = cell * _SPAN + np.nan_to_num(mh, nan=-_SPAN / 4)
        right = np.clip(np.searchsorted(self._node_key, wanted - 1e-6), 0, len(self._node_key) - 1)
        exact = np.abs(self._node_key[right] - wanted) <= 1e-4
        left = np.where(exact, right, np.maximum(right - 1, 0))
        inside = (self._node_key[left] - 1e-4 <= wanted) & (wanted <= self._node_key[right] + 1e-4)
        same = (self._node_cell[left] == cell) & (self._node_cell[right] == cell)
        gap = self._node_key[right] - self._node_key[left]
        weight = np.where(gap > 0, (wanted - self._node_key[left]) / np.where(gap > 0, gap, 1), 0)
        return np.where(inside & same & (cell >= 0), left, -1), right, weight, log_age

    def _at(self, which, mass):
        """(N, q) columns on isochrone `which` (N,), linear in mass, NaN outside its rows."""
        first, last = self._first[which], self._first[which + 1] - 1
        right = np.clip(np.searchsorted(self._key, which * _SPAN + np.nan_to_num(mass)), first + 1, last)
        m0, m1 = self._mass[right - 1], self._mass[right]
        w = ((mass - m0) / (m1 - m0))[:, None]
        value = (1 - w) * self._value.take(right - 1, axis=0) + w * self._value.take(right, axis=0)
        inside = (mass >= self._mass[first] - 1e-6) & (mass <= self._mass[last] + 1e-6)
        return np.where(inside[:, None], value, np.nan)

    def _node(self, node, mass, log_age):
        """(N, q) at a node: linear in log age between its two isochrones."""
        low, high = self._below[node], self._above[node]
        step = self.log_age[high] - self.log_age[low]
        w = np.where(step > 0, np.clip((log_age - self.log_age[low]) / np.where(step > 0, step, 1), 0, 1), 0)[:, None]
        value = self._at(low, mass)
        return np.where(w > 0, (1 - w) * value + w * self._at(high, mass), value)

    def absolute(self, mass, mh, age=10.0) -> tuple[np.ndarray, np.ndarray]:
        """(M_G, BP-RP) [mag] at initial `mass` [Msun], [M/H] and `age` [Gyr], broadcast; NaN outside the tables."""
        shape = np.broadcast_shapes(np.shape(mass), np.shape(mh), np.shape(age))
        value = self.interpolated(
            *(np.broadcast_to(np.asarray(v, np.float64), shape).ravel() for v in (mass, mh, age))
        )
        return value[:, 0].reshape(shape), value[:, 1].reshape(shape)

    def interpolated(self, mass, mh, age) -> np.ndarray:
        """The columns (N, q) at arrays (N,); NaN outside the tables."""
        left, right, w, log_age = self._brackets(mh, age)
        w = w[:, None]
        value = self._node(np.maximum(left, 0), mass, log_age)
        value = np.where(w > 1e-6, (1 - w) * value + w * self._node(right, mass, log_age), value)
        return np.where((left >= 0)[:, None], value, np.nan)

    def known(self, age: float) -> None:
        """DataError for an age [Gyr] that no isochrone has or encloses."""
        if self._cell(np.log10(np.float64(age))) < 0:
            raise DataError(f"no isochrone is {age:g} Gyr old. {self.origin}. TRY: another --age")

    def turn_off(self, mh, age=10.0) -> np.ndarray:
        """The largest mass [Msun] that `absolute` answers at [M/H] and age [Gyr]; NaN where nothing covers them."""
        shape = np.broadcast_shapes(np.shape(mh), np.shape(age))
        mh, age = (np.broadcast_to(np.asarray(v, np.float64), shape).ravel() for v in (mh, age))
        left, right, w, _ = self._brackets(mh, age)
        end = self._mass[self._first[1:] - 1]
        ends = [np.minimum(end[self._below[n]], end[self._above[n]]) for n in (np.maximum(left, 0), right)]
        return np.where(left < 0, np.nan, np.where(w > 1e-6, np.minimum(*ends), ends[0])).reshape(shape)

    def ages(self, low: float, high: float, u: np.ndarray) -> np.ndarray:
        """Ages [Gyr] of the tables between low and high, drawn by uniform numbers u (N,).

        Each stands for the log ages nearer to it than to its neighbours: as uniform in log age as the tables allow.
        """
        nodes = self._ages[(self._ages >= np.log10(low) - 1e-3) & (self._ages <= np.log10(high) + 1e-3)]
        if not len(nodes):
            raise DataError(f"no isochrone is {low:g} to {high:g} Gyr old. {self.origin}. TRY: another --ages")
        middle = np.r_[nodes[0], (nodes[1:] + nodes[:-1]) / 2, nodes[-1]]
        share = np.cumsum(np.maximum(np.diff(middle), 1e-9))
        return 10 ** nodes[np.searchsorted(share / share[-1], u)]

    def mh_covering(self, age: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest [M/H] described at each age; NaN at ages outside."""
        cell = self._cell(np.log10(age))
        low, high = (np.full(2 * len(self._ages) + 1, np.nan) for _ in range(2))
        mh = self._node_key - self._node_cell * _SPAN
        for c in np.unique(self._node_cell):
            low[c], high[c] = mh[self._node_cell == c].min(), mh[self._node_cell == c].max()
        return low[cell], high[cell]

    def locus(self, mh: float, age: float = 10.0) -> tuple[np.ndarray, np.ndarray]:
        """(BP-RP strictly rising, M_G) [mag] of the main sequence up to its bluest point, at every row's mass."""
        left, right, _, _ = self._brackets(np.array([float(mh)]), np.array([float(age)]))
        if left[0] < 0:
            raise DataError(f"no isochrone covers [M/H] = {mh:g} at {age:g} Gyr. {self.origin}. TRY: another --age")
        corners = np.r_[self._below[[left[0], right[0]]], self._above[[left[0], right[0]]]]
        mass = np.unique(np.concatenate([self.isochrones[k].mass for k in corners]))
        M_G, bp_rp = self.absolute(mass, mh, age)
        ok = np.flatnonzero(np.isfinite(M_G))
        ok = ok[: np.argmin(bp_rp[ok]) + 1][::-1]  # from the turn-off downwards: colour rises
        rising = np.r_[True, bp_rp[ok][1:] > np.maximum.accumulate(bp_rp[ok])[:-1]]
        return bp_rp[ok][rising], M_G[ok][rising]


def read(paths: str | Path | Iterable[str | Path]) -> Grid:
    """A Grid of all isochrones in files and folders; other files in a folder are named in `Grid.skipped`."""
    found, skipped = [], []
    for path in _listed(paths):
        for table in _files(path):
            try:
                found += read_file(table)
            except NotAnIsochrone:
                if table == path:  # named by the user, not found in a folder
                    raise
                skipped.append(table.name)
    if not found:
        where = ", ".join(map(str, _listed(paths)))
        raise InputError(f"no isochrone table there. {where}. TRY: a folder with PARSEC, BaSTI or MIST tables")
    return Grid(found, tuple(skipped))


def tables(paths: str | Path | Iterable[str | Path] | None) -> list[Path]:
    """The files that `read` opens; for the built-in sequence its table of coefficients."""
    if not paths:
        return [sequence.TABLE]
    return [table for path in _listed(paths) for table in _files(path)]


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(p for p in path.iterdir() if p.is_file() and not p.name.startswith("."))


def _listed(paths) -> list[Path]:
    """One path, several joined by commas, or several paths."""
    if isinstance(paths, str):
        paths = [paths] if Path(paths).exists() else paths.split(",")
    elif isinstance(paths, Path):
        paths = [paths]
    named = [Path(str(p).strip()).expanduser() for p in paths if str(p).strip()]
    if not named:
        raise InputError("no isochrone table is named. TRY: a folder with PARSEC, BaSTI or MIST tables")
    return named


def load(isochrones: str | Path | Iterable[str | Path] | None = None) -> Grid | Sequence:
    """What `--isochrones` names: None is the built-in parametric sequence; read once per process."""
    if not isochrones:
        return Sequence()
    stamps = tuple((str(p), p.stat().st_mtime_ns if p.exists() else 0) for p in _listed(isochrones))
    return _load(stamps)


@lru_cache(maxsize=8)
def _load(stamps: tuple[tuple[str, int], ...]) -> Grid:
    return read([path for path, _ in stamps])
