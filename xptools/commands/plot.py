"""`xp plot`: publication figures, each with the numbers it shows in a table beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from xptools.columns import Column
from xptools.commands import _plot_input as shared_input
from xptools.commands._plot_words import both, pair
from xptools.errors import UsageError
from xptools.options import About, edges, plain_command, shared


class Figures(click.Group):
    """The figures there are, as a command of its own."""

    about = About("tables", 5, "plain", ("xp plot cmd stars.parquet -o cmd.pdf",), ("mf", "veff", "select"))


@click.group("plot", cls=Figures, context_settings={"help_option_names": ["-h", "--help"]})
def command():
    """Draw a publication figure, with its numbers beside it.

    Every figure is written as PDF, PNG or SVG with fonts embedded, one or two journal columns wide (88 or 180 mm), the
    same bytes each time. The numbers it shows, and no others, go to a table beside it, figure.pdf.parquet (--data-out).
    Needs matplotlib: pip install 'xptools[plot]'.
    """


def figure(name: str, *examples: str, **about: Any) -> Callable:
    """Make a function a figure: it gets the common options, and stands under `xp plot`."""

    def decorate(function: Callable) -> click.Command:
        for option in reversed(FIGURE_OPTIONS):
            function = option(function)
        made = plain_command("tables", 5, examples=examples, see=("plot",), **about)(function)
        made.name = name
        command.add_command(made)
        return made

    return decorate


FIGURE_OPTIONS = (
    click.argument("input", default="-", metavar="[INPUT]"),
    click.option("-o", "--output", metavar="FILE", help="The figure, by name a .pdf, .png or .svg; - is stdout."),
    click.option("--form", type=click.Choice(["pdf", "png", "svg"]), help="Form of the figure, if its name says none."),
    click.option("--data-out", metavar="FILE", help="The numbers shown, or none.  [default: beside the figure]"),
    click.option(
        "--column", type=click.Choice(["single", "double"]), default="single", show_default=True, help="88 or 180 mm."
    ),
    click.option("--no-clobber", is_flag=True, help="Never replace an existing output file."),
)


@figure("cmd", "xp plot cmd --locus -2,-1,0 stars.parquet -o cmd.pdf", "xp mock 200000 | xp plot cmd --terminal")
@click.option("--x", metavar="EXPR", help="Horizontal axis.  [default: bp_rp0, else bp_rp]")
@click.option("--y", metavar="EXPR", help="Vertical axis.  [default: mg0, else G + 5 log10(parallax/100)]")
@click.option("--x-range", metavar="LO:HI", help="Limits of the horizontal axis.  [default: all stars]")
@click.option("--y-range", metavar="LO:HI", help="Limits of the vertical axis.  [default: all stars]")
@click.option("--cell", metavar="DX,DY", default="0.02,0.05", show_default=True, help="Size of a cell.")
@click.option("--locus", metavar="LIST", default="", help="Draw isochrones of these [M/H], with commas.")
@click.option("--tracks", metavar="LIST", default="", help="With --locus: lines of these masses across them [Msun].")
@shared("isochrones", "age")
@click.option("--background", metavar="FILE", help="Another table, drawn in grey behind.")
@click.option("--upright", is_flag=True, help="Let the vertical axis grow upwards; magnitudes grow downwards.")
@click.option("--terminal", is_flag=True, help="Draw it as text on the terminal; needs no matplotlib.")
def cmd(
    input, output, form, data_out, column, no_clobber, x, y, x_range, y_range, cell, locus, tracks, isochrones, age,
    background, upright, terminal,
):  # fmt: skip
    """Colour-magnitude diagram of a table of any length.

    Log density where stars crowd; a cell with fewer than 5 stars shows each of them. Cells are counted as the table
    streams by, in fixed memory, so 10 or 10 million stars take the same.
    """
    from xptools.commands._plot_cmd import counted, preview, with_background, with_isochrones

    where = None if terminal else shared_input.target(input, output, form, data_out, column, no_clobber)
    shared_input.need_input(input)
    ranges = (both("x-range", x_range), both("y-range", y_range))
    cloud, about, schema = counted(input, x, y, ranges, pair(cell), not upright)
    if terminal:
        return preview(cloud, about)
    from xptools.figures import cmd as drawing

    numbers = cloud.numbers()
    if background:
        numbers = with_background(numbers, background, x, y, cloud.grid)
    if locus or tracks:
        numbers = with_isochrones(numbers, isochrones, locus, tracks, age)
        about["locus_note"] = f", {age:g} Gyr"
    options = {"x": about["x"], "y": about["y"], "cell": cell, "locus": locus, "tracks": tracks, "age": age}
    columns = {
        "kind": Column("string", None, "meta.code.class", "bin, star, locus, track or background"),
        "x": Column("float64", about["x_unit"], about["x_ucd"], f"{about['x']}: a bin's centre, a star, a locus point"),
        "y": Column("float64", about["y_unit"], about["y_ucd"], f"{about['y']}: a bin's centre, a star, a locus point"),
        "n": Column("int64", None, "meta.number", "Stars in the bin"),
        "feh": Column("float64", None, "stat.value", "[M/H] of a locus [dex], or mass of a track [Msun]"),
    }
    step = shared_input.Figure("cmd", tuple(options.items()))
    return shared_input.finish(step, drawing.draw, numbers, about, where, schema, columns)


@figure("hist", "xp plot hist --x mass --bins 0.1:1:45 masses.parquet -o masses.pdf")
@click.option("--x", metavar="EXPR", required=True, help="Column or expression to count.")
@click.option("--bins", metavar="LIST", required=True, help="Bins: LO:HI:N, or edges with commas.")
@click.option("--log", is_flag=True, help="Logarithmic numbers.")
def hist(input, output, form, data_out, column, no_clobber, x, bins, log):
    """Histogram of a column of a table of any length.

    Stars per bin with the 68 % interval of each count (Poisson, Jeffreys' prior). Counted as the table streams by.
    """
    import numpy as np

    from xptools.commands._plot_hist import counted
    from xptools.figures import hist as drawing

    bounds = np.array(edges(bins))
    where = shared_input.target(input, output, form, data_out, column, no_clobber)
    shared_input.need_input(input)
    counts, about, schema, columns = counted(input, x, bounds)
    about["log"] = log
    step = shared_input.Figure("hist", (("x", x), ("bins", bins), ("log", log)))
    shared_input.finish(step, drawing.draw, drawing.with_intervals(bounds, counts), about, where, schema, columns)


@figure(
    "mf",
    "xp plot mf mf.parquet -o mf.pdf --column double",
    "xp plot mf --no-reference --compare BaSTI=basti.parquet mf.parquet -o mf.pdf",
)
@click.option("--reference/--no-reference", default=True, show_default=True, help="Draw Kroupa, Chabrier and Salpeter.")
@click.option("--compare", multiple=True, metavar="[NAME=]FILE",
              help="Another mass function of the same bins as a dotted line; repeatable, up to 4.")  # fmt: skip
def mf(input, output, form, data_out, column, no_clobber, reference, compare):
    """Mass function per [Fe/H] bin, from the table that xp mf writes.

    The median of log Phi in each bin with its 68% and 95% intervals; arrows are upper limits (97.7%) of bins without
    stars. A continuous function (xp mf --method gp) is a curve in its bands, beside the counts of the bins. The
    references are scaled to the same number of stars. The number of stars stands on top. --compare adds what xp mf made
    elsewhere: of other isochrones, or of a paper (columns feh_lo, mass_lo, log_phi); a panel says which of them has no
    bin there. Masses that no star of the sample can have (V_eff = 0) are shaded."""
    from xptools.commands._plot_population import mf_numbers, other_functions
    from xptools.figures import mf as drawing

    where = shared_input.target(input, output, form, data_out, column, no_clobber)
    table = shared_input.small_table(input, MF_NEEDS, "mf")
    numbers, about = mf_numbers(table)
    numbers = drawing.with_references(numbers) if reference else numbers
    others = other_functions(compare)
    numbers, about["others"] = drawing.with_others(numbers, list(others.values()), about["cells"]), list(others)
    names = {"kroupa": "Kroupa (2001)", "chabrier": "Chabrier (2003), single stars", "salpeter": "Salpeter (1955)"}
    columns = {
        f"log_phi_{key}": Column("float64", None, "stat.fit.param", f"log10 of {name}, scaled to the counts")
        for key, name in names.items()
    }
    columns["log_phi_true"] = Column("float64", None, "stat.fit.param", "log10 of the true Phi")
    for k, name in enumerate(others, 1):
        columns[f"log_phi_other{k}"] = Column("float64", None, "stat.fit.param", f"log10 of Phi of {name}")
    step = shared_input.Figure("mf", (("reference", reference), ("compare", list(others))))
    shared_input.finish(step, drawing.draw, numbers, about, where, table.schema, columns)


MF_NEEDS = (
    "feh_lo", "feh_hi", "mass_lo", "mass_hi", "n", "veff",
    "log_phi", "log_phi_lo", "log_phi_hi", "log_phi_lo95", "log_phi_hi95",
)  # fmt: skip


@figure("veff", "xp plot veff mf.parquet -o veff.pdf")
def veff(input, output, form, data_out, column, no_clobber):
    """Effective volume against mass per [Fe/H] bin, from what xp veff or xp mf writes."""
    from xptools.commands._plot_population import VEFF_COLUMNS, veff_numbers
    from xptools.figures import veff as drawing

    where = shared_input.target(input, output, form, data_out, column, no_clobber)
    numbers, schema = veff_numbers(input)
    shared_input.finish(shared_input.Figure("veff"), drawing.draw, numbers, {}, where, schema, VEFF_COLUMNS)


@figure("xi", "xp plot xi mf.parquet --curve yan2021 -o xi.pdf")
@click.option("--curve", multiple=True, type=click.Choice(["yan2021", "yan2024"]), help="Add a prediction; repeatable.")
def xi(input, output, form, data_out, column, no_clobber, curve):
    """Low-mass ratio xi_MR against [Fe/H], from the table that xp mf writes, beside Kroupa's 0.67 +- 0.05."""
    from xptools.commands._plot_population import XI_COLUMNS, xi_numbers
    from xptools.figures import xi as drawing

    where = shared_input.target(input, output, form, data_out, column, no_clobber)
    table = shared_input.small_table(input, ("feh_lo", "feh_hi", "log_phi"), "mf")
    numbers, about, upper = xi_numbers(table)
    numbers = drawing.with_curves(numbers, tuple(curve), upper)
    step = shared_input.Figure("xi", (("curve", list(curve)),))
    shared_input.finish(step, drawing.draw, numbers, about, where, table.schema, XI_COLUMNS)


@figure("cutflow", "xp select --isochrone --cutflow stars.parquet | xp plot cutflow -o cutflow.pdf")
def cutflow(input, output, form, data_out, column, no_clobber):
    """Stars left after each cut, from the table of xp select --cutflow."""
    from xptools.figures import cutflow as drawing

    where = shared_input.target(input, output, form, data_out, column, no_clobber)
    table = shared_input.small_table(input, ("cut", "rows_in", "rows_out"), "select --cutflow")
    shared_input.finish(
        shared_input.Figure("cutflow"), drawing.draw, shared_input.arrays(table), {}, where, table.schema, {}
    )


@figure(
    "xp",
    "xp plot xp flux.parquet --stars 6 -o spectra.pdf",
    "xp plot xp --kind sample flux.parquet -o sample.pdf",
    "xp mock 3000 --spectra | xp plot xp --kind errors -o errors.pdf",
)
@click.option("--kind", type=click.Choice(["stars", "coefficients", "sample", "errors"]), default="stars",
              show_default=True, help="What to draw; see above.")  # fmt: skip
@click.option("--stars", type=click.IntRange(1, 12), default=6, show_default=True, help="How many of the first stars.")
@click.option("--ids", metavar="LIST", default="", help="These stars instead: source_id, with commas.")
@click.option("--model", metavar="NAME", default="", help="Array column with a model's flux: adds residuals in sigma.")
@click.option("--background", metavar="FILE", help="With --kind errors: another table, drawn in grey behind.")
def xp(input, output, form, data_out, column, no_clobber, kind, stars, ids, model, background):
    """Spectra of stars, their coefficients, a whole sample, or errors against magnitude.

    `stars` draws flux with its 1-sigma band, a panel each; with --model also the residuals in sigma. `sample` draws
    median spectra in bins of colour. Both read what xp calibrate writes; the overlap of BP and RP is shaded. From
    coefficients: `coefficients` draws them over their norm against their index, errors as bands about zero; `errors`
    the size of all errors over that of all coefficients against magnitude. A file, not a pipe, for stars and sample.
    """
    from xptools.commands import _plot_xp as numbers_of
    from xptools.figures import xp as drawing

    if background and kind != "errors":
        raise UsageError("--background goes with --kind errors")
    if model and kind != "stars":
        raise UsageError("--model goes with --kind stars")
    where = shared_input.target(input, output, form, data_out, column, no_clobber)
    shared_input.need_input(input)
    if input == "-" and kind in ("stars", "sample"):
        raise UsageError(f"--kind {kind} reads its table twice. TRY: a file instead of a pipe")
    chosen = numbers_of.picked(ids)
    count = len(chosen) or stars
    if count > numbers_of.MOST:
        raise UsageError(f"--ids lists {count} stars, but a figure holds {numbers_of.MOST}. TRY: fewer")
    made = {
        "stars": lambda: numbers_of.star_numbers(input, count, chosen, model),
        "coefficients": lambda: numbers_of.coefficient_numbers(input, count, chosen),
        "sample": lambda: numbers_of.sample_numbers(input),
        "errors": lambda: numbers_of.error_numbers(input, background),
    }
    numbers, about, schema = made[kind]()
    step = shared_input.Figure("xp", (("kind", kind), ("stars", count), ("ids", list(chosen)), ("model", model)))
    shared_input.finish(step, drawing.DRAWN[kind], numbers, about, where, schema, numbers_of.COLUMNS)


@figure("feh", "xp feh mock.parquet | xp plot feh -o feh.pdf --column double")
@click.option("--reference", metavar="NAME", help="Column of the reference [Fe/H].  [default: true_feh, else fe_h]")
@click.option("--mg-edges", metavar="LIST", default="4,5,6,7,8,10,14", show_default=True, help="Panels in M_G [mag].")
@click.option("--all", "everything", is_flag=True, help="Draw flagged stars too.")
def feh(input, output, form, data_out, column, no_clobber, reference, mg_edges, everything):
    """[Fe/H] of xp feh against a reference, one panel per bin of M_G.

    Stars per cell of 0.05 dex, the running median with its 68 % interval, and each panel's bias (median) and scatter
    (1.48 MAD). Stars with a bit in feh_flag other than 64 (no correlations) are left
    out. Counted as the table streams by.
    """
    from xptools.commands._plot_feh import COLUMNS, counted
    from xptools.figures import feh as drawing

    where = shared_input.target(input, output, form, data_out, column, no_clobber)
    tally, about, schema = counted(input, reference, edges(mg_edges), everything)
    step = shared_input.Figure("feh", (("reference", reference or ""), ("mg_edges", mg_edges), ("all", everything)))
    shared_input.finish(step, drawing.draw, tally.numbers(), about, where, schema, COLUMNS)


@figure(
    "eta",
    "xp eta giants.parquet | xp plot eta --feh moh_xp -o eta.pdf",
    "xp mock 200000 | xp eta | xp plot eta --kind threshold -o threshold.pdf --column double",
    "xp mock 200000 | xp eta | xp plot eta --kind completeness -o kept.pdf --data-out kept.parquet",
)
@click.option("--kind", type=click.Choice(["validation", "threshold", "completeness", "cmd"]), default="validation",
              show_default=True, help="What to draw; see above.")  # fmt: skip
@click.option("--feh", metavar="NAME", help="Column of the true [Fe/H].  [default: true_feh, else feh]")
@click.option("--mass", metavar="NAME", help="Column of the true mass.  [default: true_mass, else mass]")
@click.option("--eta-ratio", type=click.FloatRange(0, min_open=True), default=10.0, show_default=True,
              help="The cut of --kind completeness, as in xp select.")  # fmt: skip
@click.option("--split", type=float, default=-1.0, show_default=True, help="Metal-poor is [Fe/H] below this [dex].")
@click.option("--cell", metavar="DX,DY", default="0.04,0.1", show_default=True, help="Size of a cell of --kind cmd.")
@shared("mass-edges", "feh-edges")
def eta(
    input, output, form, data_out, column, no_clobber, kind, feh, mass, eta_ratio, split, cell, mass_edges, feh_edges,
):  # fmt: skip
    """eta against [Fe/H], its purity and completeness, or its mean over the colour-magnitude diagram.

    `validation` draws the density of stars in ([Fe/H], eta), each column of [Fe/H] to its own scale, with medians and
    68 % (Li+ 2026 Fig. 6). `threshold` draws, against a threshold of eta, how many of the stars above it are
    metal-poor, and how many of the metal-poor (and of the halo, of xp mock) are above it; also per mass bin.
    `completeness` gives the share with 10**eta > --eta-ratio per (mass, [Fe/H]) bin: the table beside the figure is
    what xp veff --eta-completeness reads. `cmd` colours the colour-magnitude diagram by mean eta (Li+ 2026 Fig. 1).

    The first three need the truth: a mock, or stars with [Fe/H] from spectra. All count as the table streams by.
    """
    import math

    import numpy as np

    from xptools.commands import _plot_eta as numbers_of
    from xptools.figures import eta as drawing

    masses, metals = np.array(edges(mass_edges)), np.array(edges(feh_edges))
    where = shared_input.target(input, output, form, data_out, column, no_clobber)
    stars = numbers_of.Stars(input)
    made = {
        "validation": lambda: numbers_of.validation(stars, feh),
        "threshold": lambda: numbers_of.thresholds(stars, feh, mass, masses, split),
        "completeness": lambda: numbers_of.completeness(stars, feh, mass, masses, metals, math.log10(eta_ratio)),
        "cmd": lambda: numbers_of.diagram(stars, pair(cell)),
    }
    numbers, about, schema = made[kind]()
    options = {"kind": kind, "feh": feh or "", "mass": mass or "", "eta_ratio": eta_ratio, "split": split,
               "mass_edges": mass_edges, "feh_edges": feh_edges, "cell": cell}  # fmt: skip
    step = shared_input.Figure("eta", tuple(options.items()))
    shared_input.finish(step, drawing.DRAWN[kind], numbers, about, where, schema, numbers_of.COLUMNS)


@figure(
    "vae",
    "xp vae spectra.parquet | xp plot vae --x z1 --y z3 --colour true_feh -o latents.pdf",
    "xp vae --add residuals spectra.parquet | xp plot vae --kind residuals -o residuals.pdf",
    "xp plot vae --kind curve vae.safetensors -o curve.pdf",
)
@click.option("--kind", type=click.Choice(["latents", "residuals", "curve"]), default="latents", show_default=True,
              help="What to draw; see above.")  # fmt: skip
@click.option("--x", metavar="NAME", default="z1", show_default=True, help="With latents: the horizontal column.")
@click.option("--y", metavar="NAME", default="z2", show_default=True, help="With latents: the vertical column.")
@click.option("--colour", metavar="NAME", default="vae_chi2", show_default=True,
              help="With latents: the column whose mean colours a cell.")  # fmt: skip
@click.option("--background", metavar="FILE", help="With curve: another model, or a table of epoch, loss, score.")
def vae(input, output, form, data_out, column, no_clobber, kind, x, y, colour, background):
    """Latents, residuals or the learning curve of xp vae.

    `latents` colours cells of two columns (latents, labels) by the mean of a third. `residuals` draws the median of
    R(j), reconstruction against data in errors, and its 68 %, for each coefficient of both bands (xp vae --add
    residuals). `curve` draws training and held-out loss by epoch from a model file.
    """
    from xptools.commands import _plot_vae as numbers_of
    from xptools.figures import vae as drawing

    if background and kind != "curve":
        raise UsageError("--background goes with --kind curve")
    where = shared_input.target(input, output, form, data_out, column, no_clobber)
    made = {
        "latents": lambda: numbers_of.latent_numbers(input, x, y, colour),
        "residuals": lambda: numbers_of.residual_numbers(input),
        "curve": lambda: numbers_of.curve_numbers(input, background),
    }
    numbers, about, schema = made[kind]()
    shown = (("x", x), ("y", y), ("colour", colour)) if kind == "latents" else ()
    step = shared_input.Figure("vae", (("kind", kind), *shown))
    shared_input.finish(step, drawing.DRAWN[kind], numbers, about, where, schema, numbers_of.COLUMNS)


@figure(
    "ask",
    "xp plot ask --label mass answers.parquet -o mass.pdf --column double",
    "xp plot ask --label age --panels b:spectra,c:colours answers.parquet -o age.pdf",
)
@click.option("--label", required=True, metavar="NAME", help="The label whose answers are drawn, such as mass.")
@click.option("--reference", metavar="NAME", help="Column of the reference.  [default: true_LABEL, else LABEL]")
@click.option("--panels", metavar="LIST", default="", help="Suffixes of the answers, with commas, each perhaps with "
              ":TITLE.  [default: all LABEL_x with LABEL_x_err_net]")  # fmt: skip
@click.option("--range", "range_", metavar="LO:HI", help="Limits of both axes.  [default: known for mass, age ...]")
def ask(input, output, form, data_out, column, no_clobber, label, reference, panels, range_):
    """Answers of xp ask against a reference, one panel per context.

    INPUT has been through xp ask once per context, each with its own --suffix (_a, _b ...). A panel shows stars per
    cell, the scatter (1.48 MAD of answer - reference) and the median of the told errors (Zhang M.+ 2026, Figs 4 and 5).
    Counted as the table streams by.
    """
    from xptools.commands import _plot_ask as numbers_of
    from xptools.figures import ask as drawing

    where = shared_input.target(input, output, form, data_out, column, no_clobber)
    named = [w.partition(":") for w in panels.split(",") if w]
    titles = {name: title for name, _, title in named if title}
    chosen = tuple(name for name, _, _ in named)
    tally, about, schema = numbers_of.counted(input, label, reference, chosen, titles, both("range", range_))
    step = shared_input.Figure("ask", (("label", label), ("reference", reference or ""), ("panels", panels)))
    unit = numbers_of.unit_of(schema, label, reference)
    shared_input.finish(step, drawing.draw, tally.numbers(), about, where, schema, numbers_of.columns(unit))
