"""The low-mass ratio xi_MR against [Fe/H] (Li+ 2026 Fig. 5), with Kroupa's value and Yan et al.'s curves.

xi_MR = int_0.2^0.5 m xi dm / int_0.2^upper m xi dm. Yan+ 2021: alpha1 = 1.3 + 63 (Z - 0.0142), alpha2 = alpha1 + 1.
Yan+ 2024, as their code pyIGIMF has it: alpha1 = 1.3 + 79.4 (Z - 10^-0.1 x 0.0142); in both Z = 0.0142 10^[M/H].
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xptools.figures import style

Numbers = dict[str, np.ndarray]
Z_SUN = 0.0142
CURVES = {"yan2021": "Yan+ (2021)", "yan2024": "Yan+ (2024)"}


def expected(mh: np.ndarray, law: str, upper: float = 0.7) -> np.ndarray:
    """xi_MR (N,) of an IMF whose low-mass slope follows the metallicity; law is a key of CURVES."""
    from xptools.cores.imf import mass_ratio, power_law

    Z = Z_SUN * 10.0 ** np.asarray(mh, dtype=np.float64)
    shift = 63.0 * (Z - Z_SUN) if law == "yan2021" else 79.4 * (Z - 10**-0.1 * Z_SUN)
    slopes = [(-(1.3 + d), -(2.3 + d)) for d in shift]
    return np.array([mass_ratio(power_law(pair, (0.08, 0.5, 150.0)), upper) for pair in slopes])


def with_curves(numbers: Numbers, laws: tuple[str, ...], upper: float) -> Numbers:
    """The measured rows, then 50 rows per law between the outer [Fe/H] edges: kind is "measured" or the law."""
    rows = numbers["feh"].size
    out = {"kind": np.array(["measured"] * rows, dtype="U9"), **numbers}
    feh = np.linspace(numbers["feh_lo"].min(), numbers["feh_hi"].max(), 50) if rows else np.zeros(0)
    for law in laws:
        more = {"kind": np.full(feh.size, law, dtype="U9"), "feh": feh, "xi": expected(feh, law, upper)}
        blank = np.full(feh.size, np.nan)
        out = {k: np.concatenate([v, more.get(k, blank)]) for k, v in out.items()}
    return out


def draw(numbers: Numbers, about: dict[str, Any], column: str = "single") -> Any:
    """Columns: kind, feh, feh_lo, feh_hi, xi, xi_lo, xi_hi (16-84 %), xi_lo95, xi_hi95 and, if known, xi_true."""
    figure = style.canvas(column, {"single": 70.0, "double": 95.0}[column])
    axes = figure.subplots()
    value, error = about.get("kroupa", (0.67, 0.05))
    axes.axhspan(value - error, value + error, color="#DDDDDD", lw=0, zorder=1)
    axes.axhline(value, color=style.GREY, lw=0.9, ls=(0, (4, 1.5)), zorder=2,
                 label=f"Kroupa, {value:.2f} \u00b1 {error:.2f}")  # fmt: skip
    laws = [law for law in CURVES if (numbers["kind"] == law).any()]
    # both are nearly one line at low [Fe/H], so the second is dashed
    for law, colour, dashes in zip(laws, (style.GREEN, style.ORANGE), ("-", (0, (3, 3))), strict=False):
        rows = numbers["kind"] == law
        axes.plot(numbers["feh"][rows], numbers["xi"][rows], color=colour, ls=dashes, lw=1.3, zorder=3,
                  label=CURVES[law])  # fmt: skip
    rows = numbers["kind"] == "measured"
    one = {k: v[rows] for k, v in numbers.items()}
    if "xi_lo95" in one:
        outer = np.stack([one["xi"] - one["xi_lo95"], one["xi_hi95"] - one["xi"]])
        axes.errorbar(one["feh"], one["xi"], yerr=outer, ls="", color=style.SKY, elinewidth=0.8, zorder=4)
    inner = np.stack([one["xi"] - one["xi_lo"], one["xi_hi"] - one["xi"]])
    width = np.stack([one["feh"] - one["feh_lo"], one["feh_hi"] - one["feh"]])
    axes.errorbar(one["feh"], one["xi"], xerr=width, yerr=inner, ls="", marker="o", ms=4, color=style.BLUE,
                  elinewidth=1.3, zorder=5, label="this sample")  # fmt: skip
    if "xi_true" in one and np.isfinite(one["xi_true"]).any():
        axes.plot(one["feh"], one["xi_true"], ls="", zorder=6, label="truth", **style.TRUTH)
    axes.set(xlabel="[Fe/H]", ylabel=r"$\xi_{\rm MR}$")
    handles, names = axes.get_legend_handles_labels()
    order = sorted(range(len(names)), key=lambda i: names[i] != "this sample")
    axes.legend([handles[i] for i in order], [names[i] for i in order], loc="best", labelspacing=0.3)
    return figure
