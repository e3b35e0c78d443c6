"""`xp fetch status`: how far a fetch into a folder has come."""

from pathlib import Path

import click

from xptools.options import plain_command


@plain_command("get", 10, examples=("xp fetch status gaia/", "xp fetch status --json gaia/"),
               see=("fetch gaia", "fetch resume", "fetch verify", "fetch cancel"))  # fmt: skip
@click.argument("folder", metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="The answer as JSON.")
def command(folder, as_json):
    """Say how far a fetch has come.

    Its manifest in DIR is read; the network is not used.
    Status 0: all rows are there. 75: something is left to do. 76: the archive gave fewer rows than it counts in some
    ranges, which are named, or has not all stars of --ids.
    """
    from xptools.archive import gaia

    manifest, _ = kept(folder)
    told = gaia.summary(manifest)
    manifest.close()
    if as_json:
        import json

        click.echo(json.dumps(told, indent=1))
    else:
        click.echo("\n".join(_lines(told)))
    states, lacks = told["states"], told["missing"] and not told["wish"].get("allow_missing")
    click.get_current_context().exit(75 if states["todo"] or states["open"] else 76 if states["short"] or lacks else 0)


def kept(folder: str):
    """The manifest in a folder, and what the fetch was told."""
    from xptools.archive.gaia import Wish
    from xptools.archive.manifest import Manifest
    from xptools.errors import InputError

    if (Path(folder) / "request.json").exists():
        raise InputError(f"{folder} holds parts of xp fetch xp or hats. TRY: the command that made them, which goes on")
    manifest = Manifest(Path(folder), make=False)
    words = manifest.word("wish")
    if words is None:
        raise InputError(f"the fetch in {folder} was never begun. TRY: xp fetch gaia -o {folder}/")
    return manifest, Wish(**{k: tuple(v) if isinstance(v, list) else v for k, v in words.items()})


def _lines(told: dict) -> list[str]:
    from xptools.archive.meter import size

    states = told["states"]
    whole = f"{told['expected']:,}" if told["expected"] is not None else "a number not yet counted"
    lines = [
        f"service  {told['wish']['service']}",
        f"rows     {told['rows']:,} of {whole}, {size(told['bytes'])}",
        f"ranges   {states['done']} done, {states['todo'] + states['open']} left, {states['short']} short",
        f"jobs     {len(told['jobs'])} on the server",
    ]
    if told["missing"]:
        lines.append(f"missing  {told['missing']:,} of the stars asked for are not in {told['wish']['table']}")
    for r in told["short"]:
        lines.append(f"short    source_id {r['lo']} to {r['hi']}: {r['rows']} rows, counted {r['expected']}")
    return lines
