"""The example on real spectra: 2,000 stars calibrated, a mock beside them, labels of both."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("matplotlib")


@pytest.fixture
def make(xp, shared_data, tmp_path):
    """`make(target, NAME=value)` runs the example into the test's folder."""
    if not shutil.which("make"):
        pytest.skip("make is not here")
    example = Path(__file__).parent.parent / "examples" / "spectra"
    words = ["make", "-C", str(example), f"OUT={tmp_path}", f"DATA={shared_data}", f"XP='{xp.program}' -q"]

    def run(target, **variables):
        more = [f"{k}={v}" for k, v in variables.items()]
        done = subprocess.run([*words, f"PYTHON='{sys.executable}'", target, *more], capture_output=True, text=True,
                              timeout=900, check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr

    return run


def drawn(folder, *names):
    return all((folder / f"{name}.pdf").read_bytes().startswith(b"%PDF") for name in names)


@pytest.mark.slow
def test_spectra(make, tmp_path):
    make("all", STARS=1500)
    assert drawn(tmp_path, "real", "stars", "coefficients", "residuals", "errors", "mock")
    assert pq.read_table(tmp_path / "real.parquet").num_rows == 2000
    beside = pq.read_table(tmp_path / "residuals.pdf.parquet")["residual"].to_numpy(zero_copy_only=False)
    assert 0.6 < np.std(beside) < 1.5


@pytest.mark.slow
def test_labels(make, tmp_path):
    """Networks trained on the real stars do better than their mean label; the model of synthetic spectra need not.

    By how much in [Fe/H] depends on the networks, as 57 stars a fold are few.
    """
    make("labels", STARS=400, TRAIN=800, EPOCHS=2)
    assert drawn(tmp_path, "feh", "real-labels")
    assert pq.read_table(tmp_path / "real-labels.parquet").num_rows == 95
    with (tmp_path / "crossval.csv").open() as stream:
        model, own, mean = csv.DictReader(stream)
    assert int(model["stars"]) == int(mean["stars"]) == 87 and int(own["stars"]) > 70
    assert float(own["mad_feh"]) < float(mean["mad_feh"])
    assert float(own["mad_teff"]) < 0.4 * float(mean["mad_teff"])
