"""Effective volumes and the mass function against what a user would write today.

    python tests/bench/bench_population.py [--rows 28e6] [--points 1e7] [--repeat 3]

V_eff: xp's 56 bins, averaged over the bins, against a numpy Monte Carlo of 14 bins; both judged by a finer quadrature.
Mass function: `xp mf` as a process, first without and then with its compile cache, against NumPyro's MCMC class on the
same counts; the exact method; and the counting of a long stream.
"""

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from common import XP, child, compared, goal, least, record, turns

import xptools
from xptools.commands import _volumes
from xptools.cores.veff import BALL, Survey, Volume, mean_density

PEER = """
import sys, numpy as np, jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS
jax.config.update("jax_enable_x64", True)
n = np.load(sys.argv[1])
def model(n):
    y = numpyro.sample("y", dist.Normal(jnp.log(n + 0.5), 3.0).to_event(1))
    numpyro.sample("n", dist.Poisson(jnp.exp(y)).to_event(1), obs=n)
mcmc = MCMC(NUTS(model, target_accept_prob=0.9), num_warmup=1000, num_samples=1000, num_chains=4,
            chain_method="vectorized", progress_bar=False)
mcmc.run(jax.random.PRNGKey(0), n)
mcmc.get_samples()["y"].mean()
"""


def volumes(points: int, repeat: int) -> None:
    """14 bins by Monte Carlo in the whole sphere, 56 bin averages by quadrature."""
    survey = Survey()
    M_G = np.linspace(6.0, 12.5, 14)
    d = survey.reach(M_G)
    truth = BALL * d**3 * mean_density(survey, d, radial=48, polar=40, around=64)
    found = {}

    def monte_carlo():
        rng = np.random.default_rng(0)
        r, s, l = np.cbrt(rng.random(points)), 2 * rng.random(points) - 1, 2 * np.pi * rng.random(points)
        x, y = 8.122 - r * np.sqrt(1 - s * s) * np.cos(l), r * np.sqrt(1 - s * s) * np.sin(l)
        n = np.exp(-(np.hypot(x, y) - 8.122) / 1.5 - np.abs(r * s) / 1.43)
        G0 = 5 * np.log10(r) + 10
        found["mc"] = np.array([BALL * np.sum(n[G0 <= 17 - m]) / points for m in M_G])

    step = xptools.op("veff")

    def quadrature():
        _volumes._table.cache_clear()
        step.table()

    step.table()
    jobs = {"numpy Monte Carlo": (14, monte_carlo), "xp": (56, quadrature)}
    rates = turns(jobs, repeat)
    worst = np.max(np.abs(Volume(survey)(M_G) / truth - 1))
    off = np.max(np.abs(found["mc"] / truth - 1))
    took = 1e3 * 56 / rates["xp"][:, 1].max()
    goals = [goal("56 bins in < 50 ms of CPU [ms]", took, high=50), goal("to 1e-4 [1e-4]", worst * 1e4, high=1)]
    case = f"bin averages; the {points:.0e} points err {off:.0e}"
    compared("veff", case, jobs, rates, "xp", "numpy Monte Carlo", goals=goals)


def stars(folder: Path, rows: int) -> tuple[Path, np.ndarray]:
    """A stream of bin numbers with its table of volumes, and the counts per bin."""
    schema = pa.schema([("mass_bin", pa.int16()), ("feh_bin", pa.int16())])
    schema = xptools.op("veff").schema(pa.schema([("mass", pa.float32()), ("feh", pa.float32())])).remove(0).remove(0)
    schema = pa.schema([schema.field("mass_bin"), schema.field("feh_bin")], metadata=schema.metadata)
    rng = np.random.default_rng(1)
    counts = np.zeros((4, 14))
    path = folder / f"bins-{rows}.arrows"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for start in range(0, rows, 1 << 18):
            size = min(1 << 18, rows - start)
            k, b = rng.integers(-1, 13, size, dtype=np.int16), rng.integers(-1, 4, size, dtype=np.int16)
            np.add.at(counts, (b[(k >= 0) & (b >= 0)], k[(k >= 0) & (b >= 0)]), 1)
            writer.write_batch(pa.record_batch([pa.array(k), pa.array(b)], schema=schema))
    return path, counts[:, :13].ravel()


def mass_function(folder: Path, rows: int, repeat: int) -> None:
    """Cold and warm `xp mf`, NumPyro's own class, the exact method, and a long stream."""
    small, counts = stars(folder, 20_000)
    np.save(folder / "n.npy", counts)
    peer_file = folder / "peer.py"
    peer_file.write_text(PEER)
    env = os.environ | {"XP_CACHE": str(folder / "cache"), "JAX_COMPILATION_CACHE_DIR": ""}

    xp, peer = [XP, "-q", "mf", "-o", "out.parquet"], [sys.executable, str(peer_file), "n.npy"]
    theirs = least([child(peer, folder, env=env) for _ in range(repeat)])
    shutil.rmtree(folder / "cache", ignore_errors=True)
    ways = {"NUTS, cold cache": [small], "NUTS, warm cache": [small], "exact": [small, "--method", "exact"]}
    wanted = {"NUTS, cold cache": 8, "NUTS, warm cache": 4}
    for case, words in ways.items():
        cost = least([child([*xp, *map(str, words)], folder, env=env) for _ in range(1 if "cold" in case else repeat)])
        goals = [goal(f"< {s} s of CPU [s]", cost["cpu_s"], high=s) for s in [wanted.get(case)] if s]
        record("mf", f"whole report, {case}", **cost, peer="NumPyro MCMC class", goals=goals,
               ratio_wall=theirs["wall_s"] / cost["wall_s"], ratio_core=theirs["cpu_s"] / cost["cpu_s"])  # fmt: skip
    long, _ = stars(folder, rows)
    cost = child([*xp, str(long), "--method", "exact"], folder, env=env)
    at = {"rows_per_s": rows / cost["wall_s"], "rows_per_core_s": rows / cost["cpu_s"]}
    record("mf", "counting, and the exact report", rows=rows, **at, **cost, bound={"copy": 4},
           goals=[goal("28 M rows in < 10 s of CPU [s]", cost["cpu_s"] / rows * 28e6, high=10)])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=float, default=28e6)
    parser.add_argument("--points", type=float, default=1e7)
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    volumes(int(given.points), given.repeat)
    with tempfile.TemporaryDirectory() as folder:
        mass_function(Path(folder), int(given.rows), given.repeat)


if __name__ == "__main__":
    main()
