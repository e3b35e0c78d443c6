"""What a person sees while a command runs: a bar on stderr if that is a terminal, counted warnings, a closing line."""

import contextlib
import os
import re
import sys
import time
from collections import Counter

# Colours may pass; what moves the cursor or names the window may not, for files decide how their columns are called.
_CONTROL = re.compile(r"(\x1b\[[\d;]*m)|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_said: Counter[str] = Counter()
_held: list[Counter[str]] = []


def harmless(text: str) -> str:
    """Text for a screen: control characters, but those of colours, become question marks."""
    return _CONTROL.sub(lambda found: found[1] or "?", text)


def say(message: str) -> None:
    """One line on stderr, for people."""
    if sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            print(harmless(message), file=sys.stderr, flush=True)  # noqa: T201 - the one place that writes to stderr


def warn(message: str, times: int = 1) -> None:
    """A warning, shown the first time and counted after that."""
    if _held:
        _held[-1][message] += times
        return
    _said[message] += times
    if _said[message] == times and not os.environ.get("XP_QUIET"):
        say(f"xp: warning: {message}")


@contextlib.contextmanager
def holding():
    """Warnings are counted in what this gives, for somebody else to say."""
    _held.append(Counter())
    try:
        yield _held[-1]
    finally:
        _held.pop()


def repeated() -> list[str]:
    """Warnings that came more than once, with their counts; clears the count."""
    lines = [f"xp: warning came {n:,} times: {text}" for text, n in _said.items() if n > 1]
    _said.clear()
    return lines


def on_terminal() -> bool:
    """Whether stderr is a terminal that can be drawn on."""
    return sys.stderr is not None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def console():
    """A rich console on stderr that obeys NO_COLOR and --color."""
    from rich.console import Console

    color = os.environ.get("XP_COLOR", "auto")
    return Console(stderr=True, no_color=color == "off" or None, force_terminal=True if color == "on" else None)


class Bar:
    """Rows (or what `unit` says) done, rate and time left; draws only when asked to and only on a terminal."""

    def __init__(self, name: str, total: int | None, draw: bool, unit: str = "rows"):
        self.rows, self.started, self.bar, self.unit = 0, time.monotonic(), None, unit
        if draw:
            from rich import progress as rich

            columns = (
                rich.TextColumn("{task.description}"),
                rich.BarColumn(),
                rich.DownloadColumn() if unit == "B" else rich.MofNCompleteColumn(),
                rich.TextColumn("{task.fields[rate]}"),
                rich.TimeRemainingColumn(),
            )
            self.bar = rich.Progress(*columns, console=console(), transient=True)
            self.task = self.bar.add_task(f"xp {name}", total=total, rate="")
            self.bar.start()

    def add(self, rows: int) -> None:
        """Count rows done."""
        self.rows += rows
        if self.bar is not None:
            self.bar.update(self.task, advance=rows, rate=self._rate())

    def _rate(self) -> str:
        rate = self.rows / max(self.seconds, 1e-3)
        return f"{rate / 1e6:,.1f} MB/s" if self.unit == "B" else f"{rate:,.0f} {self.unit}/s"

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
