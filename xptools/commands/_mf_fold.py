"""What `xp mf` does with a stream: counts per bin, then the posterior of Phi, slopes and xi_MR."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from xptools.columns import Column
from xptools.commands._volumes import VEFF, VEFF_ERR
from xptools.errors import ComputeError, DataError
from xptools.protocol import Fold

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from xptools.cores.bins import BinTable
    from xptools.cores.nuts import Sampled

NO_VOLUME, STRAY = 1, 2
BEYOND = {4: "outside the masses of --segments and xi_MR, where nothing is inferred"}
KEY = "xp.mf"


def log_phi_column(what: str, kind: str = "phys.density") -> Column:
    """A column of log10 Phi."""
    return Column("float64", None, kind, f"{what} of log10(Phi / (kpc-3 Msun-1))")


@dataclass(frozen=True)
class MassFunction(Fold):
    """n_k ~ Poisson(Phi_k V_k dM_k) per bin: posterior of Phi_k, slopes and xi_MR (Li+ 2026 eqs 3, 4, 8-10)."""

    veff: str = ""
    method: str = "nuts"
    prior: str = "jeffreys"
    chains: int = 4
    warmup: int = 1000
    draws: int = 1000
    target_accept: float = 0.9
    segments: tuple[float, ...] = (0.15, 0.55, 0.8)
    slope_method: str = "poisson"
    xi_upper: float = 0.7
    xi_method: str = "shaped"
    truth: bool = False
    force: bool = False
    report: str = ""
    seed: int = 0

    name: ClassVar[str] = "mf"
    cites: ClassVar[tuple[str, ...]] = (
        "li2026", "phan2019", "hoffman2014", "vehtari2021", "kroupa2001", "chabrier2003", "salpeter1955"
    )  # fmt: skip
    packages: ClassVar[tuple[str, ...]] = ("jax", "numpyro", "numpy", "scipy")
    flags: ClassVar[dict[int, str]] = {NO_VOLUME: "no effective volume", STRAY: "stars where there is no volume"}

    otherwise: ClassVar[str] | property = "--method exact, "  # what to try where the sampler does not converge

    @property
    def needs(self) -> tuple[str, ...]:
        """The bins that `xp veff` wrote, or with --veff what they are found from."""
        return ("mass", "feh") if self.veff else ("mass_bin", "feh_bin")

    @property
    def adds(self) -> dict[str, Column]:
        """One row per bin."""
        text = "Phi = dN/dM per volume at (R_sun, Z = 0), posterior mean"
        phi = Column("float64", "kpc**-3.solMass**-1", "phys.density", text)
        out = {
            "feh_lo": Column("float64", None, "phys.abund.Fe;stat.min", "Lower [Fe/H] edge of the bin [dex]"),
            "feh_hi": Column("float64", None, "phys.abund.Fe;stat.max", "Upper [Fe/H] edge of the bin [dex]"),
            "mass_lo": Column("float64", "solMass", "phys.mass;stat.min", "Lower mass edge of the bin"),
            "mass_hi": Column("float64", "solMass", "phys.mass;stat.max", "Upper mass edge of the bin"),
            "mass": Column("float64", "solMass", "phys.mass", "Centre of the mass bin"),
            "n": Column("int64", None, "meta.number", "Stars counted in the bin"),
            "veff": VEFF,
            "veff_err": VEFF_ERR,
            "phi": phi,
            "phi_err": phi._replace(ucd="stat.error;phys.density", text="Posterior standard deviation of phi"),
            "log_phi": log_phi_column("Posterior mean"),
            "log_phi_median": log_phi_column("Posterior median"),
            "log_phi_sd": log_phi_column("Posterior standard deviation", "stat.error;phys.density"),
            "log_phi_lo": log_phi_column("16 % quantile", "phys.density;stat.min"),
            "log_phi_hi": log_phi_column("84 % quantile", "phys.density;stat.max"),
            "log_phi_lo95": log_phi_column("2.3 % quantile", "phys.density;stat.min"),
            "log_phi_hi95": log_phi_column("97.7 % quantile", "phys.density;stat.max"),
            "rhat": Column("float64", None, "stat.value", "Split R-hat of log Phi; NaN if not sampled"),
            "ess": Column("float64", None, "stat.value", "Effective number of draws; NaN if not sampled"),
        }
        true = {
            "log_phi_true": log_phi_column("Truth stated by xp mock"),
            "pull": Column("float64", None, "stat.value", "(log_phi - log_phi_true) / log_phi_sd"),
        }
        return out | (true if self.truth else {})

    def params(self) -> dict[str, Any]:
        """As in the history: without the name of the report, which decides nothing."""
        return {k: v for k, v in super().params().items() if k != "report"}

    def files(self) -> dict[str, str]:
        """The table of volumes, if a file gives it."""
        return {"veff": self.veff} if self.veff else {}

    def reads(self, schema: pa.Schema) -> dict[str, str]:
        """As every step; what is missing in the metadata is said before any row is read, too."""
        from xptools import metadata

        found = super().reads(schema)
        if not self.veff and metadata.value_of(schema, "xp.veff") is None:
            raise DataError(
                "the table has no effective volumes in its metadata (key xp.veff). "
                "TRY: ... | xp veff | xp mf, or xp mf --veff FILE made by xp veff --table"
            )
        if self.truth:
            _stated(schema)
        return found

    def volumes(self, schema: pa.Schema | None = None) -> BinTable:
        """The table of bins, of --veff or of the input's metadata."""
        from xptools import metadata
        from xptools.commands._volume_files import bin_table
        from xptools.cores.bins import BinTable

        return bin_table(self.veff) if self.veff else BinTable.from_dict(metadata.value_of(schema, "xp.veff"))

    def reached(self, table: BinTable) -> np.ndarray:
        """The masses (K,) that slopes and xi_MR need: where neighbours tell of each other, no others are asked."""
        from xptools.cores.slopes import members

        low = table.mass_edges[:-1]
        needed = (low >= self.segments[0]) & (low < self.xi_upper)
        return needed | members(table.centre, (self.segments[0], self.segments[-1]))

    def zero(self) -> np.ndarray:
        """Counts by ([Fe/H] bin, mass bin), int64, and stars outside as its last row and column: grows as needed."""
        import numpy as np

        return np.zeros((1, 1), dtype=np.int64)

    def add(self, state: np.ndarray, **columns: np.ndarray) -> np.ndarray:
        """The counts after these rows; an unknown bin counts as outside."""
        import numpy as np

        from xptools.cores import bins

        if "mass_bin" not in columns:
            table = self.volumes()
            k, b = bins.locate(columns["mass"], table.mass_edges), bins.locate(columns["feh"], table.feh_edges)
        else:
            k, b = (_numbers(name, columns[name], int(state.sum())) for name in ("mass_bin", "feh_bin"))
        outside = (k < 0) | (b < 0)
        # outside stars go to cell (0, 0); bins begin at (1, 1)
        k, b = (np.where(outside, 0, x.astype(np.int64) + 1) for x in (k, b))
        shape = (int(b.max()) + 1, int(k.max()) + 1)
        counts = np.bincount(b * shape[1] + k, minlength=shape[0] * shape[1]).reshape(shape)
        return self.merge(state, counts)

    def merge(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Counts add."""
        import numpy as np

        shape = tuple(np.maximum(one.shape, other.shape))
        return sum(np.pad(a, [(0, s - t) for s, t in zip(shape, a.shape, strict=True)]) for a in (one, other))

    def finish(self, state: np.ndarray, schema: pa.Schema) -> dict[str, Any]:
        """The posterior per bin, and under `meta` the report."""
        import numpy as np

        from xptools.commands import _mf_report as words

        table = self.volumes(schema)
        self._sensible(table)
        n, outside, columns, fit, about = self.inferred(state, table, schema)
        known = _stated(schema) if self.truth else None
        about |= {"stars": int(n.sum()), "outside": outside, "truth_known": known is not None}
        if not n.any():
            from xptools import progress

            progress.warn(f"mf: no star is in any bin ({outside:,} outside), so every value is the prior's")
        if known is not None:
            with np.errstate(divide="ignore"):
                true = np.log10(words.true_phi(table, known))
            true = np.where(np.isfinite(true), true, np.nan)
            pull = (columns["log_phi"] - true.ravel()) / columns["log_phi_sd"]
            columns |= {"log_phi_true": true.ravel(), "pull": pull}
            seen = pull[np.isfinite(pull) & (n.ravel() > 0)]
            about |= {"pull_mean": float(seen.mean()) if len(seen) else np.nan,
                      "pull_sd": float(seen.std()) if len(seen) else np.nan}  # fmt: skip
        about["feh"] = words.per_feh(fit, self.segments, self.xi_upper, self.xi_method, self.seed, known)
        about = words.clean(about)
        words.unknown(about["feh"], self.slope_method, self.xi_upper)
        if self.report:
            words.write(self.report, about, columns)
        return {**columns, "meta": {KEY: about}}

    def _sensible(self, table: BinTable) -> None:
        """DataError if no bin has a volume."""
        from xptools.cores import mf

        if not mf.usable(table.veff).any():
            raise DataError("no bin has an effective volume, so there is nothing to infer. "
                            "TRY: xp veff with other --mass-edges, --feh-edges or a fainter --g-limit")  # fmt: skip

    def inferred(self, state: np.ndarray, table: BinTable, schema: pa.Schema | None = None):
        """Counts (B, K), stars outside, columns of the table, what the report needs, and how it was done."""
        n, outside = self._counts(state, table)
        return n, outside, *self._posterior(n, table)

    def _counts(self, state: np.ndarray, table: BinTable) -> tuple[np.ndarray, int]:
        import numpy as np

        B, K = table.veff.shape
        if state.shape[0] > B + 1 or state.shape[1] > K + 1:
            raise DataError(f"mass_bin or feh_bin points beyond the {B} x {K} bins of the effective volumes. "
                            "TRY: xp veff --replace")  # fmt: skip
        full = np.pad(state, [(0, B + 1 - state.shape[0]), (0, K + 1 - state.shape[1])])
        return full[1:, 1:], int(full[0, 0])

    def _posterior(self, n: np.ndarray, table: BinTable, mixing: np.ndarray | None = None):
        """Columns of the table, what the report needs, and how it was done; `mixing` (B, K, K) as cores/pairs.py."""
        import numpy as np

        from xptools.commands._mf_report import FORMAT, Fit
        from xptools.cores import mf

        use = mf.usable(table.veff)
        V, dM = table.veff[use], np.broadcast_to(table.width, use.shape)[use]
        offset, s = np.log(V * dM), np.nan_to_num(table.veff_err[use]) / V
        rng = np.random.default_rng((self.seed, 3))
        about = {"format": FORMAT, "method": self.method, "prior": self.prior, "segments": list(self.segments),
                 "slope_method": self.slope_method, "convergence": None}  # fmt: skip
        if self.method == "nuts" and len(V):
            draws, (mean, sd, levels), rhat, ess, about["convergence"] = self._sampled(n[use], offset, s, mixing, use)
            phi, phi_err = np.exp(draws).mean(axis=0), np.exp(draws).std(axis=0)
        else:
            mean, sd, levels = mf.exact(n[use], offset, s, self.prior)
            phi, phi_err = mf.moments(n[use], offset, s, self.prior)
            rhat = ess = np.full(len(V), np.nan)
        values = {"phi": phi, "phi_err": phi_err, **mf.named(mean, sd, levels), "rhat": rhat, "ess": ess}
        full = {name: _scattered(v, use) for name, v in values.items()}
        every = np.full((self.chains * self.draws, *use.shape), np.nan)
        every[:, use] = draws if mixing is not None else mf.draw(n[use], offset, s, rng, len(every), "ratio")
        fit = Fit(n, table, every, full["log_phi"], full["log_phi_sd"], mixing=mixing)
        return self.columns(table, n, full), fit, about

    def columns(self, table: BinTable, n: np.ndarray, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The result's columns (B K,) of counts and values (B, K)."""
        import numpy as np

        from xptools.cores import mf

        use = mf.usable(table.veff)
        flag = np.where(use, 0, NO_VOLUME) | np.where(~use & (n > 0), STRAY, 0)
        out = _edges(table) | {"n": n, "veff": table.veff, "veff_err": table.veff_err, **values, "mf_flag": flag}
        return {name: np.ravel(v) for name, v in out.items()}

    def _sampled(self, n, offset, s, mixing, use):
        """NUTS: draws of ln Phi, their summary, R-hat, effective sizes and how it went."""
        import numpy as np
        from scipy.linalg import block_diag

        from xptools.cores import mf, nuts

        if mixing is not None:
            mixing = block_diag(*mixing)[np.ix_(use.ravel(), use.ravel())]
        got = nuts.sample(n, offset, s, self.seed, chains=self.chains, warmup=self.warmup, draws=self.draws,
                          target_accept=self.target_accept, prior=self.prior, mixing=mixing)  # fmt: skip
        draws = got.ln_phi.reshape(-1, got.ln_phi.shape[-1])
        return draws, mf.summary(draws), got.rhat, got.ess, self.checked(got)

    def checked(self, got: Sampled) -> dict[str, Any]:
        """How the sampler fared, for the report; ComputeError if it did not converge, unless --force."""
        trouble = got.trouble()
        if trouble and not self.force:
            length = f"{self.chains} chains of {self.warmup} + {self.draws}"
            raise ComputeError(
                f"the sampler has not converged: {'; '.join(trouble)}. {length}. "
                f"TRY: more --warmup and --draws, {self.otherwise}or --force"
            )
        if doubt := got.doubt():
            from xptools import progress

            progress.warn(f"mf: {doubt}. TRY: {self.otherwise}--target-accept 0.995")
        return {"chains": self.chains, "warmup": self.warmup, "draws": self.draws, "rhat_max": float(got.rhat.max()),
                "ess_min": float(got.ess.min()), "divergences": got.divergences, "bfmi": got.bfmi,
                "trouble": trouble}  # fmt: skip


def _numbers(name: str, values: np.ndarray, before: int) -> np.ndarray:
    """Numbers of bins as integers, unknown ones as -1; DataError for a fraction, `before` rows having passed."""
    import numpy as np

    if values.dtype.kind in "iu":
        return values.astype(np.int64)
    whole = np.nan_to_num(values, nan=-1)
    if (wrong := np.flatnonzero(np.isinf(values) | (np.floor(whole) != whole))).size:
        what = f"{name} is {values[wrong[0]]:g}, which is no number of a bin"
        raise DataError(f"{what}. Row {before + wrong[0] + 1:,}. TRY: xp veff --replace, which numbers the bins again")
    return whole.astype(np.int64)


def _edges(table: BinTable) -> dict[str, np.ndarray]:
    import numpy as np

    (B, K), m, f = table.veff.shape, table.mass_edges, table.feh_edges
    return {"feh_lo": np.repeat(f[:-1], K), "feh_hi": np.repeat(f[1:], K), "mass_lo": np.tile(m[:-1], B),
            "mass_hi": np.tile(m[1:], B), "mass": np.tile(table.centre, B)}  # fmt: skip


def _scattered(values: np.ndarray, use: np.ndarray) -> np.ndarray:
    import numpy as np

    full = np.full(use.shape, np.nan)
    full[use] = values
    return full


def _stated(schema: pa.Schema):
    """The true mass function of `xp mock`'s metadata."""
    from xptools import metadata
    from xptools.cores.imf import PiecewiseIMF

    stated = metadata.value_of(schema, "xp.mock") or {}
    if "phi" not in stated:
        raise DataError("--truth: the table states no true mass function (key xp.mock). TRY: a table made by xp mock")
    return PiecewiseIMF.from_dict(stated["phi"])
