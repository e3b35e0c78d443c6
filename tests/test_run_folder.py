"""xp run over many files: parts byte for byte as one process makes them, only what is missing made again, folds."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hats_files import catalogue, pixels
from tables import read, same, stars, write

from xptools import metadata
from xptools.scale import units
from xptools.scale.conduct import Merged

PIPE = "convert --rename odd=o | select --where 'parallax > 5' | convert --drop note"
NAMES = ("a.parquet", "b.arrow", "deep/c.fits")
FOLD = "select --cutflow --parallax 5:15 --magnitude :14"


def bytes_of(folder: Path) -> dict[str, bytes]:
    """The parts of a folder."""
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.parquet") if ".xp-run" not in p.parts
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with three tables in three formats, one of them deeper, and files that are none."""
    folder = tmp_path_factory.mktemp("many") / "in"
    (folder / "deep").mkdir(parents=True)
    for seed, name in enumerate(NAMES):
        write(stars(500 + seed, seed).drop_columns(["has_rvs"]), folder / name)
    (folder / "README.txt").write_text("no table")
    (folder / "_metadata").write_bytes(b"PAR1")
    (folder / ".hidden.parquet").write_bytes(b"PAR1")
    return folder


@pytest.fixture
def run(inside):
    """`run(pipe, ...)` gives stderr; the exit status must be `code`."""

    def ran(*words, code: int = 0) -> str:
        got, _, err = inside("run", *words)
        assert got == code, err
        return err

    return ran


def test_parts_are_the_bytes_of_one_run_each(run, made, tmp_path):
    run(PIPE, made, tmp_path / "out")
    parts = bytes_of(tmp_path / "out")
    assert sorted(parts) == ["a.parquet", "b.parquet", "deep/c.parquet"]
    for name in NAMES:
        run(PIPE, made / name, "-o", tmp_path / "one.parquet")
        part = name.rpartition(".")[0] + ".parquet"
        assert (tmp_path / "one.parquet").read_bytes() == parts[part], name


def test_processes_shards_and_a_second_run_change_nothing(run, xp, made, tmp_path):
    run(PIPE, made, tmp_path / "one")
    alone = bytes_of(tmp_path / "one")
    done = xp("run", PIPE, made, tmp_path / "two", "--jobs", 2)
    assert done.returncode == 0, done.stderr
    for k in (1, 2, 3):
        run(PIPE, made, tmp_path / "shards", "--shard", f"{k}/3")
        assert len(bytes_of(tmp_path / "shards")) == k
    assert bytes_of(tmp_path / "two") == alone == bytes_of(tmp_path / "shards")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "two").rglob("*.parquet")}
    done = xp("run", PIPE, made, tmp_path / "two")
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_only_what_is_missing_or_changed_is_made_again(run, made, tmp_path):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for name in ("a", "b", "c"):
        write(stars(50, ord(name)), source / f"{name}.parquet")
    run(PIPE, source, out)
    first = bytes_of(out)
    times = {p.name: p.stat().st_mtime_ns for p in out.glob("*.parquet")}
    (out / "a.parquet").unlink()
    write(stars(70, 9), source / "b.parquet")
    os.utime(source / "c.parquet", (1, 1))  # the same bytes under another date
    said = run(PIPE, source, out)
    assert "b.parquet has changed" in said and "c.parquet" not in said
    again = bytes_of(out)
    assert again["a.parquet"] == first["a.parquet"] and again["b.parquet"] != first["b.parquet"]
    assert (out / "c.parquet").stat().st_mtime_ns == times["c.parquet"]
    (source / "a.parquet").unlink()
    assert "a.parquet is no longer in the input" in run(PIPE, source, out, code=65)
    assert bytes_of(out) == again


def test_a_folder_of_others_is_left_alone(run, made, tmp_path):
    out = tmp_path / "out"
    run(PIPE, made, out)
    parts = bytes_of(out)
    for pipe in ("convert --drop note", PIPE.replace("> 5", "> 6")):
        assert "holds parts made by other" in run(pipe, made, out, code=73)
    assert "holds parts made by other" in run(PIPE, made, out, "--no-provenance", code=73)
    assert bytes_of(out) == parts
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("")
    assert "holds other files" in run(PIPE, made, tmp_path / "mine", code=73)


def test_a_model_that_changes_makes_other_steps(run, tmp_path):
    from xptools.commands.mass import DEFAULT

    model, source = tmp_path / "m.safetensors", tmp_path / "in"
    source.mkdir()
    write(stars(50).drop_columns(["mass", "mass_err"]), source / "a.parquet")
    model.write_bytes(Path(DEFAULT).read_bytes())
    run(f"mass --model {model}", source, tmp_path / "out")
    model.write_bytes(Path(DEFAULT).read_bytes() + b"\0")
    assert "models" in run(f"mass --model {model}", source, tmp_path / "out", code=73)


def test_one_big_file_is_cut_at_its_row_groups(run, xp, tmp_path):
    table = stars(1000)
    pq.write_table(table, tmp_path / "big.parquet", row_group_size=150)
    run(PIPE, tmp_path / "big.parquet", "-o", tmp_path / "whole.parquet")
    run(PIPE, tmp_path / "big.parquet", tmp_path / "out", "--unit-rows", 300)
    done = xp("run", PIPE, tmp_path / "big.parquet", tmp_path / "two", "--unit-rows", 300, "--jobs", 2)
    assert done.returncode == 0, done.stderr
    parts = sorted((tmp_path / "out").glob("*.parquet"))
    assert [p.name for p in parts] == [f"part-{i:05d}.parquet" for i in range(4)]
    assert bytes_of(tmp_path / "two") == bytes_of(tmp_path / "out")
    joined = pa.concat_tables([read(p) for p in parts])
    whole = read(tmp_path / "whole.parquet")
    assert joined.equals(whole) and joined.schema.metadata == whole.schema.metadata


def test_packed_files_are_read(run, tmp_path):
    import gzip

    source = tmp_path / "in"
    source.mkdir()
    raw = write(stars(30).select(["source_id", "ra", "parallax"]), tmp_path / "x.csv").read_bytes()
    (source / "x.csv.gz").write_bytes(gzip.compress(raw))
    run("select --where 'parallax > 5'", source, tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").glob("*.parquet")] == ["x.parquet"]
    write(stars(3), source / "x.parquet")
    assert "both become x.parquet" in run("convert", source, tmp_path / "o", code=2)


# --- folds ---------------------------------------------------------------------------------------------------------


def test_a_fold_over_files_is_the_fold_over_all_rows(run, xp, made, tmp_path):
    run(f"convert | {FOLD}", made, "-o", tmp_path / "one.parquet")
    done = xp("run", f"convert | {FOLD}", made, "-o", tmp_path / "two.parquet", "--jobs", 2)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    every = pa.concat_tables([read(made / n).select(["parallax", "phot_g_mean_mag"]) for n in NAMES])
    write(every, tmp_path / "every.parquet")
    run(f"convert | {FOLD}", tmp_path / "every.parquet", "-o", tmp_path / "whole.parquet")
    one, whole = read(tmp_path / "one.parquet"), read(tmp_path / "whole.parquet")
    assert one.equals(whole)
    assert [r["cmd"] for r in metadata.history(one.schema)] == [r["cmd"] for r in metadata.history(whole.schema)]


def test_states_are_merged_in_order_and_not_kept():
    class Joined:
        def merge(self, state, other):
            return state + other

    merged = Merged(Joined(), "")
    held = []
    for place in (1, 0, 2, 5, 4, 3, 6):
        merged.take(place, str(place))
        held.append(len(merged.early))
    assert merged.state == "0123456" and held == [1, 0, 0, 1, 2, 0, 0]


def test_a_link_to_nowhere_is_named(run, made, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.parquet").symlink_to(made / "a.parquet")
    (tmp_path / "in/gone.parquet").symlink_to(tmp_path / "nowhere.parquet")
    assert "gone.parquet: no such file" in run("convert", tmp_path / "in", tmp_path / "out", code=66)


def test_the_mass_function_of_many_files_is_that_of_one(run, tmp_path):
    pipe = "veff | mf --method exact"
    table = stars(2000).drop_columns(["mass_err"])
    pq.write_table(table, tmp_path / "all.parquet", row_group_size=500)
    (tmp_path / "in").mkdir()
    for i in range(4):
        write(table.slice(500 * i, 500), tmp_path / f"in/{i}.parquet")
    run(pipe, tmp_path / "all.parquet", "-o", tmp_path / "whole.parquet")
    run(pipe, tmp_path / "in", "-o", tmp_path / "many.parquet")
    words = ("-o", tmp_path / "ranges.parquet", "--unit-rows", 500, "--jobs", 2)
    run(pipe, tmp_path / "all.parquet", *words)
    whole = read(tmp_path / "whole.parquet")
    assert whole["n"].to_numpy().sum() > 500
    same(read(tmp_path / "many.parquet"), whole)
    assert (tmp_path / "ranges.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_the_cut_flow_is_of_all_files_also_after_a_second_run(run, made, tmp_path):
    pipe = f"select --parallax 5:15 --cutflow-out {tmp_path}/flow.parquet"
    run(pipe, made, tmp_path / "out", "--shard", "0/2")
    assert not (tmp_path / "flow.parquet").exists()
    said = run(pipe, made, tmp_path / "out")
    rows = sum(read(made / n).num_rows for n in NAMES)
    assert f"xp select: {rows:,} rows in" in said
    flow = read(tmp_path / "flow.parquet").to_pylist()
    assert flow[0]["rows_in"] == rows
    assert flow[0]["rows_out"] == sum(read(p).num_rows for p in (tmp_path / "out").rglob("*.parquet"))


def test_normalisation_statistics_are_of_all_files(run, tmp_path):
    """Mean and standard deviation of every column, of arrays element by element, as numpy has them."""
    (tmp_path / "in").mkdir()
    values = np.random.default_rng(0).normal(3.0, 2.0, (700, 4))
    values[5] = np.nan
    arrays = pa.FixedSizeListArray.from_arrays(pa.array(values[:, :3].ravel()), 3)
    table = pa.table({"source_id": np.arange(700), "flux": arrays, "g": values[:, 3], "name": ["x"] * 700})
    for name, part in (("a", table.slice(0, 200)), ("b", table.slice(200, 30)), ("c", table.slice(230))):
        pq.write_table(part, tmp_path / f"in/{name}.parquet")
    run("info --stats", tmp_path / "in", "-o", tmp_path / "one.parquet")
    run("info --stats", tmp_path / "in", "-o", tmp_path / "two.parquet", "--jobs", 2)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    rows = read(tmp_path / "one.parquet").to_pylist()
    assert [r["column"] for r in rows] == ["source_id", "flux", "flux", "flux", "g"]
    assert [r["element"] for r in rows] == [-1, 0, 1, 2, -1]
    for row, known in zip(rows[1:], np.delete(values, 5, axis=0).T, strict=True):
        assert (row["count"], row["unknown"], row["min"], row["max"]) == (699, 1, known.min(), known.max())
        np.testing.assert_allclose([row["mean"], row["sd"]], [known.mean(), known.std(ddof=1)], rtol=1e-12)
    sparse = pa.array([None, None, [1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float64()))
    bits = pa.array([None, [True, False], [True, True], None], pa.list_(pa.bool_(), 2))
    odd = pa.table({"list": sparse, "bits": bits})
    (tmp_path / "odd").mkdir()
    for name, part in (("a", odd.slice(0, 2)), ("b", odd.slice(2)), ("c", odd.slice(0, 0))):
        pq.write_table(part, tmp_path / f"odd/{name}.parquet")
    run("info --stats", tmp_path / "odd", "-o", tmp_path / "odd.parquet")
    told = {
        (r["column"], r["element"]): (r["count"], r["unknown"], r["mean"])
        for r in read(tmp_path / "odd.parquet").to_pylist()
    }
    assert told == {
        ("list", 0): (2, 2, 2.0),
        ("list", 1): (2, 2, 3.0),
        ("bits", 0): (2, 2, 1.0),
        ("bits", 1): (2, 2, 0.5),
    }
    pq.write_table(table.slice(0, 0), tmp_path / "none.parquet")
    run("info --stats", tmp_path / "none.parquet", "-o", tmp_path / "empty.parquet")
    assert [(r["column"], r["count"]) for r in read(tmp_path / "empty.parquet").to_pylist()] == [
        (r["column"], 0) for r in rows
    ]
    words = run("info --stats --head 3", tmp_path / "in", "-o", tmp_path / "x.parquet", code=2)
    assert "info is `info --stats`" in words


def test_files_that_state_different_volumes_are_not_counted_together(run, tmp_path):
    (tmp_path / "in").mkdir()
    table = stars(100).drop_columns(["mass_err"])
    write(table, tmp_path / "t.parquet")
    for name, limit in (("a", 17), ("b", 16)):
        run(f"veff --g-limit {limit}", tmp_path / "t.parquet", "-o", tmp_path / f"in/{name}.parquet")
    said = run("mf --method exact", tmp_path / "in", "-o", tmp_path / "phi.parquet", code=65)
    assert "metadata (xp.*) differ" in said and "b.parquet" in said
    assert not (tmp_path / "phi.parquet").exists()


# --- HATS ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sky(tmp_path_factory):
    """A HATS catalogue of 900 stars, and they as a table."""
    table = stars(900).drop_columns(["mass", "mass_err"])
    return catalogue(table, tmp_path_factory.mktemp("hats") / "gaia"), table


def said_in(folder: Path) -> dict[str, str]:
    assert (folder / "properties").read_bytes() == (folder / "hats.properties").read_bytes()
    return dict(line.split("=", 1) for line in (folder / "properties").read_text().splitlines())


def test_a_catalogue_becomes_a_catalogue(run, sky, tmp_path):
    source, table = sky
    out = tmp_path / "out"
    run("mass", source, out)
    assert (out / "partition_info.csv").read_text() == (source / "partition_info.csv").read_text()
    assert (out / "skymap.fits").read_bytes() == b"a map of the sky"
    said = said_in(out)
    assert (said["hats_nrows"], said["hats_col_healpix"], said["hats_skymap_order"]) == ("900", "_healpix_29", "4")
    assert said["hats_cols_default"].startswith("source_id ra dec parallax mass ") and "hats_estsize" not in said
    parts = sorted(p.relative_to(out / "dataset").as_posix() for p in (out / "dataset").rglob("Npix*"))
    every = pq.read_metadata(out / "dataset/_metadata")
    listed = [every.row_group(i).column(0).file_path for i in range(every.num_row_groups)]
    assert sorted(listed) == parts and every.num_rows == 900
    common = pq.read_schema(out / "dataset/_common_metadata")
    assert common.names == pq.read_schema(out / "dataset" / parts[0]).names
    assert metadata.unit_of(common.field("mass")) == "solMass"
    got = pa.concat_tables([read(out / "dataset" / p) for p in listed])
    assert sorted(got["source_id"].to_pylist()) == sorted(table["source_id"].to_pylist())


def test_partitions_without_rows_are_left_out(run, sky, tmp_path):
    source, table = sky
    ids = table["source_id"].to_numpy()
    limit = int(np.median(ids))
    run(f"select --where 'source_id < {limit}'", source, tmp_path / "out")
    kept = {(o, p) for o, p, rows in pixels(ids) if (ids[rows] < limit).any()}
    lines = (tmp_path / "out/partition_info.csv").read_text().splitlines()[1:]
    assert {tuple(map(int, line.split(","))) for line in lines} == kept
    assert len(list((tmp_path / "out/dataset").rglob("Npix*"))) == len(kept) < len(pixels(ids))
    said = said_in(tmp_path / "out")
    assert said["hats_nrows"] == str((ids < limit).sum()) and "hats_skymap_order" not in said
    assert not (tmp_path / "out/skymap.fits").exists()
    before = (tmp_path / "out/dataset/_metadata").read_bytes()
    run(f"select --where 'source_id < {limit}'", source, tmp_path / "out")
    assert (tmp_path / "out/dataset/_metadata").read_bytes() == before


def test_a_catalogue_keeps_its_place_on_the_sky(run, sky, tmp_path):
    assert "the pipe drops ra" in run("convert --drop ra", sky[0], tmp_path / "o", code=65)
    assert not (tmp_path / "o").exists()
    assert "no row is left" in run("select --parallax 900:", sky[0], tmp_path / "none", code=65)
    run("convert --drop _healpix_29", sky[0], tmp_path / "out")
    assert "hats_col_healpix" not in said_in(tmp_path / "out")


def test_shards_complete_a_catalogue_and_collections_are_found(run, sky, tmp_path):
    source, _ = sky
    collection = tmp_path / "collection"
    collection.mkdir()
    (collection / "gaia").symlink_to(source)
    (collection / "collection.properties").write_text("obs_collection=c\nhats_primary_table_url=gaia\n")
    run("mass", collection, tmp_path / "out", "--shard", "0/2")
    assert not (tmp_path / "out/properties").exists()
    run("mass", collection, tmp_path / "out", "--shard", "1/2")
    assert said_in(tmp_path / "out")["hats_nrows"] == "900"


def test_shards_at_the_same_time_complete_a_catalogue(run, xp, sky, tmp_path):
    """None of them has found the others' parts when it began."""
    run("mass", sky[0], tmp_path / "one")
    with ThreadPoolExecutor(3) as crowd:
        done = list(crowd.map(lambda k: xp("run", "mass", sky[0], tmp_path / "out", "--shard", f"{k}/3"), range(3)))
    assert [d.returncode for d in done] == [0, 0, 0], done
    files = [
        {p.relative_to(f): p.read_bytes() for p in f.rglob("*") if p.is_file() and ".xp-run" not in p.parts}
        for f in (tmp_path / "one", tmp_path / "out")
    ]
    assert files[0] == files[1] and Path("hats.properties") in files[0]


def test_partitions_may_be_folders(tmp_path, sky):
    folder = tmp_path / "gaia"
    (folder / "dataset/Norder=0/Dir=0/Npix=4").mkdir(parents=True)
    (folder / "properties").write_text("hats_npix_suffix=/\n")
    (folder / "partition_info.csv").write_text("Norder,Npix\n0,4\n")
    for name in ("x", "y"):
        write(stars(3), folder / f"dataset/Norder=0/Dir=0/Npix=4/{name}.parquet")
    found = units.listed(str(folder), 1).units
    assert [Path(u.part).name for u in found] == ["x.parquet", "y.parquet"]
    assert {units.pixel(u.part) for u in found} == {(0, 4)}


# --- what does not go ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (["convert", "{i}"], 2, "go to a folder"),
        (["convert", "{i}", "{o}", "-o", "x.parquet"], 2, "no -o"),
        ([FOLD, "{i}", "{o}"], 2, "makes one table"),
        ([FOLD, "{i}", "-o", "x.parquet", "--shard", "0/2"], 2, "makes one table"),
        (["convert", "{i}", "{i}/deep/out"], 2, "parts would be input"),
        (["convert", "-", "{o}"], 2, "needs an INPUT"),
        (["mock 10", "{i}", "{o}"], 2, "makes rows"),
        (["convert", "{i}", "{o}", "--shard", "5/4"], 2, "--shard is K/N"),
        (["convert", "{i}", "{o}", "--jobs", "2", "--scheduler", "x"], 2, "do not go together"),
        (["convert", "{i}", "{o}", "--slurm", "cores=2"], 2, "lacks mem"),
        (["convert", "{i}", "{o}", "--slurm", "cores=x,mem=2GB"], 2, "whole number"),
        (["convert", "{i}", "{o}", "--slurm", "core=2,mem=2GB"], 2, "does not know"),
        (["convert", "{o}", "{o}2"], 66, "cannot open"),
        (["convert", "{i}", "{o}", "--scheduler-file", "{o}.json"], 66, "cannot open"),
        (["convert --drop nothing", "{i}", "{o}2"], 65, "nothing"),
    ],
)
def test_what_does_not_go_is_said(run, made, tmp_path, words, code, what):
    said = run(*(w.format(i=made, o=tmp_path / "out") for w in words), code=code)
    assert what in said and "TRY:" in said
    assert not bytes_of(tmp_path)


def test_records_say_of_what_a_part_is(run, made, tmp_path):
    run(PIPE, made, tmp_path / "out")
    about = json.loads((tmp_path / "out/.xp-run/run.json").read_text())
    assert [s["cmd"] for s in about["steps"]] == ["convert", "select", "convert"]
    record = json.loads((tmp_path / "out/.xp-run/parts/deep%2Fc.parquet.json").read_text())
    assert (record["name"], record["read"]) == ("deep/c.fits", 502)
    assert record["written"] == read(tmp_path / "out/deep/c.parquet").num_rows
    assert str(tmp_path) not in json.dumps([about, record])
