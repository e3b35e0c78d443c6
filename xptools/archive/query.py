"""The ADQL of a fetch: a query cut into ranges of source_id, what it counts in bins of them, what it is without rows.

The bits of a source_id above the 35th are its HEALPix pixel of level 12 (nested, equatorial); so level n is
source_id // 2**(59 - 2n), and a range of source_id is a piece of the sky that the archive's primary key finds at once.
"""

from dataclasses import dataclass, field

import numpy as np

from xptools.archive import adql
from xptools.archive.region import ALL, parse
from xptools.archive.tap import JOIN

# Li+ 2026, Sec. 2, as their ADQL has it.
PAPER = (
    "has_xp_continuous = {true} AND parallax > 1 AND parallax_over_error > 10 AND phot_g_mean_mag < 17.5 "
    "AND phot_g_mean_mag + 5*log10(parallax/100) > 4"
)
PAPER_HATS = PAPER.replace(" = {true}", "").replace("AND", "and")  # as xp select has it
FIDELITY = "fidelity_v2"


@dataclass(frozen=True)
class Query:
    """`SELECT {select} {tail}`, `key` being source_id in it; {lo}, {hi}, {true} stand for what is put in.

    `ranges` are the pieces of the sky it is about. Not `cut`: `tail` is the whole query, which runs as it is.
    `stars` are identifiers (ascending) that go along as an uploaded table, of those in the range asked for.
    """

    select: str
    tail: str
    key: str = "source_id"
    ranges: tuple[tuple[int, int], ...] = (ALL,)
    cut: bool = True
    stars: np.ndarray | None = field(default=None, compare=False, repr=False)

    def along(self, lo: int, hi: int) -> np.ndarray | None:
        """The stars from lo to hi that go along with a query, None for a query without."""
        if self.stars is None:
            return None
        first, last = np.searchsorted(self.stars, [lo, hi + 1])
        return self.stars[first:last]

    def __str__(self) -> str:
        return f"SELECT {self.select} {self.tail}" if self.cut else self.tail

    @property
    def counting(self) -> adql.Count | None:
        """How the rows of a query that is not cut are counted."""
        return adql.count(self.tail)

    def total(self, true: str) -> str:
        """The query that counts them."""
        return _filled(self.counting.adql, 0, 0, true)

    def rows(self, lo: int, hi: int, true: str) -> str:
        """The query for source_id from lo to hi."""
        return _filled(str(self), lo, hi, true)

    def bins(self, lo: int, hi: int, width: int, true: str) -> str:
        """How many rows it has per `width` values of source_id: columns p (source_id // width) and n."""
        return _filled(f"SELECT {self.key} / {width} AS p, COUNT(*) AS n {self.tail} GROUP BY p", lo, hi, true)


def structured(
    columns: tuple[str, ...], table: str, where: str, region: str, fidelity: str, stars: np.ndarray | None = None
) -> Query:
    """The query from its parts; `fidelity` is the table that is joined for fidelity_v2, "" for none."""
    sky = parse(region)
    wanted = [c for c in columns if c != FIDELITY]
    select = ", ".join("g.*" if c == "*" else f"g.{c}" for c in wanted)
    join = "" if stars is None else f" {JOIN} g.source_id"
    if fidelity and (FIDELITY in columns or "*" in columns):
        select += f", f.{FIDELITY}"
        join += f" LEFT OUTER JOIN {fidelity} AS f ON f.source_id = g.source_id"
    own = [f"({adql.condition(where)})"] if where.strip() else []
    terms = ["g.source_id BETWEEN {lo} AND {hi}", *own, *sky.adql()]
    return Query(
        select, f"FROM {table} AS g{join} WHERE {' AND '.join(terms)}", "g.source_id", sky.ranges(), stars=stars
    )


def given(text: str, whole: bool) -> Query:
    """The user's own query with a range of source_id as a further condition; or, `whole`, as it is.

    Where it holds {lo} and {hi} itself, they are filled in and nothing is added.
    """
    text = text.strip().rstrip(";").strip()
    if whole:
        return Query("", text, cut=False)
    found = adql.parts(text)
    terms = [] if "{lo}" in text and "{hi}" in text else [f"{found.key} BETWEEN {{lo}} AND {{hi}}"]
    terms += [f"({found.where})" if terms else found.where] if found.where else []
    return Query(found.select, f"FROM {found.tables} WHERE {' AND '.join(terms)}", found.key)


def _filled(text: str, lo: int, hi: int, true: str) -> str:
    return text.replace("{lo}", str(lo)).replace("{hi}", str(hi)).replace("{true}", true)
