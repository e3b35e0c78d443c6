"""Do the intervals of `xp mf --method gp` hold the truth? Universes of two kinds.

    broken   power laws with a kink at 0.55 Msun, as Li+ 2026 fit: no draw of the process
    process  draws of the process itself, with amplitude and length from their priors

Rows of one universe hang together, so the distances from nominal are larger than (sigma) says.
"""

import argparse
import sys

import numpy as np
import pyarrow as pa
from calibration import Tally, lines, universe

import xptools
from xptools.cores import mf, process
from xptools.metadata import value_of, with_values

LINE = "mf --method gp --force --truth --segments 0.15,0.55,0.75"
RANGES = {"fewer than 300 stars": (0, 300), "300 to 3000": (300, 3000), "more": (3000, np.inf)}


def volumes():
    """The schema that `xp veff` leaves."""
    return xptools.op("veff")(pa.record_batch({"mass": pa.array([0.5]), "feh": pa.array([-1.5])})).schema


def broken(universes: int, seed=0, draws=1000) -> dict[str, Tally]:
    """Through the command, from the counts on."""
    from xptools.commands._mf_report import true_phi

    base, out = volumes(), {name: Tally() for name in ("log Phi", *RANGES, "alpha1", "alpha2", "xi_MR")}
    for i in range(universes):
        law, rng = universe(np.random.default_rng((seed, i))), np.random.default_rng((seed, i, 1))
        fold = xptools.op(f"{LINE} --draws {draws} --warmup {draws} --seed {i}")
        schema = with_values(base, {"xp.mock": {"phi": law.to_dict()}})
        table = fold.volumes(schema)
        n = rng.poisson(np.nan_to_num(true_phi(table, law) * table.veff * table.width))
        found = fold.table(np.pad(n, ((1, 0), (1, 0))), schema)
        rows = {name: found[name].to_numpy() for name in found.column_names}
        stars = np.repeat(n.sum(axis=1), n.shape[1])
        use = np.isfinite(rows["log_phi"])
        span = [rows[f"log_phi_{x}"] for x in ("true", "lo", "hi", "lo95", "hi95")]
        out["log Phi"].add(*(v[use] for v in span))
        for name, (low, high) in RANGES.items():
            out[name].add(*(v[use & (stars >= low) & (stars < high)] for v in span))
        for entry in value_of(found.schema, "xp.mf")["feh"]:
            spreads = [*(s["poisson"] for s in entry["slopes"]), entry["xi"]["value"]]
            known = [*entry["truth"]["alpha"], entry["truth"]["xi"]]
            for name, truth, got in zip(("alpha1", "alpha2", "xi_MR"), known, spreads, strict=True):
                if entry["n"] >= 30 and got["lo"] is not None:
                    out[name].add(truth, *(got[x] for x in ("lo", "hi", "lo95", "hi95")))
    return out


def drawn(universes: int, seed=0, draws=1000) -> dict[str, Tally]:
    """Draws of the process, of 30 to 30,000 stars, through the core."""
    table, out = process.refined(xptools.op("veff --mass-edges 0.15:0.75:11").table()), {"log Phi": Tally()}
    for i in range(universes):
        rng = np.random.default_rng((seed, i, 2))
        curve = process.Curve.of(table, i % 4, np.zeros(len(table.width)), (0.55,))
        y = rng.standard_normal(curve.design.shape[1]) * curve.widths(rng.standard_normal(2))
        y[1] = np.clip(y[1] + process.LINE_SLOPE, -4, 2)
        ln_phi = curve.design @ y
        ln_phi += np.log(10 ** rng.uniform(1.5, 4.5) / (np.exp(ln_phi) * curve.exposure).sum())
        curve = process.Curve.of(table, i % 4, rng.poisson(np.exp(ln_phi) * curve.exposure), (0.55,))
        got, _ = process.sample(curve, i, chains=2, warmup=draws, draws=draws)
        ln = got.ln_phi.reshape(-1, len(ln_phi))
        q = mf.summary(ln)[2]
        out["log Phi"].add(ln_phi / np.log(10), *q[1:], np.mean(ln < ln_phi, axis=0)[rng.integers(len(ln_phi))])
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--universes", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    text = lines(f"{given.universes} universes of power laws with a kink", broken(given.universes, given.seed))
    text += lines(f"{4 * given.universes} draws of the process", drawn(4 * given.universes, given.seed))
    sys.stdout.write("\n".join(text))


if __name__ == "__main__":
    main()
