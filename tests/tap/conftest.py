"""The real TAP service, started once for all tests of this folder; they are skipped, by name, where it cannot be."""

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
