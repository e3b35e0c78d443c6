"""xp doctor: what it finds whole, absent and broken."""

import hashlib
import json

import pytest

from xptools import diagnosis, manifest


def checks(done) -> dict[str, list[dict]]:
    found: dict[str, list[dict]] = {}
    for c in json.loads(done.stdout)["checks"]:
        found.setdefault(c["about"], []).append(c)
    return found


@pytest.fixture
def quiet_dustmaps(tmp_path):
    """A dustmaps that keeps its maps in an empty folder."""
    (tmp_path / "maps").mkdir()
    config = tmp_path / "dustmaps.json"
    config.write_text(json.dumps({"data_dir": str(tmp_path / "maps")}))
    return {"DUSTMAPS_CONFIG_FNAME": str(config)}


def test_a_machine_that_has_all(xp, quiet_dustmaps):
    done = xp("doctor", "--json", env=quiet_dustmaps)
    found = checks(done)
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["ok"]
    assert {"xp", "package", "cores", "memory", "disk", "cache", "jax", "model", "manual", "file"} <= found.keys()
    assert {"numpy", "jax", "pyarrow", "dustmaps"} <= {p["words"].split()[0] for p in found["package"]}
    # The maps are nobody's fault: only --map needs them.
    assert [f["state"] for f in found["file"]] == ["absent"] * len(manifest.external())


def test_text(xp, quiet_dustmaps):
    done = xp("doctor", env=quiet_dustmaps)
    lines = done.stdout.decode().splitlines()
    assert lines[-1] == "xp has what it needs"
    assert all(line.split()[0] in ("ok", "absent", "fault") for line in lines[:-1])


def test_a_file_with_a_bad_sum_is_a_fault(xp, tmp_path, quiet_dustmaps):
    name = "mean_and_std_healpix.fits"
    (tmp_path / "edenhofer_2023").mkdir()
    (tmp_path / "edenhofer_2023" / name).write_bytes(b"SIMPLE  = not the map")
    done = xp("doctor", "--json", "--data", tmp_path, env=quiet_dustmaps)
    (fault,) = [f for f in checks(done)["file"] if f["state"] == "fault"]
    assert done.returncode == 69
    assert "bad sum" in fault["words"] and name in fault["words"] and "zenodo" in fault["cure"]
    assert xp("doctor", "--quick", "--data", tmp_path, env=quiet_dustmaps).returncode == 0


def test_a_data_folder_that_is_not_there(xp, tmp_path, quiet_dustmaps):
    done = xp("doctor", "--data", tmp_path / "none", env=quiet_dustmaps)
    assert done.returncode == 69 and b"is no folder" in done.stdout


def test_a_cache_that_cannot_be_written(xp, tmp_path, quiet_dustmaps):
    (tmp_path / "file").write_text("")
    done = xp("doctor", "--json", "--cache", tmp_path / "file" / "cache", env=quiet_dustmaps)
    assert done.returncode == 69
    assert checks(done)["cache"][0]["state"] == "fault"
    assert xp("doctor", "--cache", "off", env=quiet_dustmaps).returncode == 0


def test_external_file(tmp_path):
    content = b"SIMPLE  =                    T"
    external = manifest.External(
        "m.fits", "a map", "xp deredden", "https://example.org", "maps", len(content), hashlib.md5(content).hexdigest()
    )
    assert external.find([tmp_path]) is None
    path = tmp_path / "maps" / "m.fits"
    path.parent.mkdir()
    path.write_bytes(content)
    assert external.find([tmp_path]) == path
    assert external.fault(path) == ""
    path.write_bytes(content[:-1] + b"F")
    assert external.fault(path).startswith("bad sum")
    assert external.fault(path, whole=False) == ""
    path.write_bytes(content + b" ")
    assert external.fault(path, whole=False).startswith("bad size")
    path.write_bytes(b"<!DOCTYPE html>".ljust(len(content)))
    assert "web page" in external.fault(path)


def test_manifest_knows_what_it_says():
    for file in manifest.external():
        assert file.url.startswith(("https://", "http://")) and file.use and file.key
        assert bool(file.get) + bool(file.zenodo) + bool(file.dataverse) + bool(file.by_hand) == 1, file.key
        assert file.md5 is None or len(file.md5) == 32
        assert file.sha256 is None or len(file.sha256) == 64


def test_sizes_and_versions():
    assert diagnosis._size(999) == "999 B" and diagnosis._size(3_200_000_000) == "3.2 GB"
    assert diagnosis._numbers("2.13.0+cpu") == (2, 13, 0) > diagnosis._numbers("2.5")
