"""Catalogues in HATS: Parquet files by HEALPix pixel, in a folder or at an address; only what is wanted is read.

Columns are chosen, and row groups whose statistics rule a condition out are passed over, before anything is read; the
condition itself is that of `xp select --where`. Spectra of the Multimodal Universe (110 coefficients in one list) are
taken apart into BP and RP.
"""

import ast
import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from xptools import metadata
from xptools.archive.place import Place
from xptools.archive.ranged import NoParts, Ranged
from xptools.archive.region import Region, parse
from xptools.archive.spectra import among
from xptools.arrays import to_numpy
from xptools.columns import KNOWN, XP
from xptools.cores import expression, healpix
from xptools.cores.healpix import GAIA_ORDER
from xptools.errors import DataError, IncompleteError, InputError, UsageError
from xptools.io import foreign
from xptools.protocol import spelled

PROPERTIES = ("hats.properties", "properties")
KEY = "source_id"
DEEPEST = "_healpix_29"  # the column with every row's pixel of that order, by which rows are sorted
AROUND = 2 / 60  # deg; further than any star has moved, and than positions of two releases differ
JOINT = {"coeff": "coefficients", "coeff_error": "coefficient_errors"}


class Partition(NamedTuple):
    """A file: HEALPix order and pixel, and where it is under the catalogue."""

    order: int
    pixel: int
    path: str


class Catalogue(Place):
    """A HATS catalogue."""

    def open(self, part: Partition) -> BinaryIO:
        """A partition's file; as a whole where the server gives no parts."""
        if self.client is not None:
            url = f"{self.where}/{part.path}"
            try:
                return Ranged(self.client, url)
            except NoParts:
                return self.client.patiently(lambda: self.client.kept(url)[0], url)
        try:
            return open(Path(self.where) / part.path, "rb", buffering=0)
        except OSError as fault:
            raise InputError(f"the catalogue lacks {part.path}: {fault.strerror}. {self.where}. TRY: get it") from fault

    def partitions(self) -> list[Partition]:
        """Its files in the order of the sky."""
        text = self.text("partition_info.csv")
        if text is not None:
            pairs = [(int(r["Norder"]), int(r["Npix"])) for r in csv.DictReader(io.StringIO(text))]
            found = [Partition(k, n, f"dataset/Norder={k}/Dir={n // 10000 * 10000}/Npix={n}.parquet") for k, n in pairs]
        elif self.client is None:
            paths = [p.relative_to(self.where) for p in Path(self.where).glob("**/Npix=*.parquet")]
            keys = [re.search(r"Norder=(\d+)/.*Npix=(\d+)", p.as_posix()) for p in paths]
            found = [Partition(int(m[1]), int(m[2]), str(p)) for m, p in zip(keys, paths, strict=True) if m]
        else:
            found = []
        if not found:
            raise InputError(f"{self.where} is no HATS catalogue: no partition_info.csv. TRY: the folder that has it")
        return sorted(found, key=lambda p: (p.pixel << 2 * (29 - p.order), p.order))

    @cached_property
    def properties(self) -> dict[str, str]:
        """What the catalogue says of itself, {} if nothing."""
        text = next((t for name in PROPERTIES if (t := self.text(name)) is not None), "")
        pairs = (line.partition("=") for line in text.splitlines() if not line.startswith("#"))
        return {key.strip(): value.strip() for key, _, value in pairs}

    @property
    def rows(self) -> int | None:
        """How many rows it says that it has."""
        said = self.properties.get("hats_nrows", "")
        return int(said) if said.isdigit() else None

    @property
    def position(self) -> tuple[str, str]:
        """What its columns of right ascension and declination are called."""
        return self.properties.get("hats_col_ra", "ra"), self.properties.get("hats_col_dec", "dec")


@dataclass(frozen=True)
class Choice:
    """What is wanted of a catalogue: columns (none: those that xp knows; "*" all), a condition, spectra taken apart.

    `region` is a piece of the sky as `region.parse` reads it, `position` the columns that it is about; `stars` are the
    identifiers (ascending) of the only sources that are wanted, if any.
    """

    columns: tuple[str, ...] = ()
    where: str = ""
    spectra: bool = False
    region: str = ""
    position: tuple[str, str] = ("ra", "dec")
    stars: np.ndarray | None = field(default=None, compare=False, repr=False)

    @property
    def sky(self) -> Region:
        """The region."""
        return parse(self.region)

    def names(self, schema: pa.Schema) -> list[str]:
        """The columns to give, as the catalogue spells them; DataError for one that is not there."""
        if "*" in self.columns:
            return [n for n in schema.names if not n.startswith("_healpix")]
        if self.columns:
            key = () if self.stars is None else (KEY,)
            return list(dict.fromkeys(_there(schema, name) for name in (*key, *self.columns)))
        return [n for n in schema.names if n.lower() in KNOWN] or list(schema.names)

    def condition(self, schema: pa.Schema) -> tuple[expression.Expression | None, dict[str, str]]:
        """The condition and the columns that it names, as the catalogue spells them."""
        if not self.where:
            return None, {}
        try:
            found = expression.parse(self.where)
        except expression.ExpressionError as fault:
            raise UsageError(f"--where: {fault}. TRY: --where 'parallax > 1'") from fault
        return found, {name: _there(schema, name) for name in found.columns}


def holding(parts: list[Partition], stars: np.ndarray) -> list[Partition]:
    """The partitions that can hold some of these sources.

    An identifier tells a pixel of level 12, but that of the position as it was when the identifier was given: all
    within AROUND of it is looked at.
    """
    ra, dec = healpix.centre(GAIA_ORDER, np.unique(stars >> 35))
    reach = healpix.radius(GAIA_ORDER) + AROUND
    turns = [(0.0, 0.0), *((reach * np.sin(a), reach * np.cos(a)) for a in np.arange(16) * np.pi / 8)]
    near = np.unique(np.concatenate([_moved(ra, dec, east, north) for east, north in turns]))
    first = np.array([p.pixel << 2 * (GAIA_ORDER - p.order) if p.order <= GAIA_ORDER else
                      p.pixel >> 2 * (p.order - GAIA_ORDER) for p in parts])  # fmt: skip
    width = np.array([max(1, 4 ** (GAIA_ORDER - p.order)) for p in parts])
    touched = np.searchsorted(near, first) < np.searchsorted(near, first + width)
    return [p for p, yes in zip(parts, touched, strict=True) if yes]


def _moved(ra: np.ndarray, dec: np.ndarray, east: float, north: float) -> np.ndarray:
    """The pixels of directions [deg] that are moved a little, over a pole too."""
    raised = dec + north
    over = np.abs(raised) > 90
    raised = np.where(over, np.sign(raised) * 180 - raised, raised)
    aside = east / np.maximum(np.cos(np.radians(raised)), 1e-6)
    return healpix.nested_pixel(ra + np.where(over, 180.0, 0.0) + aside, raised, GAIA_ORDER)


def _there(schema: pa.Schema, name: str) -> str:
    found = spelled(schema, name)
    if found is None:
        raise DataError(f"{expression.unknown_name(name, schema.names)}. TRY: --columns with others, or '*'")
    return found


def schema_of(source: pa.Schema, choice: Choice) -> pa.Schema:
    """The schema that comes out: plain types, units and words of the columns that xp knows."""
    plain = foreign.plain_types(foreign.described(source))
    fields = []
    for name in choice.names(source):
        field = plain.field(name)
        known = KNOWN.get(name.lower())
        if known is not None and not metadata.words_of(field):
            field = field.with_metadata(metadata.field_of(name, known).metadata)
        fields.append(field)
    if choice.spectra:
        for key in JOINT:
            _there(source, key)
        fields = [f for f in fields if f.name not in JOINT]
        names = [f"{tag}_{kind}" for tag in ("bp", "rp") for kind in JOINT.values()]
        fields += [metadata.field_of(n, XP[n]) for n in names]
    return pa.schema(fields)


def batches(file: BinaryIO, choice: Choice, rows: int = 16384) -> Iterator[pa.RecordBatch]:
    """The wanted rows and columns of one Parquet file."""
    try:
        parquet = pq.ParquetFile(file, pre_buffer=False)
    except (pa.ArrowException, OSError) as fault:
        raise DataError(f"a partition is no whole Parquet file ({str(fault)[:100]}). TRY: get it again") from fault
    source = parquet.schema_arrow
    out = schema_of(source, choice)
    condition, columns = choice.condition(source)
    sky, place = choice.sky, [_there(source, name) for name in choice.position] if choice.region else []
    joint = [_there(source, key) for key in JOINT] if choice.spectra else []
    key = [] if choice.stars is None else [_there(source, KEY)]
    wanted = list(
        dict.fromkeys([*(n for n in choice.names(source) if n not in joint), *columns.values(), *joint, *place, *key])
    )
    every = [parquet.metadata.row_group(i) for i in range(parquet.num_row_groups)]
    groups = [i for i, group in enumerate(every) if _may_hold(group, choice, columns, place, key)]
    for batch in parquet.iter_batches(rows, row_groups=groups, columns=wanted, use_threads=False) if groups else ():
        if key:
            batch = batch.filter(pa.array(among(to_numpy(batch.column(key[0]), KEY), choice.stars)))
        if condition is not None:
            arrays = {name: to_numpy(batch.column(spelling), spelling) for name, spelling in columns.items()}
            batch = batch.filter(pa.array(condition.condition(arrays)[0]))
        if place and batch.num_rows:
            batch = batch.filter(pa.array(sky.inside(*(to_numpy(batch.column(name), name) for name in place))))
        if batch.num_rows:
            yield _shaped(batch, out, joint)


def _shaped(batch: pa.RecordBatch, out: pa.Schema, joint: list[str]) -> pa.RecordBatch:
    values: dict[str, pa.Array] = {}
    for key, spelling in zip(JOINT.values(), joint, strict=False):
        both = to_numpy(batch.column(spelling), spelling)
        if both.shape[1] % 2:
            raise DataError(f"column {spelling} has {both.shape[1]} values, which are no two bands. TRY: no --spectra")
        for tag, half in zip(("bp", "rp"), np.split(both, 2, axis=1), strict=True):
            field = out.field(f"{tag}_{key}")
            flat = np.ascontiguousarray(half, field.type.value_type.to_pandas_dtype()).reshape(-1)
            values[field.name] = pa.FixedSizeListArray.from_arrays(pa.array(flat), type=field.type)
    columns = [values[f.name] if f.name in values else batch.column(f.name).cast(f.type) for f in out]
    return pa.RecordBatch.from_arrays(columns, schema=out)


def _may_hold(group: Any, choice: Choice, columns: dict[str, str], place: list[str], key: list[str]) -> bool:
    """Whether a row group can hold wanted stars that meet the condition and lie in the region, by its statistics."""
    every = (group.column(k) for k in range(group.num_columns))
    limits = {c.path_in_schema: c.statistics for c in every if c.is_stats_set and c.statistics.has_min_max}
    if key and (span := limits.get(key[0])) is not None:
        if np.ptp(np.searchsorted(choice.stars, [span.min, span.max + 1])) == 0:
            return False
    terms = [(columns[name], kind, value) for name, kind, value in _terms(choice.where)]
    if place:
        low, high = choice.sky.declinations()
        terms += [(place[1], ast.GtE, low), (place[1], ast.LtE, high)]
        if (span := limits.get(DEEPEST)) is not None and not choice.sky.touches(*_pixel(span.min, span.max)):
            return False
    found = ((limits.get(name), kind, value) for name, kind, value in terms)
    return not any(s and isinstance(s.min, int | float) and _outside(kind, value, s) for s, kind, value in found)


def _pixel(first: int, last: int) -> tuple[int, int]:
    """Order and number of the smallest pixel that holds these two of order 29."""
    up = (int(first ^ last).bit_length() + 1) // 2
    return (29 - up, int(first) >> 2 * up) if up <= 29 else (0, int(first) >> 58)


def _outside(kind: type, value: float, stats: Any) -> bool:
    low, high = stats.min, stats.max
    ruled = {ast.Lt: low >= value, ast.LtE: low > value, ast.Gt: high <= value, ast.GtE: high < value}
    return ruled.get(kind, kind is ast.Eq and not low <= value <= high)


def _terms(where: str) -> list[tuple[str, type, float]]:
    """The parts `column < number` that every row must meet."""
    if not where:
        return []
    tree = ast.parse(where.strip(), mode="eval").body
    parts = tree.values if isinstance(tree, ast.BoolOp) and isinstance(tree.op, ast.And) else [tree]
    found = []
    for part in parts:
        if isinstance(part, ast.Compare) and len(part.ops) == 1 and isinstance(part.left, ast.Name):
            try:
                value = ast.literal_eval(part.comparators[0])
            except ValueError:
                continue
            if isinstance(value, int | float) and part.left.id not in expression.CONSTANTS:
                found.append((part.left.id, type(part.ops[0]), value))
    return found


def counted(catalogue: Catalogue, found: int) -> None:
    """IncompleteError (76) unless the catalogue's files have as many rows as it says."""
    if catalogue.rows is not None and catalogue.rows != found:
        said = f"the catalogue says {catalogue.rows:,} rows, its files have {found:,}"
        raise IncompleteError(f"{said}. {catalogue.where}. TRY: get the lacking files")
