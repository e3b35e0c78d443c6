"""`xp fetch data`: files that papers need, each with its record, size, checksum, licence and citation."""

from pathlib import Path

import click

from xptools.errors import UsageError
from xptools.options import plain_command

NOTES = {
    "WHERE": """Dust maps go to the data folder of dustmaps (DUSTMAPS_CONFIG_FNAME, ~/.dustmapsrc), where xp deredden
and dustmaps itself look; the rest goes to the cache (XP_CACHE), or all to --to DIR. What already is under a folder of
XP_DATA or INPUT_DIR, or in the cache, is compared and not downloaded.""",
    "CHECKING": """Size and checksum are those of the manifest, or those that the record on Zenodo or Dataverse states
when it is asked. Where none is published, xp says so, notes the sha256 of the first download beside the file
(FILE.sha256, as sha256sum writes it), and compares with that from then on. A web page instead of data, a wrong size or
a wrong checksum: refused, nothing is put in place. A download that was cut goes on where it was. BaSTI's isochrones
come in archives: all tables of all of them are read before any is put in place, and tables that somebody put there by
hand are read too.""",
}


@plain_command(
    "get",
    4,
    examples=(
        "xp fetch data --list",
        "xp fetch data edenhofer2023 zgr23-curve",
        "xp fetch data --to /shared/input aspgap",
    ),
    see=("fetch-recipe", "deredden", "doctor"),
    notes=NOTES,
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--list", "listed", is_flag=True, help="List what there is, with sizes, licences and what is here; stop.")
@click.option("--to", default="", metavar="DIR", help="Folder to download into instead.")
@click.option("--manifest", default="", metavar="FILE", help="Another manifest, whose entries add to or replace ours.")
@click.option("--again", is_flag=True, help="Compare what is here with the record, and download what differs.")
def command(names, listed, to, manifest, again, quiet, progress):
    """Download named files: dust maps, catalogues, models.

    `xp fetch data --list` shows every NAME, how large it is and whether it is here. Sizes are said before a download
    begins, checksums compared after it.
    """
    from xptools import progress as screen
    from xptools import settings
    from xptools.archive import datafiles

    place = Path(to).expanduser() if to else None
    if listed:
        return click.echo(listing(names, manifest, place))
    if not names:
        raise UsageError("name what to fetch. TRY: xp fetch data --list")
    from xptools.archive.http import Client

    say = (lambda _: None) if quiet else screen.say
    found = datafiles.states(datafiles.named(names, manifest), whole=True, to=place)
    if settings.offline():
        datafiles.missing(found)
    draw = progress != "off" and not quiet and screen.on_terminal()
    for state in found:
        if state.path is not None and not state.fault and not again:
            say(f"xp fetch data: {state.file.key} is here: {state.path}")
    for path in datafiles.fetch(found, lambda: datafiles.Fetcher(Client(), place, draw, say), again):
        click.echo(path)
    return None


def listing(names: tuple[str, ...] = (), manifest: str = "", to: Path | None = None) -> str:
    """What there is of these names (none: of all), as text."""
    from xptools.archive import datafiles

    every = tuple(e.key for e in datafiles.every(manifest))
    return datafiles.table(datafiles.states(datafiles.named(names or every, manifest), to=to))
