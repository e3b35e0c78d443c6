"""Other mass functions beside one in `xp plot mf`, lines of one mass in `xp plot cmd`."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xptools import metadata
from xptools.cores import isochrone
from xptools.figures import cmd
from xptools.figures import mf as mf_figure

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def mf(xp, tmp_path_factory):
    path = tmp_path_factory.mktemp("mf") / "mf.parquet"
    pipe = "mock 3000 --fractions 0 0 1 | deredden --map none | mass | veff | mf --method exact"
    assert xp("run", pipe, "-o", path).returncode == 0
    return path


def test_another_mass_function_is_matched_by_its_bins(mf, inside, tmp_path):
    """Bins in another order, one of them missing and one empty: a value where there is one, else none."""
    table = pq.read_table(mf)
    n, width = table.num_rows, 14
    order = np.random.default_rng(2).permutation(np.arange(1, n))
    other = table.select(["feh_lo", "mass_lo", "n"]).append_column("log_phi", pa.array(np.arange(n) + 0.5))
    pq.write_table(other.take(order), tmp_path / "other.parquet")
    fig = tmp_path / "mf.pdf"
    code, _, err = inside("plot", "mf", "--compare", f"A paper={tmp_path / 'other.parquet'}", mf, "-o", fig)
    assert code == 0, err
    drawn = pq.read_table(f"{fig}.parquet")
    values = drawn["log_phi_other1"].to_numpy()
    there = (table["n"].to_numpy() > 0) & (np.arange(n) > 0)
    assert len(values) == n == 4 * width and there.any()
    np.testing.assert_array_equal(values[there], np.arange(n)[there] + 0.5)
    assert np.isnan(values[~there]).all()
    assert "A paper" in drawn.schema.field("log_phi_other1").metadata[b"description"].decode()


def test_what_is_compared_must_be_a_mass_function(mf, inside, tmp_path):
    pq.write_table(pa.table({"x": [1.0]}), tmp_path / "x.parquet")
    code, _, err = inside("plot", "mf", "--compare", tmp_path / "x.parquet", mf, "-o", tmp_path / "mf.pdf")
    assert code == 65 and "log_phi" in err
    words = [w for _ in range(5) for w in ("--compare", mf)]
    code, _, err = inside("plot", "mf", *words, mf, "-o", tmp_path / "mf.pdf")
    assert code == 2 and "shows 4" in err


def test_tracks_are_the_isochrones_at_one_mass(inside, tmp_path):
    stars, fig = tmp_path / "stars.parquet", tmp_path / "cmd.pdf"
    assert inside("mock", "500", "-o", stars)[0] == 0
    code, _, err = inside("plot", "cmd", "--locus=-2,0", "--tracks", "0.3,0.8", "--age", "5", stars, "-o", fig)
    assert code == 0, err
    drawn = pq.read_table(f"{fig}.parquet").to_pylist()
    table = isochrone.load(None)
    for mass in (0.3, 0.8):
        track = [r for r in drawn if r["kind"] == "track" and r["feh"] == mass]
        magnitude, colour = table.absolute(np.full(2, mass), np.array([-2.0, 0.0]), 5.0)
        if mass < 0.5:
            assert (track[0]["x"], track[0]["y"]) == pytest.approx((colour[0], magnitude[0]))
        assert (track[-1]["x"], track[-1]["y"]) == pytest.approx((colour[1], magnitude[1]))
    assert {r["kind"] for r in drawn} >= {"locus", "track", "star"}


@pytest.mark.parametrize("ranges", [(), ("--x-range", "0.3:2.4", "--y-range", "3.5:9.6"), ("--x-range", "0.3:1.3")])
def test_masses_of_tracks_stand_inside_the_frame(ranges, inside, tmp_path):
    """Also of a track that ends at the right or at the lower edge."""
    stars, fig = tmp_path / "stars.parquet", tmp_path / "cmd.pdf"
    assert inside("mock", "500", "-o", stars)[0] == 0
    words = ("--locus=-2,0", "--tracks", "0.2,0.3,0.4,0.5,0.7", "--age", "5", *ranges)
    assert inside("plot", "cmd", *words, stars, "-o", fig)[0] == 0
    twin = pq.read_table(f"{fig}.parquet")
    numbers = {name: twin[name].to_numpy(zero_copy_only=False) for name in twin.schema.names}
    figure = cmd.draw(numbers, metadata.value_of(twin.schema, "xp.figure"))
    figure.canvas.draw()
    axes, masses = figure.axes[0], ("0.2", "0.3", "0.4", "0.5", "0.7")
    frame = axes.get_window_extent()
    labels = [text.get_window_extent() for text in axes.texts if text.get_text() in masses]
    assert labels
    for box in labels:
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1


def test_a_panel_says_what_has_no_bin_there(mf, inside, tmp_path):
    table = pq.read_table(mf)
    pq.write_table(table.filter(np.asarray(table["feh_lo"]) > -1.7), tmp_path / "rich.parquet")
    words = ("--compare", f"rich={tmp_path / 'rich.parquet'}", "--compare", f"all={mf}")
    assert inside("plot", "mf", *words, mf, "-o", tmp_path / "mf.pdf", "--column", "double")[0] == 0
    twin = pq.read_table(tmp_path / "mf.pdf.parquet")
    numbers = {name: twin[name].to_numpy(zero_copy_only=False) for name in twin.schema.names}
    figure = mf_figure.draw(numbers, metadata.value_of(twin.schema, "xp.figure"), "double")
    said = [any("no rich here" in text.get_text() for text in axes.texts) for axes in figure.axes]
    assert said[:4] == [True, True, False, False]
    assert "no all here" not in str([text.get_text() for axes in figure.axes for text in axes.texts])


def test_a_figure_on_standard_output_is_not_named(mf, inside, tmp_path, xp):
    made = xp("plot", "mf", mf, "-o", "-", "--form", "pdf")
    assert made.returncode == 0 and made.stdout.startswith(b"%PDF") and made.stderr == b""
    made = xp("plot", "mf", mf, "-o", "-", "--form", "pdf", "--data-out", tmp_path / "t.csv")
    assert made.stderr.decode().strip() == f"xp plot mf: its numbers in {tmp_path / 't.csv'}"
    _, _, err = inside("plot", "mf", mf, "-o", tmp_path / "a.pdf")
    assert err.strip() == f"xp plot mf: {tmp_path / 'a.pdf'}, its numbers in {tmp_path / 'a.pdf.parquet'}"
