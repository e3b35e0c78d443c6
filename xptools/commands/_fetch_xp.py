"""`xp fetch xp`: the XP spectra of the stars of a table, by DataLink, TAP or the bulk files."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import click

from xptools.errors import UsageError
from xptools.options import plain_command, run_options, shared
from xptools.protocol import Source

ROUTES = ("datalink", "aip", "bulk", "hats")
NOTES = {
    "ROUTES": """datalink: ESA's service, 5000 stars a request, up to 37 kB a star. What a reply leaves out is asked for
again. aip: the TAP service of AIP (--service for another one with the table gaiadr3.xp_continuous_mean_spectrum), 1000
stars a query, 6 kB a star with --no-correlations; the stars go along as an uploaded table where the service says that
it takes one (--upload), else in the query itself. bulk: the files of the whole release in a folder or at an address
(--bulk), either ECSV as ESA's CDN has them or HDF5 as Flatiron has them; only files that can hold the stars are read,
each compared with _MD5SUM.txt. ECSV is filtered as it comes and never on disc; its stars count once all of the file has
come with the right sum. Of HDF5 at an address, source_id is read first and then only the parts of the file that hold
wanted stars, where they are few (some hundred a file); no sum can be compared then, and xp says so. Else, or with
--whole, the file is downloaded, compared, and deleted after use. A file has 65,000 stars in 1 GB: as a whole it is the
right route for more than a few thousand stars per file, or for millions.""",
    "HATS": """--from hats DIR|URL reads the spectra of the stars of TABLE from a catalogue of Parquet files with coeff
and coeff_error, as the Multimodal Universe's Gaia has them, with all that xp-fetch-hats(1) says of --ids and --spectra:
coefficients and their errors in single precision, no correlations, in the catalogue's order.""",
    "COUNTING": """Every star asked for is in the table, or in the file of the missing (--missing), or has
has_xp_continuous = false in TABLE and is not asked for. Stars missing after --tries requests: exit status 76 and no
table, unless --allow-missing. What did come is kept, and the same command asks for the rest only.""",
    "RESUMING": """Parts are kept in --work; by default a folder beside the output, or in the cache where the output is
a pipe. The same command goes on where the last one was cut off and gives the same bytes; when the table is whole the
folder is removed (--keep-work).""",
    "COLUMNS": """source_id and, for bp and rp, basis_function_id, degrees_of_freedom, n_parameters, n_measurements,
n_rejected_measurements, standard_deviation, chi_squared, relative_shrinking, coefficients, coefficient_errors,
coefficient_correlations and n_relevant_bases, as in Gaia's xp_continuous_mean_spectrum, with lists of fixed length. A
star without one band has a row of NaN there, and 0 in whole numbers. Rows ascend in source_id.""",
}


@dataclass(frozen=True)
class Spectra(Source):
    """The parts of a finished fetch as one table."""

    service: str = ""
    release: str = "Gaia DR3"
    correlations: bool = True
    stars: int = 0
    ids: str = ""
    widths: tuple[tuple[str, int], ...] = ()
    parts: tuple[str, ...] = ()

    name: ClassVar[str] = "fetch-xp"
    cites: ClassVar = ("gaia2016", "gaia2023", "deangeli2023")

    def params(self):
        return {k: v for k, v in super().params().items() if k not in ("widths", "parts")}

    def added(self):
        return {}

    def schema(self, schema=None, replace=False):
        from xptools import metadata
        from xptools.archive import spectra

        return metadata.with_record(spectra.schema(dict(self.widths), self.correlations), self)

    def rows(self):
        import pyarrow.parquet as pq

        return sum(pq.read_metadata(path).num_rows for path in self.parts)

    def record_batches(self, rows):
        from xptools.archive import gather
        from xptools.io.batches import even

        out = self.schema()
        found = gather.joined(self.parts, dict(self.widths))
        return even((b.replace_schema_metadata(out.metadata) for b in found), rows)


@plain_command(
    "get",
    2,
    output=True,
    examples=(
        "xp fetch xp --plan stars.parquet",
        "xp fetch xp stars.parquet -o spectra.parquet",
        "xp fetch xp --from aip --no-correlations stars.parquet | xp calibrate -o flux.parquet",
        "xp fetch xp --from hats mmu_gaia/ stars.parquet -o spectra.parquet",
        "xp fetch xp --bulk /data/gaia/xp stars.parquet -o spectra.parquet",
    ),
    see=("fetch-gaia", "join", "calibrate", "feh"),
    notes=NOTES,
)
@click.argument("names", nargs=-1, metavar="[DIR|URL] [TABLE]")
@click.option("--from", "route", type=click.Choice(ROUTES), default="datalink", show_default=True,
              help="The way to the spectra; see below.")  # fmt: skip
@click.option("--service", default="", metavar="URL", help="Another address.  [default: the route's own]")
@click.option("--bulk", default="", metavar="DIR|URL", help="Bulk files: a folder or an address; implies --from bulk.")
@click.option("--whole", is_flag=True, help="Download HDF5 bulk files whole, and compare their md5, however few stars.")
@click.option("--release", default="Gaia DR3", show_default=True, help="Release, as DataLink calls it.")
@click.option("--no-correlations", is_flag=True, help="Leave the correlations of the coefficients out.")
@click.option("--chunk", type=click.IntRange(1), help="Stars per request.  [default: 5000 datalink, 1000 aip]")
@click.option("--upload", type=click.Choice(["auto", "on", "off"]), default="auto", show_default=True,
              help="Send the stars as a table along with a query (aip).")  # fmt: skip
@click.option("--parallel", type=click.IntRange(1, 8), default=2, show_default=True, help="Requests at once.")
@click.option("--tries", type=click.IntRange(1), default=3, show_default=True, help="Times to ask, at least.")
@click.option("--timeout", type=click.FloatRange(0.1), default=120.0, show_default=True, help="Longest silence [s].")
@click.option("--work", default="", metavar="DIR", help="Folder for the parts.  [default: beside the output]")
@click.option("--keep-work", is_flag=True, help="Leave the parts, and downloaded bulk files, in that folder.")
@shared("missing", "allow-missing")
@click.option("--credentials", default="", metavar="FILE", help="File with user and password, or token; mode 600.")
@click.option("--plan", is_flag=True, help="Print what each route would cost and stop; needs no network.")
def command(
    names, route, service, bulk, whole, release, no_correlations, chunk, upload, parallel, tries, timeout, work,
    keep_work, missing, allow_missing, credentials, plan, **common,
):  # fmt: skip
    """Fetch the XP spectra (BP and RP coefficients) of the stars of a table.

    TABLE needs source_id; where it has has_xp_continuous too, stars without a spectrum are not asked for. The result is
    one table in the order of source_id, for `xp join`, `xp calibrate` and `xp feh`. `--plan` says beforehand what each
    route costs in requests, bytes and hours.
    """
    from xptools.archive import spectrafetch as work_of
    from xptools.commands._plot_input import need_input

    place, names = (names[0], names[1:]) if route == "hats" and names else ("", names)
    if len(names) > 1 or (route == "hats" and not place):
        raise UsageError("one TABLE is wanted, after DIR or URL with --from hats. TRY: xp fetch xp --help")
    table = names[0] if names else "-"
    need_input(table)
    if chunk and route == "datalink" and chunk > 5000:
        raise UsageError("DataLink gives at most 5000 stars a request. TRY: --chunk 5000")
    stars = work_of.wanted(table)
    if plan:
        return click.echo(work_of.planned(stars, not no_correlations))
    if route == "hats":
        from xptools.archive.missing import Missing
        from xptools.commands._fetch_hats import carry_out

        lost = Missing(missing, allow_missing)
        return carry_out(place, "source_id", "", "", True, stars.ids, parallel, timeout, work, lost, common)
    options = work_of.Wish(
        "bulk" if bulk else route, service or bulk, release, not no_correlations, chunk, parallel, tries, timeout,
        Path(work) if work else None, keep_work, missing, allow_missing, credentials, upload, whole,
    )  # fmt: skip
    return work_of.fetched(stars, options, run_options(common), Spectra)
