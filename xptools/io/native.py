"""An open file for pyarrow's own threads, without Python in between."""

from typing import BinaryIO

import pyarrow as pa


def native(whole: BinaryIO) -> pa.NativeFile:
    """The file from its beginning; also a spooled one that has no name any more.

    A reader thread that calls back into Python while the interpreter ends would hang or crash it. What pyarrow opened
    itself (a gzip file) is left as it is.
    """
    if isinstance(whole, pa.NativeFile):
        return whole
    try:
        return pa.OSFile(f"/proc/self/fd/{whole.fileno()}")
    except OSError:
        whole.seek(0)
        return pa.PythonFile(whole, mode="r")
