"""The six panels of Zhang M.+ (2026), Figs 4 and 5, in numbers, and the two heads of the network by proper scores.

python report.py panels PANELS [--train TABLE] [--trees 2000]   PANELS of the Makefile; panel a is trained on TABLE
python report.py heads GAUSSIAN MIXTURE   models of xp train ask, of the same stars and --seed

Mock giants are held against the truth, real ones against DistMass, whose errors are in the pulls then. Panel a is
XGBoost with the numbers of panel b and 2000 trees, as the paper's: 63, or 61 of mock giants, which have no J, H, Ks. It
needs the package xgboost-cpu (pip install 'xptools[comparison]') and is left out, by name, where that is absent.
"""

import argparse

import numpy as np
import pyarrow.parquet as pq

LABELS = {"mass": "Msun", "age": "Gyr"}
PAPER = {"mass": 0.114, "age": 1.334}  # 1.48 MAD of panel b on real giants, Zhang M.+ (2026)
TITLES = {"a": "XGBoost, same numbers", "b": "61 or 63 numbers", "c": "first 5 of each band", "d": "64 others",
          "e": "high orders only", "f": "high orders and labels"}  # fmt: skip
ZERO_POINT = 25.6873668671  # of G, mag


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = parser.add_subparsers(dest="part", required=True)
    one = parts.add_parser("panels")
    one.add_argument("panels")
    one.add_argument("--train")
    one.add_argument("--trees", type=int, default=2000)
    two = parts.add_parser("heads")
    two.add_argument("models", nargs=2)
    args = parser.parse_args()
    panels(args) if args.part == "panels" else heads(args.models)


def panels(args):
    table = pq.read_table(args.panels)
    boosted = trees(args.train, args.trees, table)
    print("panel                        label   stars  1.48 MAD       rms     error  width of pulls")
    for label, unit in LABELS.items():
        for letter, title in TITLES.items():
            truth, noise = reference(table, label, letter)
            name = f"{label}_{letter}"
            if letter == "a" and label not in boosted:
                continue
            got = boosted[label] if letter == "a" else numbers(table, name)
            error = None if letter == "a" else np.hypot(numbers(table, f"{name}_err"), noise)
            print(f"{letter}: {title:25} {label:5} {line(truth, got, error)}  {unit}")
    if "true_mass" not in table.column_names:
        print("the paper, panel b: " + ", ".join(f"{PAPER[n]} {unit}" for n, unit in LABELS.items()))


def numbers(table, name):
    """A column (N,)."""
    return table[name].to_numpy().astype(float)


def reference(table, label, letter):
    """What an answer is held against, and its error: the truth, else the label as it was observed, in Gyr.

    f is shown that label: it has to come back as it is.
    """
    if letter != "f" and f"true_{label}" in table.column_names:
        return numbers(table, f"true_{label}"), 0.0
    return numbers(table, label), 0.0 if letter == "f" else errors(table, label)


def errors(table, label):
    """The labels' own; DistMass has ages and their errors in years."""
    return numbers(table, "mass_err") if label == "mass" else numbers(table, "age_err") / 1e9


def line(truth, got, error):
    """Scatter about the truth, stated error, width of the pulls."""
    use = np.isfinite(truth) & np.isfinite(got)
    off = truth[use] - got[use]
    words = f"{use.sum():7,} {mad_std(off):9.4f} {np.sqrt(np.mean(off**2)):9.4f}"
    if error is None:
        return f"{words} {'-':>9} {'-':>7}"
    return f"{words} {np.median(error[use]):9.4f} {np.std(off / error[use]):7.3f}"


def mad_std(x):
    return 1.4826 * np.median(np.abs(x - np.median(x)))


def trees(train, number, table):
    """Labels by XGBoost; empty where there is nothing to train on or no XGBoost."""
    if not train:
        print("a: XGBoost is left out: no --train (make TRAINED=1)")
        return {}
    try:
        import xgboost
    except ImportError:
        print("a: XGBoost is left out: the package xgboost-cpu is not installed (pip install 'xptools[comparison]')")
        return {}
    known = pq.read_table(train)
    x, new, out = features(known), features(table), {}
    for label in LABELS:
        y = numbers(known, label)
        use = np.isfinite(y) if "bitmask" not in known.column_names else sound(known, y)
        centre, width = y[use].mean(), y[use].std()
        model = xgboost.train({"seed": 0}, xgboost.DMatrix(x[use], (y[use] - centre) / width), number)
        out[label] = model.predict(xgboost.DMatrix(new)) * width + centre
    return out


def sound(table, y):
    """Labels of DistMass that the recipe distmass takes."""
    logg = numbers(table, "logg")
    return np.isfinite(y) & ((table["bitmask"].to_numpy() & 2) == 0) & (logg > 1) & (logg < 3.5)


def features(table):
    """BP 0-29 and RP 0-29 over the flux in G, NaN beyond the relevant ones, BP - RP, and J - H, J - Ks if they are
    there: (N, 61) or (N, 63)."""
    flux = 10 ** ((ZERO_POINT - numbers(table, "phot_g_mean_mag")) / 2.5)
    parts = []
    for band in ("bp", "rp"):
        values = table[f"{band}_coefficients"].combine_chunks()
        block = values.flatten().to_numpy().reshape(len(values), -1)[:, :30] / flux[:, None]
        relevant = table[f"{band}_n_relevant_bases"].to_numpy()[:, None]
        parts.append(np.where(np.arange(30) < relevant, block, np.nan))
    parts.append(numbers(table, "bp_rp")[:, None])
    if "j_m" in table.column_names:
        parts += [(numbers(table, "j_m") - numbers(table, n))[:, None] for n in ("h_m", "ks_m")]
    return np.hstack(parts)


def heads(models):
    """Mean -ln p and CRPS (standardised units) of held-out labels, as the model files have them."""
    from xptools.artefact import about

    one, two = (about(path) for path in models)
    same = ("input", "sha256", "seed", "rows", "epochs", "batch", "rate", "requests")
    other = [k for k in same if one.training[k] != two.training[k]]
    if other:
        raise SystemExit(f"the models differ in {', '.join(other)}, not in the head alone")
    gaussian, mixture = (m.metrics["labels"] for m in (one, two))
    print("label      stars     -ln p gaussian  mixture    gain      CRPS gaussian  mixture    gain"
          f"      ({one.shape['sizes']['components']} and {two.shape['sizes']['components']} components)")  # fmt: skip
    for name, g in gaussian.items():
        m = mixture[name]
        nll, crps = ((g[k], m[k], g[k] - m[k]) for k in ("nll", "crps"))
        print(f"{name:8} {g['stars']:7,}   " + "  ".join(f"{v:12.4f} {w:10.4f} {d:+9.4f}" for v, w, d in (nll, crps)))


if __name__ == "__main__":
    main()
