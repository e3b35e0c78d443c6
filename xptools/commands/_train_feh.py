"""`xp train feh`: the networks behind `xp feh`, from spectra with reference labels."""

import click

from xptools.commands._spectra_input import SPREAD_NOTE
from xptools.errors import DataError, UsageError
from xptools.options import plain_command, shared

VERSIONS = ("xptools", "numpy", "jax")
STARS = 100  # without more, no network


@plain_command(
    "models",
    12,
    examples=(
        "xp train feh --quality aspcap apogee-xp.parquet -o m.safetensors",
        "xp train feh --teff true_teff --feh true_feh --hidden 64,64 mock.parquet -o m.safetensors",
    ),
    see=("feh", "calibrate", "mock"),
    notes={"SPREAD COLUMNS": SPREAD_NOTE},
)
@click.argument("input", default="-", metavar="[INPUT]")
@click.option("-o", "--output", required=True, metavar="FILE", help="Model file to write (.safetensors).")
@click.option("--teff", default="", metavar="NAME", help="Column of the reference Teff [K].  [default: teff]")
@click.option("--feh", default="", metavar="NAME", help="Column of the reference [Fe/H].  [default: feh, or fe_h]")
@click.option(
    "--mg", default="", metavar="NAME", help="Column of M_G [mag].  [default: mg0, or phot_g_mean_mag and parallax]"
)
@click.option("--quality", type=click.Choice(["aspcap"]), help="Keep only the stars that Li+ 2026 Table 3 keeps.")
@click.option(
    "--noise-free",
    is_flag=True,
    help="Spectra and parallaxes carry no noise, whatever their errors say (xp mock --noise 0).",
)
@click.option("--where", metavar="EXPR", help="Keep only rows for which this condition on columns holds.")
@click.option(
    "--hidden",
    default="512,256,128,64",
    show_default=True,
    metavar="LIST",
    help="Widths of the hidden layers of the forward network.",
)
@click.option(
    "--guess",
    default="256,128,64",
    show_default=True,
    metavar="LIST",
    help="Widths of the hidden layers of the first-guess network.",
)
@click.option("--folds", type=click.IntRange(2, 10), default=3, show_default=True, help="Of the cross-validation.")
@click.option(
    "--held",
    type=click.FloatRange(0.01, 0.5),
    default=0.1,
    show_default=True,
    help="Fraction held out of each training for the early stop.",
)
@click.option("--epochs", type=click.IntRange(1), default=200, show_default=True, help="Passes at most.")
@click.option(
    "--patience",
    type=click.IntRange(1),
    default=30,
    show_default=True,
    help="Stop after this many passes without a better held-out score.",
)
@click.option("--batch", type=click.IntRange(1), default=1024, show_default=True, help="Stars per optimiser step.")
@click.option("--rate", type=float, default=1e-3, show_default=True, help="Learning rate; a cosine ends at 1e-6.")
@shared("curve-unit")
def command(
    input, output, teff, feh, mg, quality, noise_free, where, hidden, guess, folds, held, epochs, patience, batch, rate,
    curve_unit, seed, quiet, verbose, progress,
):  # fmt: skip
    """Train the networks of `xp feh` on spectra with reference labels.

    INPUT has XP spectra (coefficients, as arrays or a column for each, or the flux of xp calibrate), parallax,
    parallax_error, and reference Teff and [Fe/H], for example of APOGEE. Two networks are trained, labels to spectrum
    (GELU in its tanh form, AdamW) and spectrum to a first guess of the labels, and cross-validated: each star is
    inverted by networks that have not seen it. Its table of bias and scatter (1.48 MAD) per M_G and [Fe/H] bin is
    printed and stored in the model file, with the covariance of what the networks miss, and the labels they know. The
    same seed gives the same model on the same machine, also when the same command goes on after a kill, from the
    checkpoints beside the output.

    --quality aspcap is Table 3 of Li+ 2026: log g > 4, errors of [Fe/H] below 0.1 and of Teff below 100 K, parallax
    over error above 5, no flags of astra, error and scatter of the radial velocity below 1 km/s, 0 < BP-RP < 4; and,
    where the columns are there, A_G < 0.1, chi2_single < 5 (or no bad fit in feh_flag) and chi2_single (or chi2) -
    chi2_binary < 1, from a catalogue or xp feh --binary. The stars that each cut leaves are printed.

    --noise-free is for mock stars: the forward network learns the exact spectra, the first guess and the
    cross-validation see them with noise drawn from their covariances.
    """
    from dataclasses import asdict

    from xptools import artefact, checkpoint, train
    from xptools.commands import _feh_sample as reading
    from xptools.commands._training import Watch, sayer
    from xptools.cores import feh_fitting

    layers, guess_layers = _layers("hidden", hidden), _layers("guess", guess)
    artefact.writable(output)
    say = sayer(quiet)
    names = {"teff": teff, "feh": feh, "mg": mg}
    table = reading.table(input, names, quality, where, curve_unit, noise_free, say)
    if len(table.sample.labels) < STARS:
        raise DataError(f"{len(table.sample.labels)} stars are left, fewer than {STARS}. TRY: fewer cuts, more stars")
    say(f"xp train feh: {len(table.sample.labels):,} stars")
    plan = feh_fitting.Plan(layers, guess_layers, folds, held, epochs, patience, batch, rate, seed)
    seen = checkpoint.digest(table.sample.labels, table.wavelength, table.source_id, *table.sample.spectra)
    settings = {**asdict(plan), "noise_free": noise_free, "sample": seen}
    points = checkpoint.Checkpoints(output, settings, "feh", say)
    with Watch("feh", 2 * (folds + 1) * epochs, quiet, verbose, progress) as watch:
        arrays, metrics = feh_fitting.trained(
            table.sample, table.wavelength, table.source_id, plan, watch, train, points.slot
        )
    artefact.save(output, _about(arrays, plan, table, metrics), arrays)
    points.clear()
    for line in _report(metrics):
        say(line)
    say(f"xp train feh: {output}")


def _about(arrays, plan, table, metrics):
    from dataclasses import asdict

    from xptools.artefact import About

    labels = table.sample.labels
    names = (("teff", "K"), ("mg", "mag"), ("feh", None))
    training = table.origin.record(VERSIONS) | {
        "rows": len(labels),
        "noise_free": table.sample.exact,
        "labels": table.names,
        **{k: v for k, v in asdict(plan).items() if k not in ("hidden", "guess")},
        "schedule": f"cosine {plan.rate:g} to 1e-06",
    }
    shape = {
        "hidden": list(plan.hidden),
        "guess": list(plan.guess),
        "activation": "gelu-tanh",
        "wavelength": [float(w) for w in arrays["wavelength"]],
        "form": "log10 flux at 10 pc [1e-18 W m-2 nm-1] = mean + scale net - 0.4 (M_G - 7)",
    }
    return About(
        kind="feh",
        inputs=[{"name": n, "unit": u} for n, u in names],
        outputs=[{"name": "flux10", "unit": "W.m**-2.nm**-1"}],
        shape=shape,
        training=training,
        metrics=metrics,
        domain={n: [float(labels[:, k].min()), float(labels[:, k].max())] for k, (n, _) in enumerate(names)},
    )


def _report(metrics: dict) -> list[str]:
    """The cross-validation table as text."""
    lines = [f"xp train feh: {metrics['folds']}-fold cross-validation, bias and 1.48 MAD of what comes back",
             "                      stars    Teff [K]        M_G [mag]        [Fe/H]"]  # fmt: skip
    for row in metrics["validation"]:
        name = {"all": "all", "mg": "M_G", "feh": "[Fe/H]"}[row["bin"]]
        where = f"{row['lo']:5.1f} to {row['hi']:5.1f}" if "lo" in row else ""
        words = "    too few"
        if "mad_feh" in row:
            words = (f"{row['bias_teff']:6.0f} {row['mad_teff']:6.0f}   {row['bias_mg']:7.3f} {row['mad_mg']:7.3f}   "
                     f"{row['bias_feh']:7.3f} {row['mad_feh']:7.3f}")  # fmt: skip
        lines.append(f"{name:>7} {where:14}{row['n']:6,}  {words}")
    return lines


def _layers(option: str, text: str) -> tuple[int, ...]:
    try:
        found = tuple(int(w) for w in text.split(","))
    except ValueError as fault:
        raise UsageError(f"--{option} {text!r} is no list of widths. TRY: 512,256,128,64") from fault
    if min(found) < 1:
        raise UsageError(f"--{option} {text!r}: a layer needs at least one unit. TRY: 512,256,128,64")
    return found
