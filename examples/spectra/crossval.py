"""GSP-Phot's labels of real stars, found three ways: python crossval.py real-labels.parquet table.csv

By the demonstration model, which knows synthetic spectra only (the columns of `xp feh`); by networks trained on these
stars themselves, each star by those that have not seen it (three folds, the machinery of `xp train feh`, which asks for
more stars than these when it is to write a model); and by the mean label of the other folds' stars, which looks at no
spectrum. Median and 1.48 MAD of found - GSP-Phot. M_G is G and the parallax in both, so says little.
"""

import csv
import sys

import numpy as np
import pyarrow.parquet as pq

from xptools import train
from xptools.commands import _feh_sample
from xptools.cores import feh_fitting, feh_training
from xptools.cores.feh import DIAGONAL

LABELS = ("teff", "mg", "feh")
GSPPHOT = {"teff": "teff_gspphot", "feh": "mh_gspphot", "mg": ""}
PARALLAX = "parallax > 5 * parallax_error"  # M_G within 0.4 mag


def main(path: str, target: str) -> None:
    table = _feh_sample.table(path, GSPPHOT, None, PARALLAX, "mag", lambda _: None)
    truth = table.sample.labels
    plan = feh_fitting.Plan((16, 16), (16, 16), epochs=1000, patience=100, batch=16, rate=3e-3)
    _, metrics = feh_fitting.trained(table.sample, table.wavelength, table.source_id, plan, lambda *_: None, train)
    own = metrics["validation"][0]
    rows = [
        by_demonstration(path, table.source_id, truth),
        ("these stars, cross-validated", own["n"], *(own[f"{what}_{k}"] for k in LABELS for what in ("bias", "mad"))),
        ("mean of the other stars", len(truth), *spread(mean_of_others(table.source_id, truth) - truth)),
    ]
    with open(target, "w", newline="") as stream:
        out = csv.writer(stream)
        out.writerow(["found by", "stars", *(f"{what}_{k}" for k in LABELS for what in ("bias", "mad"))])
        out.writerows(rows)
    sys.stdout.write(f"{'found by':44}{'stars':>6}  {'Teff [K]':>14}  {'M_G [mag]':>14}  {'[Fe/H]':>14}\n")
    for name, stars, *v in rows:
        teff, mg, feh = f"{v[0]:6.0f} {v[1]:6.0f}", f"{v[2]:6.3f} {v[3]:6.3f}", f"{v[4]:6.2f} {v[5]:6.2f}"
        sys.stdout.write(f"{name:44}{stars:6}  {teff:>14}  {mg:>14}  {feh:>14}\n")


def by_demonstration(path: str, source_id: np.ndarray, truth: np.ndarray) -> tuple:
    """The labels that `xp feh` found, of the same stars."""
    table = pq.read_table(path, columns=["source_id", *LABELS, "feh_flag"])
    place = {star: n for n, star in enumerate(table["source_id"].to_pylist())}
    rows = [place[star] for star in source_id.tolist()]
    found = np.stack([table[name].to_numpy()[rows] for name in LABELS], axis=1)
    fine = int((table["feh_flag"].to_numpy()[rows] & ~DIAGONAL == 0).sum())
    return f"the demonstration model ({fine} unflagged)", len(rows), *spread(found - truth)


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
