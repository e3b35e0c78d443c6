"""Mass and photometric [M/H] from (M_G0, (BP-RP)_0): a network that inverts isochrones (Li+ 2026 App. C.1).

    (M, [M/H]) = f((M_G0 - 7)/3, ((BP-RP)_0 - 1.5)/0.8),   or M = f(.., .., [M/H] + 1) with spectroscopic metallicity
    sigma_M^2  = (dM/dM_G0 sigma_MG0)^2 + (dM/d(BP-RP)_0 sigma_BPRP)^2 + s(M_G0)^2

s is the model's own held-out scatter as a function of M_G0: what age (and, near the turn-off, the folding of the
sequence) leaves open. Correlation between the two photometric errors is neglected.

The two-input network is looked up: it is evaluated once, on 0.04 x 0.02 mag, and interpolated bilinearly, within 1e-3
Msun and 0.02 dex of the network itself (on average 1e-4 and 1e-3), and far faster. The Jacobian is the interpolant's.
"""

import numpy as np

from xptools.cores import nn

NOT_MAIN_SEQUENCE, OUTSIDE_HULL, MISSING, DISAGREES = 1, 2, 4, 8
BRIGHTEST = 4.0  # M_G0 of the faintest star that may have left the main sequence (Li+ 2026 Table 1)
STEP = (0.04, 0.02)  # of the looked-up table [mag]
MARGIN = (1.0, 0.5)  # by which the table extends beyond the training hull [mag]
CHUNK = 4096  # rows of the direct evaluation: one shape, so that a row's bits are its own


class Emulator:
    """A trained model, ready for stars: arrays as in the model file.

    net.*: weights; norm.mean, norm.scale (2 or 3,): inputs; norm.out_mean, norm.out_scale (2 or 1,): outputs;
    hull.M_G, hull.blue, hull.red (K,): extent in colour at each M_G; error.M_G (B,), error.rms (B, 2 or 1): s.
    """

    def __init__(self, arrays: dict[str, np.ndarray]):
        self.arrays = arrays
        self.net = nn.unflatten(arrays)
        self.takes_mh = len(arrays["norm.mean"]) == 3
        self._corners: np.ndarray | None = None
        hull = arrays["hull.M_G"], arrays["hull.blue"], arrays["hull.red"]
        self.low = np.array([hull[0].min() - MARGIN[0], hull[1].min() - MARGIN[1]], np.float32)
        self.high = np.array([hull[0].max() + MARGIN[0], hull[2].max() + MARGIN[1]], np.float32)
        self.shape = tuple(int(n) for n in np.ceil((self.high - self.low) / STEP) + 1)
        self._magnitudes = self._by_magnitude()

    def network(self, *inputs: np.ndarray) -> np.ndarray:
        """(N, 2) mass [Msun] and [M/H], or (N, 1) mass: the network itself, without the table."""
        a = self.arrays
        x = (np.stack(inputs, -1).astype(np.float32) - a["norm.mean"]) / a["norm.scale"]
        return nn.apply(self.net, x) * a["norm.out_scale"] + a["norm.out_mean"]

    def _by_magnitude(self) -> np.ndarray:
        """(rows of the table, 2 + outputs): bluest and reddest training colour and the held-out RMS at each M_G0."""
        a, at = self.arrays, self.low[0] + np.arange(self.shape[0]) * STEP[0]
        hull = [np.interp(at, a["hull.M_G"], a[f"hull.{s}"]) for s in ("blue", "red")]
        scatter = [np.interp(at, a["error.M_G"], rms) for rms in a["error.rms"].T]
        return np.stack([*hull, *scatter], -1).astype(np.float32)

    def along(self, M_G0: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Bluest and reddest colour [mag] of the hull (NaN off its magnitudes) and s (outputs, N) at M_G0 (N,)."""
        x = (np.asarray(M_G0, np.float32) - self.low[0]) / np.float32(STEP[0])
        x = np.where(x >= 0, np.minimum(x, np.float32(self.shape[0] - 1.001)), np.float32(0))
        i = x.astype(np.int32)
        u = (x - i)[:, None]
        value = ((1 - u) * self._magnitudes.take(i, axis=0) + u * self._magnitudes.take(i + 1, axis=0)).T
        off = ~((M_G0 >= self.arrays["hull.M_G"][0]) & (M_G0 <= self.arrays["hull.M_G"][-1]))
        value[:2, off] = np.nan
        return value[0], value[1], value[2:]

    def __call__(self, M_G0, bp_rp0, mh=None) -> tuple[np.ndarray, np.ndarray]:
        """Values (outputs, N) and slopes (outputs, 2, N) by M_G0 and colour; NaN off the table or missing."""
        M_G0, bp_rp0 = (np.asarray(v, np.float32) for v in (M_G0, bp_rp0))
        if self.takes_mh:
            return self._direct(M_G0, bp_rp0, np.asarray(mh, np.float32))
        return self._looked_up(M_G0, bp_rp0)

    def _looked_up(self, M_G0, bp_rp0):
        if self._corners is None:
            self._corners = self._tabulated()
        x, y = (M_G0 - self.low[0]) / np.float32(STEP[0]), (bp_rp0 - self.low[1]) / np.float32(STEP[1])
        ok = (x >= 0) & (x < self.shape[0] - 1) & (y >= 0) & (y < self.shape[1] - 1)
        x, y = np.where(ok, x, np.float32(0)), np.where(ok, y, np.float32(0))
        i, j = x.astype(np.int32), y.astype(np.int32)
        u, v = x - i, np.where(ok, y - j, np.float32("nan"))
        corner = self._corners.take(i * np.int32(self.shape[1]) + j, axis=0)  # (N, 8): output fastest
        value, slope = np.empty((2, len(x)), np.float32), np.empty((2, 2, len(x)), np.float32)
        for k in range(2):
            near, right, far, both = corner[:, k], corner[:, 2 + k], corner[:, 4 + k], corner[:, 6 + k]
            low, high = near + v * (right - near), far + v * (both - far)
            value[k] = low + u * (high - low)
            slope[k, 0] = (high - low) / np.float32(STEP[0])
            slope[k, 1] = ((right - near) * (1 - u) + (both - far) * u) / np.float32(STEP[1])
        return value, slope

    def _tabulated(self) -> np.ndarray:
        """(cells, 8): the outputs at (0, 0), (0, 1), (1, 0), (1, 1) of every cell of the table."""
        axes = [low + np.arange(n) * s for low, n, s in zip(self.low, self.shape, STEP, strict=True)]
        flat = [g.ravel() for g in np.meshgrid(*axes, indexing="ij")]
        parts = [self.network(*(f[k : k + CHUNK] for f in flat)) for k in range(0, len(flat[0]), CHUNK)]
        t = np.pad(np.concatenate(parts), ((0, self.shape[1] + 1), (0, 0))).astype(np.float32)
        n, cells = self.shape[1], len(flat[0])
        return np.concatenate([t[:cells], t[1 : cells + 1], t[n : cells + n], t[n + 1 : cells + n + 1]], axis=1)

    def _direct(self, M_G0, bp_rp0, mh):
        a, n = self.arrays, len(M_G0)
        ok = (M_G0 >= self.low[0]) & (M_G0 <= self.high[0]) & np.isfinite(mh)
        ok &= (bp_rp0 >= self.low[1]) & (bp_rp0 <= self.high[1])
        x = np.zeros((-(-n // CHUNK) * CHUNK, 3), np.float32)
        x[:n] = np.where(ok[:, None], (np.stack([M_G0, bp_rp0, mh], -1) - a["norm.mean"]) / a["norm.scale"], 0)
        parts = [nn.apply_with_slopes(self.net, part) for part in x.reshape(-1, CHUNK, 3)]
        value = np.concatenate([p[0] for p in parts])[:n] * a["norm.out_scale"] + a["norm.out_mean"]
        slope = np.concatenate([p[1] for p in parts], 1)[:2, :n] * a["norm.out_scale"] / a["norm.scale"][:2, None, None]
        gone = np.where(ok, np.float32(0), np.float32("nan"))
        return value.T + gone, slope.transpose(2, 0, 1) + gone


def infer(model: Emulator, M_G0, bp_rp0, M_G0_err=None, bp_rp0_err=None, mh=None) -> dict[str, np.ndarray]:
    """mass, mass_err [Msun], mh_phot, mh_phot_err [dex] (two-input models) and flag bits, each (N,).

    `mh` is the spectroscopic [M/H] [dex]: an input of three-input models, otherwise only compared (bit 8). Missing
    errors count as zero. NaN and infinite inputs give NaN and bit 4.
    """
    missing = ~(np.isfinite(M_G0) & np.isfinite(bp_rp0))
    if model.takes_mh:
        missing |= ~np.isfinite(mh)
    with np.errstate(invalid="ignore", over="ignore"):
        value, slope = model(M_G0, bp_rp0, mh)
        sigma = [np.zeros(len(missing), np.float32) if e is None else np.nan_to_num(e) for e in (M_G0_err, bp_rp0_err)]
        variance = (slope[:, 0] * sigma[0]) ** 2 + (slope[:, 1] * sigma[1]) ** 2
        blue, red, scatter = model.along(M_G0)
        error = np.sqrt(variance + scatter**2)
    out = {"mass": value[0], "mass_err": np.where(np.isnan(value[0]), np.nan, error[0])}
    flag = MISSING * missing + NOT_MAIN_SEQUENCE * (M_G0 < BRIGHTEST)
    flag += OUTSIDE_HULL * (~((bp_rp0 >= blue) & (bp_rp0 <= red)) & ~missing)
    if not model.takes_mh:
        out |= {"mh_phot": value[1], "mh_phot_err": np.where(np.isnan(value[1]), np.nan, error[1])}
        if mh is not None:
            flag += DISAGREES * (np.abs(value[1] - mh) > 0.5)
    return out | {"flag": flag.astype(np.int16)}
