"""A toy universe of spectra for the tests of `xp feh`: smooth, quick, with the shapes and sizes of the real thing.

Not astrophysics: a black body, lines and blanketing that depend on all three labels, main-sequence labels, and noise
with a covariance that is far from diagonal, as XP's is.
"""

import numpy as np

from xptools.cores.extinction import black_body

WAVELENGTH = np.arange(392.0, 993.0, 10.0)
LINES = ((397.0, 12.0, 0.45), (431.0, 10.0, 0.3), (518.0, 14.0, 0.35), (589.0, 8.0, 0.2), (860.0, 16.0, 0.12))
BANDS = ((475.0, 25.0), (620.0, 25.0), (710.0, 25.0), (770.0, 20.0), (850.0, 25.0))


def labels(n, seed, spread=1.0):
    """Teff [K], M_G [mag], [Fe/H] (n,) of dwarfs: two numbers decide, age scatters M_G at the warm end."""
    rng = np.random.default_rng(seed)
    feh = np.clip(-0.3 - 0.45 * rng.gamma(1.2, 1.0, n) + rng.normal(0, 0.25, n), -2.5, 0.45)
    teff = rng.uniform(3400, 6000, n)
    x = (teff - 5000) / 1000
    M_G = 6.2 - 2.05 * x + 0.35 * x**2 - 0.35 * x**3 - 0.45 * (feh + 0.5) * (1 - 0.3 * x)
    older = np.minimum(spread * rng.exponential(0.2, n), 0.7) * np.clip((teff - 4800) / 1000, 0, 1)
    M_G = M_G + rng.normal(0, 0.08, n) - older
    return np.stack([teff, M_G, feh], -1)


def flux(theta, wavelength=WAVELENGTH):
    """(N, n) flux at 10 pc [W m-2 nm-1] of labels (N, 3): the absolute level is M_G's alone, as it should be."""
    teff, M_G, feh = (theta[:, k, None] for k in range(3))
    x = (teff - 5000) / 1000
    f = black_body(wavelength, teff)
    metals = 10 ** (0.45 * (feh + 0.5))
    gravity = 1 + 0.08 * (M_G - 6.2 + 2.05 * x)
    for centre, width, depth in LINES:
        cool = 1 / (1 + np.exp((teff - 5600) / 700))
        profile = np.exp(-0.5 * ((wavelength - centre) / width) ** 2)
        f = f * np.exp(-depth * metals * (0.4 + cool) * gravity * profile)
    f = f * np.exp(-0.25 * metals * np.exp(-(wavelength - 392) / 70))
    depth = 0.9 * 10 ** (0.3 * feh) / (1 + np.exp((teff - 3750) / 160))
    for centre, width in BANDS:
        f = f * np.exp(-depth * np.exp(-0.5 * ((wavelength - centre) / width) ** 2))
    band = np.exp(-0.5 * ((wavelength - 640) / 130) ** 2)
    return f / (f * band).mean(-1, keepdims=True) * 10 ** (-0.4 * M_G) * 2.5e-11


def noise_covariance(y, snr, seed=5):
    """(N, n, n) covariance: each star's errors rise to the blue and have lengths of correlation of a few samples."""
    n = y.shape[1]
    k = np.arange(n)
    near = np.exp(-0.5 * ((k[:, None] - k) / 2.2) ** 2)
    wave = np.cos(0.9 * k)[:, None] * np.cos(0.9 * k)
    shape = 0.6 * near + 0.3 * wave * np.exp(-(((k[:, None] - k) / 12.0) ** 2)) + 0.1 * np.eye(n)
    sigma = (0.5 + 1.5 * np.exp(-k / 12)) * np.median(y, -1)[:, None] / np.asarray(snr)[:, None]
    return shape * sigma[:, :, None] * sigma[:, None, :]


def spectra(n, seed, model=flux, snr=(30, 300), parallax_error=0.03):
    """Observed stars: labels, flux (n, 61), its covariance (n, 61, 61) [W m-2 nm-1], parallax and error [mas]."""
    rng = np.random.default_rng([seed, 1])
    theta = labels(n, seed)
    parallax = rng.uniform(2, 10, n)
    y = model(theta) * ((parallax / 100) ** 2)[:, None]
    cov = noise_covariance(y, np.exp(rng.uniform(*np.log(snr), n)))
    L = np.linalg.cholesky(cov / np.median(y) ** 2) * np.median(y)
    seen = y + np.einsum("nij,nj->ni", L, rng.normal(size=y.shape))
    error = np.full(n, parallax_error)
    return {
        "labels": theta, "flux": seen, "cov": cov, "parallax": parallax + error * rng.normal(size=n),
        "parallax_error": error,
    }  # fmt: skip
