"""MySQL and MariaDB: large INSERTs into temporary tables, then "insert what is absent, update what is older".

Instants are DATETIME(3) in UTC (TIMESTAMP ends in 2038), also on a server with another zone. JSON is stored
as text: MySQL's own type would turn its numbers into floats. All text compares byte by byte.
"""
# ruff: noqa: S608 - statements are composed of the catalogue's names; values are bound or escaped

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from kuaimai.errors import ConfigError, Transient
from kuaimai.gateway.catalog import FieldType
from kuaimai.load import merge
from kuaimai.load.proof import WINDOW_COLUMNS, WINDOW_TABLE
from kuaimai.load.sql import SqlTarget
from kuaimai.transform.amounts import amounts_as_text
from kuaimai.transform.tables import CHILD_COUNT, DELETED_AT, LOADED_AT, RANK, VERSION, Column, Table

# The drivers that this was written for, by SQLAlchemy's name, with the module each one is.
_DRIVERS = {"pymysql": "pymysql", "mysqldb": "MySQLdb"}

# Names in double quotes as everywhere in SQL; an error, not a truncated value, where something does not fit;
# and a wait for a table that is being altered that ends before a year is over.
_SESSION = (
    "SET SESSION sql_mode = 'ANSI_QUOTES,STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', "
    "time_zone = '+00:00', lock_wait_timeout = 60"
)
_SCHEMA_LOCK_SECONDS = 60
_LONGEST_LOCK_NAME = 64

# A statement is parsed as a whole and held in memory on both sides: larger ones gain nothing.
_STATEMENT_BYTES = 2 * 2**20

# No server at that address, or no such address.
_UNREACHABLE = {2002, 2003, 2005}

# What is wrong and what to do, by error number (MySQL's and MariaDB's references; they agree on these).
_NO_RIGHT = (
    "has too few rights",
    "GRANT SELECT, INSERT, UPDATE, CREATE, ALTER, CREATE TEMPORARY TABLES ON `{database}`.* TO '{user}'@'%'",
)
_NO_ENTRY = (
    "cannot be opened",
    "check host, login, password and schema (the database's name) of the Connection",
)
_REFUSED = ("refused a statement", "was the table changed by hand?")
_ADVICE = {
    **dict.fromkeys((1044, 1142, 1143, 1227, 1370, 1410), _NO_RIGHT),
    **dict.fromkeys((1045, 1049, 1130, 1251, 1524, 1698, 1820, 1862, 2059, 3118, 4151), _NO_ENTRY),
    **dict.fromkeys((1115, 1273), ("is too old", "use MySQL 8.0.17, MariaDB 10.5 or newer")),
    1176: (
        "lacks an index of its own",
        "CREATE INDEX `…_parent` ON the table of lines named here (the column of the parent's key)",
    ),
    1153: ("refused a large statement", "set max_allowed_packet of the server to 64 MB"),
    1665: ("refuses to write", "set binlog_format of the server to ROW or MIXED"),
    # Names, types and values that a table made by this package would take.
    **dict.fromkeys((1048, 1054, 1062, 1064, 1118, 1136, 1146, 1264, 1265, 1267, 1292, 1364, 1366), _REFUSED),
    **dict.fromkeys((1406, 1451, 1452, 3819, 4025), _REFUSED),
}


class MysqlTarget(SqlTarget):
    """A MySQL (8.0.17 or newer) or MariaDB (10.5 or newer) database, by PyMySQL or mysqlclient."""

    column_types: Mapping[FieldType, str] = MappingProxyType(
        {
            "id": "varchar(255)",
            "text": "mediumtext",
            "integer": "bigint",
            "number": "decimal(38,18)",
            "yuan": "decimal(38,18)",
            "time": "datetime(3)",
            "json": "mediumtext",
        }
    )

    def _make_engine(self) -> sa.engine.Engine:
        return sa.create_engine(
            self.url.set(drivername=f"mysql+{_driver(self.url)}"),
            # What another load committed while this one waited for its locks must be seen.
            isolation_level="READ COMMITTED",
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args={"charset": "utf8mb4", "init_command": _SESSION},
        )

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sa.exc.DBAPIError as err:
            raise _our_error(err.orig, self.url) from err
        except Exception as err:
            # The stage is filled past SQLAlchemy, so the driver's own errors come through as they are.
            if type(err).__module__.split(".")[0] in _DRIVERS.values():
                raise _our_error(err, self.url) from err
            raise

    def try_rights(self) -> str:
        """Make the tables beside the data, which stay, and write into a temporary one.

        A table made here would stay too, because loading needs no right to drop one.
        """
        name = f"kuaimai_doctor_{secrets.token_hex(4)}"
        with self._told():
            self._prepare(())
            with self.engine.begin() as connection:
                connection.execute(sa.text(f'CREATE TEMPORARY TABLE "{name}" ("key" varchar(20))'))
                connection.execute(sa.text(f"""INSERT INTO "{name}" VALUES ('值')"""))
                connection.execute(sa.text(f'DROP TEMPORARY TABLE "{name}"'))
        return f"{self.url.render_as_string(hide_password=True)}: tables can be made and written"

    def instant(self, moment: datetime) -> datetime:
        """Return an instant in UTC without zone, cut to milliseconds, which the server would round."""
        moment = moment.astimezone(timezone.utc).replace(tzinfo=None)
        return moment.replace(microsecond=moment.microsecond // 1000 * 1000)

    def read_instant(self, value: Any) -> datetime:
        """Return the instant in a DATETIME."""
        return super().read_instant(value).replace(tzinfo=timezone.utc)

    @contextmanager
    def _schema_locked(self, connection: sa.engine.Connection) -> Iterator[None]:
        # Not part of the transaction, which every DDL statement commits.
        name = f"kuaimai:{self.url.database}"[:_LONGEST_LOCK_NAME]
        ask = sa.text(f"SELECT GET_LOCK(:name, {_SCHEMA_LOCK_SECONDS})")
        if connection.execute(ask, {"name": name}).scalar() != 1:
            raise Transient(
                f"the tables of {self.url.database} are being made by somebody else",
                hint="the load is repeated",
            )
        try:
            yield
        finally:
            connection.execute(sa.text("SELECT RELEASE_LOCK(:name)"), {"name": name})

    def _create_table(
        self, name: str, label: str, key: str, parent: str | None, columns: Sequence[Column]
    ) -> Iterator[str]:
        parts = [self._column(column, " NOT NULL" if column.name == key else "") for column in columns]
        parts.append(f'PRIMARY KEY ("{key}")')
        if parent:
            parts.append(f'KEY "{_parent_index(name)}" ("{parent}")')
        options = f"{self._options} COMMENT {_comment(label)}"
        yield f'CREATE TABLE IF NOT EXISTS "{name}" ({", ".join(parts)}) {options}'

    def _create_index(self, name: str, columns: Sequence[str]) -> str:
        # By ALTER TABLE: that right is given, the right INDEX is not. Texts are not indexed as a whole.
        kinds = {column.name: column.type for column in WINDOW_COLUMNS}
        parts = ", ".join(f'"{one}"' + ("(64)" if kinds[one] == "text" else "") for one in columns)
        return f'ALTER TABLE "{WINDOW_TABLE}" ADD KEY "{name}" ({parts})'

    def _add_columns(self, name: str, columns: Sequence[Column]) -> Iterator[str]:
        yield f'ALTER TABLE "{name}" {", ".join(f"ADD COLUMN {self._column(column)}" for column in columns)}'

    def _column(self, column: Column, rule: str = "") -> str:
        comment = column.comment + ("（UTC）" if column.type == "time" else "")
        return f'"{column.name}" {self.column_types[column.type]}{rule} COMMENT {_comment(comment)}'

    @property
    def _options(self) -> str:
        # Trailing spaces count, as everywhere else; the two servers call that differently.
        maria = getattr(self.engine.dialect, "is_mariadb", False)
        collation = "utf8mb4_nopad_bin" if maria else "utf8mb4_0900_bin"
        return f"ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARSET=utf8mb4 COLLATE={collation}"

    def _open_stage(self, connection: sa.engine.Connection, tables: Sequence[Table]) -> None:
        for table in tables:
            self.empty_stage(connection, table)
        connection.execute(sa.text(f'DROP TEMPORARY TABLE IF EXISTS "{merge.SEEN}"'))
        connection.execute(
            sa.text(
                # The number because servers may be set to refuse a table without primary key.
                f'CREATE TEMPORARY TABLE "{merge.SEEN}" ("number" bigint AUTO_INCREMENT PRIMARY KEY, '
                f'"read" integer, "key" {self.column_types["id"]}, KEY ("key", "read")) {self._options}'
            )
        )

    def empty_stage(self, connection: sa.engine.Connection, table: Table) -> None:
        """Make the stage anew: DELETE leaves dead rows behind until the commit, TRUNCATE *is* one."""
        name = merge.stage_name(table)
        parts = [f'"{column}" {self.column_types[kind]}' for column, kind in merge.stage_columns(table)]
        parts.append(f'PRIMARY KEY ("{table.key}")')
        connection.execute(sa.text(f'DROP TEMPORARY TABLE IF EXISTS "{name}"'))
        connection.execute(sa.text(f'CREATE TEMPORARY TABLE "{name}" ({", ".join(parts)}) {self._options}'))

    def stage(self, connection: sa.engine.Connection, table: Table, batch: pa.Table) -> None:
        """Insert the batch by a few large statements, whose text is made by Arrow, column by column.

        LOAD DATA LOCAL is off by default on MySQL 8, lets the server ask for any file of this machine, and
        stores what does not fit cut to size, with a warning.
        """
        if not batch.num_rows:
            return
        cursor: Any = connection.connection.cursor()
        try:
            cursor.execute("SELECT @@max_allowed_packet")
            accepted = int(cursor.fetchone()[0])
            for values in _statements(batch, min(accepted // 2, _STATEMENT_BYTES)):
                statement = f'INSERT INTO "{merge.stage_name(table)}" VALUES {values}'.encode()
                if len(statement) >= accepted:  # the server would hang up instead of answering
                    raise ConfigError(
                        f"a row of {table.name} has {len(statement)} bytes, "
                        f"the server accepts {accepted} (max_allowed_packet)",
                        hint="set max_allowed_packet of the server to 64 MB",
                    )
                cursor.execute(statement)
        finally:
            cursor.close()

    # A temporary table may appear only once in a statement of MySQL. Joins start at the stage:
    # after the statistics of tables that were just filled the optimiser would read the whole target.
    # And they go by the index: who reads a small table as a whole waits for the rows of other loads too, and
    # two of them for each other.

    def drop_settled(self, parent: Table, children: Sequence[Table]) -> Sequence[str]:
        """Say it so that MariaDB takes the alias."""
        return (merge.drop_settled(parent, children, "DELETE s FROM"),)

    def upsert(self, table: Table) -> Sequence[str]:
        """Insert, which also locks what is there, in the order of keys; then update what is older."""
        return self._insert_then_update(table, f'"{merge.stage_name(table)}" s')

    def upsert_children(self, parent: Table, child: Table) -> Sequence[str]:
        """Do the same for the lines whose order is stored in exactly the version that the lines came with."""
        return self._insert_then_update(
            child,
            f'"{merge.stage_name(child)}" s '
            f'STRAIGHT_JOIN "{merge.stage_name(parent)}" p '
            f'ON p."{parent.key}" = s."{child.parent}" AND p."{VERSION}" = s."{VERSION}" '
            f"STRAIGHT_JOIN {_as_staged(parent)}",
        )

    def _insert_then_update(self, table: Table, source: str) -> Sequence[str]:
        staged = merge.staged_names(table)
        names = [*staged, LOADED_AT]
        changed = ", ".join(f't."{name}" = s."{name}"' for name in staged if name != table.key)
        own_key = f'"{table.name}"."{table.key}"'
        return (
            f"""
            INSERT INTO "{table.name}" ({merge.quoted(names)})
            SELECT {", ".join(f's."{name}"' for name in staged)}, :now FROM {source}
            ORDER BY s."{table.key}"
            ON DUPLICATE KEY UPDATE {own_key} = {own_key}
            """,
            f"""
            UPDATE {source}
            STRAIGHT_JOIN "{table.name}" t FORCE INDEX (PRIMARY) ON t."{table.key}" = s."{table.key}"
            SET {changed}, t."{LOADED_AT}" = :now, t."{DELETED_AT}" = NULL
            WHERE {merge.gives_way(table, "t", "s")}
            """,
        )

    def entomb(self, parent: Table, child: Table) -> str:
        """Mark lines that their order, in its stored version, no longer contains."""
        return f"""
            UPDATE "{merge.stage_name(parent)}" p
            STRAIGHT_JOIN {_as_staged(parent)}
            STRAIGHT_JOIN "{child.name}" t FORCE INDEX ("{_parent_index(child.name)}")
              ON t."{child.parent}" = p."{parent.key}"
            LEFT JOIN "{merge.stage_name(child)}" l
              ON l."{child.key}" = t."{child.key}" AND l."{child.parent}" = t."{child.parent}"
             AND l."{VERSION}" = p."{VERSION}"
            SET t."{DELETED_AT}" = :now
            WHERE t."{DELETED_AT}" IS NULL AND p."{CHILD_COUNT}" IS NOT NULL AND l."{child.key}" IS NULL
        """

    def upsert_row(self, name: str, columns: Sequence[Column], key: str, keep: Sequence[str] = ()) -> str:
        """Insert or replace one row of a proof table; the columns in `keep` stay as first written."""
        names = [column.name for column in columns if column.name != key and column.name not in keep]
        changed = ", ".join(f'"{one}" = VALUES("{one}")' for one in names)
        return f"{_insert(name, columns)} {changed}"

    def insert_row(self, name: str, columns: Sequence[Column], key: str) -> str:
        """Insert one row of a proof table unless its key is there."""
        return f'{_insert(name, columns)} "{key}" = "{key}"'


def _driver(url: sa.engine.URL) -> str:
    named = url.drivername.partition("+")[2]
    if named in _DRIVERS:
        wanted = [named]
    elif named:
        raise ConfigError(
            f"the target's driver is {named}", hint="write mysql+pymysql://… and pip install pymysql"
        )
    else:
        wanted = list(_DRIVERS)
    for driver in wanted:
        if find_spec(_DRIVERS[driver]):
            return driver
    raise ConfigError(
        f"the driver of MySQL and MariaDB is not installed ({' or '.join(wanted)})",
        hint="pip install 'airflow-provider-kuaimai[mysql]'",
    )


def _parent_index(name: str) -> str:
    """The index of a table of lines by their parent's key."""
    return f"{name}_parent"


def _as_staged(parent: Table) -> str:
    """The living parent in exactly the staged version, as the rest of a join with the parent's stage `p`."""
    return (
        f'"{parent.name}" q FORCE INDEX (PRIMARY) ON q."{parent.key}" = p."{parent.key}" '
        f'AND q."{VERSION}" = p."{VERSION}" AND q."{RANK}" = p."{RANK}" AND q."{DELETED_AT}" IS NULL'
    )


def _insert(name: str, columns: Sequence[Column]) -> str:
    return f"{merge.insert(name, [column.name for column in columns])} ON DUPLICATE KEY UPDATE"


def _statements(batch: pa.Table, room: int) -> Iterator[str]:
    """Yield `(…),(…)` lists of a batch's rows, each below `room` bytes unless one row alone is larger."""
    rows = pc.binary_join_element_wise(*(_literals(column) for column in batch.columns), ",")
    sizes = pc.binary_length(rows).to_pylist()
    texts = rows.to_pylist()
    start = size = 0
    for position, more in enumerate(sizes):
        if position > start and size + more > room:
            yield f"({'),('.join(texts[start:position])})"
            start, size = position, 0
        size += more + 3
    yield f"({'),('.join(texts[start:])})"


def _literals(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Write a column as SQL literals. Amounts are quoted: bare ones with an exponent would be floats."""
    kind = column.type
    if pa.types.is_integer(kind):
        return pc.fill_null(pc.cast(column, pa.string()), "NULL")
    if pa.types.is_decimal(kind):
        column = amounts_as_text(column)
    elif pa.types.is_timestamp(kind):
        column = pc.cast(pc.cast(column, pa.timestamp(kind.unit)), pa.string())
    else:
        # The session's sql_mode makes the backslash an escape character, and utf8mb4 has none inside another.
        column = pc.replace_substring(column, "\\", "\\\\")
        column = pc.replace_substring(column, "'", "''")
    return pc.fill_null(pc.binary_join_element_wise("'", column, "'", ""), "NULL")


def _comment(text: str) -> str:
    """A comment as a literal in a text of SQLAlchemy, where a colon would begin a parameter."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''").replace(":", "\\:") + "'"


def _our_error(err: BaseException | None, url: sa.engine.URL) -> ConfigError | Transient:
    """Name what to do about a driver's error."""
    code, text = _said(err)
    where = f"target {url.host or 'local'}/{url.database} as user {url.username}"
    if code in _ADVICE:
        what, hint = _ADVICE[code]
        hint = hint.format(database=url.database, user=url.username)
        return ConfigError(f"{where} {what}: {text}", hint=hint)
    # Lost connections, deadlocks (1213), lock waits (1205), a full disk, a server that starts: loaded again.
    advice = "check that it runs, and host and port of the Connection; " if code in _UNREACHABLE else ""
    return Transient(
        f"{where} failed: {text}", hint=f"{advice}the load is repeated; nothing of this window was stored"
    )


def _said(err: BaseException | None) -> tuple[int, str]:
    """Return the number and the first line of a driver's error; neither holds parameters."""
    arguments = err.args if err is not None else ()
    code = arguments[0] if arguments and isinstance(arguments[0], int) else 0
    lines = str(arguments[-1] if arguments else err).strip().splitlines()
    return code, f"{lines[0]} ({code})" if lines else type(err).__name__
