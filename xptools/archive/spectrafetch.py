"""Spectra for the stars of a table: its identifiers, a route, the count of what came, one table."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from xptools import io, progress, settings, stream
from xptools.archive import bulk, credentials, datalink, gather, spectra, tapspectra
from xptools.archive.http import Client
from xptools.archive.meter import BIG, Meter
from xptools.archive.missing import Missing
from xptools.arrays import to_numpy
from xptools.errors import DataError, UsageError
from xptools.lookup import identifiers
from xptools.protocol import spelled

RATE = 5e6  # bytes/s that a plan assumes


@dataclass(frozen=True)
class Stars:
    """Identifiers (ascending) to ask for; how many more have no spectrum, or None if the table does not say."""

    ids: np.ndarray
    without: int | None


@dataclass(frozen=True)
class Wish:
    """How to fetch: the route and its service, what is wanted, how patiently, where to work."""

    route: str
    service: str
    release: str
    correlations: bool
    chunk: int | None
    parallel: int
    tries: int
    timeout: float
    work: Path | None
    keep_work: bool
    missing: str
    allow_missing: bool
    credentials: str
    upload: str = "auto"
    whole: bool = False


def wanted(table: str) -> Stars:
    """The stars of a table, each once; those with has_xp_continuous = false are left out."""
    with io.open_reader(table, ["source_id", "has_xp_continuous"]) as reader:
        key, has = (spelled(reader.schema, n) for n in ("source_id", "has_xp_continuous"))
        if key is None:
            raise DataError(f"{table} has no column source_id. TRY: xp info {table}")
        asked, dropped = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for batch in reader:
            ids = identifiers(batch.column(key), key, table)
            # unknown is asked for: better one request more than a spectrum less
            absent = np.zeros(len(ids), bool) if has is None else to_numpy(batch.column(has)) == 0
            asked.append(ids[~absent])
            dropped.append(ids[absent])
    ids = np.unique(np.concatenate(asked))
    return Stars(ids, None if has is None else len(np.setdiff1d(np.concatenate(dropped), ids)))


def planned(stars: Stars, correlations: bool) -> str:
    """Requests, bytes and hours of every route, as text."""
    n, row = len(stars.ids), spectra.ROW_BYTES[correlations]
    # 786,432 pixels in 3386 files, unevenly: an estimate
    per_file = np.unique((stars.ids >> bulk.LEVEL8) * bulk.FILES // 786_432, return_counts=True)[1]
    files = len(per_file)
    lines = [
        ("datalink", -(-n // datalink.MOST), n * spectra.ROW_BYTES[True], "requests"),
        ("aip", -(-n // tapspectra.MOST), n * row, "queries"),
        (f"bulk {bulk.CDN}", files, files * bulk.FILE_BYTES["csv"], "files, about"),
        (f"bulk {bulk.FLATIRON}", files, bulk.in_parts(per_file), "files, about"),
    ]
    without = "" if stars.without is None else f"; {stars.without:,} more have none and are not asked for"
    table = [
        f"{count:>9,} {words:<13} {size / 1e9:>10,.2f} GB {size / RATE / 3600:>9,.1f} h  {name}"
        for name, count, size, words in lines
    ]
    return "\n".join([f"{n:,} stars with XP spectra{without}. Hours at {RATE / 1e6:g} MB/s.", *table])


def fetched(stars: Stars, wish: Wish, options: stream.Options, step: type) -> None:
    """Fetch and write the table; IncompleteError (76) if stars are missing and may not be."""
    io.writer.check(options.output, options.format, options.clobber)
    service = wish.service or {"datalink": datalink.ESA, "aip": tapspectra.AIP}.get(wish.route, "")
    if not service:
        raise UsageError(f"--from bulk needs the files' place. TRY: --bulk {bulk.CDN}")
    # How the identifiers are cut decides what a part is.
    request = gather.request(
        wish.route, stars.ids, service=service, release=wish.release, correlations=wish.correlations, chunk=wish.chunk
    )
    place = place_of(wish.work, options, request, "xp")
    way = _route(wish, service, place)
    folder = gather.Folder(place, request)
    pieces = way.pieces(stars.ids)
    if not options.quiet:
        host = urlsplit(service).netloc or service
        words = f"{len(stars.ids):,} stars from {host} in {len(pieces):,} pieces"
        progress.say(f"xp fetch xp: {words}; parts in {folder.path}")
        if len(stars.ids) * spectra.ROW_BYTES[wish.correlations] > BIG:
            progress.say(planned(stars, wish.correlations))
    meter = Meter("xp fetch xp", draws(options))
    meter.expect(len(stars.ids))
    if way.client is not None:
        way.client.heard = lambda n: meter.add(bytes=n)
    try:
        missing = gather.gather(
            way, folder, pieces, wish.tries, lambda n, old: meter.add(rows=n, jobs=not old, old=old)
        )
    finally:
        meter.close()
        if draws(options):
            progress.say(f"xp fetch xp: {meter.words()}, {meter.seconds:.0f} s")
    _reconciled(stars, missing, wish, options, folder)
    parts, sizes = folder.parts(pieces)
    host = service if "://" in service else Path(service).name
    widths = tuple(sorted(sizes.items()))
    made = step(host, wish.release, wish.correlations, len(stars.ids), request["ids"], widths, parts)
    stream.run([stream.Plan(made)], options)
    # What was fetched for a look on a terminal is there for the table.
    if not wish.keep_work and not stream.previews(options):
        folder.clear()


def place_of(work: Path | None, options: stream.Options, request: dict, what: str) -> Path:
    """The folder for the parts of a fetch: `work`, else beside the output, else in the cache; UsageError without."""
    if work is not None:
        return work
    if options.output != "-" and not io.writer.in_place(options.output):
        return Path(f"{options.output}.parts")
    cache = settings.cache_dir()
    if cache is None:
        raise UsageError("there is no place for the parts of a fetch (--cache off). TRY: --work DIR")
    import hashlib
    import json

    return cache / "fetch" / f"{what}-{hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:16]}"


def _route(wish: Wish, service: str, work: Path) -> gather.Route:
    local = wish.route == "bulk" and not service.startswith(("http://", "https://"))
    if local:
        return bulk.Bulk(service, None, work, wish.correlations, wish.parallel)
    client = Client(wish.timeout, parallel=wish.parallel)
    if wish.credentials:
        _signed_in(client, wish, service)
    if wish.route == "bulk":
        return bulk.Bulk(service, client, work, wish.correlations, wish.parallel, wish.keep_work, wish.whole)
    if wish.route == "aip":
        return tapspectra.TapSpectra(
            client, service, chunk=wish.chunk or tapspectra.MOST, correlations=wish.correlations,
            parallel=wish.parallel, upload=wish.upload,
        )  # fmt: skip
    return datalink.DataLink(
        client, service, wish.release, wish.chunk or datalink.MOST, wish.correlations, wish.parallel
    )


def _signed_in(client: Client, wish: Wish, service: str) -> None:
    known = credentials.read(wish.credentials)
    if wish.route == "aip":
        credentials.sign_in(client, service, known)
    elif wish.route == "datalink":
        # ESA's two servers have a login each; only TAP tells who we are.
        base = service.rpartition("/data-server")[0]
        credentials.sign_in(client, f"{base}/tap-server/tap", known, (f"{service.rpartition('/')[0]}/login",))


def draws(options: stream.Options) -> bool:
    """Whether to draw a bar: also in a pipe, since a fetch is what one waits for."""
    return options.progress != "off" and not options.quiet and progress.on_terminal()


def _reconciled(stars: Stars, missing: np.ndarray, wish: Wish, options: stream.Options, folder: gather.Folder) -> None:
    """Say what came and what did not, write the file of the missing; raises unless all is there or that is allowed."""
    n, lacking = len(stars.ids), len(missing)
    if not options.quiet:
        without = "" if stars.without is None else f", {stars.without:,} without a spectrum not asked for"
        progress.say(f"xp fetch xp: asked {n:,}, received {n - lacking:,}, missing {lacking:,}{without}")
    known = "" if stars.without is not None else " (the table does not say whether they have one)"
    policy = Missing(wish.missing, wish.allow_missing)
    words, cure = f"spectra did not come{known}", "the same command again, which asks for these only, or "
    policy.reconcile(missing, n, policy.place(options.output, folder.path), words, cure)
