"""`xp select`: named cuts in a fixed order, as a filter or as flag columns, with their cut-flow."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import click

from xptools.columns import Column
from xptools.commands._select_input import identifiers, limits, quantile_threshold, titled
from xptools.commands._select_words import FROM_HELP, NOTES, QUANTILE_HELP, WHERE_HELP, report
from xptools.errors import DataError, UsageError
from xptools.options import cut_command, shared
from xptools.protocol import Cut, Fold, Tally

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

CSTAR = {
    "c_star": Column("float32", None, "arith.factor;phot.flux;em.opt", "Corrected excess factor C* (Riello+ 2021)"),
    "c_star_err": Column("float32", None, "stat.error;arith.factor", "Scatter of C* expected at this G (Riello+ 2021)"),
}
Range = tuple[float | None, float | None] | None
MOST_CUTS = 15  # bits of an int16 flag


class Rule(NamedTuple):
    """One cut: its name, the columns it reads, what it asks, and the function of those columns that answers."""

    name: str
    columns: tuple[str, ...]
    text: str
    judge: Callable[..., tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Cuts:
    """The cuts that are on. A range is (low, high), None where open; both ends are exclusive."""

    ids: str = ""
    parallax: Range = None
    parallax_over_error: float | None = None
    absolute_magnitude: Range = None
    bp_rp: Range = None
    isochrone: bool = False
    isochrones: str = ""
    age: float = 5.0
    iso_offset: float = 0.0
    iso_blue: str = "keep"
    cstar_nsigma: float | None = None
    eta_ratio: float | None = None
    eta_quantile: float | None = None
    eta_above: float | None = None
    eta_from: str = ""
    fidelity: float | None = None
    feh: Range = None
    magnitude: Range = None
    where: tuple[str, ...] = ()
    flag: bool = False

    name: ClassVar[str] = "select"

    @property
    def needs(self) -> tuple[str, ...]:
        """Every column that a cut which is on reads."""
        return tuple(dict.fromkeys(column for rule in self.rules() for column in rule.columns))

    @property
    def cites(self) -> tuple[str, ...]:
        """The papers behind the cuts that are on."""
        keys = {"riello2021": self.cstar_nsigma is not None, "rybizki2022": self.fidelity is not None,
                "bressan2012": self.isochrone, "li2026": True}  # fmt: skip
        return tuple(key for key, on in keys.items() if on)

    def files(self) -> dict[str, str]:
        """The identifiers, the isochrones and what eta's quantile is of, if files give them."""
        tables = [p for p in self.isochrones.split(",") if p] if self.isochrone else []
        named = {"isochrones" if len(tables) == 1 else f"isochrones.{i}": p for i, p in enumerate(tables, 1)}
        lists = {"ids": self.ids, "eta_from": self.eta_from}
        return named | {role: path for role, path in lists.items() if path}

    def cuts(self) -> dict[str, str]:
        """The cuts in their order: name -> what it asks."""
        return {rule.name: rule.text for rule in self.rules()}

    def rules(self) -> list[Rule]:
        """The cuts that are on, in the order of Li+ 2026 (SCIENCE: parent query, isochrone, C*, eta, [Fe/H], G)."""
        return [*self._parent(), *self._paper(), *self._expressions()]

    def _parent(self) -> list[Rule]:
        rules = []
        if self.ids:
            rules.append(Rule("ids", ("source_id",), "source_id is listed", self._listed))
        if self.parallax:
            rules.append(_between("parallax", "parallax", self.parallax))
        if self.parallax_over_error is not None:
            rules.append(_between("parallax_over_error", "parallax_over_error", (self.parallax_over_error, None)))
        if self.absolute_magnitude:
            text = _asks("phot_g_mean_mag + 5 log10(parallax / 100)", self.absolute_magnitude)
            rules.append(Rule("absolute_magnitude", ("phot_g_mean_mag", "parallax"), text, self._absolute))
        if self.bp_rp:
            rules.append(_between("bp_rp", "bp_rp", self.bp_rp))
        return rules

    def _paper(self) -> list[Rule]:
        rules = []
        if self.isochrone:
            text = f"below [M/H] = 0 at {self.age:g} Gyr {self.iso_offset:+g} mag, 0 < bp_rp0 < 4, mg0 > 4"
            rules.append(Rule("isochrone", ("bp_rp0", "mg0"), text, self._below))
        if self.cstar_nsigma is not None:
            columns = ("phot_bp_rp_excess_factor", "bp_rp", "phot_g_mean_mag")
            rules.append(Rule("cstar", columns, f"|C*| < {self.cstar_nsigma:g} sigma_C*(G)", self._excess))
        if self.eta_threshold is not None:
            rules.append(Rule("eta", ("eta",), f"eta > {self.eta_threshold:g}", self._odds))
        if self.fidelity is not None:
            rules.append(_between("fidelity", "fidelity_v2", (self.fidelity, None)))
        if self.feh:
            rules.append(_between("feh", "feh", self.feh))
        if self.magnitude:
            rules.append(_between("magnitude", "phot_g_mean_mag", self.magnitude))
        return rules

    def _expressions(self) -> list[Rule]:
        from xptools.cores import expression

        rules: list[Rule] = []
        for text in self.where:
            title, body = titled(text)
            parsed = expression.parse(body)

            def judge(*values: Any, parsed: expression.Expression = parsed) -> tuple[np.ndarray, np.ndarray]:
                try:
                    return parsed.condition(dict(zip(parsed.columns, values, strict=True)))
                except expression.ExpressionError as fault:
                    raise DataError(f"--where: {fault}. TRY: xp info for the columns and their types") from None

            rules.append(Rule(self._unique(title or body, rules), parsed.columns, body, judge))
        return rules

    def _unique(self, title: str, rules: list[Rule]) -> str:
        """A cut's name; with --flag it ends a column's name, so only letters, digits and _ stay."""
        stem = re.sub(r"\W+", "_", title).strip("_") if self.flag else title
        taken = {rule.name for rule in rules}
        return next(n for n in (stem, *(f"{stem}_{i}" for i in range(2, 99))) if n not in taken)

    @property
    def eta_threshold(self) -> float | None:
        """The lowest eta that does not pass: log10 of the ratio, or what the quantile came to."""
        import math

        limits = [math.log10(self.eta_ratio)] if self.eta_ratio is not None else []
        limits += [self.eta_above] if self.eta_above is not None else []
        return max(limits, default=None)

    def judged(self, columns: dict[str, Any]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Every cut's (passes, unknown) on these columns."""
        return {rule.name: rule.judge(*(columns[c] for c in rule.columns)) for rule in self.rules()}

    def _odds(self, eta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        import numpy as np

        from xptools.cores import selection

        return selection.interval(np.asarray(eta, dtype=np.float64), self.eta_threshold, None)

    def _listed(self, source_id: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        from xptools.cores import selection

        return selection.among(source_id, identifiers(self.ids))

    def _absolute(self, G: np.ndarray, parallax: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        from xptools.cores import photometry, selection

        return selection.interval(photometry.absolute_magnitude(G, parallax), *self.absolute_magnitude)

    def _below(self, bp_rp0: np.ndarray, mg0: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        from xptools.cores import isochrone, selection

        locus = selection.main_sequence(*isochrone.load(self.isochrones or None).locus(0.0, self.age))
        return selection.below_locus(bp_rp0, mg0, locus, self.iso_offset, keep_blue=self.iso_blue == "keep")

    def _excess(self, C: np.ndarray, bp_rp: np.ndarray, G: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        from xptools.cores import selection

        return selection.good_excess(C, bp_rp, G, self.cstar_nsigma)


@dataclass(frozen=True)
class Select(Cuts, Cut):
    """Rows that pass every cut; with `flag` all rows, with `in_<cut>` columns and select_flag bits."""

    cutflow_out: str = ""

    def judge(self, **columns: Any) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Per cut (passes, unknown); a row whose value is unknown fails."""
        return self.judged(columns)

    def measures(self) -> dict[str, Column]:
        """C* and its error, if there is a cut on it."""
        return dict(CSTAR) if self.cstar_nsigma is not None else {}

    def measured(self, **columns: Any) -> dict[str, np.ndarray]:
        """C* = C - f(BP-RP), and sigma_C*(G) (Riello+ 2021 eqs 6 and 18)."""
        if self.cstar_nsigma is None:
            return {}
        from xptools.cores import photometry

        excess, bp_rp, G = (columns[n] for n in ("phot_bp_rp_excess_factor", "bp_rp", "phot_g_mean_mag"))
        return {
            "c_star": photometry.excess_corrected(excess, bp_rp),
            "c_star_err": photometry.excess_sigma(G),
        }

    def params(self) -> dict[str, Any]:
        """All but where the cut-flow goes: no result depends on it."""
        return {k: v for k, v in super().params().items() if k != "cutflow_out"}

    def closed(self, tally: Tally, schema: pa.Schema) -> None:
        """The cut-flow to its own file, if asked for."""
        if self.cutflow_out:
            from xptools.stream import Options, write_report

            flow = CutFlow(**{f.name: getattr(self, f.name) for f in fields(Cuts)})
            write_report(flow.table(tally.counts, schema), Options(output=self.cutflow_out))


@dataclass(frozen=True)
class CutFlow(Cuts, Fold):
    """The cut-flow (Table 1 of Li+ 2026): rows before and after each cut, in order."""

    adds: ClassVar[dict[str, Column]] = {
        "step": Column("int16", None, "meta.number", "Place of the cut in the order"),
        "cut": Column("string", None, "meta.id", "Name of the cut"),
        "asks": Column("string", None, "meta.note", "What a row must fulfil"),
        "rows_in": Column("int64", None, "meta.number", "Rows that passed the cuts before"),
        "rows_out": Column("int64", None, "meta.number", "Rows that passed this one as well"),
        "unknown": Column("int64", None, "meta.number", "Rows rejected because a value is unknown (NaN)"),
        "kept": Column("float64", None, "stat.fit.param", "rows_out / rows_in"),
        "of_all": Column("float64", None, "stat.fit.param", "rows_out / rows of the input"),
        "alone": Column("int64", None, "meta.number", "Rows of the input that pass this cut, whatever the others say"),
    }

    def zero(self) -> np.ndarray:
        """int64 (cuts + 1, 3): rows left, rows unknown, rows that pass it alone; the first row counts the input."""
        return Tally(self.cuts()).counts

    def add(self, state: np.ndarray, **columns: Any) -> np.ndarray:
        """The counts after these rows."""
        tally = Tally(self.cuts())
        tally.add(self.judged(columns), len(next(iter(columns.values()))))
        return state + tally.counts

    def merge(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Counts add."""
        return one + other

    def finish(self, state: np.ndarray, schema: pa.Schema) -> dict[str, Any]:
        """One row a cut."""
        import numpy as np

        before, after = state[:-1, 0], state[1:, 0]
        with np.errstate(invalid="ignore", divide="ignore"):
            kept, of_all = after / before, after / state[0, 0]
        cuts = self.cuts()
        return {
            "step": np.arange(1, len(cuts) + 1), "cut": list(cuts), "asks": list(cuts.values()), "rows_in": before,
            "rows_out": after, "unknown": state[1:, 1], "kept": kept, "of_all": of_all, "alone": state[1:, 2],
        }  # fmt: skip


def _between(name: str, column: str, limits: tuple[float | None, float | None]) -> Rule:
    def judge(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        from xptools.cores import selection

        return selection.interval(values, *limits)

    return Rule(name, (column,), _asks(column, limits), judge)


def _asks(what: str, limits: tuple[float | None, float | None]) -> str:
    low, high = limits
    if low is not None and high is not None:
        return f"{low:g} < {what} < {high:g}"
    return f"{what} > {low:g}" if low is not None else f"{what} < {high:g}"


POSITIVE = click.FloatRange(0, min_open=True)


def _option(flag: str, metavar: str, words: str, kind: Any = None) -> Callable:
    return click.option(flag, metavar=metavar, help=words, type=kind)


@cut_command(
    "catalogue", 20, report=report, see=("deredden", "mass", "plot"), notes=NOTES,
    examples=(
        "xp select --isochrone --cstar-nsigma 3 --fidelity 0.5 --magnitude :17 stars.parquet -o sample.parquet",
        "xp select --where 'dwarf = mg0 > 4 and isfinite(mass)' --flag stars.parquet -o marked.parquet",
        "xp select --isochrone --cstar-nsigma 3 --cutflow stars.parquet -o cutflow.parquet",
    ),
)  # fmt: skip
@_option("--ids", "FILE", "Keep the stars listed here: numbers, or a table with source_id.")
@_option("--parallax", "LO:HI", "Parallax [mas].")
@_option("--parallax-over-error", "N", "Parallax more than N times its error.", float)
@_option("--absolute-magnitude", "LO:HI", "G + 5 log10(parallax/100), extinction not removed [mag].")
@_option("--bp-rp", "LO:HI", "Observed colour BP - RP, extinction not removed [mag].")
@click.option("--isochrone", is_flag=True, help="Below the [M/H] = 0 isochrone, with mg0 > 4 and 0 < bp_rp0 < 4 [mag].")
@shared("isochrones")
@shared("age", default=5.0)
@click.option("--iso-offset", type=float, default=0.0, show_default=True, help="Isochrone moved fainter by this [mag].")
@click.option("--iso-blue", type=click.Choice(["keep", "reject"]), default="keep", show_default=True,
              help="Stars bluer than the isochrone's turn-off: metal-poor dwarfs above 0.7 Msun are.")  # fmt: skip
@_option("--cstar-nsigma", "N", "Corrected excess factor |C*| < N sigma_C*(G); 3 is usual.", POSITIVE)
@_option("--eta-ratio", "N", "10**eta > N, the odds of being metal-poor; 10 in Li+ 2026.", POSITIVE)
@_option("--eta-quantile", "F", QUANTILE_HELP, click.FloatRange(0, 1, min_open=True))
@click.option("--eta-from", metavar="FILE", default="", help=FROM_HELP)
@_option("--fidelity", "N", "Astrometric fidelity fidelity_v2 > N; 0.5 in Li+ 2026.", float)
@_option("--feh", "LO:HI", "[Fe/H] [dex].")
@_option("--magnitude", "LO:HI", "Apparent G [mag].")
@click.option("--where", multiple=True, metavar="EXPR", help=WHERE_HELP)
@click.option("--flag", is_flag=True, help="Keep every row; append in_<cut> columns and select_flag.")
@click.option("--cutflow", is_flag=True, help="Give the cut-flow instead of the rows.")
@click.option("--cutflow-out", metavar="FILE", default="", help="Write the cut-flow here, besides the rows.")
def command(
    ids, parallax, parallax_over_error, absolute_magnitude, bp_rp, isochrone, isochrones, age, iso_offset, iso_blue,
    cstar_nsigma, eta_ratio, eta_quantile, eta_from, fidelity, feh, magnitude, where, flag, cutflow, cutflow_out, input,
):  # fmt: skip
    """Keep the rows that pass every cut, and count them.

    The cuts work in this order, whatever the order of the options: ids, parallax, parallax-over-error,
    absolute-magnitude, bp-rp, isochrone, cstar, eta, fidelity, feh, magnitude, where. Ranges LO:HI are open at both
    ends; leave an end out for no limit. A star whose value is unknown (NaN) fails the cut, and is counted apart.
    """
    given = {
        "ids": ids or "", "parallax_over_error": parallax_over_error, "isochrone": isochrone, "isochrones": isochrones,
        "age": age, "iso_offset": iso_offset, "iso_blue": iso_blue, "cstar_nsigma": cstar_nsigma,
        "eta_ratio": eta_ratio, "eta_quantile": eta_quantile, "eta_from": eta_from, "fidelity": fidelity,
        "where": tuple(where), "flag": flag and not cutflow, "parallax": limits("parallax", parallax),
        "absolute_magnitude": limits("absolute-magnitude", absolute_magnitude), "bp_rp": limits("bp-rp", bp_rp),
        "feh": limits("feh", feh), "magnitude": limits("magnitude", magnitude),
    }  # fmt: skip
    if eta_from and eta_quantile is None:
        raise UsageError("--eta-from goes with --eta-quantile")
    if cutflow and cutflow_out:
        raise UsageError("--cutflow gives the cut-flow itself, to -o. TRY: without --cutflow-out, or without --cutflow")
    if eta_quantile is not None:
        given["eta_above"] = quantile_threshold(Cuts(**given), eta_from or input, eta_quantile)
    _checked(Cuts(**given))
    return CutFlow(**given) if cutflow else Select(**given, cutflow_out=cutflow_out)


def _checked(cuts: Cuts) -> None:
    """Refuse what is wrong in the command line before any file is opened."""
    from xptools.cores.expression import ExpressionError

    try:
        rules = cuts.rules()
    except ExpressionError as fault:
        raise UsageError(f"--where: {fault}. TRY: xp select --help") from None
    if not rules:
        raise UsageError("no cut is asked for. TRY: --isochrone, --magnitude :17, --where EXPR (xp select --help)")
    if cuts.flag and len(rules) > MOST_CUTS:
        raise UsageError(f"{len(rules)} cuts, but select_flag has {MOST_CUTS} bits. TRY: two commands in a pipe")
    if cuts.ids:
        identifiers(cuts.ids)
