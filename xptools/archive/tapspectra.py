"""Spectra from a TAP service that has xp_continuous_mean_spectrum as a table (AIP), by identifiers in the query."""

from io import BytesIO

import numpy as np
import pyarrow as pa

from xptools.archive import spectra
from xptools.archive.gather import Piece, chunks
from xptools.archive.http import Client, plain
from xptools.errors import RemoteError, UnavailableError
from xptools.io.spool import spooled

AIP = "https://gaia.aip.de/tap"
TABLE = "gaiadr3.xp_continuous_mean_spectrum"
MOST = 1000  # identifiers of one query


class TapSpectra:
    """A route: synchronous queries `source_id IN (...)` for the columns that are wanted, as CSV."""

    def __init__(self, client: Client, url: str = AIP, table: str = TABLE, chunk: int = MOST,
                 correlations: bool = True, parallel: int = 2):  # fmt: skip
        self.client, self.url, self.table = client, url.rstrip("/"), table
        self.chunk, self.correlations, self.parallel, self.steady = chunk, correlations, parallel, False

    def pieces(self, ids: np.ndarray) -> list[Piece]:
        """Pieces of one query each."""
        return chunks(ids, self.chunk)

    def stop(self) -> None:
        """Wake those that wait for another try."""
        self.client.stopping.set()

    def get(self, piece: Piece) -> pa.Table:
        """The spectra of a piece."""
        return self.client.patiently(lambda: self._once(piece.ids), self.url)

    def query(self, ids: np.ndarray) -> str:
        """The ADQL for these identifiers."""
        names = ", ".join(spectra.columns(self.correlations))
        return f"SELECT {names} FROM {self.table} WHERE source_id IN ({', '.join(map(str, ids.tolist()))})"

    def _once(self, ids: np.ndarray) -> pa.Table:
        # One more row than there can be: a service that would cut at the limit is never at it.
        form = {"REQUEST": "doQuery", "LANG": "ADQL", "FORMAT": "csv", "MAXREC": len(ids) + 1, "QUERY": self.query(ids)}
        reply = self.client.request("POST", f"{self.url}/sync", retry=False, accept=(200, 400), data=form)
        body = reply.content
        if body.lstrip()[:1] == b"<" or reply.status_code == 400:
            words = plain(body.decode("utf-8", "replace"))
            raise UnavailableError(f"{self.url} refuses: {words}. TRY: --from datalink")
        with spooled(BytesIO(body)) as raw:
            raw.seek(0)
            try:
                return spectra.normal(spectra.read(raw, self.url), self.correlations, self.url)
            except spectra.Damaged as fault:  # cut in a row
                raise RemoteError(str(fault)) from fault
