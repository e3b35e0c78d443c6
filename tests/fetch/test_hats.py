"""`xp fetch hats` from a folder and over HTTP: the same rows as a filter of the whole, with fewer bytes."""

import hats_files
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tables import read

from xptools.archive import hats, region
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


@pytest.fixture
def sent(served, there):
    """The bytes of every reply from now on."""
    sizes = []

    def measured(request):
        reply = served(request)
        sizes.append(len(reply[-1]))
        return reply

    there.paths["/hats"] = measured
    return sizes


def test_over_http_the_same_with_a_part_of_the_bytes(sent, served, there, fetch):
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
    assert f"{max(1, len(touched))} of 3 partitions may hold" in said or len(touched) == 3
    if far:
        opened = {p for p in there.seen if p.endswith(".parquet")}
        assert opened == {f"/hats/dataset/Norder={k}/Dir=0/Npix={n}.parquet" for k, n in touched or {(2, 3)}}
    assert wanted.num_rows or number == 2


def test_row_groups_that_lie_elsewhere_are_not_read(sent, served, there, fetch):
    """Rows are sorted by their place on the sky, so that a small cone needs one group of six."""
    ra, dec = (SKY[n].to_numpy()[100] for n in ("ra", "dec"))
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


def test_wrong_places_columns_and_conditions(catalogue, fetch, tmp_path):
    assert fetch(tmp_path / "nowhere")[0] == 66
    code, said, _ = fetch(catalogue, "--columns", "paralax")
    assert code == 65 and "parallax" in said
    code, said, _ = fetch(catalogue, "--where", "import os")
    assert code == 2


# --- the stars of a table, and the spellings of other commands ------------------------------------------------------

STARS = np.sort(SKY["source_id"].to_numpy()[[5, 70, 3200, 8999]])


@pytest.fixture
def ids(tmp_path):
    """`ids(*identifiers)` writes a table of them."""

    def made(*identifiers):
        path = tmp_path / "ids.csv"
        path.write_text("source_id\n" + "".join(f"{i}\n" for i in identifiers))
        return path

    return made


@pytest.mark.parametrize("far", [False, True])
def test_the_stars_of_a_table_and_those_that_are_not_there(catalogue, served, there, fetch, ids, far):
    place = f"{there.url}/hats" if far else catalogue
    code, said, out = fetch(place, "--ids", ids(*STARS[::-1]), "--columns", "parallax")
    assert code == 0 and "asked for 4 stars, of which 4 are there" in said, said
    same(read(out), SKY.filter(pa.array(np.isin(SKY["source_id"].to_numpy(), STARS))), ("source_id", "parallax"))
    lacking = [int(STARS[0]) + 1, 1 << 60]
    code, said, _ = fetch(place, "--ids", ids(*STARS, *lacking), "--no-clobber")
    assert code == 73
    out.unlink()
    code, said, out = fetch(place, "--ids", ids(*STARS, *lacking))
    assert code == 76 and "2 of 6 stars are not in" in said and not out.exists(), said
    listed = out.with_name(out.name + ".missing.csv")
    assert listed.read_text() == f"source_id\n{lacking[0]}\n{lacking[1]}\n"
    code, said, _ = fetch(place, "--ids", ids(*STARS, *lacking), "--allow-missing")
    assert code == 0 and sorted(read(out)["source_id"].to_pylist()) == STARS.tolist(), said
    code, said, _ = fetch(place, "--ids", ids(*STARS, *lacking), "--where", "parallax >= 0")
    assert code == 0 and read(out).num_rows == 4, said


def test_of_a_table_only_the_row_groups_that_can_hold_its_stars_are_read(sent, served, there, fetch, ids):
    code, said, _ = fetch(f"{there.url}/hats", "--ids", ids(STARS[0]), "--columns", "coeff")
    assert code == 0 and "1 of 3 partitions" in said, said
    assert sum(sent) < 0.1 * sum(len(b) for b in served.files.values())


def test_a_server_without_parts_gives_whole_files(served, there, fetch):
    def whole(request):
        del request.headers["Range"]
        return served(request)

    there.paths["/hats"] = whole
    there.plan(("GET", "Npix", {2}, "cut"))
    code, said, out = fetch(f"{there.url}/hats", "--where", WHERE)
    assert code == 0, said
    same(read(out), WANTED)


def test_an_identifier_s_pixel_is_looked_for_with_what_is_around_it():
    """Sources whose position has left the pixel of their identifier, over edges and poles."""
    rng = np.random.default_rng(4)
    dec = np.degrees(np.arcsin(np.concatenate([rng.uniform(-1, 1, 3000), 1 - rng.uniform(0, 1e-7, 500)])))
    ra = rng.uniform(0, 360, len(dec))
    turn, far = rng.uniform(0, 2 * np.pi, len(dec)), rng.uniform(0, hats.AROUND, len(dec))
    stars = hats._moved(ra, dec, 0.0, 0.0) << 35
    moved = np.array([hats._moved(ra[[k]], dec[[k]], far[k] * np.sin(turn[k]), far[k] * np.cos(turn[k]))[0]
                      for k in range(len(dec))])  # fmt: skip
    for order in (2, 7):
        parts = [hats.Partition(order, int(p), "") for p in np.unique(moved >> 2 * (12 - order))]
        for k in rng.choice(len(dec), 200, replace=False):
            found = hats.holding(parts, stars[[k]])
            assert any(p.pixel == moved[k] >> 2 * (12 - order) for p in found)
            assert len(found) <= 4


def test_from_hats_in_the_other_commands(catalogue, served, there, inside, ids, tmp_path):
    """One implementation: the tables are those of `xp fetch hats`, the history too."""
    one, other = tmp_path / "one.parquet", tmp_path / "other.parquet"
    for place in (catalogue, f"{there.url}/hats"):
        words = ("--where", WHERE, "--columns", "parallax", place, "-o")
        assert inside("fetch", "hats", *words, one)[0] == 0
        code, _, said = inside("fetch", "gaia", "--from", "hats", *words, other)
        assert code == 0 and one.read_bytes() == other.read_bytes(), said
        words = (ids(*STARS), "-o")
        assert inside("fetch", "hats", place, "--spectra", "--columns", "source_id", "--ids", *words, one)[0] == 0
        code, _, said = inside("fetch", "xp", "--from", "hats", place, *words, other)
        assert code == 0 and one.read_bytes() == other.read_bytes(), said
        assert read(other).schema.names == [
            "source_id", "bp_coefficients", "bp_coefficient_errors", "rp_coefficients", "rp_coefficient_errors",
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("gaia", "--from", "hats"), "--from hats DIR|URL"),
        (("gaia", "somewhere"), "--from hats DIR|URL"),
        (("gaia", "--from", "hats", "x", "--adql", "SELECT"), "--adql is for TAP services"),
        (("gaia", "--from", "hats", "x", "--plan"), "--plan is for TAP services"),
        (("gaia", "--from", "hats", "x", "-o", "folder/"), "-o FILE"),
        (("xp", "--from", "hats"), "after DIR or URL"),
        (("xp", "one.parquet", "two.parquet"), "one TABLE"),
    ],
)
def test_wrong_words_about_it_are_told(inside, words, told):
    code, _, said = inside("fetch", *words)
    assert code == 2 and told in said


def test_the_paper_s_sample_from_a_catalogue(inside, tmp_path):
    """The default of `xp fetch gaia` is the same condition, written as xp select has it."""
    mocked, folder = tmp_path / "mock.parquet", tmp_path / "mock_hats"
    assert inside("mock", 4000, "-o", mocked)[0] == 0
    table = pq.read_table(mocked)
    fields = ("parallax", "parallax_over_error", "phot_g_mean_mag")
    plx, ratio, g = (table[n].to_numpy() * scale for n, scale in zip(fields, (0.7, 0.4, 1.1), strict=True))
    has = np.arange(len(table)) % 3 > 0
    for name, values in zip((*fields, "has_xp_continuous"), (plx, ratio, g, has), strict=True):
        k = table.schema.get_field_index(name)
        table = table.set_column(k, table.schema.field(name), pa.array(values, table.schema.field(name).type))
    hats_files.catalogue(table, folder)
    code, _, said = inside("fetch", "gaia", "--from", "hats", folder, "-o", tmp_path / "sample.parquet")
    assert code == 0, said
    keep = has & (plx > 1) & (ratio > 10) & (g < 17.5) & (g + 5 * np.log10(plx / 100) > 4)
    assert set(read(tmp_path / "sample.parquet")["source_id"].to_pylist()) == set(table["source_id"].to_numpy()[keep])
    assert 100 < keep.sum() < len(table) - 100
