"""What `xp vae` and `xp train vae` read: both bands' coefficients and errors as one block, and the G flux."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xptools.errors import DataError, MissingColumns
from xptools.protocol import spelled

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

BANDS = ("bp", "rp")
VALUES = tuple(f"{band}_coefficients" for band in BANDS)
ERRORS = tuple(f"{band}_coefficient_errors" for band in BANDS)
CORRELATIONS = tuple(f"{band}_coefficient_correlations" for band in BANDS)
# The first that is known is what coefficients are divided by.
BRIGHTNESS = ("phot_g_mean_flux", "phot_g_mean_mag", "syn_g")


def check(step: str, schema: pa.Schema, widths: tuple[int, ...] | None) -> None:
    """DataError, before any row is read, for a table without a G flux, or with other numbers of coefficients."""
    import pyarrow as pa

    if not any(spelled(schema, name) for name in BRIGHTNESS):
        raise MissingColumns(step, (BRIGHTNESS[0],), tuple(schema.names))
    for name, width in zip(VALUES, widths or (), strict=False):
        kind = schema.field(spelled(schema, name)).type
        if pa.types.is_fixed_size_list(kind) and kind.list_size != width:
            _refuse(name, kind.list_size, width)


def _refuse(name: str, found: int, width: int) -> None:
    release = ", as DR4's BP has" if found == 51 else ""
    raise DataError(
        f"column {name} has {found} coefficients{release}, but the model expects {width}. "
        "TRY: a model trained on such spectra (xp train vae)"
    )


def block(columns: dict[str, Any], names: tuple[str, ...], widths: tuple[int, ...]) -> np.ndarray:
    """The columns of both bands side by side (N, sum of widths), float64; a missing spectrum is a row of NaN."""
    import numpy as np

    parts = []
    for name, width in zip(names, widths, strict=True):
        array = columns[name]
        if array.ndim == 1 or array.shape[1] == 0:  # a column without any value has no width
            if array.ndim == 1 and np.isfinite(array).any():
                raise DataError(f"column {name} holds single numbers, not arrays. TRY: xp info for the columns")
            array = np.full((len(array), width), np.nan)
        if array.shape[1] != width:
            _refuse(name, array.shape[1], width)
        parts.append(array)
    return np.concatenate(parts, 1).astype(np.float64)


def g_flux(columns: dict[str, Any], rows: int) -> np.ndarray:
    """G flux (N,) [electrons per second]: phot_g_mean_flux, or from a G magnitude; NaN where none is known."""
    import numpy as np

    from xptools.cores.photometry import POGSON, ZERO_POINT

    out = np.full(rows, np.nan)
    for name in BRIGHTNESS:
        if columns.get(name) is not None:
            seen = np.asarray(columns[name], np.float64)
            flux = seen if name.endswith("flux") else np.exp((ZERO_POINT["G"] - seen) / POGSON)
            out = np.where(np.isfinite(out), out, np.where(np.isfinite(flux) & (flux > 0), flux, np.nan))
    return out
