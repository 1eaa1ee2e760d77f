"""A database and its tables, as every dialect has them: connections, errors, columns, rows one by one."""
# ruff: noqa: S608 - statements name our own tables; values are bound

from __future__ import annotations

import logging
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from kuaimai.errors import ConfigError
from kuaimai.gateway.catalog import FieldType
from kuaimai.load import merge
from kuaimai.load.proof import WINDOW_INDEXES, WINDOW_TABLE
from kuaimai.transform.tables import DELETED_AT, HASH, LOADED_AT, RANK, VERSION, WINDOW, Column, Table

log = logging.getLogger(__name__)

# A table beside the data: its label, its key column, its columns.
Beside = tuple[str, str, Sequence[Column]]

_META_COLUMNS: tuple[tuple[str, FieldType, str], ...] = (
    (VERSION, "integer", "版本（记录最后修改时间，毫秒）"),
    (RANK, "integer", "来源级别（同版本中更完整的接口更高）"),
    (HASH, "text", "内容指纹"),
    (WINDOW, "id", "窗口编号"),
    (LOADED_AT, "time", "写入时间"),
    (DELETED_AT, "time", "消失时间（源头已不再包含此行；为空即有效）"),
)

# What loading does to a database, tried out by `kuaimai doctor`.
_TRIAL = (
    'CREATE TABLE "{name}" ("key" varchar(20) PRIMARY KEY)',
    'ALTER TABLE "{name}" ADD COLUMN "value" varchar(20)',
    'CREATE TEMPORARY TABLE "{name}_stage" ("key" varchar(20) PRIMARY KEY)',
    """INSERT INTO "{name}" ("key") VALUES ('k')""",
    """UPDATE "{name}" SET "value" = '值'""",
    'SELECT * FROM "{name}"',
)


class Database(ABC):
    """A database that receives tables.

    Args:
        url: SQLAlchemy URL.
        now: clock, epoch seconds.
    """

    column_types: Mapping[FieldType, str]

    def __init__(self, url: str, *, now: Callable[[], float] = time.time) -> None:
        self.url = sa.engine.make_url(url)
        self.now = now
        self._engine: sa.engine.Engine | None = None
        self._indexed = False

    @property
    def engine(self) -> sa.engine.Engine:
        """The engine, made on first use."""
        if self._engine is None:
            self._engine = self._make_engine()
        return self._engine

    def close(self) -> None:
        """Close the connections."""
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def prepare(self, tables: Sequence[Table], beside: Mapping[str, Beside] | None = None) -> None:
        """Make what is missing of the tables, and of further ones by name."""
        with self._told():
            self._prepare(tables, beside)

    @contextmanager
    def connected(self) -> Iterator[sa.engine.Connection]:
        """Open a transaction for questions, and for what is written beside a load."""
        with self._told(), self.engine.begin() as connection:
            yield connection

    def try_rights(self) -> str:
        """Make, change, fill and read a table, all undone at the end.

        Raises:
            KuaimaiError: the database does not answer, or a right is missing.
        """
        name = f"kuaimai_doctor_{secrets.token_hex(4)}"
        with self._told(), self.engine.connect() as connection, connection.begin() as transaction:
            for statement in _TRIAL:
                connection.execute(sa.text(statement.format(name=name)))
            transaction.rollback()
        return f"{self.url.render_as_string(hide_password=True)}: tables can be made, changed and written"

    def instant(self, moment: datetime) -> Any:
        """Return an instant in the form that this database is given."""
        return moment

    def read_instant(self, value: Any) -> datetime:
        """Return an instant that this database gave, with zone."""
        if not isinstance(value, datetime):
            raise ConfigError(f"{WINDOW_TABLE} holds no instants; was the table made by something else?")
        return value

    def put_row(
        self,
        connection: sa.engine.Connection,
        name: str,
        columns: Sequence[Column],
        key: str,
        row: Mapping[str, Any],
        *,
        keep: Sequence[str] = (),
    ) -> None:
        """Insert or replace one row of a proof table; the columns in `keep` stay as first written."""
        connection.execute(sa.text(self.upsert_row(name, columns, key, keep)), dict(row))

    def put_new_row(
        self,
        connection: sa.engine.Connection,
        name: str,
        columns: Sequence[Column],
        key: str,
        row: Mapping[str, Any],
    ) -> None:
        """Insert one row of a proof table unless its key is there."""
        connection.execute(sa.text(self.insert_row(name, columns, key)), dict(row))

    def upsert_row(self, name: str, columns: Sequence[Column], key: str, keep: Sequence[str] = ()) -> str:
        """Return the statement that inserts or replaces one row of a proof table."""
        return merge.upsert_row(name, columns, key, keep)

    def insert_row(self, name: str, columns: Sequence[Column], key: str) -> str:
        """Return the statement that inserts one row of a proof table unless its key is there."""
        return merge.insert_row(name, columns, key)

    def _ask(self, table: str, statement: str, **values: Any) -> list[Any]:
        with self._told():
            if not sa.inspect(self.engine).has_table(table):
                return []
            with self.engine.connect() as connection:
                return list(connection.execute(sa.text(statement), values).fetchall())

    def _prepare(self, tables: Sequence[Table], beside: Mapping[str, Beside] | None = None) -> None:
        wanted: dict[str, Beside] = {
            table.name: (table.label, table.key, _columns(table)) for table in tables
        }
        wanted.update(beside or {})
        with self.engine.connect() as connection:
            complete = not _missing(connection, wanted)
        if not complete:
            with self.engine.begin() as connection, self._schema_locked(connection):
                # Somebody else may have made them while this one waited for the lock.
                for statement in self._ddl(_missing(connection, wanted), wanted, tables):
                    connection.execute(sa.text(statement))
        if WINDOW_TABLE in wanted and not self._indexed:
            self._indexed = True
            self._index_windows()

    def _index_windows(self) -> None:
        """Make what is missing of the indexes of windows, also where an older version made the table.

        A load needs no index: where one cannot be made, it goes on without.
        """
        with self.engine.connect() as connection:
            complete = not _missing_indexes(connection)
        if complete:
            return
        try:
            with self.engine.begin() as connection, self._schema_locked(connection):
                for name in _missing_indexes(connection):
                    connection.execute(sa.text(self._create_index(name, WINDOW_INDEXES[name])))
        except sa.exc.DBAPIError as err:
            lines = str(err.orig).strip().splitlines()
            log.warning(
                "the indexes of %s could not be made (%s), so plans take longer the more windows there "
                "are: let the owner of the table run %s",
                WINDOW_TABLE,
                lines[0] if lines else type(err.orig).__name__,
                "; ".join(self._create_index(*one) for one in WINDOW_INDEXES.items()),
            )

    def _create_index(self, name: str, columns: Sequence[str]) -> str:
        names = ", ".join(f'"{column}"' for column in columns)
        return f'CREATE INDEX IF NOT EXISTS "{name}" ON "{WINDOW_TABLE}" ({names})'

    def _ddl(
        self, missing: dict[str, list[Column] | None], wanted: dict[str, Any], tables: Sequence[Table]
    ) -> Iterator[str]:
        parents = {table.name: table.parent for table in tables}
        for name, absent in missing.items():
            label, key, columns = wanted[name]
            if absent is None:
                yield from self._create_table(name, label, key, parents.get(name), columns)
            else:
                yield from self._add_columns(name, absent)

    def _create_table(
        self, name: str, label: str, key: str, parent: str | None, columns: Sequence[Column]
    ) -> Iterator[str]:
        yield merge.create_table(name, key, columns, self.column_types)
        if parent:
            yield f'CREATE INDEX IF NOT EXISTS "{name}_parent" ON "{name}" ("{parent}")'
        yield from self._comments(name, label, columns)

    def _add_columns(self, name: str, columns: Sequence[Column]) -> Iterator[str]:
        for column in columns:
            yield merge.add_column(name, column, self.column_types)
        yield from self._comments(name, None, columns)

    def _comments(self, name: str, label: str | None, columns: Iterable[Column]) -> Iterator[str]:  # noqa: ARG002
        return iter(())

    @abstractmethod
    def _make_engine(self) -> sa.engine.Engine: ...

    @abstractmethod
    def _told(self) -> Any:
        """A context in which the driver's errors become ours."""

    @abstractmethod
    def _schema_locked(self, connection: sa.engine.Connection) -> AbstractContextManager[None]:
        """A context in which nobody else makes tables."""


def _columns(table: Table) -> tuple[Column, ...]:
    return (*table.columns, *(Column(*meta) for meta in _META_COLUMNS))


def _missing_indexes(connection: sa.engine.Connection) -> list[str]:
    have = {one["name"] for one in sa.inspect(connection).get_indexes(WINDOW_TABLE)}
    return [name for name in WINDOW_INDEXES if name not in have]


def _missing(connection: sa.engine.Connection, wanted: dict[str, Any]) -> dict[str, list[Column] | None]:
    """Return table → missing columns, or None where the whole table is missing."""
    present = set(sa.inspect(connection).get_table_names())
    missing: dict[str, list[Column] | None] = {}
    for name, (_, _, columns) in wanted.items():
        if name not in present:
            missing[name] = None
            continue
        # Asked of the table itself: not every dialect can tell its columns.
        have = set(connection.execute(sa.text(f'SELECT * FROM "{name}" WHERE 1 = 0')).keys())
        absent = [column for column in columns if column.name not in have]
        if absent:
            missing[name] = absent
    return missing
