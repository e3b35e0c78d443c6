"""One trained model = one safetensors file that describes itself.

The tensors are the weights and every constant that goes with them (normalisation, hull, error tables), so that nothing
has to be found beside the file. The one metadata key `xptools` is JSON text with the fields of `About`. Any safetensors
reader opens it; `about` reads only the first kilobytes.
"""

import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from xptools import atomic
from xptools.errors import DataError, InputError, OutputError

FORMAT = 1
KEY = "xptools"


@dataclass(frozen=True)
class About:
    """What a model file says of itself.

    inputs, outputs: [{"name": column, "unit": VOUnit or None}]; shape: layer sizes and the like; training: rows, their
    origin, schedule, seed, versions, command; metrics: held-out scores; domain: input -> [min, max] seen in training.
    """

    kind: str
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    shape: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    domain: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    def keys(self) -> list[str]:
        """With `about[key]`: the description as a mapping, without the format number (the reader's business)."""
        return [f.name for f in fields(self) if f.name != "format"]

    def __getitem__(self, key: str) -> Any:
        return getattr(self, key)


@dataclass(frozen=True)
class Artefact:
    """A model file in memory: its description and its arrays by name."""

    about: About
    arrays: dict[str, np.ndarray]


def writable(path: str | Path) -> None:
    """Raises OutputError if `save` could not write there: asked before an hour of training, not after."""
    folder = Path(path).parent
    if not folder.is_dir() or not os.access(path if Path(path).exists() else folder, os.W_OK) or Path(path).is_dir():
        raise OutputError(f"cannot write the model. {path}. TRY: -o FILE in a folder that exists")


def save(path: str | Path, about: About, arrays: dict[str, np.ndarray]) -> None:
    """Write a model file: whole or not at all; a device or a pipe is written in place."""
    from safetensors.numpy import save as to_bytes  # only training writes, and it is slow to import

    text = json.dumps(asdict(about), sort_keys=True, allow_nan=False)
    raw = to_bytes({k: np.ascontiguousarray(v) for k, v in sorted(arrays.items())}, metadata={KEY: text})
    write(Path(path), raw)


def write(path: Path, raw: bytes) -> None:
    """These bytes as a model file: whole or not at all; a device or a pipe is written in place."""
    atomic.write(path, raw, "the model")


def about(path: str | Path) -> About:
    """The description of a model file, from its header alone."""
    path = Path(path)
    try:
        with path.open("rb") as source:
            size = int.from_bytes(source.read(8), "little")
            whole = os.fstat(source.fileno()).st_size
            if not 2 <= size <= whole - 8:
                raise _not_a_model(path)
            header = json.loads(source.read(size))
    except OSError as error:
        raise InputError(f"cannot open the model. {path}: {error.strerror}. TRY: xp train --help") from error
    except ValueError as error:
        raise _not_a_model(path) from error
    if not isinstance(header, dict):
        raise _not_a_model(path)
    try:
        end = max((t["data_offsets"][1] for k, t in header.items() if k != "__metadata__"), default=0)
        if whole < 8 + size + end:
            words = f"the model file is cut short: {whole} of {8 + size + end} bytes. {path}"
            raise DataError(f"{words}. TRY: copy it again")
        return _told(header.get("__metadata__", {}).get(KEY), path)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise DataError(f"the model file is damaged ({type(error).__name__}). {path}. TRY: copy it again") from error


def _told(text: str | None, path: Path) -> About:
    if text is None:
        raise DataError(f"a safetensors file, but not written by xp: no '{KEY}' in its metadata. {path}. TRY: xp train")
    told = json.loads(text)
    if told.get("format") != FORMAT:
        raise DataError(
            f"the model has format {told.get('format')}, this xp reads {FORMAT}. {path}. TRY: train it again"
        )
    return About(**told)


def load(path: str | Path, kind: str) -> Artefact:
    """Description and arrays of a model file of this kind; another kind is refused by name."""
    told = demand(about(path), kind, path)
    from safetensors import SafetensorError
    from safetensors.numpy import load_file  # heavy, and `about` must stay quick

    try:
        return Artefact(told, load_file(path))
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"the model file is damaged ({error}). {path}. TRY: copy it again") from error


def demand(told: About, kind: str, path: str | Path) -> About:
    """The description itself if it is of this kind; otherwise a DataError that names both kinds."""
    if told.kind != kind:
        raise DataError(f"this is a model for xp {told.kind}, not for xp {kind}. {path}. TRY: xp train {kind}")
    return told


def _not_a_model(path: Path) -> DataError:
    return DataError(f"not a model file (safetensors). {path}. TRY: xp train makes one")


def versions(*packages: str) -> dict[str, str]:
    """The installed versions that a model was trained with."""
    from importlib.metadata import version

    return {name: version(name) for name in packages}


def today() -> str:
    """Today (UTC), or the day of SOURCE_DATE_EPOCH, so that a training can be repeated to the byte."""
    from datetime import UTC, datetime

    stamp = os.environ.get("SOURCE_DATE_EPOCH")
    now = datetime.fromtimestamp(int(stamp), UTC) if stamp else datetime.now(UTC)
    return now.date().isoformat()
