"""Short transactions against SQLite, PostgreSQL or MySQL, with errors in this package's words.

Every statement of the store goes through `Database.transaction`, so that the dialects' differences (who may
write, how long to wait for a lock, what a race looks like) are settled here and nowhere else.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import create_engine, event, exc
from sqlalchemy.engine import make_url
from sqlalchemy.pool import NullPool

from kuaimai.errors import ConfigError, KuaimaiError, Transient
from kuaimai.state import tables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import URL, Connection, Engine

LOCK_WAIT_SECONDS = 30
"""How long one transaction waits for another before it gives up as `Transient`."""

_CREATE_ATTEMPTS = 5
# MySQL's numbers for "access denied" to a database, a table or a command.
_MYSQL_NO_RIGHT = (1044, 1142, 1227)
_FILE_FAULTS = ("unable to open", "readonly", "read-only", "not a database", "no such table")


class Database:
    """One database; connects on first use, creates missing tables then.

    Args:
        url: SQLAlchemy URL, for example `sqlite:////var/lib/kuaimai.db` or `postgresql://…`.

    Raises:
        ConfigError: the URL is not one, or its driver is not installed.
    """

    def __init__(self, url: str | URL) -> None:
        try:
            self._url = make_url(url)
            self._engine = _engine(self._url)
        except exc.ArgumentError as error:
            raise ConfigError(
                "The address of the coordination store is not a database URL",
                hint="Use sqlite:////path/to/file.db, postgresql://user:password@host/database or mysql://…",
            ) from error
        except ImportError as error:
            raise ConfigError(
                f"The driver of the coordination store ({self._url.drivername}) is not installed: {error}",
                hint="Install it: pip install psycopg2-binary (PostgreSQL) or pymysql (MySQL, MariaDB)",
            ) from error
        self._ready = False
        self._pid = os.getpid()
        self._lock = threading.Lock()

    @property
    def place(self) -> str:
        """The URL without its password, for messages."""
        return self._url.render_as_string(hide_password=True)

    @contextmanager
    def transaction(self, *, writes: bool = True) -> Iterator[Connection]:
        """A connection inside one transaction: committed at the end, rolled back on any error.

        Args:
            writes: False for reads only; they then wait for no writer on SQLite.

        Raises:
            ConfigError: the database cannot be opened or a right is missing.
            Transient: it is unreachable, or locked for more than `LOCK_WAIT_SECONDS`.
        """
        with self._explained():
            self._prepare()
            connection = self._engine.connect().execution_options(kuaimai_writes=writes)
            with connection, connection.begin():
                yield connection

    def close(self) -> None:
        """Give back all pooled connections; the next use opens new ones."""
        self._engine.dispose()

    def _prepare(self) -> None:
        with self._lock:
            if self._pid != os.getpid():
                # A forked child must not speak on its parent's sockets, nor close them.
                self._engine.dispose(close=False)
                self._pid = os.getpid()
            if not self._ready:
                self._create_tables()
                self._ready = True

    def _create_tables(self) -> None:
        for attempt in range(1, _CREATE_ATTEMPTS + 1):
            try:
                tables.metadata.create_all(self._engine, checkfirst=True)
            except (exc.IntegrityError, exc.ProgrammingError, exc.OperationalError):
                # Several processes start at once: all saw no table, one created it. The next look finds it.
                if attempt == _CREATE_ATTEMPTS:
                    raise
            else:
                return

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except KuaimaiError:
            raise
        except exc.IntegrityError:
            raise  # a lost race, which the callers expect
        except (exc.DBAPIError, exc.TimeoutError) as error:
            raise self._error(error) from error

    def _error(self, error: exc.SQLAlchemyError) -> KuaimaiError:
        # The driver's own words, never SQLAlchemy's text, which appends statement and parameters.
        driver = getattr(error, "orig", None)
        cause = str(driver or error).strip().splitlines()[0]
        on_file = self._url.get_backend_name() == "sqlite"
        if (
            isinstance(error, exc.ProgrammingError)
            or (on_file and any(fault in cause.lower() for fault in _FILE_FAULTS))
            or (_is_mysql(self._url) and driver and driver.args and driver.args[0] in _MYSQL_NO_RIGHT)
        ):
            return ConfigError(
                f"The coordination store {self.place} cannot be used: {cause}",
                hint="Give its user the right to create tables and to read and write them"
                + (" (for SQLite: the file and its folder)." if on_file else "."),
            )
        return Transient(
            f"The coordination store {self.place} does not answer: {cause}",
            hint="Check that the database runs and that the Connection kuaimai_state is right.",
        )


def _engine(url: URL) -> Engine:
    backend = url.get_backend_name()
    if backend == "sqlite":
        if url.database in (None, "", ":memory:"):
            raise ConfigError(
                "The coordination store cannot live in memory: no other process would see it",
                hint="Name a file: sqlite:////path/to/kuaimai_state.db",
            )
        # A connection per transaction: cheap for a file, and safe across threads and forks.
        engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": LOCK_WAIT_SECONDS})
        event.listen(engine, "connect", _sqlite_manual_transactions)
        event.listen(engine, "begin", _sqlite_begin)
        return engine
    settings: dict[str, Any] = {"pool_size": 2, "pool_pre_ping": True, "pool_recycle": 300}
    if backend == "postgresql":
        settings["connect_args"] = {
            "connect_timeout": 10,
            "application_name": "kuaimai",
            # An option in the URL, such as a search_path, stays.
            "options": f"{url.query.get('options', '')} -c lock_timeout={LOCK_WAIT_SECONDS}s".strip(),
        }
    if _is_mysql(url):
        settings["connect_args"] = {
            "connect_timeout": 10,
            "charset": "utf8mb4",
            "init_command": f"SET SESSION innodb_lock_wait_timeout = {LOCK_WAIT_SECONDS}",
        }
    # Without this MySQL would answer a second read in a transaction from its first snapshot.
    return create_engine(url, isolation_level="READ COMMITTED", **settings)


def _is_mysql(url: URL) -> bool:
    return url.get_backend_name() in ("mysql", "mariadb")


def _sqlite_manual_transactions(dbapi_connection: Any, _record: Any) -> None:
    # The driver would open its transactions late, at the first write: two processes could then both read
    # "free" before either writes.
    dbapi_connection.isolation_level = None


def _sqlite_begin(connection: Connection) -> None:
    # The rollback journal with IMMEDIATE is enough for these short writes, and unlike WAL it leaves one file
    # and needs no shared memory beside it.
    writes = connection.get_execution_options().get("kuaimai_writes", True)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
