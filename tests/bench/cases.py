"""The commands that `bench_commands.py` measures: what they are given, and what a row costs at the very least."""

from typing import NamedTuple


class Case(NamedTuple):
    """A command as a user types it, reading one of the SOURCES; `rows` or `spectra` say which sizes it takes.

    `work`: least operations a row (gemm: of its matrix products, exp); bytes of the stream are measured, `more` are
    what else must be read [bytes a row]. `peer`: records (command, beginning of the case) of tests/bench whose peer
    does the same, one after the other if several; `alone` says why there is none. `light`: needs no more than Arrow and
    numpy; `model`: has a model to read, so there is no goal for its start-up.
    """

    name: str
    line: str
    source: str
    sizes: str = "rows"
    work: dict = {}
    more: float = 0.0
    peer: tuple = ()
    alone: str = ""
    light: bool = False
    model: bool = False

    @property
    def options(self) -> str:
        """The line without the command's name."""
        return self.line.removeprefix(self.name).strip().replace("{", "").replace("}", "")


# {dust}: a synthetic 3D map; {other}: a table of a million stars to join
STARS = (
    "source_id,ra,dec,l,b,parallax,parallax_error,pmra,pmdec,pmra_error,pmdec_error,phot_g_mean_mag,phot_bp_mean_mag,"
    "phot_rp_mean_mag,bp_rp,phot_bp_rp_excess_factor,fidelity_v2,feh,feh_err"
)
CATALOGUE = f"xp -q run 'mock {{n}} | convert --keep {STARS}"
SOURCES = {
    "stars": ("rows", f"{CATALOGUE}'"),
    "two": ("rows", "xp -q mock {n} | xp -q convert --keep source_id,parallax"),
    "ready": ("rows", f"{CATALOGUE} | deredden --map none'"),
    "masses": ("rows", f"{CATALOGUE} | deredden --map none | mass'"),
    "binned": ("rows", f"{CATALOGUE} | deredden --map none | mass | veff'"),
    "spectra": ("spectra", "xp -q mock {n} --spectra --correlations | xp -q convert --drop feh,feh_err"),
    "uncorrelated": ("spectra", "xp -q mock {n} --spectra | xp -q convert --drop feh,feh_err"),
    "giants": ("spectra", "xp -q mock {n} --sample giants --spectra | xp -q convert --drop mass,mass_err,age,age_err"),
}

GAUSSIANS = 3220  # of the demonstration model
FLUX = 2 * 110 * 61
ERRORS = 2 * 1540 * (26 + 36)  # packed correlations, band-limited: BP touches 26 wavelengths, RP 36
COVARIANCE = 2 * 55 * (26 * (55 + 26) + 36 * (55 + 36))  # D C D^T of both bands
FIT = COVARIANCE + 61**3 + 6 * 34e3  # factor and inverse, six evaluations of the table

CASES = (
    Case("convert", "convert --drop b,l", "stars", peer=(("convert", "drop columns"),), light=True),
    Case("convert", "convert --keep source_id,parallax", "two", alone="a stream of 16 bytes a row", light=True),
    Case("select", "select --cstar-nsigma 3 --fidelity 0.5 --magnitude :17", "stars",
         peer=(("select", "filter"),), light=True),
    Case("join", "join --with {other} --mark there", "stars", peer=(("join", "a table"),), light=True),
    Case("info", "info --stats", "stars", alone="no peer: statistics of all columns", light=True),
    Case("deredden", "deredden --map none", "stars", alone="no dust: arithmetic only", light=True),
    Case("deredden", "deredden --map-file {dust}", "stars", more=512, peer=(("deredden", "map open"),)),
    Case("eta", "eta", "stars", work={"exp": GAUSSIANS, "gemm": 30 * GAUSSIANS}, peer=(("eta", "densities"),),
         model=True),
    Case("mass", "mass", "ready", peer=(("mass", "step"),), model=True),
    Case("veff", "veff", "masses", alone="a look-up; the volumes against a Monte Carlo are above", light=True),
    Case("mf", "mf --method exact", "binned", alone="counting; the posterior against NumPyro is above"),
    Case("plot", "plot cmd -o plot.png", "stars", alone="no peer: matplotlib is inside"),
    Case("mock", "mock {n}", "", alone="no peer gives Gaia's errors"),
    Case("mock", "mock {n} --spectra", "", "spectra", alone="no peer gives coefficients"),
    Case("calibrate", "calibrate --no-errors --drop-coefficients", "uncorrelated", "spectra", work={"gemm": FLUX},
         peer=(("calibrate", "arrays: flux"),)),
    Case("calibrate", "calibrate --drop-coefficients", "spectra", "spectra", work={"gemm": FLUX + ERRORS},
         peer=(("calibrate", "arrays: flux and errors"),)),
    Case("feh", "feh --drop-coefficients", "spectra", "spectra", work={"gemm": FIT}, peer=(("feh", "labels"),),
         model=True),
    Case("vae", "vae", "uncorrelated", "spectra", work={"gemm": 129e3},
         peer=(("vae", "encode"), ("vae", "decode + scatter")), model=True),
    Case("ask", "ask mass age", "giants", "spectra", alone="a small model; the published size is above", model=True),
)  # fmt: skip

# What reads a table once and then trains: rows a second are rows times passes.
TRAININGS = (
    (Case("train eta", "train eta --epochs 2 --check 1", "giants", peer=(("train eta", "batch 4096"),)), 20_000, 2),
    (Case("train feh", "train feh --feh true_feh --teff true_teff --epochs 4 --folds 2", "spectra",
          alone="no peer"), 2_000, 4),
    (Case("train vae", "train vae --epochs 4", "uncorrelated", peer=(("train vae", "epoch"),)), 10_000, 4),
    (Case("train ask", "train ask --recipe giants --preset tiny --epochs 2", "giants",
          alone="the published size is above"), 2_000, 2),
    (Case("train mass", "train mass --points 20000 --epochs 10", "", alone="no peer"), 20_000, 10),
)  # fmt: skip

# What reads no table, or its head: start-up only; those that need no more than Arrow and numpy, and the others.
LIGHTEST = (
    "--help", "mass --help", "plot mf --help", "completion bash", "help mass", "info stars.parquet",
    "cite stars.parquet", "fetch --list", "veff --table",
)  # fmt: skip
OTHERS = ("doctor --quick",)
