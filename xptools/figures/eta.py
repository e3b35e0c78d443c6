"""The figures of eta: against [Fe/H], its purity and completeness, and over the colour-magnitude diagram."""

from __future__ import annotations

from typing import Any

import numpy as np

from xptools.figures import style

Numbers = dict[str, np.ndarray]
ETA = r"$\eta$"
FEW, UNSURE = 5, 0.15  # mass bins that a legend can name; error of a completeness that says nothing


def validation(numbers: Numbers, about: dict[str, Any], column: str = "single") -> Any:
    """Columns: kind, x, y, lo, hi, n, density, as eta_counts.Density gives them (Li+ 2026 Fig. 6)."""
    from xptools.cores.eta_counts import Density

    figure = style.canvas(column, {"single": 72.0, "double": 95.0}[column])
    axes = figure.subplots()
    cells = numbers["kind"] == "cell"
    image = _painted(axes, *(numbers[k][cells] for k in ("x", "y", "density")), Density.STEP, "Blues", (0, 1))
    m = ~cells
    x, y, lo, hi = (numbers[k][m] for k in ("x", "y", "lo", "hi"))
    axes.errorbar(x, y, yerr=[y - lo, hi - y], ls="", marker="o", ms=2.4, color=style.RED, elinewidth=0.7, zorder=4,
                  label="median, 68 %")  # fmt: skip
    axes.axhline(1.0, color=style.GREY, lw=0.8, ls=(0, (4, 1.5)), zorder=2, label="odds of 10")
    axes.legend(loc="upper right")
    shown = cells & (numbers["density"] > 0.02)
    axes.set(xlabel=f"{about['x_label']} [dex]", ylabel=rf"{ETA} = log$_{{10}}$ odds",
             xlim=_span(numbers["x"][shown], Density.STEP[0]), ylim=_span(numbers["y"][shown], 0.2))  # fmt: skip
    figure.colorbar(image, ax=axes, pad=0.015, aspect=32, label="Density over its column's highest")
    axes.set_title(f"{about['drawn']:,} stars".replace(",", "\u2009"), loc="right", fontsize=7.5, pad=3)
    return figure


def thresholds(numbers: Numbers, about: dict[str, Any], column: str = "double") -> Any:
    """Left: purity, completeness and halo kept of all stars; right: completeness by mass. Bands: 68 %."""
    figure = style.canvas(column, {"single": 120.0, "double": 72.0}[column])
    left, right = figure.subplots(*((2, 1) if column == "single" else (1, 2)), sharex=True, sharey=True)
    whole = ~np.isfinite(numbers["mass_hi"])
    poor = rf"[Fe/H] < ${about['split']:g}$"
    kinds = {"purity": ("purity", style.BLUE), "completeness": ("completeness", style.RED),
             "halo_kept": ("halo stars kept", style.GREEN)}  # fmt: skip
    for name, (words, colour) in kinds.items():
        if name in numbers and np.isfinite(numbers[name][whole]).any():
            _banded(left, numbers, whole, name, words, colour)
    masses = sorted({(a, b) for a, b in zip(numbers["mass_lo"], numbers["mass_hi"], strict=True) if np.isfinite(b)})
    _by_mass(figure, right, numbers, masses)
    for axes in (left, right):
        axes.axvline(1.0, color=style.GREY, lw=0.8, ls=(0, (4, 1.5)), zorder=1)
        axes.set(xlabel=f"Threshold of {ETA} [dex]", ylim=(0, 1), xlim=(-1.5, 3))
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="center left" if axes is left else "lower left", title=poor, title_fontsize=7.5)
    if len(masses) > FEW:
        right.set_title(poor, loc="right", fontsize=7.5, pad=3)
    left.set_ylabel("Share of stars")
    right.set_ylabel("Completeness")
    return figure


def completeness(numbers: Numbers, about: dict[str, Any], column: str = "single") -> Any:
    """Columns: feh_lo, feh_hi, mass_lo, mass_hi, n, completeness, completeness_err; bins without stars are left out."""
    figure = style.canvas(column, {"single": 70.0, "double": 95.0}[column])
    axes = figure.subplots()
    pairs = sorted({(a, b) for a, b in zip(numbers["feh_lo"], numbers["feh_hi"], strict=True)})
    for k, (low, high) in enumerate(pairs):
        rows = (numbers["feh_lo"] == low) & (numbers["feh_hi"] == high) & (numbers["n"] > 0)
        middle = 0.5 * (numbers["mass_lo"] + numbers["mass_hi"])[rows] + 0.004 * (k - 0.5 * (len(pairs) - 1))
        axes.errorbar(
            middle, numbers["completeness"][rows], numbers["completeness_err"][rows], ls="-", lw=0.6, marker="o",
            ms=2.6, elinewidth=0.8, color=style.SERIES[k % len(style.SERIES)], label=style.interval(low, high),
        )  # fmt: skip
    axes.set(xlabel=style.label("mass", "solMass"), ylabel=rf"Share with {ETA} > {about['threshold']:.3g}", ylim=(0, 1))
    axes.legend(loc="lower left")
    return figure


def diagram(numbers: Numbers, about: dict[str, Any], column: str = "single") -> Any:
    """Columns: x, y, n, eta: the mean of each cell, in colour (Li+ 2026 Fig. 1)."""
    figure = style.canvas(column, {"single": 96.0, "double": 120.0}[column])
    axes = figure.subplots()
    limits = np.quantile(numbers["eta"], (0.01, 0.99))
    size = (about["dx"], about["dy"])
    image = _painted(axes, numbers["x"], numbers["y"], numbers["eta"], size, "cividis", limits)
    axes.set(xlabel=about["x_label"], ylabel=about["y_label"], xlim=_span(numbers["x"], size[0]),
             ylim=_span(numbers["y"], size[1])[::-1])  # fmt: skip
    bar = figure.colorbar(image, ax=axes, pad=0.015, aspect=32, extend="both")
    bar.set_label(f"Mean {ETA} per cell [dex]")
    axes.set_title(f"{about['drawn']:,} stars".replace(",", "\u2009"), loc="right", fontsize=7.5, pad=3)
    return figure


def _painted(axes: Any, x, y, value, size: tuple[float, float], cmap: str, limits) -> Any:
    """Cells of centres x, y (N,) in colour; empty ones stay white."""
    i, j = (np.rint((v - v.min()) / s).astype(int) for v, s in zip((x, y), size, strict=True))
    grid = np.full((i.max() + 1, j.max() + 1), np.nan)
    grid[i, j] = value
    edges = [v.min() + (np.arange(n + 1) - 0.5) * s for v, n, s in zip((x, y), grid.shape, size, strict=True)]
    return axes.pcolormesh(*edges, np.ma.masked_invalid(grid.T), cmap=cmap, vmin=limits[0], vmax=limits[1],
                           rasterized=True, zorder=1)  # fmt: skip


def _by_mass(figure: Any, axes: Any, numbers: Numbers, masses: list[tuple[float, float]]) -> None:
    """Completeness of each mass bin: a few with bands and names, many as lines coloured by mass.

    A bin whose completeness is nowhere known to 0.15 is left out of the many.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    rows = [(numbers["mass_lo"] == low) & (numbers["mass_hi"] == high) for low, high in masses]
    if len(masses) <= FEW:
        for colour, chosen, (low, high) in zip(style.SERIES, rows, masses, strict=False):
            words = f"{low:.2g}\u2013{high:.2g} " + style.UNITS["solMass"]
            _banded(axes, numbers, chosen, "completeness", words, colour)
        return
    shade = ScalarMappable(Normalize(masses[0][0], masses[-1][1]), colormaps["viridis"])
    for chosen, (low, high) in zip(rows, masses, strict=True):
        x, y, error = (numbers[k][chosen] for k in ("threshold", "completeness", "completeness_err"))
        if np.nanmax(error, initial=0) < UNSURE:
            axes.plot(x, y, color=shade.to_rgba(0.5 * (low + high)), lw=0.9)
    figure.colorbar(shade, ax=axes, pad=0.02, aspect=32).set_label(style.label("mass", "solMass"))


def _banded(axes: Any, numbers: Numbers, rows: np.ndarray, name: str, words: str, colour: str) -> None:
    x, y, error = (numbers[k][rows] for k in ("threshold", name, f"{name}_err"))
    axes.plot(x, y, color=colour, label=words)
    axes.fill_between(x, y - error, y + error, color=colour, alpha=0.25, lw=0)


def _span(values: np.ndarray, margin: float) -> tuple[float, float]:
    return float(values.min()) - margin, float(values.max()) + margin


DRAWN = {"validation": validation, "threshold": thresholds, "completeness": completeness, "cmd": diagram}
