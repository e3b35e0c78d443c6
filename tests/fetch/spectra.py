"""Spectra made from identifiers, and stand-ins for the services that give them."""

import io
import re
import zipfile

import numpy as np
import pyarrow as pa
from astropy.table import Table
from servers import BROKEN, Server

from xptools.arrays import to_numpy

SCALARS = {
    "basis_function_id": "int16", "degrees_of_freedom": "int16", "n_parameters": "int16", "n_measurements": "int16",
    "n_rejected_measurements": "int16", "standard_deviation": "float32", "chi_squared": "float32",
}  # fmt: skip
LISTS = {"coefficients": "float64", "coefficient_errors": "float32", "coefficient_correlations": "float32"}
TAIL = {"n_relevant_bases": "int16", "relative_shrinking": "float32"}
COLUMNS = {f"{b}_{k}": t for b in ("bp", "rp") for k, t in (SCALARS | LISTS | TAIL).items()}
LEVEL8 = 1 << 43
IDS = [LEVEL8 * 7 + k * 1_000_003 for k in range(23)]


def star(source_id: int, bands: str = "bp rp", widths: tuple[int, int] = (55, 55)) -> dict:
    """All 24 columns of a star, made from its identifier."""
    rng = np.random.default_rng(source_id)
    row = {}
    for tag, n in zip(("bp", "rp"), widths, strict=True):
        values = {"coefficients": rng.normal(0, 900, n), "coefficient_errors": rng.gamma(2, 0.5, n)}
        values["coefficient_correlations"] = rng.normal(0, 0.2, n * (n - 1) // 2)
        whole = {"basis_function_id": 56, "degrees_of_freedom": 1687, "n_parameters": n, "n_measurements": 1742}
        whole |= {"n_rejected_measurements": 5, "standard_deviation": 1.05, "chi_squared": 1855.25}
        whole |= {"n_relevant_bases": 19, "relative_shrinking": 0.42}
        for key, kind in (SCALARS | LISTS | TAIL).items():
            value = values[key].astype(kind) if key in values else whole[key]
            row[f"{tag}_{key}"] = value if tag in bands else None
    return row


def cell(value, brackets: str, null: str) -> str:
    """A value as the archives write it."""
    if value is None:
        return null
    if isinstance(value, np.ndarray):
        return f'"{brackets[0]}{", ".join(map(str, value))}{brackets[1]}"'
    return str(value)


def csv(rows: dict[int, dict], names=None, brackets="()", null="", upper=False) -> str:
    """A CSV table of spectra."""
    names = names or ["source_id", "solution_id", *COLUMNS]
    lines = [",".join(n.upper() if upper else n for n in names)]
    for source_id, row in rows.items():
        whole = {"source_id": source_id, "solution_id": 4545469030156206081, **row}
        lines.append(",".join(cell(whole[n], brackets, null) for n in names))
    return "\n".join(lines) + "\n"


def ecsv(rows: dict[int, dict]) -> str:
    """An ECSV table of spectra as the CDN has it: lists are JSON, nothing is `null`."""
    head = ["# %ECSV 1.0", "# ---", "# delimiter: ','", "# datatype:"]
    for name, kind in {"solution_id": "int64", "source_id": "int64", **COLUMNS}.items():
        words = f"datatype: string, subtype: '{kind}[null]'" if name.endswith(tuple(LISTS)) else f"datatype: {kind}"
        head.append(f"# - {{name: {name}, {words}}}")
    return "\n".join(head) + "\n" + csv(rows, ["solution_id", "source_id", *COLUMNS], "[]", "null")


class DataLink:
    """ESA's DataLink: at most 5000 identifiers, ZIP of CSV; `without` have no spectrum, `forgets` rows per reply."""

    def __init__(self, there: Server, structures=("RAW", "INDIVIDUAL")):
        self.structures, self.without, self.single, self.forgets, self.widths = structures, set(), set(), [], (55, 55)
        self.asked, self.upper, self.doubles = [], False, False
        there.paths["/data-server/data"] = self.serve

    def serve(self, request):
        form = request.form
        ids = [int(i) for i in form["id"].split(",")]
        page = {"Content-Type": "text/html"}
        if form["data_structure"] not in self.structures:
            words = f"Invalid Data Structure parameter: '{form['data_structure']}', valid ones are: "
            return 500, page, BROKEN.format(words + ", ".join(self.structures)).encode()
        if len(ids) > 5000:
            words = f"Maximum number of Source Ids reached (max: 5000, found: {len(ids)})"
            return 500, page, BROKEN.format(words).encode()
        assert form["retrieval_type"] == "XP_CONTINUOUS" and form["release"] == "Gaia DR3"
        self.asked.append(ids)
        found = [i for i in ids if i not in self.without]
        found = found[: len(found) - (self.forgets.pop(0) if self.forgets else 0)]
        return 200, {"Content-Type": "application/zip"}, self.packed(found[::-1])

    def row(self, source_id: int) -> dict:
        """The columns of a star."""
        return star(source_id, "rp" if source_id in self.single else "bp rp", self.widths)

    def packed(self, ids: list[int]) -> bytes:
        """The ZIP archive."""
        rows = {i: self.row(i) for i in ids}
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            if "RAW" in self.structures or "DATAMODEL_GAIA" in self.structures:
                text = csv(rows, upper=self.upper)
                text += "\n".join(csv(rows).splitlines()[1:2]) + "\n" if self.doubles else ""
                if ids:
                    archive.writestr("XP_CONTINUOUS_RAW.csv", text)
            else:
                for i, row in rows.items():
                    archive.writestr(f"XP_CONTINUOUS-Gaia DR3 {i}.csv", csv({i: row}))
        return packed.getvalue()


class TapTable:
    """A TAP service with the spectra as a table: synchronous queries by identifier, CSV; a token if wanted.

    It knows identifiers in the query and, if it `uploads`, a table of them sent along.
    """

    def __init__(self, there: Server, token: str = "", uploads: bool = False):
        self.token, self.uploads, self.without, self.queries = token, uploads, set(), []
        there.paths["/tap/sync"] = self.serve
        there.paths["/tap/async"] = lambda r: self.refused(r) or (200, {"Content-Type": "text/xml"}, b"<uws:jobs/>")
        there.paths["/tap/capabilities"] = self.capabilities

    def refused(self, request):
        if self.token and request.headers.get("Authorization") != f"Token {self.token}":
            return 401, {}, b"Invalid token."
        return None

    def capabilities(self, request):
        method = '<uploadMethod ivo-id="ivo://ivoa.net/std/TAPRegExt#upload-inline"/>' if self.uploads else ""
        text = f'<c><capability standardID="ivo://ivoa.net/std/TAP">{method}</capability></c>'
        return 200, {"Content-Type": "text/xml"}, text.encode()

    def serve(self, request):
        if no := self.refused(request):
            return no
        query = request.form["query"]
        self.queries.append(query)
        names = [n.rpartition(".")[2] for n in re.search(r"SELECT (.*) FROM", query)[1].split(", ")]
        assert "FROM gaiadr3.xp_continuous_mean_spectrum" in query
        found = {i: star(i) for i in self.wanted(request, query) if i not in self.without}
        return 200, {"Content-Type": "text/csv"}, csv(found, names, "{}").encode()

    def wanted(self, request, query: str) -> list[int]:
        """The identifiers of the query, or those of the table that came with it."""
        if "upload" not in request.form:
            return [int(i) for i in re.search(r"IN \((.*)\)", query)[1].split(", ")]
        name, _, place = request.form["upload"].partition(",param:")
        assert f"TAP_UPLOAD.{name}" in query
        table = Table.read(io.BytesIO(request.uploads[place]), format="votable")
        return table["source_id"].tolist()


def same(table: pa.Table, ids, single=(), correlations=True, widths=(55, 55)) -> None:
    """The table holds exactly these stars, in order, bit for bit."""
    assert table["source_id"].to_pylist() == sorted(ids)
    for row, source_id in enumerate(sorted(ids)):
        want = star(source_id, "rp" if source_id in single else "bp rp", widths)
        for name, value in want.items():
            if name.endswith("correlations") and not correlations:
                assert name not in table.schema.names
                continue
            found = to_numpy(table[name])[row]
            if value is None:
                assert np.all(np.isnan(found)) if COLUMNS[name].startswith("float") else found == 0, name
            else:
                np.testing.assert_array_equal(found, np.asarray(value, COLUMNS[name]), name)
