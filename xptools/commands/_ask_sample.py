"""What `xp train ask` reads: a table with holes, turned into tokens batch by batch and kept on disk, not in memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xptools.errors import DataError, MissingColumns
from xptools.protocol import check_unit, spelled

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from xptools.commands._training import Origin
    from xptools.cores.ask_training import Sample

DATA = Path(__file__).parent.parent / "data"
RECIPES = ("distmass", "giants", "lb23")
ROWS = 8192


class Recipe:
    """A vocabulary with the selection that goes with it: one TOML file, shipped or the user's own."""

    def __init__(self, name: str):
        from xptools.cores.ask_vocabulary import Vocabulary, load

        path = DATA / f"ask_{name}.toml" if name in RECIPES else Path(name)
        told = load(path)
        self.name, self.where = name, str(path.name)
        self.vocabulary = Vocabulary.of(told.get("tokens", []), self.where)
        try:
            selection = dict(told.get("selection", {}))
            blank = [(list(b["tokens"]), str(b["where"])) for b in selection.get("blank", [])]
            low, high = selection.get("quantiles", (0.0, 1.0))
            wrong = bool(set(selection) - {"keep", "quantiles", "blank"}) or not 0 <= low < high <= 1
            wrong |= not isinstance(selection.get("keep", ""), str)
            kinds = [(type(b["tokens"]), type(b["where"])) for b in selection.get("blank", [])]
            wrong |= any(kind != (list, str) for kind in kinds)
        except (KeyError, TypeError, ValueError):
            wrong = True
        if wrong:
            raise DataError("the recipe's selection is not keep, quantiles of two numbers, and blank of tokens and "
                            f"where. {self.where}. TRY: xp train ask --help")  # fmt: skip
        self.keep: str | None = selection.get("keep")
        self.quantiles: list[float] | None = selection.get("quantiles")
        self.blank = [(self._tokens(names), where) for names, where in blank]
        self._check_units()

    def _check_units(self) -> None:
        from xptools.metadata import vounit

        for e in self.vocabulary.entries:
            if vounit(e.unit) is None:
                raise DataError(f"the vocabulary's entry {e.name!r}: {e.unit!r} is no unit. {self.where}. TRY: mag, K, "
                                "km.s**-1, solMass, Gyr, or nothing for none (dex)")  # fmt: skip

    def _tokens(self, names: list[str]) -> np.ndarray:
        import numpy as np

        unknown = [n for n in names if not len(self.vocabulary.span(n))]
        if unknown:
            raise DataError(f"the selection blanks {unknown[0]!r}, which is no token. {self.where}. TRY: one of "
                            f"{', '.join(e.name for e in self.vocabulary.entries)}")  # fmt: skip
        return np.concatenate([self.vocabulary.span(n) for n in names])


class Tokens:
    """Which columns of a table are tokens; their values, errors and single columns go to three files."""

    def __init__(self, schema, recipe: Recipe, where: str | None, files: tuple):
        import numpy as np

        from xptools.commands._training import Cuts, condition

        self.recipe, self.vocabulary = recipe, recipe.vocabulary
        names = {n: s for n in self.vocabulary.columns() if (s := spelled(schema, n))}
        there = [e for e in self.vocabulary.entries if all(c in names for c in e.columns)]
        if not there:
            raise MissingColumns("train ask", self.vocabulary.columns(), tuple(schema.names))
        for name, spelling in names.items():
            check_unit(name, schema.field(spelling))
        absent = {e.name: [c for c in e.columns if c not in names] for e in self.vocabulary.entries if e not in there}
        self.absent = [f"{name} ({', '.join(columns)})" for name, columns in absent.items()]
        self.there, self.names, self.cuts = there, names, Cuts(schema, "ask", None, where)
        self.keep = condition(recipe.keep, schema)
        entries = np.array([e in there for e in self.vocabulary.entries])
        rules = [rule for rule in recipe.blank if entries[self.vocabulary.entry_of[rule[0]]].any()]
        self.blank = [(tokens, condition(text, schema)) for tokens, text in rules]
        # a magnitude that arrays are divided by is a single column as well
        self.single = tuple(dict.fromkeys(c for e in there for c in e.columns[bool(e.width) :]))
        self.files, self.rows = files, 0
        self.square, self.count = (np.zeros(len(self.vocabulary.tokens)) for _ in range(2))

    def part(self, batch) -> dict[str, Any]:
        """Write a batch's tokens; tells how many rows were left after each cut."""
        import numpy as np

        from xptools.commands._training import array, meets

        keep, flow = self.cuts.keep(batch)
        if self.keep is not None:
            keep = keep & meets(self.keep, batch)
            flow.append((f"selection of {self.recipe.name}", int(keep.sum())))
        columns = {n: array(batch, s)[keep] for n, s in self.names.items()}
        values, errors = self.vocabulary.read(columns, int(keep.sum()))
        for tokens, told in self.blank:
            values[np.ix_(np.flatnonzero(meets(told, batch)[keep]), tokens)] = np.nan
        whole = self.vocabulary.read(columns, len(values), whole=True)[0].astype(np.float64)
        self.square += np.nansum(whole**2, 0)
        self.count += np.isfinite(whole).sum(0)
        known = np.isfinite(values).any(1)
        flow.append(("with any number", int(known.sum())))
        single = np.stack([np.zeros(len(values)), *(columns[c] for c in self.single)], 1)[:, 1:]
        for file, block in zip(self.files, (values, errors, single), strict=True):
            file.write(block[known].tobytes())
        self.rows += int(known.sum())
        return {"flow": flow}

    def matrices(self) -> tuple[np.ndarray, np.ndarray]:
        """Values and errors (N, V) float32 on disk, for as long as the arrays live."""
        return self._map(0), self._map(1)

    def _map(self, which: int, mode: Literal["r", "r+"] = "r") -> np.ndarray:
        import numpy as np

        kind, width = (np.float64, len(self.single)) if which == 2 else (np.float32, len(self.vocabulary.tokens))
        self.files[which].flush()
        return np.memmap(self.files[which], kind, mode, shape=(self.rows, width))

    def missing(self) -> list[str]:
        """Make unknown what is made of numbers that stand for unknown ones; tells of which columns, which and how many.

        A token is unknown where any of its columns is.
        """
        from xptools.cores.ask_missing import stand_ins
        from xptools.cores.ask_training import MOST

        if not self.single or not self.rows:
            return []
        columns, values = self._map(2), self._map(0, "r+")
        some = columns[:: max(1, -(-self.rows // MOST))]
        told = []
        for k, name in enumerate(self.single):
            if numbers := stand_ins(some[:, k]):
                count = self._erase(columns[:, k], numbers, name, values)
                each = (f"{v:.7g} ({n:,} times)" for v, n in zip(numbers, count, strict=True))
                told.append(f"column {name}: taken as unknown, for it is far from all other values: {', '.join(each)}")
        values.flush()
        return told

    def _erase(self, column: np.ndarray, numbers: list[float], name: str, values: np.ndarray) -> np.ndarray:
        """Make the tokens of a column unknown where it is one of these numbers; how often it is each of them."""
        import numpy as np

        entries = self.vocabulary.entries
        tokens = np.flatnonzero(np.array([name in e.columns for e in entries])[self.vocabulary.entry_of])
        alone = tokens[[entries[k].width == 0 for k in self.vocabulary.entry_of[tokens]]]
        self.square[alone] = self.count[alone] = 0
        count = np.zeros(len(numbers), int)
        for start in range(0, self.rows, ROWS):
            equal = np.asarray(column[start : start + ROWS])[:, None] == numbers
            values[np.ix_(start + np.flatnonzero(equal.any(1)), tokens)] = np.nan
            left = values[start : start + ROWS, alone].astype(np.float64)
            self.square[alone] += np.nansum(left**2, 0)
            self.count[alone] += np.isfinite(left).sum(0)
            count += equal.sum(0)
        return count


def sample(
    path: str, recipe: Recipe, where: str | None, fewest: int, say: Callable
) -> tuple[Sample, np.ndarray, dict[str, np.ndarray], Origin]:
    """The tokens of a table, the rows that are used, what the model file keeps of each token, and the origin."""
    import numpy as np

    from xptools.commands._training import read
    from xptools.cores.ask_training import Sample, standards
    from xptools.io.spool import spool

    with spool() as one, spool() as other, spool() as third:
        files = one, other, third
        tokens, _, origin = read(path, "ask", ROWS, lambda schema: Tokens(schema, recipe, where, files), say)
        if tokens.absent:
            say(f"xp train ask: no columns for {', '.join(tokens.absent)}: not trained")
        if tokens.rows < fewest:
            raise DataError(f"{tokens.rows} stars are left, fewer than {fewest}. TRY: fewer cuts, more stars")
        for line in tokens.missing():
            origin.flow.append((line, tokens.rows))
            say(f"xp train ask: {line}")
        values, errors = tokens.matrices()
    rows = _within(values, recipe)
    if len(rows) < fewest:
        raise DataError(f"{len(rows)} stars are left within the quantiles. TRY: another selection, more stars")
    if len(rows) < len(values):
        say(f"xp train ask: {len(rows):>9,} rows left: coefficients within their quantiles")
    centre, scale, usable = standards(values)
    low, high, count = _extent(values)
    if dropped := _dropped(tokens, usable, count, len(values)):
        say(f"xp train ask: not trained: {', '.join(dropped)}")
    if not usable.any():
        raise DataError("no number of the recipe can be trained. TRY: another --recipe, more stars")
    spread = np.sqrt(tokens.square / np.maximum(tokens.count, 1))
    kept = {"centre": centre, "scale": scale, "low": low, "high": high, "spread": spread, "usable": usable}
    kept = {k: v.astype(np.float32) for k, v in kept.items()}
    return Sample(values, errors, kept["centre"], kept["scale"], usable), rows, kept, origin


def _dropped(tokens: Tokens, usable: np.ndarray, count: np.ndarray, stars: int) -> list[str]:
    """Entries that have columns and yet are not trained, and why, from how many stars know each token (V,)."""
    from xptools.cores.ask_training import FEWEST

    out = []
    for k, e in enumerate(tokens.vocabulary.entries):
        at = tokens.vocabulary.entry_of == k
        if e in tokens.there and not usable[at].any():
            known = int(count[at].max())
            few = f"{known:,} known of {stars:,} stars; at least {FEWEST}"
            out.append(f"{e.name} ({few if known < FEWEST else 'all the same'})")
    return out


def _extent(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lowest and highest value of each token, infinite where there is none, and how many stars know it."""
    import numpy as np

    low, high = np.full(values.shape[1], np.inf), np.full(values.shape[1], -np.inf)
    count = np.zeros(values.shape[1], np.int64)
    for start in range(0, len(values), ROWS):
        part = np.asarray(values[start : start + ROWS])
        low = np.minimum(low, np.where(np.isnan(part), np.inf, part).min(0))
        high = np.maximum(high, np.where(np.isnan(part), -np.inf, part).max(0))
        count += np.isfinite(part).sum(0)
    return low, high, count


def _within(values: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Rows all of whose known coefficients lie inside the recipe's quantiles."""
    import numpy as np

    if not recipe.quantiles:
        return np.arange(len(values))
    wide = np.array([e.width > 0 for e in recipe.vocabulary.entries])[recipe.vocabulary.entry_of]
    some = np.asarray(values[:: max(1, -(-len(values) // 200_000))])[:, wide]
    known = np.isfinite(some).any(0)
    low, high = np.full(wide.sum(), -np.inf), np.full(wide.sum(), np.inf)
    low[known], high[known] = np.nanquantile(some[:, known], recipe.quantiles, axis=0)
    parts = (np.asarray(values[i : i + ROWS])[:, wide] for i in range(0, len(values), ROWS))
    return np.flatnonzero(np.concatenate([~((part < low) | (part > high)).any(1) for part in parts]))
