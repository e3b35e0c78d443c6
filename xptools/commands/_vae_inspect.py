"""`xp vae --inspect`: a Fold that ranks latents by what they know of labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from xptools.columns import Column
from xptools.commands import _vae_input as reading
from xptools.commands._vae_steps import Encode
from xptools.errors import DataError, MissingColumns, UsageError
from xptools.protocol import Fold, spelled

if TYPE_CHECKING:
    import numpy as np

MOST = 100_000  # stars kept


@dataclass(frozen=True)
class Inspect(Fold):
    """Spearman's rho, its partial one and mutual information of latents with each label (cores/vae_inspect.py)."""

    model: str = ""
    labels: str = ""

    name: ClassVar[str] = "vae"
    cites: ClassVar = ("laroche2024",)
    packages: ClassVar = ("numpy", "numba", "scikit-learn")
    adds: ClassVar = {
        "label": Column("string", None, "meta.id", "The label"),
        "rank": Column("int16", None, "meta.number", "Place of the latent by mutual information; 0 for other axes"),
        "axis": Column("string", None, "meta.id", "The latent, the probe of all latents, or the best coefficient"),
        "rho": Column("float64", None, "stat.correlation", "Spearman's rank correlation with the label"),
        "partial": Column("float64", None, "stat.correlation", "The same at fixed other labels; NaN if there is none"),
        "information": Column("float64", None, "stat.value", "Mutual information with the label [nat]; no probe's"),
        "n": Column("int64", None, "meta.number", "Stars with the label and latents"),
    }

    def __post_init__(self):
        if not all(self._labels):
            raise UsageError(f"--inspect {self.labels!r} is no list of columns. TRY: --inspect true_teff,true_feh")

    @property
    def _labels(self) -> tuple[str, ...]:
        return tuple(self.labels.split(","))

    @property
    def _encode(self) -> Encode:
        return Encode(model=self.model)

    @property
    def needs(self) -> tuple[str, ...]:
        return self._labels

    @property
    def wants(self) -> tuple[str, ...]:
        step = self._encode
        return (*step.latents, *step.needs, *step.wants, "source_id")

    def files(self):
        return self._encode.files()

    def reads(self, schema):
        found, step = super().reads(schema), self._encode
        if all(name in found for name in step.latents):
            spectra = (*reading.VALUES, *reading.BRIGHTNESS)
            kinds = [schema.field(found[n]).type for n in reading.VALUES if n in found]
            fit = [getattr(kind, "list_size", w) == w for kind, w in zip(kinds, step.widths, strict=False)]
            bright = any(n in found for n in reading.BRIGHTNESS)
            beside = spectra if len(fit) == 2 and all(fit) and bright else ()
            return {n: s for n, s in found.items() if n in (*self._labels, *step.latents, "source_id", *beside)}
        if any(spelled(schema, name) is None for name in step.needs):
            raise MissingColumns(self.name, (step.latents[0],), tuple(schema.names))
        reading.check(self.name, schema, step.widths)
        return found

    def zero(self) -> list[dict[str, np.ndarray]]:
        return []

    def merge(self, one, other):
        return self._bounded(one + other)

    def add(self, state, **columns: Any):
        import numpy as np

        from xptools.cores import keyed

        step = self._encode
        labels = np.stack([np.asarray(columns[name], np.float64) for name in self._labels], -1)
        if columns.get(step.latents[0]) is None:
            made = step.compute(**{k: columns.get(k) for k in (*step.needs, *step.wants)})
            columns |= {z: made[z] for z in step.latents}
        ids = columns.get("source_id")
        start = sum(len(part["key"]) for part in state)
        ids = np.arange(start, start + len(labels)) if ids is None else np.asarray(ids, np.int64)
        part = {"key": keyed.mixed(ids, 0), "labels": labels}
        part["latents"] = np.stack([np.asarray(columns[z], np.float64) for z in step.latents], -1)
        if columns.get(reading.VALUES[0]) is not None:
            flux = reading.g_flux(columns, len(labels))
            values = reading.block(columns, reading.VALUES, step.widths) / flux[:, None]
            part["coefficients"] = values.astype(np.float32)
        return self._bounded([*state, part])

    def _bounded(self, state) -> list[dict[str, np.ndarray]]:
        """The same, with fewer than twice MOST stars."""
        return state if sum(len(p["key"]) for p in state) < 2 * MOST else [self._fewest(state)]

    def _fewest(self, state) -> dict[str, np.ndarray]:
        """At most MOST stars: those whose mixed source_id is smallest, whatever their order."""
        import numpy as np

        whole = {k: np.concatenate([part[k] for part in state]) for k in state[0] if all(k in part for part in state)}
        some = np.argsort(whole["key"], kind="stable")[:MOST]
        return {k: v[some] for k, v in whole.items()}

    def finish(self, state, schema) -> dict[str, Any]:
        import numpy as np

        if not state:
            raise DataError("the table has no rows to inspect. TRY: xp info on the input")
        stars = self._fewest(state)
        lines = [line for k in range(len(self._labels)) for line in self._told(k, stars)]
        return {name: np.array(column) for name, column in zip(self.adds, zip(*lines, strict=True), strict=True)}

    def _told(self, which: int, stars: dict[str, np.ndarray]) -> Iterator[tuple[Any, ...]]:
        """The rows of one label: probes of all latents, the best coefficient, then each latent."""
        import numpy as np

        from xptools.cores import vae_inspect

        label, names = self._labels[which], self._encode.latents
        use = np.isfinite(stars["labels"][:, which]) & np.isfinite(stars["latents"]).all(-1)
        n = int(use.sum())
        if n < vae_inspect.FEWEST:
            raise DataError(f"only {n} stars have latents and {label}. TRY: another column, or more stars")
        z, y, others = stars["latents"][use], stars["labels"][use, which], np.delete(stars["labels"][use], which, 1)
        whole = np.isfinite(others).all(-1)

        def partial(x):
            known = whole & np.isfinite(x)
            if not others.shape[1] or known.sum() < vae_inspect.FEWEST:
                return np.nan
            return vae_inspect.partial(x[known], y[known], others[known])

        for probe, guess in vae_inspect.probed(z, y).items():
            yield label, 0, probe, vae_inspect.spearman(guess, y), partial(guess), np.nan, n
        if "coefficients" in stars:
            c = stars["coefficients"][use]
            k, rho = vae_inspect.single(c, y)
            known = np.isfinite(c[:, k])
            if known.sum() >= vae_inspect.FEWEST:
                information = vae_inspect.mutual_information(c[known, k], y[known])
                yield label, 0, self._coefficient(k), rho, partial(c[:, k]), information, int(known.sum())
        for place, (k, rho, information) in enumerate(vae_inspect.ranked(z, y), 1):
            yield label, place, names[k], rho, partial(z[:, k]), information, n

    def _coefficient(self, k: int) -> str:
        """What coefficient k of both bands is called, counted from 0 in its band."""
        first = self._encode.widths[0]
        name, place = (reading.VALUES[0], k) if k < first else (reading.VALUES[1], k - first)
        return f"{name}[{place}]"
