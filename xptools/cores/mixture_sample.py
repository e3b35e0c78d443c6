"""The giants a mixture is trained on: velocities, the split, standardisation, weights, metallicity distribution.

    v = 4.740470463 mu / parallax [km/s],    w = min(1 / h([Fe/H]), 20 median), of mean 1

h counts stars in bins of 0.1 dex. Weights that depend on the context alone leave the best p(x | c) where it is, and
make the rare metal-poor stars count (SCIENCE: Li+ 2026 App. B leaves w_i open).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from xptools.cores.astrometry import KMS_PER_AU_YR
from xptools.cores.draws import mixed
from xptools.cores.mixture import context, standardise

CLIP = 1000.0  # km/s: beyond are wrong parallaxes
CONTEXT = (-0.5, 0.5)  # centre and scale of [Fe/H] [dex]
MDF_STEP, WEIGHT_STEP, HEAVIEST = 0.02, 0.1, 20.0  # dex, dex, medians
FEH = (-5.0, 2.0)  # dex: what lies outside stands for unknown
BIN = 0.25  # dex, of the held-out likelihood
BLOCK = 500_000  # stars


class Giants(NamedTuple):
    """Training stars, each (N,): ra, dec [deg], v_ra, v_dec [km/s], [Fe/H] as float32; whether a star is held out."""

    ra: np.ndarray
    dec: np.ndarray
    v_ra: np.ndarray
    v_dec: np.ndarray
    feh: np.ndarray
    held: np.ndarray


def giants(
    columns: dict[str, np.ndarray], keep: np.ndarray, held: float, seed: int
) -> tuple[Giants, list[tuple[str, int]]]:
    """The usable ones among rows that pass `keep`, and the rows left after each demand.

    `columns`: ra, dec, pmra, pmdec, parallax, feh, source_id. The fraction `held` is held out, by a mixed source_id:
    a star's own, whatever else is in the table.
    """
    ra, dec, pmra, pmdec, parallax, feh = (
        np.asarray(columns[n], np.float64) for n in ("ra", "dec", "pmra", "pmdec", "parallax", "feh")
    )
    flow = []
    for text, passes in (
        ("with position and proper motion", np.isfinite(ra + dec + pmra + pmdec)),
        ("with parallax above 0", np.isfinite(parallax) & (parallax > 0)),
        ("with [Fe/H]", (feh > FEH[0]) & (feh < FEH[1])),
    ):
        keep = keep & passes
        flow.append((text, int(keep.sum())))
    per_pm = KMS_PER_AU_YR / parallax[keep]
    chance = mixed(columns["source_id"][keep] ^ np.int64(seed)).astype(np.float64) / 2.0**64
    values = (ra[keep], dec[keep], pmra[keep] * per_pm, pmdec[keep] * per_pm, feh[keep])
    return Giants(*(v.astype(np.float32) for v in values), chance < held), flow


def joined(parts: list[Giants]) -> Giants:
    """Batches as one sample."""
    return Giants(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def emptiest(ra: np.ndarray) -> float:
    """Right ascension [deg] where the circle is best cut: the middle of the longest run of the emptiest degrees."""
    count = np.bincount((ra % 360.0).astype(int) % 360, minlength=360)
    least = np.flatnonzero(count == count.min())
    after = np.flatnonzero(np.diff(least, append=least[0] + 360) > 1)  # last of each run
    if not len(after):
        return 0.0
    length = np.diff(after, prepend=after[-1] - len(least))
    k = length.argmax()
    return float((least[after[k]] + 1 - length[k] / 2) % 360.0)


def norms(stars: Giants) -> dict[str, np.ndarray]:
    """The standardisation that belongs to a sample (mixture.standardise, mixture.context)."""
    norm = {
        "norm.ra_cut": np.array(emptiest(stars.ra)), "norm.clip": np.array(CLIP),
        "norm.context_centre": np.array(CONTEXT[0]), "norm.context_scale": np.array(CONTEXT[1]),
        "norm.mean": np.zeros(4), "norm.std": np.ones(4),
    }  # fmt: skip
    x, _ = standard(stars, norm)
    mean, std = (np.array([getattr(x[:, i], what)(dtype=np.float64) for i in range(4)]) for what in ("mean", "std"))
    return norm | {"norm.mean": mean, "norm.std": np.maximum(std, 1e-6)}


def standard(stars: Giants, norm: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """x (N, 4) and c (N,), float32; in blocks, for the way there is in float64."""
    x = np.empty((len(stars.ra), 4), np.float32)
    for i in range(0, len(x), BLOCK):
        x[i : i + BLOCK] = standardise(norm, *(v[i : i + BLOCK].astype(np.float64) for v in stars[:4]))
    return x, context(norm, stars.feh).astype(np.float32)


def histogram(feh: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres [dex] and counts of bins that begin at multiples of `step`, and every star's bin (N,)."""
    k = np.floor(np.asarray(feh, np.float64) / step + 1e-6).astype(int)
    first = k.min()
    count = np.bincount(k - first)
    return (first + np.arange(len(count)) + 0.5) * step, count, k - first


def mdf(feh: np.ndarray) -> dict[str, np.ndarray]:
    """The metallicity distribution as it stands in a model file: centres [dex] and stars per bin of 0.02 dex."""
    centre, count, _ = histogram(feh, MDF_STEP)
    return {"mdf.feh": centre, "mdf.count": count.astype(np.float64)}


def weights(feh: np.ndarray, kind: str) -> np.ndarray:
    """w (N,) float32 of mean 1: "none", or "mdf" for the inverse of the metallicity distribution, capped."""
    if kind == "none":
        return np.ones(len(feh), np.float32)
    _, count, own = histogram(feh, WEIGHT_STEP)
    w = 1.0 / count[own]
    w = np.minimum(w, HEAVIEST * np.median(w))
    return (w / w.mean()).astype(np.float32)


def per_bin(feh: np.ndarray, log_prob: np.ndarray) -> list[dict[str, float]]:
    """Mean log p and its standard error in bins of [Fe/H] with ten held-out stars or more."""
    centre, count, own = histogram(feh, BIN)
    out = []
    for k in np.flatnonzero(count >= 10):
        some = log_prob[own == k]
        out.append({"lo": float(centre[k] - BIN / 2), "hi": float(centre[k] + BIN / 2), "n": len(some),
                    "log_prob": round(float(some.mean()), 4),
                    "error": round(float(some.std(ddof=1) / len(some) ** 0.5), 4)})  # fmt: skip
    return out
