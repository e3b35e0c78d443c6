"""FITS headers, read and written card by card (FITS 4.0, section 4), without astropy, whose import takes 0.15 s.

Only what is written plainly is read here; a header with anything else in it is left to astropy (`None`).
"""

import math
import re
from collections.abc import Iterable
from typing import Any, BinaryIO

BLOCK, CARD = 2880, 80
LONGEST = 1 << 24  # bytes of a header
TEXT = r"'((?:[^']|'')*)'"
VALUE = re.compile(
    rf" *(?:{TEXT}|([TF])|([+-]?\d+)|([+-]?(?:\d+\.\d*|\.\d+|\d+(?=[EeDd]))(?:[EeDd][+-]?\d+)?))? *(?:/ ?(.*))?$"
)
REMARKS = ("COMMENT", "HISTORY", "")


class Header(dict):
    """Keyword -> value, and `comments`: keyword -> comment."""

    def __init__(self) -> None:
        super().__init__()
        self.comments: dict[str, str] = {}


def first_table(whole: BinaryIO) -> tuple[Header, Header, int] | None:
    """The primary header, that of the first binary table, and where its rows start; None if astropy must look."""
    at, primary = 0, None
    while (found := _header(whole, at)) is not None:
        header, at = found
        primary = primary or header
        if header.get("XTENSION") == "BINTABLE":
            return None if "ZIMAGE" in header else (primary, header, at)
        axes = [header.get(f"NAXIS{i}") for i in range(1, header.get("NAXIS", 0) + 1)]
        if not all(type(n) is int and n > 0 for n in axes) or "GROUPS" in header:
            return None
        values = header.get("PCOUNT", 0) + math.prod(axes) if axes else 0
        at += -(-abs(header["BITPIX"]) // 8 * header.get("GCOUNT", 1) * values // BLOCK) * BLOCK
    return None


def _header(whole: BinaryIO, at: int) -> tuple[Header, int] | None:
    """A header that begins at a byte, and where it ends; None if it is not plain, or there is none."""
    whole.seek(at)
    header, last = Header(), ""
    for _ in range(LONGEST // BLOCK):
        block = whole.read(BLOCK)
        at += BLOCK
        if len(block) < BLOCK or not block.isascii():
            return None
        text = block.decode("ascii")
        for card in (text[i : i + CARD] for i in range(0, BLOCK, CARD)):
            key = card[:8].rstrip(" ")
            if key == "END" and not card[8:].strip(" "):
                plain = "SIMPLE" in header or "XTENSION" in header
                return (header, at) if plain and type(header.get("BITPIX")) is int else None
            last = _taken(header, key, card, last)
            if last is None:
                return None
    return None


def _taken(header: Header, key: str, card: str, last: str) -> str | None:
    """Put a card into the header; gives the keyword that a CONTINUE would go on, None for a card that is not plain."""
    if key in REMARKS and card[8:10] != "= ":
        return last
    longer = key == "CONTINUE"
    if longer and not str(header.get(last, "")).endswith("&"):
        return None
    if not longer and (card[8:10] != "= " or not re.fullmatch(r"[A-Z0-9_-]+", key) or key in header):
        return None
    parts = VALUE.match(card[10:])
    if parts is None or (longer and parts[1] is None):
        return None
    text, truth, integer, real, comment = parts.groups()
    if longer:
        header[last] = header[last][:-1] + _unquoted(text)
        return last
    if text is not None:
        header[key] = _unquoted(text)
    elif truth or integer:
        header[key] = truth == "T" if truth else int(integer)
    elif real:
        header[key] = float(real.upper().replace("D", "E"))
    header.comments[key] = (comment or "").strip(" ")
    return key


def _unquoted(text: str) -> str:
    return text.replace("''", "'").rstrip(" ")


def written(cards: Iterable[tuple[str, Any]]) -> bytes:
    """A header of these keywords and values: texts of any length (ASCII), whole numbers, truths."""
    lines = [line for key, value in cards for line in _lines(key, value)]
    text = "".join(f"{line:{CARD}}" for line in [*lines, "END"])
    return f"{text}{' ' * (-len(text) % BLOCK)}".encode("ascii")


def _lines(key: str, value: Any) -> list[str]:
    if isinstance(value, bool):
        return [f"{key:8}= {'T' if value else 'F':>20}"]
    if isinstance(value, int):
        return [f"{key:8}= {value:>20}"]
    text = value.replace("'", "''")
    if len(text) <= 68:
        return [f"{key:8}= '{text:8}'"]
    pieces = []
    while text:
        # a doubled quote stays whole
        cut = len(text) if len(text) <= 67 else 67
        cut -= (len(text[:cut]) - len(text[:cut].rstrip("'"))) % 2 if cut < len(text) else 0
        pieces.append(text[:cut])
        text = text[cut:]
    heads = [f"{key:8}= ", *["CONTINUE  "] * (len(pieces) - 1)]
    goes_on = ["&"] * (len(pieces) - 1) + [""]
    return [f"{head}'{piece}{more}'" for head, piece, more in zip(heads, pieces, goes_on, strict=True)]
