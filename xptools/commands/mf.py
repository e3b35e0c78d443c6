"""`xp mf`: the mass function per [Fe/H] bin, from a stream of stars with their bins."""

from __future__ import annotations

import click

from xptools.commands._mf_fold import MassFunction
from xptools.commands._mf_text import report
from xptools.errors import UsageError
from xptools.options import edges, fold_command, shared

NOTES = {
    "METHOD": """Phi is constant inside a bin and n_k ~ Poisson(Phi_k V_k dM_k). The prior of the expected number is
Jeffreys' (density ~ lambda^-1/2): its central 68 % and 95 % intervals cover the truth at their nominal rate, on
average, down to bins with few stars, which a prior flat in Phi or centred on the data does not do. --method exact is
the same posterior, a Gamma distribution of shape n + 1/2, without sampling; the error of V_eff is integrated out.""",
    "CALIBRATION": """How often the 68 % (0.683) and 95 % (0.954) intervals held the truth, from tests/calibration.py.
200 universes with slopes and densities of their own, 10,400 bins from none to thousands of stars: log Phi 0.681 and
0.956; alpha1 0.656 and 0.943, alpha2 0.684 and 0.955, xi_MR 0.663 and 0.939 (each +-0.017 and +-0.008), and the truths'
ranks are flat (p 0.17 to 0.71). 200 universes of xp mock with true masses: log Phi 0.678 and 0.957, alpha1 0.660 and
0.955, alpha2 0.690 and 0.948, xi_MR 0.656 and 0.944. 200 through the pipe of make demo, masses of its model: log Phi
0.684 and 0.957, alpha1 0.670 and 0.960, alpha2 0.649 and 0.954, xi_MR 0.723 and 0.960. The intervals know of counts and
of V_eff, not of errors in the masses: with masses of the shipped model, bins above 0.7 Msun are off by more than their
errors.""",
    "SLOPES": """poisson: n_k ~ Poisson(sum A int M^alpha V dM), a free amplitude and slope per segment, a bin cut by a
break shared between both. weighted and unweighted: straight lines through log Phi at the bin centres inside the
segment, error times max(1, sqrt(chi2_red)). All three are in the report; --slope-method picks the one shown.""",
    "ERRORS OF MASS AND [FE/H]": """[Fe/H] errors of 0.2 dex move stars between bins, mostly from the many metal-rich
to the few metal-poor. --deconvolve undoes it: n ~ Poisson of Phi V smeared by the errors, over true cells that reach
2.5 errors beyond the bins, for the masses that slopes and xi_MR need. ln Phi is a plane with kinks at the inner limits
of --segments, a Gaussian process in (ln M, [Fe/H]), and steps between the [Fe/H] bins, in level, slope and kink; both
amplitudes and both lengths are inferred, so the data say how smooth Phi is. Slopes come from the draws of Phi; n stays
what was counted. Nothing may have been cut by true [Fe/H]. The errors are those stated, feh_err and mass_err, taken as
Gaussian and independent, larger at low [Fe/H] if the counts say so: they must be right. Those of [Fe/H] from
low-resolution spectra are not. So --error-table FILE has stars of known [Fe/H] (columns mass, feh, and true_feh or
fe_h), seen to the same limits and measured in the same way: what feh - true does at a mass and a true [Fe/H] is what
they do there, bias, tails and all: their own shares where many are known, those of stars nearby where few, believed as
far as the counts bear them out. If their true_mass is known (of single stars, as xp mock gives a pair its primary's),
they tell the errors of mass too: those of photometric masses are not all scatter, and a bias of 0.004 Msun at the end
of a segment turns its slope. Where they and the sample state errors (feh_err), these are taken as labels only, of
classes whose true errors the known stars tell: the bright stars with small errors resolve bins that the others cannot.
They are counted themselves, and their noise is in the result (a negative binomial instead of Poisson): thousands are
needed where the sample has thousands. It takes half a minute with a table, a minute or two without.
Without a table, expect no more than the stated errors are worth. Of the sample of examples/li2026, with [Fe/H] from
mock XP spectra, it finds alpha1 of +1.9 +- 1.1, -1.0 +- 0.1, -0.8 +- 0.7, -2.5 +- 0.2 in the four bins for a truth of
0.0, 0.0, -2.7, -1.8, and log Phi is off by 5 of its own standard deviations (rms); with a table +0.1 +- 0.1, -0.1 +-
0.1, -2.4 +- 0.2, -1.5 +- 0.1. The sampler cannot tell: its chains agree on what wrong errors lead to, though some
transitions may diverge. Up to 0.1 % of them pass, up to 0.5 % are told, as a proposal that diverges is only rejected;
more, R-hat above 1.01, or fewer than 400 effective draws end the run (70) unless --force is given.""",
    "COVERAGE OF --DECONVOLVE": """How often the 68 % and 95 % intervals held the truth, and the rms error of log Phi,
from tests/calibration_joint.py --pool --quick (Laplace's approximation): stars with the errors that xp feh and xp mass
make of mock spectra to G = 17, 400,000 others that are known with their masses, 16 universes of 48 bins for each kind
(so +-0.02 and +-0.01 at best; +-0.06 and +-0.03 for the 64 slopes). In the first row functions are drawn from the
prior and seen through known errors.

  universes                      log Phi       alpha1        alpha2        rms [dex]   by counting
  drawn from the prior (40)      0.71  0.96    0.77  0.98    0.68  0.96
  slopes of Li+ 2026             0.69  0.94    0.66  0.95    0.77  0.97    0.061       0.25  0.45
  a slope of its own per bin     0.71  0.95    0.77  0.95    0.77  0.97    0.061       0.29  0.55
  smooth in [Fe/H]               0.78  0.97    0.70  0.95    0.84  1.00    0.042       0.42  0.69
  the same at every [Fe/H]       0.81  0.99    0.83  1.00    0.64  0.98    0.031       0.43  0.72

The first row is of Monte Carlo, all bins of a kind are counted together, and ranks of slopes are flat (p 0.006 to
0.45). A prior that allows for steps is somewhat too wide, by construction, for a function that has none, and draws
together the slopes of neighbours that differ by far more than its steps: in examples/li2026, whose alpha1 jumps from 0
to -2.7 between two bins of 0.2 dex, the latter is two standard deviations nearer to its neighbours in the mean of six
universes. With 20,000 known stars instead (8 universes) the second row has 0.70 0.93, 0.72 0.94, 0.75 0.97, rms 0.085:
errors grow as known stars get fewer. A star of the pool stands for others within 0.01 Msun and 0.05 dex. The noise of
known stars is in the result where they tell of [Fe/H], not where they tell of masses.""",
    "CONTINUOUS FUNCTION": """--method gp has ln Phi run continuously with ln M: a line, a change of slope at each
inner limit of --segments, and a Gaussian process (Matern 3/2) whose amplitude and length are inferred, in bins an
eighth as wide as those of xp veff, over --segments and xi_MR (no further: old stars end at the turn-off, where no
smooth function follows). A row each, the same columns. Phi where few stars are comes from its neighbours, so intervals
are narrower than those of bins, and wrong where Phi jumps. Slopes are those of the draws; mass and feh themselves are
needed. It takes seconds; with fewer than 30 stars in a bin of [Fe/H] --target-accept is 0.995 at least. Measured by
tests/calibration_gp.py: 160 draws of the process itself are held by the 68 % and 95 % intervals 0.68 and 0.96 of the
time; power laws with a kink at 0.55 Msun (40 universes) 0.72 and 0.98, alpha1 0.66 and 0.95, alpha2 0.73 and 0.99,
xi_MR 0.62 and 0.94. A kink elsewhere is smoothed over, and slopes beside it with it: --segments says where.""",
    "UNRESOLVED PAIRS": """Counting sees systems: a pair is one star, brighter and redder than its primary, so it is
weighed too heavy (a twin of 0.2 Msun as 0.30, of 0.5 as 0.63) and seen in a larger volume. --binaries
fraction=F,q=LAW undoes it: a share F of the systems of every primary mass are pairs, q = m2 / m1 is uniform, twins
(q = 1), or a number: the exponent of its law. With cut=0.5, pairs above that q are taken to have left the sample, as
Li+ 2026 assume. Light, limits and volumes are those of xp veff (they are in its metadata), masses are read by --model,
which must be what xp mass used. Errors of photometry and pairs among stars of other [Fe/H] are not in it, nor is an
error of F: try several. phi and log_phi are the function of single stars and primaries (in xp mock the truth);
log_phi_all_* counts companions too, those of primaries in the table. Pairs with primaries below the table are counted
with the Phi of the lowest bin, 5 % of its stars. fraction=0 is xp mf without --binaries.
Inside its bins Phi runs with the fitted slopes. Measured by tests/calibration_pairs.py, 20 universes with 40 % pairs,
each with slopes of its own: the 68 % and 95 % intervals of log Phi hold 0.70 and 0.97 if q is uniform (counted as
single stars 0.57 and 0.88), of alpha1 0.63 and 0.94 (0.53 and 0.86), of xi_MR 0.65 and 0.93 (0.43 and 0.69); of twins
log Phi 0.64 and 0.94 (0.40 and 0.66), alpha1 0.75 and 0.98, xi_MR 0.65 and 0.94 (0.40 and 0.66).""",
    "XI_MR": """Mass between 0.2 and 0.5 Msun over mass between 0.2 and --xi-upper (Li+ 2026 eq. 10). flat: Phi constant
in each bin; shaped: Phi runs inside the bins with the fitted slopes, which removes a bias of up to 0.01. As a sum over
bins it has a prior of its own, a tenth of a star per bin instead of Jeffreys' half; exact draws, whatever --method.""",
}


@fold_command(
    "population",
    20,
    report=report,
    examples=(
        "xp mass stars.parquet | xp veff | xp mf",
        "xp mf --veff veff.parquet --method exact --report mf.json stars.parquet -o mf.parquet",
        "xp mock 100000 | xp deredden --map none | xp mass | xp veff | xp mf --truth",
        "xp mf --deconvolve --error-table known.parquet stars.parquet -o sharp.parquet",
        "xp mf --binaries fraction=0.4,q=uniform stars.parquet -o singles.parquet",
        "xp mf --method gp stars.parquet -o curve.parquet && xp plot mf curve.parquet -o curve.pdf",
    ),
    see=("veff", "plot", "mock"),
    notes=NOTES,
)
@click.option("--veff", metavar="FILE", default="", help="Bins and volumes of xp veff --table, not the input's own.")
@click.option("--method", type=click.Choice(["nuts", "exact", "gp"]), default="nuts", show_default=True,
              help="NumPyro's NUTS, the exact Gamma posterior, or a continuous Phi (Gaussian process).")  # fmt: skip
@click.option("--deconvolve", is_flag=True,
              help="Infer Phi behind the errors of mass and [Fe/H] (feh_err, mass_err), all bins at once.")  # fmt: skip
@click.option("--error-table", metavar="FILE", default="",
              help="With --deconvolve: known stars (mass, feh, true_feh or fe_h; true_mass), not feh_err.")  # fmt: skip
@click.option("--binaries", metavar="SPEC", default="",
              help="Infer Phi behind unresolved pairs: fraction=0.4,q=uniform.")  # fmt: skip
@shared("model")
@click.option("--prior", type=click.Choice(["jeffreys", "flat", "data"]), default="jeffreys", show_default=True,
              help="Of the expected numbers: Jeffreys', flat, or Normal(ln(n + 1/2), 3) in the log.")  # fmt: skip
@click.option("--chains", type=click.IntRange(2, 64), default=4, show_default=True, help="Chains.")
@click.option("--warmup", type=click.IntRange(10), default=1000, show_default=True, help="Warm-up steps per chain.")
@click.option("--draws", type=click.IntRange(10), default=1000, show_default=True, help="Draws per chain.")
@click.option("--target-accept", type=click.FloatRange(0.5, 0.999), show_default="0.9, with --deconvolve 0.98",
              help="Acceptance the sampler aims at.")  # fmt: skip
@click.option("--segments", metavar="LIST", default="0.15,0.55,0.8", show_default=True,
              help="Mass limits of the power laws [Msun]; a bin counts by its centre.")  # fmt: skip
@click.option("--slope-method", type=click.Choice(["poisson", "weighted", "unweighted"]), default="poisson",
              show_default=True, help="Slopes shown on a terminal.")  # fmt: skip
@click.option("--xi-upper", type=click.FloatRange(0.5, min_open=True), default=0.7, show_default=True,
              help="Upper mass of the denominator of xi_MR [Msun].")  # fmt: skip
@click.option("--xi-method", type=click.Choice(["shaped", "flat"]), default="shaped", show_default=True,
              help="Phi inside a bin: run with the fitted slopes, or constant as in the paper.")  # fmt: skip
@click.option("--truth", is_flag=True, help="Add the truth that xp mock states, and pulls.")
@click.option("--force", is_flag=True, help="Write the result even if the sampler has not converged.")
@click.option("--report", "report_", metavar="FILE", default="", help="Write slopes, xi_MR and all bins as JSON.")
def command(
    veff, method, deconvolve, error_table, binaries, model, prior, chains, warmup, draws, target_accept, segments,
    slope_method, xi_upper, xi_method, truth, force, report_, seed,
):  # fmt: skip
    """Count stars per (mass, [Fe/H]) bin and infer the mass function Phi, its slopes and the mass ratio xi_MR.

    One row per bin: counts, volumes, and the posterior of Phi with the error of V_eff in it. A stream of any length is
    counted in one pass. Slopes, xi_MR, reference curves and convergence are in the schema (key xp.mf) and in --report.
    """
    limits = edges(segments)
    if limits[0] < 0:
        raise UsageError(f"--segments are masses, not {segments}")
    kind, own = _kind(method, prior, deconvolve, error_table, binaries, model)
    target_accept = target_accept or kind.target_accept
    return kind(
        veff=veff, method=method, prior=prior, chains=chains, warmup=warmup, draws=draws, target_accept=target_accept,
        segments=limits, slope_method=slope_method, xi_upper=xi_upper, xi_method=xi_method, truth=truth, force=force,
        report=report_, seed=seed, **own,
    )  # fmt: skip


def _kind(method, prior, deconvolve, error_table, binaries, model):
    """Which step these options mean, and the settings that only it has."""
    if model and not binaries:
        raise UsageError("--model is the model of the masses, which only --binaries asks for. TRY: without --model")
    if error_table and not deconvolve:
        raise UsageError("--error-table says how [Fe/H] scatters, which only --deconvolve undoes. TRY: --deconvolve")
    if deconvolve:
        if method != "nuts" or prior != "jeffreys" or binaries:
            words = "--deconvolve has a prior of its own, is sampled, and knows no pairs"
            raise UsageError(f"{words}. TRY: without --method, --prior and --binaries")
        from xptools.commands._mf_joint import JointMassFunction

        return JointMassFunction, {"error_table": error_table}
    if method == "gp":
        if prior != "jeffreys" or binaries:
            raise UsageError("--method gp has a prior of its own and knows no pairs. TRY: without --prior, --binaries")
        from xptools.commands._mf_process import SmoothMassFunction

        return SmoothMassFunction, {}
    if binaries:
        from xptools.commands._mf_pairs import PairedMassFunction

        step = PairedMassFunction, {"binaries": binaries, "model": model}
        if method != "nuts" and PairedMassFunction(**step[1]).pairs.fraction:
            raise UsageError("--binaries is sampled. TRY: without --method")
        return step
    return MassFunction, {}
