"""Files without a name, gone with the process whatever ends it."""

import os
import tempfile
from typing import BinaryIO


def spool() -> BinaryIO:
    """A temporary file in XP_TMPDIR (else TMPDIR); it is unlinked from the start."""
    return tempfile.TemporaryFile(dir=os.environ.get("XP_TMPDIR"))
