"""The paper's catalogue (Zenodo 10951393, HDF5) as a table for xp: spectra by band, labels under plain names.

python apogee.py xp_apogee_cat.h5 -o apogee.parquet

What APOGEE writes for unknown, -9999, is NaN. Column `sfd_e` is E of the curve of Zhang, Green & Rix (2023) from
SFD_EBV, of all dust along the line of sight.

Column `pristine` is the sample of the alpha classes (LS24 Sec. 2.2): Teff / error > 100, errors of log g < 0.1 and of
[M/H] < 0.05 dex, 6 < G < 17.5, STARFLAG 0, the bits M_H_BAD (19) and STAR_BAD (23) of ASPCAPFLAG clear. The cut on
BP - RP, which the file need not have, is made where Gaia's row is there (alpha.py).
"""

import argparse

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from xptools.cores.extinction import visual
from xptools.cores.photometry import POGSON, ZERO_POINT
from xptools.dustfiles import MAPS

ROWS, UNKNOWN = 20_000, -9000
PLAIN = {
    "phot_g_mean_flux": "phot_g_mean_flux", "teff": "TEFF", "logg": "LOGG", "mh": "M_H", "alpha_m": "ALPHA_M",
    "fe_h": "FE_H", "mg_fe": "MG_FE", "j": "J", "h": "H", "k": "K",
}  # fmt: skip


def main(given):
    writer = None
    with h5py.File(given.input) as file:
        rows = file["__astropy_table__"]
        for start in range(0, len(rows), ROWS):
            table = plain(rows[start : start + ROWS])
            writer = writer or pq.ParquetWriter(given.output, table.schema)
            writer.write_table(table)
    writer.close()


def plain(some):
    """A table of rows of the file."""
    out = {"source_id": pa.array(some["ids"].astype(np.int64))}
    for name, key in (("coefficients", "coeffs"), ("coefficient_errors", "coeff_errs")):
        for k, band in enumerate(("bp", "rp")):
            values = np.ascontiguousarray(some[key][:, 55 * k : 55 * (k + 1)], np.float64).reshape(-1)
            out[f"{band}_{name}"] = pa.FixedSizeListArray.from_arrays(pa.array(values), 55)
    out |= {name: pa.array(known(some[key])) for name, key in PLAIN.items()}
    out["sfd_e"] = pa.array(known(some["SFD_EBV"]) * MAPS["sfd"].a_v / visual())
    return pa.table(out | {"pristine": pa.array(pristine(some))})


def known(values):
    """As float64, NaN where unknown."""
    return np.where(values > UNKNOWN, values, np.nan).astype(np.float64)


def pristine(some):
    """Which rows have labels to trust."""
    G = ZERO_POINT["G"] - POGSON * np.log(some["phot_g_mean_flux"])
    errors = [known(some[f"{name}_ERR"]) for name in ("TEFF", "LOGG", "M_H")]
    good = (some["TEFF"] > 100 * errors[0]) & (errors[1] < 0.1) & (errors[2] < 0.05)
    bad = np.bitwise_and(some["ASPCAPFLAG"].astype(np.int64), 1 << 19 | 1 << 23)
    return good & (G > 6) & (G < 17.5) & (some["STARFLAG"] == 0) & (bad == 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("input")
    parser.add_argument("-o", "--output", required=True)
    main(parser.parse_args())
