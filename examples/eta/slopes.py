"""Slopes alpha1 of three mass functions: `python slopes.py all.parquet cut.parquet corrected.parquet`.

The stars of the other two are some of those of the first, so the error of a difference is the root of the difference of
the squared errors; that of the third holds the error of the completeness too.
"""

import sys

import numpy as np
import pyarrow.parquet as pq

from xptools import metadata


def slopes(path):
    """[Fe/H] edges, and alpha1 with its error for each bin."""
    bins = metadata.value_of(pq.read_schema(path), "xp.mf")["feh"]
    first = [b["slopes"][0]["poisson"] for b in bins]
    return [(b["feh_lo"], b["feh_hi"]) for b in bins], *(np.array([s[k] for s in first]) for k in ("mean", "sd"))


edges, whole, error = slopes(sys.argv[1])
print("alpha1 of all stars     bias by the cut      bias left after correction")
found = []
for path in sys.argv[2:4]:
    _, value, own = slopes(path)
    found.append((value - whole, np.sqrt(np.maximum(own**2 - error**2, 0.0))))
for k, (low, high) in enumerate(edges):
    words = [f"{bias[k]:+.3f} +- {sd[k]:.3f}" for bias, sd in found]
    print(f"[{low:.1f}, {high:.1f}] {whole[k]:.3f} +- {error[k]:.3f}   {'      '.join(words)}")
words = [f"{np.average(b, weights=s**-2):+.3f} +- {np.sum(s**-2.0) ** -0.5:.3f}" for b, s in found]
print(f"all bins                      {'      '.join(words)}")
