"""What `xp ask` shows and what it writes: from a vocabulary, its options and a model's description."""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

from xptools.columns import XP, Column
from xptools.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

    from xptools.artefact import About
    from xptools.cores.ask import Engine
    from xptools.cores.ask_vocabulary import Entry, Vocabulary


PART = re.compile(r"(-?)(\w+)(?:\[(\d*):(\d*)\])?")  # -name[first:end]


def words(text: str) -> tuple[str, ...]:
    """The words of a list with commas; UsageError for one that is no name or name[first:end], perhaps with a minus."""
    found = tuple(w.strip() for w in text.split(",") if w.strip())
    wrong = [w for w in found if not PART.fullmatch(w)]
    if wrong:
        raise UsageError(f"{wrong[0]!r} is no column or token. TRY: bp_rp, or bp[0:5] for its first five numbers")
    if text and not found:
        raise UsageError(f"{text!r} names nothing to show. TRY: --given teff,logg")
    return found


def bare(word: str) -> str:
    """The name in a word of `words`."""
    return PART.fullmatch(word)[2] if PART.fullmatch(word) else word


class Plan:
    """Requested and shown entries, and the columns of both."""

    def __init__(self, step: Any, about: About):
        self.step, self.about = step, about
        unknown = [n for n in (*step.labels, *map(bare, (*step.given, *step.context))) if not self._named(n)]
        if unknown:
            known = ", ".join(e.value if e.width else e.name for e in self.vocabulary.entries)
            raise UsageError(f"the model has no {unknown[0]!r} in its vocabulary. TRY: one of {known}")
        self._demand_taught()
        wide = [e.width > 0 for e in self.asked]
        if step.joint and any(wide):
            raise UsageError("--joint is for single numbers, not for spectra. TRY: without --joint")
        if step.explain and all(wide):
            raise UsageError("--explain is for single numbers, not for spectra. TRY: without --explain")
        if not (self.allowed & self.taught).any():
            raise UsageError(
                "nothing is left that may be shown: --context never shows what is asked for. "
                "TRY: other names, fewer with a minus, or --given"
            )

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The model's."""
        from xptools.cores.ask_vocabulary import Vocabulary

        return Vocabulary.of(self.about.shape["vocabulary"])

    def _named(self, name: str) -> list[Entry]:
        """Entries of that name or, for arrays and plain columns, that column; case counts only between two of them."""
        entries = self.vocabulary.entries
        exact = [e for e in entries if name in (e.name, e.value)]
        return exact or [e for e in entries if name.lower() in (e.name.lower(), e.value.lower())]

    @cached_property
    def taught(self) -> np.ndarray:
        """Tokens (V,) that the model was trained on: enough stars had them, and they differed."""
        import numpy as np

        return np.isin(self.vocabulary.tokens, list(self.about.domain))

    def _knows(self, e: Entry) -> bool:
        return bool(self.taught[self._own(e)].any())

    def _own(self, e: Entry) -> np.ndarray:
        """Tokens (n,) of an entry."""
        return (self.vocabulary.entry_of == self.vocabulary.entries.index(e)).nonzero()[0]

    def _demand_taught(self) -> None:
        """UsageError for a label or a shown word that the model was not taught; a word with a minus may hide it."""
        empty = [n for n in self.step.labels if not all(map(self._knows, self._named(n)))]
        shown = [w for w in (*self.step.given, *self.step.context) if not w.startswith("-")]
        empty += [w for w in shown if not self.taught[self._part(w)].any()]
        if self.asked and not empty:
            return
        known = ", ".join(e.value if e.width else e.name for e in self.vocabulary.entries if self._knows(e))
        where = f"{self.step.files()['model']}. TRY: one of {known}"
        if not empty:
            raise UsageError(f"the model was taught nothing that it calls a label. {where}")
        raise UsageError(f"the model was not taught {empty[0]!r}: too few of its training's stars had it, or too many "
                         f"the same. {where}; or xp train ask with other stars")  # fmt: skip

    def _part(self, word: str) -> np.ndarray:
        """Tokens (n,) of a word: of all entries of that name, or a range of the first; UsageError if that is empty."""
        import numpy as np

        name, first, end = PART.fullmatch(word).groups()[1:]
        entries = self._named(name)  # however it was spelled
        if "[" not in word:
            return np.concatenate([self._own(e) for e in entries])
        span = self._own(entries[0])
        part = span[int(first or 0) : int(end or len(span))]
        if not len(part):
            name = entries[0].name
            raise UsageError(f"{word!r} is no part of {name}, which has {len(span)}. TRY: {name}[0:1]")
        return part

    @cached_property
    def asked(self) -> list[Entry]:
        """What is requested, in order, each once."""
        if not self.step.labels:
            return [e for e in self.vocabulary.entries if e.ask and self._knows(e)]
        return list(dict.fromkeys(e for n in self.step.labels for e in self._named(n)))

    @cached_property
    def shown(self) -> list[Entry]:
        """What may be shown."""
        if self.step.given:
            return list(dict.fromkeys(e for n in self.step.given for e in self._named(bare(n))))
        return [e for e in self.vocabulary.entries if (self.allowed & self.taught)[self._own(e)].any()]

    @cached_property
    def allowed(self) -> np.ndarray:
        """Tokens (V,) that may be shown."""
        import numpy as np

        words = self.step.given or self.step.context
        parts = [self._part(w) for w in words]
        named = np.isin(np.arange(len(self.taught)), np.concatenate(parts) if parts else [])
        if self.step.given:
            return named
        hidden = np.isin(self.vocabulary.entry_of, [self.vocabulary.entries.index(e) for e in self.asked])
        without = not words or words[0].startswith("-")
        return ~hidden & (named != without)

    def columns_of(self, name: str) -> tuple[str, ...]:
        """The columns behind a word of --given."""
        return tuple(c for e in self._named(bare(name)) for c in e.columns)

    def reads(self) -> tuple[str, ...]:
        """All columns that may be read."""
        from xptools.cores.ask_vocabulary import MAGNITUDE

        out: dict[str, None] = {}
        for e in self.shown:
            out |= dict.fromkeys((*e.columns, *((e.relevant,) if e.relevant else ())))
        if any(e.per_flux for e in self.asked):
            out[MAGNITUDE] = None
        if self.step.joint:
            out["source_id"] = None
        return tuple(out)

    @cached_property
    def units(self) -> dict[str, str]:
        """Units of columns that are a token as they stand."""
        return {e.value: e.unit for e in self.shown if e.unit and not e.width and re.fullmatch(r"\w+", e.value)}

    def columns(self) -> dict[str, Column]:
        """What is written."""
        out: dict[str, Column] = {}
        for e in self.asked:
            out |= _spectrum(e, self.step.suffix) if e.width else self._number(e)
        return out

    def _number(self, e: Entry) -> dict[str, Column]:
        name, unit = f"{e.name}{self.step.suffix}", e.unit or None
        ucd, text = e.ucd or "stat.value", e.text or e.name
        error = f"stat.error;{ucd}"
        out = {
            name: Column("float32", unit, ucd, f"{text}, from the generalist"),
            f"{name}_err": Column("float32", unit, error, f"Total standard error of {name}, calibrated"),
            f"{name}_err_net": Column("float32", unit, error, f"Standard error of {name} that the network predicts"),
        }
        if self.step.joint:
            out[f"{name}_samples"] = Column(f"float32[{self.step.joint}]", unit, ucd, f"Joint samples of {name}")
        for group in self.groups if self.step.explain else ():
            words = f"Expected ln p of {name} that is lost without {group} [nat]"
            out[f"{name}_loss_{group}"] = Column("float32", None, "stat.likelihood", words)
        return out

    @cached_property
    def groups(self) -> list[str]:
        """Groups of what is shown."""
        return list(dict.fromkeys(e.group or e.name for e in self.shown))


def _spectrum(e: Entry, suffix: str) -> dict[str, Column]:
    """Columns of an array entry, as the archive has them."""
    plain = Column(f"float64[{e.width}]", e.unit or None, e.ucd or "stat.value", e.text or e.value)
    value = XP.get(e.value, plain)
    error = XP.get(e.error, Column(f"float32[{e.width}]", e.unit or None, f"stat.error;{value.ucd}", "Errors"))
    told = (("float64", value, "from the generalist"), ("float32", error, "from the generalist, calibrated"))
    made = [Column(f"{kind}[{e.width}]", c.unit, c.ucd, f"{c.text}, {words}") for kind, c, words in told]
    return dict(zip((f"{e.value}{suffix}", f"{e.error or e.value + '_err'}{suffix}"), made, strict=True))


def answers(plan: Plan, engine: Engine, columns: dict[str, np.ndarray | None]) -> dict[str, np.ndarray]:
    """The written columns of some stars."""
    import numpy as np

    from xptools.cores import ask

    vocabulary, rows = engine.vocabulary, len(next(v for v in columns.values() if v is not None))
    values, _ = vocabulary.numbers(columns, rows)
    z = engine.standardised(values)
    there = np.isfinite(z)
    values[:, ~plan.allowed] = z[:, ~plan.allowed] = np.nan
    tokens = {e.name: vocabulary.span(e.name) for e in plan.asked}
    requests = np.concatenate(list(tokens.values()))
    mean, variance = ask.moments(*engine.answers(z, requests))
    (mean, total), net = engine.corrected(mean, variance, np.isfinite(z), there, requests), np.sqrt(variance)
    draws = None
    if plan.step.joint:
        u = ask.uniforms(plan.step.seed, columns["source_id"], plan.step.joint, 2 * len(requests))
        draws = ask.joint(engine, z, there, requests, u.reshape(rows, plan.step.joint, len(requests), 2))
        mean, total = draws.mean(1), draws.std(1, ddof=1)
    lost = {}
    if plan.step.explain:
        names = np.array([e.group or e.name for e in vocabulary.entries])[vocabulary.entry_of]
        lost = ask.losses(engine, z, requests, {g: np.flatnonzero(names == g) for g in plan.groups})
    out, at = {}, 0
    for e in plan.asked:
        span = slice(at, at + len(tokens[e.name]))
        at = span.stop
        told = _told(engine, tokens[e.name], mean[:, span], total[:, span], net[:, span])
        out |= _spectral(e, plan, columns, rows, *told[:2]) if e.width else _single(e, plan, *told)
        name = f"{e.name}{plan.step.suffix}"
        if draws is not None:
            token = tokens[e.name][0]
            out[f"{name}_samples"] = draws[:, :, span.start] * engine.scale[token] + engine.centre[token]
        out |= {f"{name}_loss_{g}": v[:, span.start] for g, v in lost.items() if not e.width}
    return out | {"ask_flag": _flags(plan, engine, values, z, columns, requests, mean)}


def _told(engine: Engine, tokens, mean, total, net):
    """Values, total and network's errors (N, n) in their own units; a coefficient without training is 0 with its rms,
    or unknown if no star had it."""
    import numpy as np

    usable, scale, spread = engine.usable[tokens] > 0, engine.scale[tokens], engine.spread[tokens]
    none = np.where(spread > 0, 0.0, np.nan)
    value = np.where(usable, mean * scale + engine.centre[tokens], none)
    return value, *(np.where(usable, e * scale, spread + none) for e in (total, net))


def _single(e: Entry, plan: Plan, value, total, net) -> dict[str, np.ndarray]:
    name = f"{e.name}{plan.step.suffix}"
    return {name: value[:, 0], f"{name}_err": total[:, 0], f"{name}_err_net": net[:, 0]}


def _spectral(e: Entry, plan: Plan, columns, rows: int, value, total) -> dict[str, np.ndarray]:
    import numpy as np

    from xptools.cores.ask_vocabulary import MAGNITUDE, flux_of

    G = columns.get(MAGNITUDE)
    flux = np.ones(rows) if G is None or not e.per_flux else np.nan_to_num(flux_of(np.asarray(G, np.float64)), nan=1.0)
    suffix = plan.step.suffix
    return {f"{e.value}{suffix}": value * flux[:, None],
            f"{e.error or e.value + '_err'}{suffix}": total * flux[:, None]}  # fmt: skip


def _flags(plan: Plan, engine: Engine, values, z, columns, requests, mean) -> np.ndarray:
    import numpy as np

    from xptools.cores import ask
    from xptools.cores.ask_vocabulary import MAGNITUDE, absurd

    usable, known = engine.usable > 0, np.isfinite(z)
    count = known.sum(1)
    # what is too large to be shown is infinite, and outside as well
    strange = (usable & ((values < engine.low) | (values > engine.high))).any(1)
    if any(e.per_flux for e in plan.asked) and columns.get(MAGNITUDE) is not None:
        strange |= absurd(columns[MAGNITUDE])
    value = mean * engine.scale[requests] + engine.centre[requests]
    beyond = (usable[requests] & ((value < engine.low[requests]) | (value > engine.high[requests]))).any(1)
    lacking = np.zeros(len(values), bool)
    for e in plan.shown if plan.step.given else ():
        # of an array some of the orders that are asked for are enough
        lacking |= ~known[:, engine.vocabulary.entry_of == engine.vocabulary.entries.index(e)].any(1)
    bits = (
        (ask.PRIOR, count == 0), (ask.STRANGE, strange), (ask.BEYOND, beyond),
        (ask.CROPPED, count > engine.network.sizes.context), (ask.LACKING, lacking),
    )  # fmt: skip
    return sum(bit * on.astype(np.int16) for bit, on in bits).astype(np.int16)
