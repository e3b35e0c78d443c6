"""The harness of `make bench` at a tiny size: a table, a JSON file and a figure, with ratios and shares; no speed."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALL = ROOT / "tests" / "bench" / "all.py"


@pytest.fixture(scope="module")
def tools():
    """The modules that all benchmarks share."""
    sys.path.insert(0, str(ALL.parent))
    try:
        import common
        import growth
        import table

        yield common, growth, table
    finally:
        sys.path.remove(str(ALL.parent))


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A run of one command and its peer's script."""
    out = tmp_path_factory.mktemp("bench")
    words = ["--quick", "--only", "mass", "--sizes", "2000,4000", "--spectra", "200", "--out", str(out)]
    done = subprocess.run([sys.executable, str(ALL), *words], capture_output=True, text=True, cwd=out, check=False)
    assert done.returncode == 0, done.stderr
    return out, done.stdout, json.loads((out / "bench.json").read_text())


def test_one_json(ran):
    _, _, result = ran
    assert result["machine"]["copy_core"] > 1e8 and result["machine"]["gemm_core"] > 1e8
    rows = [r for r in result["records"] if r.get("kind") == "process" and r["command"] == "mass"]
    assert [r["rows"] for r in rows] == [2000, 4000]
    for r in rows:
        assert r["rows_per_s"] == pytest.approx(r["rows"] / r["wall_s"])
        assert r["rows_per_core_s"] == pytest.approx(r["rows"] / r["cpu_s"])
        assert 20 < r["peak_mb"] < 2000 and 0 < r["startup_s"] < 60
        assert 0 < r["share"] < 1 and r["limit_by"] == "copy"
        assert r["peer"] == "scipy LinearND" and r["ratio_core"] == pytest.approx(
            r["rows_per_core_s"] / r["peer_rows_per_core_s"]
        )
    goals = [g for r in result["records"] for g in r["goals"]]
    assert goals and all({"goal", "measured", "met"} == g.keys() for g in goals)


def test_one_table(ran):
    out, said, result = ran
    text = (out / "bench.txt").read_text()
    assert text in said
    head = next(line for line in text.splitlines() if line.startswith("command"))
    for column in ("rows/s", "CPU s", "peak MB", "start s", "peer", "x core", "share", "goal", "met"):
        assert column in head
    assert sum(line.startswith("mass ") for line in text.splitlines()) == len(
        [r for r in result["records"] if r["command"] == "mass"]
    )


def test_resumed_it_measures_nothing_again(ran):
    """What is done stays: the same numbers to the last digit."""
    out, _, result = ran
    words = ["--quick", "--only", "mass", "--resume", "--out", str(out)]
    done = subprocess.run([sys.executable, str(ALL), *words], capture_output=True, text=True, cwd=out, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "bench.json").read_text()) == result


def test_figure_with_its_numbers(ran):
    out, _, result = ran
    assert (out / "growth.png").stat().st_size > 10_000
    drawn = (out / "growth.csv").read_text().splitlines()
    assert drawn[0] == "command,rows,cpu_s,cpu_beyond_startup_s,peak_mb,slope"
    assert len(drawn) == 1 + sum("startup_cpu_s" in r for r in result["records"])


def test_no_gpu_is_one_sentence():
    env = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, str(ALL), "--device", "cuda"], capture_output=True, text=True, env=env)
    assert done.returncode == 69
    assert "no CUDA device" in done.stderr and len(done.stderr.splitlines()) == 1


def test_what_a_child_took(tools):
    """Processor time and memory are the child's own, not those of the process that measures."""
    common, *_ = tools
    ballast = bytearray(300 << 20)
    cost = common.child([sys.executable, "-c", "b = bytearray(50 << 20); sum(range(3_000_000))"], ".")
    assert len(ballast) and 50 < cost["peak_mb"] < 150
    assert 0.01 < cost["cpu_s"] and cost["wall_s"] < 60
    piped = common.child("cat | wc -c > /dev/null", ".", feed=lambda to: to.write(bytes(1 << 20)))
    assert piped["wall_s"] < 60


def test_a_child_that_fails(tools):
    common, *_ = tools
    with pytest.raises(SystemExit, match=r"failed \(3\)(.|\n)*why"):
        common.child("echo why >&2; exit 3", ".", feed=lambda to: to.write(bytes(10 << 20)))


def test_turns_and_ratios(tools, tmp_path, monkeypatch, capsys):
    """Jobs alternate, the warm-up does not count, and a record is a line of JSON and a row of the table."""
    common, _, table = tools
    order = []
    jobs = {name: (10, lambda name=name: order.append(name)) for name in ("a", "b")}
    rates = common.turns(jobs, repeat=3)
    assert order == ["a", "b"] * 4 and rates["a"].shape == (3, 2)
    monkeypatch.setenv(common.RECORDS, str(tmp_path / "records.jsonl"))
    monkeypatch.setenv(common.MACHINE, json.dumps({"copy_core": 1e9, "gemm_core": 1e11, "exp_core": 1e9}))
    common.machine.cache_clear()
    rates = {"xp": [[30.0, 60.0], [20.0, 40.0]], "it": [[10.0, 10.0], [10.0, 10.0]]}
    import numpy as np

    rates = {name: np.array(r) for name, r in rates.items()}
    wanted = [common.goal("4 x", 5.0, low=4), common.goal("6 x", 5.0, low=6)]
    jobs = {"xp": (10, None), "it": (5, None)}
    common.compared("mass", "case", jobs, rates, "xp", "it", bound={"gemm": 1e9}, goals=wanted)
    common.machine.cache_clear()
    (told,) = map(json.loads, (tmp_path / "records.jsonl").read_text().splitlines())
    assert (told["ratio_wall"], told["ratio_core"], told["share"]) == (2.5, 5.0, 0.6)
    assert [g["met"] for g in told["goals"]] == [True, False]
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].endswith("yes") and rows[1].endswith("NO") and table.line(told).splitlines() == rows


def test_slope_of_growth(tools):
    _, growth, _ = tools
    told = {"kind": "process", "command": "mass", "case": "", "startup_cpu_s": 0.5}
    times = {10: (0.7, 50.0), 100: (2.5, 51.0), 1000: (20.5, 52.0)}
    records = [told | {"rows": n, "cpu_s": t, "peak_mb": m} for n, (t, m) in times.items()]
    (rows,) = growth.points({"records": records}).values()
    assert [r[:2] for r in rows] == [(10, 0.7), (100, 2.5), (1000, 20.5)]
    assert growth.slope(rows) == pytest.approx(1.0), "the start-up is no part of the growth"
    assert math.isnan(growth.slope(rows[:1]))


def test_projection(tools):
    """Hours are stars over the rate of the largest size."""
    import projection

    told = {"command": "feh", "case": "--drop-coefficients", "kind": "process"}
    records = [told | {"rows": n, "rows_per_core_s": r} for n, r in ((1000, 9.0), (100_000, 50_000.0))]
    (line, later) = (text for text in projection.lines({"records": records}) if text.startswith("feh"))
    assert f"{220e6 / 50_000 / 3600:.1f} h" in line and "DR3" in line and "DR4" in later


def test_the_page_says_what_was_measured(ran, tools, tmp_path):
    """xp-scale(7)'s tables are those of the JSON; doing it again changes nothing, and words outside stay."""
    import page

    _, _, result = ran
    before = (ROOT / "man" / "xp-scale.7").read_text()
    text = page.replaced(before, page.parts(result))
    assert page.replaced(text, page.parts(result)) == text
    mark = '.\\" rows begin\n'
    assert text[: text.index(mark)].splitlines()[:3] == before.splitlines()[:3]
    (row,) = (r for r in result["records"] if r.get("kind") == "process" and r["rows"] == 4000)
    (line,) = (line for line in text.splitlines() if line.startswith("mass ") and "scipy" in line and "k" in line)
    assert f"{row['cpu_s']:.1f}" in line and f"{row['peak_mb']:.0f}" in line
    (tmp_path / "page").write_text(text)
    if shutil.which("mandoc"):
        words = ["mandoc", "-T", "lint", "-W", "warning", tmp_path / "page"]
        assert not subprocess.run(words, capture_output=True, text=True).stdout
    with pytest.raises(ValueError, match="no comments"):
        page.replaced("", page.parts(result))


def test_a_script_that_hangs_is_ended_with_what_it_began(tmp_path):
    """A benchmark cannot hang for ever, nor leave servers behind."""
    child = "import subprocess, sys, time; subprocess.Popen(['sleep', '987']); time.sleep(987)"
    code = (
        f"import sys; sys.path.insert(0, {str(ALL.parent)!r}); import all as harness; "
        f"print(harness.ended([sys.executable, '-c', {child!r}], 1.0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "killed after 1 s"
