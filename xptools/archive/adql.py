"""As much of ADQL as it takes to put a condition into a query: where its clauses begin, outside brackets and quotes.

The query is not wrapped in another one: DaCHS 2.7 translates functions in a derived table twice, so that log10 silently
becomes a natural logarithm.
"""

import re
from typing import NamedTuple

from xptools.errors import UsageError

TOKEN = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|--[^\n]*|[()]|[A-Za-z_]\w*|.", re.S)
CLAUSES = {"FROM", "WHERE"}
CUTTING = {"GROUP", "HAVING", "ORDER", "UNION", "INTERSECT", "EXCEPT", "OFFSET", "TOP", "DISTINCT", "WITH"}
AGGREGATES = {"COUNT", "SUM", "AVG", "MIN", "MAX"}
FOLDING = {"GROUP", "HAVING", "UNION", "INTERSECT", "EXCEPT", "DISTINCT", "WITH"}
TRANSLATED = re.compile(r"\b(LOG|LOG10|TRUNCATE|RAND)\s*\(", re.I)  # twice is not once, see above
JOINING = {"JOIN", "NATURAL", "INNER", "LEFT", "RIGHT", "FULL", "CROSS"}


class Parts(NamedTuple):
    """SELECT `select` FROM `tables` WHERE `where` ("" for none); `key` is source_id, with its table where needed."""

    select: str
    tables: str
    where: str
    key: str


def parts(text: str) -> Parts:
    """The parts of a plain query; UsageError for one that means something else in each of many jobs."""
    words = list(_outer(text))
    for word, _ in words:
        if word in CUTTING:
            cure = "--whole, which runs it in one job"
            raise UsageError(f"a query with {word} cannot be cut into many jobs. TRY: {cure}")
    places = {word: at for word, at in reversed(words) if word in CLAUSES}
    if not words or words[0][0] != "SELECT" or "FROM" not in places:
        raise UsageError(f"--adql is neither a query (SELECT ... FROM ...) nor a file that holds one: {text[:40]!r}")
    end = places.get("WHERE", len(text))
    tables = text[places["FROM"] + 4 : end].strip()
    return Parts(text[words[0][1] + 6 : places["FROM"]].strip(), tables, text[end + 5 :].strip(), _key(tables))


def condition(text: str) -> str:
    """A condition that can stand in brackets; UsageError for one that would end or swallow what comes after it."""
    depth = 0
    for token in TOKEN.finditer(text):
        depth += (token[0] == "(") - (token[0] == ")")
        if depth < 0 or token[0].startswith("--"):
            break
    else:
        if not depth:
            return text
    raise UsageError(f"--where {text!r}: its brackets do not match, or it holds a comment. TRY: mend it")


class Count(NamedTuple):
    """A query for one number `n`, and how many rows that many make: at most `top`, without the first `offset`."""

    adql: str
    top: int | None
    offset: int

    def rows(self, n: int) -> int:
        """Rows of the query whose count is n."""
        left = max(0, n - self.offset)
        return left if self.top is None else min(left, self.top)


def count(text: str) -> Count | None:
    """How the rows of a whole query are counted; None where that cannot be said without running it."""
    words = list(_outer(text))
    names, places = [w for w, _ in words], {w: at for w, at in reversed(words)}
    if not words or names[0] != "SELECT" or "FROM" not in places:
        return None
    end = min((places[w] for w in ("ORDER", "OFFSET") if w in places), default=len(text))
    offset = re.match(r"OFFSET\s+(\d+)", text[places["OFFSET"] :], re.I) if "OFFSET" in places else None
    top = re.match(r"TOP\s+(\d+)", text[places["TOP"] :], re.I) if "TOP" in places else None
    skipped = int(offset[1]) if offset else 0
    if not FOLDING & set(names) and not AGGREGATES & set(names[: names.index("FROM")]):
        counting = f"SELECT COUNT(*) AS n FROM {text[places['FROM'] + 4 : end].strip()}"
        return Count(counting, int(top[1]) if top else None, skipped)
    if TRANSLATED.search(text) or "WITH" in names:
        return None
    return Count(f"SELECT COUNT(*) AS n FROM ({text[:end].strip()}) AS whole", None, skipped)


def _outer(text: str):
    """(word in upper case, its place) outside brackets, quotes and comments."""
    depth = 0
    for token in TOKEN.finditer(text):
        word = token[0]
        depth += (word == "(") - (word == ")")
        if depth == 0 and (word[0].isalpha() or word[0] == "_"):
            yield word.upper(), token.start()


def _key(tables: str) -> str:
    """source_id; where several tables are joined, that of the first."""
    several = "," in re.sub(r"\([^()]*\)", "", tables) or any(w in JOINING for w, _ in _outer(tables))
    found = re.match(r"([\w.]+)(?:\s+(?:AS\s+)?([A-Za-z_]\w*))?", tables, re.I)
    if not several or found is None:
        return "source_id"
    alias = found[2] if found[2] and found[2].upper() not in JOINING else found[1]
    return f"{alias}.source_id"
