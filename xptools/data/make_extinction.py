"""Make extinction_coefficients.json again: python xptools/data/make_extinction.py PASSBANDS.csv

PASSBANDS.csv has the columns wavelength_nm,G,BP,RP at equal steps: the transmission curves of Gaia EDR3
(Riello et al. 2021, A&A 649, A3; published by ESA/Gaia/DPAC). Only integrals over them are kept.
"""

import json
import sys
from pathlib import Path

import numpy as np

from xptools.cores import extinction

WHAT = (
    "A_X / E [mag] for black bodies: photon-counting integrals of the curve of Zhang, Green & Rix 2023 over the Gaia "
    "EDR3 passbands (Riello et al. 2021, doi:10.1051/0004-6361/202039587); rows run over (BP-RP)_0, columns over E"
)


def main(passbands: str) -> None:
    table = np.loadtxt(passbands, delimiter=",", skiprows=1)
    bands = extinction.tabulate(table[:, 0], table[:, 1:])
    head = {"what": WHAT, "made_by": "data/make_extinction.py", "colour": bands.colour, "reddening": bands.reddening}
    blocks = []
    for name, values in zip(extinction.BANDS, bands.values, strict=True):
        rows = ",\n".join("   " + json.dumps([round(float(v), 5) for v in row]) for row in values)
        blocks.append(f'  "{name}": [\n{rows}\n  ]')
    lines = [f' "{key}": {json.dumps(value)},' for key, value in head.items()]
    text = "{\n" + "\n".join(lines) + '\n "A_over_E": {\n' + ",\n".join(blocks) + "\n }\n}\n"
    Path(__file__).with_name("extinction_coefficients.json").write_text(text)


if __name__ == "__main__":
    main(sys.argv[1])
