"""How well mass and age of mock giants can be known at all: the posterior mean of the mock's own model, star by star.

python tests/ask_limit.py TABLE [--stars 400] [--library 400000] [--parallax] [--model FILE]

A library of stars of the same universe without noise is drawn (its prior, selection included); a star's posterior over
it is exp(-chi2 / 2) with the star's stated errors and the correlations of the coefficients. Coefficients are first
projected on the directions in which the library varies (14, in units of the noise). Where fewer than ESS library stars
carry the posterior the likelihood is tempered by tau until they do, and the rest of it, the power 1 - 1 / tau, is
applied to the Gaussian of the tempered stars (a Kalman step, exact where their labels are locally linear). Printed are
1.48 MAD and rms of truth - posterior mean, and the same of a model's answers from the same numbers.
"""

import argparse

import numpy as np

from xptools.arrays import to_numpy
from xptools.cores.ask_vocabulary import flux_of
from xptools.cores.mock_spectra import learned
from xptools.io import open_reader
from xptools.mock import Mock

LABELS = ("mass", "age", "teff", "logg", "mh", "alpha_m", "ext_e")
KEPT, ESS = 14, 300
MAGNITUDE = "phot_g_mean_mag"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("table")
    parser.add_argument("--stars", type=int, default=400)
    parser.add_argument("--library", type=int, default=400_000)
    parser.add_argument("--parallax", action="store_true", help="Use the parallax as well.")
    parser.add_argument("--model", help="A model of xp train ask to compare.")
    args = parser.parse_args()
    stars = read(args.table, args.stars)
    library = drawn(args.library)
    truth = np.stack([stars[name] for name in LABELS], 1)
    mean, error, ess = posterior(stars, library, args.parallax)
    print(f"{len(truth)} stars, library of {len(library['c']):,}, ESS {np.percentile(ess, [5, 50, 95]).round()}, "
          f"{'with' if args.parallax else 'without'} parallax")
    model = answered(args.model, args.table, args.stars, args.parallax) if args.model else None
    for k, name in enumerate(LABELS):
        words = f"{name:8} limit {mad_std(truth[:, k] - mean[:, k]):8.4g} rms {rms(truth[:, k] - mean[:, k]):8.4g} "
        words += f"posterior {np.median(error[:, k]):8.4g}"
        if model is not None and name in model:
            off = truth[:, k] - model[name]
            best = truth[:, k] - mean[:, k]
            words += f"   model {mad_std(off):8.4g} rms {rms(off):8.4g}   ratio {mad_std(off) / mad_std(best):.3f} "
            words += f"{rms(off) / rms(best):.3f}"
        print(words)


def mad_std(x):
    return 1.4826 * np.median(np.abs(x - np.median(x)))


def rms(x):
    return np.sqrt(np.mean(x**2))


def columns(batch, noisy):
    """Labels, coefficients over the flux in G and their errors, and M_G's stand-in with its error."""
    take = {n: to_numpy(batch.column(batch.schema.get_field_index(n))) for n in batch.schema.names}
    flux = flux_of(take[MAGNITUDE].astype(np.float64))[:, None]
    known = {f"true_{n}" if f"true_{n}" in take else n: n for n in LABELS}
    out = {n: take[column].astype(np.float64) for column, n in known.items()}
    out["c"] = np.hstack([take[f"{b}_coefficients"] for b in ("bp", "rp")]) / flux
    bright = 10 ** (0.2 * take[MAGNITUDE].astype(np.float64))
    out["plx"], out["plx_error"] = take["parallax"] * bright, take["parallax_error"] * bright
    if noisy:
        out["e"] = np.hstack([take[f"{b}_coefficient_errors"] for b in ("bp", "rp")]) / flux
    return {n: v.astype(np.float32) for n, v in out.items()}


def read(path, stars):
    with open_reader(path) as reader:
        return columns(next(iter(reader)).slice(0, stars), True)


def drawn(number):
    mock = Mock(number, seed=987, sample="giants", max_distance=3.0, spectra=True, map="toy", noise=0.0)
    parts = [columns(b, False) for b in mock.record_batches(16384)]
    return {n: np.concatenate([p[n] for p in parts]) for n in parts[0]}


def posterior(stars, library, parallax):
    """Posterior means and errors (N, labels), and the effective number of library stars (N,)."""
    rho = [correlations(b) for b in ("bp", "rp")]
    R = np.block([[rho[0], np.zeros((55, 55))], [np.zeros((55, 55)), rho[1]]])
    typical = np.median(stars["e"], 0).astype(np.float64)
    L = np.linalg.cholesky(R * typical[:, None] * typical)
    some = np.linalg.solve(L, library["c"][:40_000].T.astype(np.float64)).T
    _, vectors = np.linalg.eigh(np.cov(some.T))
    A = np.linalg.solve(L.T, vectors[:, -KEPT:])  # (110, kept)
    y = library["c"].astype(np.float64) @ A
    theta = np.stack([library[n] for n in LABELS], 1).astype(np.float64)
    out = [one(A, R, y, theta, library["plx"], {k: v[i] for k, v in stars.items()}, parallax)
           for i in range(len(stars["c"]))]  # fmt: skip
    return (np.array(a) for a in zip(*out, strict=True))


def correlations(band):
    K = len(learned()[f"{band}.size"])
    rho = np.eye(K)
    i, j = np.tril_indices(K, -1)
    rho[i, j] = rho[j, i] = learned()[f"{band}.correlations"]
    return rho


def one(A, R, y, theta, plx, star, parallax):
    """Posterior mean and error of one star's labels, and the ESS."""
    sigma = star["e"].astype(np.float64)
    N = A.T @ (R * sigma[:, None] * sigma) @ A
    white = np.linalg.inv(np.linalg.cholesky(N))
    s = (y - star["c"].astype(np.float64) @ A) @ white.T
    if parallax:
        s = np.hstack([s, ((plx - star["plx"]) / star["plx_error"])[:, None]])
    d2 = np.einsum("ij,ij->i", s, s)
    d2 -= d2.min()
    tau = 1.0
    while True:
        w = np.exp(-0.5 * d2 / tau)
        ess = w.sum() ** 2 / (w**2).sum()
        if ess >= ESS or tau > 1e4:
            break
        tau *= 1.3
    near = w > 1e-6
    w, s, t = w[near] / w[near].sum(), s[near], theta[near]
    mean_s, mean_t = w @ s, w @ t
    ds, dt = s - mean_s, t - mean_t
    rest = 1.0 - 1.0 / tau
    if rest == 0.0:
        return mean_t, np.sqrt(w @ dt**2), ess
    cross, S = (dt * w[:, None]).T @ ds, (ds * w[:, None]).T @ ds
    gain = cross @ np.linalg.inv(S + np.eye(len(S)) / rest)
    # s is measured from the star: what is observed is 0
    return mean_t - gain @ mean_s, np.sqrt(np.maximum(w @ dt**2 - np.einsum("ij,ij->i", gain, cross), 0)), ess


def answered(model, table, stars, parallax):
    """A model's answers from the coefficients, and the parallax where it counts."""
    import pyarrow as pa

    import xptools

    with open_reader(table) as reader:
        batch = next(iter(reader)).slice(0, stars)
    context = "bp_coefficients,rp_coefficients" + (",g_fakemag" if parallax else "")
    step = xptools.op(f"ask {' '.join(LABELS)} --model {model} --context {context} --replace")
    out = pa.Table.from_batches([step(batch, replace=True)])
    return {n: out[n].to_numpy().astype(np.float64) for n in LABELS}


if __name__ == "__main__":
    main()
