"""The real TAP service, started once for all tests of this folder; they are skipped, by name, where it cannot be."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tap.dachs import Dachs, missing

ROWS, MOST = 6000, 4000


@pytest.fixture(scope="session")
def dachs():
    if why := missing():
        pytest.skip(f"no real TAP service: {why}")
    service = Dachs(ROWS, MOST)
    try:
        yield service.start()
    finally:
        service.stop()


@pytest.fixture(scope="session")
def clean(dachs, xp, tmp_path_factory):
    """The folder of a fetch that nobody disturbed, by the default recipe."""
    folder = tmp_path_factory.mktemp("clean") / "gaia"
    done = xp("fetch", "gaia", "--service", dachs.url, "--job-rows", 1300, "-o", f"{folder}/", timeout=400)
    assert done.returncode == 0, done.stderr
    return folder


def parts(folder) -> pa.Table:
    return pa.concat_tables(pq.read_table(p) for p in sorted(folder.glob("part-*.parquet")))
