"""What the [Fe/H] of `xp feh` is worth on mock stars, by brightness: `python scatter.py labels.parquet`."""

import sys

import polars as pl

rows = pl.read_parquet(sys.argv[1], columns=["phot_g_mean_mag", "feh", "feh_err", "true_feh"])
rows = rows.with_columns(miss=pl.col("feh") - pl.col("true_feh"))
for bright, faint in ((0, 14), (14, 15), (15, 16), (16, 17)):
    part = rows.filter(pl.col("phot_g_mean_mag").is_between(bright, faint))
    bias = part["miss"].median()
    scatter = 1.4826 * (part["miss"] - bias).abs().median()
    print(f"G < {faint}: {len(part):6,} stars, [Fe/H] from XP: bias {bias:+.3f}, scatter {scatter:.3f} dex "
          f"(stated error {part['feh_err'].median():.3f})")  # fmt: skip
