"""`xp fetch gaia`: rows of Gaia's source table from a TAP service, in as many jobs as it takes."""

import os
from pathlib import Path

import click

from xptools.errors import UsageError
from xptools.options import plain_command, run_options, shared

NOTES = {
    "HATS": """--from hats DIR|URL reads a catalogue of Parquet files by pixel of the sky instead, with all that
xp-fetch-hats(1) says: --where is then written as in xp select, and is that of Li+ 2026 too if it is not given.""",
    "COUNTING": """The archive is first asked how many rows there are in each piece of the sky (source_id ranges, which
are HEALPix pixels). Each job then fetches ranges of at most --job-rows rows. A reply is taken only if it is whole, does
not say that it is cut, and has exactly the rows that were counted, none twice. A range that overflows the service's
limit, or takes too long, is cut finer. Rows that stay missing end the command with status 76 and the ranges named; no
table is written that looks whole. A query with --whole is counted as a whole; where that is not possible (of what is
grouped after a logarithm, or where the archive refuses), xp says so, and only a reply that says it is cut is
noticed.""",
    "RESUMING": """With -o DIR/ the rows become one Parquet file per range in that folder, beside manifest.sqlite, which
holds the address of each job before it is started. Whatever ended the command, the same command (or `xp fetch resume
DIR`) goes on: running jobs are found again, finished ones are fetched and removed from the server. The files' names
ascend in source_id: DIR/part-*.parquet is one table for any reader. Without -o DIR/ the same is kept in the cache until
the table has been written.""",
    "SERVICES": """esa (the archive itself), ari, aip, or the address of any TAP service; several with commas are tried
in that order. The truth of has_xp_continuous is written as {true} in --where and --adql: each service gets it as it
takes it. fidelity_v2 is joined from external.gaiaedr3_spurious at esa, elsewhere with --fidelity.""",
    "COLUMNS": """By default every column that a command of xp reads (xp-columns(5)), with xp's types and units.
Other columns keep those of the archive, names in lower case. An unknown value is null.""",
    "STARS": """With --ids the source_id of a table go along with the queries, at most 20,000 at once, and are joined
there (TAP's upload). Those that the table has not are listed in OUTPUT.missing.csv (DIR/missing.csv, or --missing), and
the exit status is 76 and no table is written, unless --allow-missing. With --where or --region, which leave stars out
on purpose, xp only says how many there are; xp join --how anti finds the others.""",
}


@plain_command(
    "get",
    1,
    output=True,
    examples=(
        "xp fetch gaia --plan",
        "xp fetch gaia -o gaia/",
        "xp fetch gaia --where 'parallax > 50' --service esa,aip -o near.parquet",
        "xp fetch gaia --region healpix:5/1024-1027 | xp select -o stars.parquet",
        "xp fetch gaia --ids apogee.parquet --columns ruwe,parallax -o apogee-gaia.parquet",
        "xp fetch gaia --adql query.adql -o own/",
        "xp fetch gaia --from hats gaia_hats/ --where 'parallax > 50' -o near.parquet",
    ),
    see=("fetch", "fetch resume", "fetch status", "select"),
    notes=NOTES,
)
@click.argument("place", default="", metavar="[DIR|URL]")
@click.option("--from", "route", type=click.Choice(["tap", "hats"]), default="tap", show_default=True,
              help="From a TAP service, or a catalogue in HATS at DIR or URL.")  # fmt: skip
@click.option("--service", default="esa", show_default=True, metavar="LIST", help="Services, in the order tried.")
@click.option("--where", default="", metavar="ADQL",
              help="Which rows; 'all' for all of them.  [default: those of Li+ 2026; all with --ids]")  # fmt: skip
@click.option("--columns", default="", metavar="LIST", help="Columns, or * for all.  [default: those that xp reads]")
@click.option("--region", default="", metavar="REGION", 
              help="cone:RA,DEC,RADIUS or box:RA1,RA2,DEC1,DEC2 [deg], or healpix:LEVEL/FIRST-LAST.")  # fmt: skip
@click.option("--ids", default="", metavar="FILE", help="Only the stars of this table, which is uploaded in pieces.")
@shared("missing", "allow-missing")
@click.option("--table", default="gaiadr3.gaia_source", show_default=True, metavar="NAME", help="Table of sources.")
@click.option("--fidelity", default="", metavar="TABLE", help="Table that fidelity_v2 is joined from, or none.")
@click.option("--adql", default="", metavar="FILE|QUERY", help="Another query, instead of the options above.")
@click.option("--whole", is_flag=True, help="Run --adql as it is, in one job (for TOP, ORDER BY, no source_id).")
@click.option("--job-rows", type=click.IntRange(1), default=200_000, show_default=True, help="Rows of a job, at most.")
@click.option("--parallel", type=click.IntRange(1, 8), default=3, show_default=True, help="Jobs at once.")
@click.option("--tries", type=click.IntRange(1), default=6, show_default=True, help="Times a request is made.")
@click.option("--timeout", type=click.FloatRange(0.1), default=60.0, show_default=True, help="Longest silence [s].")
@click.option("--credentials", default="", metavar="FILE", help="File with user and password, or token; mode 600.")
@click.option("--plan", is_flag=True, help="Count the rows, print what the fetch would cost, and stop.")
def command(
    place, route, service, where, columns, region, ids, missing, allow_missing, table, fidelity, adql, whole, job_rows,
    parallel, tries, timeout, credentials, plan, **common,
):  # fmt: skip
    """Fetch rows of Gaia's source table, in any number.

    Rows come by TAP, counted and resumable. Without options: the parent sample of Li+ 2026 (28 million stars within 1
    kpc), with the columns that xp reads, from ESA's archive. They come in the order of source_id, as a stream or a file
    like every command's; or, with -o DIR/, as a folder of Parquet files, in which a fetch of hours can be resumed.
    `--plan` says what it will cost.
    """
    from xptools.archive import gaia
    from xptools.archive.missing import Missing
    from xptools.archive.query import PAPER

    if (route == "hats") != bool(place):
        raise UsageError("a place and --from hats belong together. TRY: --from hats DIR|URL")
    if route == "hats":
        lost = Missing(missing, allow_missing)
        return _from_hats(place, columns, where, region, ids, parallel, timeout, lost, common)
    if adql and (where or columns or region or ids or fidelity):
        raise UsageError(
            "--adql is the whole query. TRY: it without --where, --columns, --region, --ids and --fidelity"
        )
    if whole and not adql:
        raise UsageError("--whole is for --adql. TRY: --adql FILE --whole")
    where = "" if where == "all" or (ids and not where) else where or PAPER
    wish = gaia.Wish(
        _text(adql), whole, tuple(c.strip().lower() for c in columns.split(",") if c.strip()), table,
        where, region, fidelity, service, job_rows, parallel, tries, timeout, credentials,
        not common["no_provenance"], ids, missing, allow_missing,
    )  # fmt: skip
    return carry_out(wish, plan, common)


def _from_hats(place, columns, where, region, ids, parallel, timeout, missing, common) -> None:
    """The same rows of a catalogue in HATS, by the command for those."""
    from click.core import ParameterSource

    from xptools.archive.gaia import is_folder, stars_of
    from xptools.archive.query import PAPER_HATS
    from xptools.commands._fetch_hats import carry_out

    asked = click.get_current_context().get_parameter_source
    tap = ("service", "table", "fidelity", "adql", "whole", "job_rows", "tries", "credentials", "plan")
    if wrong := next((name for name in tap if asked(name) is ParameterSource.COMMANDLINE), None):
        raise UsageError(f"--{wrong.replace('_', '-')} is for TAP services. TRY: --from hats without it")
    if is_folder(common["output"]):
        raise UsageError("--from hats gives one table. TRY: -o FILE")
    where = "" if where == "all" or (ids and not where) else where or PAPER_HATS
    stars = stars_of(ids) if ids else None
    carry_out(place, columns, where, region, False, stars, parallel, timeout, "", missing, common)


def _text(adql: str) -> str:
    """The query itself, from the file if it is one."""
    return Path(adql).read_text() if adql and os.path.isfile(adql) else adql


def carry_out(wish, plan: bool, common: dict) -> None:
    """Plan, fill a folder, or stream: what the options ask for."""
    import dataclasses

    from xptools import progress, stream, terminal
    from xptools.archive import gaia
    from xptools.archive.meter import Meter
    from xptools.io.writer import check

    # What is wrong with the command line is told before anybody is asked.
    wish.query()
    output, named, quiet = common["output"], common["output_format"], common["quiet"]
    folder = gaia.is_folder(output)
    if folder and named not in (None, "parquet"):
        raise UsageError(f"a folder holds Parquet, not {named}. TRY: -o FILE -O {named}")
    if not folder:
        check(output, named, not common.get("no_clobber"))
    shown = output == "-" and common["output_format"] is None and terminal.is_terminal()
    draw = progress.on_terminal() and common["progress"] != "off" and not (quiet or shown)
    if not quiet:
        left = "" if wish.adql or wish.columns or wish.joined() else "; no table of fidelity_v2 is known there"
        progress.say(f"xp fetch gaia: asks {', '.join(s.url for s in wish.services())}{left}")
    meter = Meter("xp fetch gaia", draw)
    tell = (lambda _: None) if quiet else (lambda words: progress.say(f"xp fetch gaia: {words}"))
    try:
        if folder:
            with gaia.opened(wish, Path(output), "parquet", meter, tell) as source:
                return _planned(source) if plan else _filled(source)
        with gaia.place(wish) as kept, gaia.opened(wish, kept, "arrow", meter, tell, output) as source:
            if plan:
                return _planned(source)
            source.fetch.start()
            stream.run([stream.Plan(source)], dataclasses.replace(run_options(common), progress="off"))
            gaia.settled(source.fetch)
    finally:
        meter.close()
        if draw and not plan:
            progress.say(f"xp fetch gaia: {meter.words()}, {meter.seconds:.0f} s")


def _filled(source) -> None:
    source.fetch.start()
    source.fetch.wait()


def _planned(source) -> None:
    from xptools.archive import gaia

    rows, ranges = source.fetch.count(), source.fetch.manifest.ranges()
    if any(r.expected is None for r in ranges):
        click.echo(f"{source.adql}\na number of rows that is not known, in one job")
        return
    jobs = sum(bool(r.expected) for r in ranges)
    click.echo(f"{source.adql}\n{gaia.planned(source.schema(), rows, jobs)}")
