"""The DAG runs, by the real scheduler, in either mode, and gives the truth."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

import pytest
import sqlalchemy as sa
from airflow_processes import airflow_line, eventually, running

COMPONENTS = {
    # Without UI: only what tasks talk to.
    3: ("api-server --apps execution", "scheduler --skip-serve-logs", "dag-processor"),
    2: ("scheduler --skip-serve-logs",),
}


@pytest.fixture(params=["dropped_in", "installed"])
def home(request):
    return request.getfixturevalue(request.param)


def first_run(home):
    """Return how the first run of the DAG ended, None while it has not."""
    metadata = f"file:{home.folder}/airflow.db?mode=ro"
    with closing(sqlite3.connect(metadata, uri=True, timeout=30)) as connection:
        ended = connection.execute(
            "SELECT state FROM dag_run WHERE dag_id = 'kuaimai_trades' AND state IN ('success', 'failed')"
        ).fetchone()
    return ended and ended[0]


def test_the_first_run_lands_the_truth(home, sandbox):
    with running(home, *COMPONENTS[airflow_line()]):
        state = eventually(lambda: first_run(home), within=240, home=home, what="the run of kuaimai_trades")
    assert state == "success"

    target = json.loads(home.variables["AIRFLOW_CONN_KUAIMAI_TARGET"])
    engine = sa.create_engine(
        f"postgresql+psycopg2://{target['login']}@/{target['schema']}?host={target['host']}"
    )
    with engine.connect() as connection:
        states = connection.execute(sa.text("SELECT DISTINCT state FROM kuaimai_window")).scalars().all()
        stored = dict(connection.execute(sa.text("SELECT sid, _version FROM kuaimai_trade")).fetchall())
    engine.dispose()
    assert states == ["sealed"]
    assert stored
    # The merchant goes on selling: what was stored then may be newer now, never unknown or older.
    truth = {sid: record["updTime"] for sid, record in sandbox.truth().items()}
    assert {sid for sid, at in stored.items() if truth.get(sid, 0) < at} == set()
