"""Does the generalist know physics? Extinction told from temperature, and the luminosity of giants by their mass.

python physics.py TABLE -o FIGURE

TABLE has answers of the Makefile: teff and ext_e from BP - RP alone (_colour) and from the spectra (_xp), and g_fakemag
from log g, Teff, [M/H], mass and E (_mass). A redder colour is a cooler or a more reddened star: errors of the two then
go together, along the line of constant colour. Spectra break that. At a given log g, L goes as M Teff^4: heavier giants
are brighter, by what the tables say, not the network; both are fitted in the same bins of the labels as given.
"""

import argparse
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from matplotlib.style import context

from xptools.figures import style

SLICES = ((1.8, 2.1), (2.1, 2.6), (2.6, 3.0))  # of log g; the middle one has the clump
EDGES = np.linspace(0.8, 2.0, 9)
FEWEST = 15  # stars of a bin


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table")
    parser.add_argument("-o", "--output", required=True)
    args = parser.parse_args()
    table = pq.read_table(args.table)
    with context(style.RC, after_reset=True):
        figure = style.canvas("double", 75.0)
        left, right = figure.subplots(1, 2)
        separated(table, left)
        luminosity(table, right)
        Path(args.output).write_bytes(style.encoded(figure, style.kind(args.output)))


def column(table, name):
    return table[name].to_numpy(zero_copy_only=False).astype(float)


def mad_std(x):
    return 1.4826 * np.median(np.abs(x - np.median(x)))


def separated(table, axis):
    """Errors of Teff and E, from the colour and from the spectra."""
    print("from          1.48 MAD of Teff [K]      of E      correlation of their errors")
    for name, words, colour in (("colour", "BP - RP", style.ORANGE), ("xp", "spectra", style.BLUE)):
        teff = column(table, f"teff_{name}") - column(table, "true_teff")
        E = column(table, f"ext_e_{name}") - column(table, "ext_e")
        r = np.corrcoef(teff, E)[0, 1]
        print(f"{words:12} {mad_std(teff):16.1f} {mad_std(E):16.4f} {r:16.2f}")
        axis.plot(E[:3000], teff[:3000], ".", ms=1.5, mew=0, color=colour, label=words, rasterized=True)
    axis.set(xlabel=r"$\Delta E$, answered $-$ true", ylabel=r"$\Delta T_{\rm eff}$, answered $-$ true [K]",
             ylim=(-450, 450), xlim=(-0.2, 0.2))  # fmt: skip
    axis.set_title("(a) from colour, from spectra", fontsize=8, pad=3)
    axis.legend(markerscale=5, loc="upper left")


def luminosity(table, axis):
    """Median M_G in bins of mass: of the stars, and as answered; slopes by log10 mass."""
    magnitude = 5 * np.log10(column(table, "true_parallax")) + column(table, "phot_g_mean_mag") - 10
    answer = 5 * np.log10(np.maximum(column(table, "g_fakemag_mass"), 1e-3)) - 10
    mass, logg = column(table, "mass"), column(table, "logg")
    print("log g        stars   dM_G/dlog M: of the stars   answered     largest difference of the medians [mag]")
    for (low, high), colour in zip(SLICES, (style.RED, style.GREEN, style.BLUE), strict=True):
        use = (logg > low) & (logg < high) & np.isfinite(magnitude + answer)
        rows = []
        for one, two in pairwise(EDGES):
            here = use & (mass > one) & (mass < two)
            if here.sum() >= FEWEST:
                rows.append([np.median(v[here]) for v in (mass, magnitude, answer)])
        if len(rows) < 2:
            print(f"{low:.1f} to {high:.1f} {use.sum():8,}   fewer than two bins of mass have {FEWEST} stars")
            continue
        m, star, told = np.array(rows).T
        slopes = [np.polyfit(np.log10(m), v, 1)[0] for v in (star, told)]
        print(f"{low:.1f} to {high:.1f} {use.sum():8,} {slopes[0]:24.2f} {slopes[1]:12.2f} "
              f"{np.abs(star - told).max():20.3f}")  # fmt: skip
        axis.plot(m, star, "o", ms=4, mfc="none", color=colour)
        axis.plot(m, told, color=colour, label=rf"${low:.1f} < \log g < {high:.1f}$")
    axis.invert_yaxis()
    axis.set(xlabel=r"Mass [$M_\odot$]", ylabel=r"Median $M_G + A_G$ [mag]")
    axis.set_title("(b) stars (circles), answered (lines)", fontsize=8, pad=3)
    axis.legend()


if __name__ == "__main__":
    main()
