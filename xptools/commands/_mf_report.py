"""What `xp mf` says beside its table: slopes, mass ratios, reference curves and the truth; as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from xptools.cores.bins import BinTable
    from xptools.cores.imf import PiecewiseIMF

FORMAT = 1
LOWER, SPLIT = 0.2, 0.5  # Msun, limits of xi_MR (Li+ 2026 eq. 10)


@dataclass(frozen=True)
class Fit:
    """Counts (B, K), volumes, draws of ln Phi for ratios (D, B, K), mean and sd of log10 Phi (B, K); NaN: no volume.

    `counted`: the counts are Poisson about Phi V dM; else errors stand between them, and the draws say all.
    `mixing` (B, K, K): stars counted in a bin for every one expected in another, where pairs are undone.
    """

    n: np.ndarray
    table: BinTable
    ln_phi: np.ndarray
    log_phi: np.ndarray
    log_phi_sd: np.ndarray
    counted: bool = True
    mixing: np.ndarray | None = None
    all_stars: np.ndarray | None = None  # draws (D, B, K) of ln Phi of all stars, companions counted

    def alphas(self, b: int, segments, seed: int) -> np.ndarray:
        """Draws (D, S) of the slopes of a [Fe/H] bin."""
        import numpy as np

        from xptools.cores.slopes import PoissonSlopes, lines

        if not self.counted:
            return lines(self.table.centre, self.ln_phi[:, b], self.log_phi_sd[b], segments)
        mixing = None if self.mixing is None else self.mixing[b]
        law = PoissonSlopes(self.table, b, segments, mixing=mixing)
        drawn = law.draws(self.n[b], np.random.default_rng((seed, 2, b)))
        return drawn[:, len(segments) - 1 :]

    def stars(self, b: int) -> np.ndarray:
        """Stars (K,) that a [Fe/H] bin has, those that errors brought or took undone."""
        import numpy as np

        if self.counted:
            return self.n[b]
        return np.nan_to_num(10 ** self.log_phi[b] * self.table.veff[b] * self.table.width)


def per_feh(fit: Fit, segments, upper: float, xi_method: str, seed: int, truth: PiecewiseIMF | None) -> list[dict]:
    """One entry per [Fe/H] bin: slopes by three recipes, xi_MR by two, reference curves, the truth if known."""
    out = []
    for b, (lo, hi) in enumerate(pairwise(fit.table.feh_edges.tolist())):
        slopes, modes = _slopes(fit, b, segments, seed)
        entry = {
            "feh_lo": lo, "feh_hi": hi, "feh": 0.5 * (lo + hi), "n": int(fit.n[b].sum()), "slopes": slopes,
            "xi": _ratio(fit, b, segments, modes, upper, xi_method), "references": _references(fit, b, upper),
        }  # fmt: skip
        if fit.all_stars is not None:
            entry["all_stars"] = _all_slopes(fit, b, segments)
        out.append(entry | ({"truth": _truth(fit.table, b, segments, upper, truth)} if truth else {}))
    return out


def unknown(entries: list[dict], method: str, upper: float) -> None:
    """A warning for every slope, and for xi_MR, that bins of [Fe/H] do not have."""
    from xptools.progress import warn

    one = {"poisson": "mean"}.get(method, "alpha")
    for s, segment in enumerate(entries[0]["slopes"]):
        if lost := sum(entry["slopes"][s][method][one] is None for entry in entries):
            between = f"between {segment['mass_lo']:g} and {segment['mass_hi']:g} Msun"
            warn(f"mf: the slope {between} is unknown in {lost} of {len(entries)} bins of [Fe/H]: too few bins there")
    if lost := sum(entry["xi"]["value"]["mean"] is None for entry in entries):
        reach = f"bins from {LOWER:g} to {upper:g} Msun are wanted"
        warn(f"mf: xi_MR is unknown in {lost} of {len(entries)} bins of [Fe/H]: {reach}")


def _spread(draws) -> dict[str, float]:
    import numpy as np

    from xptools.cores.mf import LEVELS

    if not np.all(np.isfinite(draws)):
        return dict.fromkeys(("mean", "sd", "median", "lo", "hi", "lo95", "hi95"), float("nan"))
    median, lo, hi, lo95, hi95 = np.quantile(draws, LEVELS)
    return {"mean": float(draws.mean()), "sd": float(draws.std()), "median": float(median), "lo": float(lo),
            "hi": float(hi), "lo95": float(lo95), "hi95": float(hi95)}  # fmt: skip


def _slopes(fit: Fit, b: int, segments, seed: int):
    """alpha of every segment by the Poisson likelihood and by lines, weighted and not; and its posterior means (S,)."""
    import numpy as np

    from xptools.cores.slopes import least_squares

    drawn, out = fit.alphas(b, segments, seed), []
    for s, segment in enumerate(pairwise(segments)):
        lines = {}
        for name, sigma in (("weighted", fit.log_phi_sd[b]), ("unweighted", None)):
            alpha, err = least_squares(fit.table.centre, fit.log_phi[b], sigma, segment)
            lines[name] = {"alpha": alpha, "err": err}
        out.append({"mass_lo": segment[0], "mass_hi": segment[1], "poisson": _spread(drawn[:, s]), **lines})
    return out, np.clip(np.nan_to_num(drawn.mean(axis=0)), -6.0, 6.0)


def _all_slopes(fit: Fit, b: int, segments) -> list[dict]:
    """Slopes of all stars' function, companions counted: lines through the bin centres of every draw."""
    from xptools.cores.slopes import lines

    drawn = lines(fit.table.centre, fit.all_stars[:, b], fit.log_phi_sd[b], segments)
    return [{"mass_lo": lo, "mass_hi": hi, **_spread(drawn[:, s])} for s, (lo, hi) in enumerate(pairwise(segments))]


def _ratio(fit: Fit, b: int, segments, alpha, upper: float, method: str) -> dict:
    """xi_MR with Phi flat inside the bins (eq. 10) and shaped by the fitted slopes; "value" is the chosen one."""
    import numpy as np

    from xptools.cores.massratio import flat_moments, mass_ratio, shaped_moments

    edges, breaks = fit.table.mass_edges, tuple(segments[1:-1])
    needed = (edges[1:] > LOWER) & (edges[:-1] < upper)
    phi = np.exp(fit.ln_phi[:, b])
    if edges[0] > LOWER or edges[-1] < upper or not np.all(np.isfinite(phi[:, needed])):
        phi = np.full_like(phi, np.nan)
    moments = {
        "flat": np.stack([flat_moments(edges, LOWER, hi) for hi in (SPLIT, upper)]),
        "shaped": np.stack([shaped_moments(fit.table, b, alpha, breaks, LOWER, hi) for hi in (SPLIT, upper)]),
    }
    both = {name: _spread(mass_ratio(phi[:, needed], m[:, needed])) for name, m in moments.items()}
    return {"lower": LOWER, "split": SPLIT, "upper": upper, "method": method, "value": both[method], **both}


def _references(fit: Fit, b: int, upper: float) -> dict:
    """Known mass functions with as many expected stars as were counted: log10 Phi (K,), xi_MR, Pearson's chi-square."""
    import numpy as np

    from xptools.cores.imf import REFERENCES, mass_ratio
    from xptools.cores.mf import usable

    edges, width = fit.table.mass_edges, fit.table.width
    use, out = usable(fit.table.veff[b]), {}
    for name, law in REFERENCES.items():
        shape = law.integrate(edges[:-1], edges[1:], 0.0)
        expected = np.where(use, shape * np.where(use, fit.table.veff[b], 0.0), 0.0)
        expected = expected if fit.mixing is None else fit.mixing[b] @ expected
        n = fit.stars(b)
        stars = n[use].sum()
        scale = stars / expected.sum() if expected.sum() > 0 and stars > 0 else np.nan
        chi2 = np.sum((n[use] - scale * expected[use]) ** 2 / (scale * expected[use])) if stars else np.nan
        out[name] = {"log_phi": (np.log10(scale * shape / width)).tolist(), "xi": mass_ratio(law, upper),
                     "chi2": float(chi2), "bins": int(use.sum())}  # fmt: skip
    return out


def true_phi(table: BinTable, truth: PiecewiseIMF) -> np.ndarray:
    """The stated Phi (B, K) as the mean over each bin that the counts see: int Phi V dM / int V dM."""
    import numpy as np

    out = np.full(table.veff.shape, np.nan)
    for b, (lo, hi) in enumerate(pairwise(table.feh_edges)):
        for k, (m0, m1) in enumerate(pairwise(table.mass_edges)):
            m = m0 + (m1 - m0) * (np.arange(400) + 0.5) / 400
            V = table.volume(b, k, m)
            if V.sum() > 0:
                out[b, k] = np.sum(truth.phi(m, lo, hi) * V) / np.sum(V)
    return out


def _truth(table: BinTable, b: int, segments, upper: float, truth: PiecewiseIMF) -> dict:
    """Slopes and xi_MR of the stated mass function, all its [Fe/H] cells in the bin together."""
    import numpy as np

    from xptools.cores.slopes import PoissonSlopes

    lo, hi = table.feh_edges[b], table.feh_edges[b + 1]
    expected = true_phi(table, truth)[b] * table.veff[b] * table.width
    fit = PoissonSlopes(table, b, segments)
    S = len(segments) - 1
    alpha = [None] * S
    if expected[fit.use].sum() > 0:
        # counts far above any real sample: the mode is the slope, no prior left
        alpha = fit.mode(expected[fit.use] * (1e9 / expected[fit.use].sum()))[0][S:].tolist()
    m = np.linspace(LOWER, upper, 20_001)
    m = 0.5 * (m[1:] + m[:-1])
    mass = m * truth.phi(m, lo, hi)
    xi = float(mass[m < SPLIT].sum() / mass.sum()) if mass.sum() > 0 else None
    return {"alpha": alpha, "xi": xi}


def clean(value: Any) -> Any:
    """The same with NaN and infinity as None: JSON knows neither."""
    import math

    if isinstance(value, dict):
        return {k: clean(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [clean(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def write(path: str, about: dict, columns: dict[str, np.ndarray]) -> None:
    """The report as JSON (schema: data/mf_report.schema.json), whole or not at all."""
    import json
    import os
    import tempfile
    from pathlib import Path

    from xptools.errors import OutputError

    names = list(columns)
    rows = [dict(zip(names, row, strict=True)) for row in zip(*(columns[n].tolist() for n in names), strict=True)]
    text = json.dumps(clean({"report": "xp.mf", **about, "bins": rows}), indent=1) + "\n"
    target = Path(path)
    try:
        if target.exists() and not target.is_file():
            target.write_text(text)
            return
        with tempfile.NamedTemporaryFile("w", dir=target.parent, prefix=f".{target.name}.", delete=False) as part:
            part.write(text)
            part.flush()
            os.fsync(part.fileno())
        os.chmod(part.name, 0o666 & ~_umask())
        os.replace(part.name, target)
    except OSError as fault:
        words = f"cannot write the report: {fault.strerror}"
        raise OutputError(f"{words}. {path}. TRY: --report in an existing folder") from None


def _umask() -> int:
    import os

    mask = os.umask(0)
    os.umask(mask)
    return mask
