"""`xp run`: a whole pipe in one process, batches handed from step to step without serialising."""

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


@plain_command(
    "tables",
    5,
    output=True,
    examples=(
        "xp run 'deredden --map none | mass' stars.parquet -o masses.parquet",
        "xp run 'mock 100000 | deredden --map none | mass | veff | mf --method exact' -o phi.parquet",
    ),
    see=("pipes",),
)
@click.argument("pipe")
@click.argument("input", default="-", metavar="[INPUT]")
def command(pipe, input, **common):
    """Run a pipe of commands in one process: the same rows and the same history as the shell's pipe, but faster.

    PIPE is written as in the shell, in one pair of quotes, with or without `xp` before each command. The first command
    may be one that makes rows (mock); the last may be one that counts them (mf). Nothing is serialised in between.
    --seed, --config and --replace of xp run hold for every step.
    """
    import os
    from dataclasses import replace

    from xptools import stream
    from xptools.protocol import Source

    _hand_down(common)
    steps = [replace(plan, replace=plan.replace or common["replace"]) for plan in plans(pipe)]
    if input == "-" and os.isatty(0) and not isinstance(steps[0].step, Source):
        click.echo("No INPUT, and standard input is a terminal. TRY: xp run --help", err=True)
        click.get_current_context().exit(64)
    options = run_options({**common, "input": input})
    options.report = _report(steps[-1].step.name)
    stream.run(steps, options)


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
