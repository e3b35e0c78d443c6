"""GSP-Phot's labels of real stars, found three ways: python crossval.py real-labels.parquet table.csv

By the demonstration model, which knows synthetic spectra only (the columns of `xp feh`); by networks trained on these
stars themselves, each star by those that have not seen it (three folds, the machinery of `xp train feh`, which asks for
more stars than these when it is to write a model); and by the mean label of the other folds' stars, which looks at no
spectrum. Median and 1.48 MAD of found - GSP-Phot. M_G is G and the parallax in both, so says little. GSP-Phot's labels
are themselves from these spectra, and so few stars decide little: the scatter of the cross-validated [Fe/H] was 0.20 to
0.42 dex with other widths and rates of the networks, that of Teff 130 to 200 K.
"""

import csv
import sys

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import xptools
from xptools import train
from xptools.cores import feh_fitting, feh_training, xpbasis
from xptools.cores.feh import DIAGONAL, Spectra

LABELS = ("teff", "mg", "feh")
GOOD = 5  # parallax over its error, at least: M_G within 0.4 mag


def main(path: str, target: str) -> None:
    table = pq.read_table(path)
    table = table.filter(pc.greater(table["parallax"], pc.multiply(table["parallax_error"], pa.scalar(GOOD))))
    column = {name: table[name].to_numpy() for name in table.schema.names if "_coefficient" not in name}
    M_G = column["phot_g_mean_mag"] + 5 * np.log10(column["parallax"] / 100)
    truth = np.stack([column["teff_gspphot"], M_G, column["mh_gspphot"]], axis=1).astype(float)
    sample = feh_training.Sample(truth, spectra(table))
    plan = feh_fitting.Plan((32, 32), (32, 32), epochs=500, patience=60, batch=32, rate=5e-3)
    wavelength = np.array(xpbasis.DEFAULT_GRID)
    _, metrics = feh_fitting.trained(sample, wavelength, column["source_id"], plan, lambda *_: None, train)
    own = metrics["validation"][0]
    rows = [
        by_demonstration(column, truth),
        ("these stars, cross-validated", own["n"], *(own[f"{what}_{k}"] for k in LABELS for what in ("bias", "mad"))),
        ("mean of the other stars", len(truth), *spread(mean_of_others(column["source_id"], truth) - truth)),
    ]
    with open(target, "w", newline="") as stream:
        out = csv.writer(stream)
        out.writerow(["found by", "stars", *(f"{what}_{k}" for k in LABELS for what in ("bias", "mad"))])
        out.writerows(rows)
    sys.stdout.write(f"{'found by':44}{'stars':>6}  {'Teff [K]':>14}  {'M_G [mag]':>14}  {'[Fe/H]':>14}\n")
    for name, stars, *v in rows:
        teff, mg, feh = f"{v[0]:6.0f} {v[1]:6.0f}", f"{v[2]:6.3f} {v[3]:6.3f}", f"{v[4]:6.2f} {v[5]:6.2f}"
        sys.stdout.write(f"{name:44}{stars:6}  {teff:>14}  {mg:>14}  {feh:>14}\n")


def spectra(table: pa.Table) -> Spectra:
    """Flux on the 61 default wavelengths, by xp calibrate."""
    batch = xptools.op("calibrate")(table.combine_chunks().to_batches()[0])
    flux, error = (np.stack(batch[name].to_pylist()) for name in ("flux", "flux_err"))
    return Spectra(flux, error, *(table[name].to_numpy().astype(float) for name in ("parallax", "parallax_error")))


def by_demonstration(column: dict[str, np.ndarray], truth: np.ndarray) -> tuple:
    """The labels that `xp feh` found, of the same stars."""
    found = np.stack([column[name] for name in LABELS], axis=1)
    fine = int((column["feh_flag"] & ~DIAGONAL == 0).sum())
    return f"the demonstration model ({fine} unflagged)", len(found), *spread(found - truth)


def mean_of_others(source_id: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The mean label (N, 3) over the stars of the folds that a star is not in."""
    fold = feh_training.folds(source_id)
    return np.stack([truth[fold != k].mean(axis=0) for k in fold])


def spread(off: np.ndarray) -> list[float]:
    """Median and 1.48 MAD of each label's offset (N, 3)."""
    bias = np.nanmedian(off, axis=0)
    return np.stack([bias, 1.4826 * np.nanmedian(np.abs(off - bias), axis=0)], axis=1).ravel().round(4).tolist()


if __name__ == "__main__":
    main(*sys.argv[1:])
