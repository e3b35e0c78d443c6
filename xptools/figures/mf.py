"""The mass function: log10 Phi(M) against log M, one panel per [Fe/H] bin, with what the counts allow.

A row is one (mass, [Fe/H]) bin, as `xp mf` writes it. Phi is piecewise constant, so a bin is a step: its median, its
16-84 % and its 95 % interval. A bin without stars has an upper limit (97.7 %), drawn as an arrow. Reference functions
are averaged over the same bins and scaled to the panel's number of stars. A continuous function comes in fine bins,
`cells` to a bin: it is a curve, and points with errors are the bins' own counts over their volume.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xptools.figures import style

Numbers = dict[str, np.ndarray]
REFERENCES = {  # column -> (label, colour, dashes)
    "log_phi_kroupa": ("Kroupa (2001)", style.BLUE, (0, (4, 1.5))),
    "log_phi_chabrier": ("Chabrier (2003)", style.GREEN, (0, (1, 1.2))),
    "log_phi_salpeter": ("Salpeter (1955)", style.RED, (0, (5, 1.5, 1, 1.5))),
}
BAND, INNER = "#C9DDEE", "#7FAFD4"
OTHERS = (style.ORANGE, style.PURPLE, style.GREEN, style.BLUE)
FIRST = ("median", "68%", "95%", "counts", "truth")  # in the legend; then references and what is compared
REACH = 1.0  # [dex] that other functions may stretch the axis by
NEAR = 2e-3  # bins whose lower edges differ by less are one


def with_references(numbers: Numbers) -> Numbers:
    """The rows with a column per reference: log10 of its bin average, where sum n = sum Phi V dM."""
    from xptools.cores.imf import REFERENCES as KNOWN

    known = ("Kroupa 2001", "Chabrier 2003 single", "Salpeter 1955")
    out = dict(numbers)
    width = numbers["mass_hi"] - numbers["mass_lo"]
    for column, name in zip(REFERENCES, known, strict=True):
        shape = KNOWN[name].integrate(numbers["mass_lo"], numbers["mass_hi"], 0.0) / width
        out[column] = np.full(shape.shape, np.nan)
        for feh in np.unique(numbers["feh_lo"]):
            rows = (numbers["feh_lo"] == feh) & (numbers["veff"] > 0)
            expected = np.sum((shape * numbers["veff"] * width)[rows])
            stars = np.sum(numbers["n"][rows])
            if expected > 0 and stars > 0:
                out[column][rows] = np.log10(shape[rows] * stars / expected)
    return out


def with_others(numbers: Numbers, others: list[Numbers], cells: int = 0) -> Numbers:
    """The rows with a column per other mass function, log_phi_other1 ...: its log Phi in the same bin, else NaN."""
    out = dict(numbers)
    rows = np.arange(len(numbers["mass_lo"]))
    starts = numbers["mass_lo"][rows - rows % cells] if cells else numbers["mass_lo"]
    places = np.stack([numbers["feh_lo"], starts], axis=-1)
    for k, other in enumerate(others, 1):
        apart = np.abs(places[:, None] - np.stack([other["feh_lo"], other["mass_lo"]], axis=-1)[None]).max(axis=-1)
        nearest = apart.argmin(axis=1)
        value = other.get("log_phi_median", other["log_phi"])[nearest]
        seen = other["n"][nearest] > 0 if "n" in other else True
        out[f"log_phi_other{k}"] = np.where((apart.min(axis=1) < NEAR) & seen, value, np.nan)
    return out


def draw(numbers: Numbers, about: dict[str, Any], column: str = "double") -> Any:
    """The panels. Columns: feh_lo, feh_hi, mass_lo, mass_hi, n, log_phi_* and, if known, log_phi_true.

    about["others"]: names of the columns log_phi_other1 ... , dotted lines.
    """
    bins = np.unique(numbers["feh_lo"])
    across = 2 if column == "double" and bins.size > 1 else 1
    down = -(-bins.size // across)
    figure = style.canvas(column, 18 + 58 * down)
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for axes, feh in zip(grid.flat, bins, strict=False):
        axes.set_xscale("log")
        _panel(axes, {k: v[numbers["feh_lo"] == feh] for k, v in numbers.items()}, about)
    for axes in list(grid.flat)[bins.size :]:
        axes.set_visible(False)
    _scales(grid, numbers, bool(about.get("cells")))
    figure.supxlabel(about.get("x_label", style.label("mass", "solMass")), fontsize=9)
    figure.supylabel(about.get("y_label", r"$\log_{10}\,\Phi\ [{\rm kpc}^{-3}\,M_\odot^{-1}]$"), fontsize=9)
    handles = {t: h for axes in grid.flat for h, t in zip(*axes.get_legend_handles_labels(), strict=True)}
    handles = {t: handles[t] for t in sorted(handles, key=lambda t: FIRST.index(t) if t in FIRST else len(FIRST))}
    wide = 8 if column == "double" else 3
    figure.legend(handles.values(), handles, loc="outside upper center", ncols=wide, handlelength=2.2)
    return figure


def _curve(axes: Any, rows: Numbers, cells: int) -> None:
    """A continuous function in its bands, and the bins' counts over their volume with Poisson errors."""
    m = rows["mass"]
    for end, colour, name in (("95", BAND, "95%"), ("", INNER, "68%")):
        bottom, top = rows[f"log_phi_lo{end}"], rows[f"log_phi_hi{end}"]
        axes.fill_between(m, bottom, top, color=colour, lw=0, zorder=2, label=name)
    axes.plot(m, rows.get("log_phi_median", rows["log_phi"]), color=style.BLACK, lw=1.1, zorder=4, label="median")
    n, volume, mass = _binned(rows, cells)
    seen = (n > 0) & (volume > 0)
    y, error = np.log10(n[seen] / volume[seen]), 1.0 / (np.sqrt(n[seen]) * np.log(10.0))
    look = {"fmt": "o", "ms": 2.5, "color": style.GREY, "elinewidth": 0.8}
    axes.errorbar(mass[seen], y, yerr=error, zorder=3, label="counts", **look)
    if "log_phi_true" in rows:
        axes.plot(m, rows["log_phi_true"], color=style.RED, lw=0.9, zorder=5, label="truth")


def _binned(rows: Numbers, cells: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts, int V dM and centres of the bins that are in `cells` parts."""
    exposure = np.nan_to_num(rows["veff"]) * (rows["mass_hi"] - rows["mass_lo"])
    n, exposure = (v.reshape(-1, cells).sum(axis=1) for v in (rows["n"], exposure))
    return n, exposure, rows["mass"].reshape(-1, cells).mean(axis=1)


def _steps(axes: Any, rows: Numbers) -> None:
    """Phi constant in every bin: steps in their bands, limits where no star is."""
    low, high = rows["mass_lo"], rows["mass_hi"]
    seen = (rows["n"] > 0) & np.isfinite(rows["log_phi_lo"])
    for end, colour, name in (("95", BAND, "95%"), ("", INNER, "68%")):
        bottom, top = rows[f"log_phi_lo{end}"][seen], rows[f"log_phi_hi{end}"][seen]
        width = (high - low)[seen]
        axes.bar(low[seen], top - bottom, width, bottom, align="edge", color=colour, lw=0, zorder=2, label=name)
    middle = rows.get("log_phi_median", rows["log_phi"])
    axes.hlines(middle[seen], low[seen], high[seen], color=style.BLACK, lw=1.1, zorder=4, label="median")
    _limits(axes, rows, ~seen & np.isfinite(rows["log_phi_hi95"]))
    if "log_phi_true" in rows and np.isfinite(rows["log_phi_true"]).any():
        axes.plot(rows["mass"], rows["log_phi_true"], ls="", zorder=5, label="truth", **style.TRUTH)


def _unseen(axes: Any, rows: Numbers) -> None:
    """Masses at which no star can be in the sample, shaded."""
    empty = np.concatenate([[False], ~(rows["veff"] > 0), [False]])
    edges = np.append(rows["mass_lo"], rows["mass_hi"][-1])
    for first, last in np.flatnonzero(empty[1:] != empty[:-1]).reshape(-1, 2):
        axes.axvspan(edges[first], edges[last], color="#EEEEEE", lw=0, zorder=0, label="not seen")


def _panel(axes: Any, rows: Numbers, about: dict[str, Any]) -> None:
    cells = about.get("cells", 0)
    _unseen(axes, rows)
    if cells:
        _curve(axes, rows, cells)
    else:
        _steps(axes, rows)
    for name, (text, colour, dashes) in REFERENCES.items():
        if name in rows and np.isfinite(rows[name]).any():
            axes.plot(rows["mass"], rows[name], color=colour, ls=dashes, lw=0.9, zorder=3, label=text)
    absent = _others(axes, rows, about.get("others", ()))
    n, _, mass = _binned(rows, cells or 1)
    _counts(axes, n, mass)
    words = style.interval(rows["feh_lo"][0], rows["feh_hi"][0])
    axes.text(0.97, 0.96, words, transform=axes.transAxes, ha="right", va="top", fontsize=8.5)
    note = about.get("notes", {}).get(f"{rows['feh_lo'][0]:.6g}")
    notes = "\n".join([*([note] if note else []), *([f"no {', '.join(absent)} here"] if absent else [])])
    if notes:
        axes.text(0.97, 0.88, notes, transform=axes.transAxes, ha="right", va="top", fontsize=7.5, linespacing=1.3)


def _others(axes: Any, rows: Numbers, names: list[str]) -> list[str]:
    """Dotted lines of what is compared; the names of those that have no bin of this panel."""
    absent = []
    for k, (name, colour) in enumerate(zip(names, OTHERS, strict=False), 1):
        value = rows[f"log_phi_other{k}"]
        if np.isfinite(value).any():
            axes.plot(rows["mass"], value, color=colour, ls=(0, (1, 1.2)), lw=1.4, zorder=3, label=name)
        else:
            absent.append(name)
    return absent


def _limits(axes: Any, rows: Numbers, empty: np.ndarray) -> None:
    centre, top = rows["mass"][empty], rows["log_phi_hi95"][empty]
    axes.errorbar(centre, top, yerr=0.35, uplims=True, ls="", color=style.GREY, elinewidth=0.9, capsize=2, zorder=4)
    axes.hlines(top, rows["mass_lo"][empty], rows["mass_hi"][empty], color=style.GREY, lw=0.9, zorder=4)


def _counts(axes: Any, n: np.ndarray, mass: np.ndarray) -> None:
    """The number of stars in each bin, on the top axis."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    top = axes.secondary_xaxis("top")
    top.xaxis.set_major_locator(FixedLocator(mass))
    top.xaxis.set_major_formatter(FixedFormatter([f"{int(stars)}" for stars in n]))
    top.xaxis.set_minor_locator(NullLocator())
    axes.annotate("N", (0, 1), (-3, 4), xycoords="axes fraction", textcoords="offset points", ha="right", fontsize=7)
    top.tick_params(axis="x", which="major", length=2, pad=1.5, labelrotation=90, labelsize=6)


def _scales(grid: Any, numbers: Numbers, curve: bool) -> None:
    from matplotlib.ticker import FixedLocator, NullFormatter, ScalarFormatter

    low, high = numbers["mass_lo"].min(), numbers["mass_hi"].max()
    top = numbers["log_phi_hi95"][np.isfinite(numbers["log_phi_hi95"])]
    lowest = np.maximum(numbers["log_phi_lo95"], numbers["log_phi_lo"] - 0.8)
    bottom = np.where((numbers["n"] > 0) | curve, lowest, numbers["log_phi_hi95"] - 0.5)
    bottom = bottom[np.isfinite(bottom)]
    if bottom.size and top.size:
        others = [v[np.isfinite(v)] for k, v in numbers.items() if k.startswith(("log_phi_true", "log_phi_other"))]
        others = np.clip(np.concatenate([[], *others]), bottom.min() - REACH, top.max() + REACH)
        bottom, top = np.append(bottom, others), np.append(top, others)
    round_masses = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 2.0, 5.0)
    ticks = [t for t in round_masses if low * 0.97 <= t <= high * 1.03]
    for axes in grid.flat:
        axes.set_xlim(low * 0.95, high * 1.05)
        axes.tick_params(axis="x", which="both", top=False)
        axes.xaxis.set_major_locator(FixedLocator(ticks))
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        if bottom.size and top.size:
            axes.set_ylim(bottom.min() - 0.2, top.max() + 0.9)
