"""The papers that xp rests on: data/references.bib, read entry by entry."""

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

BIBLIOGRAPHY = Path(__file__).parent / "data" / "references.bib"
ALWAYS = ("gaia2016", "gaia2023", "xptools")  # what every table of Gaia stars made by xp owes


class Entry(NamedTuple):
    """One entry: its key, its fields without braces, and the BibTeX text as it stands in the file."""

    key: str
    fields: dict[str, str]
    text: str

    def line(self) -> str:
        """Author (year), title, journal volume, page, doi: what is known of them, on one line, plain text."""
        f = self.fields
        where = " ".join(f[k] for k in ("journal", "booktitle", "volume") if k in f)
        parts = [f"{_people(f['author'])} ({f['year']})", f["title"], where, f.get("pages", "")]
        parts.append(f"doi:{f['doi']}" if "doi" in f else f"arXiv:{f['eprint']}" if "eprint" in f else "")
        return ", ".join(p for p in parts if p)


def of(keys: tuple[str, ...] | list[str]) -> tuple[list[Entry], list[str]]:
    """The entries of these keys (or of their other names), each once, in this order; and the keys nobody knows."""
    known, names = entries(), _names()
    found = dict.fromkeys(names[k] for k in keys if k in names)
    return [known[k] for k in found], [k for k in dict.fromkeys(keys) if k not in names]


@cache
def entries() -> dict[str, Entry]:
    """Every entry of the bibliography, in the file's order."""
    found = {}
    for match in re.finditer(r"^@\w+\{(.+?),\n(.*?)^\}$", BIBLIOGRAPHY.read_text(), re.M | re.S):
        fields = {k: _plain(v) for k, v in re.findall(r"^\s*(\w+)\s*=\s*\{(.*)\},$", match[2], re.M)}
        found[match[1]] = Entry(match[1], fields, match[0])
    return found


@cache
def _names() -> dict[str, str]:
    other = {name.strip(): e.key for e in entries().values() for name in e.fields.get("ids", "").split(",") if name}
    return other | {key: key for key in entries()}


ACCENTS = {r"{\'a}": "á", r"{\'e}": "é", r"{\'o}": "ó", r"{\ss}": "ß", r"{\"u}": "ü"}


def _plain(text: str) -> str:
    for tex, letter in ACCENTS.items():
        text = text.replace(tex, letter)
    # {{Gaia Collaboration}} is one name: its inner braces tell so, and go last.
    return re.sub(r"[{}]", "", text)


def _people(authors: str) -> str:
    names = authors.split(" and ")
    surnames = [n.split(",")[0] for n in names]
    if len(names) > 3 or names[-1] == "others":
        return f"{surnames[0]} et al."
    return " and ".join(filter(None, [", ".join(surnames[:-1]), surnames[-1]]))


__all__ = ["ALWAYS", "Entry", "entries", "of"]
