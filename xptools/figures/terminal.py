"""A two-dimensional histogram as text: eight dots a character (Unicode braille), numpy only."""

from __future__ import annotations

import numpy as np

# Dot (row, column) of a 4 x 2 cell -> its bit in the characters from U+2800 on.
BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
SHADES = (60, 61, 31, 36, 35, 71, 149, 220, 226)  # xterm's nearest colours to viridis, dark to bright


def braille(counts: np.ndarray) -> np.ndarray:
    """Characters (rows, columns) for dot counts (4 rows, 2 columns): a dot is on where its count is not zero."""
    rows, columns = counts.shape[0] // 4, counts.shape[1] // 2
    dots = (counts[: rows * 4, : columns * 2] > 0).reshape(rows, 4, columns, 2)
    codes = 0x2800 + np.einsum("ricj,ij->rc", dots.astype(np.int64), BITS)
    return codes.astype(np.uint32).view("<U1")


def shade(counts: np.ndarray) -> np.ndarray:
    """Index into SHADES (rows, columns) by the logarithm of each character's stars."""
    rows, columns = counts.shape[0] // 4, counts.shape[1] // 2
    total = counts[: rows * 4, : columns * 2].reshape(rows, 4, columns, 2).sum(axis=(1, 3))
    top = np.log1p(max(int(total.max(initial=0)), 1))
    return np.minimum((np.log1p(total) / top * len(SHADES)).astype(int), len(SHADES) - 1)


def _coloured(glyphs: np.ndarray, tones: np.ndarray) -> str:
    """One line, an escape code only where the colour changes."""
    parts, last = [], -1
    for glyph, tone in zip(glyphs, tones, strict=True):
        blank = glyph == "\u2800"
        parts.append(glyph if blank or tone == last else f"\x1b[38;5;{SHADES[tone]}m{glyph}")
        last = last if blank else tone
    return "".join(parts) + "\x1b[0m"


def frame(
    counts: np.ndarray, x: tuple[float, float], y: tuple[float, float], labels: tuple[str, str], colour: bool = False
) -> str:
    """The histogram with its axes. counts (4 rows, 2 columns), top first; x: left, right limit; y: top, bottom."""
    glyphs, tones = braille(counts), shade(counts)
    rows, columns = glyphs.shape
    marks = {0: y[0], rows // 2: (y[0] + y[1]) / 2, rows - 1: y[1]}
    lines = [f"{'':>7} {labels[1]}"]
    for r in range(rows):
        text = "".join(glyphs[r])
        if colour:
            text = _coloured(glyphs[r], tones[r])
        lines.append(f"{marks[r]:7.2f} \u2502{text}" if r in marks else f"{'':>7} \u2502{text}")
    lines.append(f"{'':>7} \u2514" + "\u2500" * columns)
    low, middle, high = (f"{v:.2f}" for v in (x[0], (x[0] + x[1]) / 2, x[1]))
    gap = max(columns - len(low) - len(middle) - len(high), 2)
    lines.append(f"{'':>8}{low}{' ' * (gap // 2)}{middle}{' ' * (gap - gap // 2)}{high}")
    lines.append(f"{'':>8}{labels[0]:^{columns}}".rstrip())
    return "\n".join(lines)
