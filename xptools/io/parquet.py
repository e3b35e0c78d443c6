"""Parquet out: row groups of even size, and the metadata that TOPCAT and astropy look for, in every file."""

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from xptools import metadata

GROUP_ROWS = 1 << 17
GROUP_BYTES = 64 << 20


class ParquetSink:
    """Row groups of 131,072 rows or 64 MB, zstd; nothing is readable before `close` has written the footer."""

    def __init__(self, raw, schema: pa.Schema):
        self.schema, self.held, self.count = schema, [], 0
        width = sum(_width(f.type) for f in schema)
        self.group = max(1024, min(GROUP_ROWS, GROUP_BYTES // max(width, 1)))
        texts = [f.name for f in schema if pa.types.is_string(f.type)]
        self.lengths = dict.fromkeys(texts, 0)
        self.writer = pq.ParquetWriter(raw, schema, compression="zstd", use_dictionary=texts, write_statistics=True)

    def write(self, batch: pa.RecordBatch) -> None:
        for name in self.lengths:
            longest = pc.max(pc.utf8_length(batch.column(name))).as_py() or 0
            self.lengths[name] = max(self.lengths[name], longest)
        self.held.append(batch)
        self.count += batch.num_rows
        while self.count >= self.group:
            table = pa.Table.from_batches(self.held)
            self.writer.write_table(table.slice(0, self.group), self.group)
            self.held = table.slice(self.group).to_batches()
            self.count -= self.group

    def close(self) -> None:
        if self.count:
            self.writer.write_table(pa.Table.from_batches(self.held), self.group)
        self.writer.add_key_value_metadata(metadata.file_values(self.schema, self.lengths))
        self.writer.close()

    def abort(self) -> None:
        """No footer is ever written: the writer is dropped with the file object under it closed."""
        self.held.clear()


def _width(kind: pa.DataType) -> int:
    if pa.types.is_fixed_size_list(kind):
        return kind.list_size * _width(kind.value_type)
    return max(1, kind.bit_width // 8) if pa.types.is_primitive(kind) else 32
