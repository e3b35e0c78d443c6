"""`xp mf --deconvolve`: the mass function behind the errors of mass and [Fe/H], all bins at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from xptools.commands._mf_fold import MassFunction
from xptools.errors import DataError
from xptools.protocol import arguments

if TYPE_CHECKING:
    import pyarrow as pa

    from xptools.cores.bins import BinTable
    from xptools.cores.response import Counts


@dataclass(frozen=True)
class JointMassFunction(MassFunction):
    """Phi(M, [Fe/H]) through the response of mass and [Fe/H] errors, with a smoothness that is inferred."""

    deconvolve: bool = True
    target_accept: float = 0.98

    wants: ClassVar[tuple[str, ...]] = ("mass_err",)
    cites: ClassVar[tuple[str, ...]] = (*MassFunction.cites, "rasmussen2006")

    otherwise: ClassVar[str] = ""

    @property
    def needs(self) -> tuple[str, ...]:
        """Labels and the error that moves stars between bins."""
        return ("mass", "feh", "feh_err")

    def zero(self) -> Counts | None:
        """No star, whatever the bins."""
        return None

    def feed(self, state: Counts | None, batch: pa.RecordBatch) -> Counts | None:
        """The counts by (mass bin, class of error, slice of [Fe/H]) after these rows."""
        import numpy as np

        from xptools.cores import response

        if batch.num_rows == 0:
            return state
        columns = arguments(self, batch, self.reads(batch.schema))
        known = np.isfinite(columns["mass"]) & np.isfinite(columns["feh"])
        lost = known & ~(columns["feh_err"] >= 0)
        if lost.any():
            raise DataError(
                f"{int(lost.sum()):,} stars of a batch have [Fe/H] but no feh_err, so where they belong is unknown. "
                "TRY: xp select --where 'feh_err > 0', and scale V_eff by what that loses (xp veff --veff-scale)"
            )
        return self.merge(state, response.count(self.volumes(batch.schema), **columns))

    def merge(self, one: Counts | None, other: Counts | None) -> Counts | None:
        """Counts add."""
        return other if one is None else one if other is None else one + other

    def inferred(self, state: Counts | None, table: BinTable, schema: pa.Schema | None = None):
        """As MassFunction: counts (B, K), stars outside, columns, what the report needs, how it was done."""
        import numpy as np

        from xptools.commands._mf_report import FORMAT, Fit
        from xptools.cores import jointmf, mf, response

        none = np.zeros(0)
        counts = state or response.count(table, none, none, none)
        _, bins = response.slices(table.feh_edges)
        n = (counts.n.sum(axis=1) @ (bins[:, None] == np.arange(len(table.feh_edges) - 1))).T
        joint = jointmf.prepare(table, counts)
        got = jointmf.sample(joint, self.seed, chains=self.chains, warmup=self.warmup, draws=self.draws,
                             target_accept=self.target_accept)  # fmt: skip
        about = {"format": FORMAT, "method": "joint", "prior": "process", "segments": list(self.segments),
                 "slope_method": self.slope_method, "convergence": self.checked(got)}  # fmt: skip
        use = mf.usable(table.veff)
        draws = np.where(use, got.ln_phi.reshape(-1, *use.shape), np.nan)
        values = mf.named(*mf.summary(draws)) | {"rhat": got.rhat.reshape(use.shape), "ess": got.ess.reshape(use.shape)}
        values |= {"phi": np.exp(draws).mean(axis=0), "phi_err": np.exp(draws).std(axis=0)}
        fit = Fit(n, table, draws, values["log_phi"], values["log_phi_sd"], counted=False)
        return n, counts.outside, self.columns(table, n, values), fit, about
