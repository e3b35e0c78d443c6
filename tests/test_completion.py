"""Completion: the scripts, and what they offer."""

import os
import shutil
import subprocess
import time

import pytest

SHELLS = ("bash", "zsh", "fish")


@pytest.fixture
def offered(xp):
    """`offered("xp de")`: the completions of the last word, as click prints them."""

    def ask(line: str, rest: str = "") -> list[str]:
        words = line.split(" ")
        env = {"COMP_WORDS": line + rest, "COMP_CWORD": str(len(words) - 1), "_XP_COMPLETE": "bash_complete"}
        return xp(env=env).stdout.decode().split()

    return ask


@pytest.mark.parametrize("shell", SHELLS)
def test_script(xp, shell):
    script = xp("completion", shell).stdout
    assert b"_XP_COMPLETE" in script and b"xp" in script
    program = shutil.which(shell) or pytest.skip(f"{shell} is not installed")
    assert subprocess.run([program, "-n"], input=script, capture_output=True).returncode == 0


def test_own_shell(xp):
    assert xp("completion", env={"SHELL": "/usr/bin/fish"}).stdout == xp("completion", "fish").stdout
    unknown = xp("completion", env={"SHELL": "/bin/ksh"})
    assert unknown.returncode == 2 and b"TRY: xp completion bash" in unknown.stderr


def test_commands_options_choices(offered):
    assert "plain,deredden" in offered("xp de")
    assert "plain,mass" in offered("xp train ")
    assert offered("xp deredden --curve-u") == ["plain,--curve-unit"]
    assert offered("xp deredden --curve-unit ") == ["plain,mag", "plain,tau"]
    assert "plain,edenhofer2023" in offered("xp deredden --map ")
    assert offered("xp convert st") == ["file,st"]
    assert offered("xp help pi") == ["plain,pipes"]


def test_columns_of_the_table_on_the_line(xp, offered, tmp_path):
    table = tmp_path / "t.arrows"
    table.write_bytes(xp("mock", 10).stdout)
    assert "plain,source_id,parallax" in offered(f"xp convert {table} --keep source_id,par")
    assert "plain,parallax" in offered("xp convert --keep par", f" {table}")
    assert offered("xp convert --keep par") == []
    table.write_bytes(b"<html>")
    assert offered(f"xp convert {table} --keep par") == []


@pytest.mark.parametrize("words", [("--help",), ("--version",), ("complete",)])
def test_starts_quickly_and_lightly(xp, words):
    """Below 0.15 s on an idle core; the bound here leaves room for a loaded machine."""
    complete = {"COMP_WORDS": "xp de", "COMP_CWORD": "1", "_XP_COMPLETE": "bash_complete"}
    env, args = (complete, ()) if words == ("complete",) else ({}, words)
    spent = []
    for _ in range(5):
        before, start = os.times(), time.monotonic()
        assert xp(*args, env=env).returncode == 0
        after = os.times()
        used = after.children_user + after.children_system - before.children_user - before.children_system
        spent.append(min(used, time.monotonic() - start))
    assert min(spent) < 0.25, f"{min(spent):.3f} s"
    trace = xp(*args, env={**env, "PYTHONPROFILEIMPORTTIME": "1"}).stderr.decode()
    heavy = [m for m in ("numpy", "pyarrow", "astropy", "jax", "torch", "polars", "rich") if f"| {m}\n" in trace]
    assert not heavy
