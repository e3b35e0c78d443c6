"""Named selections of training stars: which rows of a table of reference labels to trust.

`aspcap`, of `xp train feh`: Li+ 2026 Table 3 for the ASPCAP labels of SDSS-V's astra: dwarfs, small errors, no flags,
parallax and colour known, single (where columns tell), nearly free of dust (where columns tell).
`aspgap`, of `xp train eta`: Li+ 2026 Table 2 for giants of the AspGap catalogue: small errors of the labels, good
spectra, good astrometry. Spellings are the catalogue's first, then those of `xp mock`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Rule(NamedTuple):
    """One cut: its words, the columns it needs (any of several spellings each), the test; `must` if it may not miss."""

    text: str
    columns: tuple[tuple[str, ...], ...]
    test: Callable[..., np.ndarray]
    must: bool = True


PARALLAX, ERROR = ("parallax", "plx"), ("parallax_error", "e_plx")
ASPCAP = (
    Rule("log g > 4", (("logg",),), lambda g: g > 4),
    Rule("error of [Fe/H] < 0.1", (("e_fe_h",),), lambda e: e < 0.1),
    Rule("error of Teff < 100 K", (("e_teff",),), lambda e: e < 100),
    Rule("parallax over error > 5", (PARALLAX, ERROR), lambda p, e: p / e > 5),
    Rule("flag_warn = flag_bad = 0", (("flag_warn",), ("flag_bad",)), lambda w, b: (w == 0) & (b == 0)),
    Rule("error of radial velocity < 1 km/s", (("e_v_rad",),), lambda e: e < 1),
    Rule("scatter of radial velocity < 1 km/s", (("std_v_rad",),), lambda s: s < 1, must=False),
    Rule("0 < BP - RP < 4", (("bp_mag", "phot_bp_mean_mag"), ("rp_mag", "phot_rp_mean_mag")),
         lambda b, r: (b - r > 0) & (b - r < 4)),
    Rule("chi2 - chi2_binary < 1", (("chi2",), ("chi2_binary",)), lambda s, b: s - b < 1, must=False),
    Rule("A_G < 0.1", (("ag",),), lambda a: a < 0.1, must=False),
)  # fmt: skip
ASPGAP = (
    Rule("error of [Fe/H] < 0.1", (("e_moh_xp", "feh_err"),), lambda e: e < 0.1),
    Rule("error of Teff < 50 K", (("e_teff_xp", "teff_err"),), lambda e: e < 50),
    Rule("error of log g < 0.1", (("e_logg_xp", "logg_err"),), lambda e: e < 0.1),
    Rule("RP flux over error > 50", (("phot_rp_mean_flux_over_error",),), lambda s: s > 50),
    Rule("RUWE < 1.4", (("ruwe",),), lambda r: r < 1.4),
    Rule("parallax over error > 10", (PARALLAX, ERROR), lambda p, e: p / e > 10),
)
SELECTIONS = {"aspcap": ASPCAP, "aspgap": ASPGAP}


def wanted(name: str) -> tuple[str, ...]:
    """Every column that the selection may look at."""
    return tuple(dict.fromkeys(c for rule in SELECTIONS[name] for choice in rule.columns for c in choice))


def lacking(name: str, there: set[str]) -> tuple[str, ...]:
    """Columns that the selection cannot do without and that are not there; the first spelling of each."""
    rules = [rule for rule in SELECTIONS[name] if rule.must]
    return tuple(c[0] for rule in rules for c in rule.columns if not there & set(c))


def select(name: str, columns: dict[str, np.ndarray]) -> tuple[np.ndarray, list[tuple[str, int]]]:
    """Rows that pass (N,) bool, and the rows left after each cut; a cut whose columns are absent is left out.

    An unknown value never passes.
    """
    keep = np.ones(len(next(iter(columns.values()))), bool)
    flow = []
    for rule in SELECTIONS[name]:
        found = [next((c for c in choice if columns.get(c) is not None), None) for choice in rule.columns]
        if None in found:
            continue
        with np.errstate(invalid="ignore", divide="ignore"):
            keep &= rule.test(*(np.asarray(columns[c], np.float64) for c in found))
        flow.append((rule.text, int(keep.sum())))
    return keep, flow
