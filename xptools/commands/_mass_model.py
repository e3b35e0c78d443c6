"""The mass models that commands read: once per process and version of the file."""

from functools import lru_cache
from pathlib import Path

from xptools.stamp import stamp

DEFAULT = Path(__file__).parent.parent / "data" / "mass_default.safetensors"


def about(path: Path):
    """What the model says of itself."""
    return _about(path, stamp(path))


def emulator(path: Path):
    """The model, ready for stars."""
    return _emulator(path, stamp(path))


def reader_of(model: str):
    """What a model (default: the one that comes with xp) reads: (M_G0, BP-RP0 (N,), [M/H]) -> masses (N,) [Msun]."""
    import numpy as np

    network = emulator(Path(model or DEFAULT))

    def masses(M_G0, bp_rp0, mh):
        return network(M_G0, bp_rp0, np.full(np.shape(M_G0), mh))[0][0].astype(np.float64)

    return masses


@lru_cache(maxsize=8)
def _about(path: Path, _stamp: int):
    from xptools.artefact import about, demand

    return demand(about(path), "mass", path)


@lru_cache(maxsize=8)
def _emulator(path: Path, _stamp: int):
    from xptools.artefact import load
    from xptools.cores.mass import Emulator

    return Emulator(load(path, "mass").arrays)
