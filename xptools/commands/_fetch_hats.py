"""`xp fetch hats`: rows of a catalogue in HATS, columns and conditions pushed down to its files."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import click

from xptools.options import plain_command, run_options, shared
from xptools.protocol import Source


@dataclass(frozen=True)
class Rows(Source):
    """Chosen columns of the rows of Parquet files that meet a condition, file after file."""

    catalogue: str = ""
    columns: tuple[str, ...] = ()
    where: str = ""
    spectra: bool = False
    region: str = ""
    ids: str = ""
    position: tuple[str, str] = ("ra", "dec")
    stars: Any = field(default=None, compare=False, repr=False)
    paths: tuple[str, ...] = ()
    ready: bool = False

    name: ClassVar[str] = "fetch-hats"

    def params(self):
        return {k: v for k, v in super().params().items() if k not in ("paths", "ready", "position", "stars")}

    def added(self):
        return {}

    def schema(self, schema=None, replace=False):
        import pyarrow.parquet as pq

        from xptools import metadata
        from xptools.archive import hats

        bare = hats.schema_of(pq.read_schema(self.paths[0]), self._choice())
        return metadata.with_record(metadata.without(bare, metadata.FILE_KEYS), self)

    def record_batches(self, rows):
        from xptools.archive import hats
        from xptools.io.batches import even

        out = self.schema()

        def found():
            for path in self.paths:
                with open(path, "rb", buffering=0) as file:
                    yield from hats.batches(file, self._choice(), rows)

        return even((b.replace_schema_metadata(out.metadata) for b in found()), rows)

    def _choice(self):
        from xptools.archive import hats

        # parts that were fetched hold what is wanted already
        if self.ready:
            return hats.Choice(("*",))
        return hats.Choice(self.columns, self.where, self.spectra, self.region, self.position, self.stars)


@plain_command(
    "get",
    3,
    output=True,
    examples=(
        "xp fetch hats --where 'parallax > 1 and phot_g_mean_mag < 17.5' gaia_hats/ -o stars.parquet",
        "xp fetch hats --region cone:56.75,24.12,2 gaia_hats/ -o pleiades.parquet",
        "xp fetch hats --spectra mmu_gaia/ | xp calibrate -o flux.parquet",
    ),
    see=("fetch-gaia", "select", "join"),
    notes={
        "PLACES": """A folder, or an address such as https://data.lsdb.io/hats/gaia_dr3/gaia; the place is the one that
has partition_info.csv. From an address that gives files in parts (HTTP ranges) only the wanted columns of row groups
that can hold wanted rows are downloaded, partition by partition, into --work; the same command goes on where it was cut
off. Rows come in the catalogue's order, by place on the sky.""",
        "REGIONS": """With --region only the partitions whose HEALPix pixel touches the region are opened, and in them
only row groups that can hold some of it; of their rows those are given whose position is in it, by the columns that the
catalogue's properties name (hats_col_ra, hats_col_dec; else ra and dec). A box may go through right ascension 0:
box:350,10,-5,5.""",
        "STARS": """With --ids only the stars of a table are given, and only partitions opened that can hold some. Those
that the catalogue has not are listed in OUTPUT.missing.csv (or --missing), and the exit status is 76 and no table is
written, unless --allow-missing. With --where or --region, which leave stars out on purpose, they are not counted.
xp fetch gaia --from hats and xp fetch xp --from hats are this command too.""",
        "COUNTING": """The rows of all files are compared with hats_nrows of the catalogue's properties: a catalogue
with lacking files ends with status 76. Where --region or --ids leave files out, nothing is known of their rows.""",
    },
)
@click.argument("place", metavar="DIR|URL")
@click.option("--columns", default="", metavar="LIST", help="Columns, or * for all.  [default: those that xp reads]")
@click.option("--where", default="", metavar="EXPR", help="Rows, as in xp select --where.")
@click.option("--region", default="", metavar="REGION",
              help="cone:RA,DEC,RADIUS or box:RA1,RA2,DEC1,DEC2 [deg], or healpix:LEVEL/FIRST-LAST.")  # fmt: skip
@click.option("--ids", default="", metavar="FILE", help="Only the stars of this table.")
@shared("missing", "allow-missing")
@click.option("--spectra", is_flag=True, help="Take coeff and coeff_error apart into BP and RP columns.")
@click.option("--parallel", type=click.IntRange(1, 8), default=3, show_default=True, help="Partitions at once.")
@click.option("--timeout", type=click.FloatRange(0.1), default=60.0, show_default=True, help="Longest silence [s].")
@click.option("--work", default="", metavar="DIR", help="Folder for the parts.  [default: beside the output]")
def command(
    place, columns, where, region, ids, missing, allow_missing, spectra, parallel, timeout, work, **common
):
    """Read a catalogue in HATS, from a folder or over HTTP: chosen columns of chosen rows.

    HATS is Parquet by pixel of the sky, as LSDB writes it and as Gaia DR3 is published in. With --spectra the
    coefficients of the Multimodal Universe's Gaia (no correlations, single precision) are made BP and RP columns.
    """
    from xptools.archive.missing import Missing

    stars = None
    if ids:
        from xptools.archive.gaia import stars_of

        stars = stars_of(ids)
    carry_out(place, columns, where, region, spectra, stars, parallel, timeout, work, Missing(missing, allow_missing),
              common)  # fmt: skip


def carry_out(place, columns, where, region, spectra, stars, parallel, timeout, work, missing, common) -> None:
    """Read the catalogue and write what is wanted of it; `stars` are identifiers (ascending), or None for all."""
    import hashlib

    from xptools import stream
    from xptools.archive import hats, hatsfetch

    names = tuple(c.strip() for c in columns.split(",") if c.strip())
    options, wanted = run_options(common), (names, where, spectra, region)
    choice = hats.Choice(*wanted, stars=stars)
    ids = "" if stars is None else hashlib.sha256(stars.tobytes()).hexdigest()
    with hatsfetch.prepared(place, choice, parallel, timeout, work, missing, options) as (choice, paths, ready):
        made = Rows(hatsfetch.called(place), *wanted, ids, choice.position, stars, paths, ready)
        stream.run([stream.Plan(made)], options)
