"""What Gaia would say of stars of known light, place and motion: first what selection needs, then every column.

Positions are exact, their errors only stated; the rest is the truth plus noise of the stated error (mock_noise.py).
Stars travel as dictionaries of arrays of one length, randomness as named streams (cores/draws.py).
"""

from __future__ import annotations

import numpy as np

from xptools.cores import mock_light, mock_noise
from xptools.cores.astrometry import sin_ecliptic_latitude
from xptools.cores.healpix import nested_pixel

SPURIOUS, BLENDED, BAD_FIT = 1, 2, 4  # bits of true_outlier
EPOCH = 2016.0


def first_look(streams, light: mock_light.Light, distance, noise: float, spurious: float) -> dict[str, np.ndarray]:
    """Parallax and G with their errors, for fluxes (n,) at the observer and distances (n,) [kpc]."""
    G = mock_light.magnitude(light.G, "G")
    ruwe = mock_noise.ruwe(streams.uniform("ruwe"), streams.normal("ruwe core"))
    scatter = np.exp(0.12 * streams.normal("parallax error"))
    sigma = mock_noise.parallax_error(G) * scatter * mock_noise.inflation(ruwe)
    parallax = 1.0 / distance + noise * sigma * streams.normal("parallax")
    outlier = np.where(ruwe > mock_noise.RUWE_LIMIT, BAD_FIT, 0).astype(np.int16)
    if spurious:
        u = streams.uniform("spurious")
        wild = u < spurious
        parallax[wild] += mock_noise.spurious_parallax(u[wild] / spurious)
        outlier[wild] |= SPURIOUS
    sigma = sigma.astype(np.float32)
    e_G = mock_noise.relative_flux_error(G, streams.normal("G error"), "G")
    flux = light.G * (1.0 + noise * e_G * streams.normal("G"))
    return {
        "true_G": G,
        "e_G": e_G,
        "ruwe": ruwe.astype(np.float32),
        "outlier": outlier,
        "parallax": parallax,
        "parallax_error": sigma,
        "parallax_over_error": (parallax / sigma).astype(np.float32),
        "phot_g_mean_flux": flux,
        "phot_g_mean_mag": mock_light.magnitude(flux, "G").astype(np.float32),
    }


def photometry(streams, light, look, noise: float, blended: float) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The photometric columns, and who is blended (m,)."""
    BP_RP = mock_light.colour(light)
    bands = {"bp": ("BP", light.BP), "rp": ("RP", light.RP)}
    errors = {"g": look["e_G"]}
    for tag, (band, flux) in bands.items():
        mag = mock_light.magnitude(flux, band)
        errors[tag] = mock_noise.relative_flux_error(mag, streams.normal(f"{band} error"), band)
    share = light.BP / (light.BP + light.RP)
    u, normal = streams.uniform("blend"), noise * streams.normal("excess")
    factor, blend = mock_noise.excess_offset(look["true_G"], BP_RP, share, tuple(errors.values()), normal, u, blended)
    out = {name: look[name] for name in ("phot_g_mean_flux", "phot_g_mean_mag")}
    out |= _flux_errors("g", light.G, look["phot_g_mean_flux"], errors["g"])
    for tag, (band, flux) in bands.items():
        seen = flux * factor
        # a flux ten sigma below its mean would be negative for the faintest red stars in BP
        got = seen * np.maximum(1.0 + noise * errors[tag] * streams.normal(band), 0.01)
        out[f"phot_{tag}_mean_flux"] = got
        out |= _flux_errors(tag, seen, got, errors[tag])
        out[f"phot_{tag}_mean_mag"] = mock_light.magnitude(got, band).astype(np.float32)
    total = out["phot_bp_mean_flux"] + out["phot_rp_mean_flux"]
    out["phot_bp_rp_excess_factor"] = total / out["phot_g_mean_flux"]
    out["bp_rp"] = out["phot_bp_mean_mag"] - out["phot_rp_mean_mag"]
    return out, blend


def _flux_errors(tag, true, got, relative):
    """Stated error of a flux (of its true size, so that pulls are normal) and the flux over it."""
    error = true * relative
    return {f"phot_{tag}_mean_flux_error": error, f"phot_{tag}_mean_flux_over_error": got / error}


def astrometry(streams, sky, look, noise: float) -> dict[str, np.ndarray]:
    """Positions, motions and their stated errors."""
    scaled = {}
    for name, (factor, scatter) in mock_noise.ASTROMETRY.items():
        scaled[name] = look["parallax_error"] * (factor * np.exp(scatter * streams.normal(f"{name} error")))
    out = {"ra": sky.ra, "dec": sky.dec, "ecl_lat": np.degrees(np.arcsin(sin_ecliptic_latitude(sky.ra, sky.dec)))}
    out |= {f"{name}_error": error.astype(np.float32) for name, error in scaled.items()}
    for name, motion in (("pmra", sky.pmra), ("pmdec", sky.pmdec)):
        out[name] = motion + noise * scaled[name] * streams.normal(name)
    return out


def velocity(streams, radial_velocity, G, RP, noise: float) -> dict[str, np.ndarray]:
    """Radial velocities [km/s] where the star is bright enough for RVS, NaN elsewhere."""
    has = RP < mock_noise.VELOCITY_LIMIT
    error = np.where(has, mock_noise.velocity_error(G, streams.normal("velocity error")), np.nan)
    seen = radial_velocity + noise * error * streams.normal("velocity")
    return {"radial_velocity": seen, "radial_velocity_error": error, "has_rvs": has}


def solution(streams, BP_RP, spurious) -> dict[str, np.ndarray]:
    """Kind of astrometric solution (one in twenty with six parameters), its colour, and the fidelity."""
    six = streams.uniform("parameters") < 0.05
    nu = mock_noise.effective_wavenumber(BP_RP)
    return {
        "astrometric_params_solved": np.where(six, 95, 31).astype(np.int16),
        "nu_eff_used_in_astrometry": np.where(six, np.nan, nu),
        "pseudocolour": np.where(six, nu, np.nan),
        "fidelity_v2": mock_noise.fidelity(streams.uniform("fidelity"), spurious),
    }


def identifiers(ra, dec, star) -> np.ndarray:
    """source_id (n,) int64: the level-12 nested pixel above bit 35, below it the star's number, 7 low bits last filled.

    Unique for 2^35 stars of one seed. Star numbers below 2^28 leave the seven low bits 0, as Gaia's single sources do.
    """
    star = np.asarray(star, dtype=np.int64)
    return (nested_pixel(ra, dec) << 35) | ((star & (2**28 - 1)) << 7) | (star >> 28)
