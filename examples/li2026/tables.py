"""The paper's tables and the comparisons beside them, from what xp wrote: `python tables.py PART FILES -o CSV`.

Each part writes a CSV and prints it. A result of `xp mf` goes by its file's name: rung-counts.parquet is "counts".
"""

import argparse
import csv
import json
import sys
from importlib.resources import files
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from whole import whole

from xptools import artefact, metadata
from xptools.cores import quality

PUBLISHED = json.loads((files("xptools") / "data" / "li2026_table5.json").read_text())
FAMILIES = ("PARSEC", "BaSTI", "MIST")
OLDEST = 0.75  # Msun; above, stars of 10 to 13 Gyr have left the main sequence
# Li+ 2026 Table 1 and Sec. 2: stars left, of 27,978,851
TABLE1 = {"isochrone": 20_462_709, "cstar": 18_996_706, "fidelity": 253_247, "feh": 70_346, "magnitude": 53_275}
TABLE3 = (("initial", 437_056), ("quality", 179_620), ("XP", 159_942), ("MSMS", 126_681), ("single", 76_632))
Row = dict[str, object]


def cutflow(paths: list[str]) -> list[Row]:
    """Table 1: the selections one after the other, beside the paper's."""
    rows = [row for path in paths for row in pq.read_table(path).to_pylist()]
    out: list[Row] = [{"cut": "parent sample", "stars": rows[0]["rows_in"], "kept": 1.0, "published": 27_978_851}]
    for row in rows:
        kept = row["rows_out"] / max(row["rows_in"], 1)
        out.append({"cut": row["cut"], "stars": row["rows_out"], "kept": kept, "published": TABLE1.get(row["cut"])})
    return out


def share(paths: list[str]) -> float:
    """The share of stars that a cut-flow keeps."""
    return float(np.prod([r["rows_out"] / r["rows_in"] for r in pq.read_table(paths[0]).to_pylist()]))


def training(paths: list[str]) -> list[Row]:
    """Tables 2 and 3: what each cut left of a training sample, from the model's own record."""
    about = artefact.about(paths[0])
    return [{"cut": text, "stars": left} for text, left in about.training["cuts"]]


def poor(paths: list[str]) -> list[Row]:
    """Table 4: the metal-poor stars of the [Fe/H] training sample by mass."""
    table = pq.read_table(paths[0])
    columns = {n: table[n].to_numpy() for n in quality.wanted("aspcap") if n in table.column_names}
    keep, _ = quality.select("aspcap", columns)
    feh, mass = (table[n].to_numpy()[keep] for n in ("fe_h", "mass"))
    out = []
    for lo, hi, published in ((-2.0, -1.5, (2, 7, 86)), (-1.5, -1.0, (24, 48, 473))):
        for low, high, n in zip((0.1, 0.5, 0.7), (0.5, 0.7, 0.9), published, strict=True):
            inside = (feh >= lo) & (feh < hi) & (mass >= low) & (mass < high)
            out.append({"feh_lo": lo, "feh_hi": hi, "mass_lo": low, "mass_hi": high, "stars": int(inside.sum()),
                        "published": n})  # fmt: skip
    return out


def published(paths: list[str]) -> pa.Table:
    """Table 5 of the paper as a table of `xp mf`."""
    mass, feh = PUBLISHED["mass_edges"], PUBLISHED["feh_edges"]
    B, K = len(feh) - 1, len(mass) - 1
    log_phi, err = (np.array([b[key] for b in PUBLISHED["bins"]]).ravel() for key in ("logphi", "err"))
    edges = {"feh_lo": np.repeat(feh[:-1], K), "feh_hi": np.repeat(feh[1:], K),
             "mass_lo": np.tile(mass[:-1], B), "mass_hi": np.tile(mass[1:], B)}  # fmt: skip
    return pa.table(edges | {"log_phi": log_phi, "log_phi_sd": err})


def functions(paths: list[str]) -> list[Row]:
    """Table 5: log Phi by both readings of the effective volume, the injected one and the paper's."""
    known = {(round(r["feh_lo"], 3), round(r["mass_lo"], 3)): r for r in published([]).to_pylist()}
    tables = {name_of(p): pq.read_table(p).to_pylist() for p in paths}
    out = []
    for rows in zip(*tables.values(), strict=True):
        row = {k: round(rows[0][k], 4) for k in ("feh_lo", "feh_hi", "mass_lo", "mass_hi")}
        row |= {"stars": rows[0]["n"], "veff": rows[0]["veff"]}
        for name, r in zip(tables, rows, strict=True):
            row |= {f"log_phi_{name}": r["log_phi"], f"err_{name}": r["log_phi_sd"]}
        if "log_phi_true" in rows[0]:
            row["log_phi_injected"] = rows[0]["log_phi_true"]
        one = known.get((round(row["feh_lo"], 3), round(row["mass_lo"], 3)), {})
        out.append(row | {"log_phi_published": one.get("log_phi"), "err_published": one.get("log_phi_sd")})
    return out


def name_of(path: str) -> str:
    """What stands behind the first hyphen of a file's name."""
    return Path(path).stem.partition("-")[2]


def slopes(path: str) -> list[Row]:
    """alpha1, alpha2 and xi_MR of each [Fe/H] bin, with errors and, where known, the injected ones."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    out = []
    for entry in metadata.value_of(table.schema, "xp.mf")["feh"]:
        row: Row = {"name": name_of(path), "feh_lo": entry["feh_lo"], "feh_hi": entry["feh_hi"], "stars": entry["n"]}
        for key, one in (("alpha1", entry["slopes"][0]["poisson"]), ("alpha2", entry["slopes"][1]["poisson"]),
                         ("xi", entry["xi"]["value"])):  # fmt: skip
            row |= {key: one["mean"], f"{key}_err": one["sd"]}
        if true := entry.get("truth"):
            row |= {"alpha1_true": true["alpha"][0], "alpha2_true": true["alpha"][1], "xi_true": true["xi"]}
            mine = [r for r in rows if r["feh_lo"] == entry["feh_lo"] and r["mass_hi"] < OLDEST and r["n"]]
            off = np.array([r["log_phi"] - r["log_phi_true"] for r in mine])
            row |= {"log_phi_off": float(np.median(off)), "pull_sd": float(np.std([r["pull"] for r in mine]))}
        out.append(row)
    return out


def laws(paths: list[str]) -> list[Row]:
    """Slopes and xi_MR, file by file."""
    return [row for path in paths for row in slopes(path)]


def precision(paths: list[str]) -> list[Row]:
    """Bias (median) and scatter (1.48 MAD) of [Fe/H] from spectra below -1 and above, of stars without a flag."""
    table = pq.read_table(paths[0])
    name = "true_feh" if "true_feh" in table.column_names else "fe_h"
    flag, true, found = (table[n].to_numpy() for n in ("feh_flag", name, "feh"))
    out = []
    for lo, hi in ((-9.0, -1.0), (-1.0, 9.0)):
        off = (found - true)[(flag & ~64 == 0) & (true >= lo) & (true < hi)]
        bias = float(np.median(off))
        out.append({"feh_lo": lo, "feh_hi": hi, "stars": len(off), "bias": bias,
                    "scatter": float(1.4826 * np.median(np.abs(off - bias)))})  # fmt: skip
    return out


def recovery(paths: list[str]) -> list[Row]:
    """Recovered against injected, file by file."""
    out = laws(paths)
    for row in out:
        for key in ("alpha1", "alpha2", "xi"):
            row[f"{key}_pull"] = (row[key] - row[f"{key}_true"]) / row[f"{key}_err"]
    return out


def changes(paths: list[str]) -> list[Row]:
    """alpha1 of each file, and its change against the first."""
    out = laws(paths)
    first = {row["feh_lo"]: row["alpha1"] for row in out[: len(slopes(paths[0]))]}
    keep = ("name", "feh_lo", "feh_hi", "stars", "alpha1", "alpha1_err", "alpha1_true")
    return [{k: r[k] for k in keep if k in r} | {"change": r["alpha1"] - first[r["feh_lo"]]} for r in out]


def models(paths: list[str]) -> list[Row]:
    """Slopes and xi_MR by isochrone model, and their spread as a systematic error in rows named "spread".

    Such a row says which models are in it, and which families of isochrones are not: no table given, or none that
    reaches this [Fe/H].
    """
    keep = ("name", "feh_lo", "feh_hi", "stars", "alpha1", "alpha1_err", "alpha2", "alpha2_err", "xi", "xi_err")
    out = [{k: row[k] for k in keep} for row in laws(paths)]
    for feh in sorted({row["feh_lo"] for row in out}):
        mine = [r for r in out if r["feh_lo"] == feh and r["name"] != "spread" and r["alpha1"] is not None]
        names = [str(r["name"]) for r in mine]
        spread: Row = {"name": "spread", "feh_lo": feh, "feh_hi": mine[0]["feh_hi"], "models": " ".join(names)}
        spread["absent"] = " ".join(f for f in FAMILIES if f not in names) or "none"
        for key in ("alpha1", "alpha2", "xi"):
            values = [r[key] for r in mine if r[key] is not None]
            spread |= {key: float(np.std(values, ddof=1)) if len(values) > 1 else None}
        out.append(spread)
    return out


def report(paths: list[str]) -> list[Row]:
    """Slopes and xi_MR with their statistical error, and as systematic error the spread over models (models.csv)."""
    with open(paths[1], newline="") as stream:
        spread = {float(r["feh_lo"]): r for r in csv.DictReader(stream) if r["name"] == "spread"}
    out = laws(paths[:1])
    for row in out:
        for key in ("alpha1", "alpha2", "xi"):
            found = spread[row["feh_lo"]][key]
            row[f"{key}_sys"] = float(found) if found else None
        row |= {key: spread[row["feh_lo"]][key] for key in ("models", "absent")}
    order = [k + e for k in ("alpha1", "alpha2", "xi") for e in ("", "_err", "_sys", "_true")] + ["models", "absent"]
    return [{k: r[k] for k in ("feh_lo", "feh_hi", "stars", *order) if k in r} for r in out]


def giants_kept(paths: list[str]) -> list[Row]:
    """Share of giants with 10**eta > 10 per [Fe/H] bin: what `xp veff --eta-completeness` reads."""
    table = pq.read_table(paths[0])
    name = "moh_xp" if "moh_xp" in table.column_names else "feh"
    feh, eta = (table[n].to_numpy() for n in (name, "eta"))
    out = []
    for lo, hi in zip(PUBLISHED["feh_edges"][:-1], PUBLISHED["feh_edges"][1:], strict=True):
        inside = (feh >= lo) & (feh < hi) & np.isfinite(eta)
        n, kept = int(inside.sum()), int((eta[inside] > 1).sum())
        p = (kept + 0.5) / (n + 1)
        out.append({"feh_lo": lo, "feh_hi": hi, "n": n, "kept": kept, "completeness": p,
                    "completeness_err": float(np.sqrt(p * (1 - p) / (n + 2)))})  # fmt: skip
    return out


def text(value: object) -> str:
    """A cell: counts with commas, other numbers with four digits."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 10 else f"{value:.1f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def shown(rows: list[Row]) -> None:
    """The rows as text."""
    names = list(dict.fromkeys(k for row in rows for k in row))
    cells = [names, *([text(row.get(n)) for n in names] for row in rows)]
    widths = [max(len(c[k]) for c in cells) for k in range(len(names))]
    for line in cells:
        print("  ".join(c.rjust(w) if k else c.ljust(w) for k, (c, w) in enumerate(zip(line, widths, strict=True))))


def written(rows: list[Row], path: str) -> None:
    """The rows as CSV, as a whole or not at all; floats to six digits."""
    names = list(dict.fromkeys(k for row in rows for k in row))
    with whole(path) as part, open(part, "w", newline="") as stream:
        out = csv.writer(stream)
        out.writerow(names)
        for row in rows:
            values = [row.get(n) for n in names]
            out.writerow([f"{v:.6g}" if isinstance(v, float) else "" if v is None else v for v in values])


WRITERS = (cutflow, training, poor, functions, laws, precision, recovery, changes, models, report, giants_kept)
PARTS = {f.__name__.replace("_", "-"): f for f in WRITERS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=[*PARTS, "share", "published"])
    parser.add_argument("files", nargs="*")
    parser.add_argument("-o", "--output")
    args = parser.parse_args()
    try:
        made(args)
    except (OSError, pa.ArrowException) as fault:
        sys.exit(f"tables.py {args.part}: {fault}. TRY: remove the file, and make again")


def made(args: argparse.Namespace) -> None:
    """What the command line asks for."""
    if args.part == "share":
        print(f"{share(args.files):.6f}")
    elif args.part == "published":
        with whole(args.output) as part:
            pq.write_table(published([]), part)
    else:
        rows = PARTS[args.part](args.files)
        shown(rows)
        written(rows, args.output)


if __name__ == "__main__":
    main()
