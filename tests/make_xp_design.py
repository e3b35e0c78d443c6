"""Make xptools/data/xp_design.npz again: python tests/make_xp_design.py CONFIG PASSBANDS.csv

CONFIG is the folder gaiaxpy/config of GaiaXPy 2.1.5 (BSD-3-Clause), which holds ESA/Gaia/DPAC's DR3 instrument model:
pip install gaiaxpy==2.1.5 in an environment of its own. PASSBANDS.csv has the columns wavelength_nm,G,BP,RP: the
transmission curves of Gaia EDR3 (Riello et al. 2021). Of the passbands only integrals over the basis are kept.
"""

import csv
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from xptools.cores import xpdesign

WHAT = (
    "Gaia DR3 external calibration of BP and RP, models v375wi and v142r (ESA/Gaia/DPAC; Montegriffo et al. 2023, "
    "A&A 674, A3), from the configuration of GaiaXPy 2.1.5: *.bases = transformation x inverse bases (55, 55) of "
    "Hermite functions of scale * pseudo-wavelength + offset; *.dispersion (2, m) wavelength [nm] and pseudo-"
    "wavelength; *.response (2, m); *.published (55, 343) the XpSampling matrices on 336:1020:2 nm; *.default "
    "(55, 61) the model's on 392:992:10 nm, zero where the band does not count; *.passbands "
    "(55, 3) photo-electrons/s in G, BP, RP per coefficient, passbands of Riello et al. 2021. Made by "
    "tests/make_xp_design.py"
)
MODELS = {"bp": "bpC03_v375wi", "rp": "rpC03_v142r"}
STEP = 0.25  # [nm] of the integrals over the passbands


def ingredients(config: Path) -> dict[str, np.ndarray]:
    """The instrument model's arrays, by name."""
    root = ElementTree.parse(config / "filters" / "XpFilter_v375wiv142r.xml").getroot().find("XpSampling")
    out = {}
    for band, model in MODELS.items():
        row = _one_row(config / f"{model}_bases.csv")
        size = int(row["nBases"])
        inverse = _numbers(row["inverseBasesCoefficients"]).reshape(size, -1)
        out[f"{band}.bases"] = _numbers(row["transformationMatrix"]).reshape(size, size) @ inverse
        low, high = float(row["normRangeMin"]), float(row["normRangeMax"])
        scale = (high - low) / (float(row["pwlRangeMax"]) - float(row["pwlRangeMin"]))
        out[f"{band}.hermite"] = np.array([scale, low - float(row["pwlRangeMin"]) * scale])
        for what in ("dispersion", "response"):
            out[f"{band}.{what}"] = np.genfromtxt(config / f"{model}_{what}.csv", delimiter=",")
        published = [float(value.text) for value in root.find(f"{band}SampledBases")]
        out[f"{band}.published"] = np.array(published).reshape(-1, size).T
    return out


def passband_weights(arrays: dict[str, np.ndarray], passbands: str) -> dict[str, np.ndarray]:
    """(55, 3) per band: photo-electrons/s in G, BP, RP that one unit of each coefficient gives."""
    table = np.loadtxt(passbands, delimiter=",", skiprows=1)
    low, high = xpdesign.RANGE
    grid = np.arange(low, high + STEP / 2, STEP)
    T = np.stack([np.interp(grid, table[:, 0], column) for column in table.T[1:]], axis=1)
    weight = T * grid[:, None] * STEP * xpdesign.PUPIL / xpdesign.HC_NM
    weight[[0, -1]] *= 0.5
    made = xpdesign.evaluate(grid, arrays)
    return {"bp.passbands": made.bp @ weight, "rp.passbands": made.rp @ weight}


def default(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """(55, 61) per band: the model on the default grid."""
    made = xpdesign.evaluate(np.array(xpdesign.DEFAULT_GRID), arrays)
    return {"bp.default": made.bp_alone, "rp.default": made.rp_alone}


def _one_row(path: Path) -> dict[str, str]:
    csv.field_size_limit(1 << 24)
    with path.open() as stream:
        return next(csv.DictReader(stream))


def _numbers(text: str) -> np.ndarray:
    return np.array([float(word) for word in text.strip("()").split(",")])


def main(config: str, passbands: str) -> None:
    arrays = ingredients(Path(config))
    arrays |= passband_weights(arrays, passbands) | default(arrays)
    target = Path(xpdesign.__file__).parent.parent / "data" / "xp_design.npz"
    np.savez_compressed(target, what=np.array(WHAT), **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
