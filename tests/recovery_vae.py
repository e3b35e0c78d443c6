"""What `xp train vae` and `xp vae` recover of mock spectra whose truth is known; long, `make recovery` runs it.

python tests/recovery_vae.py [PART ...] [--stars N] [--epochs N] [--model FILE]

scatter: exact mock coefficients, known intrinsic scatter and independent noise put in; is the variance of standardised
residuals of new stars 1 per coefficient, and the scatter what was put in? labels: rank correlations of true labels with
what probes of the latents predict for stars that they were not fitted to (least squares, linear and quadratic, and a
random forest), against the best single coefficient, which a probe must beat, the same probes of as many principal
components, and least squares on all coefficients that is told the labels. dust: the same of giants up to 4 kpc away,
whose extinction varies: is it told apart from temperature? outliers: the area under the curve of 1 - vae_p for planted
strange spectra. covariance: what the correlations in the loss gain. latents: the held-out loss by their number. Where
there is an option it is the command line that is asked.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from xptools import train
from xptools.cores import mock_spectra, vae, vae_fit, vae_fitting, vae_inspect
from xptools.cores.vae_training import Sample

MOCK = "mock {n} --seed {seed} --spectra --fractions 0.5 0.25 0.25 --g-limit 16.5 --map toy"
LABELS = ("true_teff", "true_logg", "true_feh", "true_ext_e")
TRAIN = ("--batch", 64, "--rate", "1e-3", "--warm", 0.5)
XP = str(Path(sys.executable).parent / "xp")


def main():
    args = arguments()
    with tempfile.TemporaryDirectory() as folder:
        for part in args.parts or PARTS:
            print(f"== {part}", flush=True)
            PARTS[part](args, Path(folder))


def xp(*words):
    done = subprocess.run([XP, *map(str, words)], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stderr


def mocked(path, n, seed, *more):
    """A mock table; about half of n stars."""
    if not path.exists():
        xp(*MOCK.format(n=n, seed=seed).split(), *more, "-o", path)
    return pq.read_table(path)


def block(table, name):
    return np.concatenate([np.stack(table[f"{b}_{name}"].to_numpy(zero_copy_only=False)) for b in ("bp", "rp")], 1)


def modelled(folder, args):
    """A model trained on mock stars, and other stars of the same kind."""
    model = Path(args.model or folder / "m.safetensors")
    if not model.exists():
        mocked(folder / "train.parquet", 2 * args.stars, 1)
        print(xp("train", "vae", *TRAIN, "--epochs", args.epochs, folder / "train.parquet", "-o", model), end="")
    return model, mocked(folder / "test.parquet", args.stars, 2)


def scatter(args, folder):
    clean = mocked(folder / "clean.parquet", 4 * args.stars, 3, "--noise", 0)
    G = clean["phot_g_mean_flux"].to_numpy()[:, None]
    x, sigma, rng = block(clean, "coefficients") / G, block(clean, "coefficient_errors") / G, np.random.default_rng(0)
    moments = vae_fitting.Moments()
    moments.add(x + sigma * rng.normal(size=x.shape))
    norms = moments.norms()
    sigma = sigma / norms["norm.scale"]
    true = 0.5 * np.median(sigma, 0) * np.exp(rng.normal(0, 0.5, 110))
    true = np.minimum(true, 0.9)  # the network's sigmoid holds less than 1
    x = (x - norms["norm.mean"]) / norms["norm.scale"]
    x = x + true * rng.normal(size=x.shape) + sigma * rng.normal(size=x.shape)
    both = Sample.of(x.astype("f4"), sigma.astype("f4"))
    plan = vae_fitting.Plan(epochs=2 * args.epochs, batch=128, rate=1e-3, settle=0.4)
    rest, held, new = both.rows(slice(0, args.stars)), both.rows(slice(-5000, None)), slice(args.stars, -5000)
    learner = vae_fitting.learner(plan, norms, lambda _: iter((rest,)), held)
    fit = vae_fitting.trained(plan, learner, train, None)
    arrays, _, _ = vae_fitting.finished(fit.arrays, norms, held, 0)
    model, x, sigma = vae.Model(arrays), x[new].astype("f4"), sigma[new].astype("f4")
    verdict = vae_fit.judged(model, x, sigma)
    v = vae_fitting.predictive_pulls(model, x, sigma, verdict, 1).var(0)
    print(f"{len(rest.x):,} stars to train, {len(x):,} new; variance of standardised residuals by coefficient: "
          f"{v.min():.3f} to {v.max():.3f}, median {np.median(v):.3f}; within 5 %: {np.mean(np.abs(v - 1) < 0.05):.2f} "
          f"(sampling scatter {np.sqrt(2 / len(x)):.4f})")
    found = np.median(verdict.scatter, 0)
    for k in np.flatnonzero(np.abs(v - 1) > 0.05):
        print(f"beyond 5 %: {'bp' if k < 55 else 'rp'}{k % 55} {v[k]:.3f}, scatter put in {true[k]:.3f}, found "
              f"{found[k]:.3f}, median noise {np.median(sigma[:, k]):.3f}")  # fmt: skip
    ratio = found / true
    print(f"scatter found over put in: median {np.median(ratio):.2f}, 90 % of coefficients "
          f"{np.quantile(ratio, 0.05):.2f} to {np.quantile(ratio, 0.95):.2f}")
    counts = np.histogram(verdict.probability, np.linspace(0, 1, 11))[0] / len(x)
    print("shares of vae_p in tenths:", " ".join(f"{c:.3f}" for c in counts),
          f"below 0.01 {np.mean(verdict.probability < 0.01):.4f}, 0.001 {np.mean(verdict.probability < 0.001):.4f}")


def labels(args, folder):
    model, _ = modelled(folder, args)
    z, y = knowledge(model, folder)
    best = {n: int(np.argmax([abs(vae_inspect.spearman(c, v)) for c in z.T])) for n, v in y.items()}
    print("the latent that knows most:", ", ".join(f"{n} z{k + 1}" for n, k in best.items()))


def dust(args, folder):
    folder = folder / "dust"
    folder.mkdir()
    for name, seed in (("train", 1), ("test", 2)):
        n = 2 * args.stars // (1 if name == "train" else 2)
        xp("mock", n, "--seed", seed, *"--sample giants --spectra --map toy --max-distance 4 --g-limit 15".split(),
           "-o", folder / f"{name}.parquet")  # fmt: skip
    words = (*TRAIN, "--epochs", args.epochs, folder / "train.parquet")
    print(xp("train", "vae", *words, "-o", folder / "g.safetensors"), end="")
    z, y = knowledge(folder / "g.safetensors", folder)
    guess = {name: vae_inspect.probed(z, v)["forest"] for name, v in y.items()}
    for name, v in y.items():
        others = np.stack([y[n] for n in LABELS if n != name], -1)
        off = {n: vae_inspect.spearman(guess[name] - v, y[n]) for n in LABELS if n != name}
        print(f"{name:12} at fixed others {vae_inspect.partial(guess[name], v, others):.3f}; what it gets wrong with "
              + ", ".join(f"{n} {rho:.2f}" for n, rho in off.items()))  # fmt: skip


def knowledge(model, folder):
    """Print what latents, coefficients and components of the test stars know of LABELS; latents and labels."""
    xp("vae", "--model", model, folder / "test.parquet", "-o", folder / "z.parquet")
    table = pq.read_table(folder / "z.parquet")
    z = np.stack([table[f"z{k}"].to_numpy() for k in range(1, 7)], -1).astype(float)
    x = block(table, "coefficients") / table["phot_g_mean_flux"].to_numpy()[:, None]
    parts = (x - x.mean(0)) / x.std(0)
    parts = parts @ np.linalg.svd(parts, full_matrices=False)[2][:6].T
    y = {name: table[name].to_numpy().astype(float) for name in LABELS}
    for name, v in y.items():
        axes, alone = (abs(vae_inspect.single(some, v)[1]) for some in (z, x))
        probes, others = probed(z, v), probed(parts, v)
        told = vae_inspect.spearman(vae_inspect.squares(vae_inspect.linear(x), v), v)
        words = ", ".join(f"{probe} {rho:.3f} ({others[probe]:.3f})" for probe, rho in probes.items())
        print(f"{name:11} best coefficient {alone:.3f}, latent {axes:.3f}; all latents (six principal components): "
              f"{words}; least squares on all coefficients {told:.3f}")  # fmt: skip
        if max(probes["linear"], probes["forest"]) <= alone:
            sys.exit(f"{name}: no probe beats the best coefficient")
    return z, y


def probed(x, y):
    """Rank correlation with y of each probe of x, of stars held out."""
    return {name: vae_inspect.spearman(guess, y) for name, guess in vae_inspect.probed(x, y).items()}


def outliers(args, folder):
    model, table = modelled(folder, args)
    n, rng = min(3000, len(table) // 2), np.random.default_rng(5)
    table = table.slice(0, 2 * n)
    plain, other = table.slice(0, n), table.slice(n, n)
    values, errors = block(plain, "coefficients"), block(plain, "coefficient_errors")
    G, G2 = (t["phot_g_mean_flux"].to_numpy()[:, None] for t in (plain, other))
    strange = {"carbon stars, C2 and CN bands": (values + carbon(plain), errors, G)}
    for share in (0.1, 0.3, 1.0):  # a blend has the sum of both stars' light, noise and G flux
        light = share * rng.uniform(0.5, 1, (n, 1))
        second = [light * block(other, name) * G / G2 for name in ("coefficients", "coefficient_errors")]
        both = (values + second[0], np.hypot(errors, second[1]), G * (1 + light))
        strange[f"blends with another star, up to {share:.0%}"] = both
    bp = np.arange(110) < 55
    strange["BP 10 % too bright"] = (values * np.where(bp, 1.1, 1.0), errors, G)
    wide = values + np.sqrt(8) * errors * rng.normal(size=values.shape)
    strange["noise of three times the stated error"] = (wide, errors, G)
    usual = probabilities(model, folder, plain, values, errors, G)
    print(f"usual stars: vae_p below 0.01 {np.mean(usual < 0.01):.4f}, below 0.001 {np.mean(usual < 0.001):.4f}")
    for name, spectra in strange.items():
        p = probabilities(model, folder, plain, *spectra)
        area = (usual[:, None] > p).mean() + 0.5 * (usual[:, None] == p).mean()
        print(f"{name:42} area under the curve {area:.3f}, found at vae_p < 0.01: {np.mean(p < 0.01):.3f}")


def carbon(table):
    """What bands of C2 (Swan) and CN take from the coefficients of these stars, as deep as in mild carbon stars."""
    labels = [table[f"true_{n}"].to_numpy().astype(float) for n in ("teff", "logg", "feh", "mg")]
    flux = mock_spectra.spectrum(*labels[:3], 0.0, labels[3])
    w = mock_spectra.GRID
    tau = sum(s * np.exp(-np.maximum(head - w, 0) / 15) / (1 + np.exp((w - head) / 2))
              for head, s in ((473.7, 0.3), (516.5, 0.5), (563.6, 0.3)))  # fmt: skip
    tau = tau + sum(0.2 * np.exp(-0.5 * ((w - c) / 12) ** 2) for c in (700, 800, 920))
    parts = []
    for band in ("bp", "rp"):
        whole, less = (mock_spectra.coefficients(f, band) for f in (flux, flux * np.exp(-tau)))
        seen = np.stack(table[f"{band}_coefficients"].to_numpy(zero_copy_only=False))
        scale = (seen * whole).sum(1) / (whole**2).sum(1)
        parts.append((less - whole) * scale[:, None])
    return np.concatenate(parts, 1)


def probabilities(model, folder, table, values, errors, flux):
    """vae_p of stars with these coefficients, errors and G flux instead."""
    columns = {"phot_g_mean_flux": pa.array(flux.ravel())}
    for band, some in (("bp", slice(0, 55)), ("rp", slice(55, 110))):
        for name, array in (("coefficients", values), ("coefficient_errors", errors)):
            flat = pa.array(np.ascontiguousarray(array[:, some]).ravel())
            columns[f"{band}_{name}"] = pa.FixedSizeListArray.from_arrays(flat, 55)
    for name, column in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, column)
    pq.write_table(table, folder / "in.parquet")
    xp("vae", "--model", model, "--add", "fit", folder / "in.parquet", "-o", folder / "out.parquet")
    return pq.read_table(folder / "out.parquet")["vae_p"].to_numpy()


def covariance(args, folder):
    n = args.stars // 4
    mocked(folder / "cov.parquet", n, 7, "--correlations")
    words = ("--batch", 64, "--rate", "1e-3", "--epochs", max(args.epochs // 3, 2))
    for name, more in (("independent errors", ()), ("with correlations", ("--covariance",))):
        said = xp("train", "vae", *words, *more, folder / "cov.parquet", "-o", folder / "c.safetensors")
        print(f"{name}: {said.splitlines()[-2].removeprefix('xp train vae: ')}")
        csv = folder / "i.csv"
        line = ("--inspect", ",".join(LABELS), folder / "cov.parquet", "-o", csv)
        xp("vae", "--model", folder / "c.safetensors", *line)
        rows = [r.replace('"', "").split(",") for r in csv.read_text().splitlines() if "forest" in r]
        print("   all latents:", ", ".join(f"{r[0]} {float(r[3]):.3f}" for r in rows))


def latents(args, folder):
    mocked(folder / "train.parquet", 2 * args.stars, 1)
    words = ("--batch", 128, "--rate", "1e-3", "--epochs", max(args.epochs // 3, 2), "--latents", "1,2,3,4,6,8")
    print(xp("train", "vae", *words, folder / "train.parquet", "-o", folder / "l.safetensors"), end="")


PARTS = {f.__name__: f for f in (scatter, labels, dust, outliers, covariance, latents)}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []])
    parser.add_argument("--stars", type=int, default=40_000)
    parser.add_argument("--model", help="ask this model about labels and outliers instead of training one")
    parser.add_argument("--epochs", type=int, default=60)
    return parser.parse_args()


if __name__ == "__main__":
    main()
