"""Fixtures for tests of the hook: a sandbox, and a Connection in the metadata database that leads to it."""

import json
import os
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from kuaimai.sandbox import Sandbox, World

START = datetime(2026, 3, 1, tzinfo=timezone(timedelta(hours=8)))
DAY = 86_400.0


@pytest.fixture
def box(clock):
    """A sandbox whose clock only the test moves."""
    clock.at = START.timestamp() + DAY
    with Sandbox(World(start=START, seed=7, orders_per_hour=5), now=clock) as box:
        yield box


@pytest.fixture
def real_box():
    """A sandbox on the real clock, for code that nobody can give another one."""
    start = datetime.fromtimestamp(time.time() - DAY, START.tzinfo)
    with Sandbox(World(start=start, seed=7, orders_per_hour=5)) as box:
        yield box


@pytest.fixture
def connect(session, monkeypatch):
    """A function that stores a Connection with a sandbox's credentials, some fields changed."""
    from airflow.models import Connection, Variable

    monkeypatch.setenv(
        "_AIRFLOW_PROCESS_CONTEXT", "server"
    )  # as in 3.x's servers: Connections in the database

    def store(credentials, *, host, conn_id="kuaimai_default", **changes):
        extra = {
            "access_token": credentials.access_token,
            "refresh_token": credentials.refresh_token,
            "requests_per_second": 1000,
        }
        fields = {
            "host": host,
            "login": credentials.app_key,
            "password": credentials.app_secret,
        }
        for name, value in changes.items():
            (fields if name in fields else extra)[name] = value
        session.query(Connection).filter(Connection.conn_id == conn_id).delete()
        session.add(Connection(conn_id=conn_id, conn_type="generic", extra=json.dumps(extra), **fields))
        session.commit()

    yield store
    session.rollback()
    session.query(Connection).delete(synchronize_session=False)
    session.query(Variable).filter(Variable.key.like("kuaimai%")).delete(synchronize_session=False)
    session.commit()
    (Path(os.environ["AIRFLOW_HOME"]) / "kuaimai_state.db").unlink(missing_ok=True)


@pytest.fixture
def hook(box, clock, connect):
    """A hook in drop-in mode: the Connection is of type Generic."""
    from kuaimai.airflow.hooks import KuaimaiHook

    connect(box.credentials, host=box.url)
    hook = KuaimaiHook(now=clock, sleep=clock.sleep)
    yield hook
    hook.close()


@pytest.fixture
def masked():
    """A function: a log line as Airflow writes it."""
    from airflow.providers.common.compat.sdk import redact

    return redact
