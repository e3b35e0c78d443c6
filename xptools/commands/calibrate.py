"""`xp calibrate`: flux on a wavelength grid from the coefficients of Gaia's XP spectra."""

from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import click

from xptools.columns import Column
from xptools.commands import _xp_design as design_file
from xptools.commands._spectra_input import (
    GRID,
    SPREAD_NOTE,
    check_width,
    coefficients,
    spent,
    spread,
    wavelengths,
    with_arrays,
    without,
)
from xptools.errors import MissingColumns, UsageError
from xptools.options import row_command, shared
from xptools.protocol import RowOp, spelled

NO_BP, NO_RP, DIAGONAL, NO_ERROR, NO_EXTINCTION, NO_DISTANCE, NEGATIVE = (1 << i for i in range(7))
UNIT = "W.m**-2.nm**-1"
SQUARE = "W**2.m**-4.nm**-2"
BLOCK = 1 << 22  # numbers of a covariance block in memory
BANDS = (("syn_g", "G", "em.opt"), ("syn_bp", "BP", "em.opt.B"), ("syn_rp", "RP", "em.opt.R"))
SPECTRUM = ("coefficients", "coefficient_errors", "coefficient_correlations", "n_relevant_bases")


@dataclass(frozen=True)
class Calibrate(RowOp):
    """f = w_BP D_BP^T c_BP + w_RP D_RP^T c_RP on a grid [nm]; Cov = sum_X D_X^T C_X D_X (cores/xpbasis.py)."""

    grid: tuple[float, ...] = wavelengths(GRID)
    errors: bool = True
    covariance: bool = False
    floors: str = "none"
    deredden: bool = False
    e_column: str = "ext_e"
    curve_unit: str = "mag"
    absolute: bool = False
    truncate: bool = False
    synthetic: bool = False
    single: bool = False
    drop_coefficients: bool = False
    design: str = ""

    name: ClassVar[str] = "calibrate"
    flags: ClassVar[dict[int, str]] = {
        NO_BP: "no BP spectrum: flux only beyond 635 nm",
        NO_RP: "no RP spectrum: flux only below 643 nm",
        DIAGONAL: "errors without the correlations of the coefficients, which are absent",
        NO_ERROR: "no errors: those of the coefficients are unknown",
        NO_EXTINCTION: "E is unknown, so is the flux without extinction",
        NO_DISTANCE: "parallax unknown or not positive, so is the flux at 10 pc",
        NEGATIVE: "more than 5 wavelengths with a negative flux",
    }
    packages: ClassVar[tuple[str, ...]] = ("numpy", "numba", "scipy")

    @property
    def needs(self) -> tuple[str, ...]:
        return ("bp_coefficients", "rp_coefficients", *(("parallax",) if self.absolute else ()))

    @property
    def wants(self) -> tuple[str, ...]:
        kinds = ("coefficient_errors", "coefficient_correlations") if self.errors else ()
        kinds += ("n_relevant_bases",) if self.truncate else ()
        return tuple(f"{band}_{kind}" for band in ("bp", "rp") for kind in kinds)

    @property
    def cites(self) -> tuple[str, ...]:
        zgr = ("zhang2023",) if self.deredden or self.floors == "zgr" else ()
        return ("deangeli2023", "montegriffo2023", *zgr, *(("riello2021",) if self.synthetic else ()))

    def files(self) -> dict[str, str]:
        return {"design": self.design} if self.design else {}

    @property
    def stem(self) -> str:
        """The name of the flux column."""
        return "flux10" if self.absolute else "flux"

    @property
    def adds(self) -> dict[str, Column]:
        n, stem = len(self.grid), self.stem
        what = "Flux" + (" at 10 pc" if self.absolute else "") + (" without extinction" if self.deredden else "")
        wide = "float32" if self.single else "float64"
        floors = ", with the error model of Zhang+ 2023" if self.floors == "zgr" else ""
        out = {stem: Column(f"{wide}[{n}]", UNIT, "phot.flux.density;em.wl", f"{what} at {_words(self.grid)}")}
        if self.errors:
            text = f"Standard error of {stem}{floors}"
            out[f"{stem}_err"] = Column(f"float32[{n}]", UNIT, "stat.error;phot.flux.density;em.wl", text)
        if self.covariance:
            text = f"Covariance of {stem}{floors}: lower triangle row by row with the diagonal"
            out[f"{stem}_cov"] = Column(f"float64[{n * (n + 1) // 2}]", SQUARE, "stat.covariance", text)
        return out | (_magnitudes(self.errors) if self.synthetic else {})

    def meta_out(self, schema) -> dict:
        """`xp.grid`: the wavelengths of the array columns."""
        return {"xp.grid": _grid(self.grid)}

    def schema(self, schema, replace: bool = False):
        whole = with_arrays(schema)
        check_width(whole, super().reads(whole), self.design)
        out = super().schema(schema, replace)
        from xptools import metadata

        for name in (self.stem, f"{self.stem}_err", f"{self.stem}_cov"):
            if name in self.adds:
                at = out.get_field_index(name)
                out = out.set(at, metadata.with_values(out.field(at), {"xp.grid": _grid(self.grid)}))
        return without(out) if self.drop_coefficients else out

    def unread(self, schema):
        return spent(schema) - set(self.reads(schema).values()) if self.drop_coefficients else set()

    def reads(self, schema) -> dict[str, str]:
        found = super().reads(with_arrays(schema))
        if self.truncate and not all(f"{band}_n_relevant_bases" in found for band in ("bp", "rp")):
            raise MissingColumns(self.name, ("bp_n_relevant_bases", "rp_n_relevant_bases"), tuple(schema.names))
        if self.deredden:
            spelling = spelled(schema, self.e_column)
            if spelling is None:
                raise MissingColumns(self.name, (self.e_column,), tuple(schema.names))
            found["ext_e"] = spelling
        return spread(schema, found)

    def compute(self, parallax=None, ext_e=None, **columns):
        import numpy as np

        from xptools.cores import xpbasis

        bp, rp = (coefficients(band, columns, self.truncate, self.design) for band in ("bp", "rp"))
        design = design_file.designed(self.grid, self.design)
        flag = np.where(bp.known, 0, NO_BP) | np.where(rp.known, 0, NO_RP)
        factor = self._factor(parallax, ext_e, len(flag), flag)
        parts = np.zeros((2, len(flag), len(self.grid))) if self.floors == "zgr" else None
        flux = xpbasis.spectra(bp, rp, design, parts)
        flag |= np.where((flux < 0).sum(axis=1) > 5, NEGATIVE, 0)
        out = {self.stem: flux * factor if factor is not None else flux}
        if self.errors:
            correlated = np.ones(len(flag), bool)
            out |= self._spread(bp, rp, design, parts, factor, correlated)
            flag |= _quality(bp, rp, correlated)
        if self.synthetic:
            out |= _synthetic(bp, rp, self.errors, design_file.passbands(self.design))
        return {**out, "calibrate_flag": flag.astype(np.int16)}

    def _factor(self, parallax, E, rows, flag):
        """What the flux is multiplied by (N, 1 or n), None for nothing."""
        import numpy as np

        factor = None
        if self.absolute:
            parallax = np.asarray(parallax, np.float64)
            known = (parallax > 0) & np.isfinite(parallax)
            flag[~known] |= NO_DISTANCE
            factor = np.where(known, (100.0 / np.where(known, parallax, 1.0)) ** 2, np.nan)[:, None]
        if self.deredden:
            from xptools.cores.extinction import curve

            E = np.asarray(E, np.float64)
            flag[~np.isfinite(E)] |= NO_EXTINCTION
            R = curve(np.array(self.grid), self.curve_unit)
            gain = 10 ** (0.4 * R * np.where(np.isfinite(E), E, np.nan)[:, None])
            factor = gain if factor is None else gain * factor
        return factor

    def _spread(self, bp, rp, design, parts, factor, correlated):
        """The error columns; `correlated` becomes false for stars without correlations."""
        import numpy as np

        from xptools.cores import xpbasis

        if not self.covariance:
            variance = xpbasis.flux_variance(bp, rp, design, correlated)
            variance = variance if parts is None else xpbasis.variance_with_floors(variance, *parts)
            error = np.sqrt(variance)
            return {f"{self.stem}_err": error if factor is None else error * factor}
        N, n = len(bp.values), len(self.grid)
        packed, error = np.empty((N, n * (n + 1) // 2)), np.empty((N, n))
        (i, j), step = np.tril_indices(n), max(1, BLOCK // n**2)
        for rows in (slice(i, i + step) for i in range(0, N, step)):
            cov = xpbasis.flux_covariance(bp.rows(rows), rp.rows(rows), design, correlated[rows])
            if parts is not None:
                floored = xpbasis.with_floors(xpbasis.unpack(cov, n), *(part[rows] for part in parts))
                cov = xpbasis.pack(floored)
            if factor is not None:
                scale = np.broadcast_to(factor[rows], (len(cov), n))
                cov *= scale[:, i] * scale[:, j]
            packed[rows] = cov
            error[rows] = np.sqrt(cov[:, i == j])
        return {f"{self.stem}_err": error, f"{self.stem}_cov": packed}


def _quality(bp, rp, correlated):
    """Flag bits (N,) of the errors: without correlations, without errors."""
    import numpy as np

    none = (bp.known & ~bp.measured) | (rp.known & ~rp.measured)
    diagonal = ~correlated & ~none & (bp.known | rp.known)
    if diagonal.any():
        _warn("calibrate: no correlations: the errors come from the coefficients' own errors alone (flag bit 4)")
    return np.where(diagonal, DIAGONAL, 0) | np.where(none, NO_ERROR, 0)


@cache
def _warn(message: str) -> None:
    """A warning once, not once a batch."""
    from xptools.progress import warn

    warn(message)


def _synthetic(bp, rp, errors: bool, weights) -> dict:
    import numpy as np

    from xptools.cores import synthetic

    mag, err = synthetic.magnitudes(bp, rp, errors, weights)
    names = [name for name, _, _ in BANDS]
    out = dict(zip(names, mag.T, strict=True))
    return out | (dict(zip((f"{n}_err" for n in names), np.asarray(err).T, strict=True)) if errors else {})


def _magnitudes(errors: bool) -> dict[str, Column]:
    out = {}
    for name, band, em in BANDS:
        text = f"Synthetic {band} magnitude (Vega) of the spectrum as observed"
        out[name] = Column("float32", "mag", f"phot.mag;{em}", text)
    if errors:
        for name, _, em in BANDS:
            text = f"Standard error of {name}, without that of the zero point"
            out[f"{name}_err"] = Column("float32", "mag", f"stat.error;phot.mag;{em}", text)
    return out


def _grid(grid: tuple[float, ...]) -> dict:
    return {"wavelength": list(grid), "unit": "nm"}


def _words(grid: tuple[float, ...]) -> str:
    """A grid in words: start, end and step if it has one, else all of it as far as a description holds."""
    step = grid[1] - grid[0] if len(grid) > 1 else 0.0
    even = all(abs(w - grid[0] - i * step) < 1e-9 for i, w in enumerate(grid))
    if len(grid) > 3 and even:
        return f"{len(grid)} wavelengths, {grid[0]:g} to {grid[-1]:g} nm in steps of {step:g} nm"
    shown = ", ".join(f"{w:g}" for w in grid[:12]) + (" ..." if len(grid) > 12 else "")
    return f"{shown} nm"


NOTES = {
    "MODEL": """f = w_BP D_BP^T c_BP + w_RP D_RP^T c_RP, with the design matrices D of Gaia DR3's external calibration
(models v375wi and v142r) evaluated at each wavelength; w_BP falls from 1 at 635 nm to 0 at 643 nm, w_RP = 1 - w_BP. On
exactly 336:1020:2 they are ESA's published matrices of six digits, as in GaiaXPy; these differ from the model by up to
0.4 % below 400 nm and a few 1e-6 elsewhere. The covariance is the sum of D^T C D of both bands, with weights from both
sides: symmetric and positive in the overlap too. Coefficient errors are used as the archive gives them.""",
    "ONE BAND": """A star without BP has flux beyond 635 nm only, one without RP below 643 nm only: without weights
there, NaN elsewhere, with a flag.""",
    "ERRORS": """Where a star has no correlations, its errors are those of independent coefficients, and a flag says so.
--floors zgr adds the error model of Zhang, Green & Rix 2023: 0.1 % common to each band, 0.5 % common to the whole
spectrum, 0.5 % per wavelength, and a least eigenvalue. Truncation leaves out error terms too: errors shrink. Errors
hold neither the parallax nor E.""",
    "SYNTHETIC MAGNITUDES": """Photons of the spectrum from 330 to 1050 nm through the passbands of Riello et al. 2021,
with Gaia EDR3's zero points; of the flux as observed, whatever other options say. They need both bands. Over stars
whose catalogue row is consistent, |C*| < 3 sigma, they reproduce the catalogue within 6 mmag in the mean. Where a
companion is inside the windows of BP and RP but not in the image that gives G, C* is large and the synthetic G is
brighter than the catalogue's, by 0.65 mag per unit of C*.""",
    "SPREAD COLUMNS": SPREAD_NOTE,
    "DESIGN FILE": """The matrices that come with xp are DR3's, for 55 coefficients of each band. For spectra of another
basis, as the 51 coefficients of DR4's BP, --design names a file of numpy (.npz) with, for X in bp and rp: X.bases
(K, H), transformation times inverse bases; X.hermite (2), scale and offset from pseudo-wavelength to the argument of
the Hermite functions; X.dispersion and X.response (2, m), wavelength [nm] and value; and for --synthetic X.passbands
(K, 3), photo-electrons/s in G, BP, RP per coefficient. tests/make_xp_design.py in the sources makes such a file.""",
}


@row_command(
    "spectra",
    10,
    examples=(
        "xp calibrate spectra.parquet -o flux.parquet",
        "xp calibrate --grid 336:1020:2 --no-errors spectra.parquet -o flux.parquet",
        "xp mock 1000 --spectra | xp calibrate --absolute --floors zgr --covariance -o flux.parquet",
        "xp calibrate --synthetic --grid 500,600,700 spectra.parquet | xp info --stats",
        "xp calibrate --drop-coefficients spectra.parquet -o flux.parquet",
    ),
    see=("mock", "plot", "deredden"),
    notes=NOTES,
)
@click.option("--grid", metavar="LIST", default=GRID, show_default=True,
              help="Wavelengths [nm] between 330 and 1050: LO:HI:STEP, or values with commas.")
@click.option("--errors/--no-errors", default=True, show_default=True,
              help="Errors from the full covariance; without them correlations are not looked at.")
@click.option("--covariance", is_flag=True, help="Add the covariance of the flux, its lower triangle.")
@click.option("--floors", type=click.Choice(["none", "zgr"]), default="none", show_default=True,
              help="Systematic errors to add: those of Zhang, Green & Rix 2023.")
@click.option("--deredden", is_flag=True, help="Remove extinction with the curve of Zhang+ 2023 and E from a column.")
@click.option("--e-column", metavar="NAME", default="ext_e", show_default=True, help="The column of E for --deredden.")
@shared("curve-unit")
@click.option("--absolute", is_flag=True, help="Flux at 10 pc, by the parallax: columns flux10...")
@click.option("--truncate", is_flag=True, help="Use only the first n_relevant_bases coefficients of each band.")
@click.option("--synthetic", is_flag=True, help="Add synthetic magnitudes syn_g, syn_bp, syn_rp.")
@click.option("--single", is_flag=True, help="Write the flux as float32 instead of float64.")
@shared("drop-coefficients")
@click.option("--design", metavar="FILE", default="", help="Design matrices of another release (.npz).")
def command(
    grid, errors, covariance, floors, deredden, e_column, curve_unit, absolute, truncate, synthetic, single,
    drop_coefficients, design,
):  # fmt: skip
    """Append flux on a wavelength grid, from the coefficients of Gaia's XP spectra.

    Input are bp_coefficients and rp_coefficients as the archive gives them (arrays, arrays as text, or a column for
    each coefficient), with coefficient_errors and coefficient_correlations for the errors. Output is one array
    column `flux` [W m^-2 nm^-1] with flux_err; the wavelengths stand in its metadata under xp.grid. A row in gives a
    row out. Correlations are 12 of the 13 kB of a star: --drop-coefficients makes files small and quick.
    """
    if covariance and not errors:
        raise UsageError("--covariance is about errors. TRY: without --no-errors")
    if floors != "none" and not errors:
        raise UsageError("--floors is about errors. TRY: without --no-errors")
    return Calibrate(
        wavelengths(grid), errors, covariance, floors, deredden, e_column, curve_unit, absolute, truncate, synthetic,
        single, drop_coefficients, design,
    )  # fmt: skip


__all__ = ["Calibrate", "command"]
