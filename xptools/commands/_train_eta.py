"""`xp train eta`: the conditional mixture behind `xp eta`, from a table of giants."""

import click

from xptools.errors import UsageError
from xptools.options import plain_command

VERSIONS = ("xptools", "numpy", "jax")
ROWS = 65536
MOTION = ("ra", "dec", "pmra", "pmdec", "parallax")


@plain_command(
    "models",
    11,
    examples=(
        "xp train eta --quality aspgap --feh moh_xp giants.parquet -o m.safetensors",
        "xp mock 400000 --sample giants | xp train eta --quality aspgap -o mock.safetensors",
        "xp train eta --components 5:40 giants.parquet -o best.safetensors",
    ),
    see=("eta", "mock"),
)
@click.argument("input", default="-", metavar="[INPUT]")
@click.option("-o", "--output", required=True, metavar="FILE", help="Model file to write (.safetensors).")
@click.option("--feh", default="feh", show_default=True, metavar="NAME", help="Column of [Fe/H].")
@click.option("--quality", type=click.Choice(["aspgap"]), help="Keep only the stars that Li+ 2026 Table 2 keeps.")
@click.option("--where", metavar="EXPR", help="Keep only rows for which this condition on columns holds.")
@click.option(
    "--components",
    default="20",
    show_default=True,
    metavar="K|LO:HI[:STEP]",
    help="Gaussians; of a range, in steps of 5, held-out stars choose.",
)
@click.option(
    "--weights",
    type=click.Choice(["mdf", "none"]),
    default="mdf",
    show_default=True,
    help="Of the stars: one over how common their [Fe/H] is, at most 20 times the median, or all alike.",
)
@click.option(
    "--held", type=click.FloatRange(0.01, 0.5), default=0.1, show_default=True, help="Fraction of stars held out."
)
@click.option("--epochs", type=click.IntRange(1), default=1000, show_default=True, help="Passes at most.")
@click.option("--check", type=click.IntRange(1), default=20, show_default=True, help="Passes per look at held stars.")
@click.option(
    "--patience",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Halve the rate after this many checks without improvement.",
)
@click.option(
    "--stop", type=click.IntRange(1), default=15, show_default=True, help="Stop after this many checks without one."
)
@click.option("--batch", type=click.IntRange(1), default=4096, show_default=True, help="Stars per optimiser step.")
@click.option("--rate", type=float, default=1e-3, show_default=True, help="First learning rate.")
@click.option("--gain", type=float, default=1e6, show_default=True, help="G of the loss; nearly without effect.")
def command(
    input, output, feh, quality, where, components, weights, held, epochs, check, patience, stop, batch, rate, gain,
    seed, quiet, verbose, progress,
):  # fmt: skip
    """Train the kinematic discriminator of `xp eta` on red giants with known [Fe/H].

    INPUT has ra, dec, pmra, pmdec, parallax, source_id and [Fe/H]. A network with two hidden layers of 32 makes of
    [Fe/H] a mixture of Gaussians with full covariances in (ra, dec, v_ra, v_dec), as zuko's GMM does (Li+ 2026 App. B):
    weighted likelihood, Adam, the rate halved where held-out stars no longer gain, the best check kept. Stars without
    positive parallax, proper motion or [Fe/H] are left out, and counted. Which stars are held out depends on seed and
    source_id.

    The model file holds the held-out likelihood per [Fe/H] bin, the stars' [Fe/H] distribution, and the
    standardisation; right ascension is cut where there are fewest stars. With --verbose every check is a line of JSON.
    While it trains, FILE.checkpoint stands beside the output: the same command goes on from it after a kill, to the
    same result, to the byte on the same machine. Memory holds about 80 bytes a star.
    """
    from dataclasses import asdict

    from xptools import artefact, checkpoint, train
    from xptools.commands._training import Watch, sayer
    from xptools.cores import mixture_fitting

    sizes = _sizes(components)
    artefact.writable(output)
    say = sayer(quiet)
    stars, origin = _stars(input, feh, quality, where, held, seed, say)
    plan = mixture_fitting.Plan(sizes, weights, gain, epochs, check, patience, stop, batch, rate, seed)
    points = checkpoint.Checkpoints(output, {"plan": asdict(plan), "sample": checkpoint.digest(*stars)}, "eta", say)
    with Watch("eta", epochs * len(sizes), quiet, verbose, progress, lambda record: "score" in record) as watch:
        arrays, metrics = mixture_fitting.trained(stars, plan, watch, train, points.slot)
    artefact.save(output, _about(stars, plan, metrics, origin.record(VERSIONS), feh, held), arrays)
    points.clear()
    for line in _report(metrics):
        say(f"xp train eta: {line}")
    say(f"xp train eta: {output}")


class _Columns:
    """Which columns of a table are used, and the giants of a batch."""

    def __init__(self, schema, feh: str, quality: str | None, where: str | None, held: float, seed: int):
        from xptools.commands._training import Cuts, column

        self.cuts, self.held, self.seed = Cuts(schema, "eta", quality, where), held, seed
        self.names = {n: column(schema, "eta", n) for n in (*MOTION, "source_id")}
        self.names["feh"] = column(schema, "eta", feh)

    def part(self, batch) -> dict:
        from xptools.commands._training import array
        from xptools.cores.mixture_sample import giants

        keep, flow = self.cuts.keep(batch)
        columns = {n: array(batch, s) for n, s in self.names.items()}
        stars, steps = giants(columns, keep, self.held, self.seed)
        return {"stars": stars, "flow": flow + steps}


def _stars(path, feh, quality, where, held, seed, say):
    """The sample of a table, and where it came from."""
    from xptools.commands._training import read
    from xptools.cores.mixture_sample import joined

    _, parts, origin = read(path, "eta", ROWS, lambda s: _Columns(s, feh, quality, where, held, seed), say)
    return joined([p["stars"] for p in parts]), origin


def _sizes(text: str) -> tuple[int, ...]:
    try:
        low, high, step = ([int(w) for w in text.split(":")] + [5])[:3] if ":" in text else (int(text), int(text), 1)
    except ValueError as fault:
        raise UsageError(f"--components {text!r} is no number or range. TRY: 20, or 5:40") from fault
    if not 1 <= low <= high or step < 1:
        raise UsageError(f"--components {text!r} is no rising range above 0. TRY: 20, or 5:40")
    return tuple(range(low, high + 1, step))


def _about(stars, plan, metrics, origin, feh, held):
    from dataclasses import asdict

    from xptools.artefact import About
    from xptools.cores.mixture_fitting import HIDDEN

    units = {"ra": "deg", "dec": "deg", "v_ra": "km.s**-1", "v_dec": "km.s**-1", "feh": None}
    told = asdict(plan) | {"components": list(plan.components), "rows": len(stars.feh), "held": held, "feh": feh}
    return About(
        kind="eta",
        inputs=[{"name": n, "unit": u} for n, u in units.items()],
        outputs=[{"name": "log_prob", "unit": None}],
        shape={"components": metrics["components"], "hidden": list(HIDDEN), "activation": "relu", "features": 4,
               "form": "zuko's GMM: logits, means, log-diagonals, lower triangles"},
        training=origin | told,
        metrics=metrics,
        domain={n: [float(v.min()), float(v.max())] for n in units for v in (getattr(stars, n),)},
    )


def _report(metrics: dict) -> list[str]:
    """The sizes tried, and the held-out likelihood per [Fe/H] bin."""
    lines = [
        f"K = {row['components']:3}: held-out ln p {row['log_prob']:8.4f} a star, weighted {-row['score']:8.4f}, "
        f"best of {row['epochs']} epochs {row['epoch'] + 1}"
        for row in metrics.get("tried", [metrics])
    ]
    if "tried" in metrics:
        lines.append(f"K = {metrics['components']} is chosen, for its weighted likelihood")
    lines += [
        f"[Fe/H] {row['lo']:5.2f} to {row['hi']:5.2f}: {row['n']:7,} held out, ln p {row['log_prob']:8.4f} "
        f"+- {row['error']:.4f}"
        for row in metrics["held"]
    ]
    return lines
