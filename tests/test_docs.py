"""The README and the examples in the manual do what they say."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from xptools import cli, manual

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCK = re.compile(r"^```(\w+)( no-run)?\n(.*?)^```$", re.M | re.S)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the README's blocks run, one after the other."""
    return tmp_path_factory.mktemp("readme")


def environment(xp) -> dict[str, str]:
    return {**os.environ, "PATH": f"{Path(xp.program).parent}{os.pathsep}{os.environ['PATH']}", "XP_OFFLINE": "1"}


@pytest.mark.parametrize("block", BLOCK.findall(README), ids=lambda b: f"{b[0]}{b[1]}-{b[2].split()[1]}")
def test_readme_runs(xp, folder, block):
    language, skipped, code = block
    if skipped:
        return
    words = ["bash", "-euo", "pipefail", "-c", code] if language == "sh" else [sys.executable, "-c", code]
    done = subprocess.run(words, cwd=folder, env=environment(xp), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_readme_left_what_it_promised(folder):
    assert {p.name for p in folder.iterdir()} >= {"stars.parquet", "phi.parquet", "phi.pdf", "phi.bib"}


def test_every_command_is_in_the_readme():
    for name in cli.names():
        assert f"`xp {name}" in README, f"xp {name} is not in the table of commands of README.md"


def test_readme_names_no_other_command():
    assert {w for w in re.findall(r"\bxp ([a-z]+)\b(?! is\b)", _code(README))} <= {*cli.names()}


def _code(text: str) -> str:
    return "\n".join([*re.findall(r"`([^`\n]+)`", text), *(b[2] for b in BLOCK.findall(text))])


def command_lines() -> list[str]:
    """Every xp command that a document or an example of a manual page shows, one pipe's stage each."""
    lines = re.sub(r"\\\n|\|\n", "|", _code(README)).splitlines()
    lines += [e for d in manual.documented() for e in getattr(d.about, "examples", ())]
    lines += (ROOT / "examples/demo/demo.sh").read_text().replace("|\n", "|").splitlines()
    for page in ("xp-pipes.7", "xp-scale.7", "xp-model.5"):
        lines += re.findall(r"^\$ (xp .*)$", (ROOT / "man" / page).read_text(), re.M)
    stages = [s.strip() for line in lines for s in re.split(r"(?<!')\|(?!')", line)]
    return sorted(
        {re.split(r" > | < |  \(", s)[0] for s in stages if re.match(r"xp [a-z]+ ", s) and not set("'\"") & set(s)}
    )


@pytest.mark.parametrize("line", command_lines())
def test_shown_options_exist(line):
    """Every option of every shown command line is an option of that command."""
    words = shlex.split(line.replace("$", ""), comments=True)[1:]
    command = cli.xp.get_command(None, words[0])
    if command is None:
        assert line.startswith(("xp COMMAND", "xp cuts", "xp volumes", "xp functions")), line
        return
    if hasattr(command, "get_command") and len(words) > 1 and not words[1].startswith("-"):
        command = command.get_command(None, words[1])
        assert command is not None, line
    known = {o for p in command.params for o in (*p.opts, *p.secondary_opts)} | {"--help"}
    given = {w.split("=")[0] for w in words if re.match(r"--?[A-Za-z@]", w)}
    assert given <= known, line


def test_examples_name_no_missing_command():
    for d in manual.documented():
        for line in getattr(d.about, "examples", ()):
            used = set(re.findall(r"(?:^|\| )xp ([a-z]+)", line))
            assert used <= {*cli.names()}, f"{d.page}: {line}"


def test_versions_agree():
    """xptools/__init__.py has the version; what must repeat it repeats it."""
    from xptools import __version__

    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {__version__}\n" in citation
    assert __version__ in (ROOT / "xptools/data/references.bib").read_text().split("}\n\n")[0]
    from datetime import datetime

    day = datetime.strptime(manual.RELEASED, "%B %d, %Y").date().isoformat()
    assert f"\ndate-released: {day}\n" in citation


def test_constraints_cover_the_dependencies():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *project["optional-dependencies"]["plot"],
        *project["optional-dependencies"]["test"],
    ]
    names = {re.match(r"[\w.-]+", w)[0].lower() for w in wanted}
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert names <= {n.lower() for n in pinned}


def test_only_the_fixed_top_level():
    """LAYOUT 5.1: nothing else stands beside these."""
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    top = {line.split("/")[0] for line in done.stdout.splitlines()}
    files = {"pyproject.toml", "constraints.txt", "Makefile", "README.md", "LICENSE", "CITATION.cff", ".gitignore"}
    assert top <= files | {"xptools", "man", "tests", "examples", ".ci"}


def test_make_lists_its_targets():
    out = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("setup", "demo", "test", "check", "bench", "calibration", "man"):
        assert f"make {target}" in out
        dry = subprocess.run(["make", "-n", target, "READY="], cwd=ROOT, capture_output=True, text=True)
        assert dry.returncode == 0, dry.stderr


def test_examples_refuse_a_folder_with_a_space():
    """For make it is two, and `make clean` would remove both."""
    for name in ("../nearby and", ""):
        words = ["make", "-n", f"OUT={name}", "clean"]
        done = subprocess.run(words, cwd=ROOT / "examples" / "nearby", capture_output=True)
        assert done.returncode == 2 and b"without spaces" in done.stderr


def test_make_fails_when_a_stage_of_a_pipe_fails(tmp_path):
    """The Makefile's shell has pipefail, and a target of a failed recipe goes."""
    head = "\n".join((ROOT / "Makefile").read_text().splitlines()[:6])
    (tmp_path / "Makefile").write_text(f"{head}\nout.txt:\n\tfalse | cat > out.txt\n")
    assert subprocess.run(["make", "out.txt"], cwd=tmp_path, capture_output=True).returncode == 2
    assert not (tmp_path / "out.txt").exists()
