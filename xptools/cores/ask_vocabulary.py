"""The generalist's vocabulary: which columns are tokens. One line of a TOML file is one entry.

    tokens = [
      { name = "bp", value = "bp_coefficients", error = "bp_coefficient_errors", relevant = "bp_n_relevant_bases",
        width = 55, per_flux = true, group = "bp" },
      { name = "mass", value = "mass", error = "mass_err", unit = "solMass", ucd = "phys.mass", text = "Mass",
        ask = true },
    ]

value and error are expressions of columns (xp select --where speaks the same), except for an entry with a width, which
is an array column and makes that many tokens: bp0 ... bp54, of which those from `relevant` on are unknown. per_flux
divides by the flux in G [electron/s] of phot_g_mean_mag. `ask = true`: a label, answered when nothing is asked for.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from xptools.cores.expression import Expression, ExpressionError, parse
from xptools.cores.photometry import POGSON, ZERO_POINT
from xptools.errors import DataError, InputError

MAGNITUDE = "phot_g_mean_mag"
WIDEST, ABSURD = 4096, 50.0  # numbers of an array; magnitudes


@dataclass(frozen=True)
class Entry:
    """One line of the vocabulary."""

    name: str
    value: str
    error: str = ""
    width: int = 0
    relevant: str = ""
    per_flux: bool = False
    group: str = ""
    unit: str = ""
    ucd: str = ""
    text: str = ""
    ask: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that its value needs."""
        if self.width:
            return (self.value, *((MAGNITUDE,) if self.per_flux else ()))
        return parse(self.value).columns


@dataclass(frozen=True)
class Vocabulary:
    """All entries; token k (from 0) is the k-th number of them in order, its identifier in the network k + 1."""

    entries: tuple[Entry, ...]

    @classmethod
    def of(cls, rows: list[dict[str, Any]], where: str = "") -> Vocabulary:
        """From the parsed TOML; DataError names what is wrong in which line."""
        known = {f.name for f in fields(Entry)}
        entries = []
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DataError(f"the vocabulary's tokens are not a list of tables. {where}. TRY: xp train ask --help")
        for row in rows:
            wrong = set(row) - known
            if wrong or not {"name", "value"} <= set(row):
                what = f"unknown key {min(wrong)!r}" if wrong else "name or value is missing"
                raise DataError(f"the vocabulary's entry {row.get('name', row)!r}: {what}. {where}. TRY: xp train ask "
                                "--help")  # fmt: skip
            kinds = {k: type(getattr(Entry("", ""), k)) for k in row}
            if odd := [k for k, v in row.items() if type(v) is not kinds[k]]:
                raise DataError(f"the vocabulary's entry {row['name']!r}: {odd[0]} is no {kinds[odd[0]].__name__}. "
                                f"{where}. TRY: xp train ask --help")  # fmt: skip
            if not 0 <= row.get("width", 0) <= WIDEST:
                raise DataError(f"the vocabulary's entry {row['name']!r}: width is not 0 to {WIDEST}. {where}. TRY: "
                                "xp train ask --help")  # fmt: skip
            entries.append(Entry(**row))
        names = [e.name for e in entries]
        if len(set(names)) < len(names) or not names:
            raise DataError(f"the vocabulary names a token twice, or none. {where}. TRY: one line per token")
        out = cls(tuple(entries))
        try:
            _ = [e.columns for e in entries], out._errors
        except ExpressionError as fault:
            raise DataError(f"the vocabulary has {fault}. {where}. TRY: xp help select") from None
        return out

    def rows(self) -> list[dict[str, Any]]:
        """What `of` reads, JSON-able."""
        plain = Entry("", "")
        return [{k: v for k, v in asdict(e).items() if k in ("name", "value") or v != getattr(plain, k)}
                for e in self.entries]  # fmt: skip

    @cached_property
    def tokens(self) -> tuple[str, ...]:
        """Names of all tokens."""
        each = ([f"{e.name}{i}" for i in range(e.width)] if e.width else [e.name] for e in self.entries)
        return tuple(t for names in each for t in names)

    @cached_property
    def entry_of(self) -> np.ndarray:
        """The entry (V,) of each token."""
        return np.repeat(np.arange(len(self.entries)), [max(e.width, 1) for e in self.entries])

    @cached_property
    def order(self) -> np.ndarray:
        """Tokens (V,) in the order in which they are shown when not all can be: single numbers, then low orders."""
        rank = np.concatenate([np.arange(1, e.width + 1) if e.width else [0] for e in self.entries])
        return np.argsort(rank, kind="stable")

    @cached_property
    def _errors(self) -> dict[str, Expression]:
        return {e.name: parse(e.error) for e in self.entries if e.error and not e.width}

    def span(self, name: str) -> np.ndarray:
        """Token numbers of an entry, named as it is or by its column; empty if there is none."""
        found = [k for k, e in enumerate(self.entries) if name in (e.name, e.value)]
        return np.flatnonzero(np.isin(self.entry_of, found))

    def columns(self) -> tuple[str, ...]:
        """All columns that values, errors and relevance are made of."""
        out: dict[str, None] = {}
        for e in self.entries:
            noise = self._errors[e.name].columns if e.name in self._errors else (e.error if e.width else "",)
            out |= dict.fromkeys(n for n in (*e.columns, e.relevant, *noise) if n)
        return tuple(out)

    def read(
        self, arrays: dict[str, np.ndarray | None], rows: int, whole: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Values and errors (N, V) float32, NaN where unknown; `whole`: coefficients beyond the relevant ones too."""
        values, errors = self.numbers(arrays, rows, whole)
        values[~np.isfinite(values)] = np.nan
        errors[~(np.isfinite(errors) & (errors >= 0)) | np.isnan(values)] = np.nan
        return values, errors

    @np.errstate(over="ignore")
    def numbers(
        self, arrays: dict[str, np.ndarray | None], rows: int, whole: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `read`, but infinite where a number is there that cannot be taken: beyond single precision, infinite, or
        a coefficient over the flux of a magnitude that no star has; errors as they come."""
        there = {k: np.asarray(v, np.float64) for k, v in arrays.items() if v is not None}
        values, errors = (np.full((rows, len(self.tokens)), np.nan, np.float32) for _ in range(2))
        for k, e in enumerate(self.entries):
            if any(c not in there for c in e.columns):
                continue
            at = self.entry_of == k
            if e.width:
                values[:, at], errors[:, at] = _spectrum(e, there, whole)
                continue
            values[:, at] = parse(e.value).number(there)[:, None]
            noise = self._errors.get(e.name)
            if noise is not None and all(c in there for c in noise.columns):
                errors[:, at] = noise.number(there)[:, None]
        return values, errors


def absurd(G: np.ndarray) -> np.ndarray:
    """Where G magnitudes are known, but such as no star has: ABSURD or beyond, or infinite."""
    return np.abs(G) >= ABSURD


def flux_of(G: np.ndarray) -> np.ndarray:
    """Flux [electron/s] of a G magnitude; NaN of one that is unknown or absurd."""
    return np.exp((ZERO_POINT["G"] - np.where(absurd(G), np.nan, G)) / POGSON)


def _spectrum(e: Entry, there: dict[str, np.ndarray], whole: bool) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and errors (N, width) of an array entry; infinite where known, but G is absurd."""
    value = _wide(there[e.value], e.value, e.width)
    error = _wide(there[e.error], e.error, e.width) if e.error in there else np.full_like(value, np.nan)
    if e.per_flux:
        G = there[MAGNITUDE][:, None]
        lost, flux = absurd(G) & ~np.isnan(value), flux_of(G)
        value, error = np.where(lost, np.inf, value / flux), error / flux
    if e.relevant in there and not whole:
        value = np.where(np.arange(e.width) < there[e.relevant][:, None], value, np.nan)
    return value, error


def _wide(array: np.ndarray, name: str, width: int) -> np.ndarray:
    """An array column as (N, width), unknown where none of these stars has one; DataError for another length."""
    if array.shape[1:] == (0,) or (array.ndim == 1 and np.isnan(array).all()):
        return np.full((len(array), width), np.nan)
    if array.shape[1:] != (width,):
        raise DataError(f"column {name} has {np.prod(array.shape[1:], dtype=int)} numbers, the model's vocabulary "
                        f"expects {width}. TRY: a model of the same data release")  # fmt: skip
    return array


def load(path: Any) -> dict[str, Any]:
    """A TOML file as a dictionary."""
    try:
        with open(path, "rb") as stream:
            return tomllib.load(stream)
    except OSError as fault:
        raise InputError(f"cannot read the vocabulary: {fault.strerror}. {path}. TRY: xp train ask --help") from fault
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise DataError(f"the vocabulary is not TOML: {fault}. {path}. TRY: mend that line") from fault
