"""The archives that examples/li2026 asks with DATA=gaia, holding a mock universe: `python archives.py FOLDER`.

TAP with the catalogue, DataLink with the spectra, PARSEC's form with the built-in main sequence, a small dust map under
its record's name; in FOLDER the two training samples that no archive of the recipe has, and archives.toml, the
configuration that sends `xp fetch` here. Run as a program it prints what make wants and serves until a signal.
"""

import hashlib
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

TESTS = Path(__file__).resolve().parent.parent
EXAMPLE = TESTS.parent / "examples" / "li2026"
if __name__ == "__main__":
    sys.path.insert(0, str(TESTS))

from servers import serving  # noqa: E402
from tapstub import Stub  # noqa: E402

from fetch.services import CmdForm, isochrone_text  # noqa: E402
from fetch.spectra import COLUMNS, DataLink, star  # noqa: E402
from xptools.arrays import to_numpy  # noqa: E402
from xptools.columns import GAIA  # noqa: E402
from xptools.cores import isochrone  # noqa: E402

DUST = "mean_and_std_healpix.fits"
# A giant's columns under the names that AspGap has for them.
ASPGAP = ("feh=moh_xp", "feh_err=e_moh_xp", "teff_err=e_teff_xp", "logg_err=e_logg_xp")


class Spectra(DataLink):
    """DataLink with the spectra of a table, and what a mock does not have as in any other."""

    def __init__(self, there, table: pa.Table):
        super().__init__(there)
        self.table = {n: to_numpy(table[n]) for n in table.column_names if n in COLUMNS}
        self.at = {i: k for k, i in enumerate(table["source_id"].to_pylist())}

    def row(self, source_id: int) -> dict:
        """The columns of a star."""
        k = self.at[source_id]
        return star(source_id) | {n: v[k] for n, v in self.table.items()}


class Sequence(CmdForm):
    """PARSEC's form, with the main sequence that comes with xp."""

    def text(self, mh: float, ages: list[float]) -> str:
        """The table of a metallicity and log10 ages [yr]."""
        return isochrone_text(mh, ages, of_xp)


def of_xp(mh: float, age: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masses [Msun], M_G and BP - RP [mag] of stars before the turn-off at log10(age/yr)."""
    sequence, gyr = isochrone.load(None), 10 ** (age - 9)
    mass = np.linspace(0.1, min(sequence.turn_off(mh, gyr), 1.1), 60)
    return mass, *sequence.absolute(mass, mh, gyr)


def catalogue(stars: pa.Table) -> pa.Table:
    """Gaia's columns of the stars; null where a mock has none."""
    columns = {n: stars[n] if n in stars.column_names else None for n in GAIA}
    kinds = {"bool": pa.bool_(), "string": pa.string()}
    made = {
        n: pa.nulls(stars.num_rows, kinds.get(c.type) or getattr(pa, c.type)()) if columns[n] is None else columns[n]
        for n, c in GAIA.items()
    }
    return pa.table(made)


def made(folder: Path, xp: str, stars: int, dwarfs: int, giants: int) -> pa.Table:
    """The files of the folder; returns the universe, spectra and all."""

    def run(*words):
        subprocess.run([*map(str, words)], check=True, cwd=EXAMPLE, stdout=subprocess.DEVNULL)

    folder.mkdir(parents=True, exist_ok=True)
    dust = folder / DUST
    run(sys.executable, "dust.py", dust)
    spectra, halo = "--spectra --correlations", "--fractions 0.2 0.2 0.6"
    universe = f"mock {stars} --binaries 0 {halo} --map edenhofer2023 --map-file {dust} {spectra}"
    run(xp, "-q", "run", universe, "-o", folder / "universe.parquet")
    labelled = f"mock {dwarfs} --seed 12 --g-limit 16 {halo} {spectra} | convert --drop feh,feh_err"
    run(xp, "-q", "run", labelled, "-o", folder / "dwarfs.parquet")
    run(sys.executable, "labels.py", folder / "dwarfs.parquet", "-o", folder / "labels.parquet")
    rename = " ".join(f"--rename {pair}" for pair in ASPGAP)
    run(xp, "-q", "run", f"mock {giants} --sample giants --seed 11 | convert {rename}",
        "-o", folder / "giants.parquet")  # fmt: skip
    return pq.read_table(folder / "universe.parquet")


def opened(there, folder: Path, universe: pa.Table, tap: str = "") -> dict[str, str]:
    """Let the server `there` be the archives, and write archives.toml; returns the environment that leads to them.

    tap: the address of another TAP service that has the catalogue.
    """
    stub = Stub(catalogue(universe))
    there.paths |= {"/tap": stub.routes}
    Spectra(there, universe)
    Sequence(there)
    dust = (folder / DUST).read_bytes()
    there.serve("/dust", {DUST: dust})
    (folder / "manifest.toml").write_text(
        f'[[file]]\nname = "{DUST}"\nkey = "edenhofer2023"\nget = "{there.url}/dust/{DUST}"\nwhat = "a dust map"\n'
        f'use = "xp deredden"\nfolder = "edenhofer_2023"\nurl = ""\nmd5 = "{hashlib.md5(dust).hexdigest()}"\n'
    )
    (folder / "archives.toml").write_text(
        f'[fetch.gaia]\nservice = "{tap or there.url + "/tap"}"\nfidelity = "gedr3spur.main"\n'
        f'[fetch.xp]\nservice = "{there.url}/data-server/data"\n'
        f'[fetch.data]\nmanifest = "{folder / "manifest.toml"}"\n'
        f'[fetch.parsec]\nservice = "{there.url}/cgi-bin/cmd"\npause = 0.0\n'
    )
    return {"XP_CONFIG": str(folder / "archives.toml"), "XP_CACHE": str(folder / "cache")}


def words(folder: Path) -> list[str]:
    """What make wants besides."""
    return ["DATA=gaia", f"GIANTS_TABLE={folder / 'giants.parquet'}", f"LABELS={folder / 'labels.parquet'}"]


def main(place: str, tap: str = "", stars: str = "30000") -> None:
    import signal

    folder = Path(place).resolve()
    there_already = folder / "universe.parquet"
    universe = pq.read_table(there_already) if there_already.exists() else made(folder, "xp", int(stars), 6000, 40_000)
    with serving() as there:
        known = opened(there, folder, universe, tap)
        leads = [f"{k}={v}" for k, v in known.items()]
        print(shlex.join(["env", *leads, "make", "-C", str(EXAMPLE), *words(folder)]), flush=True)
        signal.pause()


if __name__ == "__main__":
    main(*sys.argv[1:])
