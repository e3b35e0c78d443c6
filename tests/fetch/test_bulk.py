"""`xp fetch xp --bulk`: files of the whole release, in a folder or at an address, ECSV or HDF5."""

import gzip
import hashlib

import h5py
import numpy as np
import pytest
from tables import read

from fetch.spectra import COLUMNS, IDS, LEVEL8, ecsv, same, star


def sorted_files() -> dict[str, dict[int, dict]]:
    """Three files of the release: names by pixels, rows by identifier; the last but one star has no BP."""
    ids = {"000000-000009": IDS, "000020-000029": [LEVEL8 * 20 + 1, LEVEL8 * 29 + 5], "000030-786431": [LEVEL8 * 700]}
    return {
        f"XpContinuousMeanSpectrum_{name}": {i: star(i, "rp" if i % 5 == 1 else "bp rp") for i in values}
        for name, values in ids.items()
    }


def hdf5(path, rows: dict[int, dict]) -> None:
    """As Flatiron has it: a dataset per column, fill values for what is missing."""
    with h5py.File(path, "w") as file:
        file["source_id"] = np.array(list(rows), np.int64)
        for name, kind in COLUMNS.items():
            width = next((np.shape(r[name]) for r in rows.values() if r[name] is not None), None) or ()
            if width == () and name.endswith(("coefficients", "errors", "correlations")):
                width = (1485,) if name.endswith("correlations") else (55,)
            fill = np.nan if kind.startswith("float") else np.iinfo(kind).min
            file[name] = np.array([np.full(width, fill) if r[name] is None else r[name] for r in rows.values()], kind)


def bulk_folder(folder, form: str, sums: bool = True) -> None:
    lines = []
    for name, rows in sorted_files().items():
        path = folder / f"{name}.{form}"
        if form == "hdf5":
            hdf5(path, rows)
        else:
            path.write_bytes(gzip.compress(ecsv(rows).encode(), 1))
        lines.append(f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.name}")
    if sums:
        (folder / "_MD5SUM.txt").write_text("\n".join(lines) + "\n")


ALL = {i: row for rows in sorted_files().values() for i, row in rows.items()}
SINGLE = {i for i in ALL if i % 5 == 1}


@pytest.mark.parametrize("form", ["csv.gz", "hdf5"])
def test_bulk_files_of_a_folder(stars, fetch, tmp_path, form):
    folder = tmp_path / "bulk"
    folder.mkdir()
    bulk_folder(folder, form)
    wanted = [*IDS[::3], *list(ALL)[-3:]]
    code, _, said, out = fetch(stars(wanted), "--bulk", folder, service="")
    assert code == 0, said
    same(read(out), wanted, SINGLE)


def test_bulk_files_from_the_network_only_those_needed_and_none_left(there, stars, fetch, tmp_path):
    folder = tmp_path / "bulk"
    folder.mkdir()
    bulk_folder(folder, "csv.gz")
    files = there.serve("/bulk", {p.name: p.read_bytes() for p in folder.iterdir()})
    there.queue = ["", "cut", "corrupt"]
    wanted = [*IDS, LEVEL8 * 700]
    code, _, said, out = fetch(stars(wanted), "--bulk", f"{there.url}/bulk", "--parallel", 1, service="")
    assert code == 0, said
    same(read(out), wanted, SINGLE)
    assert files.ranges, "a download that was cut goes on where it was"
    assert not any("000020" in path for path in there.seen)
    assert not (tmp_path / "out.parquet.parts").exists()


def test_a_listing_does_where_no_sums_are_published(there, stars, fetch, tmp_path):
    folder = tmp_path / "bulk"
    folder.mkdir()
    bulk_folder(folder, "hdf5", sums=False)
    served = {p.name: p.read_bytes() for p in folder.iterdir()}
    page = "<html><body>" + "".join(f'<a href="{n}">{n}</a>' for n in served) + "</body></html>"
    there.serve("/bulk", {"": page.encode(), **served})
    code, _, said, out = fetch(stars(IDS), "--bulk", f"{there.url}/bulk", service="")
    assert code == 0, said
    assert "no _MD5SUM.txt" in said
    same(read(out), IDS, SINGLE)


def test_a_changed_file_is_refused(stars, fetch, tmp_path):
    folder = tmp_path / "bulk"
    folder.mkdir()
    bulk_folder(folder, "csv.gz")
    path = next(folder.glob("*000000*"))
    path.write_bytes(gzip.compress(b"something else"))
    code, _, said, out = fetch(stars(IDS), "--bulk", folder, service="")
    assert code == 65 and "md5" in said and not out.exists()


def test_a_file_is_downloaded_once_though_stars_are_missing(there, stars, fetch, tmp_path):
    folder = tmp_path / "bulk"
    folder.mkdir()
    bulk_folder(folder, "csv.gz")
    there.serve("/bulk", {p.name: p.read_bytes() for p in folder.iterdir()})
    words = (stars([*IDS, IDS[-1] + 1]), "--bulk", f"{there.url}/bulk")
    assert fetch(*words, service="")[0] == 76
    code, _, said, out = fetch(*words, "--allow-missing", service="")
    assert code == 0, said
    same(read(out), IDS, SINGLE)
    assert sum("000000-000009" in path for path in there.seen) == 1


def test_stars_that_no_file_can_hold_are_missing(stars, fetch, tmp_path):
    folder = tmp_path / "bulk"
    folder.mkdir()
    bulk_folder(folder, "csv.gz")
    code, _, said, _ = fetch(stars([IDS[0], LEVEL8 * 15]), "--bulk", folder, service="")
    assert code == 76 and "1 of 2" in said
