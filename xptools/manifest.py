"""The files from outside that xp can use (data/manifest.toml): their records, and whether they are here whole."""

import hashlib
import os
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

MANIFEST = Path(__file__).parent / "data" / "manifest.toml"


@dataclass(frozen=True)
class External:
    """A file of the manifest: name, what it is, the command that uses it, its record; unknown fields are None."""

    name: str
    what: str
    use: str
    url: str
    folder: str = ""
    bytes: int | None = None
    md5: str | None = None
    sha256: str | None = None
    licence: str | None = None
    doi: str | None = None
    cite: str | None = None

    def find(self, roots: Iterable[Path]) -> Path | None:
        """The file under one of these folders, or None."""
        places = (("dustmaps", self.folder), (self.folder,), ())
        paths = (root.joinpath(*place, self.name) for root in roots for place in places)
        return next((path for path in paths if path.is_file()), None)

    def fault(self, path: Path, whole: bool = True) -> str:
        """What is wrong with the file at `path`, "" if nothing: its size or, with `whole`, the sum of all its bytes."""
        size = path.stat().st_size
        if self.bytes is not None and size != self.bytes:
            return f"bad size: {size:,} bytes, not {self.bytes:,}"
        with path.open("rb") as f:
            if f.read(64).lstrip()[:1] == b"<":
                return "not the file but a web page, saved under its name"
        wanted = ("sha256", self.sha256) if self.sha256 else ("md5", self.md5)
        if whole and wanted[1] and _digest(path, wanted[0]) != wanted[1]:
            return f"bad sum: its {wanted[0]} is not {wanted[1]}"
        return ""


@cache
def external() -> tuple[External, ...]:
    """Every file of the manifest."""
    return tuple(External(**entry) for entry in tomllib.loads(MANIFEST.read_text())["file"])


def roots() -> list[Path]:
    """Folders that may hold them: XP_DATA, the cache, and the data folder of dustmaps' own configuration."""
    from xptools import dustfiles  # numpy and numba, which only a search needs

    return dustfiles.roots()


def _digest(path: Path, kind: str) -> str:
    with path.open("rb") as f:
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL) if hasattr(os, "posix_fadvise") else None
        return hashlib.file_digest(f, kind).hexdigest()


__all__ = ["External", "external", "roots"]
