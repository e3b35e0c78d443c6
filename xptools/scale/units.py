"""Units of work: the files of a folder or of a HATS catalogue, or runs of row groups of one big Parquet file."""

import re
from dataclasses import dataclass
from pathlib import Path

from xptools.errors import DataError, InputError, UsageError

TABLES = (".parquet", ".pq", ".arrow", ".feather", ".arrows", ".fits", ".fit", ".vot", ".votable", ".ecsv", ".csv")
PACKED = (".gz", ".zst")
UNIT_BYTES = 1 << 30


@dataclass(frozen=True)
class Unit:
    """One piece of input and the part it becomes; `name` and `part` are relative to the input and the output."""

    place: int
    source: str
    name: str
    part: str
    size: int
    mtime_ns: int
    groups: tuple[int, int] | None = None

    def changed(self) -> bool:
        """Whether the file is not what it was when the units were listed."""
        stat = _stat(Path(self.source))
        return (stat.st_size, stat.st_mtime_ns) != (self.size, self.mtime_ns)


@dataclass(frozen=True)
class Inputs:
    """What a run reads: its units in order; `hats` is the folder of the catalogue, if it is one."""

    units: tuple[Unit, ...]
    one_file: bool = False
    hats: str = ""


def listed(path: str, unit_rows: int) -> Inputs:
    """The units of a file, a folder or a catalogue. InputError (66) if there is nothing, UsageError for a clash."""
    root = Path(path).absolute()
    if not root.is_dir():
        return Inputs(_ranges(root, unit_rows), one_file=True)
    catalogue = _catalogue(root)
    if catalogue is not None:
        return Inputs(_partitions(catalogue), hats=str(catalogue))
    found = sorted(p.relative_to(root) for p in root.rglob("*") if _is_table(p, root))
    if not found:
        raise InputError(f"there is no table in the folder {path}. TRY: ls {path}")
    units = tuple(_unit(i, root / name, name.as_posix(), _as_part(name)) for i, name in enumerate(found))
    parts: dict[str, str] = {}
    for unit in units:
        if unit.part in parts:
            raise UsageError(f"{parts[unit.part]} and {unit.name} would both become {unit.part}. TRY: rename one")
        parts[unit.part] = unit.name
    return Inputs(units)


def _is_table(path: Path, root: Path) -> bool:
    # What begins with . or _ is no data for any reader of Parquet folders either.
    if any(word.startswith((".", "_")) for word in path.relative_to(root).parts):
        return False
    # A link to nowhere is no reason to be silent: it is named, and nothing is done before it is gone.
    return _bare(path.name) != path.name and (path.is_file() or not path.exists())


def _bare(name: str) -> str:
    for packed in PACKED:
        name = name.removesuffix(packed)
    stem, dot, suffix = name.rpartition(".")
    return stem if dot + suffix.lower() in TABLES else name


def _as_part(name: Path) -> str:
    return name.with_name(_bare(name.name) + ".parquet").as_posix()


def _stat(path: Path):
    try:
        return path.stat()
    except OSError as fault:
        raise InputError(f"cannot open {path}: {fault.strerror.lower()}. TRY: ls {path.parent}") from fault


def _unit(place: int, path: Path, name: str, part: str, groups: tuple[int, int] | None = None) -> Unit:
    stat = _stat(path)
    return Unit(place, str(path), name, part, stat.st_size, stat.st_mtime_ns, groups)


def _ranges(path: Path, unit_rows: int) -> tuple[Unit, ...]:
    """Runs of row groups of about so many rows, or of 1 GB; a file that is not Parquet is one unit."""
    _stat(path)
    with path.open("rb") as file:
        if file.read(4) != b"PAR1":
            return (_unit(0, path, path.name, _as_part(Path(path.name))),)
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        about = pq.read_metadata(path)
    except (pa.ArrowException, OSError) as fault:
        raise DataError(f"{path} is a damaged or cut-off Parquet file. TRY: make or download it again") from fault
    firsts, rows, size = [0], 0, 0
    for i in range(about.num_row_groups):
        group = about.row_group(i)
        if rows and (rows + group.num_rows > unit_rows or size + group.total_byte_size > UNIT_BYTES):
            firsts, rows, size = [*firsts, i], 0, 0
        rows, size = rows + group.num_rows, size + group.total_byte_size
    lasts = [*firsts[1:], about.num_row_groups]
    bounds = enumerate(zip(firsts, lasts, strict=True))
    return tuple(_unit(i, path, f"{path.name}[{a}:{b}]", f"part-{i:05d}.parquet", (a, b)) for i, (a, b) in bounds)


# --- HATS ----------------------------------------------------------------------------------------------------------

PIXEL = re.compile(r"Norder=(\d+)/Dir=\d+/Npix=(\d+)")


def _catalogue(root: Path) -> Path | None:
    """The folder of the catalogue that `root` is, or that is the table of the collection `root`; None if it is none."""
    collection = root / "collection.properties"
    if collection.is_file():
        named = re.search(r"^hats_primary_table_url\s*=\s*(\S+)", collection.read_text(), re.M)
        if named and (root / named[1]).is_dir():
            return root / named[1]
    from xptools.archive.hats import PROPERTIES

    return root if (root / "dataset").is_dir() and any((root / name).is_file() for name in PROPERTIES) else None


def _partitions(root: Path) -> tuple[Unit, ...]:
    from xptools.archive.hats import Catalogue

    names: list[str] = []
    for part in Catalogue(str(root)).partitions():
        folder = (root / part.path).with_suffix("")
        several = sorted(p for p in folder.glob("*.parquet")) if folder.is_dir() else ()
        names += [p.relative_to(root).as_posix() for p in several] or [part.path]
    return tuple(_unit(i, root / name, name, name) for i, name in enumerate(names))


def pixel(part: str) -> tuple[int, int]:
    """HEALPix order and pixel of a part of a catalogue."""
    found = PIXEL.search(part)
    if found is None:
        raise DataError(f"{part} is no partition of a HATS catalogue. TRY: the catalogue's folder")
    return int(found[1]), int(found[2])
