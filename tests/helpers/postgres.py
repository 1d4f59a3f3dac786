"""A PostgreSQL server for a test, from the programs that the system has."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def programs() -> Path | None:
    """The folder of initdb and pg_ctl: on PATH, or where Debian puts them."""
    initdb = shutil.which("initdb")
    if initdb:
        return Path(initdb).parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)


class Postgres:
    """A running server; `url` is its database."""

    def __init__(self, bin: Path, folder: Path) -> None:
        self.bin, self.folder = bin, folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"postgresql://sweeper:secret@127.0.0.1:{self.port}/postgres"

    def run(self, program: str, *arguments: str) -> None:
        """Run one of its programs, as another user where this one is root, whom it refuses."""
        user = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
        done = subprocess.run(
            [str(self.bin / program), *arguments],
            stdout=subprocess.DEVNULL,  # the server itself would hold a pipe open
            stderr=subprocess.DEVNULL,
            cwd=self.folder,
            check=False,
            **user,
        )
        assert done.returncode == 0, (program, arguments, self.log())

    def log(self) -> str:
        file = self.folder / "log"
        return file.read_text() if file.exists() else ""

    def create(self) -> None:
        password = self.folder / "password"
        password.write_text("secret")
        password.chmod(0o644)
        data = str(self.folder / "data")
        self.run(
            "initdb", "-D", data, "-U", "sweeper", f"--pwfile={password}", "-A", "scram-sha-256"
        )

    def control(self, what: str, *more: str) -> None:
        """start, stop or restart, as a crash with `-m immediate`."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.folder}"
        where = ("-D", str(self.folder / "data"), "-l", str(self.folder / "log"), "-w")
        self.run("pg_ctl", what, *where, *(("-o", options) if what != "stop" else ()), *more)


@contextmanager
def serving() -> Iterator[Postgres]:
    """A running server; skips the test where PostgreSQL is not installed."""
    pytest.importorskip("psycopg")
    bin = programs()
    if bin is None:
        pytest.skip("no PostgreSQL server here; on Debian: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="mic-pg-"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    server = Postgres(bin, folder)
    try:
        server.create()
        server.control("start")
        yield server
    finally:
        if (folder / "data/postmaster.pid").exists():
            server.control("stop", "-m", "immediate")
        shutil.rmtree(folder)
