"""The installed package runs its DAG: one interval from a sandbox into a database, in a clean environment."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from contextlib import closing
from datetime import datetime, timedelta, timezone

import pytest
from airflow_home import PATIENCE

from kuaimai.sandbox import Sandbox, World

UNTIL = datetime.now(timezone.utc).replace(minute=0, second=0, microsecond=0)


@pytest.fixture(scope="module")
def box():
    world = World(start=UNTIL - timedelta(hours=1), until=UNTIL, orders_per_hour=600, history_orders=10)
    with Sandbox(world) as opened:
        yield opened


def test_the_installed_dag_lands_one_interval(installed, box):
    target = installed.folder / "target.db"
    given = box.credentials
    connections = {
        "AIRFLOW_CONN_KUAIMAI_DEFAULT": {
            "conn_type": "kuaimai",
            "host": box.url,
            "login": given.app_key,
            "password": given.app_secret,
            "extra": {"access_token": given.access_token, "refresh_token": given.refresh_token},
        },
        "AIRFLOW_CONN_KUAIMAI_TARGET": {"conn_type": "sqlite", "host": str(target)},
    }
    start = UNTIL - timedelta(minutes=5)  # a run by hand covers the interval that had ended at its time
    done = subprocess.run(
        [str(installed.python), "-m", "airflow", "dags", "test", "kuaimai_trades", UNTIL.isoformat()],
        cwd=installed.folder,
        env={**installed.variables, **{name: json.dumps(value) for name, value in connections.items()}},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,  # on 3.3 it trips over the deadline of a run without a logical date, after the last task
    )

    with closing(sqlite3.connect(installed.folder / "airflow.db")) as metadata:
        states = dict(metadata.execute("SELECT task_id, state FROM task_instance").fetchall())
    assert set(states.values()) == {"success"}, done.stdout + done.stderr
    assert {"refresh_session", "plan", "slice.extract", "slice.transform", "slice.load", "seal"} == set(
        states
    )
    with closing(sqlite3.connect(target)) as database:
        landed = database.execute("SELECT sid, _version FROM kuaimai_trade").fetchall()
        windows = database.execute("SELECT DISTINCT state FROM kuaimai_window").fetchall()
    first, last = start.timestamp() * 1000, UNTIL.timestamp() * 1000
    changed = {sid: one["updTime"] for sid, one in box.truth().items() if first <= one["updTime"] <= last}
    assert windows == [("sealed",)]
    assert changed
    assert {sid: version for sid, version in landed if first <= version <= last} == changed
