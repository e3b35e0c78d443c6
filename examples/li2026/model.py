"""The flux that the [Fe/H] network gives a star's labels: `python model.py flux.parquet [model] -o spectra.parquet`.

Reads what `xp feh | xp calibrate` wrote and adds `model_flux`, at the star's distance, for `xp plot xp --model`. Four
stars come first, of M_G near 5, 6.5, 8 and 9.5.
"""

import argparse

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from whole import whole

from xptools.artefact import load
from xptools.commands.feh import DEFAULT
from xptools.cores.feh import LABEL_MEAN, LABEL_SCALE, UNIT, Model

SHOWN = (5.0, 6.5, 8.0, 9.5)


def flux(model: Model, table: pa.Table) -> np.ndarray:
    """Flux (N, n) [W m-2 nm-1] of each row's teff, mg and feh at 1000 / parallax pc, dust as in ext_e put back."""
    from xptools.cores.extinction import curve

    labels = np.stack([table[n].to_numpy().astype(float) for n in ("teff", "mg", "feh")], axis=1)
    A = curve(model.wavelength, "mag") * table["ext_e"].to_numpy().astype(float)[:, None]
    distance = 100.0 / table["parallax"].to_numpy().astype(float)[:, None]  # in units of 10 pc
    return UNIT * np.exp(model.ln_flux((labels - LABEL_MEAN) / LABEL_SCALE)) * 10 ** (-0.4 * A) / distance**2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("flux")
    parser.add_argument("model", nargs="?", default=str(DEFAULT))
    parser.add_argument("-o", "--output", required=True)
    args = parser.parse_args()
    table = pq.read_table(args.flux)
    M_G = table["mg"].to_numpy()
    first = [int(np.nanargmin(np.abs(M_G - m))) for m in SHOWN]
    table = table.take([*first, *(k for k in range(len(M_G)) if k not in first)])
    values = flux(Model(load(args.model, "feh").arrays), table)
    kind = table.schema.field("flux").type
    made = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel(), kind.value_type), values.shape[1])
    field = pa.field("model_flux", made.type, metadata=table.schema.field("flux").metadata)
    with whole(args.output) as part:
        pq.write_table(table.append_column(field, made), part)


if __name__ == "__main__":
    main()
