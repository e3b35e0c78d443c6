"""`xp calibrate`: every spelling of coefficients, columns and their metadata, flags, sentences."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tables import exploded, read, stars, write

import xptools
from xptools.commands._spectra_input import wavelengths
from xptools.cores import extinction, xpbasis, xpdesign
from xptools.errors import DataError, MissingColumns, UsageError, XpError

NO_BP, NO_RP, DIAGONAL, NO_ERROR, NO_EXTINCTION, NO_DISTANCE = 1, 2, 4, 8, 16, 32


@pytest.fixture(scope="module")
def spectra() -> pa.Table:
    table = stars(30, spectra=True)
    names = [n for n in table.schema.names if n[:3] in ("bp_", "rp_") and n not in ("bp_rp", "bp_rp0", "bp_rp0_err")]
    return table.select(["source_id", "parallax", *names])


def batch(table):
    return table.combine_chunks().to_batches()[0]


def block(batch_, name):
    column = batch_[name] if name in batch_.schema.names else None
    return column.values.to_numpy(zero_copy_only=False).reshape(len(column), -1)


def replaced(table, name, values, kind=None):
    at = table.schema.get_field_index(name)
    return table.set_column(at, name, values if isinstance(values, pa.Array) else pa.array(values, kind))


def solution(path):
    csv.field_size_limit(1 << 24)
    with path.open() as stream:
        rows = list(csv.DictReader(stream))
    return [np.array([[float(w) for w in r[k].strip("()").split(",")] for r in rows]) for k in ("flux", "flux_error")]


@pytest.mark.parametrize(
    ("name", "truth"),
    [
        ("XP_CONTINUOUS_RAW.csv", "calibrator_solution_default.csv"),
        ("XP_CONTINUOUS_RAW.ecsv", "calibrator_solution_default.csv"),
        ("XP_CONTINUOUS_RAW_with_missing_BP.csv", "with_missing_calibrator_solution.csv"),
    ],
)
def test_published_solutions_through_the_program(inside, shared_data, tmp_path, name, truth):
    out = tmp_path / "flux.parquet"
    code, _, err = inside("calibrate", "--grid", "336:1020:2", shared_data / "xp" / name, "-o", out)
    assert code == 0, err
    table = batch(pq.read_table(out))
    flux, error = solution(shared_data / "xp" / truth)
    np.testing.assert_allclose(block(table, "flux"), flux, rtol=1e-9)
    np.testing.assert_allclose(block(table, "flux_err"), error, rtol=1e-6)
    assert not ({int(f) for f in table["calibrate_flag"]} - {0, NO_BP, 64, NO_BP | 64})
    missing = np.isnan(flux).any(axis=1)
    assert [bool(int(f) & NO_BP) for f in table["calibrate_flag"]] == missing.tolist()


def test_lists_of_any_kind_give_the_same(spectra, tmp_path):
    step = xptools.op("calibrate")
    truth = step(batch(spectra))
    loose = spectra
    for name in spectra.schema.names[2:]:
        if pa.types.is_fixed_size_list(spectra.schema.field(name).type):
            kind = pa.list_(spectra.schema.field(name).type.value_type)
            loose = replaced(loose, name, spectra[name].to_pylist(), kind)
            loose = replaced(loose, name, loose[name].combine_chunks().cast(pa.large_list(kind.value_type)))
    upper = spectra.rename_columns([n.upper() for n in spectra.schema.names])
    for other in (loose, upper):
        out = step(batch(other))
        for name in ("flux", "flux_err"):
            assert np.array_equal(block(out, name), block(truth, name))
    for form in ("ecsv", "fits", "vot"):
        path = write(spectra, tmp_path / f"s.{form}")
        out = step(batch(read(path)))
        np.testing.assert_allclose(block(out, "flux"), block(truth, "flux"), rtol=1e-12)


@pytest.mark.parametrize("text", ["({})", "[{}]"])
@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_arrays_as_text_in_any_format(spectra, text, kind):
    """What pandas and polars make of the archive's CSV, saved as Parquet."""
    want, table = xptools.op("calibrate")(batch(spectra)), spectra
    for name in ("bp_coefficients", "bp_coefficient_errors", "rp_coefficient_errors", "rp_coefficient_correlations"):
        values = [text.format(", ".join(map(repr, v))) for v in spectra[name].to_pylist()]
        table = replaced(table, name, pa.array(values).cast(kind))
    got = xptools.op("calibrate")(batch(table))
    for name in ("flux", "flux_err"):
        np.testing.assert_array_equal(block(got, name), block(want, name))


def test_missing_arrays_and_others_as_text(spectra):
    texts = [str(v) for v in spectra["bp_coefficients"].to_pylist()]
    out = xptools.op("calibrate")(batch(replaced(spectra, "bp_coefficients", ["", None, *texts[2:]], pa.string())))
    assert [f & NO_BP for f in out["calibrate_flag"].to_pylist()] == [NO_BP, NO_BP, *([0] * (len(texts) - 2))]
    for bad, words in (("5", "holds text"), ("[a, b]", "hold no numbers"), ("[1, 2]", "different lengths")):
        with pytest.raises(DataError, match=words):
            xptools.op("calibrate")(batch(replaced(spectra, "bp_coefficients", [bad, *texts[1:]], pa.string())))


def test_arrays_of_arrays_are_refused_in_a_sentence(spectra):
    nested = replaced(spectra, "bp_coefficients", [[[1.0] * 55]] * len(spectra), pa.list_(pa.list_(pa.float64())))
    with pytest.raises(DataError, match="bp_coefficients has arrays of list"):
        xptools.op("calibrate")(batch(nested))


def test_columns_and_their_grid(spectra):
    step = xptools.op("calibrate --grid 400,450,500.5 --covariance")
    out = step(batch(spectra))
    field = out.schema.field("flux")
    assert field.type == pa.list_(pa.field("item", pa.float64(), nullable=False), 3)
    assert field.metadata[b"unit"] == b"W.m**-2.nm**-1"
    grid = {"wavelength": [400.0, 450.0, 500.5], "unit": "nm"}
    assert json.loads(field.metadata[b"xp.grid"]) == grid
    assert json.loads(out.schema.metadata[b"xp.grid"]) == grid
    assert out.schema.names[-4:] == ["flux", "flux_err", "flux_cov", "calibrate_flag"]
    cov = xpbasis.unpack(block(out, "flux_cov"), 3)
    np.testing.assert_allclose(np.sqrt(cov.diagonal(axis1=1, axis2=2)), block(out, "flux_err"), rtol=1e-6)


def test_the_default_grid_has_61_wavelengths(spectra):
    out = xptools.op("calibrate --single")(batch(spectra))
    assert out.schema.field("flux").type.list_size == 61
    assert out.schema.field("flux").type.value_type == pa.float32()


def test_without_correlations_errors_are_diagonal_and_say_so(spectra, inside, tmp_path):
    names = [n for n in spectra.schema.names if not n.endswith("correlations")]
    out = xptools.op("calibrate")(batch(spectra.select(names)))
    design = xpbasis.design()
    error = [np.stack([row.as_py() for row in spectra[f"{b}_coefficient_errors"]]) for b in ("bp", "rp")]
    plain = np.sqrt(error[0] ** 2 @ design.bp**2 + error[1] ** 2 @ design.rp**2)
    np.testing.assert_allclose(block(out, "flux_err"), plain, rtol=1e-6)
    assert {int(f) & DIAGONAL for f in out["calibrate_flag"]} == {DIAGONAL}
    from xptools.commands.calibrate import _warn

    _warn.cache_clear()
    write(spectra.select(names), tmp_path / "s.parquet")
    code, _, err = inside("calibrate", "--batch-rows", 7, tmp_path / "s.parquet", "-o", tmp_path / "o.parquet")
    assert code == 0 and err.count("no correlations") == 1


def test_gaps_of_single_stars(spectra):
    table = spectra
    kinds = {n: spectra.schema.field(n).type for n in spectra.schema.names}
    for name, row in (
        ("bp_coefficients", 1), ("rp_coefficients", 2), ("bp_coefficient_correlations", 3),
        ("rp_coefficient_errors", 4),
    ):  # fmt: skip
        values = table[name].to_pylist()
        values[row] = None
        table = replaced(table, name, values, kinds[name])
    out = xptools.op("calibrate --synthetic")(batch(table))
    whole = xptools.op("calibrate --synthetic")(batch(spectra))
    flags = [int(f) & ~64 for f in out["calibrate_flag"]]
    assert flags[:6] == [0, NO_BP, NO_RP, DIAGONAL, NO_ERROR, 0]
    flux, error = block(out, "flux"), block(out, "flux_err")
    grid = np.array(xpbasis.DEFAULT_GRID)
    assert np.array_equal(np.isnan(flux[1]), grid <= 635) and np.array_equal(np.isnan(flux[2]), grid >= 643)
    assert np.isnan(error[4]).all() and np.isfinite(flux[4]).all() and np.isfinite(error[3]).all()
    assert np.isnan(out["syn_g"].to_numpy(zero_copy_only=False)[[1, 2]]).all()
    rest = [0, *range(5, 30)]
    assert np.array_equal(flux[rest], block(whole, "flux")[rest])
    assert np.array_equal(error[rest], block(whole, "flux_err")[rest])


def test_a_column_without_any_spectrum(spectra):
    empty = replaced(spectra, "bp_coefficients", [None] * 30, pa.float64())
    out = xptools.op("calibrate")(batch(empty))
    assert {int(f) & 3 for f in out["calibrate_flag"]} == {NO_BP}


def test_dereddened_and_at_10_pc(spectra):
    E = np.linspace(0.0, 0.5, 30)
    E[4] = np.nan
    parallax = np.linspace(1.0, 20.0, 30)
    parallax[5], parallax[6] = -1.0, np.nan
    table = replaced(spectra.append_column("ext_e", pa.array(E)), "parallax", parallax)
    plain = xptools.op("calibrate --covariance")(batch(table))
    out = xptools.op("calibrate --deredden --absolute --covariance")(batch(table))
    R = extinction.curve(np.array(xpbasis.DEFAULT_GRID))
    factor = 10 ** (0.4 * R * E[:, None]) * (np.where(parallax > 0, 100 / parallax, np.nan) ** 2)[:, None]
    np.testing.assert_allclose(block(out, "flux10"), block(plain, "flux") * factor, rtol=1e-13)
    np.testing.assert_allclose(block(out, "flux10_err"), block(plain, "flux_err") * factor, rtol=1e-6)
    i, j = np.tril_indices(61)
    np.testing.assert_allclose(
        block(out, "flux10_cov"), block(plain, "flux_cov") * factor[:, i] * factor[:, j], rtol=1e-9
    )
    flags = [int(f) for f in out["calibrate_flag"]]
    assert flags[4] & NO_EXTINCTION and flags[5] & NO_DISTANCE and flags[6] & NO_DISTANCE
    tau = xptools.op("calibrate --deredden --curve-unit tau")(batch(table))
    assert block(tau, "flux")[29, 0] > block(out, "flux10")[29, 0] / factor[29, 0]


def test_floors_widen_errors(spectra):
    plain, floored = (xptools.op(f"calibrate {o}")(batch(spectra)) for o in ("", "--floors zgr"))
    whole = xptools.op("calibrate --floors zgr --covariance")(batch(spectra))
    assert (block(floored, "flux_err") >= block(plain, "flux_err")).all()
    assert (block(floored, "flux_err") > block(plain, "flux_err")).mean() > 0.99
    np.testing.assert_allclose(block(whole, "flux_err"), block(floored, "flux_err"), rtol=1e-6)
    least = [np.linalg.eigvalsh(c / 1e-36).min() for c in xpbasis.unpack(block(whole, "flux_cov"), 61)]
    assert min(least) > 0.99e-9


def test_truncation_needs_its_column(spectra):
    out = xptools.op("calibrate --truncate")(batch(spectra))
    assert not np.array_equal(block(out, "flux"), block(xptools.op("calibrate")(batch(spectra)), "flux"))
    with pytest.raises(MissingColumns, match="bp_n_relevant_bases"):
        xptools.op("calibrate --truncate").schema(spectra.drop_columns(["bp_n_relevant_bases"]).schema)
    with pytest.raises(MissingColumns, match="ext_e"):
        xptools.op("calibrate --deredden").schema(spectra.schema)


def test_51_coefficients_are_refused_in_a_sentence(spectra):
    short = [row[:51] for row in spectra["bp_coefficients"].to_pylist()]
    fixed = replaced(spectra, "bp_coefficients", short, pa.list_(pa.float64(), 51))
    with pytest.raises(DataError, match=r"bp_coefficients has 51 coefficients, as DR4's BP has.*for 55"):
        xptools.op("calibrate").schema(fixed.schema)
    loose = replaced(spectra, "bp_coefficients", short, pa.list_(pa.float64()))
    with pytest.raises(DataError, match="51 coefficients"):
        xptools.op("calibrate")(batch(loose))
    with pytest.raises(DataError, match="bp_coefficient_correlations has 10 values"):
        xptools.op("calibrate")(
            batch(replaced(spectra, "bp_coefficient_correlations", [[0.0] * 10] * 30, pa.list_(pa.float32())))
        )


@pytest.fixture(scope="module")
def shorter(tmp_path_factory):
    """A design file whose BP has the first 51 bases of DR3."""
    path = tmp_path_factory.mktemp("design") / "d51.npz"
    arrays = {k: v for k, v in xpdesign.gaia_dr3().items() if not k.endswith(("published", "default"))}
    cut = {k: v[:51] if k in ("bp.bases", "bp.passbands") else v for k, v in arrays.items()}
    np.savez(path, **cut)
    return path


def test_51_coefficients_with_a_design_for_them(spectra, shorter, inside, tmp_path):
    table = spectra
    pairs = 51 * 50 // 2
    for name, width in (("bp_coefficients", 51), ("bp_coefficient_errors", 51), ("bp_coefficient_correlations", pairs)):
        kind = spectra.schema.field(name).type.value_type
        table = replaced(table, name, [row[:width] for row in spectra[name].to_pylist()], pa.list_(kind, width))
    write(table, tmp_path / "s.parquet")
    code, _, err = inside(
        "calibrate", "--synthetic", "--design", shorter, tmp_path / "s.parquet", "-o", tmp_path / "f.parquet"
    )
    assert code == 0, err
    got = batch(read(tmp_path / "f.parquet"))
    whole = replaced(spectra, "bp_n_relevant_bases", np.full(30, 51, np.int16))
    whole = replaced(whole, "rp_n_relevant_bases", np.full(30, 55, np.int16))
    same = xptools.op("calibrate --truncate --synthetic")(batch(whole))
    np.testing.assert_allclose(block(got, "flux"), block(same, "flux"), rtol=1e-9)
    np.testing.assert_allclose(block(got, "flux_err"), block(same, "flux_err"), rtol=1e-6)
    with pytest.raises(DataError, match=r"has 55 coefficients, but .*d51.npz is for 51"):
        xptools.op(f"calibrate --design {shorter}").schema(spectra.schema)
    assert json.loads(got.schema.metadata[b"xp.provenance"])[-1]["files"]["design"]["name"] == "d51.npz"


def test_design_files_that_are_none(shorter, spectra, tmp_path):
    (tmp_path / "text.npz").write_text("no matrices")
    arrays = dict(np.load(shorter))
    np.savez(tmp_path / "bare.npz", **{k: v for k, v in arrays.items() if k != "rp.response"})
    np.savez(tmp_path / "odd.npz", **(arrays | {"bp.passbands": np.zeros((55, 3))}))
    for name, word in (("absent", "no design file"), ("text", "no design"), ("bare", "rp.response"), ("odd", "passb")):
        with pytest.raises(XpError, match=word):
            xptools.op(f"calibrate --design {tmp_path}/{name}.npz").schema(spectra.schema)


@pytest.mark.parametrize(("values", "errors", "first"), [("{}_coeff", "e_{}_coeff", 0), (None, None, 1)])
def test_coefficients_in_a_column_each(spectra, values, errors, first):
    names = [n for n in spectra.schema.names if not n.endswith("correlations")]
    table = spectra.select(names)
    kinds = (("coefficients", values), ("coefficient_errors", errors))
    stems = {f"{band}_{kind}": (stem or f"{band}_{kind}").format(band) for band in ("bp", "rp") for kind, stem in kinds}
    spread = exploded(table, stems, first)
    one, other = (xptools.op("calibrate --drop-coefficients")(batch(t)) for t in (table, spread))
    assert one.schema.names == other.schema.names
    for name in ("flux", "flux_err"):
        assert np.array_equal(block(one, name), block(other, name))
    with pytest.raises(MissingColumns, match="bp_coefficients"):
        xptools.op("calibrate").schema(spread.drop_columns([f"{(values or 'bp_coefficients').format('bp')}_7"]).schema)


def test_real_stars_in_a_column_each(inside, shared_data, tmp_path):
    fluxes = []
    for form in ("fits", "parquet"):
        path, out = shared_data / "xp" / f"xp_continuous_2000.{form}", tmp_path / f"{form}.parquet"
        code, _, err = inside("calibrate", "--drop-coefficients", path, "-o", out)
        assert code == 0, err
        fluxes.append(batch(read(out)))
    for name in ("flux", "flux_err"):
        assert np.array_equal(block(fluxes[0], name), block(fluxes[1], name))


def test_coefficients_left_out(spectra, inside, tmp_path):
    path = write(spectra, tmp_path / "s.parquet")
    for words in ((), ("--no-errors",)):
        tables = []
        for more in ((), ("--drop-coefficients",)):
            code, _, err = inside("calibrate", *words, *more, path, "-o", tmp_path / "o.parquet")
            assert code == 0, err
            tables.append(read(tmp_path / "o.parquet"))
        whole, bare = tables
        heavy = [n for n in spectra.schema.names if "_coefficient" in n]
        assert bare.schema.names == [n for n in whole.schema.names if n not in heavy]
        assert bare.equals(whole.select(bare.schema.names))
    step = xptools.op("calibrate --no-errors --drop-coefficients")
    assert step.unread(spectra.schema) == {n for n in heavy if not n.endswith("_coefficients")}


@pytest.mark.parametrize("text", ["900:400:10", "400,400", "300:400:10", "x", "400:500", "400:500:0", "nan", ""])
def test_grids_that_are_none(text):
    with pytest.raises(UsageError, match="--grid"):
        wavelengths(text)


def test_grids():
    assert wavelengths("392:992:10") == xpbasis.DEFAULT_GRID
    assert len(wavelengths("336:1020:2")) == 343
    assert wavelengths("400:405:2") == (400.0, 402.0, 404.0)
    assert wavelengths("400.5") == (400.5,)


def test_a_gpu_that_is_not_there(xp, spectra, tmp_path):
    jax = pytest.importorskip("jax")
    if jax.default_backend() == "gpu":
        pytest.skip("there is one")
    done = xp("--device", "cuda", "calibrate", write(spectra, tmp_path / "s.parquet"), "-o", tmp_path / "o.parquet")
    assert done.returncode == 69 and b"--device cpu" in done.stderr


def test_options_that_contradict(inside):
    for words in (("--covariance", "--no-errors"), ("--floors", "zgr", "--no-errors")):
        code, _, err = inside("calibrate", *words)
        assert code == 2 and "TRY" in err


def test_real_stars(inside, shared_data, tmp_path):
    out = tmp_path / "o.parquet"
    path = shared_data / "xp" / "xp_continuous_2000.parquet"
    code, _, err = inside("calibrate", "--synthetic", "--replace", path, "-o", out)
    assert code == 0, err
    table, given = pq.read_table(out), pq.read_table(path)
    for name in ("syn_g", "syn_bp", "syn_rp"):
        assert np.abs(table[name].to_numpy() - given[name].to_numpy()).max() < 0.002
    flux = block(batch(table), "flux")
    assert np.isfinite(flux).all() and (np.median(flux, axis=0) > 0).all()


def test_synthetic_magnitudes_are_those_of_the_catalogue(inside, shared_data, tmp_path):
    """103 real stars: within 6 mmag in the mean, without the few that a neighbour blends into."""
    catalogue = shared_data / "gaia" / "gaia_source_cone_ra45_dec0_r05.parquet"
    out, bands = tmp_path / "o.parquet", ("g", "bp", "rp")
    columns = ",".join(f"phot_{b}_mean_mag" for b in bands)
    assert inside("calibrate", "--synthetic", "--no-errors", "--replace",
                  shared_data / "xp" / "xp_continuous_2000.parquet", "-o", tmp_path / "s.parquet")[0] == 0  # fmt: skip
    more = ("--with", catalogue, "--columns", columns, "--how", "inner")
    done = inside("join", *more, tmp_path / "s.parquet", "-o", out)
    assert done[0] == 0, done[2]
    table = pq.read_table(out)
    assert len(table) == 103
    for band in bands:
        off = table[f"syn_{band}"].to_numpy().astype(float) - table[f"phot_{band}_mean_mag"].to_numpy()
        off -= (middle := np.median(off))
        usual = np.abs(off) < 3 * 1.48 * np.median(np.abs(off))
        assert usual.mean() > 0.85 and abs(middle) < 0.006 and abs(middle + off[usual].mean()) < 0.006
