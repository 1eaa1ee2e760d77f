"""PostgreSQL: COPY into temporary tables, then one merge."""
# ruff: noqa: S608 - statements are composed of the catalogue's names; values are bound

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from pyarrow import csv

from kuaimai.errors import ConfigError, Transient
from kuaimai.gateway.catalog import FieldType
from kuaimai.load import merge
from kuaimai.load.sql import SqlTarget
from kuaimai.transform.amounts import amounts_as_text, instants_as_text
from kuaimai.transform.tables import CHILD_COUNT, DELETED_AT, RANK, VERSION, Column, Table

# Any constant will do, as long as everybody who changes these tables takes the same one.
_SCHEMA_LOCK = 7_236_019_451

# SQLSTATEs, from PostgreSQL's appendix A.
_NO_RIGHT = "42501"
_NO_ENTRY = {"28P01", "28000", "3D000"}
_REFUSED = {"22", "23", "42"}


class PostgresTarget(SqlTarget):
    """A PostgreSQL database, version 12 or newer, by psycopg2 or (SQLAlchemy 2) psycopg 3."""

    column_types: Mapping[FieldType, str] = MappingProxyType(
        {
            "id": "text",
            "text": "text",
            "integer": "bigint",
            "number": "numeric",
            "yuan": "numeric",
            "time": "timestamptz",
            "json": "jsonb",
        }
    )

    def _make_engine(self) -> sa.engine.Engine:
        try:
            return sa.create_engine(self.url, pool_pre_ping=True)
        except ModuleNotFoundError as err:
            raise ConfigError(
                f"the PostgreSQL driver is not installed ({err.name})",
                hint="pip install 'airflow-provider-kuaimai[postgres]'",
            ) from err

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.DBAPIError as err:
            raise _our_error(err.orig, self.url) from err
        except Exception as err:
            # COPY goes past SQLAlchemy, so the driver's own errors come through as they are.
            if hasattr(err, "pgcode") or hasattr(err, "sqlstate"):
                raise _our_error(err, self.url) from err
            raise

    @contextmanager
    def _schema_locked(self, connection: sa.engine.Connection) -> Iterator[None]:
        connection.execute(sa.text(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})"))
        yield

    def _comments(self, name: str, label: str | None, columns: Iterable[Column]) -> Iterator[str]:
        if label:
            yield f"COMMENT ON TABLE \"{name}\" IS '{label}'"
        for column in columns:
            yield f'COMMENT ON COLUMN "{name}"."{column.name}" IS \'{column.comment}\''

    def _open_stage(self, connection: sa.engine.Connection, tables: Sequence[Table]) -> None:
        # Stages have no statistics, and the target's may be old or missing: the planner would take a batch
        # for the whole table, or the whole table for nothing. So stored rows are looked up one by one, by an
        # index, in subqueries that it cannot turn into joins: scalar ones, arrays, and lateral ones.
        connection.execute(sa.text("SET LOCAL enable_seqscan = off"))
        for table in tables:
            connection.execute(sa.text(merge.create_stage(table, self.column_types, " ON COMMIT DROP")))
        connection.execute(sa.text(merge.create_seen(" ON COMMIT DROP")))

    def empty_stage(self, connection: sa.engine.Connection, table: Table) -> None:
        """DELETE would leave dead rows behind for every following batch to wade through."""
        connection.execute(sa.text(f'TRUNCATE "{merge.stage_name(table)}"'))

    def stage(self, connection: sa.engine.Connection, table: Table, batch: pa.Table) -> None:
        """COPY the batch as CSV made by Arrow: nulls unquoted, empty texts quoted."""
        if not batch.num_rows:
            return
        buffer = io.BytesIO()
        options = csv.WriteOptions(include_header=False, quoting_style="needed")
        csv.write_csv(_as_texts(batch), buffer, options)
        buffer.seek(0)
        cursor: Any = connection.connection.cursor()
        statement = f'COPY "{merge.stage_name(table)}" FROM STDIN WITH (FORMAT csv)'
        try:
            if hasattr(cursor, "copy_expert"):
                cursor.copy_expert(statement, buffer)
            else:
                with cursor.copy(statement) as copy:
                    copy.write(buffer.getbuffer())
        finally:
            cursor.close()

    def drop_settled(self, parent: Table, children: Sequence[Table]) -> Sequence[str]:
        """Look staged lines up by an index, which a load without a stored row never needs."""
        return (
            *(
                f'CREATE INDEX IF NOT EXISTS "{merge.stage_name(child)}_key" '
                f'ON "{merge.stage_name(child)}" ("{child.key}")'
                for child in children
            ),
            merge.drop_settled(parent, children),
        )

    def upsert(self, table: Table) -> Sequence[str]:
        """Insert or update; what was stored in a newer version meanwhile leaves the stage, and its lines."""
        stage = merge.stage_name(table)
        return (
            merge.upsert(table),
            f"""
            DELETE FROM "{stage}" s WHERE (
                SELECT t."{VERSION}" = s."{VERSION}" AND t."{RANK}" = s."{RANK}"
                FROM "{table.name}" t WHERE t."{table.key}" = s."{table.key}") IS NOT TRUE
            """,
        )

    def entomb(self, parent: Table, child: Table) -> str:
        """Mark the stored lines of staged orders that are not staged, in the order of their keys."""
        return f"""
            UPDATE "{child.name}" SET "{DELETED_AT}" = :now
            WHERE "{DELETED_AT}" IS NULL AND "{child.key}" = ANY (ARRAY(
                SELECT c."{child.key}" FROM "{merge.stage_name(parent)}" s CROSS JOIN LATERAL (
                    SELECT t."{child.key}" FROM "{child.name}" t
                    WHERE t."{child.parent}" = s."{parent.key}" AND t."{DELETED_AT}" IS NULL OFFSET 0) c
                WHERE s."{CHILD_COUNT}" IS NOT NULL AND NOT EXISTS (
                    SELECT 1 FROM "{merge.stage_name(child)}" l
                    WHERE l."{child.key}" = c."{child.key}" AND l."{child.parent}" = s."{parent.key}"
                      AND l."{VERSION}" = s."{VERSION}")))
        """

    def upsert_children(self, parent: Table, child: Table) -> Sequence[str]:
        """Merge the staged lines of the versions that are still staged."""
        return (
            merge.upsert_from(
                child,
                f'FROM "{merge.stage_name(child)}" s WHERE (s."{child.parent}", s."{VERSION}") IN '
                f'(SELECT "{parent.key}", "{VERSION}" FROM "{merge.stage_name(parent)}")',
            ),
        )


def _as_texts(batch: pa.Table) -> pa.Table:
    """Write amounts and instants as text where Arrow's CSV would do it badly.

    59.800000000000000000 becomes 59.80: PostgreSQL would keep all the zeros. Instants with a zone cost Arrow
    twenty times those without.
    """
    for position, field in enumerate(batch.schema):
        column = batch.column(position)
        if pa.types.is_decimal(field.type):
            batch = batch.set_column(position, field.name, amounts_as_text(column))
        elif pa.types.is_timestamp(field.type):
            batch = batch.set_column(position, field.name, instants_as_text(column))
    return batch


def _our_error(err: BaseException | None, url: sa.engine.URL) -> ConfigError | Transient:
    """Name what to do about a driver's error; its first line is shown, which holds no parameters."""
    state: str = getattr(err, "pgcode", None) or getattr(err, "sqlstate", None) or ""
    lines = str(err).strip().splitlines()
    text = lines[0] if lines else type(err).__name__
    where = f"target {url.host or 'local'}/{url.database} as user {url.username}"
    if state == _NO_RIGHT:
        return ConfigError(
            f"{where} has too few rights: {text}",
            hint=f'GRANT CREATE, USAGE ON SCHEMA public TO "{url.username}", '
            "and make that user the owner of the kuaimai_ tables",
        )
    if state in _NO_ENTRY or "authentication failed" in text or "does not exist" in text:
        return ConfigError(
            f"{where} cannot be opened: {text}",
            hint="check host, login, password and schema (the database's name) of the Connection",
        )
    if state[:2] in _REFUSED:
        return ConfigError(
            f"{where} refused a statement: {text}",
            hint="was the table changed by hand, or a field's type in the pipeline? "
            "Then name another column by `to`",
        )
    # Lost connections, deadlocks, a full disk (53100), a server that is starting: the window is loaded again.
    return Transient(
        f"{where} failed: {text}", hint="the load is repeated; nothing of this window was stored"
    )
