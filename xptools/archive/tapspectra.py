"""Spectra from a TAP service that has xp_continuous_mean_spectrum as a table (AIP), by a table of identifiers.

The identifiers go along with the query as a VOTable and are joined there (TAP 1.1, Sec. 2.7.5), where the service says
that it takes tables; else they stand in the query.
"""

import numpy as np
import pyarrow as pa

from xptools.archive import spectra, spectrafiles
from xptools.archive.gather import Piece, chunks
from xptools.archive.http import Client, plain, refuse_page
from xptools.archive.tap import JOIN, Tap
from xptools.archive.wire import Damaged
from xptools.errors import RemoteError, UnavailableError

AIP = "https://gaia.aip.de/tap"
TABLE = "gaiadr3.xp_continuous_mean_spectrum"
MOST = 1000  # identifiers of one query


class TapSpectra:
    """A route: synchronous queries for the columns that are wanted, as CSV; `upload` is auto, on or off."""

    def __init__(self, client: Client, url: str = AIP, table: str = TABLE, chunk: int = MOST,
                 correlations: bool = True, parallel: int = 2, upload: str = "auto"):  # fmt: skip
        self.client, self.url, self.table, self.tap = client, url.rstrip("/"), table, Tap(client, url.rstrip("/"))
        self.chunk, self.correlations, self.parallel, self.steady = chunk, correlations, parallel, False
        self.upload = upload

    def pieces(self, ids: np.ndarray) -> list[Piece]:
        """Pieces of one query each."""
        return chunks(ids, self.chunk)

    def stop(self) -> None:
        """Wake those that wait for another try."""
        self.client.stopping.set()

    def get(self, piece: Piece) -> pa.Table:
        """The spectra of a piece."""
        along = self.upload == "on" or (self.upload == "auto" and self.tap.uploads)
        return self.client.patiently(lambda: self._once(piece.ids, along), self.url)

    def query(self, ids: np.ndarray, along: bool) -> str:
        """The ADQL for these identifiers; `along`: they are in a table that is sent with it."""
        columns = ", ".join(f"x.{name}" for name in spectra.columns(self.correlations))
        select = f"SELECT {columns} FROM {self.table} AS x"
        if along:
            return f"{select} {JOIN} x.source_id"
        return f"{select} WHERE x.source_id IN ({', '.join(map(str, ids.tolist()))})"

    def _once(self, ids: np.ndarray, along: bool) -> pa.Table:
        # One more row than there can be: a service that would cut at the limit is never at it. CSV, because AIP gives
        # arrays in no other format.
        words = self.tap.words(self.query(ids, along), len(ids) + 1, FORMAT="csv")
        form = self.tap.form(words, ids if along else None)
        body, reply = self.client.kept(f"{self.url}/sync", method="POST", accept=(200, 400), **form)
        with body:
            start = body.read(4096)
            if reply.ok:
                refuse_page(reply, start)
            if start.lstrip()[:1] == b"<" or reply.status_code == 400:
                cure = "--upload off, or --from datalink" if along else "--from datalink"
                raise UnavailableError(f"{self.url} refuses: {plain(start.decode('utf-8', 'replace'))}. TRY: {cure}")
            body.seek(0)
            try:
                return spectra.normal(spectrafiles.read(body, self.url), self.correlations, self.url)
            except Damaged as fault:  # cut in a row
                raise RemoteError(str(fault)) from fault
