"""The best sum of two main-sequence stars for an XP spectrum: chi2, mass ratio and masses (Li+ 2026 App. C.2).

Both stars have one [Fe/H] and stand on the main sequence of the model's training stars, Teff = f(M_G, [Fe/H]); free are
the pair's M_G, the secondary's excess over the primary's, [Fe/H], and the shift that the parallax leaves. chi2 has the
same covariance as that of the single star, so the two compare. Masses are those of an isochrone at these M_G.
"""

from __future__ import annotations

import numpy as np

from xptools.cores import feh
from xptools.cores.feh import LABEL_MEAN, LABEL_SCALE, Fit, Model, Spectra
from xptools.cores.isochrone import load, salaris

EXCESSES = (0.0, 0.3, 0.8, 1.4, 2.2, 3.2, 4.5)  # [mag], where fits begin
NODES = 60  # of the mass table, in M_G and [Fe/H]


def pairs(
    model: Model, spectra: Spectra, single: Fit, isochrones=None, age=10.0, alpha_fe=0.0, threads=1
) -> dict[str, np.ndarray]:
    """chi2_binary, q, mass_1, mass_2 [Msun], each (N,); NaN where nothing was fitted or the isochrone has no mass."""
    p, chi2 = fitted(model, spectra, single, threads)
    M_1 = p[:, 0] * LABEL_SCALE[1] + LABEL_MEAN[1]
    M_2 = M_1 + p[:, 1] * LABEL_SCALE[1]
    metals = p[:, 2] * LABEL_SCALE[2] + LABEL_MEAN[2]
    one, two = (mass(load(isochrones), M, metals + salaris(alpha_fe), age) for M in (M_1, M_2))
    return {"chi2_binary": chi2, "q": two / one, "mass_1": one, "mass_2": two}


def fitted(model: Model, spectra: Spectra, single: Fit, threads: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Scaled M_G of the primary, the secondary's excess, [Fe/H], and the shift (N, 4); chi2 (N,).

    `single` is what `feh.solution` found: fits of pairs begin there, with its reference model.
    """
    from xptools.cores import _fehfits as kernels

    N, gain, spread = len(spectra.flux), np.ascontiguousarray(spectra.gain()), spectra.spread()
    pair = model.arrays["sequence"].astype(np.float32)
    bright, faint = pair[-1, :2]
    limits = np.array([[bright, 0.0, model.box[0, 2]], [faint, faint - bright, model.box[1, 2]]], np.float32)
    limits[0, 0] -= over_primary(0.0)
    excess = np.array(EXCESSES) / LABEL_SCALE[1]
    begin = np.stack(np.broadcast_arrays(single.p[:, 1:2], excess, single.p[:, 2:3]), -1)
    p, chi2 = np.full((N, 4), np.nan), np.full(N, np.nan)
    grid, errors = model.compiled
    noise, y = feh.frozen(spectra.noise), spectra.flux * gain
    ref = np.where(np.isfinite(single.p), single.ref, np.nan)

    def run(a: int, b: int) -> None:
        kernels.fit_pairs(
            grid, limits, pair, y[a:b], gain[a:b], noise[a:b], spectra.diagonal, errors, spread[a:b], ref[a:b],
            np.ascontiguousarray(begin[a:b]), p[a:b], chi2[a:b],
        )  # fmt: skip

    feh.spread_out(run, N, threads)
    p[:, 0] = np.clip(p[:, 0] + over_primary(p[:, 1]), bright, faint)
    p[:, 1] = np.minimum(p[:, 1], faint - p[:, 0])
    return p, chi2


def over_primary(excess):
    """By how much a pair is brighter than its primary, for a secondary fainter by `excess`; all in scaled M_G."""
    return 2.5 * np.log10(1 + 10 ** (-0.4 * LABEL_SCALE[1] * excess)) / LABEL_SCALE[1]


def mass(isochrone, M_G: np.ndarray, mh: np.ndarray, age: float) -> np.ndarray:
    """Mass (N,) [Msun] at M_G [mag] and [M/H], bilinear in a table of the isochrone; NaN outside it."""
    metals = np.linspace(*isochrone.mh_range, NODES)
    grid = np.linspace(*isochrone.mass_range, 600)
    magnitudes = np.linspace(3.0, 15.0, 4 * NODES)
    table = np.full((NODES, len(magnitudes)), np.nan)
    for row, z in zip(table, metals, strict=True):
        M, _ = isochrone.absolute(grid, z, age)
        ok = np.isfinite(M) & (grid <= isochrone.turn_off(z, age))
        if ok.sum() > 1:
            order = np.argsort(M[ok])
            row[:] = np.interp(magnitudes, M[ok][order], grid[ok][order], np.nan, np.nan)
    x = (mh - metals[0]) / (metals[1] - metals[0])
    z = (M_G - magnitudes[0]) / (magnitudes[1] - magnitudes[0])
    inside = (x >= 0) & (x <= NODES - 1) & (z >= 0) & (z <= len(magnitudes) - 1)
    x, z = np.where(inside, x, 0), np.where(inside, z, 0)
    i, k = np.minimum(x.astype(int), NODES - 2), np.minimum(z.astype(int), len(magnitudes) - 2)
    u, v = x - i, z - k
    value = (1 - u) * ((1 - v) * table[i, k] + v * table[i, k + 1])
    return np.where(inside, value + u * ((1 - v) * table[i + 1, k] + v * table[i + 1, k + 1]), np.nan)
