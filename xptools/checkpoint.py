"""What a training that is killed goes on from: one small file beside its output, replaced between epochs.

    OUTPUT.checkpoint    one training; OUTPUT.NAME.checkpoint where a command has several

A file is an .npz: the learner's arrays, the best weights so far, the records of all epochs, and a key, which is
everything that the result depends on (input, options, seed, version). A checkpoint with another key is refused: it is
another training's. Files are written whole or not at all, and removed when the model is there.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from xptools import artefact
from xptools.errors import DataError
from xptools.train import Fit

if TYPE_CHECKING:
    from xptools.train import Learner

SECONDS = 1.0  # between two writings; one takes milliseconds


def digest(*arrays: np.ndarray | None) -> str:
    """SHA-256 of the contents, None for none: by it a training knows its sample again."""
    total = hashlib.sha256()
    for a in arrays:
        total.update(b"-" if a is None else np.ascontiguousarray(a).view(np.uint8).data)
    return total.hexdigest()


class Checkpoints:
    """The checkpoints of one command, beside its output; `say` tells when the training of a `model` goes on."""

    def __init__(self, output: str, key: dict[str, Any], model: str, say: Callable[[str], None]):
        path = Path(output)
        self.path = None if path.exists() and not path.is_file() else path  # a device has no place beside it
        self.key = json.dumps({**key, "model": model, **artefact.versions("xptools")}, sort_keys=True)
        self.say, self.slots = lambda text: say(f"xp train {model}: {text}"), []

    def slot(self, name: str = "") -> Slot | None:
        """The place of one training's state."""
        if self.path is None:
            return None
        part = f".{name}" if name else ""
        slot = Slot(self.path.with_name(f"{self.path.name}{part}.checkpoint"), self.key, self.say)
        self.slots.append(slot)
        return slot

    def clear(self) -> None:
        """Remove all files: the model is written."""
        for slot in self.slots:
            slot.path.unlink(missing_ok=True)


class Slot:
    """One checkpoint file."""

    def __init__(self, path: Path, key: str, say: Callable[[str], None]):
        self.path, self.key, self.say, self.written = path, key, say, 0.0

    def keep(self, learner: Learner, fit: Fit, now: bool = False) -> None:
        """Write the state after an epoch, at most once a second unless `now`."""
        if not now and time.monotonic() - self.written < SECONDS:
            return
        told = {"key": self.key, "epoch": fit.epoch, "score": fit.score, "history": fit.history,
                "scores": fit.scores, "waited": fit.waited}  # fmt: skip
        buffer = io.BytesIO()
        best = {f"best.{k}": v for k, v in fit.arrays.items()}
        np.savez(buffer, told=np.array(json.dumps(told)), **{f"now.{k}": v for k, v in learner.kept().items()}, **best)
        artefact.write(self.path, buffer.getvalue())
        self.written = time.monotonic()

    def restored(self, learner: Learner) -> Fit:
        """The state that stands in the file, learner included; a new one without a file."""
        if not self.path.exists():
            return Fit()
        try:
            with np.load(self.path) as file:
                arrays = dict(file)
            told = json.loads(str(arrays.pop("told")))
        except (OSError, ValueError, KeyError, BadZipFile) as fault:
            raise DataError(f"not a checkpoint of xp. {self.path}. TRY: remove it") from fault
        if told.pop("key") != self.key:
            raise DataError(
                f"the checkpoint is of a training with other input or options. {self.path}. TRY: the same command "
                "again to go on, or remove the file to begin anew"
            )
        learner.restore({k[4:]: v for k, v in arrays.items() if k.startswith("now.")})
        best = {k[5:]: v for k, v in arrays.items() if k.startswith("best.")}
        self.say(f"goes on after epoch {len(told['history'])} from {self.path}")
        return Fit(arrays=best, **told)
