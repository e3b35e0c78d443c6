"""What the tests of `xp fetch` share: a server that can fail, tables of stars, `xp fetch xp` against it."""

import gc

import numpy as np
import pyarrow as pa
import pytest
from servers import serving
from tables import write


@pytest.fixture
def there():
    # The server is in this process: were it to collect h5py's garbage, it would wait for h5py, which waits for it.
    gc.collect()
    gc.disable()
    try:
        with serving() as made:
            yield made
    finally:
        gc.enable()


@pytest.fixture
def stars(tmp_path):
    """`stars(ids, has=None)` writes a table of them, shuffled."""

    def made(ids, has=None):
        order = np.random.default_rng(3).permutation(len(ids))
        columns = {"source_id": pa.array(np.asarray(ids, np.int64)[order])}
        if has is not None:
            columns["has_xp_continuous"] = pa.array(np.asarray(has, bool)[order])
        path = tmp_path / "stars.parquet"
        write(pa.table(columns), path)
        return path

    return made


@pytest.fixture
def fetch(inside, tmp_path, there, monkeypatch):
    """`fetch(*words)` runs `xp fetch xp ... -o out.parquet` against the stand-in, without long waits."""
    monkeypatch.setattr("xptools.archive.http.Client.rest", lambda self, seconds: None)
    out = tmp_path / "out.parquet"

    def run(*words, service="/data-server/data"):
        place = ("--service", f"{there.url}{service}") if service else ()
        return *inside("fetch", "xp", *place, *words, "-o", out), out

    return run
