"""Numbers that stand for unknown ones: -9999, 99 and their like, as catalogues have them."""

from __future__ import annotations

import numpy as np

OFTEN, SHARE, LEAST = 20, 0.01, 3  # times that a number stands there: either of the first two, and at least so often
FAR, NEARER = 20.0, 5.0  # robust standard deviations from the middle of all others; of a code
HUGE = 1e20  # beyond which a number is a code
AROUND, PART = 5, 0.05  # other numbers beside it at most, or that share of its times
ENDS = 3  # repeated numbers that are looked at from either end


def stand_ins(values: np.ndarray) -> list[float]:
    """Numbers that very probably mean that nothing is known, among values (N,); NaN is known to.

    Such a number is repeated exactly, it is FAR from the median of all other values in units of their 1.4826 MAD,
    NEARER if it is a code (its digits are nines only, or it is HUGE), and almost none of the others is beyond half its
    distance: the repeated numbers of a long tail that is rounded are no such numbers. More than half of all values are
    taken for unknown only if they are a code: they may be what most stars have.
    """
    values, out = values[np.isfinite(values)], []
    while (found := _one(values)) is not None:
        out.append(found)
        values = values[values != found]
    return out


def _one(values: np.ndarray) -> float | None:
    numbers, counts = np.unique(values, return_counts=True)
    often = np.flatnonzero(counts >= max(LEAST, min(OFTEN, SHARE * len(values))))
    for k in dict.fromkeys([*often[:ENDS], *often[::-1][:ENDS]]):
        if _strange(numbers[k], counts[k], values[values != numbers[k]]):
            return float(numbers[k])
    return None


def _strange(number: float, count: int, others: np.ndarray) -> bool:
    """Whether a number that stands there `count` times is far from all others, and alone there."""
    if not len(others):
        return False
    code, middle = _code(number), np.median(others)
    spread = 1.4826 * np.median(np.abs(others - middle))
    if code and not spread:  # more than half of the others are the same
        spread = np.std(others)
    distance = abs(number - middle)
    if (not code and (not spread or count > len(others))) or distance <= (NEARER if code else FAR) * spread:
        return False
    beside = others[(others - middle) * np.sign(number - middle) > distance / 2]
    return len(np.unique(beside)) <= max(AROUND, PART * count)


def _code(number: float) -> bool:
    """Whether a number is written with nines only, 99, -999, 9999.99, or is HUGE."""
    digits = f"{abs(number):.7g}".replace(".", "")
    return abs(number) >= HUGE or (len(digits) > 1 and set(digits) == {"9"})
