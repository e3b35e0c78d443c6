"""A training that was stopped goes on: its Fit and its learner's state in one file, written whole or not at all.

The file is safetensors, as a model is, with the settings of the training in it; a checkpoint of other settings or other
data is refused, so that the result is what one uninterrupted run gives.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from xptools import artefact
from xptools.errors import DataError
from xptools.train import Fit

KIND = "checkpoint"


def save(path: str | Path, settings: dict[str, Any], fit: Fit, state: dict[str, np.ndarray]) -> None:
    """Write a checkpoint."""
    told = {k: v for k, v in asdict(fit).items() if k != "arrays"}
    about = artefact.About(KIND, [], [], training=_plain(settings), metrics=_plain(told))
    best = {f"best.{k}": v for k, v in fit.arrays.items()}
    artefact.save(path, about, {**best, **{f"state.{k}": v for k, v in state.items()}})


def load(path: str | Path, settings: dict[str, Any]) -> tuple[Fit, dict[str, np.ndarray]] | None:
    """(the Fit, the learner's state) of a checkpoint, None without a file; DataError if it is of another run."""
    if not Path(path).exists():
        return None
    found = artefact.load(path, KIND)
    told, mine = found.about.training, _plain(settings)
    other = sorted(k for k in told.keys() | mine.keys() if told.get(k) != mine.get(k))
    if other:
        raise DataError(
            f"the checkpoint is of another training: {', '.join(other)} differ. {path}. "
            "TRY: another --checkpoint, or the options it was begun with"
        )
    parts = [{k[len(p) :]: v for k, v in found.arrays.items() if k.startswith(p)} for p in ("best.", "state.")]
    metrics = found.about.metrics
    return Fit(metrics["epoch"], metrics["score"], parts[0], metrics["history"]), parts[1]


def _plain(value: Any) -> Any:
    """What JSON gives back of a value, so that it can be compared."""
    return json.loads(json.dumps(value))
