"""`xp ask`: what is shown and what comes out, what is said of wrong requests; by the demonstration model."""

import numpy as np
import pyarrow as pa
import pytest
from tables import read, write

import xptools
from xptools.errors import DataError, MissingColumns, UsageError
from xptools.mock import Mock

XP = "bp_coefficients,rp_coefficients,bp_rp"


@pytest.fixture(scope="module")
def giants() -> pa.Table:
    """Mock giants, none of which the demonstration model was trained on."""
    mock = Mock(4000, seed=4, sample="giants", max_distance=3.0, spectra=True, map="toy")
    table = pa.Table.from_batches(list(mock.record_batches(16384)), mock.schema())
    return table.rename_columns(["ext_e" if n == "true_ext_e" else n for n in table.schema.names]).combine_chunks()


def asked(line: str, table: pa.Table, replace: bool = False) -> dict[str, np.ndarray]:
    """The added columns of `xp ask`."""
    step = xptools.op(f"ask {line}")
    out = step(table.to_batches()[0], replace)
    added = {n: out.column(out.schema.get_field_index(n)) for n in step.added()}
    return {n: v.flatten().to_numpy(zero_copy_only=False).reshape(out.num_rows, -1)
            if pa.types.is_fixed_size_list(v.type) else v.to_numpy(zero_copy_only=False)
            for n, v in added.items()}  # fmt: skip


def mad_std(x: np.ndarray) -> float:
    return 1.4826 * np.median(np.abs(x - np.median(x)))


@pytest.mark.parametrize("name", ["mass", "age", "teff", "logg", "mh", "alpha_m"])
def test_labels_come_back_with_errors_that_hold(giants, name):
    """From the spectra alone, for new stars, against the truth."""
    out = asked(f"{name} --context {XP} --suffix _x", giants)
    truth = giants[f"true_{name}"].to_numpy()
    off = truth - out[f"{name}_x"]
    assert mad_std(off) < 0.9 * mad_std(truth), mad_std(off) / mad_std(truth)
    assert np.std(off / out[f"{name}_x_err"]) == pytest.approx(1.0, abs=0.15)
    assert np.mean(out["ask_flag"] > 0) < 0.1


@pytest.mark.parametrize(
    "shown",
    [XP, "bp_coefficients", "rp_coefficients", "bp_rp", f"{XP},g_fakemag", f"{XP},teff", "bp[25:55],rp[25:55]",
     "bp[0:5],rp[0:5],bp_rp", "bp[1:33],rp[1:33]"],
)  # fmt: skip
def test_pulls_have_unit_width_in_every_context(giants, shown):
    """Of new stars' labels, whose own errors count: within a tenth, and what 1,400 stars leave open.

    The first five orders alone look like a faint star's, whose others are irrelevant; --context knows better.
    """
    names = [n for n in ("teff", "logg", "mh", "alpha_m", "mass", "age") if n not in shown]
    out = asked(f"{' '.join(names)} --context {shown} --suffix _x", giants)
    for name in names:
        label, sigma = giants[name].to_numpy(), giants[f"{name}_err"].to_numpy()
        pull = (label - out[f"{name}_x"]) / np.hypot(out[f"{name}_x_err"], sigma)
        assert np.nanstd(pull) == pytest.approx(1.0, abs=0.13), name


def test_extinction_is_told_from_temperature(giants):
    """Both redden; the errors of the answers are correlated, but each is known better than from the colour alone."""
    spectra, colour = (asked(f"teff ext_e --context {c} --suffix _x", giants) for c in (XP, "bp_rp"))
    for name, truth in (("teff", "true_teff"), ("ext_e", "ext_e")):
        t = giants[truth].to_numpy()
        assert mad_std(t - spectra[f"{name}_x"]) < 0.6 * mad_std(t - colour[f"{name}_x"]), name


def test_the_luminosity_of_the_branch_tells_the_mass(giants):
    """At given gravity and temperature brighter giants are heavier: what Stefan and Boltzmann say, by the model."""
    shown = giants.select(["teff", "logg", "mh", "phot_g_mean_mag", "parallax"]).slice(0, 300)
    faint = asked("mass --given teff,logg,mh,g_fakemag --suffix _x", shown)["mass_x"]
    where = shown.schema.get_field_index("parallax")
    nearer = pa.array(shown["parallax"].to_numpy() * 10**0.04)  # 0.2 mag fainter
    dimmer = asked("mass --given teff,logg,mh,g_fakemag --suffix _x", shown.set_column(where, "parallax", nearer))
    assert np.median(dimmer["mass_x"] - faint) < 0


def test_what_is_given_comes_back(giants):
    shown = asked(f"teff --given teff,{XP} --suffix _x", giants)
    hidden = asked(f"teff --context {XP} --suffix _x", giants)
    t = giants["teff"].to_numpy()
    assert mad_std(shown["teff_x"] - t) < 0.6 * mad_std(hidden["teff_x"] - t)
    assert np.median(shown["teff_x_err"]) < np.median(hidden["teff_x_err"])


@pytest.mark.parametrize("shown", [f"teff,mass,{XP}", "teff,mass,age,mh,logg,bp[25:55],rp[25:55]", "teff,logg,mass"])
def test_errors_of_what_is_given_hold_as_well(giants, shown):
    """Of labels as they were observed, a thousandth of their scatter off: within a fifth."""
    out = asked(f"teff mass --given {shown} --suffix _x", giants)
    for name in ("teff", "mass"):
        off = giants[name].to_numpy() - out[f"{name}_x"]
        assert mad_std(off) < 2e-3 * mad_std(giants[name].to_numpy()), name
        assert np.std(off / out[f"{name}_x_err"]) == pytest.approx(1.0, abs=0.2), name


def test_a_magnitude_that_no_star_has_is_taken_as_unknown_and_flagged(giants):
    few = giants.slice(0, 20).combine_chunks()
    where = few.schema.get_field_index("phot_g_mean_mag")
    tables = (few.set_column(where, few.schema.field(where), pa.array(np.full(20, g, "f4"))) for g in (np.nan, -1e30))
    one, other = (asked("bp_coefficients mass --context teff,logg,bp --suffix _x", t) for t in tables)
    np.testing.assert_array_equal(one.pop("ask_flag") | 2, other.pop("ask_flag"))
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name])
        assert np.isfinite(values).all(), name


def test_what_is_asked_for_is_not_shown_unless_it_is_given(giants):
    plain = asked("mass --suffix _x", giants)
    other = giants.set_column(giants.schema.get_field_index("mass"), "mass", pa.array(np.full(len(giants), 1.1, "f4")))
    np.testing.assert_array_equal(plain["mass_x"], asked("mass --suffix _x", other)["mass_x"])


def test_parts_of_an_array_may_be_shown_or_hidden(giants):
    few = giants.slice(0, 60).combine_chunks()
    bp = np.stack(few["bp_coefficients"].to_numpy())
    bp[:, 3:] = np.nan
    column = pa.FixedSizeListArray.from_arrays(pa.array(bp.ravel()), 55)
    less = few.set_column(few.schema.get_field_index("bp_coefficients"), "bp_coefficients", column)
    want = asked("mass --context bp_coefficients --suffix _x", less)["mass_x"]
    np.testing.assert_array_equal(asked("mass --context bp[0:3] --suffix _x", few)["mass_x"], want)
    np.testing.assert_array_equal(asked("mass --context BP[0:3] --suffix _x", few)["mass_x"], want)
    others = "-bp[3:],-rp,-bprp,-g_fakemag,-ext_e,-teff,-logg,-mh,-alpha_m,-age"
    np.testing.assert_array_equal(asked(f"mass --context {others} --suffix _x", few)["mass_x"], want)


def test_nothing_known_gives_the_prior_and_says_so(giants):
    n = 50
    empty = giants.slice(0, n).set_column(giants.schema.get_field_index("bp_rp"), "bp_rp", pa.nulls(n, pa.float32()))
    out = asked("mass age --context bp_rp --suffix _x", empty)
    assert (out["ask_flag"] & 1 == 1).all() and np.ptp(out["mass_x"]) == 0
    scatter = giants["true_mass"].to_numpy().std()
    assert out["mass_x_err"][0] == pytest.approx(scatter, rel=0.35)


def test_uninformative_coefficients_give_the_scatter_of_the_label(giants):
    bright = giants.filter(pa.compute.greater(giants["rp_n_relevant_bases"], 30))
    rp = np.stack(bright["rp_coefficients"].to_numpy())
    rp[:, :25] = np.nan
    column = pa.FixedSizeListArray.from_arrays(pa.array(rp.ravel()), rp.shape[1])
    noise = bright.set_column(bright.schema.get_field_index("rp_coefficients"), "rp_coefficients", column)
    out = asked("mass --context rp_coefficients --suffix _x", noise)
    assert np.median(out["mass_x_err"]) > 0.6 * giants["true_mass"].to_numpy().std()


def test_a_spectrum_comes_out_and_is_like_the_star_s(giants):
    out = asked("bp_coefficients rp_coefficients --given teff,logg,mh,ext_e,phot_g_mean_mag,bp_rp --suffix _x"
                .replace("phot_g_mean_mag,", ""), giants)  # fmt: skip
    for band in ("bp", "rp"):
        seen = np.stack(giants[f"{band}_coefficients"].to_numpy())
        got = out[f"{band}_coefficients_x"]
        assert got.shape == seen.shape
        assert mad_std(got[:, 0] / seen[:, 0] - 1) < 0.05
        assert (out[f"{band}_coefficient_errors_x"] > 0).all()


def test_inpainting_one_band_from_the_other(giants):
    out = asked("rp_coefficients --given bp_coefficients --suffix _x", giants)
    seen = np.stack(giants["rp_coefficients"].to_numpy())
    assert mad_std(out["rp_coefficients_x"][:, 0] / seen[:, 0] - 1) < 0.03
    flux = 10 ** ((25.6873668671 - giants["phot_g_mean_mag"].to_numpy().astype(float)) / 2.5)
    less = giants.drop_columns(["phot_g_mean_mag"])
    unit = asked("bp_coefficients --given teff,logg --suffix _x", less)["bp_coefficients_x"]
    whole = asked("bp_coefficients --given teff,logg --suffix _x", giants)["bp_coefficients_x"]
    np.testing.assert_allclose(unit[:, 0] * flux, whole[:, 0], rtol=1e-5)


def test_joint_samples_know_that_mass_and_age_belong_together(giants):
    few = giants.slice(0, 200).combine_chunks()
    out = asked(f"mass age --context {XP} --joint 64 --suffix _x", few)
    mass, age = out["mass_x_samples"], out["age_x_samples"]
    assert mass.shape == (200, 64)
    r = [np.corrcoef(m, a)[0, 1] for m, a in zip(mass, age, strict=True)]
    assert np.median(r) < -0.3
    again = asked(f"mass age --context {XP} --joint 64 --seed 1 --suffix _x", few)
    assert not np.array_equal(mass, again["mass_x_samples"])


def test_explain_names_what_told(giants):
    out = asked(f"logg --context {XP},g_fakemag,ext_e --explain --suffix _x", giants.slice(0, 500).combine_chunks())
    lost = {n.removeprefix("logg_x_loss_"): np.median(v) for n, v in out.items() if "_loss_" in n}
    assert set(lost) == {"bp", "rp", "colours", "parallax", "dust"} and min(lost.values()) >= 0
    assert lost["parallax"] > lost["dust"]  # luminosity is what tells gravity


def test_flags(giants):
    few = giants.slice(0, 40)
    where = few.schema.get_field_index("teff")
    hot = few.set_column(where, few.schema.field(where), pa.array(np.full(40, 12_000, "f4")))
    assert (asked("mass --given teff,logg --suffix _x", hot)["ask_flag"] & 2 == 2).all()
    gaps = few.set_column(where, few.schema.field(where), pa.nulls(40, pa.float32()))
    assert (asked("mass --given teff,logg --suffix _x", gaps)["ask_flag"] == 16).all()


def test_bfloat16_moves_answers_by_little_of_their_error(giants):
    """At most a fiftieth."""
    few, labels = giants.slice(0, 400), ("teff", "logg", "mh", "mass", "age")
    one, other = (asked(f"{' '.join(labels)} --context {XP},g_fakemag,ext_e --suffix _x --precision {p}", few)
                  for p in ("float32", "bfloat16"))  # fmt: skip
    for name in labels:
        moved = (other[f"{name}_x"] - one[f"{name}_x"]) / one[f"{name}_x_err"]
        assert 0 < np.sqrt(np.mean(moved**2)) < 0.02, name
        np.testing.assert_allclose(other[f"{name}_x_err"], one[f"{name}_x_err"], rtol=0.1)


@pytest.mark.parametrize(("flags", "precision"), [("fma avx512f avx512_bf16", "bfloat16"), ("fma avx2", "float32")])
def test_the_precision_is_the_processor_s_and_told(monkeypatch, flags, precision):
    monkeypatch.setattr("pathlib.Path.read_text", lambda _: f"flags : {flags}")
    assert xptools.op("ask mass").precision == precision
    assert xptools.op("ask mass --precision float32").precision == "float32"


def test_wrong_requests_say_so(giants):
    for line, kind, words in (
        ("masss", UsageError, "one of bp_coefficients"),
        ("mass --given nothing", UsageError, "'nothing'"),
        ("mass --given teff --context logg", UsageError, "both"),
        ("mass --context teff,-logg", UsageError, "minus"),
        ("mass --context bp[0-3]", UsageError, "no column or token"),
        ("mass --context bp[5:2]", UsageError, "no part of bp, which has 55"),
        ("mass --given BP[60:70]", UsageError, "no part of bp, which has 55"),
        ("mass --given ,", UsageError, "names nothing"),
        ("mass --context -bp,-rp,-bprp,-g_fakemag,-ext_e,-teff,-logg,-mh,-alpha_m,-age", UsageError, "nothing is left"),
        ("mass --joint 1", UsageError, "no scatter"),
        ("bp_coefficients --joint 4", UsageError, "single numbers"),
        ("bp_coefficients --explain", UsageError, "single numbers"),
    ):
        with pytest.raises(kind, match=words):
            xptools.op(f"ask {line}").schema(giants.schema)
    with pytest.raises(MissingColumns):
        xptools.op("ask mass").schema(pa.schema([("source_id", pa.int64())]))
    narrow = pa.table({"bp_coefficients": pa.FixedSizeListArray.from_arrays(pa.array(np.ones(51)), 51),
                       "phot_g_mean_mag": [15.0]})  # fmt: skip
    with pytest.raises(DataError, match="51"):
        xptools.op("ask mass")(narrow.to_batches()[0])


def test_the_last_word_may_be_the_input(giants, inside, tmp_path):
    path = write(giants.slice(0, 60), tmp_path / "g.parquet")
    code, _, err = inside("ask", "mass", "age", "--suffix", "_x", path, "-o", tmp_path / "o.parquet", "-q")
    assert (code, err) == (0, "")
    assert {"mass_x", "age_x", "ask_flag"} < set(read(tmp_path / "o.parquet").schema.names)
    assert inside("ask", path, "--suffix", "_x", "-o", tmp_path / "o.parquet", "-q")[0] == 0
    assert "alpha_m_x" in read(tmp_path / "o.parquet").schema.names
