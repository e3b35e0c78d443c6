"""Arrow's compute functions, and arrays as columns, by the shortest way.

`pyarrow.compute` writes the signature and documentation of all its 286 functions when it is imported, and `pa.array`
loads numpy.ma to ask whether an array is masked. Each takes as long as a third of a small command.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


def call(name: str, *args: Any, options: Any = None) -> Any:
    """What the compute function of this name gives; raises what Arrow raises."""
    return _compute().call_function(name, list(args), options)


def cast(array: "pa.Array", kind: "pa.DataType") -> "pa.Array":
    """The array as another type; ArrowInvalid where a value would be lost."""
    return call("cast", array, options=_compute().CastOptions.safe(kind))


def filled(array: "pa.Array", value: Any) -> "pa.Array":
    """The array with a value in place of nulls."""
    import pyarrow as pa

    return call("coalesce", array, pa.scalar(value, array.type)) if array.null_count else array


def filtered(batch: "pa.RecordBatch", keep: "np.ndarray") -> "pa.RecordBatch":
    """The rows of a batch for which `keep`, bool (rows,), is true."""
    return call("filter", batch, wrapped(keep))


def taken(rows: Any, places: "pa.Array") -> Any:
    """Rows of a table, batch or array by their places; a null place gives a row of nulls."""
    return call("take", rows, places)


def wrapped(values: "np.ndarray", kind: "pa.DataType | None" = None, missing: "np.ndarray | None" = None) -> "pa.Array":
    """Numbers or booleans (rows,) as an Arrow array of the same type, of which `missing`, bool (rows,), are null.

    Numbers are not copied if they are contiguous; `kind` saves looking for the type.
    """
    import numpy as np
    import pyarrow as pa

    gaps = None if missing is None else pa.py_buffer(np.packbits(~missing, bitorder="little"))
    kind = kind or pa.from_numpy_dtype(values.dtype)
    data = np.packbits(values, bitorder="little") if values.dtype == bool else np.ascontiguousarray(values)
    return pa.Array.from_buffers(kind, len(values), [gaps, pa.py_buffer(data)])


def _compute():
    try:
        from pyarrow import _compute
    except ImportError:  # no public name has it, but pyarrow.compute
        from pyarrow import compute as _compute
    return _compute
