"""The look of every figure: widths, type, colours, labels with units, and files whose bytes do not change.

Colours are Okabe & Ito's (2008), which stay apart for colour-blind readers; density maps are perceptually uniform.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from xptools import session
from xptools.errors import UnavailableError, UsageError

WIDTH_MM = {"single": 88.0, "double": 180.0}
BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
SERIES = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY, BLACK)
GREY = "#8C8C8C"
TRUTH = {"marker": "D", "ms": 3.4, "mfc": "none", "mec": RED, "mew": 0.8}
SUFFIXES = (".pdf", ".png", ".svg")
RC: dict[str, Any] = {
    "font.family": "STIXGeneral",
    "mathtext.fontset": "stix",
    "font.size": 8.5,
    "axes.labelsize": 9.0,
    "legend.fontsize": 7.5,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.0,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "xtick.minor.visible": True,
    "ytick.minor.visible": True,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "xptools",
    "path.simplify": False,
    "figure.dpi": 100,
    "savefig.dpi": 300,
    "axes.unicode_minus": True,
}
UNITS = {
    "solMass": r"$M_\odot$",
    "kpc**3": r"kpc$^3$",
    "mas.yr**-1": r"mas yr$^{-1}$",
    "km.s**-1": r"km s$^{-1}$",
    "kpc**-3.solMass**-1": r"kpc$^{-3}$ $M_\odot^{-1}$",
}
NAMES = {
    "syn_bp_rp": r"Synthetic $G_{\rm BP}-G_{\rm RP}$",
    "bp_rp": r"$G_{\rm BP}-G_{\rm RP}$",
    "bp_rp0": r"$(G_{\rm BP}-G_{\rm RP})_0$",
    "mg0": r"$M_{G,0}$",
    "mg": r"$M_G$",
    "mass": "Mass",
    "feh": "[Fe/H]",
    "phot_g_mean_mag": r"$G$",
    "veff": r"$V_{\rm eff}$",
}


def matplotlib() -> Any:
    """The matplotlib module; UnavailableError if it is not installed."""
    try:
        import matplotlib as module
    except ImportError:
        raise UnavailableError("plot needs matplotlib, which is absent. TRY: pip install 'xptools[plot]'") from None
    if session.alone():
        _lean()
    return module


def _lean() -> None:
    """Import matplotlib's figures without the documentation of each of its classes, which takes as long as the rest."""
    import warnings

    from matplotlib import artist

    artist.kwdoc = lambda _artist: ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # session.lean() has left out the third dimension, and that is said
        import matplotlib.figure  # noqa: F401


def rendered(
    draw: Callable[..., Any], numbers: dict[str, Any], about: dict[str, Any], column: str, form: str
) -> bytes:
    """The figure `draw` makes, as a file of `form`, in this file's settings whatever the user's own are."""
    module = matplotlib()
    # matplotlib.style reads all styles that there are
    plain = {k: v for k, v in module.rcParamsDefault.items() if k not in ("backend", "interactive", "toolbar")}
    with module.rc_context({**plain, **RC}):
        return encoded(draw(numbers, about, column), form)


def label(name: str, unit: str | None, text: str | None = None) -> str:
    """Axis label of a column: its symbol or description, and its unit in brackets if it has one."""
    words = NAMES.get(name) or text or name.replace("_", " ")
    return f"{words} [{UNITS.get(unit, unit)}]" if unit else words


def plain_log(axis: Any) -> None:
    """Ticks of a logarithmic axis at 1, 2, 5 times powers of ten, as plain numbers while they are short."""
    from math import floor, log10

    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    def words(value: float, _place: int) -> str:
        power = floor(log10(value) + 1e-9)
        return f"{value:g}" if 0.9e-3 < value < 1e4 else rf"${value / 10**power:.0f}\times10^{{{power}}}$"

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(words))
    axis.set_minor_formatter(NullFormatter())


def interval(low: float, high: float) -> str:
    """A bin of [Fe/H] in words."""
    return rf"${low:.4g} < [\mathrm{{Fe/H}}] < {high:.4g}$"


def canvas(column: str, height_mm: float) -> Any:
    """An empty figure, `single` or `double` column wide [mm], with a layout that keeps labels inside."""
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH_MM[column] / 25.4, height_mm / 25.4), layout="constrained")


def kind(path: str | Path) -> str:
    """pdf, png or svg, from the file name; UsageError for another suffix."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"a figure's name ends in {', '.join(SUFFIXES)}, not '{suffix or path}'. TRY: -o figure.pdf")
    return suffix[1:]


def encoded(figure: Any, form: str) -> bytes:
    """The figure as a file of `form`; the same figure gives the same bytes: no date, no version, no random names."""
    from io import BytesIO

    stamps = {
        "pdf": {"CreationDate": None, "Creator": "xptools", "Producer": None},
        "png": {"Software": None},
        "svg": {"Date": None, "Creator": "xptools"},
    }
    buffer = BytesIO()
    figure.savefig(buffer, format=form, metadata=stamps[form])
    return buffer.getvalue()


def outlined(width: float = 2.2) -> list:
    """Path effects that put a white edge under a line drawn over a density map."""
    from matplotlib import patheffects

    return [patheffects.Stroke(linewidth=width, foreground="white"), patheffects.Normal()]


def blues() -> Any:
    """Matplotlib's Blues without its palest third: a single star must show."""
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap(colormaps["Blues"](np.linspace(0.35, 1.0, 256)))
