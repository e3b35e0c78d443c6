"""What `xp feh` and `xp train feh` read: spectra of a batch, from coefficients or from what `xp calibrate` wrote."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xptools.commands._spectra_input import check_width, coefficients, spread, with_arrays
from xptools.errors import DataError
from xptools.protocol import RowOp, spelled

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from xptools.cores.feh import Spectra

COEFFICIENTS = ("bp_coefficients", "rp_coefficients")
NOISE = ("coefficient_errors", "coefficient_correlations")
WANTS = (*(f"{band}_{kind}" for band in ("bp", "rp") for kind in NOISE), "ext_e")
STEMS = ("flux10", "flux")


@dataclass(frozen=True)
class _Columns(RowOp):
    """The columns that one table needs: which depends on what it has."""

    name: str
    needs: tuple[str, ...]
    wants: tuple[str, ...]


def reads(step: str, schema: pa.Schema, needs: tuple[str, ...], wants: tuple[str, ...] = ()) -> dict[str, str]:
    """What of a table the step reads, spectra and its own columns: our name -> its spelling, or as `spread` has it.

    MissingColumns for what is not there, flux without errors among it.
    """
    whole = with_arrays(schema)
    light, noise = _spectrum(whole)
    found = _Columns(step, (*light, *needs), (*noise, *wants)).reads(whole)
    check_width(whole, found)
    return spread(schema, found)


def stem(schema: pa.Schema) -> str | None:
    """The flux column to be used: None where there are coefficients, whose covariance is the star's own."""
    whole = with_arrays(schema)
    if all(spelled(whole, name) for name in COEFFICIENTS):
        return None
    return next((s for s in STEMS if spelled(whole, s)), None)


def _spectrum(schema: pa.Schema) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns of spectra that are needed and wanted of this table."""
    found = stem(schema)
    if found is None:
        return COEFFICIENTS, WANTS
    names = (f"{found}_cov", f"{found}_err")
    return (found, next((name for name in names if spelled(schema, name)), names[1])), ()


def check_grid(schema: pa.Schema, wavelength: list[float]) -> None:
    """DataError unless a flux column has the wavelengths [nm] of the model."""
    name = stem(schema)
    if name is None:
        return
    field = schema.field(spelled(schema, name))
    told = (field.metadata or {}).get(b"xp.grid") or (schema.metadata or {}).get(b"xp.grid")
    size = getattr(field.type, "list_size", len(wavelength))
    same = size == len(wavelength)
    if told is not None:
        grid = json.loads(told)["wavelength"]
        same = len(grid) == len(wavelength) and max(abs(a - b) for a, b in zip(grid, wavelength, strict=True)) < 1e-6
    if not same:
        low, high = wavelength[0], wavelength[-1]
        step = (high - low) / (len(wavelength) - 1)
        raise DataError(
            f"column {field.name} is not on the model's {len(wavelength)} wavelengths. "
            f"TRY: xp calibrate --covariance --grid {low:g}:{high:g}:{step:g}"
        )


def spectra(wavelength: np.ndarray, columns: dict, curve_unit: str = "mag") -> tuple[Spectra, np.ndarray]:
    """The batch's stars, and which of them (N,) have errors without correlations.

    Flux is taken as it is; flux from coefficients loses the extinction of ext_e, if there.
    """
    import numpy as np

    from xptools.cores.feh import Spectra

    parallax = np.asarray(columns["parallax"], np.float64)
    error = columns.get("parallax_error")
    error = np.zeros(len(parallax)) if error is None else np.asarray(error, np.float64)
    name = next((s for s in STEMS if columns.get(s) is not None), None)
    if name is None:
        flux, noise, correlated = _from_coefficients(tuple(map(float, wavelength)), columns)
        return Spectra(flux, noise, parallax, error, _extinction(wavelength, columns, curve_unit)), ~correlated
    flux = np.asarray(columns[name], np.float64)
    noise = columns.get(f"{name}_cov")
    diagonal = np.full(len(flux), noise is None)
    noise = np.asarray(columns[f"{name}_err"] if noise is None else noise, np.float64)
    if name == "flux10":  # as seen from 10 pc: a parallax of 100 mas with the star's own relative error
        error, parallax = 100 * error / np.where(parallax > 0, parallax, np.nan), np.where(parallax > 0, 100.0, np.nan)
    return Spectra(flux, noise, parallax, error), diagonal


def _from_coefficients(grid: tuple[float, ...], columns: dict):
    """Flux (N, n), packed covariance, and which stars (N,) have correlations."""
    import numpy as np

    from xptools.cores import xpbasis

    bp, rp = (coefficients(band, columns) for band in ("bp", "rp"))
    design = xpbasis.design(grid)
    flux, correlated = xpbasis.spectra(bp, rp, design), np.ones(len(bp.values), bool)
    return flux, xpbasis.flux_covariance(bp, rp, design, correlated), correlated


def _extinction(wavelength, columns, curve_unit):
    import numpy as np

    E = columns.get("ext_e")
    if E is None:
        return None
    from xptools.cores.extinction import curve

    return curve(np.asarray(wavelength), curve_unit) * np.asarray(E, np.float64)[:, None]
