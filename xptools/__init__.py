"""xptools: stellar spectra and catalogues in pipes. `xptools.op("mass --model m.safetensors")` is a step for Python."""

__all__ = ["__version__", "op", "through"]

__version__ = "0.1.0"  # here, since to look it up in the installed package's metadata takes longer than to read a table


def op(command_line: str):
    """The step that `xp COMMAND_LINE` would run, as an object: `step(record_batch) -> record_batch`.

    It parses exactly as the shell does. A step is picklable, comparable and cheap; models load on first use.
    """
    from xptools.cli import parse_step

    return parse_step(command_line).step


def through(steps, table, rows: int = 16384):
    """Steps over any table with an Arrow C stream (polars, DuckDB, pyarrow).

    `steps` is one step of `op`, several, or a pipe as text: "deredden --map none | mass". Returns a
    pyarrow.RecordBatchReader that computes as it is read (a Fold such as mf, which comes last, at once);
    `polars.from_arrow(...)` and `.read_all()` take it.
    """
    from xptools import stream

    if isinstance(steps, str):
        from xptools.commands.run import plans

        steps = plans(steps)
    return stream.through(steps, table, rows)

