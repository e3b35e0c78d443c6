"""Batches in and out: Arrow stream and file, Parquet, FITS, VOTable, ECSV and CSV. Knows no astronomy.

`open_reader(path)` sniffs the format from the bytes; `open_writer(target)` chooses by suffix. Readers give record
batches of any size (`even` makes them equal); writers replace a regular file atomically when closed, never before.
"""

from xptools.io.batches import even
from xptools.io.reader import Reader, digest, open_reader, plain
from xptools.io.writer import Writer, open_writer

__all__ = ["Reader", "Writer", "digest", "even", "open_reader", "open_writer", "plain"]
