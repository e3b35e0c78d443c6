"""XP spectra in every spelling of the archives as one table: source_id and, per band, twelve columns, lists fixed.

A band without a spectrum is a row of NaN, its whole numbers 0. Lists keep the width they came with (55 in DR3, BP 51 in
DR4); a table in which a band is nowhere known gets that of the other band.
"""

import mmap
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import pyarrow as pa

from xptools import metadata
from xptools.archive.wire import Damaged
from xptools.arrays import to_arrow, to_numpy
from xptools.columns import GAIA, XP, Column
from xptools.errors import DataError
from xptools.io.spool import disk, spool
from xptools.io.text import NULLS
from xptools.protocol import spelled

BANDS = ("bp", "rp")
LISTS = ("coefficients", "coefficient_errors", "coefficient_correlations")
ROW_BYTES = {True: 37_000, False: 6_000}  # of text, with and without correlations
NOTHING = {*NULLS, "[]", "()", "{}"}
UNKNOWN = "xp.bands_unknown"  # metadata of a part: bands that no star in it has


def _scalars(tag: str) -> dict[str, Column]:
    band, none = tag.upper(), f"; 0: no {tag.upper()} spectrum"
    return {
        f"{tag}_basis_function_id": Column("int16", None, "meta.id", f"Set of basis functions of the {band} spectrum"),
        f"{tag}_degrees_of_freedom": Column("int16", None, "stat.fit.dof", f"Degrees of freedom of the {band} fit"),
        f"{tag}_n_parameters": Column("int16", None, "meta.number", f"Parameters of the {band} fit{none}"),
        f"{tag}_n_measurements": Column("int16", None, "meta.number", f"{band} measurements used{none}"),
        f"{tag}_n_rejected_measurements": Column("int16", None, "meta.number", f"{band} measurements rejected"),
        f"{tag}_standard_deviation": Column(
            "float32", None, "stat.stdev", f"Standard deviation of the {band} fit, by which the errors are scaled"
        ),
        f"{tag}_chi_squared": Column("float32", None, "stat.fit.chi2", f"Chi squared of the {band} fit"),
        f"{tag}_relative_shrinking": Column(
            "float32", None, "arith.ratio", f"Norm of the {band} coefficients after truncation over that before"
        ),
    }


@lru_cache(maxsize=2)
def columns(correlations: bool = True) -> dict[str, Column]:
    """The columns of a table of spectra, with or without the correlations of the coefficients."""
    found = {"source_id": GAIA["source_id"]}
    for tag in BANDS:
        found |= _scalars(tag) | {k: c for k, c in XP.items() if k.startswith(f"{tag}_")}
    return {k: c for k, c in found.items() if correlations or not k.endswith("_correlations")}


def schema(widths: dict[str, int], correlations: bool = True) -> pa.Schema:
    """The table's schema where a band ("bp", "rp") has that many coefficients."""
    fields = []
    for name, column in columns(correlations).items():
        if "[" in column.type:
            n = widths[name[:2]]
            size = n * (n - 1) // 2 if name.endswith("_correlations") else n
            column = column._replace(type=f"{column.type.split('[')[0]}[{size}]")
        fields.append(metadata.field_of(name, column))
    return pa.schema(fields)


def normal(batches: Iterable[pa.RecordBatch], correlations: bool, where: str) -> pa.Table:
    """Batches from any reader as one table of spectra, sorted by source_id; a star that came twice stands once."""
    tables = [_table(b, correlations, where) for b in batches]
    return together(tables) if tables else empty(correlations)


def kept(batches: Iterable[pa.RecordBatch], correlations: bool, where: str) -> pa.Table:
    """As `normal`, but what is in the table lies in a file without a name, not in memory."""
    count = 0
    with spool() as file:
        for batch in batches:
            table, count = _table(batch, correlations, where), count + 1
            with disk(), pa.ipc.new_stream(file, table.schema) as writer:
                writer.write_table(table)
        if not count:
            return empty(correlations)
        with disk():
            file.flush()
        whole = pa.BufferReader(pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
        return together([pa.ipc.open_stream(whole).read_all() for _ in range(count)])


def empty(correlations: bool = True) -> pa.Table:
    """No spectra."""
    bare = schema(dict.fromkeys(BANDS, 55), correlations)
    return metadata.with_values(bare, {UNKNOWN: list(BANDS)}).empty_table()


def _table(batch: pa.RecordBatch, correlations: bool, where: str) -> pa.Table:
    values = {name: _column(batch, name, where) for name in columns(correlations)}
    lists = {tag: values[f"{tag}_coefficients"] for tag in BANDS}
    unknown = [tag for tag in BANDS if lists[tag] is None]
    known = max((v.shape[1] for v in lists.values() if v is not None), default=55)
    out = schema({tag: known if v is None else v.shape[1] for tag, v in lists.items()}, correlations)
    arrays = [to_arrow(values[f.name], f, batch.num_rows, "fetch") for f in out]
    return pa.Table.from_arrays(arrays, schema=metadata.with_values(out, {UNKNOWN: unknown}))


def widths(schemas: list[pa.Schema]) -> dict[str, int]:
    """Coefficients per band of several tables; DataError if they are of different releases."""
    found: dict[str, int] = {}
    for tag in BANDS:
        name = f"{tag}_coefficients"
        sizes = {s.field(name).type.list_size for s in schemas if tag not in metadata.value_of(s, UNKNOWN)}
        if len(sizes) > 1:
            raise DataError(f"{name} has {min(sizes)} values and {max(sizes)}: two releases. TRY: another --work DIR")
        found[tag] = sizes.pop() if sizes else max(s.field(name).type.list_size for s in schemas)
    return found


def widened(table: pa.Table, sizes: dict[str, int]) -> pa.Table:
    """The table with lists of these widths where it knows none of a band."""
    out = schema(sizes, "bp_coefficient_correlations" in table.schema.names)
    columns = [table[f.name] if table[f.name].type == f.type else to_arrow(None, f, len(table), "fetch") for f in out]
    words = {UNKNOWN: metadata.value_of(table.schema, UNKNOWN)}
    return pa.Table.from_arrays(columns, schema=metadata.with_values(out, words))


def together(tables: list[pa.Table]) -> pa.Table:
    """Tables of spectra as one, ascending in source_id, every star once (the first)."""
    sizes = widths([t.schema for t in tables])
    unknown = [tag for tag in BANDS if all(tag in metadata.value_of(t.schema, UNKNOWN) for t in tables)]
    bare = schema(sizes, "bp_coefficient_correlations" in tables[0].schema.names)
    out = metadata.with_values(bare, {UNKNOWN: unknown})
    whole = pa.concat_tables([widened(t, sizes).replace_schema_metadata(out.metadata) for t in tables])
    ids = whole["source_id"].to_numpy()
    if np.all(ids[1:] > ids[:-1]):
        return whole
    return whole.take(pa.array(np.unique(ids, return_index=True)[1]))


def _column(batch: pa.RecordBatch, name: str, where: str) -> np.ndarray | None:
    """One column of a batch as an array, None for lists of which there is none."""
    spelling = spelled(batch.schema, name)
    if spelling is None:
        raise DataError(f"the spectra lack the column {name}. {where}. TRY: xp info on it, or another service")
    values = _values(batch.column(batch.schema.get_field_index(spelling)), name, where)
    if name.endswith(LISTS):
        return values if values.ndim == 2 and values.shape[1] and np.isfinite(values).any() else None
    if name == "source_id" and values.dtype.kind not in "iu" and len(values):
        raise DataError(f"the identifiers came as {values.dtype}, not as whole numbers. {where}. TRY: another service")
    if pa.types.is_integer(metadata.arrow_type(columns()[name].type)) and name != "source_id":
        # Exports without nulls fill with the type's limits (Flatiron's HDF5).
        known = np.isfinite(values) & (values > -32768) & (values < 32767)
        values = np.where(known, values, 0)
    return values


def _values(column: pa.Array, name: str, where: str) -> np.ndarray:
    if not name.endswith(LISTS):
        return to_numpy(column, name if name == "source_id" else "")
    if pa.types.is_string(column.type):
        kind = np.float64 if name.endswith("_coefficients") else np.float32
        try:
            return numbers(column, kind)
        except DataError as fault:
            raise Damaged(f"column {name}: {fault}. {where}. TRY: fetch it again") from fault
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        import pyarrow.compute as pc

        empty = pc.equal(pc.list_value_length(column), 0)
        column = pc.if_else(empty, pa.scalar(None, column.type), column)
    return to_numpy(column, name)


def numbers(column: pa.Array, kind: type) -> np.ndarray:
    """Texts "(a, b)", "[a,b]" or "{a,b}" as an array (rows, width); a null or empty one is a row of NaN."""
    column = column.slice(0)
    offsets = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1]
    data = column.buffers()[2]
    raw = np.frombuffer(data, np.uint8) if data is not None and data.size else np.zeros(1, np.uint8)
    cells = np.stack([offsets[:-1], offsets[1:]], axis=1).astype(np.int64)
    cells[~column.is_valid().to_numpy(zero_copy_only=False), 1] = 0
    return listed(raw, cells, kind)


def listed(raw: np.ndarray, cells: np.ndarray, kind: type) -> np.ndarray:
    """Lists in brackets at raw[cells[i, 0] : cells[i, 1]] as an array (rows, width), NaN where there is none.

    The width is 0 where there is no list at all. DataError for a cell that is neither a list nor empty.
    """
    from xptools.cores.decimals import parse

    starts, stops = cells[:, 0], cells[:, 1]
    bracket = (stops - starts > 2) & np.isin(raw[np.minimum(starts, len(raw) - 1)], np.frombuffer(b"([{", np.uint8))
    for start, stop in cells[~bracket & (stops > starts)]:
        if raw[start:stop].tobytes().decode("utf-8", "replace") not in NOTHING:
            raise DataError("a cell holds no list")
    values = parse(raw, (starts + 1)[bracket], (stops - 1)[bracket], kind)
    if bracket.all():
        return values
    block = np.full((len(cells), values.shape[1]), np.nan, kind)
    block[bracket] = values
    return block


def among(ids: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Which identifiers are among the wanted ones (ascending), bool (n,)."""
    if len(wanted) == 0:
        return np.zeros(len(ids), bool)
    return wanted[np.minimum(np.searchsorted(wanted, ids), len(wanted) - 1)] == ids
