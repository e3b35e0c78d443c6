"""`xp fetch recipe`: all that a paper needs from outside, listed with sizes, then fetched step by step."""

from pathlib import Path

import click

from xptools.errors import UnavailableError, UsageError
from xptools.options import plain_command


@plain_command(
    "get",
    6,
    examples=(
        "xp fetch recipe li2026 --list",
        "xp fetch recipe laroche2024 --to data",
        "xp fetch recipe zhang2026 masses labels --to data",
    ),
    see=("fetch-data", "fetch-gaia", "fetch-xp", "fetch-parsec"),
    notes={
        "STEPS": """Each step is a command of xp, shown before it runs; a step whose file is there is not run again, and
each of them resumes, so that the same recipe goes on where it was cut off. A step may need what an analysis makes, such
as the model that chooses the stars whose spectra are wanted: where that is not there yet the other steps are done, and
the status is 69, with the file named and how it is made; the same command then does the rest.""",
    },
)
@click.argument("name", metavar="NAME")
@click.argument("steps", nargs=-1, metavar="[STEP]...")
@click.option("--list", "listed", is_flag=True, help="Show the steps, their sizes and what is here; stop.")
@click.option("--to", default=".", show_default=True, metavar="DIR", help="Folder for what has no place of its own.")
def command(name, steps, listed, to, quiet):
    """Get what a paper needs: catalogues, spectra, maps, isochrones. NAME: li2026, zhang2026, laroche2024.

    The list with sizes comes first; then one step after the other, or only those that are named. `--list` shows it
    only, and needs no network.
    """
    from xptools.archive import recipe
    from xptools.recipes import recipes

    if name not in recipes():
        raise UsageError(f"there is no recipe {name!r}. TRY: {', '.join(recipes())}")
    place = Path(to).expanduser()
    chosen = recipe.chosen(recipes()[name], steps)
    click.echo(recipe.table(recipes()[name].title, chosen, place), err=not listed)
    if listed:
        return
    place.mkdir(parents=True, exist_ok=True)
    waiting = []
    for step in chosen:
        state = recipe.look(step, place)
        if state.waits:
            waiting.append(state.waits)
        elif not state.here or step.data:
            _run(recipe.words(step, place), quiet)
    if waiting:
        raise UnavailableError(f"what is left needs {'; '.join(waiting)}. TRY: that, then the same command")


def _run(words: list[str], quiet: bool) -> None:
    """One command of xp in this process, under the same global options."""
    root = click.get_current_context().find_root()
    with root.command.make_context("xp", [*(["--quiet"] if quiet else []), *words]) as ctx:
        root.command.invoke(ctx)
