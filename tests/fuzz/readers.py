"""Spoil good files at random and read them, for as long as wanted: every reader ends well or refuses in a sentence.

`make fuzz` does it for an hour.

    python tests/fuzz/readers.py --seconds 3600 --keep /tmp/found

Targets: every table format, packed ones, model files, isochrones, expressions of xp select, configuration files. A case
is decided by (target, number), so it can be given again: --target fits --case 1234. Cases run in a process with little
memory. What crashes, hangs, takes gigabytes or raises anything but an XpError is kept, once for each place in the code;
with a crash, what the process said.
"""

import argparse
import contextlib
import faulthandler
import gzip
import json
import os
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
MEMORY = 6 << 30
HANG = 30  # s
ROUND = 200  # cases of a process
SUFFIXES = ("arrows", "arrow", "parquet", "fits", "vot", "ecsv", "csv")
EDGES = (
    b"",
    b"0",
    b"-1",
    b"1e400",
    b"99999999999999999999",
    b"nan",
    b"\xff",
    b"<",
    b">",
    b'"',
    b",",
    b"\n",
    b"\\",
    b"[",
)
NUMBERS = (0, 1, -1, 2**15, 2**31 - 1, -(2**31), 2**62, -(2**63), 0x7F800000)
EXPRESSIONS = b"dwarf = mg0 > 4 and isfinite(mass)\n(ra - dec) ** 2 / 3 <= abs(pm) or not (feh == -1.5)\nflag & 4 != 0"
CONFIG = b"seed = 5\n[mock]\nbinaries = 0.0\n[mf]\nmethod = 'exact'\nsegments = '0.15,0.55'\n"
PARSEC = "# Using YBC\n# Zini MH logAge Mini int_IMF Mass logL logTe logg label mbolmag Gmag G_BPmag G_RPmag\n"


def corpus() -> dict[str, list[bytes]]:
    """Good bytes of every target."""
    from tables import gallery, write

    from xptools.commands.mass import DEFAULT

    found: dict[str, list[bytes]] = {}
    with tempfile.TemporaryDirectory() as name:
        for suffix in SUFFIXES:
            for rows, nulls in ((40, False), (3, True), (0, False)):
                table = gallery(rows, nulls=nulls)
                table = table if suffix != "csv" else table.drop_columns(["coef", "wide"])
                path = write(table, Path(name) / f"t.{suffix}")
                found.setdefault(suffix, []).append(path.read_bytes())
    found["gz"] = [gzip.compress(found["csv"][0]), gzip.compress(found["vot"][0])]
    found["vot"] += [_plain_votable(), _plain_votable().replace(b"BINARY2", b"BINARY")]
    found["model"] = [Path(DEFAULT).read_bytes()]
    found["isochrone"] = [_parsec().encode()]
    found["expression"] = EXPRESSIONS.splitlines()
    found["config"] = [CONFIG]
    return found


def _plain_votable() -> bytes:
    rows = "".join(f"<TR><TD>{i}</TD><TD>{i / 7}</TD><TD>a{i}</TD><TD>1 2 3</TD></TR>" for i in range(9))
    fields = '<FIELD name="source_id" datatype="long"/><FIELD name="ra" datatype="double" unit="deg"/>'
    fields += '<FIELD name="s" datatype="char" arraysize="*"/><FIELD name="v" datatype="float" arraysize="3"/>'
    text = f'<?xml version="1.0"?><!DOCTYPE VOTABLE><VOTABLE version="1.4"><RESOURCE><TABLE>{fields}'
    return f"{text}<DATA><TABLEDATA>{rows}</TABLEDATA></DATA></TABLE></RESOURCE></VOTABLE>".encode()


def _parsec() -> str:
    lines = [
        f"0.0152 {mh} {age} {m} 0 {m} 0 3.6 4.5 1 5 {9 - 4 * m} {10 - 4 * m} {8 - 4 * m}"
        for mh in (-1.0, 0.0)
        for age in (9.9, 10.1)
        for m in (0.2, 0.5, 0.8)
    ]
    return PARSEC + "\n".join(lines) + "\n"


def spoilt(good: list[bytes], rng: np.random.Generator) -> bytes:
    """One to four wounds in one of the good files."""
    data = good[rng.integers(len(good))]
    for _ in range(rng.integers(1, 5)):
        data = WOUNDS[rng.integers(len(WOUNDS))](data, good, rng)
    return data


def _place(data: bytes, rng) -> int:
    # Headers and footers decide more than what is between.
    ends = (rng.integers(0, min(len(data), 400) + 1), len(data) - rng.integers(0, min(len(data), 600) + 1))
    return int((*ends, rng.integers(0, len(data) + 1))[rng.integers(3)])


def _cut(data, good, rng):
    return data[: _place(data, rng)]


def _overwrite(data, good, rng):
    at, many = _place(data, rng), int(rng.integers(1, 64))
    return data[:at] + rng.integers(0, 256, many, dtype=np.uint8).tobytes() + data[at + many :]


def _flip(data, good, rng):
    at = min(_place(data, rng), max(0, len(data) - 1))
    return data[:at] + bytes([data[at] ^ (1 << int(rng.integers(8)))]) + data[at + 1 :] if data else data


def _delete(data, good, rng):
    at = _place(data, rng)
    return data[:at] + data[at + int(rng.integers(1, 200)) :]


def _repeat(data, good, rng):
    at, many = _place(data, rng), int(rng.integers(1, 200))
    return data[: at + many] + data[at : at + many] * int(rng.integers(1, 4)) + data[at + many :]


def _splice(data, good, rng):
    other = good[rng.integers(len(good))]
    return data[: _place(data, rng)] + other[_place(other, rng) :]


def _edge(data, good, rng):
    at, word = _place(data, rng), EDGES[rng.integers(len(EDGES))]
    return data[:at] + word + data[at + int(rng.integers(0, 8)) :]


def _number(data, good, rng):
    at, value = _place(data, rng), NUMBERS[rng.integers(len(NUMBERS))]
    order, kind = "<>"[rng.integers(2)], "iq"[rng.integers(2)]
    low = 8 * struct.calcsize(kind) - 1
    raw = struct.pack(order + kind, max(min(value, 2**low - 1), -(2**low)))
    return data[:at] + raw + data[at + len(raw) :]


def _digits(data, good, rng):
    """Another number where the text has one."""
    spots = [i for i, c in enumerate(data[:20000]) if 48 <= c < 58]
    if not spots:
        return data
    at = spots[rng.integers(len(spots))]
    return data[:at] + str(NUMBERS[rng.integers(len(NUMBERS))]).encode() + data[at + 1 :]


WOUNDS = (_cut, _overwrite, _flip, _flip, _delete, _repeat, _splice, _edge, _number, _number, _digits)


def read(target: str, path: Path) -> None:
    """Read a file as its command would; anything but an XpError, or a table that is not sound, is a finding."""
    from xptools.errors import XpError

    with contextlib.suppress(XpError):
        READERS.get(target, _table)(path)


def _table(path: Path) -> None:
    import pyarrow as pa

    from xptools import io, metadata

    with io.open_reader(str(path)) as reader:
        table = pa.Table.from_batches(list(reader), reader.schema)
        table.validate(full=True)
        metadata.history(reader.schema)
        metadata.votable_header(reader.schema, {})


def _model(path: Path) -> None:
    from xptools import artefact

    artefact.about(path)
    artefact.load(path, "mass")


def _isochrone(path: Path) -> None:
    from xptools.cores import isochrone

    isochrone.read(path)


def _expression(path: Path) -> None:
    from xptools.cores import expression

    arrays = {name: np.arange(5.0) for name in ("mg0", "mass", "ra", "dec", "pm", "feh")} | {"flag": np.arange(5)}
    with contextlib.suppress(expression.ExpressionError), np.errstate(all="ignore"):
        expression.parse(path.read_bytes().decode("utf-8", "replace")).condition(arrays)


def _config(path: Path) -> None:
    from click.exceptions import ClickException, Exit

    from xptools.cli import parse_step
    from xptools.errors import XpError

    with contextlib.suppress(ClickException, Exit, XpError):
        parse_step(["mock", "5", "--config", str(path)])


READERS = {"model": _model, "isochrone": _isochrone, "expression": _expression, "config": _config}


def cases(target: str, first: int, last: int, scratch: Path) -> None:
    """Run cases one after the other, the number of each written down before it begins; one JSON line a finding."""
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    good, bad, note = corpus()[target], scratch / "case", scratch / "note"
    for number in range(first, last):
        note.write_text(str(number))
        bad.write_bytes(spoilt(good, np.random.default_rng([number, *target.encode()])))
        signal.alarm(HANG)
        try:
            read(target, bad)
        except Exception as fault:
            frames = traceback.extract_tb(fault.__traceback__)
            ours = next((f for f in reversed(frames) if "xptools" in f.filename), frames[-1])
            where = f"{type(fault).__name__} at {Path(ours.filename).name}:{ours.lineno}: {str(fault)[:200]}"
            print(json.dumps({"case": number, "where": where}), flush=True)
            (scratch / f"{target}-{number}.bin").write_bytes(bad.read_bytes())
        signal.alarm(0)
    note.write_text(str(last))


def hunt(targets: list[str], seconds: float, keep: Path, first: int) -> int:
    """Rounds of all targets in turn until the time is up; the number of findings."""
    keep.mkdir(parents=True, exist_ok=True)
    places, ends, seen, done = dict.fromkeys(targets, first), time.monotonic() + seconds, set(), 0
    while time.monotonic() < ends:
        for target in targets:
            start = places[target]
            places[target], found = _round(target, start, keep)
            done += places[target] - start
            for case, where in found:
                name = f"{target} {where.split(': ')[0]}"
                if name not in seen:
                    seen.add(name)
                    print(f"{target} --case {case}: {where}", flush=True)
                else:
                    (keep / f"{target}-{case}.bin").unlink(missing_ok=True)
    print(f"{done:,} cases of {len(targets)} targets, {len(seen)} findings; next: --first {max(places.values())}")
    return len(seen)


def _round(target: str, start: int, keep: Path) -> tuple[int, list[tuple[int, str]]]:
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        (scratch / "note").write_text(str(start))
        words = [sys.executable, __file__, "--target", target, "--from", str(start), "--scratch", name]
        env = {**os.environ, "XP_CACHE": "off", "ARROW_DEFAULT_MEMORY_POOL": "jemalloc"}  # as xp itself
        done = subprocess.run(words, capture_output=True, text=True, errors="replace", env=env)
        reached = int((scratch / "note").read_text())
        told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"case"')]
        found = [(t["case"], t["where"]) for t in told]
        if done.returncode:
            if not (scratch / "case").exists():
                raise SystemExit(f"the reader of {target} cannot be tried at all:\n{done.stderr}")
            said = done.stderr.strip().splitlines() or ["nothing said"]
            found.append((reached, f"ended with {done.returncode}: {said[0]} ... {said[-1]}"))
            (scratch / f"{target}-{reached}.bin").write_bytes((scratch / "case").read_bytes())
            (keep / f"{target}-{reached}.txt").write_text(done.stderr)
            reached += 1
        for case, _ in found:
            shutil.copy(scratch / f"{target}-{case}.bin", keep)
        return reached, found


def main() -> int:
    """What the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "xp-fuzz")
    parser.add_argument("--target", action="append")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--case", type=int, help="one case alone")
    parser.add_argument("--from", dest="start", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.start is not None:
        from xptools import interrupt

        cases(asked.target[0], asked.start, asked.start + ROUND, asked.scratch)
        # As xp itself ends. An interpreter that winds down while a thread of Arrow lets go of a Python file aborts.
        interrupt.end(0)
    if asked.case is not None:
        with tempfile.TemporaryDirectory() as scratch:
            cases(asked.target[0], asked.case, asked.case + 1, Path(scratch))
        return 0
    return 1 if hunt(asked.target or sorted(corpus()), asked.seconds, asked.keep, asked.first) else 0


if __name__ == "__main__":
    sys.exit(main())
