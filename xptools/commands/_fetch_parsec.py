"""`xp fetch parsec`: PARSEC isochrones in Gaia's passbands through the CMD form."""

from itertools import pairwise
from pathlib import Path

import click

from xptools.errors import UsageError
from xptools.options import plain_command


@plain_command(
    "get",
    5,
    examples=(
        "xp fetch parsec --mh -2.2:0.5:0.1 --logage 9.0:10.1:0.1 -o parsec",
        "xp fetch parsec --mh -1.5,-1 --logage 10 -o parsec --plan",
    ),
    see=("train-mass", "veff"),
    notes={
        "TABLES": """PARSEC 1.2S with bolometric corrections of YBC, Gaia EDR3 passbands, no extinction, no dust of the
stars' own, mass loss on the giant branch 0.2. One file per [M/H], parsec_mh-1.500.dat, with all ages in it. A file
counts if xp can read it, if it is whole, and if every age asked for is in it within 0.005 dex, [M/H] within 0.02 dex;
files that count are not asked for again, so the same command goes on where it was cut off.""",
        "MANNERS": """One request at a time, --pause seconds between two. The form's fields are those of CMD 3.9; where
the form is newer and refuses, xp says its words.""",
    },
)
@click.option("--mh", required=True, metavar="LO:HI:STEP", help="Metallicities [M/H] [dex], or a list with commas.")
@click.option("--logage", required=True, metavar="LO:HI:STEP", help="Ages as log10(age/yr), or a list with commas.")
@click.option("-o", "--output", required=True, metavar="DIR", help="Folder for the tables.")
@click.option("--service", default="", metavar="URL", help="Another address of the form.")
@click.option("--pause", type=click.FloatRange(0), default=5.0, show_default=True, help="Wait between requests [s].")
@click.option("--timeout", type=click.FloatRange(0.1), default=300.0, show_default=True, help="Longest silence [s].")
@click.option("--plan", is_flag=True, help="Print how many tables would be asked for and stop.")
def command(mh, logage, output, service, pause, timeout, plan, quiet):
    """Get PARSEC isochrones for `xp train mass` and `xp veff`, one table per metallicity.

    Tables that are in the folder and whole stay; the rest is asked for, politely, one after the other.
    """
    from xptools import progress
    from xptools.archive import parsec
    from xptools.archive.http import Client
    from xptools.errors import DataError

    metals, ages = _values("mh", mh, parsec.grid), _values("logage", logage, parsec.grid)
    steps = {round(b - a, 5) for a, b in pairwise(ages)}
    if len(steps) > 1:
        raise UsageError(f"--logage {logage!r} is not evenly spaced, as the form wants it. TRY: 9.0:10.1:0.1")
    folder = Path(output).expanduser()

    def lacks(metal: float) -> bool:
        path = folder / parsec.name(metal)
        try:
            return not path.is_file() or bool(parsec.fault(path, metal, ages))
        except DataError:
            return True

    wanted = [m for m in metals if lacks(m)]
    say = (lambda _: None) if quiet else progress.say
    # A table of one age has some 400 rows of 330 bytes.
    size = len(wanted) * len(ages) * 0.13
    say(f"xp fetch parsec: {len(wanted)} of {len(metals)} tables to get, {len(ages)} ages each, about {size:.1f} MB")
    if plan or not wanted:
        return
    client = Client(timeout, parallel=1)
    folder.mkdir(parents=True, exist_ok=True)
    form = parsec.Form(client, service or parsec.CMD, ages)
    for k, metal in enumerate(wanted, 1):
        if k > 1:
            client.rest(pause)
        path = form.table(metal, folder / parsec.name(metal))
        say(f"xp fetch parsec: {k}/{len(wanted)} {path}")


def _values(option: str, text: str, grid) -> tuple[float, ...]:
    try:
        return grid(text)
    except (ValueError, ZeroDivisionError) as fault:
        raise UsageError(f"--{option} {text!r} is no list: {fault}. TRY: --{option} LO:HI:STEP or a,b,c") from fault
