"""Column(type, unit, ucd, text), and the columns of the Gaia archive that xp reads and writes."""

from typing import NamedTuple


class Column(NamedTuple):
    """A column's type ("float32", "int16", "float32[61]" ...), VOUnit (None: none, or dex), UCD and description."""

    type: str
    unit: str | None
    ucd: str
    text: str


def error(of: Column, what: str) -> Column:
    """The column with the standard error of another, which `what` names."""
    return Column("float32", of.unit, f"stat.error;{of.ucd.split(';meta.main')[0]}", f"Standard error of the {what}")


_RA = Column("float64", "deg", "pos.eq.ra;meta.main", "Right ascension (ICRS) at ref_epoch")
_DEC = Column("float64", "deg", "pos.eq.dec;meta.main", "Declination (ICRS) at ref_epoch")
_PLX = Column("float64", "mas", "pos.parallax.trig", "Parallax")
_PMRA = Column("float64", "mas.yr**-1", "pos.pm;pos.eq.ra", "Proper motion in right ascension, times cos(dec)")
_PMDEC = Column("float64", "mas.yr**-1", "pos.pm;pos.eq.dec", "Proper motion in declination")
_RV = Column("float32", "km.s**-1", "spect.dopplerVeloc.opt", "Radial velocity")


def _band(tag: str, name: str, em: str) -> dict[str, Column]:
    flux = Column("float64", "s**-1", f"phot.flux;{em}", f"Mean {name} flux [electrons per second]")
    return {
        f"phot_{tag}_mean_flux": flux,
        f"phot_{tag}_mean_flux_error": error(flux, f"mean {name} flux"),
        f"phot_{tag}_mean_flux_over_error": Column(
            "float32", None, f"stat.snr;phot.flux;{em}", f"Mean {name} flux divided by its error"
        ),
        f"phot_{tag}_mean_mag": Column("float32", "mag", f"phot.mag;{em}", f"Mean {name} magnitude (Vega)"),
    }


GAIA: dict[str, Column] = {
    "source_id": Column("int64", None, "meta.id;meta.main", "Gaia source identifier, unique within a release"),
    "ref_epoch": Column("float64", "yr", "meta.ref;time.epoch", "Reference epoch (Julian year)"),
    "ra": _RA,
    "ra_error": Column("float32", "mas", "stat.error;pos.eq.ra", "Standard error of right ascension times cos(dec)"),
    "dec": _DEC,
    "dec_error": Column("float32", "mas", "stat.error;pos.eq.dec", "Standard error of declination"),
    "l": Column("float64", "deg", "pos.galactic.lon", "Galactic longitude"),
    "b": Column("float64", "deg", "pos.galactic.lat", "Galactic latitude"),
    "ecl_lat": Column("float64", "deg", "pos.ecliptic.lat", "Ecliptic latitude"),
    "parallax": _PLX,
    "parallax_error": error(_PLX, "parallax"),
    "parallax_over_error": Column("float32", None, "stat.snr;pos.parallax.trig", "Parallax divided by its error"),
    "pmra": _PMRA,
    "pmra_error": error(_PMRA, "proper motion in right ascension"),
    "pmdec": _PMDEC,
    "pmdec_error": error(_PMDEC, "proper motion in declination"),
    "nu_eff_used_in_astrometry": Column(
        "float32", "um**-1", "em.wavenumber", "Effective wavenumber used in the astrometric solution"
    ),
    "pseudocolour": Column("float32", "um**-1", "em.wavenumber", "Astrometrically estimated colour (6-parameter)"),
    "astrometric_params_solved": Column(
        "int16", None, "meta.number", "Parameters solved for: 3 = 2, 31 = 5, 95 = 6 parameters"
    ),
    "ruwe": Column("float32", None, "stat.error", "Renormalised unit weight error"),
    **_band("g", "G", "em.opt"),
    **_band("bp", "BP", "em.opt.B"),
    **_band("rp", "RP", "em.opt.R"),
    "phot_bp_rp_excess_factor": Column(
        "float32", None, "arith.factor;phot.flux;em.opt", "BP and RP flux over G flux, excess factor"
    ),
    "bp_rp": Column("float32", "mag", "phot.color;em.opt.B;em.opt.R", "BP - RP colour"),
    "radial_velocity": _RV,
    "radial_velocity_error": error(_RV, "radial velocity"),
    "has_xp_continuous": Column("bool", None, "meta.code.status", "A mean BP/RP spectrum in coefficients exists"),
    "has_xp_sampled": Column("bool", None, "meta.code.status", "A mean BP/RP spectrum in samples exists"),
    "has_rvs": Column("bool", None, "meta.code.status", "A mean RVS spectrum exists"),
    "fidelity_v2": Column("float32", None, "stat.probability", "Astrometric fidelity (Rybizki+ 2022)"),
}


def _correlation(one: str, other: str) -> Column:
    ucd = f"stat.correlation;{GAIA[one].ucd};{GAIA[other].ucd}"
    return Column("float32", None, ucd, f"Correlation of {one} and {other}")


# Correlations of the astrometric solution, as far as xp reads them.
ASTROMETRY: dict[str, Column] = {
    f"{one}_{other}_corr": _correlation(one, other)
    for one, other in (("parallax", "pmra"), ("parallax", "pmdec"), ("pmra", "pmdec"))
}


def _spectrum(tag: str, band: str) -> dict[str, Column]:
    value = Column("float64[55]", None, "stat.fit.param;spect", f"Coefficients of the {band} spectrum in its basis")
    return {
        f"{tag}_coefficients": value,
        f"{tag}_coefficient_errors": Column(
            "float32[55]", None, "stat.error;stat.fit.param", f"Standard errors of the {band} coefficients"
        ),
        f"{tag}_coefficient_correlations": Column(
            "float32[1485]", None, "stat.correlation;stat.fit.param",
            f"Correlations of the {band} coefficients, strictly below the diagonal row by row",
        ),
        f"{tag}_n_relevant_bases": Column(
            "int16", None, "meta.number", f"Leading {band} coefficients that stand out from noise"
        ),
    }  # fmt: skip


# The archive's XP spectra (xp_continuous_mean_spectrum), as far as xp reads and writes them.
XP: dict[str, Column] = {**_spectrum("bp", "BP"), **_spectrum("rp", "RP")}

# Columns that pass between xp's own commands: their unit is checked wherever they are read.
OWN: dict[str, Column] = {
    "feh": Column("float32", None, "phys.abund.Fe", "Iron abundance [Fe/H] [dex]"),
    "feh_err": Column("float32", None, "stat.error;phys.abund.Fe", "Standard error of [Fe/H] [dex]"),
    "mg0": Column("float32", "mag", "phys.magAbs;em.opt", "Absolute G magnitude, extinction removed"),
    "mg0_err": Column("float32", "mag", "stat.error;phys.magAbs;em.opt", "Standard error of mg0"),
    "bp_rp0": Column("float32", "mag", "phot.color;em.opt.B;em.opt.R", "BP - RP colour, extinction removed"),
    "bp_rp0_err": Column("float32", "mag", "stat.error;phot.color;em.opt.B;em.opt.R", "Standard error of bp_rp0"),
    "mass": Column("float32", "solMass", "phys.mass", "Stellar mass"),
    "mass_err": Column("float32", "solMass", "stat.error;phys.mass", "Standard error of the stellar mass"),
}

KNOWN: dict[str, Column] = {**GAIA, **ASTROMETRY, **OWN}


def flag_column(step: str, bits: dict[int, str]) -> Column:
    """The int16 column `<step>_flag`; its description lists the bits."""
    words = "; ".join(f"{bit}: {text}" for bit, text in bits.items())
    return Column("int16", None, "meta.code.qual", f"Quality bits of xp {step} ({words})")
