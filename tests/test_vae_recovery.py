"""What latents know of mock giants behind dust: more than single coefficients, extinction apart from temperature."""

import numpy as np
import pytest
from tables import read

from xptools.cores import vae_inspect

MOCK = "mock 14000 --sample giants --spectra --map toy --max-distance 4 --g-limit 15 --fractions 0.6 0.3 0.1"
TRAIN = "train vae --hidden 40,20 --latents 4 --batch 32 --rate 2e-3 --epochs 60 --warm 0.5"
LABELS = ("true_ext_e", "true_teff", "true_feh", "true_logg")


@pytest.fixture(scope="module")
def found(xp, tmp_path_factory):
    """The table of --inspect of new giants, by a model trained on others."""
    folder = tmp_path_factory.mktemp("dust")
    for name, seed in (("train", 5), ("test", 6)):
        assert xp(*MOCK.split(), "--seed", seed, "-o", folder / f"{name}.parquet", timeout=600).returncode == 0
    line = (*TRAIN.split(), folder / "train.parquet", "-o", folder / "m.safetensors")
    assert xp(*line, timeout=600).returncode == 0
    run = ("vae", "--model", folder / "m.safetensors")
    assert xp(*run, folder / "test.parquet", "-o", folder / "z.parquet").returncode == 0
    assert xp(*run, "--inspect", ",".join(LABELS), folder / "z.parquet", "-o", folder / "i.parquet").returncode == 0
    return read(folder / "i.parquet").to_pylist()


@pytest.mark.slow
def test_extinction_separates_from_temperature(found):
    """Each is as well known at fixed values of the other, and of [Fe/H], as it is at all."""
    told = {row["label"]: row for row in found if row["axis"] == "quadratic"}
    E, T = (told[f"true_{name}"] for name in ("ext_e", "teff"))
    assert min(E["rho"], E["partial"]) > 0.65
    assert min(T["rho"], T["partial"]) > 0.8
    assert any(abs(row["partial"]) > 0.5 for row in found if row["label"] == "true_ext_e" and row["rank"])


@pytest.mark.slow
def test_probes_beat_single_coefficients(found):
    """The better of least squares and forest, every label."""
    for label in LABELS:
        told = {row["axis"]: abs(row["rho"]) for row in found if row["label"] == label and not row["rank"]}
        (alone,) = (rho for axis, rho in told.items() if axis.endswith("]"))
        assert max(told["linear"], told["forest"]) > alone
        assert told["forest"] > 0.9 * told["quadratic"]


def test_partial_correlation():
    """Of two numbers that share only a third, of one that knows beyond it, with none to hold, of what does not vary."""
    rng = np.random.default_rng(3)
    a, b, c = rng.normal(size=(3, 20_000))
    fixed = np.stack([c, rng.normal(size=20_000)], -1)
    assert vae_inspect.spearman(a + c, b + c) > 0.4
    assert abs(vae_inspect.partial(a + c, b + c, fixed)) < 0.03
    assert vae_inspect.partial(a + c, a + 3 * c, fixed) == pytest.approx(0.98, abs=0.03)
    assert abs(vae_inspect.partial(np.exp(a + c**3), b - c**2, fixed)) < 0.05
    assert vae_inspect.partial(a + c, b + c, fixed[:, :0]) == pytest.approx(vae_inspect.spearman(a + c, b + c))
    assert vae_inspect.partial(np.ones_like(a), b, fixed) == 0 == vae_inspect.partial(c, b, fixed)
