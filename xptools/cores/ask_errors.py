"""Total errors of the generalist's answers: the network's own, corrected for what was shown.

    total^2 = max(e^2, LEAST) exp(c),      c = MLP (ln e^2, shares)

e is the network's error, shares are the parts of each group of tokens that are shown, of arrays by low, middle and
high orders; every entry of the vocabulary has two small networks of its own, for tokens that are not shown and for
those that are. Contexts that are rare in training are learned less well than others, and e knows it only in part; c is
fitted to held-out stars under contexts of every kind (ask_calibration), for pulls of unit width in each of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from xptools.cores.ask_vocabulary import Vocabulary

LEAST = np.exp(-12.0)  # variance, standardised, below which e^2 is not told from nothing
EDGES = (8, 24)  # orders of an array that begin a segment
WIDTHS, ROWS, BATCH, STEPS = (16, 16), 1024, 1024, 2500  # BATCH rows of each kind
MOST = 6.0  # |c| at most
WILD = 100.0  # squared pull beyond which a star does not count more
DOUBT = 5.0  # stars that say c = 0: few held-out stars change little


@dataclass
class Errors:
    """The correction of a vocabulary's tokens; weights (2 E, n, m) and biases (2 E, 1, m) of its layers, for each of E
    entries hidden and shown; none for no correction."""

    vocabulary: Vocabulary
    usable: np.ndarray
    layers: tuple[tuple[np.ndarray, np.ndarray], ...] = ()

    def __post_init__(self):
        each = [(e.group or e.name, np.arange(e.width or 1)) for e in self.vocabulary.entries]
        parts = [(name, int(k)) for name, orders in each for k in np.searchsorted(EDGES, orders, "right")]
        names = list(dict.fromkeys(parts))
        member = np.array([names.index(p) for p in parts])
        self.member = np.eye(len(names), dtype=np.float32)[member]  # (V, segments)
        self.size = np.maximum(np.bincount(member[self.usable > 0], minlength=len(names)), 1).astype(np.float32)

    def inputs(self, variance: np.ndarray, known: np.ndarray) -> np.ndarray:
        """(N, R, F) of variances (N, R) of answers, known (N, V) what was shown."""
        # counts are exact in whatever order they are summed
        shares = np.repeat((known.astype(np.float32) @ self.member / self.size)[:, None], variance.shape[1], 1)
        told = np.log(np.maximum(variance, LEAST), dtype=np.float32)
        return np.concatenate([0.25 * told[..., None], shares], 2)

    def kinds(self, known: np.ndarray, requests: np.ndarray) -> np.ndarray:
        """Which of the networks (N, R) is meant: twice the entry, and one more where the token is shown."""
        return 2 * self.vocabulary.entry_of[requests] + known[:, requests].astype(bool)

    def total(self, variance: np.ndarray, known: np.ndarray, requests: np.ndarray) -> np.ndarray:
        """Total variances (N, R)."""
        if not self.layers or not variance.size:
            return variance
        x, c = self.inputs(variance, known), np.empty_like(variance)
        kinds = self.kinds(known, requests)
        for kind in np.unique(kinds):
            own = x[kinds == kind]
            # products of one shape: a row's bits depend on its own numbers only
            padded = np.pad(own, ((0, -len(own) % ROWS), (0, 0))).reshape(-1, ROWS, x.shape[2])
            c[kinds == kind] = np.concatenate([self._correction(part, kind) for part in padded])[: len(own)]
        return np.maximum(variance, LEAST) * np.exp(c)

    def _correction(self, x: np.ndarray, kind: int) -> np.ndarray:
        for weight, bias in self.layers[:-1]:
            x = np.tanh(x @ weight[kind] + bias[kind])
        weight, bias = self.layers[-1]
        return MOST * np.tanh((x @ weight[kind] + bias[kind])[:, 0] / MOST)

    def arrays(self) -> dict[str, np.ndarray]:
        """For a model file."""
        return {f"errors.{k}.{name}": pair[i] for k, pair in enumerate(self.layers) for i, name in enumerate("wb")}

    @classmethod
    def of(cls, vocabulary: Vocabulary, usable: np.ndarray, arrays: dict[str, np.ndarray]) -> Errors:
        """From a model file's arrays."""
        count = sum(name.startswith("errors.") for name in arrays) // 2
        return cls(vocabulary, usable, tuple((arrays[f"errors.{k}.w"], arrays[f"errors.{k}.b"]) for k in range(count)))


class Rows(NamedTuple):
    """Answers of one kind: inputs (M, F), variances, residuals and errors of the labels (M,), standardised."""

    x: np.ndarray
    variance: np.ndarray
    off: np.ndarray
    sigma: np.ndarray


def fitted(rows: dict[int, Rows], kinds: int, stars: int, seed: int = 0) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Layers of the correction: total^2 = max(variance, LEAST) e^c is the mean of off^2 - sigma^2, as far as x tells.

    It minimises the mean of w [(off^2 - sigma^2) / total^2 + ln total^2], w = total^2 / (total^2 + sigma^2). Without w
    stars with large errors are all noise; w^2, which would be the likelihood of N(0, total^2 + sigma^2), is biased
    where the error of a label goes with its value, as that of the mass does. `rows` by kind, of that many stars.
    """
    torch.manual_seed(seed)
    which = sorted(rows)
    widths = (rows[which[0]].x.shape[1], *WIDTHS, 1)
    weights = [torch.randn(len(which), n, m) / n**0.5 * (m > 1) for n, m in pairwise(widths)]
    layers = [(w.requires_grad_(), torch.zeros(len(which), 1, w.shape[2], requires_grad=True)) for w in weights]
    optimiser = torch.optim.AdamW([a for pair in layers for a in pair], lr=1e-2, weight_decay=0.1)
    steps = min(STEPS, 100 + max(len(r.x) for r in rows.values()) // 50)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps, 1e-5)
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        loss = _loss(layers, [_some(rows[k], rng) for k in which], stars)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    out = []
    for pair in layers:
        full = [np.zeros((kinds, *a.shape[1:]), np.float32) for a in pair]
        for whole, part in zip(full, pair, strict=True):
            whole[which] = part.detach().numpy()
        out.append(tuple(full))
    return tuple(out)


def _some(rows: Rows, rng: np.random.Generator) -> list[np.ndarray]:
    """BATCH of the rows, drawn at random."""
    pick = rng.integers(0, len(rows.x), BATCH)
    return [np.float32(a[pick]) for a in rows]


def _loss(layers: list, parts: list, stars: int) -> torch.Tensor:
    h, variance, off, sigma = (torch.from_numpy(np.stack(a)) for a in zip(*parts, strict=True))
    for weight, bias in layers[:-1]:
        h = torch.tanh(h @ weight + bias)
    weight, bias = layers[-1]
    c = MOST * torch.tanh((h @ weight + bias)[..., 0] / MOST)
    total = variance.clamp(min=float(LEAST)) * c.exp()
    excess = torch.minimum(off**2, WILD * (total.detach() + sigma**2)) - sigma**2
    weight = (total / (total + sigma**2)).detach()
    return (weight * (excess / total + total.log()) + DOUBT / stars * c**2).mean(1).sum()
