"""The settings of `xp veff` and the table of effective volumes they lead to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from xptools.columns import Column
from xptools.commands._volume_files import completeness_of, eta_factors, law_of
from xptools.errors import UsageError
from xptools.progress import warn

if TYPE_CHECKING:
    import numpy as np

    from xptools.cores.bins import BinTable
    from xptools.cores.sightlines import Sky
    from xptools.cores.veff import Survey

VEFF = Column("float64", "kpc**3", "phys.volume", "Effective volume, averaged over the (mass, [Fe/H]) bin")
VEFF_ERR = Column("float64", "kpc**3", "stat.error;phys.volume", "Standard error of veff")
REDDENING = 0.1  # E at which the coefficient A_G / E is taken


@dataclass(frozen=True)
class Volumes:
    """What is seen of which stars, and how it is integrated; lengths in kpc, magnitudes in mag, age in Gyr."""

    mass_edges: tuple[float, ...]
    feh_edges: tuple[float, ...]
    g_limit: float = 17.0
    max_distance: float = 1.0
    mg_limit: float | None = 4.0
    isochrones: str = ""
    age: float = 10.0
    alpha_fe: float = 0.0
    r_sun: float = 8.122
    z_sun: float = 0.0
    h_r: float = 1.5
    h_z: float = 1.43
    density: str = ""
    method: str = "quad"
    samples: int = 1_000_000
    seed: int = 0
    bin_point: str = "average"
    feh_points: int = 1
    mdf: tuple[float, ...] = ()
    veff_mode: str = "each"
    veff_feh: float = -1.3
    veff_scale: float = 1.0
    veff_error: float = 0.0
    plx_sn: float | None = None
    map: str = "none"
    map_file: str = ""
    curve_unit: str = "mag"
    completeness: str = ""
    eta_completeness: str = ""

    @property
    def cites(self) -> tuple[str, ...]:
        """The papers behind the settings."""
        maps = {"edenhofer2023": ("edenhofer2024",), "bayestar2019": ("green2019",)}
        dust = () if self.map == "none" else ("zhang2023", *maps.get(self.map, ()))
        return ("li2026", "xiang2025", "gravity2018", "bressan2012", *dust)

    def files(self) -> dict[str, str]:
        """Every file that decides the volumes."""
        tables = [p.strip() for p in self.isochrones.split(",") if p.strip()]
        named = {"isochrones" if len(tables) == 1 else f"isochrones.{i}": p for i, p in enumerate(tables, 1)}
        if self.map != "none":
            from xptools.dustfiles import locate

            path = locate(self.map, self.map_file)
            named |= {"map": str(path)} if path else {}
        others = {k: getattr(self, k) for k in ("density", "completeness", "eta_completeness")}
        return named | {k: v for k, v in others.items() if v}

    def table(self) -> BinTable:
        """The bin table, made once per process."""
        import dataclasses

        return _table(tuple(getattr(self, f.name) for f in dataclasses.fields(Volumes)))

    def statement(self) -> dict[str, Any]:
        """Schema key xp.veff: the table, and the parameters that made it."""
        import dataclasses

        from xptools.cores.isochrone import load

        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(Volumes)}
        own |= {"light": load(self.isochrones or None).origin}
        return self.table().to_dict() | {"parameters": {k: v for k, v in own.items() if not k.endswith("_edges")}}

    def survey(self, feh: float) -> Survey:
        """Limits and density law for a [Fe/H] bin centred on `feh`."""
        from xptools.cores import galaxy
        from xptools.cores.veff import Survey

        law = galaxy.Disc(self.h_r, self.h_z)
        if self.density:
            law = law_of(self.density, feh)
        return Survey(self.g_limit, self.max_distance, self.mg_limit, law, self.r_sun, self.z_sun)

    def mh(self, feh):
        """[M/H] of stars of [Fe/H] = feh; of the shared [Fe/H] where all bins have one volume."""
        from xptools.cores.isochrone import salaris

        return (self.veff_feh if self.veff_mode == "shared" else feh) + float(salaris(self.alpha_fe))

    def light(self, mass: np.ndarray, mh: float):
        """M_G, BP-RP [mag] (N,) of dwarfs of mass (N,) [Msun]; NaN above the turn-off."""
        import numpy as np

        from xptools.cores.isochrone import load

        isochrones = load(self.isochrones or None)
        M_G, colour = isochrones.absolute(mass, mh, self.age)
        return np.where(mass > isochrones.turn_off(mh, self.age), np.nan, M_G), colour

    def sky(self) -> Sky:
        """Dust, completeness and parallax cut."""
        from xptools.cores.sightlines import Sky

        dust = None
        if self.map != "none":
            from xptools.dustfiles import open_map

            opened = open_map(self.map, self.map_file, unit=self.curve_unit)

            def dust(l, b, d):
                return opened.query(l, b, d).E

        return Sky(dust, completeness_of(self.completeness) if self.completeness else None, self.plx_sn)


@lru_cache(maxsize=8)
def _table(settings: tuple) -> BinTable:
    import numpy as np

    from xptools.cores.bins import BinTable
    from xptools.cores.isochrone import load

    v = Volumes(*settings)
    isochrones = load(v.isochrones or None)
    isochrones.known(v.age)
    if v.mass_edges[0] < (least := isochrones.mass_range[0]) - 1e-6:
        warn(f"veff: the isochrones begin at {least:g} Msun; lighter stars count as never seen")
    sky, known = v.sky(), {}
    rows = [_row(v, b, lo, hi, sky, known) for b, (lo, hi) in enumerate(pairwise(v.feh_edges))]
    veff, error, fine = (np.stack(column) for column in zip(*rows, strict=True))
    for (lo, hi), row in zip(pairwise(v.feh_edges), veff, strict=True):
        if not row.any():
            warn(f"veff: all volumes are 0 for [Fe/H] {lo:g} to {hi:g}: no isochrone there, or no mass that is seen")
    factor, relative = eta_factors(v.eta_completeness, v.feh_edges, v.mass_edges)
    veff, error, fine = (a * v.veff_scale for a in (veff, error, fine))
    veff, fine, error = veff * factor, fine * factor[..., None], error * factor
    error = np.hypot(error, veff * np.hypot(v.veff_error, relative))
    return BinTable(np.array(v.mass_edges), np.array(v.feh_edges), veff, error, fine)


def _row(v: Volumes, b: int, lo: float, hi: float, sky, known: dict):
    """V_k, its error (K,) and V(M) (K, P) of one [Fe/H] bin; `known` keeps V(M_G) per density law."""
    import numpy as np

    from xptools.cores import bins
    from xptools.cores.sightlines import LineVolume
    from xptools.cores.veff import Volume

    survey = v.survey(0.5 * (lo + hi))
    if survey not in known:
        known[survey] = Volume(survey) if sky.plain() else LineVolume(survey, sky)
    seen = known[survey]
    nodes = lo + (hi - lo) * (np.arange(v.feh_points) + 0.5) / v.feh_points
    weights = np.ones(len(nodes))
    if v.mdf:
        weights = np.exp(-0.5 * ((nodes - v.mdf[0]) / v.mdf[1]) ** 2 + 0.5 * ((nodes[0] - v.mdf[0]) / v.mdf[1]) ** 2)
    if v.veff_mode == "shared":
        nodes, weights = np.array([v.veff_feh]), np.ones(1)
    mh = v.mh(nodes) + np.zeros(len(nodes))

    def volume(mass):
        pairs = [v.light(mass, h) for h in mh]
        if sky.plain():
            return np.average([seen(M_G) for M_G, _ in pairs], axis=0, weights=weights)
        lines = [seen(M_G, colour, _coefficient(v, colour)) for M_G, colour in pairs]
        return np.average(lines, axis=0, weights=weights)

    veff, fine = bins.average(volume, v.mass_edges, refine=10 if sky.plain() else 1)
    if v.bin_point == "centre":
        edges = np.array(v.mass_edges)
        veff = volume(0.5 * (edges[1:] + edges[:-1]))
    error = np.zeros_like(veff)
    if v.method == "mc":
        veff, error = _monte_carlo(v, b, survey, sky, lambda mass: v.light(mass, mh[len(mh) // 2]))
    return veff, error, fine


def _monte_carlo(v: Volumes, b: int, survey, sky, light):
    """The paper's Monte Carlo: `samples` points per bin, masses even over the bin (or all at its centre)."""
    import numpy as np

    from xptools.cores.veff import monte_carlo

    out = []
    for k, (lo, hi) in enumerate(pairwise(v.mass_edges)):
        rng = np.random.default_rng((v.seed, b, k))
        mass = np.full(v.samples, 0.5 * (lo + hi))
        if v.bin_point == "average":
            mass = lo + (hi - lo) * rng.random(v.samples)
        M_G, colour = light(mass)
        out.append(monte_carlo(survey, M_G, rng, None if sky.plain() else _detection(v, survey, sky, colour)))
    return (np.array(column) for column in zip(*out, strict=True))


def _detection(v: Volumes, survey, sky, colour):
    """Probability of detection for the Monte Carlo's points, as `monte_carlo` asks for it."""
    import numpy as np
    from scipy.special import ndtr

    from xptools.cores.sightlines import parallax_error

    def seen(M_G, l, b, d):
        G = M_G + 5.0 * np.log10(np.maximum(d, 1e-9)) + 10.0
        if sky.dust is not None:
            G = G + _coefficient(v, colour) * np.nan_to_num(sky.dust(l, b, 1000.0 * d))
        p = (G <= survey.g_limit).astype(float)
        if sky.completeness is not None:
            p *= sky.completeness(G, l, b, np.nan_to_num(colour))
        if sky.plx_sn is not None:
            p *= ndtr(1.0 / (np.maximum(d, 1e-9) * parallax_error(G)) - sky.plx_sn)
        return np.where(np.isfinite(G), p, 0.0)

    return seen


def _coefficient(v: Volumes, colour):
    import numpy as np

    from xptools.cores.extinction import coefficients

    return np.asarray(coefficients(np.nan_to_num(colour), np.full(np.shape(colour), REDDENING), v.curve_unit)[0])


def mean_and_width(text: str) -> tuple[float, ...]:
    """(mean, sigma) of "MEAN,SIGMA"; empty if not given."""
    if not text:
        return ()
    try:
        mean, sigma = (float(x) for x in text.split(","))
    except ValueError:
        sigma = mean = 0.0
    if not (sigma > 0 and mean == mean):
        raise UsageError(f"--mdf {text!r} is no mean and width. TRY: --mdf=-1.45,0.4")
    return (mean, sigma)


def number_or_none(option: str, text: str) -> float | None:
    """A number, or None for "none"."""
    if text.lower() == "none":
        return None
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if number != number:
        raise UsageError(f"--{option} takes a number or none, not {text!r}")
    return number
