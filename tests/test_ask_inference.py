"""The generalist's kernels against obvious sums in double precision and against PyTorch's own layers."""

import gc

import numpy as np
import pytest
import torch

from xptools.cores.ask import TENSORS, Engine
from xptools.cores.ask_inference import Inference, attended, fits, gelu, normed
from xptools.cores.ask_kernels import activation
from xptools.cores.ask_model import Generalist, Runs, Sizes
from xptools.cores.ask_vocabulary import Vocabulary

LENGTHS = [0, 1, 2, 15, 16, 17, 31, 64, 70]


def softmax(q, k, v, heads):
    """The obvious attention of one star in double precision."""
    out = []
    for a, b, c in zip(*(np.split(x, heads, 1) for x in (q, k, v)), strict=True):
        s = a @ b.T / np.sqrt(a.shape[1])
        p = np.exp(s - s.max(1, keepdims=True))
        out.append(p / p.sum(1, keepdims=True) @ c)
    return np.concatenate(out, 1)


@pytest.mark.parametrize(("precision", "most"), [(torch.float32, 5e-6), (torch.bfloat16, 8e-3)])
@pytest.mark.parametrize("heads", [1, 4, 8])
@pytest.mark.parametrize("each", [0, 3, 20])  # requests of a star; 0: its own tokens ask
def test_attention_is_the_obvious_one(precision, most, heads, each):
    rng, dim = np.random.default_rng(heads), 64
    tokens = np.concatenate([[0], np.cumsum(LENGTHS)])
    rows = np.arange(len(tokens)) * each if each else tokens
    q = torch.from_numpy(rng.normal(size=(rows[-1], 3 * dim))).to(precision)
    pairs = torch.from_numpy(rng.normal(size=(tokens[-1], 3 * dim))).to(precision)
    own = torch.from_numpy(rng.normal(size=(2, dim))).float()
    got = torch.empty(rows[-1], dim, dtype=precision)
    attended(q, rows, pairs[:, dim:], tokens, tuple(own), heads, got)
    q, pairs = q.double().numpy(), pairs.double().numpy()
    for s in range(len(LENGTHS)):
        here = pairs[tokens[s] : tokens[s + 1]]
        k, v = (np.concatenate([here[:, i * dim : (i + 1) * dim], own[i - 1 : i]]) for i in (1, 2))
        want = softmax(q[rows[s] : rows[s + 1], :dim], k, v, heads)
        assert np.allclose(got[rows[s] : rows[s + 1]].double(), want, rtol=0, atol=most)


def test_attention_stands_scores_of_any_size():
    q = torch.tensor([[1e4] * 16, [-1e4] * 16, [0.0] * 16])
    pairs = torch.cat([torch.ones(1, 32), -torch.ones(1, 32)])
    got, zero = torch.empty(3, 16), torch.zeros(16)
    attended(q, np.array([0, 3]), pairs, np.array([0, 2]), (zero, zero), 2, got)
    assert torch.allclose(got, torch.tensor([1.0, -1.0, 0.0])[:, None].expand(3, 16))


@pytest.mark.parametrize(("precision", "most"), [(torch.float32, 2e-6), (torch.bfloat16, 2e-2)])
def test_normalisation_is_pytorch_s(precision, most):
    torch.manual_seed(0)
    x, y = (3 * torch.randn(2, 40, 48) + 1).to(precision)
    layer = torch.nn.LayerNorm(48)
    torch.nn.init.normal_(layer.weight)
    torch.nn.init.normal_(layer.bias)
    want = layer(x.float() + y.float())
    assert torch.allclose(normed(x, y, layer).float(), want, rtol=0, atol=most)


@pytest.mark.parametrize(("precision", "most"), [(torch.float32, 2e-6), (torch.bfloat16, 6e-5)])
def test_gelu_is_pytorch_s(precision, most):
    x = torch.cat([torch.linspace(-9, 9, 40003), torch.tensor([-1e4, 1e4])]).to(precision)  # no multiple of 16
    want = torch.nn.functional.gelu(x.double())
    got = gelu(x.clone()).double()
    assert torch.all((got - want).abs() <= most + want.abs() * torch.finfo(precision).eps)


def test_bfloat16_is_rounded_to_the_nearest():
    x = torch.randn(4096, generator=torch.manual_seed(0))
    x[:2] = torch.tensor([1.00390625, 1.01171875])  # halfway: the even one
    got = torch.empty_like(x, dtype=torch.bfloat16)
    # a star without tokens: the learned value comes out as it is
    zero = torch.zeros(1, 4096, dtype=torch.bfloat16)
    attended(zero, np.array([0, 1]), zero, np.array([0, 0]), (zero.float()[0], x), 1, got[None])
    assert torch.equal(got, x.bfloat16())


SIZES = Sizes(64, ((8, 96), (2, 64)), ((4, 96), (2, 48)), (72, 40), 24, 0.0)


def network(sizes=SIZES) -> Generalist:
    torch.manual_seed(1)
    return Generalist(30, sizes).eval()


@pytest.mark.parametrize(("precision", "most"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
@torch.inference_mode()
def test_the_whole_network_is_the_same(precision, most):
    net = network()
    lengths = [0, 3, 3, 24]
    ids, values = torch.randint(1, 31, (30,)), torch.randn(30)
    asked = torch.tensor([5, 9] * 5)  # the last two rows are nobody's
    runs = Runs(((1, 0), (2, 3), (1, 24)))
    fast = Inference(net, precision)
    got = fast.decode(fast.encode(ids, values, runs), asked, Runs(runs.parts, 2))
    start = 0
    for s, n in enumerate(lengths):
        here = slice(start, start + n)
        want = net(ids[None, here], values[None, here], asked[None, :2])
        for a, b in zip(got, want, strict=True):
            assert torch.allclose(a[2 * s : 2 * s + 2], b[0], rtol=0, atol=most * max(float(want.mean.std()), 0.1))
        start += n


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_bits_are_a_star_s_own(precision):
    """Whoever is beside it, however many, in whatever order."""
    names = Vocabulary.of([{"name": f"t{i}", "value": f"t{i}"} for i in range(30)])
    one = dict.fromkeys(TENSORS, np.ones(30, np.float32))
    rng = np.random.default_rng(2)
    z = rng.normal(size=(300, 30)).astype(np.float32)
    z[rng.random(z.shape) < rng.random((300, 1))] = np.nan
    engine = Engine(network(), names, **one, precision=precision)
    whole = np.stack(engine.answers(z, np.array([3, 7, 8])))
    some = rng.permutation(300)[:77]
    assert np.array_equal(np.stack(engine.answers(z[some], np.array([3, 7, 8]))), whole[:, some])


def test_other_widths_are_left_to_pytorch():
    odd = network(Sizes(20, ((2, 16),), ((2, 16),), (8,), 24, 0.0))
    assert fits(network()) and not fits(odd)
    names = Vocabulary.of([{"name": f"t{i}", "value": f"t{i}"} for i in range(30)])
    one = dict.fromkeys(TENSORS, np.ones(30, np.float32))
    mean, *_ = Engine(odd, names, **one).answers(np.zeros((2, 30), np.float32), np.array([3]))
    assert np.isfinite(mean).all()


def test_a_kernel_that_goes_takes_no_other_along():
    one, other = (activation.__wrapped__("float") for _ in range(2))
    del one
    gc.collect()
    x = torch.ones(16)
    other(16, x.data_ptr())
    assert torch.allclose(x, torch.nn.functional.gelu(torch.ones(16)))
