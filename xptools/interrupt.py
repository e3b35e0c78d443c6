"""What ends the program early: Ctrl-C, SIGTERM, a closed terminal; also while a kernel holds the main thread.

Python hears a signal only between two of its own instructions, and NUTS is one call of many minutes. So a thread hears
it too, and ends the program if the main thread has not done so within a second, or at the second signal.
"""

import atexit
import contextlib
import os
import select
import signal
import sys
import threading
from pathlib import Path

PATIENCE = 0.7  # s
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, **({signal.SIGHUP: 143} if hasattr(signal, "SIGHUP") else {})}
_unfinished: set[Path] = set()
_told = threading.Lock()


class Terminated(BaseException):
    """SIGTERM or SIGHUP arrived."""


def listen() -> None:
    """Set the handlers and start the thread; a signal that is ignored (nohup) stays ignored."""
    for number in CODES:
        if number != signal.SIGINT and signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _raise)
    sys.unraisablehook = _swallowed
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader,), name="signals", daemon=True).start()


def unfinished(path: Path) -> None:
    """Remember a file that must not stay if the program ends now."""
    _unfinished.add(path)


def finished(path: Path) -> None:
    """Forget it."""
    _unfinished.discard(path)


def leave(code: int) -> None:
    """End at once, leaving nothing half-done: an interpreter that winds down while JAX computes crashes, and late."""
    for path in list(_unfinished):
        path.unlink(missing_ok=True)
    if mapcache := sys.modules.get("xptools.mapcache"):
        mapcache.forget()
    if code == CODES[signal.SIGINT] and _told.acquire(blocking=False):
        from xptools import progress

        progress.say("xp: interrupted; nothing was written that looks whole")
    os._exit(code)


def end(code: int) -> None:
    """End with this status, after what other modules want done at the end.

    The interpreter is not wound down: to free each object by itself takes 30 to 90 ms.
    """
    threading._shutdown()  # waits for threads, as the interpreter would
    atexit._run_exitfuncs()
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            sys.stderr.flush()
    os._exit(code)


def _raise(_number, _frame):
    raise Terminated


def _swallowed(event) -> None:
    # A signal that arrives inside a callback of JAX is lost there with a traceback; the thread ends the program anyway.
    if not isinstance(event.exc_value, KeyboardInterrupt | Terminated):
        sys.__unraisablehook__(event)


def _watch(reader: int) -> None:
    code = None
    while code is None:
        code = CODES.get(os.read(reader, 1)[0])
    select.select([reader], [], [], PATIENCE)
    if sys.stderr is not None and sys.stderr.isatty():
        os.write(2, b"\r\x1b[K\x1b[?25h")  # a bar's line goes, the cursor comes back
    leave(code)
