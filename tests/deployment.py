"""A whole deployment with real processes: Airflow, the package dropped in, gateway, target, chat channel."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from airflow_home import PATIENCE, Home
from airflow_processes import airflow_line, eventually, free_port, running
from inbox import Inbox, open_inbox

from kuaimai.sandbox import Faults, Sandbox, World

ROOT = Path(__file__).resolve().parent.parent
CHINA = timezone(timedelta(hours=8))
TICK = timedelta(minutes=5)
DAG_ID = "kuaimai_trades"
PASSWORD = "invented-target-password-4711"

# Appended to the copy of the DAG file: what is tried again is tried again soon.
_IMPATIENT = """
for task in dag.tasks:
    task.retry_delay = __import__("datetime").timedelta(seconds=1)
    task.retry_exponential_backoff = False
"""

# One process for many commands: Airflow takes seconds to start.
_COMMANDS = """
import json, sys
from airflow.cli.cli_parser import get_parser
parser = get_parser()
for line in sys.stdin:
    arguments = parser.parse_args(json.loads(line))
    try:
        arguments.func(arguments)
    except BaseException as error:
        print("FAILED", repr(error))
    print("DONE", flush=True)
"""

# Five minutes may end during the tests; that run must not read what other tests are about to read.
_FORGETFUL = "\ntime:\n  heal_days: 0\n"


class Commands:
    """Runs `airflow` commands in one process of the home."""

    def __init__(self, home: Home) -> None:
        self._log = (home.folder / "commands.log").open("wb")
        self._process = subprocess.Popen(
            [str(home.python), "-c", _COMMANDS],
            cwd=home.folder,
            env=home.variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def run(self, *arguments: str) -> None:
        """Run a command to its end; it must not fail."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()
        said = []
        for line in self._process.stdout:
            if line == "DONE\n":
                break
            said.append(line)
        assert not any(line.startswith("FAILED") for line in said), "".join(said)
        assert self._process.poll() is None, "".join(said)

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=PATIENCE)
        self._log.close()


@dataclass
class Deployment:
    """What the tests of one module share. Nothing changes at the merchant's after `until`."""

    home: Home
    box: Sandbox
    inbox: Inbox
    metadata: sa.engine.Engine
    target: sa.engine.Engine
    until: datetime
    commands: Commands
    secrets: set[str] = field(default_factory=set)

    # Airflow

    def airflow(self, statement: str, **values: Any) -> list[Any]:
        """Ask Airflow's metadata database."""
        return _rows(self.metadata, statement, values)

    def trigger(self, run_id: str, start: datetime, end: datetime, **params: Any) -> None:
        """Start a run by hand for an interval."""
        self.start(DAG_ID, run_id, start=start.isoformat(), end=end.isoformat(), **params)

    def start(self, dag_id: str, run_id: str, **params: Any) -> None:
        """Start a run of any DAG by hand."""
        self.commands.run("dags", "trigger", dag_id, "--run-id", run_id, "--conf", json.dumps(params))

    def ended(self, run_id: str, *, dag_id: str = DAG_ID) -> Any:
        """Wait for a run's end and return its row."""
        [row] = eventually(
            lambda: self.airflow(
                "SELECT state, queued_at, end_date, data_interval_start, data_interval_end FROM dag_run "
                "WHERE dag_id = :dag AND run_id = :run AND state IN ('success', 'failed')",
                dag=dag_id,
                run=run_id,
            ),
            home=self.home,
            what=f"the end of {run_id}",
        )
        return row

    def succeeded(self, run_id: str, *, dag_id: str = DAG_ID) -> Any:
        """Wait for a run's end, which must be a success, and return its row."""
        row = self.ended(run_id, dag_id=dag_id)
        assert row.state == "success", f"{run_id}: {row.state}\n{self.told(run_id, dag_id)}"
        return row

    def told(self, run_id: str, dag_id: str = DAG_ID) -> str:
        """Return what the logs of a run's tasks say."""
        logs = sorted((self.home.folder / "logs").glob(f"dag_id={dag_id}/run_id={run_id}/**/*.log"))
        return "\n".join(f"--- {log.relative_to(self.home.folder)}\n{log.read_text('utf-8')}" for log in logs)

    def connection(self, conn_id: str, **changes: str) -> None:
        """Change encrypted fields of a Connection, as a person with the form would."""
        from cryptography.fernet import Fernet

        fernet = Fernet(self.home.variables["AIRFLOW__CORE__FERNET_KEY"])
        for name, value in changes.items():
            with self.metadata.begin() as connection:
                connection.execute(
                    sa.text(f"UPDATE connection SET {name} = :value WHERE conn_id = :conn_id"),
                    {"value": fernet.encrypt(value.encode()).decode(), "conn_id": conn_id},
                )

    # Target

    def rows(self, statement: str, **values: Any) -> list[Any]:
        """Ask the target."""
        return _rows(self.target, statement, values)

    def differences(self, start: datetime, end: datetime, shops: tuple[str, ...] = ()) -> dict[str, Any]:
        """Compare target and truth: orders last changed in an interval, with amount, status and lines."""
        first, last = start.timestamp() * 1000, end.timestamp() * 1000
        bad = self.box.bad()
        truth = {
            sid: _fact(record)
            for sid, record in self.box.truth().items()
            if first <= record["updTime"] <= last
            and sid not in bad
            and (not shops or str(record["userId"]) in shops)
        }
        lines: dict[str, dict[str, int]] = {}
        for sid, key, num in self.rows(
            "SELECT sid, id, num FROM kuaimai_trade_line WHERE _deleted_at IS NULL"
        ):
            lines.setdefault(sid, {})[key] = num
        stored = {
            row[0]: (*row[1:], lines.get(row[0], {}))
            for row in self.rows(
                "SELECT sid, _version, sys_status, payment FROM kuaimai_trade "
                "WHERE _version BETWEEN :first AND :last",
                first=first,
                last=last,
            )
        }
        assert truth, "the interval is empty"
        return {
            sid: {"truth": truth.get(sid), "target": stored.get(sid)}
            for sid in sorted(truth.keys() | stored.keys())
            if truth.get(sid) != stored.get(sid)
        }

    def open_windows(self) -> list[Any]:
        """Windows that are not proven complete."""
        return self.rows("SELECT * FROM kuaimai_window WHERE state IN ('open', 'contested')")


def _fact(record: dict[str, Any]) -> tuple[Any, ...]:
    lines = {str(line["id"]): line["num"] for line in record["orders"]}
    payment = record.get("payment")  # some platforms' orders come without amounts
    return record["updTime"], record["sysStatus"], None if payment is None else Decimal(payment), lines


def _rows(engine: sa.engine.Engine, statement: str, values: dict[str, Any]) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(sa.text(statement), values).fetchall())


@contextlib.contextmanager
def deployment(folder: Path, new_database: Callable[[], str], **faults: Any) -> Iterator[Deployment]:
    """Run it all, DAGs paused. The merchant was busy for six hours until the last full five minutes."""
    now = time.time()
    until = datetime.fromtimestamp(now - now % TICK.total_seconds(), CHINA)
    world = World(
        start=until - timedelta(hours=6), until=until, orders_per_hour=600, history_orders=100, days_back=1
    )
    with contextlib.ExitStack() as stack:
        box = stack.enter_context(Sandbox(world, faults=Faults(rotate_tokens=True, **faults)))
        inbox = stack.enter_context(open_inbox())
        home = Home(folder, Path(sys.executable), **_settings(new_database()))
        _drop_in(home)
        target = _target(new_database())
        engines = [
            sa.create_engine(url, future=True)
            for url in (home.variables["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"], target)
        ]
        for engine in engines:
            stack.callback(engine.dispose)
        home.airflow("db", "migrate")
        commands = Commands(home)
        stack.callback(commands.close)
        made = Deployment(home, box, inbox, *engines, until, commands)
        made.secrets |= {*_secrets(box), PASSWORD}
        names = (
            ["scheduler"]
            if airflow_line() == 2
            else ["api-server", "scheduler", "dag-processor", "triggerer"]
        )
        with running(home, *names):
            _import_connections(made)
            # 2.11 writes a file's serialized DAGs first, and commits; what can be unpaused comes after them.
            known = "SELECT 1 FROM serialized_dag JOIN dag USING (dag_id) WHERE dag_id = :dag"
            eventually(
                lambda: made.airflow(known, dag=DAG_ID),
                home=home,
                what="the DAG",
            )
            yield made


def _settings(database: str) -> dict[str, str]:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    return {
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": database.replace("psycopg2", "psycopg_async"),
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__API__BASE_URL": address,
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{address}/execution/",
    }


def _drop_in(home: Home) -> None:
    for name in ("dags", "plugins", "include"):
        shutil.copytree(ROOT / name, home.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    with (home.folder / "dags" / "kuaimai_pipelines.py").open("a", encoding="utf-8") as dag_file:
        dag_file.write(_IMPATIENT)
    pipeline = home.folder / "include" / "pipelines" / "trades.yaml"
    text = pipeline.read_text("utf-8")
    assert text.count("\ntime:\n") == 1
    pipeline.write_text(text.replace("\ntime:\n", _FORGETFUL), "utf-8")


def _target(url: str) -> str:
    """Give an empty database to a user who needs a password, and return that user's address of it."""
    parts = sa.engine.make_url(url)
    owner = f"writer_of_{parts.database}"
    engine = sa.create_engine(url, future=True)
    with engine.connect() as connection:
        server = connection.execution_options(isolation_level="AUTOCOMMIT")
        server.execute(sa.text(f"CREATE ROLE {owner} LOGIN PASSWORD '{PASSWORD}'"))
        server.execute(sa.text(f"ALTER DATABASE {parts.database} OWNER TO {owner}"))
        # What the first line that fits says is done; the lines after it trust everybody on this machine.
        rules = Path(server.execute(sa.text("SHOW hba_file")).scalar())
        rules.write_text(f"local all {owner} scram-sha-256\n{rules.read_text()}")
        server.execute(sa.text("SELECT pg_reload_conf()"))
    engine.dispose()
    return parts.set(username=owner, password=PASSWORD).render_as_string(hide_password=False)


def _import_connections(made: Deployment) -> None:
    given, target = made.box.credentials, made.target.url
    file = made.home.folder / "connections.json"
    file.write_text(
        json.dumps(
            {
                "kuaimai_default": {
                    "conn_type": "generic",
                    "host": made.box.url,
                    "login": given.app_key,
                    "password": given.app_secret,
                    "extra": json.dumps(
                        {
                            "access_token": given.access_token,
                            "refresh_token": given.refresh_token,
                            "requests_per_second": 100,
                        }
                    ),
                },
                "kuaimai_target": {
                    "conn_type": "postgres",
                    "host": target.query["host"],
                    "schema": target.database,
                    "login": target.username,
                    "password": PASSWORD,
                },
                "kuaimai_alerts": {
                    "conn_type": "apprise",
                    "extra": json.dumps({"config": [{"path": made.inbox.webhook}], "quiet_minutes": 0}),
                },
            }
        )
    )
    made.commands.run("connections", "import", str(file))
    file.unlink()


def _secrets(box: Sandbox) -> set[str]:
    now = box.credentials
    return {now.app_secret, now.access_token, now.refresh_token}
