"""What `xp train feh` reads: spectra with reference labels, cut as asked, as one sample in memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from xptools.commands import _feh_input
from xptools.commands._spectra_input import GRID, check_width, wavelengths
from xptools.errors import DataError, MissingColumns, UsageError
from xptools.protocol import spelled

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import pyarrow as pa

    from xptools.cores.feh_training import Sample

SPELLINGS = {"teff": ("teff",), "feh": ("feh", "fe_h"), "mg": ("mg0",)}
PHOTOMETRY = ("phot_g_mean_mag", "parallax")
ROWS = 8192


@dataclass
class Table:
    """A training sample, and where it came from."""

    sample: Sample
    wavelength: np.ndarray
    source_id: np.ndarray
    name: str
    digest: str | None
    names: dict[str, str]
    quality: str | None
    where: str | None
    flow: list[tuple[str, int]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)


def table(
    path: str, names: dict[str, str], quality: str | None, where: str | None, curve_unit: str, exact: bool,
    say: Callable,
) -> Table:  # fmt: skip
    """Read a whole table; rows without labels, parallax or spectrum are left out, and counted."""
    import numpy as np

    from xptools import io, metadata
    from xptools.commands._plot_input import need_input
    from xptools.cores.feh_training import Sample

    need_input(path)
    with io.open_reader(path, None, ROWS) as reader:
        plan = _Columns(reader.schema, names, quality, where)
        parts = [p for p in (plan.part(batch, curve_unit) for batch in reader if batch.num_rows)]
    if not parts:
        raise DataError(f"{reader.name} has no rows. TRY: xp info {path}")
    flow = [(text, sum(p["flow"][i][1] for p in parts)) for i, (text, _) in enumerate(parts[0]["flow"])]
    for text, left in flow:
        say(f"xp train feh: {left:>9,} rows left: {text}")
    labels, source_id = (np.concatenate([p[key] for p in parts]) for key in ("labels", "source_id"))
    from xptools.cores.feh import Spectra

    stars = [p["stars"] for p in parts]
    whole = Spectra(*(None if c[0] is None else np.concatenate(c) for c in zip(*stars, strict=True)))
    return Table(
        Sample(labels, whole, exact), plan.wavelength, source_id, reader.name.rpartition("/")[2], io.digest(path),
        plan.labels, quality, where, flow,
        [{k: r.get(k) for k in ("cmd", "params")} for r in metadata.history(reader.schema)],
    )  # fmt: skip


class _Columns:
    """Which columns of a table are used, and what a batch of it gives."""

    def __init__(self, schema: pa.Schema, names: dict[str, str], quality: str | None, where: str | None):
        import numpy as np

        self.schema, self.quality = schema, quality
        needs, wants = _feh_input.needed(schema, ("parallax", "parallax_error"))
        missing = [n for n in needs if not spelled(schema, n)]
        self.labels = {k: self._label(k, names[k]) for k in SPELLINGS}
        missing += [f"{SPELLINGS[k][0]}" for k, v in self.labels.items() if v is None]
        if missing:
            raise MissingColumns("train feh", tuple(missing), tuple(schema.names))
        check_width(schema, {n: spelled(schema, n) for n in needs})
        self.wavelength = np.array(self._grid())
        self.spectrum = {n: s for n in (*needs, *wants) if (s := spelled(schema, n))}
        self.where = _condition(where, schema)
        self.cut = self._quality()

    def _label(self, key: str, name: str) -> str | None:
        if name:
            found = spelled(self.schema, name)
            if found is None:
                raise MissingColumns("train feh", (name,), tuple(self.schema.names))
            return found
        found = next((s for n in SPELLINGS[key] if (s := spelled(self.schema, n))), None)
        if found is None and key == "mg" and all(spelled(self.schema, n) for n in PHOTOMETRY):
            return "phot_g_mean_mag + 5 log10(parallax / 100)"
        return found

    def _grid(self) -> tuple[float, ...]:
        import json

        name = _feh_input.stem(self.schema)
        if name is None:
            return wavelengths(GRID)
        field = self.schema.field(spelled(self.schema, name))
        told = (field.metadata or {}).get(b"xp.grid") or (self.schema.metadata or {}).get(b"xp.grid")
        if told is None:
            raise DataError(f"the wavelengths of column {name} are not told. TRY: xp calibrate, which writes xp.grid")
        return tuple(json.loads(told)["wavelength"])

    def _quality(self) -> dict[str, str]:
        if self.quality is None:
            return {}
        from xptools.cores import feh_quality

        found = {n: s for n in feh_quality.wanted(self.quality) if (s := spelled(self.schema, n))}
        if lacking := feh_quality.lacking(self.quality, set(found)):
            raise MissingColumns(f"train feh --quality {self.quality}", lacking, tuple(self.schema.names))
        return found

    def part(self, batch: pa.RecordBatch, curve_unit: str) -> dict[str, Any]:
        """Labels, spectra and identifiers of the rows that are used, and how many were left after each cut."""
        import numpy as np

        from xptools.cores import feh_quality

        keep, flow = np.ones(batch.num_rows, bool), [("in the table", batch.num_rows)]
        if self.quality:
            keep, steps = feh_quality.select(self.quality, {n: _array(batch, s) for n, s in self.cut.items()})
            flow += steps
        if self.where is not None:
            expression, names = self.where
            passes, _ = expression.condition({n: _array(batch, s) for n, s in names.items()})
            keep = keep & passes
            flow.append(("--where", int(keep.sum())))
        labels = np.stack([self._values(batch, k) for k in SPELLINGS], -1)[:, [0, 2, 1]].astype(np.float64)
        keep = keep & np.isfinite(labels).all(-1)
        flow.append(("with all labels", int(keep.sum())))
        columns = {n: _array(batch, s)[keep] for n, s in self.spectrum.items()}
        stars, _ = _feh_input.spectra(self.wavelength, columns, curve_unit)
        from xptools.cores.feh import usable

        fine = usable(stars.flux * stars.gain(), stars)
        flow.append(("with spectrum and parallax", int(fine.sum())))
        return {"labels": labels[keep][fine], "stars": stars.part(fine), "flow": flow,
                "source_id": self._identifiers(batch)[keep][fine]}  # fmt: skip

    def _values(self, batch, key):
        import numpy as np

        if " " not in self.labels[key]:
            return _array(batch, self.labels[key])
        G, parallax = (_array(batch, spelled(self.schema, n)).astype(np.float64) for n in PHOTOMETRY)
        return G + 5 * np.log10(np.where(parallax > 0, parallax, np.nan) / 100)

    def _identifiers(self, batch):
        import numpy as np

        name = spelled(self.schema, "source_id")
        if name is None:
            raise MissingColumns("train feh", ("source_id",), tuple(self.schema.names))
        return np.asarray(_array(batch, name), np.int64)


def _array(batch, name):
    from xptools.protocol import to_numpy

    return to_numpy(batch.column(batch.schema.get_field_index(name)), name)


def _condition(text: str | None, schema):
    if text is None:
        return None
    from xptools.commands._plot_input import found
    from xptools.cores.expression import ExpressionError, parse

    try:
        expression = parse(text)
    except ExpressionError as fault:
        raise UsageError(f"{fault}. TRY: xp select --help") from None
    return expression, found(schema, expression.columns)
