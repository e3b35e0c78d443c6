"""Results against what is expected: `python verify.py mock|gaia FOLDER expected.toml`; exit status 1 if one fails.

A row of the file: `name`, `value` with `tol` (absolute) or `rel`, `source`, `data` (mock, gaia or any), and where the
result is: `file`, `column` and `where`, the columns' values that pick its row (floats to 1e-3). `value = "COLUMN"` is
another column of that row, as the injected value is; `tol = "COLUMN"`, times `sigmas`, a column with its error.
"""

import csv
import sys
import tomllib
from pathlib import Path

import pyarrow.parquet as pq


def rows_of(path: Path) -> list[dict]:
    """A table as rows; a CSV's numbers as floats."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    with path.open(newline="") as stream:
        return [{k: number(v) for k, v in row.items()} for row in csv.DictReader(stream)]


def number(text: str):
    """The number that a cell holds, else its text."""
    try:
        return float(text)
    except ValueError:
        return text


def picked(rows: list[dict], where: dict) -> dict:
    """The one row of these values."""
    found = [r for r in rows if all(same(r[k], v) for k, v in where.items())]
    if len(found) != 1:
        raise LookupError(f"{len(found)} rows are {where}")
    return found[0]


def same(one, other) -> bool:
    """Equal, numbers to 1e-3."""
    return abs(one - other) < 1e-3 if isinstance(one, int | float) and isinstance(other, int | float) else one == other


def judged(check: dict, folder: Path) -> tuple[float, float, float]:
    """The result, what is expected, and the tolerance; KeyError if the row of the file lacks a word."""
    row = picked(rows_of(folder / check["file"]), check.get("where", {}))
    value = check["value"] if not isinstance(check["value"], str) else row[check["value"]]
    tol = check.get("tol", abs(value) * check.get("rel", 0.0))
    tol = row[tol] * check.get("sigmas", 1.0) if isinstance(tol, str) else tol
    return float(row[check["column"]]), float(value), float(tol)


def checks_of(path: str) -> list[dict]:
    """The rows of the file; ends the program with a sentence if it is none."""
    try:
        checks = tomllib.loads(Path(path).read_text())["check"]
        lacking = [c for c in checks if not {"name", "source", "file", "column", "value"} <= set(c)]
    except (OSError, ValueError, KeyError, TypeError) as fault:
        sys.exit(f"verify: {path} is no file of checks: {fault}. TRY: [[check]] tables, as in expected.toml")
    if lacking or not checks:
        sys.exit(f"verify: {path} has a check without name, source, file, column or value: {lacking[:1]}")
    return checks


def main(data: str, folder: str, expected: str, spectra: bool = True) -> int:
    checks, failed = [c for c in checks_of(expected) if spectra or not c.get("spectra")], 0
    for check in checks:
        if check.get("data", "any") not in ("any", data):
            continue
        try:
            result, value, tol = judged(check, Path(folder))
        except (OSError, LookupError, TypeError, ValueError) as fault:
            failed += 1
            print(f"FAIL  {check['name']}: {fault}  [{check['source']}]")
            continue
        fine = abs(result - value) <= tol
        failed += not fine
        words = f"{result:.6g}, expected {value:.6g} +- {tol:.2g}"
        print(f"{'PASS' if fine else 'FAIL'}  {check['name']}: {words}  [{check['source']}]")
    print(f"{failed} failed" if failed else "all pass")
    return 1 if failed else 0


if __name__ == "__main__":
    spectra = "--no-spectra" not in sys.argv
    given = [word for word in sys.argv[1:] if word != "--no-spectra"]
    if len(given) != 3 or given[0] not in ("mock", "gaia"):
        sys.exit(__doc__)
    sys.exit(main(*given, spectra))
