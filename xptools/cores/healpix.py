"""HEALPix: the nested pixel of a direction (Gorski+ 2005, ApJ 622, 759, Sec. 4 and 5.3), without a library to load."""

from __future__ import annotations

import numpy as np

GAIA_ORDER = 12  # source_id // 2^35 is the level-12 nested pixel of (ra, dec)


def _spread(bits: int) -> np.ndarray:
    """Table: the bits of 0 ... 2^bits - 1 moved to the even places."""
    numbers = np.arange(1 << bits, dtype=np.int64)
    return sum(((numbers >> k) & 1) << (2 * k) for k in range(bits))


_SPREAD = _spread(GAIA_ORDER)


def nested_pixel(ra: np.ndarray, dec: np.ndarray, order: int = GAIA_ORDER) -> np.ndarray:
    """Nested pixel number (n,) int64 of directions ra, dec (n,) [deg] at nside = 2^order, order <= 12."""
    nside = 1 << order
    z = np.sin(np.radians(dec))
    quarter = np.mod(np.asarray(ra, dtype=np.float64), 360.0) / 90.0
    quarter = np.where(quarter >= 4.0, 0.0, quarter)
    x, y, face = _equatorial(z, quarter, nside)
    polar = np.abs(z) > 2.0 / 3.0
    if polar.any():
        x[polar], y[polar], face[polar] = _polar(np.asarray(dec)[polar], quarter[polar], nside)
    return (face << (2 * order)) + _SPREAD[x] + (_SPREAD[y] << 1)


def _equatorial(z, quarter, nside):
    """x, y, face where |z| <= 2/3: lines of constant z -+ phi cut the faces."""
    down = (nside * (0.5 + quarter - 0.75 * z)).astype(np.int64)
    up = (nside * (0.5 + quarter + 0.75 * z)).astype(np.int64)
    band_down, band_up = down // nside, up // nside
    face = np.where(
        band_up == band_down, (band_up & 3) | 4, np.where(band_down < band_up, band_down & 3, (band_up & 3) + 8)
    )
    return up & (nside - 1), nside - 1 - (down & (nside - 1)), face


def _polar(dec, quarter, nside):
    """x, y, face where |z| > 2/3; from the co-latitude's half, so that the poles lose no digits."""
    corner = quarter.astype(np.int64)
    within = quarter - corner
    # sqrt(3 (1 - |z|)) = sqrt(6) sin(co-latitude / 2)
    ring = nside * np.sqrt(6.0) * np.sin(np.radians(90.0 - np.abs(dec)) / 2.0)
    rising = np.minimum((within * ring).astype(np.int64), nside - 1)
    falling = np.minimum(((1.0 - within) * ring).astype(np.int64), nside - 1)
    north = dec > 0
    x = np.where(north, nside - 1 - falling, rising)
    y = np.where(north, nside - 1 - rising, falling)
    return x, y, np.where(north, corner, corner + 8)


_RING = np.array([2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4])  # of the southern corner of each face, in units of nside
_TURN = np.array([1, 3, 5, 7, 0, 2, 4, 6, 1, 3, 5, 7])  # its longitude, in units of 45 deg


def centre(order: int, pixel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Right ascension and declination [deg], each (n,), of the centres of nested pixels (n,), order <= 29."""
    pixel = np.asarray(pixel, np.int64)
    nside, face = 1 << order, pixel >> (2 * order)
    x = y = np.zeros_like(pixel)
    for k in range(order):
        x, y = x | ((pixel >> k) & (1 << k)), y | ((pixel >> (k + 1)) & (1 << k))
    ring = _RING[face] * nside - x - y - 1
    polar = np.minimum(ring, 4 * nside - ring)
    length = np.minimum(polar, nside)
    ra = np.mod((_TURN[face] * length + x - y) * 45.0 / length, 360.0)
    belt = np.degrees(np.arcsin(np.clip((2 * nside - ring) * 2.0 / (3 * nside), -1, 1)))
    cap = 90.0 - 2 * np.degrees(np.arcsin(np.minimum(polar, nside) / (np.sqrt(6.0) * nside)))
    return ra, np.where(polar >= nside, belt, np.where(ring < 2 * nside, cap, -cap))


def radius(order: int) -> float:
    """The largest distance of a pixel's corner from its centre [deg]."""
    nside = 1 << order
    # Of a pixel that touches the end of the polar cap: centre at z = 2/3, corner a ring above it.
    low, high = np.arcsin(2 / 3), np.arcsin(1 - (1 - 1 / nside) ** 2 / 3)
    turn = np.pi / (4 * nside)
    half = np.sin((high - low) / 2) ** 2 + np.cos(low) * np.cos(high) * np.sin(turn / 2) ** 2
    return float(np.degrees(2 * np.arcsin(np.sqrt(half))))
