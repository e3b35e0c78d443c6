"""The published auto-encoder in PyTorch, built from its layer list, against a model file made of its weights."""

from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn

from xptools import artefact
from xptools.cores import vae


def block(n, m):
    return nn.Sequential(nn.Linear(n, m), nn.BatchNorm1d(m), nn.GELU())


class Published(nn.Module):
    """110-90-70-50-30-10, heads to 6, and back; the first Linear of decoder and scatter stands alone."""

    def __init__(self, K=110, hidden=(90, 70, 50, 30, 10), L=6):
        super().__init__()
        up, down = (K, *hidden), (L, *hidden[::-1], K)
        self.encoder = nn.Sequential(*(block(n, m) for n, m in pairwise(up)))
        self.mu, self.log_var = nn.Linear(hidden[-1], L), nn.Linear(hidden[-1], L)
        inner = list(pairwise(down[1:-1]))
        for name, end in (("decoder", []), ("scatter", [nn.Sigmoid()])):
            last = nn.Sequential(nn.Linear(down[-2], K), *end)
            setattr(self, name, nn.Sequential(nn.Linear(*down[:2]), *(block(*s) for s in inner), last))

    def forward(self, x):
        h = self.encoder(x)
        mu = self.mu(h)
        return mu, self.log_var(h), self.decoder(mu), self.scatter(mu)


def check(network, arrays, x):
    """mu, log_var, decoder and scatter: the array form in float64 to 1e-9 of the range, the compiled one in float32 to
    1e-6 rms, and nowhere further off than a few times PyTorch's own float32 is from its float64."""
    with torch.no_grad():
        single = [t.numpy() for t in network.eval()(torch.from_numpy(x))]
        double = [t.numpy() for t in network.double()(torch.from_numpy(x).double())]
    wide = {k: v.astype(np.float64) for k, v in arrays.items()}
    active, z, model = vae.running(wide, vae.gelu), double[0], vae.Model(arrays)
    back = [vae.decoded(wide, part, z, active) for part in ("decoder", "scatter")]
    plain = [*vae.encoded(wide, x, active), back[0], vae.sigmoid(back[1])]
    here = [*model.encode(x), model.decode(z), model.scatter(z)]
    for a, b, s, d in zip(plain, here, single, double, strict=True):
        size = np.abs(d).max()
        assert np.abs(a - d).max() < 1e-9 * size
        assert np.sqrt(np.mean((b - d) ** 2)) < 1e-6 * size
        assert np.abs(b - d).max() < max(4 * np.abs(s - d).max(), 1e-6 * size)


def spectra_like(model, n, seed=0):
    """Vectors such as the network makes, with a little noise."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, model.L)).astype(np.float32)
    return (model.decode(z) + 0.05 * rng.normal(size=(n, model.K))).astype(np.float32)


def test_published_weights(shared_data, xp, tmp_path):
    """encoder, decoder and scatter agree, and the file counts 67,182 parameters."""
    weights, table = shared_data / "xp_vae" / "weight.pt", shared_data / "xp" / "xp_continuous_2000.parquet"
    done = xp("train", "vae", "--import", weights, "--normalise", table, "-o", tmp_path / "m.safetensors")
    assert done.returncode == 0, done.stderr
    made = artefact.load(tmp_path / "m.safetensors", "vae")
    assert made.about.shape["parameters"] == 67_182 and made.about.shape["latents"] == 6
    network = Published()
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True)["model_state_dict"])
    assert sum(p.numel() for p in network.parameters()) == 67_182
    check(network, made.arrays, spectra_like(vae.Model(made.arrays), 3000))
    done = xp("vae", "--model", tmp_path / "m.safetensors", table, "-o", tmp_path / "out.parquet")
    assert done.returncode == 0, done.stderr
    assert np.isfinite(pq.read_table(tmp_path / "out.parquet")["z6"].to_numpy()).all()


def test_any_saved_network_is_read(inside, tmp_path):
    """A network of other widths, saved as a bare state dict; its table is a toy of twelve coefficients."""
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parents[1]))
    import vae_toy as toy

    torch.manual_seed(1)
    network = Published(toy.K, (9, 5), 2).train()
    for _ in range(20):  # running norms that are not those of the start
        network(torch.randn(64, toy.K) * 0.7 + 0.2)
    torch.save(network.state_dict(), tmp_path / "w.pt")
    pq.write_table(toy.table(400, 1), tmp_path / "t.parquet")
    code, _, err = inside("train", "vae", "--import", tmp_path / "w.pt", "--normalise", tmp_path / "t.parquet",
                          "-o", tmp_path / "m.safetensors")  # fmt: skip
    assert code == 0, err
    arrays = artefact.load(tmp_path / "m.safetensors", "vae").arrays
    check(network, arrays, np.random.default_rng(0).normal(size=(500, toy.K)).astype(np.float32))


@pytest.mark.parametrize(("content", "code"), [(b"rubbish", 65), (None, 66)])
def test_what_is_no_weights_is_said(inside, tmp_path, content, code):
    if content:
        (tmp_path / "w.pt").write_bytes(content)
    options = ("--import", tmp_path / "w.pt", "--normalise", tmp_path / "t", "-o", tmp_path / "m")
    found, _, err = inside("train", "vae", *options)
    assert found == code and "weights" in err, err
