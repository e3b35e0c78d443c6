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

MOST = 200_000  # stars kept


@dataclass(frozen=True)
class Inspect(Fold):
    """Spearman's rho, its partial one and mutual information of latents with each label (cores/vae_inspect.py)."""

    model: str = ""
    labels: str = ""

    name: ClassVar[str] = "vae"
    cites: ClassVar = ("laroche2024",)
    packages: ClassVar = ("numpy", "numba")
    adds: ClassVar = {
        "label": Column("string", None, "meta.id", "The label"),
        "rank": Column("int16", None, "meta.number", "Place of the latent by mutual information; 0: all together"),
        "axis": Column("string", None, "meta.id", "The latent, or `all` of them"),
        "rho": Column("float64", None, "stat.correlation", "Spearman's rank correlation with the label"),
        "partial": Column("float64", None, "stat.correlation", "The same at fixed other labels; NaN if there is none"),
        "information": Column("float64", None, "stat.value", "Mutual information with the label [nat]; NaN for `all`"),
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
            return {n: s for n, s in found.items() if n in (*self._labels, *step.latents, "source_id")}
        if any(spelled(schema, name) is None for name in step.needs):
            raise MissingColumns(self.name, (step.latents[0],), tuple(schema.names))
        reading.check(self.name, schema, step.widths)
        return found

    def zero(self) -> list[dict[str, np.ndarray]]:
        return []

    def merge(self, one, other):
        return one + other

    def add(self, state, **columns: Any):
        import numpy as np

        from xptools.cores import keyed

        step = self._encode
        labels = {name: np.asarray(columns[name], np.float64) for name in self._labels}
        rows = len(next(iter(labels.values())))
        if columns.get(step.latents[0]) is None:
            made = step.compute(**{k: columns.get(k) for k in (*step.needs, *step.wants)})
            columns |= {z: made[z] for z in step.latents}
        ids = columns.get("source_id")
        start = sum(len(part["key"]) for part in state)
        ids = np.arange(start, start + rows) if ids is None else np.asarray(ids, np.int64)
        latents = np.stack([np.asarray(columns[z], np.float64) for z in step.latents], -1)
        return self._kept([*state, {"key": keyed.mixed(ids, 0), "latents": latents, **labels}])

    def _kept(self, state):
        """At most MOST stars: those whose mixed source_id is smallest, whatever their order."""
        import numpy as np

        if sum(len(part["key"]) for part in state) < 2 * MOST:
            return state
        whole = {k: np.concatenate([part[k] for part in state]) for k in state[0]}
        some = np.argsort(whole["key"], kind="stable")[:MOST]
        return [{k: v[some] for k, v in whole.items()}]

    def finish(self, state, schema) -> dict[str, Any]:
        import numpy as np

        if not state:
            raise DataError("the table has no rows to inspect. TRY: xp info on the input")
        whole = {k: np.concatenate([part[k] for part in state]) for k in state[0]}
        some = np.argsort(whole["key"], kind="stable")[:MOST]
        stars = {k: v[some] for k, v in whole.items()}
        lines = [line for label in self._labels for line in self._told(label, stars)]
        return {name: np.array(column) for name, column in zip(self.adds, zip(*lines, strict=True), strict=True)}

    def _told(self, label: str, stars: dict[str, np.ndarray]) -> Iterator[tuple[Any, ...]]:
        """The rows of one label: all latents together, then each of them."""
        import numpy as np

        from xptools.cores import vae_inspect

        use = np.isfinite(stars[label]) & np.isfinite(stars["latents"]).all(-1)
        n = int(use.sum())
        if n < vae_inspect.FEWEST:
            raise DataError(f"only {n} stars have latents and {label}. TRY: another column, or more stars")
        z, y = stars["latents"][use], stars[label][use]
        others = np.stack([y, *(stars[name][use] for name in self._labels if name != label)], -1)[:, 1:]
        whole = np.isfinite(others).all(-1)

        def partial(x):
            if not others.shape[1] or whole.sum() < vae_inspect.FEWEST:
                return np.nan
            return vae_inspect.partial(x[whole], y[whole], others[whole])

        guess = vae_inspect.probed(z, y)
        yield label, 0, "all", vae_inspect.spearman(guess, y), partial(guess), np.nan, n
        for place, (k, rho, information) in enumerate(vae_inspect.ranked(z, y), 1):
            yield label, place, self._encode.latents[k], rho, partial(z[:, k]), information, n
