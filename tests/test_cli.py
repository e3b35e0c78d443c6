"""The program as a whole: configuration and its order, global options, suggestions, usage as JSON, progress."""

import json
import os
import re
import subprocess
import time
from pathlib import Path

import click
import pytest
from tables import gallery, read, stars, write

import xptools
from xptools import cli, options, progress, settings
from xptools.errors import UsageError


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder with a user's configuration beside it."""
    work = tmp_path / "work"
    work.mkdir()
    (tmp_path / "home" / "xp").mkdir(parents=True)
    monkeypatch.chdir(work)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    return work


def resolved(inside, *words) -> dict:
    """The parameters that a command line comes to."""
    import tomllib

    code, out, err = inside(*words, "-P")
    assert (code, err) == (0, ""), err
    return tomllib.loads(out)["convert"]


def test_flags_over_environment_over_project_over_user_over_defaults(here, inside, monkeypatch):
    assert resolved(inside, "convert")["seed"] == 0
    (here.parent / "home" / "xp" / "config.toml").write_text("seed = 1\n[convert]\nkeep = ['user']\nexplode = true\n")
    assert resolved(inside, "convert")["seed"] == 1
    (here / "xp.toml").write_text("seed = 2\n[convert]\nkeep = ['project']\n")
    got = resolved(inside, "convert")
    assert (got["seed"], got["keep"], got["explode"]) == (2, ["project"], True)
    monkeypatch.setenv("XP_SEED", "3")
    assert resolved(inside, "convert")["seed"] == 3
    assert resolved(inside, "convert", "--seed", 4)["seed"] == 4
    assert resolved(inside, "--seed", 5, "convert")["seed"] == 5
    assert resolved(inside, "--seed", 5, "convert", "--seed", 6)["seed"] == 6
    monkeypatch.delenv("XP_SEED")
    (here / "own.toml").write_text("[convert]\nkeep = ['own']\n")
    got = resolved(inside, "convert", "--config", "own.toml")
    assert (got["seed"], got["keep"], got["explode"]) == (0, ["own"], False)
    assert resolved(inside, "--config", "own.toml", "convert")["keep"] == ["own"]


@pytest.mark.parametrize(
    ("text", "words"),
    [("[deredde]\nmap = 'none'", r"\[deredde\], which is no command"), ("sed = 1", "'sed' above its tables"),
     ("[convert]\nkep = 1", "has 'kep'"), ("[convert", "no valid TOML"), ("convert = 3", "'convert' above")],
)  # fmt: skip
def test_a_configuration_that_says_nothing_to_xp_is_refused(here, inside, text, words):
    import re

    (here / "xp.toml").write_text(text)
    code, _, err = inside("convert", "-P")
    assert code == 78 and re.search(words, err) and "TRY:" in err, err
    assert inside("convert", "-P", "--config", "/dev/null")[0] == 0


@pytest.mark.parametrize("line", ["plot cmd -o x.pdf", "train mass -o x.safetensors", "info", "run 'convert | mass'"])
def test_every_command_prints_its_parameters(inside, line):
    import shlex
    import tomllib

    code, out, err = inside(*shlex.split(line), "-P")
    assert (code, err) == (0, ""), err
    assert tomllib.loads(out)[line.split()[0]]


def test_printed_parameters_give_the_same_bytes(here, inside):
    write(gallery(20), here / "t.arrow")
    words = ["--keep", "ra,label", "--rename", 'label=la"bel', "--batch-rows", "7"]
    code, out, _ = inside("convert", *words, "-P")
    assert code == 0
    (here / "c.toml").write_text(out)
    assert inside("convert", "t.arrow", *words, "-o", "one.parquet")[0] == 0
    assert inside("convert", "t.arrow", "--config", "c.toml", "-o", "two.parquet")[0] == 0
    assert (here / "one.parquet").read_bytes() == (here / "two.parquet").read_bytes()


def test_suggestions(inside):
    code, _, err = inside("deredde")
    assert code == 2 and "'deredden'" in err
    code, _, err = inside("convert", "--renam", "a=b")
    assert code == 2 and "--rename" in err
    code, _, err = inside("convert", "--progress", "onn")
    assert code == 2 and "'auto', 'on', 'off'" in err
    assert inside("conv")[0] == 2, "no abbreviations"
    code, _, err = inside("convert", "--rena", "ra=a")
    assert code == 2, "no abbreviated options"


def test_without_a_command_comes_the_help(inside):
    for words in ((), ("plot",), ("train",)):
        code, out, err = inside(*words)
        assert (code, out) == (2, "") and err.startswith("Usage: xp") and "error" not in err and "TRY" not in err


def test_usage_as_json_tells_everything(inside):
    code, out, _ = inside("--json-usage")
    usage = json.loads(out)
    assert code == 0 and set(usage["commands"]) == set(cli.names())
    for name, command in usage["commands"].items():
        for p in command["params"]:
            assert p["param_type_name"] in ("option", "argument"), name
    assert "--rename" in [o for p in usage["commands"]["convert"]["params"] for o in p["opts"]]


def test_an_option_means_the_same_everywhere():
    """One spelling, one meaning: shared options have one declaration, common ones one default."""
    seen: dict[str, str] = {}
    for name in cli.names():
        command = cli.xp.get_command(click.Context(cli.xp), name)
        for p in command.params:
            if p.name in (*options.GLOBAL_NAMES, *options.IO_NAMES):
                key = f"{p.help} {p.opts}" if isinstance(p, click.Option) else ""
                assert seen.setdefault(p.name, key) == key, f"{name} {p.name}"


def test_help_lists_every_command_under_a_heading(inside):
    code, out, _ = inside("--help")
    assert code == 0
    for name in cli.names():
        assert re.search(rf"^  {name}\b", out, re.MULTILINE), name
    headings = [line[:-1].lower() for line in out.splitlines() if re.fullmatch(r"[A-Z][a-z]+:", line)]
    assert [h for h in headings if h in options.SECTIONS] == [s for s in options.SECTIONS if s in headings]


def test_version(inside):
    assert inside("--version") == (0, f"xp {xptools.__version__}\n", "")
    assert inside("convert", "--require-version", xptools.__version__, "-P")[0] == 0
    code, _, err = inside("--require-version", "9.9", "convert", "-P")
    assert code == 78 and "9.9" in err


def test_steps_from_python():
    assert xptools.op("convert --keep ra") == xptools.op(["convert", "--keep", "ra"])
    for wrong in ("nothing", "info", "convert --nothing", "convert --help", "convert -o"):
        with pytest.raises(UsageError):
            xptools.op(wrong)


@pytest.mark.parametrize("value", ["inf", "1e400", "nan", "[1]", "1.5", "true", "2020-01-01", "'x'"])
@pytest.mark.parametrize("table", ["seed = {}", "[mock]\nfractions = {}", "[mock]\nsample = {}"])
def test_a_value_of_the_wrong_kind_is_wrong_usage(inside, tmp_path, table, value):
    (tmp_path / "c.toml").write_text(table.format(value) + "\n")
    code, _, err = inside("mock", 5, "--config", tmp_path / "c.toml", "-o", tmp_path / "out.parquet")
    assert code == 2 and "Invalid value for" in err, err


@pytest.mark.parametrize(
    ("step", "cure"),
    [("mass", "xp deredden first"), ("calibrate", "xp fetch xp"), ("eta", "xp fetch gaia"), ("mf", "xp veff first")],
)
def test_missing_columns_name_where_they_are_had(inside, tmp_path, step, cure):
    (tmp_path / "t.csv").write_text("source_id,n\n1,2\n")
    code, _, err = inside(step, tmp_path / "t.csv", "-o", tmp_path / "out.parquet")
    assert code == 65 and f"TRY: {cure}" in err


def test_makers_are_found():
    assert cli.makers("mg0")[0] == "deredden"
    assert cli.makers("mass")[0] == "mass"
    assert cli.makers("mg")[0] == "feh" and cli.makers("flux")[0] == "calibrate"  # their columns depend on options
    assert cli.makers("nothing") == []


def test_settings_from_options(here, inside, monkeypatch):
    seen = {}
    monkeypatch.setattr("xptools.stream.run", lambda *a: seen.update(os.environ))
    write(gallery(2), here / "t.arrow")
    assert inside("convert", "t.arrow", "--cache", "c", "--data", "a:b", "--offline", "--device", "cpu")[0] == 0
    assert [seen[f"XP_{k}"] for k in ("CACHE", "DATA", "OFFLINE", "DEVICE")] == ["c", "a:b", "1", "cpu"]
    for key in ("XP_CACHE", "XP_DATA", "XP_OFFLINE", "XP_DEVICE"):
        monkeypatch.setenv(key, seen[key])
    assert settings.cache_dir() == Path("c") and settings.data_roots() == [Path("a"), Path("b")]
    assert settings.offline() and settings.device() == "cpu"


@pytest.mark.parametrize("text", ["0.1:0.9:4", "0.1,0.3,0.5,0.7,0.9"])
def test_edges(text):
    assert options.edges(text) == pytest.approx((0.1, 0.3, 0.5, 0.7, 0.9))


@pytest.mark.parametrize("text", ["", "1", "2,1", "1,1", "a,b", "0:1", "0:1:0", "1:0:3", "0:1:-2", "nan,1"])
def test_bad_edges(text):
    with pytest.raises(UsageError, match="TRY: "):
        options.edges(text)


def test_warnings_are_said_once_and_counted(capsys, monkeypatch):
    monkeypatch.delenv("XP_QUIET", raising=False)
    progress.repeated()
    for _ in range(3):
        progress.warn("odd star")
    progress.warn("other")
    assert capsys.readouterr().err.splitlines() == ["xp: warning: odd star", "xp: warning: other"]
    assert progress.repeated() == ["xp: warning came 3 times: odd star"]
    assert progress.repeated() == []


def test_the_flag_summary_and_quiet(here, inside, monkeypatch):
    monkeypatch.setattr(progress, "on_terminal", lambda: True)
    write(stars(30).drop_columns(["mg0", "mg0_err", "bp_rp0", "bp_rp0_err"]), here / "t.arrow")
    words = ("deredden", "--map", "none", "t.arrow", "--progress", "off", "-o", "o.arrow")
    code, out, err = inside(*words)
    assert code == 0 and out == "" and "30 rows" in err
    assert inside(*words, "-q") == (0, "", "")


def test_no_provenance_and_no_dates(here, inside):
    write(gallery(3), here / "t.arrow")
    assert inside("convert", "t.arrow", "--keep", "ra", "--no-provenance", "-o", "o.parquet")[0] == 0
    assert b"xp.provenance" not in (read(here / "o.parquet").schema.metadata or {})
    assert b"xp-convert" not in (here / "o.parquet").read_bytes()


def test_a_broken_history_can_be_left_out(here, inside):
    for text in ("{no json", "5", "[1]"):
        write(gallery(3).replace_schema_metadata({"xp.provenance": text, "xp.rows_hint": "many"}), here / "t.arrows")
        code, _, err = inside("convert", "--keep", "ra", "t.arrows", "-o", "o.arrow")
        assert code == 65 and "--no-provenance" in err
        assert inside("convert", "--keep", "ra", "t.arrows", "-o", "o.arrow", "--no-provenance")[0] == 0
        assert not read(here / "o.arrow").schema.metadata


def test_a_file_may_be_read_and_replaced_at_once(here, inside):
    write(gallery(30), here / "t.parquet")
    assert inside("convert", "--drop", "ra", "t.parquet", "-o", "t.parquet") == (0, "", "")
    assert read(here / "t.parquet").schema.names == [n for n in gallery(1).schema.names if n != "ra"]
    code, _, err = inside("convert", "--keep", "mag", "--drop", "mag", "t.parquet", "-o", "t.parquet")
    assert code == 65 and "no column" in err


def test_no_room_for_a_temporary_copy(here, xp):
    data = write(gallery(3), here / "t.parquet").read_bytes()
    done = xp("convert", "-o", here / "o.arrow", stdin=data, env={"XP_TMPDIR": str(here / "none")})
    assert done.returncode == 74
    assert b"XP_TMPDIR=" in done.stderr and done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("line", ["mass", "deredden --map none"])
def test_one_thread_is_one_core(here, xp, line):
    table = stars(60000)
    table = table.drop_columns([c for c in ("mass", "mass_err", "ext_e") if c in table.schema.names])
    if line != "mass":
        table = table.drop_columns(["mg0", "mg0_err", "bp_rp0", "bp_rp0_err"])
    write(table, here / "t.arrow", rows=16384)
    before, at = os.times(), time.monotonic()
    done = subprocess.run(
        [xp.program, *line.split(), "--threads", "1", "t.arrow", "-o", "o.arrow"], capture_output=True, check=False
    )
    wall, after = time.monotonic() - at, os.times()
    assert done.returncode == 0, done.stderr
    used = after.children_user + after.children_system - before.children_user - before.children_system
    assert used / wall <= 1.15


@pytest.mark.parametrize(
    "words",
    [
        ("mock", 10, "--fractions", "nan", 1, 1), ("mock", 10, "--max-distance", "nan"), ("mock", 10, "--z-sun=-inf"),
        ("veff", "--table", "--r-sun", "nan"), ("veff", "--table", "--r-sun", "1e308"), ("veff", "--table", "--h-r", 0),
        ("veff", "--table", "--mg-limit", "nan"), ("veff", "--table", "--mdf", "nan,1"), ("mass", "--alpha-fe", "nan"),
        ("select", "--isochrone", "--age", "nan"), ("select", "--fidelity", "nan"),
    ],
)  # fmt: skip
def test_what_is_no_number_is_no_number(inside, words):
    """click lets NaN through every range."""
    code, out, err = inside(*words, "-P")
    assert (code, out) == (2, "") and err.count("\n") == 1
    named = [w.split("=")[0] for w in words if str(w).startswith("--") and w not in ("--table", "--isochrone")]
    assert named[0] in err
