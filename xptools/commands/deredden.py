"""`xp deredden`: extinction from a 3D dust map; magnitudes and colours without dust."""

from dataclasses import dataclass
from typing import ClassVar

import click

from xptools.columns import OWN, Column
from xptools.errors import DataError, MissingColumns, UsageError
from xptools.idle import refuse_idle, refuse_idle_map
from xptools.options import row_command, shared
from xptools.protocol import RowOp, spelled

NO_DISTANCE, NO_VALUE, NEAR, FAR, UNSURE, NO_COLOUR, EDGE, NO_ZERO_POINT, NO_G = (1 << i for i in range(9))
LEUNG = "leung2023"
MAP_OPTIONS = ("map_file", "flavor", "statistic", "shell_correct", "outside", "map_av")


def _magnitude(ucd: str, text: str) -> Column:
    return Column("float32", "mag", ucd, text)


def _extinction(band: str, em: str) -> dict[str, Column]:
    name = f"a{band.lower()}"
    value = _magnitude(f"phys.absorption;{em}", f"Extinction in {band}")
    error = _magnitude(f"stat.error;phys.absorption;{em}", f"Standard error of the extinction in {band}, from E alone")
    return {name: value, f"{name}_err": error}


E = Column("float32", None, "phys.absorption", "Extinction parameter E on the scale of Zhang+ 2023, not E(B-V)")
ZERO = Column("float64", "mas", "pos.parallax.trig;arith.zp", "Parallax zero point that was subtracted")


@dataclass(frozen=True)
class Deredden(RowOp):
    """E along the line of sight, A_X = (A_X / E)(colour, E) E, M_G0 = G - A_G + 5 log10(parallax / 100 mas).

    Distances are 1000 / parallax pc. The coefficients are those of black bodies in Gaia's passbands (Li+ 2026 Sec. 2).
    """

    map: str = "edenhofer2023"
    map_file: str = ""
    flavor: str = "main"
    samples: bool = False
    statistic: str = "mean"
    shell_correct: bool = False
    outside: str = "clamp"
    curve_unit: str = "mag"
    map_av: float | None = None
    zero_point: str = "off"
    e_column: str = ""
    passbands: str = ""

    name: ClassVar[str] = "deredden"
    needs: ClassVar[tuple[str, ...]] = ("parallax", "phot_g_mean_mag")
    wants: ClassVar[tuple[str, ...]] = (
        "ra", "dec", "l", "b", "phot_bp_mean_mag", "phot_rp_mean_mag", "bp_rp", "parallax_error",
        "parallax_over_error",
        "phot_g_mean_flux_over_error", "phot_bp_mean_flux_over_error", "phot_rp_mean_flux_over_error",
        "astrometric_params_solved", "nu_eff_used_in_astrometry", "pseudocolour", "ecl_lat",
    )  # fmt: skip
    adds: ClassVar[dict[str, Column]] = {
        "ext_e": E,
        "ext_e_err": E._replace(ucd="stat.error;phys.absorption", text="Scatter of ext_e over the map's samples"),
        **_extinction("G", "em.opt"),
        **_extinction("BP", "em.opt.B"),
        **_extinction("RP", "em.opt.R"),
        **{name: OWN[name] for name in ("mg0", "mg0_err", "bp_rp0", "bp_rp0_err")},
    }
    flags: ClassVar[dict[int, str]] = {
        NO_DISTANCE: "no distance: the parallax is unknown or not positive",
        NO_VALUE: "the map has no value there, or the position is unknown",
        NEAR: "nearer than the map's first distance: E grows in proportion to distance up to there",
        FAR: "beyond the map's last distance",
        UNSURE: "the map's own fit did not converge there, or the distance is outside its reliable range",
        NO_COLOUR: "no BP-RP, so no extinction in magnitudes",
        EDGE: "colour or E beyond the coefficient table, whose edge was used",
        NO_ZERO_POINT: "parallax zero point unknown (parallax left as it is) or outside its calibrated range",
        NO_G: "no G, so no absolute magnitude",
    }
    packages: ClassVar[tuple[str, ...]] = ("dustmaps", "numba")

    @property
    def cites(self) -> tuple[str, ...]:
        maps = {"edenhofer2023": "edenhofer2024", "bayestar2019": "green2019"}
        points = {"off": (), "lindegren2021": ("lindegren2021",), LEUNG: ("lindegren2021", "leung2023")}
        used = ("dustmaps2018", *([maps[self.map]] if self.map in maps else [])) if self._mapped else ()
        return ("zhang2023", "riello2021", *used, *points[self.zero_point])

    @property
    def _mapped(self) -> bool:
        return self.map != "none" and not self.e_column

    def added(self) -> dict[str, Column]:
        source = f"column {self.e_column}" if self.e_column else f"map {self.map}"
        text = "No extinction: zero" if not self.e_column and self.map == "none" else f"{E.text}; from the {source}"
        zero = {} if self.zero_point == "off" else {"parallax_zero_point": ZERO}
        columns = super().added()
        return {**columns, "ext_e": E._replace(text=text), **zero}

    def files(self) -> dict[str, str]:
        found = {"passbands": self.passbands} if self._bands() else {}
        if self._mapped:
            from xptools.dustfiles import check

            path = check(self.map, self.map_file, self.flavor, self.samples, self.map_av)
            found |= {"map": str(path)} if path else {}
        return found

    def reads(self, schema) -> dict[str, str]:
        found = super().reads(schema)
        choices = [(("phot_bp_mean_mag", "phot_rp_mean_mag"), ("bp_rp",))]
        if self._mapped:
            choices.append((("ra", "dec"), ("l", "b")))
        if self.zero_point != "off":
            choices.append((("astrometric_params_solved", "nu_eff_used_in_astrometry", "pseudocolour"),))
            choices.append((("ecl_lat",), ("ra", "dec")))
        for choice in choices:
            if not any(all(name in found for name in names) for names in choice):
                missing = tuple(name for name in choice[0] if name not in found)
                raise MissingColumns(self.name, missing, tuple(schema.names))
        if self.e_column:
            spelling = spelled(schema, self.e_column)
            if spelling is None:
                raise MissingColumns(self.name, (self.e_column,), tuple(schema.names))
            found[self.e_column] = spelling
        return found

    def compute(self, parallax, phot_g_mean_mag, **columns):
        import numpy as np

        from xptools.cores import deredden as core

        parallax, phot_g_mean_mag = _finite(parallax), _finite(phot_g_mean_mag)
        columns = {name: None if values is None else _finite(values) for name, values in columns.items()}
        flag = np.zeros(len(parallax), np.int16)
        zero = self._zero_point(phot_g_mean_mag, columns, flag)
        parallax_error = _parallax_error(columns, parallax)
        parallax = parallax - np.nan_to_num(zero)
        flag[~(parallax > 0)] |= NO_DISTANCE
        E, E_err = self._extinction(parallax, columns, flag)
        colour = _colour(columns)
        flag[np.isnan(colour)] |= NO_COLOUR
        flag[np.isnan(phot_g_mean_mag)] |= NO_G
        snr = [columns[f"phot_{band}_mean_flux_over_error"] for band in ("g", "bp", "rp")]
        errors = core.Errors(E_err, parallax_error, *snr)
        out = core.deredden(phot_g_mean_mag, colour, parallax, E, errors, self.curve_unit, self._bands())
        flag[~out.known_law & np.isfinite(colour) & np.isfinite(E)] |= EDGE
        names = ("ag", "abp", "arp", "ag_err", "abp_err", "arp_err", "mg0", "mg0_err", "bp_rp0", "bp_rp0_err")
        result = {"ext_e": E, "ext_e_err": E_err, **dict(zip(names, out, strict=False)), "deredden_flag": flag}
        return result if self.zero_point == "off" else {**result, "parallax_zero_point": zero}

    def _zero_point(self, G, columns, flag):
        import numpy as np

        from xptools.cores import astrometry

        if self.zero_point == "off":
            return np.zeros(len(G))
        names = ("nu_eff_used_in_astrometry", "pseudocolour", "astrometric_params_solved")
        nu_eff, pseudocolour, solved = (columns[name] for name in names)
        if columns["ecl_lat"] is not None:
            sine = np.sin(np.radians(columns["ecl_lat"]))
        else:
            sine = astrometry.sin_ecliptic_latitude(columns["ra"], columns["dec"])
        zero = astrometry.zero_point(G, nu_eff, pseudocolour, sine, solved)
        flag[~astrometry.zero_point_valid(G, nu_eff, pseudocolour, solved)] |= NO_ZERO_POINT
        return zero + (astrometry.zero_point_bright(G) if self.zero_point == LEUNG else 0.0)

    def _extinction(self, parallax, columns, flag):
        import numpy as np

        unknown = np.full(len(parallax), np.nan)
        if self.e_column:
            E = columns[self.e_column]
            flag[np.isnan(E)] |= NO_VALUE
            return E, unknown
        if self.map == "none":
            return np.zeros(len(parallax)), np.zeros(len(parallax))
        from xptools.cores.astrometry import distance

        equatorial = columns["ra"] is not None and columns["dec"] is not None
        lon, lat = (columns["ra"], columns["dec"]) if equatorial else (columns["l"], columns["b"])
        answer = self._map().query(lon, lat, distance(parallax), equatorial)
        return self._placed(answer, flag), answer.E_err

    def _placed(self, answer, flag):
        """E under the policy for stars outside the map, and the flags that say where each star lies."""
        import numpy as np

        from xptools.cores import dustcube

        known = np.isfinite(answer.E)
        far = answer.place == dustcube.BEYOND
        flag[~known & (flag & NO_DISTANCE == 0)] |= NO_VALUE
        flag[answer.place == dustcube.BELOW] |= NEAR
        flag[far] |= FAR
        flag[known & ~answer.reliable] |= UNSURE
        if self.outside == "error" and (far | (flag & NO_VALUE > 0)).any():
            count = int((far | (flag & NO_VALUE > 0)).sum())
            raise DataError(
                f"{count:,} of {len(far):,} stars of this batch lie outside the map {self.map}. "
                "TRY: --outside clamp or nan, which flag them"
            )
        return np.where(far, np.nan, answer.E) if self.outside == "nan" else answer.E

    def _map(self):
        from xptools.dustfiles import open_map

        return open_map(
            self.map, self.map_file, self.flavor, self.samples, self.statistic, self.shell_correct, self.curve_unit,
            self.map_av,
        )  # fmt: skip

    def _bands(self):
        if not self.passbands:
            return None
        from xptools.passbands import read_bands

        return read_bands(self.passbands)


def _finite(values):
    """As float64, whatever is infinite as NaN: unknown."""
    import numpy as np

    values = np.asarray(values, np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def _parallax_error(columns, parallax):
    """The parallax error [mas], from parallax_over_error where a table has only that."""
    import numpy as np

    if columns["parallax_error"] is not None or columns["parallax_over_error"] is None:
        return columns["parallax_error"]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.abs(parallax / columns["parallax_over_error"])


def _colour(columns):
    bp, rp, bp_rp = (columns[name] for name in ("phot_bp_mean_mag", "phot_rp_mean_mag", "bp_rp"))
    if bp is None or rp is None:
        return bp_rp
    return bp - rp


def _listed() -> str:
    from xptools.dustfiles import MAPS

    rows = [("map", "unit", "A_V per unit", "covers", "file")]
    rows += [
        (name, m.unit, f"{m.a_v:g}" if m.a_v else "by its curve" if name == "edenhofer2023" else "--map-av", m.covers,
         f"{m.file} {m.size}".strip() or "-")
        for name, m in MAPS.items()
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, "Other map classes of dustmaps need --map-av. none: no correction."])


@row_command(
    "catalogue",
    10,
    examples=(
        "xp deredden stars.parquet -o dereddened.parquet",
        "xp deredden --map bayestar2019 --map-file bayestar2019.h5 stars.parquet -o dereddened.parquet",
        "xp mock 1000 | xp deredden --map none | xp info",
        "xp deredden --map list",
    ),
    see=("mock", "select", "mass"),
)
@shared("map", "map-file", "curve-unit")
@click.option("--flavor", type=click.Choice(["main", "2kpc"]), default="main", show_default=True,
              help="Which edenhofer2023: the main map, or the one to 2 kpc from less data.")
@click.option("--samples", is_flag=True,
              help="Use the posterior samples of edenhofer2023 (19.5 GB): E is their mean, ext_e_err their scatter.")
@click.option("--statistic", type=click.Choice(["mean", "median", "best"]), default="mean", show_default=True,
              help="What bayestar gives: mean or median of its samples, or its best fit.")
@click.option("--shell-correct", is_flag=True,
              help="Put E of edenhofer2023 at the outer edge of its shell, not at the centre as dustmaps does.")
@click.option("--outside", type=click.Choice(["clamp", "nan", "error"]), default="clamp", show_default=True,
              help="Stars beyond the map: the last value, unknown, or stop. All are flagged.")
@click.option("--map-av", type=float, metavar="MAG",
              help="A_V per unit of the map's values [mag], for a map whose unit xp does not know.")
@click.option("--zero-point", type=click.Choice(["off", "lindegren2021", LEUNG]), default="off", show_default=True,
              help="Parallax zero point to subtract; leung2023 adds up to 0.02 mas at G > 13.")
@click.option("--e-column", metavar="NAME", default="", help="Take E from this column instead of from a map.")
@click.option("--passbands", metavar="FILE", default="",
              help="Own passbands for A_X / E: CSV with wavelength_nm,G,BP,RP at equal steps [nm].")
def command(
    map_, map_file, curve_unit, flavor, samples, statistic, shell_correct, outside, map_av, zero_point, e_column,
    passbands,
):  # fmt: skip
    """Append dust extinction, and magnitudes and colours without it.

    E comes from a 3D dust map at the star's position and distance 1000 / parallax [pc], on the scale of Zhang, Green &
    Rix 2023; A_G, A_BP, A_RP [mag] from their curve through Gaia's passbands, for the star's intrinsic colour. mg0 is
    the absolute magnitude, bp_rp0 the colour without dust.

    A map file of dustmaps is found in --data, in the cache, and where dustmaps keeps it. It is converted once into the
    cache, so that later runs open it at once. A map without samples gives no error of E: then ext_e_err is unknown, and
    mg0_err and bp_rp0_err hold the parallax and the photometry only. Nearer than the map's first shell E grows in
    proportion to distance; beyond its last one --outside decides. `--map none` corrects nothing.
    """
    if map_ == "list":
        click.echo(_listed())
        click.get_current_context().exit()
    if samples and map_ != "edenhofer2023":
        raise UsageError("--samples is for edenhofer2023 (bayestar always uses its samples). TRY: without --samples")
    if e_column:
        refuse_idle(MAP_OPTIONS, "where E is a column", "without --e-column")
    elif map_ == "none":
        refuse_idle_map(map_file, *MAP_OPTIONS, "curve_unit")
    return Deredden(
        map_, map_file, flavor, samples, statistic, shell_correct, outside, curve_unit, map_av, zero_point, e_column,
        passbands,
    )  # fmt: skip


__all__ = ["Deredden", "command"]
