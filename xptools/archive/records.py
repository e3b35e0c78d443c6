"""What the records of Zenodo and Dataverse say of their files: address, size, checksum, licence."""

import fnmatch
import re
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

from xptools.archive.http import Client
from xptools.errors import RemoteError, UnavailableError
from xptools.manifest import External


class Remote(NamedTuple):
    """A file that can be downloaded: `sums` is {"md5": ...} as published, empty if nothing is."""

    name: str
    url: str
    bytes: int | None
    sums: dict[str, str]
    licence: str = ""


def files(client: Client, file: External) -> list[Remote]:
    """The files behind an entry of the manifest; UnavailableError where the record has none of its name.

    What the manifest itself states must agree with the record.
    """
    if file.get:
        return [Remote(file.name, file.get, file.bytes, _sums(file), file.licence or "")]
    if file.listing:
        return _listing(client, file)
    url = file.zenodo or file.dataverse
    told = _json(client, url)
    listed = _zenodo(told) if file.zenodo else _dataverse(told, url)
    found = [r for r in listed if fnmatch.fnmatch(r.name, file.name)]
    if not found:
        names = ", ".join(r.name for r in listed[:8]) or "nothing"
        raise UnavailableError(f"the record has no file {file.name}, but {names}. {url}. TRY: look at {file.url}")
    for r in found:
        for kind, wanted in _sums(file).items():
            if r.sums.get(kind, wanted) != wanted:
                raise UnavailableError(f"the record has another {r.name} than xp knows. {url}. TRY: look at {file.url}")
    return found


def _listing(client: Client, file: External) -> list[Remote]:
    """The files that a folder's own page links to."""
    page = client.request("GET", file.listing, page=True).text
    links = sorted(set(re.findall(r"""href=["']?([^"'> ]+)""", page)))
    found = [link for link in links if fnmatch.fnmatch(link.rpartition("/")[2], file.packed)]
    if not found:
        raise UnavailableError(f"{file.listing} lists no {file.packed}. TRY: look at {file.url}")
    return [Remote(link.rpartition("/")[2], urljoin(file.listing, link), None, {}) for link in found]


def _sums(file: External) -> dict[str, str]:
    return {k: v for k, v in (("md5", file.md5), ("sha256", file.sha256)) if v}


def _json(client: Client, url: str) -> dict[str, Any]:
    reply = client.request("GET", url)
    try:
        return reply.json()
    except ValueError as fault:
        raise RemoteError(f"{url} did not answer with JSON. TRY: the same command later") from fault


def _zenodo(told: dict[str, Any]) -> list[Remote]:
    licence = (told.get("metadata", {}).get("license") or {}).get("id", "")
    found = []
    for f in told.get("files", []):
        kind, _, value = f.get("checksum", "").partition(":")
        sums = {kind: value} if value and kind in ("md5", "sha256") else {}
        found.append(Remote(f["key"], f["links"]["self"], f.get("size"), sums, licence))
    return found


def _dataverse(told: dict[str, Any], url: str) -> list[Remote]:
    version = told.get("data", {}).get("latestVersion", {})
    licence = (version.get("license") or {}).get("name", "") if isinstance(version.get("license"), dict) else ""
    where, found = urlsplit(url), []
    for f in version.get("files", []):
        data = f["dataFile"]
        address = f"{where.scheme}://{where.netloc}/api/access/datafile/{data['id']}"
        sums = {"md5": data["md5"]} if data.get("md5") else {}
        found.append(Remote(data["filename"], address, data.get("filesize"), sums, licence))
    return found
