"""Any other database that SQLAlchemy reaches: slower, by statements that all of them take.

Stored rows are looked up, compared here, and then inserted, or updated with the same guard by version and
rank in the statement: whoever was faster wins, as everywhere. It is one transaction. Where two loads insert
the same new record at once, one of them fails and is repeated.

Tested on DuckDB, and on PostgreSQL by this path. Databases that turn unquoted names into capitals (Oracle,
Snowflake, Db2) are refused: names would differ between statements.
"""
# ruff: noqa: S608 - statements are composed of the catalogue's names; values are bound

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import cached_property
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects import mssql
from sqlalchemy.schema import CreateColumn, CreateIndex, CreateTable

from kuaimai.errors import ConfigError, Transient
from kuaimai.gateway.catalog import FieldType
from kuaimai.load import lateness, merge
from kuaimai.load.database import Beside
from kuaimai.load.lateness import Punctuality
from kuaimai.load.lookup import rows_by_key
from kuaimai.load.sql import Loading, SqlTarget
from kuaimai.transform.tables import CHILD_COUNT, DELETED_AT, HASH, LOADED_AT, RANK, VERSION, Column, Table

# Keys are indexed, and some databases index no text without a length.
_LONGEST_KEY = 255
_SEEN_COLUMNS = (Column("read", "integer", "读取序号"), Column("key", "id", "主键"))

_TYPES: Mapping[FieldType, Any] = {
    "id": sa.Unicode(_LONGEST_KEY),
    "text": sa.UnicodeText(),
    "integer": sa.BigInteger(),
    "number": sa.Numeric(38, 18),
    "fen": sa.Numeric(38, 18),
    "yuan": sa.Numeric(38, 18),
    # SQL Server's DATETIME would round to 1/300 of a second.
    "time": sa.DateTime().with_variant(mssql.DATETIME2(3), "mssql"),  # type: ignore[no-untyped-call]
    "json": sa.UnicodeText(),
}


class GenericTarget(SqlTarget):
    """A database without a fast path. Instants are stored in UTC, without zone."""

    @cached_property
    def column_types(self) -> Mapping[FieldType, str]:  # type: ignore[override]
        """The types as this database spells them."""
        dialect = self.engine.dialect
        return {kind: one.compile(dialect=dialect) for kind, one in _TYPES.items()}

    def _make_engine(self) -> sa.engine.Engine:
        try:
            engine = sa.create_engine(self.url, hide_parameters=True)
        except (sa.exc.NoSuchModuleError, ImportError) as err:
            raise ConfigError(
                f"the driver of the target's database ({self.url.drivername}) is not installed",
                hint="install SQLAlchemy's dialect for it, and its driver",
            ) from err
        if getattr(engine.dialect, "requires_name_normalize", False):
            raise ConfigError(
                f"the target is a {self.url.get_backend_name()} database, which turns names into capitals",
                hint="use PostgreSQL, MySQL, MariaDB, SQLite, DuckDB or SQL Server as the target, or files",
            )
        return engine

    def try_rights(self) -> str:
        """Make the tables beside the data, which stay: what else this database can undo is not known."""
        self.prepare(())
        return f"{self.url.render_as_string(hide_password=True)}: tables can be made"

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.DBAPIError as err:
            # The driver's own words, never SQLAlchemy's, which appends the statement.
            lines = str(err.orig).strip().splitlines()
            text = f"target {self.url.host or self.url.database}: {lines[0] if lines else type(err.orig)}"
            if isinstance(err, sa.exc.ProgrammingError | sa.exc.NotSupportedError):
                raise ConfigError(
                    text, hint="check the rights of its user, and whether it is a database for tables"
                ) from err
            raise Transient(text, hint="the load is repeated; nothing of this window was stored") from err

    def instant(self, moment: datetime) -> datetime:
        """Return an instant in UTC without zone, cut to milliseconds."""
        moment = moment.astimezone(timezone.utc).replace(tzinfo=None)
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)

    def read_instant(self, value: Any) -> datetime:
        """Return the instant in a column of times."""
        return super().read_instant(value).replace(tzinfo=timezone.utc)

    @contextmanager
    def loading(self, tables: Sequence[Table], punctuality: Punctuality | None = None) -> Iterator[Loading]:
        """Open the one transaction of a load; see `SqlTarget.loading`."""
        with super().loading(tables, punctuality) as loading:
            yield loading
            # An ordinary table, since temporary ones have a spelling in every database: nobody else ever
            # sees a row of it.
            loading.connection.execute(sa.text(f'DELETE FROM "{merge.SEEN}"'))

    def _load(
        self, connection: sa.engine.Connection, tables: Sequence[Table], punctuality: Punctuality | None
    ) -> Loading:
        return _GenericLoading(self, connection, tables, punctuality)

    def _prepare(self, tables: Sequence[Table], beside: Mapping[str, Beside] | None = None) -> None:
        super()._prepare(tables, {**(beside or {}), merge.SEEN: ("本次读取的主键", "", _SEEN_COLUMNS)})

    def _index_windows(self) -> None:
        """Not every dialect can tell what indexes there are: one is left to whoever owns the database."""

    @contextmanager
    def _schema_locked(self, connection: sa.engine.Connection) -> Iterator[None]:  # noqa: ARG002
        yield  # where two make the same table, one fails and is repeated

    def _create_table(
        self, name: str, label: str, key: str, parent: str | None, columns: Sequence[Column]
    ) -> Iterator[str]:
        table = self._table(name, key, columns)
        table.comment = label if self.engine.dialect.supports_comments else None
        yield str(CreateTable(table).compile(dialect=self.engine.dialect))
        if parent:
            index = sa.Index(f"{name}_parent", table.c[parent])
            yield str(CreateIndex(index).compile(dialect=self.engine.dialect))

    def _add_columns(self, name: str, columns: Sequence[Column]) -> Iterator[str]:
        word = "ADD" if self.engine.dialect.name == "mssql" else "ADD COLUMN"
        for column in self._table(name, "", columns).columns:
            spelled = CreateColumn(column).compile(dialect=self.engine.dialect)
            yield f'ALTER TABLE "{name}" {word} {spelled}'

    def _table(self, name: str, key: str, columns: Sequence[Column]) -> sa.Table:
        return sa.Table(
            sa.sql.quoted_name(name, quote=True),
            sa.MetaData(),
            *(
                sa.Column(
                    sa.sql.quoted_name(column.name, quote=True),
                    _TYPES[column.type],
                    primary_key=column.name == key,
                    autoincrement=False,
                )
                for column in columns
            ),
        )

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
        """Update one row of a proof table, or insert it; the columns in `keep` stay as first written."""
        names = [column.name for column in columns]
        if not self._has_row(connection, name, key, row):
            connection.execute(sa.text(merge.insert(name, names)), dict(row))
            return
        changed = [one for one in names if one != key and one not in keep]
        connection.execute(sa.text(f'UPDATE "{name}" SET {_set(changed)} WHERE "{key}" = :{key}'), dict(row))

    def put_new_row(
        self,
        connection: sa.engine.Connection,
        name: str,
        columns: Sequence[Column],
        key: str,
        row: Mapping[str, Any],
    ) -> None:
        """Insert one row of a proof table unless its key is there."""
        if not self._has_row(connection, name, key, row):
            connection.execute(sa.text(merge.insert(name, [column.name for column in columns])), dict(row))

    def _has_row(self, connection: sa.engine.Connection, name: str, key: str, row: Mapping[str, Any]) -> bool:
        ask = sa.text(f'SELECT 1 FROM "{name}" WHERE "{key}" = :key')
        return connection.execute(ask, {"key": row[key]}).first() is not None

    # Nothing is staged: rows are compared in this process.

    def _open_stage(self, connection: sa.engine.Connection, tables: Sequence[Table]) -> None:
        pass

    def empty_stage(self, connection: sa.engine.Connection, table: Table) -> None:
        """Do nothing."""

    def stage(self, connection: sa.engine.Connection, table: Table, batch: pa.Table) -> None:
        """Do nothing."""


class _GenericLoading(Loading):
    """The open transaction of one load."""

    def merge(self, read: int, batches: Sequence[pa.Table]) -> None:
        """Merge one batch of each table, parent first; `read` numbers the slice's reads."""
        rows = self._rows(batches[0])
        keys = [row[self.parent.key] for row in rows]
        stored = self._stored(self.parent, keys)
        since = self._since(read)
        written = self._written[read]
        for key, row in zip(keys, rows, strict=True):
            how = _standing(row, stored.get(key), since)
            setattr(written, how, getattr(written, how) + 1)
        if self.punctuality:
            new = [key not in stored for key in keys]
            late, outside = lateness.counted(
                batches[0].filter(pa.array(new, pa.bool_())), self.punctuality, read
            )
            self._late.update(late)
            self.outside += outside
        self._remember(read, keys)
        self._put(self.parent, rows, stored, since)
        versions = self._stored(self.parent, keys)
        # Lines count where their order is stored in exactly the version that they came with, and alive.
        current = {
            key: row
            for key, row in zip(keys, rows, strict=True)
            if versions[key][:2] == (row[VERSION], row[RANK]) and versions[key][3] is None
        }
        for child, batch in zip(self.children, batches[1:], strict=True):
            self._merge_lines(child, self._rows(batch), current)

    def _merge_lines(
        self, child: Table, lines: Sequence[Mapping[str, Any]], current: Mapping[str, Mapping[str, Any]]
    ) -> None:
        parent = child.parent or ""
        ours = [
            line
            for line in lines
            if line[parent] in current and current[line[parent]][VERSION] == line[VERSION]
        ]
        keys = {(line[child.key], line[parent]) for line in ours}
        listed = [key for key, row in current.items() if row[CHILD_COUNT] is not None]
        living = rows_by_key(
            self.connection,
            child.name,
            parent,
            (child.key, parent),
            listed,
            condition=f'"{DELETED_AT}" IS NULL',
        )
        gone = [
            {"key": key, "parent": owner, "now": self._now()}
            for key, owner in living
            if (key, owner) not in keys
        ]
        if gone:
            entomb = (
                f'UPDATE "{child.name}" SET "{DELETED_AT}" = :now '
                f'WHERE "{child.key}" = :key AND "{parent}" = :parent'
            )
            self.connection.execute(sa.text(entomb), gone)
        self._put(child, ours, self._stored(child, [line[child.key] for line in ours]))

    def _put(
        self,
        table: Table,
        rows: Sequence[Mapping[str, Any]],
        stored: Mapping[str, tuple[Any, ...]],
        since: datetime | None = None,
    ) -> None:
        """Insert the rows that are new, and update those that give way; marked ones by `since`, or always."""
        names = [*merge.staged_names(table), LOADED_AT]
        new = [_only(row, names) for row in rows if row[table.key] not in stored]
        if new:
            self.connection.execute(sa.text(merge.insert(table.name, names)), new)
        changed = [
            _only(row, names)
            for row in rows
            if row[table.key] in stored and _gives_way(stored[row[table.key]], row, since)
        ]
        if changed:
            revived = f'"{DELETED_AT}" {"<= :_since" if since else "IS NOT NULL"}'
            update = (
                f'UPDATE "{table.name}" SET {_set(one for one in names if one != table.key)}, '
                f'"{DELETED_AT}" = NULL WHERE "{table.key}" = :{table.key} AND ({revived} OR '
                f'"{DELETED_AT}" IS NULL AND ("{VERSION}" < :{VERSION} OR ("{VERSION}" = :{VERSION} AND '
                f'("{RANK}" < :{RANK} OR ("{RANK}" = :{RANK} AND "{HASH}" <> :{HASH})))))'
            )
            self.connection.execute(sa.text(update), [{**row, "_since": since} for row in changed])

    def _stored(self, table: Table, keys: Sequence[str]) -> dict[str, tuple[Any, ...]]:
        """Return version, rank, hash and time of disappearance of the rows that are stored, by key."""
        columns = (table.key, VERSION, RANK, HASH, DELETED_AT)
        found = rows_by_key(self.connection, table.name, table.key, columns, keys)
        return {row[0]: tuple(row[1:]) for row in found}

    def _rows(self, batch: pa.Table) -> list[dict[str, Any]]:
        now = self._now()
        columns = {
            name: [self._bound(value) for value in batch.column(name).to_pylist()]
            for name in batch.column_names
        }
        return [
            {**dict(zip(columns, row, strict=True)), LOADED_AT: now}
            for row in zip(*columns.values(), strict=True)
        ]


def _standing(row: Mapping[str, Any], stored: tuple[Any, ...] | None, since: datetime) -> str:
    """Return which number of `Written` a row counts in."""
    if stored is None:
        return "inserted"
    version, rank, content, gone = stored
    if (version, rank) > (row[VERSION], row[RANK]) if gone is None else gone > since:
        return "stale"
    same = (version, rank, content) == (row[VERSION], row[RANK], row[HASH])
    return "unchanged" if same and gone is None else "updated"


def _gives_way(stored: tuple[Any, ...], row: Mapping[str, Any], since: datetime | None) -> bool:
    version, rank, content, gone = stored
    if gone is not None:
        return since is None or gone <= since
    form = (row[VERSION], row[RANK])
    return form > (version, rank) or (form == (version, rank) and content != row[HASH])


def _only(row: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: row[name] for name in names}


def _set(names: Iterable[str]) -> str:
    return ", ".join(f'"{one}" = :{one}' for one in names)
