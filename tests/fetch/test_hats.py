"""`xp fetch hats` from a folder and over HTTP: the same rows as a filter of the whole, with fewer bytes."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tables import read

from xptools.archive import region
from xptools.arrays import to_numpy
from xptools.cores import healpix

ROWS, GROUP = 3000, 500


def partition(order: int, pixel: int) -> pa.Table:
    """Rows of a pixel: ascending parallax, so that row groups differ in their statistics."""
    rng = np.random.default_rng(pixel)
    ids = (pixel << (59 - 2 * order)) + np.sort(rng.integers(0, 1 << (59 - 2 * order), ROWS))
    ra, dec = healpix.centre(29, ids >> 1)
    return pa.table(
        {
            "_healpix_29": pa.array(ids >> 1),
            "source_id": pa.array(ids),
            "ra": pa.array(ra),
            "dec": pa.array(dec),
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


def same(table: pa.Table, wanted: pa.Table, names=("source_id", "ra", "dec", "parallax", "phot_g_mean_mag")) -> None:
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


# Inside one pixel, over the edges of two, far from all, and by pixels finer than the files'.
REGIONS = ["cone:{0},{1},3", "box:{2},{3},-60,60", "cone:0,-89,1", "healpix:3/14-150", "box:0,360,-90,90"]


@pytest.mark.parametrize("number", range(len(REGIONS)))
@pytest.mark.parametrize("far", [False, True])
def test_of_a_region_only_what_touches_it_is_read(catalogue, served, there, fetch, number, far):
    ra, dec = (SKY[n].to_numpy() for n in ("ra", "dec"))
    text = REGIONS[number].format(ra[100], dec[100], (ra[4000] - 8) % 360, (ra[4000] + 8) % 360)
    wanted = SKY.filter(pa.array(region.parse(text).inside(ra, dec)))
    code, said, out = fetch(f"{there.url}/hats" if far else catalogue, "--region", text, "--where", "parallax > 2")
    assert code == 0, said
    same(read(out), wanted.filter(pc.greater(wanted["parallax"], 2)))
    touched = {(k, n) for k, n in PIXELS if region.parse(text).touches(k, n)}
    assert f"{max(1, len(touched))} of 3 partitions touch {text}" in said
    if far:
        opened = {p for p in there.seen if p.endswith(".parquet")}
        assert opened == {f"/hats/dataset/Norder={k}/Dir=0/Npix={n}.parquet" for k, n in touched or {(2, 3)}}
    assert wanted.num_rows or number == 2


def test_row_groups_that_lie_elsewhere_are_not_read(served, there, fetch):
    """Rows are sorted by their place on the sky, so that a small cone needs one group of six."""
    sent, ra, dec = [], *(SKY[n].to_numpy()[100] for n in ("ra", "dec"))

    def measured(request):
        reply = served(request)
        sent.append(len(reply[-1]))
        return reply

    there.paths["/hats"] = measured
    words = ("--columns", "source_id,coeff", "--region", f"cone:{ra},{dec},0.05")
    assert fetch(f"{there.url}/hats", *words)[0] == 0
    assert sum(sent) < 0.35 * len(served.files["dataset/Norder=2/Dir=0/Npix=3.parquet"])


def test_the_columns_of_the_position_are_those_that_the_catalogue_names(catalogue, fetch):
    said = (catalogue / "hats.properties").read_text()
    (catalogue / "hats.properties").write_text(said + "hats_col_ra=RA_ICRS\nhats_col_dec=dec\n")
    code, said, _ = fetch(catalogue, "--region", "cone:1,2,3")
    assert code == 65 and "RA_ICRS" in said
    assert fetch(catalogue, "--region", "cone:1")[0] == 2


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
