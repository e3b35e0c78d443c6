"""Answers for `xp info`: a table's or a model's description as plain dictionaries, and how they read on a terminal."""

import math
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from xptools import io, metadata


class Moments:
    """Count, unknowns, minimum, maximum, mean and standard deviation of a column, batch by batch (Welford, Chan)."""

    def __init__(self):
        self.n, self.unknown, self.low, self.high, self.mean, self.m2 = 0, 0, math.inf, -math.inf, 0.0, 0.0

    def add(self, values: np.ndarray) -> None:
        """Take in numbers; NaN is unknown."""
        values = np.asarray(values).ravel()
        exact = values[np.isfinite(values)]
        self.unknown += values.size - exact.size
        if not exact.size:
            return
        known, new = exact.astype(float), Moments()
        # Extremes in the column's own type: an identifier as float would lose its last digits.
        new.low, new.high, new.n = exact.min().item(), exact.max().item(), known.size
        new.mean, new.m2 = known.mean(), known.var() * known.size
        self.merge(new)

    def merge(self, other: "Moments") -> None:
        """Take in the figures of other numbers."""
        self.unknown += other.unknown
        if not other.n:
            return
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        delta, total = other.mean - self.mean, self.n + other.n
        self.m2 += other.m2 + delta**2 * self.n * other.n / total
        self.mean += delta * other.n / total
        self.n = total

    def answer(self) -> dict[str, float | int | None]:
        """The figures; None where there is no number."""
        if not self.n:
            return {"count": 0, "unknown": self.unknown}
        sd = math.sqrt(self.m2 / (self.n - 1)) if self.n > 1 else None
        return {
            "count": self.n,
            "unknown": self.unknown,
            "min": self.low,
            "max": self.high,
            "mean": self.mean,
            "sd": sd,
        }


def is_model(path: str) -> bool:
    """Whether a path is an xp model file."""
    from xptools.io import sniff

    if path == "-":
        return False
    try:
        with open(path, "rb") as f:
            return sniff.kind(f.read(sniff.HEAD)) == "safetensors"
    except OSError:
        return False  # the reader says why it cannot be opened


def model(path: str) -> dict[str, Any]:
    """A model file's own description of itself."""
    from xptools import artefact

    return {"format": "model", "name": path, **artefact.about(path)}


def table(path: str, rows: int = 0, stats: bool = False) -> dict[str, Any]:
    """Format, rows, columns and history of a table; with `rows` its first rows, with `stats` figures per column."""
    with io.open_reader(path) as reader:
        schema, batches = reader.schema, iter(reader)
        # what a stream hopes to hold is no count, and whether it is whole shows at its end
        count = None if reader.format == "arrows" else reader.rows
        first: list[pa.RecordBatch] = []
        while sum(b.num_rows for b in first) < rows and (batch := next(batches, None)) is not None:
            first.append(batch)
        moments = {f.name: Moments() for f in schema if numeric(f.type)} if stats else {}
        if stats or count is None:
            count = 0
            for batch in chain(first, batches):
                count += batch.num_rows
                for name, m in moments.items():
                    m.add(values_of(batch.column(name), name))
    answer = {
        "format": reader.format,
        "name": reader.name,
        "rows": count,
        "columns": [_column(f, moments.get(f.name)) for f in schema],
        "history": metadata.history(schema),
        "metadata": sorted(
            k.decode() for k in schema.metadata or {} if k not in (metadata.HISTORY, metadata.ROWS_HINT)
        ),
    }
    if rows:
        answer["head"] = [_plain(r) for r in pa.Table.from_batches(first, schema).slice(0, rows).to_pylist()]
    return answer


def numeric(kind: pa.DataType) -> bool:
    """Whether a column has numbers, or arrays of them."""
    kind = kind.value_type if hasattr(kind, "value_type") else kind
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)


def values_of(column: pa.Array, name: str = "") -> np.ndarray:
    """The numbers of a column (N,), of arrays (N, K); null is NaN. DataError for arrays of different lengths."""
    from xptools.protocol import to_numpy

    if pa.types.is_integer(column.type) and column.null_count:
        return column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    kind = column.type
    if hasattr(kind, "value_type") and pa.types.is_boolean(kind.value_type):
        size = kind.list_size if pa.types.is_fixed_size_list(kind) else -1
        column = column.cast(pa.list_(pa.int8(), size))
    return to_numpy(column, name)


def _column(field: pa.Field, moments: Moments | None) -> dict[str, Any]:
    entry = {"name": field.name, "type": _type(field.type), **metadata.words_of(field)}
    return entry | ({"stats": moments.answer()} if moments else {})


def _type(kind: pa.DataType) -> str:
    if pa.types.is_fixed_size_list(kind):
        return f"{_type(kind.value_type)}[{kind.list_size}]"
    return {"float": "float32", "double": "float64"}.get(str(kind), str(kind))


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


# --- on a terminal ---------------------------------------------------------------------------------------------------


def rendered(answer: dict[str, Any]) -> list[Any]:
    """The answer as lines and rich tables."""
    parts: list[Any] = []
    if "names" in answer:
        return ["\n".join(answer["names"])]
    if "format" in answer and answer["format"] != "model":
        parts.append(f"{answer['name']}: {answer['format']}, {answer['rows']:,} rows, {len(answer['columns'])} columns")
        parts.append(_columns_table(answer["columns"]))
    elif "format" in answer:
        parts += [f"{k}: {_short(v)}" for k, v in answer.items()]
    if answer.get("history"):
        parts.append("history:")
        parts += [_record(r) for r in answer["history"]]
    if "head" in answer:
        parts += _head_tables(answer["head"])
    return parts


def _columns_table(columns: list[dict[str, Any]]):
    from rich.table import Table

    figures = ("count", "unknown", "min", "max", "mean", "sd")
    stats = any("stats" in c for c in columns)
    drawn = Table(box=None, header_style="bold")
    for name in ("column", "type", "unit", *(figures if stats else ("description",))):
        drawn.add_column(name, overflow="fold")
    for c in columns:
        last = [_short(c.get("stats", {}).get(k)) for k in figures] if stats else [c.get("description", "")]
        drawn.add_row(c["name"], c["type"], c.get("unit", ""), *last)
    return drawn


def _head_tables(rows: list[dict[str, Any]]) -> list[Any]:
    """The first rows, no column cut: as many tables below each other as the screen's width asks for."""
    from rich.table import Table

    from xptools import terminal

    blocks: list[dict[str, list[str]]] = []
    used = terminal.width()
    for name in rows[0] if rows else ():
        cells = [_short(row[name]) for row in rows]
        need = 2 + max(map(len, (name, *cells)))
        if not blocks or used + need > terminal.width():
            blocks.append({})
            used = 0
        blocks[-1][name] = cells
        used += need
    tables = []
    for block in blocks:
        tables.append(Table(box=None, header_style="bold"))
        for name in block:
            tables[-1].add_column(name, justify="right", no_wrap=True)
        for row in zip(*block.values(), strict=True):
            tables[-1].add_row(*row)
    return tables


def _record(record: dict[str, Any]) -> str:
    given = {k: v for k, v in record.get("params", {}).items() if v is not False and v not in ("", None, [])}
    params = " ".join(f"{k}={_short(v)}" for k, v in given.items())
    files = " ".join(f"{role}:{f['sha256'][:12]}" for role, f in record.get("files", {}).items())
    return f"  {record['id']}  {params}  {files}".rstrip()


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list) and len(value) > 4:
        return f"[{', '.join(_short(v) for v in value[:3])}, ... {len(value)} values]"
    return "" if value is None else str(value)
