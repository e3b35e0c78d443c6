"""`xp mf --binaries`: the mass function of singles and primaries, and of all stars, behind unresolved pairs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar

from xptools.commands._mf_fold import MassFunction, log_phi_column
from xptools.errors import DataError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from xptools.columns import Column
    from xptools.commands._volumes import Volumes
    from xptools.cores.bins import BinTable
    from xptools.cores.pairs import Pairs

ROUNDS = 3  # of finding how Phi runs inside the bins: the first takes it for constant
STEEPEST = 6.0
ALL = ("median", "sd", "lo", "hi", "lo95", "hi95")


@dataclass(frozen=True)
class PairedMassFunction(MassFunction):
    """n_i ~ Poisson(sum_j T_ij Phi_j V_j dM_j): pairs are counted further up, and further away (cores/pairs.py)."""

    binaries: str = ""
    model: str = ""

    cites: ClassVar[tuple[str, ...]] = (*MassFunction.cites, "bressan2012", "riello2021")
    otherwise: ClassVar[str] = ""

    def __post_init__(self):
        pairs_of(self.binaries)

    @property
    def pairs(self) -> Pairs:
        """What --binaries says."""
        return pairs_of(self.binaries)

    @property
    def adds(self) -> dict[str, Column]:
        """As MassFunction, and the function of all stars."""
        text = {"median": "Median", "sd": "Standard deviation", "lo": "16 % quantile", "hi": "84 % quantile",
                "lo95": "2.3 % quantile", "hi95": "97.7 % quantile"}  # fmt: skip
        more = {f"log_phi_all_{k}": log_phi_column(f"{text[k]}, companions counted as stars,") for k in ALL}
        return super().adds | more

    def files(self) -> dict[str, str]:
        """The volumes, isochrones behind them are in their history; and the model of the masses."""
        from xptools.commands._mass_model import DEFAULT

        return super().files() | {"model": self.model or str(DEFAULT)}

    def reads(self, schema: pa.Schema) -> dict[str, str]:
        """As MassFunction; volumes must say how they were made."""
        found = super().reads(schema)
        self._settings(schema)
        return found

    def _settings(self, schema: pa.Schema) -> Volumes:
        """The settings of the volumes' xp veff."""
        from xptools import metadata
        from xptools.commands._volume_files import stated
        from xptools.commands._volumes import Volumes

        said = stated(self.veff) if self.veff else metadata.value_of(schema, "xp.veff")
        if not said or "parameters" not in said:
            raise DataError("--binaries needs to know by which isochrones and limits the volumes were made, and "
                            "they do not say. TRY: volumes as Parquet, by xp veff or xp veff --table")  # fmt: skip
        own = {k: tuple(v) if isinstance(v, list) else v for k, v in said["parameters"].items() if k != "light"}
        return Volumes(tuple(said["mass_edges"]), tuple(said["feh_edges"]), **own)

    def _mixing(self, n: np.ndarray, table: BinTable, volumes: Volumes) -> np.ndarray:
        """T (B, K, K) of every [Fe/H] bin; Phi runs inside the bins with slopes that counts n (B, K) give through T."""
        import numpy as np

        from xptools.commands._mass_model import reader_of
        from xptools.cores import pairs
        from xptools.cores.slopes import PoissonSlopes

        brightest = -np.inf if volumes.mg_limit is None else volumes.mg_limit
        out = []
        for b, edges in enumerate(pairwise(table.feh_edges)):
            mh = float(volumes.mh(0.5 * sum(edges)))
            light, scale = partial(volumes.light, mh=mh), partial(reader_of(self.model), mh=mh)
            slopes = np.zeros(len(table.width))
            for _ in range(ROUNDS):
                T = pairs.mixing(table, b, self.pairs, light, scale, brightest, slopes)
                law = PoissonSlopes(table, b, self.segments, mixing=T)
                found = law.draws(n[b], np.random.default_rng((self.seed, 4, b)))[:, len(self.segments) - 1 :]
                alpha = np.clip(np.nan_to_num(found.mean(axis=0)), -STEEPEST, STEEPEST)
                slopes = alpha[np.searchsorted(self.segments[1:-1], table.centre)]
            out.append(T)
        return np.array(out)

    def inferred(self, state: np.ndarray, table: BinTable, schema: pa.Schema):
        """As MassFunction; without pairs it is MassFunction."""
        from dataclasses import replace

        n, outside = self._counts(state, table)
        if not self.pairs.fraction:
            columns, fit, about = self._posterior(n, table)
            every = {f"log_phi_all_{k}": columns[f"log_phi_{k}"] for k in ALL}
        else:
            columns, fit, about = self._posterior(n, table, self._mixing(n, table, self._settings(schema)))
            fit = replace(fit, all_stars=self._all(fit.ln_phi, table))
            every = _columns(fit.all_stars)
        return n, outside, columns | every, fit, about | {"binaries": self.binaries}

    def _all(self, ln_phi: np.ndarray, table: BinTable) -> np.ndarray:
        """Draws of ln Phi (D, B, K) with companions counted; NaN where ln_phi is."""
        import numpy as np

        from xptools.cores import pairs

        phi = np.exp(ln_phi)
        return np.log(phi + np.nan_to_num(phi) @ pairs.companions(table, self.pairs).T)


def _columns(ln_phi: np.ndarray) -> dict[str, np.ndarray]:
    """Quantiles and standard deviation of log10 of draws (D, B, K), as columns (B K,)."""
    from xptools.cores import mf

    named = mf.named(*mf.summary(ln_phi))
    return {f"log_phi_all_{k}": named[f"log_phi_{k}"].ravel() for k in ALL}


def pairs_of(text: str) -> Pairs:
    """The pairs of "fraction=0.4,q=uniform,cut=0.5"; UsageError for anything else."""
    from xptools.cores.pairs import Pairs

    words = [part.strip().partition("=")[::2] for part in text.split(",")]
    given = dict(words)
    try:
        q = given.get("q", "uniform").strip()
        exponent = {"uniform": 0.0, "twins": None}[q] if q in ("uniform", "twins") else float(q)
        pairs = Pairs(float(given["fraction"]), exponent, float(given.get("cut", 1.0)))
        fine = 0 <= pairs.fraction < 1 and 0 < pairs.cut <= 1 and (exponent is None or -20 < exponent < 100)
    except (KeyError, ValueError):
        fine = False
    if not fine or len(given) < len(words) or set(given) - {"fraction", "q", "cut"}:
        raise UsageError(
            f"--binaries {text!r}: a fraction from 0 to below 1, q (uniform, twins, or the exponent of its law), cut "
            "(the largest q in the sample). TRY: --binaries fraction=0.4,q=uniform"
        )
    return pairs
