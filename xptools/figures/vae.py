"""Figures of the scatter auto-encoder: two latents coloured by a label, residuals by order, the learning curve."""

from __future__ import annotations

from typing import Any

import numpy as np

from xptools.figures import style

Numbers = dict[str, np.ndarray]
COLOURS = (0.02, 0.98)  # quantiles of the cells' means that the colours span


def draw_latents(numbers: Numbers, about: dict[str, Any], column: str = "single") -> Any:
    """Cells of two columns, coloured by the mean of a third."""
    figure = style.canvas(column, {"single": 72.0, "double": 120.0}[column])
    axes = figure.subplots()
    x, y = (_edges(numbers[k], step) for k, step in zip("xy", about["step"], strict=True))
    grid = np.full((len(x) - 1, len(y) - 1), np.nan)
    i, j = (np.searchsorted(e, numbers[k]) - 1 for e, k in ((x, "x"), (y, "y")))
    grid[i, j] = numbers["value"]
    low, high = np.quantile(numbers["value"], COLOURS)
    image = axes.pcolormesh(x, y, np.ma.masked_invalid(grid.T), cmap="viridis", vmin=low, vmax=high, rasterized=True)
    axes.set(xlabel=style.label(about["x"], None), ylabel=style.label(about["y"], None))
    figure.colorbar(image, ax=axes, label=f"mean {style.label(about['colour'], None)}", extend="both", pad=0.02)
    return figure


def _edges(centres: np.ndarray, step: float) -> np.ndarray:
    low, high = centres.min(), centres.max()
    return low - step / 2 + step * np.arange(round((high - low) / step) + 2)


def draw_residuals(numbers: Numbers, about: dict[str, Any], column: str = "double") -> Any:
    """A panel per band: median and 68 % of R(j) against the order; +-1 is what noise alone gives."""
    figure = style.canvas(column, 62.0)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (band, name, colour) in zip(panels, (("bp", "BP", style.BLUE), ("rp", "RP", style.RED)), strict=True):
        rows = {k: v[numbers["part"] == band] for k, v in numbers.items()}
        axes.axhspan(-1, 1, color="#EEEEEE", lw=0)
        axes.axhline(0, color=style.GREY, lw=0.6)
        axes.fill_between(rows["x"], rows["lo"], rows["hi"], color=colour, alpha=0.35, lw=0, step="mid")
        axes.plot(rows["x"], rows["y"], color=colour, drawstyle="steps-mid")
        axes.text(0.97, 0.94, name, transform=axes.transAxes, ha="right", va="top")
        axes.set(xlabel="Coefficient", xlim=(0.5, rows["x"].max(initial=1) + 0.5))
    reach = 1.15 * max(np.abs(np.concatenate([numbers["lo"], numbers["hi"]])).max(), 1.5)
    panels[0].set(ylabel=r"$R(j)=(x_j-\hat{x}_j)/\sigma_j$", ylim=(-reach, reach))
    panels[0].text(0.03, 0.94, f"{about['rows']:,} stars", transform=panels[0].transAxes, va="top", fontsize=7.5)
    return figure


LINES = {
    "training": (style.BLUE, "-", "training"),
    "held-out": (style.RED, "-", "held out"),
    "background training": (style.SKY, (0, (1, 1)), "background, training"),
    "background held-out": (style.ORANGE, (0, (1, 1)), "background, held out"),
}


def draw_curve(numbers: Numbers, about: dict[str, Any], column: str = "single") -> Any:
    """Loss against epoch, logarithmic; a second training against the right axis, as its units are others."""
    figure = style.canvas(column, {"single": 66.0, "double": 90.0}[column])
    axes = figure.subplots()
    parts = list(dict.fromkeys(numbers["part"].tolist()))
    other = axes.twinx() if any(p.startswith("background") for p in parts) else None
    handles = []
    for part in parts:
        rows, (colour, dashes, name) = numbers["part"] == part, LINES[part]
        mine = other if part.startswith("background") else axes
        handles += mine.plot(numbers["x"][rows], numbers["y"][rows], color=colour, ls=dashes, label=name, lw=0.9)
    for some, title in ((axes, "Loss"), (other, "Loss, background")):
        if some is None:
            continue
        mine = np.array([p.startswith("background") for p in numbers["part"]]) == (some is other)
        x, y = numbers["x"][mine], numbers["y"][mine]
        early = x <= max(0.1 * x.max(), x.min())  # where the loss is high, but for its very beginning
        low, high = np.nanmin(y), max(np.nanquantile(y[early], 0.9), np.nanmin(y) + 1e-6)
        some.set(ylabel=title, ylim=(low - 0.05 * (high - low), high + 0.1 * (high - low)))
    if other is not None:
        axes.tick_params(right=False, which="both")
    axes.set(xscale="log", xlabel="Epoch")
    axes.legend(handles=handles, loc="lower left")
    return figure


DRAWN = {"latents": draw_latents, "residuals": draw_residuals, "curve": draw_curve}
