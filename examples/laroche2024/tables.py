"""Columns and files of this example: what its other scripts read and write tables with.

python tables.py gather|split|part|published INPUT... -o OUTPUT
"""

import argparse
import re
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from xptools.cores import keyed

ROWS = 20_000
LATENTS = [f"z{k}" for k in range(1, 7)]


def column(table, name):
    """A column (N,), float64; NaN where null."""
    return table[name].to_numpy(zero_copy_only=False).astype(float)


def columns(table, names):
    """Several side by side (N, n)."""
    return np.stack([column(table, name) for name in names], -1)


def block(table, name):
    """The coefficients of both bands side by side (N, 110)."""
    return np.concatenate([np.stack(table[f"{b}_{name}"].to_numpy(zero_copy_only=False)) for b in ("bp", "rp")], 1)


def gather(args):
    """One table of several mocks, in the order of mixed identifiers; what a mock has not is null in its rows."""
    parts = []
    for n, path in enumerate(args.input):
        table = pq.read_table(path)
        ids = pa.array(table["source_id"].to_numpy() + (n << 50))  # every mock counts its own stars
        table = table.set_column(table.schema.get_field_index("source_id"), "source_id", ids)
        parts.append(table.cast(pa.schema([field.with_nullable(True) for field in table.schema])))
    whole = pa.concat_tables(parts, promote_options="permissive")
    pq.write_table(whole.take(np.argsort(keyed.mixed(whole["source_id"].to_numpy(), 0))), args.output)


def split(args):
    """1,800 stars to train and 200 to test, by mixed identifiers."""
    table = pq.read_table(args.input[0])
    order = np.argsort(keyed.mixed(table["source_id"].to_numpy(), 200))
    for name, some in (("test", order[:200]), ("train", order[200:])):
        pq.write_table(table.take(np.sort(some)), f"{args.output}-{name}.parquet")


def part(args):
    """A tenth of the stars of any number to test, by mixed identifiers, the others to train."""
    whole = pq.ParquetFile(args.input[0])
    names = {name: f"{args.output}-{name}.parquet" for name in ("train", "test")}
    with ExitStack() as stack:
        out = {name: stack.enter_context(pq.ParquetWriter(path, whole.schema_arrow)) for name, path in names.items()}
        for batch in whole.iter_batches(ROWS):
            test = keyed.uniform(batch["source_id"].to_numpy(), 11) < 0.1
            for name, some in (("train", ~test), ("test", test)):
                out[name].write_batch(batch.filter(pa.array(some)))


def published(args):
    """The published training's metrics, whose rows have lost their line breaks, as a table of epoch, loss, score."""
    text = Path(args.input[0]).read_text()
    head, _, rest = text.partition("lr")
    width = len(head.split(","))
    number = r"-?\d+\.\d+(?:e[+-]\d+)?"
    row = re.compile(",".join([number] * (width - 1)) + r",(\d\.\d{4}e-\d\d)")
    rows = [[float(v) for v in found[0].split(",")] for found in row.finditer(rest)]
    loss, score = (np.array([r[head.split(",").index(n)] for r in rows]) for n in ("loss", "val_loss"))
    pq.write_table(pa.table({"epoch": np.arange(len(rows)), "loss": loss, "score": score}), args.output)


PARTS = {f.__name__: f for f in (gather, split, part, published)}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("input", nargs="+")
    parser.add_argument("-o", "--output", required=True)
    given = parser.parse_args()
    PARTS[given.part](given)
