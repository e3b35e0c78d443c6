"""A real TAP service on loopback: GAVO's DaCHS over a PostgreSQL cluster of its own, in a folder that goes away.

Needs Debian's python3-gavo, postgresql with pgsphere and q3c (.ci/run installs them; never gavodachs2-server, whose
installation wants a running database). `python dachs.py` starts one, prints its address and stops it at a signal.
"""

import contextlib
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

if __package__:
    from tests.tap import universe
else:
    import universe

SETTINGS = """\
[general]
rootDir: {root}/gavo
group: {group}
gavoGroup: {group}
[web]
bindAddress: 127.0.0.1
serverPort: {port}
serverURL: http://127.0.0.1:{port}
alternateHostnames: localhost
user: {user}
adaptProtocol: False
sitename: xptools tests
sqlTimeout: 60
maxUploadSize: 200000000
[async]
defaultMAXREC: 2000
hardMAXREC: {most}
defaultExecTimeSync: 30
defaultExecTime: 600
maxTAPRunning: 3
[ivoa]
authority: x.xptools
"""
POSTGRES = """\
listen_addresses='127.0.0.1'
port={port}
unix_socket_directories='{root}'
fsync=off
full_page_writes=off
synchronous_commit=off
shared_buffers=64MB
jit=off
"""


def missing() -> str:
    """Why DaCHS cannot be started here, "" if it can."""
    if not shutil.which("dachs"):
        return "python3-gavo is not installed"
    if postgres_programs() is None:
        return "postgresql is not installed"
    if not list(Path("/usr/share/postgresql").glob("*/extension/pg_sphere--?.?.?.sql")):
        return "postgresql-pgsphere is not installed"
    if not list(Path("/usr/share/postgresql").glob("*/extension/q3c.control")):
        return "postgresql-q3c is not installed"
    return ""


def postgres_programs() -> Path | None:
    """The folder of initdb and pg_ctl."""
    return next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Dachs:
    """The service: `url` once `start()` has returned; `stop()` leaves no process and no file.

    `rows` stars; at most `most` rows an answer, whatever is asked for.
    """

    def __init__(self, rows: int, most: int):
        self.rows, self.most = rows, most
        self.root = Path(tempfile.mkdtemp(prefix="xp-tap-"))
        self.user = "postgres" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
        self.port, self.pgport, self.server = free_port(), free_port(), None
        self.url = f"http://127.0.0.1:{self.port}/tap"

    def start(self) -> "Dachs":
        """Make the cluster, the tables and the rows, and serve them."""
        group = f"{pwd.getpwnam(self.user).pw_gid}"
        words = {"root": self.root, "port": self.port, "user": self.user, "most": self.most}
        import grp

        (self.root / "gavo.rc").write_text(SETTINGS.format(group=grp.getgrgid(int(group)).gr_name, **words))
        universe.write(self.root, self.rows)
        inputs = self.root / "gavo" / "inputs"
        for schema, text in universe.descriptors().items():
            (inputs / schema).mkdir(parents=True)
            (inputs / schema / "q.rd").write_text(text)
        self._own()
        self._postgres()
        self.run("dachs", "init", "-d", f"host=127.0.0.1 port={self.pgport} dbname=gavo user={self.user}")
        for schema in universe.descriptors():
            self.run("dachs", "imp", f"{schema}/q")
        for table, columns in universe.tables().items():
            file = self.root / f"{table}.csv"
            self.sql(f"\\copy {table}({','.join(columns)}) from '{file}' csv")
        self.sql("analyze")
        return self._serve()

    def _own(self) -> None:
        self.root.chmod(0o755)
        if os.getuid() == 0:
            for path in (self.root, *self.root.rglob("*")):
                shutil.chown(path, self.user, pwd.getpwnam(self.user).pw_gid)

    def _postgres(self) -> None:
        data = self.root / "pg"
        self.run("initdb", "-D", data, "-U", self.user, "-A", "trust", "-E", "UTF8", "--no-locale", "-N")
        with (data / "postgresql.conf").open("a") as f:
            f.write(POSTGRES.format(port=self.pgport, root=self.root))
        self.run("pg_ctl", "-D", data, "-l", self.root / "pg.log", "-w", "-t", "60", "start")
        self.run("createdb", "-h", "127.0.0.1", "-p", self.pgport, "-U", self.user, "--template", "template0", "gavo")
        self._sphere()

    def _sphere(self) -> None:
        """Load pgsphere as an extension without its commutators, which a newer PostgreSQL finds contradictory."""
        script = next(
            iter(sorted(Path("/usr/share/postgresql").glob("*/extension/pg_sphere--?.?.?.sql"), reverse=True))
        )
        text = script.read_text().replace("MODULE_PATHNAME", "$libdir/pg_sphere")
        text = re.sub(r"(?im)^\\echo.*$|^\s*(COMMUTATOR|NEGATOR)\s*=\s*[^,)\n]*,?", "", text)
        (self.root / "sphere.sql").write_text(text)
        self.sql(self.root / "sphere.sql")
        version = script.stem.rpartition("--")[2]
        self.sql(
            "insert into pg_extension (oid, extname, extowner, extnamespace, extrelocatable, extversion) "
            f"values (90001, 'pg_sphere', 10, 2200, true, '{version}')"
        )

    def _serve(self) -> "Dachs":
        with (self.root / "serve.log").open("wb") as log:
            self.server = subprocess.Popen(
                self.command("dachs", "serve", "start", "--foreground"),
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.root, start_new_session=True,
            )  # fmt: skip
        for _ in range(240):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/capabilities", timeout=5):
                return self
            time.sleep(0.25)
        raise RuntimeError((self.root / "serve.log").read_text()[-2000:])

    def sql(self, what: str | Path) -> str:
        """What psql prints for a statement or a script."""
        words = ["-f", what] if isinstance(what, Path) else ["-c", what]
        place = ("-h", "127.0.0.1", "-p", self.pgport, "-U", self.user, "gavo")
        return self.run("psql", "-qtAX", "-v", "ON_ERROR_STOP=1", *place, *words)

    def command(self, *words) -> list[str]:
        """A command line as the database's user, in an environment of its own."""
        path = f"/usr/bin:/bin:{postgres_programs()}"
        clean = ["env", "-i", f"PATH={path}", "LC_ALL=C.UTF-8", f"HOME={self.root}", "GAVO_LOG=no"]
        clean.append(f"GAVOSETTINGS={self.root / 'gavo.rc'}")
        drop = ["setpriv", "--reuid", self.user, "--regid", str(pwd.getpwnam(self.user).pw_gid), "--clear-groups"]
        return [*(drop if os.getuid() == 0 else []), *clean, *map(str, words)]

    def run(self, *words) -> str:
        """Run it; RuntimeError with what it said if it fails."""
        with tempfile.TemporaryFile() as out:
            # pg_ctl leaves a server behind that keeps a pipe open; a file does not mind
            done = subprocess.run(
                self.command(*words), stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=self.root, check=False
            )
            out.seek(0)
            text = out.read().decode("utf-8", "replace")
        if done.returncode:
            raise RuntimeError(f"{' '.join(map(str, words[:3]))} failed: {text[-1500:]}")
        return text

    def stop(self) -> None:
        """End both servers and remove every file."""
        if self.server is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.server.pid, signal.SIGTERM)
            try:
                self.server.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self.server.pid, signal.SIGKILL)
        if (self.root / "pg" / "postmaster.pid").exists():
            with contextlib.suppress(RuntimeError):
                self.run("pg_ctl", "-D", self.root / "pg", "-m", "immediate", "-w", "stop")
        shutil.rmtree(self.root, ignore_errors=True)


if __name__ == "__main__":
    service = Dachs(40_000, 8000)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        print(service.start().url, flush=True)
        signal.pause()
    except KeyboardInterrupt:
        pass
    finally:
        service.stop()
