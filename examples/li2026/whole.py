"""A file that is there as a whole or not at all: a kill at any time leaves no half of it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def whole(path: str) -> Iterator[str]:
    """A name beside `path` to write to; it takes the place of `path` when all went well."""
    yield f"{path}.part"
    os.replace(f"{path}.part", path)
