"""Manual pages: as the commands say, clean under mandoc, complete, and found."""

import json
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from xptools import cli, columns, manual, mdoc
from xptools.errors import EXIT_CODES

ROOT = Path(__file__).parent.parent
MAN = ROOT / "man"
BY_HAND = {"xp-pipes.7", "xp-scale.7", "xp-model.5"}


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return manual.pages()


def test_pages_are_fresh(pages):
    """What is in man/ is what the commands say now."""
    there = {p.name: p.read_text() for p in MAN.iterdir() if p.name not in BY_HAND}
    stale = sorted(n for n in pages.keys() | there.keys() if pages.get(n) != there.get(n))
    assert not stale, f"these pages do not say what the commands do: {stale}. Run `make man` and commit man/"


def test_help_lists_what_the_commands_say():
    listed = [tuple(row) for row in json.loads(cli.LISTING.read_text())]
    assert listed == cli.listing(), "run `make man` and commit xptools/data/commands.json"


def test_every_command_has_a_page(pages):
    assert {f"xp-{name}.1" for name in cli.names()} <= pages.keys()


def test_lint():
    mandoc = shutil.which("mandoc") or pytest.skip("mandoc is not installed")
    done = subprocess.run(
        [mandoc, "-T", "lint", "-W", "warning", *sorted(MAN.iterdir())], capture_output=True, text=True
    )
    assert done.stdout + done.stderr == ""


@pytest.mark.parametrize("d", manual.documented(), ids=lambda d: d.page)
def test_page_is_complete(d, pages):
    page = pages[f"{d.page}.1"]
    for title in ("NAME", "SYNOPSIS", "DESCRIPTION", "ENVIRONMENT", "FILES", "EXIT STATUS", "EXAMPLES", "SEE ALSO"):
        assert f".Sh {title}\n" in page, title
    for code in EXIT_CODES:
        assert f".It {code}\n" in page
    for option in (o for p in d.command.params for o in p.opts if o.startswith("--")):
        assert mdoc.argument(option[1:]) in page, option


@pytest.mark.parametrize("d", [d for d in manual.documented() if d.step is not None], ids=lambda d: d.page)
def test_page_states_columns(d, pages):
    page = pages[f"{d.page}.1"]
    for name in (*manual._seen(d.step, "needs"), *manual._seen(d.step, "wants"), *manual._added(d.step)):
        assert f".It Va {mdoc.argument(name)}\n" in page, name
    if isinstance(d.step.flags, dict) and d.step.flags:
        assert ".Sh FLAG BITS" in page
    for name in columns.XP:
        assert f'.It Va "{name}"\nAny numeric' not in page and f'.It Va "{name}"\nUsed if present.\nAny' not in page


@pytest.mark.parametrize("d", manual.documented(), ids=lambda d: d.page)
def test_name_is_whole(d, pages):
    """The first sentence of the help stands in NAME to its last word."""
    first = " ".join(d.command.help.strip().split("\n\n")[0].split())
    assert first.startswith(d.summary)
    assert d.summary and not d.summary.endswith("...")
    assert first[len(d.summary) :].lstrip(".")[:1] in ("", " ")
    assert f".Nd {mdoc.inline(d.summary)}\n" in pages[f"{d.page}.1"]


def test_pages_share_one_date():
    dates = {re.search(r"^\.Dd (.*)$", p.read_text(), re.M)[1] for p in MAN.iterdir()}
    assert dates == {manual.RELEASED}


def test_mdoc_escapes():
    assert mdoc.text("a --map. Then .x") == "a \\-\\-map.\nThen .x"
    assert mdoc.text(".x") == "\\&.x"
    assert mdoc.inline("C:\\d `a-b`") == "C:\\ed \\fBa-b\\fP"
    assert mdoc.argument("Op") == '"\\&Op"'
    assert mdoc.argument('a "b"') == '"a \\(dqb\\(dq"'
    assert mdoc.paragraphs("One.\n\n\b\n  x -y\n\nTwo.")[1:4] == [".Bd -literal -offset indent", "  x \\-y", ".Ed"]


def test_stale_pages_go(tmp_path):
    gone, kept = tmp_path / "xp-gone.1", tmp_path / "xp-own.7"
    gone.write_text(manual.MARK + "\n.Dd x\n")
    kept.write_text(".Dd x\n")
    manual.write(tmp_path)
    assert not gone.exists() and kept.exists() and (tmp_path / "xp.1").exists()


def test_help_shows_the_page(xp):
    if not (shutil.which("man") or shutil.which("mandoc")):
        pytest.skip("neither man nor mandoc is installed")
    out = xp("help", "select", env={"MANWIDTH": "100", "LC_ALL": "C.UTF-8"}).stdout.decode()
    # An image without documentation has a `man` that only says so; then the help is shown.
    assert "EXIT STATUS" in out or out.startswith("Usage: xp select")
    assert "--fidelity" in re.sub(".\b", "", out)


def test_help_without_man_shows_the_help(xp, tmp_path):
    out = xp("help", "train", "mass", env={"PATH": str(tmp_path)})
    assert out.stdout.startswith(b"Usage: xp train mass")
    wrong = xp("help", "mas", env={"PATH": str(tmp_path)})
    assert wrong.returncode == 2 and b"'mass'" in wrong.stderr


@pytest.mark.slow
def test_wheel_carries_the_pages(tmp_path):
    """share/man in the wheel; the build needs setuptools, as every install does."""
    import sys

    source = tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "*.egg-info", "out", "__pycache__"))
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(source)],
        capture_output=True,
        text=True,
    )
    if built.returncode and re.search("setuptools|connection|network", built.stderr, re.I):
        pytest.skip("setuptools cannot be had here")
    assert built.returncode == 0, built.stderr
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    for page in MAN.iterdir():
        assert any(n.endswith(f"share/man/man{page.suffix[1:]}/{page.name}") for n in names), page.name
    for data in ("references.bib", "manifest.toml", "mass_default.safetensors"):
        assert f"xptools/data/{data}" in names
