"""The auto-encoder against others: a network that is told the labels, and as many principal components.

python science.py reconstruction|components INPUT... [-o OUTPUT]
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from matplotlib.style import context
from tables import block, column, columns

from xptools import artefact
from xptools.cores import feh, vae, vae_fit, xpbasis
from xptools.cores.extinction import curve
from xptools.figures import style

MOST_DUST = 0.3  # E of stars that are compared


def reconstruction(args):
    """Residuals of flux in errors at each wavelength and by star: the auto-encoder, which reads the spectrum, and the
    network of a model of xp feh, which is told Teff, M_G and [Fe/H] as a survey has them, E and the distance.

    Per wavelength their RMS over stars, from the median; per star RMSE over wavelengths (LS24 eq 9).
    """
    model = feh.Model(artefact.load(args.input[1], "feh").arrays)
    w, table = model.wavelength, pq.read_table(args.input[0])
    flux, sigma, made = spectra(table, xpbasis.design(tuple(w.tolist())))
    told, E = told_flux(table, model), column(table, "ext_e")
    use = np.isfinite(told).all(-1) & np.isfinite(flux).all(-1) & (E < MOST_DUST)
    R = {n: ((flux - f) / sigma)[use] for n, f in (("auto-encoder", made), ("network of labels", told))}
    rmse = {n: np.sqrt((r**2).mean(-1)) for n, r in R.items()}
    sys.stdout.write(f"{use.sum():,} stars with labels and E < {MOST_DUST}; RMSE over wavelengths in errors, median:\n")
    for name, some in (("all", E[use] >= 0), *((f"E < {e}", E[use] < e) for e in (0.1, 0.03))):
        values = [np.median(r[some]) for r in rmse.values()]
        words = ", ".join(f"{n} {v:.2f}" for n, v in zip(rmse, values, strict=True))
        sys.stdout.write(f"{name:9} {some.sum():7,} stars: {words}, {np.log10(values[1] / values[0]):.2f} dex apart\n")
    figure = style.canvas("double", 62.0)
    left, right = figure.subplots(1, 2)
    for (name, r), colour in zip(R.items(), (style.BLUE, style.RED), strict=True):
        left.plot(w, np.sqrt(np.median(r**2, 0) / 0.4549), color=colour, label=name)
    left.axhline(1, color=style.GREY, lw=0.6)
    left.set(xlabel=r"$\lambda$ [nm]", ylabel="Robust RMS of residuals in errors", ylim=(0, None))
    left.legend()
    teff, feh_ = (labels_of(table)[use, k] for k in (0, 2))
    gain = np.log10(rmse["network of labels"] / rmse["auto-encoder"])
    low, high = np.quantile(gain, (0.02, 0.98))
    image = right.scatter(teff, feh_, c=gain, s=1.5, lw=0, vmin=low, vmax=high, cmap="cividis", rasterized=True)
    figure.colorbar(image, ax=right, label="log$_{10}$ of RMSE, labels over auto-encoder")
    right.set(xlabel=r"$T_\mathrm{eff}$ [K]", ylabel="[Fe/H]", xlim=np.quantile(teff, (0.999, 0.001)))
    Path(args.output).write_bytes(style.encoded(figure, style.kind(args.output)))


def spectra(table, design):
    """Flux, its errors and the flux of the reconstruction (N, n)."""
    values, errors, made = (block(table, n) for n in ("coefficients", "coefficient_errors", "reconstruction"))
    flux, again = (xpbasis.flux(a[:, :55], a[:, 55:], design) for a in (values, made))
    bands = (xpbasis.Coefficients(values[:, s], errors[:, s]) for s in (slice(0, 55), slice(55, None)))
    return flux, xpbasis.flux_errors(*bands, design), again


def labels_of(table):
    """Teff, M_G without dust and [Fe/H] (N, 3) as a survey has them."""
    return columns(table, ("teff", "mg0", "fe_h" if "fe_h" in table.schema.names else "feh"))


def told_flux(table, model):
    """What the network makes of a star's labels, at its distance and behind its dust (N, n) [W m^-2 nm^-1]."""
    scaled = ((labels_of(table) - feh.LABEL_MEAN) / feh.LABEL_SCALE).astype(np.float32)
    parallax, E = (column(table, n)[:, None] for n in ("parallax", "ext_e"))
    dimmed = (parallax / 100) ** 2 * 10 ** (-0.4 * curve(model.wavelength) * E)
    return feh.UNIT * np.exp(model.ln_flux(scaled)) * np.where(parallax > 0, dimmed, np.nan)


def components(args):
    """Test stars by the model and by as many principal components, both with scatter: RMS of R(j), ln likelihood."""
    model = vae.Model(artefact.load(args.input[0], "vae").arrays)
    sets = {}
    for name, path in (("test", args.input[1]), ("train", args.input[2])):
        table = pq.read_table(path)
        flux = 10 ** (0.4 * (25.6873668671 - column(table, "syn_g")))
        x, sigma = model.standardised(block(table, "coefficients"), block(table, "coefficient_errors"), flux)
        use = np.isfinite(x).all(-1)
        sets[name] = x[use].astype(float), sigma[use].astype(float)
    x, sigma = sets["test"]
    verdict = vae_fit.judged(model, x.astype("f4"), sigma.astype("f4"))
    low = vae_fit.low_orders(model.K)
    rows = {"auto-encoder": (verdict.fit, importance(model, verdict, x, sigma))}
    for rank in (model.L, 2 * model.L):
        rows[f"{rank} principal components"] = principal(*sets["train"], x, sigma, rank)
    title = "median chi2 per coefficient   RMS R(j), first 32   ln L per star   its median"
    sys.stdout.write(f"{len(x)} test stars          {title}\n")
    for name, (fit, likelihood) in rows.items():
        R = (x - fit) / sigma
        numbers = np.median((R**2).mean(1)), np.median(np.sqrt((R**2)[:, low].mean(1)))
        ends = likelihood.mean(), np.median(likelihood)
        sys.stdout.write(f"{name:24} {numbers[0]:19.2f} {numbers[1]:27.2f} {ends[0]:19.1f} {ends[1]:12.1f}\n")


def importance(model, verdict, x, sigma, draws=400):
    """ln p(x) (N,) by importance sampling from q(z | x): from below, as the ELBO is, and closer."""
    from scipy.special import logsumexp

    rng, terms = np.random.default_rng(0), []
    v = verdict.variance.astype(float)
    for _ in range(draws):
        e = rng.normal(size=v.shape)
        z = verdict.mu + np.sqrt(v) * e
        V = sigma**2 + model.scatter(z).astype(float) ** 2
        ln = -0.5 * ((x - model.decode(z)) ** 2 / V + np.log(2 * np.pi * V)).sum(1)
        terms.append(ln - 0.5 * (z * z).sum(1) + 0.5 * (e * e + np.log(v)).sum(1))
    return logsumexp(terms, axis=0) - np.log(draws)


def principal(train, noise, x, sigma, rank, steps=50):
    """Reconstruction (N, K) and ln p(x) (N,) of x ~ N(m, W W^T + diag(s^2 + sigma^2)), fitted by EM to training stars.

    Factor analysis that knows each star's noise: what principal components become with errors and scatter.
    """
    m = np.average(train, axis=0, weights=1 / (noise**2 + np.var(train, 0)))
    u, d, vt = np.linalg.svd(train - m, full_matrices=False)
    W = vt[:rank].T * d[:rank] / np.sqrt(len(train))
    s2 = np.var(train - m - (u[:, :rank] * d[:rank]) @ vt[:rank], 0)

    def posterior(x, sigma):
        V = sigma**2 + s2
        A = np.einsum("ja,nj,jb->nab", W, 1 / V, W) + np.eye(rank)
        S = np.linalg.inv(A)
        return V, S, np.einsum("nab,jb,nj->na", S, W, (x - m) / V)

    for _ in range(steps):
        V, S, z = posterior(train, noise)
        second = S + z[:, :, None] * z[:, None, :]
        left = np.einsum("nj,nab->jab", 1 / V, second)
        W = np.linalg.solve(left, np.einsum("nj,na->ja", (train - m) / V, z)[..., None])[..., 0]
        r = train - m - z @ W.T
        spread = r**2 + np.einsum("ja,nab,jb->nj", W, S, W)
        gain = s2 / V  # posterior of the scatter's own part
        s2 = np.maximum((gain**2 * spread + s2 * (1 - gain)).mean(0), 1e-8)
        m = m + (r / V).sum(0) / (1 / V).sum(0)
    V, S, z = posterior(x, sigma)
    full = np.einsum("ja,ka->jk", W, W) + np.eye(len(m)) * V[:, None, :]
    _, ln_det = np.linalg.slogdet(full)
    d = x - m
    chi2 = np.einsum("nj,nj->n", d, np.linalg.solve(full, d[..., None])[..., 0])
    return m + z @ W.T, -0.5 * (chi2 + ln_det + len(m) * np.log(2 * np.pi))


PARTS = {f.__name__: f for f in (reconstruction, components)}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("input", nargs="+")
    parser.add_argument("-o", "--output")
    args = parser.parse_args()
    with context(style.RC, after_reset=True):
        PARTS[args.part](args)
