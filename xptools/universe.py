"""The mock universe: star i from (seed, i), drawn in blocks, selected, observed.

A block is a fixed stretch of stars, whatever batches are asked for, and every number of star i comes from streams that
know only the seed and i; so batches, threads and the star one begins at cannot change a star.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import numpy as np

from xptools import settings
from xptools.cores import giants, mock_giants, mock_light, mock_motion, mock_noise, mock_survey
from xptools.cores.draws import Draws, power_law
from xptools.cores.extinction import coefficients
from xptools.cores.isochrone import load, salaris
from xptools.cores.mock_population import COMPONENTS, Cells, Limits, Masses, Proposal
from xptools.cores.mock_space import Space

BLOCK = 16_384
TOY_E0, TOY_H = 0.10, 0.10  # built-in dust: E per kpc in the plane, scale height [kpc]


class Stars(dict):
    """Columns of the stars of one block that are still in play; `index` is their place in the block."""

    def keep(self, mask: np.ndarray) -> "Stars":
        """The stars where mask is true."""
        if mask.all():
            return self
        where = np.flatnonzero(mask)
        return Stars({name: values[where] for name, values in self.items()})

    def light(self) -> mock_light.Light:
        """Fluxes at the observer."""
        return mock_light.Light(self["G"], self["BP"], self["RP"])


class Universe:
    """Everything that is computed once for a `Mock` step: tables of populations, volumes and masses."""

    def __init__(self, mock):
        self.mock = mock
        self.giants = mock.sample == "giants"
        self.isochrones = (giants.load if self.giants else load)(mock.isochrones or None)
        self.mh_shift = float(salaris(mock.alpha_fe))
        self.imf = mock.mass_function()
        noise = 0.0 if mock.select == "true" else mock.noise
        self.limits = Limits(mock.g_limit, 1.0 / mock.max_distance, noise)
        self.cells = Cells.of(COMPONENTS, mock.fractions, () if self.giants else self.imf.feh_edges)
        self.space = Space([(c.h_r, c.h_z) for c in COMPONENTS], self.limits.farthest(), mock.r_sun, mock.z_sun)
        self.masses = None if self.giants else Masses(self.imf, self.cells)
        self.proposal = self._proposal()
        self.kinematics = np.array([(*c.rotation, *c.sigma) for c in COMPONENTS]).T
        self.ages = np.array([(mock.age, mock.age) if mock.age else c.age for c in COMPONENTS])
        self.drawn = drawn(mock)
        self._one_map = Lock()

    @property
    def density(self) -> float:
        """n0 [kpc-3]: expected stars at (R_sun, Z = 0), of all masses of the mass function (or all giants)."""
        return self.mock.stars / self.proposal.total

    def unlit(self) -> float:
        """Share of the local density whose [Fe/H] no isochrone covers at any mass: stated, but never seen."""
        covered = self.proposal.reach.reshape(len(self.cells.lo), -1).any(axis=1)
        return float(self.cells.share[~covered].sum())

    def _proposal(self) -> Proposal:
        brightest, faintest = self._magnitude_range()
        dark = ~np.isfinite(brightest)
        magnitudes = (np.where(dark, 0.0, brightest), np.where(dark, 0.0, faintest))
        if self.giants:
            number = np.tile(mock_giants.shares(), (len(self.cells.lo), 1))
            reach = np.where(dark, 0.0, self.limits.reach(*magnitudes))
            return Proposal(COMPONENTS, self.cells, number, reach, self.space)
        number, reach = [], []
        for pair, share in ((False, 1.0 - self.mock.binaries), (True, self.mock.binaries)):
            number.append(share * self.masses.number)
            reach.append(np.where(dark, 0.0, self.limits.reach(*magnitudes, pair)))
        return Proposal(COMPONENTS, self.cells, np.hstack(number), np.hstack(reach), self.space)

    def _magnitude_range(self):
        """Brightest and faintest M_G (C, B) of every cell and bin, over its [Fe/H] and the population's ages.

        The isochrones are smooth inside a cell: its corners and 0.03 mag hold it; 0.1 mag with giants' [alpha/Fe].
        """
        spans = np.array([COMPONENTS[k].age for k in self.cells.component]).T
        ages = (np.full(spans.shape[1], self.mock.age),) if self.mock.age else (spans[0], spans.mean(0), spans[1])
        corners = []
        for age in ages:
            for feh in (self.cells.lo, self.cells.hi):
                corners += self._corners(feh[:, None], age[:, None])
        stack, margin = np.stack(corners), 0.1 if self.giants else 0.03
        brightest = np.where(np.isnan(stack), np.inf, stack).min(axis=0)
        return brightest - margin, np.where(np.isnan(stack), -np.inf, stack).max(axis=0) + margin

    def _corners(self, feh, age) -> list[np.ndarray]:
        """M_G (C, B) at both ends of each bin, for giants also inside."""
        if not self.giants:
            mag = np.empty((len(feh), len(self.masses.edges)))
            for one in set(age.ravel().tolist()):  # three times as quick as an age for every cell
                rows = age[:, 0] == one
                mag[rows] = self._isochrone(self.masses.edges[None, :], feh[rows], one)[0]
            return [mag[:, :-1], mag[:, 1:]]
        lo, hi, clump = mock_giants.bins()
        alpha = mock_giants.alpha_fe(self.cells.component, feh[:, 0], 0.5)[:, None]
        return [self._giant(clump, lo + f * (hi - lo), feh, age, alpha).M_G for f in (0.0, 0.5, 1.0)]

    def _giant(self, clump, place, feh, age, alpha_fe) -> giants.Giant:
        """The giant of the isochrones at its place, [Fe/H], [alpha/Fe] and age."""
        return self.isochrones.at(clump, place, feh + salaris(alpha_fe + self.mock.alpha_fe), self.mock.age or age)

    def _isochrone(self, mass, feh, age):
        """M_G, BP-RP; NaN above the turn-off, where no dwarf is left."""
        mh = feh + self.mh_shift
        age = self.mock.age or age
        M_G, BP_RP = self.isochrones.absolute(mass, mh, age)
        return np.where(mass > self.isochrones.turn_off(mh, age), np.nan, M_G), BP_RP

    def blocks(self) -> Iterator[dict[str, np.ndarray]]:
        """Columns of the selected stars block by block, in order; blocks are made ahead on every core."""
        first, last = self.mock.first, self.mock.first + self.drawn
        cores = settings.threads()
        pool = ThreadPoolExecutor(cores)
        ahead = []
        try:
            for start in range(first // BLOCK * BLOCK, last, BLOCK):
                ahead.append(pool.submit(self.block, start, first, last))
                if len(ahead) > 2 * cores:
                    yield ahead.pop(0).result()
            while ahead:
                yield ahead.pop(0).result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def block(self, start: int, first: int, last: int) -> dict[str, np.ndarray]:
        """The selected ones among stars start ... start + BLOCK - 1 that lie in first ... last - 1."""
        draws = Draws(self.mock.seed, start, min(BLOCK, last - start))
        stars = self._born(draws)
        stars = stars.keep((stars["index"] >= first - start) & (stars["index"] < last - start))
        stars = self._shining(draws, stars)
        stars = self._selected(draws, stars)
        return self._observed(draws, stars, start)

    def _born(self, draws: Draws) -> Stars:
        """Population, [Fe/H], mass (of giants: phase, and place in it) and place."""
        u = draws.uniform
        cell, bin_, k, feh, reach = self.proposal.draw(u("entry"), u("feh"))
        at = self.space.draw(k, reach, u("distance"), u("latitude"), u("longitude"), u("density"))
        if self.giants:
            lo, hi, clump = mock_giants.bins()
            what = {"clump": clump[bin_], "stage": lo[bin_] + u("mass") * (hi - lo)[bin_]}
        else:
            pair, bin_ = np.divmod(bin_, len(self.masses.edges) - 1)
            what = {"mass": self.masses.draw(cell, bin_, u("mass")), "pair": pair}
        stars = Stars(index=np.arange(len(k)), k=k, feh=feh, x=at.x, y=at.y, z=at.z, d=at.distance, **what)
        return stars.keep(at.keep)

    def _shining(self, draws: Draws, stars: Stars) -> Stars:
        """Ages, light of single stars and pairs, dust; stars that are no longer dwarfs leave."""
        streams = draws.at(stars["index"])
        young, old = self.ages[stars["k"]].T
        stars["age"] = young + streams.uniform("age") * (old - young)
        if self.giants:
            stars["alpha"] = mock_giants.alpha_fe(stars["k"], stars["feh"], streams.uniform("alpha"))
            names = ("logg", "mass", "teff", "M_G", "BP_RP")
            found = self._giant(*(stars[n] for n in ("clump", "stage", "feh", "age", "alpha")))
            stars.update(zip(names, found, strict=True))
            stars["alpha"] = stars["alpha"] + self.mock.alpha_fe
            stars = stars.keep(np.isfinite(stars["M_G"]))
            light = mock_light.single(stars["M_G"], stars["BP_RP"])
        else:
            stars["M_G"], stars["BP_RP"] = self._isochrone(stars["mass"], stars["feh"], stars["age"])
            stars = stars.keep(np.isfinite(stars["M_G"]))
            light = self._paired(draws.at(stars["index"]), stars)
        stars["G_abs"], stars["colour"] = mock_light.magnitude(light.G, "G"), mock_light.colour(light)
        return self._dimmed(stars, light)

    def _paired(self, streams, stars: Stars) -> mock_light.Light:
        """The light of each star, with its companion's in pairs: q^slope up to 1, dark below the isochrones' masses."""
        light = mock_light.single(stars["M_G"], stars["BP_RP"])
        stars["q"] = np.full(len(stars["M_G"]), np.nan)
        pair = np.flatnonzero(stars["pair"])
        q = power_law(streams.uniform("q")[pair], 1e-3, 1.0, self.mock.q_slope)
        stars["q"][pair] = q
        shines = q * stars["mass"][pair] >= self.isochrones.mass_range[0]
        pair, q = pair[shines], q[shines]
        M_G, BP_RP = self._isochrone(q * stars["mass"][pair], stars["feh"][pair], stars["age"][pair])
        if self.mock.spectra:
            stars["M_G_2"], stars["BP_RP_2"] = (np.full(len(light.G), np.nan) for _ in range(2))
            stars["M_G_2"][pair], stars["BP_RP_2"][pair] = M_G, BP_RP
        return mock_light.together(light, mock_light.single(M_G, BP_RP), pair)

    def _dimmed(self, stars: Stars, light: mock_light.Light) -> Stars:
        """Fluxes at the observer: distance and dust."""
        if self.mock.map != "none":
            E = stars["E"] = self._toy(stars) if self.mock.map == "toy" else self._mapped(stars)
            light = mock_light.dimmed(light, *(a * E for a in coefficients(stars["colour"], E, self.mock.curve_unit)))
            stars["A_G"] = mock_light.magnitude(light.G, "G") - stars["G_abs"]
        stars["G"], stars["BP"], stars["RP"] = (f / (stars["d"] * 100.0) ** 2 for f in light)
        return stars

    def _mapped(self, stars: Stars) -> np.ndarray:
        """E of the map; where the map says nothing there is no dust."""
        from xptools.dustfiles import open_map

        mock, l, b = self.mock, *_galactic(stars)
        with self._one_map:  # maps that dustmaps opens are not made for threads
            E = open_map(mock.map, mock.map_file, unit=mock.curve_unit).query(l, b, 1000.0 * stars["d"], threads=1).E
        return np.nan_to_num(E)

    def _toy(self, stars: Stars) -> np.ndarray:
        """E of the built-in exponential dust layer: E0 h / |sin b| (1 - exp(-d |sin b| / h))."""
        tau = np.abs(stars["z"]) / TOY_H
        return TOY_E0 * stars["d"] * np.where(tau > 1e-9, -np.expm1(-tau) / np.maximum(tau, 1e-9), 1.0)

    def _selected(self, draws: Draws, stars: Stars) -> Stars:
        """First look, and the archive's query on it (parallax, its S/N, G, M_G; Li+ 2026 Sec. 2), or on true values."""
        mock = self.mock
        look = mock_survey.first_look(draws.at(stars["index"]), stars.light(), stars["d"], mock.noise, mock.spurious)
        stars.update(look)
        if mock.select == "true":
            G, parallax = stars["true_G"], 1.0 / stars["d"]
            passed = np.ones(len(G), bool)
        else:
            G, parallax = stars["phot_g_mean_mag"], stars["parallax"]
            passed = stars["parallax_over_error"] > 10.0
        passed &= (parallax > 1.0 / mock.max_distance) & (G < mock.g_limit)
        if not self.giants:
            passed &= G + 5.0 * np.log10(np.maximum(parallax, 1e-9) / 100.0) > mock.mg_limit
        return stars.keep(passed)

    def _observed(self, draws: Draws, stars: Stars, start: int) -> dict[str, np.ndarray]:
        """Every column of the catalogue."""
        noise, streams = self.mock.noise, draws.at(stars["index"])
        sky, (l, b) = self._moving(streams, stars), _galactic(stars)
        columns, blended = mock_survey.photometry(streams, stars.light(), stars, noise, self.mock.outliers)
        spurious = (stars["outlier"] & mock_survey.SPURIOUS) > 0
        columns |= {
            "source_id": mock_survey.identifiers(sky.ra, sky.dec, stars["index"] + start),
            "ref_epoch": np.full(len(l), mock_survey.EPOCH),
            "l": l,
            "b": b,
            "has_xp_continuous": np.ones(len(l), bool),
            "has_xp_sampled": stars["true_G"] < 15.0,
            **{name: stars[name] for name in ("parallax", "parallax_error", "parallax_over_error", "ruwe")},
            **mock_survey.astrometry(streams, sky, stars, noise),
            **mock_survey.velocity(streams, sky.radial_velocity, stars["true_G"], columns["phot_rp_mean_mag"], noise),
            **mock_survey.solution(streams, columns["bp_rp"], spurious),
            **self._labels(streams, stars),
        }
        columns |= self._spectra(streams, stars) if self.mock.spectra else {}
        stars["outlier"] |= np.where(blended, mock_survey.BLENDED, 0).astype(np.int16)
        return columns | self._truth(stars, sky)

    def _moving(self, streams, stars: Stars):
        """Place and motion on the sky."""
        v0, slope, pivot, s_R, s_phi, s_Z = self.kinematics[:, stars["k"]]
        v_R = s_R * streams.normal("v_R")
        v_phi = v0 + slope * (stars["feh"] - pivot) + s_phi * streams.normal("v_phi")
        x, y, z = stars["x"], stars["y"], stars["z"]
        velocity = mock_motion.heliocentric(x, y, v_R, v_phi, s_Z * streams.normal("v_Z"), self.mock.r_sun)
        return mock_motion.on_the_sky(x, y, z, stars["d"], velocity)

    def _labels(self, streams, stars: Stars) -> dict[str, np.ndarray]:
        """Observed [Fe/H], and of giants what else spectroscopic and asteroseismic catalogues give."""
        G, fixed = stars["true_G"], self.mock.feh_error
        if self.giants:
            true = self._labelled(stars)
            errors = mock_giants.label_errors(G, true, lambda name: streams.normal(f"{name} error"))
        else:
            true = {"feh": stars["feh"]}
            errors = {"feh": mock_noise.metallicity_error(stars["feh"], G, streams.normal("feh error"))}
        if fixed is not None:
            errors["feh"] = np.full(len(G), fixed)
        out = {}
        for name, error in errors.items():
            scale = self.mock.noise if name != "feh" or fixed is None else 1.0
            out[name] = true[name] + scale * error * streams.normal(f"{name} observed")
            out[f"{name}_err"] = error
        return out

    def _labelled(self, stars: Stars) -> dict[str, np.ndarray]:
        """True labels of giants; [alpha/M] is [alpha/Fe] less what the alpha elements add to [M/H]."""
        shift = salaris(stars["alpha"])
        own = {name: stars[name] for name in ("feh", "teff", "logg", "mass")}
        age = np.full(len(shift), self.mock.age) if self.mock.age else stars["age"]
        return own | {"mh": stars["feh"] + shift, "alpha_m": stars["alpha"] - shift, "age": age}

    def _spectra(self, streams, stars: Stars) -> dict[str, np.ndarray]:
        """XP coefficients of each star, its companion's light and its dust in them, and the true labels behind."""
        from xptools.cores import mock_spectra, spectra_model
        from xptools.cores.extinction import curve

        feh, alpha = stars["feh"], np.full(len(stars["feh"]), self.mock.alpha_fe)
        if self.giants:
            teff, logg, alpha = stars["teff"], stars["logg"], stars["alpha"]
        else:
            teff = spectra_model.temperature_of(stars["BP_RP"], feh)
            logg = spectra_model.gravity_of(stars["M_G"])
        flux = mock_spectra.spectrum(teff, logg, feh, alpha, stars["M_G"])
        if "M_G_2" in stars:
            M_G, cooler = stars["M_G_2"], spectra_model.temperature_of(stars["BP_RP_2"], feh)
            flux = flux + mock_spectra.spectrum(cooler, spectra_model.gravity_of(M_G), feh, alpha, M_G)
        rates, E = np.stack(stars.light(), axis=1), stars.get("E")
        if E is None:
            bent = mock_spectra.matched(flux, rates)
        else:  # brought to the photometry without dust, so that the dust in the spectrum is the curve's
            A = np.stack(coefficients(stars["colour"], E, self.mock.curve_unit), axis=1) * E[:, None]
            dimmed = 10.0 ** (-0.4 * curve(mock_spectra.GRID, self.mock.curve_unit) * E[:, None])
            bent = mock_spectra.matched(flux, rates * 10.0 ** (0.4 * A)) * dimmed
        out = mock_spectra.observed(streams, bent, rates, self.mock.noise, self.mock.correlations)
        return out | {"true_teff": teff, "true_logg": logg}

    def _truth(self, stars: Stars, sky) -> dict[str, np.ndarray]:
        nothing = np.zeros(len(stars["d"]), np.float32)
        out = {
            "true_feh": stars["feh"],
            "true_age": stars["age"],
            "true_distance": 1000.0 * stars["d"],
            "true_parallax": 1.0 / stars["d"],
            "true_mg": stars["G_abs"],
            "true_bp_rp": stars["colour"],
            "true_ext_e": stars.get("E", nothing),
            "true_ag": stars.get("A_G", nothing),
            "true_component": stars["k"].astype(np.int16),
            "true_radial_velocity": sky.radial_velocity,
            "true_outlier": stars["outlier"],
        }
        out["true_mass"] = stars["mass"]
        if not self.giants:
            return out | {"true_q": stars["q"]}
        true = self._labelled(stars)
        seen = {f"true_{name}": true[name] for name in ("teff", "logg", "mh", "alpha_m", "age")}
        return out | seen | {"true_clump": stars["clump"]}


def drawn(mock) -> int:
    """How many stars are drawn: as asked for, or a Poisson deviate about it."""
    if not mock.poisson:
        return mock.stars
    key = np.array([mock.seed % 2**64, 0], dtype=np.uint64)
    return int(np.random.Generator(np.random.Philox(key=key)).poisson(mock.stars))


def _galactic(stars: Stars) -> tuple[np.ndarray, np.ndarray]:
    """l in 0 ... 360 and b [deg]."""
    l = np.degrees(np.arctan2(stars["y"], stars["x"]))
    return np.where(l < 0, l + 360.0, l), np.degrees(np.arctan2(stars["z"], np.hypot(stars["x"], stars["y"])))
