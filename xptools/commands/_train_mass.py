"""`xp train mass`: the network behind `xp mass`, from isochrones."""

import shlex
import sys

import click

from xptools.errors import UsageError
from xptools.options import plain_command, shared

VERSIONS = ("xptools", "numpy", "jax")
NOTES = {
    "ACCURACY": """Root mean square of what is wrong at M_G > 4, of 20,000 points held out, default options; first for
stars as numerous as in Kroupa's mass function, as they are in a volume, then for all masses alike. All but the last
line from 111 PARSEC tables (YBC corrections, [M/H] -2.2 to 0.1; none is between 3.2 and 10 Gyr old):

                        as stars are        all masses alike    --feh-input: mass [Msun]
  ages [Gyr]            [Msun]   [dex]      [Msun]   [dex]      as stars are, alike
  0.1 to 10             0.017    0.071      0.031    0.096      0.0072   0.0106
  1 to 10               0.018    0.074      0.036    0.116      0.0055   0.0085
  10 to 13.5            0.0037   0.033      0.0073   0.036      0.0016   0.0022
  10                    0.0016   0.032      0.0014   0.025      0.0012   0.0009
  8 to 13.5, built-in   0.0070   0.097      0.0117   0.087      0.0024   0.0037

Where young and old stars mix, magnitude and colour cannot tell them apart: within cells of 0.05 by 0.02 mag the masses
of 0.1 to 10 Gyr themselves scatter by 0.027 Msun, [M/H] by 0.083 dex, all masses alike. Nearly all of that is above
0.5 Msun; below, the error at all ages is 0.005 Msun. So the 0.02 Msun and 0.1 dex that Li+ 2026 state for ages up to
10 Gyr are reached by two inputs for stars as they are, not where every mass counts the same; for old stars, or with
spectroscopic [Fe/H], both ways. Take --ages as old as the stars are.""",
}


@plain_command(
    "models",
    11,
    examples=(
        "xp train mass --isochrones parsec/ -o m.safetensors",
        "xp train mass --ages 8:13.5 -o old.safetensors",
        "xp train mass --feh-input --isochrones a.dat,b.dat -o with-feh.safetensors",
    ),
    see=("mass",),
    notes=NOTES,
)
@click.option("-o", "--output", required=True, metavar="FILE", help="Model file to write (.safetensors).")
@shared("isochrones")
@click.option("--ages", default="0.1:10", show_default=True, metavar="LO:HI", help="Ages [Gyr], or one age.")
@click.option("--mh", default="-2.2:0.5", show_default=True, metavar="LO:HI", help="[M/H] trained on [dex].")
@click.option("--feh-input", is_flag=True, help="Take spectroscopic [Fe/H] as third input; answer with the mass only.")
@click.option("--points", type=click.IntRange(100), default=100_000, show_default=True, help="Stars drawn.")
@click.option("--held", type=click.FloatRange(0.01, 0.9), default=0.2, show_default=True, help="Fraction held out.")
@click.option("--hidden", default="64,64,64", show_default=True, metavar="LIST", help="Widths of the hidden layers.")
@click.option("--epochs", type=click.IntRange(1), default=200, show_default=True, help="Passes through the points.")
@click.option("--batch", type=click.IntRange(1), default=4096, show_default=True, help="Points per optimiser step.")
@click.option("--rate", type=float, default=1e-3, show_default=True, help="Learning rate; a cosine ends at 1e-6.")
def command(output, isochrones, ages, mh, feh_input, points, held, hidden, epochs, batch, rate, seed, quiet, verbose):
    """Train the mass network of `xp mass` on isochrones.

    With --isochrones: real PARSEC, BaSTI or MIST tables, main sequence only, of one family. Without: the built-in main
    sequence, a smooth fit to PARSEC that knows 1 to 13.5 Gyr. Points are drawn with uniform log age within --ages,
    uniform [M/H] and uniform mass. The held-out RMS is printed and stored in the file, also as a function of magnitude,
    where `xp mass` takes its errors from. The same seed gives the same model on the same machine, also when the same
    command goes on after a kill, from the FILE.checkpoint beside the output.
    """
    from xptools import artefact, checkpoint, progress, train
    from xptools.cores import isochrone, mass_training

    age_range, mh_range, layers = _range("ages", ages), _range("mh", mh), _layers(hidden)
    artefact.writable(output)
    grid = isochrone.load(isochrones or None)
    say = (lambda _: None) if quiet else progress.say
    say(f"xp train mass: {'trained on the ' if not isochrones else ''}{grid.origin}")
    if (known := _overlap(age_range, grid.age_range)) != age_range:
        say(f"xp train mass: of the ages {ages} Gyr there are {known[0]:.3g} to {known[1]:.3g}")
        age_range = known
    for name in getattr(grid, "skipped", ()):
        say(f"xp train mass: not an isochrone table, left out: {name}")
    drawn = mass_training.draw(grid, age_range, mh_range, points, seed)
    rows, kept = train.split(points, held, seed)
    learner = mass_training.MassLearner(drawn, feh_input, layers, batch, seed)
    log = (lambda record: progress.say(_json(record))) if verbose else None
    key = {"hidden": layers, "epochs": epochs, "batch": batch, "rate": rate, "held": held, "seed": seed}
    key["sample"] = checkpoint.digest(*(getattr(drawn, f) for f in ("M_G", "bp_rp", "mass", "mh", "weight")))
    checkpoints = checkpoint.Checkpoints(output, key | {"feh_input": feh_input}, "mass", say)
    schedule = train.cosine(rate, 1e-6, epochs)
    fit = train.fit(learner, rows, kept, schedule, epochs, batch, seed, log, slot=checkpoints.slot())
    arrays, metrics = mass_training.finish(fit.arrays, drawn, kept)
    training = {
        "isochrones": grid.origin,
        "family": grid.family,
        "files": _hashes(isochrones, getattr(grid, "skipped", ())),
        "ages_gyr": age_range,
        "mh": mh_range,
        "points": points,
        "held_fraction": held,
        "epochs": epochs,
        "best_epoch": fit.epoch,
        "batch": batch,
        "schedule": f"cosine {rate:g} to 1e-06",
        "seed": seed,
        "versions": artefact.versions(*VERSIONS),
        "date": artefact.today(),
        "command": shlex.join(["xp", *sys.argv[1:]]),
    }
    artefact.save(output, _about(learner, layers, training, metrics | {"score": fit.score}, drawn), arrays)
    checkpoints.clear()
    say(_result(metrics, output))


def _about(learner, layers, training, metrics, drawn):
    from xptools.artefact import About

    three = len(learner.norm["norm.mean"]) == 3
    inputs = [{"name": "mg0", "unit": "mag"}, {"name": "bp_rp0", "unit": "mag"}, {"name": "feh", "unit": None}]
    outputs = [{"name": "mass", "unit": "solMass"}, {"name": "mh_phot", "unit": None}]
    columns = {"mg0": drawn.M_G, "bp_rp0": drawn.bp_rp, "feh": drawn.mh}
    inputs, outputs = inputs[: 3 if three else 2], outputs[: 1 if three else 2]
    names = [c["name"] for c in inputs]
    return About(
        kind="mass",
        inputs=inputs,
        outputs=outputs,
        shape={"hidden": list(layers), "activation": "gelu-tanh"},
        training=training,
        metrics=metrics,
        domain={n: [float(columns[n].min()), float(columns[n].max())] for n in names},
    )


def _result(metrics: dict, output: str) -> str:
    def both(name):
        found = f"{metrics.get('rms_mass' + name, float('nan')):.4f} Msun"
        return found + (f", {metrics['rms_mh' + name]:.3f} dex" if "rms_mh" + name in metrics else "")

    words = f"held-out RMS at M_G > 4: {both('_as_stars')} for stars as numerous as Kroupa's, "
    words += f"{both('')} for all masses alike ({metrics['held_rows']:,} points"
    words += "".join(
        f"; {name.replace('_', '-')} Msun: {metrics[f'rms_mass_{name}']:.4f}"
        for name in ("0.1_0.5", "0.5_0.7", "0.7_0.9")
        if f"rms_mass_{name}" in metrics
    )
    return f"xp train mass: {words}) -> {output}"


def _range(option: str, text: str) -> tuple[float, float]:
    try:
        low, _, high = text.partition(":")
        found = (float(low), float(high or low))
    except ValueError as fault:
        raise UsageError(f"--{option} {text!r} is no range. TRY: LO:HI") from fault
    if not found[0] <= found[1] or (option == "ages" and found[0] <= 0):
        raise UsageError(f"--{option} {text!r} is no rising range. TRY: LO:HI, ages above 0")
    return found


def _overlap(asked: tuple[float, float], known: tuple[float, float]) -> tuple[float, float]:
    """The ages [Gyr] of `asked` that are known; `asked` itself where nothing is, which `draw` refuses."""
    close = 1 + 1e-3  # tables round log age to 5 decimals
    low = asked[0] if asked[0] * close >= known[0] else known[0]
    high = asked[1] if asked[1] <= known[1] * close else known[1]
    return (low, high) if low <= high else asked


def _layers(text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(w) for w in text.split(","))
    except ValueError as fault:
        raise UsageError(f"--hidden {text!r} is no list of widths. TRY: 64,64,64") from fault
    if min(found) < 1:
        raise UsageError(f"--hidden {text!r}: a layer needs at least one unit. TRY: 64,64,64")
    return found


def _hashes(isochrones: str, left_out: tuple[str, ...]) -> dict[str, str]:
    """sha256 of the tables that were read, by file name."""
    import hashlib

    from xptools.cores.isochrone import tables

    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in tables(isochrones) if p.name not in left_out}


def _json(record: dict) -> str:
    import json

    return json.dumps(record)
