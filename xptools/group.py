"""Groups of subcommands found by file name: `xp train MODEL` is commands/_train_<model>.py, and so on."""

from importlib import import_module
from pathlib import Path

import click

from xptools.options import About

COMMANDS = Path(__file__).parent / "commands"


class Found(click.Group):
    """A group whose subcommands are the modules _<group>_<name>.py with a `command`, imported when asked for."""

    def __init__(self, name: str, about: About, **settings):
        super().__init__(name, context_settings={"help_option_names": ["-h", "--help"]}, **settings)
        self.about, self.prefix = about, f"_{name}_"

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(p.stem.removeprefix(self.prefix) for p in COMMANDS.glob(f"{self.prefix}*.py"))

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(ctx):
            return None
        return import_module(f"xptools.commands.{self.prefix}{name}").command
