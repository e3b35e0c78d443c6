"""Runs steps over a table: reader -> even batches -> steps -> writer. The one place where rows flow.

`run` serves the commands; `through` serves Python, polars and notebooks: anything with an Arrow C stream goes in.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from xptools import io, metadata, preview, progress, terminal
from xptools.errors import ComputeError, UsageError
from xptools.io.batches import even
from xptools.io.reader import BATCH_ROWS
from xptools.protocol import Cut, Fold, RowOp, Source, Step, Tally

PREVIEW_ROWS = 20


@dataclass(frozen=True)
class Plan:
    """A step as the command line asked for it."""

    step: Step
    replace: bool = False


@dataclass
class Options:
    """How to run, as far as no result depends on it."""

    input: str = "-"
    output: str = "-"
    format: str | None = None
    batch_rows: int = BATCH_ROWS
    clobber: bool = True
    provenance: bool = True
    progress: str = "auto"
    quiet: bool = False
    report: Any = None


@dataclass
class Outcome:
    """What a run did: rows in and out, rows with flags by command, the cut-flow of every Cut by its place."""

    read: int = 0
    written: int = 0
    flagged: dict[str, int] = field(default_factory=dict)
    tallies: dict[int, Tally] = field(default_factory=dict)
    table: pa.Table | None = None


def schemas(plans: list[Plan], schema: pa.Schema) -> pa.Schema:
    """The output schema of a chain of row steps; every error of every step shows here, before any row is read."""
    for plan in plans:
        schema = plan.step.schema(schema, plan.replace)
    return schema


def chained(
    plans: list[Plan], batches: Iterable[pa.RecordBatch], outcome: Outcome, rows: int
) -> Iterator[pa.RecordBatch]:
    """Batches through a chain of RowOps and Cuts.

    Before each step the batches are made even again, as the next command of a pipe would: so a chain gives the bytes of
    the pipe, and no kernel works on scraps or on more than the cache holds.
    """
    for place, plan in enumerate(plans):
        batches = _stepped(plan, place, even(batches, rows), outcome)
    yield from batches


def _stepped(plan: Plan, place: int, batches: Iterable[pa.RecordBatch], outcome: Outcome) -> Iterator[pa.RecordBatch]:
    step = plan.step
    if isinstance(step, Cut):
        tally = outcome.tallies.setdefault(place, Tally(step.cuts()))
    for batch in batches:
        batch = step(batch, plan.replace, tally) if isinstance(step, Cut) else step(batch, plan.replace)
        _count_flags(step, batch, outcome)
        yield batch


def through(steps: Step | Iterable[Step | Plan], table: Any, rows: int = BATCH_ROWS) -> pa.RecordBatchReader:
    """Steps over anything with `__arrow_c_stream__` (polars, DuckDB, pyarrow): a RecordBatchReader.

    The last step may be a Fold: then the reader gives its result.
    """
    plans = [s if isinstance(s, Plan) else Plan(s) for s in ([steps] if isinstance(steps, Step) else steps)]
    last = plans.pop().step if plans and isinstance(plans[-1].step, Fold) else None
    odd = next((p.step.name for p in plans if isinstance(p.step, Fold | Source)), None)
    if odd:
        raise UsageError(f"{odd} is no step from rows to rows. TRY: xptools.op({odd!r}) alone, or xp run")
    reader = io.plain(pa.RecordBatchReader.from_stream(table))
    out = schemas(plans, reader.schema)
    flow = chained(plans, reader, Outcome(), rows)
    return fold(last, flow, out).to_reader() if last else pa.RecordBatchReader.from_batches(out, flow)


def fold(step: Fold, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    """A Fold over batches."""
    step.reads(schema)
    state = step.zero()
    for batch in batches:
        state = step.feed(state, batch)
    return step.table(state, schema)


def run(plans: list[Plan], options: Options) -> Outcome:
    """Run a chain from the input to the output; the last step may be a Fold, the first a Source."""
    chain, last = (plans[:-1], plans[-1].step) if isinstance(plans[-1].step, Fold) else (plans, None)
    misplaced = next((p.step.name for p in chain if isinstance(p.step, Fold)), None)
    if misplaced or any(isinstance(p.step, Source) for p in plans[1:]):
        raise UsageError(f"{misplaced or 'a source of rows'} cannot stand in the middle of a pipe")
    if last is None and previews(options):
        options.batch_rows = PREVIEW_ROWS
    schema, batches, total, chain = _input(chain, options, last)
    out = schemas(chain, schema)
    out = metadata.without(out, (metadata.INPUT,) if last is None else ())
    if not options.provenance:
        out = metadata.without(out, (metadata.HISTORY,))
    outcome = Outcome()
    bar = progress.Bar(" | ".join(p.step.name for p in plans), total, _draws(options))
    try:
        flow = chained(chain, _counted(batches, outcome, bar), outcome, options.batch_rows)
        if last is not None:
            _folded(last, flow, out, options, outcome)
        elif previews(options):
            _preview(out, flow, outcome)
        else:
            _written(flow, out, total if _keeps_rows(chain) else None, options, outcome)
    finally:
        bar.close()
    _close(chain, plans[-1].step, options, outcome, out, bar)
    return outcome


def _input(chain: list[Plan], options: Options, last: Step | None):
    if chain and isinstance(chain[0].step, Source):
        source = chain[0].step
        return source.schema(), source.record_batches(options.batch_rows), source.rows(), chain[1:]
    # A Fold alone reads only its columns: most of a file's bytes are never touched.
    columns = list(dict.fromkeys((*last.needs, *last.wants))) if last is not None and not chain else None
    reader = io.open_reader(options.input, columns, options.batch_rows)
    if reader.format == "parquet" and options.input != "-" and chain and (left := chain[0].step.unread(reader.schema)):
        reader.close()
        kept = [name for name in reader.schema.names if name not in left]
        reader = io.open_reader(options.input, kept, options.batch_rows)
    schema = reader.schema
    if columns is not None:
        last.reads(reader.whole)
    if options.provenance and (last is not None or any(p.step.records for p in chain)):
        digest = io.digest(options.input)
        schema = metadata.with_values(schema, {metadata.INPUT.decode(): digest} if digest else {})
    batches = even(reader, options.batch_rows)
    if not options.provenance:
        # Also what is no readable history must be got rid of.
        schema = metadata.without(schema, (metadata.HISTORY,))
        batches = (b.replace_schema_metadata(schema.metadata) for b in batches)
    return schema, batches, reader.rows, chain


def _counted(batches: Iterable[pa.RecordBatch], outcome: Outcome, bar) -> Iterator[pa.RecordBatch]:
    fail_at = int(os.environ.get("XP_TEST_FAIL_AT", 0))
    for i, batch in enumerate(batches, 1):
        if i == fail_at:
            raise ComputeError(f"stopped at batch {i} because XP_TEST_FAIL_AT is set. TRY: unset XP_TEST_FAIL_AT")
        outcome.read += batch.num_rows
        yield batch
        bar.add(batch.num_rows)


def _written(
    flow: Iterator[pa.RecordBatch], out: pa.Schema, total: int | None, options: Options, outcome: Outcome
) -> None:
    hinted = (
        metadata.with_values(out, {metadata.ROWS_HINT.decode(): str(total)})
        if total is not None
        else metadata.without(out, (metadata.ROWS_HINT,))
    )
    with io.open_writer(options.output, hinted, options.format, options.clobber, _stdout(options)) as writer:
        for batch in flow:
            writer.write(batch.replace_schema_metadata(hinted.metadata))
    outcome.written = writer.rows


def _folded(step: Fold, flow: Iterator[pa.RecordBatch], out: pa.Schema, options: Options, outcome: Outcome) -> None:
    table = fold(step, flow, metadata.without(out, (metadata.ROWS_HINT,)))
    outcome.table, outcome.written = table, table.num_rows
    write_report(table, options)


def write_report(table: pa.Table, options: Options) -> None:
    """A small table: readable text on a terminal (`options.report`), else in the format asked for."""
    if not options.provenance:
        table = table.replace_schema_metadata(metadata.without(table.schema, (metadata.HISTORY,)).metadata)
    if previews(options):
        terminal.show(options.report(table) if options.report else preview.drawn(table)[0])
        return
    with io.open_writer(options.output, table.schema, options.format, options.clobber, _stdout(options)) as writer:
        for batch in table.to_batches():
            writer.write(batch)


def _stdout(options: Options):
    return terminal.claim() if options.output == "-" else None


def previews(options: Options) -> bool:
    """Whether the first rows are shown on a terminal instead of a table being written."""
    return options.output == "-" and options.format is None and terminal.is_terminal()


def _preview(out: pa.Schema, flow: Iterator[pa.RecordBatch], outcome: Outcome) -> None:
    held: list[pa.RecordBatch] = []
    for batch in flow:
        held.append(batch)
        if sum(b.num_rows for b in held) >= PREVIEW_ROWS:
            break
    table = pa.Table.from_batches(held, out).slice(0, PREVIEW_ROWS)
    picture, shown = preview.drawn(table)
    terminal.show(picture)
    outcome.written = table.num_rows
    columns = f"{shown} of {len(out)} columns" if shown < len(out) else f"{shown} columns"
    progress.say(f"xp: the first {table.num_rows} rows, {columns}; to keep the table: -o FILE, or pipe it on")


def _keeps_rows(chain: list[Plan]) -> bool:
    return not any(p.step.drops for p in chain)


def _draws(options: Options) -> bool:
    if options.progress == "off" or options.quiet or not progress.on_terminal():
        return False
    # In a pipe only the last command draws: its stdout is not a pipe.
    return options.progress == "on" or options.output != "-" or terminal.is_terminal()


def _count_flags(step: Step, batch: pa.RecordBatch, outcome: Outcome) -> None:
    flag = f"{step.name}_flag"
    if isinstance(step, RowOp) and step.flags and batch.num_rows:
        import numpy as np

        bits = batch.column(batch.schema.get_field_index(flag)).to_numpy(zero_copy_only=False)
        outcome.flagged[step.name] = outcome.flagged.get(step.name, 0) + int(np.count_nonzero(bits))


def _close(chain: list[Plan], last: Step, options: Options, outcome: Outcome, out: pa.Schema, bar) -> None:
    for place, tally in sorted(outcome.tallies.items()):
        chain[place].step.closed(tally, out)
    if options.quiet:
        return
    for line in progress.repeated():
        progress.say(line)
    for place, tally in sorted(outcome.tallies.items()):
        progress.say(f"xp {chain[place].step.name}: {tally}")
    if progress.on_terminal() and not previews(options):
        flagged = "".join(f", {n:,} flagged by {name}" for name, n in outcome.flagged.items() if n)
        progress.say(f"xp {last.name}: {outcome.written:,} rows{flagged}, {bar.seconds:.1f} s")


__all__ = ["Options", "Outcome", "Plan", "chained", "fold", "previews", "run", "schemas", "through", "write_report"]
