"""`xp cite`: what to cite for a table, as BibTeX, from the table's own history."""

import click

from xptools.options import plain_command


@plain_command(
    "help",
    1,
    examples=(
        "xp cite masses.parquet > paper.bib",
        "xp mock 100 | xp deredden --map none | xp cite --list",
        "xp cite --list",
    ),
    see=("info",),
)
@click.option("--list", "listed", is_flag=True, help="One line for each paper: its key, and the commands it is for.")
@click.argument("input", default="", metavar="[INPUT]")
def command(listed, input):
    """Print what to cite for a table: BibTeX of all that its history names, and of Gaia and xp.

    INPUT is any table that convert reads; - is standard input, and so is a pipe if INPUT is left out.
    Without a table, everything in xp's bibliography is printed. Keys in the history that the bibliography does not
    know (of a newer xp, or of somebody else's step) are reported on standard error.
    """
    from xptools import progress, references

    source = input or _piped()
    owed = _owed(source) if source else {key: [] for key in references.entries()}
    found, unknown = references.of(list(owed))
    names = {references.of([key])[0][0].key: owed[key] for key in owed if key not in unknown}
    if listed:
        lines = [f"{e.key:<18} {e.line()}{_for(names.get(e.key, []))}" for e in found]
        click.echo("\n".join(lines))
    else:
        click.echo("\n\n".join(e.text for e in found))
    for key in unknown:
        progress.say(f"xp cite: {key!r} ({', '.join(owed[key])}) is not in xp's bibliography; look it up by hand")


def _for(commands: list[str]) -> str:
    return f" [{', '.join(commands)}]" if commands else ""


def _piped() -> str:
    """ "-" if a table may come on standard input: a pipe or a file, not a terminal or /dev/null."""
    import os
    import stat

    try:
        kind = os.fstat(0).st_mode
    except OSError:
        return ""
    return "-" if stat.S_ISFIFO(kind) or (stat.S_ISREG(kind) and os.fstat(0).st_size) else ""


def _owed(source: str) -> dict[str, list[str]]:
    """Keys in the order of the history -> the commands that owe them; what every table owes comes last."""
    from xptools import references

    owed: dict[str, list[str]] = {}
    for record in _history(source):
        for key in record.get("cites", []):
            owed.setdefault(key, []).append(record["cmd"])
    return {k: list(dict.fromkeys(v)) for k, v in owed.items()} | {k: owed.get(k, []) for k in references.ALWAYS}


def _history(source: str) -> list[dict]:
    from xptools import io, metadata

    with io.open_reader(source) as reader:
        return metadata.history(reader.schema)
