"""What the commands that read XP spectra share: wavelength grids from text, coefficients from a table's arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xptools.commands._xp_design import bases
from xptools.errors import DataError, UsageError
from xptools.protocol import spelled

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from xptools.cores.xpbasis import Coefficients

MOST = 5000  # wavelengths of a grid
GRID = "392:992:10"
FEWEST = 20  # columns of an array that is spread over columns
# What is read of a band, and how columns are called that hold one number of it each.
SPREAD = {
    "coefficients": ("{}_coefficients", "{}_coeff", "{}"),
    "coefficient_errors": ("{}_coefficient_errors", "e_{}_coeff", "e_{}"),
    "coefficient_correlations": ("{}_coefficient_correlations",),
}

SPREAD_NOTE = """Coefficients may also be one number a column, as TOPCAT explodes arrays: bp_coeff_0 ...,
e_bp_coeff_0 ... or bp_coefficients_1 ..., counted from 0 or 1."""


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


def gathered(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """Arrays of coefficients spread over columns: our name -> the columns in order.

    Known are bp_coeff_0, e_bp_coeff_0 ... and bp_coefficients_1 ..., as TOPCAT's and STILTS' explode makes them.
    """
    import re

    families: dict[str, dict[int, str]] = {}
    for name in schema.names:
        parts = re.fullmatch(r"(.+)_(\d{1,4})", name.lower())
        if parts:
            families.setdefault(parts[1], {})[int(parts[2])] = name
    out = {}
    for band in ("bp", "rp"):
        for kind, stems in SPREAD.items():
            whole = f"{band}_{kind}"
            found = next((f for stem in stems if len(f := families.get(stem.format(band), {})) > FEWEST), None)
            if found and spelled(schema, whole) is None and sorted(found) == list(range(min(found), max(found) + 1)):
                out[whole] = tuple(found[i] for i in sorted(found))
    return out


def with_arrays(schema: pa.Schema) -> pa.Schema:
    """The schema with an array column for each one that is spread over columns."""
    import pyarrow as pa

    for name, columns in gathered(schema).items():
        schema = schema.append(pa.field(name, pa.list_(pa.float64(), len(columns))))
    return schema


def spread(schema: pa.Schema, reads: dict[str, str]) -> dict[str, str]:
    """What to read when `reads` was found in `with_arrays(schema)`: "bp_coefficients.7" for a column of an array."""
    families = gathered(schema)
    out = {name: spelling for name, spelling in reads.items() if name not in families}
    for name in reads.keys() & families.keys():
        out |= {f"{name}.{i}": column for i, column in enumerate(families[name])}
    return out


def spent(schema: pa.Schema) -> set[str]:
    """The columns of coefficients, errors and correlations: what a flux is made from."""
    whole = {s for band in ("bp", "rp") for kind in SPREAD if (s := spelled(schema, f"{band}_{kind}"))}
    return whole.union(*gathered(schema).values())


def without(schema: pa.Schema) -> pa.Schema:
    """The schema without the columns that are `spent`."""
    for name in spent(schema):
        schema = schema.remove(schema.get_field_index(name))
    return schema


def check_width(schema: pa.Schema, reads: dict[str, str], design: str = "") -> None:
    """DataError, before any row is read, for coefficients that the design matrices do not fit."""
    import pyarrow as pa

    for name, spelling in reads.items():
        kind = schema.field(spelling).type
        if name.endswith("_coefficients") and pa.types.is_fixed_size_list(kind):
            _fits(name[:2], spelling, kind.list_size, design)


def _fits(band: str, spelling: str, width: int, design: str) -> None:
    needed = bases(design)[band]
    if width == needed:
        return
    release = ", as DR4's BP has" if width == 51 else ""
    whose, cure = f"{design} is", "the design of these spectra"
    if not design:
        whose, cure = "the design matrices are those of DR3,", "DR3 spectra of these stars, or xp calibrate --design"
    raise DataError(f"column {spelling} has {width} coefficients{release}, but {whose} for {needed}. TRY: {cure}")


def coefficients(
    band: str, columns: dict[str, np.ndarray | None], truncate: bool = False, design: str = ""
) -> Coefficients:
    """One band ("bp" or "rp") of a batch, from its columns as arrays; a row of NaN is no spectrum."""
    import numpy as np

    from xptools.cores.xpbasis import Coefficients

    K = bases(design)[band]
    values, errors, rho = (whole(f"{band}_{kind}", columns) for kind in SPREAD)
    values = _block(f"{band}_coefficients", values, None, K)
    _fits(band, f"{band}_coefficients", values.shape[1], design)
    used = columns.get(f"{band}_n_relevant_bases") if truncate else None
    return Coefficients(
        values,
        None if errors is None else _block(f"{band}_coefficient_errors", errors, K),
        None if rho is None else _block(f"{band}_coefficient_correlations", rho, K * (K - 1) // 2),
        None if used is None else np.asarray(used),
    )


def whole(name: str, columns: dict[str, np.ndarray | None]) -> np.ndarray | None:
    """An array column, also if it is spread over columns; None if absent."""
    if f"{name}.0" not in columns:
        return columns.get(name)
    import numpy as np

    count = sum(key.startswith(f"{name}.") for key in columns)
    # in C order, as arrays are: kernels would be compiled once more for the other
    return np.ascontiguousarray(np.stack([columns[f"{name}.{i}"] for i in range(count)], axis=1))


def _block(name: str, array: np.ndarray, width: int | None, empty: int = 0) -> np.ndarray:
    """Arrays of one column (N, width); a column without any value, which has no width, as NaN."""
    import numpy as np

    if array.ndim == 1 or array.shape[1] == 0:
        if array.ndim == 1 and np.isfinite(array).any():
            raise DataError(f"column {name} holds single numbers, not arrays. TRY: xp info for the columns")
        return np.full((len(array), width or empty), np.nan)
    if width is not None and array.shape[1] != width:
        raise DataError(f"column {name} has {array.shape[1]} values a row, but {width} are needed. TRY: xp info")
    return array
