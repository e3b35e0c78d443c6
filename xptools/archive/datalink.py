"""ESA's DataLink: spectra of up to 5000 identifiers a request in a ZIP archive, some of them left out silently."""

import re
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from xptools.archive import spectra, spectrafiles
from xptools.archive.gather import Piece, chunks
from xptools.archive.http import Client, is_page, plain
from xptools.archive.wire import Damaged
from xptools.errors import RemoteError, UnavailableError

ESA = "https://gea.esac.esa.int/data-server/data"
MOST = 5000
# One file for all stars; the archive has announced new names for its structures. INDIVIDUAL is one file a star.
STRUCTURES = ("RAW", "DATAMODEL_GAIA", "INDIVIDUAL", "DATAMODEL_STANDARD")
TYPES = {"Gaia DR3": "XP_CONTINUOUS", "Gaia DR4": "MEAN_SPECTRUM_XP"}


class DataLink:
    """A route: POST of identifiers, ZIP of CSV back."""

    def __init__(self, client: Client, url: str = ESA, release: str = "Gaia DR3", chunk: int = MOST,
                 correlations: bool = True, parallel: int = 2):  # fmt: skip
        self.client, self.url, self.release = client, url, release
        self.chunk, self.correlations, self.parallel = min(chunk, MOST), correlations, parallel
        self.structure, self.steady = STRUCTURES[0], False

    def pieces(self, ids: np.ndarray) -> list[Piece]:
        """Pieces of at most 5000."""
        return chunks(ids, self.chunk)

    def stop(self) -> None:
        """Wake those that wait for another try."""
        self.client.stopping.set()

    def get(self, piece: Piece) -> pa.Table:
        """The spectra of a piece; RemoteError (75) where the service stays down or its archives stay damaged."""
        return self.client.patiently(lambda: self._once(piece.ids), self.url)

    def _once(self, ids: np.ndarray) -> pa.Table:
        with self._asked(ids) as packed:
            try:
                return spectra.normal(self._unpacked(packed), self.correlations, self.url)
            except Damaged as fault:  # the network's fault, not the user's
                raise RemoteError(str(fault)) from fault

    def _asked(self, ids: np.ndarray) -> BinaryIO:
        """The reply's ZIP archive as an unnamed file."""
        for _ in STRUCTURES:
            packed, complaint = self._posted(ids)
            if not complaint:
                return packed
            self.structure = self._other_structure(complaint)
        raise UnavailableError(f"{self.url} accepts none of the structures {', '.join(STRUCTURES)}. TRY: --from aip")

    def _posted(self, ids: np.ndarray) -> tuple[BinaryIO, str]:
        form = {
            "ID": ",".join(map(str, ids.tolist())),
            "RELEASE": self.release,
            "RETRIEVAL_TYPE": TYPES.get(self.release, "XP_CONTINUOUS"),
            "DATA_STRUCTURE": self.structure,
            "FORMAT": "csv",
            "VALID_DATA": "false",
            "USE_ZIP_ALWAYS": "true",
        }
        packed, reply = self.client.kept(self.url, accept=(200, 400, 500), method="POST", data=form)
        start = packed.read(8192)
        packed.seek(0)
        if start.startswith((b"PK\3\4", b"PK\5\6")):
            return packed, ""
        with packed:
            return packed, self._complaint(reply.status_code, reply.headers.get("Content-Type", ""), start)

    def _complaint(self, status: int, kind: str, start: bytes) -> str:
        """Why there are no spectra, in the service's words where they are about our request; else raises."""
        words = plain(start.decode("utf-8", "replace"), 400)
        if "valid ones are" in words or "Data Structure" in words:
            return words
        if "Maximum number" in words or (status == 400 and words):
            raise UnavailableError(f"the archive refuses: {words}. {self.url}. TRY: a smaller --chunk")
        if is_page(kind, start):
            raise RemoteError(f"{self.url} gave an HTML page (HTTP {status}), not spectra: {words[:160]}. TRY: later")
        raise RemoteError(f"{self.url} gave no ZIP archive (HTTP {status}): {words[:160]}. TRY: later")

    def _other_structure(self, complaint: str) -> str:
        """The structure to use where ours is unknown: of those that the service names, the first that xp can read."""
        listed = re.search(r"valid ones are:?\s*(.*)", complaint)
        valid = re.findall(r"[A-Z][A-Z_0-9]+", listed[1]) if listed else []
        for name in STRUCTURES:
            if name in valid and name != self.structure:
                return name
        raise UnavailableError(f"the archive refuses: {complaint[:200]}. {self.url}. TRY: --from aip, or --bulk")

    def _unpacked(self, packed: BinaryIO) -> Iterator[pa.RecordBatch]:
        for name, member in spectrafiles.unzipped(packed, self.url):
            # Only the mean spectra in coefficients; an archive without a product holds nothing.
            if "continuous" in name.lower() or "mean_spectrum" in name.lower():
                yield from spectrafiles.read(member, f"{name} of {self.url}")
