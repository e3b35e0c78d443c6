"""From scored stars to the numbers of `xp plot eta`."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from xptools.columns import Column
from xptools.commands._plot_cmd import axes, expression_words, parsed, rows_of
from xptools.commands._plot_input import need_input
from xptools.commands._plot_population import VEFF_COLUMNS
from xptools.errors import DataError
from xptools.protocol import spelled

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import pyarrow as pa

    from xptools.cores.expression import Expression

ROWS = 1 << 16
HALO = 2  # true_component
SHARE = "stat.probability"
SHARES = {
    "purity": "Metal-poor stars of those with eta above the threshold",
    "completeness": "Stars with eta above the threshold, of the metal-poor or of the bin",
    "halo_kept": "Halo stars with eta above the threshold, of all halo stars",
}
COLUMNS = {
    "kind": Column("string", None, "meta.code.class", "cell, or median (of a column, with its 68 %)"),
    "x": Column("float64", None, "stat.value", "[Fe/H] [dex], or the colour"),
    "y": Column("float64", None, "stat.value", "eta [dex], or the magnitude"),
    "lo": Column("float64", None, "stat.min", "16 % quantile of eta [dex]"),
    "hi": Column("float64", None, "stat.max", "84 % quantile of eta [dex]"),
    "n": Column("int64", None, "meta.number", "Stars; of a threshold: stars above it"),
    "density": Column("float64", None, "stat.probability", "n over the largest n of its column"),
    "eta": Column("float64", None, "stat.likelihood", "Mean eta of the cell [dex]"),
    "threshold": Column("float64", None, "stat.likelihood", "Threshold of eta [dex]"),
    "n_poor": Column("int64", None, "meta.number", "Metal-poor stars above the threshold"),
    "kept": Column("int64", None, "meta.number", "Stars above the threshold"),
    **{name: Column("float64", None, SHARE, text) for name, text in SHARES.items()},
    **{f"{name}_err": Column("float64", None, "stat.error", f"Standard error of {name}") for name in SHARES},
    **{name: VEFF_COLUMNS[name] for name in ("feh_lo", "feh_hi", "mass_lo", "mass_hi")},
}
Counted = tuple[dict[str, "np.ndarray"], dict[str, Any], "pa.Schema"]


class Stars:
    """A table of stars with eta, read once: a column or expression for each role."""

    def __init__(self, path: str):
        from xptools import io

        need_input(path)
        self.path, self.reader = path, io.open_reader(path, None, ROWS)
        self.schema = self.reader.schema

    def first(self, *names: str) -> str | None:
        """The first of these columns that is there."""
        return next((n for n in names if spelled(self.schema, n)), None)

    def rows(self, *texts: str) -> Iterator[tuple[np.ndarray, ...]]:
        """The values of these expressions, batch by batch; DataError if there is no star at all."""
        expressions: tuple[Expression, ...] = tuple(parsed(text) for text in texts)
        rows = 0
        with closing(self.reader):
            for values in rows_of(self.reader, expressions):
                rows += len(values[0])
                yield values
        if not rows:
            raise DataError(f"no row in {self.path}. TRY: xp info {self.path}")


def validation(stars: Stars, feh: str | None) -> Counted:
    """Density in ([Fe/H], eta), each column of [Fe/H] to its own scale (Li+ 2026 Fig. 6)."""
    from xptools.cores.eta_counts import Density

    name = feh or stars.first("true_feh", "feh") or "feh"
    tally = Density()
    for truth, eta in stars.rows(name, "eta"):
        tally.add(truth, eta)
    if not tally.counts.any():
        raise DataError(f"no row of {stars.path} has both {name} and eta. TRY: xp eta first, or --feh NAME")
    about = {"x_label": _metallicity(name), "rows": tally.rows, "drawn": int(tally.counts.sum())}
    return tally.numbers(), about, stars.schema


def thresholds(stars: Stars, feh: str | None, mass: str | None, edges: np.ndarray, split: float) -> Counted:
    """Purity and completeness against the threshold, of all stars and by mass."""
    import numpy as np

    from xptools.cores.eta_counts import Thresholds

    truth, mass = feh or stars.first("true_feh", "feh") or "feh", mass or stars.first("true_mass", "mass")
    halo = stars.first("true_component")
    tally = Thresholds(edges if mass else edges[:1])
    for eta, values, *more in stars.rows("eta", truth, *(name for name in (mass, halo) if name)):
        of_halo = more[-1] == HALO if halo else np.zeros(len(eta), bool)
        tally.add(eta, values < split, of_halo, more[0] if mass else None)
    numbers = tally.numbers(np.arange(-1.5, 3.001, 0.05))
    if halo is None:
        del numbers["halo_kept"], numbers["halo_kept_err"]
    return numbers, {"split": split, "truth": _metallicity(truth)}, stars.schema


def completeness(stars: Stars, feh, mass, mass_edges, feh_edges, threshold: float) -> Counted:
    """Share kept by [Fe/H] and mass bin: what xp veff --eta-completeness reads."""
    from xptools.cores.eta_counts import Completeness

    truth, mass = feh or stars.first("true_feh", "feh") or "feh", mass or stars.first("true_mass", "mass") or "mass"
    tally = Completeness(feh_edges, mass_edges)
    for eta, values, masses in stars.rows("eta", truth, mass):
        tally.add(eta > threshold, values, masses)
    if not tally.counts.any():
        raise DataError(f"no row of {stars.path} is inside the bins. TRY: --mass-edges and --feh-edges")
    return tally.numbers(), {"threshold": threshold}, stars.schema


def diagram(stars: Stars, cell: tuple[float, float]) -> Counted:
    """Mean eta of the cells of the colour-magnitude diagram (Li+ 2026 Fig. 1)."""
    import numpy as np

    x, y = axes(stars.schema, None, None)
    sums: dict[tuple[int, int], np.ndarray] = {}
    for colour, magnitude, eta in stars.rows(x, y, "eta"):
        known = np.isfinite(colour) & np.isfinite(magnitude) & np.isfinite(eta)
        places = np.floor(np.stack([colour, magnitude], -1)[known] / cell).astype(np.int64)
        own, at = np.unique(places, axis=0, return_inverse=True)
        more = np.stack([np.bincount(at.ravel()), np.bincount(at.ravel(), eta[known])], -1)
        for key, value in zip(map(tuple, own.tolist()), more, strict=True):
            sums[key] = sums.get(key, 0.0) + value
    if not sums:
        raise DataError(f"no row of {stars.path} has {x}, {y} and eta. TRY: xp eta first")
    order = sorted(sums)
    place, value = np.array(order), np.array([sums[k] for k in order])
    numbers = {"x": (place[:, 0] + 0.5) * cell[0], "y": (place[:, 1] + 0.5) * cell[1],
               "n": value[:, 0].astype(np.int64), "eta": value[:, 1] / value[:, 0]}  # fmt: skip
    words = {f"{axis}_label": expression_words(stars.schema, text)["label"] for axis, text in (("x", x), ("y", y))}
    return numbers, words | {"dx": cell[0], "dy": cell[1], "drawn": int(numbers["n"].sum())}, stars.schema


def _metallicity(name: str) -> str:
    known = {"true_feh": "True [Fe/H]", "feh": "[Fe/H]", "moh_xp": "[M/H] of AspGap", "fe_h": "[Fe/H] of ASPCAP"}
    return known.get(name, name)
