"""Red giants in PARSEC tables: rows of the first giant branch (label 3) and of core helium burning (label 4)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xptools.cores import _isochrone_files as files
from xptools.errors import DataError

BRANCH, CLUMP = 3, 4
EXTRA = ("Mass", "logTe", "logg")


@dataclass(frozen=True)
class Rows:
    """One phase at one [M/H] and age [Gyr].

    mass (n,) is the place, rising: log g on the branch, the fraction of the lifetime in the clump (initial masses pass
    at an even rate). values (n, 5): log g, present mass [Msun], Teff [K], M_G, BP-RP [mag].
    """

    family: str
    mh: float
    age: float
    clump: bool
    mass: np.ndarray
    values: np.ndarray


def read_file(path: Path) -> list[Rows]:
    """The giants of one PARSEC file; NotAnIsochrone if it is none, DataError if it has no giants."""
    text = files.text_of(path)
    if not files.is_parsec(text[:20000]):
        raise files.NotAnIsochrone(f"giants are read from PARSEC tables only. {path}. TRY: leave it out")
    family = next((i.family for i in files.read_file(path)), files.UNSTATED)
    found = []
    for header, lines in files.blocks(text):
        if any(name not in header for name in EXTRA):
            raise DataError(f"the PARSEC table lacks {', '.join(EXTRA)}. {path}. TRY: CMD 3.x output with all columns")
        plain = files.parsec_block(header, lines, path)
        extra = np.loadtxt(lines, usecols=[header.index(name) for name in EXTRA], ndmin=2)
        found += _phases(family, np.hstack([plain, extra]))
    return found


def _phases(family: str, table: np.ndarray) -> Iterator[Rows]:
    """table (N, 10): mh, log age, initial mass, label, G, BP, RP, mass, log Teff, log g."""
    for (mh, log_age), rows in files.groups(table, table[:, :2].round(5)):
        for label in (BRANCH, CLUMP):
            r = rows[(rows[:, 3] == label) & (rows[:, 4:7].max(1) < files.PADDING)]
            if len(r) < 4:
                continue
            values = np.stack([r[:, 9], r[:, 7], 10 ** r[:, 8], r[:, 4], r[:, 5] - r[:, 6]], 1)
            place = r[:, 9] if label == BRANCH else (r[:, 2] - r[:, 2].min()) / np.ptp(r[:, 2])
            place, first = np.unique(place, return_index=True)
            yield Rows(family, float(mh), 10 ** (float(log_age) - 9), label == CLUMP, place, values[first])
