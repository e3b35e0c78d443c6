"""`xp fetch recipe` and the credentials: what papers need, and who asks for it."""

import pytest
from servers import serving

from fetch.services import Login
from xptools import cli, manifest
from xptools.archive import credentials
from xptools.archive.http import Client
from xptools.errors import InputError, PermissionFault
from xptools.recipes import recipes


@pytest.mark.parametrize("name", sorted(recipes()))
def test_the_list_needs_no_network_and_shows_every_step(inside, name, monkeypatch):
    monkeypatch.setenv("XP_OFFLINE", "1")
    code, out, said = inside("fetch", "recipe", name, "--list")
    assert code == 0, said
    assert recipes()[name].title in out and not said
    assert all(step.what in out for step in recipes()[name].steps)


def test_steps_are_commands_and_data_that_there_are():
    keys = {e.key for e in manifest.external()}
    for recipe in recipes().values():
        for step in recipe.steps:
            assert bool(step.run) != bool(step.later)
            assert not step.data or (step.data in keys and step.data in step.run)
            if step.run:
                group, sub, *_ = step.run.split()
                assert sub in cli.xp.get_command(None, group).list_commands(None)


def test_an_unknown_recipe(inside):
    code, _, said = inside("fetch", "recipe", "nobody1900")
    assert code == 2 and "TRY: li2026, zhang2026, laroche2024" in said


def test_offline_stops_at_the_first_step_and_names_it(inside, monkeypatch, tmp_path):
    monkeypatch.setenv("XP_OFFLINE", "1")
    monkeypatch.setenv("XP_CACHE", str(tmp_path))
    code, _, said = inside("fetch", "recipe", "laroche2024", "--to", tmp_path)
    assert code == 69 and "xp-vae" in said and "502,311" in said


def test_what_is_here_is_not_fetched(inside, monkeypatch, tmp_path):
    monkeypatch.setenv("XP_OFFLINE", "1")
    monkeypatch.setenv("INPUT_DIR", str(tmp_path))
    (tmp_path / "xp_apogee_cat.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    code, out, said = inside("fetch", "recipe", "laroche2024", "--to", tmp_path)
    assert code == 0, said
    assert str(tmp_path / "xp_apogee_cat.h5") in out and "(here)" in said


# --- credentials ---------------------------------------------------------------------------------------------------


@pytest.fixture
def secret(tmp_path):
    def write(text, mode=0o600):
        path = tmp_path / "secret"
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    return write


def test_credentials_in_all_spellings(secret):
    assert credentials.read(secret("user = ann\npassword = 'a=b'\n")).password == "a=b"
    assert credentials.read(secret("ann\nword\n")).user == "ann"
    assert credentials.read(secret("# mine\ntoken: abc\n")).token == "abc"
    assert "word" not in repr(credentials.read(secret("ann\nword\n")))


def test_credentials_that_others_can_read_or_that_are_none(secret):
    for mode in (0o640, 0o604, 0o666):
        with pytest.raises(PermissionFault, match="chmod 600"):
            credentials.read(secret("ann\nword\n", mode))
    with pytest.raises(PermissionFault, match="no user"):
        credentials.read(secret("user = ann\n"))
    with pytest.raises(InputError):
        credentials.read("/nowhere/at/all")


@pytest.mark.parametrize(
    ("works", "password", "words"),
    [(True, "word", ""), (False, "word", "knows us as"), ("cookieless", "word", "no session"), (True, "no", "401")],
)
def test_a_login_is_looked_at_twice(works, password, words):
    with serving() as there:
        archive = Login(there, works)
        client, tap = Client(pause=0.01), f"{there.url}/tap-server/tap"
        known = credentials.Credentials("ann", password)
        if words:
            with pytest.raises(PermissionFault, match=words):
                credentials.sign_in(client, tap, known)
        else:
            assert credentials.sign_in(client, tap, known, (f"{there.url}/data-server/login",)) == "ann"
            assert archive.logins == ["/tap-server/login", "/data-server/login"]
        assert archive.jobs == 0
