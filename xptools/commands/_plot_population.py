"""From what `xp veff` and `xp mf` write to the numbers of their figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xptools.columns import Column
from xptools.commands._plot_input import arrays, need_input, small_table
from xptools.errors import DataError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    Numbers = dict[str, np.ndarray]

MF_DRAWN = (
    "feh_lo", "feh_hi", "mass_lo", "mass_hi", "mass", "n", "veff", "log_phi", "log_phi_median", "log_phi_lo",
    "log_phi_hi", "log_phi_lo95", "log_phi_hi95", "log_phi_true",
)  # fmt: skip
VEFF_COLUMNS = {
    "feh_lo": Column("float64", None, "phys.abund.Fe;stat.min", "Lower [Fe/H] edge of the bin [dex]"),
    "feh_hi": Column("float64", None, "phys.abund.Fe;stat.max", "Upper [Fe/H] edge of the bin [dex]"),
    "mass_lo": Column("float64", "solMass", "phys.mass;stat.min", "Lower mass edge of the bin"),
    "mass_hi": Column("float64", "solMass", "phys.mass;stat.max", "Upper mass edge of the bin"),
    "mass": Column("float64", "solMass", "phys.mass", "Centre of the mass bin"),
    "veff": Column("float64", "kpc**3", "phys.volume", "Effective volume averaged over the bin"),
    "veff_err": Column("float64", "kpc**3", "stat.error;phys.volume", "Standard error of veff"),
}


def _ratio(text: str) -> Column:
    return Column("float64", None, "stat.fit.param", text)


XI_COLUMNS = {
    "kind": Column("string", None, "meta.code.class", "measured, or the prediction's name"),
    "feh": Column("float64", None, "phys.abund.Fe", "Centre of the [Fe/H] bin, or [M/H] of the prediction [dex]"),
    "feh_lo": VEFF_COLUMNS["feh_lo"],
    "feh_hi": VEFF_COLUMNS["feh_hi"],
    "xi": _ratio("xi_MR: mass in 0.2-0.5 Msun over mass in 0.2-upper; posterior median"),
    "xi_lo": _ratio("16 % quantile of xi"),
    "xi_hi": _ratio("84 % quantile of xi"),
    "xi_lo95": _ratio("2.3 % quantile of xi"),
    "xi_hi95": _ratio("97.7 % quantile of xi"),
    "xi_true": _ratio("xi_MR of the true mass function"),
}


def mf_numbers(table: pa.Table) -> tuple[Numbers, dict[str, Any]]:
    """The columns that the panels show, and under `notes` each panel's slopes."""
    import numpy as np

    from xptools import metadata
    from xptools.figures import style

    found = arrays(table)
    numbers = {name: found[name] for name in MF_DRAWN if name in found}
    numbers["mass"] = numbers.get("mass", 0.5 * (numbers["mass_lo"] + numbers["mass_hi"]))
    order = np.lexsort((numbers["mass_lo"], numbers["feh_lo"]))
    numbers = {name: values[order] for name, values in numbers.items()}
    said = metadata.value_of(table.schema, "xp.mf") or {}
    recipe = said.get("slope_method", "poisson")
    notes = {f"{e['feh_lo']:.6g}": _slopes(e["slopes"], recipe) for e in said.get("feh", [])}
    unit = metadata.unit_of(table.schema.field("mass_lo")) or "solMass"
    return numbers, {"notes": notes, "x_label": style.label("mass", unit), "cells": said.get("cells", 0)}


def other_functions(compare: tuple[str, ...]) -> dict[str, Numbers]:
    """The mass functions of --compare by name: as said before the =, else the file's name."""
    from pathlib import Path

    if len(compare) > 4:
        raise UsageError(f"--compare is given {len(compare)} times, but a figure shows 4. TRY: fewer")
    out = {}
    for text in compare:
        name, _, path = text.rpartition("=")
        if text.startswith("="):
            raise UsageError(f"--compare {text!r} has no name before the =. TRY: --compare NAME=FILE, or FILE alone")
        table = small_table(path, ("feh_lo", "mass_lo", "log_phi"), "mf")
        name = name or Path(path).stem
        if name in out:
            raise UsageError(f"--compare names two functions {name}. TRY: --compare NAME=FILE with other names")
        out[name] = arrays(table)
    return out


def _slopes(slopes: list[dict[str, Any]], recipe: str) -> str:
    words = []
    for i, slope in enumerate(slopes, 1):
        one = slope.get(recipe) or {}
        value, error = one.get("mean", one.get("alpha")), one.get("sd", one.get("err"))
        if value is not None and error is not None:
            words.append(rf"$\alpha_{i} = {value:.2f} \pm {error:.2f}$")
    return ", ".join(words)


def veff_numbers(path: str) -> tuple[Numbers, pa.Schema]:
    """One row per bin: from the columns of xp veff --table or xp mf, else from the bins in the stream's metadata."""
    import pyarrow as pa

    from xptools import io, metadata

    need_input(path)
    with io.open_reader(path) as reader:
        schema, stated = reader.schema, metadata.value_of(reader.schema, "xp.veff")
        if {"feh_lo", "feh_hi", "mass_lo", "mass_hi", "veff"} <= set(schema.names):
            found = arrays(pa.Table.from_batches(list(reader), schema))
            numbers = {name: found[name] for name in VEFF_COLUMNS if name in found}
            numbers["mass"] = numbers.get("mass", 0.5 * (numbers["mass_lo"] + numbers["mass_hi"]))
        elif stated is not None:
            numbers = _binned(stated)
        else:
            raise DataError(f"{reader.name} has no effective volumes. TRY: xp veff --table -o veff.parquet")
    if not (numbers["veff"] > 0).any():
        raise DataError(f"no bin of {reader.name} has a volume. TRY: xp veff with a fainter --g-limit")
    numbers.setdefault("veff_err", 0 * numbers["veff"])
    return numbers, schema


def _binned(stated: dict[str, Any]) -> Numbers:
    import numpy as np

    from xptools.cores.bins import BinTable

    table = BinTable.from_dict(stated)
    (B, K), m, f = table.veff.shape, table.mass_edges, table.feh_edges
    return {
        "feh_lo": np.repeat(f[:-1], K), "feh_hi": np.repeat(f[1:], K), "mass_lo": np.tile(m[:-1], B),
        "mass_hi": np.tile(m[1:], B), "mass": np.tile(table.centre, B), "veff": table.veff.ravel(),
        "veff_err": table.veff_err.ravel(),
    }  # fmt: skip


def xi_numbers(table: pa.Table) -> tuple[Numbers, dict[str, Any], float]:
    """xi_MR per [Fe/H] bin with its intervals, from the report in the table's metadata; and its upper mass limit."""
    import numpy as np

    from xptools import metadata

    entries = (metadata.value_of(table.schema, "xp.mf") or {}).get("feh", [])
    known = [e for e in entries if e["xi"]["value"]["median"] is not None]
    if not known:
        raise DataError(
            "the table has no xi_MR: it is not what xp mf writes (key xp.mf), or its bins do not reach from 0.2 Msun "
            "to the upper limit. TRY: xp mf again, with wider --mass-edges in xp veff"
        )
    rows = {name: [e[name] for e in known] for name in ("feh", "feh_lo", "feh_hi")}
    for name, key in {"xi": "median", "xi_lo": "lo", "xi_hi": "hi", "xi_lo95": "lo95", "xi_hi95": "hi95"}.items():
        rows[name] = [e["xi"]["value"][key] for e in known]
    if any("truth" in e for e in known):
        rows["xi_true"] = [(e.get("truth") or {}).get("xi") for e in known]
    numbers = {name: np.array(values, dtype=np.float64) for name, values in rows.items()}
    return numbers, {}, float(known[0]["xi"]["upper"])
