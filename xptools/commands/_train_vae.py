"""`xp train vae`: the scatter variational auto-encoder behind `xp vae`, from spectra without labels."""

import shlex
import sys

import click

from xptools.errors import DataError, UsageError
from xptools.options import plain_command, shared

VERSIONS = ("xptools", "numpy", "jax")
NOTES = {
    "NETWORK": """Encoder, decoder and scatter network of Laroche and Speagle (2024), as in their published weights:
batch norm and GELU (erf) after each hidden layer, the same layers backwards in decoder and scatter network, a sigmoid
on the scatter, which is in units of a coefficient's standard deviation over the sample. The defaults make 67,182
numbers.""",
    "LOSS": """code: half of chi2 plus ln variance, summed over known coefficients, plus --kl-weight times the KL term,
summed over latents, which is the negative ELBO at 1. paper: both sums averaged, without the half, as printed in the
paper (eqs 1 to 5): to weigh the KL term so under code is --kl-weight 18.3. --covariance takes the correlations of the
coefficients, which the table must have, in place of independent errors; it takes some four times as long.""",
    "SCHEDULE": """AdamW with weight decay; the rate falls along a cosine from --rate to 1e-10, --restarts times over
again. The paper's training is --epochs 5000 --restarts 9 on half a million stars. A few thousand stars want more
updates per epoch and a higher rate, as in the examples. With --warm 0.5 the weight of the KL term rises from 0 in the
first half of the epochs: at full weight from the start, as published, latents can be given up before the decoder has
learned to use them, and stay unused. Held-out losses always have the full weight. In the last --settle of the epochs
batch norms keep their running moments, as in use: without it the scatter comes out too large where batches are small.
The weights of the best held-out loss are kept.""",
    "HELD-OUT STARS": """A star is held out by a hash of its source_id and --seed, in whatever table it stands. Held-out
stars decide on the best epoch, on the number of latents if --latents lists several, and on the scale of vae_p; at most
20,000 of them are used. They also give what is printed: the variance of standardised residuals per coefficient, 1 where
noise and scatter are right, and the information in each latent, near 0 for one that is not used.""",
    "LARGE TABLES": """Without --stream a star takes 900 bytes of memory, and more while the table is read. With
--stream those bytes (13 kB with --covariance) are on disk, in XP_TMPDIR, and memory stays the same for any number of
stars: each epoch reads pieces of 2,048 in random order, 65,536 stars at a time.""",
    "PRECISION": """bfloat16 rounds the factors of matrix products, forwards and backwards; sums, weights, moments,
batch norms, the likelihood and held-out losses stay in single precision. On a GPU, whose matrix units work in it, that
is the default. On processors the network is too small to gain: it took 5 to 11 % more time than in single precision on
one that has instructions for bfloat16, so auto is float32 there. A training goes on after a kill in its own precision.
""",
    "PUBLISHED WEIGHTS": """--import takes weights that PyTorch saved, loading numbers only, never code. The published
ones come without the mean and standard deviation of each coefficient: --normalise measures them on a table, which
should be what the weights were trained on. Nothing is trained then.""",
}


@plain_command(
    "models",
    13,
    examples=(
        "xp train vae --batch 64 --rate 1e-3 --epochs 400 spectra.parquet -o m.safetensors",
        "xp train vae --stream --epochs 5000 --restarts 9 catalogue.parquet -o m.safetensors",
        "xp train vae --latents 4,6 --warm 0.5 --batch 64 --rate 1e-3 spectra.parquet -o m.safetensors",
        "xp train vae --import weight.pt --normalise apogee-xp.parquet -o m.safetensors",
    ),
    see=("vae", "mock", "calibrate"),
    notes=NOTES,
)
@click.argument("input", default="-", metavar="[INPUT]")
@click.option("-o", "--output", required=True, metavar="FILE", help="Model file to write (.safetensors).")
@click.option("--hidden", default="90,70,50,30,10", show_default=True, metavar="LIST",
              help="Widths of the encoder's hidden layers.")  # fmt: skip
@click.option("--latents", default="6", show_default=True, metavar="LIST",
              help="Number of latents; of several the one with the best held-out loss is kept.")  # fmt: skip
@click.option("--batch-norm/--no-batch-norm", default=True, show_default=True, help="Batch norm in hidden layers.")
@click.option("--loss", type=click.Choice(["code", "paper"]), default="code", show_default=True,
              help="Sums, or the paper's averages; see LOSS.")  # fmt: skip
@click.option("--kl-weight", type=click.FloatRange(0), default=1.0, show_default=True, help="Weight of the KL term.")
@click.option("--covariance", is_flag=True, help="Take the coefficients' correlations into the loss.")
@click.option("--epochs", type=click.IntRange(1), default=500, show_default=True, help="Passes through the stars.")
@click.option("--restarts", type=click.IntRange(0), default=0, show_default=True, help="Of the cosine.")
@click.option("--settle", type=click.FloatRange(0, 1), default=0.3, show_default=True,
              help="Last part of the epochs, in which batch norms stay as they are.")  # fmt: skip
@click.option("--warm", type=click.FloatRange(0, 1), default=0.0, show_default=True,
              help="First part of the epochs, in which the weight of the KL term rises from 0.")  # fmt: skip
@click.option("--batch", type=click.IntRange(2), default=1024, show_default=True, help="Stars per optimiser step.")
@click.option("--rate", type=click.FloatRange(0, min_open=True), default=1e-4, show_default=True, help="Learning rate.")
@click.option("--decay", type=click.FloatRange(0), default=0.01, show_default=True, help="Weight decay of AdamW.")
@click.option("--held", type=click.FloatRange(0.001, 0.9), default=0.1, show_default=True, help="Fraction held out.")
@shared("precision", help="Of matrix products in training; auto is bfloat16 on a GPU. See PRECISION.")
@click.option("--stream", is_flag=True, help="Keep the stars on disk, not in memory.")
@click.option("--import", "weights", metavar="FILE", help="Take these weights of PyTorch instead of training.")
@click.option("--normalise", metavar="FILE", help="With --import: the table that gives mean and standard deviation.")
def command(
    input, output, hidden, latents, batch_norm, loss, kl_weight, covariance, epochs, restarts, settle, warm, batch,
    rate, decay, held, precision, stream, weights, normalise, seed, quiet, verbose, progress,
):  # fmt: skip
    """Train the auto-encoder of `xp vae` on XP spectra; no labels are needed.

    INPUT has coefficients and errors of both bands, source_id, and phot_g_mean_flux or a G magnitude. Rows without a
    spectrum are left out; single unknown coefficients count for nothing. With -v one line of JSON per epoch. The same
    seed gives the same model on the same machine, also when the same command goes on after a kill, from the
    FILE.checkpoint beside the output.
    """
    from dataclasses import asdict

    from xptools import artefact, checkpoint
    from xptools.commands import _vae_sample as reading
    from xptools.commands._train_feh import _layers
    from xptools.commands._training import chosen_precision, sayer
    from xptools.cores._jax import configure
    from xptools.cores.vae_fitting import Plan

    artefact.writable(output)
    say = sayer(quiet)
    if (weights is None) != (normalise is None):
        raise UsageError("--import and --normalise go together. TRY: --import weight.pt --normalise table.parquet")
    if weights is not None:
        return _imported(weights, normalise, output, say)
    on_gpu = configure().default_backend() != "cpu"  # one that is not there is told of before the table is read
    plans = [
        Plan(
            _layers("hidden", hidden), n, batch_norm, loss, kl_weight, epochs, restarts, batch, rate, decay, held,
            settle, warm, chosen_precision(precision, on_gpu), seed,
        )
        for n in _layers("latents", latents)
    ]
    table = reading.table(input, held, seed, covariance, stream)
    say(f"xp train vae: {table.rows:,} stars, {table.held_rows:,} held out")
    seen = checkpoint.digest(*table.norms.values())
    settings = {"covariance": covariance, "stream": stream, "input": table.digest, "rows": table.rows, "norms": seen}
    runs, points = [], []
    for plan in plans:
        points.append(checkpoint.Checkpoints(output, {**asdict(plan), **settings}, "vae", say))
        watch = _Watch(plan, table.rows, quiet, verbose, progress)
        name = f"{plan.latents}-latents" if len(plans) > 1 else ""
        runs.append((plan, _fitted(plan, table, watch, points[-1].slot(name))))
        if len(plans) > 1:
            say(f"xp train vae: {plan.latents} latents: held-out loss {runs[-1][1].score:.4f}")
    plan, fit = min(runs, key=lambda run: run[1].score)
    tried = {str(p.latents): f.score for p, f in runs}
    origin = _origin(plan, table, fit) | {"covariance": covariance, "stream": stream, "latents_tried": tried}
    _written(output, fit.arrays, table, origin, {"score": fit.score}, say)
    for point in points:
        point.clear()


def _fitted(plan, table, watch, slot):
    """One training, going on where its checkpoint ends if there is one."""
    from xptools import train
    from xptools.cores import vae_fitting

    learner = vae_fitting.learner(plan, table.norms, table.blocks, table.held)
    try:
        return vae_fitting.trained(plan, learner, train, watch, slot)
    finally:
        watch.close()


class _Watch:
    """What a person sees of a training: a bar with rate and remaining time on a terminal, JSON lines with -v."""

    def __init__(self, plan, rows: int, quiet: bool, verbose: bool, mode: str):
        from xptools import progress

        draw = not quiet and not verbose and mode != "off" and (mode == "on" or progress.on_terminal())
        self.rows, self.verbose = rows, verbose
        self.bar = progress.Bar("train vae", plan.epochs * rows, draw)

    def __call__(self, record: dict) -> None:
        import json

        from xptools import progress

        self.bar.add(self.rows)
        if self.verbose:
            rate = self.bar.rows / max(self.bar.seconds, 1e-3)
            progress.say(json.dumps({**record, "rows_per_second": round(rate)}))

    def close(self) -> None:
        self.bar.close()


def _imported(weights, normalise, output, say):
    """A model file of PyTorch's weights and a table's norms."""
    import hashlib
    from pathlib import Path

    from xptools.commands import _vae_sample as reading
    from xptools.cores import vae, vae_import

    arrays = vae_import.read(weights)
    table = reading.table(normalise, 0.5, 0, False, False)
    if vae.shape_of(arrays)[0] != len(table.norms["norm.mean"]):
        raise DataError(
            f"the weights are for {vae.shape_of(arrays)[0]} coefficients, the table has "
            f"{len(table.norms['norm.mean'])}. {normalise}. TRY: the table the weights were trained on"
        )
    digest = hashlib.sha256(Path(weights).read_bytes()).hexdigest()
    origin = {"imported": Path(weights).name, "imported_sha256": digest, **_table_facts(table)}
    _written(output, arrays, table, origin, {}, say)


def _table_facts(table) -> dict:
    return {"input": table.name, "sha256": table.digest, "input_history": table.history, "rows": table.rows}


def _origin(plan, table, fit) -> dict:
    from dataclasses import asdict

    from xptools import artefact

    settings = {k: v for k, v in asdict(plan).items() if k not in ("hidden", "latents", "batch_norm")}
    every = max(1, len(fit.history) // 500)
    curve = [[r["epoch"], round(r["loss"], 4), round(r["score"], 4)] for r in fit.history if r["epoch"] % every == 0]
    return {
        **_table_facts(table), **settings, "best_epoch": fit.epoch, "curve": curve,
        "schedule": f"cosine {plan.rate:g} to 1e-10, {plan.restarts} restarts",
        "versions": artefact.versions(*VERSIONS), "date": artefact.today(),
        "command": shlex.join(["xp", *sys.argv[1:]]),
    }  # fmt: skip


def _written(output, arrays, table, origin, scores, say) -> None:
    """Norms, calibration and description join the weights; the file is written and summed up."""
    from xptools import artefact
    from xptools.commands import _vae_input
    from xptools.cores import vae, vae_fitting

    arrays, metrics, domain = vae_fitting.finished(arrays, table.norms, table.held, origin.get("seed", 0))
    _, hidden, L = vae.shape_of(arrays)
    shape = {
        "hidden": list(hidden), "latents": L, "bands": list(table.widths), "parameters": vae.count(arrays),
        "batch_norm": "encoder.0.gamma" in arrays, "activation": "gelu-erf",
        "form": "x = (coefficient / G flux - norm.mean) / norm.scale; encoder, decoder, scatter of x",
    }  # fmt: skip
    names = [*_vae_input.VALUES, *_vae_input.ERRORS, _vae_input.BRIGHTNESS[0]]
    units = [None] * (len(names) - 1) + ["s**-1"]
    about = artefact.About(
        "vae", [{"name": n, "unit": u} for n, u in zip(names, units, strict=True)],
        [{"name": f"z{k + 1}", "unit": None} for k in range(L)], shape, origin, {**scores, **metrics}, domain,
    )  # fmt: skip
    artefact.save(output, about, arrays)
    low, middle, high = metrics["pull_variance"]
    score = f"held-out loss {scores['score']:.4f}, " if scores else ""
    say(f"xp train vae: {score}variance of standardised residuals {middle:.3f}, by coefficient {low:.3f} to {high:.3f}")
    say(f"xp train vae: nat per latent {', '.join(f'{v:.2f}' for v in metrics['latent_information'])} -> {output}")
