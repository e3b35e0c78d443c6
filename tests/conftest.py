"""What every test has at hand: the real data where it is, a small universe, the program as a subprocess."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared" / "data"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With several workers (pytest -n) a file stays with one of them, and so does the folder that shares a server.

    Files of one name, a command's and its core's, share compiled kernels, and a worker.
    """
    from xdist.scheduler import LoadFileScheduling

    class Places(LoadFileScheduling):
        def _split_scope(self, nodeid):
            if nodeid.startswith("tests/tap/"):
                return "tests/tap"
            return super()._split_scope(nodeid).rpartition("/")[2]

    return Places(config, log)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Tests keep their compiled kernels and converted maps to themselves, and read no one's configuration."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["XP_CACHE"] = str(folder)
    (folder / "config").mkdir()
    os.environ["XDG_CONFIG_HOME"] = str(folder / "config")
    for name in ("XP_CONFIG", "XP_DATA", "XP_SEED", "XP_THREADS"):
        os.environ.pop(name, None)
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data; the test is skipped, by name, where it is not."""
    if not SHARED.is_dir():
        pytest.skip("the real data (../shared/data) is not here")
    return SHARED


@pytest.fixture(scope="session")
def xp():
    """Run the installed program: `xp("mass", path, stdin=bytes)` gives the CompletedProcess."""
    program = shutil.which("xp", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert program, "xp is not installed: pip install -e ."

    def run(*args, stdin: bytes | None = None, env: dict[str, str] | None = None, timeout: float = 120, cwd=None):
        return subprocess.run(
            [program, *map(str, args)],
            input=stdin if stdin is not None else None,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=timeout,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            check=False,
        )

    run.program = program
    return run


@pytest.fixture
def inside(monkeypatch, capfd):
    """Run the program in this process, quickly: `inside("info", path)` gives (exit code, stdout, stderr).

    Not for commands that write a table to stdout: give them -o.
    """
    from xptools import cli, terminal

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["xp", *map(str, args)])
        kept = dict(os.environ)
        capfd.readouterr()
        try:
            code = cli._guarded("--debug" in args)
        finally:
            os.environ.clear()
            os.environ.update(kept)
            raw = terminal._claimed.pop("raw", None)
            if raw is not None:
                raw.flush()
                os.dup2(raw.fileno(), 1)
                raw.close()
        out, err = capfd.readouterr()
        return code, out, err

    return run


@pytest.fixture
def planned(tmp_path):
    """planned(folder, *words): what `make` would do in an example's folder, as text."""
    if not shutil.which("make"):
        pytest.skip("make is not here")

    def dry(folder: Path, *words: str) -> str:
        line = ["make", "-n", "-C", str(folder), f"OUT={tmp_path}", *words]
        return subprocess.run(line, capture_output=True, text=True, check=True).stdout

    return dry
