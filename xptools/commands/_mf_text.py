"""The mass function as text for a terminal."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


def report(table: pa.Table) -> Any:
    """The mass function per [Fe/H] bin, then slopes and mass ratios, for a terminal."""
    from rich.console import Group

    from xptools.metadata import value_of

    about = value_of(table.schema, "xp.mf")
    cells = about.get("cells", 1)
    rows = table.to_pylist()[cells // 2 :: cells]
    parts: list[Any] = []
    for entry in about["feh"]:
        parts.append(_panel([r for r in rows if r["feh_lo"] == entry["feh_lo"]], entry))
    parts += [_overview(about), *_closing(about)]
    return Group(*parts)


def _panel(rows: list[dict], entry: dict) -> Any:
    from rich.table import Table

    title = f"{entry['feh_lo']:g} < [Fe/H] < {entry['feh_hi']:g}   {entry['n']:,} stars"
    drawn = Table(title=title, title_justify="left", box=None, header_style="bold", title_style="bold")
    true = "log_phi_true" in rows[0]
    for name in ("mass [Msun]", "n", "V_eff [kpc3]", "log Phi", "sd", "68 %", *(("truth", "pull") if true else ())):
        drawn.add_column(name, justify="right", no_wrap=True)
    for r in rows:
        span = f"{_number(r['log_phi_lo'], '.2f')} {_number(r['log_phi_hi'], '.2f')}"
        cells = [f"{r['mass_lo']:.3f}-{r['mass_hi']:.3f}", f"{r['n']:,}", f"{r['veff']:.4g}"]
        cells += [_number(r["log_phi"], ".2f"), _number(r["log_phi_sd"], ".3f"), span]
        if true:
            cells += [_number(r["log_phi_true"], ".2f"), _number(r["pull"], "+.1f")]
        drawn.add_row(*cells)
    return drawn


def _overview(about: dict) -> Any:
    from rich.table import Table

    drawn = Table(title="slopes dN/dM ~ M^alpha and mass ratio", title_justify="left", box=None, header_style="bold",
                  title_style="bold")  # fmt: skip
    true = "truth" in about["feh"][0]
    drawn.add_column("[Fe/H]", justify="right")
    for s, (lo, hi) in enumerate(pairwise(about["segments"]), 1):
        for name in (f"alpha{s} ({lo:g}-{hi:g} Msun)", *(("truth",) if true else ())):
            drawn.add_column(name, justify="right")
    for name in ("xi_MR", *(("truth",) if true else ())):
        drawn.add_column(name, justify="right")
    for entry in about["feh"]:
        cells = [f"{entry['feh_lo']:g} ... {entry['feh_hi']:g}"]
        for s, slope in enumerate(entry["slopes"]):
            cells.append(_chosen(slope, about["slope_method"]))
            cells += [_number(entry["truth"]["alpha"][s], "+.2f")] if true else []
        xi = entry["xi"]["value"]
        cells.append(f"{_number(xi['mean'], '.3f')} +- {_number(xi['sd'], '.3f')}")
        cells += [_number(entry["truth"]["xi"], ".3f")] if true else []
        drawn.add_row(*cells)
    return drawn


def _chosen(slope: dict, method: str) -> str:
    found = slope[method]
    value, error = (found["mean"], found["sd"]) if method == "poisson" else (found["alpha"], found["err"])
    return f"{_number(value, '+.2f')} +- {_number(error, '.2f')}"


def _closing(about: dict) -> list[str]:
    known = next(iter(about["feh"]))["references"]
    lines = ["xi_MR of known curves: " + ", ".join(f"{name} {r['xi']:.3f}" for name, r in known.items())]
    if about.get("binaries"):
        lines += _pairs(about)
    c = about.get("convergence")
    if c:
        state = "converged" if not c["trouble"] else "NOT CONVERGED: " + "; ".join(c["trouble"])
        sampler = "HMC" if about["method"] in ("joint", "gp") else "NUTS"
        lines.append(
            f"{sampler} {c['chains']} x {c['draws']}: R-hat <= {c['rhat_max']:.4f}, "
            f"effective draws >= {c['ess_min']:.0f}, {c['divergences']} divergences, E-BFMI {c['bfmi']:.2f}: {state}"
        )
    if about["truth_known"]:
        lines.append(f"pulls: mean {_number(about['pull_mean'], '+.2f')}, sd {_number(about['pull_sd'], '.2f')}")
    return lines


def _pairs(about: dict) -> list[str]:
    """What was done with pairs, and the slopes with companions counted."""
    lines = [f"pairs undone: {about['binaries']}; Phi is that of single stars and primaries. All stars:"]
    for entry in about["feh"]:
        words = ", ".join(f"alpha{s} {_number(a['mean'], '+.2f')} +- {_number(a['sd'], '.2f')}"
                          for s, a in enumerate(entry.get("all_stars", ()), 1))  # fmt: skip
        lines.append(f"  {entry['feh_lo']:g} ... {entry['feh_hi']:g}   {words or 'the same'}")
    return lines


def _number(value: float | None, form: str) -> str:
    return "-" if value is None or value != value else format(value, form)
