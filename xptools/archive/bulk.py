"""The archive's bulk files of XP spectra, in a folder or at an address: CDN's ECSV, gzipped, and Flatiron's HDF5.

A file's name tells the range of HEALPix pixels (level 8) of its sources, source_id >> 43, so only files that can hold
wanted identifiers are read. Each is checked against _MD5SUM.txt where there is one. ECSV is filtered as it comes and
never on disc; its rows count once its last byte has come and the sum is right. Of HDF5, which is not in order, the
blocks are fetched that hold what is wanted, without a sum; where they are much of the file, or with `whole`, the file
is downloaded, compared, filtered and deleted again.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from xptools import progress
from xptools.archive import hdf5, spectra, spectrafiles, wire
from xptools.archive.download import download
from xptools.archive.gather import Piece
from xptools.archive.http import Client
from xptools.archive.place import Place
from xptools.archive.ranged import Blocks, NoParts
from xptools.errors import DataError, InputError

CDN = "https://cdn.gea.esac.esa.int/Gaia/gdr3/Spectroscopy/xp_continuous_mean_spectrum"
FLATIRON = "https://sdsc-users.flatironinstitute.org/~gaia/dr3/hdf5/XpContinuousMeanSpectrum"
SUMS = "_MD5SUM.txt"
LEVEL8 = 43
NAME = re.compile(r"[\w.-]*?(\d{6})-(\d{6})\.(?:csv|ecsv|csv\.gz|ecsv\.gz|hdf5|h5)(?![\w.])")
HDF5 = (".hdf5", ".h5")
DAMAGED_TRIES = 2  # a server that sends other bytes than those of the sum twice has them so
FILES, FILE_BYTES = 3386, {"csv": 993e6, "hdf5": 1.66e9}  # 3362 GB in all; HDF5 estimated from the columns


class BulkFile(NamedTuple):
    """A file of the release: its first and last level-8 pixel, and its md5 if published."""

    name: str
    first: int
    last: int
    md5: str | None = None


class Bulk(Place):
    """A route: whole files, one after the other; a piece is what one file can hold."""

    def __init__(self, where: str, client: Client | None = None, work: Path | None = None,
                 correlations: bool = True, parallel: int = 1, keep: bool = False, whole: bool = False):  # fmt: skip
        super().__init__(where, client)
        self.work, self.keep, self.whole = work, keep, whole
        self.correlations, self.parallel = correlations, parallel
        self.steady = True
        self.files: list[BulkFile] = []

    def stop(self) -> None:
        """Wake those that wait for another try."""
        if self.client is not None:
            self.client.stopping.set()

    def pieces(self, ids: np.ndarray) -> list[Piece]:
        """One piece for every file that can hold some; identifiers between the files are in pieces named `none`."""
        self.files = self.files or self._listed()
        pixel, pieces, place = ids >> LEVEL8, [], 0
        for f in self.files:
            start, stop = np.searchsorted(pixel, [f.first, f.last + 1])
            if start > place:
                pieces.append(Piece(f"none-{len(pieces):06d}", ids[place:start]))
            if stop > start:
                pieces.append(Piece(f.name.split(".")[0], ids[start:stop]))
            place = max(place, int(stop))
        return [*pieces, Piece(f"none-{len(pieces):06d}", ids[place:])] if place < len(ids) else pieces

    def get(self, piece: Piece) -> pa.Table:
        """The spectra of a piece; a `none` piece has none."""
        file = next((f for f in self.files if f.name.split(".")[0] == piece.name), None)
        if file is None:
            return spectra.normal([], self.correlations, self.where)
        if not (file.name.endswith(HDF5) or (self.client and self.keep)):
            return self._streamed(file, piece.ids)
        if self.client and not (self.keep or self.whole or (self.work / file.name).exists()):
            if (table := self._in_parts(file, piece.ids)) is not None:
                return table
        path = self._whole(file)
        try:
            return spectra.kept(rows(path, piece.ids, self.correlations), self.correlations, str(path))
        finally:
            if self.client and not self.keep:
                path.unlink(missing_ok=True)

    def _streamed(self, file: BulkFile, ids: np.ndarray) -> pa.Table:
        """The wanted rows of a text, read once; from the network again where it cannot be gone on with."""
        where = f"{self.where}/{file.name}"
        if self.client is None:
            return self._filtered(wire.near(Path(where), file.md5), where, ids)
        for attempt in range(1, self.client.tries + 1):
            try:
                return self._filtered(wire.far(self.client, where, file.md5), where, ids)
            except (wire.Broken, wire.Damaged) as fault:
                if attempt >= (self.client.tries if isinstance(fault, wire.Broken) else DAMAGED_TRIES):
                    raise
                self.client.rest(self.client.pause * 2 ** (attempt - 1))
        raise AssertionError("a file is tried at least once")

    def _filtered(self, pieces: Iterator[bytes], where: str, ids: np.ndarray) -> pa.Table:
        """What is wanted of a stream, once all of it has come and its sum is right."""
        table, fault = None, None
        with closing(pieces):
            try:
                text = spectrafiles.read_text(wire.plain(pieces, where), where, ids)
                table = spectra.kept(text, self.correlations, where)
            except DataError as found:
                fault = found
            for _ in pieces:  # to its end: a wrong sum says more than what was made of it
                pass
        if fault is not None:
            raise fault
        return table

    def _in_parts(self, file: BulkFile, ids: np.ndarray) -> pa.Table | None:
        """The wanted rows of HDF5, by the blocks that hold them; None where all of it is to be fetched instead."""
        import h5py

        where = f"{self.where}/{file.name}"
        try:
            with Blocks(self.client, where) as blocks, h5py.File(blocks) as opened:
                found = hdf5.Columns(opened, where, ids, self.correlations)
                if found.cost() > hdf5.SHARE * blocks.size:
                    return None
                if file.md5:
                    progress.warn(f"{self.where}: parts of files are read, so no md5 is compared (--whole does)")
                return spectra.kept(found.batches(blocks), self.correlations, where)
        except NoParts:
            return None
        except OSError as fault:  # what is whole may open
            progress.warn(f"{where} cannot be read in parts ({str(fault)[:120]}), so all of it is fetched")
            return None

    def _whole(self, file: BulkFile) -> Path:
        """A file on disc, compared with its sum: HDF5 cannot be read from its beginning to its end."""
        path = Path(self.where) / file.name if self.client is None else self.work / file.name
        if path.exists() and file.md5 and not (found := _wrong(path, file.md5)):
            return path
        if self.client is not None:
            sums = {"md5": file.md5} if file.md5 else None
            return download(self.client, f"{self.where}/{file.name}", path, sums=sums)
        if file.md5:
            raise DataError(f"{path} has the md5 {found}, not {file.md5}. TRY: download that file again")
        return path

    def _listed(self) -> list[BulkFile]:
        """The files there are, by their ranges; with sums from _MD5SUM.txt where it exists."""
        if self.client is None and not Path(self.where).is_dir():
            raise InputError(f"there is no folder {self.where}. TRY: --bulk DIR, or an address")
        text = self.text(SUMS)
        if text is not None:
            sums = [line.split() for line in text.splitlines() if len(line.split()) >= 2]
            named = {words[-1].lstrip("*").rpartition("/")[2]: words[0] for words in sums}
        else:
            named = dict.fromkeys(self._names())
            progress.warn(f"{self.where} has no {SUMS}: files are checked for wholeness, not for content")
        here = named if self.client else {n: s for n, s in named.items() if (Path(self.where) / n).is_file()}
        files = [
            BulkFile(n, int(m[1]), int(m[2]), s) for n, s in here.items() if (m := NAME.fullmatch(n.rpartition("/")[2]))
        ]
        if not files:
            raise InputError(
                f"{self.where} has no file named like XpContinuousMeanSpectrum_000000-003111.csv.gz. TRY: --bulk {CDN}"
            )
        return sorted(files, key=lambda f: f.first)

    def _names(self) -> list[str]:
        if self.client is None:
            return sorted(p.name for p in Path(self.where).iterdir())
        text = self.client.request("GET", f"{self.where}/", page=True).text
        return sorted({m[0] for m in NAME.finditer(text)})


def in_parts(stars: np.ndarray) -> float:
    """What HDF5 files cost of which that many stars each are wanted, in bytes, waits for replies counted as such."""
    cost, whole = hdf5.FILE + hdf5.STAR * stars, FILE_BYTES["hdf5"]
    return float(np.where(cost > hdf5.SHARE * whole, whole, cost).sum())


def rows(path: Path, wanted: np.ndarray, correlations: bool = True) -> Iterator[pa.RecordBatch]:
    """Batches of the wanted rows of one bulk file."""
    if path.name.endswith(HDF5):
        return _hdf5(path, wanted, correlations)
    return spectrafiles.read_text(wire.plain(wire.near(path), str(path)), str(path), wanted)


def _hdf5(path: Path, wanted: np.ndarray, correlations: bool) -> Iterator[pa.RecordBatch]:
    """The wanted rows of an HDF5 file here."""
    import h5py

    try:
        with h5py.File(path) as file:
            yield from hdf5.Columns(file, str(path), wanted, correlations).batches()
    except OSError as fault:
        raise DataError(f"{path} is no whole HDF5 file ({str(fault)[:120]}). TRY: download that file again") from fault


def _wrong(path: Path, md5: str) -> str:
    """The md5 of a file if it is not this one, else ""."""
    with open(path, "rb") as f:
        found = hashlib.file_digest(f, "md5").hexdigest()
    return "" if found == md5.lower() else found
