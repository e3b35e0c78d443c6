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
from xptools.figures import style


def reconstruction(args):
    """RMS of flux residuals in errors at each wavelength: the auto-encoder, which reads the spectrum, and xp feh's
    network, which is told the true labels."""
    table = pq.read_table(args.input[0])
    data = Path(artefact.__file__).parent / "data"
    model = feh.Model(artefact.load(data / "feh_demo.safetensors", "feh").arrays)
    w = tuple(model.wavelength.tolist())
    design, k = xpbasis.design(w), 55
    values, made = block(table, "coefficients"), block(table, "reconstruction")
    flux, again = (xpbasis.flux(a[:, :k], a[:, k:], design) for a in (values, made))
    errors = block(table, "coefficient_errors")
    sigma = xpbasis.flux_errors(*(xpbasis.Coefficients(values[:, s], errors[:, s])
                                  for s in (slice(0, k), slice(k, None))), design)  # fmt: skip
    labels = columns(table, ("true_teff", "true_mg", "true_feh"))
    scaled = ((labels - feh.LABEL_MEAN) / feh.LABEL_SCALE).astype(np.float32)
    told = 1e-18 * np.exp(model.ln_flux(scaled)) * ((column(table, "true_parallax") / 100) ** 2)[:, None]
    use = np.isfinite(told).all(-1) & np.isfinite(flux).all(-1)
    rms = {n: np.sqrt(np.median(((flux - f) / sigma)[use] ** 2, 0) / 0.4549) for n, f in
           (("auto-encoder", again), ("network of labels", told))}  # fmt: skip
    figure = style.canvas("single", 62.0)
    axes = figure.subplots()
    for (name, values), colour in zip(rms.items(), (style.BLUE, style.RED), strict=True):
        axes.plot(w, values, color=colour, label=name)
        most = int(values.argmax())
        sys.stdout.write(
            f"{name}: residuals of {use.sum():,} dwarfs in errors, median over wavelengths "
            f"{np.median(values):.2f}, largest {values[most]:.2f} at {w[most]:.0f} nm\n"
        )
    axes.axhline(1, color=style.GREY, lw=0.6)
    axes.set(xlabel=r"$\lambda$ [nm]", ylabel="Robust RMS of residuals in errors")
    axes.legend()
    Path(args.output).write_bytes(style.encoded(figure, style.kind(args.output)))


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
