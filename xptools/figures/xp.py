"""Figures of XP spectra: stars with residuals, coefficients, a sample by colour, errors against magnitude.

Rows are points: `part` says which panel or line, x and y where, y_lo and y_hi the 1-sigma interval or 16-84 %.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xptools.figures import style

Numbers = dict[str, np.ndarray]
FLUX = r"$f_\lambda$ [$10^{-18}$ W m$^{-2}$ nm$^{-1}$]"
WAVELENGTH = r"$\lambda$ [nm]"
BANDS = {"bp": ("BP", style.BLUE), "rp": ("RP", style.RED)}


def draw_stars(numbers: Numbers, about: dict[str, Any], column: str = "double") -> Any:
    """A panel per star: flux with its 1-sigma band, a model if there is one, and under it the residuals in sigma."""
    stars = list(dict.fromkeys(numbers["source_id"].tolist()))
    across = 1 if column == "single" or len(stars) == 1 else 2
    down = -(-len(stars) // across)
    residuals = bool(np.isfinite(numbers["residual"]).any())
    figure = style.canvas(column, 12 + (52 if residuals else 40) * down)
    heights = [3, 1] * down if residuals else [1] * down
    grid = figure.subplots(len(heights), across, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights})
    for place, star in enumerate(stars):
        row, col = divmod(place, across)
        rows = {k: v[numbers["source_id"] == star] for k, v in numbers.items()}
        top = grid[(2 if residuals else 1) * row, col]
        _star(top, rows, f"{star}" if about.get("named") else f"star {place + 1}")
        if residuals:
            _residuals(grid[2 * row + 1, col], rows, left=col == 0)
    for place in range(len(stars), down * across):
        row, col = divmod(place, across)
        for line in range(2 * row, 2 * row + 2) if residuals else (row,):
            grid[line, col].set_visible(False)
    if residuals:  # a model is drawn: which line is which
        lines = {t: h for axes in grid.flat for h, t in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(lines.values(), lines, loc="outside upper center", ncols=3)
    figure.supxlabel(WAVELENGTH, fontsize=9)
    figure.supylabel(about["y_label"], fontsize=9)
    return figure


def _star(axes: Any, rows: Numbers, name: str) -> None:
    x, y = rows["x"], rows["y"]
    _overlap(axes)
    if np.isfinite(rows["y_lo"]).any():
        axes.fill_between(x, rows["y_lo"], rows["y_hi"], color=style.SKY, alpha=0.5, lw=0, zorder=2, label=r"$1\sigma$")
    axes.plot(x, y, color=style.BLACK, lw=0.8, zorder=3, label="observed")
    if np.isfinite(rows["model"]).any():
        axes.plot(x, rows["model"], color=style.RED, lw=0.8, ls=(0, (4, 1.5)), zorder=4, label="model")
    if np.isfinite(y).any():
        top = np.nanmax(rows["y_hi"] if np.isfinite(rows["y_hi"]).any() else y)
        axes.set_ylim(min(0.0, np.nanmin(y)), 1.22 * top)
    else:
        axes.text(0.5, 0.5, "no spectrum", transform=axes.transAxes, ha="center", va="center", fontsize=8)
    axes.text(0.97, 0.95, name, transform=axes.transAxes, ha="right", va="top", fontsize=6.5)


def _overlap(axes: Any) -> None:
    """Where both bands count."""
    axes.axvspan(635, 643, color="#EEEEEE", lw=0, zorder=0)


def _residuals(axes: Any, rows: Numbers, left: bool) -> None:
    axes.axhspan(-1, 1, color=style.SKY, alpha=0.3, lw=0)
    axes.axhline(0, color=style.GREY, lw=0.6)
    axes.plot(rows["x"], rows["residual"], color=style.BLACK, lw=0.7, marker=".", ms=2)
    widest = np.nanmax(np.abs(rows["residual"]), initial=3.0)
    axes.set_ylim(-1.15 * widest, 1.15 * widest)
    axes.yaxis.get_major_locator().set_params(nbins=4, integer=True)
    if left:
        axes.set_ylabel(r"resid. [$\sigma$]", fontsize=7)


def draw_coefficients(numbers: Numbers, about: dict[str, Any], column: str = "double") -> Any:
    """Two panels, BP and RP: coefficients over their norm against their index, errors as a band of both signs."""
    figure = style.canvas(column, 100)
    grid = figure.subplots(2, 1, sharex=True)
    stars = list(dict.fromkeys(numbers["source_id"].tolist()))
    for axes, (band, (name, _)) in zip(grid, BANDS.items(), strict=True):
        axes.set_yscale("symlog", linthresh=1e-3, linscale=0.6)
        axes.axhline(0, color=style.GREY, lw=0.5)
        for place, star in enumerate(stars):
            rows = {k: v[(numbers["source_id"] == star) & (numbers["part"] == band)] for k, v in numbers.items()}
            colour = style.SERIES[place % len(style.SERIES)]
            sigma = 0.5 * (rows["y_hi"] - rows["y_lo"])
            axes.fill_between(rows["x"], -sigma, sigma, step="mid", color=colour, alpha=0.18, lw=0)
            label = f"{star}" if about.get("named") else f"star {place + 1}"
            axes.plot(rows["x"], rows["y"], color=colour, lw=0.6, marker=".", ms=2.5, label=label)
        axes.set_ylabel(rf"{name}: $c_i\,/\,|c|$")
        axes.text(0.985, 0.93, name, transform=axes.transAxes, ha="right", va="top", fontsize=9)
    grid[1].set_xlabel("Index of the coefficient")
    grid[1].set_xlim(-1, numbers["x"].max() + 1)
    wide = 4 if column == "double" else 2
    figure.legend(*grid[0].get_legend_handles_labels(), loc="outside upper center", ncols=wide)
    return figure


def draw_sample(numbers: Numbers, about: dict[str, Any], column: str = "double") -> Any:
    """Median spectra of a sample in bins of colour, over their flux at one wavelength, with 16-84 %."""
    figure = style.canvas(column, 105 if column == "double" else 75)
    axes = figure.subplots()
    _overlap(axes)
    low = max(0.5 * numbers["y"][numbers["y"] > 0].min(), 0.01)
    bins = np.unique(numbers["bin"])
    from matplotlib import colormaps

    for k in bins:
        rows = {name: v[numbers["bin"] == k] for name, v in numbers.items()}
        colour = colormaps["plasma"](0.9 * (k / max(len(bins) - 1, 1)))
        label = f"{rows['lo'][0]:.2f} to {rows['hi'][0]:.2f} ({int(rows['n'][0])})".replace("-", "\u2212")
        # negative flux has no logarithm: its band ends below the frame
        axes.fill_between(rows["x"], np.maximum(rows["y_lo"], 0.5 * low), rows["y_hi"], color=colour, alpha=0.25, lw=0)
        axes.plot(rows["x"], rows["y"], color=colour, lw=1.0, label=label)
    axes.set_yscale("log")
    axes.set_ylim(low, 1.6 * numbers["y_hi"].max())
    style.plain_log(axes.yaxis)
    axes.set_xlabel(WAVELENGTH)
    axes.set_ylabel(rf"$f_\lambda\,/\,f_{{{about['at']:.0f}\,\mathrm{{nm}}}}$")
    axes.set_xlim(numbers["x"].min(), numbers["x"].max())
    axes.legend(title=f"{style.label(about['by'], None)} (stars)", fontsize=6.5, title_fontsize=7)
    return figure


def draw_errors(numbers: Numbers, about: dict[str, Any], column: str = "double") -> Any:
    """Size of the coefficients' errors over that of the coefficients, against magnitude: two tables, both bands."""
    figure = style.canvas(column, 75 if column == "double" else 120)
    grid = figure.subplots(1, 2, sharey=True) if column == "double" else figure.subplots(2, 1)
    for axes, (band, (name, colour)) in zip(grid, BANDS.items(), strict=True):
        for table, tint, size in (("background", "#404040", 1.6), ("table", colour, 1.2)):
            rows = (numbers["part"] == band) & (numbers["table"] == table)
            if rows.any():
                axes.plot(numbers["x"][rows], numbers["y"][rows], ls="", marker=".", ms=size, mew=0, color=tint,
                          alpha=0.5, rasterized=True, label=about[table])  # fmt: skip
                own = {"color": style.BLACK, "lw": 1.8} if table == "background" else {"color": tint, "ls": (0, (3, 1))}
                _medians(axes, numbers["x"][rows], numbers["y"][rows], own)
        axes.set_yscale("log")
        # without the few stars that are far from all others
        low, high = np.quantile(numbers["x"][numbers["part"] == band], (0.001, 0.999))
        axes.set_xlim(low - 0.5, high + 0.5)
        style.plain_log(axes.yaxis)
        axes.set_xlabel(rf"$G_{{\rm {name}}}$ [mag]")
        axes.legend(loc="upper left", markerscale=4)
    low, high = np.quantile(numbers["y"], (0.001, 0.999))
    for axes in grid:
        axes.set_ylim(low / 1.3, high * 1.3)
    for axes in grid[: 1 if column == "double" else 2]:
        axes.set_ylabel(r"$|\sigma|\,/\,|c|$")
    return figure


def _medians(axes: Any, x: np.ndarray, y: np.ndarray, line: dict[str, Any]) -> None:
    edges = np.arange(np.floor(x.min()), np.ceil(x.max()) + 0.1, 0.5)
    k = np.digitize(x, edges)
    pairs = [(np.median(x[k == i]), np.median(y[k == i])) for i in range(1, edges.size) if (k == i).sum() > 6]
    if pairs:
        axes.plot(*np.array(pairs).T, zorder=5, **line)


DRAWN = {"stars": draw_stars, "coefficients": draw_coefficients, "sample": draw_sample, "errors": draw_errors}
