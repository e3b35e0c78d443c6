"""Fit the parametric giants to the real PARSEC tables: `python tests/fit_giants.py` rewrites their coefficients.

Reads ../shared/data/isochrones/parsec_ybc, writes xptools/data/giants.csv, prints the errors that giants.ERROR states
and what real loci without masses say of the ages between the tables. Least squares; the eight isochrones of 10 to 13.5
Gyr, which are nearly one, weigh less. The clump is fitted from 1.7 Gyr on; at 1 Gyr, where stars pass through it on
other ways, its time-weighted median counts.
"""

from pathlib import Path

import numpy as np

from xptools.cores import giants
from xptools.cores._giant_files import read_file

ROOT = Path(__file__).resolve().parents[1]
TABLES = ROOT.parent / "shared" / "data" / "isochrones" / "parsec_ybc"
HEAD = "quantity,i,j,k,c"


def powers(n, m, k, total):
    """Powers (i, j, l) up to (n, m, k) whose sum is at most `total`."""
    return [(i, j, l) for i in range(n + 1) for j in range(m + 1) for l in range(k + 1) if i + j + l <= total]


def table(clump):
    """Columns place, [M/H], log age, weight, then log g, mass, Teff, M_G, BP-RP of all rows of a phase from 1 Gyr."""
    out = []
    for path in sorted(TABLES.glob("cmd*.dat")):
        for r in read_file(path):
            if r.clump != clump or r.age < 0.99:
                continue
            place, values = r.mass, r.values
            if clump and r.age < 1.7:
                middle = np.interp(np.linspace(0.3, 0.9, 4), place, values[:, 0])
                values = np.stack([np.interp(np.linspace(0.3, 0.9, 4), place, v) for v in values.T], 1)
                values[:, 0], place = middle, np.linspace(0.3, 0.9, 4)
            keep = place < giants.STAY if clump else (values[:, 0] > 0.9)
            weight = (0.4 if r.age > 9 else 1.5) * np.gradient(place) if clump else (0.4 if r.age > 9 else 1.5)
            head = np.stack(np.broadcast_arrays(place, r.mh, np.log10(r.age / 10), weight), 1)
            out.append(np.hstack([head, values])[keep])
    return np.concatenate(out)


def solved(name, y, x, h, l, w, which, lines):
    """Least squares; returns the residuals and adds lines of the table."""
    X = np.stack([x**i * h**j * l**k for i, j, k in which], 1)
    c = np.linalg.lstsq(X * w[:, None], y * w, rcond=None)[0]
    lines += [f"{name},{i},{j},{k},{v:.9g}" for (i, j, k), v in zip(which, c, strict=True)]
    return y - X @ c


def bases():
    """[M/H], log age and the highest log g of each branch."""
    found = [(r.mh, np.log10(r.age / 10), r.mass.max()) for p in sorted(TABLES.glob("cmd*.dat"))
             for r in read_file(p) if not r.clump and r.age > 0.99]  # fmt: skip
    return np.array(found).T


def main():
    lines = []
    branch, clump = table(False), table(True)
    for name, t, x in (("branch", branch, branch[:, 0] - 2.5), ("clump", clump, clump[:, 0] - 0.5)):
        many = powers(4, 2, 2, 5) if name == "clump" else powers(3, 2, 2, 4)
        solved(f"{name}_teff", np.log10(t[:, 6]), x, t[:, 1], t[:, 2], t[:, 3], many, lines)
        few = powers(1, 2, 2, 3) if name == "clump" else powers(2, 2, 2, 4)
        solved(f"{name}_mass", np.log10(t[:, 5]), x, t[:, 1], t[:, 2], t[:, 3], few, lines)
        if name == "clump":
            solved("clump_logg", t[:, 4], x, t[:, 1], t[:, 2], t[:, 3], many, lines)
    both = np.vstack([branch, clump])
    weight = np.r_[np.ones(len(branch)), np.full(len(clump), 1.0)]
    logg, mass, teff, M_G, colour = both[:, 4:].T
    t, y = np.log10(teff) - 3.68, logg - 2.5
    log_L = np.log10(mass) + 4 * np.log10(teff / giants.SUN_TEFF) - (logg - giants.SUN_GRAVITY)
    bolometric = giants.SUN_BOLOMETRIC - 2.5 * log_L - M_G
    solved("bolometric", bolometric, t, both[:, 1], y, weight, powers(4, 2, 1, 5), lines)
    solved("colour", colour, t, both[:, 1], y, weight, powers(4, 2, 1, 5), lines)
    h, l, base = bases()
    solved("base", base, np.zeros_like(h), h, l, np.where(l > -0.1, 0.4, 1.0), powers(0, 2, 2, 3), lines)
    giants.TABLE.write_text("\n".join([HEAD, *lines]) + "\n")
    giants.coefficients.cache_clear()
    report(branch, clump)
    loci()


def report(branch, clump):
    """The errors of giants.ERROR."""
    for name, t, is_clump in (("branch", branch, False), ("clump", clump, True)):
        place = t[:, 0] / (giants.STAY if is_clump else 1)
        got = giants.Branch().at(is_clump, place, t[:, 1], 10 ** (t[:, 2] + 1))
        for part, rows in (("all", np.isfinite(got.M_G)), ("from 1.7 Gyr", np.isfinite(got.M_G) & (t[:, 2] > -0.9))):
            errors = (np.log10(got.teff / t[:, 6]), 100 * (got.mass / t[:, 5] - 1), got.M_G - t[:, 7],
                      got.BP_RP - t[:, 8], got.logg - t[:, 4])  # fmt: skip
            words = [f"{np.abs(e[rows]).max():.4f} (rms {e[rows].std():.4f})" for e in errors]
            print(f"{name:7} {part:13} {rows.sum():5} rows: log Teff {words[0]}, mass [%] {words[1]}, M_G {words[2]}, "
                  f"BP-RP {words[3]}, log g {words[4]}")


def loci():
    """BP-RP of real loci on the branch against the parametric branch at the same M_G."""
    t = np.genfromtxt(TABLES / "loci_no_mass_mh-2.0..0.5.csv", delimiter=",", names=True)
    for mh in np.unique(t["feh"]):
        words = []
        for log_age in (9.5, 9.7, 9.8, 9.9, 10.0, 10.1):
            s = t[(t["feh"] == mh) & (np.abs(t["logage"] - log_age) < 0.01)]
            drop = np.flatnonzero((np.diff(s["g"]) > 0.3) & (s["g"][:-1] < 1.0))  # from the tip to the clump
            rise = s[: drop[0] + 1] if len(drop) else s[:0]
            rise = rise[(rise["g"] < 2.0) & (rise["g"] > -1.0) & (rise["bp"] - rise["rp"] > 0.75)]
            logg = np.linspace(1.2, 3.4, 400)
            got = giants.Branch().at(False, logg, mh, 10 ** (log_age - 9))
            ok = np.isfinite(got.M_G)
            off = rise["bp"] - rise["rp"] - np.interp(rise["g"], got.M_G[ok], got.BP_RP[ok])
            words.append(f"{10 ** (log_age - 9):4.1f} Gyr {np.abs(off).max():.3f}" if len(off) else "-")
        print(f"[M/H] {mh:5.2f}: largest difference of BP-RP at 2 > M_G > -1: {', '.join(words)}")


if __name__ == "__main__":
    main()
