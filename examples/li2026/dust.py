"""A dust map for the mock universe, in the format of Edenhofer+ (2023): `python dust.py dust.fits`.

An exponential layer with the Sun in its plane, 0.1 in E per kpc and 0.1 kpc thick, made lumpy by clouds: a smooth
random field on the sky, log-normal and of unit mean, whose pattern drifts from shell to shell. Offline, 3 MB; the real
map is `xp fetch data edenhofer2023`.
"""

import sys

import healpy
import numpy as np
from astropy.io import fits
from whole import whole

NSIDE, SHELLS = 32, 60
E_PER_PC, HEIGHT = 1e-4, 100.0  # of the layer in the plane, and its scale height [pc]
CLOUDS, SPREAD = 400, 0.6  # waves on the sky, scatter of ln(density)


def density(edges: np.ndarray, seed: int = 5) -> np.ndarray:
    """E per pc (shells, pixels), nested order, for shells between `edges` [pc]."""
    rng = np.random.default_rng(seed)
    place = np.stack(healpy.pix2vec(NSIDE, np.arange(12 * NSIDE**2), nest=True))
    waves = rng.normal(size=(CLOUDS, 3)) * rng.uniform(2, 12, (CLOUDS, 1))
    phase, drift = rng.uniform(0, 2 * np.pi, CLOUDS), rng.normal(0, 0.02, CLOUDS)
    sky, centres = waves @ place, np.sqrt(edges[1:] * edges[:-1])
    out = np.empty((len(centres), sky.shape[1]), np.float32)
    for k, d in enumerate(centres):
        field = np.cos(sky + phase[:, None] + drift[:, None] * k).sum(axis=0) * np.sqrt(2 / CLOUDS)
        lumps = np.exp(SPREAD * field - 0.5 * SPREAD**2)
        out[k] = E_PER_PC * np.exp(-np.abs(d * place[2]) / HEIGHT) * lumps
    return out


def main(path: str) -> None:
    edges = np.geomspace(69.0, 1250.0, SHELLS + 1)
    rho = density(edges)
    main = fits.PrimaryHDU(rho)
    main.header.update(NSIDE=NSIDE, CUNIT="1/pc", ORDERING="NESTED")
    hdus = [main]
    for name, values in (("centers", np.sqrt(edges[1:] * edges[:-1])), ("boundaries", edges)):
        column = fits.Column(name=f"radial pixel {name}", format="D", unit="pc", array=values)
        hdus.append(fits.BinTableHDU.from_columns([column]))
    inner = fits.ImageHDU(rho[0] * edges[0].astype(np.float32), name="MEAN OF INTEGRATED INNER")
    inner.header.update(CTYPE=f"Inner density integrated within {edges[0]:g} pc", ORDERING="NESTED")
    with whole(path) as part, open(part, "wb") as stream:
        fits.HDUList([*hdus, inner]).writeto(stream)


if __name__ == "__main__":
    main(sys.argv[1])
