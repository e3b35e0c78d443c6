"""`xp info`: what is in a table or a model file: columns, units, rows, history, statistics, the first rows."""

import click

from xptools.options import UsageError, plain_command

NOTES = {
    "MANY FILES": """At the end of a pipe of xp run it is `info --stats`, and gives a table instead: one row for each
numeric column, and for each element of arrays, with count, unknown, min, max, mean and sd over all rows of all files.
These are the figures that normalise spectra: xp run 'info --stats' gaia/ -o norms.parquet --jobs 8."""
}


def _statistics(stats, rows, columns, history, as_json, input):
    """What `info` is in a pipe."""
    from xptools.commands._info_stats import Statistics

    if not stats or rows or columns or history or as_json is not None:
        raise UsageError("in a pipe info is `info --stats`, without other options. TRY: xp info on the output")
    return Statistics()


@plain_command(
    "tables",
    1,
    examples=("xp info stars.parquet", "xp info --stats --json stars.parquet", "xp info model.safetensors"),
    see=("convert", "cite", "run"),
    notes=NOTES,
    step=_statistics,
)
@click.option("--head", "rows", type=click.IntRange(0), default=0, help="Show the first N rows.")
@click.option("--stats", is_flag=True, help="Count, minimum, maximum, mean and standard deviation of every column.")
@click.option("--columns", is_flag=True, help="Only the column names, one a line.")
@click.option("--history", is_flag=True, help="Only the history: every command with all its parameters.")
@click.option("--json/--text", "as_json", default=None, help="JSON or text; text on a terminal, JSON otherwise.")
@click.argument("input", default="-", metavar="[INPUT]")
def command(rows, stats, columns, history, as_json, input):
    """Show what is in a table, or in a model file: format, rows, columns with units, and its history.

    Reads every format that convert reads, on stdin too; adds nothing to the history. Rows are counted by reading the
    table through where no header says how many there are. On a terminal the answer is text, otherwise JSON.
    """
    import os

    from xptools import inspection, terminal

    if input == "-" and os.isatty(0):
        click.echo("No INPUT, and standard input is a terminal. TRY: xp info --help", err=True)
        click.get_current_context().exit(64)
    answer = inspection.model(input) if inspection.is_model(input) else inspection.table(input, rows, stats)
    if columns:
        answer = {"names": [c["name"] for c in answer.get("columns", [])]}
    elif history:
        answer = {"history": answer.get("history", [])}
    text = terminal.is_terminal() if as_json is None else not as_json
    if text:
        terminal.show(*inspection.rendered(answer))
    else:
        import json

        out = terminal.claim()
        out.write(json.dumps(answer, indent=1).encode() + b"\n")
        out.flush()
