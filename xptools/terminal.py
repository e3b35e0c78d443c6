"""The real standard output: claimed once for data, so that no library's print can corrupt a stream."""

import os
import sys

from xptools import progress
from xptools.errors import OutputError

_claimed: dict[str, object] = {}


def claim():
    """The binary stdout; from now on anything printed goes to stderr."""
    if "raw" not in _claimed:
        if sys.stdout is None:
            raise OutputError("standard output is closed. TRY: -o FILE")
        sys.stdout.flush()
        _claimed["terminal"] = os.isatty(1)
        fd = os.dup(1)
        os.dup2(2, 1)
        _claimed["raw"] = open(fd, "wb", buffering=1 << 20)
    return _claimed["raw"]


def silence() -> None:
    """Let everything that is still to be written to stdout vanish: its reader has gone."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    if "raw" in _claimed:
        os.dup2(null, _claimed["raw"].fileno())


def is_terminal() -> bool:
    """Whether the real stdout is a terminal."""
    return bool(_claimed["terminal"]) if "raw" in _claimed else os.isatty(1)


def show(*renderables) -> None:
    """Text or rich renderables on the real stdout, plain when it is no terminal."""
    import io

    from rich.console import Console

    terminal = is_terminal()
    text = io.StringIO()
    color = os.environ.get("XP_COLOR", "auto")
    styled = color == "on" or (color == "auto" and terminal and not os.environ.get("NO_COLOR"))
    console = Console(
        file=text,
        force_terminal=styled,
        no_color=not styled,
        width=width(),
        legacy_windows=False,
        markup=False,
        highlight=False,
    )
    for renderable in renderables:
        console.print(renderable)
    raw = claim()
    raw.write(progress.harmless(text.getvalue()).encode())
    raw.flush()


def width() -> int:
    """Characters in a line of stdout's terminal; 160 where there is none or it does not say."""
    try:
        fd = _claimed["raw"].fileno() if "raw" in _claimed else 1
        return os.get_terminal_size(fd).columns or 160
    except OSError:
        return 160
