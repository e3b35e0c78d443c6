"""Tables shaped like Gaia DR3's on the loopback service: their columns as xp knows them, their rows made here.

Rows are random numbers under the real names, types and units; source_ids are real in form (a HEALPix level-12 pixel in
the upper bits), crowded towards a few pixels as the sky is.
"""

import csv
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np

TYPES = {
    "float64": "double precision",
    "float32": "real",
    "int64": "bigint",
    "int16": "smallint",
    "bool": "boolean",
    "string": "text",
}
UNITS = {"mas.yr**-1": "mas/yr", "km.s**-1": "km/s"}
XP_ROWS = 300


def gaia_columns() -> dict:
    """Name -> Column of gaiadr3.gaia_source here: what xp knows, with a text and a shuffled index besides."""
    from xptools.columns import GAIA, Column

    own = {
        "designation": Column("string", None, "meta.id;meta.main", "Designation"),
        "random_index": Column("int64", None, "meta.code", "Random index"),
    }
    return {**{k: v for k, v in GAIA.items() if k != "fidelity_v2"}, **own}


def all_columns() -> dict[str, dict]:
    """Table -> its columns."""
    from xptools.archive import spectra
    from xptools.columns import GAIA

    identifier = {"source_id": GAIA["source_id"]}
    return {
        "gaiadr3.gaia_source": gaia_columns(),
        "gaiadr3.xp_continuous_mean_spectrum": spectra.columns(),
        "gedr3spur.main": {**identifier, "fidelity_v2": GAIA["fidelity_v2"]},
    }


def tables() -> dict[str, list[str]]:
    """Table -> the names of its columns."""
    return {table: list(columns) for table, columns in all_columns().items()}


def descriptors() -> dict[str, str]:
    """Schema -> DaCHS's description of its tables."""
    out: dict[str, list[str]] = {}
    for table, columns in all_columns().items():
        schema, _, name = table.partition(".")
        lines = [
            f'  <table id="{name}" onDisk="True" adql="True" primary="source_id">',
            '  <meta name="description">Rows made for tests.</meta>',
        ]
        lines += [_column(n, c) for n, c in columns.items()]
        out.setdefault(schema, []).extend([*lines, "  </table>"])
    made = {}
    for schema, lines in out.items():
        names = [t.partition(".")[2] for t in all_columns() if t.startswith(schema + ".")]
        data = "".join(f'<make table="{n}"/>' for n in names)
        made[schema] = "\n".join(
            [f'<resource schema="{schema}" resdir="{schema}">', '  <meta name="title">Tables for tests</meta>',
             '  <meta name="creationDate">2026-01-01T00:00:00Z</meta>', '  <meta name="description">Tests.</meta>',
             '  <meta name="creator">xptools</meta>', '  <meta name="subject">surveys</meta>', *lines,
             f'  <data id="import"><nullGrammar/>{data}</data>', "</resource>", ""]
        )  # fmt: skip
    return made


def _column(name: str, column) -> str:
    item, _, width = column.type.partition("[")
    kind = TYPES[item] + ("[]" if width else "")
    unit = f" unit={quoteattr(UNITS.get(column.unit, column.unit))}" if column.unit else ""
    whole = name in ("source_id", "random_index")
    null = '<values nullLiteral="-9999"/>' if item.startswith("int") and not whole else ""
    return (
        f'    <column name="{name}" type="{kind}"{unit} ucd={quoteattr(column.ucd)} required="{whole}" '
        f"description={quoteattr(column.text)}>{null}</column>"
    )


def stars(n: int) -> dict[str, np.ndarray]:
    """gaia_source's columns of n stars in source_id order; NaN or None is null."""
    rng = np.random.default_rng(20260101)
    crowded = rng.choice(12, n, p=np.array([4, 1, 1, 1, 9, 1, 1, 1, 1, 1, 1, 2]) / 24)
    pixel = np.unique(crowded * 4**12 + rng.integers(0, 4**12, n))
    n = len(pixel)
    source_id = (pixel.astype(np.int64) << 35) + (rng.integers(1, 2**33, n) << 1)
    out: dict[str, np.ndarray] = {}
    for name, column in gaia_columns().items():
        if column.type.startswith("float"):
            out[name] = rng.normal(0, 1, n).astype(column.type)
    sine = rng.uniform(-1, 1, n)
    out["source_id"], out["random_index"] = source_id, rng.permutation(n).astype(np.int64)
    out["ra"], out["dec"] = rng.uniform(0, 360, n), np.degrees(np.arcsin(sine))
    out["ref_epoch"] = np.full(n, 2016.0)
    out["parallax"] = rng.gamma(2, 1.2, n)
    out["parallax_error"] = np.exp(rng.normal(-3, 0.6, n)).astype("f4")
    out["parallax_over_error"] = (out["parallax"] / out["parallax_error"]).astype("f4")
    G = np.clip(rng.normal(16.2, 1.6, n), 5, 21)
    out["phot_g_mean_mag"], out["bp_rp"] = G.astype("f4"), rng.gamma(6, 0.2, n).astype("f4")
    out["astrometric_params_solved"] = rng.choice([3, 31, 95], n).astype(object)
    out["astrometric_params_solved"][rng.random(n) < 0.01] = None
    out["radial_velocity"][rng.random(n) < 0.6] = np.nan
    out["has_xp_continuous"] = (G < 17.65) & (rng.random(n) < 0.9)
    out["has_xp_sampled"] = rng.random(n) < 0.1
    out["has_rvs"] = np.where(rng.random(n) < 0.05, None, rng.random(n) < 0.5)
    out["designation"] = np.array([f"Gaia DR3 {i}" for i in source_id], object)
    return {name: out[name] for name in gaia_columns()}


def spectra(source_id: np.ndarray) -> dict[str, list]:
    """All columns of the spectra of these sources, lists as arrays (n, width); every tenth has no BP (None)."""
    from xptools.archive.spectra import columns

    rng = np.random.default_rng(7)
    out: dict[str, list] = {"source_id": list(source_id)}
    for name, column in columns().items():
        if name == "source_id":
            continue
        item, _, width = column.type.partition("[")
        shape = (len(source_id), int(width[:-1])) if width else len(source_id)
        values = rng.normal(0, 9, shape).astype(item) if item.startswith("float") else rng.integers(5, 40, shape)
        absent = name.startswith("bp_") & (np.arange(len(source_id)) % 10 == 3)
        out[name] = [None if gone else v for v, gone in zip(values, absent, strict=True)]
    return out


def write(folder: Path, n: int) -> None:
    """The rows as files for COPY, one a table."""
    gaia = stars(n)
    ids = gaia["source_id"]
    fidelity = np.random.default_rng(3).random(len(ids)).astype("f4")
    some = np.flatnonzero(gaia["has_xp_continuous"])[:XP_ROWS]
    made = {
        "gaiadr3.gaia_source": gaia,
        "gaiadr3.xp_continuous_mean_spectrum": spectra(ids[some]),
        "gedr3spur.main": {"source_id": ids[::2], "fidelity_v2": fidelity[::2]},
    }
    for table, columns in made.items():
        with (folder / f"{table}.csv").open("w", newline="") as f:
            csv.writer(f).writerows(zip(*map(_cells, columns.values()), strict=True))


def _cells(values) -> list:
    """Values as COPY reads them: null is empty, floats in full."""
    values = values.tolist() if isinstance(values, np.ndarray) else values
    lists = [f"{{{','.join(map(str, v))}}}" if isinstance(v, np.ndarray) else v for v in values]
    return ["" if v is None or v != v else repr(v) if isinstance(v, float) else v for v in lists]
