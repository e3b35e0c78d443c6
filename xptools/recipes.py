"""What papers need from outside (data/recipes.toml): steps with their sizes, and what of it is here."""

import shlex
import tomllib
from functools import cache
from pathlib import Path
from typing import NamedTuple

RECIPES = Path(__file__).parent / "data" / "recipes.toml"


class Step(NamedTuple):
    """One thing to get: `run` is a command of xp, or `later` says how once other results are there."""

    what: str
    run: str = ""
    data: str = ""
    about: str = ""
    later: str = ""

    def words(self, to: Path) -> list[str]:
        """The command with its folder."""
        return [word.replace("{to}", str(to)) for word in shlex.split(self.run)]


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
