"""[Fe/H] found against the reference, one panel per bin of M_G (Li+ 2026 App. C.2, Fig. 8)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from xptools.figures import style

Numbers = dict[str, np.ndarray]
LOW, HIGH, CELL, FINE = -3.0, 1.0, 0.05, 5  # [dex]; the median is read from cells FINE times as fine
STEP = 0.25  # [dex], of the running median
FEWEST = 10  # stars of a running median, and of a bias and scatter that are told
CROWD = 4  # stars of the fullest cell, from which cells are shaded; fewer stars are points


@dataclass
class Tally:
    """Stars counted by M_G bin, reference and [Fe/H] found: fixed memory for any number of rows."""

    edges: np.ndarray
    counts: np.ndarray
    rows: int = 0

    @classmethod
    def empty(cls, edges: np.ndarray) -> Tally:
        cells = round((HIGH - LOW) / CELL)
        return cls(edges, np.zeros((len(edges) - 1, cells, cells * FINE), np.int64))

    def add(self, M_G: np.ndarray, reference: np.ndarray, found: np.ndarray) -> None:
        """Count some stars; those outside the axes or without a value are not drawn."""
        self.rows += len(M_G)
        sample = np.stack([M_G, reference, found], -1)
        sample = sample[np.isfinite(sample).all(-1)]
        cells = self.counts.shape[1]
        bins = (self.edges, np.linspace(LOW, HIGH, cells + 1), np.linspace(LOW, HIGH, cells * FINE + 1))
        self.counts += np.histogramdd(sample, bins)[0].astype(np.int64)

    def numbers(self) -> Numbers:
        """Rows of kind cell (x, y, n), median (x, y, lo, hi: 16 and 84 %, n) and panel (y: bias, hi: 1.48 MAD, n)."""
        out = []
        for k, counts in enumerate(self.counts):
            coarse = counts.reshape(*counts.shape[:1], -1, FINE).sum(-1)
            i, j = np.nonzero(coarse)
            x, y = LOW + (i + 0.5) * CELL, LOW + (j + 0.5) * CELL
            nan = np.full(len(i), np.nan)
            out.append(("cell", k, x, y, nan, nan, coarse[i, j]))
            width = round(STEP / CELL)
            for a in range(0, counts.shape[0], width):
                column = counts[a : a + width].sum(0)
                if column.sum() >= FEWEST:
                    low, middle, high = _quantiles(column, (0.15865, 0.5, 0.84135), LOW)
                    out.append(("median", k, LOW + (a + width / 2) * CELL, middle, low, high, column.sum()))
            if counts.any():
                out.append(("panel", k, np.nan, *_bias(counts), int(counts.sum())))
        return self._table(out)

    def _table(self, parts) -> Numbers:
        names = ("kind", "k", "x", "y", "lo", "hi", "n")
        columns = [[np.atleast_1d(v) for v in part] for part in parts]
        size = [len(c[2]) for c in columns]
        whole = {
            n: np.concatenate([np.broadcast_to(c[m], s) for c, s in zip(columns, size, strict=True)])
            for m, n in enumerate(names)
        }
        k = whole.pop("k").astype(int)
        whole["n"] = whole["n"].astype(np.int64)
        return {"kind": whole.pop("kind"), "mg_lo": self.edges[k], "mg_hi": self.edges[k + 1], **whole}


def _quantiles(counts: np.ndarray, levels: tuple[float, ...], first: float) -> np.ndarray:
    """Quantiles of binned values, linear inside a bin."""
    cumulative = np.concatenate([[0], np.cumsum(counts)]) / counts.sum()
    edges = first + np.arange(len(counts) + 1) * CELL / FINE
    return np.interp(levels, cumulative, edges)


def _bias(counts: np.ndarray) -> tuple[float, float, float]:
    """Median, its unknown lower end, and 1.4826 MAD of found - reference, from the cells."""
    i, j = np.nonzero(counts)
    d = (j + 0.5) * CELL / FINE - (i + 0.5) * CELL
    order = np.argsort(d)
    weight = counts[i, j]

    def median(values, w):
        c = np.cumsum(w)
        return float(values[np.searchsorted(c, c[-1] / 2)])

    middle = median(d[order], weight[order])
    off = np.abs(d - middle)
    order = np.argsort(off)
    return middle, np.nan, 1.4826 * median(off[order], weight[order])


def draw(numbers: Numbers, about: dict[str, Any], column: str = "double") -> Any:
    """Columns: kind, mg_lo, mg_hi, x, y, lo, hi, n as `Tally.numbers` gives them; `about`: x_label, y_label."""
    from matplotlib.colors import LogNorm

    panels = sorted({(float(a), float(b)) for a, b in zip(numbers["mg_lo"], numbers["mg_hi"], strict=True)})
    across = min(len(panels), 3 if column == "double" else 2)
    down = -(-len(panels) // across)
    figure = style.canvas(column, {"single": 40.0, "double": 53.0}[column] * down + 6)
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    most = int(numbers["n"][numbers["kind"] == "cell"].max(initial=1))
    low, high = _limits(numbers)
    image = None
    for axes, panel in zip(grid.flat, panels, strict=False):
        here = (numbers["mg_lo"] == panel[0]) & (numbers["mg_hi"] == panel[1])
        norm = LogNorm(1, most) if most >= CROWD else None
        image = _panel(axes, {k: v[here] for k, v in numbers.items()}, panel, norm) or image
        axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    figure.legend(*grid.flat[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    figure.supxlabel(about["x_label"], fontsize=9)
    figure.supylabel(about["y_label"], fontsize=9)
    if image is not None:
        bar = figure.colorbar(image, ax=grid, label=f"Stars per ({CELL:g} dex)$^2$", fraction=0.03, pad=0.01)
        style.plain_log(bar.ax.yaxis)
    return figure


def _limits(numbers: Numbers) -> tuple[float, float]:
    """Where nearly all cells are, on both axes."""
    rows = numbers["kind"] == "cell"
    values = np.concatenate([numbers["x"][rows], numbers["y"][rows]])
    weight = np.concatenate([numbers["n"][rows]] * 2)
    order = np.argsort(values)
    c = np.cumsum(weight[order]) / weight.sum()
    low, high = values[order][np.searchsorted(c, [0.001, 0.999]).clip(0, len(c) - 1)]
    return max(np.floor(low * 4) / 4 - 0.1, LOW), min(np.ceil(high * 4) / 4 + 0.1, HIGH)


def _cells(axes, rows: Numbers, norm):
    """Cells shaded by their stars, or a point each where no cell has many."""
    if norm is None:
        axes.scatter(rows["x"], rows["y"], 7 * rows["n"], color=style.BLUE, lw=0, alpha=0.8, zorder=3)
        return None
    side = round((HIGH - LOW) / CELL)
    density = np.zeros((side, side))
    i, j = (np.floor((rows[c] - LOW) / CELL).astype(int) for c in "xy")
    density[i, j] = rows["n"]
    edges = np.linspace(LOW, HIGH, side + 1)
    shown = np.ma.masked_equal(density.T, 0)
    return axes.pcolormesh(edges, edges, shown, norm=norm, cmap=style.blues(), rasterized=True, zorder=1)


def _panel(axes, rows: Numbers, panel: tuple[float, float], norm):
    """One panel: cells, the line of equality, the running median with its 68 %, what it comes to."""
    cells = rows["kind"] == "cell"
    image = _cells(axes, {k: v[cells] for k, v in rows.items()}, norm)
    axes.plot([LOW, HIGH], [LOW, HIGH], color=style.GREY, lw=0.8, ls=(0, (4, 1.5)), zorder=2, label="equal")
    m = rows["kind"] == "median"
    errors = np.stack([rows["y"][m] - rows["lo"][m], rows["hi"][m] - rows["y"][m]])
    axes.errorbar(rows["x"][m], rows["y"][m], yerr=errors, ls="", marker="o", ms=2.6, color=style.RED,
                  elinewidth=0.8, zorder=4, label="median, 68 %")  # fmt: skip
    axes.text(0.05, 0.95, rf"${panel[0]:g} < M_G < {panel[1]:g}$", transform=axes.transAxes, va="top", fontsize=7.5)
    whole = np.flatnonzero(rows["kind"] == "panel")
    if len(whole):
        k = whole[0]
        bias = f"{round(float(rows['y'][k]), 2) + 0.0:+.2f}".replace("-", "\u2212")
        words = f"$N$ = {rows['n'][k]:,}"
        words += f"\nbias {bias} dex\nscatter {rows['hi'][k]:.2f} dex" if rows["n"][k] >= FEWEST else ""
        axes.text(0.96, 0.05, words, transform=axes.transAxes, ha="right", fontsize=7)
    return image
