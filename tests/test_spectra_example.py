"""The example on real spectra: 2,000 stars calibrated, a mock beside them."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("matplotlib")


@pytest.mark.slow
def test_example(xp, shared_data, tmp_path):
    if not shutil.which("make"):
        pytest.skip("make is not here")
    example = Path(__file__).parent.parent / "examples" / "spectra"
    words = ["make", "-C", str(example), f"OUT={tmp_path}", f"DATA={shared_data}", f"XP={xp.program} -q", "STARS=1500"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for name in ("real", "stars", "coefficients", "residuals", "errors", "mock"):
        assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert pq.read_table(tmp_path / "real.parquet").num_rows == 2000
    beside = pq.read_table(tmp_path / "residuals.pdf.parquet")["residual"].to_numpy(zero_copy_only=False)
    assert 0.6 < np.std(beside) < 1.5
