"""From tables with XP spectra to the numbers of `xp plot xp`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from xptools.columns import Column
from xptools.commands._plot_input import found
from xptools.commands._spectra_input import spread, whole, with_arrays
from xptools.errors import DataError, MissingColumns, UsageError
from xptools.protocol import spelled

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import pyarrow as pa

    Numbers = dict[str, np.ndarray]

UNIT = 1e-18
MOST, MOST_SAMPLE = 12, 200_000
NORM = 700.0  # [nm] where the spectra of a sample are one
BINS = 7
MAGNITUDES = ("phot_{}_mean_mag", "syn_{}")


def _number(text: str, ucd: str = "stat.value", unit: str | None = None) -> Column:
    return Column("float64", unit, ucd, text)


COLUMNS = {
    "source_id": Column("int64", None, "meta.id", "The star, or its row where the table has no source_id"),
    "part": Column("string", None, "meta.code.class", "Band: bp or rp"),
    "table": Column("string", None, "meta.code.class", "table or background"),
    "bin": Column("int64", None, "meta.number", "Bin of colour"),
    "lo": _number("Lower edge of the bin", "stat.min"),
    "hi": _number("Upper edge of the bin", "stat.max"),
    "n": Column("int64", None, "meta.number", "Stars in the bin"),
    "x": _number("Wavelength [nm], index of the coefficient, or magnitude"),
    "y": _number("Flux [1e-18 W m^-2 nm^-1] or ratio"),
    "y_lo": _number("Lower end of the 68 % interval of y", "stat.min"),
    "y_hi": _number("Upper end of the 68 % interval of y", "stat.max"),
    "model": _number("The model's flux [1e-18 W m^-2 nm^-1]", "stat.fit"),
    "residual": _number("(y - model) over the error", "stat.fit.residual"),
}


def picked(ids: str) -> tuple[int, ...]:
    """The identifiers of --ids."""
    try:
        return tuple(int(word) for word in ids.split(",")) if ids else ()
    except ValueError:
        raise UsageError(f"--ids {ids!r} is no list of source_id. TRY: --ids 123,456") from None


def star_numbers(path: str, stars: int, ids: tuple[int, ...], model: str) -> tuple[Numbers, dict[str, Any], pa.Schema]:
    """Points of each star's spectrum: from flux (or flux10) and its error, as `xp calibrate` writes them."""
    import numpy as np

    rows, source, stem = [], None, "flux"
    for schema, grid, names, arrays in _spectra(path, (model,) if model else ()):
        source, stem = schema, names["stem"]
        for n in _chosen(arrays["source_id"], stars - len(rows), ids):
            flux = arrays[stem][n] / UNIT
            error = arrays["error"][n] / UNIT if "error" in arrays else np.full(len(grid), np.nan)
            other = arrays[model][n] / UNIT if model else np.full(len(grid), np.nan)
            rows.append((arrays["source_id"][n], grid, flux, flux - error, flux + error, other, (flux - other) / error))
        if len(rows) >= stars:
            break
    if not rows:
        raise DataError("none of the stars asked for is in the table. TRY: --ids of its source_id, or none")
    named = ("source_id", "x", "y", "y_lo", "y_hi", "model", "residual")
    size = len(rows[0][1])
    numbers = {name: np.concatenate([np.broadcast_to(row[i], size) for row in rows]) for i, name in enumerate(named)}
    at = " at 10 pc" if stem == "flux10" else ""
    from xptools.figures.xp import FLUX

    return numbers, {"y_label": FLUX.replace(" [", f"{at} ["), "named": bool(spelled(source, "source_id"))}, source


def coefficient_numbers(path: str, stars: int, ids: tuple[int, ...]) -> tuple[Numbers, dict[str, Any], pa.Schema]:
    """Coefficients and errors of each star over the norm of its coefficients, by band."""
    import numpy as np

    wanted = [f"{b}_{k}" for b in ("bp", "rp") for k in ("coefficients", "coefficient_errors")]
    blocks, seen, source = [], 0, None
    for schema, arrays in _batches(path, tuple(wanted)):
        source = schema
        places = _chosen(arrays["source_id"], stars - seen, ids)
        for n in places:
            for band in ("bp", "rp"):
                c, e = arrays[f"{band}_coefficients"][n], arrays[f"{band}_coefficient_errors"][n]
                size, K = np.sqrt(np.sum(c**2)), len(c)
                blocks.append({
                    "source_id": np.full(K, arrays["source_id"][n]), "part": np.full(K, band), "x": np.arange(K) * 1.0,
                    "y": c / size, "y_lo": (c - e) / size, "y_hi": (c + e) / size,
                })  # fmt: skip
        seen += len(places)
        if seen >= stars:
            break
    if not blocks:
        raise DataError("none of the stars asked for is in the table. TRY: --ids of its source_id, or none")
    numbers = {name: np.concatenate([b[name] for b in blocks]) for name in blocks[0]}
    return numbers, {"named": bool(spelled(source, "source_id"))}, source


def sample_numbers(path: str) -> tuple[Numbers, dict[str, Any], pa.Schema]:
    """Median spectra in bins of colour with equal numbers of stars, each spectrum over its flux near 700 nm."""
    import numpy as np

    spectra, colours, by = [], [], ""
    source, wavelength = None, np.empty(0)
    for schema, grid, names, arrays in _spectra(path, ("bp_rp", "syn_bp", "syn_rp"), optional=True):
        source, wavelength = schema, grid
        if "bp_rp" in arrays:
            by, colour = "bp_rp", arrays["bp_rp"]
        elif "syn_bp" in arrays and "syn_rp" in arrays:
            by, colour = "syn_bp_rp", arrays["syn_bp"] - arrays["syn_rp"]
        else:
            raise MissingColumns("plot", ("bp_rp",), tuple(schema.names))
        spectra.append(arrays[names["stem"]])
        colours.append(np.asarray(colour, np.float64))
        if sum(map(len, colours)) >= MOST_SAMPLE:
            break
    if not spectra:
        raise DataError(f"{path} has no rows. TRY: xp info {path}")
    flux, colour = np.concatenate(spectra), np.concatenate(colours)
    at = int(np.abs(wavelength - NORM).argmin())
    good = np.isfinite(colour) & np.isfinite(flux).all(axis=1) & (flux[:, at] > 0)
    if not good.any():
        raise DataError("no star of the table has a whole spectrum and a colour. TRY: xp info --stats")
    flux, colour = flux[good] / flux[good][:, at : at + 1], colour[good]
    edges = np.quantile(colour, np.linspace(0, 1, min(BINS, len(colour)) + 1))
    k = np.clip(np.searchsorted(edges, colour, "right") - 1, 0, len(edges) - 2)
    blocks = []
    for i in np.unique(k):
        lo, middle, hi = np.percentile(flux[k == i], [16, 50, 84], axis=0)
        each = {"bin": i, "lo": edges[i], "hi": edges[i + 1], "n": (k == i).sum(), "x": wavelength, "y": middle}
        each |= {"y_lo": lo, "y_hi": hi}
        blocks.append({name: np.broadcast_to(v, wavelength.shape) for name, v in each.items()})
    numbers = {name: np.concatenate([b[name] for b in blocks]) for name in blocks[0]}
    return numbers, {"by": by, "at": float(wavelength[at])}, source


def error_numbers(path: str, background: str | None) -> tuple[Numbers, dict[str, Any], pa.Schema]:
    """|errors| over |coefficients| of each star against its magnitude in the band, of one or two tables."""
    import numpy as np

    wanted = tuple(f"{b}_{k}" for b in ("bp", "rp") for k in ("coefficients", "coefficient_errors"))
    blocks, about, first = [], {}, None
    for table, file in (("table", path), *((("background", background),) if background else ())):
        about[table] = file.rpartition("/")[2].partition(".")[0] if file != "-" else "stars"
        for schema, arrays in _batches(file, wanted, tuple(m.format(b) for b in ("bp", "rp") for m in MAGNITUDES)):
            first = first or schema
            for band in ("bp", "rp"):
                name = next((m.format(band) for m in MAGNITUDES if m.format(band) in arrays), None)
                if name is None:
                    raise MissingColumns("plot", (MAGNITUDES[0].format(band),), tuple(schema.names))
                c, e = arrays[f"{band}_coefficients"], arrays[f"{band}_coefficient_errors"]
                ratio = np.sqrt(np.sum(np.square(e, dtype=float), axis=1) / np.sum(np.square(c, dtype=float), axis=1))
                good = np.isfinite(ratio) & np.isfinite(arrays[name])
                blocks.append({
                    "table": np.full(good.sum(), table), "part": np.full(good.sum(), band),
                    "x": np.asarray(arrays[name], float)[good], "y": ratio[good],
                })  # fmt: skip
    if not any(len(b["x"]) for b in blocks):
        raise DataError("no star has coefficients with errors and a magnitude. TRY: xp info --stats")
    return {name: np.concatenate([b[name] for b in blocks]) for name in blocks[0]}, about, first


def _batches(path: str, needs: tuple[str, ...], wants: tuple[str, ...] = ()) -> Iterator[tuple[pa.Schema, dict]]:
    """(schema, arrays by our names) batch by batch, source_id among them (else the row's number)."""
    import numpy as np

    from xptools import io
    from xptools.protocol import numeric

    start = 0
    with io.open_reader(path) as reader:
        names = spread(reader.schema, found(with_arrays(reader.schema), needs))
        names |= {n: s for n in ("source_id", *wants) if (s := spelled(reader.schema, n))}
        for batch in reader:
            if not batch.num_rows:
                continue
            arrays = {n: numeric(n, batch, s) for n, s in names.items()}
            arrays |= {n: whole(n, arrays) for n in needs}
            arrays.setdefault("source_id", np.arange(start, start + batch.num_rows))
            start += batch.num_rows
            yield reader.schema, arrays


def _spectra(path: str, more: tuple[str, ...], optional: bool = False) -> Iterator[tuple]:
    """(schema, grid [nm], names, arrays) of a table with flux or flux10 as xp calibrate writes them."""
    import numpy as np

    from xptools import io

    with io.open_reader(path) as reader:
        stem = next((n for n in ("flux", "flux10") if spelled(reader.schema, n)), None)
        text = None
        if stem is not None:
            own = reader.schema.field(spelled(reader.schema, stem)).metadata or {}
            text = own.get(b"xp.grid") or (reader.schema.metadata or {}).get(b"xp.grid")
        if stem is None or text is None:
            raise DataError(f"{reader.name} has no flux with its wavelengths. TRY: xp calibrate first")
        names = tuple(reader.schema.names)
    grid = np.array(json.loads(text)["wavelength"])
    has = spelled_in(names, f"{stem}_err")
    needs = (stem, *(() if optional else more))
    for schema, arrays in _batches(path, needs, (f"{stem}_err", *(more if optional else ()))):
        if has:
            arrays["error"] = arrays.pop(f"{stem}_err")
        yield schema, grid, {"stem": stem}, arrays


def spelled_in(names: tuple[str, ...], name: str) -> bool:
    """Whether a name is among others, whatever the case."""
    return name.lower() in (n.lower() for n in names)


def _chosen(source_ids: np.ndarray, left: int, ids: tuple[int, ...]) -> list[int]:
    """Places in a batch of the stars to draw: those listed, or the first ones."""
    if not ids:
        return list(range(min(left, len(source_ids))))
    place = {int(s): n for n, s in enumerate(source_ids)}
    return [place[i] for i in ids if i in place]
