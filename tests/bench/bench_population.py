"""Effective volumes and the mass function against what a user would write today.

    python tests/bench/bench_population.py [--rows 28e6] [--points 1e7] [--repeat 3]

V_eff: xp's 56 bins, averaged over the bins, against a numpy Monte Carlo of 14 bins; both judged by a finer quadrature.
Mass function: `xp mf` as a process, first without and then with its compile cache, against NumPyro's MCMC class on the
same counts; the exact method; and the counting of a long stream. Peer and xp alternate in one run; the best of the
repeats counts, and the ratio more than the seconds.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

import xptools
from xptools.commands import _volumes
from xptools.cores.veff import BALL, Survey, mean_density

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


def best(run, repeat: int) -> float:
    """The least seconds of some repeats."""
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def line(what: str, seconds: float, more: str = "") -> None:
    sys.stdout.write(f"{what:<58}{seconds:>10.3f} s   {more}\n")
    sys.stdout.flush()


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
    peer, own = best(monte_carlo, repeat), best(quadrature, 5 * repeat)
    from xptools.cores.veff import Volume

    worst = np.max(np.abs(Volume(survey)(M_G) / truth - 1))
    off = np.max(np.abs(found["mc"] / truth - 1))
    line(f"V_eff, numpy Monte Carlo, {points:.0e} points, 14 bins", peer, f"largest error {off:.1e}")
    line("V_eff, xp, 56 bin averages", own, f"largest error {worst:.1e}; {peer / own:.0f} x")


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

    def xp(*args):
        subprocess.run(["xp", "-q", "mf", *args, "-o", "out.parquet"], cwd=folder, env=env, check=True)

    def cold():
        shutil.rmtree(folder / "cache", ignore_errors=True)
        xp(str(small))

    def peer():
        subprocess.run([sys.executable, str(peer_file), "n.npy"], cwd=folder, env=env, check=True)

    theirs, first = best(peer, repeat), best(cold, repeat)
    warm = best(lambda: xp(str(small)), repeat)
    exact = best(lambda: xp(str(small), "--method", "exact"), repeat)
    line("mass function, NumPyro's MCMC class, sampling alone", theirs)
    line("mass function, xp mf, whole report, cold cache", first, f"{theirs / first:.1f} x")
    line("mass function, xp mf, whole report, warm cache", warm, f"{theirs / warm:.1f} x")
    line("mass function, xp mf --method exact, whole report", exact, f"{theirs / exact:.1f} x")
    long, _ = stars(folder, rows)
    took = best(lambda: xp(str(long), "--method", "exact"), 1)
    line(f"counting {rows:,} rows, and the exact report", took, f"{rows / took / 1e6:.1f} M rows/s")


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
