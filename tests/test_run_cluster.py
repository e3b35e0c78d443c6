"""xp run on a Dask cluster of real processes, and the SLURM jobs that it would start."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from tables import stars, write
from test_run_failures import bytes_of, ended, plain, source, start, whole, writing  # noqa: F401 - fixtures

from xptools.errors import BusyError
from xptools.scale import cluster as cluster_of_dask
from xptools.scale.cluster import clock, parsed

pytest.importorskip("distributed", reason="dask[distributed] is not installed")
PIPE = "convert --rename x0=y | convert --drop x1"


class Cluster:
    """A scheduler and two workers on this machine."""

    def __init__(self, folder):
        self.folder, self.file, self.processes = folder, folder / "scheduler.json", []

    def begin(self, workers: int = 2) -> None:
        """Start them, and wait for the scheduler."""
        quick = ["--no-dashboard"]
        self.scheduler = self._run("scheduler", "--port", "0", *quick)
        end = time.monotonic() + 30
        while not self.file.exists() and time.monotonic() < end:
            time.sleep(0.05)
        for _ in range(workers):
            place = ["--local-directory", str(self.folder / "space"), "--death-timeout", "20"]
            self._run("worker", "--nthreads", "1", "--no-nanny", *place, *quick)

    def _run(self, what: str, *words: str):
        command = [sys.executable, "-m", "dask", what, "--scheduler-file", str(self.file), *words]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.processes.append(subprocess.Popen(command, cwd=self.folder, **quiet))
        return self.processes[-1]

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        self.processes.clear()
        self.file.unlink(missing_ok=True)


@pytest.fixture
def cluster(tmp_path):
    (tmp_path / "dask").mkdir()
    made = Cluster(tmp_path / "dask")
    yield made
    made.end()


def test_a_worker_that_is_killed_and_then_the_scheduler(cluster, start, source, plain, tmp_path):  # noqa: F811
    cluster.begin()
    out = tmp_path / "out"
    process = start(PIPE, source, out, "--scheduler-file", cluster.file)
    os.kill(writing(out), signal.SIGKILL)
    ended(process, 0)
    whole(out, plain)

    out = tmp_path / "again"
    process = start(PIPE, source, out, "--scheduler-file", cluster.file)
    writing(out)
    cluster.scheduler.kill()
    err = ended(process, 75)
    assert "the Dask scheduler has gone" in err and err.count("\n") == 1
    cluster.end()
    cluster.begin()
    ended(start(PIPE, source, out, "--scheduler-file", cluster.file), 0)
    whole(out, plain)


def test_a_scheduler_that_goes_between_status_and_result_is_said():
    from distributed.client import FutureCancelledError

    class Lost:
        status = "finished"

        def result(self):
            raise FutureCancelledError("xp-0", "scheduler-connection-lost")

    with pytest.raises(BusyError, match="the Dask scheduler has gone"):
        cluster_of_dask._became(Lost(), None)


def test_files_of_steps_bad_files_and_folds(cluster, xp, tmp_path):
    from xptools.commands.mass import DEFAULT

    cluster.begin(1)
    (tmp_path / "in").mkdir()
    for i in range(3):
        write(stars(300, i).drop_columns(["mass", "mass_err"]), tmp_path / f"in/{i}.parquet")
    (tmp_path / "m.safetensors").write_bytes(DEFAULT.read_bytes())
    line = ["run", "mass --model m.safetensors", "in"]
    remote = ["--scheduler-file", cluster.file]
    here, there = xp(*line, "here", cwd=tmp_path), xp(*line, "there", *remote, cwd=tmp_path)
    assert (here.returncode, there.returncode) == (0, 0), there.stderr
    assert bytes_of(tmp_path / "here") == bytes_of(tmp_path / "there") != {}
    fold = ["run", "select --cutflow --parallax 5:", "in", "-o"]
    assert xp(*fold, "one.parquet", cwd=tmp_path).returncode == 0
    assert xp(*fold, "two.parquet", *remote, cwd=tmp_path).returncode == 0
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    (tmp_path / "in/1.parquet").write_bytes(b"PAR1")
    bad = xp("run", "convert", "in", "bad", *remote, cwd=tmp_path)
    assert bad.returncode == 65 and b"1.parquet is a damaged" in bad.stderr
    assert sorted(bytes_of(tmp_path / "bad")) == ["0.parquet", "2.parquet"]


def test_no_scheduler_is_said(xp, source, tmp_path):  # noqa: F811
    impatient = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "1s"}
    done = xp("run", PIPE, source, tmp_path / "out", "--scheduler", "tcp://127.0.0.1:9", env=impatient)
    assert done.returncode == 69, done.stderr
    assert b"no Dask scheduler answers at tcp://127.0.0.1:9" in done.stderr


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """An sbatch that runs its jobs here and now, and a scancel that ends them."""
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed")
    place = tmp_path / "bin"
    place.mkdir()
    job, log, pids = (place / name for name in ("job", "log", "pids"))
    scripts = {
        "sbatch": f'cp "$1" {job}\nsetsid bash {job} >{log} 2>&1 &\necho $! >> {pids}\necho Submitted batch job $!',
        "scancel": 'kill -- -"$1"',
    }
    for name, text in scripts.items():
        (place / name).write_text(f"#!/bin/bash\n{text}\n")
        (place / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")
    yield place
    for pid in (place / "pids").read_text().split() if (place / "pids").exists() else ():
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int(pid), signal.SIGKILL)


@pytest.mark.filterwarnings("ignore")
def test_the_slurm_job_is_as_asked_for(slurm, tmp_path, monkeypatch):
    from xptools.scale.cluster import slurm_cluster

    monkeypatch.chdir(tmp_path)
    words = parsed("queue=short,account=gaia,walltime=90m,cores=8,mem=32GB,jobs=20")
    with slurm_cluster(words) as made:
        script = made.job_script()
    for line in ("-p short", "-A gaia", "-t 01:30:00", "--cpus-per-task=8", "--mem=30G"):
        assert f"#SBATCH {line}" in script, script
    for word in ("--nworkers 8", "--nthreads 1", "--death-timeout 60", sys.executable):
        assert word in script, script


def test_slurm_jobs_do_the_work(slurm, xp, source, plain, tmp_path):  # noqa: F811
    done = xp("run", PIPE, source, tmp_path / "out", "--slurm", "cores=1,mem=1GB,jobs=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    whole(tmp_path / "out", plain)
    assert len((slurm / "pids").read_text().split()) == 1


def test_without_slurm_it_is_said(xp, source, tmp_path):  # noqa: F811
    pytest.importorskip("dask_jobqueue", reason="dask-jobqueue is not installed")
    if shutil.which("sbatch"):
        pytest.skip("there is SLURM here")
    done = xp("run", PIPE, source, tmp_path / "out", "--slurm", "cores=1,mem=1GB")
    assert done.returncode == 69 and b"no sbatch on this machine" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("text", "said"), [("2h", "02:00:00"), ("1d", "24:00:00"), ("45m", "00:45:00"), ("7:00", "7:00")]
)
def test_times_of_slurm(text, said):
    assert clock(text) == said
