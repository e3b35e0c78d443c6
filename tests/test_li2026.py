"""The folder of Li+ 2026 at small size: tables and figures by make, nothing made twice, and its Monte Carlo."""

import csv
import importlib.util
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from xptools.cores import isochrone

pytest.importorskip("matplotlib")
EXAMPLE = Path(__file__).parent.parent / "examples" / "li2026"
SMALL = ("STARS=12000", "KNOWN=12000", "MASS_EPOCHS=5", "SPECTRA=")  # what spectra cost is in compilers


@pytest.fixture
def script(monkeypatch):
    """One of the folder's scripts as a module, by its name."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    return loaded


def loaded(name: str):
    spec = importlib.util.spec_from_file_location(f"li2026_{name}", EXAMPLE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def make(xp, tmp_path_factory):
    """Run make in the folder: `make("table1")` gives the CompletedProcess; results go to `make.out`."""
    if not shutil.which("make"):
        pytest.skip("make is not here")
    out = tmp_path_factory.mktemp("li2026")

    def run(*words):
        fixed = (f"OUT={out}", f"XP='{xp.program}' -q", f"PYTHON='{sys.executable}'", "PARSEC=", *SMALL)
        return subprocess.run(["make", "-C", EXAMPLE, *fixed, *words], capture_output=True, text=True, timeout=600)

    run.out = out
    return run


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def made(make):
    done = make("table1", "table5", "fig9")
    assert done.returncode == 0, done.stderr
    return make.out


def test_tables_and_figures(made):
    flow = {row["cut"]: int(row["stars"]) for row in rows(made / "table1.csv")}
    assert list(flow) == ["parent sample", "isochrone", "cstar", "eta", "fidelity", "feh", "magnitude"]
    assert flow["parent sample"] > 4000 and list(flow.values()) == sorted(flow.values(), reverse=True)
    table = rows(made / "table5.csv")
    assert len(table) == 56 and sum(int(r["stars"]) for r in table) > 700
    known = [r for r in table if r["log_phi_text"] and r["log_phi_table5"]]
    higher = [float(r["log_phi_table5"]) - float(r["log_phi_text"]) for r in known if float(r["veff"]) > 3.39]
    assert higher and max(abs(d - 0.622) for d in higher) < 0.002  # the factor 3 / (4 pi) of SCIENCE 8.6, in dex
    assert (made / "fig9.pdf").read_bytes().startswith(b"%PDF")
    drawn = pq.read_table(made / "fig9.pdf.parquet")["log_phi_other1"].to_pylist()
    assert drawn[:3] == pytest.approx([3.07, 3.59, 3.90])  # Table 5 of the paper


BASTI_HEAD = """# Isochrone from from BaSTI-IAC database
# Scaled solar models & transformations  -  GAIA-DR3-NEW
#  Np = {n}   [M/H] = {mh:.3f}   Z = 0.0010000   Y = 0.24800000   Age (Myr) = {age:.3f}
#    M/Mo(ini)     M/Mo(fin)    log(L/Lo)  logTe        G     G_BP     G_RP    G_RVS
"""
MIST_HEAD = """# MIST version number  = 1.2
# photometric system   = UBV(RI)c, 2MASS, Kepler, Hipparcos, Gaia (Vega)
#  Yinit        Zinit   [Fe/H]   [a/Fe]  v/vcrit
# 0.2506  1.07587E-03    {mh:.2f}     0.00     0.40
# CCM89 extinction: Av =  0.000
# EEP log10_isochrone_age_yr initial_mass log_Teff [Fe/H]_init Gaia_G_DR2Rev Gaia_G_EDR3 Gaia_BP_EDR3 Gaia_RP_EDR3 phase
"""


def families(folder: Path) -> tuple[str, str]:
    """BASTI= and MIST= of files in their real formats, the built-in main sequence made brighter and fainter."""
    sequence = isochrone.load(None)
    for name in ("basti", "mist"):
        (folder / name).mkdir(parents=True)
    for mh, age in itertools.product((-2.6, -2.0, -1.5, -1.0, -0.5), (9.0, 10.0, 11.5, 13.5)):
        mass = np.linspace(0.1, sequence.turn_off(mh, age), 60)
        M_G, colour = sequence.absolute(mass, max(mh, -2.5), age)
        with (folder / "basti" / f"{mh}-{age}.isc_gaia-dr3-new").open("w") as out:
            out.write(BASTI_HEAD.format(n=len(mass), mh=mh, age=1000 * age))
            for m, G, c in zip(mass, M_G - 0.05, colour, strict=True):
                out.write(f"{m:.8f} {m:.8f} -1.0 {3.5 + 0.3 * m:.5f} {G:.4f} {G + 0.6 * c:.4f} {G - 0.4 * c:.4f} 9\n")
        with (folder / "mist" / f"{mh}-{age}.iso.cmd").open("w") as out:
            out.write(MIST_HEAD.format(mh=mh))
            rows = zip(np.r_[mass, mass[-1] + 0.01], np.r_[M_G, 2.0] + 0.05, np.r_[colour, 1.0], strict=True)
            for i, (m, G, c) in enumerate(rows):  # the last is a giant: phase 2
                out.write(f"{200 + i} {9 + np.log10(age):.12f} {m:.12f} 3.6 {mh:.4f} 30 {G:.5f} {G + 0.6 * c:.5f} "
                          f"{G - 0.4 * c:.5f} {0.0 if i < len(mass) else 2.0}\n")  # fmt: skip
    return f"BASTI={folder / 'basti'}", f"MIST={folder / 'mist'}"


def test_families_of_isochrones_in_one_command(make, made, tmp_path):
    done = make("report", *families(tmp_path))
    assert done.returncode == 0, done.stderr
    table = rows(made / "models.csv")
    names = [r["name"] for r in table if r["feh_lo"] == "-1.4"]
    assert names == ["10Gyr", "12Gyr", "alpha0.3", "BaSTI", "MIST", "spread"]
    spread = next(r for r in table if r["name"] == "spread")
    assert spread["absent"] == "PARSEC" and float(spread["alpha1"]) > 0
    told = rows(made / "report.csv")
    assert len(told) == 4 and all(r["models"].endswith("BaSTI MIST") and r["absent"] == "PARSEC" for r in told)
    assert all(float(r["alpha1_sys"]) > 0 for r in told)
    assert make("report").returncode == 0 and make("-q", "report").returncode == 0  # without any table


def test_nothing_is_made_twice_and_only_what_depends_on_a_parameter(make, made):
    assert make("-q", "table1", "table5", "fig9").returncode == 0
    planned = make("-n", "-W", "conf/functions.toml", "table1", "table5").stdout
    assert planned.count(" run ") == 2 and "mock" not in planned and "select" not in planned
    assert "mock 13000" in make("-n", "STARS=13000", "table1").stdout
    assert "--spectra --correlations" in make("-n", "SPECTRA=1", "table1").stdout


def test_what_is_spoilt_is_made_again(make, made):
    whole = (made / "published.parquet").read_bytes()
    (made / "published.parquet").write_bytes(whole[:-200])
    assert make("-q", "fig9").returncode == 1
    again = make("fig9")
    assert again.returncode == 0 and "not as it was made, so made again" in again.stdout
    assert (made / "published.parquet").read_bytes() == whole
    (made / "cutflow-1.parquet").unlink()
    assert "--cutflow-out" in make("-n", "table1").stdout and make("table1").returncode == 0


def test_bytes_that_change_unseen_are_found_by_their_checksum(made):
    rotten, spoilt = made / "published.parquet", ["bash", EXAMPLE / "spoilt.sh", made]
    times = rotten.stat()
    rotten.write_bytes(rotten.read_bytes().replace(b"log_phi", b"log_pho"))
    os.utime(rotten, ns=(times.st_atime_ns, times.st_mtime_ns))
    found = [subprocess.run([*spoilt, *all_], capture_output=True, text=True).stdout for all_ in ((), ("all",), ())]
    assert found == ["", f"{rotten}\n", f"{rotten}\n"]


def test_the_archives_steps_are_planned(make, tmp_path):
    own = [f"{name}={tmp_path / name}.fits" for name in ("GIANTS_TABLE", "LABELS")]
    for word in own:
        Path(word.partition("=")[2]).touch()
    planned = make("-n", "DATA=gaia", *own, "table1", "deconvolve")
    steps = [f"fetch recipe li2026 {step} --to" for step in ("isochrones", "gaia", "dust", "spectra")]
    for words in (*steps, "train eta", "train feh", "--keep source_id,mass,feh,feh_err,fe_h", "mf --deconvolve"):
        assert words in planned.stdout, planned.stderr


def test_binaries_leave_the_slope_only_if_q_does_not_follow_the_mass(script):
    binaries = script("binaries")
    value, error = binaries.PUBLISHED
    slope, scatter = binaries.experiment("uniform-q", repeats=30)
    assert slope == pytest.approx(value, abs=error) and scatter < error
    for pairing in ("random", "random-first"):
        slope, scatter = binaries.experiment(pairing, repeats=30)
        assert slope < value - 4 * error
    # the fit against a closed form: without an upper limit the slope is 1 + n / sum ln(m / lo)
    rng = np.random.default_rng(3)
    m = binaries.masses(rng, 20_000, (0.1, 1e6))
    assert binaries.fitted(m, (0.1, 1e6)) == pytest.approx(1 + 1 / np.log(m / 0.1).mean(), abs=1e-4)


def test_verify_tells_pass_from_fail(script, tmp_path, capsys):
    verify = script("verify")
    (tmp_path / "t.csv").write_text("name,x,x_err\na,2.30,0.05\nb,3.0,0.05\n")
    head = '[[check]]\nname = "{0}"\nsource = "a paper"\nfile = "t.csv"\nwhere = {{ name = "{0}" }}\ncolumn = "x"\n'
    checks = [head.format(n) + 'value = 2.34\ntol = "x_err"\nsigmas = 2\n' for n in "ab"]
    (tmp_path / "good.toml").write_text(checks[0])
    (tmp_path / "bad.toml").write_text("\n".join(checks) + head.format("c") + "value = 1\ntol = 1\n")
    assert verify.main("mock", str(tmp_path), str(tmp_path / "good.toml")) == 0
    assert "PASS  a: 2.3, expected 2.34 +- 0.1  [a paper]" in capsys.readouterr().out
    assert verify.main("mock", str(tmp_path), str(tmp_path / "bad.toml")) == 1
    out = capsys.readouterr().out
    assert "FAIL  b" in out and "FAIL  c: 0 rows" in out and "2 failed" in out
