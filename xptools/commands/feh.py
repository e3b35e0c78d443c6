"""`xp feh`: Teff, M_G and [Fe/H] from XP spectra."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import click

from xptools.columns import OWN, Column
from xptools.commands import _feh_input
from xptools.commands._spectra_input import SPREAD_NOTE, without
from xptools.errors import UsageError
from xptools.options import row_command, shared
from xptools.protocol import RowOp
from xptools.stamp import stamp

DEFAULT = Path(__file__).parent.parent / "data" / "feh_demo.safetensors"
METHODS = ("lm", "lm-network", "bfgs")
TEXTS = {"teff": "effective temperature", "mg": "absolute G magnitude", "feh": "[Fe/H]"}


def _correlation(one: str, other: str) -> Column:
    return Column("float32", None, "stat.correlation", f"Correlation of the errors of {one} and {other}")


LABELS = {
    "teff": Column("float32", "K", "phys.temperature.effective", "Effective temperature from the XP spectrum"),
    "teff_err": Column("float32", "K", "stat.error;phys.temperature.effective", "Standard error of teff"),
    "mg": Column("float32", "mag", "phys.magAbs;em.opt", "Absolute G magnitude from the XP spectrum and the parallax"),
    "mg_err": Column("float32", "mag", "stat.error;phys.magAbs;em.opt", "Standard error of mg"),
    "feh": OWN["feh"],
    "feh_err": OWN["feh_err"],
    "teff_mg": _correlation("teff", "mg"),
    "teff_feh": _correlation("teff", "feh"),
    "mg_feh": _correlation("mg", "feh"),
    "chi2": Column("float32", None, "stat.fit.chi2", "chi2 of the best single star"),
}
PAIR = {
    "chi2_binary": Column("float32", None, "stat.fit.chi2", "chi2 of the best sum of two stars on one isochrone"),
    "q": Column("float32", None, "phys.mass;arith.ratio", "Mass ratio of that pair, secondary over primary"),
    "mass_1": Column("float32", "solMass", "phys.mass", "Mass of that pair's primary"),
    "mass_2": Column("float32", "solMass", "phys.mass", "Mass of that pair's secondary"),
}


@dataclass(frozen=True)
class Feh(RowOp):
    """min chi2(Teff, M_G, [Fe/H]) with the star's full covariance, Li+ 2026 Sec. 2.2 (cores/feh.py)."""

    model: str = ""
    method: str = "lm"
    exact: bool = False
    binary: bool = False
    isochrones: str = ""
    age: float = 10.0
    alpha_fe: float = 0.0
    curve_unit: str = "mag"
    drop_coefficients: bool = False

    name: ClassVar[str] = "feh"
    needs: ClassVar = (*_feh_input.COEFFICIENTS, "parallax")
    wants: ClassVar = (*_feh_input.WANTS, "parallax_error")
    flags: ClassVar = {
        1: "not converged",
        2: "at a bound of what is fitted",
        4: "bad fit: chi2 above 5 per degree of freedom",
        8: "far from every training star",
        16: "more than 5 wavelengths with negative flux",
        32: "BP or RP missing",
        64: "errors without correlations",
        128: "no spectrum, no parallax or no light: nothing to fit",
    }
    packages: ClassVar = ("numpy", "numba", "jax")

    @property
    def adds(self) -> dict[str, Column]:
        return {**LABELS, **(PAIR if self.binary else {})}

    @property
    def cites(self) -> tuple[str, ...]:
        return ("li2026", "deangeli2023", "montegriffo2023", *(("bressan2012",) if self.binary else ()))

    def files(self):
        files = {"model": self.model or str(DEFAULT)}
        return files | ({"isochrones": self.isochrones} if self.binary and self.isochrones else {})

    def schema(self, schema, replace: bool = False):
        out = super().schema(schema, replace)
        return without(out) if self.drop_coefficients else out

    def reads(self, schema):
        found = _feh_input.reads(self.name, schema, ("parallax",), ("parallax_error",))
        path = Path(self.files()["model"])
        _feh_input.check_grid(schema, _about(path, stamp(path)).shape["wavelength"])
        return found

    def compute(self, **columns):
        from xptools import settings
        from xptools.cores import feh

        path = Path(self.files()["model"])
        model = _loaded(path, stamp(path))
        stars, diagonal = _feh_input.spectra(model.wavelength, columns, self.curve_unit)
        on_gpu = settings.device() == "cuda"
        fit = feh.solution(model, stars, self.method, self.exact, settings.threads(), on_gpu)
        out = feh.labelled(model, stars, fit)
        flag = out.pop("flag") | feh.DIAGONAL * diagonal
        if self.binary:
            from xptools.cores import feh_binary

            masses = (self.isochrones or None, self.age, self.alpha_fe)
            out |= feh_binary.pairs(model, stars, fit, *masses, settings.threads())
        return out | {"feh_flag": flag.astype("int16")}


@lru_cache(maxsize=8)
def _about(path: Path, _stamp: int):
    from xptools.artefact import about, demand

    return demand(about(path), "feh", path)


@lru_cache(maxsize=4)
def _loaded(path: Path, _stamp: int):
    from xptools.artefact import load
    from xptools.cores.feh import Model

    return Model(load(path, "feh").arrays)


NOTES = {
    "METHOD": """chi2 is that of the flux at 10 pc against the network's, with the covariance of the star's spectrum,
the covariance of what the network misses (measured on held-out stars, in the model file), and a fourth number for the
error of the parallax. lm: Levenberg and Marquardt on the network tabulated on 33 x 33 x 33 labels with cubic splines,
compiled, star by star; with --device cuda in JAX on the GPU, from one start instead of several where [Fe/H] is
uncertain. lm-network: the same steps on the network itself, in JAX. bfgs: as in the paper, on the network.
All three minimise the same chi2. Errors are those of Gauss and Newton at the minimum; --exact takes the second
derivatives of chi2 instead.""",
    "INPUT": """bp_coefficients and rp_coefficients, with coefficient_errors and coefficient_correlations; extinction is
removed where there is a column ext_e (xp deredden). Or flux or flux10 with flux_cov or flux_err, as xp calibrate writes
them, on the model's wavelengths, taken as they are: what dereddens there is its own option. Without a column
parallax_error parallaxes count as exact; a star whose own error is unknown is not fitted.""",
    "SPREAD COLUMNS": SPREAD_NOTE,
    "BINARIES": """--binary fits the sum of two stars of one [Fe/H] and age on the main sequence of the training stars;
masses come from the isochrones at their M_G. chi2_binary well below chi2 tells an unresolved pair; Li+ 2026 train
on stars whose chi2 - chi2_binary is below 1. q is only as good as that difference is large. Both
stars must be in the model's domain: near its faint end the second is never faint, and a single star has a chi2_binary
far above its chi2.""",
    "THE MODEL": """Without --model a small demonstration model is used. It is trained on the synthetic spectra of
xp mock --spectra, which are like real ones in kind, not in detail: right for trying things and for mock stars, not for
science on real stars. xp train feh makes a model from stars with labels from elsewhere.""",
}


@row_command(
    "spectra",
    20,
    examples=(
        "xp feh --model feh.safetensors spectra.parquet -o labels.parquet",
        "xp deredden stars.parquet | xp feh --model feh.safetensors -o labels.parquet",
        "xp mock 1000 --spectra --correlations | xp feh --replace --drop-coefficients -o labels.parquet",
        "xp calibrate --covariance spectra.parquet | xp feh --model feh.safetensors --binary -o labels.parquet",
    ),
    see=("calibrate", "train", "mass", "plot"),
    notes=NOTES,
)
@shared("model")
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="lm",
    show_default=True,
    help="How chi2 is minimised; all reach the same minimum.",
)
@click.option("--exact", is_flag=True, help="Errors from the exact second derivatives of chi2.")
@click.option("--binary", is_flag=True, help="Also fit two stars: chi2_binary, q, mass_1, mass_2.")
@shared("isochrones", "age", "alpha-fe", "curve-unit", "drop-coefficients")
def command(model, method, exact, binary, isochrones, age, alpha_fe, curve_unit, drop_coefficients):
    """Append Teff, M_G and [Fe/H] from Gaia's XP spectra.

    A neural network (xp train feh) predicts the spectrum of a star of given Teff, M_G and [Fe/H]; here it is inverted,
    star by star, with the full covariance of the spectrum and the parallax. Input are coefficients as the archive gives
    them (arrays, arrays as text, or a column for each) or the flux of xp calibrate. Errors, their correlations,
    chi2 and flags come with the labels. A star that is flagged keeps its labels; one without spectrum or parallax has
    NaN.
    """
    if isochrones and not binary:
        raise UsageError("--isochrones is about the masses of --binary. TRY: with --binary")
    return Feh(model, method, exact, binary, isochrones, age, alpha_fe, curve_unit, drop_coefficients)
