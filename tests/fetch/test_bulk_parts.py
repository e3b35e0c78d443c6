"""HDF5 bulk files behind HTTP: only the parts that hold wanted stars, or all of it where that is no dearer."""

import hashlib

import h5py
import numpy as np
import pytest
from tables import read

from fetch.spectra import LEVEL8, same, star
from fetch.test_bulk import hdf5
from xptools.archive import bulk, ranged
from xptools.archive import hdf5 as parts
from xptools.archive.http import Client

IDS = [LEVEL8 * 7 + k for k in range(600)]
NAME = "XpContinuousMeanSpectrum_000000-000009.hdf5"
FEW = IDS[10:13] + IDS[430:431]
SINGLE = {i for i in IDS if i % 5 == 1}


@pytest.fixture(scope="module", params=["contiguous", "chunked"])
def body(request, tmp_path_factory) -> bytes:
    """A file of 600 stars, of which every fifth has no BP."""
    path = tmp_path_factory.mktemp("bulk") / NAME
    hdf5(path, {i: star(i, "rp" if i in SINGLE else "bp rp") for i in IDS})
    if request.param == "contiguous":
        return path.read_bytes()
    packed = path.with_name("packed.hdf5")
    with h5py.File(path) as old, h5py.File(packed, "w") as new:
        for name, data in old.items():
            chunks = (70, 20) if data.ndim == 2 else (70,)
            new.create_dataset(name.upper(), data=data, chunks=chunks, compression="gzip", compression_opts=1)
    return packed.read_bytes()


@pytest.fixture
def served(there, body, monkeypatch):
    """The file and its sum behind HTTP; the costs are those of a file as small as this."""
    for module, name, value in ((ranged, "BLOCK", 4096), (ranged, "TAIL", 1000), (parts, "REQUEST", 0)):
        monkeypatch.setattr(module, name, value)
    sums = f"{hashlib.md5(body).hexdigest()}  {NAME}\n".encode()
    return there.serve("/bulk", {NAME: body, "_MD5SUM.txt": sums})


@pytest.fixture
def get(there, stars, fetch):
    """`get(ids, *words)`: (exit code, stderr, output)."""

    def run(ids, *words):
        code, _, said, out = fetch(stars(ids), "--bulk", f"{there.url}/bulk", *words, service="")
        return code, said, out

    return run


def fetched(there) -> int:
    """Bytes of the file that were asked for in parts; an error if all of it was."""
    total = 0
    for _, path, headers, _ in there.log:
        if path.endswith(NAME):
            first, _, last = headers["Range"].removeprefix("bytes=").partition("-")
            total += int(last) - int(first or 0) + (1 if first else 0)
    return total


def test_few_stars_are_a_part_of_the_bytes(there, served, get, body):
    code, said, out = get(FEW)
    assert code == 0, said
    same(read(out), FEW, SINGLE)
    assert fetched(there) < 0.35 * len(body)
    assert "no md5 is compared (--whole does)" in said


def test_whole_is_whole_and_compared(there, served, get, body):
    code, said, out = get(FEW, "--whole")
    assert code == 0 and "no md5" not in said
    same(read(out), FEW, SINGLE)
    assert not any("Range" in headers for *_, headers, _ in there.log)
    there.plan(("GET", NAME, "*", "corrupt"))
    code, said, out = get(FEW[:1], "--whole")
    assert code == 65 and "md5" in said


def test_many_stars_are_fetched_whole(there, served, get):
    code, said, out = get(IDS[::2])
    assert code == 0, said
    same(read(out), IDS[::2], SINGLE)
    assert sum(path.endswith(NAME) and "Range" not in headers for _, path, headers, _ in there.log) == 1


def test_a_server_without_parts_gives_the_whole_once(there, served, get):
    def whole(request):
        del request.headers["Range"]
        return served(request)

    there.paths["/bulk"] = whole
    code, said, out = get(FEW)
    assert code == 0 and "no md5" not in said
    same(read(out), FEW, SINGLE)


@pytest.mark.parametrize("fault", ["cut", "drop", "choke", 503, "html", "html202"])
def test_a_fault_on_the_way_costs_no_star(there, served, get, fault):
    there.plan(("GET", NAME, {1, 3, 5}, fault))
    there.stall = 1.0
    code, said, out = get(FEW, "--timeout", 0.5)
    assert code == 0, said
    same(read(out), FEW, SINGLE)


def test_a_file_that_changes_meanwhile_is_told(there, served, get, body):
    asked = []

    def changing(request):
        asked.append(request.path)
        if len(asked) == 4:
            served.files[NAME] = body[:-1] + b"?"
        return served(request)

    there.paths["/bulk"] = changing
    code, said, out = get(FEW)
    assert code == 75 and "changed while it was read" in said and not out.exists()
    served.files[NAME] = body
    code, said, out = get(FEW)
    assert code == 0, said
    same(read(out), FEW, SINGLE)


def test_what_cannot_be_read_in_parts_is_fetched_whole_and_judged_by_its_sum(there, served, get, body):
    served.files[NAME] = b"no HDF5 " + body[8:]
    code, said, _ = get(FEW)
    assert code == 65 and "cannot be read in parts" in said and "has the md5" in said
    del served.files["_MD5SUM.txt"]
    served.files[""] = f'<html><a href="{NAME}">{NAME}</a></html>'.encode()
    code, said, _ = get(FEW)
    assert code == 65 and "is no whole HDF5 file" in said


def test_stars_that_a_file_has_not_are_missing(there, served, get):
    code, said, _ = get([*FEW, LEVEL8 * 8])
    assert code == 76 and "missing 1" in said


def test_blocks_are_kept_and_forgotten(there, monkeypatch):
    monkeypatch.setattr(ranged, "BLOCK", 100)
    monkeypatch.setattr(ranged, "KEPT", 3)
    whole = np.random.default_rng(0).bytes(200_000)
    there.serve("/f", {"x": whole})
    blocks = ranged.Blocks(Client(), f"{there.url}/f/x")
    rng = np.random.default_rng(1)
    for _ in range(50):
        start, size = int(rng.integers(200_000)), int(rng.integers(1, 900))
        blocks.seek(start)
        assert blocks.read(size) == whole[start : start + size]
        assert len(blocks.blocks) <= 10
    assert blocks.read(-1) == whole[blocks.tell() :] or blocks.tell() == len(whole)
    there.plan()
    for _ in range(5):
        blocks.seek(1234)
        assert blocks.read(20) == whole[1234:1254]
    assert len(there.log) <= 1


def test_what_a_plan_says_of_few_stars_and_of_many():
    assert bulk.in_parts(np.array([1])) < 0.05 * bulk.FILE_BYTES["hdf5"]
    assert bulk.in_parts(np.array([1, 5000])) > bulk.FILE_BYTES["hdf5"]
