"""Small synthetic dust maps in the file formats that dustmaps reads: Edenhofer 2023 (FITS) and Bayestar 2019 (HDF5)."""

from pathlib import Path

import numpy as np


def density(nside: int, boundaries: np.ndarray, samples: int, seed: int) -> np.ndarray:
    """Clumpy positive density [E/pc], (samples, shells, pixels) in nested order: smooth in space, log-normal."""
    rng = np.random.default_rng(seed)
    shells, pixels = len(boundaries) - 1, 12 * nside**2
    ln = np.full((samples, shells, pixels), np.log(1e-4), np.float32)
    ln += rng.normal(0, 0.6, (1, 1, max(1, pixels // 16))).repeat(16, axis=2)[:, :, :pixels].astype(np.float32)
    ln += rng.normal(0, 0.5, (1, shells, 1)).astype(np.float32)
    ln += rng.normal(0, 0.3, (samples, 1, pixels)).astype(np.float32)
    return np.exp(ln)


def write_edenhofer(
    path: Path,
    nside: int = 4,
    shells: int = 20,
    samples: int = 0,
    inner: bool = True,
    ordering: str = "NESTED",
    seed: int = 1,
    rho: np.ndarray | None = None,
    boundaries: np.ndarray | None = None,
    inside: float | None = None,
) -> Path:
    """A mean map (shells, pixels), or a map of `samples` > 0; `rho`, `boundaries`, `inside` replace the random ones."""
    from astropy.io import fits

    edges = np.geomspace(69.0, 1250.0, shells + 1) if boundaries is None else np.asarray(boundaries, float)
    centres = np.sqrt(edges[1:] * edges[:-1]) if boundaries is None else 0.5 * (edges[1:] + edges[:-1])
    rho = density(nside, edges, max(samples, 1), seed) if rho is None else np.asarray(rho, np.float32)
    rho = rho if samples else rho.reshape(rho.shape[-2:])
    inner_E = (np.full(rho.shape[:-2] + rho.shape[-1:], inside) if inside else rho[..., 0, :] * 40.0).astype(np.float32)
    order = {"ORDERING": ordering}
    main = fits.PrimaryHDU(rho)
    main.header.update(NSIDE=nside, CUNIT="1/pc", **order)
    hdus = [main, _column("radial pixel centers", centres), _column("radial pixel boundaries", edges)]
    within = f"nner density integrated within {edges[0]:g} pc"
    name = "INTEGRATED INNER" if samples else "MEAN OF INTEGRATED INNER"
    if inner:
        hdus.append(_image(inner_E, name, CTYPE="I" + within, **order))
    if not samples:
        hdus.append(_image(0.3 * rho, "STD.", **order))
        if inner:
            hdus.append(_image(0.3 * inner_E, "STD. OF INTEGRATED INNER", CTYPE="Std. of i" + within, **order))
    fits.HDUList(hdus).writeto(path)
    return Path(path)


def write_bayestar(path: Path, samples: int = 5, seed: int = 1, south: bool = False) -> Path:
    """Two resolutions (nside 4, and 8 in half of the pixels), a hole in the sky unless `south`, unconverged pixels."""
    import h5py

    rng = np.random.default_rng(seed)
    coarse = np.arange(192)[: None if south else 150]
    split = rng.random(len(coarse)) < 0.5
    fine = (4 * coarse[split][:, None] + np.arange(4)).ravel()
    nside = np.concatenate([np.full((~split).sum(), 4), np.full(len(fine), 8)])
    index = np.concatenate([coarse[~split], fine])
    shuffled = rng.permutation(len(index))
    info = np.empty(len(index), [("nside", "i4"), ("healpix_index", "i8"), ("n_stars", "i4"), ("converged", "i1"),
                                 ("DM_reliable_min", "f4"), ("DM_reliable_max", "f4")])
    info["nside"], info["healpix_index"] = nside[shuffled], index[shuffled]
    info["n_stars"], info["converged"] = 100, rng.random(len(index)) < 0.9
    info["DM_reliable_min"], info["DM_reliable_max"] = 6.0, rng.uniform(9, 14, len(index))
    info["DM_reliable_max"][:3] = np.nan
    profiles = np.cumsum(rng.gamma(0.3, 0.02, (len(index), samples + 1, 120)), axis=2).astype("f4")
    with h5py.File(path, "w") as f:
        table = f.create_dataset("pixel_info", data=info)
        table.attrs["DM_bin_edges"] = np.linspace(4.0, 18.875, 120)
        f.create_dataset("samples", data=profiles[:, 1:], chunks=True, compression="gzip")
        f.create_dataset("best_fit", data=profiles[:, 0], chunks=True, compression="gzip")
    return Path(path)


def _column(name, values):
    from astropy.io import fits

    return fits.BinTableHDU.from_columns([fits.Column(name=name, format="D", unit="pc", array=values)])


def _image(data, name, **header):
    from astropy.io import fits

    hdu = fits.ImageHDU(data, name=name)
    hdu.header.update(header)
    return hdu
