"""How wide the pulls of xp ask's answers are, context by context, on mock giants that no model has seen.

python tests/ask_pulls.py [--model FILE] [--stars 25000] [--seed 2]

Hidden labels: (label - answer) / sqrt(total^2 + sigma^2) with the labels' own errors, which is what held-out stars can
tell, and (truth - answer) / total, which only a mock can. Printed are their rms, wild stars and bias included, and how
many of all pairs of context and label are within a tenth of 1. Labels that are shown come back to a thousandth of their
scatter or so; their pulls are marked and counted apart. Of spectra that are answered, orders of coefficients.
"""

import argparse

import numpy as np
import pyarrow as pa

import xptools
from xptools.arrays import to_numpy
from xptools.mock import Mock

LABELS = ("ext_e", "teff", "logg", "mh", "alpha_m", "mass", "age")
BANDS = "bp,rp"
CONTEXTS = {
    "spectra": BANDS, "spectra, colour": f"{BANDS},bprp", "all but labels": f"{BANDS},bprp,g_fakemag,ext_e",
    "spectra, parallax": f"{BANDS},g_fakemag", "BP": "bp", "RP": "rp", "colour": "bprp",
    "colour, parallax, E": "bprp,g_fakemag,ext_e", "b: 61 numbers": "bp[0:30],rp[0:30],bprp",
    "c: first 5": "bp[0:5],rp[0:5],bprp", "d: 64 others": "bp[1:33],rp[1:33]", "e: high orders": "bp[25:55],rp[25:55]",
    "f: e and labels": "bp[25:55],rp[25:55],age,mh,logg,mass,teff", "first 10": "bp[0:10],rp[0:10]",
    "first 2": "bp[0:2],rp[0:2]", "BP, first 3": "bp[0:3]", "Teff, log g, [M/H], parallax": "teff,logg,mh,g_fakemag",
    "Teff, [M/H]": "teff,mh", "log g, mass": "logg,mass", "spectra, Teff": f"{BANDS},teff",
    "spectra, log g": f"{BANDS},logg", "spectra, age": f"{BANDS},age",
}  # fmt: skip
SPECTRA = {"labels": "teff,logg,mh,mass,ext_e", "BP": "bp", "first 5": "bp[0:5],rp[0:5]", "colour": "bprp"}
ORDERS = (0, 1, 2, 3, 5, 10, 20, 40)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="")
    parser.add_argument("--stars", type=int, default=25_000, help="Drawn; a third of them is seen.")
    parser.add_argument("--seed", type=int, default=2)
    args = parser.parse_args()
    mock = Mock(args.stars, seed=args.seed, sample="giants", max_distance=3.0, spectra=True, map="toy")
    table = pa.Table.from_batches(list(mock.record_batches(1 << 20)), mock.schema()).combine_chunks()
    names = ["ext_e" if n == "true_ext_e" else n for n in table.schema.names]
    batch = table.rename_columns(names).to_batches()[0]
    found = []
    for title, context in CONTEXTS.items():
        rows = [pulls(batch, label, context, args.model) for label in LABELS]
        found += rows
        words = "; ".join(f"{n} {a:.2f} {b:.2f}{'*' * s}" for n, (a, b, s) in zip(LABELS, rows, strict=True))
        print(f"{title:28} {words}", flush=True)
    for shown, words in ((False, "hidden"), (True, "shown")):
        pairs = np.array([r[:2] for r in found if r[2] == shown])
        near = (np.abs(np.log(pairs)) < np.log(1.1)).sum(0)
        print(f"{words}, of {len(pairs)} pairs within a tenth: {near[0]} by labels, {near[1]} by truth, "
              f"range {pairs.min(0).round(2)} to {pairs.max(0).round(2)}")  # fmt: skip

    for title, context in SPECTRA.items():
        for band in ("bp", "rp")[title == "BP" :]:
            words = " ".join(f"{a:.2f}" for a in spectral(batch, band, context, args.model))
            print(f"{band.upper()} from {title}, orders {', '.join(map(str, ORDERS))}: {words}", flush=True)


def spectral(batch, band, context, model):
    """Rms of the pulls of some orders of a band."""
    step = xptools.op(f"ask {band}_coefficients --given {context} --suffix _x" + (f" --model {model}" if model else ""))
    out = step(batch)
    names = (
        f"{band}_coefficients",
        f"{band}_coefficient_errors",
        f"{band}_coefficients_x",
        f"{band}_coefficient_errors_x",
    )
    observed, sigma, answer, total = (to_numpy(out[name], name)[:, list(ORDERS)] for name in names)
    return np.sqrt(np.nanmean((observed - answer) ** 2 / (total**2 + sigma**2), 0))


def pulls(batch, label, context, model):
    """Rms of the pulls by labels and by truth, and whether the label is shown; stars of `batch`."""
    step = xptools.op(f"ask {label} --given {context} --suffix _x" + (f" --model {model}" if model else ""))
    out = step(batch)

    def numbers(name):
        return out.column(out.schema.get_field_index(name)).to_numpy(zero_copy_only=False).astype(float)

    shown = label in context.split(",")
    observed, answer, total = numbers(label), numbers(f"{label}_x"), numbers(f"{label}_x_err")
    sigma = 0.0 if shown or label == "ext_e" else numbers(f"{label}_err")
    truth = observed if shown or label == "ext_e" else numbers(f"true_{label}")
    squares = (observed - answer) ** 2 / (total**2 + sigma**2), ((truth - answer) / total) ** 2
    return *(np.sqrt(np.nanmean(a)) for a in squares), shown


if __name__ == "__main__":
    main()
