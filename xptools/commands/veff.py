"""`xp veff`: the effective volume of every star's (mass, [Fe/H]) bin, and the table of all bins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import click

from xptools.columns import Column
from xptools.commands._volumes import VEFF, VEFF_ERR, Volumes, mean_and_width, number_or_none
from xptools.errors import UsageError
from xptools.idle import refuse_idle, refuse_idle_map
from xptools.options import edges, row_command, shared
from xptools.protocol import RowOp, Source

if TYPE_CHECKING:
    import numpy as np

OUTSIDE_MASS, OUTSIDE_FEH, UNKNOWN, UNSEEN = 1, 2, 4, 8


@dataclass(frozen=True)
class Veff(Volumes, RowOp):
    """V_eff = int n(x) S(G(M_G, x)) d3x averaged over the star's bin (Li+ 2026 eqs 5-7)."""

    name: ClassVar[str] = "veff"
    needs: ClassVar[tuple[str, ...]] = ("mass", "feh")
    adds: ClassVar[dict[str, Column]] = {
        "veff": VEFF,
        "veff_err": VEFF_ERR,
        "mass_bin": Column("int16", None, "meta.number", "Number of the mass bin from 0; -1 outside"),
        "feh_bin": Column("int16", None, "meta.number", "Number of the [Fe/H] bin from 0; -1 outside"),
    }
    flags: ClassVar[dict[int, str]] = {
        OUTSIDE_MASS: "mass outside the bins",
        OUTSIDE_FEH: "[Fe/H] outside the bins",
        UNKNOWN: "mass or [Fe/H] unknown",
        UNSEEN: "no star of this bin can be in the sample: veff is 0",
    }
    packages: ClassVar[tuple[str, ...]] = ("numpy", "scipy")

    def meta_out(self, schema: Any) -> dict[str, Any]:
        """`xp.veff`: the whole bin table, so that `xp mf` needs nothing else."""
        return {"xp.veff": self.statement()}

    def compute(self, mass: np.ndarray, feh: np.ndarray) -> dict[str, np.ndarray]:
        """The bin of each star (N,) and the bin's volume; NaN outside the bins."""
        import numpy as np

        from xptools.cores.bins import locate

        table = self.table()
        k, b = locate(mass, table.mass_edges), locate(feh, table.feh_edges)
        inside = (k >= 0) & (b >= 0)
        veff, error = (np.where(inside, a[b, k], np.nan) for a in (table.veff, table.veff_err))
        unknown = ~np.isfinite(mass) | ~np.isfinite(feh)
        flag = np.where(unknown, UNKNOWN, 0)
        flag = flag | np.where(np.isfinite(mass) & (k < 0), OUTSIDE_MASS, 0)
        flag = flag | np.where(np.isfinite(feh) & (b < 0), OUTSIDE_FEH, 0) | np.where(veff == 0, UNSEEN, 0)
        return {"veff": veff, "veff_err": error, "mass_bin": k, "feh_bin": b, "veff_flag": flag.astype(np.int16)}


@dataclass(frozen=True)
class VeffTable(Volumes, Source):
    """The bins themselves, one row each."""

    name: ClassVar[str] = "veff"
    adds: ClassVar[dict[str, Column]] = {
        "feh_lo": Column("float64", None, "phys.abund.Fe;stat.min", "Lower [Fe/H] edge of the bin [dex]"),
        "feh_hi": Column("float64", None, "phys.abund.Fe;stat.max", "Upper [Fe/H] edge of the bin [dex]"),
        "mass_lo": Column("float64", "solMass", "phys.mass;stat.min", "Lower mass edge of the bin"),
        "mass_hi": Column("float64", "solMass", "phys.mass;stat.max", "Upper mass edge of the bin"),
        "mass": Column("float64", "solMass", "phys.mass", "Centre of the mass bin"),
        "veff": VEFF,
        "veff_err": VEFF_ERR,
    }
    packages: ClassVar[tuple[str, ...]] = ("numpy", "scipy")

    def meta_out(self, schema: Any) -> dict[str, Any]:
        """`xp.veff`, as the row command writes it."""
        return {"xp.veff": self.statement()}

    def rows(self) -> int:
        """One per bin."""
        return (len(self.mass_edges) - 1) * (len(self.feh_edges) - 1)

    def batches(self, rows: int) -> Iterator[dict[str, np.ndarray]]:
        """Bins in order of [Fe/H], then mass."""
        import numpy as np

        table = self.table()
        B, K = table.veff.shape
        m, f = np.asarray(table.mass_edges), np.asarray(table.feh_edges)
        out = {
            "feh_lo": np.repeat(f[:-1], K), "feh_hi": np.repeat(f[1:], K), "mass_lo": np.tile(m[:-1], B),
            "mass_hi": np.tile(m[1:], B), "mass": np.tile(table.centre, B), "veff": table.veff.ravel(),
            "veff_err": table.veff_err.ravel(),
        }  # fmt: skip
        for i in range(0, B * K, rows):
            yield {name: values[i : i + rows] for name, values in out.items()}


NOTES = {
    "DENSITY LAWS": """--density FILE is TOML, a list of components with their share of the density at (R_sun, Z = 0);
each is a disc (h_r, h_z [kpc]) or a flattened power law (slope, q), for all [Fe/H] or for bins with centres in feh.
[[component]]
weight = 0.8
h_r = 2.0
h_z = 0.9
[[component]]
weight = 0.2
slope = 2.5
q = 0.7
feh = [-2.5, -1.0]""",
    "COMPLETENESS": """--completeness FILE is any table with the columns g and completeness (a curve), and perhaps
healpix (nested equatorial pixel, as in source_id) and bp_rp (colour); every combination once. It is linear in G and
nearest in colour. --eta-completeness FILE has feh_lo, feh_hi, completeness, and perhaps mass_lo, mass_hi and
completeness_err: xp plot eta --kind completeness writes it. Neither is part of Li+ 2026 eq. 7: without them Phi is the
density of stars that passed the cuts.""",
    "METALLICITY INSIDE A BIN": """V_eff rises towards low [Fe/H], by 1.1 in ln V per dex at 0.18 Msun. Where the number
of stars changes across a wide bin, its centre is not where they are: for the halo's distribution and the bin -2.2 to
-1.8 that shifts V by 5 % at the low masses and alpha1 by 0.04. --mdf=-1.45,0.4 averages V over that distribution.""",
    "REPRODUCTION": """Table 5 of Li+ 2026 implies one volume for all [Fe/H] and 3 / (4 pi) of eq. 7:
--veff-mode shared --veff-feh -1.3 --veff-scale 0.238732 gives that; --bin-point centre --method mc the rest.""",
}
SAMPLES = click.IntRange(1000, 10_000_000)


@row_command(
    "population",
    10,
    examples=(
        "xp mass stars.parquet | xp veff | xp mf",
        "xp veff --table -o veff.parquet",
        "xp veff --plx-sn 10 --map edenhofer2023 stars.parquet -o out.parquet",
    ),
    see=("mass", "mf", "plot"),
    notes=NOTES,
)
@click.option("--table", is_flag=True, help="Write the bins themselves, one row each; no INPUT.")
@shared("mass-edges", "feh-edges", "g-limit", "max-distance")
@click.option("--mg-limit", metavar="M", default="4", show_default=True,
              help="Brightest absolute G in the sample [mag], or none.")  # fmt: skip
@shared("isochrones", "age", "alpha-fe", "r-sun", "z-sun", "h-r", "h-z")
@click.option("--density", metavar="FILE", default="", help="Density law as TOML, instead of --h-r and --h-z.")
@click.option("--method", type=click.Choice(["quad", "mc"]), default="quad", show_default=True,
              help="Quadrature, or the paper's Monte Carlo.")  # fmt: skip
@click.option("--samples", type=SAMPLES, default=1_000_000, show_default=True, help="Monte Carlo points per bin.")
@click.option("--bin-point", type=click.Choice(["average", "centre"]), default="average", show_default=True,
              help="V_eff averaged over the mass bin, or at its centre as in the paper.")  # fmt: skip
@click.option("--feh-points", type=click.IntRange(1, 99), default=1, show_default=True,
              help="Points over each [Fe/H] bin to average; 1 is its centre.")  # fmt: skip
@click.option("--mdf", metavar="MEAN,SIGMA", default="",
              help="Gaussian in [Fe/H] to weight these points with; 9 points at least.")  # fmt: skip
@click.option("--veff-mode", type=click.Choice(["each", "shared"]), default="each", show_default=True,
              help="One V_eff for each [Fe/H] bin, or one for all.")  # fmt: skip
@click.option("--veff-feh", type=float, default=-1.3, show_default=True, help="[Fe/H] of the shared V_eff [dex].")
@click.option("--veff-scale", type=click.FloatRange(0, min_open=True), default=1.0, show_default=True,
              help="Factor on every V_eff.")  # fmt: skip
@click.option("--veff-error", type=click.FloatRange(0), default=0.0, show_default=True,
              help="Relative error of V_eff to add in quadrature (density law, isochrones).")  # fmt: skip
@click.option("--plx-sn", type=click.FloatRange(0, min_open=True), default=None,
              help="Count with the loss to a cut on parallax_over_error above this.")  # fmt: skip
@shared("map", default="none", help="Count with the dust of a 3D map as in xp deredden; none: a clear sky.")
@shared("map-file", "curve-unit")
@click.option("--completeness", metavar="FILE", default="", help="Completeness of the catalogue, a curve or a map.")
@click.option("--eta-completeness", metavar="FILE", default="", help="Share of stars that pass the eta cut, by bin.")
def command(
    table, mass_edges, feh_edges, g_limit, max_distance, mg_limit, isochrones, age, alpha_fe, r_sun, z_sun, h_r, h_z,
    density, method, samples, bin_point, feh_points, mdf, veff_mode, veff_feh, veff_scale, veff_error, plx_sn,
    map_, map_file, curve_unit, completeness, eta_completeness, seed, input,
):  # fmt: skip
    """Append the effective volume of each star's (mass, [Fe/H]) bin, averaged over the bin.

    A star of mass M and [Fe/H] is seen to the distance where G passes --g-limit, at most --max-distance; V_eff is the
    volume weighted by the density n(R,Z), 1 at the Sun's radius in the plane. The whole table of bins goes along in the
    schema, so that xp mf needs nothing else.
    """
    if max_distance <= 0 or max_distance >= r_sun:
        raise UsageError(f"--max-distance must lie between 0 and --r-sun, not {max_distance:g}")
    for option, value in (("veff-scale", veff_scale), ("veff-error", veff_error), ("alpha-fe", alpha_fe)):
        if abs(value) == float("inf"):
            raise UsageError(f"--{option} must be finite")
    if edges(mass_edges)[0] < 0:
        raise UsageError(f"--mass-edges are masses, not {mass_edges}")
    if table and input != "-":
        raise UsageError(f"--table reads no INPUT, but {input} is given. TRY: without --table, or without {input}")
    if map_ == "none":
        refuse_idle_map(map_file, "curve_unit")
    if method == "quad":
        refuse_idle(("samples",), "with --method quad", "--method mc as well")
    if veff_mode == "each":
        refuse_idle(("veff_feh",), "with --veff-mode each", "--veff-mode shared as well")
    kind, shape = VeffTable if table else Veff, mean_and_width(mdf)
    return kind(
        mass_edges=edges(mass_edges), feh_edges=edges(feh_edges), g_limit=g_limit, max_distance=max_distance,
        mg_limit=number_or_none("mg-limit", mg_limit), isochrones=isochrones, age=age, alpha_fe=alpha_fe, r_sun=r_sun,
        z_sun=z_sun, h_r=h_r, h_z=h_z, density=density, method=method, samples=samples if method == "mc" else 0,
        seed=seed if method == "mc" else 0, bin_point=bin_point,
        feh_points=max(feh_points, 9) if shape else feh_points, mdf=shape, veff_mode=veff_mode,
        veff_feh=veff_feh, veff_scale=veff_scale, veff_error=veff_error, plx_sn=plx_sn, map=map_, map_file=map_file,
        curve_unit=curve_unit, completeness=completeness, eta_completeness=eta_completeness,
    )  # fmt: skip
