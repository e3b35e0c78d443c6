"""The steps of this example that are no command of xp: tracks in latent space, the alpha bimodality, comparisons.

python science.py gather|tracks|alpha|reconstruction|split|components|published|apogee INPUT... -o OUTPUT
"""

import argparse
import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib.style import context

from xptools import artefact
from xptools.cores import feh, keyed, vae, vae_fit, vae_inspect, xpbasis
from xptools.figures import style

LATENTS = [f"z{k}" for k in range(1, 7)]


def column(table, name):
    return table[name].to_numpy(zero_copy_only=False).astype(float)


def block(table, name):
    return np.concatenate([np.stack(table[f"{b}_{name}"].to_numpy(zero_copy_only=False)) for b in ("bp", "rp")], 1)


def gather(args):
    """One table of all populations, with true_alpha and rows in the order of mixed identifiers."""
    parts = []
    for n, path in enumerate(args.input):
        table = pq.read_table(path)
        alpha = float(re.search(r"(\d\.\d+)\.parquet", path)[1])
        table = table.append_column("true_alpha", pa.array(np.full(len(table), alpha, np.float32)))
        ids = pa.array(table["source_id"].to_numpy() + (n << 50))  # every mock counts its own stars
        parts.append(table.set_column(table.schema.get_field_index("source_id"), "source_id", ids))
    whole = pa.concat_tables(parts)
    pq.write_table(whole.take(np.argsort(keyed.mixed(whole["source_id"].to_numpy(), 0))), args.output)


def tracks(args):
    """Giants on the branch's Teff - log g relation (eq. 12), and of rising [Fe/H] at three Teff, among latents."""
    table = pq.read_table(args.input[0])
    teff, logg, metals = (column(table, f"true_{n}") for n in ("teff", "logg", "feh"))
    z = np.stack([column(table, n) for n in LATENTS], -1)
    know = {n: vae_inspect.ranked(z, v)[0][0] for n, v in (("teff", teff), ("feh", metals))}
    a, b = know["teff"], know["feh"]
    if a == b:
        b = vae_inspect.ranked(z, metals)[1][0]
    figure = style.canvas("double", 78.0)
    left, right = figure.subplots(1, 2)
    image = left.scatter(z[:, a], z[:, b], c=teff, s=1, cmap="magma", rasterized=True, lw=0)
    figure.colorbar(image, ax=left, label=r"$T_{\rm eff}$ [K]")
    line = []
    for g in np.linspace(1.0, 3.4, 13):
        branch = 1000 * (3.59 + 0.44 * g if g < 3.65 else 0.09 + 1.4 * g)
        near = (np.abs(logg - g) < 0.1) & (np.abs(teff - branch) < 150)
        if near.sum() >= 20:
            line.append((g, *np.median(z[near][:, [a, b]], 0)))
    line = np.array(line)
    left.plot(line[:, 1], line[:, 2], color=style.GREEN, marker="o", ms=3, path_effects=style.outlined())
    left.set(xlabel=LATENTS[a], ylabel=LATENTS[b], title="giant branch, log g 1 to 3.4")
    image = right.scatter(z[:, a], z[:, b], c=metals, s=1, cmap="viridis", vmin=-1.2, rasterized=True, lw=0)
    figure.colorbar(image, ax=right, label="[Fe/H]")
    for temperature, colour in zip((4300, 4600, 4900), (style.RED, style.ORANGE, style.SKY), strict=False):
        rows = [np.abs(teff - temperature) < 100] * 8
        points = [np.median(z[r & (np.abs(metals - m) < 0.1)][:, [a, b]], 0)
                  for r, m in zip(rows, np.linspace(-1.0, 0.4, 8), strict=True)
                  if (r & (np.abs(metals - m) < 0.1)).sum() >= 20]  # fmt: skip
        right.plot(*np.array(points).T, color=colour, marker="o", ms=3, label=f"{temperature} K",
                   path_effects=style.outlined())  # fmt: skip
    right.set(xlabel=LATENTS[a], title="[Fe/H] -1 to 0.4")
    right.legend(loc="lower left")
    Path(args.output).write_bytes(style.encoded(figure, style.kind(args.output)))


def is_high(metals, alpha):
    """Above the curve that divides the discs (Patil+ 2023)."""
    return alpha > ((0.1754 * metals + 0.1119) * metals - 0.1253) * metals + 0.1353


def alpha(args):
    """Four classifiers of high and low [alpha/Fe]; precision and recall of both classes, on a tenth of the stars.

    differs from LS24 Sec. 5: 25 nearest neighbours in place of a random forest, colours BP-RP and G-RP in place of J-H
    and J-K, and no feature array has rows of different stars. The last row, all coefficients with the classes known, is
    what can be had from the spectra, but not without labels.
    """
    table = pq.read_table(args.input[0])
    name = (lambda n: n) if args.plain else (lambda n: f"true_{n}")
    high = is_high(column(table, name("feh")), column(table, name("alpha")))
    labels = [column(table, n) for n in ("feh", "teff", "logg")]  # as a survey has them, with errors
    G, rp = column(table, "phot_g_mean_mag"), column(table, "phot_rp_mean_mag")
    latents = [column(table, n) for n in LATENTS]
    features = {
        "[M/H]": labels[:1], "labels": labels, "labels + colours": [*labels, column(table, "bp_rp"), G - rp],
        "latents": latents,
    }  # fmt: skip
    if "bp_coefficients" in table.schema.names:
        features["all coefficients"] = [*(block(table, "coefficients").T / column(table, "phot_g_mean_flux"))]
    test = keyed.uniform(table["source_id"].to_numpy(), 9) < 0.1
    cool = column(table, "teff") < 5000
    lines = [
        f"{len(high):,} giants, {high.mean():.3f} with high alpha; {test.sum():,} to test",
        "features             accuracy   high: prec. recall     low: prec. recall   acc. < 5000 K",
    ]
    for title, some in features.items():
        x = np.stack(some, -1)
        use = np.isfinite(x).all(-1)
        classify = neighbours if x.shape[1] < 20 else linear
        guess = classify(x[use & ~test], high[use & ~test], x[use & test])
        truth = high[use & test]
        right = guess == truth
        hh, hl, lh, ll = ((a & b).sum() for a, b in
                          ((truth, guess), (truth, ~guess), (~truth, guess), (~truth, ~guess)))  # fmt: skip
        shares = (hh / (hh + lh), hh / (hh + hl), ll / (ll + hl), ll / (ll + lh), right[cool[use & test]].mean())
        lines.append(f"{title:20} {right.mean():8.3f}" + "".join(f"{v:{n}.3f}" for v, n in
                     zip(shares, (16, 7, 16, 7, 16), strict=True)))  # fmt: skip
    Path(args.output).write_text("\n".join(lines) + "\n")


def neighbours(x, classes, new, k=25):
    """The majority (M,) among the k nearest of x (N, n), columns scaled to unit spread."""
    from scipy.spatial import cKDTree

    middle, size = x.mean(0), x.std(0)
    _, near = cKDTree((x - middle) / size).query((new - middle) / size, k)
    return classes[near].mean(1) > 0.5


def linear(x, classes, new):
    """Which (M,) of new least squares on x (N, n) puts into the class."""
    middle, size = x.mean(0), x.std(0)
    both = [np.concatenate([np.ones((len(v), 1)), (v - middle) / size], 1) for v in (x, new)]
    return both[1] @ np.linalg.lstsq(both[0], classes - 0.5, rcond=1e-6)[0] > 0


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
    labels = np.stack([column(table, f"true_{n}") for n in ("teff", "mg", "feh")], -1)
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


def split(args):
    """1,800 stars to train and 200 to test, by mixed identifiers."""
    table = pq.read_table(args.input[0])
    order = np.argsort(keyed.mixed(table["source_id"].to_numpy(), 200))
    for name, some in (("test", order[:200]), ("train", order[200:])):
        pq.write_table(table.take(np.sort(some)), f"{args.output}-{name}.parquet")


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


def published(args):
    """The published training's metrics, whose rows have lost their line breaks, as a table of epoch, loss, score."""
    text = Path(args.input[0]).read_text()
    head, _, rest = text.partition("lr")
    width = len(head.split(","))
    number = r"-?\d+\.\d+(?:e[+-]\d+)?"
    row = re.compile(",".join([number] * (width - 1)) + r",(\d\.\d{4}e-\d\d)")
    rows = [[float(v) for v in found[0].split(",")] for found in row.finditer(rest)]
    loss, score = (np.array([r[head.split(",").index(n)] for r in rows]) for n in ("loss", "val_loss"))
    pq.write_table(pa.table({"epoch": np.arange(len(rows)), "loss": loss, "score": score}), args.output)


def apogee(args):
    """The paper's catalogue (Zenodo 10951393, HDF5) as a table for xp: lists by band, labels under plain names."""
    import h5py

    plain = {"phot_g_mean_flux": "phot_g_mean_flux", "teff": "TEFF", "logg": "LOGG", "feh": "M_H", "alpha": "ALPHA_M"}
    writer = None
    with h5py.File(args.input[0]) as file:
        rows = file["__astropy_table__"]
        for start in range(0, len(rows), 20_000):
            some = rows[start : start + 20_000]
            columns = {"source_id": pa.array(some["ids"].astype(np.int64))}
            for name, key in (("coefficients", "coeffs"), ("coefficient_errors", "coeff_errs")):
                for k, band in enumerate(("bp", "rp")):
                    values = np.ascontiguousarray(some[key][:, 55 * k : 55 * (k + 1)], np.float64).reshape(-1)
                    columns[f"{band}_{name}"] = pa.FixedSizeListArray.from_arrays(pa.array(values), 55)
            columns |= {name: pa.array(some[key].astype(np.float64)) for name, key in plain.items()}
            table = pa.table(columns)
            writer = writer or pq.ParquetWriter(args.output, table.schema)
            writer.write_table(table)
    writer.close()


PARTS = {f.__name__: f for f in (gather, tracks, alpha, reconstruction, split, components, published, apogee)}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("input", nargs="+")
    parser.add_argument("-o", "--output")
    parser.add_argument("--plain", action="store_true", help="labels stand in columns without true_")
    args = parser.parse_args()
    with context(style.RC, after_reset=True):
        PARTS[args.part](args)
