"""`xp train ask`: the generalist behind `xp ask`, from any table with holes."""

import click
from click.core import ParameterSource

from xptools.errors import DataError, UnavailableError, UsageError
from xptools.options import plain_command, shared

VERSIONS = ("xptools", "numpy", "torch")
COMMANDLINE = ParameterSource.COMMANDLINE
STARS = 200  # fewest that are trained on
# passes, batch, rate, last rate, cycles
SCHEDULES = {
    "lb23": (4096, 1024, 1e-4, 1e-10, 8),
    "small": (16, 512, 2e-3, 1e-5, 1),
    "tiny": (30, 128, 3e-3, 1e-5, 1),
}
NOTES = {
    "VOCABULARY": """--recipe names a TOML file: which columns are tokens, a line each, and which rows are used. lb23 is
Leung & Bovy (2023): 110 coefficients over the flux in G, three colours, Teff, log g, [M/H], ln E(B-V) and
(parallax - parallax_zero_point) 10^(0.2 G), the zero point by xp deredden --zero-point: 118 tokens. distmass adds
mass and age, as Zhang M.+ (2026), with the quality cuts of APOGEE's DistMass catalogue. giants is
for xp mock --sample giants. A file of one's own has lines like
{ name = "mass", value = "mass", error = "mass_err", group = "mass", unit = "solMass", text = "Mass", ask = true }
where value and error are expressions of columns; a line with width is an array column, one token per number, of which
those from the column `relevant` on are unknown. [selection] may have keep (a condition), quantiles (of coefficients)
and blank (tokens that are unknown under a condition). Columns that the table lacks are tokens that are not trained,
with rules of blank that are for such tokens only. Nor are tokens that fewer than 50 stars know, or that are the same
for all. A number that a single column has again and again, far from all its other values (20 times 1.48 MAD from
their median, and in less than half of the stars; 5 if it is written with nines, as -9999), is taken as unknown. All
these are told.""",
    "TRAINING": """Each time a star is met, a random subset of its known numbers is its context and other known numbers
are requests, the requested one perhaps among the context; the loss is the Gaussian negative log-likelihood with the
label's error added to the predicted variance. lb23: one request per star, 4096 passes in 8 cosine cycles, batch 1024,
rate 1e-4, 8.8 million parameters: for a GPU. small (0.24 million) asks 8 requests of each encoded star, weighs a label
as much as half a band, and shows whole groups of tokens to 85 % of the stars, or low or high orders only, as they are
met in use. Beside attention it has a factor analysis of all tokens, found before training, and a few layers that take
its answers from whatever is shown: differences of a hundredth are learned in minutes so. tiny is for tests. Numbers
stay on disk (XP_TMPDIR), so a table may be larger than memory. A training that is killed goes on from
OUTPUT.checkpoint when the same command is given again, to the same result.""",
    "ERRORS": """Half of the held-out stars correct the errors: a small network makes a factor of the predicted
variance, from that variance, the answer, the token that is asked for, the parts of each group of tokens that are
shown, of spectra order by order where they are low, and of each array that are withheld. It learns it from 64 contexts
of each star, drawn as in training or as xp ask meets them, and takes the labels' own errors off. Answers are moved as
well, by what they are off to one side under such contexts: log g by half an error, for example, where only five orders
are shown. Without any label nothing is corrected. The other half is what is told, without labels, of every other star
the spectra alone. Printed per label: 1.48 MAD of label - answer, which has the label's own error in it, the median of
that error and of the answer's, the pulls (rms) with the network's own error and with the total one. In the model file
also mean -ln p and CRPS, which tell --head gaussian from --head mixture.""",
}


@plain_command(
    "models",
    14,
    examples=(
        "xp train ask --recipe distmass apogee-xp.parquet -o generalist.safetensors",
        "xp mock 150000 --sample giants --spectra --map toy | xp train ask --recipe giants -o giants.safetensors",
        "xp train ask --recipe giants --head mixture --epochs 40 giants.parquet -o mixture.safetensors",
    ),
    see=("ask", "mock", "plot"),
    notes=NOTES,
)
@click.argument("input", default="-", metavar="[INPUT]")
@click.option("-o", "--output", required=True, metavar="FILE", help="Model file to write (.safetensors).")
@click.option("--recipe", default="distmass", show_default=True, metavar="NAME|FILE",
              help="Vocabulary and selection: distmass, giants, lb23, or a TOML file.")  # fmt: skip
@click.option("--preset", type=click.Choice(list(SCHEDULES)), default="small", show_default=True,
              help="Sizes of the network, and what the options below are without being given.")  # fmt: skip
@click.option("--head", type=click.Choice(["gaussian", "mixture"]), default="gaussian", show_default=True,
              help="What an answer is: one Gaussian, or several with weights.")  # fmt: skip
@click.option("--components", type=click.IntRange(2, 32), default=4, show_default=True, help="Gaussians of a mixture.")
@click.option("--where", metavar="EXPR", help="Keep only rows for which this condition on columns holds.")
@click.option("--held", type=click.FloatRange(0.01, 0.5), default=0.1, show_default=True, help="Fraction held out.")
@click.option("--epochs", type=click.IntRange(1), help="Passes through the stars.")
@click.option("--cycles", type=click.IntRange(1), help="Cosines that the rate runs through.")
@click.option("--batch", type=click.IntRange(1), help="Stars per optimiser step.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Learning rate at the top of a cosine.")
@click.option("--requests", type=click.IntRange(1, 64), help="Requests per star and step.")
@click.option("--context", type=click.IntRange(1, 1024), help="Most tokens of a context.")
@click.option("--start", metavar="FILE", help="Begin with the weights of this model, of the same tokens and sizes.")
@shared("precision", help="Of matrix products; auto is bfloat16 on a GPU, where the network is compiled as well.")
def command(
    input, output, recipe, preset, head, components, where, held, epochs, cycles, batch, rate, requests, context,
    start, precision, seed, quiet, verbose, progress,
):  # fmt: skip
    """Train the generalist of `xp ask`: one transformer from any known numbers of a star to any others.

    INPUT is a table with columns of the recipe's vocabulary; unknown values are expected. Every number is a token with
    its value; labels may carry errors. Without a GPU use --preset small. The same seed gives the same model on the same
    machine.
    """
    from dataclasses import asdict

    from xptools import artefact, checkpoint, train
    from xptools.commands._ask_sample import Recipe, sample
    from xptools.commands._training import Watch, sayer
    from xptools.cores.ask_training import AskLearner
    from xptools.io import digest

    if head == "gaussian" and click.get_current_context().get_parameter_source("components") is COMMANDLINE:
        raise UsageError("--components is of --head mixture. TRY: --head mixture as well")
    artefact.writable(output)
    say, told = sayer(quiet), Recipe(recipe)
    device = chosen_device()
    sizes, plan = _plan(preset, head, components, requests, context, precision, device)
    epochs, batch, rate, last, cycles = (
        given or usual for given, usual in zip((epochs, batch, rate, None, cycles), SCHEDULES[preset], strict=True)
    )
    table, rows, kept, origin = sample(input, told, where, STARS, say)
    kept_rows, held_rows = (rows[i] for i in train.split(len(rows), held, seed))
    learner = AskLearner(table, told.vocabulary, sizes, plan, seed, device)
    if start:
        learner.restore_weights(_weights(start, told, sizes))
    else:
        learner.prepare(kept_rows)
    schedule = {"epochs": epochs, "batch": batch, "rate": rate, "last": last, "cycles": cycles, "seed": seed}
    key = {"plan": asdict(plan), "sizes": asdict(sizes), "recipe": told.vocabulary.rows(), **schedule}
    key |= {"sample": checkpoint.digest(table.values, table.errors, rows), "start": digest(start) if start else None}
    points = checkpoint.Checkpoints(output, key, "ask", say)
    cosine = train.cosine(rate, last, epochs, cycles - 1)
    with Watch("ask", epochs, quiet, verbose, progress) as watch:
        fit = train.fit(learner, kept_rows, held_rows, cosine, epochs, batch, seed,
                        lambda record: watch("ask", record), slot=points.slot())  # fmt: skip
    learner.restore_weights(fit.arrays)
    arrays, metrics = _finished(learner, fit, told, table, held_rows, kept)
    training = origin.record(VERSIONS) | schedule | asdict(plan)
    training |= {"recipe": recipe, "preset": preset, "device": device, "start": key["start"], "rows": len(kept_rows),
                 "held_rows": len(held_rows), "best_epoch": fit.epoch}  # fmt: skip
    artefact.save(output, _about(told, sizes, training, metrics | {"score": fit.score}, kept), arrays)
    points.clear()
    for line in _report(metrics["labels"], _telling(told, table, held_rows)):
        say(line)
    say(f"xp train ask: {output}")


def chosen_device() -> str:
    """cuda or cpu, as --device says; auto is the GPU where there is one."""
    import torch

    from xptools import settings

    wanted = settings.device()
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UnavailableError("no GPU that PyTorch can use. TRY: --device cpu")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def _plan(preset, head, components, requests, context, precision, device):
    from dataclasses import replace

    from xptools.commands._training import chosen_precision
    from xptools.cores.ask_model import PRESETS
    from xptools.cores.ask_training import PLANS

    sizes = replace(PRESETS[preset], components=components if head == "mixture" else 1)
    if context:
        sizes = replace(sizes, context=context)
    bits = chosen_precision(precision, device == "cuda")
    plan = replace(PLANS[preset], precision=bits, compiled=device == "cuda")
    if plan.blank > sizes.context:
        plan = replace(plan, blank=sizes.context)
    if requests:
        plan = replace(plan, requests=requests)
    return sizes, plan


def _weights(start, recipe, sizes):
    """The weights of another model; DataError unless it has the same tokens and sizes."""
    from xptools.artefact import load
    from xptools.cores.ask import sizes_of

    found = load(start, "ask")
    names = [[row["name"], row.get("width", 0)] for row in found.about.shape["vocabulary"]]
    if names != [[e.name, e.width] for e in recipe.vocabulary.entries] or sizes_of(found.about.shape["sizes"]) != sizes:
        raise DataError(f"--start has other tokens or sizes than what is trained. {start}. TRY: xp info {start}")
    return found.arrays


def _finished(learner, fit, recipe, table, held, kept):
    """Weights and tokens' arrays, calibrated on held-out stars; the metrics."""
    from xptools.cores.ask import Engine
    from xptools.cores.ask_calibration import calibrated
    from xptools.cores.ask_model import parameters

    engine = Engine(learner.network.eval(), recipe.vocabulary, **kept, device=learner.device)
    errors, labels = engine.errors, {}  # those without a correction
    if len(_labels(recipe, table)):
        errors, labels = calibrated(engine, table, held, learner.plan, learner.seed)
    tokens = {f"token.{k}": v for k, v in kept.items()}
    return {**fit.arrays, **tokens, **errors.arrays()}, {"labels": labels, "parameters": parameters(learner.network)}


def _labels(recipe, table):
    """Numbers of the tokens that are trained and asked for."""
    import numpy as np

    asked = np.array([e.ask for e in recipe.vocabulary.entries])[recipe.vocabulary.entry_of]
    return np.flatnonzero(asked & table.usable)


def _about(recipe, sizes, training, metrics, kept):
    from dataclasses import asdict

    from xptools.artefact import About

    told = [{"name": e.name, "unit": e.unit or None} for e in recipe.vocabulary.entries]
    domain = {
        name: [float(low), float(high)]
        for name, low, high, usable in zip(recipe.vocabulary.tokens, *(kept[k] for k in ("low", "high", "usable")),
                                           strict=True)
        if usable
    }  # fmt: skip
    return About(
        kind="ask",
        inputs=told,
        outputs=told,
        shape={"sizes": asdict(sizes), "vocabulary": recipe.vocabulary.rows(), "activation": "gelu-erf"},
        training=training,
        metrics=metrics,
        domain=domain,
    )


def _telling(recipe, table, held) -> dict[str, int]:
    """How many of the held-out stars that tell know each label, by its name."""
    import numpy as np

    from xptools.cores.ask_calibration import MOST

    tokens, rows = _labels(recipe, table), held[1::2]
    count = np.isfinite(table.values[np.ix_(rows[:: max(1, -(-len(rows) // MOST))], tokens)]).sum(0)
    return {recipe.vocabulary.tokens[k]: int(n) for k, n in zip(tokens, count, strict=True)}


def _report(labels: dict, telling: dict[str, int]) -> list[str]:
    from xptools.cores.ask_calibration import FEWEST

    if not telling:
        return ["xp train ask: no label (ask = true) is trained: nothing to tell of held-out stars, and errors are the "
                "network's own, not corrected"]  # fmt: skip
    lines = ["xp train ask: held-out stars, labels withheld",
             "               stars  1.48 MAD  label err  model err  total err    pull  total pull"]  # fmt: skip
    for name, m in labels.items():
        numbers = (m[k] for k in ("mad_std", "label_error", "error", "total_error"))
        words = "  ".join(f"{n:9.4g}" for n in numbers)
        lines.append(f"{name:>12} {m['stars']:7,} {words}  {m['pull']:6.2f}  {m['total_pull']:10.2f}")
    few = [f"{name} ({n:,})" for name, n in telling.items() if name not in labels]
    if few:
        lines.append(f"xp train ask: too few held-out stars to tell anything of {', '.join(few)}: {FEWEST} that know "
                     "it are needed in the half that tells. TRY: a larger --held, more stars")  # fmt: skip
    return lines if labels else lines[2:]
