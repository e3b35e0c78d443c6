"""One unit of work, in whatever process: from its input to its part, or to the state of the Fold at the end.

A part appears whole under its name or not at all, and its record after it; doing a unit twice gives the same bytes. So
a unit may be tried again, or by two workers at once, without harm.
"""

import os
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xptools import progress
from xptools.errors import ConfigError, DataError, UnavailableError
from xptools.scale.folder import Folder, Record
from xptools.scale.units import Unit

SETTINGS = ("XP_DATA", "XP_CACHE", "XP_DEVICE", "XP_OFFLINE", "XP_TMPDIR", "INPUT_DIR", "DUSTMAPS_CONFIG_FNAME")


@dataclass(frozen=True)
class Job:
    """What is done to every unit, and where; plain values and steps, so that it travels to other processes.

    columns: [[name, type], ...] that come out of every unit; meta: what a Fold reads in the schema besides.
    """

    plans: tuple
    out: str = ""
    sparse: bool = False
    batch_rows: int = 16384
    clobber: bool = True
    provenance: bool = True
    columns: tuple[tuple[str, str], ...] = ()
    meta: str = ""
    version: str = ""
    cwd: str = ""
    settings: dict[str, str] = field(default_factory=dict)


@dataclass
class Result:
    """What became of a unit: its record, the state of a Fold, or `fault` (words, exit status, traceback)."""

    unit: Unit
    record: Record | None = None
    state: Any = None
    fault: tuple[str, int, str] | None = None
    said: dict[str, int] = field(default_factory=dict)


def settings() -> dict[str, str]:
    """The environment that decides where data are found: workers elsewhere take it over."""
    return {name: os.environ[name] for name in SETTINGS if name in os.environ}


def work(job: Job, unit: Unit) -> Result:
    """Do a unit; whatever goes wrong is in the result."""
    with progress.holding() as said:
        try:
            _settle(job)
            record, state = _done(job, unit)
            return Result(unit, record, state, said=dict(said))
        except Exception as fault:
            from xptools.cli import described

            return Result(unit, fault=(*described(fault), traceback.format_exc()), said=dict(said))


def _settle(job: Job) -> None:
    import xptools

    if xptools.__version__ != job.version:
        words = f"a worker has xp {xptools.__version__}, not {job.version}"
        raise ConfigError(f"{words}. TRY: install the same version on all machines")
    os.environ.update(job.settings)
    if os.getcwd() != job.cwd:
        try:
            os.chdir(job.cwd)  # steps name their files as the command line did
        except OSError as fault:
            words = f"a worker does not see the folder {job.cwd}. TRY: a file system that all machines share"
            raise UnavailableError(words) from fault


def _done(job: Job, unit: Unit) -> tuple[Record, Any]:
    from xptools import stream
    from xptools.io import digest

    _unchanged(unit)
    options = stream.Options(
        input=unit.source, batch_rows=job.batch_rows, clobber=job.clobber, provenance=job.provenance, quiet=True,
        groups=unit.groups,
    )  # fmt: skip
    flow = stream.opened(list(job.plans), options)
    _fits(job, flow, unit)
    flow.batches = _watched(flow.batches, unit)
    folder = Folder(job.out, job.sparse)
    if job.out:
        options.output = str(folder.target(unit))
    outcome = stream.part(flow, options)
    record = Record(
        unit.name, unit.size, unit.mtime_ns, digest(unit.source) or "", list(unit.groups) if unit.groups else None,
        outcome.read, outcome.written, 0, outcome.flagged,
        {str(place): tally.counts.tolist() for place, tally in outcome.tallies.items()},
    )  # fmt: skip
    if job.out:
        if job.sparse and outcome.written == 0:
            Path(options.output).unlink()
        else:
            record.bytes = Path(options.output).stat().st_size
        folder.note(unit, record)
    return record, outcome.state


def _unchanged(unit: Unit) -> None:
    if unit.changed():
        raise DataError(f"{unit.name} changes while it is read. TRY: run again when it is whole")


def _watched(batches, unit: Unit):
    """The batches; an input that has changed meanwhile is refused before its part appears."""
    yield from batches
    _unchanged(unit)


def _fits(job: Job, flow, unit: Unit) -> None:
    """DataError unless the unit gives the columns that all give: parts are to be one table."""
    there, wanted = dict(columns(flow.schema)), dict(job.columns)
    if there != wanted:
        names = [n for n in (*wanted, *there) if there.get(n) != wanted.get(n)]
        name = names[0]
        how = f"{there.get(name, 'not there')}, in the others {wanted.get(name, 'not there')}"
        raise DataError(f"column {name} is {how}. {unit.name}. TRY: xp convert --drop, or another folder for it")
    if list(there) != list(wanted):
        raise DataError(f"its columns have another order than in the others. {unit.name}. TRY: xp convert --keep")
    if flow.last is not None and meaning(flow.schema) != job.meta:
        raise DataError(f"its metadata (xp.*) differ from those of the others. {unit.name}. TRY: make it as the others")


def columns(schema) -> tuple[tuple[str, str], ...]:
    """Names and types, without the name and nullability of list items."""
    return tuple((f.name, str(f.type).replace(" not null", "").replace("element: ", "item: ")) for f in schema)


def meaning(schema) -> str:
    """The schema's own statements (xp.veff and the like), which hold for all rows or for none."""
    from xptools import metadata

    passing = (metadata.HISTORY, metadata.INPUT, metadata.ROWS_HINT)
    own = {k: v for k, v in (schema.metadata or {}).items() if k.startswith(b"xp.") and k not in passing}
    return repr(sorted(own.items()))
