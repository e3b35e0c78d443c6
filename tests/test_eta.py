"""`xp eta`: columns, errors, flags and sentences through the real program and from Python."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from eta_toy import model, saved, sliding, stars

import xptools
from xptools.errors import DataError, MissingColumns, UsageError

CORRELATIONS = ("parallax_pmra_corr", "parallax_pmdec_corr", "pmra_pmdec_corr")


def table(n=300, seed=3, **more):
    """Stars with motions as `stars` has them, at 1 to 5 mas, with errors."""
    rng = np.random.default_rng(seed)
    ra, dec, v_ra, v_dec = stars(n, seed)
    parallax = rng.uniform(1, 5, n)
    columns = {"ra": ra, "dec": dec, "parallax": parallax, "parallax_error": np.full(n, 0.03),
               "pmra": v_ra * parallax / 4.740470463, "pmra_error": np.full(n, 0.03),
               "pmdec": v_dec * parallax / 4.740470463, "pmdec_error": np.full(n, 0.04)}  # fmt: skip
    return pa.table({"source_id": np.arange(n), **columns, **more})


def scored(t, line="eta"):
    return xptools.op(line)(t.combine_chunks().to_batches()[0])


def values(t, name, line="eta"):
    return scored(t, line)[name].to_numpy(zero_copy_only=False)


def spoilt(t, name, row, value):
    column = t[name].to_numpy().copy()
    column[row] = value
    return t.set_column(t.schema.get_field_index(name), name, pa.array(column))


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return saved(model(), tmp_path_factory.mktemp("model") / "toy.safetensors")


def test_halo_stars_of_the_mock_stand_out(xp, tmp_path):
    made = xp("mock", 60000, "--seed", 3, "-o", tmp_path / "mock.parquet")
    assert made.returncode == 0, made.stderr
    done = xp("eta", tmp_path / "mock.parquet", "-o", tmp_path / "out.parquet")
    assert done.returncode == 0, done.stderr
    out = pq.read_table(tmp_path / "out.parquet")
    assert out.schema.names[-8:] == [
        "vt_ra", "vt_ra_err", "vt_dec", "vt_dec_err", "eta", "eta_joint", "eta_err", "eta_flag",
    ]  # fmt: skip
    assert out.schema.field("vt_ra").metadata[b"unit"] == b"km.s**-1"
    halo, eta = out["true_component"].to_numpy() == 2, out["eta"].to_numpy()
    assert np.median(eta[halo]) > 1.2 > 0 > np.median(eta[~halo])
    keep = eta > 1
    poor = out["true_feh"].to_numpy() < -1
    assert np.mean(poor[keep]) > 0.55 > 20 * np.mean(poor[~keep])
    assert np.mean(out["eta_flag"].to_numpy() != 0) < 0.01


def test_velocities_are_those_of_the_motions(toy):
    out = scored(table(), f"eta --model {toy}")
    _, _, v_ra, v_dec = stars(300)
    np.testing.assert_allclose(out["vt_ra"], v_ra, rtol=1e-5)
    np.testing.assert_allclose(out["vt_dec"], v_dec, rtol=1e-5)


def test_errors_are_the_scatter_of_draws(toy):
    n, draws, rng = 60, 4000, np.random.default_rng(5)
    corr = dict(zip(CORRELATIONS, (0.3, -0.4, 0.2), strict=True))
    t = table(n, **{k: np.full(n, v) for k, v in corr.items()})
    line = f"eta --model {toy}"
    first = scored(t, line)
    c = np.array([[1, 0.3, -0.4], [0.3, 1, 0.2], [-0.4, 0.2, 1]])
    normal = rng.multivariate_normal(np.zeros(3), c, (draws, n))
    many = {name: np.tile(t[name].to_numpy(), draws) for name in t.schema.names}
    for k, name in enumerate(("parallax", "pmra", "pmdec")):
        many[name] += many[f"{name}_error"] * normal[:, :, k].ravel()
    eta = values(pa.table(many), "eta", line).reshape(draws, n)
    good = t["parallax"].to_numpy() > 2  # parallaxes of 60 sigma and more
    ratio = eta.std(0)[good] / first["eta_err"].to_numpy()[good]
    assert np.abs(np.median(ratio) - 1) < 0.02
    assert np.mean(np.abs(ratio - 1) < 0.05) > 0.9
    for k, name in ((0, "vt_ra"), (1, "vt_dec")):
        v = 4.740470463 * many[("pmra", "pmdec")[k]] / many["parallax"]
        np.testing.assert_allclose(v.reshape(draws, n).std(0)[good], first[f"{name}_err"].to_numpy()[good], rtol=0.06)


def test_the_closed_form_of_the_error(tmp_path):
    # eta is linear in v with slopes 0.6 / 50 and -0.4 / 60 km/s, in log10
    saved(sliding(), tmp_path / "slide.safetensors")
    t = table(50)
    out = scored(t, f"eta --model {tmp_path / 'slide.safetensors'}")
    a, b = 0.6 / 50 / np.log(10), -0.4 / 60 / np.log(10)
    plx, pm = t["parallax"].to_numpy(), (t["pmra"].to_numpy(), t["pmdec"].to_numpy())
    per_pm = 4.740470463 / plx
    by_parallax = per_pm * (a * pm[0] + b * pm[1]) / plx
    want = np.sqrt((a * per_pm * 0.03) ** 2 + (b * per_pm * 0.04) ** 2 + (by_parallax * 0.03) ** 2)
    np.testing.assert_allclose(out["eta_err"], want, rtol=1e-4)


def test_what_is_missing_is_flagged(toy):
    t = table(8)
    for name, row, value in (("parallax", 0, -0.1), ("parallax", 1, np.nan), ("pmra", 2, np.nan), ("ra", 3, np.inf),
                             ("parallax_error", 4, np.nan), ("parallax_error", 5, 2.0), ("pmra", 6, 1e6)):  # fmt: skip
        t = spoilt(t, name, row, value)
    out = scored(t, f"eta --model {toy}")
    flag = out["eta_flag"].to_numpy()
    assert flag[:6].tolist() == [1, 1, 2, 2, 16, 32]
    assert flag[6] & 4
    assert flag[7] == 0
    known = np.isfinite(out["eta"].to_numpy(zero_copy_only=False))
    assert known.tolist() == [False] * 4 + [True] * 4
    error = np.isfinite(out["eta_err"].to_numpy(zero_copy_only=False))
    assert error.tolist() == [False] * 5 + [True] * 3


def test_without_error_columns_there_is_no_error(toy):
    t = table(5).drop_columns(["pmra_error"])
    out = scored(t, f"eta --model {toy}")
    assert (out["eta_flag"].to_numpy() == 16).all()
    assert np.isnan(out["eta_err"].to_numpy(zero_copy_only=False)).all()


def test_the_zero_point_is_subtracted_where_asked(toy):
    t = table(20)
    shifted = t.append_column("parallax_zero_point", pa.array(np.full(20, -0.04)))
    moved = spoilt(t, "parallax", slice(None), t["parallax"].to_numpy() + 0.04)
    line = f"eta --model {toy}"
    np.testing.assert_array_equal(values(shifted, "eta", line), values(t, "eta", line))
    np.testing.assert_array_equal(values(shifted, "eta", f"{line} --zero-point"), values(moved, "eta", line))
    with pytest.raises(MissingColumns, match="parallax_zero_point"):
        scored(t, f"{line} --zero-point")


def test_the_split_moves_eta(toy):
    low, high = (values(table(), "eta", f"eta --model {toy} --split {s}") for s in (-1.2, -0.6))
    assert np.abs(low - high).max() > 0.01
    with pytest.raises(UsageError, match="below -9"):
        scored(table(3), f"eta --model {toy} --split -9")


def test_another_kind_of_model_is_refused():
    from xptools.commands.mass import DEFAULT

    with pytest.raises(DataError, match="for xp mass, not for xp eta"):
        scored(table(3), f"eta --model '{DEFAULT}'")


def test_a_model_trained_again_is_read_again(tmp_path):
    path = tmp_path / "again.safetensors"
    saved(model(seed=1), path)
    line = f"eta --model {path}"
    first = values(table(), "eta", line)
    path.unlink()
    saved(model(seed=2), path)
    assert not np.array_equal(values(table(), "eta", line), first)


@pytest.mark.parametrize("name", ["gaia_source_cone_ra45_dec0_r05.parquet", "gaia_100pc_12k.csv"])
def test_real_stars(shared_data, xp, tmp_path, name):
    table, out = tmp_path / "real.parquet", tmp_path / "out.parquet"
    assert xp("convert", shared_data / "gaia" / name, "-o", table).returncode == 0
    done = xp("eta", table, "-o", out)
    assert done.returncode == 0, done.stderr
    t = pq.read_table(out).to_pandas()
    close = t[t.parallax_over_error > 10]
    assert len(close) > 100
    assert (close.eta_flag & 3 == 0).mean() > 0.99
    # most stars near the Sun belong to the disc: slow, and likelier metal-rich
    speed = np.hypot(close.vt_ra, close.vt_dec)
    assert 10 < speed.median() < 60
    assert close.eta.median() < -0.2
    fast = speed > 200
    assert not fast.any() or close.eta[fast].median() > close.eta.median() + 1
