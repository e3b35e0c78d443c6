"""What `xp veff` and `xp mf` read besides their rows: density laws, completeness curves and maps, eta completeness."""

from __future__ import annotations

from functools import lru_cache
from math import isfinite
from typing import TYPE_CHECKING, Any

from xptools.errors import DataError, InputError, MissingColumns

if TYPE_CHECKING:
    from xptools.cores.bins import BinTable
    from xptools.cores.sightlines import Completeness

BINS = ("feh_lo", "feh_hi", "mass_lo", "mass_hi", "veff")  # what a table of bins has


def columns_of(
    path: str, needs: tuple[str, ...], wants: tuple[str, ...] = (), maker: str = "veff"
) -> dict[str, Any]:
    """Columns of a small table in any format xp reads, as arrays; DataError naming what is missing."""
    from xptools import io
    from xptools.protocol import spelled, to_numpy

    with io.open_reader(path) as reader:
        import pyarrow as pa

        table = pa.Table.from_batches(list(reader), reader.schema)
    found = {name: s for name in (*needs, *wants) if (s := spelled(table.schema, name))}
    missing = tuple(name for name in needs if name not in found)
    if missing:
        raise MissingColumns(f"{maker} ({path})", missing, tuple(table.schema.names))
    return {name: to_numpy(table.column(s), name) for name, s in found.items()}


def law_of(path: str, feh: float):
    """The density law of a TOML file: [[component]] tables with weight, h_r, h_z or slope, q, and perhaps feh."""
    import tomllib

    from xptools.cores.galaxy import Mixture

    try:
        with open(path, "rb") as stream:
            parts = tomllib.load(stream).get("component", [])
    except OSError as fault:
        raise InputError(f"cannot read the density law: {fault.strerror}. {path}. TRY: ls {path}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise DataError(f"the density law is not TOML: {fault}. {path}. TRY: xp help veff") from None
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise DataError(f"the density law is no list of components. {path}. TRY: [[component]], as in xp help veff")
    found = [_component(part, path) for part in parts]
    laws = [(weight, law) for weight, law, (lo, hi) in found if lo <= feh < hi]
    if not laws:
        raise DataError(f"the density law has no component for [Fe/H] = {feh:.2f}. {path}. TRY: xp help veff")
    return Mixture(tuple(laws))


def _component(part: dict[str, Any], path: str):
    """(weight, law, (lowest, highest [Fe/H])) of a component; DataError for what is no law."""
    from xptools.cores.galaxy import Disc, Halo

    own = {k: v for k, v in part.items() if k not in ("weight", "feh", "name")}
    try:
        lo, hi = (float(x) for x in part.get("feh", (-99.0, 99.0)))
        weight, sizes = float(part.get("weight", 1.0)), {k: float(x) for k, x in own.items()}
        law = (Disc if "h_z" in part else Halo)(**sizes)
    except (TypeError, ValueError):
        words = f"the density law has a component with {', '.join(sorted(part)) or 'nothing'}"
        cure = "h_r and h_z, or slope and q, each a number; feh = [LO, HI]"
        raise DataError(f"{words}. {path}. TRY: {cure}") from None
    if not all(isfinite(x) and (x > 0 or k == "slope") for k, x in {**sizes, "weight": weight}.items()):
        raise DataError(f"weights and lengths of the density law must be above 0. {path}. TRY: xp help veff")
    return weight, law, (lo, hi)


def completeness_of(path: str) -> Completeness:
    """A curve (columns g, completeness) or map (healpix, g, completeness and perhaps bp_rp); every combination once."""
    import numpy as np

    from xptools.cores.sightlines import Completeness

    c = columns_of(path, ("g", "completeness"), ("healpix", "bp_rp"))
    value = c["completeness"].astype(float)
    if not len(value) or not np.all(np.isfinite(c["g"])):
        raise DataError(f"the completeness has no rows, or a magnitude that is no number. {path}. TRY: xp info {path}")
    if not np.all((value >= 0) & (value <= 1)):
        raise DataError(f"completeness must lie between 0 and 1. {path}. TRY: xp info {path}")
    g, at_g = np.unique(c["g"].astype(float), return_inverse=True)
    colour, at_colour = np.unique(c.get("bp_rp", np.zeros(len(value))).astype(float), return_inverse=True)
    pixel, order = np.zeros(len(value), np.int64), -1
    if "healpix" in c:
        pixel = c["healpix"].astype(np.int64)
        order = max(int(np.log2((pixel.max() + 1) / 12) / 2 + 0.5), 0)
    pixels = 12 * 4**order if order >= 0 else 1
    table = np.full((pixels, len(colour), len(g)), np.nan)
    if pixel.min() < 0 or pixel.max() >= pixels or len(value) != table.size:
        wanted = f"{pixels} pixels x {len(colour)} colours x {len(g)} magnitudes = {table.size} rows, not {len(value)}"
        raise DataError(f"the completeness map is not a full grid: {wanted}. {path}. TRY: nested pixels from 0 up")
    table[pixel, at_colour, at_g] = value
    if np.isnan(table).any():
        raise DataError(f"the completeness map names some cells twice and others never. {path}. TRY: xp info {path}")
    return Completeness(g, table, colour, order)


def eta_factors(path: str, feh_edges: tuple[float, ...], mass_edges: tuple[float, ...]):
    """Share of stars that pass the eta cut, and its relative error (B, K): by [Fe/H], or by mass and [Fe/H]."""
    import numpy as np

    shape = (len(feh_edges) - 1, len(mass_edges) - 1)
    if not path:
        return np.ones(shape), np.zeros(shape)
    own = ("mass_lo", "mass_hi", "completeness_err")
    c = columns_of(path, ("feh_lo", "feh_hi", "completeness"), own)
    n = len(c["completeness"])
    mass_lo, mass_hi = c.get("mass_lo", np.zeros(n)), c.get("mass_hi", np.full(n, np.inf))
    factor, error = np.full(shape, np.nan), np.zeros(shape)
    feh, mass = (0.5 * (np.array(e[1:]) + np.array(e[:-1])) for e in (feh_edges, mass_edges))
    for i in range(n):
        rows = (feh >= c["feh_lo"][i]) & (feh < c["feh_hi"][i])
        cell = np.ix_(rows, (mass >= mass_lo[i]) & (mass < mass_hi[i]))
        factor[cell] = c["completeness"][i]
        error[cell] = c["completeness_err"][i] / c["completeness"][i] if "completeness_err" in c else 0.0
    if not np.all((factor > 0) & (factor <= 1)):
        b, k = np.argwhere(~((factor > 0) & (factor <= 1)))[0]
        where = f"[Fe/H] = {feh[b]:.2f}, mass {mass[k]:.3f}: {factor[b, k]:g}"
        words = "the eta completeness must lie above 0 and at most 1 in every bin"
        raise DataError(f"{words}. {path}, {where}. TRY: a row for every bin")
    return factor, error


def stated(path: str) -> dict[str, Any] | None:
    """What the file says of its volumes in its metadata (key xp.veff), if it does."""
    from xptools import metadata

    return metadata.value_of(_schema(path), "xp.veff")


def _schema(path: str):
    from xptools import io

    with io.open_reader(path) as reader:
        return reader.schema


@lru_cache(maxsize=4)
def bin_table(path: str) -> BinTable:
    """The table of bins of a file that `xp veff --table` wrote, by its rows: they may have been changed.

    Its metadata tell how V runs inside a bin; without them (CSV), V is constant there. A file of stars that xp veff
    wrote has the table in its metadata alone.
    """
    import numpy as np

    from xptools.cores.bins import POINTS, BinTable, rounded
    from xptools.protocol import spelled

    said, schema = stated(path), _schema(path)
    if said is not None and not all(spelled(schema, name) for name in BINS):
        return BinTable.from_dict(said)
    c = columns_of(path, BINS, ("veff_err",))
    feh, mass = (np.unique(np.concatenate([c[f"{name}_lo"], c[f"{name}_hi"]])) for name in ("feh", "mass"))
    shape = (len(feh) - 1, len(mass) - 1)
    b, k = np.searchsorted(feh, c["feh_lo"]), np.searchsorted(mass, c["mass_lo"])
    complete = len(b) == shape[0] * shape[1] == len(set(zip(b.tolist(), k.tolist(), strict=True)))
    if not complete or not (np.array_equal(feh[b + 1], c["feh_hi"]) and np.array_equal(mass[k + 1], c["mass_hi"])):
        raise DataError(f"the table of effective volumes is not a full grid of bins. {path}. TRY: xp veff --table")
    veff, error = np.zeros(shape), np.zeros(shape)
    veff[b, k] = rounded(c["veff"])
    error[b, k] = rounded(c.get("veff_err", np.zeros(len(b))))
    table = BinTable(mass, feh, veff, error, np.repeat(veff[..., None], POINTS, axis=2)).checked()
    return table if said is None else table.shaped_like(BinTable.from_dict(said))
