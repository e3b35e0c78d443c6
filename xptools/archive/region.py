"""A piece of the sky: in ADQL, as ranges of source_id, as a cut of rows, and by the HEALPix pixels that it touches."""

from dataclasses import dataclass

import numpy as np

from xptools.cores import healpix
from xptools.errors import UsageError

BASE_PIXEL = 1 << 59  # source_id >> 59 is the pixel of level 0
ALL = (0, 12 * BASE_PIXEL - 1)
SLACK = 1 / 3600  # deg; a catalogue may have sorted its rows by other digits of their positions
DEEPER = 6  # levels below a pixel at which it is looked at; what is not decided there counts as touched
CURE = "TRY: cone:RA,DEC,RADIUS or box:RA1,RA2,DEC1,DEC2 [deg], or healpix:LEVEL/FIRST-LAST,PIXEL"


@dataclass(frozen=True)
class Region:
    """The whole sky; and what every region can say."""

    def adql(self) -> list[str]:
        """Conditions on the sources g."""
        return []

    def ranges(self) -> tuple[tuple[int, int], ...]:
        """Ranges of source_id that it lies in."""
        return (ALL,)

    def declinations(self) -> tuple[float, float]:
        """The band [deg] that it lies in."""
        return -90.0, 90.0

    def inside(self, ra: np.ndarray, dec: np.ndarray, margin: float = 0.0) -> np.ndarray:
        """Which directions [deg] are in it, bool (n,); with a margin [deg] at least all that are as near as that."""
        return np.ones(len(ra), bool)

    def touches(self, order: int, pixel: int) -> bool:
        """Whether a nested pixel may hold some of it; never wrongly not, and seldom wrongly so."""
        pixels = np.array([pixel], np.int64)
        for level in range(order, min(order + DEEPER, 29) + 1):
            ra, dec = healpix.centre(level, pixels)
            if self.inside(ra, dec).any():
                return True
            pixels = pixels[self.inside(ra, dec, healpix.radius(level) + SLACK)]
            pixels = (pixels[:, None] * 4 + np.arange(4)).ravel()
        return len(pixels) > 0


@dataclass(frozen=True)
class Cone(Region):
    """All within `radius` of a direction [deg], the edge included."""

    ra: float
    dec: float
    radius: float

    def adql(self):
        circle = f"CIRCLE('ICRS', {self.ra!r}, {self.dec!r}, {self.radius!r})"
        return [f"1 = CONTAINS(POINT('ICRS', g.ra, g.dec), {circle})"]

    def declinations(self):
        return self.dec - self.radius, self.dec + self.radius

    def inside(self, ra, dec, margin=0.0):
        # Haversines: exact for small cones, where cosines are all one.
        here, there = np.radians(self.dec), np.radians(dec)
        half = np.sin((there - here) / 2) ** 2
        half += np.cos(here) * np.cos(there) * np.sin(np.radians(ra - self.ra) / 2) ** 2
        return half <= np.sin(np.radians(min(180.0, self.radius + margin)) / 2) ** 2


@dataclass(frozen=True)
class Box(Region):
    """Right ascension from one to another, eastwards and perhaps through 0, and a band of declination [deg]."""

    first: float
    last: float
    south: float
    north: float

    def adql(self):
        joint = "AND" if self.first <= self.last else "OR"
        turn = f"(g.ra >= {self.first!r} {joint} g.ra <= {self.last!r})"
        return [turn, f"g.dec BETWEEN {self.south!r} AND {self.north!r}"]

    def declinations(self):
        return self.south, self.north

    def inside(self, ra, dec, margin=0.0):
        width = self.last - self.first if self.first <= self.last else self.last - self.first + 360
        east = np.mod(ra - self.first, 360.0)
        near = (dec >= self.south - margin) & (dec <= self.north + margin)
        if not margin:
            return near & ((east <= width) | (self.last - self.first >= 360))
        # How far in right ascension a circle of that radius reaches; round the pole it is everywhere.
        polar = np.abs(dec) + margin >= 90
        share = np.sin(np.radians(margin)) / np.cos(np.radians(np.where(polar, 0.0, dec)))
        reach = np.where(polar, 360.0, np.degrees(np.arcsin(np.minimum(share, 1.0))))
        return near & ((east <= width + reach) | (east >= 360 - reach))


@dataclass(frozen=True)
class Pixels(Region):
    """Nested pixels of one level, as spans from first to last."""

    level: int
    spans: tuple[tuple[int, int], ...]

    def ranges(self):
        width = 1 << (59 - 2 * self.level)
        merged: list[tuple[int, int]] = []
        for a, b in sorted(self.spans):
            lo, hi = a * width, (b + 1) * width - 1
            if merged and lo <= merged[-1][1] + 1:
                merged[-1] = (merged[-1][0], max(hi, merged[-1][1]))
            else:
                merged.append((lo, hi))
        return tuple(merged)

    def inside(self, ra, dec, margin=0.0):
        pixel = healpix.nested_pixel(ra, dec, self.level)
        return np.any([(pixel >= a) & (pixel <= b) for a, b in self.spans], axis=0)

    def touches(self, order, pixel):
        deep = max(order, self.level)
        lo, hi = pixel << 2 * (deep - order), ((pixel + 1) << 2 * (deep - order)) - 1
        shift = 2 * (deep - self.level)
        return any(a << shift <= hi and lo < (b + 1) << shift for a, b in self.spans)


def parse(text: str) -> Region:
    """A region from `cone:RA,DEC,RADIUS`, `box:RA1,RA2,DEC1,DEC2` [deg] or `healpix:LEVEL/PIXELS`; "" is the sky."""
    if not text:
        return Region()
    kind, _, words = text.partition(":")
    try:
        if kind == "healpix":
            return _pixels(words)
        values = [float(w) for w in words.split(",")]
        if kind == "cone":
            ra, dec, radius = values
            if -90 <= dec <= 90 and 0 < radius <= 180 and np.isfinite(ra):
                return Cone(ra, dec, radius)
        if kind == "box":
            first, last, south, north = values
            if -90 <= south <= north <= 90 and all(0 <= x <= 360 for x in (first, last)):
                return Box(first, last, south, north)
    except ValueError:
        pass
    raise UsageError(f"--region {text!r} is none. {CURE}")


def _pixels(words: str) -> Pixels:
    level_text, _, text = words.partition("/")
    level, spans = int(level_text), []
    for piece in text.split(","):
        first, _, last = piece.partition("-")
        spans.append((int(first), int(last or first)))
    if not 0 <= level <= 12 or not all(0 <= a <= b < 12 * 4**level for a, b in spans):
        raise ValueError
    return Pixels(level, tuple(spans))
