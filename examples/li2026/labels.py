"""Labels of mock dwarfs as a spectroscopic survey has them: `python labels.py spectra.parquet -o dwarfs.parquet`.

The columns of SDSS-V's astra that Li+ 2026 Table 3 looks at: errors that grow towards faint and towards cool stars,
warning flags for one star in twenty, log g from the isochrone, radial velocities whose scatter tells close pairs.
Labels are the truth plus noise of the stated errors; the spectra's chi2, alone and as a pair, are those of
`xp feh --binary`.
"""

import argparse

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from whole import whole

CLOSE = 0.15  # of pairs: their velocities differ between visits


def labels(table: pa.Table, seed: int = 21) -> dict[str, np.ndarray]:
    """Columns (N,) by name."""
    rng = np.random.default_rng(seed)
    true = {n: table[f"true_{n}"].to_numpy().astype(float) for n in ("teff", "logg", "feh", "q")}
    G, n = table["phot_g_mean_mag"].to_numpy(), table.num_rows
    cool = np.clip((4200.0 - true["teff"]) / 1000.0, 0.0, 1.5)
    faint = 10 ** (0.2 * (G - 14.0))
    e_fe_h = (0.025 + 0.03 * cool + 0.02 * np.clip(-1.0 - true["feh"], 0, None)) * np.maximum(faint, 0.6)
    e_teff = (25.0 + 40.0 * cool) * np.maximum(faint, 0.6)
    e_v_rad = 0.15 * np.maximum(faint, 0.3) * rng.lognormal(0, 0.4, n)
    moving = np.isfinite(true["q"]) & (rng.random(n) < CLOSE)
    return {
        "teff_label": true["teff"] + e_teff * rng.normal(size=n),
        "e_teff": e_teff,
        "logg": true["logg"] + 0.06 * rng.normal(size=n),
        "fe_h": true["feh"] + e_fe_h * rng.normal(size=n),
        "e_fe_h": e_fe_h,
        "flag_warn": (rng.random(n) < 0.05).astype(np.int16),
        "flag_bad": (rng.random(n) < 0.02).astype(np.int16),
        "e_v_rad": e_v_rad,
        "std_v_rad": np.hypot(e_v_rad, np.where(moving, rng.lognormal(1.5, 1.0, n), 0.0)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("spectra")
    parser.add_argument("-o", "--output", required=True)
    args = parser.parse_args()
    table = pq.read_table(args.spectra)
    for name, values in labels(table).items():
        table = table.append_column(name, pa.array(values))
    with whole(args.output) as part:
        pq.write_table(table, part)


if __name__ == "__main__":
    main()
