"""All benchmarks as one: `make bench` gives one table, one JSON file and one figure.

    python tests/bench/all.py [--sizes 1e4,...,1e7] [--spectra 1e3,...,1e6] [--only mass,feh] [--quick] [--out DIR]

The machine's limits are measured first, then each script of tests/bench runs by itself and adds its records, `machine`
and `records` of DIR/bench.json; DIR/bench.txt is the table. Rows of whole commands are put beside the peer of the same
work that another script measured in this run (marked ~ in the table). --only names commands; scripts that measure none
of them are left out. --quick makes every script short: to try the harness, not to quote. --resume goes on after the
last script that a run before had finished. A script that takes longer than --limit is killed with all that it began,
and the run ends with status 1. With --device cuda only commands that use a GPU run, beside themselves on
the CPU; without a GPU that is refused with status 69.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import common
import growth
import table

HERE = Path(__file__).parent
# script: the commands it measures, its options, and those of --quick
SCRIPTS = {
    "bench_tables.py": (("convert", "select", "join"), "", "--rows 2e4 --repeat 1"),
    "bench_deredden.py": (("deredden",), "", "--nside 16 --stars 50000 --repeat 1"),
    "bench_eta.py": (("eta",), "", "--stars 20000 --few 1000 --repeat 1"),
    "bench_train_eta.py": (("train eta",), "", "--rows 8192 --repeat 1"),
    "bench_mass.py": (("mass",), "", "--stars 100000 --few 5000 --repeat 1"),
    "bench_population.py": (("veff", "mf"), "", "--rows 1e6 --points 1e5 --repeat 1"),
    "bench_calibrate.py": (("calibrate",), "", "--stars 200 --mine 4000 --repeat 1"),
    "bench_feh.py": (("feh",), "", "--stars 2000 --few 50 --repeat 1"),
    "bench_vae.py": (("vae", "train vae"), "--stars 40000", "--stars 4096 --repeat 1"),
    "bench_mock.py": (("mock",), "", "--stars 2e4 --repeat 1"),
    "bench_tap.py": (("fetch gaia", "fetch"), "", "--rows 20000 --repeat 1"),
    "bench_fetch_bulk.py": (("fetch xp", "fetch"), "", "--rows 100 --more 200 --repeat 1"),
    "bench_ask.py": (("ask", "train ask"), "--stars 512 --repeat 3", "--stars 64 --repeat 1 --preset tiny"),
    "bench_run.py": (("run",), "", "--files 2 --rows 5000"),
    "bench_commands.py": ((), "", "--repeat 1"),
}


def main() -> None:
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the script in work ends as well
    if args.device == "cuda":
        demand_gpu()
    args.out.mkdir(parents=True, exist_ok=True)
    kept = args.out / "records.jsonl"
    done = resumed(kept) if args.resume else []
    kept.write_text("".join(json.dumps(told) + "\n" for told in done))
    os.environ |= {common.RECORDS: str(kept), common.MACHINE: json.dumps(machine := machine_of(done, kept))}
    print(table.head(), flush=True)
    for script, (commands, words, quick) in SCRIPTS.items():
        if wanted(args, script, commands) and {"done": script} not in done:
            run(script, f"{words} {quick if args.quick else ''}".split(), args, kept)
    records = [r for r in read(kept) if "command" in r]
    result = {"machine": machine, "records": filled(records)}
    name = "bench-gpu" if args.device else "bench"
    (args.out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (args.out / f"{name}.txt").write_text(table.whole(result) + "\n")
    print(f"\n\n{table.whole(result)}\n\n{args.out / name}.json has the same numbers")
    if growth.points(result):
        print(f"{growth.draw(result, args.out / 'growth.png')} shows how time and memory grow")
    sys.exit(1 if any(r.get("failed") for r in result["records"]) else 0)


def wanted(args, script: str, commands: tuple[str, ...]) -> bool:
    """Whether a script has anything to do with --only and --device."""
    if script == "bench_commands.py":
        return True
    return not args.device and (not args.only or bool(set(commands) & set(args.only)))


def resumed(kept: Path) -> list[dict]:
    """What is left of a run before: the machine, and the records of scripts that had ended."""
    found = read(kept)
    ended = {r["done"] for r in found if "done" in r}
    return [r for r in found if "command" not in r or r["script"] in ended]


def machine_of(done: list[dict], kept: Path) -> dict:
    """The machine's limits: those of the run that is resumed, else measured now."""
    known = [r["machine"] for r in done if "machine" in r]
    machine = known[0] if known else common.machine() | {"date": time.strftime("%Y-%m-%d")}
    if not known:
        append(kept, {"machine": machine})
    return machine


def append(path: Path, told: dict) -> None:
    """One more line of JSON."""
    with path.open("a") as file:
        file.write(json.dumps(told) + "\n")


def run(script: str, words: list[str], args, kept: Path) -> None:
    """A script by itself; one that fails is a record too, and runs again when resumed."""
    if script == "bench_commands.py":
        words += ["--sizes", args.sizes, "--spectra", args.spectra, "--only", ",".join(args.only)]
        words += ["--longest", str(args.longest)]
        words += ["--device", args.device] if args.device else []
    start = time.perf_counter()
    code = ended([sys.executable, str(HERE / script), *words], args.limit)
    print(f"-- {script}: {time.perf_counter() - start:.0f} s", flush=True)
    if code:
        note = f"status {code}; what it said is above"
        common.record(script, "failed", failed=code, note=note, script=script)
    else:
        append(kept, {"done": script})


def ended(words: list[str], limit: float) -> int | str:
    """The exit status of a process; afterwards nothing of it is left, whatever happened."""
    process = subprocess.Popen(words, start_new_session=True)
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return f"killed after {limit:.0f} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def read(path: Path) -> list[dict]:
    """The records of all scripts."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def filled(records: list[dict]) -> list[dict]:
    """The rows of whole commands, beside the peer that another script measured; why not, where there is none."""
    for told in records:
        wanted = told.pop("peer_of", None)
        found = [peer_of(records, *one) for one in wanted or ()]
        if wanted and all(found) and "rows_per_core_s" in told:
            # A peer that does its work in several calls takes the sum of their times.
            for kind in ("rows_per_s", "rows_per_core_s"):
                rate = 1 / sum(1 / f[f"peer_{kind}"] for f in found)
                told[f"peer_{kind}"] = rate
                told["ratio_core" if "core" in kind else "ratio_wall"] = told[kind] / rate
            told |= {"peer": found[0]["peer"], "peer_elsewhere": True}
        elif wanted:
            told["note"] = told.get("note") or "its peer was not measured in this run"
    return records


def peer_of(records: list[dict], command: str, case: str) -> dict | None:
    """The record of another script whose case begins so, and which has a peer."""
    return next(
        (r for r in records if r["command"] == command and r["case"].startswith(case) and "peer_rows_per_s" in r), None
    )


def demand_gpu() -> None:
    """SystemExit with status 69 and one sentence unless JAX finds a CUDA device; asked in a process of its own."""
    look = "from xptools.cores._jax import configure\nfrom xptools.errors import UnavailableError\n"
    look += "try:\n    configure()\nexcept UnavailableError:\n    raise SystemExit(69)"
    done = subprocess.run([sys.executable, "-c", look], env=os.environ | {"XP_DEVICE": "cuda"}, check=False)
    if done.returncode:
        sys.stderr.write("make bench-gpu: JAX finds no CUDA device on this machine, so nothing was measured.\n")
        sys.exit(69)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="1e4,1e5,1e6,1e7", help="rows of catalogues")
    parser.add_argument("--spectra", default="1e3,1e4,1e5,1e6", help="rows of tables with spectra")
    parser.add_argument("--only", default="", help="commands, with commas")
    parser.add_argument("--quick", action="store_true", help="every script as short as can be")
    parser.add_argument("--longest", type=float, default=200.0, help="seconds of CPU that a run of a command may take")
    parser.add_argument("--limit", type=float, default=1800.0, help="seconds that a script may take")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was cut off")
    parser.add_argument("--out", type=Path, default=HERE / "out", help="folder of the results")
    parser.add_argument("--device", choices=["cuda"], help="commands on the GPU only")
    args = parser.parse_args()
    args.only = [w.strip() for w in args.only.split(",") if w.strip()]
    return args


if __name__ == "__main__":
    main()
