"""A histogram of one column or expression, with the Poisson interval of every count."""

from __future__ import annotations

from typing import Any

import numpy as np

from xptools.figures import style

Numbers = dict[str, np.ndarray]


def with_intervals(edges: np.ndarray, counts: np.ndarray) -> Numbers:
    """lo, hi, n and the central 68 % interval of the expected number, Gamma(n + 1/2) (Jeffreys' prior)."""
    from scipy.special import gammaincinv

    low, high = gammaincinv(counts + 0.5, [[0.15865], [0.84135]])
    return {"lo": edges[:-1], "hi": edges[1:], "n": counts, "n_lo": np.where(counts > 0, low, 0.0), "n_hi": high}


def draw(numbers: Numbers, about: dict[str, Any], column: str = "single") -> Any:
    """Columns: lo, hi (edges), n, n_lo, n_hi; `about`: x_label, log."""
    figure = style.canvas(column, {"single": 66.0, "double": 90.0}[column])
    axes = figure.subplots()
    edges = np.append(numbers["lo"], numbers["hi"][-1])
    axes.stairs(numbers["n"], edges, color=style.BLUE, lw=1.0, zorder=3)
    axes.fill_between(
        edges, np.append(numbers["n_lo"], 0), np.append(numbers["n_hi"], 0),
        step="post", color=style.BLUE, alpha=0.22, lw=0, zorder=2,
    )  # fmt: skip
    axes.set(xlim=(edges[0], edges[-1]), xlabel=about["x_label"], ylabel="Stars per bin")
    if about.get("log"):
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.5)
    else:
        axes.set_ylim(bottom=0)
    return figure
