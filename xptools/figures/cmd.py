"""The colour-magnitude diagram: log density where stars crowd, single stars where they do not, isochrone loci.

A `Cloud` counts a stream of any length in fixed memory: a grid of counts, and the stars themselves only of bins that
hold fewer than SPARSE of them. What it keeps does not depend on the order of the rows or on how they were batched.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xptools.figures import style

SPARSE = 5
Numbers = dict[str, np.ndarray]
STARS_HELD = 200_000
LABEL = (0.08, 0.05)  # width and height of a mass beside its track, in units of the axes


@dataclass(frozen=True)
class Grid:
    """Equal bins over x and y: lower corner, cell size and shape (columns, rows)."""

    x0: float
    y0: float
    dx: float
    dy: float
    shape: tuple[int, int]

    def cells(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(flat cell index of each row inside, mask of the rows inside); NaN is outside."""
        with np.errstate(invalid="ignore"):
            i, j = np.floor((x - self.x0) / self.dx), np.floor((y - self.y0) / self.dy)
            inside = (i >= 0) & (i < self.shape[0]) & (j >= 0) & (j < self.shape[1])
        return (i[inside] * self.shape[1] + j[inside]).astype(np.int64), inside


@dataclass
class Cloud:
    """Counts per cell, and cell, x, y of every star in a cell with fewer than SPARSE stars."""

    grid: Grid
    counts: np.ndarray
    stars: list[np.ndarray] = field(default_factory=list)
    rows: int = 0
    unknown: int = 0

    @classmethod
    def empty(cls, grid: Grid) -> Cloud:
        """A cloud without stars."""
        return cls(grid, np.zeros(grid.shape[0] * grid.shape[1], dtype=np.int64))

    def add(self, x: np.ndarray, y: np.ndarray) -> Cloud:
        """Count rows x, y (N,)."""
        x, y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        cell, inside = self.grid.cells(x, y)
        self.counts += np.bincount(cell, minlength=self.counts.size)
        self.rows += x.size
        self.unknown += int((np.isnan(x) | np.isnan(y)).sum())
        lonely = self.counts[cell] < SPARSE
        self.stars.append(np.stack([cell[lonely].astype(np.float64), x[inside][lonely], y[inside][lonely]]))
        if sum(part.shape[1] for part in self.stars) > STARS_HELD:
            self._forget()
        return self

    def merge(self, other: Cloud) -> Cloud:
        """Both clouds' stars, on the one grid they share."""
        self.counts = self.counts + other.counts
        self.rows, self.unknown = self.rows + other.rows, self.unknown + other.unknown
        self.stars = [*self.stars, *other.stars]
        self._forget()
        return self

    def _forget(self) -> None:
        """Drop the stars of cells that have filled up; sort the rest, so that their order means nothing."""
        stars = np.concatenate([np.zeros((3, 0)), *self.stars], axis=1)
        stars = stars[:, self.counts[stars[0].astype(np.int64)] < SPARSE]
        self.stars = [stars[:, np.lexsort((stars[2], stars[1], stars[0]))]]

    def numbers(self) -> Numbers:
        """The columns to draw: kind ("bin" or "star"), x, y, n; a bin's x and y are its centre."""
        self._forget()
        full = np.flatnonzero(self.counts >= SPARSE)
        i, j = np.divmod(full, self.grid.shape[1])
        _, sx, sy = self.stars[0]
        return {
            "kind": np.array(["bin"] * full.size + ["star"] * sx.size),
            "x": np.concatenate([self.grid.x0 + (i + 0.5) * self.grid.dx, sx]),
            "y": np.concatenate([self.grid.y0 + (j + 0.5) * self.grid.dy, sy]),
            "n": np.concatenate([self.counts[full], np.ones(sx.size, dtype=np.int64)]),
            "feh": np.full(full.size + sx.size, np.nan),
        }


def with_lines(numbers: Numbers, kind: str, lines: dict[float, tuple[np.ndarray, np.ndarray]]) -> Numbers:
    """The numbers with rows of kind "locus" or "track" appended: [M/H], or mass -> (colours, magnitudes)."""
    out = dict(numbers)
    for value, (x, y) in lines.items():
        more = {"kind": [kind] * len(x), "x": x, "y": y, "n": [0] * len(x), "feh": [value] * len(x)}
        types = {k: np.result_type(v, "U5") if k == "kind" else v.dtype for k, v in out.items()}
        out = {k: np.concatenate([v, np.asarray(more[k], dtype=types[k])]) for k, v in out.items()}
    return out


def view(numbers: Numbers, about: dict[str, Any]) -> tuple[tuple, tuple]:
    """x and y limits: those asked for, else what holds all stars, with a margin."""
    shown = ~np.isin(numbers["kind"], ("locus", "track"))
    limits = []
    for axis in ("x", "y"):
        asked = about.get(f"{axis}_range")
        values = numbers[axis][shown]
        if asked or not values.size:
            limits.append(tuple(asked or (0.0, 1.0)))
            continue
        low, high = float(values.min()), float(values.max())
        margin = 0.04 * (high - low) or 0.5
        limits.append((low - margin, high + margin))
    return limits[0], limits[1]


def draw(numbers: Numbers, about: dict[str, Any], column: str = "single") -> Any:
    """The figure of these numbers. about: x_label, y_label, dx, dy, invert_y, rows, x_range, y_range (or None)."""
    figure = style.canvas(column, {"single": 96.0, "double": 120.0}[column])
    axes = figure.subplots()
    limits = view(numbers, about)
    _cells(axes, numbers, about, "background", "Greys", 0.5)
    image = _cells(axes, numbers, about, "bin", "viridis", 1.0)
    stars = numbers["kind"] == "star"
    axes.plot(
        numbers["x"][stars], numbers["y"][stars], ls="", marker="o", ms=0.9, mew=0, color="#440154", rasterized=True,
        zorder=3,
    )  # fmt: skip
    axes.set(xlim=limits[0], ylim=limits[1][::-1] if about.get("invert_y", True) else limits[1])
    _tracks(axes, numbers, limits)
    _loci(axes, numbers, about)
    axes.set(xlabel=about["x_label"], ylabel=about["y_label"])
    if image is not None:
        bar = figure.colorbar(image, ax=axes, pad=0.015, aspect=32)
        unit = style.UNITS.get(about.get("cell_unit"), about.get("cell_unit", ""))
        size = f"{about['dx']:.3g} $\\times$ {about['dy']:.3g} {unit}".strip()
        bar.set_label(f"Stars per {size} cell")
        style.plain_log(bar.ax.yaxis)
    axes.set_title(f"{about['drawn']:,} stars".replace(",", "\u2009"), loc="right", fontsize=7.5, pad=3)
    return figure


def _cells(axes: Any, numbers: Numbers, about: dict[str, Any], kind: str, cmap: str, strength: float) -> Any:
    from matplotlib.colors import LogNorm

    bins = numbers["kind"] == kind
    if not bins.any():
        return None
    x, y, n = (numbers[k][bins] for k in ("x", "y", "n"))
    i = np.rint((x - x.min()) / about["dx"]).astype(int)
    j = np.rint((y - y.min()) / about["dy"]).astype(int)
    image = np.full((j.max() + 1, i.max() + 1), np.nan)
    image[j, i] = n
    half = (about["dx"] / 2, about["dy"] / 2)
    low, high = (SPARSE if kind == "bin" else 1), max(float(n.max()), 4.0 * SPARSE)
    return axes.imshow(
        image, origin="lower", aspect="auto", interpolation="nearest", cmap=cmap, rasterized=True,
        zorder=2 if kind == "bin" else 1, alpha=strength, norm=LogNorm(low, high),
        extent=(x.min() - half[0], x.max() + half[0], y.min() - half[1], y.max() + half[1]),
    )  # fmt: skip


def _loci(axes: Any, numbers: Numbers, about: dict[str, Any]) -> None:
    rows = numbers["kind"] == "locus"
    values = np.unique(numbers["feh"][rows])
    for feh, colour in zip(values, locus_colours(values.size), strict=True):
        one = rows & (numbers["feh"] == feh)
        axes.plot(
            numbers["x"][one], numbers["y"][one], ls=(0, (4, 1.6)), lw=1.1, color=colour, zorder=5,
            label=f"{feh:.1f}".replace("-", "\u2212"), path_effects=style.outlined(),
        )  # fmt: skip
    if values.size:
        handles, names = axes.get_legend_handles_labels()
        order = sorted(range(len(names)), key=lambda i: names[i].startswith("$"))  # tracks come last
        legend = axes.legend(
            [handles[i] for i in order], [names[i] for i in order], title="[M/H]" + about.get("locus_note", ""),
            title_fontsize=7.5, loc=emptiest_corner(axes, numbers), handlelength=2.4, frameon=True,
            framealpha=0.8, edgecolor="none",
        )  # fmt: skip
        legend.set_zorder(6)


def _tracks(axes: Any, numbers: Numbers, limits: tuple[tuple, tuple]) -> None:
    """Lines of one mass across the loci, the mass at their metal-rich end."""
    rows = numbers["kind"] == "track"
    for k, mass in enumerate(np.unique(numbers["feh"][rows])):
        x, y = (numbers[axis][rows & (numbers["feh"] == mass)] for axis in ("x", "y"))
        axes.plot(x, y, color=style.BLACK, lw=0.6, zorder=4, label=None if k else r"$M\ [M_\odot]$")
        inside = np.flatnonzero((x > limits[0][0]) & (x < limits[0][1]) & (y > limits[1][0]) & (y < limits[1][1]))
        if inside.size:
            end = (x[inside[-1]], y[inside[-1]])
            across, up = axes.transLimits.transform(end)
            right, low = across > 1 - LABEL[0], up < LABEL[1]  # the label stays inside the frame
            axes.annotate(f"{mass:g}", end, (-2 if right else 2, 2 if low else -2), textcoords="offset points",
                          fontsize=6.5, ha="right" if right else "left", va="bottom" if low else "top", zorder=6,
                          path_effects=style.outlined())  # fmt: skip


def locus_colours(n: int) -> list[str]:
    """n colours from blue (metal-poor) to red (metal-rich)."""
    palette = (style.BLUE, style.SKY, style.BLACK, style.PURPLE, style.RED)
    return [palette[round(k * 4 / max(n - 1, 1)) % 5] for k in range(n)] if n > 1 else [style.RED] * n


def emptiest_corner(axes: Any, numbers: Numbers) -> str:
    """The corner of the axes with the fewest drawn marks, as a legend's location."""
    marks = axes.transLimits.transform(np.stack([numbers["x"], numbers["y"]], axis=1))
    corners = {"lower left": (0, 0), "upper right": (1, 1), "lower right": (1, 0), "upper left": (0, 1)}

    def crowd(corner: tuple[int, int]) -> int:
        return int((np.abs(marks - corner) < (0.4, 0.3)).all(axis=1).sum())

    return min(corners, key=lambda name: crowd(corners[name]))
