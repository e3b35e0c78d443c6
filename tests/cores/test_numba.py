"""Compiled kernels on disk: a help where it works, never needed."""

import errno

import numba.core.caching as caching

from xptools.cores import _numba


def plus(a, b):
    return a + b


def test_a_full_disk_keeps_no_kernel_and_hinders_none(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setenv("XP_CACHE", str(tmp_path))
    monkeypatch.setattr(caching.IndexDataCacheFile, "_save_index", full)
    assert _numba.compiled()(plus)(1, 2) == 3
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_damaged_kernels_are_compiled_anew_and_replaced(tmp_path, monkeypatch):
    monkeypatch.setenv("XP_CACHE", str(tmp_path))
    assert _numba.compiled()(plus)(1, 2) == 3
    for suffix in ("nbi", "nbc"):
        (kept,) = tmp_path.rglob(f"*.{suffix}")
        whole = kept.read_bytes()
        kept.write_bytes(whole[:50])
        assert _numba.compiled()(plus)(1, 2) == 3
        (kept,) = tmp_path.rglob(f"*.{suffix}")
        assert len(kept.read_bytes()) > 50
        loaded = _numba.compiled()(plus)
        assert loaded(1, 2) == 3 and sum(loaded.stats.cache_hits.values()) == 1
