"""The published weights of the scatter variational auto-encoder (PyTorch) as arrays of `cores/vae.py`."""

from __future__ import annotations

import pickle

import numpy as np
import torch

from xptools.errors import DataError, InputError

MOMENTS = {"weight": "gamma", "bias": "beta", "running_mean": "mean", "running_var": "var"}
LINEAR = {"weight": "w", "bias": "b"}


def read(path: str) -> dict[str, np.ndarray]:
    """Arrays of a checkpoint's `model_state_dict`, or of a bare state dict; loaded without running what is in it.

    Keys: encoder.K.0 the Linear and encoder.K.1 the BatchNorm of layer K, mu, log_var, decoder.0 a Linear alone,
    decoder.K.0 and decoder.K.1 as in the encoder, scatter likewise. Raises InputError or DataError.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as fault:
        raise InputError(f"cannot open the weights. {path}: {fault.strerror}. TRY: --import weight.pt") from fault
    except (RuntimeError, pickle.UnpicklingError, LookupError, EOFError, ValueError, TypeError) as fault:
        raise DataError(f"not weights that PyTorch can load safely. {path}. TRY: a file of torch.save") from fault
    state = state.get("model_state_dict", state) if isinstance(state, dict) else {}
    out = {}
    for key, value in state.items():
        name = _name(key.split("."))
        if name and isinstance(value, torch.Tensor):
            out[name] = value.numpy().astype(np.float32).T.copy()
    lacking = [n for n in ("encoder.0.w", "mu.w", "log_var.w", "decoder.0.w", "scatter.0.w") if n not in out]
    if lacking:
        raise DataError(f"no scatter variational auto-encoder: {', '.join(lacking)} missing. {path}. TRY: xp train vae")
    return out


def _name(words: list[str]) -> str | None:
    """Ours of the published key; None for what is not needed (num_batches_tracked)."""
    *where, last = words
    if where[:1] in (["mu"], ["log_var"]):
        return f"{where[0]}.{LINEAR[last]}" if last in LINEAR else None
    if len(where) == 3 and where[2] == "1":
        return f"{where[0]}.{where[1]}.{MOMENTS[last]}" if last in MOMENTS else None
    return f"{where[0]}.{where[1]}.{LINEAR[last]}" if len(where) > 1 and last in LINEAR else None
