"""The effective volume against mass, one line per [Fe/H] bin, with its error as a band."""

from __future__ import annotations

from typing import Any

import numpy as np

from xptools.figures import style

Numbers = dict[str, np.ndarray]
MARKERS = "osD^vP*"


def draw(numbers: Numbers, about: dict[str, Any], column: str = "single") -> Any:
    """Columns: feh_lo, feh_hi, mass_lo, mass_hi, mass, veff, veff_err [kpc3]."""
    figure = style.canvas(column, {"single": 72.0, "double": 95.0}[column])
    axes = figure.subplots()
    for k, feh in enumerate(np.unique(numbers["feh_lo"])):
        rows = (numbers["feh_lo"] == feh) & (numbers["veff"] > 0)
        mass, veff, error = numbers["mass"][rows], numbers["veff"][rows], np.nan_to_num(numbers["veff_err"][rows])
        colour = style.SERIES[k % len(style.SERIES)]
        name = style.interval(feh, numbers["feh_hi"][numbers["feh_lo"] == feh][0])
        lower = np.maximum(veff - error, veff * 1e-3)
        axes.fill_between(mass, lower, veff + error, color=colour, alpha=0.25, lw=0, zorder=2)
        axes.plot(mass, veff, color=colour, marker=MARKERS[k % len(MARKERS)], ms=3, mew=0, label=name, zorder=3)
    axes.set(yscale="log", xlabel=about.get("x_label", style.label("mass", "solMass")))
    axes.set_ylabel(about.get("y_label", style.label("veff", "kpc**3")))
    axes.legend(loc="lower right", labelspacing=0.3)
    return figure
