"""A user's own G, BP, RP passbands, as a table of extinction coefficients."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from xptools.cores.extinction import Bands, tabulate
from xptools.errors import DataError, UnavailableError

HEADER = "wavelength_nm,G,BP,RP"


@lru_cache(maxsize=4)
def read_bands(path: str) -> Bands:
    """Coefficients of the passbands in a CSV file with the header wavelength_nm,G,BP,RP at equal steps [nm]."""
    try:
        with Path(path).open() as f:
            header = f.readline().strip().replace(" ", "")
            table = np.loadtxt(f, delimiter=",", ndmin=2)
    except FileNotFoundError as fault:
        raise UnavailableError(f"there is no passband file {path}. TRY: another --passbands") from fault
    except (OSError, ValueError) as fault:
        raise DataError(f"the passbands cannot be read, {fault}. {path}. TRY: a CSV file with {HEADER}") from fault
    if header != HEADER or table.shape[1:] != (4,) or len(table) < 10:
        raise DataError(f"the passbands have the header {header[:60]!r}. {path}. TRY: a CSV file with {HEADER}")
    steps = np.diff(table[:, 0])
    if np.ptp(steps) > 1e-6 * abs(steps[0]) or steps[0] <= 0 or not np.all(table[:, 1:].sum(axis=0) > 0):
        raise DataError(f"the passbands need equal, rising steps and some light in each band. {path}. TRY: resample it")
    return tabulate(table[:, 0], table[:, 1:])
