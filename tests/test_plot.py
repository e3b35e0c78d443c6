"""xp plot: the same bytes twice, the twin holds what is drawn, and a sentence for each wrong input."""

import json
import os
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from xptools import metadata
from xptools.cli import xp as program
from xptools.columns import KNOWN
from xptools.cores import sequence
from xptools.cores.imf import KROUPA, mass_ratio
from xptools.errors import DataError, MissingColumns, UnavailableError, UsageError
from xptools.figures import cmd, mf, style, terminal, xi

pytest.importorskip("matplotlib")
MASS = np.linspace(0.15, 0.9, 15)
WIDTH = 0.75 / 14
FEH = np.array([-2.2, -1.8, -1.4])


def stars(rows=4000, seed=3):
    """Main-sequence stars with what a diagram reads."""
    r = np.random.default_rng(seed)
    M_G, colour = (np.asarray(v) for v in sequence.absolute(r.uniform(0.12, 0.8, rows), r.uniform(-2, 0.3, rows)))
    parallax = r.uniform(1, 20, rows)
    values = {
        "bp_rp": colour + 0.1, "bp_rp0": colour, "mg0": M_G + r.normal(0, 0.1, rows), "parallax": parallax,
        "phot_g_mean_mag": M_G + 5 * np.log10(100 / parallax), "feh": r.uniform(-2, 0, rows),
    }  # fmt: skip
    fields = [metadata.field_of(name, KNOWN[name]) for name in values]
    return pa.table([pa.array(v).cast(f.type) for v, f in zip(values.values(), fields, strict=True)], pa.schema(fields))


def mass_function(path):
    """A table as xp mf writes it: 2 x 14 bins, one of them empty, one without volume."""
    lo, f = np.tile(MASS[:-1], 2), np.repeat(FEH[:-1], 14)
    n = np.random.default_rng(1).poisson(np.linspace(4, 300, 28))
    n[3] = 0
    veff = np.linspace(0.1, 3, 28)
    veff[13] = 0
    with np.errstate(divide="ignore"):
        middle = np.where(veff > 0, np.log10(np.maximum(n, 0.5) / (veff * 0.0536)), np.nan)
    spread = 0.4343 / np.sqrt(n + 1)
    columns = {
        "feh_lo": f, "feh_hi": f + 0.4, "mass_lo": lo, "mass_hi": lo + WIDTH, "mass": lo + WIDTH / 2,
        "n": n, "veff": veff, "veff_err": 0.02 * veff, "log_phi": middle, "log_phi_median": middle,
        "log_phi_lo": middle - spread, "log_phi_hi": middle + spread, "log_phi_lo95": middle - 2 * spread,
        "log_phi_hi95": middle + 2 * spread, "log_phi_true": middle + 0.5 * spread,
    }  # fmt: skip
    ratio = {"median": 0.6, "lo": 0.55, "hi": 0.66, "lo95": 0.5, "hi95": 0.7}
    slope = {"poisson": {"mean": -1.3, "sd": 0.2}, "weighted": {"alpha": -1.2, "err": 0.3}}
    entries = [
        {"feh_lo": a, "feh_hi": a + 0.4, "feh": a + 0.2, "slopes": [slope, slope], "truth": {"xi": 0.58},
         "xi": {"upper": 0.7, "value": ratio}} for a in FEH[:-1]
    ]  # fmt: skip
    schema = pa.schema([pa.field(k, pa.int64() if k == "n" else pa.float64(), metadata=_unit(k)) for k in columns])
    schema = metadata.with_values(schema, {"xp.mf": {"slope_method": "poisson", "feh": entries}})
    pq.write_table(pa.table(list(columns.values()), schema), path)
    return columns


def _unit(name):
    return {"unit": "solMass"} if name.startswith("mass") else {"unit": "kpc**3"} if name.startswith("veff") else None


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """One input file for every figure."""
    folder = tmp_path_factory.mktemp("plot")
    pq.write_table(stars(), folder / "stars.parquet")
    mass_function(folder / "mf.parquet")
    r = np.random.default_rng(8)
    truth = r.uniform(-2.4, 0.3, 3000)
    labels = {"mg": r.uniform(4, 10, 3000), "true_feh": truth, "feh": truth + r.normal(0, 0.1, 3000)}
    flags = np.where(np.arange(3000) % 10 == 0, 4, 64).astype(np.int16)
    pq.write_table(pa.table(labels | {"feh_flag": flags}), folder / "feh.parquet")
    flow = {"cut": ["isochrone", "cstar"], "rows_in": [1000, 700], "rows_out": [700, 650], "unknown": [3, 0]}
    pq.write_table(pa.table(flow), folder / "flow.parquet")
    return folder


FIGURES = {name: "mf.parquet" for name in ("mf", "veff", "xi")} | {"cmd": "stars.parquet", "cutflow": "flow.parquet"}
FIGURES["hist"] = "stars.parquet"
MORE = {"hist": ("--x", "mg0", "--bins", "2:16:28")}
FIGURES["feh"] = "feh.parquet"


def run(*words):
    """The command in this process; its errors are raised."""
    return CliRunner().invoke(program, ["plot", *map(str, words)], catch_exceptions=False, standalone_mode=False)


@pytest.mark.parametrize("form", ["pdf", "png", "svg"])
@pytest.mark.parametrize("figure", FIGURES)
def test_the_same_bytes_twice_and_a_twin(figure, form, inputs, tmp_path):
    for k in (1, 2):
        (tmp_path / str(k)).mkdir()
        run(figure, *MORE.get(figure, ()), inputs / FIGURES[figure], "-o", tmp_path / str(k) / f"a.{form}")
    for name in (f"a.{form}", f"a.{form}.parquet"):
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()
    data = (tmp_path / "1" / f"a.{form}").read_bytes()
    assert data.startswith({"pdf": b"%PDF", "png": b"\x89PNG", "svg": b"<?xml"}[form])
    assert b"CreationDate" not in data
    assert b"<dc:date>" not in data
    if form == "pdf":
        assert b"/FontFile2" in data
    twin = pq.read_table(tmp_path / "1" / f"a.{form}.parquet")
    assert metadata.history(twin.schema)[-1]["params"]["figure"] == figure


@pytest.mark.parametrize(("column", "mm"), [("single", 88), ("double", 180)])
def test_width_is_that_of_the_journal(column, mm, inputs, tmp_path):
    run("veff", inputs / "mf.parquet", "-o", tmp_path / "v.pdf", "--column", column)
    box = re.search(rb"/MediaBox \[ 0 0 ([\d.]+)", (tmp_path / "v.pdf").read_bytes())
    assert float(box[1]) * 25.4 / 72 == pytest.approx(mm, abs=0.01)


def test_cmd_twin_counts_every_star_once(inputs, tmp_path):
    run("cmd", inputs / "stars.parquet", "--locus", "-1.5,0", "-o", tmp_path / "c.png")
    twin = pq.read_table(tmp_path / "c.png.parquet")
    t = {name: twin[name].to_numpy(zero_copy_only=False) for name in twin.schema.names}
    shown = np.isin(t["kind"], ["bin", "star"])
    assert t["n"][shown].sum() == 4000
    assert (t["n"][t["kind"] == "bin"] >= cmd.SPARSE).all()
    assert set(t["feh"][t["kind"] == "locus"]) == {-1.5, 0.0}
    source = pq.read_table(inputs / "stars.parquet")
    x, y = (source[n].to_numpy().astype(float) for n in ("bp_rp0", "mg0"))
    i, j = np.floor((x + 1) / 0.02), np.floor((y + 5) / 0.05)
    _, counts = np.unique(np.stack([i, j]), axis=1, return_counts=True)
    np.testing.assert_array_equal(np.sort(counts[counts >= 5]), np.sort(t["n"][t["kind"] == "bin"]))
    lonely = counts[counts < 5].sum()
    assert (t["kind"] == "star").sum() == lonely
    assert set(t["x"][t["kind"] == "star"]) <= set(x)
    assert metadata.unit_of(twin.schema.field("x")) == "mag"


def drawn_offsets(axes):
    """x and y of all marks of an axes' lines."""
    return np.concatenate([np.stack(line.get_data()) for line in axes.get_lines()], axis=1)


def test_the_figure_draws_the_twins_numbers(inputs, tmp_path):
    run("cmd", inputs / "stars.parquet", "--locus", "0", "-o", tmp_path / "c.png")
    twin = pq.read_table(tmp_path / "c.png.parquet")
    numbers = {n: twin[n].to_numpy(zero_copy_only=False) for n in twin.schema.names}
    about = metadata.value_of(twin.schema, "xp.figure")
    figure = cmd.draw(numbers, about)
    axes = figure.axes[0]
    marks = numbers["kind"] != "bin"
    np.testing.assert_array_equal(np.sort(drawn_offsets(axes)[0]), np.sort(numbers["x"][marks]))
    image = axes.images[0].get_array()
    assert image.sum() == numbers["n"][numbers["kind"] == "bin"].sum()
    assert style.rendered(cmd.draw, numbers, about, "single", "png") == (tmp_path / "c.png").read_bytes()


def test_mf_figure_from_its_twin_is_the_same_figure(inputs, tmp_path):
    run("mf", inputs / "mf.parquet", "-o", tmp_path / "m.png")
    twin = pq.read_table(tmp_path / "m.png.parquet")
    numbers = {n: twin[n].to_numpy() for n in twin.schema.names}
    about = metadata.value_of(twin.schema, "xp.figure")
    assert style.rendered(mf.draw, numbers, about, "single", "png") == (tmp_path / "m.png").read_bytes()
    source = pq.read_table(inputs / "mf.parquet")
    for name in ("log_phi_lo", "log_phi_hi95", "n", "mass"):
        np.testing.assert_array_equal(numbers[name], source[name].to_numpy())


def test_mf_references_hold_the_same_number_of_stars():
    numbers = {k: np.asarray(v) for k, v in _simple_bins().items()}
    out = mf.with_references(numbers)
    width = numbers["mass_hi"] - numbers["mass_lo"]
    for name in mf.REFERENCES:
        assert np.sum(10 ** out[name] * numbers["veff"] * width) == pytest.approx(numbers["n"].sum())
    slope = np.polyfit(np.log10(numbers["mass"]), out["log_phi_salpeter"], 1)[0]
    assert slope == pytest.approx(-2.35, abs=0.02)  # steeper where bins are wide


def _simple_bins():
    lo = MASS[:-1]
    return {"feh_lo": np.full(14, -2.0), "mass_lo": lo, "mass_hi": MASS[1:], "mass": 0.5 * (lo + MASS[1:]),
            "n": np.arange(14) + 1, "veff": np.linspace(0.1, 3, 14)}  # fmt: skip


def test_mf_empty_bins_are_upper_limits(inputs, tmp_path):
    run("mf", inputs / "mf.parquet", "-o", tmp_path / "m.png", "--no-reference")
    twin = pq.read_table(tmp_path / "m.png.parquet")
    assert "log_phi_kroupa" not in twin.schema.names
    numbers = {n: twin[n].to_numpy() for n in twin.schema.names}
    axes = mf.draw(numbers, {}, "single").axes[0]
    arrows = [c for c in axes.containers if type(c).__name__ == "ErrorbarContainer"]
    assert arrows[0].lines[0].get_ydata().tolist() == [numbers["log_phi_hi95"][3]]


def test_mf_says_its_slopes(inputs, tmp_path):
    run("mf", inputs / "mf.parquet", "-o", tmp_path / "m.png")
    about = metadata.value_of(pq.read_schema(tmp_path / "m.png.parquet"), "xp.figure")
    assert about["notes"]["-2.2"] == r"$\alpha_1 = -1.30 \pm 0.20$, $\alpha_2 = -1.30 \pm 0.20$"


def test_xi_predictions_and_kroupa(inputs, tmp_path):
    assert xi.expected(np.array([0.0]), "yan2021")[0] == pytest.approx(mass_ratio(KROUPA), abs=1e-6)
    metal_poor = xi.expected(np.array([-3.0]), "yan2021")[0]
    assert metal_poor == pytest.approx(xi.expected(np.array([-9.0]), "yan2021")[0], abs=2e-3)
    assert metal_poor < 0.6
    run("xi", inputs / "mf.parquet", "--curve", "yan2021", "--curve", "yan2024", "-o", tmp_path / "x.png")
    twin = pq.read_table(tmp_path / "x.png.parquet").to_pylist()
    assert [row["kind"] for row in twin].count("measured") == 2
    assert [row["kind"] for row in twin].count("yan2024") == 50
    assert twin[0]["xi_lo"] == 0.55


def test_veff_from_the_bins_in_a_streams_metadata(xp, tmp_path):
    made = xp("veff", "--table", "-o", tmp_path / "table.parquet")
    assert made.returncode == 0, made.stderr
    stated = metadata.value_of(pq.read_schema(tmp_path / "table.parquet"), "xp.veff")
    schema = metadata.with_values(pa.schema([("mass", pa.float64())]), {"xp.veff": stated})
    pq.write_table(schema.empty_table(), tmp_path / "stars.parquet")
    for name in ("table", "stars"):
        run("veff", tmp_path / f"{name}.parquet", "-o", tmp_path / f"{name}.png")
    one, two = (pq.read_table(tmp_path / f"{n}.png.parquet") for n in ("table", "stars"))
    for name in ("mass", "veff", "feh_lo"):
        np.testing.assert_allclose(one[name].to_numpy(), two[name].to_numpy(), rtol=1e-6)


def test_cloud_does_not_depend_on_batches_order_or_merging():
    grid = cmd.Grid(0, 0, 0.05, 0.05, (20, 20))
    r = np.random.default_rng(2)
    x, y = r.normal(0.5, 0.2, 3000), r.normal(0.5, 0.2, 3000)
    x[::100] = np.nan
    whole = cmd.Cloud.empty(grid).add(x, y)
    parts = [cmd.Cloud.empty(grid).add(a, b) for a, b in zip(np.array_split(x, 9), np.array_split(y, 9), strict=True)]
    merged = parts[0]
    for part in parts[:0:-1]:
        merged = merged.merge(part)
    order = r.permutation(3000)
    shuffled = cmd.Cloud.empty(grid).add(x[order], y[order])
    for other in (merged, shuffled):
        for name, values in whole.numbers().items():
            np.testing.assert_array_equal(values, other.numbers()[name], err_msg=name)
    assert whole.unknown == 30
    assert whole.numbers()["n"].sum() == whole.counts.sum()


def test_cloud_holds_few_stars_however_many_come(monkeypatch):
    monkeypatch.setattr(cmd, "STARS_HELD", 500)
    cloud = cmd.Cloud.empty(cmd.Grid(0, 0, 0.1, 0.1, (10, 10)))
    r = np.random.default_rng(4)
    for _ in range(50):
        cloud.add(r.random(1000), r.random(1000))
        assert sum(part.shape[1] for part in cloud.stars) <= 500
    assert cloud.numbers()["n"].sum() == 50_000


def test_braille_dots_are_where_the_counts_are():
    counts = np.zeros((8, 4), int)
    counts[0, 0] = 1
    counts[7, 3] = 9
    glyphs = terminal.braille(counts)
    assert glyphs.tolist() == [["\u2801", "\u2800"], ["\u2800", "\u2880"]]
    assert terminal.braille(np.ones((4, 2), int)).tolist() == [["\u28ff"]]
    text = terminal.frame(counts, (0, 1), (5, 9), ("x", "y"))
    assert "5.00" in text.splitlines()[1]
    assert "\x1b" not in text


def test_terminal_needs_no_matplotlib_and_no_file(xp, inputs, tmp_path):
    (tmp_path / "matplotlib.py").write_text("raise ImportError('not here')\n")
    absent = {"PYTHONPATH": str(tmp_path)}
    made = xp("plot", "cmd", "--terminal", inputs / "stars.parquet", env=absent)
    assert made.returncode == 0, made.stderr
    assert "4,000 stars" in made.stdout.decode()
    made = xp("plot", "cmd", inputs / "stars.parquet", "-o", tmp_path / "c.pdf", env=absent)
    assert made.returncode == 69
    assert b"pip install 'xptools[plot]'" in made.stderr


def test_a_stream_any_axes_a_background_and_standard_output(xp, inputs, tmp_path):
    stream = xp("convert", inputs / "stars.parquet").stdout
    words = ("--x", "feh", "--y", "log10(parallax)", "--x-range=-2.5:0.5", "--y-range", "0:1.5", "--cell", "0.1,0.05")
    made = xp("plot", "cmd", *words, "-o", "-", "--form", "png", stdin=stream)
    assert made.returncode == 0, made.stderr
    assert made.stdout.startswith(b"\x89PNG")
    made = xp("plot", "cmd", "--background", inputs / "stars.parquet", "-o", tmp_path / "b.png", stdin=stream)
    assert made.returncode == 0, made.stderr
    kinds = pq.read_table(tmp_path / "b.png.parquet")["kind"].to_pylist()
    assert {"bin", "star", "background"} == set(kinds)


def test_the_axis_is_what_the_table_has(inputs, tmp_path):
    few = stars().drop_columns(["mg0", "bp_rp0"])
    pq.write_table(few, tmp_path / "few.parquet")
    run("cmd", tmp_path / "few.parquet", "-o", tmp_path / "c.png")
    about = metadata.value_of(pq.read_schema(tmp_path / "c.png.parquet"), "xp.figure")
    assert (about["x"], about["x_unit"]) == ("bp_rp", "mag")
    assert about["y"] == "phot_g_mean_mag + 5*log10(parallax/100)"
    assert "[mag]" in about["y_label"]


def test_the_users_own_settings_change_nothing_and_stay(inputs, tmp_path):
    import matplotlib

    run("veff", inputs / "mf.parquet", "-o", tmp_path / "a.png")
    with matplotlib.rc_context({"font.size": 33, "axes.facecolor": "red"}):
        run("veff", inputs / "mf.parquet", "-o", tmp_path / "b.png")
        assert matplotlib.rcParams["font.size"] == 33
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_labels_carry_units():
    assert style.label("mass", "solMass") == r"Mass [$M_\odot$]"
    assert style.label("odd", None, "Nobody's column") == "Nobody's column"
    assert style.label("ra", "deg") == "ra [deg]"


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (("cmd", "stars.parquet"), UsageError, "a figure needs a file"),
        (("cmd", "stars.parquet", "-o", "a.gif"), UsageError, "ends in .pdf, .png, .svg"),
        (("cmd", "stars.parquet", "-o", "-"), UsageError, "needs its form"),
        (("cmd", "stars.parquet", "-o", "a.png", "--data-out", "stars.parquet"), UsageError, "is the input"),
        (("cmd", "stars.parquet", "-o", "a.png", "--x", "feh"), UsageError, "limits of 'feh' must be given"),
        (("cmd", "stars.parquet", "-o", "a.png", "--x", "feh.real"), UsageError, "is not allowed"),
        (("cmd", "stars.parquet", "-o", "a.png", "--x-range", "1:"), UsageError, "needs both ends"),
        (("cmd", "stars.parquet", "-o", "a.png", "--cell", "0.1"), UsageError, "two positive numbers"),
        (("cmd", "stars.parquet", "-o", "a.png", "--cell", "1e-4,1e-4"), UsageError, "larger --cell"),
        (("cmd", "stars.parquet", "-o", "a.png", "--locus", "solar"), UsageError, "no list of numbers"),
        (("cmd", "stars.parquet", "-o", "a.png", "--locus", "9"), DataError, "not 9"),
        (("cmd", "stars.parquet", "-o", "a.png", "--tracks", "0.5"), UsageError, "goes with --locus"),
        (("cmd", "stars.parquet", "-o", "a.png", "--locus", "-1,0", "--tracks", "90"), UsageError, "no star of 90"),
        (("mf", "mf.parquet", "-o", "a.png", "--compare", "=mf.parquet"), UsageError, "no name before"),
        (("mf", "mf.parquet", "-o", "a.png", *2 * ("--compare", "mf.parquet")), UsageError, "two functions mf"),
        (("cmd", "stars.parquet", "-o", "a.png", "--x-range", "8:9"), DataError, "none of 4,000 rows"),
        (("cmd", "flow.parquet", "-o", "a.png"), MissingColumns, "bp_rp"),
        (("mf", "stars.parquet", "-o", "a.png"), DataError, "xp mf first"),
        (("xi", "flow.parquet", "-o", "a.png"), DataError, "xp mf first"),
        (("veff", "stars.parquet", "-o", "a.png"), DataError, "xp veff --table"),
        (("cutflow", "mf.parquet", "-o", "a.png"), DataError, "xp select --cutflow"),
    ],
)
def test_wrong_inputs_have_a_sentence(words, error, message, inputs, monkeypatch):
    monkeypatch.chdir(inputs)
    before = sorted(os.listdir(inputs))
    with pytest.raises(error, match=message):
        run(*words)
    assert sorted(os.listdir(inputs)) == before


def test_an_empty_table_and_one_star(tmp_path):
    pq.write_table(stars().slice(0, 0), tmp_path / "none.parquet")
    with pytest.raises(DataError, match="none of 0 rows"):
        run("cmd", tmp_path / "none.parquet", "-o", tmp_path / "a.png")
    pq.write_table(stars().slice(0, 1), tmp_path / "one.parquet")
    run("cmd", tmp_path / "one.parquet", "-o", tmp_path / "a.png")
    pq.write_table(pa.table({"cut": pa.array([], pa.string()), "rows_in": pa.array([], pa.int64()),
                             "rows_out": pa.array([], pa.int64())}), tmp_path / "no.parquet")  # fmt: skip
    with pytest.raises(DataError, match="no rows to plot"):
        run("cutflow", tmp_path / "no.parquet", "-o", tmp_path / "b.png")


def test_no_clobber_and_no_twin(xp, inputs, tmp_path):
    out = tmp_path / "v.png"
    assert xp("plot", "veff", inputs / "mf.parquet", "-o", out, "--data-out", "none").returncode == 0
    assert os.listdir(tmp_path) == ["v.png"]
    before = out.read_bytes()
    made = xp("plot", "veff", inputs / "mf.parquet", "-o", out, "--no-clobber")
    assert made.returncode == 73
    assert out.read_bytes() == before


def test_missing_matplotlib_is_unavailable(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(UnavailableError, match="pip install"):
        style.matplotlib()


def test_real_stars_within_100_pc(shared_data, tmp_path):
    run("cmd", shared_data / "gaia" / "gaia_100pc_12k.csv", "--cell", "0.04,0.1", "-o", tmp_path / "g.png")
    twin = pq.read_table(tmp_path / "g.png.parquet").to_pylist()
    assert sum(row["n"] for row in twin) == 12_366
    assert json.dumps(metadata.value_of(pq.read_schema(tmp_path / "g.png.parquet"), "xp.figure"))


def test_histogram_counts_and_intervals(inputs, tmp_path):
    out = tmp_path / "h.pdf"
    run("hist", "--x", "10**(0.1*mg0)", "--bins", "3:40:74", inputs / "stars.parquet", "-o", out)
    twin = pq.read_table(f"{out}.parquet").to_pydict()
    values = 10 ** (0.1 * pq.read_table(inputs / "stars.parquet")["mg0"].to_numpy().astype(float))
    np.testing.assert_array_equal(twin["n"], np.histogram(values, np.linspace(3, 40, 75))[0])
    # The interval is about sqrt(n) wide where n is large
    n, lo, hi = (np.array(twin[k]) for k in ("n", "n_lo", "n_hi"))
    many = n > 100
    np.testing.assert_allclose((hi - lo)[many], 2 * np.sqrt(n[many] + 0.5), rtol=0.02)
    with pytest.raises(DataError, match="none of 4,000 rows"):
        run("hist", "--x", "mg0", "--bins", "100:200:3", inputs / "stars.parquet", "-o", out)
    with pytest.raises(MissingColumns):
        run("hist", "--x", "mass", "--bins", "0:1:3", inputs / "stars.parquet", "-o", out)


def test_feh_panels_leave_bad_fits_out_and_say_bias_and_scatter(inputs, tmp_path):
    out = tmp_path / "f.pdf"
    run("feh", inputs / "feh.parquet", "-o", out)
    table = pq.read_table(inputs / "feh.parquet").to_pydict()
    shown = metadata.value_of(pq.read_schema(f"{out}.parquet"), "xp.figure")
    assert shown["drawn"] == sum(f == 64 for f in table["feh_flag"]) == 2700
    run("feh", "--all", inputs / "feh.parquet", "-o", out)
    assert metadata.value_of(pq.read_schema(f"{out}.parquet"), "xp.figure")["drawn"] == 3000
