"""`xp mf --method gp`: a continuous mass function per [Fe/H] bin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from xptools.commands._mf_fold import BEYOND, MassFunction
from xptools.errors import DataError
from xptools.protocol import arguments

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from xptools.cores.bins import BinTable


FEW, STEADY = 30, 0.995  # stars of a [Fe/H] bin whose posterior is so wide that NUTS diverges at longer steps


@dataclass(frozen=True)
class SmoothMassFunction(MassFunction):
    """ln Phi(ln M) is a Gaussian process whose amplitude and length are inferred; rows are fine bins of mass."""

    method: str = "gp"

    cites: ClassVar[tuple[str, ...]] = (*MassFunction.cites, "rasmussen2006", "solin2020")
    flags: ClassVar[dict[int, str]] = MassFunction.flags | BEYOND
    otherwise: ClassVar[str] = ""

    @property
    def needs(self) -> tuple[str, ...]:
        """Masses themselves, as bins are finer than those of `xp veff`."""
        return ("mass", "feh")

    def volumes(self, schema: pa.Schema | None = None) -> BinTable:
        """The table of bins with every mass bin in parts."""
        from xptools.cores import process

        return process.refined(super().volumes(schema))

    def feed(self, state: np.ndarray, batch: pa.RecordBatch) -> np.ndarray:
        """Counts per fine bin after these rows."""
        from xptools.cores import bins

        if batch.num_rows == 0:
            return state
        table, columns = self.volumes(batch.schema), arguments(self, batch, self.reads(batch.schema))
        k, b = bins.locate(columns["mass"], table.mass_edges), bins.locate(columns["feh"], table.feh_edges)
        return self.add(state, mass_bin=k, feh_bin=b)

    def inferred(self, state: np.ndarray, table: BinTable, schema: pa.Schema | None = None):
        """As MassFunction, in fine bins."""
        from dataclasses import replace

        import numpy as np

        from xptools.commands._mf_report import FORMAT, Fit
        from xptools.cores import mf, process

        n, outside = self._counts(state, table)
        inside = self.reached(table)
        use = mf.usable(table.veff) & inside
        if not use.any(axis=1).all():
            raise DataError("a [Fe/H] bin has no volume at any mass of --segments, so there is nothing to infer. "
                            "TRY: other --segments, or xp veff with a fainter --g-limit")  # fmt: skip
        found = [self._curve(replace(table, veff=np.where(use, table.veff, 0.0)), b, n[b]) for b in range(len(n))]
        draws = np.where(use, np.stack([got.ln_phi.reshape(-1, use.shape[1]) for got, _ in found], axis=1), np.nan)
        values = mf.named(*mf.summary(draws))
        for name in ("rhat", "ess"):
            values[name] = np.where(use, np.stack([getattr(got, name) for got, _ in found]), np.nan)
        values |= {"phi": np.exp(draws).mean(axis=0), "phi_err": np.exp(draws).std(axis=0)}
        about = {"format": FORMAT, "method": "gp", "prior": "process", "segments": list(self.segments),
                 "slope_method": self.slope_method, "convergence": self.checked(_worst([g for g, _ in found])),
                 "cells": process.CELLS, "process": [_shape(hyper) for _, hyper in found]}  # fmt: skip
        fit = Fit(n, table, draws, values["log_phi"], values["log_phi_sd"], counted=False)
        columns = self.columns(table, n, values)
        columns["mf_flag"] = columns["mf_flag"] | np.where(np.tile(inside, len(n)), 0, *BEYOND)
        return n, outside, columns, fit, about

    def _curve(self, table: BinTable, b: int, n: np.ndarray):
        from xptools.cores import process

        curve = process.Curve.of(table, b, n, self.segments[1:-1])
        aim = max(self.target_accept, STEADY) if curve.n.sum() < FEW else self.target_accept
        return process.sample(curve, self.seed + b, chains=self.chains, warmup=self.warmup, draws=self.draws,
                              target_accept=aim)  # fmt: skip


def _worst(found: list):
    """One measure of convergence for all [Fe/H] bins."""
    import numpy as np

    from xptools.cores.nuts import Sampled

    rhat, ess = (np.concatenate([getattr(got, name) for got in found]) for name in ("rhat", "ess"))
    return Sampled(found[0].ln_phi, rhat, ess, sum(g.divergences for g in found), min(g.bfmi for g in found),
                   sum(g.rejected for g in found))  # fmt: skip


def _shape(hyper: np.ndarray) -> dict[str, Any]:
    """Median and 68 % interval of amplitude and length in ln M of a [Fe/H] bin."""
    import numpy as np

    from xptools.cores.mf import LEVELS

    names = ("median", "lo", "hi")
    return {what: dict(zip(names, np.quantile(column, LEVELS[:3]).tolist(), strict=True))
            for what, column in zip(("amplitude", "length"), hyper.T, strict=True)}  # fmt: skip
