"""`xp fetch`: one subcommand per kind of thing, found by file name: _fetch_<what>.py beside this file."""

import click

from xptools.group import Found
from xptools.options import About

EXAMPLES = (
    "xp fetch --list",
    "xp fetch gaia --plan",
    "xp fetch gaia -o gaia/",
    "xp fetch resume gaia/",
    "xp fetch recipe --list li2026",
)


def _list(ctx: click.Context, _option: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from xptools.commands._fetch_data import listing
        from xptools.recipes import recipes

        click.echo(listing())
        click.echo("\n".join(["", *(f"recipe {r.name:<17} {r.title}" for r in recipes().values())]))
        ctx.exit()


command = Found(
    "fetch",
    About("get", 1, "group", examples=EXAMPLES, see=("mock", "join", "doctor")),
    help="""Get data from the archives: catalogues, spectra, files. The only command that uses the network.

    What is to be had: xp fetch WHAT --help. A fetch that was cut off goes on when it is run again.
    """,
    short_help="Get data from the archives; resumable, checked.",
    subcommand_metavar="WHAT [ARGS]...",
    params=[
        click.Option(
            ["--list"],
            is_flag=True,
            expose_value=False,
            is_eager=True,
            callback=_list,
            help="List the files for fetch data, with sizes, licences and what is here, and the recipes; stop.",
        )
    ],
)
