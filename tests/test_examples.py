"""Every example of a manual page works, on small mock tables; what needs a file from outside is skipped by name."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from xptools import manual

DATA = Path(manual.__file__).parent / "data"
EXAMPLES = sorted({line for d in manual.documented() for line in getattr(d.about, "examples", ())})
# What makes an example quick, in the folder's configuration; the command lines stay as they are printed.
QUICK = "[mf]\nmethod = 'exact'\n[train.mass]\nepochs = 2\npoints = 2000\n[train.eta]\nepochs = 2\ncomponents = '4'\n"
QUICK += "[train.vae]\nepochs = 2\n"
WRITTEN = re.compile(r"(?:-o|--output|--report|>)\s*(\S+)")
NAMED = re.compile(r"[\w./-]+(?:\.(?:parquet|arrows|fits|safetensors|dat|h5|toml|adql)\b|/(?=\s|$))|(?<=\s)/[\w./-]+")


@pytest.fixture(scope="module")
def stages(xp, tmp_path_factory) -> dict[str, Path]:
    """Mock tables after each stage of the pipe."""
    folder = tmp_path_factory.mktemp("stages")
    made = {n: folder / f"{n}.parquet" for n in ("raw", "dereddened", "masses", "volumes", "mf", "veff")}
    run = "mock 6000 --fractions 0 0 1"
    for name, step in (("raw", ""), ("dereddened", "deredden --map none"), ("masses", "mass"), ("volumes", "veff")):
        run += f" | {step}" if step else ""
        done = xp("run", run, "-o", made[name])
        assert done.returncode == 0, done.stderr.decode()
    assert xp("mf", "--method", "exact", "--truth", made["volumes"], "-o", made["mf"]).returncode == 0
    assert xp("veff", "--table", "-o", made["veff"]).returncode == 0
    assert xp("convert", made["raw"], "-o", folder / "stars.fits").returncode == 0
    made |= {n: folder / f"{n}.parquet" for n in ("spectra", "flux")}
    assert xp("run", "mock 300 --spectra | convert --drop feh,feh_err", "-o", made["spectra"]).returncode == 0
    assert xp("calibrate", made["spectra"], "-o", made["flux"]).returncode == 0
    return made


@pytest.fixture
def desk(stages, tmp_path):
    """A folder with the files that examples read, under the names they use."""
    for name in ("masses", "mf", "veff", "spectra", "flux"):
        shutil.copy(stages[name], tmp_path / f"{name}.parquet")
    shutil.copy(stages["raw"].parent / "stars.fits", tmp_path / "stars.fits")
    for name in ("m.safetensors", "model.safetensors"):
        shutil.copy(DATA / "mass_default.safetensors", tmp_path / name)
    for kind in ("feh", "vae"):
        shutil.copy(DATA / f"{kind}_demo.safetensors", tmp_path / f"{kind}.safetensors")
    for folder in (".local/share/bash-completion/completions", ".config/fish/completions"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "xp.toml").write_text(QUICK)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("line", EXAMPLES)
def test_example(xp, stages, desk, line):
    needed = set(NAMED.findall(line)) - set(WRITTEN.findall(line)) - {"stars.parquet"}
    absent = sorted(n for n in needed if not (desk / n).exists())
    if absent:
        pytest.skip(f"{', '.join(absent)} is not made here")
    if re.search(r"deredden (?!.*--map (none|list))|--map edenhofer", line):
        pytest.skip("the dust map is not here")
    small = re.sub(r"mock \d+", "mock 3000", line)
    path = f"{Path(xp.program).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "HOME": str(desk), "XP_OFFLINE": "1", "PATH": path}
    if "mf --binaries" in line:  # knows no exact method, and these are few stars
        (desk / "xp.toml").write_text(QUICK.replace("method = 'exact'", "draws = 5000"))
    failures = []
    # Which stage the page's stars.parquet has reached is plain from its text; here each is tried.
    steps = ("volumes", "masses", "dereddened", "raw") if "stars.parquet" in line.split() else ("raw",)
    for stage in steps:
        shutil.copy(stages[stage], desk / "stars.parquet")
        words = ["bash", "-o", "pipefail", "-c", small]
        done = subprocess.run(words, cwd=desk, env=env, capture_output=True, timeout=300)
        if done.returncode == 0:
            return
        if " fetch " in line and b"offline" in done.stderr:
            pytest.skip("the archive is not here")
        failures.append(f"{stage}: {done.returncode}: {done.stderr.decode().strip()}")
    pytest.fail("\n".join(failures))
