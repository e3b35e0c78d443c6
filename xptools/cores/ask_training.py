"""Training of the generalist: random subsets of what is known of a star are the context, known numbers the requests.

    L = mean of 1/2 [(y - m)^2 / (e^s + sigma^2) + ln(e^s + sigma^2)],      sigma the error of the label, 0 if unknown

Leung & Bovy (2023) shuffle the known tokens of a star, keep at most `context` and blank a random tail of 0 ... `blank`;
one request, uniform among the known. Beside that: several requests per star, which one encoding serves; with
`structured` that fraction of the stars gets whole groups of tokens (a band's coefficients, a label) or none of them, as
a user has them; with `balanced` a request goes to a group first, so that 110 coefficients do not crowd out the labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from xptools.cores.ask_latent import STARS, fitted
from xptools.cores.ask_model import SHOWN, Generalist, Sizes, log_likelihood
from xptools.cores.ask_vocabulary import Vocabulary

WARM = 100  # steps until the rate is reached
SCORED = 4096  # held-out stars that a score is taken from
FEWEST = 50  # stars that know a token, below which it is not trained
MOST = 200_000  # rows that standards are taken from
RARE, PART = 1000, 8192  # known numbers of a part of the rows, below which all rows are looked at; of so many at once
CUT, MOST_ORDERS = 0.1, 30  # share of the contexts with low orders only, with high ones; where they may be cut
BANDS = 2.0  # weight of a group of coefficients among the requests, a single number has 1


@dataclass(frozen=True)
class Plan:
    """How contexts and requests are drawn."""

    blank: int = 60
    requests: int = 1
    structured: float = 0.0
    balanced: bool = False
    precision: str = "float32"
    compiled: bool = False
    parts: int = 4  # groups of like length that a batch is run in


PLANS = {"lb23": Plan(parts=8), "small": Plan(64, 8, 0.85, True), "tiny": Plan(64, 6, 0.7, True, parts=1)}


class Sample(NamedTuple):
    """Values and errors (N, V), perhaps on disk, with what standardises them and who is usable (V,)."""

    values: np.ndarray
    errors: np.ndarray
    centre: np.ndarray
    scale: np.ndarray
    usable: np.ndarray

    def at(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """z and sigma (n, V) float32 of these rows, sigma 0 where unknown."""
        rows = np.asarray(rows)
        z = np.where(self.usable, (self.values[rows] - self.centre) / self.scale, np.nan)
        return z.astype(np.float32), np.nan_to_num(self.errors[rows] / self.scale, nan=0.0).astype(np.float32)


def standards(values: np.ndarray, most: int = MOST) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Median, 1.4826 MAD and whether enough stars know it, of each token (V,); from `most` rows spread evenly, of a
    token that few of those know from all rows.

    Where more than half of the values are one, the standard deviation scales; where all are, the token is not usable.
    """
    step = max(1, -(-len(values) // most))
    some = np.asarray(values[::step])
    known = np.isfinite(some)
    rare = _known(values, np.flatnonzero(known.sum(0) < RARE)) if step > 1 else {}
    centre, scale = np.zeros(some.shape[1]), np.zeros(some.shape[1])
    for k in range(some.shape[1]):
        v = rare.get(k, some[known[:, k], k]).astype(np.float64)
        if len(v) >= min(FEWEST, max(2, len(some) // 4)):
            centre[k], scale[k] = np.median(v), 1.4826 * np.median(np.abs(v - np.median(v)))
            scale[k] = scale[k] or np.std(v) * (v.min() < v.max())
    return centre, np.where(scale > 0, scale, 1.0), scale > 0


def _known(values: np.ndarray, columns: np.ndarray) -> dict[int, np.ndarray]:
    """The known numbers of some columns (few are), by column."""
    found: dict[int, list] = {int(k): [np.empty(0, values.dtype)] for k in columns}
    for start in range(0, len(values) if found else 0, PART):
        part = np.asarray(values[start : start + PART])
        for k, numbers in found.items():
            numbers.append(part[np.isfinite(part[:, k]), k])
    return {k: np.concatenate(numbers) for k, numbers in found.items()}


class Drawn(NamedTuple):
    """Contexts and requests of a batch: ids, values (B, L), count (B,), requests, y, sigma, who is real (B, R)."""

    ids: np.ndarray
    values: np.ndarray
    count: np.ndarray
    requests: np.ndarray
    y: np.ndarray
    sigma: np.ndarray
    real: np.ndarray

    def part(self, rows: np.ndarray) -> Drawn:
        """Some rows, cut to the longest of their contexts."""
        longest = max(int(self.count[rows].max()), 1)
        ids, values, *rest = (a[rows] for a in self)
        return Drawn(ids[:, :longest], values[:, :longest], *rest)


class Sampler:
    """Draws contexts and requests for one vocabulary."""

    def __init__(self, vocabulary: Vocabulary, context: int, plan: Plan, usable: np.ndarray):
        names = [e.group or e.name for e in vocabulary.entries]
        self.context, self.plan = context, plan
        groups = sorted(set(names))
        self.group = np.array([groups.index(names[k]) for k in vocabulary.entry_of])
        labels = {n for n, e in zip(names, vocabulary.entries, strict=True) if e.ask}
        self.label = np.array([g in labels for g in groups])
        bands = {n for n, e in zip(names, vocabulary.entries, strict=True) if e.width}
        self.wide = np.array([float(g in bands) for g in groups])
        size = np.bincount(self.group[usable], minlength=len(groups))[self.group]
        wide = np.array([BANDS if e.width else 1.0 for e in vocabulary.entries])[vocabulary.entry_of]
        self.order = np.concatenate([np.arange(e.width) if e.width else [-1] for e in vocabulary.entries])
        self.weight = np.where(usable, wide / np.maximum(size, 1) if plan.balanced else 1.0, 0.0)

    def draw(self, rng: np.random.Generator, z: np.ndarray, sigma: np.ndarray) -> Drawn:
        """Contexts and requests of stars z (B, V)."""
        known, (stars, _) = np.isfinite(z), z.shape
        allowed = known & self._groups(rng, stars)[:, self.group] & (self._orders(rng, stars) | ~self.whole[:, None])
        order = np.argsort(np.where(allowed, rng.random(z.shape), 2.0), axis=1)[:, : self.context]
        count = np.minimum(allowed.sum(1), self.context)
        most = np.minimum(self.plan.blank, count) if self.plan.balanced else np.full(stars, self.plan.blank)
        blank = rng.integers(0, most + 1)
        count = np.where(self.whole, count, np.maximum(count - blank, 0))
        seen = np.arange(order.shape[1]) < count[:, None]
        race = -np.log(1.0 - rng.random(z.shape)) / np.where(known & (self.weight > 0), self.weight, 1e-30)
        asked = np.argsort(race, axis=1)[:, : self.plan.requests]
        take = lambda a, i: np.take_along_axis(a, i, 1)  # noqa: E731
        ids, error = np.where(seen, order + 1, 0), take(sigma, asked)
        if self.plan.balanced:  # what is shown comes back easily: its loss must not outweigh the others'
            own = (ids[:, None] == asked[..., None] + 1).any(2)
            error = np.where(own, np.maximum(error, np.float32(SHOWN)), error)
        return Drawn(
            ids, np.where(seen, np.nan_to_num(take(z, order)), 0.0), count, asked + 1,
            np.nan_to_num(take(z, asked)), error, take(known & (self.weight > 0), asked),
        )  # fmt: skip

    def shown(self, rng: np.random.Generator, z: np.ndarray) -> np.ndarray:
        """A context of each star as `draw` makes them, as which tokens (B, V) are in it."""
        ids = self.draw(rng, z, np.zeros_like(z)).ids
        out = np.zeros((len(z), z.shape[1] + 1), bool)
        out[np.arange(len(z))[:, None], ids] = True
        return out[:, 1:]

    def _groups(self, rng: np.random.Generator, stars: int) -> np.ndarray:
        """Which groups (B, G) a star may show; all of them unless its context is a structured one."""
        self.whole = rng.random(stars) < self.plan.structured
        share, coin = rng.random((stars, 2)), rng.random((stars, 2))
        label, other = coin[:, :1], coin[:, 1:]
        # labels: in half of the stars none; inputs: in a third all of them, in a quarter the spectra alone
        inputs = np.where(other < 0.35, 1.0, np.where(other < 0.6, self.wide, share[:, 1:]))
        kept = np.where(self.label, np.where(label < 0.5, 0.0, share[:, :1]), inputs)
        return (rng.random(kept.shape) < kept) | ~self.whole[:, None]

    def _orders(self, rng: np.random.Generator, stars: int) -> np.ndarray:
        """Which orders (B, V) a structured context may show: in CUT of them no high ones, in as many no low ones."""
        coin, edge = rng.random((stars, 1)), rng.integers(1, MOST_ORDERS, (stars, 1))
        keep = np.where(coin < CUT, self.order < edge, self.order >= edge)
        return keep | (coin >= 2 * CUT) | (self.order < 0)


class AskLearner:
    """The network in training (train.Learner)."""

    def __init__(
        self, sample: Sample, vocabulary: Vocabulary, sizes: Sizes, plan: Plan, seed: int, device: str = "cpu"
    ):
        torch.manual_seed(seed)
        self.sample, self.plan, self.seed, self.device = sample, plan, seed, device
        self.network = Generalist(len(vocabulary.tokens), sizes).to(device)
        self.run = torch.compile(self.network) if plan.compiled else self.network
        self.sampler = Sampler(vocabulary, sizes.context, plan, sample.usable)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=1e-3, fused=True)
        self.count = 0

    def prepare(self, rows: np.ndarray) -> None:
        """Find the linear model of a network that has one, from these rows."""
        if self.network.summary:
            some = rows[:: max(1, -(-len(rows) // STARS))]
            self.network.summary.latent.set(*fitted(*self.sample.at(some), self.network.sizes.latents))

    def step(self, rows: np.ndarray, rate: float) -> float:
        """One step; contexts, requests and dropout follow from (seed, number of the step)."""
        torch.manual_seed((self.seed << 32) + self.count)
        rng = np.random.default_rng([self.seed, 1, self.count])
        self.count += 1
        for group in self.optimiser.param_groups:
            group["lr"] = rate * min(1.0, self.count / WARM)
        self.network.train()
        self.optimiser.zero_grad(set_to_none=True)
        drawn = self.sampler.draw(rng, *self.sample.at(rows))
        total = max(int(drawn.real.sum()), 1)
        loss = 0.0
        for part in self._parts(drawn):
            piece = self._loss(part) / total
            piece.backward()
            loss += piece.item()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        return loss

    def _parts(self, drawn: Drawn) -> list[Drawn]:
        """Stars with contexts of like length together: little padding is worked on."""
        order = np.argsort(drawn.count, kind="stable")
        parts = 1 if self.plan.compiled else self.plan.parts
        return [drawn.part(rows) for rows in np.array_split(order, min(parts, len(order)))]

    def _loss(self, part: Drawn) -> torch.Tensor:
        """Sum of the negative log-likelihoods."""
        tensors = (torch.from_numpy(np.ascontiguousarray(a)).to(self.device) for a in part)
        ids, values, count, asked, y, sigma, real = tensors
        seen = torch.arange(ids.shape[1], device=self.device) < count[:, None]
        kind = torch.device(self.device).type
        with torch.autocast(kind, torch.bfloat16, enabled=self.plan.precision == "bfloat16"):
            answer = self.run(ids, values.float(), asked, seen)
        return -(log_likelihood(answer, y.float(), sigma.float()) * real).sum()

    @torch.no_grad()
    def score(self, rows: np.ndarray) -> float:
        """Mean negative log-likelihood of requests to at most SCORED held-out stars, of the same contexts each time."""
        self.network.eval()
        rows = rows[:: max(1, -(-len(rows) // SCORED))]
        total, asked = 0.0, 0
        for start in range(0, len(rows), 512):
            rng = np.random.default_rng([self.seed, 2, start])
            drawn = self.sampler.draw(rng, *self.sample.at(rows[start : start + 512]))
            total += sum(self._loss(part).item() for part in self._parts(drawn))
            asked += int(drawn.real.sum())
        return total / max(asked, 1)

    def arrays(self) -> dict[str, np.ndarray]:
        """A copy of the weights."""
        return {f"net.{k}": v.detach().cpu().numpy().copy() for k, v in self.network.state_dict().items()}

    def kept(self) -> dict[str, np.ndarray]:
        """Weights, moments and the number of steps."""
        out = {**self.arrays(), "count": np.array(self.count)}
        for name, p in self.network.named_parameters():
            for key, value in self.optimiser.state.get(p, {}).items():
                out[f"{key}.{name}"] = value.detach().cpu().numpy().copy()
        return out

    def restore(self, kept: dict[str, np.ndarray]) -> None:
        """Back to what `kept` gave."""
        self.count = int(kept["count"])
        self.restore_weights(kept)
        for name, p in self.network.named_parameters():
            keys = [k for k in ("step", "exp_avg", "exp_avg_sq") if f"{k}.{name}" in kept]
            self.optimiser.state[p] = {k: torch.from_numpy(kept[f"{k}.{name}"].copy()).to(self.device) for k in keys}

    def restore_weights(self, kept: dict[str, np.ndarray]) -> None:
        """The weights of `arrays` or `kept`."""
        weights = {k[4:]: torch.from_numpy(v) for k, v in kept.items() if k.startswith("net.")}
        self.network.load_state_dict(weights)
