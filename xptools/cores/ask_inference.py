"""The generalist's network on a processor where nothing is learned: the sums of ask_model in fewer passes.

Matrix products are PyTorch's, with weights laid out once as oneDNN likes them; what is between two of them is one
kernel each.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xptools.cores._simd import LANES
from xptools.cores.ask_kernels import STEP, activation, attention, embedding, factor, normalisation, scratch
from xptools.cores.ask_model import EPSILON, Answer, Attention, Block, Generalist, Known, Runs

KINDS = {torch.float32: "float", torch.bfloat16: "bfloat16"}


def fits(network: Generalist) -> bool:
    """Whether the kernels take such a network, and PyTorch was built with oneDNN."""
    dim = network.sizes.dim
    heads = [h for h, _ in (*network.sizes.encoder, *network.sizes.decoder)]
    return dim % LANES == 0 and all(dim // h % STEP == 0 for h in heads) and torch.backends.mkldnn.is_available()


class Inference:
    """A network in `precision`: `encode` and `decode` of contexts side by side, as those of Generalist."""

    def __init__(self, network: Generalist, precision: torch.dtype):
        self.network, self.precision = network, precision
        self.encoder = [_Block(b, precision) for b in network.encoder]
        self.decoder = [_Block(b, precision) for b in network.decoder]
        # differences of a hundredth, which a summary is there for, would drown in a head of eight bits
        self.head = None if network.summary else [_Linear(layer, precision) for layer in network.head]
        dim, kind = network.sizes.dim, KINDS[precision]
        # made before threads ask for them
        _ = attention(dim, kind), normalisation(dim, kind, EPSILON), activation(kind), embedding(dim, kind)

    def encode(self, ids: Tensor, values: Tensor, runs: Runs) -> Tensor:
        """Tokens ids (T,) int64 with standardised values (T,) to the memory (T, d)."""
        x, tokens = self._embedded(ids, values), runs.starts()
        for block in self.encoder:
            x = block(x, x, tokens, tokens)
        return x

    def decode(self, memory: Tensor, requests: Tensor, runs: Runs, known: Known | None = None) -> Answer:
        """Answers to requests (rows,) int64, runs.requests of each star."""
        tokens = runs.starts()
        rows = np.arange(len(tokens)) * runs.requests
        q = F.embedding(requests, self.network.embedding).to(self.precision)
        for block in self.decoder:
            q = block(q, memory, rows, tokens)
        if self.head is None:
            return self.network.summed(q, requests, runs, known)
        for layer in self.head:
            q = gelu(layer(q))
        return self.network.answer(q.float())

    def _embedded(self, ids: Tensor, values: Tensor) -> Tensor:
        """Tokens as the encoder takes them."""
        table, offset = self.network.embedding, self.network.offset
        out = torch.empty(len(ids), table.shape[1], dtype=self.precision)
        parts = (t.data_ptr() for t in (ids, values, table, offset, out))
        embedding(table.shape[1], KINDS[self.precision])(len(ids), *parts)
        return out


class _Linear:
    """A linear layer, or some of its rows."""

    def __init__(self, layer: nn.Linear, precision: torch.dtype, rows: slice = slice(None)):
        weight, self.bias = (p.detach()[rows].to(precision).contiguous() for p in (layer.weight, layer.bias))
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight)

    def __call__(self, x: Tensor) -> Tensor:
        # without this a bias is written out for every row first, and added to in a second pass
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")


class _Block:
    """One block; queries (rows, d) and memory (T, d) of star s begin at rows[s] and tokens[s], memory fresh."""

    def __init__(self, block: Block, precision: torch.dtype):
        self.attention = _Attention(block.attention, precision)
        self.wide, self.narrow = (_Linear(layer, precision) for layer in (block.wide, block.narrow))
        self.norms = block.first, block.second

    def __call__(self, query: Tensor, memory: Tensor, rows: np.ndarray, tokens: np.ndarray) -> Tensor:
        x = normed(query, self.attention(query, memory, rows, tokens), self.norms[0])
        return normed(x, self.narrow(gelu(self.wide(x))), self.norms[1])


class _Attention:
    """Of queries to the memory; keys and values of a star are made once for all of them."""

    def __init__(self, attention: Attention, precision: torch.dtype):
        self.heads, dim = attention.heads, attention.outward.in_features
        self.key, self.value = attention.key, attention.value
        self.all = _Linear(attention.inward, precision)
        self.query, self.memory = (_Linear(attention.inward, precision, r) for r in (slice(dim), slice(dim, None)))
        self.outward = _Linear(attention.outward, precision)

    def __call__(self, query: Tensor, memory: Tensor, rows: np.ndarray, tokens: np.ndarray) -> Tensor:
        dim, own = query.shape[-1], query is memory
        q = self.all(query) if own else self.query(query)
        pairs, begin = (q, dim) if own else (self.memory(memory), 0)
        out = torch.empty_like(query)
        out[rows[-1] :] = 0.0
        attended(q, rows, pairs[:, begin:], tokens, (self.key, self.value), self.heads, out)
        return self.outward(out)


def attended(
    q: Tensor, rows: np.ndarray, pairs: Tensor, tokens: np.ndarray, own: tuple[Tensor, Tensor], heads: int, out: Tensor
) -> None:
    """Attention of q (rows, >= d) to the keys and values beside each other in pairs (T, 2 d), and an own one (d,) of
    each, to out (rows, d)."""
    dim = out.shape[-1]
    most = int(np.diff(tokens).max(initial=0))
    place = torch.empty(scratch(dim, most))
    attention(dim, KINDS[out.dtype])(
        len(tokens) - 1, q.data_ptr(), q.stride(0), rows.ctypes.data, pairs.data_ptr(), pairs.stride(0),
        tokens.ctypes.data, most, *(x.data_ptr() for x in own), dim // heads, factor(dim // heads), place.data_ptr(),
        out.data_ptr(),
    )  # fmt: skip


def normed(x: Tensor, y: Tensor, layer: nn.LayerNorm) -> Tensor:
    """The layer of x + y, written over y."""
    dim = x.shape[-1]
    parts = (t.data_ptr() for t in (x, y, layer.weight, layer.bias, y))
    normalisation(dim, KINDS[y.dtype], EPSILON)(y.numel() // dim, *parts)
    return y


def gelu(x: Tensor) -> Tensor:
    """In place."""
    many = x.numel() - x.numel() % LANES
    activation(KINDS[x.dtype])(many, x.data_ptr())
    rest = x.view(-1)[many:]
    return x if not len(rest) else x.view(-1).index_copy_(0, torch.arange(many, x.numel()), F.gelu(rest)).view_as(x)
