"""The generalist against the code of Leung & Bovy (2023), rebuilt from it and run as its authors run it.

python tests/bench/bench_ask.py [--stars 1024] [--repeat 5] [--preset lb23] [--requests 3] [--part inference]

The peer takes stars in batches of 1024, its default, pads every context to 64 tokens, works in float32 (on a processor
it has nothing else), asks for attention weights in the last block of encoder and decoder, decodes one request after the
other and projects the memory anew for each, and takes one request per star in training. It is given the very weights of
xp's network, and both must answer alike before the clock starts: float32 to 1e-5 of the answers' scatter, bfloat16 to
2 %. Contexts are either full or, as in training, 5 to 64 tokens long.

Jobs take turns. With one thread each, ratios are of rates per second of processor time; with all cores (--cores, 2) of
rates per second, against the peer with as many threads or with one, whichever is faster. Rates are the best of
--repeat, ratios medians over the turns. Contexts in training are at most 64 long, 0 to 60 blanked.
"""

import argparse
import os
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from common import compared, goal, turns
from torch import nn

from xptools.cores import ask, ask_training
from xptools.cores.ask_model import PRESETS, Generalist, parameters
from xptools.cores.ask_vocabulary import Vocabulary

SLOTS, BATCH, PEER = 64, 1024, "PyTorch, rebuilt"
ENCODE, REQUEST = 84e6, 16e6  # operations of the published sizes, by their matrix products


class PeerBlock(nn.Module):
    """One block with PyTorch's attention module; `told`: its weights are returned."""

    def __init__(self, ours, told):
        super().__init__()
        dim, heads, self.told = ours.first.normalized_shape[0], ours.attention.heads, told
        drop = ours.drop.p
        self.attention = nn.MultiheadAttention(dim, heads, drop, add_bias_kv=True, batch_first=True)
        self.attention.in_proj_weight.data = ours.attention.inward.weight.data.clone()
        self.attention.in_proj_bias.data = ours.attention.inward.bias.data.clone()
        self.attention.out_proj.load_state_dict(ours.attention.outward.state_dict())
        self.attention.bias_k.data, self.attention.bias_v.data = (
            p.data.clone() for p in (ours.attention.key, ours.attention.value)
        )
        self.wide, self.narrow, self.first, self.second = ours.wide, ours.narrow, ours.first, ours.second
        self.drops = nn.ModuleList(nn.Dropout(drop) for _ in range(2))

    def forward(self, query, memory, unseen):
        out, self.weights = self.attention(query, memory, memory, key_padding_mask=unseen, need_weights=self.told)
        x = self.first(query + self.drops[0](out))
        return self.second(x + self.drops[1](self.narrow(F.gelu(self.wide(x)))))


class Peer(nn.Module):
    """Encoder, decoder and head with the weights of a Generalist."""

    def __init__(self, ours: Generalist):
        super().__init__()
        import copy

        ours = copy.deepcopy(ours)
        self.embedding, self.offset, self.head, self.out = ours.embedding, ours.offset, ours.head, ours.out
        self.encoder, self.decoder = (
            nn.ModuleList(PeerBlock(b, b is blocks[-1]) for b in blocks) for blocks in (ours.encoder, ours.decoder)
        )
        self.drop = nn.Dropout(ours.sizes.dropout)

    def perceive(self, ids, values):
        unseen = ids == 0
        x = F.gelu(F.embedding(ids, self.embedding) * values[..., None] + F.embedding(ids, self.offset))
        for block in self.encoder:
            x = block(x, x, unseen)
        return x, unseen

    def request(self, token, memory, unseen):
        q = F.embedding(token, self.embedding)[:, None, :]
        for block in self.decoder:
            q = block(q, memory, unseen)
        for layer in self.head:
            q = self.drop(F.gelu(layer(q)))
        return self.out["mean"](q), self.out["s"](q)


def padded(z, context):
    """ids and values (N, SLOTS) of stars, as the peer takes them."""
    ids, values = np.zeros((len(z), context), np.int32), np.zeros((len(z), context), np.float32)
    for i, row in enumerate(z):
        known = np.flatnonzero(np.isfinite(row))[:context]
        ids[i, : len(known)], values[i, : len(known)] = known + 1, row[known]
    return torch.from_numpy(ids), torch.from_numpy(values)


def main():
    args = arguments()
    vocabulary = Vocabulary.of([{"name": f"t{i}", "value": f"t{i}"} for i in range(118)])
    args.sizes = replace(PRESETS[args.preset], latents=0, summary=())  # the peer has no such thing
    network = Generalist(118, args.sizes).eval()
    peer = Peer(network).eval()
    print(f"{parameters(network):,} parameters, {args.stars} stars, {args.requests} requests")
    if args.part != "training":
        for name, shortest in (("full", SLOTS), ("5 to 64", 5)):
            inference(name, contexts(args, shortest), vocabulary, network, peer, args)
    if args.part != "inference":
        torch.set_num_threads(1)
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

    def ours(precision, threads):
        engine = ask.Engine(network, vocabulary, **tokens, precision=precision, threads=threads)
        return on_threads(1, lambda: engine.answers(z, requests)[0][..., 0])

    theirs = lambda threads: on_threads(threads, lambda: answered(peer, z, requests))  # noqa: E731
    want = theirs(1)()
    for precision, most in (("float32", 1e-5), ("bfloat16", 0.02)):
        off = np.std(ours(precision, 1)() - want) / want.std()
        print(f"{name} contexts: {precision} differs by {off:.2g} of the answers' scatter")
        assert off < most, off
    flop = ENCODE + args.requests * REQUEST
    runs = {PEER: theirs(1)} | {f"xp {p}": ours(p, 1) for p in ("float32", "bfloat16")}
    timed(f"{name} contexts", {k: (len(z), run) for k, run in runs.items()}, args, flop, ("xp bfloat16",))
    if args.cores > 1:
        each = {f"{PEER}, {n} threads": theirs(n) for n in (1, args.cores)}
        each |= {f"xp {p}": ours(p, args.cores) for p in ("float32", "bfloat16")}
        timed(f"{name} contexts, {args.cores} threads", {k: (len(z), run) for k, run in each.items()}, args, flop,
              ("xp bfloat16",), column=0)  # fmt: skip


def on_threads(threads, run):
    """The same with so many threads of PyTorch's own."""

    def call():
        torch.set_num_threads(threads)
        return run()

    return call


@torch.inference_mode()
def answered(peer, z, requests):
    """Means (N, R) of the peer, batch by batch."""
    out = []
    for start in range(0, len(z), BATCH):
        ids, values = padded(z[start : start + BATCH], SLOTS)
        seen = peer.perceive(ids, values)
        found = [peer.request(torch.full((len(ids),), int(r) + 1, dtype=torch.int32), *seen) for r in requests]
        out.append(np.stack([m[:, 0, 0].numpy() for m, _ in found], 1))
    return np.concatenate(out)


def training(z, vocabulary, network, peer, args):
    sample = ask_training.Sample(z, np.zeros_like(z), np.zeros(118), np.ones(118), np.ones(118, bool))
    jobs = {PEER: (len(z), peer_step(z, peer))}
    plans = {"xp float32": {}, "xp bfloat16": {"precision": "bfloat16"}, "xp, 8 requests": {"requests": 8}}
    for name, plan in plans.items():
        plan = ask_training.Plan(**{"blank": 60, "requests": 1, **plan})
        learner = ask_training.AskLearner(sample, vocabulary, args.sizes, plan, 0)
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
        seen = peer.perceive(*padded(shown, SLOTS))
        mean, s = peer.request(torch.from_numpy(asked + 1), *seen)
        y = torch.from_numpy(z[np.arange(len(z)), asked])
        loss = 0.5 * ((y - mean[:, 0, 0]) ** 2 / s[:, 0, 0].exp() + s[:, 0, 0]).mean()
        loss.backward()
        optimiser.step()

    return step


def timed(what, jobs, args, flop, wanted=(), column=1):
    """Rates of all jobs in turns, against the fastest peer; `wanted`: who has a goal; column 0: per second, 1: core."""
    rates = turns(jobs, args.repeat)
    best = max((k for k in jobs if k.startswith(PEER)), key=lambda k: np.median(rates[k][:, column]))
    bound = {"gemm": flop} if args.preset == "lb23" else None
    for name in (k for k in jobs if not k.startswith(PEER)):
        ratio = np.median(rates[name][:, column] / rates[best][:, column])
        words = ">= 4 x the peer per core" if column else f">= 4 x the peer on {args.cores} cores"
        goals = [goal(words, ratio, low=4)] if name in wanted and bound else []
        compared("ask", f"{what}, {name}", jobs, rates, name, best, bound=bound, goals=goals)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--stars", type=int, default=1024)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--requests", type=int, default=3)
    parser.add_argument("--cores", type=int, default=min(2, len(os.sched_getaffinity(0))))
    parser.add_argument("--part", choices=["all", "inference", "training"], default="all")
    parser.add_argument("--preset", choices=list(PRESETS), default="lb23")
    return parser.parse_args()


if __name__ == "__main__":
    main()
