"""The six panels of Zhang M.+ (2026), Figs 4 and 5, in numbers, and the two heads of the network by proper scores.

python report.py panels PANELS [--train TABLE] [--trees 2000]   PANELS of the Makefile; panel a is trained on TABLE
python report.py heads GAUSSIAN MIXTURE   models of xp train ask, of the same stars and --seed

Panel a is XGBoost with the 61 numbers of panel b and 2000 trees, as the paper's (which has two colours more). It needs
the package xgboost-cpu (pip install 'xptools[comparison]') and is left out, by name, where that is absent.
"""

import argparse

import numpy as np
import pyarrow.parquet as pq

LABELS = {"mass": "Msun", "age": "Gyr"}
TITLES = {"a": "XGBoost, 61 numbers", "b": "61 numbers", "c": "first 5 of each band", "d": "64 others",
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
            # f is shown the label as it was observed: that is what has to come back
            truth = table[label if letter == "f" else f"true_{label}"].to_numpy().astype(float)
            name = f"{label}_{letter}"
            if letter == "a" and label not in boosted:
                continue
            got = boosted[label] if letter == "a" else table[name].to_numpy().astype(float)
            error = None if letter == "a" else table[f"{name}_err"].to_numpy().astype(float)
            print(f"{letter}: {title:25} {label:5} {line(truth, got, error)}  {unit}")


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
        y = known[label].to_numpy().astype(float)
        use = np.isfinite(y)
        centre, width = y[use].mean(), y[use].std()
        model = xgboost.train({"seed": 0}, xgboost.DMatrix(x[use], (y[use] - centre) / width), number)
        out[label] = model.predict(xgboost.DMatrix(new)) * width + centre
    return out


def features(table):
    """BP 0-29 and RP 0-29 over the flux in G, NaN beyond the relevant ones, and BP - RP: (N, 61)."""
    flux = 10 ** ((ZERO_POINT - table["phot_g_mean_mag"].to_numpy().astype(float)) / 2.5)
    parts = []
    for band in ("bp", "rp"):
        values = table[f"{band}_coefficients"].combine_chunks()
        block = values.flatten().to_numpy().reshape(len(values), -1)[:, :30] / flux[:, None]
        relevant = table[f"{band}_n_relevant_bases"].to_numpy()[:, None]
        parts.append(np.where(np.arange(30) < relevant, block, np.nan))
    return np.hstack([*parts, table["bp_rp"].to_numpy().astype(float)[:, None]])


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
