"""Weights to and from zuko, whose GMM(4, 1, components=K, hidden_features=(32, 32)) is the same function.

    state = torch.load("zuko.pt", weights_only=True)
    params = from_zuko({name: tensor.numpy() for name, tensor in state.items()}, K)
"""

from __future__ import annotations

import numpy as np

from xptools.cores.mixture import PER_COMPONENT, depth
from xptools.errors import DataError


def to_zuko(params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A state dict for zuko's GMM: linear layers have even numbers there, activations odd ones."""
    found = {}
    for name, values in params.items():
        if name.startswith("net."):
            _, k, what = name.split(".")
            found[f"hyper.{2 * int(k)}.{what}"] = values
    return found


def from_zuko(state: dict[str, np.ndarray], components: int) -> dict[str, np.ndarray]:
    """Parameters of `mixture` from zuko's state dict; DataError if it is no full-covariance GMM of this size."""
    found = {}
    for name, values in state.items():
        if name.startswith("hyper.") and name.count(".") == 2:
            _, k, what = name.split(".")
            found[f"net.{int(k) // 2}.{what}"] = np.asarray(values, np.float32)
    ends = found and found["net.0.weight"].shape[1], found and len(found[f"net.{depth(found) - 1}.bias"])
    if ends != (1, PER_COMPONENT * components):
        raise DataError(
            f"not the weights of a conditional mixture of {components} in 4 features: {', '.join(sorted(state))}. "
            "TRY: the state_dict of zuko.mixtures.GMM(4, 1, components=K)"
        )
    return found
