"""xp select: each cut against a closed form, order and counts of the cut-flow, filter and flag, unknown values."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import xptools
from xptools import metadata, stream
from xptools.columns import KNOWN, Column
from xptools.commands._select_input import limits, titled
from xptools.commands.select import CutFlow, Select
from xptools.cores import isochrone, photometry, selection
from xptools.errors import DataError, InputError, MissingColumns, UsageError
from xptools.protocol import Tally

N = 3000
ETA = Column("float32", None, "stat.likelihood", "log10 odds")


def table(rows=N, seed=2, **changes):
    """Stars around the main sequence with everything the cuts read."""
    r = np.random.default_rng(seed)
    colour = r.uniform(0.3, 4.3, rows)
    mg0 = 2.5 + 2.9 * colour + r.normal(0, 1.0, rows)
    parallax = r.uniform(0.5, 20, rows)
    values = {
        "source_id": r.permutation(rows) + 2**60,
        "parallax": parallax,
        "parallax_over_error": (parallax / 0.3).astype("f4"),
        "phot_g_mean_mag": (mg0 + 5 * np.log10(100 / parallax)).astype("f4"),
        "bp_rp": colour.astype("f4"),
        "phot_bp_rp_excess_factor": (photometry.excess_expected(colour) + r.normal(0, 0.03, rows)).astype("f4"),
        "bp_rp0": (colour - 0.01).astype("f4"),
        "mg0": mg0.astype("f4"),
        "eta": r.normal(size=rows).astype("f4"),
        "fidelity_v2": r.random(rows).astype("f4"),
        "feh": r.uniform(-2.5, 0.5, rows).astype("f4"),
        "mass": r.uniform(0.1, 1, rows).astype("f4"),
        **changes,
    }
    fields = [metadata.field_of(name, {**KNOWN, "eta": ETA}[name]) for name in values]
    arrays = [pa.array(v, f.type) for v, f in zip(values.values(), fields, strict=True)]
    return pa.table(arrays, schema=pa.schema(fields))


STARS = table()
ARRAYS = {name: STARS[name].to_numpy() for name in STARS.schema.names}
A = ARRAYS
CUTS = {
    "--parallax 1:": A["parallax"] > 1,
    "--parallax 1:10": (A["parallax"] > 1) & (A["parallax"] < 10),
    "--parallax-over-error 10": A["parallax_over_error"] > 10,
    "--absolute-magnitude 4:": A["phot_g_mean_mag"] + 5 * np.log10(A["parallax"] / 100) > 4,
    "--bp-rp 1:2": (A["bp_rp"] > 1) & (A["bp_rp"] < 2),
    "--cstar-nsigma 2": np.abs(photometry.excess_corrected(A["phot_bp_rp_excess_factor"], A["bp_rp"]))
    < 2 * photometry.excess_sigma(A["phot_g_mean_mag"]),
    "--eta-ratio 10": A["eta"] > 1,
    "--fidelity 0.5": A["fidelity_v2"] > 0.5,
    "--feh :-1.1": A["feh"] < np.float32(-1.1),
    "--feh -2.2:-1.1": (A["feh"] < np.float32(-1.1)) & (A["feh"] > np.float32(-2.2)),
    "--magnitude :17": A["phot_g_mean_mag"] < 17,
    "--where 'mg0 > 4 and feh < 0'": (A["mg0"] > 4) & (A["feh"] < 0),
}


def kept(command, source=STARS):
    return pa.Table.from_batches(list(stream.through(xptools.op(command), source)))


@pytest.mark.parametrize("options", CUTS)
def test_each_cut_is_its_closed_form(options):
    out = kept(f"select {options}")
    np.testing.assert_array_equal(out["source_id"].to_numpy(), A["source_id"][CUTS[options]])


def test_isochrone_is_the_locus_of_solar_metallicity_at_5_gyr():
    x, y = selection.main_sequence(*isochrone.load(None).locus(0.0, 5.0))
    limit = np.where(A["bp_rp0"] < x[0], -np.inf, np.interp(A["bp_rp0"].astype(float), x, y))
    right = (A["mg0"] > limit) & (A["mg0"] > 4) & (A["bp_rp0"] > 0) & (A["bp_rp0"] < 4)
    assert 0.05 < right.mean() < 0.95
    np.testing.assert_array_equal(kept("select --isochrone")["source_id"].to_numpy(), A["source_id"][right])
    moved = kept("select --isochrone --iso-offset 0.5")
    assert 0 < moved.num_rows < right.sum()
    assert kept("select --isochrone --age 10")["source_id"] != moved["source_id"]


def test_isochrone_from_a_real_table(shared_data):
    path = shared_data / "isochrones" / "parsec_ybc" / "cmd_gaiaedr3_mh-1.5..0.0_10-13.5Gyr.dat"
    step = xptools.op(f"select --isochrone --age 10 --isochrones '{path}'")
    assert step.files() == {"isochrones": str(path)}
    ours, built_in = kept(f"select --isochrone --age 10 --isochrones '{path}'"), kept("select --isochrone --age 10")
    assert abs(ours.num_rows - built_in.num_rows) < 0.02 * N


def test_order_does_not_depend_on_the_order_of_options():
    op = xptools.op
    a = op("select --magnitude :17 --isochrone --where 'mass > 0.2' --fidelity 0.5 --cstar-nsigma 3 --parallax 1:")
    b = op("select --parallax 1: --cstar-nsigma 3 --where 'mass > 0.2' --isochrone --fidelity 0.5 --magnitude :17")
    assert a == b
    assert list(a.cuts()) == ["parallax", "isochrone", "cstar", "fidelity", "magnitude", "mass > 0.2"]


PAPER = "--isochrone --cstar-nsigma 3 --eta-ratio 2 --fidelity 0.5 --feh :-1.1 --magnitude :17"


def flow(options, source=STARS, rows=16384):
    step = xptools.op(f"select {options} --cutflow")
    assert isinstance(step, CutFlow)
    return stream.fold(step, source.to_batches(rows), source.schema)


def test_cutflow_counts_are_those_of_cuts_made_one_after_another():
    rows, left = flow(PAPER).to_pylist(), STARS
    names = ["isochrone", "cstar", "eta", "fidelity", "feh", "magnitude"]
    assert [row["cut"] for row in rows] == names
    for row, option in zip(rows, PAPER.replace(" --", "|--").split("|"), strict=True):
        after = kept(f"select {option}", left)
        assert (row["rows_in"], row["rows_out"]) == (left.num_rows, after.num_rows)
        assert row["kept"] == pytest.approx(after.num_rows / left.num_rows)
        assert row["of_all"] == pytest.approx(after.num_rows / N)
        assert row["alone"] == kept(f"select {option}").num_rows
        left = after
    assert kept(f"select {PAPER}")["source_id"] == left["source_id"]
    assert left.num_rows > 0


@pytest.mark.parametrize("rows", [1, 7, 300])
def test_batches_do_not_matter(rows):
    cuts, few = "--isochrone --cstar-nsigma 3 --feh :-0.1", STARS.slice(0, 300)
    assert flow(cuts, few, rows).equals(flow(cuts, few))
    step = xptools.op(f"select {cuts}")
    parts = [step(batch) for batch in few.to_batches(rows)]
    assert pa.Table.from_batches(parts).equals(kept(f"select {cuts}", few))
    assert 0 < sum(part.num_rows for part in parts) < 300


def test_cutflow_of_halves_merges_to_the_whole():
    step = xptools.op(f"select {PAPER} --cutflow")
    halves = [step.feed(step.zero(), batch) for batch in STARS.to_batches(N // 2)]
    assert step.table(step.merge(*halves[::-1]), STARS.schema).equals(flow(PAPER))


def test_cutflow_of_no_rows():
    rows = flow(PAPER, STARS.slice(0, 0)).to_pylist()
    assert [row["rows_out"] for row in rows] == [0] * 6
    assert np.isnan(rows[0]["kept"])


def test_flag_keeps_every_row_and_agrees_with_the_filter():
    marked = kept(f"select {PAPER} --where 'heavy = mass > 0.5' --where 'mass < 0.9' --flag")
    assert marked.num_rows == N
    assert marked.schema.names[-9:] == [
        "in_isochrone", "in_cstar", "in_eta", "in_fidelity", "in_feh", "in_magnitude", "in_heavy", "in_mass_0_9",
        "select_flag",
    ]  # fmt: skip
    marks = np.stack([marked[f"in_{name}"].to_numpy(zero_copy_only=False) for name in (
        "isochrone", "cstar", "eta", "fidelity", "feh", "magnitude", "heavy", "mass_0_9")])  # fmt: skip
    bits = marked["select_flag"].to_numpy()
    np.testing.assert_array_equal(bits, (~marks * (1 << np.arange(8))[:, None]).sum(axis=0))
    filtered = kept(f"select {PAPER} --where 'mass > 0.5' --where 'mass < 0.9'")
    assert marked.filter(pa.array(bits == 0))["source_id"] == filtered["source_id"]
    assert "fails" in metadata.words_of(marked.schema.field("select_flag"))["description"]


def test_unknown_values_fail_and_are_counted_apart():
    feh = A["feh"].copy()
    feh[::10] = np.nan
    source = STARS.set_column(STARS.schema.get_field_index("feh"), STARS.schema.field("feh"), pa.array(feh))
    row = flow("--feh :-1.1", source).to_pylist()[0]
    assert row["unknown"] == N / 10
    assert row["rows_out"] == np.nansum(feh < np.float32(-1.1))
    for command in ("--where 'feh > -9'", "--where 'not feh > -9'", "--feh :0"):
        assert flow(command, source).to_pylist()[0]["unknown"] == N / 10
    step = Select(feh=(None, -1.1))
    tally = Tally(step.cuts())
    for batch in source.to_batches():
        step(batch, False, tally)
    assert tally.counts[:, :2].tolist() == [[N, 0], [row["rows_out"], N // 10]]
    words = f"left after feh {row['rows_out']:,}; {N // 10:,} rejected because a value is unknown"
    assert str(tally) == f"{N:,} rows in; {words}"
    column = pa.array(feh, mask=np.isnan(feh))
    nulls = source.set_column(source.schema.get_field_index("feh"), source.schema.field("feh"), column)
    assert flow("--feh :-1.1", nulls).equals(flow("--feh :-1.1", source))


def test_unknown_in_every_column_a_cut_reads():
    read = {
        "--isochrone": ("bp_rp0", "mg0"),
        "--absolute-magnitude 4:": ("parallax", "phot_g_mean_mag"),
        "--cstar-nsigma 3": ("phot_bp_rp_excess_factor", "bp_rp", "phot_g_mean_mag"),
    }
    for option, columns in read.items():
        for column in columns:
            source = table(4, **{column: np.full(4, np.nan)})
            row = flow(option, source).to_pylist()[0]
            assert (row["unknown"], row["rows_out"]) == (4, 0)


def test_a_parallax_that_is_not_positive_has_no_absolute_magnitude():
    row = flow("--absolute-magnitude 4:", table(3, parallax=np.array([-1.0, 0.0, 10.0]))).to_pylist()[0]
    assert row["unknown"] == 2


def test_ids_from_a_list_and_from_a_table(tmp_path):
    wanted = A["source_id"][5:40:3]
    (tmp_path / "ids.txt").write_text("\n".join(map(str, wanted)) + "\n")
    pq.write_table(pa.table({"SOURCE_ID": wanted}), tmp_path / "ids.parquet")
    for name in ("ids.txt", "ids.parquet"):
        out = kept(f"select --ids {tmp_path / name}")
        np.testing.assert_array_equal(out["source_id"].to_numpy(), A["source_id"][np.isin(A["source_id"], wanted)])
    for name, kind in (("float64", "double, so its last digits may be lost"), ("str", "string, not integer")):
        pq.write_table(pa.table({"source_id": wanted.astype(name)}), tmp_path / f"{name}.parquet")
        with pytest.raises(DataError, match=kind):
            xptools.op(f"select --ids {tmp_path / name}.parquet")
    with pytest.raises(InputError, match="cannot open"):
        xptools.op(f"select --ids {tmp_path / 'none.txt'}")
    (tmp_path / "bad.txt").write_text("99999999999999999999999\n")
    with pytest.raises(DataError, match="not a list of identifiers"):
        xptools.op(f"select --ids {tmp_path / 'bad.txt'}")


@pytest.mark.parametrize("fraction", [0.0133, 0.2, 1.0])
def test_eta_quantile_is_that_fraction_of_the_rows_before_it(tmp_path, fraction, xp):
    path = tmp_path / "stars.parquet"
    pq.write_table(STARS, path)
    made = xp("select", "--isochrone", "--eta-quantile", fraction, "--fidelity", 0.5, "--cutflow", path, "-O", "json")
    assert made.returncode == 0, made.stderr
    rows = [json.loads(line) for line in made.stdout.splitlines()]
    assert [row["cut"] for row in rows] == ["isochrone", "eta", "fidelity"]
    assert rows[1]["rows_out"] == round(fraction * rows[0]["rows_out"])


def test_eta_quantile_of_a_stream_is_refused(xp):
    made = xp("select", "--eta-quantile", 0.1, stdin=b"")
    assert made.returncode == 2
    assert b"a stream passes only once" in made.stderr
    with pytest.raises(UsageError, match="stream"):
        xptools.op("select --eta-quantile 0.1")


def test_eta_quantile_of_another_table_cuts_a_stream(xp, tmp_path):
    path = tmp_path / "stars.parquet"
    pq.write_table(STARS, path)
    line = "select --eta-quantile 0.1"
    assert kept(f"{line} --eta-from {path}").num_rows == round(0.1 * len(STARS))
    whole = xp("convert", path)
    made = xp("select", "--eta-quantile", 0.1, "--eta-from", path, "-o", tmp_path / "out.parquet", stdin=whole.stdout)
    assert made.returncode == 0, made.stderr
    assert pq.read_table(tmp_path / "out.parquet").num_rows == round(0.1 * len(STARS))
    with pytest.raises(UsageError, match="goes with"):
        xptools.op(f"select --eta-ratio 10 --eta-from {path}")


def test_the_history_holds_every_parameter_and_no_default_is_lost():
    record = metadata.history(kept("select --magnitude :17 --where 'mass > 0.2'").schema)[-1]
    assert record["cmd"] == "select"
    assert record["params"]["magnitude"] == [None, 17.0]
    assert record["params"]["where"] == ["mass > 0.2"]


def test_metadata_and_unknown_columns_survive():
    source = STARS.append_column(pa.field("odd", pa.string(), metadata={"unit": "m"}), pa.array(["x"] * N))
    out = kept("select --magnitude :17", source)
    assert out.schema.names == source.schema.names
    assert out.schema.field("odd").metadata == {b"unit": b"m"}
    assert out.schema.field("mg0").metadata == source.schema.field("mg0").metadata


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("", "no cut is asked for"),
        ("--magnitude 17", "is no range"),
        ("--magnitude :", "is no range"),
        ("--magnitude a:b", "is no range"),
        ("--feh 1:0", "low end is not below"),
        ("--feh nan:0", "is no range"),
        ("--feh :0 --cutflow --cutflow-out c.parquet", "gives the cut-flow itself"),
        ("--where 'mass >'", "is not an expression"),
        ("--where 'mass.real > 1'", "is not allowed"),
        ("--where \"__import__('os').system('true')\"", "there is no function"),
        ("--cstar-nsigma 0", "not in the range"),
        ("--eta-ratio -1", "not in the range"),
        ("--flag " + " ".join(f"--where 'mass > {i}'" for i in range(16)), "15 bits"),
        ("--isochrone --iso-blue maybe", "maybe"),
    ],
)
def test_wrong_command_lines_have_a_sentence(options, words):
    with pytest.raises(UsageError, match=words):
        xptools.op(f"select {options}")


def test_a_missing_column_is_named_with_what_makes_it(xp, tmp_path):
    path = tmp_path / "few.parquet"
    pq.write_table(STARS.drop_columns(["mg0", "bp_rp0"]), path)
    with pytest.raises(MissingColumns, match="bp_rp0, mg0"):
        xptools.op("select --isochrone").schema(pq.read_schema(path))
    made = xp("select", "--isochrone", path, "-o", tmp_path / "out.parquet")
    assert made.returncode == 65
    assert b"xp deredden first" in made.stderr
    assert not (tmp_path / "out.parquet").exists()
    made = xp("select", "--where", "bp_rp9 > 1", path, "-o", tmp_path / "out.parquet")
    assert made.returncode == 65
    assert b"nearest is bp_rp" in made.stderr


def test_summary_goes_to_stderr_and_rows_to_the_file(xp, tmp_path):
    path, out = tmp_path / "in.parquet", tmp_path / "out.parquet"
    pq.write_table(STARS, path)
    made = xp("select", "--magnitude", ":17", "--fidelity", 0.5, path, "-o", out)
    assert made.returncode == 0
    assert made.stdout == b""
    assert f"{N:,} rows in; left after fidelity".encode() in made.stderr
    assert pq.read_table(out).num_rows == kept("select --magnitude :17 --fidelity 0.5").num_rows


def test_limits_and_titles():
    assert limits("x", "1:2") == (1.0, 2.0)
    assert limits("x", ":2") == (None, 2.0)
    assert limits("x", "-1e1:") == (-10.0, None)
    assert limits("x", None) is None
    assert titled("dwarf = mg0 > 4") == ("dwarf", "mg0 > 4")
    assert titled("mg0 == 4") == ("", "mg0 == 4")
    assert titled("mg0 >= 4") == ("", "mg0 >= 4")


def test_the_papers_table_from_its_own_fractions():
    """Li+ 2026 Table 1: with cuts that keep the published fractions the cut-flow prints the published numbers."""
    counts = [27_978_851, 20_462_709, 18_996_706, 253_247, 70_346, 53_275]
    scale = 100  # one row stands for 100 stars
    rows = [round(n / scale) for n in counts]
    step = xptools.op("select --cutflow --parallax 0: --where 'isochrone = n < 204627' --where 'cstar = n < 189967' "
                      "--where 'eta = n < 2532' --where 'feh = n < 703' --where 'g = n < 533'")  # fmt: skip
    source = pa.table({"parallax": np.ones(rows[0]), "n": np.arange(rows[0])})
    flowed = stream.fold(step, source.to_batches(), source.schema).to_pylist()[1:]
    assert [row["rows_out"] for row in flowed] == rows[1:]
    published = [0.7314, 0.9284, 0.01333, 0.2778, 0.7573]
    assert [row["kept"] for row in flowed] == pytest.approx(published, rel=2e-3)


def test_report_is_a_table_with_fractions():
    from rich.console import Console

    from xptools.commands._select_words import report

    console = Console(width=160, record=True, file=io.StringIO())
    console.print(report(flow(PAPER)))
    text = console.export_text()
    assert "isochrone" in text
    assert f"{flow(PAPER).to_pylist()[0]['kept']:.4f}" in text


def test_the_cut_flow_comes_with_the_rows_in_one_pass(xp, tmp_path):
    source = tmp_path / "stars.parquet"
    pq.write_table(STARS, source)
    out, told = tmp_path / "out.parquet", tmp_path / "flow.parquet"
    made = xp("select", "--fidelity", "0.5", "--magnitude", ":17", "--cutflow-out", told, source, "-o", out)
    assert made.returncode == 0, made.stderr
    counts = pq.read_table(told).to_pylist()
    assert [c["cut"] for c in counts] == ["fidelity", "magnitude"]
    assert counts[-1]["rows_out"] == pq.read_table(out).num_rows
    assert counts == flow("--fidelity 0.5 --magnitude :17", STARS).to_pylist()
    assert "cutflow_out" not in metadata.history(pq.read_schema(out))[-1]["params"]


def test_two_selects_in_one_run_count_apart(xp, tmp_path):
    source = tmp_path / "stars.parquet"
    pq.write_table(STARS, source)
    made = xp("run", "select --fidelity 0.5 | select --magnitude :17", source, "-o", tmp_path / "o.parquet")
    lines = made.stderr.decode().splitlines()
    first = lines[0].split("fidelity ")[1]
    assert lines[0].startswith(f"xp select: {N:,} rows in; left after fidelity")
    assert lines[1].startswith(f"xp select: {first.split(';')[0]} rows in; left after magnitude")


def test_marks_come_with_c_star_and_its_scatter():
    out = xptools.through("select --flag --cstar-nsigma 3", STARS).read_all()
    excess, colour, G = (out[n].to_numpy() for n in ("phot_bp_rp_excess_factor", "bp_rp", "phot_g_mean_mag"))
    np.testing.assert_allclose(out["c_star"], photometry.excess_corrected(excess, colour), rtol=1e-6)
    np.testing.assert_allclose(out["c_star_err"], photometry.excess_sigma(G), rtol=1e-6)
    inside = np.abs(out["c_star"].to_numpy()) < 3 * out["c_star_err"].to_numpy()
    assert (inside == out["in_cstar"].to_numpy()).mean() > 0.999
