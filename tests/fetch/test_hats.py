"""`xp fetch hats` from a folder and over HTTP: the same rows as a filter of the whole, with fewer bytes."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tables import read

from xptools.arrays import to_numpy

ROWS, GROUP = 3000, 500


def partition(order: int, pixel: int) -> pa.Table:
    """Rows of a pixel: ascending parallax, so that row groups differ in their statistics."""
    rng = np.random.default_rng(pixel)
    ids = (pixel << (59 - 2 * order)) + np.sort(rng.choice(1 << 40, ROWS, replace=False))
    return pa.table(
        {
            "_healpix_29": pa.array(ids >> 1),
            "source_id": pa.array(ids),
            "parallax": pa.array(np.linspace(0, 10, ROWS)),
            "phot_g_mean_mag": pa.array(rng.uniform(8, 20, ROWS).astype(np.float32), mask=rng.random(ROWS) < 0.1),
            "other": pa.array(rng.normal(size=ROWS)),
            "coeff": pa.array(list(rng.normal(size=(ROWS, 110)).astype(np.float32)), pa.list_(pa.float32())),
            "coeff_error": pa.array(list(rng.random((ROWS, 110)).astype(np.float32)), pa.list_(pa.float32())),
        }
    )


PIXELS = ((1, 9), (2, 3), (2, 40))  # in the order of the sky: 2/3, 1/9, 2/40
SKY = pa.concat_tables([partition(2, 3), partition(1, 9), partition(2, 40)])


@pytest.fixture
def catalogue(tmp_path):
    """A HATS catalogue in a folder."""
    folder = tmp_path / "gaia"
    for order, pixel in PIXELS:
        path = folder / f"dataset/Norder={order}/Dir=0/Npix={pixel}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(partition(order, pixel), path, row_group_size=GROUP)
    info = "\n".join(["Norder,Npix", *(f"{k},{n}" for k, n in PIXELS)])
    (folder / "partition_info.csv").write_text(info + "\n")
    (folder / "hats.properties").write_text(f"obs_collection=gaia\nhats_nrows={3 * ROWS}\n")
    return folder


@pytest.fixture
def served(there, catalogue):
    """The same behind HTTP."""
    names = [p for p in catalogue.rglob("*") if p.is_file()]
    return there.serve("/hats", {str(p.relative_to(catalogue)): p.read_bytes() for p in names})


@pytest.fixture
def fetch(inside, tmp_path, monkeypatch):
    monkeypatch.setattr("xptools.archive.http.Client.rest", lambda self, seconds: None)
    out = tmp_path / "out.parquet"

    def run(*words):
        code, _, said = inside("fetch", "hats", *words, "-o", out)
        return code, said, out

    return run


WHERE = "parallax > 8.5 and phot_g_mean_mag < 17"
WANTED = SKY.filter(pc.and_(pc.greater(SKY["parallax"], 8.5), pc.less(SKY["phot_g_mean_mag"], 17)))


def same(table: pa.Table, wanted: pa.Table, names=("source_id", "parallax", "phot_g_mean_mag")) -> None:
    assert table.schema.names == list(names)
    for name in names:
        np.testing.assert_array_equal(to_numpy(table[name]), to_numpy(wanted[name]), name)


def test_a_folder_gives_what_a_filter_of_the_whole_gives(catalogue, fetch):
    code, said, out = fetch(catalogue, "--where", WHERE)
    assert code == 0, said
    same(read(out), WANTED)
    assert read(out).schema.field("parallax").metadata[b"unit"] == b"mas"
    code, said, out = fetch(catalogue, "--columns", "other,SOURCE_ID")
    same(read(out), SKY, ("other", "source_id"))
    code, said, out = fetch(catalogue, "--columns", "*")
    assert "_healpix_29" not in read(out).schema.names and read(out).num_rows == 3 * ROWS


def test_over_http_the_same_with_a_part_of_the_bytes(served, there, fetch):
    sent = []

    def measured(request):
        reply = served(request)
        sent.append(len(reply[-1]))
        return reply

    there.paths["/hats"] = measured
    code, said, out = fetch(f"{there.url}/hats", "--where", WHERE)
    assert code == 0, said
    same(read(out), WANTED)
    assert sum(sent) < 0.2 * sum(map(len, served.files.values()))
    assert not list(out.parent.glob("*.parts"))


@pytest.mark.parametrize("fault", [503, "cut", "drop", "html", "choke"])
def test_a_fault_costs_a_try(served, there, fetch, fault):
    there.queue = ["", "", fault, "", fault]
    code, said, out = fetch(f"{there.url}/hats", "--where", WHERE, "--timeout", 0.5)
    assert code == 0, said
    same(read(out), WANTED)


def test_cut_off_and_run_again(served, there, fetch):
    whole = fetch(f"{there.url}/hats", "--where", WHERE)[-1].read_bytes()
    there.queue = [*[""] * 9, *[503] * 60]
    code, said, out = fetch(f"{there.url}/hats", "--where", WHERE, "--parallel", 1)
    assert code == 75, said
    out.unlink(missing_ok=True)
    there.queue, seen = [], len(there.seen)
    code, said, out = fetch(f"{there.url}/hats", "--where", WHERE, "--parallel", 1)
    assert code == 0 and out.read_bytes() == whole
    assert not any("Npix=3." in path for path in there.seen[seen:])


def test_spectra_are_taken_apart(catalogue, fetch, inside):
    code, said, out = fetch(catalogue, "--spectra", "--where", "parallax > 9.9")
    assert code == 0, said
    wanted = SKY.filter(pc.greater(SKY["parallax"], 9.9))
    table, both = read(out), np.stack(wanted["coeff"].to_pylist())
    np.testing.assert_array_equal(to_numpy(table["bp_coefficients"]), both[:, :55])
    np.testing.assert_array_equal(to_numpy(table["rp_coefficients"]), both[:, 55:])
    assert table["rp_coefficient_errors"].type.list_size == 55
    assert inside("calibrate", out, "-o", out.with_name("flux.parquet"))[0] == 0


def test_lacking_files_are_told(catalogue, served, there, fetch):
    (catalogue / "hats.properties").write_text("hats_nrows=9001\n")
    code, said, out = fetch(catalogue)
    assert code == 76 and "9,001" in said and not out.exists()
    (catalogue / "dataset/Norder=2/Dir=0/Npix=3.parquet").unlink()
    assert fetch(catalogue)[0] == 66
    del served.files["dataset/Norder=2/Dir=0/Npix=3.parquet"]
    assert fetch(f"{there.url}/hats")[0] == 69


def test_a_server_without_ranges_is_told(served, there, fetch):
    def plain(request):
        del request.headers["Range"]
        return served(request)

    there.paths["/hats"] = plain
    code, said, _ = fetch(f"{there.url}/hats")
    assert code == 69 and "parts of a file" in said


def test_wrong_places_columns_and_conditions(catalogue, fetch, tmp_path):
    assert fetch(tmp_path / "nowhere")[0] == 66
    code, said, _ = fetch(catalogue, "--columns", "paralax")
    assert code == 65 and "parallax" in said
    code, said, _ = fetch(catalogue, "--where", "import os")
    assert code == 2
