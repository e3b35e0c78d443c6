"""The generalist against the code of Leung & Bovy (2023), rebuilt from its description and run as its authors run it.

python tests/bench/bench_ask.py [--stars 1024] [--repeat 5] [--preset lb23] [--requests 3]

The peer takes all stars in one batch, as its users call it, pads every context to 64 tokens, keeps
the attention weights, decodes one request after the other (projecting the memory anew each time), and takes one request
per star in training. It is given the very weights of xp's network, and both must answer alike before the clock starts.
Contexts are either full or, as in training, 5 to 64 tokens long. One thread, interleaved, rates per second of CPU, best
of --repeat; ratios are medians over the interleaved pairs. Contexts in training are at most 64 long, 0 to 60 blanked.
"""

import argparse

import numpy as np
import torch
import torch.nn.functional as F
from common import compared, goal, turns
from torch import nn

from xptools.cores import ask, ask_training
from xptools.cores.ask_model import PRESETS, Generalist, parameters
from xptools.cores.ask_vocabulary import Vocabulary

SLOTS, PEER = 64, "PyTorch, rebuilt"
ENCODE, REQUEST = 84e6, 16e6  # operations of the published sizes, by their matrix products


class PeerBlock(nn.Module):
    """One block with PyTorch's attention module, weights returned."""

    def __init__(self, ours):
        super().__init__()
        dim, heads = ours.first.normalized_shape[0], ours.attention.heads
        self.attention = nn.MultiheadAttention(dim, heads, add_bias_kv=True, batch_first=True)
        self.attention.in_proj_weight.data = ours.attention.inward.weight.data.clone()
        self.attention.in_proj_bias.data = ours.attention.inward.bias.data.clone()
        self.attention.out_proj.load_state_dict(ours.attention.outward.state_dict())
        self.attention.bias_k.data, self.attention.bias_v.data = (
            p.data.clone() for p in (ours.attention.key, ours.attention.value)
        )
        self.wide, self.narrow, self.first, self.second = ours.wide, ours.narrow, ours.first, ours.second

    def forward(self, query, memory, unseen):
        out, self.weights = self.attention(query, memory, memory, key_padding_mask=unseen, need_weights=True)
        x = self.first(query + out)
        return self.second(x + self.narrow(F.gelu(self.wide(x))))


class Peer(nn.Module):
    """Encoder, decoder and head with the weights of a Generalist."""

    def __init__(self, ours: Generalist):
        super().__init__()
        import copy

        ours = copy.deepcopy(ours)
        self.embedding, self.offset, self.head, self.out = ours.embedding, ours.offset, ours.head, ours.out
        self.encoder = nn.ModuleList(PeerBlock(b) for b in ours.encoder)
        self.decoder = nn.ModuleList(PeerBlock(b) for b in ours.decoder)

    def perceive(self, ids, values):
        self.unseen = ids == 0
        x = F.gelu(self.embedding[ids] * values[..., None] + self.offset[ids])
        for block in self.encoder:
            x = block(x, x, self.unseen)
        self.memory = x

    def request(self, token):
        q = self.embedding[token][:, None, :]
        for block in self.decoder:
            q = block(q, self.memory, self.unseen)
        for layer in self.head:
            q = F.gelu(layer(q))
        return self.out["mean"](q), self.out["s"](q)


def padded(z, context):
    """ids and values (N, SLOTS) of stars, as the peer takes them."""
    ids, values = np.zeros((len(z), context), np.int64), np.zeros((len(z), context), np.float32)
    for i, row in enumerate(z):
        known = np.flatnonzero(np.isfinite(row))[:context]
        ids[i, : len(known)], values[i, : len(known)] = known + 1, row[known]
    return torch.from_numpy(ids), torch.from_numpy(values)


def main():
    args = arguments()
    torch.set_num_threads(1)
    vocabulary = Vocabulary.of([{"name": f"t{i}", "value": f"t{i}"} for i in range(118)])
    network = Generalist(118, PRESETS[args.preset]).eval()
    peer = Peer(network).eval()
    print(f"{parameters(network):,} parameters, {args.stars} stars, {args.requests} requests, 1 thread")
    for name, shortest in (("full", SLOTS), ("5 to 64", 5)):
        inference(name, contexts(args, shortest), vocabulary, network, peer, args)
    training(contexts(args, 5), vocabulary, network, peer, args)


def contexts(args, shortest):
    rng = np.random.default_rng(1)
    z = rng.normal(size=(args.stars, 118)).astype(np.float32)
    rank = np.argsort(rng.random(z.shape), 1)
    z[rank >= rng.integers(shortest, SLOTS + 1, args.stars)[:, None]] = np.nan
    return z


def inference(name, z, vocabulary, network, peer, args):
    ones = np.ones(118, np.float32)
    tokens = dict.fromkeys(("scale", "usable", "spread", "high"), ones) | dict.fromkeys(("centre", "low"), 0 * ones)
    requests = np.arange(args.requests) + 100
    engines = {p: ask.Engine(network, vocabulary, **tokens, precision=p) for p in ("float32", "bfloat16")}

    @torch.inference_mode()
    def theirs():
        peer.perceive(*padded(z, SLOTS))
        found = [peer.request(torch.full((len(z),), int(r) + 1)) for r in requests]
        return np.stack([m[:, 0, 0].numpy() for m, _ in found], 1)

    runs = {PEER: theirs} | {f"xp {p}": lambda e=e: e.answers(z, requests)[0][..., 0] for p, e in engines.items()}
    want, got = theirs(), runs["xp float32"]()
    assert np.abs(want - got).max() < 1e-4 * want.std() + 1e-5, np.abs(want - got).max()
    off = np.std(runs["xp bfloat16"]() - want) / want.std()
    print(f"bfloat16 differs by {off:.2%} of the answers' scatter")
    jobs = {k: (len(z), run) for k, run in runs.items()}
    wanted = ("xp bfloat16",) if name == "full" else ()
    timed(f"{name} contexts", jobs, args, ENCODE + args.requests * REQUEST, wanted)


def training(z, vocabulary, network, peer, args):
    sample = ask_training.Sample(z, np.zeros_like(z), np.zeros(118), np.ones(118), np.ones(118, bool))
    jobs = {PEER: (len(z), peer_step(z, peer))}
    plans = {"xp float32": {}, "xp bfloat16": {"precision": "bfloat16"}, "xp, 8 requests": {"requests": 8}}
    for name, plan in plans.items():
        plan = ask_training.Plan(**{"blank": 60, "requests": 1, **plan})
        learner = ask_training.AskLearner(sample, vocabulary, PRESETS[args.preset], plan, 0)
        jobs[name] = (len(z), lambda one=learner: one.step(np.arange(len(z)), 1e-4))
    timed("training step", jobs, args, 3 * (ENCODE + REQUEST))


def peer_step(z, peer):
    optimiser = torch.optim.AdamW(peer.parameters(), lr=1e-4)
    rng = np.random.default_rng(2)
    peer.train()

    def step():
        shown = z.copy()
        for row in shown:  # shuffle what is known, keep 64, blank a tail
            known = rng.permutation(np.flatnonzero(np.isfinite(row)))
            row[known[max(0, min(len(known), SLOTS) - rng.integers(0, 61)) :]] = np.nan
        asked = np.array([rng.choice(np.flatnonzero(np.isfinite(row))) for row in z])
        optimiser.zero_grad()
        peer.perceive(*padded(shown, SLOTS))
        mean, s = peer.request(torch.from_numpy(asked + 1))
        y = torch.from_numpy(z[np.arange(len(z)), asked])
        loss = 0.5 * ((y - mean[:, 0, 0]) ** 2 / s[:, 0, 0].exp() + s[:, 0, 0]).mean()
        loss.backward()
        optimiser.step()

    return step


def timed(what, jobs, args, flop, wanted=()):
    """Rates of all jobs in turns; `wanted`: the jobs that have a goal."""
    rates = turns(jobs, args.repeat)
    bound = {"gemm": flop} if args.preset == "lb23" else None
    for name in list(jobs)[1:]:
        ratio = np.median(rates[name][:, 1] / rates[PEER][:, 1])
        goals = [goal(">= 4 x the peer per core", ratio, low=4)] if name in wanted else []
        compared("ask", f"{what}, {name}", jobs, rates, name, PEER, bound=bound, goals=goals)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--stars", type=int, default=1024)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--requests", type=int, default=3)
    parser.add_argument("--preset", choices=list(PRESETS), default="lb23")
    return parser.parse_args()


if __name__ == "__main__":
    main()
