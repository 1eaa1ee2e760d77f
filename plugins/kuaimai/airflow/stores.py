"""Opens databases that Airflow Connections describe: the coordination store, and targets' URLs."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from kuaimai.airflow.compat import AirflowNotFoundException, BaseHook, airflow_home, conf, mask_secret
from kuaimai.errors import ConfigError
from kuaimai.state import Store

__all__ = ["airflow_home", "database_url", "state_store", "state_url", "target_url", "write_access"]

STATE_CONN_ID = "kuaimai_state"
STATE_FILE = "kuaimai_state.db"
# Extra field of a target's Connection: SQLAlchemy's name for a database without a fast path.
DIALECT = "sqlalchemy_dialect"

_ONE_MACHINE = ("LocalExecutor", "SequentialExecutor", "DebugExecutor")

# Extra fields that reach the driver; an Airflow Connection may carry others that are meant for other hooks.
_DRIVER_OPTIONS = {
    "postgresql": (
        "application_name",
        "connect_timeout",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "options",
        "sslcert",
        "sslcrl",
        "sslkey",
        "sslmode",
        "sslrootcert",
        "target_session_attrs",
    ),
    "mysql": ("charset", "unix_socket", "ssl_ca", "ssl_cert", "ssl_key", "connect_timeout"),
}
_BACKENDS = {
    "postgres": "postgresql",
    "postgresql": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
    "sqlite": "sqlite",
}
# The first that is installed serves.
_DRIVERS = {"postgresql": ("psycopg2", "psycopg"), "mysql": ("pymysql", "MySQLdb", "mysql.connector")}
_DIALECTS = {"MySQLdb": "mysqldb", "mysql.connector": "mysqlconnector"}
_NOT_SUPPORTED = ("iam", "redshift", "azure_conn_id")


def state_store(*, now: Callable[[], float] = time.time) -> Store:
    """Return the coordination store: Connection `kuaimai_state`, else a SQLite file under `$AIRFLOW_HOME`.

    Args:
        now: epoch seconds.

    Raises:
        ConfigError: as `state_url`.
    """
    return Store.open(state_url(), now=now)


def state_url() -> str:
    """Return the SQLAlchemy URL, password included, of the coordination store's database.

    Raises:
        ConfigError: the Connection is malformed, or there is none and tasks run on several machines, which
            would each have a file of their own.
    """
    try:
        connection = BaseHook.get_connection(STATE_CONN_ID)
    except AirflowNotFoundException:
        return f"sqlite:///{_default_file()}"
    url = database_url(connection)
    if make_url(url).get_backend_name() == "sqlite":
        _refuse_metadata_database(url)
        _refuse_several_machines(f"is a SQLite file (Connection {STATE_CONN_ID})")
    return url


def target_url(conn_id: str) -> str:
    """Return the SQLAlchemy URL, password included, of a Connection by its id.

    Raises:
        ConfigError: there is no such Connection, or it cannot be used.
    """
    connection = _existing(conn_id, "type Postgres, MySQL or Sqlite.")
    dialect = str(connection.extra_dejson.get(DIALECT) or "")
    return _url_by_dialect(connection, dialect) if dialect else database_url(connection)


def _existing(conn_id: str, how: str) -> Any:
    try:
        return BaseHook.get_connection(conn_id)
    except AirflowNotFoundException as error:
        raise ConfigError(
            f"There is no Connection {conn_id}", hint=f"Create it under Admin → Connections: {how}"
        ) from error


def _url_by_dialect(connection: Any, dialect: str) -> str:
    """Return the URL of a database that this package has no fast path for; SQLAlchemy knows the dialect."""
    if connection.password:
        mask_secret(connection.password)
    try:
        # Written first, because a name that is none fails only when the URL is read again.
        make_url(f"{dialect}://")
        url = URL.create(
            dialect,
            username=connection.login or None,
            password=connection.password or None,
            host=connection.host or None,
            port=connection.port,
            database=connection.schema or None,
        )
    except (ArgumentError, TypeError, ValueError) as error:
        raise ConfigError(
            f"Connection {connection.conn_id}: {DIALECT} {dialect!r} is no dialect of SQLAlchemy: {error}",
            hint="write it as in a SQLAlchemy URL, such as mssql+pymssql or duckdb",
        ) from error
    return url.render_as_string(hide_password=False)


def write_access(conn_id: str) -> dict[str, Any]:
    """Return how to reach a write API (Connection of type HTTP): `url`, `token`, `verify`, `proxies`.

    The host may hold the scheme, else it is the Connection's schema, else https. Other extras are not looked
    at: Airflow's own HTTP hook would send them as headers.

    Raises:
        ConfigError: there is no such Connection, or it has no host.
    """
    connection = _existing(conn_id, "type HTTP, its host the API, its password the token.")
    for secret in (connection.password, connection.extra):
        if secret:
            mask_secret(secret)
    if not connection.host:
        raise ConfigError(f"Connection {conn_id}: host is empty", hint="Name the API's address.")
    host = connection.host.rstrip("/")
    url = host if "://" in host else f"{connection.schema or 'https'}://{host}"
    if connection.port and not re.search(r":\d+(/|$)", url.partition("://")[2]):
        head, slash, path = url.partition("://")[2].partition("/")
        url = f"{url.partition('://')[0]}://{head}:{connection.port}{slash}{path}"
    extra = connection.extra_dejson
    return {
        "url": url,
        "token": connection.password or "",
        "verify": extra.get("verify", True),
        "proxies": extra.get("proxies") or {},
    }


def database_url(connection: Any) -> str:
    """Return the SQLAlchemy URL, password included, of a Connection of type Postgres, MySQL or SQLite.

    Raises:
        ConfigError: the type is another, a field is missing, or the driver is not installed.
    """
    backend = _BACKENDS.get((connection.conn_type or "").lower())
    if backend is None:
        raise ConfigError(
            f"Connection {connection.conn_id}: type {connection.conn_type!r} is no usable database",
            hint="Use type Postgres, MySQL or Sqlite.",
        )
    if backend == "sqlite":
        return f"sqlite:///{_sqlite_file(connection)}"
    extra = connection.extra_dejson
    for name in _NOT_SUPPORTED:
        if extra.get(name):
            raise ConfigError(
                f"Connection {connection.conn_id}: extra field {name!r} is not supported here",
                hint="Use a user with a password.",
            )
    if not connection.host:
        raise ConfigError(f"Connection {connection.conn_id}: host is empty", hint="Name the server.")
    if not connection.schema:
        raise ConfigError(
            f"Connection {connection.conn_id}: schema (the database's name) is empty", hint="Fill it in."
        )
    if connection.password:
        mask_secret(connection.password)
    query = {name: str(extra[name]) for name in _DRIVER_OPTIONS[backend] if extra.get(name) not in (None, "")}
    host = connection.host
    if backend == "postgresql" and host.startswith("/"):  # a Unix socket's folder
        query["host"], host = host, None
    try:
        url = URL.create(
            f"{backend}+{_driver(connection.conn_id, backend)}",
            username=connection.login or None,
            password=connection.password or None,
            host=host,
            port=connection.port,
            database=connection.schema,
            query=query,
        )
    except (ArgumentError, TypeError, ValueError) as error:
        raise ConfigError(
            f"Connection {connection.conn_id} is no database address: {error}", hint="Check its fields."
        ) from error
    return url.render_as_string(hide_password=False)


def _driver(conn_id: str, backend: str) -> str:
    for module in _DRIVERS[backend]:
        if find_spec(module.split(".")[0]) is not None and (backend != "mysql" or find_spec(module)):
            return _DIALECTS.get(module, module)
    wanted = "psycopg2-binary" if backend == "postgresql" else "pymysql"
    raise ConfigError(
        f"Connection {conn_id} needs a driver that is not installed", hint=f"pip install {wanted}"
    )


def _sqlite_file(connection: Any) -> Path:
    # The hook of Airflow's SQLite provider reads the host; an AIRFLOW_CONN_… URI has the path as its schema.
    path = connection.host or (f"/{connection.schema.lstrip('/')}" if connection.schema else "")
    if not path or not Path(path).expanduser().is_absolute():
        raise ConfigError(
            f"Connection {connection.conn_id}: host {path!r} is not the absolute path of a SQLite file",
            hint="Write the whole path, such as /var/lib/airflow/kuaimai_state.db.",
        )
    return Path(path).expanduser()


def _default_file() -> Path:
    _refuse_several_machines("is by default a file on one machine")
    return airflow_home() / STATE_FILE


def _refuse_several_machines(what: str) -> None:
    distributed = distributed_executors()
    if distributed:
        raise ConfigError(
            f"The coordination store {what}, but tasks run on several ({', '.join(distributed)})",
            hint=f"Create the Connection {STATE_CONN_ID} (type Postgres or MySQL) that all workers reach.",
        )


def _refuse_metadata_database(url: str) -> None:
    # While the session is stored, the store's file is locked; the Variable could then never be written.
    if (
        make_url(url).database
        == make_url(conf.get("database", "sql_alchemy_conn", fallback="sqlite://")).database
    ):
        raise ConfigError(
            f"Connection {STATE_CONN_ID} names Airflow's own SQLite file",
            hint=f"Name another file, or delete the Connection: the default is {STATE_FILE} beside it.",
        )


def distributed_executors() -> list[str]:
    """Return the configured executors that may run tasks on other machines."""
    # "LocalExecutor", "alias:path.to.Executor", lists with commas, teams: "LocalExecutor;team=CeleryExecutor"
    names = [
        re.split(r"[=:.]", entry.strip())[-1]
        for entry in re.split(r"[,;]", conf.get("core", "executor", fallback="LocalExecutor"))
        if entry.strip()
    ]
    # In its pods the Kubernetes executor sets the executor to LocalExecutor.
    if os.environ.get("AIRFLOW_IS_K8S_EXECUTOR_POD"):
        names.append("KubernetesExecutor")
    return sorted({name for name in names if name not in _ONE_MACHINE})
