"""`xp run`: a whole pipe in one process, or over many files: batches go from step to step without serialising."""

import click

from xptools.errors import UsageError
from xptools.options import plain_command, run_options


def plans(pipe: str) -> list:
    """The steps of 'a --x | b | c' as stream.Plans, parsed as the shell would."""
    import shlex

    from xptools.cli import parse_step

    lexer = shlex.shlex(pipe, posix=True, punctuation_chars="|")
    lexer.whitespace_split = True
    stages: list[list[str]] = [[]]
    for word in lexer:
        if word == "|":
            stages.append([])
        else:
            stages[-1].append(word)
    if not all(stages):
        raise UsageError(f"the pipe {pipe!r} has an empty step. TRY: xp run 'deredden --map none | mass' in.parquet")
    return [parse_step(words[1:] if words[0] == "xp" else words) for words in stages]


NOTES = {
    "MANY FILES": """With OUTPUT every table in the folder INPUT becomes a Parquet file of the same name in the folder
OUTPUT, with the very bytes that xp run gives for that file alone. Tables are Parquet, Arrow, FITS, VOTable, ECSV and
CSV files, packed or not, at any depth; what begins with a dot or an underscore is none. One Parquet file as INPUT is
cut into runs of row groups: part-00000.parquet and so on, together the rows of the file in their order.

A HATS catalogue (a folder with hats.properties) becomes a HATS catalogue with the same partitions, less those that no
row is left of; its properties, partition_info.csv, _metadata and _common_metadata are made anew. Margin caches and
indexes of a collection are not made; maps of the sky (skymap.fits) come along only if no row was dropped.

If the last command of PIPE counts rows (mf, select --cutflow, info --stats), there is no OUTPUT: one table comes out
(-o), of the rows of all files, the same to the last bit for any number of processes. It is counted from the start each
time.""",
    "AGAIN": """Given again, the same command makes only the parts that are missing, and those whose input has changed,
which it names. OUTPUT/.xp-run says by which steps, models and versions the parts are made, and of which bytes: in a
folder made by others the command ends with status 73. Nothing of a part is there before all of it is. One command at a
time works in a folder; a second one ends with status 75.

An input that cannot be read is named, all others are done, and the command ends with status 65. A full disk or a
missing model ends it at once; so does the death of the cluster (status 75).""",
    "MANY PROCESSES": """--jobs starts worker processes, each pinned to its share of the cores and with the models
loaded once. When one is killed its unit is done again. --scheduler and --scheduler-file use a Dask cluster that is
there; --slurm starts one, for example --slurm queue=short,walltime=2h,cores=8,mem=32GB,jobs=20 (also account,
processes). Both need pip install 'xptools[cluster]', the same version of xp on all machines, and a file system that
they share; only names and counts cross the network. Start workers with dask worker --nthreads 1 --death-timeout 60.

--shard K/N does every N-th unit from the K-th on, and needs no cluster software: in a SLURM job array
xp run PIPE in/ out/ --shard $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT. The last shard to end completes a
catalogue.""",
    "OTHER ENGINES": """Steps take and give Arrow, so they run inside other engines as well. In Python, with
import pandas as pd, polars as pl, pyarrow as pa, duckdb, lsdb, xptools:

\b
polars  frame.lazy().map_batches(lambda f: pl.from_arrow(xptools.through("mass", f)),
                                 validate_output_schema=False)
DuckDB  masses = xptools.through("mass", duckdb.sql("from 'stars.parquet'")).read_all()
        duckdb.sql("select avg(mass) from masses")
LSDB    def masses(frame):
            table = pa.Table.from_pandas(pd.DataFrame(frame), preserve_index=False)
            return xptools.through("mass", table).read_all().to_pandas()
        lsdb.open_catalog("gaia.hats", columns="all").map_partitions(masses).compute()
Spark   step = xptools.op("mass")
        frame.mapInArrow(lambda batches: map(step, batches), "source_id long, ...")""",
}


@plain_command(
    "tables",
    5,
    output=True,
    examples=(
        "xp run 'deredden --map none | mass' stars.parquet -o masses.parquet",
        "xp run 'mock 100000 | deredden --map none | mass | veff | mf --method exact' -o phi.parquet",
        "xp run 'deredden --map none | mass' stars.parquet parts --jobs 2",
        "xp run 'mass | veff | mf --method exact' gaia/ -o phi.parquet --jobs 8",
        "xp run 'feh | mass' gaia.hats/ masses.hats/ --scheduler-file scheduler.json",
    ),
    see=("pipes",),
    notes=NOTES,
)
@click.argument("pipe")
@click.argument("input", default="-", metavar="[INPUT]")
@click.argument("folder", default="", metavar="[OUTPUT]")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Worker processes on this machine.")
@click.option("--scheduler", metavar="ADDRESS", default="", help="Dask scheduler that does the work (tcp://host:8786).")
@click.option("--scheduler-file", metavar="FILE", default="", help="The scheduler's file, instead of its address.")
@click.option("--slurm", metavar="WORDS", default="", help="SLURM jobs that do the work: queue=...,cores=...,mem=...")
@click.option("--shard", metavar="K/N", default="", help="Do every N-th unit only, beginning with the K-th.")
@click.option("--unit-rows", type=click.IntRange(1), default=1_000_000, show_default=True,
              help="Rows of a unit where INPUT is one Parquet file, as near as its row groups allow.")  # fmt: skip
def command(pipe, input, folder, jobs, scheduler, scheduler_file, slurm, shard, unit_rows, **common):
    """Run a pipe of commands in one process, or over many files in many: the same rows and history as the shell's pipe.

    PIPE is written as in the shell, in one pair of quotes, with or without `xp` before each command. The first command
    may be one that makes rows (mock); the last may be one that counts them (mf, info --stats). Nothing is serialised in
    between. --seed, --config and --replace of xp run hold for every step.

    With the folder OUTPUT every file of INPUT, which may be a folder or a HATS catalogue, becomes a file there.
    """
    from dataclasses import replace

    from xptools import stream

    _hand_down(common)
    steps = [replace(plan, replace=plan.replace or common["replace"]) for plan in plans(pipe)]
    engines = {"--jobs": jobs > 1, "--scheduler": scheduler, "--scheduler-file": scheduler_file, "--slurm": slurm}
    engines |= {"--shard": shard}
    asked = [name for name, given in engines.items() if given]
    _one_engine(asked)
    options = run_options({**common, "input": input})
    options.report = _report(steps[-1].step.name)
    if not _many(steps, input, folder, asked, common):
        _input_or_usage(steps, input)
        stream.run(steps, options)
        return
    from xptools.scale.conduct import Wish, conduct

    wish = Wish(input, folder, unit_rows, jobs, scheduler, scheduler_file, slurm, _shard(shard), common["debug"])
    conduct(steps, wish, options)


def _one_engine(asked: list[str]) -> None:
    remote = [name for name in asked if name not in ("--shard", "--jobs")]
    if len(remote) > 1 or (remote and len(asked) > 1):
        raise UsageError(f"{' and '.join(asked)} do not go together. TRY: one of them")


def _many(steps: list, input: str, folder: str, asked: list[str], common: dict) -> bool:
    """Whether the run is over units; UsageError for what does not go with that, or without."""
    from pathlib import Path

    from xptools.protocol import Fold

    counts = isinstance(steps[-1].step, Fold)
    if not (folder or asked or Path(input).is_dir()):
        return False
    if input == "-":
        raise UsageError(f"{asked[0] if asked else 'OUTPUT'} needs an INPUT that has a name. TRY: xp run PIPE in/ out/")
    if counts and (folder or "--shard" in asked):
        what = "the folder OUTPUT" if folder else "--shard"
        raise UsageError(f"{steps[-1].step.name} makes one table, so {what} has no use. TRY: -o FILE")
    if not counts and not folder:
        raise UsageError("the parts of many go to a folder. TRY: xp run PIPE in/ out/")
    if folder and (common["output"] != "-" or common["output_format"]):
        raise UsageError("with the folder OUTPUT there is no -o and no -O: its parts are Parquet. TRY: without them")
    return True


def _shard(text: str) -> tuple[int, int] | None:
    """0/4 to 3/4, or 1/4 to 4/4, as SLURM's arrays count: (place from 0, how many)."""
    if not text:
        return None
    k, slash, n = text.partition("/")
    if not (slash and k.isdigit() and n.isdigit() and 0 <= int(k) <= int(n) and int(n) > 0):
        raise UsageError(f"--shard is K/N with K of 0 to N-1 or 1 to N, not {text!r}. TRY: --shard 0/4")
    return int(k) % int(n), int(n)


def _input_or_usage(steps: list, input: str) -> None:
    import os

    from xptools.protocol import Source

    if input == "-" and os.isatty(0) and not isinstance(steps[0].step, Source):
        click.echo("No INPUT, and standard input is a terminal. TRY: xp run --help", err=True)
        click.get_current_context().exit(64)


def _hand_down(common):
    """Let the steps find what was given to xp run: their own options come before the environment."""
    import os

    from click.core import ParameterSource

    ctx = click.get_current_context()
    for name in ("seed", "config"):
        if ParameterSource.COMMANDLINE in (c.get_parameter_source(name) for c in (ctx, ctx.find_root())):
            os.environ[f"XP_{name.upper()}"] = str(common[name])


def _report(name: str):
    from importlib import import_module

    return import_module(f"xptools.commands.{name}").command.about.report
