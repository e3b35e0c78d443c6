"""What a cut on eta does, from the numbers of `xp plot eta --kind threshold`: `python purity.py eta.pdf.parquet`."""

import sys

import polars as pl

rows = pl.read_parquet(sys.argv[1]).filter(pl.col("mass_hi").is_infinite())
for ratio in (3, 10, 30):
    row = rows.sort((pl.col("threshold") - pl.lit(ratio).log10()).abs()).row(0, named=True)
    print(
        f"ratio above {10 ** row['threshold']:4.1f}: {row['n']:6,} stars, "
        f"{row['purity']:.1%} of them with [Fe/H] < -1; "
        f"{row['completeness']:.1%} of all such stars, {row['halo_kept']:.1%} of the halo"
    )
