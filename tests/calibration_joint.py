"""Do the intervals of `xp mf --deconvolve` hold the truth, where counting is biased? Universes of three kinds.

    smooth   slopes and density run linearly with [Fe/H]
    steps    slopes of their own in every [Fe/H] bin (as Li+ 2026 find), density smooth
    jump     the slopes that Li+ 2026 publish, 0 and -2.7 in neighbouring bins
    none     the same slopes at every [Fe/H]

Stars are Poisson in (mass, [Fe/H]) far beyond the table, get a Gaussian error of mass and one of [Fe/H] that differs
from star to star, and are counted. `plain` is what counting gives. A prior that allows for steps is too wide for a
function without any and too narrow for the largest jump; averaged over functions drawn from the prior itself its
intervals must hold the truth at their nominal rate and the ranks be flat (`drawn`). `make calibration` runs this at
full size, and with --pool, where the errors are those of a chain instead of Gaussian. --quick draws from Laplace's
approximations at each value of the hyperparameters, which the command takes for coordinates only: a third of the time,
for more universes.
"""

import argparse
import sys
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
from calibration import FEH, SEGMENTS, Tally, lines
from threadpoolctl import threadpool_limits

import xptools
from xptools.commands._mf_joint import JointMassFunction
from xptools.cores import jointmf, laplace, mf, response, slopes
from xptools.cores.bins import POINTS
from xptools.cores.errortable import ErrorTable

FAR = np.array([-3.3, *FEH, -0.2])  # bins of the steps, one beyond the table at each end
KINDS = ("smooth", "steps", "none", "jump")
PUBLISHED = np.array([0.0, 0.0, 0.0, -2.7, -1.8, -1.8]) + 1.0  # alpha1 of Li+ 2026 Sec. 4.1, about -1, on FAR


def table(error=0.0, bins=12):
    """Volumes of `xp veff`."""
    return xptools.op(f"veff --mass-edges 0.15:0.75:{bins} --veff-error {error}").table()


def law(kind: str, rng: np.random.Generator):
    """ln Phi(M, [Fe/H]) [kpc-3 Msun-1 dex-1] of a universe: about 100 stars to some thousands per bin."""
    level, gradient = np.log(10 ** rng.uniform(3.5, 4.5)), rng.uniform(0.0, 4.0)
    first, change = rng.uniform(-3.0, 1.0), rng.uniform(-2.0, 2.0) * (kind == "smooth")
    drop = rng.uniform(-2.0, 0.0)  # steeper above 0.55 Msun
    jumps = rng.normal(0.0, 1.0, len(FAR) - 1) * (kind == "steps")
    if kind == "jump":
        first, jumps = -1.0, PUBLISHED

    def ln_phi(m, f):
        alpha = first + change * (f + 1.65) + jumps[np.searchsorted(FAR, f, side="right").clip(1, len(FAR) - 1) - 1]
        return level + gradient * (f + 1.65) + alpha * np.log(m / 0.4) + drop * np.log(np.maximum(m, 0.55) / 0.55)

    return ln_phi


def stars(t, ln_phi, sigma: float, rng: np.random.Generator, relative=None):
    """mass, [Fe/H] and their errors of the stars observed, and the true log10 Phi (B, K) of the bins."""
    *seen, _, truth = observed(t, ln_phi, sigma, rng, relative)
    return *seen, truth


def observed(t, ln_phi, sigma: float, rng: np.random.Generator, relative=None, tails=0.0):
    """mass, [Fe/H] and their errors of the stars observed, their true [Fe/H], and log10 Phi (B, K) of the bins.

    Volumes that the stars come from are off by `relative` (B, K) in the log. A share `tails` of the stars has three
    times the [Fe/H] error that is stated, and 0.3 dex too much of it.
    """
    mass, feh, truth = drawn_stars(t, ln_phi, rng, relative)
    feh_err = sigma * np.exp(0.3 * rng.standard_normal(len(feh)) - 0.2 * (feh + 1.65))
    mass_err = np.full(len(mass), 0.012)
    off = feh_err * rng.standard_normal(len(feh))
    off = np.where(rng.random(len(feh)) < tails, 0.3 + 3 * off, off) if tails else off
    return mass + mass_err * rng.standard_normal(len(mass)), feh + off, feh_err, mass_err, feh, truth


def drawn_stars(t, ln_phi, rng: np.random.Generator, relative=None):
    """True mass and [Fe/H] of the stars of a universe, and log10 Phi (B, K) of the bins."""
    m, f = (np.linspace(lo, hi, n) for lo, hi, n in ((0.08, 0.82, 741), (-3.3, -0.2, 621)))
    dm, df = m[1] - m[0], f[1] - f[0]
    m, f = 0.5 * (m[1:] + m[:-1]), 0.5 * (f[1:] + f[:-1])
    b = np.searchsorted(t.feh_edges, f, side="right").clip(1, len(t.feh_edges) - 1) - 1
    nodes = np.linspace(t.mass_edges[:-1], t.mass_edges[1:], POINTS, axis=1).ravel()
    nodes, at = np.unique(nodes.round(9), return_index=True)
    ln_v = np.log(np.maximum(t.fine.reshape(len(t.fine), -1)[:, at], 1e-12))
    V = np.exp(np.stack([_beyond(m, nodes, v) for v in ln_v], axis=1))[:, b]
    density = np.exp(ln_phi(m[:, None], f)) * V
    k = np.searchsorted(t.mass_edges, m, side="right").clip(1, len(t.width)) - 1
    off = 1.0 if relative is None else np.exp(relative[b][:, k].T)
    n = rng.poisson(density * off * dm * df)
    i, c = np.divmod(np.repeat(np.arange(n.size), n.ravel()), n.shape[1])
    mass, feh = m[i] + dm * (rng.random(len(i)) - 0.5), f[c] + df * (rng.random(len(i)) - 0.5)
    truth = np.full(t.veff.shape, np.nan)
    for x, y in np.ndindex(truth.shape):
        part = np.ix_((m >= t.mass_edges[y]) & (m < t.mass_edges[y + 1]),
                      (f >= t.feh_edges[x]) & (f < t.feh_edges[x + 1]))  # fmt: skip
        truth[x, y] = np.log10(density[part].sum() * df / V[part][:, 0].sum())
    return mass, feh, truth


class Pool:
    """Stars of a file (mass, mass_err, feh, feh_err, true_mass, true_feh) that stand for others of their truth.

    Every other one of them makes universes, the rest are known: errors are those of the chain that made the file.
    """

    NAMES = ("mass", "feh", "feh_err", "mass_err", "true_feh", "true_mass")
    STEPS = (0.01, 0.05)  # stars of the same cell of true mass [Msun] and [Fe/H] stand for each other

    def __init__(self, path: str):
        table = pq.read_table(path, columns=list(self.NAMES))
        c = {name: table[name].to_numpy().astype(float) for name in self.NAMES}
        ok = np.all([np.isfinite(v) for v in c.values()], axis=0)
        self.columns = {name: v[ok] for name, v in c.items()}
        self.own = np.flatnonzero(np.arange(ok.sum()) % 2 == 0)
        where = self._cell(self.columns["true_mass"][self.own], self.columns["true_feh"][self.own])
        self.own, self.cells = self.own[np.argsort(where, kind="stable")], np.sort(where)

    def _cell(self, mass, feh):
        return np.int64(np.floor(mass / self.STEPS[0])) * 1000 + np.int64(np.floor((feh + 5) / self.STEPS[1]))

    def observed(self, t, ln_phi, rng: np.random.Generator):
        """As `observed`; stars whose cell is empty are not seen."""
        mass, feh, truth = drawn_stars(t, ln_phi, rng)
        cell = self._cell(mass, feh)
        low, high = (np.searchsorted(self.cells, cell, side=side) for side in ("left", "right"))
        low, high = low[high > low], high[high > low]
        star = self.own[low + np.int64(rng.random(len(low)) * (high - low))]
        return *(self.columns[name][star] for name in self.NAMES[:5]), truth

    def known(self, most: int, rng: np.random.Generator) -> ErrorTable:
        """At most so many of the others."""
        some = rng.permutation(np.setdiff1d(np.arange(len(self.columns["mass"])), self.own))[:most]
        return ErrorTable.of(*(self.columns[n][some] for n in ("mass", "feh", "true_feh", "feh_err", "true_mass")))


def _beyond(m, nodes, ln_v):
    """ln V at masses m: straight on beyond the table."""
    slope = np.gradient(ln_v, nodes)
    inside = np.interp(m, nodes, ln_v)
    return inside + slope[0] * np.minimum(m - nodes[0], 0) + slope[-1] * np.maximum(m - nodes[-1], 0)


def joint(
    universes: int, kind: str, sigma: float, seed=0, error=0.0, draws=1000, tails=0.0, known=0, quick=False, pool=None
) -> tuple[dict[str, Tally], dict]:
    """Tallies of log Phi by `xp mf --deconvolve` and by counting, of slopes by the former, and their errors [dex].

    known: stars of known [Fe/H] (as many at most), drawn from another universe of the same kind: --error-table.
    pool: the stars come from there instead, with their own errors, and so do the known ones.
    """
    t, out = table(error), {name: Tally() for name in ("log Phi", "the same, plain", "alpha1", "alpha2")}
    off = {"plain": [], "joint": [], "sd": []}
    for i in range(universes):
        rng = np.random.default_rng((seed, i, KINDS.index(kind)))
        relative = error * rng.standard_normal(t.veff.shape)
        phi = law(kind, rng)
        *seen, _, truth = pool.observed(t, phi, rng) if pool else observed(t, phi, sigma, rng, relative, tails)
        counts = response.count(t, *seen)
        step = JointMassFunction(seed=i, draws=draws, warmup=draws, force=True)
        if known:
            table_of = pool.known(known, rng) if pool else _known(t, kind, sigma, tails, known, rng)
            step = Known(table_of, seed=i, draws=draws, warmup=draws, force=True)
        ln_phi = approximated(step, counts, t, rng) if quick else step.inferred(counts, t)[3].ln_phi
        _slopes(out, t, truth * np.log(10), ln_phi)
        use = np.isfinite(ln_phi[0])
        log_phi = ln_phi[:, use] / np.log(10)
        out["log Phi"].add(truth[use], *np.quantile(log_phi, mf.LEVELS[1:], axis=0))
        n = (counts.n.sum(axis=1) @ (response.slices(t.feh_edges)[1][:, None] == np.arange(len(truth)))).T
        mean, _, q = mf.exact(n[use], np.log((t.veff * t.width)[use]), np.full(use.sum(), error), "jeffreys")
        out["the same, plain"].add(truth[use], *q[1:])
        off["plain"].append(mean - truth[use])
        off["joint"].append(log_phi.mean(axis=0) - truth[use])
        off["sd"].append(log_phi.std(axis=0))
    return out, {k: float(np.sqrt(np.mean(np.square(np.concatenate(v))))) for k, v in off.items()}


def approximated(step: JointMassFunction, counts, t, rng: np.random.Generator, each=50) -> np.ndarray:
    """Draws (D, B, K) of ln Phi from Laplace's approximation, NaN where nothing is asked."""
    inside = step.reached(t)
    with threadpool_limits(limits=1, user_api="blas"):
        made = jointmf.prepare(t.part(inside), counts.part(inside), step.known(), step.segments[1:-1])
        problem, found = made.problem(), []
        for m in laplace.modes(problem, laplace.hyper_draws(problem, jointmf.POINTS, rng)):
            centre, stretch = m.round()
            y = centre + rng.standard_normal((each, len(centre))) @ stretch.T
            found.append(made.densities(problem.ln_phi(y)))
    out = np.full((each * len(found), *t.veff.shape), np.nan)
    out[..., inside] = np.concatenate(found)
    return out


def _slopes(out, t, truth, draws):
    """Those of each bin of draws (D, B, K) of ln Phi, and of the truth (B, K) by the same lines."""
    for b, true in enumerate(truth):
        sd = draws[:, b].std(axis=0)
        got, known = (slopes.lines(t.centre, v, sd, SEGMENTS) for v in (draws[:, b], true[None]))
        for s, name in enumerate(("alpha1", "alpha2")):
            out[name].add(known[0, s], *np.quantile(got[:, s], mf.LEVELS[1:]), np.mean(got[:, s] < known[0, s]))


def drawn(universes: int, sigma: float, seed=0, draws=1000) -> dict[str, Tally]:
    """Tallies of functions drawn from the prior, smoothness and all, of 1000 to 30,000 stars, errors known."""
    t, out = table(bins=8), {name: Tally() for name in ("log Phi", "alpha1", "alpha2")}
    for i in range(universes):
        rng = np.random.default_rng((seed, i, 7))
        joint = _of_prior(t, sigma, rng)
        problem = joint.problem()
        precision, _ = problem.prior(rng.standard_normal(laplace.HYPER))
        y = np.linalg.solve(np.linalg.cholesky(precision).T, rng.standard_normal(len(precision)))
        y[:3] *= 0.0, 0.3, 0.4  # of the plane what a sample of stars can have; its prior is there to leave it free
        ln_phi = problem.design @ y
        ln_phi += np.log(10 ** rng.uniform(3.0, 4.5) / problem.rates(np.exp(ln_phi)).sum())
        n = rng.poisson(problem.rates(np.exp(ln_phi)))
        got = jointmf.sample(replace(joint, n=n), i, chains=2, warmup=draws, draws=draws)
        truth = joint.densities(ln_phi)
        ln = got.ln_phi.reshape(-1, *truth.shape)
        out["log Phi"].add(truth, *np.quantile(ln, mf.LEVELS[1:], axis=0), np.mean(ln < truth, axis=0))
        _slopes(out, t, truth, ln)
    return out


def _of_prior(t, sigma, rng) -> jointmf.Joint:
    """A problem without counts, all stars having the same error of [Fe/H]."""
    size = 4000
    mass, feh = (rng.uniform(e[0], e[-1], size) for e in (t.mass_edges, t.feh_edges))
    counts = response.count(t, mass, feh, np.full(size, sigma), np.full(size, 0.012))
    truth, (edges, _) = response.truth_of(t, counts), response.slices(t.feh_edges)
    given = response.feh_matrix(truth, counts, edges)[:, np.searchsorted(response.CLASSES, sigma, side="right") - 1]
    return jointmf.Joint(counts.n.sum(axis=1), truth, response.mass_matrix(truth, counts), given, len(t.veff),
                         breaks=SEGMENTS[1:-1])  # fmt: skip


class Known(JointMassFunction):
    """With an error table at hand instead of in a file."""

    def __init__(self, stars: ErrorTable, **settings):
        super().__init__(error_table="at hand", **settings)
        object.__setattr__(self, "stars", stars)

    def known(self) -> ErrorTable:
        """The table."""
        return self.stars


def _known(t, kind, sigma, tails, most, rng) -> ErrorTable:
    mass, feh, err, _, true, _ = observed(t, law(kind, rng), sigma, rng, tails=tails)
    some = rng.permutation(len(mass))[:most]
    return ErrorTable.of(mass[some], feh[some], true[some], err[some])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--universes", type=int, default=40)
    parser.add_argument("--sigma", type=float, nargs="+", default=[0.1, 0.25], help="typical error of [Fe/H] [dex]")
    parser.add_argument("--kinds", nargs="+", default=KINDS)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tails", type=float, default=0.0, help="share of stars with errors other than stated")
    parser.add_argument("--known", type=int, default=0, help="stars of known [Fe/H]: --error-table")
    parser.add_argument("--pool", metavar="FILE", help="stars whose errors are taken, half of them known")
    parser.add_argument("--quick", action="store_true", help="Laplace's approximation in place of Monte Carlo")
    parser.add_argument("--prior", type=int, default=0, help="functions drawn from the prior, beside")
    given = parser.parse_args()
    pool = Pool(given.pool) if given.pool else None
    for sigma in given.sigma[: 1 if pool else None]:
        if given.prior:
            tallies = drawn(given.prior, sigma, given.seed, given.draws)
            sys.stdout.write("\n".join([*lines(f"{given.prior} draws of the prior, {sigma} dex", tallies), "", ""]))
        for kind in given.kinds:
            tallies, rms = joint(given.universes, kind, sigma, given.seed, 0.0, given.draws, given.tails, given.known,
                                 given.quick, pool)  # fmt: skip
            errors = f"errors of {given.pool}" if pool else f"sigma([Fe/H]) about {sigma}"
            title = f"{given.universes} universes, {kind}, {errors}"
            title += f", {given.tails:.0%} in tails, {given.known} known stars" if given.tails or given.known else ""
            told = ", ".join(f"{name} {value:.3f}" for name, value in rms.items())
            sys.stdout.write("\n".join([*lines(title, tallies), f"rms of log Phi [dex]: {told}", "", ""]))
            sys.stdout.flush()


if __name__ == "__main__":
    main()
