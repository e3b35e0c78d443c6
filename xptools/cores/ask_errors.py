"""Corrected answers of the generalist and their total errors: the network's own, corrected for what was shown.

    total^2 = max(e^2, LEAST) exp(c),    corrected = answer + b total,    c, b = MLP (ln e^2, answer, order, shares,
                                                                                      withheld)

e is the network's error, order that of the token in its array, shares are the parts of each group of tokens that are
shown, of arrays by the orders at EDGES; withheld is the part of what is known of an array that is not shown, where some
is; every entry of the vocabulary has two small networks of its own, for tokens that are not shown and for those that
are. Contexts that are rare in training are learned less well than others, and answers far from the middle less well
than those near it; e knows it only in part. A star of which few orders are shown is taken for a faint one, of which few
are relevant: only c and b know if the others were withheld. A label that is shown comes back to a thousandth, and in
each context a little to one side. Both are fitted to held-out stars under contexts of every kind (ask_calibration), so
that answers are as far from the truth as total says, in each of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch

from xptools.cores.ask_vocabulary import Vocabulary
from xptools.errors import DataError

LEAST = np.exp(-18.0)  # variance, standardised, below which e^2 is not told from nothing
EDGES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 32)  # orders of an array that begin a segment
WIDTHS, ROWS, BATCH, STEPS = (48, 48), 1024, 1024, 12000  # BATCH rows of each kind
MOST, FAR = 9.0, 6.0  # |c| and |b| at most; answers, standardised, beyond which there is only "far"
ORDER = 2  # the input that tells the order
ALIKE = 500  # answers that share a usual error of the label
WILD = 100.0  # squared pull beyond which a star does not count more
DOUBT = 8.0  # stars that say c = b = 0: few held-out stars change little


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
        self.order = np.concatenate([orders for _, orders in each])
        wide = np.array([e.width > 0 for e in self.vocabulary.entries])
        self.array = np.eye(len(wide), dtype=np.float32)[self.vocabulary.entry_of][:, wide]  # (V, arrays)
        self.size = np.maximum(np.bincount(member[self.usable > 0], minlength=len(names)), 1).astype(np.float32)

    def inputs(
        self, mean: np.ndarray, variance: np.ndarray, known: np.ndarray, there: np.ndarray, requests: np.ndarray
    ) -> np.ndarray:
        """(N, R, F) of means and variances (N, R) of answers; known (N, V) what was shown of what was there (N, V)."""
        # counts are exact in whatever order they are summed
        seen, whole = (a.astype(np.float32) @ self.array for a in (known, there))
        withheld = np.where(seen > 0, 1.0 - seen / np.maximum(whole, 1), 0.0).astype(np.float32)
        shares = np.hstack([known.astype(np.float32) @ self.member / self.size, withheld])
        shares = np.repeat(shares[:, None], variance.shape[1], 1)
        told = np.log(np.maximum(variance, LEAST), dtype=np.float32)
        answer = np.clip(mean, -FAR, FAR, dtype=np.float32)
        order = np.broadcast_to(np.log2(1.0 + self.order[requests], dtype=np.float32), mean.shape)
        return np.concatenate([0.25 * told[..., None], 0.5 * answer[..., None], 0.5 * order[..., None], shares], 2)

    def kinds(self, seen: np.ndarray, requests: np.ndarray) -> np.ndarray:
        """Which of the networks (N, R) is meant: twice the entry, and one more where the token is seen."""
        return 2 * self.vocabulary.entry_of[requests] + seen[:, requests].astype(bool)

    def corrected(
        self, mean: np.ndarray, variance: np.ndarray, known: np.ndarray, there: np.ndarray, requests: np.ndarray,
        seen: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Answers (N, R) and their total errors (N, R), standardised.

        What is known but not `seen`, which all is if it is not told, is hidden.
        """
        if not self.layers or not variance.size:
            return mean, np.sqrt(variance)
        x, found = self.inputs(mean, variance, known, there, requests), np.empty((*variance.shape, 2), variance.dtype)
        kinds = self.kinds(known if seen is None else seen, requests)
        for kind in np.unique(kinds):
            own = x[kinds == kind]
            # products of one shape: a row's bits depend on its own numbers only
            padded = np.pad(own, ((0, -len(own) % ROWS), (0, 0))).reshape(-1, ROWS, x.shape[2])
            found[kinds == kind] = np.concatenate([self._correction(part, kind) for part in padded])[: len(own)]
        total = np.sqrt(np.maximum(variance, np.float32(LEAST)) * np.exp(found[..., 0]))
        return mean + found[..., 1] * total, total

    def _correction(self, x: np.ndarray, kind: int) -> np.ndarray:
        for weight, bias in self.layers[:-1]:
            x = np.tanh(x @ weight[kind] + bias[kind])
        weight, bias = self.layers[-1]
        return MOST * np.tanh((x @ weight[kind] + bias[kind]) / MOST)

    def arrays(self) -> dict[str, np.ndarray]:
        """For a model file."""
        return {f"errors.{k}.{name}": pair[i] for k, pair in enumerate(self.layers) for i, name in enumerate("wb")}

    @classmethod
    def of(cls, vocabulary: Vocabulary, usable: np.ndarray, arrays: dict[str, np.ndarray]) -> Errors:
        """From a model file's arrays; DataError if they are of other inputs than these."""
        count = sum(name.startswith("errors.") for name in arrays) // 2
        out = cls(vocabulary, usable, tuple((arrays[f"errors.{k}.w"], arrays[f"errors.{k}.b"]) for k in range(count)))
        nobody = np.zeros((1, len(vocabulary.tokens)), bool)
        ends = out.layers and (out.layers[0][0].shape[1], out.layers[-1][0].shape[2])
        if ends and ends != (out.inputs(*np.ones((2, 1, 1)), nobody, nobody, np.zeros(1, int)).shape[2], 2):
            raise DataError("the model's correction of errors is of another version of xp. TRY: xp train ask again")
        return out


class Rows(NamedTuple):
    """Answers of one kind: inputs (M, F), variances, residuals and errors of the labels (M,), standardised, and the
    variance of labels that is usual where the answer is like this."""

    x: np.ndarray
    variance: np.ndarray
    off: np.ndarray
    sigma: np.ndarray
    usual: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray, variance: np.ndarray, mean: np.ndarray, off: np.ndarray, sigma: np.ndarray) -> Rows:
        """With the usual variance, the mean over some ALIKE answers `mean` next to each other, of one order each.

        Labels whose variance is WILD times the median of those are left out: they say nothing, and would hide the rest.
        """
        square = sigma.astype(np.float64) ** 2
        usual, keep = np.empty_like(sigma), np.ones(len(sigma), bool)
        for part in np.array_split(np.lexsort((mean, x[:, ORDER])), max(1, len(mean) // ALIKE)):
            some = square[part]
            keep[part] = some <= WILD * np.median(some[some > 0]) if some.any() else True
            usual[part] = np.mean(some[keep[part]])
        return cls(*(a[keep] for a in (x, variance, off, sigma, usual)))


def fitted(rows: dict[int, Rows], kinds: int, stars: int, seed: int = 0) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Layers of the correction: b total is the mean of off, total^2 that of (off - b total)^2 - sigma^2, as x tells.

    It minimises the mean of w^2 [((off - b total)^2 - sigma^2) / total^2 + ln total^2], w = total^2 / (total^2 +
    usual), the likelihood of N(b total, total^2 + sigma^2) where all labels have the usual error. With a label's own
    sigma^2 in w it would be biased where sigma goes with the truth, as that of a mass does, or with what makes an
    answer wrong, as faintness. `rows` by kind, of that many stars.
    """
    torch.manual_seed(seed)
    which = sorted(rows)
    widths = (rows[which[0]].x.shape[1], *WIDTHS, 2)
    weights = [torch.randn(len(which), n, m) / n**0.5 * (m > 2) for n, m in pairwise(widths)]
    layers = [(w.requires_grad_(), torch.zeros(len(which), 1, w.shape[2], requires_grad=True)) for w in weights]
    optimiser = torch.optim.AdamW([a for pair in layers for a in pair], lr=1e-2, weight_decay=0.02)
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
    h, variance, off, sigma, usual = (torch.from_numpy(np.stack(a)) for a in zip(*parts, strict=True))
    for weight, bias in layers[:-1]:
        h = torch.tanh(h @ weight + bias)
    weight, bias = layers[-1]
    c, b = (MOST * torch.tanh((h @ weight + bias) / MOST)).unbind(-1)
    total = variance.clamp(min=float(LEAST)) * c.exp()
    square = (off - b * total.sqrt()) ** 2
    excess = torch.minimum(square, WILD * (total.detach() + sigma**2)) - sigma**2
    weight = ((total / (total + usual)) ** 2).detach()
    return (weight * (excess / total + total.log()) + DOUBT / stars * (c**2 + b**2)).mean(1).sum()
