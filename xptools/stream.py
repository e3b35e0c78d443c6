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
    groups: tuple[int, int] | None = None  # row groups of a Parquet file, first and one after the last
    digest: str | None = None  # of the whole input, where INPUT is one file of it


@dataclass
class Outcome:
    """What a run did: rows in and out, rows with flags by command, the cut-flow of every Cut by its place."""

    read: int = 0
    written: int = 0
    flagged: dict[str, int] = field(default_factory=dict)
    tallies: dict[int, Tally] = field(default_factory=dict)
    table: pa.Table | None = None
    state: Any = None


@dataclass
class Flow:
    """An open input before a chain: the batches that go in, how many rows if known, and the schema that comes out."""

    chain: list[Plan]
    last: Fold | None
    schema: pa.Schema
    batches: Iterable[pa.RecordBatch]
    total: int | None

    def rows(self, outcome: Outcome, bar: progress.Bar, rows: int) -> Iterator[pa.RecordBatch]:
        """The batches after the chain."""
        return chained(self.chain, _counted(self.batches, outcome, bar), outcome, rows)


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
    return step.table(folded(step, batches, schema), schema)


def folded(step: Fold, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Any:
    """The state of a Fold after these batches."""
    step.reads(schema)
    state = step.zero()
    for batch in batches:
        state = step.feed(state, batch)
    return state


def opened(plans: list[Plan], options: Options) -> Flow:
    """The input before the chain; the last step may be a Fold, the first a Source. What does not fit is said here."""
    chain, last = (plans[:-1], plans[-1].step) if isinstance(plans[-1].step, Fold) else (plans, None)
    misplaced = next((p.step.name for p in chain if isinstance(p.step, Fold)), None)
    if misplaced or any(isinstance(p.step, Source) for p in plans[1:]):
        raise UsageError(f"{misplaced or 'a source of rows'} cannot stand in the middle of a pipe")
    schema, batches, total, chain = _input(chain, options, last)
    out = metadata.without(schemas(chain, schema), (metadata.INPUT,) if last is None else ())
    if not options.provenance:
        out = metadata.without(out, (metadata.HISTORY,))
    return Flow(chain, last, out, batches, total)


def run(plans: list[Plan], options: Options) -> Outcome:
    """Run a chain from the input to the output."""
    if previews(options) and not isinstance(plans[-1].step, Fold):
        options.batch_rows = PREVIEW_ROWS
    flow, outcome = opened(plans, options), Outcome()
    bar = progress.Bar(" | ".join(p.step.name for p in plans), flow.total, draws(options))
    try:
        rows = flow.rows(outcome, bar, options.batch_rows)
        if flow.last is not None:
            _folded(flow.last, rows, flow.schema, options, outcome)
        elif previews(options):
            _preview(flow.schema, rows, outcome)
        else:
            _written(rows, flow, options, outcome)
    finally:
        bar.close()
    close(flow, options, outcome, plans[-1].step.name, bar.seconds)
    return outcome


def part(flow: Flow, options: Options) -> Outcome:
    """One input of many to its part, or to the state of the Fold at the end; nothing is said, no Cut is closed."""
    outcome = Outcome()
    rows = flow.rows(outcome, progress.Bar("", None, False), options.batch_rows)
    if flow.last is not None:
        outcome.state = folded(flow.last, rows, flow.schema)
    else:
        _written(rows, flow, options, outcome)
    return outcome


def _input(chain: list[Plan], options: Options, last: Step | None):
    if chain and isinstance(chain[0].step, Source):
        source = chain[0].step
        return source.schema(), source.record_batches(options.batch_rows), source.rows(), chain[1:]
    # A Fold alone reads only its columns: most of a file's bytes are never touched.
    named = (*last.needs, *last.wants) if last is not None and not chain else ()
    columns = list(dict.fromkeys(named)) or None
    reader = io.open_reader(options.input, columns, options.batch_rows, options.groups)
    if reader.format == "parquet" and options.input != "-" and chain and (left := chain[0].step.unread(reader.schema)):
        reader.close()
        kept = [name for name in reader.schema.names if name not in left]
        reader = io.open_reader(options.input, kept, options.batch_rows, options.groups)
    schema = reader.schema
    if columns is not None:
        last.reads(reader.whole)
    if options.provenance and (last is not None or any(p.step.records for p in chain)):
        digest = options.digest or io.digest(options.input)
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


def _written(rows: Iterator[pa.RecordBatch], flow: Flow, options: Options, outcome: Outcome) -> None:
    out, total = flow.schema, flow.total if _keeps_rows(flow.chain) else None
    hinted = (
        metadata.with_values(out, {metadata.ROWS_HINT.decode(): str(total)})
        if total is not None
        else metadata.without(out, (metadata.ROWS_HINT,))
    )
    with io.open_writer(options.output, hinted, options.format, options.clobber, _stdout(options)) as writer:
        for batch in rows:
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


def draws(options: Options) -> bool:
    """Whether a bar is drawn."""
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


def close(flow: Flow, options: Options, outcome: Outcome, name: str, seconds: float) -> None:
    """After the output is whole: every Cut gets its cut-flow, and people their summary."""
    for place, tally in sorted(outcome.tallies.items()):
        flow.chain[place].step.closed(tally, flow.schema)
    if options.quiet:
        return
    for line in progress.repeated():
        progress.say(line)
    for place, tally in sorted(outcome.tallies.items()):
        progress.say(f"xp {flow.chain[place].step.name}: {tally}")
    if progress.on_terminal() and not previews(options):
        flagged = "".join(f", {n:,} flagged by {name}" for name, n in outcome.flagged.items() if n)
        progress.say(f"xp {name}: {outcome.written:,} rows{flagged}, {seconds:.1f} s")


__all__ = [
    "Flow", "Options", "Outcome", "Plan", "chained", "close", "draws", "fold", "opened", "part", "previews", "run",
    "schemas", "through", "write_report",
]  # fmt: skip
