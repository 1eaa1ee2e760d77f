"""SQLite: good for a look on one machine. Amounts and instants are text, because SQLite would round them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from kuaimai.errors import ConfigError, Transient
from kuaimai.gateway.catalog import FieldType
from kuaimai.load import merge
from kuaimai.load.sql import SqlTarget
from kuaimai.transform.amounts import amounts_as_text, instants_as_text
from kuaimai.transform.tables import Table

_BUSY_SECONDS = 60.0


class SqliteTarget(SqlTarget):
    """A SQLite file, version 3.33 or newer."""

    column_types: Mapping[FieldType, str] = MappingProxyType(
        {
            "id": "text",
            "text": "text",
            "integer": "integer",
            "number": "text",
            "yuan": "text",
            "time": "text",
            "json": "text",
        }
    )

    def _make_engine(self) -> sa.engine.Engine:
        engine = sa.create_engine(self.url, connect_args={"timeout": _BUSY_SECONDS})

        # The driver's own transactions begin too late for DDL and too shared for two writers.
        @sa.event.listens_for(engine, "connect")
        def _plain(connection: Any, _record: Any) -> None:
            connection.isolation_level = None

        @sa.event.listens_for(engine, "begin")
        def _immediate(connection: sa.engine.Connection) -> None:
            connection.exec_driver_sql("BEGIN IMMEDIATE")

        return engine

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (sa.exc.DBAPIError, sqlite3.Error) as err:
            text = str(getattr(err, "orig", err))
            where = f"target {self.url.database}"
            if "readonly" in text or "unable to open" in text:
                raise ConfigError(
                    f"{where} cannot be written: {text}",
                    hint="check that the folder exists and that the Airflow user may write there",
                ) from err
            raise Transient(
                f"{where} failed: {text}", hint="the load is repeated; nothing of this window was stored"
            ) from err

    def instant(self, moment: datetime) -> str:
        """Return an instant as text in UTC that sorts by time: `2026-11-24 01:02:03.004Z`."""
        return moment.astimezone(timezone.utc).isoformat(" ", "milliseconds").replace("+00:00", "Z")

    def read_instant(self, value: Any) -> datetime:
        """Return the instant in such a text."""
        return datetime.fromisoformat(str(value).replace("Z", "+00:00"))

    @contextmanager
    def _schema_locked(self, connection: sa.engine.Connection) -> Iterator[None]:  # noqa: ARG002
        yield  # BEGIN IMMEDIATE has locked the file already

    def _open_stage(self, connection: sa.engine.Connection, tables: Sequence[Table]) -> None:
        for table in tables:
            connection.execute(sa.text(f'DROP TABLE IF EXISTS temp."{merge.stage_name(table)}"'))
            connection.execute(sa.text(merge.create_stage(table, self.column_types)))
            # Otherwise SQLite makes an index of the whole stage anew for every statement that looks into it.
            name = merge.stage_name(table)
            connection.execute(sa.text(f'CREATE UNIQUE INDEX temp."{name}_key" ON "{name}" ("{table.key}")'))
        connection.execute(sa.text(f'DROP TABLE IF EXISTS temp."{merge.SEEN}"'))
        connection.execute(sa.text(merge.create_seen()))

    def empty_stage(self, connection: sa.engine.Connection, table: Table) -> None:
        """Without a condition SQLite drops the pages instead of the rows."""
        connection.execute(sa.text(f'DELETE FROM "{merge.stage_name(table)}"'))  # noqa: S608 - our own name

    def stage(self, connection: sa.engine.Connection, table: Table, batch: pa.Table) -> None:
        """Insert row by row: SQLite runs in this process and has nothing faster."""
        rows = zip(*(_values(column) for column in batch.columns), strict=True)
        marks = ", ".join("?" * batch.num_columns)
        raw: sqlite3.Connection = connection.connection.dbapi_connection  # type: ignore[assignment]
        raw.executemany(f'INSERT INTO "{merge.stage_name(table)}" VALUES ({marks})', rows)  # noqa: S608 - our own name


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Amounts and instants become text while they are still columns, which is many times cheaper."""
    if pa.types.is_decimal(column.type):
        column = amounts_as_text(column)
    elif pa.types.is_timestamp(column.type):
        column = instants_as_text(column)  # as `SqliteTarget.instant`
    return column.to_pylist()  # type: ignore[no-any-return]
