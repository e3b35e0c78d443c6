"""`xp train`: one subcommand per model that can be trained, found by file name: _train_<model>.py beside this file."""

from importlib import import_module
from pathlib import Path

import click

from xptools.options import About

HERE = Path(__file__).parent
PREFIX = "_train_"


class Trainables(click.Group):
    """A group whose commands are the modules _train_<name>.py, imported when they are asked for."""

    about = About("models", 10, "group", examples=("xp train mass -o m.safetensors",), see=("mass", "info"))

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(p.stem.removeprefix(PREFIX) for p in HERE.glob(f"{PREFIX}*.py"))

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.list_commands(ctx):
            return None
        return import_module(f"xptools.commands.{PREFIX}{name}").command


command = Trainables(
    "train",
    help="""Train a model and write it as one self-describing safetensors file.

    Each MODEL has its own options: xp train MODEL --help. `xp info FILE` shows what a model file says of itself.
    """,
    short_help="Train a model; writes one self-describing file.",
    subcommand_metavar="MODEL [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"]},
)
