"""`xp plot xp`: files are drawn, the numbers beside them are the table's."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def tables(xp, tmp_path_factory):
    """A mock with coefficients and flux, and the same with a model column."""
    folder = tmp_path_factory.mktemp("spectra")
    done = xp("run", "mock 400 --spectra | calibrate", "-o", folder / "flux.parquet")
    assert done.returncode == 0, done.stderr
    table = pq.read_table(folder / "flux.parquet")
    flux = table["flux"].combine_chunks()
    pq.write_table(table.append_column("fit", flux), folder / "fit.parquet")
    return folder


def column(path, name):
    return pq.read_table(path)[name].to_numpy(zero_copy_only=False)


@pytest.mark.parametrize("kind", ["stars", "coefficients", "sample", "errors"])
@pytest.mark.parametrize("form", ["pdf", "png"])
def test_every_kind_draws_the_same_bytes_twice(inside, tables, tmp_path, kind, form):
    made = []
    for n in range(2):
        out = tmp_path / f"{n}.{form}"
        code, _, err = inside("plot", "xp", "--kind", kind, tables / "flux.parquet", "-o", out)
        assert code == 0, err
        made.append(out.read_bytes())
    assert made[0] == made[1] and len(made[0]) > 5000


def test_numbers_are_the_tables(inside, tables, tmp_path):
    out = tmp_path / "a.png"
    ids = column(tables / "flux.parquet", "source_id")[[3, 5]]
    assert inside("plot", "xp", "--ids", ",".join(map(str, ids)), tables / "flux.parquet", "-o", out)[0] == 0
    beside = tmp_path / "a.png.parquet"
    assert list(dict.fromkeys(column(beside, "source_id").tolist())) == ids.tolist()
    flux = pq.read_table(tables / "flux.parquet")["flux"][3].as_py()
    np.testing.assert_allclose(column(beside, "y")[:61], np.array(flux) * 1e18)
    assert np.array_equal(column(beside, "x")[:61], np.arange(392.0, 993.0, 10))


def test_stars_that_lack_a_band_or_both(inside, tables, tmp_path):
    table = pq.read_table(tables / "flux.parquet").slice(0, 2)
    flux = np.array(table["flux"].to_pylist())
    flux[0], flux[1, :20] = np.nan, np.nan
    kind = table.schema.field("flux")
    gaps = pa.FixedSizeListArray.from_arrays(flux.ravel(), type=kind.type)
    table = table.set_column(table.schema.get_field_index("flux"), kind, gaps)
    pq.write_table(table.append_column("fit", table["flux"]), tmp_path / "gaps.parquet")
    for more in ((), ("--model", "fit")):
        code, _, err = inside("plot", "xp", *more, tmp_path / "gaps.parquet", "-o", tmp_path / "a.png")
        assert code == 0, err


def test_a_model_gives_residuals(inside, tables, tmp_path):
    out = tmp_path / "a.png"
    code, _, err = inside("plot", "xp", "--model", "fit", "--stars", 2, tables / "fit.parquet", "-o", out)
    assert code == 0, err
    assert np.array_equal(column(tmp_path / "a.png.parquet", "residual"), np.zeros(122))


def test_errors_of_two_tables(inside, tables, tmp_path):
    out, path = tmp_path / "a.png", tables / "flux.parquet"
    assert inside("plot", "xp", "--kind", "errors", "--background", path, path, "-o", out)[0] == 0
    assert set(column(tmp_path / "a.png.parquet", "table")) == {"table", "background"}


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("--ids", "x"), 2, "source_id"),
        (("--ids", "1"), 65, "none of the stars"),
        (("--background", "b.parquet"), 2, "--kind errors"),
        (("--kind", "sample", "--model", "fit"), 2, "--kind stars"),
        (("--model", "nothing"), 65, "nothing"),
        (("--ids", ",".join("1" * 13)), 2, "holds 12"),
    ],
)
def test_sentences(inside, tables, tmp_path, words, code, said):
    got, _, err = inside("plot", "xp", *words, tables / "flux.parquet", "-o", tmp_path / "a.png")
    assert got == code and said in err and "Traceback" not in err


@pytest.mark.parametrize("kind", ["stars", "coefficients", "sample", "errors"])
def test_a_table_without_rows(inside, tables, tmp_path, kind):
    pq.write_table(pq.read_table(tables / "flux.parquet").slice(0, 0), tmp_path / "none.parquet")
    code, _, err = inside("plot", "xp", "--kind", kind, tmp_path / "none.parquet", "-o", tmp_path / "a.png")
    assert code == 65 and "TRY" in err and not (tmp_path / "a.png").exists()


def test_a_table_without_flux(inside, xp, tmp_path):
    assert xp("mock", 50, "-o", tmp_path / "m.parquet").returncode == 0
    code, _, err = inside("plot", "xp", tmp_path / "m.parquet", "-o", tmp_path / "a.png")
    assert code == 65 and "xp calibrate first" in err
