"""The client and the downloads of `xp fetch` against a server that misbehaves on purpose."""

import hashlib
import os
import threading
import time

import pytest
from servers import Files, serving

from xptools.archive.download import download
from xptools.archive.http import Client, Refused, Unreached, WebPage, is_page, retry_after
from xptools.errors import DataError, DiskError, OutputError, PermissionFault, RemoteError, UnavailableError, UsageError

BODY = os.urandom(1_500_000)
MD5 = hashlib.md5(BODY).hexdigest()


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("XP_OFFLINE", raising=False)


@pytest.fixture(scope="module")
def server():
    with serving(Files({"map.h5": BODY, "small": b"seven", "empty": b""})) as running:
        running.stall = 1.5
        yield running


@pytest.fixture
def client():
    return Client(timeout=1.0, tries=4, pause=0.01)


@pytest.mark.parametrize("fault", [503, 429, 500, "drop", "cut", "stall", "html", "html202"])
def test_a_fault_that_passes_is_not_seen(server, client, fault):
    server.plan(("GET", "small", {1, 2} if fault != "stall" else {1}, fault))
    assert client.request("GET", f"{server.url}/small").content == b"seven"


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        (503, RemoteError, "busy or failing .HTTP 503"),
        ("drop", RemoteError, "broke the connection"),
        ("html202", WebPage, "gave an HTML page .HTTP 202., not data"),
        (403, PermissionFault, "does not let you in"),
        (404, Refused, "refuses .HTTP 404.: busy"),
    ],
)
def test_a_fault_that_stays_is_one_sentence(server, client, fault, kind, words):
    server.plan(("*", "small", "*", fault))
    with pytest.raises(kind, match=words) as told:
        client.request("GET", f"{server.url}/small")
    assert "TRY:" in str(told.value) and "\n" not in str(told.value)
    assert len(server.log) == (1 if fault in (403, 404) else 4)


def test_nobody_there(client):
    with serving(Files({})) as gone:
        url = gone.url
    with pytest.raises(Unreached, match="cannot be reached"):
        client.request("GET", url)
    with pytest.raises(UsageError, match="no web address"):
        client.request("GET", "gea.esac.esa.int")


def test_offline_is_refused_before_anything(monkeypatch):
    monkeypatch.setenv("XP_OFFLINE", "1")
    with pytest.raises(UnavailableError, match="network may not be used"):
        Client()


def test_without_retry_a_lost_answer_is_told_at_once(server, client):
    server.plan(("POST", "small", {1}, "dropafter"))
    with pytest.raises(RemoteError):
        client.request("POST", f"{server.url}/small", retry=False)
    assert len(server.log) == 1


def test_retry_after_is_read_by_the_server_s_clock():
    """A server whose clock is a year wrong still means a minute."""
    skewed = {"Retry-After": "Wed, 21 Oct 2015 07:29:00 GMT", "Date": "Wed, 21 Oct 2015 07:28:00 GMT"}
    assert retry_after(skewed) == 60 and retry_after({"Retry-After": "7"}) == 7
    assert retry_after({}) is None and retry_after({"Retry-After": "soon"}) is None


def test_the_wait_that_a_server_asks_for_is_kept_and_grows_without(client, monkeypatch):
    waits, replies = [], [(429, {"Retry-After": "7"}), (503, {}), (503, {}), (200, {})]
    monkeypatch.setattr("xptools.archive.http.Client.rest", lambda self, seconds: waits.append(seconds))
    with serving(lambda request: (*replies.pop(0), b"seven")) as server:
        assert client.request("GET", server.url).content == b"seven"
        assert waits == [7.0, client.pause * 2, client.pause * 4]
        replies[:] = [(503, {"Retry-After": "86400"})]
        with pytest.raises(RemoteError, match="busy"):  # a day is not waited for
            client.request("GET", server.url)
        assert len(waits) == 3


def test_a_full_disc_while_downloading(server, client, tmp_path, monkeypatch):
    monkeypatch.setattr("xptools.archive.download.open", lambda *_: open("/dev/full", "wb", buffering=0), raising=False)
    server.plan()
    with pytest.raises(DiskError, match="No space left"):
        download(client, f"{server.url}/map.h5", tmp_path / "map.h5")
    assert not (tmp_path / "map.h5").exists()


def test_pages_are_known_from_tables():
    assert is_page("", b"\xef\xbb\xbf <HTML>") and is_page("text/html; charset=x", b" <h1>no</h1>")
    assert is_page("application/xml", b'<?xml version="1.0"?><!DOCTYPE html PUBLIC>')
    assert not is_page("application/x-votable+xml", b'<?xml version="1.0"?><VOTABLE>') and not is_page(
        "text/html", b"1,2"
    )


@pytest.mark.parametrize("fault", [None, 503, "drop", "cut", "stall", "html202", "html"])
def test_download(server, client, tmp_path, fault):
    server.plan(*([("GET", "map", {1}, fault)] if fault else []))
    seen = []
    target = download(client, f"{server.url}/map.h5", tmp_path / "new" / "map.h5", sums={"md5": MD5}, hook=seen.append)
    assert target.read_bytes() == BODY and sum(seen) == len(BODY)
    assert [p.name for p in target.parent.iterdir()] == ["map.h5"]


def began(asked: str) -> int:
    return int(asked.removeprefix("bytes=").removesuffix("-"))


def test_a_cut_download_goes_on_where_it_was(server, client, tmp_path):
    server.plan(("GET", "map", {1, 2, 3, 4, 5}, "cut"))  # more faults than tries: each got further
    download(client, f"{server.url}/map.h5", tmp_path / "map.h5", size=len(BODY))
    assert (tmp_path / "map.h5").read_bytes() == BODY
    ranges = [h.get("Range") for _, _, h, _ in server.log]
    assert ranges[0] is None and all(began(h) > 600_000 for h in ranges[1:])


def test_a_download_given_up_is_resumed_by_the_next_run(server, client, tmp_path):
    server.plan(("GET", "map", {1}, "cut"), ("GET", "map", "*", 503))
    with pytest.raises(RemoteError):
        download(client, f"{server.url}/map.h5", tmp_path / "map.h5")
    assert not (tmp_path / "map.h5").exists()
    server.plan()
    download(client, f"{server.url}/map.h5", tmp_path / "map.h5")
    assert (tmp_path / "map.h5").read_bytes() == BODY and began(server.log[0][2]["Range"]) > 600_000


def test_a_file_that_changed_meanwhile_is_begun_again(client, tmp_path):
    there = {"f": BODY}
    with serving(Files(there)) as server:
        server.plan(("GET", "f", {1}, "cut"), ("GET", "f", "*", 503))
        with pytest.raises(RemoteError):
            download(client, f"{server.url}/f", tmp_path / "f")
        there["f"] = new = os.urandom(900_000)
        server.plan()
        assert download(client, f"{server.url}/f", tmp_path / "f").read_bytes() == new


def test_without_a_validator_nothing_is_spliced(client, tmp_path):
    with serving(Files({"f": BODY}, tag=False)) as server:
        server.plan(("GET", "f", {1}, "cut"))
        assert download(client, f"{server.url}/f", tmp_path / "f").read_bytes() == BODY
        assert [h.get("Range") for _, _, h, _ in server.log] == [None, None]


@pytest.mark.parametrize("what", [{"size": 7}, {"sums": {"md5": "0" * 32}}, {"sums": {"sha256": "0" * 64}}])
def test_a_wrong_file_is_refused_and_nothing_is_kept(server, client, tmp_path, what):
    server.plan()
    with pytest.raises(DataError, match=r"not 7|not 0000"):
        download(client, f"{server.url}/map.h5", tmp_path / "map.h5", **what)
    assert len(server.log) == 2 and list(tmp_path.iterdir()) == []


def test_a_body_cut_without_a_length_needs_the_size(server, client, tmp_path):
    server.plan(("GET", "map", {1}, "cuteof"))
    assert download(client, f"{server.url}/map.h5", tmp_path / "m", size=len(BODY)).read_bytes() == BODY


def test_two_at_once_do_not_write_one_file(server, client, tmp_path):
    """The second is told; what the first makes is whole."""
    server.plan(("GET", "map", {1}, "stall"))
    target, url = tmp_path / "map.h5", f"{server.url}/map.h5"
    first = threading.Thread(target=download, args=(client, url, target))
    first.start()
    while not target.with_name("map.h5.part.lock").exists():
        time.sleep(0.01)
    with pytest.raises(OutputError, match="another xp fetch works in"):
        download(client, url, target)
    first.join()
    assert target.read_bytes() == BODY and [p.name for p in tmp_path.iterdir()] == ["map.h5"]
    assert download(client, url, target) == target


def test_an_empty_file(server, client, tmp_path):
    server.plan()
    assert download(client, f"{server.url}/empty", tmp_path / "e", size=0).read_bytes() == b""
