"""`xp mf`: counting in one pass, both posteriors, slopes and mass ratios, the report, and wrong input."""

import json
import subprocess
from importlib.resources import files

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import xptools
from xptools import metadata
from xptools.cores.imf import PiecewiseIMF
from xptools.errors import ComputeError, DataError, UsageError

LAW = PiecewiseIMF().with_density([2000.0, 4000.0, 6000.0, 8000.0, 1e6])
EXACT = "mf --method exact"


def universe(seed=1):
    """Stars with mass and feh, Poisson about LAW, with its statement under xp.mock."""
    from xptools.commands._mf_report import true_phi

    table = xptools.op("veff").table()
    n = np.random.default_rng(seed).poisson(np.nan_to_num(true_phi(table, LAW) * table.veff * table.width))
    b, k = np.divmod(np.repeat(np.arange(n.size), n.ravel()), n.shape[1])
    stars = pa.table({"mass": pa.array(table.centre[k], pa.float32()),
                      "feh": pa.array(0.5 * (table.feh_edges[b] + table.feh_edges[b + 1]), pa.float32())})  # fmt: skip
    return stars.replace_schema_metadata({"xp.mock": json.dumps({"phi": LAW.to_dict()})}), n


@pytest.fixture(scope="module")
def stars():
    plain, n = universe()
    batch = xptools.op("veff")(plain.combine_chunks().to_batches()[0])
    return pa.Table.from_batches([batch]), n


@pytest.fixture(scope="module")
def file(stars, tmp_path_factory):
    path = tmp_path_factory.mktemp("mf") / "stars.parquet"
    pq.write_table(stars[0], path)
    return path


def run(line, table):
    step = xptools.op(line)
    return step(table.combine_chunks().to_batches()[0])


def same(one, other):
    """Equal to the last bit, NaN included."""
    return one.schema.equals(other.schema, check_metadata=True) and repr(one.to_pydict()) == repr(other.to_pydict())


def test_counts_and_posterior_of_every_bin(stars):
    table, n = stars
    out = run(EXACT, table)
    assert out.num_rows == 56
    np.testing.assert_array_equal(out["n"].to_numpy().reshape(4, 14), n)
    from scipy.special import digamma

    rate = out["veff"].to_numpy() * (out["mass_hi"].to_numpy() - out["mass_lo"].to_numpy())
    use = rate > 0
    mean = (digamma(out["n"].to_numpy()[use] + 0.5) - np.log(rate[use])) / np.log(10)
    np.testing.assert_allclose(out["log_phi"].to_numpy()[use], mean)
    np.testing.assert_array_equal(out["mf_flag"].to_numpy()[~use], 1)
    assert np.isnan(out["phi"].to_numpy()[~use]).all()
    assert metadata.unit_of(out.schema.field("phi")) == "kpc**-3.solMass**-1"


def test_a_stream_in_pieces_gives_the_same(stars):
    table, _ = stars
    step = xptools.op(EXACT)
    whole = step.table(step.feed(step.zero(), table.combine_chunks().to_batches()[0]), table.schema)
    states = [step.feed(step.zero(), b) for b in table.to_batches(max_chunksize=977)]
    merged = step.zero()
    for state in reversed(states):
        merged = step.merge(merged, state)
    assert same(step.table(merged, table.schema), whole)


def test_slopes_and_mass_ratio_recover_the_truth(stars):
    out = run(EXACT + " --truth", stars[0])
    about = metadata.value_of(out.schema, "xp.mf")
    for b, entry in enumerate(about["feh"]):
        truth = entry["truth"]
        np.testing.assert_allclose(truth["alpha"], LAW.slopes[b][1:], atol=0.01)
        for slope, alpha in zip(entry["slopes"], truth["alpha"], strict=True):
            assert abs(slope["poisson"]["mean"] - alpha) < 3.5 * slope["poisson"]["sd"]
        assert abs(entry["xi"]["value"]["mean"] - truth["xi"]) < 3.5 * entry["xi"]["value"]["sd"]
    pull = out["pull"].to_numpy()
    assert np.nanstd(pull[out["n"].to_numpy() > 0]) == pytest.approx(1.0, abs=0.35)


def test_nuts_and_exact_agree(stars):
    exact, nuts = (run(line, stars[0]) for line in (EXACT, "mf"))
    use = np.isfinite(exact["log_phi"].to_numpy())
    sd = exact["log_phi_sd"].to_numpy()[use]
    shift = (nuts["log_phi"].to_numpy() - exact["log_phi"].to_numpy())[use] / sd
    assert np.max(np.abs(shift)) < 0.12
    assert np.nanmax(nuts["rhat"].to_numpy()) < 1.01 and np.nanmin(nuts["ess"].to_numpy()) > 400
    about = metadata.value_of(nuts.schema, "xp.mf")
    assert about["convergence"]["trouble"] == []


def test_no_convergence_is_an_error_unless_forced(stars):
    line = "mf --warmup 10 --draws 20 --chains 2"
    with pytest.raises(ComputeError, match=r"not converged: .*TRY: more --warmup"):
        run(line, stars[0])
    about = metadata.value_of(run(line + " --force", stars[0]).schema, "xp.mf")
    assert about["convergence"]["trouble"]


def test_volumes_from_a_file_instead_of_the_metadata(stars, tmp_path, xp):
    plain, n = universe()
    for name in ("v.parquet", "v.csv"):
        assert xp("veff", "--table", "-o", tmp_path / name).returncode == 0
        out = run(f"{EXACT} --veff {tmp_path / name}", plain)
        np.testing.assert_array_equal(out["n"].to_numpy().reshape(4, 14), n)
        np.testing.assert_allclose(out["log_phi"].to_numpy(), run(EXACT, stars[0])["log_phi"].to_numpy(), rtol=1e-6)


def test_the_rows_of_a_file_of_volumes_count_not_its_metadata(stars, tmp_path):
    """Changed or taken away in the file, which keeps the metadata that xp veff gave it."""
    step, files = xptools.op("veff --table"), iter("abcdefgh")
    columns = next(step.batches(99))

    def out(rows=slice(None), stating=True, **changed):
        path = tmp_path / f"{next(files)}.parquet"
        table = pa.table({name: v[rows] for name, v in (columns | changed).items()})
        keys = metadata.with_values(pa.schema([]), step.meta_out(None)).metadata if stating else None
        pq.write_table(table.replace_schema_metadata(keys), path)
        return run(f"{EXACT} --veff {path}", stars[0])

    asis = out()
    assert repr(asis.to_pydict()) == repr(run(EXACT, stars[0]).to_pydict())
    scaled = out(veff=2 * columns["veff"], veff_err=2 * columns["veff_err"])
    np.testing.assert_allclose(scaled["log_phi"].to_numpy(), asis["log_phi"].to_numpy() - np.log10(2), rtol=1e-7)
    np.testing.assert_array_equal(scaled["n"].to_numpy(), asis["n"].to_numpy())
    slopes = [metadata.value_of(o.schema, "xp.mf")["feh"][2]["slopes"][0]["poisson"] for o in (asis, scaled)]
    assert slopes[0]["mean"] == pytest.approx(slopes[1]["mean"], abs=1e-6)  # V still runs inside the bins
    two = out(slice(14, 42))
    np.testing.assert_array_equal(two["log_phi"].to_numpy(), asis["log_phi"].to_numpy()[14:42])
    assert out(veff=np.r_[np.nan, columns["veff"][1:]])["mf_flag"].to_numpy()[0] & 1
    for value, words in ((-1.0, "below 0"), (np.inf, "infinite")):
        with pytest.raises(DataError, match=words):
            out(veff=np.r_[value, columns["veff"][1:]])
    with pytest.raises(DataError, match=r"not a full grid.*\.parquet"):
        out(slice(1, None))
    constant = metadata.value_of(out(stating=False).schema, "xp.mf")["feh"][2]["slopes"][0]["poisson"]
    assert constant["mean"] != slopes[0]["mean"]


def test_volume_error_widens_every_bin(stars):
    plain, _ = universe()
    batch = xptools.op("veff --veff-error 0.2")(plain.combine_chunks().to_batches()[0])
    wide = xptools.op(EXACT)(batch)["log_phi_sd"].to_numpy()
    narrow = run(EXACT, stars[0])["log_phi_sd"].to_numpy()
    use = np.isfinite(narrow)
    np.testing.assert_allclose(wide[use], np.hypot(narrow[use], 0.2 / np.log(10)), rtol=1e-6)


def test_stars_where_no_volume_is_are_flagged_and_empty_bins_bounded(stars):
    table, _ = stars
    last = pa.array(np.full(table.num_rows, 13, np.int16))
    moved = table.set_column(table.schema.get_field_index("mass_bin"), "mass_bin", last)
    moved = moved.replace_schema_metadata(table.schema.metadata)
    out = run(EXACT, moved)
    assert out["mf_flag"].to_numpy()[13] == 3
    assert np.isfinite(out["log_phi_hi95"].to_numpy()[0]) and out["n"].to_numpy()[0] == 0
    about = metadata.value_of(out.schema, "xp.mf")
    assert about["feh"][0]["slopes"][0]["poisson"]["mean"] is None


def test_no_rows_at_all(stars):
    out = xptools.op(EXACT)
    empty = stars[0].slice(0, 0).combine_chunks()
    table = out.table(out.zero(), empty.schema)
    assert table.num_rows == 56 and table["n"].to_numpy().sum() == 0


def test_report_follows_its_schema(file, xp, tmp_path):
    for options in (("--truth",), ("--method", "exact")):
        done = xp("mf", file, *options, "--report", tmp_path / "r.json", "-o", tmp_path / "o.parquet")
        assert done.returncode == 0, done.stderr
        text = (tmp_path / "r.json").read_text()
        assert "NaN" not in text and "Infinity" not in text
        schema = json.loads((files("xptools") / "data" / "mf_report.schema.json").read_text())
        check(json.loads(text), schema, schema)


def check(value, rule, root, where="report"):
    """The part of JSON Schema that the shipped schema uses."""
    if "$ref" in rule:
        return check(value, root["$defs"][rule["$ref"].rpartition("/")[2]], root, where)
    if "oneOf" in rule:
        found = [r for r in rule["oneOf"] if (r.get("type") == "null") == (value is None)]
        assert len(found) == 1, where
        return check(value, found[0], root, where)
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None), "integer": int}
    kinds["number"] = (int, float)
    if "type" in rule:
        wanted = rule["type"] if isinstance(rule["type"], list) else [rule["type"]]
        fits = [isinstance(value, kinds[t]) and (t == "boolean" or not isinstance(value, bool)) for t in wanted]
        assert any(fits), where
    assert "const" not in rule or value == rule["const"], where
    assert "enum" not in rule or value in rule["enum"], where
    assert "minimum" not in rule or value >= rule["minimum"], where
    for item in value if isinstance(value, list) else ():
        check(item, rule.get("items", {}), root, f"{where}[]")
    if isinstance(value, dict) and rule.get("type") == "object":
        assert set(rule.get("required", ())) <= set(value), (where, set(rule["required"]) - set(value))
        for key, item in value.items():
            inner = rule.get("properties", {}).get(key, rule.get("additionalProperties", True))
            assert inner is not False, f"{where}.{key}"
            if isinstance(inner, dict):
                check(item, inner, root, f"{where}.{key}")
    return None


def test_a_terminal_sees_a_table_and_the_same_numbers(file, xp, tmp_path):
    """F20: the draws do not depend on the terminal, on -q or on the progress bar."""
    first = xp("mf", file, "-o", tmp_path / "a.parquet", "--progress", "off", "-q")
    assert first.returncode == 0, first.stderr
    command = f"'{xp.program}' mf {file} --progress on -o {tmp_path / 'b.parquet'}"
    subprocess.run(["script", "-qec", command, "/dev/null"], check=True, capture_output=True, timeout=120)
    a, b = (pq.read_table(tmp_path / f"{x}.parquet") for x in "ab")
    assert same(a, b)
    shown = subprocess.run(["script", "-qec", f"'{xp.program}' {EXACT} --truth {file}", "/dev/null"], check=True,
                           capture_output=True, timeout=120).stdout.decode()  # fmt: skip
    assert "V_eff [kpc3]" in shown and "alpha1" in shown and "Kroupa" in shown and "pulls: mean" in shown


def test_report_into_a_folder_that_is_not_there(file, xp, tmp_path):
    done = xp("mf", file, "--method", "exact", "--report", tmp_path / "no" / "r.json", "-o", tmp_path / "o.parquet")
    assert done.returncode == 73 and b"cannot write the report" in done.stderr


def test_missing_volumes_are_named_before_any_row(xp, tmp_path):
    table = pa.table({"mass_bin": pa.array([0], pa.int16()), "feh_bin": pa.array([0], pa.int16())})
    pq.write_table(table, tmp_path / "s.parquet")
    done = xp("mf", tmp_path / "s.parquet", "-o", tmp_path / "o.parquet")
    assert done.returncode == 65 and b"xp veff" in done.stderr and b"Traceback" not in done.stderr


def test_wrong_input(stars):
    table, _ = stars
    with pytest.raises(DataError, match="states no true mass function"):
        xptools.op(EXACT + " --truth").reads(metadata.with_values(table.schema, {"xp.mock": {}}))
    ninth = pa.array(np.full(table.num_rows, 9, np.int16))
    far = table.set_column(table.schema.get_field_index("feh_bin"), "feh_bin", ninth)
    with pytest.raises(DataError, match="beyond the 4 x 14 bins"):
        run(EXACT, far.replace_schema_metadata(table.schema.metadata))
    for column in ("mass_bin", "feh_bin"):
        bins = table[column].to_numpy().astype(float)
        i, bins[7] = table.schema.get_field_index(column), np.nan
        floats = table.set_column(i, column, pa.array(bins)).replace_schema_metadata(table.schema.metadata)
        assert run(EXACT, floats)["n"].to_numpy().sum() == run(EXACT, table)["n"].to_numpy().sum() - 1
        for value in (1.5, np.inf):
            bins[9] = value
            broken = table.set_column(i, column, pa.array(bins)).replace_schema_metadata(table.schema.metadata)
            with pytest.raises(DataError, match=rf"{column} is {value:g}, .*Row 10\."):
                xptools.through(EXACT, broken, rows=4).read_all()
    with pytest.raises(UsageError, match="do not ascend"):
        xptools.op("mf --segments 0.8,0.5")


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [("veff", 0.0, "no bin has an effective volume"), ("veff", np.nan, "no bin has an effective volume"),
     ("veff", -1.0, "below 0"), ("veff_err", -1.0, "below 0")],
)  # fmt: skip
def test_volumes_that_are_none(stars, tmp_path, column, value, words):
    columns = next(xptools.op("veff --table").batches(99))
    path = tmp_path / "veff.parquet"
    pq.write_table(pa.table(columns | {column: np.full(len(columns["veff"]), value)}), path)
    with pytest.raises(DataError, match=words):
        run(f"{EXACT} --veff {path}", stars[0])


def test_what_the_bins_cannot_tell_is_told(stars, capsys):
    run(f"{EXACT} --segments 0.15,0.55,2,3 --xi-upper 5", stars[0])
    said = capsys.readouterr().err
    assert "slope between 2 and 3 Msun is unknown in" in said and "from 0.2 to 5 Msun are wanted" in said
    assert "between 0.15 and 0.55" not in said
    run(f"{EXACT} --segments 0.15,0.55,0.9", stars[0])
    assert "slope" not in capsys.readouterr().err


def test_history_does_not_name_the_report(stars, tmp_path):
    one = run(EXACT, stars[0]).schema.metadata
    other = run(f"{EXACT} --report {tmp_path / 'r.json'}", stars[0]).schema.metadata
    assert one == other


@pytest.mark.parametrize("upper", [0.7, 1.0])
def test_reference_curves_hold_as_many_stars_as_were_counted(stars, upper):
    about = metadata.value_of(run(f"{EXACT} --xi-upper {upper}", stars[0]).schema, "xp.mf")
    entry = about["feh"][2]
    assert entry["references"]["Kroupa 2001"]["xi"] == pytest.approx({0.7: 0.6788, 1.0: 0.5194}[upper], abs=5e-5)
    assert (entry["xi"]["value"]["mean"] is None) == (upper > 0.9)
    table = xptools.op("veff").table()
    curve = 10 ** np.array([v if v is not None else -np.inf for v in entry["references"]["Salpeter 1955"]["log_phi"]])
    assert np.sum(curve * table.veff[2] * table.width) == pytest.approx(entry["n"])
