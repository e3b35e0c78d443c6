"""Flux and its errors from the coefficients of Gaia's XP spectra (De Angeli+ 2023; Montegriffo+ 2023).

    f    = sum_X D_X^T c_X                      X = BP, RP; D_X with the merge weights inside (cores/xpdesign.py)
    Cov  = sum_X D_X^T C_X D_X,   C_X = diag(sigma_X) rho_X diag(sigma_X)

sigma are the archive's coefficient errors, which already carry the scatter s = sqrt(chi2 / dof) of the fit. The two
bands are independent. Cov is symmetric everywhere, in the bands' overlap too, where weights multiply from both sides.
A band whose coefficients are not all finite is missing: where the other band counts its flux stands alone, without
weight, elsewhere the flux is NaN. Units: flux W m^-2 nm^-1, covariance its square.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import numpy as np

from xptools import settings
from xptools.cores.xpdesign import DEFAULT_GRID, Design, design

LEAST_ROWS = 64  # per thread
FLOOR_BAND, FLOOR_FLUX, FLOOR_PIXEL = 0.001, 0.005, 0.005  # of the flux (Zhang, Green & Rix 2023)
FLOOR_EIGENVALUE = 1e-9 * 1e-36  # [(W m^-2 nm^-1)^2]


@dataclass(frozen=True, eq=False)
class Coefficients:
    """One band of N stars: values and errors (N, K), packed correlations (N, K (K - 1) / 2), bases used (N,).

    Correlations stand strictly below the diagonal row by row, (1,0), (2,0), (2,1) ...: the archive's order. errors or
    correlations are None where unknown; a star whose correlations are not all finite has none. used None: all K.
    """

    values: np.ndarray
    errors: np.ndarray | None = None
    correlations: np.ndarray | None = None
    used: np.ndarray | None = None

    @cached_property
    def known(self) -> np.ndarray:
        """Stars (N,) that have this band."""
        return _finite(self.values)

    @cached_property
    def measured(self) -> np.ndarray:
        """Stars (N,) that have this band with errors."""
        return self.known & _finite(self.errors) if self.errors is not None else np.zeros(len(self.values), np.bool_)

    def rows(self, rows: slice) -> Coefficients:
        """Some of the stars."""
        arrays = (self.values, self.errors, self.correlations, self.used)
        return Coefficients(*(a if a is None else a[rows] for a in arrays))


def flux(bp: np.ndarray, rp: np.ndarray, design: Design) -> np.ndarray:
    """Flux (N, n) from coefficients (N, K) of both bands."""
    return spectra(Coefficients(bp), Coefficients(rp), design)


def spectra(bp: Coefficients, rp: Coefficients, design: Design, parts: np.ndarray | None = None) -> np.ndarray:
    """Flux (N, n). `parts` (2, N, n), if given, is filled with what each band puts into it."""
    if settings.device() == "cuda":
        from xptools.cores._xpjax import flux_band
    else:
        from xptools.cores._xpkernels import flux_band
    out = np.zeros((len(bp.values), len(design.wavelength)))
    nothing = np.empty((0, 0))
    for place, (band, kind, *columns) in enumerate(_bands(bp, rp, design, _cut)):
        c, used = np.ascontiguousarray(band.values, np.float64), _used(band)
        part = nothing if parts is None else parts[place]

        def run(rows, c=c, used=used, kind=kind, columns=columns, part=part):
            flux_band(c[rows], used[rows], kind[rows], *columns, part[rows], out[rows])

        _threaded(run, len(out))
    out[_unseen(bp, rp, design)] = np.nan
    return out


def flux_variance(
    bp: Coefficients, rp: Coefficients, design: Design, correlated: np.ndarray | None = None
) -> np.ndarray:
    """Variance of the flux (N, n). `correlated` (N,) bool, if given, is made false for stars without correlations."""
    if settings.device() == "cuda":
        from xptools.cores._xpjax import variance_band

        prepared = _cut
    else:
        from xptools.cores._xpvariance import variance_band

        prepared = _products
    return _spread(variance_band, prepared, bp, rp, design, len(design.wavelength), correlated)


def flux_errors(bp: Coefficients, rp: Coefficients, design: Design) -> np.ndarray:
    """Standard error of the flux (N, n), from all correlations where there are any."""
    return np.sqrt(flux_variance(bp, rp, design))


def flux_covariance(
    bp: Coefficients, rp: Coefficients, design: Design, correlated: np.ndarray | None = None
) -> np.ndarray:
    """Covariance of the flux, packed as `pack` does, (N, n (n + 1) / 2); NaN where it is of an unknown flux.

    `correlated` as above.
    """
    from xptools.cores._xpcovariance import covariance_band

    n = len(design.wavelength)
    return _spread(covariance_band, _cut, bp, rp, design, n * (n + 1) // 2, correlated)


def with_floors(cov: np.ndarray, flux_bp: np.ndarray, flux_rp: np.ndarray) -> np.ndarray:
    """Covariance (N, n, n) with the error model of Zhang, Green & Rix 2023 added; flux_bp + flux_rp (N, n) is the flux.

    0.1 % common to each band, 0.5 % common to the whole, 0.5 % independent per wavelength, all of the flux; eigenvalues
    at least 1e-9 (1e-18 W m^-2 nm^-1)^2.
    """
    f = flux_bp + flux_rp
    out = cov + FLOOR_FLUX**2 * f[:, :, None] * f[:, None, :]
    for part in (flux_bp, flux_rp):
        out += FLOOR_BAND**2 * part[:, :, None] * part[:, None, :]
    diagonal = np.arange(f.shape[1])
    out[:, diagonal, diagonal] += (FLOOR_PIXEL * f) ** 2
    return lifted(out, FLOOR_EIGENVALUE)


def variance_with_floors(variance: np.ndarray, flux_bp: np.ndarray, flux_rp: np.ndarray) -> np.ndarray:
    """The diagonal (N, n) of what `with_floors` gives, eigenvalues apart."""
    f = flux_bp + flux_rp
    common = FLOOR_BAND**2 * (flux_bp**2 + flux_rp**2)
    return variance + common + (FLOOR_FLUX**2 + FLOOR_PIXEL**2) * f**2


def lifted(cov: np.ndarray, least: float) -> np.ndarray:
    """Covariance (N, n, n) whose eigenvalues are at least `least`; where they are already it is untouched."""
    from xptools.cores._xpkernels import positive

    fine = np.empty(len(cov), np.bool_)
    positive(cov, np.full(len(cov), least), fine)
    bad = np.flatnonzero(~fine & np.isfinite(cov).all(axis=(1, 2)))
    if len(bad):
        cov = cov.copy()
        for m in bad:
            values, vectors = np.linalg.eigh(cov[m])
            whole = (vectors * np.maximum(values, least)) @ vectors.T
            cov[m] = 0.5 * (whole + whole.T)
    return cov


def pack(cov: np.ndarray) -> np.ndarray:
    """The lower triangle with its diagonal, (0,0), (1,0), (1,1), (2,0) ...: (..., n, n) -> (..., n (n + 1) / 2)."""
    return cov[(..., *np.tril_indices(cov.shape[-1]))]


def unpack(packed: np.ndarray, n: int) -> np.ndarray:
    """The symmetric matrices (..., n, n) of packed lower triangles."""
    i, j = np.tril_indices(n)
    out = np.empty((*packed.shape[:-1], n, n), packed.dtype)
    out[..., i, j] = packed
    out[..., j, i] = packed
    return out


def coefficient_covariance(errors: np.ndarray, correlations: np.ndarray | None) -> np.ndarray:
    """C (N, K, K) of coefficient errors (N, K) and packed correlations: the plain form of what the kernels do."""
    K = errors.shape[1]
    rho = np.tile(np.eye(K), (len(errors), 1, 1))
    if correlations is not None:
        i, j = np.tril_indices(K, -1)
        rho[:, i, j] = correlations
        rho[:, j, i] = correlations
    return errors[:, :, None] * rho * errors[:, None, :]


def _spread(kernel, prepared, bp, rp, design, width, correlated) -> np.ndarray:
    """Variance or covariance of both bands, NaN where the flux or an error is unknown."""
    out = np.zeros((len(bp.values), width))
    correlated = np.ones(len(out), np.bool_) if correlated is None else correlated
    for band, kind, *columns in _bands(bp, rp, design, prepared):
        kind = np.where(band.measured, kind, 0).astype(np.int8)
        sigma = np.ascontiguousarray(band.values if band.errors is None else band.errors, np.float64)
        used, rho = _used(band), _correlations(band)

        def run(rows, sigma=sigma, used=used, kind=kind, columns=columns, rho=rho):
            kernel(sigma[rows], rho[rows], used[rows], kind[rows], *columns, out[rows], correlated[rows])

        _threaded(run, len(out))
    unseen = _unseen(bp, rp, design)
    unseen |= ((bp.known & ~bp.measured) | (rp.known & ~rp.measured))[:, None]
    some = np.flatnonzero(unseen.any(axis=1))
    if width != unseen.shape[1]:
        i, j = np.tril_indices(unseen.shape[1])
        unseen = unseen[some][:, i] | unseen[some][:, j]
    else:
        unseen = unseen[some]
    out[some] = np.where(unseen, np.nan, out[some])
    return out


def _correlations(band: Coefficients) -> np.ndarray:
    """Packed correlations (N, K (K - 1) / 2), float32 as in the archive; (N, 0) if there are none."""
    if band.correlations is None:
        return np.empty((len(band.values), 0), np.float32)
    return np.ascontiguousarray(band.correlations, np.float32)


def _finite(block: np.ndarray) -> np.ndarray:
    """Rows (N,) of a block (N, K) without NaN or infinity."""
    from xptools.cores._xpkernels import finite_rows

    found = np.empty(len(block), np.bool_)
    finite_rows(np.ascontiguousarray(block, np.result_type(block.dtype, np.float32)), found)
    return found


def _used(band: Coefficients) -> np.ndarray:
    N, K = band.values.shape
    if band.used is None:
        return np.full(N, K, np.int64)
    # an unknown or absurd number of bases truncates nothing
    used = np.nan_to_num(np.asarray(band.used, np.float64), nan=K, posinf=K, neginf=K)
    return np.where((used >= 1) & (used <= K), used, K).astype(np.int64)


def _bands(bp: Coefficients, rp: Coefficients, design: Design, prepared):
    """Per band: coefficients, kind (N,) as in `flux_band`, both matrices cut to where it counts, those columns.

    `prepared(design, name)` makes what stands for a matrix.
    """
    has_bp, has_rp = bp.known, rp.known
    for band, has, other, name in ((bp, has_bp, has_rp, "bp"), (rp, has_rp, has_bp, "rp")):
        at = _columns(design, name)
        if not len(at):
            continue
        kind = np.where(has, np.where(other, 1, 2), 0).astype(np.int8)
        both = prepared(design, name)
        yield band, kind, both, prepared(design, f"{name}_alone") if (kind == 2).any() else both, at


def _columns(design: Design, name: str) -> np.ndarray:
    """Where on the grid a band counts."""
    return np.flatnonzero(getattr(design, f"w_{name[:2]}") > 0)


@lru_cache(maxsize=32)
def _cut(design: Design, name: str) -> np.ndarray:
    """A matrix where its band counts; zero columns up to a multiple of eight, so that loops have no ends to mend."""
    D = getattr(design, name)[:, _columns(design, name)]
    return np.ascontiguousarray(np.pad(D, ((0, 0), (0, -D.shape[1] % 8))))


@lru_cache(maxsize=32)
def _products(design: Design, name: str) -> tuple[np.ndarray, float]:
    """The same as variances need it."""
    from xptools.cores._xpvariance import products

    return products(getattr(design, name)[:, _columns(design, name)])


def _unseen(bp: Coefficients, rp: Coefficients, design: Design) -> np.ndarray:
    """Where (N, n) no band of the star counts."""
    has_bp, has_rp = bp.known, rp.known
    # a star with both bands has flux everywhere; one with BP alone has none at and beyond 643 nm, as in GaiaXPy
    unseen = np.zeros((len(has_bp), len(design.wavelength)), np.bool_)
    some = np.flatnonzero(~(has_bp & has_rp))
    unseen[some] = ~(has_bp[some, None] & (design.w_bp > 0) | has_rp[some, None] & (design.w_rp > 0))
    return unseen


def _threaded(run, rows: int) -> None:
    """`run(slice)` over all rows, on every core this process may use; a GPU gets them at once."""
    threads = 1 if settings.device() == "cuda" else min(settings.threads(), max(1, rows // LEAST_ROWS))
    if threads == 1:
        return run(slice(0, rows))
    edges = np.linspace(0, rows, threads + 1).astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(run, [slice(a, b) for a, b in pairwise(edges)]))


__all__ = [
    "DEFAULT_GRID",
    "Coefficients",
    "Design",
    "coefficient_covariance",
    "design",
    "flux",
    "flux_covariance",
    "flux_errors",
    "flux_variance",
    "lifted",
    "pack",
    "spectra",
    "unpack",
    "variance_with_floors",
    "with_floors",
]
