"""`xp fetch xp --bulk`: files of the whole release, in a folder or at an address, ECSV or HDF5."""

import gzip
import hashlib
import os
import subprocess
import zlib

import h5py
import numpy as np
import pyarrow as pa
import pytest
from tables import read

from fetch.spectra import COLUMNS, IDS, LEVEL8, ecsv, same, star
from xptools.archive import bulk, spectra, spectrafiles, wire


def sorted_files() -> dict[str, dict[int, dict]]:
    """Three files of the release: names by pixels, rows by identifier; the last but one star has no BP."""
    ids = {"000000-000009": IDS, "000020-000029": [LEVEL8 * 20 + 1, LEVEL8 * 29 + 5], "000030-786431": [LEVEL8 * 700]}
    return {
        f"XpContinuousMeanSpectrum_{name}": {i: star(i, "rp" if i % 5 == 1 else "bp rp") for i in values}
        for name, values in ids.items()
    }


def hdf5(path, rows: dict[int, dict]) -> None:
    """As Flatiron has it: a dataset per column, fill values for what is missing."""
    with h5py.File(path, "w") as file:
        file["source_id"] = np.array(list(rows), np.int64)
        for name, kind in COLUMNS.items():
            width = next((np.shape(r[name]) for r in rows.values() if r[name] is not None), None) or ()
            if width == () and name.endswith(("coefficients", "errors", "correlations")):
                width = (1485,) if name.endswith("correlations") else (55,)
            fill = np.nan if kind.startswith("float") else np.iinfo(kind).min
            file[name] = np.array([np.full(width, fill) if r[name] is None else r[name] for r in rows.values()], kind)


def bulk_folder(folder, form: str, sums: bool = True) -> None:
    lines = []
    for name, rows in sorted_files().items():
        path = folder / f"{name}.{form}"
        if form == "hdf5":
            hdf5(path, rows)
        else:
            path.write_bytes(gzip.compress(ecsv(rows).encode(), 1))
        lines.append(f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.name}")
    if sums:
        (folder / "_MD5SUM.txt").write_text("\n".join(lines) + "\n")


ALL = {i: row for rows in sorted_files().values() for i, row in rows.items()}
SINGLE = {i for i in ALL if i % 5 == 1}


@pytest.mark.parametrize("form", ["csv.gz", "hdf5"])
def test_bulk_files_of_a_folder(stars, fetch, tmp_path, form):
    folder = tmp_path / "bulk"
    folder.mkdir()
    bulk_folder(folder, form)
    wanted = [*IDS[::3], *list(ALL)[-3:]]
    code, _, said, out = fetch(stars(wanted), "--bulk", folder, service="")
    assert code == 0, said
    same(read(out), wanted, SINGLE)


def test_bulk_files_from_the_network_only_those_needed_and_none_left(there, stars, fetch, tmp_path):
    folder = tmp_path / "bulk"
    folder.mkdir()
    bulk_folder(folder, "csv.gz")
    files = there.serve("/bulk", {p.name: p.read_bytes() for p in folder.iterdir()})
    there.queue = ["", "cut", "corrupt"]
    wanted = [*IDS, LEVEL8 * 700]
    code, _, said, out = fetch(stars(wanted), "--bulk", f"{there.url}/bulk", "--parallel", 1, service="")
    assert code == 0, said
    same(read(out), wanted, SINGLE)
    assert files.ranges, "a download that was cut goes on where it was"
    assert not any("000020" in path for path in there.seen)
    assert not (tmp_path / "out.parquet.parts").exists()


@pytest.fixture
def served(there, tmp_path):
    """The folder of ECSV behind HTTP; returns its Files."""
    folder = tmp_path / "bulk"
    folder.mkdir()
    bulk_folder(folder, "csv.gz")
    return there.serve("/bulk", {p.name: p.read_bytes() for p in folder.iterdir()})


def test_ecsv_is_never_on_disc(there, served, stars, fetch, monkeypatch):
    monkeypatch.setattr(bulk, "download", None)
    code, _, said, out = fetch(stars(IDS), "--bulk", f"{there.url}/bulk", service="")
    assert code == 0, said
    same(read(out), IDS, SINGLE)


@pytest.mark.parametrize("tag", [True, False])
@pytest.mark.parametrize("fault", ["cut", "choke", "drop", 503, "html202", "corrupt"])
def test_a_fault_in_the_stream_costs_no_star(there, served, stars, fetch, fault, tag):
    served.tag = tag
    there.plan(("GET", "000000", {1}, fault), ("GET", "000000", {2}, "cut"))
    there.stall = 1.5
    code, _, said, out = fetch(stars(IDS), "--bulk", f"{there.url}/bulk", "--timeout", 0.5, service="")
    assert code == 0, said
    same(read(out), IDS, SINGLE)


def test_a_wrong_sum_puts_nothing_in_place(there, served, stars, fetch, tmp_path):
    there.plan(("GET", "000000", "*", "corrupt"))
    code, _, said, out = fetch(stars(IDS), "--bulk", f"{there.url}/bulk", service="")
    assert code == 65 and "md5" in said and len(there.log) == 3
    assert not out.exists() and not list((tmp_path / "out.parquet.parts").glob("*.parquet"))


def test_another_file_in_the_middle_is_begun_again(there, served, stars, fetch, tmp_path):
    """Without a sum it is the server's ETag that tells; without both, a cut stream is begun again."""
    name = next(n for n in served.files if "000000" in n)
    served.files.pop("_MD5SUM.txt")
    served.files[""] = f'<html><a href="{name}">{name}</a></html>'.encode()
    old, new = served.files[name], gzip.compress(ecsv({i: star(i) for i in IDS}).encode(), 9)
    for tag in (True, False):
        served.files[name], served.tag, served.ranges = old, tag, []
        there.plan(("GET", "000000", {1}, "cut"))
        whole = served.__call__

        def changed(request, whole=whole):
            reply = whole(request)
            if "000000" in request.path:
                served.files[name] = new
            return reply

        there.paths["/bulk"] = changed
        code, _, said, out = fetch(stars(IDS), "--bulk", f"{there.url}/bulk", service="")
        assert code == 0, said
        same(read(out), IDS)


def test_a_stream_is_read_as_it_comes_and_kept_on_disc():
    """Of 60 MB of text no more than a few blocks are in memory at once."""
    rows = {LEVEL8 * 7 + k: star(k % 7) for k in range(200)}
    text = ecsv(rows).encode()
    head, body = text[: text.index(b"\n", text.index(b"\nsolution_id") + 1) + 1], text.split(b"\n")
    taken, lines = [], [line for line in body if line[:2] == b"45"]

    def pieces():
        yield head
        for k in range(8):
            taken.append(k)
            yield b"\n".join(lines) + b"\n"

    before = pa.total_allocated_bytes()
    batches = spectrafiles.read_text(pieces(), "text", None)
    next(batches)
    assert len(taken) <= 2
    whole = wire.blocks(pieces(), 1 << 20)
    assert all(len(b) < 12 << 20 and b.endswith(b"\n") for b in whole)
    ids = np.array(sorted(rows))
    table = spectra.kept(spectrafiles.read_text(iter([text]), "text", ids), True, "text")
    assert table.equals(spectra.normal(spectrafiles.read_text(iter([text]), "text", ids), True, "text"))
    del batches
    assert pa.total_allocated_bytes() - before < 0.2 * table.nbytes


def test_a_full_disc_is_told(there, served, stars, fetch, monkeypatch):
    monkeypatch.setattr(spectra, "spool", lambda: open("/dev/full", "r+b", buffering=0))
    code, _, said, out = fetch(stars(IDS), "--bulk", f"{there.url}/bulk", service="")
    assert code == 74 and "No space left" in said and "TRY: XP_TMPDIR" in said and not out.exists()
    monkeypatch.undo()
    assert fetch(stars(IDS), "--bulk", f"{there.url}/bulk", service="")[0] == 0


@pytest.mark.parametrize("blocks", [3, 300])
def test_a_limit_of_what_may_be_written_is_told(there, served, stars, xp, tmp_path, blocks):
    """The real program: a buffer that cannot be written must not hide the sentence when it is closed."""
    words = [xp.program, "fetch", "xp", "--bulk", f"{there.url}/bulk", stars(IDS), "-o", tmp_path / "o.parquet"]
    limited = ["bash", "-c", f'ulimit -f {blocks}; exec "$@"', "bash", *map(str, words)]
    own = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(limited, capture_output=True, text=True, check=False, env=own)
    assert done.returncode == 74 and "cannot keep a temporary copy" in done.stderr and "TRY: XP_TMPDIR" in done.stderr
    assert [p.name for p in tmp_path.iterdir() if p.name != "bulk"] == ["stars.parquet"]


def test_gzip_in_any_number_of_members_and_cut_short():
    text = bytes(range(256)) * 900
    packed = gzip.compress(text[:7]) + gzip.compress(b"") + gzip.compress(text[7:])
    for size in (3, 1000, 1 << 20):
        pieces = [packed[i : i + size] for i in range(0, len(packed), size)]
        assert b"".join(wire.plain(iter(pieces), "x")) == text
    with pytest.raises(wire.Damaged, match="cut off"):
        list(wire.plain([packed[:-20]], "x"))
    with pytest.raises(wire.Damaged, match="damaged"):
        list(wire.plain([packed[:200] + b"?" + packed[201:]], "x"))


def test_every_fault_of_gzip_that_zlib_finds_is_found():
    """Members spoilt, cut, followed by something: what comes out is what the slow way gives, or nothing counts."""
    rng = np.random.default_rng(5)
    text = ecsv({i: star(i) for i in IDS[:2]}).encode()
    packed = gzip.compress(text[:90_000], 6) + gzip.compress(text[90_000:], 1)
    spoilt = [packed + tail for tail in (b"\0", bytes(16), b"x", b"trailing words of some length", packed[:300])]
    spoilt += [packed[:n] for n in (9, len(packed) // 2, len(packed) - 8, len(packed) - 1)]
    for k in range(60):  # a bit is another, in the deflated bytes or in the sums and lengths after them
        at = int(rng.integers(10, len(packed))) if k else len(packed) - 2
        spoilt.append(packed[:at] + bytes([packed[at] ^ 1 << int(rng.integers(8))]) + packed[at + 1 :])
    differ = 0
    for body in spoilt:
        size = int(rng.integers(2, len(body)))
        try:
            found = b"".join(wire.plain((body[i : i + size] for i in range(0, len(body), size)), "x"))
        except wire.Damaged:
            found = None
        assert found == slowly_unpacked(body)
        differ += found is None
    assert differ >= len(spoilt) - 10  # most harm is found; what is not is a bit of a header that says nothing


def slowly_unpacked(body: bytes) -> bytes | None:
    """Members one after the other by zlib; None where it finds a fault, or they do not end with the body."""
    out = []
    while body:
        unpack = zlib.decompressobj(31)
        try:
            out.append(unpack.decompress(body))
        except zlib.error:
            return None
        if not unpack.eof:
            return None
        body = unpack.unused_data
    return b"".join(out)


def test_a_listing_does_where_no_sums_are_published(there, stars, fetch, tmp_path):
    folder = tmp_path / "bulk"
    folder.mkdir()
    bulk_folder(folder, "hdf5", sums=False)
    served = {p.name: p.read_bytes() for p in folder.iterdir()}
    page = "<html><body>" + "".join(f'<a href="{n}">{n}</a>' for n in served) + "</body></html>"
    there.serve("/bulk", {"": page.encode(), **served})
    code, _, said, out = fetch(stars(IDS), "--bulk", f"{there.url}/bulk", service="")
    assert code == 0, said
    assert "no _MD5SUM.txt" in said
    same(read(out), IDS, SINGLE)


def test_a_changed_file_is_refused(stars, fetch, tmp_path):
    folder = tmp_path / "bulk"
    folder.mkdir()
    bulk_folder(folder, "csv.gz")
    path = next(folder.glob("*000000*"))
    path.write_bytes(gzip.compress(b"something else"))
    code, _, said, out = fetch(stars(IDS), "--bulk", folder, service="")
    assert code == 65 and "md5" in said and not out.exists()


def test_a_file_is_downloaded_once_though_stars_are_missing(there, stars, fetch, tmp_path):
    folder = tmp_path / "bulk"
    folder.mkdir()
    bulk_folder(folder, "csv.gz")
    there.serve("/bulk", {p.name: p.read_bytes() for p in folder.iterdir()})
    words = (stars([*IDS, IDS[-1] + 1]), "--bulk", f"{there.url}/bulk")
    assert fetch(*words, service="")[0] == 76
    code, _, said, out = fetch(*words, "--allow-missing", service="")
    assert code == 0, said
    same(read(out), IDS, SINGLE)
    assert sum("000000-000009" in path for path in there.seen) == 1


def test_stars_that_no_file_can_hold_are_missing(stars, fetch, tmp_path):
    folder = tmp_path / "bulk"
    folder.mkdir()
    bulk_folder(folder, "csv.gz")
    code, _, said, _ = fetch(stars([IDS[0], LEVEL8 * 15]), "--bulk", folder, service="")
    assert code == 76 and "1 of 2" in said
