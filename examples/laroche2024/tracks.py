"""Where stars of known labels lie among latents: Kiel tracks, metallicity tracks, a track of [alpha/Fe] (LS24 Sec. 4).

python tracks.py LATENTS.parquet -o tracks.pdf

Stars along the main sequence (eq. 11) and the giant branch (eq. 12), stars of rising [M/H] at fixed Teff on both, and
giants of rising [alpha/Fe] at [M/H] = -0.4. The axes are those latents that know most of what is shown.
differs from the paper: windows are wider than 10 K, for there are fewer stars.
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from matplotlib.style import context
from tables import LATENTS, column, columns

from xptools.cores import vae_inspect
from xptools.figures import style

FEWEST = 10  # stars of a point
USED = 0.1  # spread of a latent that is in use
NAMES = ("teff", "logg", "mh", "alpha")


def main_sequence(teff):
    """log g of dwarfs (eq. 11)."""
    kilo = teff / 1000
    return np.where(kilo < 5, 4.6, np.where(kilo < 6.3, 7.1 - 0.5 * kilo, 3.95))


def giant_branch(logg):
    """Teff [K] of giants (eq. 12)."""
    return 1000 * np.where(logg < 3.65, 3.59 + 0.44 * logg, 0.09 + 1.4 * logg)


def is_dwarf(teff, logg):
    """Below the line between them (eq. 10)."""
    return logg > 5.9 - 0.4 * teff / 1000


def track(z, windows):
    """Median latents (points, 2) of stars z (N, 2) in each window (N,) that has enough of them."""
    points = [np.median(z[some], 0) for some in windows if some.sum() >= FEWEST]
    return np.array(points).reshape(-1, 2)


def axes_of(z, first, second):
    """The latent in use that knows most of one label, and of the others the one that knows most of another."""
    z = z * (z.std(0) > USED)
    a = vae_inspect.ranked(z, first)[0][0]
    return a, next(k for k, *_ in vae_inspect.ranked(z, second) if k != a)


def windows_of(stars):
    """Per panel the tracks as (name, colour, windows)."""
    teff, logg, mh, alpha, dwarf = (stars[n] for n in ("teff", "logg", "mh", "alpha", "dwarf"))
    kiel = [
        ("main sequence", style.SKY, [(np.abs(teff - t) < 50) & (np.abs(logg - main_sequence(t)) < 0.2) & dwarf
                                      for t in np.linspace(5000, 6300, 15)]),
        ("giant branch", style.GREEN, [(np.abs(logg - g) < 0.1) & (np.abs(teff - giant_branch(g)) < 150) & ~dwarf
                                       for g in np.linspace(0, 3.65, 20)]),
    ]  # fmt: skip
    metals = [
        (f"{kind} of {t} K", colour, [(np.abs(teff - t) < 100) & of & (np.abs(mh - m) < 0.2)
                                      for m in np.linspace(-2.5, 0.5, 10)[1:]])
        for kind, of, t, colour in (("giants", ~dwarf, 4343, style.RED), ("giants", ~dwarf, 4629, style.ORANGE),
                                    ("giants", ~dwarf, 4914, style.GREEN), ("dwarfs", dwarf, 4971, style.SKY),
                                    ("dwarfs", dwarf, 5543, style.BLUE))
    ]  # fmt: skip
    at = (np.abs(mh + 0.4) < 0.2) & ~dwarf
    levels = np.linspace(0, 0.4, 8)
    return kiel, metals, [("[M/H] = -0.4", style.GREEN, [at & (np.abs(alpha - a) < 0.05) for a in levels])]


def labels_of(table):
    """teff, logg, mh, alpha and whether a dwarf, each (N,): of the mock its truth, of a survey what it says."""
    if "true_teff" not in table.schema.names:
        stars = {n: column(table, key) for n, key in zip(NAMES, ("teff", "logg", "mh", "alpha_m"), strict=True)}
    else:
        teff, logg, feh, mh = (column(table, f"true_{n}") for n in ("teff", "logg", "feh", "mh"))
        alpha = column(table, "true_alpha_m") + mh - feh
        mh = np.where(np.isfinite(mh), mh, feh)  # mock dwarfs have no alpha elements of their own
        stars = dict(zip(NAMES, (teff, logg, mh, alpha), strict=True))
    return stars | {"dwarf": is_dwarf(stars["teff"], stars["logg"])}


def main(given):
    table = pq.read_table(given.input)
    table = table.filter(np.isfinite([*labels_of(table).values()][:3]).all(0) & np.isfinite(column(table, LATENTS[0])))
    stars, z = labels_of(table), columns(table, LATENTS)
    near = ~stars["dwarf"] & np.isfinite(stars["alpha"]) & (np.abs(stars["mh"] + 0.4) < 0.2)
    over = r"[$\alpha$/Fe]" if "true_teff" in table.schema.names else r"[$\alpha$/M]"
    panels = (
        ("log g", stars["logg"], axes_of(z, stars["teff"], stars["logg"]), "magma", slice(None)),
        ("[M/H]", stars["mh"], axes_of(z, stars["mh"], stars["teff"]), "viridis", slice(None)),
        (over, stars["alpha"], axes_of(z[near], stars["alpha"][near], stars["mh"][near]), "cividis", near),
    )
    figure = style.canvas("double", 70.0)
    for axes, (label, colour, pair, colours, some), tracks in zip(
        figure.subplots(1, 3), panels, windows_of(stars), strict=True
    ):
        shown = z[some][:, pair]
        low, high = np.quantile(colour[some], (0.02, 0.98))
        image = axes.scatter(*shown.T, c=colour[some], s=0.6, cmap=colours, vmin=low, vmax=high, rasterized=True, lw=0)
        figure.colorbar(image, ax=axes, label=label, location="top")
        for name, line, windows in tracks:
            points = track(z[:, pair], windows)
            if not len(points):
                continue
            axes.plot(*points.T, color=line, marker="o", ms=2.5, label=name, path_effects=style.outlined())
        reach = np.quantile(shown, (0.003, 0.997), axis=0)
        axes.set(xlabel=LATENTS[pair[0]], ylabel=LATENTS[pair[1]], xlim=reach[:, 0], ylim=reach[:, 1])
        axes.legend(fontsize=5.5, loc="best", frameon=True, framealpha=0.85, edgecolor="none")
    Path(given.output).write_bytes(style.encoded(figure, style.kind(given.output)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("input")
    parser.add_argument("-o", "--output", required=True)
    with context(style.RC, after_reset=True):
        main(parser.parse_args())
