"""Equal batches out of any batches, with bounded memory."""

from collections.abc import Iterable, Iterator

import pyarrow as pa


def even(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of `rows` (the last one shorter), so that kernels see one shape."""
    held: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        if batch.num_rows == rows and not held:
            yield batch
            continue
        if batch.num_rows:
            held.append(batch)
            count += batch.num_rows
        if count >= rows:
            table = pa.Table.from_batches(held)
            whole = count - count % rows
            for start in range(0, whole, rows):
                yield _one(table.slice(start, rows))
            held = table.slice(whole).to_batches()
            count -= whole
    if count:
        yield _one(pa.Table.from_batches(held))


def _one(table: pa.Table) -> pa.RecordBatch:
    return table.combine_chunks().to_batches()[0]
