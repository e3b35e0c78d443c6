"""The cut-flow of a selection (Table 1 of Li+ 2026): stars left after each cut as bars, numbers beside them."""

from __future__ import annotations

from typing import Any

import numpy as np

from xptools.figures import style


def draw(numbers: dict[str, np.ndarray], about: dict[str, Any], column: str = "single") -> Any:
    """numbers: cut (text), rows_in, rows_out, unknown; the first bar is the input."""
    names = ["input", *(str(c) for c in numbers["cut"])]
    left = np.concatenate([numbers["rows_in"][:1], numbers["rows_out"]]).astype(np.float64)
    figure = style.canvas(column, 16 + 6.5 * len(names))
    axes = figure.subplots()
    place = np.arange(len(names))
    floor = 10 ** np.floor(np.log10(left[left > 0].min()) - 0.3) if left.any() else 0.1
    axes.barh(place, np.maximum(left - floor, 0), left=floor, height=0.68, color=style.SKY, edgecolor="none", zorder=2)
    axes.set(xscale="log", xlim=(floor, max(left.max(), 10 * floor) * 1.2), ylim=(len(names) - 0.45, -0.55))
    axes.set_yticks(place, [_short(name) for name in names])
    axes.tick_params(axis="y", which="both", length=0)
    axes.set_xlabel("Stars left")
    axes.grid(axis="x", lw=0.3, color="#DDDDDD", zorder=0)
    for k, n in enumerate(left):
        words = f"{int(n):,}".replace(",", "\u2009")
        axes.text(1.02, k, words + _share(left, k), transform=axes.get_yaxis_transform(), va="center", fontsize=7.5)
    return figure


def _share(left: np.ndarray, k: int) -> str:
    if k == 0 or left[k - 1] == 0:
        return ""
    percent = 100 * left[k] / left[k - 1]
    return f"  ({percent:.2f}\u2009%)" if percent < 99.995 or left[k] == left[k - 1] else "  (>99.99\u2009%)"


def _short(name: str) -> str:
    return name if len(name) <= 26 else name[:24] + "\u2026"
