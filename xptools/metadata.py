"""Units, UCDs and descriptions on columns; the history of a table; the keys other tools look for.

In a stream a column's unit, UCD and description are metadata of its field; the history is the schema's `xp.provenance`.
Files get, besides, VOParquet 1.0's VOTable header and astropy's `table_meta_yaml`, both derived from the fields.
"""

import contextlib
import json
import os
import platform
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from xptools import __version__
from xptools.columns import Column
from xptools.errors import DataError, InputError, PermissionFault

HISTORY = b"xp.provenance"
ROWS_HINT = b"xp.rows_hint"
INPUT = b"xp.input"  # the digest of the file that is read, on its way into the first record of the history
FILE_KEYS = (b"IVOA.VOTable-Parquet.version", b"IVOA.VOTable-Parquet.content", b"table_meta_yaml")
ARROW_TYPES = {
    "bool": pa.bool_(),
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "string": pa.string(),
}
SPELLINGS = {
    "mas/yr": "mas.yr**-1",
    "mas yr-1": "mas.yr**-1",
    "mas.yr-1": "mas.yr**-1",
    "mas / yr": "mas.yr**-1",
    "km/s": "km.s**-1",
    "km s-1": "km.s**-1",
    "km.s-1": "km.s**-1",
    "1/um": "um**-1",
    "um-1": "um**-1",
    "1 / um": "um**-1",
    "Msun": "solMass",
    "M_sun": "solMass",
    "degree": "deg",
    "degrees": "deg",
    "magnitude": "mag",
    "'electron'.s**-1": "s**-1",
    "electron/s": "s**-1",
    "electron.s**-1": "s**-1",
    "e-/s": "s**-1",
    "W m-2 nm-1": "W.m**-2.nm**-1",
}


def arrow_type(text: str) -> pa.DataType:
    """The Arrow type of a Column's type: "float32", or "float32[61]" for an array column."""
    if "[" in text:
        item, width = text[:-1].split("[")
        return pa.list_(pa.field("item", ARROW_TYPES[item], nullable=False), int(width))
    return ARROW_TYPES[text]


def field_of(name: str, column: Column) -> pa.Field:
    """The Arrow field of a Column, unit, UCD and description in its metadata."""
    words = {"unit": column.unit, "ucd": column.ucd, "description": column.text}
    kind = arrow_type(column.type)
    return pa.field(name, kind, nullable=pa.types.is_floating(kind), metadata={k: v for k, v in words.items() if v})


def words_of(field: pa.Field) -> dict[str, str]:
    """Unit, UCD and description of a field, as text."""
    known = (b"unit", b"ucd", b"description")
    return {k.decode(): v.decode("utf-8", "replace") for k, v in (field.metadata or {}).items() if k in known}


def unit_of(field: pa.Field) -> str:
    """The field's unit, empty if it has none."""
    return (field.metadata or {}).get(b"unit", b"").decode("utf-8", "replace").strip()


def same_unit(one: str, other: str) -> bool:
    """Whether two unit strings mean the same unit, whatever their dialect."""
    one, other = SPELLINGS.get(one, one), SPELLINGS.get(other, other)
    if one == other:
        return True
    left, right = _astropy_unit(one), _astropy_unit(other)
    return left is not None and left == right


def vounit(text: str) -> str | None:
    """A unit in the spelling of VOUnits, "" for none; None if nobody knows it."""
    if not text.strip():
        return ""
    unit = _astropy_unit(SPELLINGS.get(text.strip(), text.strip()))
    try:
        return None if unit is None else unit.to_string("vounit")
    except ValueError:
        return None


@lru_cache(maxsize=256)
def _astropy_unit(text: str):
    import warnings

    from astropy import units  # half a second, and only for an unfamiliar spelling

    for dialect in ("vounit", "cds", None):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return units.Unit(text, format=dialect)
        except (ValueError, TypeError):
            continue
    return None


def with_values(schema: pa.Schema, values: dict[str, Any]) -> pa.Schema:
    """The schema with extra metadata: key -> text, or anything JSON can hold."""
    if not values:
        return schema
    texts = {k: v if isinstance(v, str) else json.dumps(v, sort_keys=True) for k, v in values.items()}
    return schema.with_metadata({**(schema.metadata or {}), **{k.encode(): v.encode() for k, v in texts.items()}})


def value_of(schema: pa.Schema, key: str) -> Any:
    """JSON metadata stored under a key, None if absent."""
    text = (schema.metadata or {}).get(key.encode())
    return None if text is None else json.loads(text)


def without(schema: pa.Schema, keys: tuple[bytes, ...]) -> pa.Schema:
    """The schema less some metadata keys."""
    kept = {k: v for k, v in (schema.metadata or {}).items() if k not in keys and not k.startswith(b"table::len::")}
    return schema.with_metadata(kept or None)


# --- history -------------------------------------------------------------------------------------------------------


def history(schema: pa.Schema) -> list[dict]:
    """The records of every command that made this table, oldest first."""
    text = (schema.metadata or {}).get(HISTORY)
    if text is None:
        return []
    try:
        records = json.loads(text)
    except ValueError as fault:
        raise DataError(f"the history (xp.provenance) is not JSON: {fault}. TRY: --no-provenance") from fault
    if not isinstance(records, list) or not all(isinstance(r, dict) and "id" in r for r in records):
        raise DataError("the history (xp.provenance) is no list of records. TRY: --no-provenance")
    return records


def with_record(schema: pa.Schema, step) -> pa.Schema:
    """The schema with one more history record: what ran, on what, with which versions; no dates, no output path."""
    records = history(schema)
    digest = (schema.metadata or {}).get(INPUT)
    place = {
        "id": f"xp-{step.name}.{len(records) + 1}",
        "pp": [records[-1]["id"]] if records else [],
        "inputs": {"sha256": digest.decode()} if digest else {},
    }
    schema = without(schema, (INPUT,)) if digest else schema
    new = {k: v for k, v in (place | record(step)).items() if v != {}}
    return with_values(schema, {HISTORY.decode(): [*records, new]})


def record(step) -> dict[str, Any]:
    """All that decides what a step does to a row: its parameters, the content of its files, versions."""
    return {
        "cmd": step.name,
        "params": _plain(step.params()),
        "xp": __version__,
        "files": {role: {"name": Path(p).name, "sha256": sha256(p)} for role, p in sorted(step.files().items())},
        "cites": list(step.cites),
        "pkgs": {name: _version(name) for name in step.packages},
        "platform": f"{platform.system()}-{platform.machine()}".lower(),
    }


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, or of the names and contents of a folder; big files by their size, head and tail.

    A dust map of 3 GB would cost seconds in every command: over 256 MB only the first and last 16 MB and the size
    count, and the digest says so by the prefix `ends:`.
    """
    path = Path(path)
    try:
        return _sum(path)
    except OSError as fault:
        kind = PermissionFault if isinstance(fault, PermissionError) else InputError
        raise kind(f"cannot open {path}: {fault.strerror.lower()}. TRY: ls -l {path.parent}") from fault


def _sum(path: Path) -> str:
    if path.is_dir():
        import hashlib

        parts = [f"{p.relative_to(path)}:{_sum(p)}" for p in sorted(path.rglob("*")) if p.is_file()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
    stat = path.stat()
    return _sha256(str(path), stat.st_size, stat.st_mtime_ns)


def _sha256(path: str, size: int, mtime: int) -> str:
    key = (path, size, mtime)
    if key not in _digests:
        import hashlib

        digest = hashlib.sha256()
        with open(path, "rb") as f:
            if size <= 1 << 28:
                while block := f.read(1 << 20):
                    digest.update(block)
                _digests[key] = digest.hexdigest()
            else:
                digest.update(f"{size}:".encode() + f.read(1 << 24))
                f.seek(-(1 << 24), 2)
                digest.update(f.read())
                _digests[key] = f"ends:{digest.hexdigest()}"
    return _digests[key]


_digests: dict[tuple[str, int, int], str] = {}


@lru_cache(maxsize=1)
def _installed() -> dict[str, str]:
    """Versions by the names of installed packages' folders: to import importlib.metadata takes 10 ms."""
    out = {}
    for folder in sys.path:
        with contextlib.suppress(OSError):
            for name in filter(lambda n: n.endswith(".dist-info"), os.listdir(folder or ".")):
                package, _, version = name.removesuffix(".dist-info").partition("-")
                out.setdefault(package, version)
    return out


@lru_cache(maxsize=64)
def _version(package: str) -> str:
    if package in _installed():
        return _installed()[package]
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _plain(params: dict[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else str(v) if isinstance(v, Path) else v for k, v in params.items()}


# --- what other tools read -----------------------------------------------------------------------------------------


def file_values(schema: pa.Schema, lengths: dict[str, int]) -> dict[str, str]:
    """The metadata of a Parquet file for TOPCAT (VOParquet) and astropy; `lengths`: longest text of string columns."""
    return {
        "IVOA.VOTable-Parquet.version": "1.0",
        "IVOA.VOTable-Parquet.content": votable_header(schema, lengths),
        "table_meta_yaml": ecsv_yaml(schema),
        **{f"table::len::{name}": str(max(n, 1)) for name, n in lengths.items()},
    }


VOTABLE_TYPES = {
    "bool": "boolean",
    "int8": "short",
    "uint8": "unsignedByte",
    "int16": "short",
    "uint16": "int",
    "int32": "int",
    "uint32": "long",
    "int64": "long",
    "uint64": "long",
    "float": "float",
    "double": "double",
    "halffloat": "float",
}


IN_TEXT = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
IN_ATTRIBUTE = IN_TEXT | str.maketrans({'"': "&quot;", "'": "&#x27;", "\n": "&#10;", "\t": "&#9;", "\r": "&#13;"})


def votable_header(schema: pa.Schema, lengths: dict[str, int], data: str = "") -> str:
    """A VOTable document with one FIELD a column; `data` goes into the TABLE (none for VOParquet)."""
    fields = "\n".join(_votable_field(f, lengths) for f in schema)
    records = history(schema)
    infos = "".join(
        f"<INFO name={_quoted('xp.provenance.' + r['id'])} value={_quoted(json.dumps(r))}/>\n" for r in records
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<VOTABLE version="1.4" xmlns="http://www.ivoa.net/xml/VOTable/v1.3">\n'
        f"<RESOURCE>\n{infos}<TABLE>\n{fields}\n{data}</TABLE>\n</RESOURCE>\n</VOTABLE>\n"
    )


def _votable_field(field: pa.Field, lengths: dict[str, int]) -> str:
    kind, size = field.type, ""
    if pa.types.is_fixed_size_list(kind):
        kind, size = kind.value_type, str(kind.list_size)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind, size = kind.value_type, "*"
    datatype = VOTABLE_TYPES.get(str(kind))
    if datatype is None:
        datatype, size = "unicodeChar", f"{max(lengths[field.name], 1)}*" if field.name in lengths else "*"
    words = words_of(field)
    attributes = {"name": field.name, "datatype": datatype, "arraysize": size}
    attributes |= {k: words.get(k, "") for k in ("unit", "ucd")}
    text = " ".join(f"{k}={_quoted(v)}" for k, v in attributes.items() if v)
    description = (words.get("description") or "").translate(IN_TEXT)
    return f"<FIELD {text}>" + (f"<DESCRIPTION>{description}</DESCRIPTION>" if description else "") + "</FIELD>"


def _quoted(text: str) -> str:
    """An attribute's value in XML; xml.sax.saxutils would load http and ssl in every command, html all its names."""
    return f'"{text.translate(IN_ATTRIBUTE)}"'


def ecsv_yaml(schema: pa.Schema, texts: bool = False) -> str:
    """The column descriptions and the history as astropy's ECSV-style YAML; `texts`: array columns are JSON texts."""
    lines = ["datatype:"]
    for f in schema:
        parts = {"name": f.name, "datatype": _ecsv_type(f.type)}
        if texts and pa.types.is_nested(f.type):
            size = f.type.list_size if pa.types.is_fixed_size_list(f.type) else "null"
            parts = {"name": f.name, "datatype": "string", "subtype": f"{_ecsv_type(f.type)}[{size}]"}
        words = words_of(f)
        parts |= {k: words[k] for k in ("unit", "description") if k in words}
        meta = f", meta: !!omap [{{ucd: {json.dumps(words['ucd'])}}}]" if "ucd" in words else ""
        lines.append("- {" + ", ".join(f"{k}: {json.dumps(v)}" for k, v in parts.items()) + meta + "}")
    records = history(schema)
    if records:
        lines += ["meta: !!omap", f"- {{xp_provenance: {json.dumps(json.dumps(records))}}}"]
    return "\n".join(lines)


def _ecsv_type(kind: pa.DataType) -> str:
    kind = kind.value_type if hasattr(kind, "value_type") else kind
    name = {"float": "float32", "double": "float64", "halffloat": "float16"}.get(str(kind), str(kind))
    return name if name in ARROW_TYPES or name.startswith("uint") else "string"
