"""Units and descriptions that other tools put into Parquet files, and column types that only Arrow knows."""

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
    import xml.etree.ElementTree as ET

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
    """What every other tool reads: no dictionaries, views, large or half-size types; list items are called `item`."""
    for i, f in enumerate(schema):
        kind = plain_type(f.type)
        words = {k: v for k, v in (f.metadata or {}).items() if not k.startswith(b"PARQUET:")}
        if str(kind) != str(f.type) or words != (f.metadata or {}):
            schema = schema.set(i, pa.field(f.name, kind, f.nullable, words or None))
    return schema


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The plain type for one type; a column of nulls only counts as floating point."""
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_large_string(kind) or kind == pa.string_view():
        return pa.string()
    if pa.types.is_large_binary(kind) or kind == pa.binary_view():
        return pa.binary()
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_decimal(kind):
        return pa.int64() if kind.scale == 0 and kind.precision <= 18 else pa.float64()
    if pa.types.is_null(kind):
        return pa.float64()
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(pa.field("item", plain_type(kind.value_type), kind.value_field.nullable), kind.list_size)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(pa.field("item", plain_type(kind.value_type), kind.value_field.nullable))
    return kind
