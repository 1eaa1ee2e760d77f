"""Where the coordination store is, and what a database Connection means."""

import json
import os
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from kuaimai.airflow.compat import AIRFLOW_V_3_0, BaseHook
from kuaimai.airflow.stores import database_url, distributed_executors, state_store, target_url
from kuaimai.errors import ConfigError


@pytest.fixture
def connection(monkeypatch):
    """A function: a Connection with these fields, from the environment."""

    def make(conn_id="kuaimai_state", **fields):
        if isinstance(fields.get("extra"), dict):
            fields["extra"] = json.dumps(fields["extra"])
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(fields))
        return BaseHook.get_connection(conn_id)

    return make


@pytest.fixture
def executor(monkeypatch):
    return lambda name: monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", name)


def test_by_default_it_is_a_file_in_airflow_home():
    store = state_store()
    file = Path(os.environ["AIRFLOW_HOME"]) / "kuaimai_state.db"
    assert store.place == f"sqlite:///{file}"
    assert not file.exists()
    with store.lease("a", owner="test", ttl_seconds=60) as lease:
        assert store.still_holds(lease)
    store.close()
    file.unlink()


@pytest.mark.parametrize(
    ("configured", "distributed"),
    [
        ("LocalExecutor", []),
        ("SequentialExecutor", []),
        ("airflow.executors.local_executor.LocalExecutor", []),
        ("CeleryExecutor", ["CeleryExecutor"]),
        ("KubernetesExecutor", ["KubernetesExecutor"]),
        ("LocalExecutor,CeleryExecutor", ["CeleryExecutor"]),
        ("LocalExecutor, mine:my.company.FarExecutor", ["FarExecutor"]),
        ("LocalExecutor;team_a=CeleryExecutor,KubernetesExecutor", ["CeleryExecutor", "KubernetesExecutor"]),
        ("CeleryKubernetesExecutor", ["CeleryKubernetesExecutor"]),
    ],
)
def test_a_file_is_refused_where_tasks_run_on_several_machines(executor, configured, distributed):
    executor(configured)
    assert distributed_executors() == distributed
    if not distributed:
        state_store().close()
        return
    with pytest.raises(ConfigError, match="Create the Connection kuaimai_state") as caught:
        state_store()
    assert distributed[0] in str(caught.value)


def test_a_pod_of_the_kubernetes_executor_is_recognised(executor, monkeypatch):
    executor("LocalExecutor")  # what the executor sets inside its pods
    monkeypatch.setenv("AIRFLOW_IS_K8S_EXECUTOR_POD", "True")
    with pytest.raises(ConfigError, match="KubernetesExecutor"):
        state_store()


def test_a_server_is_accepted_everywhere(executor, connection):
    executor("CeleryExecutor")
    connection(conn_type="postgres", host="db", login="me", password="hidden", schema="airflow")
    store = state_store()
    assert store.place == "postgresql+psycopg2://me:***@db/airflow"
    store.close()


def test_a_named_file_is_refused_like_the_default(executor, connection):
    connection(conn_type="sqlite", host="/tmp/mine.db")  # noqa: S108 - it is never opened
    state_store().close()
    executor("CeleryExecutor")
    with pytest.raises(ConfigError, match="is a SQLite file"):
        state_store()


@pytest.mark.skipif(AIRFLOW_V_3_0, reason="tasks of Airflow 3 do not know the metadata database")
def test_airflows_own_file_is_refused(connection):
    connection(conn_type="sqlite", host=os.environ["AIRFLOW_HOME"] + "/airflow.db")
    with pytest.raises(ConfigError, match="Airflow's own SQLite file"):
        state_store()


def test_a_store_on_a_real_postgresql(connection, pg_url):
    url = make_url(pg_url)
    connection(conn_type="postgres", host=url.query["host"], login=url.username, schema=url.database)
    store = state_store()
    with store.lease("a", owner="test", ttl_seconds=60) as lease:
        assert lease.fence == 1
    assert store.first_alert("x", quiet_seconds=60)
    store.close()
    engine = create_engine(target_url("kuaimai_state"))
    with engine.connect() as opened:
        assert opened.execute(text("SELECT fence FROM kuaimai_lease")).scalar() == 1
    engine.dispose()


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        (
            {"conn_type": "postgres", "host": "db", "login": "me", "password": "p@ss:/?", "schema": "dw"},
            "postgresql+psycopg2://me:p%40ss%3A%2F%3F@db/dw",
        ),
        (
            {
                "conn_type": "postgresql",
                "host": "db",
                "port": 5433,
                "schema": "dw",
                "extra": {"sslmode": "require", "cursor": "dictcursor", "connect_timeout": 3},
            },
            "postgresql+psycopg2://db:5433/dw?connect_timeout=3&sslmode=require",
        ),
        (
            {"conn_type": "postgres", "host": "/run/postgresql", "login": "me", "schema": "dw"},
            "postgresql+psycopg2://me@/dw?host=%2Frun%2Fpostgresql",
        ),
        (
            {
                "conn_type": "mysql",
                "host": "db",
                "port": 3307,
                "login": "me",
                "password": "p@ss",
                "schema": "dw",
                "extra": {"charset": "utf8mb4", "cursor": "sscursor"},
            },
            "mysql+pymysql://me:p%40ss@db:3307/dw?charset=utf8mb4",
        ),
        ({"conn_type": "sqlite", "host": "/data/dw.db"}, "sqlite:////data/dw.db"),
        ({"conn_type": "sqlite", "schema": "data/dw.db"}, "sqlite:////data/dw.db"),
    ],
)
def test_a_connection_becomes_a_url(connection, fields, url):
    assert make_url(database_url(connection("kuaimai_target", **fields))) == make_url(url)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"conn_type": "http", "host": "x"}, "type 'http' is no usable database"),
        ({"conn_type": "postgres", "schema": "dw"}, "host is empty"),
        ({"conn_type": "postgres", "host": "db"}, "schema (the database's name) is empty"),
        (
            {"conn_type": "postgres", "host": "db", "schema": "dw", "extra": {"iam": True}},
            "'iam' is not supported",
        ),
        ({"conn_type": "sqlite", "host": "dw.db"}, "is not the absolute path"),
        ({"conn_type": "sqlite"}, "is not the absolute path"),
    ],
)
def test_what_cannot_be_used_is_named(connection, fields, said):
    with pytest.raises(ConfigError) as caught:
        database_url(connection("kuaimai_target", **fields))
    assert said in str(caught.value)
    assert "kuaimai_target" in str(caught.value)


def test_a_missing_driver_is_named(connection, monkeypatch):
    monkeypatch.setattr("kuaimai.airflow.stores.find_spec", lambda name: None)
    made = connection("kuaimai_target", conn_type="mysql", host="db", schema="dw")
    with pytest.raises(ConfigError, match="pip install pymysql"):
        database_url(made)


def test_a_missing_connection_says_how_to_make_it():
    with pytest.raises(ConfigError, match=r"no Connection nowhere.*type Postgres"):
        target_url("nowhere")


@pytest.mark.parametrize(
    ("fields", "url"),
    [
        (
            {"host": "db", "port": 1433, "login": "me", "password": "p@ss", "schema": "dw"},
            "mssql+pymssql://me:p%40ss@db:1433/dw",
        ),
        ({"schema": "/data/dw.duckdb"}, "duckdb:////data/dw.duckdb"),
    ],
)
def test_a_connection_can_name_any_dialect_of_sqlalchemy(monkeypatch, fields, url):
    dialect = url.partition(":")[0]
    made = {"conn_type": "generic", **fields, "extra": {"sqlalchemy_dialect": dialect}}
    monkeypatch.setenv("AIRFLOW_CONN_OTHER_DATABASE", json.dumps(made))
    assert make_url(target_url("other_database")) == make_url(url)


def test_a_dialect_that_is_none_is_told(monkeypatch):
    made = {"conn_type": "generic", "extra": {"sqlalchemy_dialect": "no dialect!"}}
    monkeypatch.setenv("AIRFLOW_CONN_OTHER_DATABASE", json.dumps(made))
    with pytest.raises(ConfigError, match="is no dialect of SQLAlchemy"):
        target_url("other_database")
