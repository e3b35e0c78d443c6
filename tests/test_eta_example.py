"""The example that measures what a cut on eta does to the slope of the mass function, on few stars."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

pytest.importorskip("matplotlib")
EXAMPLE = Path(__file__).parent.parent / "examples" / "eta"


@pytest.fixture
def make(xp, tmp_path):
    if not shutil.which("make"):
        pytest.skip("make is not here")

    def run(*words):
        line = [
            "make",
            "-C",
            str(EXAMPLE),
            f"OUT={tmp_path}",
            f"XP='{xp.program}' -q",
            f"PYTHON='{sys.executable}'",
            *words,
        ]
        done = subprocess.run(line, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.slow
def test_the_cut_is_nearly_fair_and_its_completeness_corrects_it(make, tmp_path):
    out = make("STARS=150000")
    last = [line for line in out.splitlines() if line.startswith("all bins")]
    for kept, line in zip(("every", "good"), last, strict=True):
        numbers = re.findall(r"([+-]\d\.\d+) \+- (\d\.\d+)", line)
        (bias, error), (left, rest) = ((float(a), float(b)) for a, b in numbers)
        assert error < rest < 0.06
        assert -0.1 < bias < 0.2
        assert abs(left) < 3.5 * rest
        table = pq.read_table(tmp_path / f"kept-{kept}.pdf.parquet")
        assert 0.6 < table["completeness"].to_numpy().mean() < 0.85
    assert (tmp_path / "giants.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.slow
def test_real_stars(make, shared_data, tmp_path):
    make("real", f"DATA={shared_data}")
    cone = pq.read_table(tmp_path / "cone.parquet").to_pandas()
    assert len(cone) > 500
    assert (cone.vt_ra_err < 30).all()
    assert (cone.eta_err > 0).all()
    assert (tmp_path / "real.pdf").read_bytes().startswith(b"%PDF")
