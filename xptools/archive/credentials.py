"""Credentials from a file that only its owner can read, and logins that are looked at twice.

A login can answer "OK" and have no effect; so a job is made that never runs, and its owner read.
"""

import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from xptools.archive.http import Client, plain
from xptools.errors import InputError, PermissionFault

QUERY = "SELECT TOP 1 source_id FROM gaiadr3.gaia_source"


@dataclass(frozen=True)
class Credentials:
    """A user with password, or a token; never printed."""

    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)


def read(path: str) -> Credentials:
    """Credentials from lines `user = NAME`, `password = WORD` or `token = WORD`, or from two bare lines."""
    file = Path(path).expanduser()
    try:
        mode = file.stat().st_mode
        lines = [line.strip() for line in file.read_text().splitlines()]
    except OSError as fault:
        raise InputError(f"cannot open the credentials {file}: {fault.strerror.lower()}. TRY: ls -l {file}") from fault
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise PermissionFault(f"others may read the credentials. {file}. TRY: chmod 600 {file}")
    lines = [line for line in lines if line and not line.startswith("#")]
    pairs = dict(re.fullmatch(r"(\w+)\s*[=:]\s*(.*)", line).groups() for line in lines if re.match(r"\w+\s*[=:]", line))
    if not pairs and len(lines) == 2:
        pairs = {"user": lines[0], "password": lines[1]}
    found = Credentials(**{k: v.strip("\"'") for k, v in pairs.items() if k in ("user", "password", "token")})
    if not (found.token or (found.user and found.password)):
        raise PermissionFault(f"no user and password, and no token, in the credentials. {file}. TRY: user = NAME")
    return found


def sign_in(client: Client, tap: str, known: Credentials, others: tuple[str, ...] = ()) -> str:
    """Make the client known to the service whose TAP is at `tap`, and to `others` (addresses of their logins).

    Returns who the service says we are; PermissionFault (77) if it does not know us.
    """
    if known.token:
        client.session.headers["Authorization"] = f"Token {known.token}"
        client.request("GET", f"{tap}/async", retry=True)  # 401 is PermissionFault
        return "the token's owner"
    form = {"username": known.user, "password": known.password}
    for address in (f"{tap.rpartition('/')[0]}/login", *others):
        client.request("POST", address, data=form, page=True, retry=True)
    if not client.session.cookies:
        raise PermissionFault(f"{tap} took the login but opened no session. TRY: another user or password")
    owner = _owner(client, tap)
    if owner != known.user:
        raise PermissionFault(f"{tap} took the login of {known.user!r} but knows us as {owner!r}. TRY: its own page")
    return owner


def _owner(client: Client, tap: str) -> str:
    form = {"REQUEST": "doQuery", "LANG": "ADQL", "FORMAT": "votable", "QUERY": QUERY}
    made = client.request("POST", f"{tap}/async", data=form, redirects=False, accept=(303, 302, 200, 201), page=True)
    job = made.headers.get("Location", "")
    if not job:
        raise PermissionFault(f"{tap} makes no job to look at: {plain(made.text, 120)}. TRY: without --credentials")
    try:
        text = client.request("GET", job, page=True).text
    finally:
        client.request("DELETE", job, accept=(200, 204, 303, 404), redirects=False, page=True)
    found = re.search(r"<(?:\w+:)?ownerId[^>]*>\s*([^<]*?)\s*<", text)
    return found[1] if found else ""
