"""Text to numbers: bit for bit what Python's float and numpy's float32 say."""

import numpy as np
import pytest

from xptools.cores.decimals import parse
from xptools.errors import DataError


def lists(rows: list[str], kind: type) -> np.ndarray:
    raw = np.frombuffer(" ".join([*rows, ""]).encode(), np.uint8)
    sizes = np.array([len(r) for r in rows])
    starts = np.concatenate([[0], np.cumsum(sizes + 1)[:-1]])
    return parse(raw, starts, starts + sizes, kind)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_every_bit_is_right(kind):
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 2 ** (32 if kind is np.float32 else 64), 20_000, dtype=np.uint64)
    values = bits.astype(np.uint32).view(np.float32) if kind is np.float32 else bits.view(np.float64)
    values = np.concatenate([values[np.isfinite(values)], rng.normal(0, 1e3, 6000).astype(kind)]).astype(kind)
    values = values[: len(values) // 11 * 11].reshape(-1, 11)
    rows = [",".join(str(x) for x in row) for row in values]
    np.testing.assert_array_equal(lists(rows, kind), values)


def test_long_mantissas_are_rounded_right():
    rng = np.random.default_rng(4)
    whole = rng.integers(10**15, 10**18, 40_000)
    shift = rng.integers(0, 18, len(whole))
    padded = [(f"{w:019d}", 19 - s) for w, s in zip(whole, shift, strict=True)]
    texts = [f"{text[:k]}.{text[k:]}" for text, k in padded]
    found = lists([",".join(texts[i : i + 8]) for i in range(0, len(texts), 8)], np.float64).ravel()
    np.testing.assert_array_equal(found, [float(t) for t in texts])


def test_the_middle_of_two_singles_is_rounded_once():
    # Above the middle by less than a double can tell: rounding twice would go down to the even one.
    text = "1.000000059604644775390625000001"
    assert lists([text], np.float32)[0, 0] == np.nextafter(np.float32(1), np.float32(2))
    assert lists(["16777217"], np.float32)[0, 0] == 16777216
    assert lists(["16777219"], np.float32)[0, 0] == 16777220


def test_spaces_missing_values_and_exponents():
    found = lists(["1, -2.5e-3,null ,nan, +4E2,0.0,-0,.5"], np.float64)[0]
    np.testing.assert_array_equal(found, [1, -0.0025, np.nan, np.nan, 400, 0, 0, 0.5])
    assert np.isinf(lists(["inf"], np.float64)[0, 0])
    assert lists(["12345678901234567890123"], np.float64)[0, 0] == 12345678901234567890123.0


@pytest.mark.parametrize(("rows", "words"), [(["1,2", "1,2,3"], "3 numbers"), (["1,two"], "no num"), (["1,2e"], "num")])
def test_what_is_no_list_of_numbers_is_refused(rows, words):
    with pytest.raises(DataError, match=words):
        lists(rows, np.float64)


def test_no_lists():
    assert parse(np.zeros(0, np.uint8), np.zeros(0), np.zeros(0), np.float64).shape == (0, 0)
