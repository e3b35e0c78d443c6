"""`xp eta`: how much likelier a star is metal-poor than metal-rich, by its place and motion."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import click

from xptools.columns import ASTROMETRY, Column, error
from xptools.errors import MissingColumns, UsageError
from xptools.options import row_command, shared
from xptools.protocol import RowOp
from xptools.stamp import stamp

DEFAULT = Path(__file__).parent.parent / "data" / "eta_demo.safetensors"
ERRORS = ("parallax_error", "pmra_error", "pmdec_error")
ZERO = "parallax_zero_point"


VT_RA = Column("float32", "km.s**-1", "phys.veloc.transverse", "Velocity across the line of sight, eastwards")
VT_DEC = Column("float32", "km.s**-1", "phys.veloc.transverse", "Velocity across the line of sight, northwards")
ETA = Column("float32", None, "stat.likelihood", "log10 of the odds of being metal-poor, by place and motion [dex]")


@dataclass(frozen=True)
class Eta(RowOp):
    """eta = log10 [n(ra, dec, v_ra, v_dec | [Fe/H] < split) / n(.. | [Fe/H] > split)], Li+ 2026 Eqs. 1-2."""

    model: str = ""
    split: float = -1.0
    zero_point: bool = False

    name: ClassVar[str] = "eta"
    needs: ClassVar = ("ra", "dec", "pmra", "pmdec", "parallax")
    wants: ClassVar = (*ERRORS, *ASTROMETRY, ZERO)
    adds: ClassVar = {
        "vt_ra": VT_RA,
        "vt_ra_err": error(VT_RA, "velocity vt_ra"),
        "vt_dec": VT_DEC,
        "vt_dec_err": error(VT_DEC, "velocity vt_dec"),
        "eta": ETA,
        "eta_joint": Column("float32", None, "stat.likelihood", "eta with the numbers of stars on both sides [dex]"),
        "eta_err": Column("float32", None, "stat.error", "Standard error of eta from parallax and proper motion [dex]"),
    }
    flags: ClassVar = {
        1: "parallax missing or not positive",
        2: "position or proper motion missing",
        4: "faster than any velocity the model was trained on: scored at that velocity",
        8: "where the model has fewer than 1 in 1000 of its stars: extrapolated",
        16: "an error of parallax or proper motion missing: no eta_err",
        32: "parallax below 5 times its error: eta_err, linear in the errors, is crude",
    }
    cites: ClassVar = ("li2026",)

    def files(self):
        return {"model": self.model or str(DEFAULT)}

    def reads(self, schema):
        found = super().reads(schema)
        if self.zero_point and ZERO not in found:
            raise MissingColumns(self.name, (ZERO,), tuple(schema.names))
        self._scorer()
        return found

    def _scorer(self):
        path = Path(self.files()["model"])
        return _loaded(path, stamp(path), self.split)

    def compute(self, ra, dec, pmra, pmdec, parallax, **columns):
        import numpy as np

        from xptools import settings
        from xptools.cores import astrometry, eta

        parallax = parallax - columns[ZERO] if self.zero_point else parallax
        parallax = np.where(np.isfinite(parallax) & (parallax > 0), parallax, np.nan)
        motion = np.isfinite(ra) & np.isfinite(dec) & np.isfinite(pmra) & np.isfinite(pmdec)
        pmra, pmdec = np.where(motion, pmra, np.nan), np.where(motion, pmdec, np.nan)
        nothing = np.full(len(ra), np.nan)
        errors = [nothing if columns[n] is None else columns[n] for n in ERRORS]
        correlations = [0.0 if columns[n] is None else np.nan_to_num(columns[n]) for n in ASTROMETRY]
        covariance = astrometry.tangential_covariance(pmra, pmdec, parallax, errors, correlations)
        v = [astrometry.tangential(pm, parallax) for pm in (pmra, pmdec)]
        out = eta.score(self._scorer(), ra, dec, *v, covariance, settings.threads(), on_gpu=settings.device() == "cuda")
        with np.errstate(invalid="ignore"):
            flag = out.pop("flag") | eta.NO_PARALLAX * np.isnan(parallax) | eta.NO_MOTION * ~motion
            flag |= eta.NO_ERROR * (np.isnan(out["eta_err"]) & ~np.isnan(out["eta"]))
            flag |= eta.CRUDE * (parallax < eta.LEAST_SN * errors[0])
            sigma = [np.sqrt(c) for c in covariance[::2]]
        velocities = {"vt_ra": v[0], "vt_ra_err": sigma[0], "vt_dec": v[1], "vt_dec_err": sigma[1]}
        return velocities | out | {"eta_flag": flag.astype(np.int16)}


@lru_cache(maxsize=4)
def _loaded(path: Path, _stamp: int, split: float):
    """The model of a file as it is now: one that was trained again under the same name is read again."""
    from xptools.artefact import load
    from xptools.cores.eta import Scorer

    try:
        return Scorer(load(path, "eta").arrays, split)
    except ValueError as fault:
        raise UsageError(f"--split {split:g}: {fault}. {path}. TRY: xp info {path}") from fault


@row_command(
    "catalogue",
    30,
    examples=(
        "xp eta stars.parquet -o scored.parquet",
        "xp eta --model halo.safetensors stars.parquet | xp select --eta-ratio 10 -o halo.parquet",
        "xp deredden --map none --zero-point lindegren2021 stars.parquet | xp eta --zero-point -o scored.parquet",
    ),
    see=("train", "select", "plot", "veff"),
    notes={
        "THE SCALE OF ETA": """eta cannot be large. The density of the metal-rich counts stars just above the split, and
some of these move as the halo does; where only such stars are, eta is the ratio of their shares in both samples, 2 to
3 for the solar neighbourhood, however fast the star. (Where the model has hardly any stars it extrapolates, bit 8, and
eta may be anything.) The paper's "eta > 10" is read as a ratio: 10**eta > 10, that is xp select --eta-ratio 10. The
paper kept 1.33 % of its stars: --eta-quantile 0.0133. For a quantile eta and eta_joint are alike: they differ by
log10(n_rich / n_poor) of the training sample.""",
        "IS THE CUT FAIR TO ALL MASSES?": """In the mock, where motions do not depend on mass, 10**eta > 10 keeps 74 %
of the halo stars of every mass. What is not fair is a wrong parallax, which makes a star both slow and light: of these
8 % are kept, and they are 1 star in 100, but 1 in 10 of those that seem to have 0.15 to 0.2 Msun. So the cut alone
makes the slope alpha1 of the mass function flatter by 0.056 +- 0.004; after xp select --fidelity 0.5 it makes it
steeper by 0.012 +- 0.003. With the share kept per bin (xp plot eta --kind completeness, of other stars) in xp veff
--eta-completeness, 0.000 +- 0.005 and 0.006 +- 0.005 are left: make -C examples/eta.""",
        "METHOD": """The mixture is evaluated at every cell of 0.02 dex of the training sample's [Fe/H], weighted with
the giants in it. Less will not do: 24 nodes of Gauss quadrature on either side leave one star in a thousand 0.005 dex
off. All 3,000 Gaussians are summed, in float32, to 1e-5 dex, at 0.6 million stars per core-second, 50 times the rate
of zuko (tests/bench/bench_eta.py); with --device cuda the same sum runs in JAX.""",
        "ERRORS": """eta_err is the slope of eta by (v_ra, v_dec) times their covariance, from the errors of parallax
and proper motion and, if the columns are there, their correlations (else 0). Position errors do not matter. Where
eta bends within the error, as at its lowest and highest values, the true distribution is not normal.""",
    },
)
@shared("model")
@click.option("--split", type=float, default=-1.0, show_default=True,
              help="[Fe/H] that parts metal-poor from metal-rich [dex].")  # fmt: skip
@click.option("--zero-point", is_flag=True,
              help="Subtract the column parallax_zero_point (xp deredden --zero-point) from the parallax.")  # fmt: skip
def command(model, split, zero_point):
    """Append tangential velocities and eta, the odds that a star's motion is that of metal-poor stars.

    A model of xp train eta gives the density of stars of each [Fe/H] in (ra, dec, v_ra, v_dec). eta is log10 of that
    density below --split over that above it, each normalised; eta_joint weighs them with how many giants were on each
    side. v = 4.74 mu / parallax. No [Fe/H] of the star itself is used: what holds for giants is taken to hold for all
    masses (Li+ 2026).

    Without --model a demonstration model is used. It is trained on giants of xp mock, so its Galaxy is that of xp mock
    and not the real one: for real stars train a model on real giants.
    """
    return Eta(model=model, split=split, zero_point=zero_point)
