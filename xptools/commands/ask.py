"""`xp ask`: any labels or spectra from any known numbers of a star, by the generalist."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import click
from click.core import ParameterSource

from xptools.columns import Column
from xptools.commands import _ask_answers as answering
from xptools.errors import MissingColumns, UsageError
from xptools.options import XpCommand, row_command, shared
from xptools.protocol import RowOp, check_unit

DEFAULT = Path(__file__).parent.parent / "data" / "ask_demo.safetensors"


@dataclass(frozen=True)
class Ask(RowOp):
    """p(requested | given) of the generalist of Leung & Bovy (2023) and Zhang M.+ (2026) (cores/ask.py)."""

    labels: tuple[str, ...] = ()
    model: str = ""
    given: tuple[str, ...] = ()
    context: tuple[str, ...] = ()
    joint: int = 0
    explain: bool = False
    suffix: str = ""
    precision: str = "float32"
    seed: int = 0

    name: ClassVar[str] = "ask"
    flags: ClassVar = {
        1: "nothing was known: the answer is the prior",
        2: "a number outside the range the model was trained on",
        4: "an answer outside the range the model was trained on",
        8: "more numbers known than the model takes: the last are left out",
        16: "a number of --given is unknown, or all of an array's that it names",
    }
    cites: ClassVar = ("leung2024",)
    packages: ClassVar = ("numpy", "torch")

    def files(self):
        return {"model": self.model or str(DEFAULT)}

    @property
    def needs(self) -> tuple[str, ...]:
        if not self.given:
            return ("source_id",) if self.joint else ()
        own = [c for n in self.given for c in self._plan().columns_of(n)]
        return tuple(dict.fromkeys([*own, *(("source_id",) if self.joint else ())]))

    @property
    def wants(self) -> tuple[str, ...]:
        return tuple(c for c in self._plan().reads() if c not in self.needs)

    @property
    def adds(self) -> dict[str, Column]:
        return self._plan().columns()

    def reads(self, schema):
        found = super().reads(schema)
        plan = self._plan()
        for name, spelling in found.items():
            if name in plan.units:
                check_unit(name, schema.field(spelling), plan.units[name])
        if not any(all(c in found for c in e.columns) for e in plan.shown):
            raise MissingColumns(self.name, plan.reads(), tuple(schema.names))
        return found

    def _plan(self) -> "answering.Plan":
        path = Path(self.files()["model"])
        return _planned(self, path, _stamp(path))

    def compute(self, **columns):
        from xptools.commands._train_ask import chosen_device
        from xptools.session import uncollected

        path = Path(self.files()["model"])
        with uncollected():
            engine = _loaded(path, _stamp(path), chosen_device(), self.precision)
        return answering.answers(self._plan(), engine, columns)


def _stamp(path: Path) -> int:
    """Changes when the file does: a model trained again under the same name is read again."""
    return path.stat().st_mtime_ns if path.exists() else 0


@lru_cache(maxsize=32)
def _planned(step: Ask, path: Path, _stamp: int) -> "answering.Plan":
    from xptools.artefact import about, demand

    return answering.Plan(step, demand(about(path), "ask", path))


@lru_cache(maxsize=4)
def _loaded(path: Path, _stamp: int, device: str, precision: str):
    from xptools import settings
    from xptools.artefact import load
    from xptools.cores.ask import restored

    found = load(path, "ask")
    return restored(found.arrays, found.about.shape, device, precision, settings.threads())


class Words(XpCommand):
    """Takes labels, and after them a file: the last word is INPUT if it has a dot or a slash, or is -."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, args)
        last = ctx.params["input"]
        if last != "-" and not any(sign in last for sign in "./"):
            given = ctx.get_parameter_source("labels") is ParameterSource.COMMANDLINE
            ctx.params["labels"] = (*(ctx.params["labels"] if given else ()), last)
            ctx.params["input"] = "-"
        return rest


NOTES = {
    "LABELS": """Names of the model's vocabulary: xp info FILE shows it. Of the default model: teff, logg, mh, alpha_m,
mass, age, ext_e, bprp, g_fakemag, bp_coefficients, rp_coefficients. Without LABELS those that the model calls labels
and was taught are answered. A number that hardly any star of its training had, or all had the same, it was not taught,
and asking for it or showing it is refused; of an array's orders such ones come out as 0 with their rms. The last word
is INPUT if it has a dot or a slash. Coefficients come out with phot_g_mean_mag's flux, or where it is unknown for a
flux of 1 electron/s in G.""",
    "WHAT IS SHOWN": """All numbers of the vocabulary that the table has, except the requested ones, which are not
shown unless --given names them. --context chooses: only these columns or tokens are shown; with a minus before a
name, all but these. --given shows exactly these, and flags the stars that lack one. bp[0:5] names the first five
numbers of an array.""",
    "ERRORS": """LABEL_err is the total error: what the network itself predicts, LABEL_err_net, times a factor that
held-out stars gave for the label, its answer and what is shown, so that answers are as far from the truth as LABEL_err
says (standard deviation, wild stars included) whatever the context. Coefficients that a table has but that --context
hides are hidden from the answer, yet the factor knows that there are such: the network takes a star of few orders for a
faint one. A label that is shown comes back to about a thousandth of its scatter; LABEL_err is the error of that, not of
the label. Labels that come as expressions have their unit in the model file. A number that is wrong, rather than
noisy, is believed: see bits 2 and 4 of ask_flag. Only what no network can take is left out, with bit 2: infinite
numbers, those beyond single precision, and the coefficients of a star whose phot_g_mean_mag is 50 or more either
way.""",
    "JOINT ANSWERS": """--joint N chains the requests in the order of LABELS: the first is drawn from its answer, shown,
and the second drawn given it, N times over. LABEL_samples are the draws, LABEL and LABEL_err their mean and standard
deviation. Deviates follow from --seed and source_id.""",
    "EXPLAIN": """--explain adds LABEL_loss_GROUP: by how many nats the expected ln p of the answer falls when the group
of numbers is withheld (the Kullback-Leibler divergence of the answers with and without it, as Gaussians).""",
    "PRECISION": """On processors with instructions for it the layers work in bfloat16 (8 bits of mantissa), two to
three times as fast; values are embedded and answers made in single precision. With the default model answers then move
by less than 1 % of their error (rms); a network without a summary, as lb23, moves by 2 % of its scatter. What was
chosen is in the output's history; --precision float32 gives the same answers on any processor but for rounding.""",
    "THE MODEL": """Without --model a small demonstration model is used, trained on xp mock --sample giants --spectra
--map toy: right for trying things and for mock giants, not for science on real stars. Answers and errors of any model
are right for stars like those it was trained on, dust included: of mock giants without dust this one's Teff is half an
error off on average. xp train ask makes a model.""",
}


@row_command(
    "spectra",
    40,
    cls=Words,
    examples=(
        "xp ask mass age --model generalist.safetensors giants.parquet -o ages.parquet",
        "xp mock 3000 --sample giants --spectra --map toy | xp ask mass age "
        "--context bp_coefficients,rp_coefficients --suffix _ask -o ages.parquet",
        "xp ask bp_coefficients rp_coefficients --given teff,logg,mh,mass labels.parquet -o spectra.parquet",
        "xp ask rp_coefficients --given bp_coefficients --replace spectra.parquet -o inpainted.parquet",
    ),
    see=("train", "mock", "plot", "calibrate"),
    notes=NOTES,
)
@click.argument("labels", nargs=-1)
@shared("model")
@click.option("--given", metavar="LIST", default="", help="Show exactly these columns or tokens, with commas.")
@click.option("--context", metavar="LIST", default="", help="Show only these; with a minus before each, all but these.")
@click.option("--joint", type=click.IntRange(0, 4096), default=0, show_default=True, metavar="N",
              help="Draw N joint samples of the labels; 0: none.")  # fmt: skip
@click.option("--explain", is_flag=True, help="Add what each group of numbers told, in nats.")
@click.option("--suffix", metavar="TEXT", default="", help="Appended to LABELS in the names of the answers.")
@shared("precision", help="Of the network's layers; auto is bfloat16 on a processor that is made for it.")
def command(labels, model, given, context, joint, explain, suffix, precision, seed):
    """Append labels or spectra, answered from whatever else is known of a star.

    A transformer (xp train ask) that takes any set of numbers - XP coefficients, colours, parallax, labels - and
    answers any other, with an error and a flag. What a star lacks is simply not shown; a star of which nothing is known
    gets the prior.
    """
    from xptools.commands._ask_answers import words

    for name in (*labels,):
        if name.startswith("-"):
            raise UsageError(f"{name!r} is no label. TRY: xp ask --help")
    chosen = words(context)
    if joint == 1:
        raise UsageError("one joint sample has no scatter. TRY: --joint 100")
    if given and chosen:
        raise UsageError("--given and --context both say what is shown. TRY: one of them")
    if len({n.startswith("-") for n in chosen}) > 1:
        raise UsageError("--context has names with and without a minus. TRY: the one or the other")
    if precision == "auto":
        precision = "bfloat16" if _takes_bfloat16() else "float32"
    return Ask(tuple(labels), model, words(given), chosen, joint, explain, suffix, precision, seed if joint else 0)


def _takes_bfloat16() -> bool:
    """Whether the processor multiplies matrices of bfloat16 itself; told by Linux, for PyTorch takes long to load."""
    try:
        told = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return any(flag in told for flag in ("avx512_bf16", "amx_bf16"))
