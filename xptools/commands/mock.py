"""`xp mock`: a known Milky Way near the Sun, as the Gaia archive would give it, with the truth beside it."""

import click

from xptools.errors import UsageError
from xptools.idle import refuse_idle_map, typed
from xptools.options import shared, source_command

NOTES = {
    "SELECTION": """STARS is how many are drawn from the part of the Galaxy that could be selected; almost half are.
They are drawn on the processor, whatever --device says.
Written are those that the archive's query keeps (Li+ 2026 Sec. 2): parallax > 1 mas, parallax_over_error > 10,
phot_g_mean_mag < 17.5 and phot_g_mean_mag + 5 log10(parallax / 100) > 4, all as observed. With --select true the same
limits act on true distance, G and absolute G, which is what xp veff integrates, and parallax_over_error on nothing.""",
    "POPULATIONS": """Thin disc, thick disc, halo: [Fe/H] -0.10 +- 0.20, -0.55 +- 0.25, -1.45 +- 0.40 (cut at -0.8
and 0.5, -1.1 and 0.2, -2.5 and -0.7); scales h_R 2.6, 2.0, 1.5 and h_z 0.30, 0.90, 1.43 kpc; mean rotation 222, 180, 0
km/s, with slopes of -20, 40, 0 km/s per dex; dispersions (R, phi, Z) 36 25 18, 62 48 40, 145 85 85 km/s; ages 1 to 9,
8 to 12, 10 to 13 Gyr. The halo's density law is the default of xp veff. Isochrones end the main sequence at the
turn-off, so old populations have no dwarfs above 0.8 to 1 solar mass.""",
    "GIANTS": """--sample giants draws first-branch giants from log g 1 to 3.4 and, for 35 % of them, red-clump stars.
Mass, Teff, log g and light follow from [M/H] and age by PARSEC rows with labels 3 and 4 where --isochrones names such
tables, else by a parametric branch and clump fitted to PARSEC (on the branch within 0.0026 dex in Teff, 0.7 % in mass,
0.034 mag in M_G and 0.02 mag in BP-RP of the tables; in the clump 0.028 dex, 1.5 %, 0.21 and 0.13 mag; a few times less
on average). Along the branch numbers go as 10^(0.6 log g). [alpha/Fe] = 0.04 - 0.15 [Fe/H] in the thin disc, 0.17 -
0.15 [Fe/H] in the thick one, 0.28 in the halo, +- 0.03, plus --alpha-fe. Observed labels scatter by their errors: 30 K,
0.06 in log g, 0.05 in [M/H], 0.02 in [alpha/M] for bright stars, 0.18722 - 0.03477 log g of the mass, 25 % of the
age.""",
    "ERRORS": """Stated errors follow 2,390 complete rows of gaia_source as functions of magnitude: parallax_error 0.017
mas at G = 13, 0.064 at 16.5, 0.11 at 17.5, one star in ten worse in proportion to its ruwe; C* scatters by 0.37 of
sigma_C*(G), one star in twenty has neighbours' light in BP and RP (--outliers). Noise is normal with the stated error;
--spurious adds 1 to 30 mas to a parallax. Positions carry no noise.""",
    "TRUTH": """Schema key xp.mock states the density laws and, under phi, the mass function in stars per kpc3 and Msun
at the Sun's radius in the plane, per [Fe/H] cell. Columns true_* are exact. A pair counts once, as its primary.""",
    "SPECTRA": """With --spectra every star has XP coefficients: a black body of its temperature under Balmer lines and
jumps, Ca H and K, the G band, Mg b and MgH, Na D, CaH, TiO, VO, FeH, the Ca triplet and iron's blanketing, whose
strengths follow temperature, gravity, [Fe/H] and [alpha/Fe]; a pair is a sum. The spectrum is bent smoothly until its
synthetic G, BP and RP are the star's own before dust and noise, is dimmed by the extinction curve, and goes through
Gaia's design matrices into coefficients. Under dust its photometry differs from the star's by some mmag, as that has
black bodies' extinction. Errors follow 2,000 real stars as functions of magnitude; all stars share the mean
correlations of two real ones, by which the noise is drawn. It is a model to test programs with, not an atmosphere: what
a network learns from it is not true of real stars. It has no emission, rotation, activity, carbon stars or white
dwarfs; blends and spurious parallaxes do not touch the spectra.""",
    "THE MASS FUNCTION": """--imf FILE is TOML: breaks (masses, rising), feh_edges, and slopes, one row per [Fe/H] bin
with one exponent of dN/dM per mass segment, negative where low masses dominate. Example:
breaks = [0.1, 0.5, 1.1]
feh_edges = [-2.5, -1.5, 0.5]
slopes = [[0.0, -0.5], [-1.3, -2.3]]""",
}


@source_command(
    "get",
    20,
    examples=(
        "xp mock 10000 -o stars.parquet",
        "xp mock 100000 --fractions 0 0 1 --binaries 0 --select true | xp deredden --map none | xp mass | xp info",
        "xp mock 50000 --sample giants --spectra --map toy -o giants.parquet",
        "xp mock 2000 --spectra | xp calibrate --absolute -o flux.parquet",
    ),
    see=("fetch", "deredden", "mf"),
    notes=NOTES,
)
@click.argument("stars", type=click.IntRange(0, 2**35), default=100_000)
@click.option("--sample", type=click.Choice(["dwarfs", "giants"]), default="dwarfs", show_default=True,
              help="Main-sequence stars, or red giants with mass and age for training eta and ask.")  # fmt: skip
@click.option("--giants", is_flag=True, help="Short for --sample giants.")
@click.option("--first", type=click.IntRange(0, 2**35), default=0, show_default=True,
              help="Number of the first star: with --first 1000 a universe of 1000 goes on.")  # fmt: skip
@click.option("--fractions", type=float, nargs=3, default=(0.86, 0.13, 0.01), show_default=True,
              help="Shares of the thin disc, thick disc and halo of the local number density.")  # fmt: skip
@click.option(
    "--imf", metavar="FILE", default="", help="Mass function per [Fe/H] as TOML; without it that of Li+ 2026."
)
@click.option(
    "--binaries", type=click.FloatRange(0, 1), default=0.4, show_default=True, help="Share of unresolved pairs."
)
@click.option(
    "--q-slope", type=float, default=0.0, show_default=True, help="Exponent of the mass ratios' distribution."
)
@shared("age", default=0.0, help="One age for all stars [Gyr]; 0: each population its own range.")
@shared("isochrones", "alpha-fe")
@shared("map", default="none", help="Dust: none, toy (an exponential layer), or a 3D map as in xp deredden.")
@shared("map-file", "curve-unit")
@click.option("--noise", type=click.FloatRange(0, 1), default=1.0, show_default=True,
              help="Scale of all noise; the stated errors stay. 0: exact values.")  # fmt: skip
@click.option("--outliers", type=click.FloatRange(0, 1), default=0.05, show_default=True,
              help="Share of stars blended in BP and RP.")  # fmt: skip
@click.option("--spurious", type=click.FloatRange(0, 1), default=0.005, show_default=True,
              help="Share of stars with a wild parallax and a low fidelity_v2.")  # fmt: skip
@click.option("--feh-error", type=click.FloatRange(0), default=None,
              help="One error of the observed [Fe/H] [dex], 0 for exact; without it 0.1 to 0.3.")  # fmt: skip
@click.option("--select", "select_", type=click.Choice(["observed", "true"]), default="observed", show_default=True,
              help="Whether the limits act on observed or on true values.")  # fmt: skip
@shared("g-limit", default=17.5)
@shared("max-distance", default=None, help="Radius of the volume [kpc]; without it 1, for giants 3.")
@click.option("--mg-limit", type=float, default=4.0, show_default=True,
              help="Brightest absolute G of dwarfs, dust not removed [mag].")  # fmt: skip
@click.option("--poisson", is_flag=True, help="Draw a Poisson number of stars about STARS, for calibration.")
@shared("r-sun", "z-sun")
@click.option("--spectra", is_flag=True, help="Add XP spectra: coefficients and errors of BP and RP.")
@click.option("--correlations", is_flag=True, help="With --spectra: the coefficients' correlations too (12 kB a star).")
def command(
    stars, sample, giants, first, fractions, imf, binaries, q_slope, age, isochrones, alpha_fe, map_, map_file,
    curve_unit, noise, outliers, spurious, feh_error, select_, g_limit, max_distance, mg_limit, poisson, r_sun, z_sun,
    spectra, correlations, seed,
):  # fmt: skip
    """Write a mock universe: stars of a known Milky Way with Gaia's columns, Gaia's errors and the truth.

    STARS are drawn within --max-distance; those that --g-limit and --mg-limit let through are written.
    Thin disc, thick disc and halo have their own [Fe/H], ages, density laws and motions; below [Fe/H] = -1.1 there is
    only halo. Star i depends on the seed and on i alone. Without --isochrones the photometry is a smooth main sequence
    fitted to PARSEC (within 0.05 mag).
    """
    from xptools.mock import Mock

    if map_ in ("none", "toy"):
        refuse_idle_map(map_file, *(("curve_unit",) if map_ == "none" else ()))
    if giants:
        if sample != "giants" and typed("sample"):
            raise UsageError("--giants and --sample dwarfs contradict each other. TRY: one of them")
        sample = "giants"
    return Mock(
        stars, seed, first, sample, fractions, imf, binaries, q_slope, age, isochrones, alpha_fe, map_, map_file,
        curve_unit, noise, outliers, spurious, feh_error, select_, g_limit,
        max_distance or (3.0 if sample == "giants" else 1.0), mg_limit, poisson, r_sun, z_sun, spectra,
        correlations,
    )  # fmt: skip
