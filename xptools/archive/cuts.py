"""How a range of source_id is cut into ranges of about equal numbers of rows."""

from itertools import pairwise

import numpy as np

from xptools.archive.manifest import OPEN, TODO

FINEST = 1 << 11  # a source's running number within its pixel of level 12 is above that: no range is cut finer
BINS = 4096

Piece = tuple[int, int, str, int | None]  # lo, hi, state, rows expected


def width(lo: int, hi: int) -> int:
    """The width of the bins, a power of two, of which a range has at most BINS."""
    return max(FINEST, 1 << ((hi - lo) // BINS).bit_length())


def leaves(lo: int, hi: int, width: int, counts: dict[int, int], most: int) -> list[Piece]:
    """Ranges that cover lo to hi, of at most `most` rows each, from the rows in bins of `width` (bin p: p * width ...).

    A bin that alone has more is left open, to be counted in finer bins.
    """
    out: list[Piece] = []
    start, held = lo, 0
    for p, n in sorted(counts.items()):
        first, last = max(lo, p * width), min(hi, (p + 1) * width - 1)
        if held and held + n > most:
            out.append((start, first - 1, TODO, held))
            start, held = first, 0
        if n > most and width > FINEST:
            if first > start:
                out.append((start, first - 1, TODO, held))
            out.append((first, last, OPEN, None))
            start, held = last + 1, 0
        else:
            held += n
    if start <= hi:
        out.append((start, hi, TODO, held))
    return out


def shares(lo: int, hi: int, stars: np.ndarray, most: int) -> list[Piece]:
    """A range in ranges with at most `most` of these stars (ascending) each, all open."""
    edges = [lo, *(int(x) for x in stars[most::most]), hi + 1]
    return [(a, b - 1, OPEN, None) for a, b in pairwise(edges)]


def quarters(lo: int, hi: int) -> list[Piece]:
    """A range in four, all open; the whole sky in its twelve base pixels."""
    size = hi - lo + 1
    n = 12 if size % 12 == 0 and (size // 12).bit_count() == 1 else 4
    edges = [lo + i * size // n for i in range(n + 1)]
    return [(a, b - 1, OPEN, None) for a, b in pairwise(edges)]


def divisible(lo: int, hi: int) -> bool:
    """Whether a range can be cut at all."""
    return hi - lo >= 4 * FINEST
