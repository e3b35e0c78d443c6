"""Answers of the generalist against a reference, one panel per context (Zhang M.+ 2026, Figs 4 and 5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from xptools.figures import style

Numbers = dict[str, np.ndarray]
CELLS, FAR = 80, 1.5  # cells across the axes, reach of the bins of residuals and errors in units of the axis
FINE, LEAST = 20_000, 1e-6  # those bins, in equal steps of asinh (x / LEAST), in the same unit
HEIGHT = {("single", 1): 72.0, ("single", 2): 46.0, ("double", 1): 100.0, ("double", 2): 82.0, ("double", 3): 60.0,
          ("double", 4): 54.0}  # of a row [mm], by the number of panels in it


@dataclass
class Tally:
    """Stars counted by reference and answer, by residual and by error, for each panel: fixed memory for any number."""

    low: float
    high: float
    panels: tuple[str, ...]
    cells: np.ndarray
    residuals: np.ndarray
    errors: np.ndarray
    rows: int = 0

    @classmethod
    def empty(cls, low: float, high: float, panels: tuple[str, ...]) -> Tally:
        n = len(panels)
        counts = (np.zeros((n, *shape), np.int64) for shape in ((CELLS, CELLS), (FINE,), (FINE,)))
        return cls(low, high, panels, *counts)

    def add(self, panel: int, reference: np.ndarray, answer: np.ndarray, error: np.ndarray | None) -> None:
        """Count some stars in a panel; what lies outside the axes is not drawn, but is in the scatter."""
        known = np.isfinite(reference) & np.isfinite(answer)
        x, y, span = reference[known], answer[known], self.high - self.low
        edges = np.linspace(self.low, self.high, CELLS + 1)
        self.cells[panel] += np.histogram2d(x, y, (edges, edges))[0].astype(np.int64)
        self.residuals[panel] += _counted(0.5 + 0.5 * _place((y - x) / span))
        if error is not None:
            self.errors[panel] += _counted(_place(error[known] / span))

    def numbers(self) -> Numbers:
        """Rows of kind cell (panel, x, y, n) and panel (bias in y, scatter, error, n)."""
        out = []
        width = (self.high - self.low) / CELLS
        for k, name in enumerate(self.panels):
            i, j = np.nonzero(self.cells[k])
            nan = np.full(len(i), np.nan)
            out.append(("cell", name, self.low + (i + 0.5) * width, self.low + (j + 0.5) * width, nan, nan,
                        self.cells[k, i, j]))  # fmt: skip
            out.append(("panel", name, np.nan, *self._summary(k), self.residuals[k].sum()))
        size = [len(np.atleast_1d(part[-1])) for part in out]
        names = ("kind", "panel", "x", "y", "scatter", "error", "n")
        return {
            n: np.concatenate([np.broadcast_to(np.asarray(part[m]), s) for part, s in zip(out, size, strict=True)])
            for m, n in enumerate(names)
        }

    def _summary(self, k: int) -> tuple[float, float, float]:
        """Median residual, 1.4826 MAD of the residuals, median error."""
        span = self.high - self.low
        centre = (np.arange(FINE) + 0.5) / FINE
        r, e = span * _value(2 * centre - 1), span * _value(centre)
        middle = _median(r, self.residuals[k])
        off = np.abs(r - middle)
        order = np.argsort(off)
        return middle, 1.4826 * _median(off[order], self.residuals[k][order]), _median(e, self.errors[k])


def _place(x: np.ndarray) -> np.ndarray:
    """Place of a residual among the bins, -1 ... 1 of -FAR ... FAR: what is small is told apart too."""
    return np.arcsinh(x / LEAST) / np.arcsinh(FAR / LEAST)


def _value(u: np.ndarray) -> np.ndarray:
    """The residual at a place."""
    return LEAST * np.sinh(u * np.arcsinh(FAR / LEAST))


def _counted(u: np.ndarray) -> np.ndarray:
    """Stars per fine bin of 0 ... 1; what lies beyond is in the last."""
    place = np.clip((u[np.isfinite(u)] * FINE).astype(np.int64), 0, FINE - 1)
    return np.bincount(place, minlength=FINE)


def _median(values: np.ndarray, weight: np.ndarray) -> float:
    total = np.cumsum(weight)
    return float(values[np.searchsorted(total, total[-1] / 2)]) if total[-1] else float("nan")


def draw(numbers: Numbers, about: dict[str, Any], column: str = "double") -> Any:
    """Columns as `Tally.numbers` gives them; `about`: x_label, y_label, unit, low, high, titles by panel."""
    from matplotlib.colors import LogNorm

    panels = list(dict.fromkeys(numbers["panel"].tolist()))
    widest = 2 if column == "single" else 4 if len(panels) == 4 else 3  # of four, one would stand alone
    across = min(len(panels), widest)
    down = -(-len(panels) // across)
    figure = style.canvas(column, HEIGHT[column, across] * down)
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    most = max(int(numbers["n"][numbers["kind"] == "cell"].max(initial=1)), 2)
    image = None
    for k, (axes, panel) in enumerate(zip(grid.flat, panels, strict=False)):
        here = {n: v[numbers["panel"] == panel] for n, v in numbers.items()}
        letter = panel if len(panel) == 1 else chr(ord("a") + k)
        image = _panel(axes, here, about, letter, panel, LogNorm(1, most)) or image
        axes.set(xlim=(about["low"], about["high"]), ylim=(about["low"], about["high"]), aspect="equal")
        if k + across >= len(panels):  # nothing is below it
            axes.tick_params(labelbottom=True)
            axes.set_xlabel(about["x_label"])
        if k % across == 0:
            axes.set_ylabel(about["y_label"])
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    figure.colorbar(image, ax=grid, label="Stars per cell", fraction=0.03, pad=0.01)
    return figure


def _told(value: float) -> str:
    """Three digits."""
    return f"{value:#.3g}".rstrip(".")


def _panel(axes, rows: Numbers, about: dict[str, Any], letter: str, panel: str, norm):
    """Cells, the line of equality, the scatter and the typical error told."""
    cells = rows["kind"] == "cell"
    low, high = about["low"], about["high"]
    density = np.zeros((CELLS, CELLS))
    i, j = (np.floor((rows[c][cells] - low) / (high - low) * CELLS).astype(int) for c in "xy")
    density[i, j] = rows["n"][cells]
    edges = np.linspace(low, high, CELLS + 1)
    image = axes.pcolormesh(edges, edges, np.ma.masked_equal(density.T, 0), norm=norm, cmap=style.blues(),
                            rasterized=True, zorder=1)  # fmt: skip
    axes.plot([low, high], [low, high], color=style.GREY, lw=0.8, ls=(0, (4, 1.5)), zorder=2)
    whole = np.flatnonzero(rows["kind"] == "panel")[0]
    axes.set_title(f"({letter}) {about['titles'].get(panel, panel)}", fontsize=8, pad=3)
    words = rf"$\sigma$ = {_told(rows['scatter'][whole])} {about['unit']}"
    if np.isfinite(rows["error"][whole]):
        words += f"\nerror {_told(rows['error'][whole])} {about['unit']}"
    axes.text(0.96, 0.05, words, transform=axes.transAxes, ha="right", fontsize=7)
    return image
