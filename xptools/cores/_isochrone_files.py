"""Isochrone files as they are published: PARSEC CMD, BaSTI-IAC, MIST. Recognised by content, never by name.

Each reader returns its isochrones cut to the main sequence, Gaia (E)DR3 magnitudes, one per ([M/H], age):
PARSEC: label = 1; MIST: phase = 0 (EEP 202-454); BaSTI has no label: up to the first fall of Teff above 0.5 Msun.
Rows padded with magnitudes above 50 are dropped. The family is kept because bolometric corrections differ (to 0.2 mag
in BP for cool dwarfs between PARSEC with and without YBC): families are never mixed in one grid.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xptools.cores import sequence
from xptools.errors import DataError, InputError

YBC, NOT_YBC, UNSTATED = "PARSEC YBC", "PARSEC not YBC", "PARSEC, bolometric corrections not stated"
PADDING = 50.0  # [mag]
_CURE = "TRY: a PARSEC CMD table (stev.oapd.inaf.it/cmd), a BaSTI-IAC .isc_gaia-dr3 or a MIST .iso.cmd file"


@dataclass(frozen=True)
class Isochrone:
    """The main sequence at one [M/H] and age [Gyr]: mass [Msun] strictly rising, M_G and BP-RP [mag], each (n,)."""

    family: str
    mh: float
    age: float
    mass: np.ndarray
    M_G: np.ndarray
    bp_rp: np.ndarray


class NotAnIsochrone(DataError):
    """The file is of none of the three kinds (a folder may hold such files; a named file may not be one)."""


def read_file(path: Path) -> list[Isochrone]:
    """All main-sequence isochrones of one file."""
    text = text_of(path)
    head = text[:20000]
    for known, reader in ((is_parsec, _parsec), (_is_basti, _basti), (_is_mist, _mist)):
        if known(head):
            return _checked(list(reader(path, text)), path)
    raise NotAnIsochrone(f"not a PARSEC, BaSTI or MIST isochrone table. {path}. {_CURE}")


def text_of(path: Path) -> str:
    """The text of a file that may be an isochrone table."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot open the isochrone file. {path}: {error.strerror}. {_CURE}") from error
    text = raw.decode("utf-8", errors="replace")
    head = text[:20000]
    if not raw.strip():
        raise NotAnIsochrone(f"the isochrone file is empty. {path}. {_CURE}")
    if head.lstrip()[:1] == "<":
        raise NotAnIsochrone(f"this is a web page, not an isochrone table. {path}. TRY: download the file it links to")
    if "\0" in head:
        raise NotAnIsochrone(f"this is a binary file, not an isochrone table. {path}. {_CURE}")
    return text


def _checked(found: list[Isochrone], path: Path) -> list[Isochrone]:
    found = [i for i in found if len(i.mass) > 1]
    if not found:
        raise DataError(f"no main-sequence rows in the isochrone table. {path}. TRY: masses 0.1-1 Msun, old ages")
    return found


def _isochrone(family, mh, age, mass, G, BP, RP) -> Isochrone:
    """Drops padding and repeated masses; keeps the rising order of mass."""
    ok = (np.maximum(np.maximum(G, BP), RP) < PADDING) & np.isfinite(G + BP + RP + mass)
    mass, first = np.unique(mass[ok], return_index=True)
    return Isochrone(family, float(mh), float(age), mass, G[ok][first], (BP - RP)[ok][first])


def _numbers(lines: list[str], usecols: list[int], path: Path) -> np.ndarray:
    try:
        return np.loadtxt(lines, usecols=usecols, ndmin=2)
    except (ValueError, IndexError) as error:
        raise DataError(f"the isochrone table is damaged ({error}). {path}. TRY: download it again") from error


def _no_extinction(text: str, path: Path, pattern: str) -> None:
    found = re.search(pattern, text)
    if found and float(found.group(1)) != 0:
        raise DataError(
            f"the isochrone's photometry includes extinction, Av={found.group(1)}. {path}. TRY: compute it again with "
            "Av=0; xp removes extinction from the stars instead"
        )


# PARSEC: 'Zini MH logAge Mini ... label ... Gmag G_BPmag G_RPmag', header repeated, with or without '#'

_PARSEC_NAMES = {
    "mh": ("MH", "[M/H]"),
    "z": ("Zini", "Z"),
    "log_age": ("logAge", "log(age/yr)"),
    "mass": ("Mini", "M_ini"),
    "label": ("label", "stage"),
    "G": ("Gmag", "G"),
    "BP": ("G_BPmag", "BPmag", "G_BP"),
    "RP": ("G_RPmag", "RPmag", "G_RP"),
}


def _is_parsec_header(words: list[str]) -> bool:
    return any(w in words for w in _PARSEC_NAMES["mass"]) and any(w in words for w in _PARSEC_NAMES["log_age"])


def is_parsec(head: str) -> bool:
    """Whether the beginning of a file is that of a PARSEC table."""
    return any(_is_parsec_header(line.lstrip("# ").split()) for line in head.splitlines())


def _parsec(path: Path, text: str) -> Iterator[Isochrone]:
    comments = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    _no_extinction(comments, path, r"includes extinction of Av\s*=\s*([0-9.]+)")
    system = re.search(r"Photometric system:\s*(.*)", comments)
    if system and not re.search(r"EDR3|DR3", system.group(1)):
        raise DataError(f"the photometric system is '{system.group(1)[:50]}'. {path}. TRY: Gaia EDR3 in the CMD form")
    read = [parsec_block(header, lines, path) for header, lines in blocks(text)]
    if not read:
        raise DataError(f"no rows in the isochrone table. {path}. {_CURE}")
    table = np.concatenate(read)
    table = table[table[:, 3] == 1]
    family = YBC if "Using YBC" in comments else NOT_YBC if "File generated by CMD" in comments else None
    found = [
        _isochrone(family, mh, 10 ** (log_age - 9), rows[:, 2], *rows[:, 4:7].T)
        for (mh, log_age), rows in groups(table, table[:, :2].round(5))
    ]
    family = family or _family_by_numbers(found)
    yield from (Isochrone(family, i.mh, i.age, i.mass, i.M_G, i.bp_rp) for i in found)


def blocks(text: str) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """(column names, data lines), the lines of all blocks with the same header together."""
    blocks: dict[tuple[str, ...], list[str]] = {}
    columns: tuple[str, ...] = ()
    for line in text.splitlines():
        words = line.lstrip("# \t").split()
        if _is_parsec_header(words):
            columns = tuple(words)
        elif words and not line.startswith("#"):
            blocks.setdefault(columns, []).append(line)
    return iter(blocks.items())


def parsec_block(header: tuple[str, ...], lines: list[str], path: Path) -> np.ndarray:
    """(N, 7): mh, log age, mass, label, G, BP, RP."""
    where = {k: next((header.index(n) for n in names if n in header), None) for k, names in _PARSEC_NAMES.items()}
    if where["label"] is None:
        raise DataError(
            f"the PARSEC table has no 'label' column, so its main sequence cannot be told from its giants. {path}. "
            "TRY: CMD 3.x output with all columns"
        )
    lacking = [_PARSEC_NAMES[k][0] for k in ("log_age", "mass", "G", "BP", "RP") if where[k] is None]
    if lacking or where["mh"] is where["z"] is None:
        lacking = ", ".join(lacking or ["MH"])
        raise DataError(f"the PARSEC table lacks {lacking}. {path}. TRY: Gaia EDR3 passbands in the CMD form")
    metals = "z" if where["mh"] is None else "mh"
    t = _numbers(lines, [where[k] for k in (metals, "log_age", "mass", "label", "G", "BP", "RP")], path)
    if metals == "z":
        Z = t[:, 0]  # PARSEC: Y = 0.2485 + 1.78 Z, (Z/X)_sun = 0.0207
        t[:, 0] = np.log10(Z / (1 - (0.2485 + 1.78 * Z) - Z) / 0.0207)
    return t


def groups(table: np.ndarray, keys: np.ndarray):
    """(key, rows) for each different row of keys."""
    values, inverse = np.unique(keys, axis=0, return_inverse=True)
    for k, value in enumerate(values):
        yield tuple(value), table[inverse.ravel() == k]


def _family_by_numbers(found: list[Isochrone]) -> str:
    """A file stripped of its comments: YBC if its dwarfs have the colours of the YBC sequence, else unstated.

    Mean |difference| of BP-RP over 0.12-0.7 Msun, from 1 Gyr on: 0.001 mag for real YBC tables, 0.027 without YBC.
    """
    wrong = [np.zeros(0)]
    for i in found:
        dwarf = (i.mass >= 0.12) & (i.mass <= 0.7) & (i.age > 0.99)
        wrong.append(np.abs(sequence.absolute(i.mass[dwarf], i.mh, i.age)[1] - i.bp_rp[dwarf]))
    wrong = np.concatenate(wrong)
    wrong = wrong[np.isfinite(wrong)]
    return YBC if len(wrong) >= 10 and wrong.mean() < 0.008 else UNSTATED


# BaSTI-IAC: '# Np = 2100 [M/H] = -0.080 Z = ... Y = ... Age (Myr) = 3000.000', eight columns


def _is_basti(head: str) -> bool:
    return "BaSTI" in head


def _basti(path: Path, text: str) -> Iterator[Isochrone]:
    head = text[:4000]
    if not re.search(r"GAIA-?\s*E?DR3", head, re.IGNORECASE):
        raise DataError(f"this BaSTI table is not in Gaia DR3 passbands. {path}. TRY: 'GAIA-DR3' in the BaSTI-IAC form")
    block: list[str] = []
    label = None
    for line in [*text.splitlines(), "# Np = 0"]:
        if "Np" in line and "=" in line:
            if block:
                yield _basti_block(label, block, path)
            block = []
            label = line
        elif line.strip() and not line.startswith("#"):
            block.append(line)


def _basti_block(label: str | None, lines: list[str], path: Path) -> Isochrone:
    numbers = [re.search(p, label or "") for p in (r"\[M/H\]\s*=\s*([-+.\d]+)", r"Age \(Myr\)\s*=\s*([\d.]+)")]
    if None in numbers:
        raise DataError(f"the BaSTI table has no line with [M/H] and Age (Myr). {path}. TRY: download it again")
    mass, log_Teff, G, BP, RP = _numbers(lines, [0, 3, 4, 5, 6], path).T
    falls = np.flatnonzero((np.diff(log_Teff) < 0) & (mass[1:] > 0.5))
    end = falls[0] + 1 if len(falls) else len(mass)
    mh, age = (float(n.group(1)) for n in numbers)
    return _isochrone("BaSTI-IAC", mh, age / 1000, mass[:end], G[:end], BP[:end], RP[:end])


# MIST: '# EEP log10_isochrone_age_yr initial_mass ... Gaia_G_EDR3 ... phase'


def _is_mist(head: str) -> bool:
    return "MIST version" in head


def _mist(path: Path, text: str) -> Iterator[Isochrone]:
    _no_extinction(text[:4000], path, r"extinction:\s*Av\s*=\s*([0-9.]+)")
    lines = text.splitlines()
    header = next((line.lstrip("# ").split() for line in lines if line.lstrip("# ").startswith("EEP ")), [])
    bands = ("Gaia_G_EDR3", "Gaia_BP_EDR3", "Gaia_RP_EDR3")
    wanted = ("log10_isochrone_age_yr", "initial_mass", "[Fe/H]_init", "phase", *bands)
    lacking = [w for w in wanted if w not in header]
    if lacking:
        raise DataError(f"the MIST table lacks {', '.join(lacking)}. {path}. TRY: the UBV(RI)c + Gaia .iso.cmd package")
    data = [line for line in lines if line.strip() and not line.startswith("#")]
    t = _numbers(data, [header.index(w) for w in wanted], path)
    afe = next((line.lstrip("# ").split()[3] for last, line in itertools.pairwise(lines) if "[a/Fe]" in last), "0")
    t = t[t[:, 3] == 0]
    for (log_age, feh), rows in groups(t, t[:, [0, 2]].round(5)):
        yield _isochrone("MIST", feh + salaris(float(afe)), 10 ** (log_age - 9), rows[:, 1], *rows[:, 4:7].T)


def salaris(alpha_fe):
    """[M/H] - [Fe/H] = log10(0.638 10^[alpha/Fe] + 0.362) [dex] (Salaris+ 1993): +0.21 at [alpha/Fe] = 0.3."""
    return np.log10(0.638 * 10.0 ** np.asarray(alpha_fe) + 0.362)
