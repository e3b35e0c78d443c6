"""Equal batches out of any batches, with bounded memory."""

from collections.abc import Iterable, Iterator

import pyarrow as pa

BATCH_BYTES = 1 << 25  # more is slower, as it leaves the processor's cache: a spectrum with correlations has 13 kB


def even(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of `fitting` rows (the last one shorter), so that kernels see one shape."""
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        if not held:
            most = fitting(batch.schema, rows)
        if batch.num_rows == most and not held:
            yield batch
            continue
        if batch.num_rows:
            held.append(batch)
            count += batch.num_rows
        if count >= most:
            table = pa.Table.from_batches(held)
            whole = count - count % most
            for start in range(0, whole, most):
                yield _one(table.slice(start, most))
            held = table.slice(whole).to_batches()
            count -= whole
    if count:
        yield _one(pa.Table.from_batches(held))


def fitting(schema: pa.Schema, rows: int) -> int:
    """`rows`, or the largest power of two below whose batch holds 32 MB at most, but 256 at least."""
    most = max(256, BATCH_BYTES // width(schema))
    return min(rows, 1 << (most.bit_length() - 1))


def width(schema: pa.Schema) -> int:
    """Bytes of a row; a text or a list of any length counts as 32."""
    return max(1, sum(_width(field.type) for field in schema))


def _width(kind: pa.DataType) -> int:
    if pa.types.is_fixed_size_list(kind):
        return kind.list_size * _width(kind.value_type)
    return max(1, kind.bit_width // 8) if pa.types.is_primitive(kind) else 32


def _one(table: pa.Table) -> pa.RecordBatch:
    return table.combine_chunks().to_batches()[0]
