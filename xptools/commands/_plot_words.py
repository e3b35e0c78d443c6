"""How options of `xp plot` are written: ranges, lists, sizes of cells. UsageError for anything else."""

from xptools.commands._select_input import limits
from xptools.errors import UsageError


def both(option: str, text: str | None) -> tuple[float, float] | None:
    """LO:HI of an option, both given; None if the option is not."""
    found = limits(option, text)
    if found is not None and None in found:
        raise UsageError(f"--{option} {text!r} needs both ends. TRY: --{option} 0:4")
    return found


def numbers_of_list(option: str, text: str) -> list[float]:
    """Numbers with commas."""
    try:
        found = [float(word) for word in text.split(",")]
        if all(abs(x) < float("inf") for x in found):
            return found
        raise ValueError
    except ValueError:
        raise UsageError(f"--{option} {text!r} is no list of numbers. TRY: --{option} -2,-1,0") from None


def pair(text: str) -> tuple[float, float]:
    """The two positive sizes of --cell."""
    found = numbers_of_list("cell", text)
    if len(found) != 2 or min(found) <= 0:
        raise UsageError(f"--cell {text!r} is not two positive numbers. TRY: --cell 0.02,0.05")
    return found[0], found[1]
