"""Fit the parametric main sequence to the real PARSEC tables: `python tests/fit_sequence.py` rewrites its coefficients.

Reads ../shared/data/isochrones/parsec_ybc, writes xptools/data/sequence.csv, prints the errors that
sequence.TABLE_ERROR states and the numbers of sequence._TURN_OFF. Penalised least squares (second differences of the
coefficients in each direction); increments along mass above -floor are pulled to -2 floor until none is left.

Rows: label 1; also label 0 from 1 Gyr on and above 0.13 Msun, below the turn-off: PARSEC calls a star PMS until its
zero-age main sequence, but by then it lies within 0.02 mag of where it will stay. Above the turn-off a straight line of
weak weight (-8 mag/Msun in M_G, -0.1 in BP-RP) keeps the extension tame.
"""

from pathlib import Path

import numpy as np
import scipy.sparse as sp
from scipy.interpolate import PchipInterpolator
from scipy.sparse.linalg import spsolve

from xptools.cores import sequence

ROOT = Path(__file__).resolve().parents[1]
TABLES = ROOT.parent / "shared" / "data" / "isochrones" / "parsec_ybc"
SHAPE = (sequence.KNOTS[0] + 3, sequence.KNOTS[1] + 3, 4)
FLOOR = {"M_G": 0.004, "BP-RP": 0.0008}  # smallest step of neighbouring coefficients along mass [mag]
PENALTY = (1e-5, 3e-4, 1e-3)  # mass, [M/H], age


def rows(path):
    """(N, 6) MH, logAge, Mini, label, G, BP-RP of one PARSEC file."""
    found, columns = [], []
    for line in path.read_text().splitlines():
        words = line.lstrip("# ").split()
        if words[:1] == ["Zini"]:
            columns = words
        elif words and not line.startswith("#"):
            r = dict(zip(columns, map(float, words), strict=True))
            colour = r["G_BPmag"] - r["G_RPmag"]
            found.append((r["MH"], r["logAge"], r["Mini"], r["label"], r["Gmag"], colour))
    return np.array(found)


def isochrones():
    """Yields mh, age [Gyr], masses, M_G, BP-RP, label, end of label 1, for every table from 1 Gyr on."""
    for path in sorted(TABLES.glob("cmd*.dat")):
        table = rows(path)
        for mh, log_age in sorted({(r[0], r[1]) for r in table if r[1] > 8.99}):
            t = table[(table[:, 0] == mh) & (table[:, 1] == log_age)]
            end = t[t[:, 3] == 1, 2].max()
            t = t[(t[:, 2] <= end) & ((t[:, 3] == 1) | ((t[:, 3] == 0) & (t[:, 2] > 0.13)))]
            t = t[np.unique(t[:, 2].round(6), return_index=True)[1]]
            yield mh, 10 ** (log_age - 9), t[:, 2], t[:, 4], t[:, 5], t[:, 3], end


def derived():
    """The same for the loci at [M/H] = -2 whose masses were derived, up to the bluest point."""
    t = np.genfromtxt(TABLES / "loci_derived_masses.csv", delimiter=",", names=True)
    for log_age in np.unique(t["logage"][t["feh"] == -2]):
        s = t[(t["feh"] == -2) & (t["logage"] == log_age)]
        colour, n = s["bp"] - s["rp"], np.argmin(s["bp"] - s["rp"])
        mass = s["mini_derived"]
        yield -2.0, 10 ** (log_age - 9), mass[:n], s["g"][:n], colour[:n], np.ones(n), mass[-1]


def data():
    """(N, 6) mass, mh, age, M_G, BP-RP, weight: rows 1, between rows 0.3, derived 0.15, beyond the turn-off 0.02."""
    parts = []

    def put(mass, mh, age, M_G, colour, weight):
        parts.append(np.column_stack(np.broadcast_arrays(mass, mh, age, M_G, colour, weight)))

    for source, weight in ((isochrones, 1.0), (derived, 0.15)):
        for mh, age, mass, M_G, colour, _, end in source():
            keep = mass <= 1.12
            mass, M_G, colour = mass[keep], M_G[keep], colour[keep]
            put(mass, mh, age, M_G, colour, weight)
            if weight == 1.0:
                m = np.arange(mass[0] + 0.005, mass[-1], 0.01)
                put(m, mh, age, PchipInterpolator(mass, M_G)(m), PchipInterpolator(mass, colour)(m), 0.3)
            m = np.arange(end + 0.02, 1.1, 0.02)
            put(m, mh, age, M_G[-1] - 8 * (m - mass[-1]), colour.min() - 0.1 * (m - mass[-1]), 0.02)
    table = np.concatenate(parts)
    return table[table[:, 0] >= 0.1]


def metal_rich(M_G_coefficients):
    """(N, 6) colours of the real loci at [M/H] = +0.5, which have no masses: those of the M_G just fitted."""
    t = np.genfromtxt(TABLES / "loci_no_mass_mh-2.0..0.5.csv", delimiter=",", names=True)
    mass, parts = np.linspace(0.1, 1.1, 401), []
    for log_age in (9.0, 9.5, 9.7, 9.9, 10.0, 10.1):
        s = t[(t["feh"] == 0.5) & (abs(t["logage"] - log_age) < 0.001)]
        age, colour = 10 ** (log_age - 9), s["bp"] - s["rp"]
        fitted = design(mass, np.full(401, 0.5), np.full(401, age)) @ M_G_coefficients
        rows = np.arange(len(s)) < np.argmin(np.where(s["g"] > 3.5, colour, 99))
        rows &= (s["g"] > fitted[-1]) & (s["g"] < fitted[0])
        M_G = s["g"][rows]
        m = np.interp(M_G, fitted[::-1], mass[::-1])
        parts.append(np.column_stack(np.broadcast_arrays(m, 0.5, age, M_G, colour[rows], 0.3)))
    return np.concatenate(parts)


def design(mass, mh, age):
    """Sparse (N, 33 * 13 * 4): the value of every basis function at every row."""
    (lo, hi), (nx, nh) = sequence._X, sequence.KNOTS
    i, wx = sequence._cubic((np.sqrt(mass) - lo) / (hi - lo) * nx, nx, np)
    j, wh = sequence._cubic((mh - sequence.MH_RANGE[0]) / np.ptp(sequence.MH_RANGE) * nh, nh, np)
    wa = np.stack(sequence._bernstein(sequence._age_coordinate(age, np)), -1)
    value = np.einsum("na,nb,nk->nabk", np.stack(wx, -1), np.stack(wh, -1), wa)
    a, b, k = np.ogrid[:4, :4, :4]
    column = ((i[:, None, None, None] + a) * SHAPE[1] + j[:, None, None, None] + b) * 4 + k
    row = np.broadcast_to(np.arange(len(mass))[:, None, None, None], value.shape)
    return sp.csr_matrix((value.ravel(), (row.ravel(), column.ravel())), shape=(len(mass), np.prod(SHAPE)))


def differences(axis, order):
    """Sparse operator: the order-th difference of C along an axis."""
    factors = [sp.identity(n) for n in SHAPE]
    factors[axis] = sp.csr_matrix(np.diff(np.eye(SHAPE[axis]), order, axis=0))
    return sp.kron(sp.kron(factors[0], factors[1]), factors[2]).tocsr()


def fit(table, column, floor):
    """Coefficients (33 * 13 * 4,) of one quantity."""
    basis, weight, along = design(*table[:, :3].T), sp.diags(table[:, 5] ** 2), differences(0, 1)
    normal = basis.T @ weight @ basis
    for axis, strength in enumerate(PENALTY):
        second = differences(axis, 2)
        normal = normal + strength * second.T @ second
    right, held = basis.T @ weight @ table[:, column], np.zeros(along.shape[0], bool)
    for _ in range(100):
        pull = along.T @ sp.diags(1e4 * held)
        c = spsolve((normal + pull @ along).tocsc(), right + pull @ np.full(len(held), -2 * floor))
        rising = (along @ c > -floor) & ~held
        if not rising.any():
            return c
        held |= rising
    raise RuntimeError("not monotone after 100 rounds")


def errors():
    """(N, 6) mass, mh, age, label, |error in M_G|, |error in BP-RP| at the rows of the real tables."""
    out = []
    for mh, age, mass, M_G, colour, label, _ in isochrones():
        ok = (mass >= 0.1) & (mass <= 1.1)
        g, c = sequence.absolute(mass[ok], mh, age)
        wrong = abs(g - M_G[ok]), abs(c - colour[ok])
        out.append(np.column_stack(np.broadcast_arrays(mass[ok], mh, age, label[ok], *wrong)))
    return np.concatenate(out)


def turn_off():
    """Prints the seven numbers of sequence._TURN_OFF and the largest error [Msun]."""
    points = [(t[0], t[1], t[6]) for t in isochrones()] + [(t[0], t[1], t[6]) for t in derived() if t[1] > 7]
    h, age, end = np.array(points).T
    l = np.log10(age / 10)
    basis = np.column_stack([h**0, h, h**2, h**3, l, l**2, h * l])
    c = np.linalg.lstsq(basis, np.log10(end))[0].round(4)
    wrong = abs(10 ** (basis @ c) - end)
    print("turn-off", tuple(map(float, c)), f"error {wrong.max():.3f}, >= 10 Gyr {wrong[age > 9.9].max():.3f} Msun")


def main():
    table = data()
    bright = fit(table, 3, FLOOR["M_G"])
    both = [bright, fit(np.concatenate([table, metal_rich(bright)]), 4, FLOOR["BP-RP"])]
    lines = [
        "# Coefficients of cores/sequence.py: main sequence fitted by tests/fit_sequence.py to PARSEC v1.2S YBC",
        "# one line per (mass knot, [M/H] knot), [M/H] fastest; four age terms of (M_G [mag], BP-RP [mag])",
    ]
    values = np.stack(both, -1).reshape(-1, 8)
    lines += [",".join(f"{v:.4f}" for v in row) for row in values]
    (ROOT / "xptools" / "data" / "sequence.csv").write_text("\n".join(lines) + "\n")
    sequence.coefficients.cache_clear()
    e = errors()
    main_rows = (e[:, 0] >= 0.15) & (e[:, 0] <= 0.8) & (e[:, 3] == 1)
    old = e[:, 2] > 9.9
    regions = {
        "10 Gyr, 0.15-0.8 Msun": main_rows & (abs(e[:, 2] - 10) < 0.01),
        "10-13.5 Gyr": main_rows & old,
        "1-3.2 Gyr": main_rows & ~old,
        "0.1-0.15 Msun": e[:, 0] < 0.15,
        "0.8-1.1 Msun": e[:, 0] > 0.8,
    }
    for name, where in regions.items():
        wrong = e[where, 4:]
        print(name, "max", wrong.max(0).round(3), "rms", np.sqrt((wrong**2).mean(0)).round(4), "M_G, BP-RP [mag]")
    turn_off()


if __name__ == "__main__":
    main()
