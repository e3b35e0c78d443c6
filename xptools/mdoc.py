"""Manual pages' language, mdoc: text made safe, paragraphs, lists; knows no command."""

import inspect
import re
from collections.abc import Iterable
from itertools import takewhile

SETTING = re.compile(r"\[\[?\w+\]\]?$|\w+ = \S")
CODE = re.compile(r"`+([^`]+)`+")
FULL_STOP = re.compile(r"(?<=[\w)\]%][.?])(?<!\b[A-Z]\.) +(?=[A-Z(`'])")


def text(words: str) -> str:
    """Plain words as lines of mdoc text: specials escaped, a line for each sentence."""
    words = re.sub(r"\s+", " ", words).strip()
    return "\n".join(_line(s) for s in FULL_STOP.split(words)) if words else ""


def inline(words: str) -> str:
    """Plain words on one line, safe as the text of a line or of one macro argument."""
    words = re.sub(r"\s+", " ", words).strip().replace("\\", r"\e")
    # A hyphen that begins a word is typed by the reader: it must stay a minus.
    words = re.sub(r"(?<![\w.])-|-(?=-)", r"\\-", words)
    return CODE.sub(r"\\fB\1\\fP", words)


def argument(words: str) -> str:
    """One argument of a macro: quoted, and never taken for a macro itself."""
    quoted = inline(words).replace('"', r"\(dq")
    return f'"\\&{quoted}"' if re.fullmatch(r"[%A-Z][A-Za-z]{1,2}", words) else f'"{quoted}"'


def _line(words: str) -> str:
    words = inline(words)
    return rf"\&{words}" if words[:1] in ".'" else words


def paragraphs(doc: str) -> list[str]:
    """A docstring: paragraphs parted by `.Pp`; as they stand: a block after a backspace character, an indented one,
    and TOML from its first line `name = value` on."""
    lines: list[str] = []
    for block in re.split(r"\n\s*\n", inspect.cleandoc(doc)):
        rows = block.splitlines()
        literal = rows[0].strip() in ("\b", r"\b")
        if literal or all(r.startswith("  ") for r in rows):
            lines += verbatim(rows[literal:])
        else:
            prose = list(takewhile(lambda row: not SETTING.match(row), rows))
            lines += [".Pp", text(" ".join(prose))] if prose else []
            lines += verbatim(rows[len(prose) :]) if rows[len(prose) :] else []
    return lines[1:] if lines[:1] == [".Pp"] else lines


def verbatim(rows: Iterable[str]) -> list[str]:
    """Lines kept as typed, indented."""
    return [".Bd -literal -offset indent", *(_typed(r) for r in rows), ".Ed"]


def _typed(row: str) -> str:
    row = row.strip("\n").replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{row}" if row[:1] in ".'" else row


def section(title: str, lines: Iterable[str]) -> list[str]:
    """`.Sh TITLE` and its lines; nothing at all if there are no lines."""
    body = [line for line in lines if line]
    return [f".Sh {title.upper()}", *body] if body else []


def listed(items: Iterable[tuple[str, str]], width: str = "Ds", compact: bool = False) -> list[str]:
    """A list of (macro line of the head, plain words)."""
    rows = [line for head, words in items for line in (f".It {head}", text(words))]
    return [f".Bl -tag -width {width}{' -compact' if compact else ''}", *rows, ".El"] if rows else []


def crossed(pages: Iterable[tuple[str, str]]) -> list[str]:
    """SEE ALSO: (name, section) sorted, commas between."""
    ordered = sorted(set(pages), key=lambda p: (p[1], p[0]))
    return [f".Xr {name} {number}" + (" ," if i < len(ordered) else "") for i, (name, number) in enumerate(ordered, 1)]
