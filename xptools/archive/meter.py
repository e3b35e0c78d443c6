"""What a person sees of a fetch: rows, bytes, jobs and the time that is left, on a terminal only."""

import threading
import time

from xptools import progress

BIG = 1e9  # bytes; a fetch of more is announced with its plan


class Meter:
    """Counts that threads add to, of rows or what `unit` says; drawn on stderr if `draw`."""

    def __init__(self, name: str, draw: bool, unit: str = "rows"):
        self.guard, self.started, self.unit = threading.Lock(), time.monotonic(), unit
        self.rows = self.bytes = self.jobs = self.new = 0
        self.total: int | None = None
        self.bar = None
        if draw:
            from rich import progress as rich

            columns = (rich.TextColumn("{task.description}"), rich.BarColumn(), rich.TextColumn("{task.fields[words]}"))
            self.bar = rich.Progress(*columns, console=progress.console(), transient=True)
            self.task = self.bar.add_task(name, total=None, words="asks the archive")
            self.bar.start()

    def add(self, rows: int = 0, bytes: int = 0, jobs: int = 0, old: bool = False) -> None:
        """Count; `old` rows were there before this run, and say nothing about its speed."""
        with self.guard:
            self.rows, self.bytes, self.jobs = self.rows + rows, self.bytes + bytes, self.jobs + jobs
            self.new += 0 if old else rows
            if self.bar is not None:
                self.bar.update(self.task, completed=self.rows, total=self.total, words=self.words())

    def expect(self, rows: int | None) -> None:
        """How many rows there will be, once that is known."""
        self.total = rows
        self.add()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.started

    def left(self) -> float | None:
        """Seconds that are left at this run's speed, None if nobody knows."""
        if self.total is None or not self.new:
            return None
        return (self.total - self.rows) * self.seconds / self.new

    def words(self) -> str:
        """The counts as a line."""
        of = f" of {self.total:,}" if self.total is not None else ""
        left = self.left()
        ends = f", {time.strftime('%H:%M:%S', time.gmtime(left))} left" if left else ""
        jobs = f", {self.jobs} jobs" if self.unit == "rows" else ""
        return f"{self.rows:,}{of} {self.unit}, {size(self.bytes)}{jobs}{ends}"

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def size(n: float) -> str:
    """Bytes for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} TB"
