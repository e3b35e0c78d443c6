"""Regions of the sky: which rows they hold, which pixels they touch, how they are written."""

from functools import cache

import healpy
import numpy as np
import pytest

from xptools.archive.region import BASE_PIXEL, Region, parse
from xptools.errors import UsageError

SHAPES = [
    "cone:10,-20,1.5", "cone:0.2,0.1,0.4", "cone:200,89.5,2", "cone:30,-90,0.01", "cone:100,41.8,35", "cone:5,5,179",
    "box:10,20,-5,5", "box:350,10,60,90", "box:0,360,-90,-80", "box:359.9,0.1,-0.1,0.1", "box:90,91,41,42",
    "healpix:3/5,17-20", "healpix:0/4",
]  # fmt: skip


@cache
def directions(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random(n) * 360, np.degrees(np.arcsin(rng.uniform(-1, 1, n)))


def by_definition(text: str, ra, dec) -> np.ndarray:
    """The slow and obvious test."""
    kind, _, words = text.partition(":")
    if kind == "healpix":
        level, spans = words.split("/")
        found = healpy.ang2pix(1 << int(level), ra, dec, nest=True, lonlat=True)
        pixels = [range(int(s.split("-")[0]), int(s.split("-")[-1]) + 1) for s in spans.split(",")]
        return np.isin(found, [p for r in pixels for p in r])
    a, b, c, *d = map(float, words.split(","))
    if kind == "cone":
        one, other = healpy.ang2vec(ra, dec, lonlat=True), healpy.ang2vec(a, b, lonlat=True)
        return np.degrees(np.arctan2(np.linalg.norm(np.cross(one, other), axis=1), one @ other)) <= c
    return ((a <= ra) & (ra <= b) if a <= b else (ra >= a) | (ra <= b)) & (c <= dec) & (dec <= d[0])


@pytest.mark.parametrize("text", SHAPES)
def test_rows_are_those_of_the_definition(text):
    ra, dec = directions(50_000, 1)
    found = parse(text).inside(ra, dec)
    assert (found == by_definition(text, ra, dec)).all() and found.sum() < len(ra)


@pytest.mark.parametrize("text", SHAPES)
@pytest.mark.parametrize("order", [0, 3])
def test_no_pixel_with_a_row_is_passed_over_and_few_without(text, order):
    region = parse(text)
    touched = {p for p in range(12 * 4**order) if region.touches(order, p)}
    ra, dec = directions(300_000, 2)
    held = set(healpy.ang2pix(1 << order, *(x[region.inside(ra, dec)] for x in (ra, dec)), nest=True, lonlat=True))
    assert held <= touched
    # A pixel that is touched in a thin corner only may have none of them.
    assert len(touched) <= 1.15 * len(held) + 4
    # The least region of all, at a corner of pixels, is never lost.
    corners = healpy.boundaries(1 << order, 5, nest=True).T
    for lon, lat in zip(*healpy.vec2ang(corners, lonlat=True), strict=True):
        assert parse(f"cone:{lon},{lat},1e-9").touches(order, 5)


def test_what_they_are_in_adql_and_in_ranges_of_source_id():
    assert parse("healpix:0/3").ranges() == ((3 * BASE_PIXEL, 4 * BASE_PIXEL - 1),)
    assert parse("healpix:1/4-7,0,8").ranges() == ((0, BASE_PIXEL // 4 - 1), (BASE_PIXEL, BASE_PIXEL * 9 // 4 - 1))
    assert "CIRCLE('ICRS', 10.0, -20.0, 1.5)" in parse("cone:10,-20,1.5").adql()[0]
    assert parse("box:350,10,1,2").adql() == ["(g.ra >= 350.0 OR g.ra <= 10.0)", "g.dec BETWEEN 1.0 AND 2.0"]
    assert parse("") == Region() and parse("").adql() == [] and parse("").touches(3, 7)
    ra, dec = directions(1000, 3)
    for text in SHAPES:
        low, high = parse(text).declinations()
        inside = parse(text).inside(ra, dec)
        assert ((dec >= low) & (dec <= high))[inside].all()


@pytest.mark.parametrize(
    "text",
    ["cone:1,2", "cone:1,200,3", "cone:nan,2,3", "cone:1,2,0", "healpix:1/48", "healpix:13/0", "box:1", "box:1,2,5,4",
     "box:-1,2,3,4", "healpix:1/3-2", "disc:1,2,3"],
)  # fmt: skip
def test_what_is_none_is_told(text):
    with pytest.raises(UsageError, match="TRY: cone"):
        parse(text)
