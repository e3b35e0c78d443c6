"""A TAP result from wire to table: xp against pyvo and against the bytes alone, alternating in one run.

python tests/bench/bench_tap.py [--rows 400000] [--repeat 3]

A server in a process of its own gives a finished job's result: mock stars, the columns of `xp fetch gaia`, as VOTable
BINARY2. `wire`: the bytes into a file, no more (requests). `xp`: the same, then parsed, checked, put into source_id
order and written as a part in Parquet. `parse`: only the reply's file to an Arrow table. `pyvo`: its fetch of the same
result as an astropy table in memory, in the same order of work but for the sorting and the file. All have the same rows
and the same sums before anything is timed. The client's processor time counts; the limit is that of `wire`.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

import pyarrow as pa
from common import compared, turns

sys.path.insert(0, str(Path(__file__).parent.parent))


def reply(drawn: int) -> tuple[bytes, int]:
    """Mock stars as a TAP reply, in no order, and their number (a survey does not see all that are drawn)."""
    import numpy as np
    from tapstub import document

    import xptools
    from xptools.columns import GAIA

    step = xptools.op(f"mock {drawn}")
    table = pa.Table.from_batches(list(step.record_batches(1 << 16))).select(list(GAIA))
    return document(table.take(np.random.default_rng(0).permutation(len(table))), False), len(table)


def serve(body: bytes, told) -> None:
    """Give the body whatever is asked."""
    from servers import serving

    with serving(lambda request: (200, {"Content-Type": "application/x-votable+xml"}, body)) as server:
        told.put(server.url)
        time.sleep(3600)


def wire(url: str, folder: Path):
    import requests

    with requests.get(url, stream=True, timeout=60) as got, (folder / "raw").open("wb") as f:
        for piece in got.iter_content(1 << 16):
            f.write(piece)
    return None


def xp(url: str, folder: Path):
    from xptools.archive import parts
    from xptools.archive.download import download
    from xptools.archive.http import Client
    from xptools.archive.tap import Tap

    client = Client()
    file = download(client, url, folder / "reply.vot")
    table = Tap(client, url).table(file)
    table = parts.conformed(table, parts.schema_of(table.schema), "bench")
    assert not parts.doubles(table)
    parts.write(folder / "part.parquet", table)
    return table


def parse(url: str, folder: Path):
    from xptools.archive.http import Client
    from xptools.archive.tap import Tap

    return Tap(Client(), url).table(folder / "reply.vot")


def pyvo(url: str, folder: Path):
    import pyvo
    from pyvo.utils.http import use_session

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pyvo.dal.TAPResults.from_result_url(url, session=use_session(None)).to_table()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=400_000, help="stars drawn")
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    os.environ["NO_PROXY"] = "127.0.0.1"
    (body, rows), told = reply(args.rows), multiprocessing.Queue()
    server = multiprocessing.Process(target=serve, args=(body, told), daemon=True)
    server.start()
    url = told.get()
    with tempfile.TemporaryDirectory(prefix="bench-tap-") as name:
        folder = Path(name)
        agree(xp(url, folder), pyvo(url, folder))
        jobs = {act.__name__: (rows, lambda act=act: act(url, folder)) for act in (wire, xp, parse, pyvo)}
        rates = turns(jobs, args.repeat, warm=0)
    server.terminate()
    wire_alone = rates["wire"].max(0)[1]
    for name, case in (("xp", "wire to part file"), ("parse", "reply to Arrow table")):
        compared("fetch gaia", f"{case}, {len(body) / 1e6:.0f} MB", jobs, rates, name, "pyvo",
                 share=rates[name].max(0)[1] / wire_alone, limit_by="wire")  # fmt: skip
    for rate in (2, 10, 50):
        took = rows / rates["xp"].max(0)[1]
        print(f"of a fetch at {rate} MB/s xp itself takes {100 * took / (len(body) / rate / 1e6 + took):.1f} %")


def agree(ours: pa.Table, theirs) -> None:
    """Same identifiers, same sums."""
    import numpy as np

    theirs.sort("source_id")
    assert (ours["source_id"].to_numpy() == np.asarray(theirs["source_id"])).all()
    for name in ("parallax", "bp_rp", "ra"):
        assert np.array_equal(ours[name].to_numpy(), np.ma.filled(theirs[name], np.nan), equal_nan=True), name


if __name__ == "__main__":
    main()
