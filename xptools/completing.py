"""What a shell offers for an option's value: files, folders, names of maps, columns of the table on the line."""

import os
from collections.abc import Callable
from pathlib import Path

import click

MAPS = ("edenhofer2023", "bayestar2019", "none", "list")
PLACES = {"FILE": "file", "PATH": "file", "[INPUT]": "file", "INPUT": "file", "[INPUT]...": "file", "DIR": "dir"}
COLUMNS = ("NAMES", "OLD=NEW", "NAME=UNIT", "EXPR", "COLUMN", "COLUMNS")


def offer(p: click.Parameter) -> Callable | None:
    """What completes a parameter that says nothing itself, judged by its metavar; None if nothing does."""
    if p.name == "map_":
        return _maps
    if p.metavar in PLACES:
        return lambda _ctx, _p, begun: _items([begun], PLACES[p.metavar])
    return _columns if p.metavar in COLUMNS else None


def _items(values: list[str], kind: str = "plain") -> list:
    from click.shell_completion import CompletionItem  # only a shell that asks pays for it

    return [CompletionItem(value, type=kind) for value in values]


def _maps(_ctx: click.Context, _p: click.Parameter, begun: str) -> list:
    return _items([name for name in MAPS if name.startswith(begun)])


def _columns(_ctx: click.Context, _p: click.Parameter, begun: str) -> list:
    """Names in the first table that the whole line mentions; after a comma the next name."""
    done, comma, word = begun.rpartition(",")
    return _items([f"{done}{comma}{name}" for name in _names() if name.startswith(word)])


def _names() -> list[str]:
    from click.shell_completion import split_arg_string

    from xptools.errors import XpError

    words = split_arg_string(os.environ.get("COMP_WORDS", ""))
    table = next((w for w in words[1:] if Path(w).is_file()), None)
    if table is None:
        return []
    from xptools import io  # a third of a second, paid only when names are asked for

    try:
        with io.open_reader(table) as reader:
            return list(reader.schema.names)
    except (XpError, OSError, ValueError):
        return []  # a shell cannot show why; the command itself will


__all__ = ["offer"]
