"""`xp fetch recipe`: all that a paper needs from outside, listed with sizes, then fetched step by step."""

from pathlib import Path

import click

from xptools.errors import UsageError
from xptools.options import plain_command


@plain_command(
    "get",
    6,
    examples=("xp fetch recipe li2026 --list", "xp fetch recipe laroche2024 --to data"),
    see=("fetch-data", "fetch-gaia", "fetch-xp", "fetch-parsec"),
    notes={
        "STEPS": """Each step is a command of xp, shown before it runs; each resumes, so the same recipe goes on where
it was cut off. Steps that need the result of an analysis (spectra of stars still to be chosen) are shown, not run.""",
    },
)
@click.argument("name", metavar="NAME")
@click.option("--list", "listed", is_flag=True, help="Show the steps, their sizes and what is here; stop.")
@click.option("--to", default=".", show_default=True, metavar="DIR", help="Folder for what has no place of its own.")
def command(name, listed, to, quiet):
    """Get what a paper needs: catalogues, spectra, maps, isochrones. NAME: li2026, zhang2026, laroche2024.

    The list with sizes comes first; then one step after the other. `--list` shows it only, and needs no network.
    """
    from xptools.archive import datafiles
    from xptools.recipes import recipes

    if name not in recipes():
        raise UsageError(f"there is no recipe {name!r}. TRY: {', '.join(recipes())}")
    recipe, place = recipes()[name], Path(to).expanduser()
    lines = [recipe.title]
    for k, step in enumerate(recipe.steps, 1):
        size, state = f"about {step.about}" if step.about else "", ""
        if step.data:
            (found,) = datafiles.states(datafiles.named((step.data,)))
            size, state = datafiles.size(found.file), " (here)" if found.path and not found.fault else ""
        how = f"later: {step.later.replace('{to}', str(place))}" if step.later else f"xp {' '.join(step.words(place))}"
        lines.append(f"{k}. {step.what}: {size}{state}\n   {how}")
    click.echo("\n".join(lines), err=not listed)
    if not listed:
        place.mkdir(parents=True, exist_ok=True)
        for step in recipe.steps:
            if step.run:
                _run(step.words(place), quiet)


def _run(words: list[str], quiet: bool) -> None:
    """One command of xp in this process, under the same global options."""
    root = click.get_current_context().find_root()
    with root.command.make_context("xp", [*(["--quiet"] if quiet else []), *words]) as ctx:
        root.command.invoke(ctx)
