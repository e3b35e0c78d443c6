"""The steps of `xp vae`: spectra to latents and what the model makes of them, and latents back to spectra."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from xptools.columns import Column
from xptools.commands import _vae_input as reading
from xptools.errors import UsageError
from xptools.protocol import RowOp
from xptools.stamp import stamp

DEFAULT = Path(__file__).parent.parent / "data" / "vae_demo.safetensors"
GROUPS = ("latent", "fit", "reconstruction", "scatter", "denoised", "residuals", "flux")
FIT = {
    "vae_chi2": Column("float32", None, "stat.fit.chi2", "chi2 of the reconstruction per known coefficient"),
    "vae_rmse": Column("float32", None, "stat.fit.residual", "RMS of R(j) over the first 32 coefficients of each band"),
    "vae_p": Column("float32", None, "stat.probability", "Chance that a star like the training's fits worse"),
}
FLUX = {"vae_rmse_flux": Column("float32", None, "stat.fit.residual", "RMS of flux residuals in sigma, 392 to 992 nm")}
NOTHING, PART, FAR, ODD = 1, 2, 4, 8
ODD_BELOW = 1e-4


@dataclass(frozen=True)
class Model(RowOp):
    """A step that has a model file."""

    model: str = ""

    name: ClassVar[str] = "vae"
    cites: ClassVar[tuple[str, ...]] = ("laroche2024", "deangeli2023")
    packages: ClassVar[tuple[str, ...]] = ("numpy", "numba")

    def files(self):
        return {"model": self.model or str(DEFAULT)}

    @property
    def about(self):
        """What the model file says of itself."""
        path = Path(self.files()["model"])
        return _about(path, stamp(path))

    @property
    def latents(self) -> tuple[str, ...]:
        """z1, z2 ..."""
        return tuple(f"z{k + 1}" for k in range(self.about.shape["latents"]))

    @property
    def widths(self) -> tuple[int, ...]:
        """Coefficients of BP and of RP."""
        return tuple(self.about.shape["bands"])

    def _arrays(self):
        path = Path(self.files()["model"])
        return _loaded(path, stamp(path))


@dataclass(frozen=True)
class Encode(Model):
    """mu, v = encoder(c / F_G); chi2, R(j) and p of decoder(mu) with scatter(mu): LS24 Sec. 3 (cores/vae.py)."""

    add: str = "latent,fit"
    sample: int = 0
    seed: int = 0

    flags: ClassVar = {
        NOTHING: "no coefficient or no G flux is known: nothing to encode",
        PART: "some coefficients or errors unknown: encoded without them",
        FAR: "latents outside the range of the training stars",
        ODD: f"vae_p below {ODD_BELOW:g}: a spectrum unlike those of the training",
    }

    def __post_init__(self):
        odd = [g for g in self.groups if g not in GROUPS]
        if odd or not self.groups:
            raise UsageError(f"--add {self.add!r}: there is no {odd[0] if odd else 'group'}. TRY: {','.join(GROUPS)}")

    @property
    def groups(self) -> tuple[str, ...]:
        """What is to be added."""
        return GROUPS if self.add == "all" else tuple(self.add.split(","))

    @property
    def needs(self) -> tuple[str, ...]:
        return (*reading.VALUES, *reading.ERRORS, *(("source_id",) if self.sample else ()))

    @property
    def wants(self) -> tuple[str, ...]:
        return (*reading.BRIGHTNESS, *(reading.CORRELATIONS if "flux" in self.groups else ()))

    @property
    def adds(self) -> dict[str, Column]:
        out: dict[str, Column] = {}
        for group in GROUPS:
            if group in self.groups:
                out |= self._columns(group)
        if self.sample:
            out |= {f"{z}_sample": Column(f"float32[{self.sample}]", None, "stat.fit.param",
                                          f"Draws of latent {z} given the spectrum") for z in self.latents}  # fmt: skip
        return out

    def _columns(self, group: str) -> dict[str, Column]:
        if group == "latent":
            kinds = (("", "stat.fit.param", "Latent {}, mean given the spectrum"),
                     ("_err", "stat.error;stat.fit.param", "Standard deviation of {} given the spectrum"))  # fmt: skip
            return {f"{z}{end}": Column("float32", None, ucd, text.format(z)) for end, ucd, text in kinds
                    for z in self.latents}  # fmt: skip
        if group in ("fit", "flux"):
            return FIT if group == "fit" else FLUX
        out = {}
        for band, width in zip(reading.BANDS, self.widths, strict=True):
            out |= {f"{band}_{key}": Column(f"float32[{width}]", None, ucd, f"{band.upper()} {text}")
                    for key, ucd, text in PER_BAND[group]}  # fmt: skip
        return out

    def reads(self, schema):
        found = super().reads(schema)
        reading.check(self.name, schema, self.widths)
        return found

    def compute(self, **columns):
        import numpy as np

        from xptools.cores import vae_fit

        model, widths = self._arrays(), self.widths
        values, errors = (reading.block(columns, names, widths) for names in (reading.VALUES, reading.ERRORS))
        flux = reading.g_flux(columns, len(values))
        x, sigma = model.standardised(values, errors, flux)
        verdict = vae_fit.judged(model, x, sigma)
        nothing = verdict.known == 0
        far = _outside(verdict.mu, self.about.domain, self.latents)
        flag = NOTHING * nothing + PART * (verdict.known < model.K) * ~nothing + FAR * far * ~nothing
        flag = flag + ODD * (verdict.probability < ODD_BELOW)
        out = dict(zip(FIT, (verdict.chi2, verdict.rmse, verdict.probability), strict=True))
        out |= {z: verdict.mu[:, k] for k, z in enumerate(self.latents)}
        out |= {f"{z}_err": np.sqrt(verdict.variance[:, k]) for k, z in enumerate(self.latents)}
        out |= self._spectra(model, x, sigma, flux, verdict)
        if self.sample:
            out |= self._drawn(verdict, columns["source_id"])
        if "flux" in self.groups:
            out |= self._in_flux(model, values, verdict, flux, columns)
        out = {k: out[k] for k in self.adds}
        out = {k: np.where(nothing if v.ndim == 1 else nothing[:, None], np.nan, v) for k, v in out.items()}
        return out | {"vae_flag": flag.astype(np.int16)}

    def _spectra(self, model, x, sigma, flux, verdict) -> dict[str, Any]:
        """Per-band arrays of the groups asked for, in the archive's units."""
        from xptools.cores import vae_fit

        wide = {}
        if "reconstruction" in self.groups:
            wide["reconstruction"] = model.plain(verdict.fit, flux)
        if "scatter" in self.groups:
            wide["scatter"] = model.plain(verdict.scatter, flux, spread=True)
        if "denoised" in self.groups:
            mean, error = vae_fit.denoised(x, sigma, verdict.fit, verdict.scatter)
            wide |= {"denoised": model.plain(mean, flux), "denoised_err": model.plain(error, flux, spread=True)}
        if "residuals" in self.groups:
            wide["residuals"] = (x - verdict.fit) / sigma
        return _per_band(wide, self.widths)

    def _drawn(self, verdict, source_id) -> dict[str, Any]:
        import numpy as np

        from xptools.cores import keyed

        normal = keyed.normal(np.asarray(source_id, np.int64), self.seed, self.sample * len(self.latents))
        spread = np.sqrt(verdict.variance)
        return {f"{z}_sample": verdict.mu[:, k, None] + spread[:, k, None] * normal[:, k :: len(self.latents)]
                for k, z in enumerate(self.latents)}  # fmt: skip

    def _in_flux(self, model, values, verdict, flux, columns) -> dict[str, Any]:
        from xptools.commands._spectra_input import GRID, coefficients, wavelengths
        from xptools.cores import vae_fit, xpbasis

        bands = tuple(coefficients(band, columns) for band in reading.BANDS)
        design = xpbasis.design(wavelengths(GRID))
        return {"vae_rmse_flux": vae_fit.flux_rmse(values, model.plain(verdict.fit, flux), bands, design)}


PER_BAND = {
    "reconstruction": (("reconstruction", "stat.fit.param;spect", "coefficients that the model makes"),),
    "scatter": (("scatter", "stat.stdev;stat.fit.param", "coefficients' intrinsic scatter, 1 sigma"),),
    "denoised": (
        ("denoised", "stat.fit.param;spect", "coefficients from data and model together"),
        ("denoised_err", "stat.error;stat.fit.param", "denoised coefficients' standard errors"),
    ),
    "residuals": (("residuals", "stat.fit.residual", "coefficients minus the model's, in their errors"),),
}


@dataclass(frozen=True)
class Decode(Model):
    """c = F_G (m + s decoder(z)), errors F_G s scatter(z): spectra that the model makes of latents."""

    g: float = 15.0

    wants: ClassVar = reading.BRIGHTNESS
    flags: ClassVar = {NOTHING: "a latent is unknown", FAR: "latents outside the range of the training stars"}

    @property
    def needs(self) -> tuple[str, ...]:
        return self.latents

    @property
    def adds(self) -> dict[str, Column]:
        from xptools.columns import XP

        out = {}
        for band, width in zip(reading.BANDS, self.widths, strict=True):
            for key in ("coefficients", "coefficient_errors"):
                what = "coefficients" if key == "coefficients" else "coefficients' intrinsic scatter"
                text = f"{band.upper()} {what}, made from latents"
                out[f"{band}_{key}"] = XP[f"{band}_{key}"]._replace(type=f"float32[{width}]", text=text)
        return out

    def compute(self, **columns):
        import numpy as np

        from xptools.cores.photometry import POGSON, ZERO_POINT

        model = self._arrays()
        z = np.stack([np.asarray(columns[name], np.float64) for name in self.latents], -1)
        z[~np.isfinite(z)] = np.nan
        flux = reading.g_flux(columns, len(z))
        flux = np.where(np.isfinite(flux), flux, np.exp((ZERO_POINT["G"] - self.g) / POGSON))
        nothing, safe = np.isnan(z).any(-1), np.nan_to_num(z)
        wide = {
            "coefficients": model.plain(model.decode(safe), flux),
            "coefficient_errors": model.plain(model.scatter(safe), flux, spread=True),
        }
        wide = {k: np.where(nothing[:, None], np.nan, v) for k, v in wide.items()}
        flag = NOTHING * nothing + FAR * _outside(safe, self.about.domain, self.latents) * ~nothing
        return _per_band(wide, self.widths) | {"vae_flag": flag.astype(np.int16)}


def _per_band(wide: dict[str, Any], widths: tuple[int, ...]) -> dict[str, Any]:
    """Arrays of both bands side by side as one array each: bp_NAME, rp_NAME."""
    first = widths[0]
    return {
        f"{band}_{key}": part
        for key, array in wide.items()
        for band, part in zip(reading.BANDS, (array[:, :first], array[:, first:]), strict=True)
    }


def _outside(z, domain: dict[str, list[float]], names: tuple[str, ...]):
    """Which stars (N,) have a latent outside the range seen in training."""
    import numpy as np

    limits = np.array([domain[name] for name in names])
    with np.errstate(invalid="ignore"):
        return ((z < limits[:, 0]) | (z > limits[:, 1])).any(-1)


@lru_cache(maxsize=8)
def _about(path: Path, _stamp: int):
    from xptools.artefact import about, demand

    return demand(about(path), "vae", path)


@lru_cache(maxsize=4)
def _loaded(path: Path, _stamp: int):
    from xptools.artefact import load
    from xptools.cores.vae import Model as Network

    return Network(load(path, "vae").arrays)
