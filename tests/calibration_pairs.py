"""Do the intervals of `xp mf --binaries` hold the truth, where counting pairs as single stars does not?

Every universe has slopes and densities of its own per [Fe/H] bin and law of mass ratios. Systems are drawn one by one:
the primary from the mass function, the ratio from its law, the light of both added, the volume that of the sum, the
mass what the network reads from it. `plain` counts every system as one star. `make calibration` runs it at full size.
"""

import argparse
import sys
from functools import partial
from itertools import pairwise

import numpy as np
import pyarrow as pa
from calibration import FEH, Tally, lines

import xptools
from xptools.commands._mass_model import reader_of
from xptools.commands._mf_report import true_phi
from xptools.cores import pairs
from xptools.cores.imf import PiecewiseIMF, mass_ratio
from xptools.cores.isochrone import load
from xptools.metadata import value_of

VOLUMES = "veff --mass-edges 0.15:0.7:11"
SEGMENTS = "--segments 0.15,0.55,0.7"
LAWS = {"uniform": pairs.Pairs(0.4), "twins": pairs.Pairs(0.4, None), "1.5": pairs.Pairs(0.4, 1.5)}


def light(mh, mass):
    """M_G and BP-RP of old dwarfs, NaN above the turn-off."""
    M_G, colour = load(None).absolute(mass, mh, 10.0)
    return np.where(mass > load(None).turn_off(mh, 10.0), np.nan, M_G), colour


def universe(rng) -> PiecewiseIMF:
    """A mass function with slopes of its own in every [Fe/H] bin, 1000 to 20,000 stars per kpc3 in each."""
    slopes = tuple((float(a), float(b)) for a, b in zip(rng.uniform(-3, 1, 4), rng.uniform(-4, 0, 4), strict=True))
    return PiecewiseIMF(FEH, (0.1, 0.55, 1.1), slopes).with_density(10 ** rng.uniform(3.0, 4.3, 4))


def counted(table, law, of: pairs.Pairs, rng) -> pa.Table:
    """mass and feh of the systems seen, singles and pairs, as a catalogue would have them."""
    masses, fehs = [], []
    for b, (lo, hi) in enumerate(pairwise(FEH)):
        mh = 0.5 * (lo + hi)
        seen = pairs.Seen(table, b, partial(light, mh), 4.0)
        dm, m = 1e-4, np.arange(0.1, 0.8, 1e-4) + 0.5e-4
        density = law.phi(m, lo, hi) * dm
        density = np.where(np.isfinite(light(mh, m)[0]), density, 0.0)
        single = np.repeat(m, rng.poisson((1 - of.fraction) * density * seen(light(mh, m)[0])))
        furthest = seen(light(mh, m)[0] - 0.7526)  # a twin's
        pair = np.repeat(np.arange(len(m)), rng.poisson(of.fraction * density * np.nan_to_num(furthest)))
        q = of.drawn(rng.random(len(pair)))
        mass, M_G = pairs.counted(m[pair], q, partial(light, mh), partial(reader_of(""), mh=mh))
        kept = rng.random(len(pair)) * furthest[pair] < seen(M_G)
        found = np.concatenate([single, mass[kept & np.isfinite(mass)]])
        masses.append(found)
        fehs.append(np.full(len(found), mh))
    return pa.table({"mass": np.concatenate(masses), "feh": np.concatenate(fehs)})


def paired(universes: int, ratios: str = "uniform", seed=0, draws=1000) -> dict[str, Tally]:
    """Tallies of log Phi, slopes and xi_MR by `xp mf --binaries` and by counting."""
    veff, of, out = xptools.op(VOLUMES), LAWS[ratios], {}
    spec = f"--binaries fraction={of.fraction},q={ratios} --chains 2 --draws {draws} --warmup {draws}"
    for i in range(universes):
        rng = np.random.default_rng((seed, i))
        law = universe(rng)
        stars = veff(counted(veff.table(), law, of, rng).combine_chunks().to_batches()[0])
        for name, how in (("", f"{spec} --seed {i} --force"), (", plain", "--method exact")):
            _noted(out, name, xptools.op(f"mf {how} {SEGMENTS}")(stars), law, veff.table())
    return out


def _noted(out, name, table, law, volumes):
    true = np.log10(true_phi(volumes, law)).ravel()
    use = np.isfinite(table.column("log_phi").to_numpy())
    span = [table.column(f"log_phi_{x}").to_numpy()[use] for x in ("lo", "hi", "lo95", "hi95")]
    out.setdefault(f"log Phi{name}", Tally()).add(true[use], *span)
    for b, entry in enumerate(value_of(table.schema, "xp.mf")["feh"]):
        if entry["n"] < 30:
            continue
        known = [*law.slopes[b], mass_ratio(law, feh=entry["feh"])]
        found = [*(s["poisson"] for s in entry["slopes"]), entry["xi"]["value"]]
        for what, truth, got in zip(("alpha1", "alpha2", "xi_MR"), known, found, strict=True):
            if got["lo"] is not None:
                tally = out.setdefault(f"{what}{name}", Tally())
                tally.add(truth, *(got[x] for x in ("lo", "hi", "lo95", "hi95")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--universes", type=int, default=60)
    parser.add_argument("--ratios", nargs="+", default=list(LAWS), choices=LAWS)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for ratios in given.ratios:
        found = paired(given.universes, ratios, given.seed)
        sys.stdout.write("\n".join([*lines(f"{given.universes} universes, 40 % pairs, q: {ratios}", found), ""]))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
