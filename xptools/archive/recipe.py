"""The steps of a recipe on this machine: which are done, which wait for an analysis, what the others will cost."""

from pathlib import Path
from typing import NamedTuple

from xptools import recipes
from xptools.archive import datafiles
from xptools.errors import UsageError


class State(NamedTuple):
    """How far a step is: its size in words, whether its file is here, what it waits for ("" for nothing)."""

    size: str
    here: bool
    waits: str


def chosen(recipe: recipes.Recipe, keys: tuple[str, ...]) -> tuple[recipes.Step, ...]:
    """The steps of these keys (all without any), in the recipe's order; UsageError for one that is not in it."""
    known = [s.key for s in recipe.steps]
    if unknown := next((k for k in keys if k not in known), None):
        raise UsageError(f"{recipe.name} has no step {unknown!r}. TRY: {', '.join(known)}")
    return tuple(s for s in recipe.steps if not keys or s.key in keys)


def look(step: recipes.Step, to: Path) -> State:
    """How far a step is."""
    size, here = f"about {step.about}" if step.about else "", False
    if step.data:
        (found,) = datafiles.states(datafiles.named((step.data,)))
        size, here = datafiles.size(found.file), bool(found.path) and not found.fault
    makes, needs = (Path(recipes.filled(text, to)) if text else None for text in (step.makes, step.needs))
    if makes is not None:
        # What was made of an older file is made again.
        here = makes.exists() and not (needs and needs.exists() and needs.stat().st_mtime > makes.stat().st_mtime)
    lacks = needs is not None and not here and not needs.exists()
    how = f"{recipes.filled(step.needs, to)} (made by: {recipes.filled(step.made, to)})"
    return State(size, here, how if lacks else "")


def words(step: recipes.Step, to: Path) -> list[str]:
    """The command of a step, with the files where they are."""
    return step.words(to, path_of)


def path_of(key: str) -> Path | str:
    """Where a file of the manifest is; {key} while it is not."""
    (found,) = datafiles.states(datafiles.named((key,)))
    return found.path or f"{{{key}}}"


def table(title: str, steps: tuple[recipes.Step, ...], to: Path) -> str:
    """The steps as text, and what is still to be fetched in all."""
    lines, left, unknown = [title], 0.0, 0
    for k, step in enumerate(steps, 1):
        state = look(step, to)
        here = " (here)" if state.here else f" (waits for {state.waits})" if state.waits else ""
        lines.append(f"{k}. {step.key}: {step.what}: {state.size}{here}\n   xp {quoted(words(step, to))}")
        size = recipes.weight(state.size)
        left, unknown = left + (0.0 if state.here else size or 0.0), unknown + (size is None and not state.here)
    more = f" and {unknown} of a size that is not known here" if unknown else ""
    return "\n".join([*lines, f"left: about {datafiles.readable(left)}{more}"])


def quoted(command: list[str]) -> str:
    """Words as the shell takes them."""
    return " ".join(f"'{w}'" if set(w) & set(' |"{}') else w for w in command)
