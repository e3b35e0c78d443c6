"""`xp train`: one subcommand per model that can be trained, found by file name: _train_<model>.py beside this file."""

from xptools.group import Found
from xptools.options import About

command = Found(
    "train",
    About("models", 10, "group", examples=("xp train mass -o m.safetensors",), see=("mass", "info")),
    help="""Train a model and write it as one self-describing safetensors file.

    Each MODEL has its own options: xp train MODEL --help. `xp info FILE` shows what a model file says of itself.
    """,
    short_help="Train a model; writes one self-describing file.",
    subcommand_metavar="MODEL [ARGS]...",
)
