"""`xp completion`: the script that lets a shell complete commands, options, values and column names."""

import click

from xptools.errors import UsageError
from xptools.options import plain_command

SHELLS = ("bash", "zsh", "fish")
HOW = {
    "bash": "xp completion bash > ~/.local/share/bash-completion/completions/xp",
    "zsh": "xp completion zsh > ~/.zfunc/_xp  (with ~/.zfunc in fpath, before compinit)",
    "fish": "xp completion fish > ~/.config/fish/completions/xp.fish",
}


@plain_command(
    "help",
    3,
    examples=(
        "xp completion bash > ~/.local/share/bash-completion/completions/xp",
        "xp completion fish > ~/.config/fish/completions/xp.fish",
    ),
    see=("help",),
)
@click.argument("shell", type=click.Choice(SHELLS), required=False)
def command(shell):
    """Print the script that completes commands, options, their values and column names in a shell.

    SHELL is the one of $SHELL if it is left out. Put what is printed where that shell looks for completions (see the
    examples), or `eval` it. Column names are completed where the command line already names the table, as in `xp
    convert stars.parquet --keep <TAB>`.
    """
    from click.shell_completion import get_completion_class

    from xptools import cli, terminal

    shell = shell or _own_shell()
    maker = get_completion_class(shell)
    script = maker(cli.xp, {}, "xp", "_XP_COMPLETE")
    # click's own source() starts a bash to learn its version; the script is the same without.
    click.echo(script.source_template % script.source_vars())
    if terminal.is_terminal():
        click.echo(f"To keep it: {HOW[shell]}", err=True)


def _own_shell() -> str:
    import os
    from pathlib import Path

    name = Path(os.environ.get("SHELL", "")).name
    if name not in SHELLS:
        raise UsageError(f"which shell? $SHELL is {name or 'not set'!r}. TRY: xp completion bash (or zsh, or fish)")
    return name
