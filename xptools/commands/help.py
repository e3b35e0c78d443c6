"""`xp help`: the manual page of a command, or its --help where there is no `man`."""

import click

from xptools.errors import UsageError
from xptools.options import plain_command

PAGES = ("columns", "model", "pipes", "scale")


def _topics(_ctx, _param, begun: str) -> list[str]:
    from xptools import cli

    return [name for name in (*cli.names(), *PAGES) if name.startswith(begun)]


@plain_command(
    "help",
    4,
    examples=("xp help", "xp help mass", "xp help pipes"),
    see=("completion",),
)
@click.argument("topic", nargs=-1, shell_complete=_topics)
def command(topic):
    """Show the manual page of a command or of a topic.

    TOPIC is a command (`mass`, `train mass`), or a page: pipes, columns, model, scale. Without it: the page of xp.
    Where there is no `man`, a command's --help is shown instead. Into a pipe or a file the page goes as plain text.
    """
    import shutil
    import subprocess

    from xptools import manual

    page = manual.find("-".join(("xp", *topic)))
    reader = shutil.which("man") or shutil.which("mandoc")
    if page is None or reader is None:
        click.echo(_help_of(topic))
        return
    # `man -l` reads a file that is not installed; its page may be of another version than an installed one's.
    words = [reader, "-l", str(page)] if reader.endswith("man") else [reader, "-a", str(page)]
    done = subprocess.run(words, stderr=subprocess.PIPE, check=False)
    if done.returncode not in (0, 141, -13):
        click.echo(_help_of(topic))


def _help_of(topic: tuple[str, ...]) -> str:
    import difflib

    from xptools import cli

    ctx, command = click.Context(cli.xp, info_name="xp"), cli.xp
    for word in topic:
        found = command.get_command(ctx, word) if isinstance(command, click.Group) else None
        if found is None:
            near = difflib.get_close_matches(word, (*cli.names(), *PAGES), 1)
            hint = f"; did you mean {near[0]!r}?" if near else "."
            raise UsageError(f"there is no page {' '.join(topic)!r}{hint} TRY: xp --help")
        command, ctx = found, click.Context(found, info_name=word, parent=ctx)
    return command.get_help(ctx)
