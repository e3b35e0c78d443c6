"""The source of `xp mock`: its settings, its columns, and what it states about its own mass function."""

import dataclasses
from collections.abc import Iterator
from functools import lru_cache
from typing import ClassVar

from xptools.columns import GAIA, OWN, XP, Column
from xptools.errors import DataError, InputError, UsageError
from xptools.progress import warn
from xptools.protocol import Source

TRUTH = {
    "true_mass": Column("float32", "solMass", "phys.mass", "True initial mass, of the primary if a pair"),
    "true_q": Column("float32", None, "phys.mass;arith.ratio", "True mass ratio of an unresolved pair, NaN if single"),
    "true_feh": Column("float32", None, "phys.abund.Fe", "True [Fe/H] [dex]"),
    "true_age": Column("float32", "Gyr", "time.age", "True age"),
    "true_distance": Column("float64", "pc", "pos.distance", "True distance"),
    "true_parallax": Column("float64", "mas", "pos.parallax", "True parallax"),
    "true_mg": Column("float32", "mag", "phys.magAbs;em.opt", "True absolute G magnitude without dust, of the pair"),
    "true_bp_rp": Column("float32", "mag", "phot.color;em.opt.B;em.opt.R", "True BP - RP colour without dust"),
    "true_ext_e": Column("float32", None, "phys.absorption", "True extinction parameter E, as in the map"),
    "true_ag": Column("float32", "mag", "phys.absorption;em.opt", "True extinction in G"),
    "true_component": Column("int16", None, "meta.code", "True population (0: thin disc; 1: thick disc; 2: halo)"),
    "true_radial_velocity": Column("float32", "km.s**-1", "spect.dopplerVeloc.opt", "True radial velocity"),
    "true_outlier": Column(
        "int16", None, "meta.code.qual", "What is spoilt (1: spurious parallax; 2: blended BP, RP; 4: ruwe above 1.4)"
    ),
}


def _measured(type_: str, unit: str | None, ucd: str, text: str, name: str) -> dict[str, Column]:
    """A label and its error."""
    dex = " [dex]" if unit is None else ""
    error = Column(type_, unit, f"stat.error;{ucd}", f"Standard error of {name}{dex}")
    return {name: Column(type_, unit, ucd, text), f"{name}_err": error}


LABELS = {
    **_measured("float32", "K", "phys.temperature.effective", "Effective temperature", "teff"),
    **_measured("float32", None, "phys.gravity", "Surface gravity log g [cgs, dex]", "logg"),
    **_measured("float32", None, "phys.abund.Z", "Metallicity [M/H] [dex]", "mh"),
    **_measured("float32", None, "phys.abund", "Alpha elements over metals [alpha/M] [dex]", "alpha_m"),
    **_measured("float32", "solMass", "phys.mass", "Present mass", "mass"),
    **_measured("float32", "Gyr", "time.age", "Age", "age"),
}
SPECTRAL = {
    "true_teff": Column("float32", "K", "phys.temperature.effective", "True effective temperature, of the primary"),
    "true_logg": Column("float32", None, "phys.gravity", "True surface gravity log g of the primary [cgs, dex]"),
}
EVOLVED = {
    **SPECTRAL,
    "true_mass": Column("float32", "solMass", "phys.mass", "True present mass"),
    "true_mh": Column("float32", None, "phys.abund.Z", "True metallicity [M/H] [dex]"),
    "true_alpha_m": Column("float32", None, "phys.abund", "True alpha elements over metals [alpha/M] [dex]"),
    "true_clump": Column("bool", None, "meta.code", "Burns helium in its core (red clump), else on the first branch"),
}
METALLICITY = {name: OWN[name] for name in ("feh", "feh_err")}


@dataclasses.dataclass(frozen=True)
class Mock(Source):
    """A known Milky Way near the Sun (xptools/universe.py); distances in kpc, ages in Gyr, magnitudes in mag."""

    stars: int = 100_000
    seed: int = 0
    first: int = 0
    sample: str = "dwarfs"
    fractions: tuple[float, ...] = (0.86, 0.13, 0.01)
    imf: str = ""
    binaries: float = 0.4
    q_slope: float = 0.0
    age: float = 0.0
    isochrones: str = ""
    alpha_fe: float = 0.0
    map: str = "none"
    map_file: str = ""
    curve_unit: str = "mag"
    noise: float = 1.0
    outliers: float = 0.05
    spurious: float = 0.005
    feh_error: float | None = None
    select: str = "observed"
    g_limit: float = 17.5
    max_distance: float = 1.0
    mg_limit: float = 4.0
    poisson: bool = False
    r_sun: float = 8.122
    z_sun: float = 0.0
    spectra: bool = False
    correlations: bool = False

    name: ClassVar[str] = "mock"
    packages: ClassVar[tuple[str, ...]] = ("numpy", "scipy")

    def __post_init__(self):
        if len(self.fractions) != 3 or min(self.fractions) < 0 or sum(self.fractions) <= 0:
            raise UsageError(f"--fractions takes three numbers, none negative, not all 0: not {list(self.fractions)}")
        if self.max_distance > (2.0 if self.sample == "dwarfs" else 4.0):
            raise UsageError("--max-distance may be at most 2 kpc for dwarfs and 4 kpc for giants")
        if self.correlations and not self.spectra:
            raise UsageError("--correlations are those of spectra. TRY: --spectra --correlations")
        if self.max_distance <= 0 or self.age < 0:
            raise UsageError("--max-distance and --age cannot be negative")
        for name in ("binaries", "outliers", "spurious", "noise"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"--{name} is a number between 0 and 1, not {getattr(self, name):g}")

    @property
    def adds(self) -> dict[str, Column]:
        columns = {**GAIA, **METALLICITY, **TRUTH}
        if self.sample == "giants":
            own = {**METALLICITY, **LABELS}
            columns = {**GAIA, **own, **{k: v for k, v in TRUTH.items() if k != "true_q"}, **EVOLVED}
        return columns | self._spectral() if self.spectra else columns

    def _spectral(self) -> dict[str, Column]:
        coefficients = {k: v for k, v in XP.items() if self.correlations or not k.endswith("correlations")}
        return {**coefficients, **({} if self.sample == "giants" else SPECTRAL)}

    @property
    def cites(self) -> tuple[str, ...]:
        maps = {"edenhofer2023": "edenhofer2024", "bayestar2019": "green2019"}
        dust = ("green2018", *([maps[self.map]] if self.map in maps else [])) if self._mapped else ()
        light = () if self.isochrones else ("bressan2012", "chen2014", "chen2019")
        curve = () if self.map == "none" else ("zhang2023",)
        motion = ("gravity2018", "blandhawthorn2016", "xiang2025")
        spectra = ("deangeli2023", "montegriffo2023", "mucciarelli2021", "mann2015") if self.spectra else ()
        return (
            "li2026", *motion, *light, "gaia2023", "riello2021", "lindegren2021", "rybizki2022", *curve, *dust, *spectra
        )  # fmt: skip

    @property
    def _mapped(self) -> bool:
        return self.map not in ("none", "toy")

    def files(self) -> dict[str, str]:
        if self.imf:
            _toml(self.imf)  # its own sentence if it cannot be read, before its digest is taken
        tables = [p.strip() for p in self.isochrones.split(",") if p.strip()]
        given = {"isochrones" if len(tables) == 1 else f"isochrones.{i}": p for i, p in enumerate(tables, 1)}
        if self._mapped:
            from xptools.dustfiles import check

            path = check(self.map, self.map_file)
            given |= {"map": str(path)} if path else {}
        return given | ({"imf": self.imf} if self.imf else {})

    def mass_function(self):
        """The stated Phi(M | [Fe/H]) of the TOML file, or that of Li+ 2026."""
        from xptools.cores.imf import PiecewiseIMF

        return PiecewiseIMF.from_dict(_toml(self.imf)) if self.imf else PiecewiseIMF()

    def universe(self):
        """The tables behind this step, made once per process."""
        return _universe(self)

    def batches(self, rows: int) -> Iterator[dict]:
        for block in self.universe().blocks():
            n = len(block["source_id"])
            for i in range(0, n, rows):
                yield block if n <= rows else {name: values[i : i + rows] for name, values in block.items()}

    def meta_out(self, schema) -> dict:
        """`xp.mock`: the truth, so that `xp mf --truth` can compare."""
        return {"xp.mock": statement(self)}


def statement(mock: Mock) -> dict:
    """What is true of this universe: density laws, absolute mass function, isochrones; JSON-able.

    `phi` is a PiecewiseIMF with the density [kpc-3] of every [Fe/H] cell, all populations together, at (R_sun, Z = 0).
    """
    from xptools.cores.mock_population import COMPONENTS

    universe = mock.universe()
    components = [
        dataclasses.asdict(c) | {"fraction": w / sum(mock.fractions)}
        for c, w in zip(COMPONENTS, mock.fractions, strict=True)
    ]
    out = {
        "stars": mock.stars,
        "drawn": universe.drawn,
        "density": universe.density,
        "volume": universe.proposal.total,
        "components": components,
        "isochrones": universe.isochrones.origin,
        "r_sun": mock.r_sun,
        "z_sun": mock.z_sun,
    }
    return out if mock.sample == "giants" else out | {"phi": _phi(universe).to_dict()}


def _phi(universe):
    """The mass function on the finest [Fe/H] cells, with its density there."""
    import numpy as np

    from xptools.cores.imf import PiecewiseIMF

    cells, imf = universe.cells, universe.imf
    edges = np.unique(np.concatenate([cells.lo, cells.hi]))
    density = np.zeros(len(edges) - 1)
    np.add.at(density, np.searchsorted(edges, cells.lo), universe.density * cells.share)
    slopes = imf.alpha(0.5 * (edges[1:] + edges[:-1]))
    return PiecewiseIMF(tuple(edges.tolist()), imf.breaks, tuple(map(tuple, slopes.tolist())), tuple(density.tolist()))


@lru_cache(maxsize=4)
def _universe(mock: Mock):
    from xptools.universe import Universe

    universe = Universe(mock)
    _warned(universe)
    return universe


def _warned(universe) -> None:
    """Say what is stated but never seen; nothing at all to see is an error."""
    if not universe.proposal.total:
        raise DataError(
            f"no star can be seen: {universe.isochrones.origin} covers none of the populations. "
            "TRY: --age inside its range, or other --isochrones"
        )
    if universe.unlit() > 1e-3:
        share, origin = universe.unlit(), universe.isochrones.origin
        warn(f"mock: {share:.1%} of the local density has no isochrone ({origin}): stated, never seen")
    if universe.giants:
        return
    lowest = universe.isochrones.mass_range[0]
    if universe.imf.breaks[0] < lowest - 1e-3:
        warn(f"mock: masses below {lowest:g} solar masses have no isochrone: stated, never seen")


def _toml(path: str) -> dict:
    import tomllib

    try:
        with open(path, "rb") as stream:
            table = tomllib.load(stream)
    except OSError as fault:
        raise InputError(f"cannot read the mass function: {fault.strerror}. {path}") from fault
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as fault:
        raise DataError(f"the mass function is not TOML: {fault}. {path}. TRY: see `xp help mock`") from fault
    if "density" in table:
        raise DataError(f"the mass function states a density, which follows from STARS. {path}. TRY: remove it")
    return table
