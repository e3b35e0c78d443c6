"""`xp mf --deconvolve` as a command: a table, a report and a text from stars with errors, and wrong input."""

import json
from importlib.resources import files as package_files

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from calibration_joint import Known, approximated, drawn_stars, law, observed, stars, table
from test_mf import run

import xptools
from xptools import metadata
from xptools.cores import response
from xptools.cores.errortable import ErrorTable
from xptools.cores.nuts import Sampled
from xptools.errors import ComputeError, DataError, UsageError

QUICK = "mf --deconvolve --chains 2 --warmup 200 --draws 200 --force --segments 0.15,0.55,0.75"


@pytest.fixture(scope="module")
def scattered():
    """(stars with bins and errors, true log10 Phi (B, K)) of a universe whose slope runs with [Fe/H]."""
    rng = np.random.default_rng(5)
    mass, feh, feh_err, mass_err, truth = stars(table(bins=6), law("smooth", rng), 0.2, rng)
    columns = {"mass": mass, "feh": feh, "feh_err": feh_err, "mass_err": mass_err}
    plain = pa.table({k: pa.array(v, pa.float32()) for k, v in columns.items()})
    batch = xptools.op("veff --mass-edges 0.15:0.75:6 --veff-error 0.03")(plain.combine_chunks().to_batches()[0])
    return pa.Table.from_batches([batch]), truth


@pytest.fixture(scope="module")
def result(scattered):
    return run(QUICK, scattered[0])


def test_it_finds_what_counting_misses(scattered, result):
    out, (rows, truth) = result, scattered
    counted = run("mf --method exact --segments 0.15,0.55,0.75", rows)
    np.testing.assert_array_equal(out.column("n").to_numpy(), counted.column("n").to_numpy())
    off = [t.column("log_phi").to_numpy() - truth.ravel() for t in (out, counted)]
    assert np.sqrt(np.mean(off[0] ** 2)) < 0.6 * np.sqrt(np.mean(off[1] ** 2))
    pull = off[0] / out.column("log_phi_sd").to_numpy()
    assert np.abs(pull).max() < 4 and 0.3 < np.sqrt(np.mean(pull**2)) < 1.5
    assert (out.column("log_phi_sd").to_numpy() > counted.column("log_phi_sd").to_numpy()).mean() > 0.8


def test_the_report_names_the_method(result):
    about = metadata.value_of(result.schema, "xp.mf")
    assert about["method"] == "joint" and about["convergence"]["chains"] == 2
    assert all(np.isfinite(e["slopes"][0]["poisson"]["mean"]) for e in about["feh"])


def test_the_command_writes_all_of_it(scattered, xp, tmp_path):
    path = tmp_path / "stars.parquet"
    pq.write_table(scattered[0], path)
    done = xp(*QUICK.split(), "--report", tmp_path / "r.json", path, "-o", tmp_path / "phi.parquet")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "r.json").read_text())["method"] == "joint"
    steps = metadata.history(pq.read_schema(tmp_path / "phi.parquet"))
    assert steps[-1]["cmd"] == "mf" and steps[-1]["params"]["deconvolve"] is True
    assert b"rasmussen2006" in xp("cite", tmp_path / "phi.parquet").stdout


@pytest.fixture(scope="module")
def misstated(tmp_path_factory):
    """(stars whose stated errors are wrong for three in ten, a file of known stars, true log10 Phi)."""
    rng, t = np.random.default_rng(8), table(bins=6)
    run_of = law("smooth", rng)
    columns, files = ("mass", "feh", "feh_err", "mass_err", "true_feh"), []
    for _ in range(2):
        *seen, truth = observed(t, run_of, 0.2, rng, tails=0.3)
        files.append(pa.table({k: pa.array(v, pa.float32()) for k, v in zip(columns, seen, strict=True)}))
    path = tmp_path_factory.mktemp("known") / "known.parquet"
    pq.write_table(files[1], path)
    batch = xptools.op("veff --mass-edges 0.15:0.75:6")(files[0].combine_chunks().to_batches()[0])
    return pa.Table.from_batches([batch]), path, truth


def test_known_stars_tell_what_stated_errors_do_not(misstated):
    rows, path, truth = misstated
    pulls = []
    for line in (QUICK, f"{QUICK.replace('0.75', '0.65')} --xi-upper 0.6 --error-table {path}"):
        out = run(line, rows)
        pulls.append((out["log_phi"].to_numpy() - truth.ravel()) / out["log_phi_sd"].to_numpy())
    about = metadata.value_of(out.schema, "xp.mf")
    assert about["known"] == len(pq.read_table(path)) and about["known_masses"] == 0
    schema = json.loads((package_files("xptools") / "data" / "mf_report.schema.json").read_text())
    assert not set(about) - set(schema["properties"])
    stated, measured = (np.sqrt(np.nanmean(p**2)) for p in pulls)
    assert measured < 1.5 and measured < 0.7 * stated
    beyond = out["mf_flag"].to_numpy() & 4 > 0
    np.testing.assert_array_equal(beyond, out["mass"].to_numpy() > 0.65)
    np.testing.assert_array_equal(np.isfinite(out["log_phi"].to_numpy()), ~beyond)


def test_known_masses_undo_a_bias_of_the_mass():
    """Masses above 0.45 Msun come out 0.02 too low, of the known stars as of the others: their true masses tell."""
    rng, t = np.random.default_rng(5), table(bins=6)
    phi, seen = law("smooth", rng), []
    for _ in range(2):
        true_mass, true_feh, truth = drawn_stars(t, phi, rng)
        mass = true_mass - 0.02 * (true_mass > 0.45) + 0.012 * rng.standard_normal(len(true_mass))
        feh = true_feh + 0.2 * rng.standard_normal(len(mass))
        seen.append((mass, feh, np.full(len(mass), 0.2), np.full(len(mass), 0.012), true_feh, true_mass))
    counts, (mass, feh, err, _, true_feh, true_mass) = response.count(t, *seen[0][:4]), seen[1]
    pulls = []
    for known in (ErrorTable.of(mass, feh, true_feh, err, true_mass), ErrorTable.of(mass, feh, true_feh, err)):
        draws = approximated(Known(known, force=True), counts, t, rng)
        log_phi = draws[:, np.isfinite(draws[0])] / np.log(10)
        off = log_phi.mean(axis=0) - truth[np.isfinite(draws[0])]
        pulls.append(np.sqrt(np.mean((off / log_phi.std(axis=0)) ** 2)))
    assert pulls[0] < 1.4 and pulls[0] < 0.7 * pulls[1]


def test_known_stars_that_tell_nothing(misstated, tmp_path):
    rows, path, _ = misstated
    known = pq.read_table(path)
    pq.write_table(known.drop_columns(["true_feh"]), tmp_path / "a.parquet")
    pq.write_table(known.slice(0, 9), tmp_path / "b.parquet")
    for name, words in (("a", "no column says what"), ("b", "9 stars .* tell nothing")):
        with pytest.raises(DataError, match=words):
            xptools.op(f"{QUICK} --error-table {tmp_path / name}.parquet").reads(rows.schema)
    with pytest.raises(UsageError, match="--deconvolve"):
        xptools.op(f"mf --error-table {path}")


def test_batches_do_not_matter(scattered):
    rows = scattered[0]
    fold = xptools.op(QUICK)
    whole = fold.feed(fold.zero(), rows.combine_chunks().to_batches()[0])
    parts = [fold.feed(fold.zero(), b) for b in rows.combine_chunks().to_batches(max_chunksize=5000)]
    summed = parts[0]
    for part in parts[1:]:
        summed = fold.merge(summed, part)
    np.testing.assert_array_equal(whole.n, summed.n)
    np.testing.assert_allclose(whole.square, summed.square)


def test_a_star_without_error_is_refused(scattered):
    rows = scattered[0]
    errors = rows["feh_err"].to_numpy().copy()
    errors[3] = np.nan
    i = rows.schema.get_field_index("feh_err")
    with pytest.raises(DataError, match=r"1 stars.*feh_err"):
        run(QUICK, rows.set_column(i, rows.schema.field(i), pa.array(errors, pa.float32())))
    with pytest.raises(DataError, match="feh_err"):
        run(QUICK, rows.drop_columns(["feh_err"]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.1])
def test_a_mass_without_error_is_refused_unless_there_is_no_mass(scattered, value):
    rows, fold = scattered[0].slice(0, 500), xptools.op(QUICK)

    def spoilt(table, name, value):
        values, i = table[name].to_numpy().copy(), table.schema.get_field_index(name)
        values[3] = value
        changed = table.set_column(i, table.schema.field(i), pa.array(values, pa.float32()))
        return changed.replace_schema_metadata(table.schema.metadata).combine_chunks()

    lacking = spoilt(rows, "mass_err", value)
    with pytest.raises(DataError, match=r"1 stars.* no mass_err.*--drop mass_err"):
        fold.feed(fold.zero(), lacking.to_batches()[0])
    unweighed = spoilt(lacking, "mass", np.nan)
    state = fold.feed(fold.zero(), unweighed.to_batches()[0])
    assert state.n.sum() + state.outside == 500 and state.mass.sum() == state.n.sum()


def test_few_divergences_are_told_and_many_name_the_error_table(capsys):
    def got(divergences):
        return Sampled(np.zeros((1, 1, 1)), np.array([1.004]), np.array([3000.0]), divergences, 0.8, rejected=4000)

    step, tabled = xptools.op("mf --deconvolve"), xptools.op("mf --deconvolve --error-table known.parquet")
    assert step.checked(got(3))["divergences"] == 3 and capsys.readouterr().err == ""
    assert step.checked(got(9))["trouble"] == []
    assert "9 of 4,000 transitions diverged" in (said := capsys.readouterr().err) and "TRY: --error-table" in said
    with pytest.raises(ComputeError, match=r"21 divergent transitions.*--error-table FILE.* or --force"):
        step.checked(got(21))
    with pytest.raises(ComputeError, match="TRY: more --warmup and --draws, or --force"):
        tabled.checked(got(21))


@pytest.mark.parametrize("words", ["--method exact", "--prior flat"])
def test_options_that_do_not_go_with_it(words):
    with pytest.raises(UsageError, match="prior of its own"):
        xptools.op(f"mf --deconvolve {words}")
