"""FITS headers card by card: astropy reads what is written, and what it writes is read, or left to it."""

import io
import random

import numpy as np
import pytest
from astropy.io import fits

from xptools.io import fitscards

LETTERS = "ab'' &/=\"\\_.,:{}0"
PLAINER = LETTERS.replace("/", "")  # astropy takes "'...' /" inside a long text for its end


def words(rng: random.Random, length: int, letters: str = LETTERS) -> str:
    return "".join(rng.choices(letters, k=length)).strip(" ") + "."


def test_astropy_reads_what_is_written():
    rng = random.Random(1)
    cards = [("XTENSION", "BINTABLE"), ("BITPIX", 8), ("NAXIS", 0), ("TRUE", True), ("BIG", 1 << 63), ("LESS", -7)]
    cards += [(f"T{n}", words(rng, n, PLAINER)) for n in (*range(1, 12), *range(60, 75), *range(130, 142), 20_000)]
    data = fitscards.written(cards)
    assert len(data) % 2880 == 0
    theirs = fits.Header.fromstring(data)
    assert {k: theirs[k] for k, _ in cards} == dict(cards)
    cards += [(f"U{n}", words(rng, n)) for n in (*range(1, 12), *range(60, 75), *range(130, 142), 20_000)]
    data = fitscards.written(cards)
    ours, end = fitscards._header(io.BytesIO(data), 0)
    assert ours == dict(cards) and end == len(data)


def table(tmp_path, *cards):
    """A file of astropy's with these cards in the header of its second extension."""
    column = fits.Column("a", "E", unit="mag", array=np.arange(3, dtype="f4"))
    hdu = fits.BinTableHDU.from_columns([column])
    hdu.header.extend(cards)
    image = fits.ImageHDU(np.zeros((7, 11), "i2"))
    fits.HDUList([fits.PrimaryHDU(np.zeros((5, 4))), image, hdu]).writeto(tmp_path / "t.fits")
    return tmp_path / "t.fits"


def test_what_astropy_writes_is_read(tmp_path):
    rng = random.Random(2)
    cards = [(f"S{n}", words(rng, n, PLAINER), "a comment" if n < 40 else "") for n in (3, 30, 67, 68, 69, 200)]
    cards += [("X", 1.5e-7), ("Y", -2.0), ("N", 3, "units / more"), ("L", False), ("U", None)]
    path = table(tmp_path, *cards)
    with path.open("rb") as whole, fits.open(path) as hdus:
        primary, header, start = fitscards.first_table(whole)
        assert start == hdus[2].fileinfo()["datLoc"] and primary["NAXIS2"] == 5
        theirs = hdus[2].header
        for key in (k for k in theirs if k not in ("U", "")):
            assert header[key] == theirs[key], key
            assert header.comments[key] == theirs.comments[key], key


@pytest.mark.parametrize("card", ["HIERARCH long key = 1", "Z       = (1.0, 2.0)", "A       =  'a", "a       = 1"])
def test_what_is_not_plain_is_left_to_astropy(card):
    data = fitscards.written([("XTENSION", "BINTABLE"), ("BITPIX", 8), ("NAXIS", 0)])
    assert fitscards._header(io.BytesIO(data), 0)
    data = data.replace(b"END".ljust(80), card.encode().ljust(80) + b"END".ljust(80), 1)[:2880]
    assert fitscards._header(io.BytesIO(data), 0) is None


def test_no_table_no_end_no_file(tmp_path):
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(tmp_path / "image.fits")
    for data in ((tmp_path / "image.fits").read_bytes(), b"", b"SIMPLE  =" + b" " * 9000):
        assert fitscards.first_table(io.BytesIO(data)) is None
