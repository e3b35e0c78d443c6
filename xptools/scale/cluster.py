"""An existing Dask cluster, or one on SLURM by dask-jobqueue: a task a unit, of which only words cross the network.

Dask tries a unit again when its worker dies; data stay on the file system that all machines share.
"""

import contextlib
import json
import logging
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from xptools import progress
from xptools.errors import BusyError, InputError, UnavailableError, UsageError
from xptools.scale.units import Unit
from xptools.scale.work import Job, Result, work

CURE = "TRY: pip install 'xptools[cluster]'"
WORDS = {"queue": str, "account": str, "walltime": str, "cores": int, "mem": str, "jobs": int, "processes": int}
PATIENCE = "60"  # s that a worker lives on without its scheduler


def on_cluster(job: Job, units: Iterable[Unit], scheduler: str, scheduler_file: str, slurm: str) -> Iterator[Result]:
    """The units done by a cluster, as they are ready; BusyError (75) if its scheduler goes away meanwhile."""
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(_client(scheduler, scheduler_file, slurm, stack))
        yield from _done(client, job, units)


def _done(client: Any, job: Job, units: Iterable[Unit]) -> Iterator[Result]:
    from distributed import as_completed

    run = uuid4().hex  # two runs on one scheduler must not share results
    flying = {client.submit(work, job, u, key=f"xp-{run}-{u.place}", pure=False): u for u in units}
    for future in as_completed(list(flying)):
        yield _became(future, flying.pop(future))


def _became(future: Any, unit: Unit) -> Result:
    from concurrent.futures import CancelledError

    from distributed.comm.core import CommClosedError

    with contextlib.suppress(CancelledError, CommClosedError):  # it may go between a status and its result
        if future.status == "finished":
            return future.result()
        if future.status == "error":
            return Result(unit, fault=_fault(future.exception()))
    raise BusyError("the Dask scheduler has gone. TRY: start it, and run again: what is done stays done")


def _fault(fault: BaseException) -> tuple[str, int, str]:
    from distributed.scheduler import KilledWorker

    if isinstance(fault, KilledWorker):
        return "its workers were killed, one after the other (out of memory?). TRY: more memory for a worker", 70, ""
    if isinstance(fault, ImportError):
        return f"a worker of the cluster has no xptools ({fault}). TRY: install it on all machines", 69, ""
    return f"Dask gave it up, {type(fault).__name__}: {fault}. TRY: run again", 70, ""


def _client(scheduler: str, scheduler_file: str, slurm: str, stack: contextlib.ExitStack) -> Any:
    try:
        from distributed import Client
    except ImportError as fault:
        raise UnavailableError(f"the package distributed is not installed. {CURE}") from fault
    for name in [n for n in logging.root.manager.loggerDict if n.startswith("distributed")]:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # xp says what has happened, once
    if slurm:
        words = parsed(slurm)
        cluster = stack.enter_context(slurm_cluster(words))
        cluster.adapt(minimum_jobs=0, maximum_jobs=words.get("jobs", 1))
        return Client(cluster)
    address = _address(scheduler_file) if scheduler_file else scheduler
    try:
        client = Client(address)
        if not client.scheduler_info()["workers"]:
            progress.warn(f"the cluster at {address} has no workers yet; xp run waits for them")
        return client
    except (OSError, ValueError, TimeoutError) as fault:
        raise UnavailableError(f"no Dask scheduler answers at {address}. TRY: dask scheduler, dask worker") from fault


def _address(scheduler_file: str) -> str:
    # distributed itself waits without end for a file that is not there.
    try:
        return json.loads(Path(scheduler_file).read_text())["address"]
    except OSError as fault:
        words = f"cannot open {scheduler_file}: {fault.strerror.lower()}"
        raise InputError(f"{words}. TRY: dask scheduler --scheduler-file {scheduler_file}") from fault
    except (ValueError, KeyError, TypeError) as fault:
        words = f"{scheduler_file} is no scheduler file of Dask"
        raise InputError(f"{words}. TRY: dask scheduler --scheduler-file {scheduler_file}") from fault


def parsed(text: str) -> dict[str, Any]:
    """The words of --slurm: queue=short,walltime=2h,cores=8,mem=32GB,jobs=20. UsageError for an unknown one."""
    words = {}
    for pair in text.split(","):
        name, equals, value = pair.partition("=")
        if not equals or name not in WORDS:
            raise UsageError(f"--slurm does not know {pair!r}. TRY: {','.join(f'{w}=...' for w in WORDS)}")
        try:
            words[name] = WORDS[name](value)
        except ValueError as fault:
            raise UsageError(f"--slurm {name} is a whole number, not {value!r}. TRY: {name}=8") from fault
    if absent := [name for name in ("cores", "mem") if name not in words]:
        raise UsageError(f"--slurm lacks {absent[0]}. TRY: --slurm queue=short,walltime=2h,cores=8,mem=32GB,jobs=20")
    return words


def clock(text: str) -> str:
    """2h, 90m, 1d or what SLURM itself understands, as hours:minutes:seconds."""
    minutes = {"m": 1, "h": 60, "d": 1440}.get(text[-1:])
    if minutes is None or not text[:-1].isdigit():
        return text
    total = int(text[:-1]) * minutes
    return f"{total // 60:02d}:{total % 60:02d}:00"


def slurm_cluster(words: dict[str, Any]) -> Any:
    """A SLURMCluster whose jobs run one worker process a core; nothing is submitted yet."""
    if shutil.which("sbatch") is None:
        raise UnavailableError("there is no sbatch on this machine. TRY: --slurm on a login node of the cluster")
    try:
        from dask_jobqueue import SLURMCluster
    except ImportError as fault:
        raise UnavailableError(f"the package dask-jobqueue is not installed. {CURE}") from fault
    return SLURMCluster(
        queue=words.get("queue"),
        account=words.get("account"),
        walltime=clock(words.get("walltime", "1h")),
        cores=words["cores"],
        processes=words.get("processes", words["cores"]),
        memory=words["mem"],
        death_timeout=PATIENCE,
        python=shlex.quote(sys.executable),
        job_name="xp-run",
    )
