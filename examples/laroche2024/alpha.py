"""Four classifiers of stars with high and low [alpha/Fe] (LS24 Sec. 5): precision and recall of both classes.

python alpha.py LATENTS.parquet -o alpha.txt

A tenth of the stars is left to test. differs from the paper: precision and recall are both told, no array of features
has rows of different stars, and mock stars, which have no J, H and K, have the colours BP-RP and G-RP instead. The last
row is what can be had from all coefficients by least squares with the classes known, but not without labels.
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from sklearn.ensemble import RandomForestClassifier
from tables import LATENTS, block, column, columns

from xptools.cores import keyed

GIANT = 3.5  # log g below which mock stars count
NEAR_INFRARED = ("j", "h", "k")


def main(given):
    table = pq.read_table(given.input)
    truth, use = classes(table)
    table, truth = table.filter(use), truth[use]
    test = keyed.uniform(table["source_id"].to_numpy(), 9) < 0.1
    cool = column(table, "teff") < 5000
    lines = [
        f"{len(truth):,} stars, {truth.mean():.3f} with high alpha; {test.sum():,} to test",
        "features             accuracy   high: prec. recall     low: prec. recall   acc. < 5000 K",
    ]
    for title, x in features(table).items():
        whole = np.isfinite(x).all(-1)
        classify = grown if x.shape[1] < 20 else linear
        guess = classify(x[whole & ~test], truth[whole & ~test], x[whole & test])
        lines.append(f"{title:20} {scores(truth[whole & test], guess, cool[whole & test])}")
    Path(given.output).write_text("\n".join(lines) + "\n")


def classes(table):
    """(high alpha, which stars count): real ones by [Fe/H] and [Mg/Fe] where labels are good, mock giants by truth."""
    if "mg_fe" in table.schema.names:
        metals, alpha = column(table, "fe_h"), column(table, "mg_fe")
        use = table["pristine"].to_numpy(zero_copy_only=False).astype(bool)
        use &= (column(table, "bp_rp") > 0) & (column(table, "bp_rp") < 4)
    else:
        metals = column(table, "true_feh")
        alpha = column(table, "true_alpha_m") + column(table, "true_mh") - metals
        use = column(table, "true_logg") < GIANT
    return is_high(metals, alpha), use & np.isfinite(metals) & np.isfinite(alpha)


def is_high(metals, alpha):
    """Above the curve that divides the discs (Patil+ 2023)."""
    return alpha > ((0.1754 * metals + 0.1119) * metals - 0.1253) * metals + 0.1353


def features(table):
    """The four sets of the paper and all coefficients; labels as a survey has them, with errors."""
    labels = columns(table, ("mh", "teff", "logg"))
    if all(name in table.schema.names for name in NEAR_INFRARED):
        j, h, k = columns(table, NEAR_INFRARED).T
        colours = np.stack([j - h, j - k], -1)
    else:
        G, RP = column(table, "phot_g_mean_mag"), column(table, "phot_rp_mean_mag")
        colours = np.stack([column(table, "bp_rp"), G - RP], -1)
    return {
        "[M/H]": labels[:, :1], "labels": labels, "labels + colours": np.concatenate([labels, colours], 1),
        "latents": columns(table, LATENTS),
        "all coefficients": block(table, "coefficients") / column(table, "phot_g_mean_flux")[:, None],
    }  # fmt: skip


def scores(truth, guess, cool):
    """Accuracy, precision and recall of high and of low, accuracy of cool stars, in columns."""
    hh, hl, lh, ll = ((a & b).sum() for a, b in ((truth, guess), (truth, ~guess), (~truth, guess), (~truth, ~guess)))
    right = guess == truth
    shares = (hh / max(hh + lh, 1), hh / (hh + hl), ll / max(ll + hl, 1), ll / (ll + lh), right[cool].mean())
    return f"{right.mean():8.3f}" + "".join(f"{v:{n}.3f}" for v, n in zip(shares, (16, 7, 16, 7, 16), strict=True))


def grown(x, classes, new):
    """Which (M,) of new (M, n) a random forest grown on x (N, n) puts into the class."""
    return RandomForestClassifier(random_state=0, n_jobs=-1).fit(x, classes).predict(new)


def linear(x, classes, new):
    """Which (M,) of new least squares on x (N, n) puts into the class."""
    middle, size = x.mean(0), x.std(0)
    both = [np.concatenate([np.ones((len(v), 1)), (v - middle) / size], 1) for v in (x, new)]
    return both[1] @ np.linalg.lstsq(both[0], classes - 0.5, rcond=1e-6)[0] > 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("input")
    parser.add_argument("-o", "--output", required=True)
    main(parser.parse_args())
