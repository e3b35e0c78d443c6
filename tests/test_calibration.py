"""The small version of tests/calibration.py: a wrong prior, a lost factor or a biased slope shows here already."""

import numpy as np
import pytest
from calibration import NOMINAL, Tally, drawn, mocked


@pytest.fixture(scope="module")
def tallies():
    return drawn(16, seed=77)


@pytest.mark.parametrize("name", ["log Phi", "alpha1", "alpha2", "xi_MR"])
def test_intervals_hold_the_truth_at_their_rate(tallies, name):
    for level, found in tallies[name].coverage().items():
        assert abs(found["off"]) < 3.5, f"{name}: {found['share']:.3f} of {found['cases']} in {level}"


@pytest.mark.parametrize("name", ["log Phi", "alpha1", "xi_MR"])
def test_ranks_are_flat(tallies, name):
    assert tallies[name].flatness(bins=10)["p"] > 1e-3


def test_a_wrong_volume_would_show():
    """The same with volumes 10 % too small: the test above can fail."""
    wrong = Tally()
    rng = np.random.default_rng(0)
    from xptools.cores import mf

    n = rng.poisson(300.0, 832)
    _, _, q = mf.exact(n, np.full(832, np.log(0.9)), np.zeros(832))
    wrong.add(np.log10(300.0), *q[1:])
    assert wrong.coverage()["68 %"]["off"] < -5


def test_mock_through_the_pipe_closes():
    """Three universes star by star: mock, deredden, select, mass, veff, mf in this process."""
    tally = mocked(3, stars=8_000, seed=50)["log Phi"]
    for name in NOMINAL:
        assert abs(tally.coverage()[name]["off"]) < 3.5
