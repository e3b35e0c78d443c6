"""HATS partitions where a step can read them: those of a folder as they are, those of an address as fetched parts."""

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from xptools import io, metadata, progress, stream
from xptools.archive import gather, hats
from xptools.archive.http import Client
from xptools.archive.meter import Meter
from xptools.archive.missing import Missing
from xptools.archive.spectrafetch import draws, place_of


def called(place: str) -> str:
    """What a catalogue is called in a history: its address, or its folder's own name."""
    return place.rstrip("/") if "://" in place else Path(place).resolve().name


@contextmanager
def prepared(
    place: str, choice: hats.Choice, parallel: int, timeout: float, work: str, policy: Missing, options: stream.Options
) -> Iterator[tuple[hats.Choice, tuple[str, ...], bool]]:
    """(what is wanted, files to read, whether they hold only that): parts are removed when all has been read."""
    io.writer.check(options.output, options.format, options.clobber)
    far = "://" in place
    catalogue = hats.Catalogue(place, Client(timeout, parallel=parallel) if far else None)
    if choice.region:
        choice = replace(choice, position=catalogue.position)
    every = catalogue.partitions()
    parts = [p for p in every if choice.sky.touches(p.order, p.pixel)]
    parts = parts if choice.stars is None else hats.holding(parts, choice.stars)
    # The first is read where none is touched: a table without rows has columns too.
    parts = parts or every[:1]
    if not options.quiet and len(parts) < len(every):
        progress.say(f"xp fetch hats: {len(parts)} of {len(every)} partitions may hold what is asked for")
    read = _fetched(catalogue, parts, choice, parallel, work, options) if far else _near(catalogue, parts)
    with read as (files, rows):
        if len(parts) == len(every):
            hats.counted(catalogue, rows)
        if choice.stars is not None and not (choice.where or choice.region):
            _reconciled(choice, files, policy, options, place)
        yield choice, files, far


def _reconciled(choice: hats.Choice, files: tuple[str, ...], policy: Missing, options, place: str) -> None:
    """Say how many of the stars are there, list the others; raises unless that is allowed."""
    there = [np.zeros(0, np.int64)]
    for path in files:
        with open(path, "rb", buffering=0) as file:
            bare = hats.Choice((hats.KEY,), stars=choice.stars)
            there += [batch.column(0).to_numpy() for batch in hats.batches(file, bare)]
    lacking, asked = np.setdiff1d(choice.stars, np.concatenate(there)), len(choice.stars)
    if not options.quiet:
        progress.say(f"xp fetch hats: asked for {asked:,} stars, of which {asked - len(lacking):,} are there")
    policy.reconcile(lacking, asked, policy.place(options.output, None), f"stars are not in {called(place)}")


@contextmanager
def _near(catalogue: hats.Catalogue, parts: list[hats.Partition]) -> Iterator[tuple[tuple[str, ...], int]]:
    """The files of a folder, and their rows."""
    rows = 0
    for part in parts:
        with catalogue.open(part) as file:
            rows += pq.read_metadata(file).num_rows
    yield tuple(str(Path(catalogue.where) / p.path) for p in parts), rows


@contextmanager
def _fetched(
    catalogue: hats.Catalogue, parts: list[hats.Partition], choice: hats.Choice, parallel: int, work: str, options
) -> Iterator[tuple[tuple[str, ...], int]]:
    """What is wanted of the files behind an address, in files here, and the rows of the whole files."""
    request = {"catalogue": catalogue.where, "wanted": repr(choice)}
    if choice.stars is not None:
        request["stars"] = hashlib.sha256(choice.stars.tobytes()).hexdigest()
    request["partitions"] = hashlib.sha256(json.dumps([p.path for p in parts]).encode()).hexdigest()
    folder = gather.Folder(place_of(Path(work) if work else None, options, request, "hats"), request)
    if not options.quiet:
        progress.say(f"xp fetch hats: {len(parts)} partitions from {catalogue.where}; parts in {folder.path}")
    rows = _gathered(catalogue, parts, choice, folder, parallel, options)
    yield tuple(str(folder.part(_piece(p))) for p in parts), rows
    if not stream.previews(options):
        folder.clear()


def _piece(part: hats.Partition) -> gather.Piece:
    return gather.Piece(f"{part.order:02d}-{part.pixel:012d}", np.zeros(0, np.int64))


def _gathered(catalogue, parts, choice, folder, parallel: int, options) -> int:
    """Fetch what the folder lacks; returns the rows of these files of the catalogue."""
    draw = draws(options)
    meter = Meter("xp fetch hats", draw, "partitions")
    meter.expect(len(parts))
    catalogue.client.heard = lambda n: meter.add(bytes=n)

    def one(part: hats.Partition) -> int:
        path = folder.part(_piece(part))
        old = path.exists()
        if not old:
            with catalogue.open(part) as file:
                source = pq.ParquetFile(file, pre_buffer=False)
                found = list(hats.batches(file, choice))
                bare = hats.schema_of(source.schema_arrow, choice)
                schema = metadata.with_values(bare, {"xp.rows_of_file": str(source.metadata.num_rows)})
            table = pa.Table.from_batches([b.replace_schema_metadata(schema.metadata) for b in found], schema)
            folder.keep(_piece(part), table)
        meter.add(rows=1, old=old)
        return int(pq.read_schema(path).metadata[b"xp.rows_of_file"])

    try:
        with folder.held(), ThreadPoolExecutor(parallel) as pool:
            try:
                return sum(pool.map(one, parts))
            except BaseException:
                catalogue.client.stopping.set()
                pool.shutdown(cancel_futures=True)
                raise
    finally:
        meter.close()
        if draw:
            progress.say(f"xp fetch hats: {meter.words()}, {meter.seconds:.0f} s")
