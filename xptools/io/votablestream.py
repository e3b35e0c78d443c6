"""VOTable in as a stream: BINARY, BINARY2 and TABLEDATA tables of any length, in bounded memory.

expat reads the document piece by piece; rows are cut out of the base64 text, or gathered cell by cell, as they come.
Base64 goes past expat, which takes as long for it as all the rest of the work.
Tables in FITS and rarer types are left to astropy (`None` is returned).
"""

import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO
from xml.parsers import expat

import numpy as np
import pyarrow as pa

from xptools import metadata
from xptools.arrowcalls import wrapped
from xptools.errors import DataError
from xptools.io import votabletext
from xptools.io.reader import Reader

PIECE = 1 << 20
CODES = {
    "boolean": ("u1", pa.bool_()),
    "unsignedByte": ("u1", pa.uint8()),
    "short": (">i2", pa.int16()),
    "int": (">i4", pa.int32()),
    "long": (">i8", pa.int64()),
    "float": (">f4", pa.float32()),
    "double": (">f8", pa.float64()),
    "char": ("S1", pa.string()),
    "unicodeChar": (">u2", pa.string()),
}


class ServerSays(DataError):
    """A reply that says of itself that it is an error, or only a part: `status` ERROR or OVERFLOW, `words` its text."""

    def __init__(self, name: str, status: str, words: str):
        super().__init__(f"{name} is the archive's {status.lower()} reply ({words[:120]}). TRY: ask for fewer rows")
        self.status, self.words = status, words


@dataclass
class Column:
    """One FIELD: what its values are and how many a row holds (None: each row says)."""

    name: str
    datatype: str
    count: int | None
    array: bool
    words: dict[str, str]
    null: int | None = None

    @property
    def dtype(self) -> np.dtype:
        """Of one item in the stream."""
        return np.dtype(CODES[self.datatype][0])

    def arrow(self) -> pa.Field:
        """The Arrow field."""
        kind = CODES[self.datatype][1]
        if self.array and kind != pa.string():
            item = pa.field("item", kind, nullable=False)
            kind = pa.list_(item) if self.count is None else pa.list_(item, self.count)
        return pa.field(self.name, kind, metadata={k: v for k, v in self.words.items() if v})


@dataclass
class Document:
    """What the parser has seen: columns, INFOs, and the text of the stream that is not decoded yet."""

    columns: list[Column] = field(default_factory=list)
    infos: list[tuple[str, str, str]] = field(default_factory=list)
    serial: str = ""
    encoding: str = ""
    text: list[bytes] = field(default_factory=list)
    cells: list[str] = field(default_factory=list)
    rows: int = 0
    row_cells: int = 0
    path: list[str] = field(default_factory=list)
    strange: bool = False
    ended: bool = False
    words: list[str] = field(default_factory=list)

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        """An element opens."""
        tag = tag.rpartition(":")[2]
        self.path.append(tag)
        self.words = []
        if tag == "FIELD" and not self.serial:
            self._column(attributes)
        elif tag == "VALUES" and "null" in attributes and "FIELD" in self.path and self.columns:
            text = attributes["null"]
            self.columns[-1].null = int(text) if re.fullmatch(r"[+-]?\d+", text) else None
        elif tag == "INFO":
            self.infos.append((attributes.get("name", ""), attributes.get("value", ""), ""))
        elif tag == "TABLE" and not self.serial:
            self.columns = []
        elif tag in ("BINARY", "BINARY2", "TABLEDATA", "FITS") and not self.serial:
            self.serial = tag
        elif tag == "STREAM" and not self.encoding:
            self.encoding = "remote" if "href" in attributes else attributes.get("encoding", "none")

    def end(self, tag: str) -> None:
        """An element closes."""
        tag = self.path.pop()
        inside = self.path[-1] if self.path else ""
        if tag == "DESCRIPTION" and inside == "FIELD" and not self.ended and self.columns:
            self.columns[-1].words.setdefault("description", " ".join("".join(self.words).split()))
        elif tag == "INFO" and self.infos:
            self.infos[-1] = (*self.infos[-1][:2], "".join(self.words).strip())
        elif tag in ("STREAM", "TABLEDATA"):
            self.ended = True
        elif tag == "TD" and not self.ended:
            self.cells.append("".join(self.words))
            self.row_cells += 1
        elif tag == "TR" and not self.ended:
            self.rows += 1
            if self.row_cells != len(self.columns):
                raise ValueError(f"row {self.rows:,} has {self.row_cells} cells, not {len(self.columns)}")
            self.row_cells = 0

    def characters(self, text: str) -> None:
        """Text, of the stream or of a description."""
        if self.path[-1] == "STREAM":
            if not self.ended:
                self.text.append(text.encode("ascii", "replace"))
        else:
            self.words.append(text)

    def _column(self, attributes: dict[str, str]) -> None:
        size, datatype = attributes.get("arraysize", "").strip(), attributes.get("datatype", "")
        fixed = re.fullmatch(r"\d+(x\d+)*", size)
        self.strange |= datatype not in CODES or not (fixed or re.fullmatch(r"|\d*\*", size))
        self.strange |= datatype in ("char", "unicodeChar") and "x" in size
        count = int(np.prod([int(n) for n in size.split("x")])) if fixed else 1 if not size else None
        self.strange |= count == 0 or (count == 1 and bool(size) and datatype not in ("char", "unicodeChar"))
        words = {"unit": attributes.get("unit", ""), "ucd": attributes.get("ucd", "")}
        name = attributes.get("name") or attributes.get("ID") or f"col{len(self.columns) + 1}"
        self.columns.append(Column(name, datatype, count, bool(size), words))


def read(whole: BinaryIO, name: str, partial: bool = False) -> Reader | None:
    """A reader of the first table, None if astropy must do it; DataError for a document that is cut off or damaged.

    A reply that says it is only a part is refused at once; with `partial` after its last row.
    """
    document = Document()
    pieces = _pieces(whole, document, name)
    for _ in pieces:
        if document.encoding or document.serial in ("TABLEDATA", "FITS"):
            break
    refuse_status([i for i in document.infos if not (partial and i[1] == "OVERFLOW")], name)
    coded = document.serial in ("BINARY", "BINARY2") and document.encoding == "base64"
    if not (coded or document.serial == "TABLEDATA") or document.strange or not document.columns:
        return None
    records = [value for key, value, _ in document.infos if key.startswith("xp.provenance.")]
    history = {metadata.HISTORY: ("[" + ", ".join(records) + "]").encode()} if records else None
    schema = pa.schema([c.arrow() for c in document.columns], history)
    batches = (_batches if coded else _typed)(document, pieces, schema, name)
    return Reader(name, "votable", schema, None, batches)


def refuse_status(infos: list[tuple[str, str, str]], name: str) -> None:
    """ServerSays if the server says that its answer is an error, or only a part."""
    for key, value, text in infos:
        if key == "QUERY_STATUS" and value in ("ERROR", "OVERFLOW"):
            raise ServerSays(name, value, text or value)


def _pieces(whole: BinaryIO, document: Document, name: str) -> Iterator[None]:
    """Feed the document to the parser; yields after each piece."""
    parser = expat.ParserCreate()
    parser.buffer_text, parser.buffer_size = True, PIECE
    parser.StartElementHandler, parser.EndElementHandler = document.start, document.end
    parser.CharacterDataHandler = document.characters
    parser.ExternalEntityRefHandler = lambda *_: 0  # refused: without it expat would leave such text out, unsaid
    whole.seek(0)
    past = False  # whether the next bytes are base64 that need not go through the parser
    try:
        while piece := whole.read(PIECE):
            if past:
                plain, piece, past = _plain(piece)
                document.text.append(plain)
            before = document.encoding
            if piece:
                parser.Parse(piece)
            past = past or (document.encoding == "base64" != before and _opens(piece))
            yield
        parser.Parse(b"", True)
    except (expat.ExpatError, ValueError) as fault:
        raise DataError(f"{name} is a damaged or cut-off VOTable ({fault}). TRY: download it again") from fault
    yield


def _dense(text: bytes) -> bytes:
    """The text without blanks; the lines of a table are long, so most have none but at their end."""
    text = text.replace(b"\n", b"")
    return text.translate(None, b" \t\r") if any(blank in text for blank in (b" ", b"\t", b"\r")) else text


def _plain(piece: bytes) -> tuple[bytes, bytes, bool]:
    """Base64 that goes past the parser, the rest, which is the parser's, and whether the next piece may go past it.

    From the first tag or entity on everything is the parser's.
    """
    if b"&" in piece:
        return b"", piece, False
    end = piece.find(b"<")
    return (piece, b"", True) if end < 0 else (piece[:end], piece[end:], False)


def _opens(piece: bytes) -> bool:
    """Whether a piece ends in the text of its STREAM, with nothing else begun: no comment, no CDATA, no entity."""
    begun = piece.rfind(b"STREAM")
    return begun >= 0 and b"<" not in piece[begun:] and b"&" not in piece[begun:]


def _batches(document: Document, pieces: Iterator[None], schema: pa.Schema, name: str) -> Iterator[pa.RecordBatch]:
    rows = Rows(document.columns, document.serial == "BINARY2")
    text, done = b"", False
    while not done:
        done = next(pieces, "end") == "end"
        text += _dense(b"".join(document.text))
        document.text.clear()
        cut = len(text) if document.ended else len(text) // 4 * 4
        try:
            rows.rest += binascii.a2b_base64(text[:cut], strict_mode=True)
        except binascii.Error as fault:
            raise DataError(f"{name} is a damaged VOTable ({fault}). TRY: download it again") from fault
        text = text[cut:]
        if columns := rows.take(name):
            yield pa.RecordBatch.from_arrays(columns, schema=schema)
    if rows.rest:
        raise DataError(f"{name} is a damaged VOTable: its last row is incomplete. TRY: download it again")
    refuse_status(document.infos, name)


def _typed(document: Document, pieces: Iterator[None], schema: pa.Schema, name: str) -> Iterator[pa.RecordBatch]:
    """The rows of a TABLEDATA, as they come."""
    width, first, done = len(document.columns), 0, False
    while not done:
        done = next(pieces, "end") == "end"
        rows = len(document.cells) // width
        cells, document.cells = document.cells[: rows * width], document.cells[rows * width :]
        if rows:
            columns = [votabletext.column(cells[i::width], c, first, name) for i, c in enumerate(document.columns)]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)
        first += rows
    refuse_status(document.infos, name)


class Rows:
    """Rows cut out of bytes; what is left of an incomplete row waits for more bytes."""

    def __init__(self, columns: list[Column], flagged: bool):
        self.columns, self.rest = columns, b""
        self.flags = (len(columns) + 7) // 8 if flagged else 0

    def take(self, name: str) -> list[pa.Array] | None:
        """The complete rows as Arrow columns; None if there is none."""
        if all(c.count is not None for c in self.columns):
            return self._even()
        data = np.frombuffer(self.rest, "u1")
        starts, sizes, end = self._offsets(name)
        if len(starts) == 0:
            return None
        missing = np.zeros((len(starts), len(self.columns)), bool)
        if self.flags:
            bits = np.unpackbits(_gathered(data, starts, self.flags), axis=1)
            missing = bits[:, : len(self.columns)].astype(bool)
        at = starts + self.flags
        out = []
        for i, column in enumerate(self.columns):
            if column.count is None:
                n = sizes[i]
                out.append(_ragged(self.rest, at + 4, n, column, missing[:, i]))
                at = at + 4 + n * column.dtype.itemsize
            else:
                width = column.count * column.dtype.itemsize
                out.append(_fixed(_gathered(data, at, width), column, missing[:, i]))
                at = at + width
        self.rest = self.rest[end:]
        return out

    def _even(self) -> list[pa.Array] | None:
        """The complete rows, where all have the same width."""
        parts = [(f"c{i}", c.dtype, (c.count,)) for i, c in enumerate(self.columns)]
        dtype = np.dtype([("flags", "u1", (self.flags,)), *parts])
        n = len(self.rest) // dtype.itemsize
        if n == 0:
            return None
        rows = np.frombuffer(self.rest, dtype, n)
        missing = np.zeros((n, len(self.columns)), bool)
        if self.flags and rows["flags"].any():
            missing = np.unpackbits(rows["flags"], axis=1)[:, : len(self.columns)].astype(bool)
        self.rest = self.rest[n * dtype.itemsize :]
        return [_fixed(rows[f"c{i}"], c, missing[:, i]) for i, c in enumerate(self.columns)]

    def _offsets(self, name: str) -> tuple[np.ndarray, dict[int, np.ndarray], int]:
        """Where rows start, how many items their variable columns have, where the last complete row ends."""
        gaps, lead = [], self.flags
        for i, column in enumerate(self.columns):
            if column.count is None:
                gaps.append((i, lead, column.dtype.itemsize))
                lead = 0
            else:
                lead += column.count * column.dtype.itemsize
        starts, counts, at, size = [], [], 0, len(self.rest)
        while True:
            place, row = at, []
            for _, before, item in gaps:
                place += before
                n = int.from_bytes(self.rest[place : place + 4], "big", signed=True)
                if n < 0:
                    raise DataError(f"{name} is a damaged VOTable: an array of {n} values. TRY: download it again")
                row.append(n)
                place += 4 + n * item
            if place + lead > size or place <= at:
                break
            starts.append(at)
            counts.append(row)
            at = place + lead
        table = np.array(counts, np.int64).reshape(len(starts), len(gaps))
        return np.array(starts, np.int64), {i: table[:, k] for k, (i, _, _) in enumerate(gaps)}, at


def _gathered(data: np.ndarray, starts: np.ndarray, width: int) -> np.ndarray:
    """Bytes (rows, width) at the starts."""
    step = int(starts[1] - starts[0]) if len(starts) > 1 else width
    if len(starts) < 2 or (np.diff(starts) == step).all():
        first = int(starts[0])
        view = np.lib.stride_tricks.as_strided(data[first:], (len(starts), width), (step, 1))
        return np.ascontiguousarray(view)
    return data[starts[:, None] + np.arange(width)]


def _fixed(raw: np.ndarray, column: Column, missing: np.ndarray) -> pa.Array:
    kind = column.arrow().type
    if column.datatype in ("char", "unicodeChar"):
        return pa.array([_text(r.tobytes(), column.datatype) for r in raw], mask=missing)
    values, unknown = _values(raw.view(column.dtype), column)
    if pa.types.is_fixed_size_list(kind):
        if values.dtype.kind == "f" and missing.any():
            values[missing] = np.nan
        return pa.FixedSizeListArray.from_arrays(wrapped(values.reshape(-1), kind.value_type), type=kind)
    missing = missing if unknown is None else missing | unknown[:, 0]
    return wrapped(values[:, 0], kind, missing if missing.any() else None)


def _values(raw: np.ndarray, column: Column) -> tuple[np.ndarray, np.ndarray | None]:
    if column.datatype == "boolean":
        true, false = np.isin(raw, list(b"Tt1")), np.isin(raw, list(b"Ff0"))
        return true, ~(true | false)
    unknown = raw == column.null if column.null is not None and raw.dtype.kind in "iu" else None
    return raw.astype(raw.dtype.newbyteorder("=")), unknown


def _ragged(data: bytes, starts: np.ndarray, counts: np.ndarray, column: Column, missing: np.ndarray) -> pa.Array:
    item = column.dtype.itemsize
    cells = [data[a : a + n * item] for a, n in zip(starts.tolist(), counts.tolist(), strict=True)]
    if column.datatype in ("char", "unicodeChar"):
        return pa.array([_text(c, column.datatype) for c in cells], pa.string(), mask=missing)
    values, _ = _values(np.frombuffer(b"".join(cells), column.dtype), column)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    kind = column.arrow().type
    gaps = pa.array(missing) if missing.any() else None
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values, kind.value_type), kind, mask=gaps)


def _text(cell: bytes, datatype: str) -> str:
    return cell.decode("utf-8" if datatype == "char" else "utf-16-be", "replace").partition("\0")[0]
