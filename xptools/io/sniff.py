"""What a file is, from its first bytes, never from its name."""

from xptools.errors import DataError

HEAD = 4096
SEEKABLE = {"parquet", "arrow", "fits"}


def kind(head: bytes) -> str:
    """The format's name for the first bytes of a file: arrows, arrow, parquet, fits, votable, ecsv, csv, gzip, zstd
    or, for what is not a table, empty, html, hdf5, zip, safetensors, json, pdf, binary."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if not head:
        return "empty"
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        return "safetensors"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    start = text[:600].lower()
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body")) or b"<html" in start:
        return "html"
    if b"<votable" in text[:2000].lower():
        return "votable"
    if text.startswith(b"<"):
        return "xml"
    if text.startswith(b"# %ECSV"):
        return "ecsv"
    if text.startswith((b"{", b"[")):
        return "json"
    if _texty(head):
        return "csv"
    return "binary"


def refuse(found: str, name: str) -> DataError:
    """The error for what is not a table, with the way out."""
    what, cure = _REFUSALS.get(found, (f"{found} data", "xp convert --help lists the formats that are read"))
    return DataError(f"{name} is {what}, not a table. TRY: {cure}")


_MAGIC = (
    (b"\xff\xff\xff\xff", "arrows"),
    (b"ARROW1", "arrow"),
    (b"PAR1", "parquet"),
    (b"SIMPLE  =", "fits"),
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x89HDF", "hdf5"),
    (b"PK\x03\x04", "zip"),
    (b"%PDF", "pdf"),
    (b"\x89PNG", "an image"),
)

_REFUSALS = {
    "empty": (
        "empty (0 bytes): the command before it failed or wrote nothing",
        "run that command alone and read its message",
    ),
    "html": (
        "an HTML page (an error or login page saved as data)",
        "download the file again and look at it in a browser",
    ),
    "hdf5": ("an HDF5 file", 'python -c \'from astropy.table import Table; Table.read("f.h5").write("f.parquet")\''),
    "zip": ("a ZIP archive", "unzip it first"),
    "safetensors": ("an xp model file", "xp info FILE, or give it to --model"),
    "json": ("JSON text", "xp convert reads CSV, ECSV, VOTable, FITS, Parquet and Arrow"),
    "xml": ("XML but no VOTable", "export it as VOTable, FITS or CSV"),
    "binary": ("of no format that xp knows", "xp convert --help lists the formats that are read"),
}


def _texty(head: bytes) -> bool:
    if b"\0" in head:
        return False
    first = head.split(b"\n", 1)[0].strip(b"\r")
    printable = sum(32 <= c < 127 or c >= 128 or c in b"\t\r\n" for c in head)
    return printable == len(head) and bool(first) and (b"," in first or b"\n" in head)
