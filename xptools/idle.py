"""Options that a user typed although they have no effect: said, not passed over.

A default may stand, and a configuration may hold settings for other runs of the same command.
"""

import click
from click.core import ParameterSource

from xptools.errors import UsageError


def typed(name: str) -> bool:
    """Whether the user typed this option (by its parameter's name): no default, nothing of a configuration."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.COMMANDLINE


def refuse_idle(names: tuple[str, ...], why: str, cure: str) -> None:
    """UsageError for the first of these options that the user typed although it has no effect."""
    if name := next((n for n in names if typed(n)), None):
        raise UsageError(f"--{name.replace('_', '-')} has no effect {why}. TRY: {cure}")


def refuse_idle_map(map_file: str, *others: str) -> None:
    """Where no 3D map is used: UsageError for a map's file, and for `others` that the user typed.

    The file may come from a configuration, unless the map's name was forgotten there as well.
    """
    forgotten = click.get_current_context().get_parameter_source("map_") is ParameterSource.DEFAULT
    why, cure = "without a 3D dust map", "--map edenhofer2023 as well, or another map"
    if map_file and forgotten:
        raise UsageError(f"--map-file has no effect {why}. TRY: {cure}")
    refuse_idle(("map_file", *others), why, cure)
