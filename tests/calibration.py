"""Do the intervals of `xp mf` hold the truth as often as they say? `make calibration` runs this at full size.

Two levels. `drawn`: every universe has its own slopes and densities per [Fe/H] bin, counts are Poisson about the true
expectation, and the cores that `xp mf` runs are asked for log Phi_k, alpha1, alpha2 and xi_MR. `mocked`: the universe
is `xp mock`'s, star by star, and goes through deredden, select, veff and mf as steps in this process, with true masses
or with those of the network. Coverage is a binomial count, so its error is stated; ranks are those of the truth in the
posterior, whose histogram must be flat (chi-square).
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field

import numpy as np
from scipy.special import gammainc
from scipy.stats import chi2 as chi2_law

import xptools
from xptools.commands._mf_report import true_phi
from xptools.commands.run import plans
from xptools.cores import mf, nuts
from xptools.cores.imf import PiecewiseIMF, mass_ratio
from xptools.cores.massratio import mass_ratio as ratio
from xptools.cores.massratio import shaped_moments
from xptools.cores.slopes import PoissonSlopes

NOMINAL = {"68 %": 0.682689, "95 %": 0.954500}
SEGMENTS = (0.15, 0.55, 0.8)
FEH = (-2.2, -1.8, -1.6, -1.4, -1.1)
RANGES = {"expected < 3": (0, 3), "3 - 30": (3, 30), "> 30": (30, np.inf)}


@dataclass
class Tally:
    """Truths inside the 68 % and 95 % intervals, and their ranks in [0, 1]."""

    inside: dict = field(default_factory=lambda: {name: [] for name in NOMINAL})
    ranks: list = field(default_factory=list)

    def add(self, truth, lo, hi, lo95, hi95, rank=None):
        """One or many truths with their intervals."""
        self.inside["68 %"].append(np.ravel((lo <= truth) & (truth <= hi)))
        self.inside["95 %"].append(np.ravel((lo95 <= truth) & (truth <= hi95)))
        if rank is not None:
            self.ranks.append(np.ravel(rank))

    def coverage(self) -> dict:
        """Share inside, and its distance from nominal in standard errors."""
        out = {}
        for name, nominal in NOMINAL.items():
            hits = np.concatenate(self.inside[name])
            error = np.sqrt(nominal * (1 - nominal) / len(hits))
            out[name] = {"cases": len(hits), "share": float(hits.mean()), "off": float((hits.mean() - nominal) / error)}
        return out

    def flatness(self, bins=20) -> dict | None:
        """Chi-square of the rank histogram and its probability."""
        if not self.ranks:
            return None
        counts = np.histogram(np.concatenate(self.ranks), bins, (0.0, 1.0))[0]
        chi2 = float(np.sum((counts - counts.mean()) ** 2) / counts.mean())
        return {"chi2": chi2, "bins": bins, "p": float(chi2_law.sf(chi2, bins - 1)), "counts": counts.tolist()}


def universe(rng) -> PiecewiseIMF:
    """A mass function with random slopes, and densities that give from a few to thousands of stars per bin."""
    slopes = tuple((float(a), float(b)) for a, b in zip(rng.uniform(-3, 1, 4), rng.uniform(-4, 0, 4), strict=True))
    law = PiecewiseIMF(FEH, (0.1, 0.55, 1.1), slopes)
    return law.with_density(10 ** rng.uniform(2.0, 4.0, 4))


def drawn(universes: int, seed=0, prior="jeffreys", error=0.0, sampled=0) -> dict[str, Tally]:
    """Tallies of log Phi (by expected number), alpha1, alpha2, xi_MR; the first `sampled` universes with NUTS.

    `error` is the relative error of V_eff: the volumes the counts come from are off by it, each on its own.
    """
    table = xptools.op(f"veff --veff-error {error}").table()
    use = table.veff > 0
    out = {name: Tally() for name in (*RANGES, "log Phi", "alpha1", "alpha2", "xi_MR")}
    for i in range(universes):
        rng = np.random.default_rng((seed, i))
        law = universe(rng)
        phi = true_phi(table, law)
        expected = np.where(use, phi * table.veff * table.width, 0.0)
        n = rng.poisson(expected * np.exp(error * rng.standard_normal(use.shape)))
        _densities(out, table, use, n, phi, expected, prior, rng, seed + i if i < sampled else None)
        for b in range(len(FEH) - 1):
            _shapes(out, table, n, law, b, rng)
    return out


def _densities(out, table, use, n, phi, expected, prior, rng, nuts_seed):
    offset = np.log((table.veff * table.width)[use])
    s = (table.veff_err / np.where(use, table.veff, 1.0))[use]
    truth = np.log10(phi[use])
    ln_phi = mf.draw(n[use], offset, s, rng, 2000, prior)
    _, _, q = mf.exact(n[use], offset, s, prior)
    if nuts_seed is not None:
        got = nuts.sample(n[use], offset, s, nuts_seed, prior=prior)
        ln_phi = got.ln_phi.reshape(-1, got.ln_phi.shape[-1])
        q = mf.summary(ln_phi)[2]
    rank = np.mean(ln_phi / np.log(10) < truth, axis=0)
    out["log Phi"].add(truth, *q[1:], rank)
    for name, (low, high) in RANGES.items():
        k = (expected[use] >= low) & (expected[use] < high)
        out[name].add(truth[k], *q[1:, k], rank[k])


def _shapes(out, table, n, law, b, rng):
    """alpha and xi_MR of one [Fe/H] bin with at least 30 stars: below that a slope is all prior."""
    if n[b].sum() < 30:
        return
    alpha = PoissonSlopes(table, b, SEGMENTS).draws(n[b], rng)[:, 2:]
    for s, name in enumerate(("alpha1", "alpha2")):
        truth = law.slopes[b][s]
        if np.all(np.isfinite(alpha[:, s])):
            out[name].add(truth, *np.quantile(alpha[:, s], mf.LEVELS[1:]), np.mean(alpha[:, s] < truth))
    use = table.veff[b] > 0
    offset, s = np.log((table.veff * table.width)[b, use]), table.veff_err[b, use] / table.veff[b, use]
    ln_phi = mf.draw(n[b, use], offset, s, rng, 2000, "ratio")
    mean = np.clip(np.nan_to_num(alpha.mean(axis=0)), -6, 6)
    moments = np.stack([shaped_moments(table, b, mean, SEGMENTS[1:-1], 0.2, hi)[use] for hi in (0.5, 0.7)])
    xi = ratio(np.exp(ln_phi), moments)
    truth = mass_ratio(law, feh=0.5 * (FEH[b] + FEH[b + 1]))
    out["xi_MR"].add(truth, *np.quantile(xi, mf.LEVELS[1:]), np.mean(xi < truth))


MOCK = "mock {stars} --fractions 0 0 1 --binaries 0 --age 10 --select true --g-limit 17 --noise 0 --feh-error 0 " \
       "--outliers 0 --spurious 0 --poisson --seed {seed}"  # fmt: skip


# The demo's settings: Gaia's errors on everything but [Fe/H], bins below the turn-off, V_eff less the 1 % of good stars
# that the fidelity cut loses, and 5 % granted for the scatter of the masses.
WHOLE = "mock {stars} --fractions 0 0 1 --binaries 0 --age 10 --feh-error 0 --outliers 0 --poisson --seed {seed}"
PIPES = {
    "true": (MOCK, "mass", "veff --mdf=-1.45,0.4", "mf --method exact --truth"),
    "network": (MOCK, "mass", "veff --mdf=-1.45,0.4", "mf --method exact --truth"),
    "pipe": (
        WHOLE,
        "select --cstar-nsigma 3 --fidelity 0.5 | mass --model {model}",
        "veff --mass-edges 0.15:0.75:12 --veff-scale 0.99 --veff-error 0.05 --mdf=-1.45,0.4",
        "mf --method exact --truth --segments 0.15,0.55,0.75",
    ),
}


def mocked(
    universes: int, stars: int = 20_000, seed: int = 0, masses: str = "true", model: str = ""
) -> dict[str, Tally]:
    """The same from `xp mock` through the steps of the pipe.

    `masses`: "true" ones, those of the default "network", or the whole "pipe" as the demo has it, noise and all, with
    masses of `model`.
    """
    out = {name: Tally() for name in (*RANGES, "log Phi", "alpha1", "alpha2", "xi_MR")}
    mock, mass, veff, function = PIPES[masses]
    pipe = f"deredden --map none | select --magnitude :17.0001 | {mass.format(model=model)} | {veff}"
    steps = [plan.step for plan in plans(pipe)]
    fold = xptools.op(function)
    for i in range(universes):
        table = _through(xptools.op(mock.format(stars=stars, seed=seed + i)), steps, fold, masses)
        rows = {name: table.column(name).to_numpy() for name in table.column_names}
        with np.errstate(divide="ignore", invalid="ignore"):
            expected = 10 ** rows["log_phi_true"] * rows["veff"] * (rows["mass_hi"] - rows["mass_lo"])
        use = np.isfinite(rows["log_phi"]) & (expected > 0)
        rank = gammainc(rows["n"] + 0.5, np.where(use, expected, 0.0))
        span = [rows[name] for name in ("log_phi_true", "log_phi_lo", "log_phi_hi", "log_phi_lo95", "log_phi_hi95")]
        out["log Phi"].add(*(x[use] for x in span), rank[use])
        for name, (low, high) in RANGES.items():
            k = use & (expected >= low) & (expected < high)
            # the truth is the same in every universe: with few stars its ranks are a few fixed numbers
            out[name].add(*(x[k] for x in span), rank[k] if low >= 30 else None)
        _reported(out, json.loads(table.schema.metadata[b"xp.mf"]))
    return out


def _demo(universes: int, stars: int, seed: int) -> dict[str, Tally]:
    """The whole pipe with the demo's mass model, trained here."""
    with tempfile.TemporaryDirectory() as folder:
        model = f"{folder}/mass.safetensors"
        words = "xp train mass --feh-input --ages 10:13 --mh -2.6:-0.6 --epochs 100 --points 50000 -o"
        subprocess.run([*words.split(), model], check=True, capture_output=True)
        return mocked(universes, stars, seed, "pipe", model)


def _through(source, steps, fold, masses):
    """One universe through the pipe; `true` masses replace those of the network before veff."""
    import pyarrow as pa

    state, schema = fold.zero(), None
    for batch in source.record_batches(65_536):
        for step in steps:
            if step.name == "veff" and masses == "true":
                i = batch.schema.get_field_index("mass")
                columns = [batch.column("true_mass") if k == i else c for k, c in enumerate(batch.columns)]
                batch = pa.RecordBatch.from_arrays(columns, schema=batch.schema)
            batch = step(batch)
        schema = batch.schema
        state = fold.feed(state, batch)
    return fold.table(state, schema)


def _reported(out, about):
    for entry in about["feh"]:
        truth = entry["truth"]
        found = [(f"alpha{s + 1}", slope["poisson"], truth["alpha"][s]) for s, slope in enumerate(entry["slopes"])]
        for name, spread, value in [*found, ("xi_MR", entry["xi"]["value"], truth["xi"])]:
            if spread["lo"] is not None and value is not None:
                out[name].add(value, spread["lo"], spread["hi"], spread["lo95"], spread["hi95"])


def lines(title: str, tallies: dict[str, Tally]) -> list[str]:
    """A table as text: coverage with its error, and how flat the ranks are."""
    head = "".join(f"{word:>9}" for word in ("68 %", "(sigma)", "95 %", "(sigma)"))
    out = [title, f"{'quantity':<16}{'cases':>8}{head}{'rank chi2/19':>14}{'p':>8}"]
    for name, tally in tallies.items():
        if not tally.inside["68 %"] or not sum(map(len, tally.inside["68 %"])):
            continue
        c, flat = tally.coverage(), tally.flatness()
        cells = "".join(f"{c[k]['share']:>9.4f}{c[k]['off']:>+9.1f}" for k in NOMINAL)
        ranks = f"{flat['chi2'] / (flat['bins'] - 1):>14.2f}{flat['p']:>8.3f}" if flat else ""
        out.append(f"{name:<16}{c['68 %']['cases']:>8}{cells}{ranks}")
    return [*out, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--universes", type=int, default=200)
    parser.add_argument("--mocked", type=int, default=None, help="universes from xp mock; default: as --universes")
    parser.add_argument("--stars", type=int, default=20_000, help="stars per mocked universe")
    parser.add_argument("--nuts", type=int, default=10, help="how many are sampled with NUTS")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--priors", action="store_true", help="compare the priors as well")
    given = parser.parse_args()
    u, m = given.universes, given.universes if given.mocked is None else given.mocked
    text = lines(f"{u} universes, {given.nuts} of them with NUTS", drawn(u, given.seed, sampled=given.nuts))
    text += lines(f"{u} universes, V_eff uncertain by 10 %", drawn(u, given.seed + 10_000, error=0.1))
    for prior in ("flat", "data") if given.priors else ():
        text += lines(f"{u} universes, prior {prior}", drawn(u, given.seed, prior))
    if m:
        text += lines(f"{m} universes of xp mock, true masses", mocked(m, given.stars, given.seed))
        text += lines(f"{m} universes of xp mock, masses of the network", mocked(m, given.stars, given.seed, "network"))
        text += lines(f"{m} universes of xp mock, the demo's pipe", _demo(m, given.stars, given.seed))
    sys.stdout.write("\n".join(text))


if __name__ == "__main__":
    main()
