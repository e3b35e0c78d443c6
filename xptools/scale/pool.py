"""Worker processes on this machine, each pinned to cores of its own; one that dies takes no unit with it."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from xptools import interrupt, session
from xptools.scale.units import Unit
from xptools.scale.work import Job, Result, work

TRIES = 2
HUSH = "ignore:resource_tracker"  # it removes the semaphores of a run that is stopped, and would say so


def pooled(job: Job, units: Iterable[Unit], jobs: int) -> Iterator[Result]:
    """The units done by so many processes, as they are ready.

    When a worker dies (killed, out of memory), which of the units in work did it is not known: each of them is done
    again by a process of its own, and fails if that dies twice.
    """
    if HUSH not in sys.warnoptions:
        sys.warnoptions.append(HUSH)
    waiting = deque(units)
    while waiting:
        suspects = yield from _crowd(job, waiting, jobs)
        for unit in suspects:
            yield _alone(job, unit, jobs)


def _crowd(job: Job, waiting: deque[Unit], jobs: int) -> Generator[Result, None, list[Unit]]:
    """Work until nothing waits, or a worker dies: gives what was in work then."""
    flying, patient = {}, True
    pool = _pool(jobs, jobs)
    try:
        while waiting or flying:
            while waiting and len(flying) < jobs:
                future = pool.submit(work, job, waiting[0])
                flying[future] = waiting.popleft()
            for future in wait(flying, return_when=FIRST_COMPLETED).done:
                result = future.result()
                del flying[future]
                yield result
    except BrokenProcessPool:
        pass
    except (KeyboardInterrupt, interrupt.Terminated):
        patient = False  # the workers end with this process
        raise
    finally:
        pool.shutdown(wait=patient, cancel_futures=True)
    return list(flying.values())


def _alone(job: Job, unit: Unit, jobs: int) -> Result:
    for _ in range(TRIES):
        with _pool(1, jobs) as pool:
            try:
                return pool.submit(work, job, unit).result()
            except BrokenProcessPool:
                continue
    words = f"its worker was killed, {TRIES} times alone (out of memory?). TRY: a smaller --batch-rows, fewer --jobs"
    return Result(unit, fault=(words, 70, ""))


def _pool(workers: int, jobs: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")  # a fork of a process that has used JAX hangs
    slots = context.SimpleQueue()
    for slot in range(workers):
        slots.put(slot)
    cores = max(1, len(os.sched_getaffinity(0)) // jobs) if hasattr(os, "sched_getaffinity") else 1
    return ProcessPoolExecutor(workers, context, _begin, (slots, cores))


def _begin(slots, cores: int) -> None:
    """In a new worker, before anything heavy is imported: its cores, and an end together with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    session.lean()
    session.limit_threads(cores, slots.get() * cores)
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    parent = multiprocessing.parent_process()
    multiprocessing.connection.wait([parent.sentinel])
    interrupt.leave(interrupt.CODES[signal.SIGTERM])
