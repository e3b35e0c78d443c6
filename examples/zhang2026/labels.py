"""Labels of APOGEE DR17's stars by Gaia's identifiers: ASPCAP's from allStar, mass and age from DistMass beside it.

python labels.py APOGEE_DistMass-DR17_v1.6.1.fits allStar-dr17-synspec_rev1.fits -o labels.parquet

DistMass has the rows of allStar, in its order, and no identifiers of Gaia's. Of a star's spectra the best (SNR) counts.
"""

import argparse
import sys

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from astropy.io import fits

ALLSTAR = {
    "source_id": "GAIAEDR3_SOURCE_ID", "teff": "TEFF", "teff_err": "TEFF_ERR", "logg": "LOGG", "logg_err": "LOGG_ERR",
    "mh": "M_H", "mh_err": "M_H_ERR", "starflag": "STARFLAG", "aspcapflag": "ASPCAPFLAG",
    "j_m": "J", "h_m": "H", "ks_m": "K",
}  # fmt: skip
DISTMASS = {n: n.upper() for n in ("mass", "mass_err", "age_cor_ss", "age_err", "bitmask")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("distmass")
    parser.add_argument("allstar")
    parser.add_argument("-o", "--output", required=True)
    args = parser.parse_args()
    with fits.open(args.allstar) as whole, fits.open(args.distmass) as other:
        stars, masses = whole[1].data, other[1].data
        names = [np.char.strip(np.asarray(table["APOGEE_ID"], str)) for table in (stars, masses)]
        if len(names[0]) != len(names[1]) or (names[0] != names[1]).any():
            sys.exit(f"{args.distmass} has other rows than {args.allstar}. TRY: the files of DR17, by xp fetch data")
        rows = best(np.asarray(stars["GAIAEDR3_SOURCE_ID"], np.int64), np.asarray(stars["SNR"], np.float64))
        columns = {name: taken(stars, key, rows) for name, key in ALLSTAR.items()}
        columns |= {name: taken(masses, key, rows) for name, key in DISTMASS.items()}
        columns["age"] = pc.divide(columns["age_cor_ss"], 1e9)  # Gyr
    pq.write_table(pa.table(columns), args.output)


def best(ids: np.ndarray, snr: np.ndarray) -> np.ndarray:
    """The row of each star with its highest SNR, ascending in its identifier; those without an identifier are left."""
    order = np.lexsort((-np.nan_to_num(snr, nan=-np.inf), ids))
    first = np.unique(ids[order], return_index=True)[1]
    rows = order[first]
    return rows[ids[rows] > 0]


def taken(table, key: str, rows: np.ndarray) -> pa.Array:
    """A column of these rows; what ASPCAP writes for unknown (-9999, and 99 for a magnitude) is NaN."""
    values = np.asarray(table[key])[rows]
    values = values.astype(values.dtype.newbyteorder("="))
    if values.dtype.kind == "f":
        values[(values < -9000) | ((values > 90) if key in "JHK" else False)] = np.nan
    return pa.array(values)


if __name__ == "__main__":
    main()
