"""Tables for tests: `gallery`, one column of every kind that files hold; `stars`, what the commands read."""

import numpy as np
import pyarrow as pa

from xptools import metadata
from xptools.columns import GAIA, OWN, XP


def field(name: str, kind: pa.DataType, unit: str = "", ucd: str = "", text: str = "") -> pa.Field:
    """A field with its words."""
    words = {"unit": unit, "ucd": ucd, "description": text}
    return pa.field(name, kind, metadata={k: v for k, v in words.items() if v})


def vector(kind: pa.DataType, width: int) -> pa.DataType:
    """The type of an array column."""
    return pa.list_(pa.field("item", kind, nullable=False), width)


def gallery(rows: int = 50, seed: int = 1, nulls: bool = False) -> pa.Table:
    """Every kind of column with units, UCDs and descriptions; with `nulls`, a null in every third row or so."""
    rng = np.random.default_rng(seed)
    texts = np.array(["", "a", "with, comma", 'with "quotes"', "Straße", "α Cen", "x" * 40])
    x = rng.normal(size=rows)
    x[1::7] = np.nan
    values = {
        field("source_id", pa.int64(), "", "meta.id;meta.main", "Identifier"): rng.integers(2**60, 2**62, rows),
        field("ra", pa.float64(), "deg", "pos.eq.ra;meta.main", "Right <ascension> & more"): rng.uniform(0, 360, rows),
        field("pm", pa.float64(), "mas.yr**-1", "pos.pm;pos.eq.ra", "Motion"): x,
        field("mag", pa.float32(), "mag", "phot.mag;em.opt", "Magnitude"): x.astype("f4"),
        field("n", pa.int32(), "", "meta.number", "Count"): rng.integers(-(2**31) + 1, 2**31, rows).astype("i4"),
        field("flag", pa.int16(), "", "meta.code.qual", "Bits"): rng.integers(0, 32, rows).astype("i2"),
        field("good", pa.bool_(), "", "meta.code", "Whether"): rng.integers(0, 2, rows).astype(bool),
        field("label", pa.string(), "", "meta.note", "Some text"): texts[rng.integers(0, len(texts), rows)],
    }
    arrays = []
    for f, v in values.items():
        gaps = (np.arange(rows) % 3 == 1) if nulls and f.name != "source_id" else None
        arrays.append(pa.array(v.tolist() if f.type == pa.string() else v, f.type, mask=gaps))
    fields = list(values)
    for name, item, width in (("coef", pa.float32(), 5), ("wide", pa.float64(), 2)):
        fields.append(field(name, vector(item, width), "W.m**-2.nm**-1", "phot.flux.density;em.wl", "Coefficients"))
        flat = pa.array(rng.normal(size=rows * width).astype(item.to_pandas_dtype()))
        arrays.append(pa.FixedSizeListArray.from_arrays(flat, type=fields[-1].type))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def stars(rows: int = 400, seed: int = 7, spectra: bool = False) -> pa.Table:
    """A catalogue with every column that commands know, in reasonable ranges, and two columns nobody knows.

    With `spectra` also coefficients, errors and correlations of XP spectra (12 kB a star).
    """
    rng = np.random.default_rng(seed)
    ranges = {
        "source_id": (2**60, 2**62),
        "ra": (0, 360),
        "dec": (-80, 80),
        "l": (0, 360),
        "b": (-80, 80),
        "ecl_lat": (-80, 80),
        "parallax": (1.0, 20.0),
        "phot_g_mean_mag": (10, 17),
        "phot_bp_mean_mag": (11, 18),
        "phot_rp_mean_mag": (9, 16),
        "bp_rp": (0.8, 2.5),
        "bp_rp0": (0.8, 2.5),
        "mg0": (4, 10),
        "feh": (-2.2, 0.2),
        "mass": (0.16, 0.85),
        "ref_epoch": (2016.0, 2016.0 + 1e-9),
        "phot_bp_rp_excess_factor": (1.1, 1.3),
        "astrometric_params_solved": (31, 32),
        "ruwe": (0.9, 1.1),
        "fidelity_v2": (0.6, 1.0),
        "nu_eff_used_in_astrometry": (1.3, 1.6),
        "pseudocolour": (1.3, 1.6),
    }
    arrays, fields = [], []
    for name, column in {**GAIA, **OWN}.items():
        kind = metadata.arrow_type(column.type)
        lo, hi = ranges.get(name, (0.01, 0.1) if name.endswith(("_error", "_err")) else (10, 1000))
        if pa.types.is_boolean(kind):
            values = rng.integers(0, 2, rows).astype(bool)
        elif pa.types.is_integer(kind):
            values = rng.integers(lo, hi, rows)
        else:
            values = rng.uniform(lo, hi, rows)
        arrays.append(pa.array(values.astype(kind.to_pandas_dtype()), kind))
        fields.append(metadata.field_of(name, column))
    for name, column in XP.items() if spectra else ():
        kind = metadata.arrow_type(column.type)
        fields.append(metadata.field_of(name, column))
        if not pa.types.is_fixed_size_list(kind):
            arrays.append(pa.array(rng.integers(20, 50, rows).astype(kind.to_pandas_dtype()), kind))
            continue
        lo, hi = (-0.01, 0.01) if name.endswith("correlations") else (1, 2) if name.endswith("errors") else (-50, 50)
        flat = rng.uniform(lo, hi, (rows, kind.list_size))
        flat[:, 0] += 3000 * name.endswith("coefficients")
        arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(flat.ravel(), kind.value_type), type=kind))
    arrays += [pa.array([f"star {i}" for i in range(rows)]), pa.array(rng.normal(size=rows))]
    fields += [pa.field("note", pa.string()), field("odd", pa.float64(), "m.s**-1", "phys.veloc", "Nobody's column")]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def exploded(table: pa.Table, names: dict[str, str], first: int = 0) -> pa.Table:
    """Array columns as a column for each number: `names` has column -> stem of its columns, counted from `first`."""
    columns = {n: table[n] for n in table.schema.names if n not in names}
    for name, stem in names.items():
        numbers = np.stack(table[name].to_pylist()).T
        columns |= {f"{stem}_{i}": pa.array(column) for i, column in enumerate(numbers, first)}
    return pa.table(columns)


def same(one: pa.Table, other: pa.Table, words: tuple[str, ...] = ("unit", "ucd", "description")) -> None:
    """Assert equal names, types, words and values; null, NaN and empty text are one, bit for bit otherwise."""
    assert one.schema.names == other.schema.names
    assert one.num_rows == other.num_rows
    for a, b in zip(one.schema, other.schema, strict=True):
        assert plain(a.type) == plain(b.type), a.name
        expected = {k: v for k, v in metadata.words_of(a).items() if k in words}
        assert {k: v for k, v in metadata.words_of(b).items() if k in words} == expected, a.name
        assert listed(one[a.name]) == listed(other[a.name]), a.name


def plain(kind: pa.DataType) -> str:
    """A type's name without the name and nullability of its items."""
    return str(kind).replace(" not null", "").replace("element: ", "item: ")


def listed(column: pa.ChunkedArray) -> list:
    """Python values; NaN, null and empty text alike as None."""

    def cell(v):
        if isinstance(v, list):
            return [cell(x) for x in v]
        return None if v is None or v != v or v == "" else v

    return [cell(v) for v in column.to_pylist()]


def write(table: pa.Table, path, fmt: str | None = None, rows: int = 16):
    """Write a table through xp's own writer, in small batches; gives the path."""
    from xptools.io import open_writer

    writer = open_writer(str(path), table.schema, fmt)
    try:
        for batch in table.to_batches(max_chunksize=rows):
            writer.write(batch)
        writer.close()
    except BaseException:
        writer.abort()
        raise
    return path


def read(path, **options) -> pa.Table:
    """Read a table through xp's own reader."""
    from xptools.io import open_reader

    reader = open_reader(str(path), **options)
    return pa.Table.from_batches(list(reader), reader.schema)
