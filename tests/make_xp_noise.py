"""Make xptools/data/xp_noise.npz again: python tests/make_xp_noise.py STARS.parquet CORRELATED.csv

STARS.parquet: real XP spectra with errors and synthetic magnitudes (2,000 stars of Gaia DR3); CORRELATED.csv: archive
rows with correlations (two stars). Kept are medians and means over stars, no star's own numbers except that the mean
correlation matrix is one of two stars.
"""

import sys

import numpy as np

from xptools.cores import mock_spectra
from xptools.io import open_reader
from xptools.protocol import to_numpy

WHAT = (
    "What errors and correlations of XP coefficients are like in Gaia DR3 (ESA/Gaia/DPAC), learned from 2,000 stars: "
    "*.nodes (m,) magnitudes of the band (BP or RP), *.log_error (m,) median log10 of |errors| over |coefficients|, "
    "*.scatter scatter of that about the line [dex], *.pattern (m, 55) median errors over |errors|, *.size (55,) size "
    "of coefficients over |coefficients| in bright stars, noise taken off; *.correlations (1485,) mean of two stars. "
    "Made by tests/make_xp_noise.py"
)
WIDTH = 1.0  # [mag] of the window of a median
FEWEST = 7
LEAST = 1e-4  # of |coefficients|: what noise leaves unknown in bright stars


def main(stars: str, correlated: str) -> None:
    table, pair = columns(stars), columns(correlated)
    out = {"what": np.array(WHAT)}
    for band in ("bp", "rp"):
        c, e, mag = (table[name] for name in (f"{band}_coefficients", f"{band}_coefficient_errors", f"syn_{band}"))
        size, error = np.linalg.norm(c, axis=1), np.linalg.norm(e, axis=1)
        nodes, rows = [], []
        for node in np.arange(8.5, 20.1, 0.5):
            near = np.abs(mag - node) < WIDTH / 2
            if near.sum() >= FEWEST:
                nodes.append(np.median(mag[near]))
                rows.append(near)
        level = np.log10(error / size)
        out[f"{band}.nodes"] = np.array(nodes)
        out[f"{band}.log_error"] = np.array([np.median(level[r]) for r in rows])
        out[f"{band}.pattern"] = np.array([np.median(e[r] / error[r, None], axis=0) for r in rows], np.float32)
        off = level - np.interp(mag, nodes, out[f"{band}.log_error"])
        out[f"{band}.scatter"] = np.array(1.4826 * np.median(np.abs(off - np.median(off))))
        bright = np.argsort(mag)[: len(mag) // 8]
        own = np.median(c[bright] ** 2 - e[bright] ** 2, axis=0) / np.median(size[bright]) ** 2
        out[f"{band}.size"] = np.sqrt(np.maximum(own, LEAST**2))
        rho = pair[f"{band}_coefficient_correlations"].mean(axis=0)
        out[f"{band}.correlations"] = rho.astype(np.float32)
    np.savez_compressed(mock_spectra.TABLE, **out)


def columns(path: str) -> dict[str, np.ndarray]:
    """The numeric columns of a table."""
    with open_reader(path) as reader:
        parts = [{n: to_numpy(b[n], n) for n in b.schema.names} for b in reader]
    return {n: np.concatenate([p[n] for p in parts]).astype(np.float64) for n in parts[0] if n != "source_id"}


if __name__ == "__main__":
    main(*sys.argv[1:])
