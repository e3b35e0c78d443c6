"""A folder of files, on this machine or behind HTTP."""

from dataclasses import dataclass
from pathlib import Path

from xptools.archive.http import Client


@dataclass
class Place:
    """The folder `where`; with a `client` it is an address."""

    where: str
    client: Client | None = None

    def __post_init__(self):
        self.where = self.where.rstrip("/")

    def text(self, name: str) -> str | None:
        """A small file of it, None if it has no such."""
        if self.client is not None:
            return self.client.text(f"{self.where}/{name}")
        path = Path(self.where) / name
        return path.read_text() if path.is_file() else None
