"""`xp mf --deconvolve`: the mass function behind the errors of mass and [Fe/H], all bins at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from xptools.commands._mf_fold import BEYOND, MassFunction
from xptools.errors import DataError, UsageError
from xptools.protocol import arguments

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from xptools.cores.bins import BinTable
    from xptools.cores.errortable import ErrorTable
    from xptools.cores.response import Counts

REFERENCES = ("true_feh", "fe_h")


@dataclass(frozen=True)
class JointMassFunction(MassFunction):
    """Phi(M, [Fe/H]) through the response of mass and [Fe/H] errors, with a smoothness that is inferred."""

    deconvolve: bool = True
    error_table: str = ""
    target_accept: float = 0.98

    flags: ClassVar[dict[int, str]] = MassFunction.flags | BEYOND
    wants: ClassVar[tuple[str, ...]] = ("mass_err", "feh_err")
    cites: ClassVar[tuple[str, ...]] = (*MassFunction.cites, "rasmussen2006")

    @property
    def otherwise(self) -> str:
        """Stars of known [Fe/H] tell the errors, where otherwise stated ones have to fit the counts."""
        return "" if self.error_table else "--error-table FILE of known stars, "

    @property
    def needs(self) -> tuple[str, ...]:
        """Labels and, where no table tells it, the error that moves stars between bins."""
        return ("mass", "feh") if self.error_table else ("mass", "feh", "feh_err")

    def files(self) -> dict[str, str]:
        """The volumes, and the stars of known [Fe/H]."""
        return super().files() | ({"error_table": self.error_table} if self.error_table else {})

    def reads(self, schema: pa.Schema) -> dict[str, str]:
        """As MassFunction; stars of known [Fe/H] are read before any row, too."""
        found = super().reads(schema)
        if self.error_table:
            self.known()
        return found

    def known(self) -> ErrorTable | None:
        """The stars of --error-table."""
        return known_stars(self.error_table) if self.error_table else None

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
        if columns.get("feh_err") is None:
            columns["feh_err"] = np.zeros(len(known))
        loss = "and scale V_eff by what that loses (xp veff --veff-scale)"
        cure = f"xp select --where 'feh_err > 0', {loss}"
        if self.error_table:
            cure = f"xp convert --drop feh_err, as the error table tells of errors; or {cure}"
        _refuse_unstated(known, columns["feh_err"], "[Fe/H] but no feh_err", cure)
        cure = f"xp convert --drop mass_err, if masses are exact; or xp select --where 'mass_err >= 0', {loss}"
        _refuse_unstated(known, columns["mass_err"], "a mass but no mass_err", cure)
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
        inside = self.reached(table)
        if inside.sum() < 2:
            raise UsageError("--deconvolve needs two bins of mass or more. TRY: other --segments, or xp veff with more")
        joint = jointmf.prepare(table.part(inside), counts.part(inside), self.known(), self.segments[1:-1])
        got = jointmf.sample(joint, self.seed, chains=self.chains, warmup=self.warmup, draws=self.draws,
                             target_accept=self.target_accept)  # fmt: skip
        about = {"format": FORMAT, "method": "joint", "prior": "process", "segments": list(self.segments),
                 "slope_method": self.slope_method, "convergence": self.checked(got)}  # fmt: skip
        if (known := self.known()) is not None:
            about |= {"known": len(known.off), "known_masses": int(np.isfinite(known.true_mass).sum())}
        full = [whole(v, inside, len(n)) for v in (got.ln_phi.reshape(-1, got.ln_phi.shape[-1]), got.rhat, got.ess)]
        use = mf.usable(table.veff)
        draws, rhat, ess = (np.where(use, v, np.nan) for v in full)
        values = mf.named(*mf.summary(draws)) | {"rhat": rhat, "ess": ess}
        values |= {"phi": np.exp(draws).mean(axis=0), "phi_err": np.exp(draws).std(axis=0)}
        fit = Fit(n, table, draws, values["log_phi"], values["log_phi_sd"], counted=False)
        columns = self.columns(table, n, values)
        columns["mf_flag"] = columns["mf_flag"] | np.where(np.tile(inside, len(n)), 0, *BEYOND)
        return n, counts.outside, columns, fit, about


def _refuse_unstated(known: np.ndarray, error: np.ndarray | None, what: str, cure: str) -> None:
    """DataError if a star of known mass and [Fe/H] has an error that is none; no column at all means exact."""
    import numpy as np

    lost = 0 if error is None else int((known & ~(np.isfinite(error) & (error >= 0))).sum())
    if lost:
        raise DataError(f"{lost:,} stars of a batch have {what}, so where they belong is unknown. TRY: {cure}")


def whole(values: np.ndarray, inside: np.ndarray, rows: int) -> np.ndarray:
    """Values (..., B K') of the masses inside (K,) as (..., B, K), NaN elsewhere."""
    import numpy as np

    out = np.full((*values.shape[:-1], rows, len(inside)), np.nan)
    out[..., inside] = values.reshape(*values.shape[:-1], rows, -1)
    return out


@lru_cache(maxsize=2)
def known_stars(path: str) -> ErrorTable:
    """Stars whose [Fe/H] is measured (feh) and known (true_feh, or fe_h as of APOGEE), with mass, perhaps true_mass."""
    import numpy as np

    from xptools import io
    from xptools.commands._volume_files import columns_of
    from xptools.cores import errortable
    from xptools.protocol import spelled

    with io.open_reader(path) as reader:
        name = next((n for n in REFERENCES if spelled(reader.schema, n)), None)
    if name is None:
        raise DataError(f"no column says what [Fe/H] is true. {path}. TRY: a column true_feh, or fe_h as APOGEE has it")
    c = columns_of(path, ("mass", "feh", name), ("feh_err", "true_mass"), maker="mf")
    if (err := c.get("feh_err")) is not None:
        whole = np.isfinite(c["mass"]) & np.isfinite(c["feh"]) & np.isfinite(c[name])
        lost = int((whole & ~(np.isfinite(err) & (err >= 0))).sum())
        if lost:
            raise DataError(f"{lost:,} known stars have no feh_err. {path}. TRY: xp select --where 'feh_err > 0'")
    found = errortable.ErrorTable.of(c["mass"], c["feh"], c[name], err, c.get("true_mass"))
    if len(found.off) < errortable.LEAST:
        words = f"{len(found.off)} stars with mass, feh and {name} tell nothing about errors"
        raise DataError(f"{words}. {path}. TRY: {errortable.LEAST} or more, better thousands")
    return found
