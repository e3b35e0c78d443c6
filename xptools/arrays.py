"""Arrow columns to arrays and back: null becomes NaN, spectra become two-dimensional, identifiers stay whole."""

from typing import TYPE_CHECKING, Any

from xptools.arrowcalls import call, cast, filled, wrapped
from xptools.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


def to_numpy(column: "pa.Array | pa.ChunkedArray", name: str = "") -> "np.ndarray":
    """A column as an array, first axis = row; null becomes NaN, a null list a row of NaN.

    An int64 identifier with nulls raises: as float it would lose digits.
    """
    import numpy as np
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    kind = column.type
    if pa.types.is_dictionary(kind):
        return to_numpy(column.dictionary_decode(), name)
    if pa.types.is_fixed_size_list(kind):
        return _fixed_lists(column)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _equal_lists(column, name)
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    if pa.types.is_decimal(kind):
        column = cast(column, pa.float64())
    if kind == pa.string_view() or pa.types.is_large_string(kind):
        return to_numpy(cast(column, pa.string()), name)
    if column.null_count and not pa.types.is_floating(column.type):
        if pa.types.is_string(kind):
            return filled(column, "").to_numpy(zero_copy_only=False)
        if name.lower().endswith("_id"):
            raise DataError(
                f"column {name} has {column.null_count} nulls; an identifier may not be missing. "
                "TRY: leave those rows out where the table was made"
            )
        if not (pa.types.is_integer(column.type) or pa.types.is_boolean(column.type)):
            raise DataError(f"column {name} is of type {kind}, not numbers. TRY: xp convert --drop {name}")
        number = cast(column, pa.int8()) if pa.types.is_boolean(kind) else column
        return cast(number, pa.float64()).to_numpy(zero_copy_only=False)
    return column.to_numpy(zero_copy_only=False)


def listed(column: "pa.Array") -> "tuple[pa.ListArray, pa.Array]":
    """Texts "(a, b)" or "[a, b]", as the archive writes arrays in CSV and ECSV: rows of texts, and all their cells.

    A missing cell is "nan", an empty text no row.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    inner = pc.utf8_trim(column, "()[] ")
    inner = pc.if_else(pc.equal(inner, ""), pa.scalar(None, pa.string()), inner)
    rows = pc.split_pattern(pc.replace_substring_regex(inner, r"[\s()\[\]]", ""), ",")
    missing = pc.is_in(rows.values, pa.array(["null", "NaN", "None", ""]))
    return rows, pc.if_else(missing, pa.scalar("nan"), rows.values)


def text_lists(texts: "np.ndarray", name: str = "") -> "np.ndarray":
    """Texts (N,) of arrays as numbers (N, width), a row of NaN for an empty text; DataError where they are none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    lists = []
    if all(isinstance(t, str) for t in texts):
        column = pa.array(texts, pa.string())
        known = column.filter(pc.not_equal(pc.utf8_trim_whitespace(column), ""))
        lists = pc.match_substring_regex(known, r"^\s*[(\[][^\n]*[)\]]\s*$")
    if len(lists) and pc.all(lists).as_py():
        rows, cells = listed(column)
        try:
            values = cells.cast(pa.float64())
        except pa.ArrowInvalid as fault:
            raise DataError(f"column {name} has arrays as text that hold no numbers: {fault}") from fault
        return _equal_lists(pa.ListArray.from_arrays(rows.offsets, values, mask=rows.is_null()), name)
    raise DataError(f"column {name} holds text, not numbers. TRY: mend it where the table was made")


def to_arrow(values: Any, field: "pa.Field", rows: int, step: str) -> "pa.Array":
    """An array as the column `field`; None gives an all-unknown column. Shape and type errors are bugs of the step."""
    import numpy as np
    import pyarrow as pa

    if pa.types.is_fixed_size_list(field.type):
        width = field.type.list_size
        item = field.type.value_type.to_pandas_dtype()
        flat = np.full((rows, width), np.nan, item) if values is None else np.ascontiguousarray(values, item)
        if flat.shape != (rows, width):
            raise ValueError(f"xp {step} made {field.name} with shape {flat.shape}, not {(rows, width)}")
        return pa.FixedSizeListArray.from_arrays(wrapped(flat.reshape(-1)), type=field.type)
    if values is None:
        missing = pa.types.is_floating(field.type)
        values = np.full(rows, np.nan if missing else 0, field.type.to_pandas_dtype())
    if pa.types.is_string(field.type):
        return pa.array(values, field.type)
    values = np.asarray(values)
    if values.shape != (rows,):
        raise ValueError(f"xp {step} made {field.name} with shape {values.shape}, not {(rows,)}")
    return wrapped(values.astype(field.type.to_pandas_dtype(), copy=False), field.type)


def _fixed_lists(column: "pa.FixedSizeListArray") -> "np.ndarray":
    import numpy as np

    width = column.type.list_size
    # .flatten() would drop null lists and shift every later star by one; .values ignores the offset.
    flat = column.values.slice(column.offset * width, len(column) * width)
    block = flat.to_numpy(zero_copy_only=False).reshape(len(column), width)
    if column.null_count:
        block = np.array(block, dtype=np.result_type(block.dtype, np.float32))
        block[~column.is_valid().to_numpy(zero_copy_only=False)] = np.nan
    return block


def _equal_lists(column: "pa.Array", name: str) -> "np.ndarray":
    import numpy as np

    lengths = call("list_value_length", column)
    sizes = call("unique", call("drop_null", lengths)).to_pylist()
    if len(sizes) > 1:
        raise DataError(f"column {name} has arrays of different lengths ({min(sizes)} to {max(sizes)})")
    block = np.full((len(column), sizes[0] if sizes else 0), np.nan)
    valid = column.is_valid().to_numpy(zero_copy_only=False)
    block[valid] = column.flatten().to_numpy(zero_copy_only=False).reshape(int(valid.sum()), -1) if sizes else np.nan
    return block
