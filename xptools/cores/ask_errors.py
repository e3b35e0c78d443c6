"""Total errors of the generalist's answers: the network's own, corrected for what was shown.

    total^2 = max(e^2, LEAST) exp(c),      c = MLP(ln e^2, is the requested token itself shown, which token, shares)

e is the network's error, shares are the parts of each group of tokens that are shown, of arrays by low, middle and
high orders. Contexts that are rare in training are learned less well than others, and e knows it only in part; c is
fitted to held-out stars under contexts of every kind (ask_calibration), so that pulls have unit width in each of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import nn

from xptools.cores.ask_vocabulary import Vocabulary

LEAST = np.exp(-12.0)  # variance, standardised, below which e^2 is not told from nothing
EDGES = (8, 24)  # orders of an array that begin a segment
WIDTHS, ROWS, BATCH, STEPS = (32, 32), 1024, 8192, 2500
WILD = 100.0  # squared pull beyond which a star does not count more


@dataclass
class Errors:
    """The correction of a vocabulary's tokens; weights and biases of its layers, none for no correction."""

    vocabulary: Vocabulary
    usable: np.ndarray
    layers: tuple[tuple[np.ndarray, np.ndarray], ...] = ()

    def __post_init__(self):
        each = [(e.group or e.name, np.arange(e.width or 1)) for e in self.vocabulary.entries]
        parts = [(name, int(k)) for name, orders in each for k in np.searchsorted(EDGES, orders, "right")]
        names = list(dict.fromkeys(parts))
        member = np.array([names.index(p) for p in parts])
        size = np.bincount(member[self.usable > 0], minlength=len(names))
        self.share = (np.eye(len(names))[member] / np.maximum(size, 1)).astype(np.float32)  # (V, segments)

    def inputs(self, variance: np.ndarray, known: np.ndarray, requests: np.ndarray) -> np.ndarray:
        """Rows (N R, F) of variances (N, R) of answers to tokens (R,), known (N, V) what was shown."""
        n, r = variance.shape
        one = np.eye(len(self.vocabulary.entries), dtype=np.float32)[self.vocabulary.entry_of[requests]]
        parts = (
            0.25 * np.log(np.maximum(variance, LEAST))[..., None], known[:, requests, None],
            np.broadcast_to(one, (n, *one.shape)), np.repeat((known @ self.share)[:, None], r, 1),
        )  # fmt: skip
        return np.concatenate(parts, 2, dtype=np.float32).reshape(n * r, -1)

    def total(self, variance: np.ndarray, known: np.ndarray, requests: np.ndarray) -> np.ndarray:
        """Total variances (N, R)."""
        if not self.layers or not variance.size:
            return variance
        x = self.inputs(variance, known.astype(np.float32), requests)
        # products of one shape: a row's bits depend on its own numbers only
        padded = np.pad(x, ((0, -len(x) % ROWS), (0, 0))).reshape(-1, ROWS, x.shape[1])
        c = np.concatenate([self._correction(part) for part in padded])[: len(x)]
        return np.maximum(variance, LEAST) * np.exp(c).reshape(variance.shape)

    def _correction(self, x: np.ndarray) -> np.ndarray:
        for weight, bias in self.layers[:-1]:
            x = np.tanh(x @ weight.T + bias)
        weight, bias = self.layers[-1]
        return (x @ weight.T + bias)[:, 0]

    def arrays(self) -> dict[str, np.ndarray]:
        """For a model file."""
        return {f"errors.{k}.{name}": pair[i] for k, pair in enumerate(self.layers) for i, name in enumerate("wb")}

    @classmethod
    def of(cls, vocabulary: Vocabulary, usable: np.ndarray, arrays: dict[str, np.ndarray]) -> Errors:
        """From a model file's arrays."""
        count = sum(name.startswith("errors.") for name in arrays) // 2
        return cls(vocabulary, usable, tuple((arrays[f"errors.{k}.w"], arrays[f"errors.{k}.b"]) for k in range(count)))


def fitted(x: np.ndarray, variance: np.ndarray, off: np.ndarray, sigma: np.ndarray, seed: int = 0) -> tuple:
    """Layers of the correction: total^2 = max(variance, LEAST) e^c is the mean of off^2 - sigma^2, as far as x tells.

    It minimises the mean of (off^2 - sigma^2) / total^2 + ln total^2. The likelihood of N(0, total^2 + sigma^2) would
    be less noisy, but the error of a label goes with its value (heavy stars have large errors of their mass), and then
    it is biased. x (M, F) of `Errors.inputs`, the others (M,), standardised.
    """
    torch.manual_seed(seed)
    widths = (x.shape[1], *WIDTHS, 1)
    net = nn.ModuleList(nn.Linear(n, m) for n, m in pairwise(widths))
    nn.init.zeros_(net[-1].weight)
    nn.init.zeros_(net[-1].bias)
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-2, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS, 1e-5)
    told = [torch.from_numpy(np.float32(a)) for a in (x, np.maximum(variance, LEAST), off**2, sigma**2)]
    rng = np.random.default_rng(seed)
    for _ in range(STEPS):
        rows = torch.from_numpy(rng.integers(0, len(x), BATCH))
        h, v, square, noise = (a[rows] for a in told)
        for layer in net[:-1]:
            h = torch.tanh(layer(h))
        total = v * net[-1](h)[:, 0].exp()
        excess = torch.minimum(square, WILD * (total.detach() + noise)) - noise
        loss = (excess / total + total.log()).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    return tuple((layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy()) for layer in net)
