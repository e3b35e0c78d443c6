"""PARSEC isochrones through the CMD form: a table per [M/H], all ages in it, one request after the other.

The form's fields are those of CMD 3.9; answers are a web page with a link to the table. A table counts only if xp can
read it, if it ends as CMD ends one, and if every age asked for is in it at the metallicity asked for.
"""

import re
from itertools import pairwise
from pathlib import Path
from urllib.parse import urljoin

import numpy as np

from xptools.archive.http import PIECE, Client, plain
from xptools.cores import _isochrone_files
from xptools.errors import DataError, IncompleteError, RemoteError, UnavailableError

CMD = "https://stev.oapd.inaf.it/cgi-bin/cmd_3.9"
END = "#isochrone terminated"
MH_NEAR, AGE_NEAR = 0.02, 0.005  # dex; PARSEC's poorest is -2.19 where -2.2 is asked
# PARSEC 1.2S in Gaia EDR3 passbands, bolometric corrections of YBC, no extinction and no circumstellar dust.
FORM = {
    "cmd_version": "3.9",
    "track_omegai": "0.00",
    "track_parsec": "parsec_CAF09_v1.2S",
    "track_colibri": "parsec_CAF09_v1.2S_S_LMC_08_web",
    "track_postagb": "no",
    "n_inTPC": "10",
    "eta_reimers": "0.2",
    "kind_interp": "1",
    "kind_postagb": "-1",
    "kind_LPV": "1",
    "photsys_file": "YBC_tab_mag_odfnew/tab_mag_gaiaEDR3.dat",
    "photsys_version": "YBCnewVega",
    "dust_sourceM": "nodustM",
    "dust_sourceC": "nodustC",
    "kind_mag": "2",
    "kind_dust": "0",
    "extinction_av": "0.0",
    "extinction_coeff": "constant",
    "extinction_curve": "cardelli",
    "imf_file": "tab_imf/imf_kroupa_orig.dat",
    "isoc_isagelog": "1",
    "isoc_ismetlog": "1",
    "output_kind": "0",
    "output_evstage": "1",
    "output_gzip": "0",
    "lf_maginf": "-15",
    "lf_magsup": "20",
    "lf_deltamag": "0.5",
    "sim_mtot": "1.0e4",
    "submit_form": "Submit",
}


def grid(text: str) -> tuple[float, ...]:
    """Values of "LO:HI:STEP" (HI included), "a,b,c" or one number; ValueError for anything else."""
    if ":" not in text:
        values = tuple(float(word) for word in text.split(","))
    else:
        low, high, step = (float(word) for word in text.split(":"))
        count = int(round((high - low) / step, 6)) + 1
        if step <= 0 or not 0 < count <= 500:
            raise ValueError(f"{count} values")
        values = tuple(round(low + i * step, 6) for i in range(count))
    if not values or any(b <= a for a, b in pairwise(values)):
        raise ValueError("values do not ascend")
    return values


def name(mh: float) -> str:
    """The file of a metallicity."""
    return f"parsec_mh{mh:+.3f}.dat"


class Form:
    """The CMD form at `url`; `ages` are log10(age/yr), equally spaced."""

    def __init__(self, client: Client, url: str, ages: tuple[float, ...]):
        self.client, self.url, self.ages = client, url, ages

    def table(self, mh: float, target: Path) -> Path:
        """Get the table of one [M/H] into `target`, whole or not at all."""
        text = self.client.patiently(lambda: self._once(mh, target), self.url)
        half = target.with_name(f".{target.name}.part")
        half.write_bytes(text)
        half.replace(target)
        return target

    def _once(self, mh: float, target: Path) -> bytes:
        link = self._link(mh)
        with self.client.streamed(link) as reply:
            text = b"".join(reply.iter_content(PIECE))
        half = target.with_name(f".{target.name}.new")
        half.write_bytes(text)
        try:
            complaint = fault(half, mh, self.ages)
        except DataError as damage:
            complaint = str(damage)
        finally:
            half.unlink()
        if complaint:
            # The same again would be made by a form that does not know the metallicity; a cut table is made anew.
            raise (IncompleteError if complaint.startswith("PARSEC gave") else RemoteError)(f"{complaint} {link}")
        return text

    def _link(self, mh: float) -> str:
        step = round(self.ages[1] - self.ages[0], 6) if len(self.ages) > 1 else 0.0
        asked = {"isoc_lagelow": self.ages[0], "isoc_lageupp": self.ages[-1], "isoc_dlage": step}
        asked |= {"isoc_metlow": mh, "isoc_metupp": mh, "isoc_dmet": 0.0}
        page = self.client.request("POST", self.url, retry=False, data=FORM | asked, page=True).text
        found = re.search(r"""href=["']?([^"'> ]+\.dat(?:\.gz)?)["'> ]""", page)
        if not found:
            wrong = re.search(r"(?is)error.*|problem.*", plain(page, 4000))
            words = wrong[0][:200] if wrong else plain(page)
            raise UnavailableError(f"the CMD form gave no table: {words}. {self.url}. TRY: the form in a browser")
        return urljoin(self.url, found[1])


def fault(path: Path, mh: float, ages: tuple[float, ...]) -> str:
    """What is wrong with a table, "" if nothing; DataError where it is no isochrone table at all."""
    text = path.read_text(errors="replace").rstrip()
    found = _isochrone_files.read_file(path)
    if not text.endswith(END):
        return "the table is cut: its last line is not there. TRY: the same command again."
    metals = np.array([i.mh for i in found])
    if np.max(np.abs(metals - mh)) > MH_NEAR:
        return f"PARSEC gave [M/H] = {metals[np.argmax(np.abs(metals - mh))]:g} for {mh:g}. TRY: --mh within its range."
    there = np.array([np.log10(i.age) + 9 for i in found])
    lacking = [a for a in ages if np.min(np.abs(there - a)) > AGE_NEAR]
    if lacking:
        return f"PARSEC gave {len(ages) - len(lacking)} of {len(ages)} ages; {lacking[0]:g} is missing. TRY: --logage."
    return ""
