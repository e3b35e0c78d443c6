"""A pipe over many units: which are left to do, who does them, and what is made of them when they are done."""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import repeat
from pathlib import Path
from typing import Any

import xptools
from xptools import metadata, progress, stream
from xptools.errors import DataError, UsageError, XpError
from xptools.protocol import Fold, Source, Tally
from xptools.scale import hats, pool, work
from xptools.scale.folder import Folder, Record
from xptools.scale.units import Inputs, Unit, listed

SINGLE = (1, 65, 66, 70)  # exit status of what may be wrong with one unit; the rest stops the run


@dataclass(frozen=True)
class Wish:
    """What is asked for: input, the folder of parts ("" for a Fold), and who does the work."""

    input: str
    out: str = ""
    unit_rows: int = 1_000_000
    jobs: int = 1
    scheduler: str = ""
    scheduler_file: str = ""
    slurm: str = ""
    shard: tuple[int, int] | None = None
    debug: bool = False


@dataclass
class Merged:
    """States of a Fold, merged in the order of their units whoever is first: the same bits for any number of workers.

    `early` holds those that were ready before one in front of them; the others are gone when they are merged.
    """

    step: Fold
    state: Any
    early: dict[int, Any] = field(default_factory=dict)
    place: int = 0

    def take(self, place: int, state: Any) -> None:
        """The state of the unit at this place."""
        self.early[place] = state
        while self.place in self.early:
            self.state = self.step.merge(self.state, self.early.pop(self.place))
            self.place += 1


@dataclass
class Tale:
    """How the run went: records by part, the state of a Fold, who failed."""

    records: dict[str, Record] = field(default_factory=dict)
    merged: Merged | None = None
    failed: dict[str, int] = field(default_factory=dict)


def conduct(plans: list[stream.Plan], wish: Wish, options: stream.Options) -> None:
    """Run the pipe over every unit. DataError (65) at the end if some could not be done; the others are."""
    if isinstance(plans[0].step, Source):
        raise UsageError(f"{plans[0].step.name} makes rows and reads no folder. TRY: xp run without a second name")
    inputs = listed(wish.input, wish.unit_rows)
    _apart(wish, inputs)
    flow = _first(plans, inputs.units, options)
    if inputs.hats and flow.last is None:
        hats.check(Path(inputs.hats), flow.schema.names)
    job = work.Job(
        tuple(plans), wish.out and str(Path(wish.out).absolute()), bool(inputs.hats), options.batch_rows,
        options.clobber, options.provenance, work.columns(flow.schema), work.meaning(flow.schema),
        xptools.__version__, str(Path.cwd()), work.settings(),
    )  # fmt: skip
    if flow.last is not None:
        _reduce(job, inputs, wish, options)
    else:
        _parts(job, inputs, wish, replace(options, output=wish.out))


def _apart(wish: Wish, inputs: Inputs) -> None:
    """Refuse to write the parts among the input."""
    if not wish.out or inputs.one_file:
        return
    root, out = Path(wish.input).resolve(), Path(wish.out).resolve()
    if out == root or root in out.parents:
        where = "is" if out == root else "lies in"
        raise UsageError(f"{wish.out} {where} {wish.input}, so parts would be input. TRY: a folder elsewhere")


def _first(plans: list[stream.Plan], units: tuple[Unit, ...], options: stream.Options) -> stream.Flow:
    """The flow of the first unit that can be opened: what does not fit in any is said before a worker starts."""
    fault = None
    for unit in units:
        try:
            return stream.opened(plans, _options(options, unit, provenance=False))
        except DataError as new:
            if fault is not None:  # one may be a bad file; two say that the pipe does not fit
                raise fault from new
            fault = new
    raise fault


def _options(options: stream.Options, unit: Unit, **changes: Any) -> stream.Options:
    return replace(options, **{"input": unit.source, "groups": unit.groups, **changes})


# --- rows ----------------------------------------------------------------------------------------------------------


def _parts(job: work.Job, inputs: Inputs, wish: Wish, options: stream.Options) -> None:
    folder = Folder(wish.out, job.sparse)
    folder.begin()
    with folder.held(wish.shard):
        steps = [metadata.record(p.step) | {"replace": p.replace, "provenance": job.provenance} for p in job.plans]
        pipe = " | ".join(p.step.name for p in job.plans)
        there = folder.agree({"steps": steps, "pipe": pipe, "columns": job.columns})
        job = replace(job, columns=tuple((name, kind) for name, kind in there["columns"]))
        tale = Tale(_kept(folder, inputs.units))
        mine = [u for u in inputs.units if wish.shard is None or u.place % wish.shard[1] == wish.shard[0]]
        todo = [u for u in mine if u.part not in tale.records]
        folder.sweep(todo if wish.shard else None)
        bar = progress.Bar(pipe, len(mine), stream.draws(options), "parts")
        _watch(job, todo, wish, tale, bar, len(mine) - len(todo))
        folder.sweep(todo if wish.shard else None)
        _judge(tale, len(mine))
        if wish.shard:  # others may have done theirs meanwhile: whoever looks last sees all
            tale.records |= _kept(folder, inputs.units, say=False)
        lacking = len(inputs.units) - len(tale.records)
        if lacking:
            if not options.quiet:
                progress.say(f"xp run: {lacking:,} parts are of other shards; if all have ended, run one of them again")
            return
        with folder.completing() if wish.shard else contextlib.nullcontext(True) as mine_to_do:
            if mine_to_do:
                _complete(job, inputs, tale, options, folder, bar.seconds)


def _kept(folder: Folder, units: tuple[Unit, ...], say: bool = True) -> dict[str, Record]:
    """The parts that need not be made again; those whose input has changed are named."""
    known, kept = folder.records(), {}
    named = {u.part for u in units}
    gone = next((part for part in known if part not in named), None)
    if gone is not None:
        words = f"{known[gone].name} is no longer in the input, but its part {gone} is in {folder.path}"
        raise DataError(f"{words}. TRY: remove the part and {folder.record(gone)}")
    for unit in units:
        record = known.get(unit.part)
        if record is None:
            continue
        if not record.of(unit):
            if say:
                progress.warn(f"{unit.name} has changed since its part was made, so it is made again")
        elif folder.there(unit.part, record):
            kept[unit.part] = record
    return kept


def _complete(
    job: work.Job, inputs: Inputs, tale: Tale, options: stream.Options, folder: Folder, seconds: float
) -> None:
    """Every part is there: the catalogue's own files, the cut-flows of all rows, the summary."""
    records = [tale.records[u.part] for u in inputs.units]
    flow = _whole(list(job.plans), inputs, records, options)
    outcome = _together(flow, records)
    if inputs.hats:
        rows = {u.part: tale.records[u.part].written for u in inputs.units}
        hats.write(folder.path, Path(inputs.hats), rows, flow.schema, outcome.read == outcome.written)
    stream.close(flow, options, outcome, "run", seconds)


def _whole(plans: list, inputs: Inputs, records: list[Record], options: stream.Options) -> stream.Flow:
    """The first unit's flow, but its history names the whole input."""
    lines = "\n".join(f"{r.name}:{r.sha256}" for r in records)
    digest = None if inputs.one_file else hashlib.sha256(lines.encode()).hexdigest()
    return stream.opened(plans, _options(options, inputs.units[0], digest=digest))


def _together(flow: stream.Flow, records: list[Record]) -> stream.Outcome:
    """What all parts came to."""
    out = stream.Outcome(sum(r.read for r in records), sum(r.written for r in records))
    for record in records:
        for name, n in record.flagged.items():
            out.flagged[name] = out.flagged.get(name, 0) + n
        for place, counts in record.tallies.items():
            step = flow.chain[int(place)].step
            out.tallies.setdefault(int(place), Tally(step.cuts())).counts += counts
    return out


# --- one table -----------------------------------------------------------------------------------------------------


def _reduce(job: work.Job, inputs: Inputs, wish: Wish, options: stream.Options) -> None:
    step = job.plans[-1].step
    tale = Tale(merged=Merged(step, step.zero()))
    bar = progress.Bar(" | ".join(p.step.name for p in job.plans), len(inputs.units), stream.draws(options), "parts")
    _watch(job, list(inputs.units), wish, tale, bar, 0)
    _judge(tale, len(inputs.units))
    records = [tale.records[u.part] for u in inputs.units]
    flow = _whole(list(job.plans), inputs, records, options)
    outcome = _together(flow, records)
    table = step.table(tale.merged.state, metadata.without(flow.schema, (metadata.ROWS_HINT,)))
    outcome.table, outcome.written = table, table.num_rows
    stream.write_report(table, options)
    stream.close(flow, options, outcome, step.name, bar.seconds)


# --- both ----------------------------------------------------------------------------------------------------------


def _watch(job: work.Job, todo: list[Unit], wish: Wish, tale: Tale, bar: progress.Bar, there: int) -> None:
    """Let the units be done, and take in what became of each."""
    bar.add(there)
    results = _results(job, todo, wish)
    try:
        for result in results:
            for words, times in result.said.items():
                progress.warn(words, times)
            if result.fault is not None:
                _failed(result, tale, wish.debug)
            else:
                tale.records[result.unit.part] = result.record
                if tale.merged is not None and not tale.failed:
                    tale.merged.take(result.unit.place, result.state)
            bar.add(1)
    finally:
        if hasattr(results, "close"):
            results.close()
        bar.close()


def _results(job: work.Job, todo: list[Unit], wish: Wish) -> Iterable[work.Result] | Iterator[work.Result]:
    if wish.scheduler or wish.scheduler_file or wish.slurm:
        from xptools.scale.cluster import on_cluster

        return on_cluster(job, todo, wish.scheduler, wish.scheduler_file, wish.slurm)
    if wish.jobs > 1:
        return pool.pooled(job, todo, wish.jobs)
    return map(work.work, repeat(job), todo)


def _failed(result: work.Result, tale: Tale, debug: bool) -> None:
    words, code, trace = result.fault
    if debug and trace:
        progress.say(trace.rstrip())
    if code not in SINGLE:
        raise _error(code)(words)
    tale.failed[result.unit.name] = code
    name = result.unit.name
    progress.say(f"xp run: {words}" if name in words else f"xp run: {name}: {words}")


def _judge(tale: Tale, units: int) -> None:
    """The error at the end, if some units could not be done."""
    if not tale.failed:
        return
    codes, n = set(tale.failed.values()), len(tale.failed)
    names = ", ".join(sorted(tale.failed)[:5]) + (f" and {n - 5} more" if n > 5 else "")
    kind = _error(codes.pop() if len(codes) == 1 else 65)
    kind = DataError if kind.code == 66 else kind
    raise kind(f"{n} of {units} could not be done: {names}. TRY: mend what is said above, and run again")


def _error(code: int) -> type[XpError]:
    return next((kind for kind in XpError.__subclasses__() if kind.code == code), XpError)
