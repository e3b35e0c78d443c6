"""What `xp select` reads besides its rows: ranges, named conditions, lists of identifiers, and eta's quantile."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from xptools.errors import DataError, InputError, MissingColumns, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

Range = tuple[float | None, float | None] | None


def limits(option: str, text: str | None) -> Range:
    """(low, high) of "LO:HI", ":HI" or "LO:"; None if the option is not given."""
    if text is None:
        return None
    low, colon, high = text.partition(":")
    try:
        found = (float(low) if low.strip() else None, float(high) if high.strip() else None)
    except ValueError:
        colon = ""
    if not colon or found == (None, None):
        raise UsageError(f"--{option} {text!r} is no range. TRY: LO:HI, LO: for above, :HI for below")
    if any(x != x for x in found if x is not None):
        raise UsageError(f"--{option} {text!r} is no range. TRY: LO:HI, LO: for above, :HI for below")
    if None not in found and not found[0] < found[1]:
        raise UsageError(f"--{option} {text!r}: the low end is not below the high end. TRY: --{option} {high}:{low}")
    return found


def titled(text: str) -> tuple[str, str]:
    """(name, expression) of "name = expression"; the name is empty if there is none."""
    found = re.fullmatch(r"\s*([A-Za-z_]\w*)\s*=(?!=)\s*(.+)", text, re.DOTALL)
    return (found[1], found[2].strip()) if found else ("", text.strip())


def identifiers(path: str) -> np.ndarray:
    """Sorted int64 identifiers (M,) of a file: a list of numbers, or any table with a source_id column."""
    import os

    try:
        return _identifiers(path, os.stat(path).st_mtime_ns)
    except OSError as fault:
        raise InputError(f"--ids: cannot open {path}: {fault.strerror}. TRY: ls {path}") from None


@lru_cache(maxsize=1)
def _identifiers(path: str, _stamp: int) -> np.ndarray:
    import numpy as np

    with open(path, "rb") as file:
        head = file.read(4096)
    return np.unique(_listed_numbers(path) if re.fullmatch(rb"[\s\d,]+", head) else _column_of(path))


def _listed_numbers(path: str) -> np.ndarray:
    import numpy as np

    with open(path, encoding="ascii", errors="replace") as file:
        words = file.read().replace(",", " ").split()
    try:
        return np.array([int(word) for word in words], dtype=np.int64)
    except (ValueError, OverflowError) as fault:
        raise DataError(f"{path} is not a list of identifiers ({fault}). TRY: one whole number a line") from None


def _column_of(path: str) -> np.ndarray:
    import numpy as np

    from xptools import io, lookup
    from xptools.protocol import spelled

    with io.open_reader(path, ["source_id"]) as reader:
        name = spelled(reader.schema, "source_id")
        if name is None:
            raise MissingColumns(f"select --ids {path}", ("source_id",), tuple((reader.whole or reader.schema).names))
        parts = [lookup.identifiers(batch.column(batch.schema.get_field_index(name)), name, path) for batch in reader]
    return np.concatenate([np.zeros(0, np.int64), *parts])


def quantile_threshold(cuts: Any, path: str, fraction: float) -> float:
    """The eta above which the highest `fraction` lies of the rows that pass the cuts before eta.

    A quantile belongs to the whole table: it is found before the first row goes out, by two passes in fixed memory.
    """
    from dataclasses import replace

    from xptools.cores import selection

    if path == "-":
        raise UsageError(
            "--eta-quantile is a number of the whole table, and a stream passes only once. "
            "TRY: select from a file, or give --eta-from FILE with the table it is a quantile of, or --eta-ratio"
        )
    before = replace(cuts, eta_ratio=1.0).rules()
    before = before[: [r.name for r in before].index("eta")]
    counts = sum(selection.key_counts(x) for x in _etas(before, path))
    total = int(counts.sum()) if not isinstance(counts, int) else 0
    if total == 0:
        raise DataError(f"--eta-quantile: no row of {path} passes the cuts before eta with a known eta. TRY: --cutflow")
    wanted = max(round(fraction * total), 1)
    high, above = selection.from_the_top(counts, wanted)
    low, _ = selection.from_the_top(sum(selection.key_counts(x, high) for x in _etas(before, path)), wanted - above)
    return selection.just_below(selection.key_value((high << 16) | low))


def _etas(before: list, path: str) -> Iterator[np.ndarray]:
    """eta of the rows that pass the cuts `before`, batch by batch."""
    from functools import reduce

    import numpy as np

    from xptools import io
    from xptools.protocol import spelled, to_numpy

    names = tuple(dict.fromkeys(["eta", *(c for rule in before for c in rule.columns)]))
    with io.open_reader(path, list(names), 1 << 17) as reader:
        found = {name: spelled(reader.schema, name) for name in names}
        missing = tuple(name for name, there in found.items() if there is None)
        if missing:
            raise MissingColumns("select", missing, tuple((reader.whole or reader.schema).names))
        for batch in reader:
            columns = {n: to_numpy(batch.column(batch.schema.get_field_index(s)), s) for n, s in found.items()}
            keep = reduce(np.logical_and, (rule.judge(*(columns[c] for c in rule.columns))[0] for rule in before), True)
            yield np.asarray(columns["eta"])[np.broadcast_to(keep, len(batch))]
