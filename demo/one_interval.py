"""Follows one run of the DAG and compares the target with the truth."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from services import DAG_ID, DemoError, Process, SandboxGateway, connected

ALLOWED_SECONDS = 600.0
POLL_SECONDS = 0.5
METHOD = "erp.trade.outstock.simple.query"  # decides what is complete

_RUN = "SELECT run_id, state FROM dag_run WHERE dag_id = ? ORDER BY id LIMIT 1"
_TASKS = "SELECT task_id, map_index, try_number, state FROM task_instance WHERE dag_id = ? AND run_id = ?"
_SUMMARY = """
SELECT value FROM xcom WHERE dag_id = ? AND run_id = ? AND task_id = 'seal' AND key = 'return_value'
"""
_WORDS = {"success": "", "up_for_retry": " (failed, is tried again)", "failed": " (failed)"}
_TARGET = """
SELECT t.sid, t._version, t.sys_status,
       (SELECT coalesce(array_agg(l.id), '{}') FROM kuaimai_trade_line AS l
        WHERE l.sid = t.sid AND l._deleted_at IS NULL)
FROM kuaimai_trade AS t
"""
_SEALED = (
    "SELECT min(window_start), max(window_end) FROM kuaimai_window WHERE method = %s AND state = 'sealed'"
)


class Metadata:
    """Airflow's metadata database, only read."""

    def __init__(self, home: Path) -> None:
        self._file = home / "airflow.db"

    def query(self, statement: str, *values: str) -> list[tuple[Any, ...]]:
        """Ask; nothing while Airflow is writing."""
        with (
            contextlib.suppress(sqlite3.OperationalError),
            contextlib.closing(sqlite3.connect(f"file:{self._file}?mode=ro", uri=True)) as connection,
        ):
            return connection.execute(statement, values).fetchall()
        return []


def follow(home: Path, processes: list[Process]) -> dict[str, Any]:
    """Print the tasks of the first run as they end; return what the last line of the demo says.

    Raises:
        DemoError: a process ended, or the run takes too long.
    """
    metadata = Metadata(home)
    told: set[tuple[Any, ...]] = set()
    deadline = time.monotonic() + ALLOWED_SECONDS
    while time.monotonic() < deadline:
        for process in processes:
            process.check()
        for run_id, state in metadata.query(_RUN, DAG_ID):
            for task in metadata.query(_TASKS, DAG_ID, run_id):
                if task[-1] in _WORDS and task not in told:
                    told.add(task)
                    print(f"{task[0]}{_WORDS[task[-1]]} ", end="", flush=True)
            if state in ("success", "failed"):
                return result(state, metadata.query(_SUMMARY, DAG_ID, run_id))
        time.sleep(POLL_SECONDS)
    raise DemoError(f"the run did not end within {ALLOWED_SECONDS:.0f} s; the task logs are in {home}/logs")


def result(state: str, values: list[tuple[Any, ...]]) -> dict[str, Any]:
    """Return the line of JSON for a run that ended in a state, from what its last task returned."""
    summary = json.loads(values[0][0]) if values else {}
    counts = {name: summary.get(name, 0) for name in ("read", "landed", "quarantined")}
    return {"dag": DAG_ID, "state": state, **counts, "sealed": bool(summary.get("sealed", False))}


def differences(gateway: SandboxGateway, socket_folder: str) -> Iterator[str]:
    """Compare the target with what the sandbox knows: every order that was updated in the sealed windows."""
    truth = gateway.ask(f"truth?method={METHOD}")["records"]
    with connected(socket_folder) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('kuaimai_trade') IS NULL OR to_regclass('kuaimai_window') IS NULL")
        if cursor.fetchone()[0]:
            yield "the target has no tables"
            return
        cursor.execute(_SEALED, (METHOD,))
        start, end = cursor.fetchone()
        if start is None:
            yield "the target has no sealed window"
            return
        cursor.execute(_TARGET)
        target = {sid: (version, status, set(lines)) for sid, version, status, lines in cursor.fetchall()}
        cursor.execute("SELECT record_key FROM kuaimai_quarantine")
        aside = {key for (key,) in cursor.fetchall()}
    expected = {
        sid: (record["updTime"], record["sysStatus"], {str(line["id"]) for line in record["orders"]})
        for sid, record in truth.items()
        if milliseconds(start) <= record["updTime"] <= milliseconds(end)
    }
    for sid in sorted(expected.keys() | target.keys()):
        if sid not in target:
            if sid not in aside:
                yield f"{sid}: missing in the target"
        elif sid not in expected:
            yield f"{sid}: in the target, not in the truth of {start} to {end}"
        elif target[sid] != expected[sid]:
            yield f"{sid}: the target has {target[sid]}, the truth is {expected[sid]}"


def milliseconds(moment: datetime) -> float:
    """Return epoch milliseconds."""
    return moment.timestamp() * 1000
