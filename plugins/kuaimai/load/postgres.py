"""PostgreSQL: COPY, into the tables what is new, and into temporary ones what has to be merged."""
# ruff: noqa: S608 - statements are composed of the catalogue's names; values are bound

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa
from pyarrow import csv

from kuaimai.errors import ConfigError, Transient
from kuaimai.gateway.catalog import FieldType
from kuaimai.load import lateness, merge
from kuaimai.load.lateness import Punctuality
from kuaimai.load.sql import Loading, SqlTarget
from kuaimai.transform.amounts import amounts_as_text, instants_as_text
from kuaimai.transform.tables import CHILD_COUNT, DELETED_AT, LOADED_AT, RANK, VERSION, Column, Table

# Any constant will do, as long as everybody who changes these tables takes the same one.
_SCHEMA_LOCK = 7_236_019_451

# SQLSTATEs, from PostgreSQL's appendix A.
_NO_RIGHT = "42501"
_NO_ENTRY = {"28P01", "28000", "3D000"}
_REFUSED = {"22", "23", "42"}
_TAKEN = "23505"

# Fewer new records than this are merged with the others: looking them up would cost more than it saves.
_FEWEST_NEW = 500
# Between keys in one text; a key that holds it is looked up in pieces, not found, and meets the primary key.
_BETWEEN_KEYS = "\x1f"
# What goes to the database in one piece; psycopg2 would take 8 kB at a time.
_COPY_BYTES = 1 << 20


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
        _copy(connection, merge.stage_name(table), batch)

    def _load(
        self, connection: sa.engine.Connection, tables: Sequence[Table], punctuality: Punctuality | None
    ) -> Loading:
        return _PostgresLoading(self, connection, tables, punctuality)

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
        """Insert or update; what did not give way leaves the stage, and its lines.

        New records come first, as in a load that copies them: or the two would wait in a circle.
        """
        stage = merge.stage_name(table)
        stored = f'(SELECT 1 FROM "{table.name}" t WHERE t."{table.key}" = s."{table.key}")'
        return (
            merge.upsert_from(table, f'FROM "{stage}" s WHERE true', f"{stored} NULLS FIRST, "),
            f"""
            DELETE FROM "{stage}" s WHERE (
                SELECT t."{VERSION}" = s."{VERSION}" AND t."{RANK}" = s."{RANK}" AND t."{DELETED_AT}" IS NULL
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


class _PostgresLoading(Loading):
    """The open transaction of one load; records that nobody has stored go past the stages."""

    def merge(self, read: int, batches: Sequence[pa.Table]) -> None:
        """Merge one batch of each table, parent first; `read` numbers the slice's reads."""
        if batches[0].num_rows >= _FEWEST_NEW:
            batches = self._put_new(read, batches)
        if batches[0].num_rows:
            super().merge(read, batches)

    def _put_new(self, read: int, batches: Sequence[pa.Table]) -> Sequence[pa.Table]:
        """Store the records that are new, with their lines, and return the rest of the batches."""
        stored = self._present(self.parent, self.parent.key, batches[0][self.parent.key])
        if batches[0].num_rows - len(stored) < _FEWEST_NEW:
            return batches
        known = pa.concat_arrays([stored, *self._held_up(batches)])
        new, rest = zip(*(_parted(batch, key, known) for batch, key in self._owned(batches)), strict=True)
        records = new[0]
        if not records.num_rows:
            return batches
        lines = [
            _of_version(batch, table, records, self.parent.key)
            for batch, table in zip(new[1:], self.children, strict=True)
        ]
        try:
            with self.connection.begin_nested():
                for table, batch in zip(self.tables, [records, *lines], strict=True):
                    _copy(self.connection, table.name, _as_stored(batch, self.moment), named=True)
        except Exception as err:
            if _state_of(err) == _TAKEN:
                return batches  # another load was quicker
            raise
        self._written[read].inserted += records.num_rows
        if self.punctuality:
            late, outside = lateness.counted(records, self.punctuality, read)
            self._late.update(late)
            self.outside += outside
        seen = {
            "read": pa.repeat(pa.scalar(read, pa.int32()), records.num_rows),
            "key": records[self.parent.key],
        }
        _copy(self.connection, merge.SEEN, pa.table(seen))
        return rest

    def _owned(self, batches: Sequence[pa.Table]) -> Iterator[tuple[pa.Table, str]]:
        """Yield each batch with the column that holds the key of the record it belongs to."""
        for table, batch in zip(self.tables, batches, strict=True):
            yield batch, table.key if table is self.parent else table.parent or table.key

    def _held_up(self, batches: Sequence[pa.Table]) -> Iterator[pa.Array]:
        """Yield the keys of records that own stored lines already, or bring lines that are stored."""
        for child, batch in zip(self.children, batches[1:], strict=True):
            owner = child.parent or ""
            yield self._present(child, owner, batches[0][self.parent.key])
            stored = self._present(child, child.key, batch[child.key])
            yield batch.filter(pc.is_in(batch[child.key], value_set=stored))[owner].combine_chunks()

    def _present(self, table: Table, column: str, values: pa.ChunkedArray) -> pa.Array:
        """Return those of some values that a column of a table holds."""
        ask = f"""
            SELECT DISTINCT "{column}" FROM "{table.name}"
            WHERE "{column}" = ANY (string_to_array(:values, '{_BETWEEN_KEYS}'))
        """
        found = self._run(ask, values=_BETWEEN_KEYS.join(values.to_pylist()))
        return pa.array([row[0] for row in found], pa.string())


def _parted(batch: pa.Table, owner: str, known: pa.Array) -> tuple[pa.Table, pa.Table]:
    """Return the rows whose record is not known, and the others."""
    old = pc.is_in(batch[owner], value_set=known)
    return batch.filter(pc.invert(old)), batch.filter(old)


def _of_version(lines: pa.Table, table: Table, records: pa.Table, key: str) -> pa.Table:
    """Return the lines that came with the very version of their record that is stored."""
    at = pc.index_in(lines[table.parent], value_set=records[key].combine_chunks())
    return lines.filter(pc.equal(records[VERSION].take(at), lines[VERSION]))


def _as_stored(batch: pa.Table, moment: datetime) -> pa.Table:
    """Return a batch with the columns that a table has."""
    now = pa.repeat(pa.scalar(moment, pa.timestamp("us", "UTC")), batch.num_rows)
    kept = [name for name in batch.column_names if name != CHILD_COUNT]
    return batch.select(kept).append_column(LOADED_AT, now)


def _copy(connection: sa.engine.Connection, name: str, batch: pa.Table, *, named: bool = False) -> None:
    """COPY a batch as CSV made by Arrow: nulls unquoted, empty texts quoted.

    Args:
        connection: its open transaction is used.
        name: the table.
        batch: all of the table's columns in their order, or some of them if they are `named`.
        named: tell the database the columns' names.
    """
    if not batch.num_rows:
        return
    buffer = io.BytesIO()
    options = csv.WriteOptions(include_header=False, quoting_style="needed")
    csv.write_csv(_as_texts(batch), buffer, options)
    buffer.seek(0)
    cursor: Any = connection.connection.cursor()
    columns = f" ({merge.quoted(batch.column_names)})" if named else ""
    statement = f'COPY "{name}"{columns} FROM STDIN WITH (FORMAT csv)'
    try:
        if hasattr(cursor, "copy_expert"):
            cursor.copy_expert(statement, buffer, _COPY_BYTES)
        else:
            with cursor.copy(statement) as copy:
                copy.write(buffer.getbuffer())
    finally:
        cursor.close()


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


def _state_of(err: BaseException | None) -> str:
    """Return the SQLSTATE of a driver's error."""
    return getattr(err, "pgcode", None) or getattr(err, "sqlstate", None) or ""


def _our_error(err: BaseException | None, url: sa.engine.URL) -> ConfigError | Transient:
    """Name what to do about a driver's error; its first line is shown, which holds no parameters."""
    state = _state_of(err)
    lines = str(err).strip().splitlines()
    text = lines[0] if lines else type(err).__name__
    where = f"target {url.host or 'local'}/{url.database} as user {url.username}"
    if "row-level security" in text:  # COPY refuses such tables, an INSERT refuses single rows
        return ConfigError(
            f"{where} is held by row-level security: {text}",
            hint=f'ALTER ROLE "{url.username}" BYPASSRLS, or make that user the owner of the '
            "kuaimai_ tables, without FORCE ROW LEVEL SECURITY",
        )
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
    advice = "" if state else "check that it runs, and host and port of the Connection; "
    return Transient(
        f"{where} failed: {text}", hint=f"{advice}the load is repeated; nothing of this window was stored"
    )
