"""What `xp select` says: the sections of its manual page, two long helps, and the cut-flow on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

NOTES = {
    "COLUMNS READ": """ids: source_id. parallax: parallax. parallax-over-error: parallax_over_error. absolute-magnitude:
phot_g_mean_mag, parallax. bp-rp: bp_rp. isochrone: bp_rp0, mg0 (xp deredden). cstar: phot_bp_rp_excess_factor, bp_rp,
phot_g_mean_mag. eta-ratio, eta-quantile: eta. fidelity: fidelity_v2. feh: feh. magnitude: phot_g_mean_mag. where: the
columns it names.""",
    "THE ISOCHRONE CUT": """Li+ 2026 keep the stars below the [M/H] = 0 isochrone, to be rid of unresolved binaries and
young stars; age, and what happens beyond the isochrone's colours, they do not say. Here a star redder than the
isochrone is rejected. One bluer than its turn-off (BP - RP = 0.70 at 5 Gyr) has nothing above it and stays if mg0 > 4:
metal-poor dwarfs above 0.7 Msun are bluer than any solar star of that age. --iso-blue reject drops them.""",
    "CONDITIONS": """Where a value is unknown (NaN or null) a comparison is neither true nor false, and neither is its
denial: not feh > -1 does not keep a star without feh. isfinite(feh) is always known. & and | bind tighter than
comparisons: write (a > 1) & (b < 2), or the words and, or. Bits of a flag column: mass_flag & 2 == 0. With --flag a
condition's column is named by NAME, or by its text with _ for every other sign.""",
    "CUT-FLOW": """--cutflow gives one row per cut: rows before and after, how many rejected rows had an unknown value,
the fraction of the rows before and of all rows (Table 1 of Li+ 2026), and how many rows pass this cut alone. It needs
only the columns that the cuts read. xp plot cutflow draws it.""",
}
QUANTILE_HELP = (
    "The fraction F with the highest eta of those that pass the cuts before (0.0133 in Li+ 2026); the input is read "
    "three times, so it must be a file, unless --eta-from names one."
)
FROM_HELP = "With --eta-quantile: the table whose quantile it is, read twice; then the input may be a stream."
WHERE_HELP = (
    "A condition on columns, or NAME = condition; repeatable. Operators: + - * / // % ** < <= > >= == != in and or not "
    "& | ~; functions: log10 sqrt abs sin cos radians min max where isfinite."
)


def report(table: pa.Table) -> Any:
    """The cut-flow for a terminal, laid out as Table 1 of the paper."""
    from rich.table import Table

    drawn = Table(show_header=True, header_style="bold", box=None)
    for title in ("cut", "asks", "left", "of before", "of all", "unknown"):
        drawn.add_column(title, justify="left" if title in ("cut", "asks") else "right")
    rows = table.to_pylist()
    if rows:
        drawn.add_row("input", "", f"{rows[0]['rows_in']:,}", "", "", "")
    for row in rows:
        drawn.add_row(
            row["cut"], row["asks"] if row["asks"] != row["cut"] else "", f"{row['rows_out']:,}", f"{row['kept']:.4f}",
            f"{row['of_all']:.6f}", f"{row['unknown']:,}" if row["unknown"] else "",
        )  # fmt: skip
    return drawn
