"""Units and descriptions that other tools put into Parquet files, and column types that only Arrow knows."""

import xml.etree.ElementTree as ET

import pyarrow as pa

VOTABLE = b"IVOA.VOTable-Parquet.content"
YAML = b"table_meta_yaml"


def described(schema: pa.Schema) -> pa.Schema:
    """The schema with unit, UCD and description from a VOParquet or astropy header where the fields have none."""
    meta = schema.metadata or {}
    if any((f.metadata or {}).keys() & {b"unit", b"ucd", b"description"} for f in schema):
        return schema
    words = _votable_words(meta[VOTABLE]) if VOTABLE in meta else _yaml_words(meta[YAML]) if YAML in meta else []
    if len(words) < len(schema):
        return schema
    by_name = {w.pop("name", ""): w for w in words}
    for i, f in enumerate(schema):
        own = {k: v for k, v in by_name.get(f.name, {}).items() if v}
        schema = schema.set(i, f.with_metadata({**(f.metadata or {}), **own}))
    return schema


def _votable_words(text: bytes) -> list[dict[str, str]]:
    try:
        root = ET.fromstring(text)
    except ET.ParseError:
        return []
    table = next((t for t in root.iter() if t.tag.rpartition("}")[2] == "TABLE"), None)
    words = []
    for field in [] if table is None else [f for f in table if f.tag.rpartition("}")[2] == "FIELD"]:
        description = next((d.text or "" for d in field if d.tag.rpartition("}")[2] == "DESCRIPTION"), "")
        words.append({k: field.get(k, "") for k in ("name", "unit", "ucd")} | {"description": description.strip()})
    return words


def _yaml_words(text: bytes) -> list[dict[str, str]]:
    import yaml

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("tag:yaml.org,2002:omap", lambda loader, tag, node: loader.construct_sequence(node))
    Loader.add_multi_constructor("!", lambda loader, tag, node: None)
    try:
        datatype = yaml.load(text, Loader).get("datatype", [])
    except (yaml.YAMLError, AttributeError):
        return []
    return [{k: str(d[k]) for k in ("name", "unit", "description") if k in d} for d in datatype]


def plain_types(schema: pa.Schema) -> pa.Schema:
    """Dictionary, view and large string columns as plain strings, float16 as float32: what every other tool reads."""
    for i, f in enumerate(schema):
        kind = f.type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if pa.types.is_large_string(kind) or kind == pa.string_view():
            kind = pa.string()
        if pa.types.is_float16(kind):
            kind = pa.float32()
        if kind != f.type:
            schema = schema.set(i, f.with_type(kind))
    return schema
