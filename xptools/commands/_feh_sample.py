"""What `xp train feh` reads: spectra with reference labels, cut as asked, as one sample in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xptools.commands import _feh_input
from xptools.commands._spectra_input import GRID, wavelengths
from xptools.commands._training import Cuts, Origin, array, column, read
from xptools.errors import DataError
from xptools.protocol import numeric, spelled

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    import pyarrow as pa

    from xptools.cores.feh_training import Sample

SPELLINGS = {"teff": ("teff",), "feh": ("feh", "fe_h"), "mg": ("mg0",)}
PHOTOMETRY = ("phot_g_mean_mag", "parallax")
ROWS = 8192


@dataclass(frozen=True)
class Table:
    """A training sample, and where it came from."""

    sample: Sample
    wavelength: np.ndarray
    source_id: np.ndarray
    names: dict[str, str]
    origin: Origin


def table(
    path: str, names: dict[str, str], quality: str | None, where: str | None, curve_unit: str, exact: bool,
    say: Callable,
) -> Table:  # fmt: skip
    """Read a whole table; rows without labels, parallax or spectrum are left out, and counted."""
    import numpy as np

    from xptools.cores.feh_training import Sample

    plan, parts, origin = read(path, "feh", ROWS, lambda s: _Columns(s, names, quality, where, curve_unit), say)
    labels, source_id = (np.concatenate([p[key] for p in parts]) for key in ("labels", "source_id"))
    from xptools.cores.feh import Spectra

    stars = [p["stars"] for p in parts]
    whole = Spectra(*(None if c[0] is None else np.concatenate(c) for c in zip(*stars, strict=True)))
    return Table(Sample(labels, whole, exact), plan.wavelength, source_id, plan.labels, origin)


def _unlabelled(absent: list[str]) -> str:
    """What is said of a table without these reference labels."""
    names = ", ".join(SPELLINGS[k][0] for k in absent)
    words = ", ".join(f"--{k} NAME" for k in absent)
    more = "; xp deredden appends mg0" if "mg" in absent else ""
    return f"no reference labels to train on: {names} missing. TRY: {words}, or xp join --with a table of labels{more}"


class _Columns:
    """Which columns of a table are used, and what a batch of it gives."""

    def __init__(
        self, schema: pa.Schema, names: dict[str, str], quality: str | None, where: str | None, curve_unit: str
    ):
        import numpy as np

        self.schema, self.curve_unit = schema, curve_unit
        self.labels = {k: self._label(k, names[k]) for k in SPELLINGS}
        self.spectrum = _feh_input.reads("train feh", schema, ("parallax", "parallax_error"))
        if absent := [k for k, v in self.labels.items() if v is None]:
            raise DataError(_unlabelled(absent))
        self.wavelength = np.array(self._grid())
        self.cuts = Cuts(schema, "feh", quality, where)

    def _label(self, key: str, name: str) -> str | None:
        if name:
            return column(self.schema, "feh", name)
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

    def part(self, batch: pa.RecordBatch) -> dict[str, Any]:
        """Labels, spectra and identifiers of the rows that are used, and how many were left after each cut."""
        import numpy as np

        keep, flow = self.cuts.keep(batch)
        labels = np.stack([self._values(batch, k) for k in SPELLINGS], -1)[:, [0, 2, 1]].astype(np.float64)
        keep = keep & np.isfinite(labels).all(-1)
        flow.append(("with all labels", int(keep.sum())))
        columns = {n: numeric(n, batch, s)[keep] for n, s in self.spectrum.items()}
        stars, _ = _feh_input.spectra(self.wavelength, columns, self.curve_unit)
        from xptools.cores.feh import usable

        fine = usable(stars.flux * stars.gain(), stars)
        flow.append(("with spectrum and parallax", int(fine.sum())))
        return {"labels": labels[keep][fine], "stars": stars.part(fine), "flow": flow,
                "source_id": self._identifiers(batch)[keep][fine]}  # fmt: skip

    def _values(self, batch, key):
        import numpy as np

        if " " not in self.labels[key]:
            return array(batch, self.labels[key])
        G, parallax = (array(batch, spelled(self.schema, n)).astype(np.float64) for n in PHOTOMETRY)
        return G + 5 * np.log10(np.where(parallax > 0, parallax, np.nan) / 100)

    def _identifiers(self, batch):
        import numpy as np

        return np.asarray(array(batch, column(self.schema, "feh", "source_id")), np.int64)
