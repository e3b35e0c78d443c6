"""The table that `xp mf` shows on a terminal, from its file: `python table.py [--summary] mf.parquet`."""

import sys

import pyarrow.parquet as pq

from xptools import terminal
from xptools.commands._mf_text import report

table = pq.read_table(sys.argv[-1])
parts = report(table).renderables
# The panels come first, one for each [Fe/H] bin; slopes, mass ratios and the pulls follow.
panels = len(table.column("feh_lo").unique())
terminal.show(*(parts[panels:] if "--summary" in sys.argv else parts))
