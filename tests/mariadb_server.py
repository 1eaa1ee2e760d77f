"""A real MariaDB server for tests, in a folder of its own, without root."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# Debian puts the server where only root's PATH looks.
_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin", "/usr/libexec"))
_START_SECONDS = 60
# Tests kill clients, never the server: nothing has to survive a power cut.
_QUICK = (
    "--innodb-flush-log-at-trx-commit=0",
    "--innodb-doublewrite=0",
    "--innodb-buffer-pool-size=64M",
    "--innodb-log-file-size=16M",
    "--skip-log-bin",
)


@contextmanager
def running_mariadb() -> Iterator[Path]:
    """Run a server and give its socket; user `root`, no password. It listens on no port."""
    pytest.importorskip("pymysql", reason="PyMySQL is not installed")
    server = shutil.which("mariadbd", path=_PATH)
    installer = shutil.which("mariadb-install-db", path=_PATH)
    if not server or not installer:
        pytest.skip(
            "MariaDB is not installed on this machine (Debian and Ubuntu: apt install mariadb-server)"
        )
    folder = Path(tempfile.mkdtemp(prefix="kuaimai-maria-"))
    user = f"--user={getpass.getuser()}"
    log = folder / "server.log"
    try:
        subprocess.run(
            [
                *(installer, "--no-defaults", f"--datadir={folder}/data", user, "--skip-test-db"),
                "--auth-root-authentication-method=normal",
            ],
            check=True,
            capture_output=True,
        )
        path = folder / "server.sock"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *(server, "--no-defaults", f"--datadir={folder}/data", user, f"--socket={path}"),
                    *("--skip-networking", f"--pid-file={folder}/server.pid", *_QUICK),
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            _wait(process, path, log)
            yield path
        finally:
            process.terminate()
            process.wait(_START_SECONDS)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def admin(path: Path):
    """Give a cursor of the server itself, outside of any transaction."""
    import pymysql

    connection = pymysql.connect(unix_socket=str(path), user="root", autocommit=True)
    try:
        yield connection.cursor()
    finally:
        connection.close()


def _wait(process: subprocess.Popen[bytes], path: Path, log: Path) -> None:
    until = time.monotonic() + _START_SECONDS
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                return
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"MariaDB did not start: {log.read_text()[-2000:]}")
        time.sleep(0.05)
