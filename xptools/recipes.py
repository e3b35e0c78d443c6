"""What papers need from outside (data/recipes.toml): steps with their sizes, and what of it is here."""

import re
import shlex
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

RECIPES = Path(__file__).parent / "data" / "recipes.toml"
UNITS = {"B": 1.0, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


class Step(NamedTuple):
    """One thing to get: `run` is a command of xp, with {to} for the folder and {KEY} for a file of the manifest.

    `makes` is what is there afterwards, where that is a file; `needs` one that an analysis must have made before, by
    way of `made`. `about` is a size where `data`, a key of the manifest, has none.
    """

    key: str
    what: str
    run: str
    data: str = ""
    about: str = ""
    makes: str = ""
    needs: str = ""
    made: str = ""

    def words(self, to: Path, path_of: Callable[[str], object]) -> list[str]:
        """The command; `path_of(key)` is where a file of the manifest is."""
        return [filled(word, to, path_of) for word in shlex.split(self.run)]


class Recipe(NamedTuple):
    """All that one paper needs."""

    name: str
    title: str
    steps: tuple[Step, ...]


@cache
def recipes() -> dict[str, Recipe]:
    """Every recipe by its name."""
    read = tomllib.loads(RECIPES.read_text())
    return {name: Recipe(name, r["title"], tuple(Step(**s) for s in r["step"])) for name, r in read.items()}


def filled(text: str, to: Path, path_of: Callable[[str], object] = lambda key: f"{{{key}}}") -> str:
    """A text with its {to} and {KEY} put in."""
    return re.sub(r"\{([\w-]+)\}", lambda m: str(to if m[1] == "to" else path_of(m[1])), text)


def weight(text: str) -> float | None:
    """Bytes of "about 3.2 GB", None of other words."""
    found = re.search(r"([\d.,]+) (B|kB|MB|GB|TB)$", text)
    return float(found[1].replace(",", "")) * UNITS[found[2]] if found else None
