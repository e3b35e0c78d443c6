"""Training stars of `xp train vae --stream`: once read they are in files without a name, epochs come from there.

A star takes 4 (2 K + P) bytes of disk in XP_TMPDIR: K coefficients over the G flux and K variances (inf where unknown),
single precision, and P correlations. To decode a table again for every epoch would cost more than the training.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

from xptools.io.spool import disk, spool

if TYPE_CHECKING:
    import numpy as np

    from xptools.cores.vae import Arrays
    from xptools.cores.vae_training import Sample

PIECE = 1 << 11  # neighbours in the files that are read together
BLOCK = 1 << 16  # stars that are in memory at a time, and as many again that come next


class Scratch:
    """Rows of float32 arrays, one file per array; closed with the last reference."""

    def __init__(self) -> None:
        self.files: list = []
        self.open = ExitStack()
        weakref.finalize(self, self.open.close)
        self.widths: list[int] = []
        self.rows = 0

    def add(self, *arrays: np.ndarray) -> None:
        """Rows (n, width) of each array."""
        import numpy as np

        if not self.files:
            self.files = [self.open.enter_context(spool()) for _ in arrays]
            self.widths = [a.shape[1] for a in arrays]
        with disk():
            for file, array in zip(self.files, arrays, strict=True):
                file.write(np.ascontiguousarray(array, np.float32))
        self.rows += len(arrays[0])

    def read(self, pieces: np.ndarray) -> list[np.ndarray]:
        """The rows of these pieces, of each array."""
        import numpy as np

        lengths = np.minimum((pieces + 1) * PIECE, self.rows) - pieces * PIECE
        ends = np.cumsum(lengths)
        out = [np.empty((ends[-1], width), np.float32) for width in self.widths]
        with disk():
            for file, array in zip(self.files, out, strict=True):
                for piece, start, stop in zip(pieces.tolist(), ends - lengths, ends, strict=True):
                    file.seek(piece * PIECE * array.shape[1] * 4)
                    file.readinto(array[start:stop])
        return out


class Blocks:
    """Samples of at most BLOCK stars, pieces of the files in another order for every epoch, one block ahead."""

    def __init__(self, scratch: Scratch, norms: Arrays, seed: int):
        self.scratch, self.norms, self.seed = scratch, norms, seed

    def __call__(self, epoch: int) -> Iterator[Sample]:
        from concurrent.futures import ThreadPoolExecutor

        import numpy as np

        count = -(-self.scratch.rows // PIECE)
        order = np.random.default_rng([self.seed, epoch, 3]).permutation(count)
        parts = [order[i : i + BLOCK // PIECE] for i in range(0, count, BLOCK // PIECE)]
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(self._sample, parts[0])
            for part in [*parts[1:], None]:
                block = ahead.result()
                if part is not None:
                    ahead = pool.submit(self._sample, part)
                yield block

    def _sample(self, pieces: np.ndarray) -> Sample:
        from xptools.cores.vae_training import Sample

        x, variance, *rho = self.scratch.read(pieces)
        return Sample.relative(self.norms, x, variance, rho[0].reshape(len(x), 2, -1) if rho else None)
