"""What `xp train vae` reads: spectra without labels, all in memory or kept on disk, some of them held out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from xptools.commands import _vae_input as reading
from xptools.errors import DataError, MissingColumns
from xptools.protocol import RowOp, arguments, spelled

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from xptools.cores.vae import Arrays
    from xptools.cores.vae_training import Sample

ROWS = 8192
FEWEST = 100


@dataclass(frozen=True)
class _Columns(RowOp):
    """The columns that a training reads."""

    correlated: bool = False

    name: ClassVar[str] = "train vae"
    wants: ClassVar = reading.BRIGHTNESS

    @property
    def needs(self) -> tuple[str, ...]:
        return (*reading.VALUES, *reading.ERRORS, "source_id", *(reading.CORRELATIONS if self.correlated else ()))


@dataclass
class Table:
    """Training stars: norms, the held-out ones in memory, the others as `blocks(epoch)`."""

    name: str
    digest: str | None
    widths: tuple[int, ...]
    rows: int
    held_rows: int
    norms: Arrays
    held: Sample
    blocks: Any
    history: list[dict[str, Any]] = field(default_factory=list)


def table(path: str, held: float, seed: int, correlated: bool, stream: bool) -> Table:
    """Read a table once, `stream`: to disk; raises DataError for too few stars."""
    from xptools import io, metadata
    from xptools.commands._plot_input import need_input
    from xptools.commands._vae_stream import Blocks, Scratch
    from xptools.cores.vae_fitting import MOST_HELD, Moments

    need_input(path)
    step, moments, kept, out, scratch = _Columns(correlated), Moments(), [], [], Scratch()
    with io.open_reader(path, None, ROWS) as reader:
        names = _checked(step, reader.schema)
        for batch in reader:
            if batch.num_rows == 0:
                continue
            part = _Part.of(arguments(step, batch, names))
            moments.add(part.relative())
            mine = part.held(held, seed)
            out.append(part.rows(mine))
            if stream:
                out = _fewest(out, MOST_HELD, 2 * MOST_HELD)
                scratch.add(*part.rows(~mine).plain())
            else:
                kept.append(part.rows(~mine))
    if not out:
        raise DataError(f"{reader.name} has no rows. TRY: xp info {path}")
    norms, outside = moments.norms(), _Part.joined(_fewest(out, MOST_HELD))
    if stream:
        count, blocks = scratch.rows, Blocks(scratch, norms, seed)
    else:
        whole = _Part.joined(kept).sample(norms)
        count, blocks = len(whole.x), lambda _epoch: iter((whole,))
    if count < FEWEST or len(outside.flux) < 2:
        raise DataError(f"{count} stars to train on and {len(outside.flux)} to hold out are too few. TRY: more stars")
    told = [{k: r.get(k) for k in ("cmd", "params")} for r in metadata.history(reader.schema)]
    return Table(reader.name.rpartition("/")[2], io.digest(path), outside.widths, count, len(outside.flux), norms,
                 outside.sample(norms), blocks, told)  # fmt: skip


def _checked(step: _Columns, schema: pa.Schema) -> dict[str, str]:
    missing = tuple(n for n in step.needs if spelled(schema, n) is None)
    if missing:
        raise MissingColumns(step.name, missing, tuple(schema.names))
    reading.check(step.name, schema, None)
    return step.reads(schema)


@dataclass
class _Part:
    """Some stars that have a G flux and a coefficient: values and errors (N, K), flux and source_id (N,)."""

    widths: tuple[int, ...]
    values: np.ndarray
    errors: np.ndarray
    flux: np.ndarray
    source_id: np.ndarray
    correlations: np.ndarray | None

    @classmethod
    def of(cls, columns: dict[str, Any]) -> _Part:
        import numpy as np

        widths = tuple(columns[n].shape[1] if columns[n].ndim == 2 else 0 for n in reading.VALUES)
        if 0 in widths:
            raise DataError("a batch has no BP or no RP spectrum at all. TRY: xp info on the input")
        values, errors = (reading.block(columns, n, widths) for n in (reading.VALUES, reading.ERRORS))
        packed = tuple(w * (w - 1) // 2 for w in widths)
        rho = None
        if columns.get(reading.CORRELATIONS[0]) is not None:
            rho = reading.block(columns, reading.CORRELATIONS, packed).reshape(len(values), 2, -1).astype(np.float32)
        flux = reading.g_flux(columns, len(values))
        part = cls(widths, values, errors, flux, np.asarray(columns["source_id"], np.int64), rho)
        return part.rows(np.isfinite(flux) & np.isfinite(values).any(-1) & np.isfinite(errors).any(-1))

    @classmethod
    def joined(cls, parts: list[_Part]) -> _Part:
        import numpy as np

        arrays = ([getattr(p, n) for p in parts] for n in ("values", "errors", "flux", "source_id", "correlations"))
        if len({p.widths for p in parts}) > 1:
            raise DataError("spectra of one table have different numbers of coefficients. TRY: xp info on the input")
        return cls(parts[0].widths, *(None if a[0] is None else np.concatenate(a) for a in arrays))

    def rows(self, some) -> _Part:
        """Some of the stars."""
        rho = None if self.correlations is None else self.correlations[some]
        return _Part(self.widths, self.values[some], self.errors[some], self.flux[some], self.source_id[some], rho)

    def relative(self) -> np.ndarray:
        """Coefficients over the G flux (N, K)."""
        return self.values / self.flux[:, None]

    def plain(self) -> list[np.ndarray]:
        """What a stream keeps of them: coefficients over the G flux, their variances, the correlations (N, .)."""
        import numpy as np

        sigma = self.errors / self.flux[:, None]
        known = np.isfinite(self.values) & np.isfinite(sigma) & (sigma > 0)
        rho = [] if self.correlations is None else [self.correlations.reshape(len(sigma), -1)]
        return [np.where(known, self.relative(), 0), np.where(known, sigma**2, np.inf), *map(np.nan_to_num, rho)]

    def held(self, fraction: float, seed: int) -> np.ndarray:
        """Which stars (N,) are held out: a star's own lot."""
        from xptools.cores import keyed

        return keyed.uniform(self.source_id, seed) < fraction

    def sample(self, norms: Arrays) -> Sample:
        """As the learner takes them."""
        from xptools.cores import vae
        from xptools.cores.vae_training import Sample

        return Sample.of(*vae.standardised(norms, self.values, self.errors, self.flux), self.correlations)


def _fewest(parts: list[_Part], most: int, room: int = 0) -> list[_Part]:
    """The `most` stars whose lots are lowest, whatever their order in the table; all of them while there is room."""
    import numpy as np

    from xptools.cores import keyed

    if sum(len(p.flux) for p in parts) <= max(most, room):
        return parts
    whole = _Part.joined(parts)
    return [whole.rows(np.sort(np.argsort(keyed.mixed(whole.source_id, 1), kind="stable")[:most]))]
