"""What the commands that read XP spectra share: wavelength grids from text, coefficients from a table's arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xptools.errors import DataError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from xptools.cores.xpbasis import Coefficients

MOST = 5000  # wavelengths of a grid
BASES = 55
GRID = "392:992:10"


def wavelengths(text: str) -> tuple[float, ...]:
    """Wavelengths [nm] of "LO:HI:STEP" (HI if a step falls on it) or "a,b,c"; UsageError unless they ascend."""
    from itertools import pairwise

    try:
        if ":" in text:
            low, high, step = (float(word) for word in text.split(":"))
            count = int((high - low) / step * (1 + 1e-12) + 1e-9) + 1
            values = tuple(low + i * step for i in range(count)) if 0 < count <= MOST else ()
        else:
            values = tuple(float(word) for word in text.split(","))
    except (ValueError, ZeroDivisionError, OverflowError) as fault:
        raise UsageError(f"--grid {text!r} is no list of wavelengths. TRY: --grid 336:1020:2 or 400,500,600") from fault
    if not values or len(values) > MOST or not all(a < b for a, b in pairwise(values)):
        raise UsageError(f"--grid {text!r} does not ascend, or has over {MOST} wavelengths. TRY: --grid 336:1020:2")
    if not 330.0 <= values[0] <= values[-1] <= 1050.0:  # also where one is NaN
        raise UsageError(f"--grid {text!r} leaves 330 to 1050 nm, where Gaia's calibration holds. TRY: 336:1020:2")
    return values


def check_width(schema: pa.Schema, reads: dict[str, str]) -> None:
    """DataError, before any row is read, for coefficients that the design matrices do not fit."""
    import pyarrow as pa

    for name, spelling in reads.items():
        kind = schema.field(spelling).type
        if name.endswith("_coefficients") and pa.types.is_fixed_size_list(kind):
            _fits(spelling, kind.list_size)


def _fits(spelling: str, width: int) -> None:
    if width != BASES:
        release = ", as DR4's BP has" if width == 51 else ""
        raise DataError(
            f"column {spelling} has {width} coefficients{release}, but the design matrices are those of DR3, "
            f"for {BASES}. TRY: the DR3 spectra of these stars"
        )


def coefficients(band: str, columns: dict[str, np.ndarray | None], truncate: bool = False) -> Coefficients:
    """One band ("bp" or "rp") of a batch, from its columns as arrays; a row of NaN is no spectrum."""
    import numpy as np

    from xptools.cores.xpbasis import Coefficients

    values = _block(f"{band}_coefficients", columns[f"{band}_coefficients"], None)
    _fits(f"{band}_coefficients", values.shape[1])
    K = values.shape[1]
    errors = columns.get(f"{band}_coefficient_errors")
    rho = columns.get(f"{band}_coefficient_correlations")
    used = columns.get(f"{band}_n_relevant_bases") if truncate else None
    return Coefficients(
        values,
        None if errors is None else _block(f"{band}_coefficient_errors", errors, K),
        None if rho is None else _block(f"{band}_coefficient_correlations", rho, K * (K - 1) // 2),
        None if used is None else np.asarray(used),
    )


def _block(name: str, array: np.ndarray, width: int | None) -> np.ndarray:
    """Arrays of one column (N, width); a column without any value, which has no width, as NaN."""
    import numpy as np

    if array.ndim == 1 or array.shape[1] == 0:
        if array.ndim == 1 and np.isfinite(array).any():
            raise DataError(f"column {name} holds single numbers, not arrays. TRY: xp info for the columns")
        return np.full((len(array), width or BASES), np.nan)
    if width is not None and array.shape[1] != width:
        raise DataError(f"column {name} has {array.shape[1]} values a row, but {width} are needed. TRY: xp info")
    return array
