"""The generalist's network: a set of (token, value) pairs is encoded, any number of requested tokens is answered.

    input token     GELU(E[id] v + b[id])                                   requested token   E[id]
    encoder         x <- LN(x + A(x, x)), x <- LN(x + F(x)), per block      A attention, F two layers about a GELU
    decoder         q <- LN(q + A(q, x)), q <- LN(q + F(q)), per block      requests do not see each other
    head            GELU layers, then Linear outputs: mean and s = ln(variance), in standardised units

Leung & Bovy (2023): sizes of the preset "lb23", 8,845,529 parameters with 118 tokens; keys and values get one learned
token more, so that attention over an empty context is defined. No token knows its place: the input is a set.
A mixture head has K means, K s and K logits of the weights instead.

The smaller presets have a second way from the known numbers to the head, since attention, whose every block is followed
by a normalisation, is slow to learn differences of a hundredth: hidden numbers of a linear model (ask_latent) and the
known numbers themselves go through a few layers (`summary`, widths), and beside what these make of a star the head is
given, of each requested token, the linear model's answer and the token's own value if it is known. The head's mean is
counted from that value, or else from that answer, in units of its error, and s from that error's.

Contexts come padded, (B, L) with what is seen, or side by side, (T,) with `Runs`: then no work goes into padding.
"""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xptools.cores.ask_latent import CUT, Latent

EPSILON = 1e-5  # of layer normalisation, beside the variance
CLAMP = 20.0  # |s| beyond which the exponent would leave float32's good range
SHOWN = 0.02  # standardised error with which a value that is shown is taken to come back, before anything is learned
OWN = 4  # numbers that the head is given of a requested token


@dataclass(frozen=True)
class Sizes:
    """encoder, decoder: (heads, width of the feed-forward layer) of each block; head: widths of the hidden layers.

    latents: hidden numbers of the linear model, with summary: widths of its layers; without latents neither is there.
    """

    dim: int = 128
    encoder: tuple[tuple[int, int], ...] = ((16, 1024), (8, 512))
    decoder: tuple[tuple[int, int], ...] = ((16, 3096), (8, 1548), (4, 774))
    head: tuple[int, ...] = (3096, 1548, 774, 387)
    context: int = 64
    dropout: float = 0.1
    components: int = 1
    latents: int = 0
    summary: tuple[int, ...] = ()


PRESETS = {
    "lb23": Sizes(),
    "small": Sizes(32, ((2, 64),), ((2, 64),), (128, 64), 64, 0.0, latents=16, summary=(256, 128)),
    "tiny": Sizes(16, ((2, 32),), ((2, 32),), (32,), 64, 0.0, latents=4, summary=(32, 16)),
}


class Answer(NamedTuple):
    """Means, s = ln variances and log weights of the components (B, R, K), in standardised units."""

    mean: Tensor
    s: Tensor
    log_weight: Tensor


class Runs(NamedTuple):
    """Stars side by side: `parts` are (stars, tokens of each) of those with equally many, `requests` rows of each."""

    parts: tuple[tuple[int, int], ...]
    requests: int = 0

    def starts(self) -> np.ndarray:
        """Where the tokens of each star begin, and where those of the last end (S + 1,)."""
        each = np.array(self.parts, np.int64).reshape(-1, 2)
        return np.concatenate([[0], np.repeat(each[:, 1], each[:, 0]).cumsum()])


Among = Tensor | Runs | None  # which tokens a query may attend to


class Attention(nn.Module):
    """softmax(Q K^T / sqrt(d)) V over `heads` slices, with one learned key and value beside those of the memory."""

    def __init__(self, dim: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.inward = nn.Linear(dim, 3 * dim)
        self.outward = nn.Linear(dim, dim)
        self.key, self.value = (nn.Parameter(torch.empty(1, 1, dim)) for _ in range(2))
        nn.init.xavier_uniform_(self.inward.weight)
        nn.init.zeros_(self.inward.bias)
        nn.init.zeros_(self.outward.bias)
        nn.init.xavier_normal_(self.key)
        nn.init.xavier_normal_(self.value)

    def forward(self, query: Tensor, memory: Tensor, among: Among) -> Tensor:
        """query (B, R, d), memory (B, L, d), among (B, 1, 1, L + 1) true where there is a token, None: everywhere.

        Or with Runs, query (rows, d) and memory (tokens, d), of which those beyond the runs come out 0.
        """
        dim, own = query.shape[-1], query is memory
        if own:
            q, k, v = self.inward(memory).split(dim, -1)
        else:
            weight, bias = self.inward.weight, self.inward.bias
            q = F.linear(query, weight[:dim], bias[:dim])
            k, v = F.linear(memory, weight[dim:], bias[dim:]).split(dim, -1)
        out = self._run(q, k, v, among, own) if isinstance(among, Runs) else self._padded(q, k, v, among)
        return self.outward(out)

    def _run(self, q: Tensor, k: Tensor, v: Tensor, runs: Runs, own: bool) -> Tensor:
        """Run by run; pieces are split and joined at once, which costs least on the way back."""
        tokens = [n * length for n, length in runs.parts]
        rows = tokens if own else [n * runs.requests for n, _ in runs.parts]
        queries, *memory = (_cut(x, sizes) for x, sizes in ((q, rows), (k, tokens), (v, tokens)))
        out = [
            self._padded(*(x.reshape(n, -1 if x.numel() else 0, x.shape[-1]) for x in part), None).flatten(0, 1)
            for (n, _), *part in zip(runs.parts, queries, *memory, strict=False)
            if len(part[0])
        ]
        return torch.cat([*out, q.new_zeros(len(q) - sum(rows), q.shape[-1])])

    def _padded(self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None) -> Tensor:
        batch, _, dim = k.shape
        k = torch.cat([k, self.key.expand(batch, 1, dim).to(k.dtype)], 1)
        v = torch.cat([v, self.value.expand(batch, 1, dim).to(v.dtype)], 1)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))  # (B, heads, ., d / heads)
        p = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=p)
        return out.transpose(1, 2).flatten(-2)


def _cut(x: Tensor, sizes: list[int]) -> tuple[Tensor, ...]:
    """Pieces of these sizes, and the rest."""
    return x.split([*sizes, len(x) - sum(sizes)])


class Block(nn.Module):
    """Attention and a feed-forward layer, each added to its input and then normalised."""

    def __init__(self, dim: int, heads: int, width: int, dropout: float):
        super().__init__()
        self.attention = Attention(dim, heads, dropout)
        self.wide, self.narrow = nn.Linear(dim, width), nn.Linear(width, dim)
        self.first, self.second = (nn.LayerNorm(dim, EPSILON) for _ in range(2))
        self.drop = nn.Dropout(dropout)

    def forward(self, query: Tensor, memory: Tensor, among: Among) -> Tensor:
        x = self.first(query + self.drop(self.attention(query, memory, among)))
        return self.second(x + self.drop(self.narrow(self.drop(F.gelu(self.wide(x))))))


class Known(NamedTuple):
    """All tokens of each star, whether attended to or not: values (B, V + 1), 0 where unknown, and which are known."""

    values: Tensor
    there: Tensor


class Summary(nn.Module):
    """From a star's known numbers, past attention: `trunk` (B, d) of the star, `own` (B, R, OWN) of its requests."""

    def __init__(self, tokens: int, sizes: Sizes):
        super().__init__()
        self.latent = Latent(tokens, sizes.latents)
        widths = (2 * sizes.latents + 2 * (tokens + 1), *sizes.summary)
        self.layers = nn.ModuleList(nn.Linear(n, m) for n, m in pairwise(widths))

    def forward(self, known: Known, requests: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the head is told (n, R, d + OWN), and the values and ln variances (n, R) that answers are counted from,
        of the first n stars, requests (n, R)."""
        told = self.latent(*known)
        x = torch.cat([told.features, known.values.clamp(-CUT, CUT), known.there.float()], 1)
        for layer in self.layers:
            x = F.gelu(layer(x))
        n, count = requests.shape
        guess, spread = self.latent.guess(told.of(n), requests)
        there, value = known.there[:n].gather(1, requests), known.values[:n].gather(1, requests)
        own = torch.stack([guess, spread, there.float(), value.clamp(-CUT, CUT)], -1)
        told = torch.cat([x[:n, None].expand(-1, count, -1), own], -1)
        return told, torch.where(there, value, guess), spread.masked_fill(there, 2 * math.log(SHOWN))


class Generalist(nn.Module):
    """The whole network for `tokens` tokens with identifiers 1 ... tokens; 0 is padding."""

    def __init__(self, tokens: int, sizes: Sizes):
        super().__init__()
        self.sizes = sizes
        self.embedding, self.offset = (nn.Parameter(torch.empty(tokens + 1, sizes.dim)) for _ in range(2))
        nn.init.xavier_uniform_(self.embedding)
        nn.init.xavier_uniform_(self.offset)
        self.encoder = nn.ModuleList(Block(sizes.dim, h, w, sizes.dropout) for h, w in sizes.encoder)
        self.decoder = nn.ModuleList(Block(sizes.dim, h, w, sizes.dropout) for h, w in sizes.decoder)
        self.summary = Summary(tokens, sizes) if sizes.latents else None
        widths = (sizes.dim + (sizes.summary[-1] + OWN if sizes.latents else 0), *sizes.head)
        self.head = nn.ModuleList(nn.Linear(n, m) for n, m in pairwise(widths))
        names = ("mean", "s") if sizes.components == 1 else ("mean", "s", "logit")
        self.out = nn.ModuleDict({name: nn.Linear(widths[-1], sizes.components) for name in names})
        self.working = torch.float32

    def at(self, precision: torch.dtype) -> Generalist:
        """A copy whose layers work in `precision`; tokens are embedded and answers made in single precision."""
        other = deepcopy(self)
        # differences of a hundredth, which a summary is there for, would drown in a head of eight bits
        for part in (other.encoder, other.decoder, *(() if self.summary else (other.head,))):
            part.to(precision)
        other.working = precision
        return other

    def embedded(self, ids: Tensor, values: Tensor) -> Tensor:
        """Tokens as the encoder takes them, in single precision."""
        scale, offset = (F.embedding(ids, table) for table in (self.embedding, self.offset))
        return F.gelu(scale * values[..., None] + offset)

    def encode(self, ids: Tensor, values: Tensor, among: Among = None) -> Tensor:
        """Tokens ids (B, L) int64 with standardised values (B, L) to the memory (B, L, d); or (T,) to (T, d)."""
        x = self.embedded(ids, values).to(self.working)
        for block in self.encoder:
            x = block(x, x, among)
        return x

    def decode(self, memory: Tensor, requests: Tensor, among: Among = None, known: Known | None = None) -> Answer:
        """Answers to requests (B, R) int64, or (rows,), all in one pass: they do not see one another.

        A network with a summary needs what is known of each star.
        """
        q = F.embedding(requests, self.embedding).to(self.working)
        for block in self.decoder:
            q = block(q, memory, among)
        if self.summary:
            return self.summed(q, requests, among, known)
        for layer in self.head:
            q = F.gelu(layer(q))
        return self.answer(q.float())

    def summed(self, q: Tensor, requests: Tensor, among: Among, known: Known) -> Answer:
        """The head with what the summary tells it, all in single precision."""
        each = among.requests if isinstance(among, Runs) else requests.shape[1]
        with torch.autocast(q.device.type, enabled=False):
            rows = requests[: len(requests) // each * each].view(-1, each) if requests.ndim == 1 else requests
            more, *start = self.summary(known, rows)
            if requests.ndim == 1:
                rest = len(q) - rows.numel()
                more, start = F.pad(more.flatten(0, 1), (0, 0, 0, rest)), [F.pad(x.flatten(), (0, rest)) for x in start]
            q = torch.cat([q.float(), more], -1)
            for layer in self.head:
                q = F.gelu(layer(q))
            mean, s, weight = self.answer(q)
            middle, unit = (x[..., None] for x in start)
        return Answer(middle + (0.5 * unit).exp() * mean, (unit + s).clamp(-CLAMP, CLAMP), weight)

    def answer(self, q: Tensor) -> Answer:
        """Outputs, in single precision whatever the rest was in."""
        with torch.autocast(q.device.type, enabled=False):
            mean, s = self.out["mean"](q), self.out["s"](q).clamp(-CLAMP, CLAMP)
            weight = F.log_softmax(self.out["logit"](q), -1) if "logit" in self.out else torch.zeros_like(mean)
        return Answer(mean, s, weight)

    def forward(
        self, ids: Tensor, values: Tensor, requests: Tensor, seen: Tensor | Runs | None = None,
        known: Known | None = None,
    ) -> Answer:  # fmt: skip
        """`encode`, then `decode`; seen (B, L) true where there is a token, None where all are; or Runs."""
        if self.summary and known is None:
            known = self._known(ids, values, seen)
        among = F.pad(seen, (0, 1), value=True)[:, None, None, :] if isinstance(seen, Tensor) else seen
        return self.decode(self.encode(ids, values, among), requests, among, known)

    def _known(self, ids: Tensor, values: Tensor, seen: Tensor | None) -> Known:
        """What a padded context (B, L) shows."""
        seen = torch.ones_like(values, dtype=torch.bool) if seen is None else seen
        empty = values.new_zeros(len(ids), len(self.embedding))
        where = ids * seen  # what is not seen goes to the place of the padding
        full, there = empty.scatter(1, where, values * seen), empty.scatter(1, where, seen.to(values))
        there[:, 0] = full[:, 0] = 0.0
        return Known(full, there > 0)


def log_likelihood(answer: Answer, y: Tensor, sigma: Tensor) -> Tensor:
    """ln p(y) (B, R) of values with errors sigma, up to a constant: the mean of 1/2 [(y - m)^2 / v + ln v], v = e^s +
    sigma^2, is what training minimises (Leung & Bovy 2023)."""
    v = answer.s.exp() + sigma[..., None] ** 2
    each = -0.5 * ((y[..., None] - answer.mean) ** 2 / v + v.log())
    return torch.logsumexp(each + answer.log_weight, -1)


def parameters(model: nn.Module) -> int:
    """How many numbers are trained."""
    return sum(p.numel() for p in model.parameters())
