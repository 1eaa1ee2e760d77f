"""Upserting into a SQL target: what every dialect shares. Fast paths: `postgres`, `mysql` and `sqlite`.

One load is one transaction: batches, tombstones of vanished lines, quarantine and the proof rows become
visible together or not at all.
"""
# ruff: noqa: S608 - statements name our own tables; values are bound

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime, timezone
from typing import Any

import msgspec
import pyarrow as pa
import sqlalchemy as sa

from kuaimai.errors import ConfigError
from kuaimai.gateway.catalog import FieldType
from kuaimai.load import drift, held, lateness, merge
from kuaimai.load.held import Held
from kuaimai.load.lateness import LATENESS_COLUMNS, LATENESS_TABLE, Punctuality
from kuaimai.load.proof import (
    CONTESTED,
    MOST_TRIES,
    OPEN,
    QUARANTINE_COLUMNS,
    QUARANTINE_TABLE,
    RECONCILE_COLUMNS,
    RECONCILE_TABLE,
    SCHEMA_COLUMNS,
    SCHEMA_TABLE,
    SEALED,
    SUPERSEDED,
    TOTAL_COLUMNS,
    TOTAL_TABLE,
    WINDOW_COLUMNS,
    WINDOW_TABLE,
    why_open,
)
from kuaimai.transform.drift import Seen
from kuaimai.transform.rules import Policy
from kuaimai.transform.tables import DELETED_AT, HASH, LOADED_AT, RANK, VERSION, WINDOW, Column, Table

# A scan that misses more rows than this, and more than this share of all, or all of them, is not believed: a
# right that was lost, or a filter that the gateway began to apply, looks just the same.
MOST_MISSING = 20
MOST_MISSING_SHARE = 0.3

# Keys in one statement: every database takes so many values.
_KEYS_AT_ONCE = 500
# Numbers of reads count from here for keys that were left out; no slice has so many reads.
_FILTERED = -1_000_000
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


class Written(msgspec.Struct):
    """What merging one read's batches did to the parent table, in rows."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    stale: int = 0


class Scan(msgspec.Struct, frozen=True):
    """What a reading of everything covers: all rows, or those with some ids in a column.

    Attributes:
        column: the column with the ids; empty for all rows.
        ids: the ids.
        asked: a person asked for it: then also many rows at once are believed to be gone.
    """

    column: str = ""
    ids: tuple[str, ...] = ()
    asked: bool = False


class WindowFacts(msgspec.Struct, frozen=True):
    """What the extract and transform stages know about one window; the loader adds what landed.

    `scan` lets the rows that it covers, and that were not seen, be marked as gone once the window is proven.
    """

    window_id: str
    read: int
    pipeline: str
    method: str
    shops: tuple[str, ...]
    dimension: str
    window_start: datetime
    window_end: datetime
    total_before: int | None
    total_after: int | None
    distinct_keys: int
    pages: int
    requests: int
    attempts: int
    run_id: str
    first_read_at: datetime
    last_read_at: datetime
    proof: str = "counts"
    scan: Scan | None = None
    planned_as: str | None = None


class PlannedWindow(msgspec.Struct, frozen=True):
    """A window that is going to be read; the fields are columns of `kuaimai_window`."""

    window_id: str
    pipeline: str
    method: str
    shops: tuple[str, ...]
    dimension: str
    window_start: datetime
    window_end: datetime
    run_id: str
    planned_as: str | None = None


class ReadWindow(msgspec.Struct, frozen=True):
    """A window of the coverage: which time of which shops, whether it is sealed, on what, and since when.

    `unread` counts how often it was planned, since it was last read to its end.
    """

    window_id: str
    method: str
    shops: tuple[str, ...]
    start: datetime
    end: datetime
    state: str
    proof: str | None = None
    last_read_at: datetime | None = None
    unread: int = 0


class StateCount(msgspec.Struct, frozen=True):
    """The windows of one dimension and state: how many, the latest end and read, what they found first."""

    windows: int
    end: datetime
    read_at: datetime | None
    found_only: int


class Waiting(msgspec.Struct, frozen=True):
    """The oldest window of a dimension that is not sealed, and why not."""

    start: datetime
    end: datetime
    reason: str


class Standing(msgspec.Struct, frozen=True):
    """What the proof tables say about a pipeline.

    Attributes:
        dimensions: dimension → state → its windows.
        waiting: dimension → the oldest window that is open or contested.
        quarantined: records that are set aside and not resolved.
        oldest_quarantined: since when the oldest of them is.
    """

    dimensions: dict[str, dict[str, StateCount]]
    waiting: dict[str, Waiting]
    quarantined: int
    oldest_quarantined: datetime | None


class Sealing(msgspec.Struct, frozen=True):
    """One window's verdict after loading.

    Attributes:
        window_id: the window.
        method: API method.
        dimension: its time dimension.
        start: first instant.
        end: last instant.
        state: `SEALED`, `OPEN` or `CONTESTED`.
        reason: why it is not sealed.
        total: the gateway's count.
        landed: its keys in the target.
        quarantined: its keys in quarantine.
        inserted: rows that this load brought first.
        updated: rows that this load changed.
        unchanged: rows that were there as they came.
        stale: rows that were older than what was there.
        missing: rows that a scan did not see, and that were marked as gone.
        filtered: its keys that the pipeline's rules left out.
    """

    window_id: str
    method: str
    dimension: str
    start: datetime
    end: datetime
    state: str
    reason: str | None
    total: int | None
    landed: int
    quarantined: int
    inserted: int
    updated: int
    unchanged: int
    stale: int
    missing: int = 0
    filtered: int = 0


class Quarantined(msgspec.Struct, frozen=True):
    """A record on its way to `kuaimai_quarantine`; `read` numbers the slice's reads, the rest are columns."""

    read: int
    quarantine_id: str
    pipeline: str
    pipeline_version: str
    method: str
    record_key: str
    reason: str
    request: str
    record: str
    window_id: str


class SqlTarget(ABC):
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

    @contextmanager
    def loading(self, tables: Sequence[Table], punctuality: Punctuality | None = None) -> Iterator[Loading]:
        """Open the one transaction of a load; leaving the block in peace commits it.

        Args:
            tables: parent table first; missing tables and columns are made.
            punctuality: counts late records; None where the load cannot say which ones are.

        Raises:
            KuaimaiError: the database's error, by what to do about it.
        """
        with self._told():
            self._prepare(tables)
            with self.engine.begin() as connection:
                self._open_stage(connection, tables)
                loading = self._load(connection, tables, punctuality)
                yield loading
                # Last, because other loads wait for these rows until the commit.
                loading.note_lateness()

    def prepare(self, tables: Sequence[Table], beside: Mapping[str, Beside] | None = None) -> None:
        """Make what is missing of the tables, of those beside the data, and of further ones by name."""
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

    def coverage(
        self, pipeline: str, dimension: str, since: datetime, until: datetime | None = None
    ) -> list[ReadWindow]:
        """Return the windows that end after an instant and begin before another.

        Empty where nothing was planned yet.
        """
        rows = self._ask(
            WINDOW_TABLE,
            "SELECT window_id, method, shops, window_start, window_end, state, proof, last_read_at, unread "
            f"FROM {WINDOW_TABLE} "
            "WHERE pipeline = :pipeline AND dimension = :dimension AND window_end > :since"
            + (" AND window_start < :until" if until else ""),
            pipeline=pipeline,
            dimension=dimension,
            since=self.instant(since),
            **({"until": self.instant(until)} if until else {}),
        )
        return [
            ReadWindow(
                window_id=row[0],
                method=row[1],
                shops=tuple(msgspec.json.decode(row[2])),
                start=self.read_instant(row[3]),
                end=self.read_instant(row[4]),
                state=row[5],
                proof=row[6],
                last_read_at=None if row[7] is None else self.read_instant(row[7]),
                unread=int(row[8] or 0),
            )
            for row in rows
        ]

    def began(self, pipeline: str, dimension: str) -> datetime | None:
        """Return the start of the first window that runs by schedule or by hand ever planned, or None.

        A backfill and the reconcile read time that nobody promised to keep sealed.
        """
        ((start,),) = self._ask(
            WINDOW_TABLE,
            f"SELECT min(window_start) FROM {WINDOW_TABLE} "
            "WHERE pipeline = :pipeline AND dimension = :dimension "
            "AND (planned_as IS NULL OR planned_as IN ('interval', 'heal'))",
            pipeline=pipeline,
            dimension=dimension,
        ) or [(None,)]
        return None if start is None else self.read_instant(start)

    def standing(self, pipeline: str) -> Standing:
        """Return what the proof tables say about a pipeline; empty where nothing was planned yet."""
        dimensions: dict[str, dict[str, StateCount]] = {}
        for dimension, state, windows, end, read_at, found_only in self._ask(
            WINDOW_TABLE,
            "SELECT dimension, state, count(*), max(window_end), max(last_read_at), sum(found_only) "
            f"FROM {WINDOW_TABLE} WHERE pipeline = :pipeline GROUP BY dimension, state",
            pipeline=pipeline,
        ):
            dimensions.setdefault(dimension, {})[state] = StateCount(
                int(windows),
                self.read_instant(end),
                None if read_at is None else self.read_instant(read_at),
                int(found_only or 0),
            )
        waiting: dict[str, Waiting] = {}
        for dimension, start, end, reason in self._ask(
            WINDOW_TABLE,
            f"SELECT dimension, window_start, window_end, reason FROM {WINDOW_TABLE} "
            "WHERE pipeline = :pipeline AND state IN (:open, :contested) ORDER BY window_start, window_end",
            pipeline=pipeline,
            open=OPEN,
            contested=CONTESTED,
        ):
            oldest = Waiting(self.read_instant(start), self.read_instant(end), reason or "")
            waiting.setdefault(dimension, oldest)
        ((quarantined, since),) = self._ask(
            QUARANTINE_TABLE,
            f"SELECT count(*), min(first_seen_at) FROM {QUARANTINE_TABLE} "
            "WHERE pipeline = :pipeline AND resolved_at IS NULL",
            pipeline=pipeline,
        ) or [(0, None)]
        return Standing(
            dimensions, waiting, int(quarantined), None if since is None else self.read_instant(since)
        )

    def announce(self, windows: Sequence[PlannedWindow]) -> None:
        """Write down what is going to be read, so that a read that never happens leaves an open window."""
        with self._told():
            self._prepare(())
            with self.engine.begin() as connection:
                for window in windows:
                    row = {
                        **dict.fromkeys(column.name for column in WINDOW_COLUMNS),
                        **msgspec.structs.asdict(window),
                        "shops": msgspec.json.encode(window.shops).decode(),
                        "window_start": self.instant(window.window_start),
                        "window_end": self.instant(window.window_end),
                        "state": OPEN,
                        "reason": "planned, not read yet",
                        "recorded_at": self.instant(datetime.fromtimestamp(self.now(), tz=timezone.utc)),
                    }
                    self.put_new_row(connection, WINDOW_TABLE, WINDOW_COLUMNS, "window_id", row)
                    connection.execute(
                        sa.text(
                            f"UPDATE {WINDOW_TABLE} SET unread = COALESCE(unread, 0) + 1 "
                            "WHERE window_id = :id AND state = :open"
                        ),
                        {"id": window.window_id, "open": OPEN},
                    )

    def supersede(self, window_ids: Sequence[str]) -> None:
        """Close windows that are not sealed, and whose time other windows have sealed since."""
        if not window_ids:
            return
        with self._told(), self.engine.begin() as connection:
            for window_id in window_ids:
                connection.execute(
                    sa.text(
                        f"UPDATE {WINDOW_TABLE} SET state = :state "
                        "WHERE window_id = :id AND state IN (:open, :contested)"
                    ),
                    {"state": SUPERSEDED, "id": window_id, "open": OPEN, "contested": CONTESTED},
                )

    def look_back(self, pipeline: str, configured_minutes: int) -> int:
        """Return how far back to look for records by their creation, in minutes; see `lateness.look_back`."""
        today = datetime.fromtimestamp(self.now(), tz=timezone.utc)
        seen = self._ask(
            LATENESS_TABLE, lateness.observed(), pipeline=pipeline, day=lateness.first_day(today)
        )
        return lateness.look_back(configured_minutes, [(row[0], row[1], int(row[2])) for row in seen])

    def held(self, pipeline: str) -> list[Held]:
        """Return the records of a pipeline in quarantine that did not land since, the oldest first."""
        rows = self._ask(QUARANTINE_TABLE, held.HELD, pipeline=pipeline)
        return [Held(*(_as_json(value) for value in row)) for row in rows]

    def oldest_held(self, pipeline: str) -> tuple[int, datetime | None]:
        """Return how many these are, and since when the oldest is there."""
        ((count, since),) = self._ask(QUARANTINE_TABLE, held.OLDEST, pipeline=pipeline) or [(0, None)]
        return int(count), None if since is None else self.read_instant(since)

    def known_columns(self, pipeline: str) -> dict[str, str]:
        """Return the fields beyond the catalogue that have columns: field → column."""
        statement = f'SELECT "known" FROM "{SCHEMA_TABLE}" WHERE "pipeline" = :pipeline'
        return drift.columns_in(row[0] for row in self._ask(SCHEMA_TABLE, statement, pipeline=pipeline))

    def note_seen(self, pipeline: str, seen: Seen, policy: Policy) -> tuple[str, ...]:
        """Remember what a slice saw of the fields; return what nobody was told of yet, a sentence each.

        A load comes first: it makes the table.
        """
        moment = self.instant(datetime.fromtimestamp(self.now(), tz=timezone.utc))
        row = drift.first_row(pipeline, seen.method, moment)
        with self._told(), self.engine.begin() as connection:
            self.put_new_row(connection, SCHEMA_TABLE, SCHEMA_COLUMNS, "schema_id", row)
            return drift.note(connection, row["schema_id"], seen, policy, moment)

    def _ask(self, table: str, statement: str, **values: Any) -> list[Any]:
        with self._told():
            if not sa.inspect(self.engine).has_table(table):
                return []
            with self.engine.connect() as connection:
                return list(connection.execute(sa.text(statement), values).fetchall())

    def instant(self, moment: datetime) -> Any:
        """Return an instant in the form that this database is given."""
        return moment

    def read_instant(self, value: Any) -> datetime:
        """Return an instant that this database gave, with zone."""
        if not isinstance(value, datetime):
            raise ConfigError(f"{WINDOW_TABLE} holds no instants; was the table made by something else?")
        return value

    def _prepare(self, tables: Sequence[Table], beside: Mapping[str, Beside] | None = None) -> None:
        wanted: dict[str, Beside] = {
            table.name: (table.label, table.key, _columns(table)) for table in tables
        }
        wanted.update(beside or {})
        wanted[WINDOW_TABLE] = ("窗口封存证明", "window_id", WINDOW_COLUMNS)
        wanted[QUARANTINE_TABLE] = ("隔离记录", "quarantine_id", QUARANTINE_COLUMNS)
        wanted[LATENESS_TABLE] = ("记录首次读到的延迟", "lateness_id", LATENESS_COLUMNS)
        wanted[RECONCILE_TABLE] = ("夜间核对结果", "reconcile_id", RECONCILE_COLUMNS)
        wanted[SCHEMA_TABLE] = ("源数据结构", "schema_id", SCHEMA_COLUMNS)
        wanted[TOTAL_TABLE] = ("按店铺与状态的每日合计", "total_id", TOTAL_COLUMNS)
        with self.engine.connect() as connection:
            complete = not _missing(connection, wanted)
        if complete:
            return
        with self.engine.begin() as connection, self._schema_locked(connection):
            # Somebody else may have made them while this one waited for the lock.
            for statement in self._ddl(_missing(connection, wanted), wanted, tables):
                connection.execute(sa.text(statement))

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

    # The steps of a merge that databases say in different words.

    def drop_settled(self, parent: Table, children: Sequence[Table]) -> Sequence[str]:
        """Return the statements that drop from the stage what is stored as staged, or newer."""
        return (merge.drop_settled(parent, children),)

    def upsert(self, table: Table) -> Sequence[str]:
        """Return the statements that merge the staged rows into a table that has no parent."""
        return (merge.upsert(table),)

    def upsert_children(self, parent: Table, child: Table) -> Sequence[str]:
        """Return the statements that merge the staged lines of the orders that are stored as staged."""
        return (merge.upsert_children(parent, child),)

    def entomb(self, parent: Table, child: Table) -> str:
        """Return the statement that marks lines which their order no longer contains."""
        return merge.entomb(parent, child)

    def upsert_row(self, name: str, columns: Sequence[Column], key: str, keep: Sequence[str] = ()) -> str:
        """Return the statement that inserts or replaces one row of a proof table."""
        return merge.upsert_row(name, columns, key, keep)

    def insert_row(self, name: str, columns: Sequence[Column], key: str) -> str:
        """Return the statement that inserts one row of a proof table unless its key is there."""
        return merge.insert_row(name, columns, key)

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

    def _load(
        self, connection: sa.engine.Connection, tables: Sequence[Table], punctuality: Punctuality | None
    ) -> Loading:
        return Loading(self, connection, tables, punctuality)

    @abstractmethod
    def _make_engine(self) -> sa.engine.Engine: ...

    @abstractmethod
    def _told(self) -> Any:
        """A context in which the driver's errors become ours."""

    @abstractmethod
    def _schema_locked(self, connection: sa.engine.Connection) -> AbstractContextManager[None]:
        """A context in which nobody else makes tables."""

    @abstractmethod
    def _open_stage(self, connection: sa.engine.Connection, tables: Sequence[Table]) -> None: ...

    @abstractmethod
    def empty_stage(self, connection: sa.engine.Connection, table: Table) -> None:
        """Make room for the next batch."""

    @abstractmethod
    def stage(self, connection: sa.engine.Connection, table: Table, batch: pa.Table) -> None:
        """Put a batch into the table's temporary stage, the fastest way this database has."""


class Loading:
    """The open transaction of one load."""

    def __init__(
        self,
        target: SqlTarget,
        connection: sa.engine.Connection,
        tables: Sequence[Table],
        punctuality: Punctuality | None = None,
    ) -> None:
        self.target = target
        self.connection = connection
        self.tables = tables
        self.parent, *self.children = tables
        self.punctuality = punctuality if punctuality and lateness.can_measure(tables[0]) else None
        self.outside = 0
        self.moment = datetime.fromtimestamp(target.now(), tz=timezone.utc)
        self._written: dict[int, Written] = {}
        self._set_aside: dict[int, int] = {}
        self._aside_keys: dict[int, set[str]] = {}
        self._left_out: set[int] = set()
        self._late: dict[tuple[str, int], int] = {}

    def merge(self, read: int, batches: Sequence[pa.Table]) -> None:
        """Merge one batch of each table, parent first; `read` numbers the slice's reads."""
        for table, batch in zip((self.parent, *self.children), batches, strict=True):
            self.target.stage(self.connection, table, batch)
        standings = {how: int(count) for how, count in self._run(merge.compare(self.parent))}
        new, unchanged, stale = (standings.get(how, 0) for how in (None, merge.UNCHANGED, merge.STALE))
        written = self._written.setdefault(read, Written())
        written.inserted += new
        written.updated += standings.get(merge.OLDER, 0)
        written.unchanged += unchanged
        written.stale += stale
        if self.punctuality and new:
            self._count_late(self.punctuality, read)
        self._run(merge.remember(self.parent, read))
        for statement in self.target.drop_settled(self.parent, self.children) if unchanged or stale else ():
            self._run(statement)
        if self._run(merge.has_staged(self.parent)).first():
            self._write()
        for table in (self.parent, *self.children):
            self.target.empty_stage(self.connection, table)

    def _write(self) -> None:
        """Write what is staged, parents first: which lines hold depends on which parents do."""
        for statement in self.target.upsert(self.parent):
            self._run(statement, now=self._now())
        for child in self.children:
            self._run(self.target.entomb(self.parent, child), now=self._now())
            for statement in self.target.upsert_children(self.parent, child):
                self._run(statement, now=self._now())

    def _count_late(self, told: Punctuality, read: int) -> None:
        """Count the staged rows that are new, by platform and lateness, before they are merged."""
        bound = {name: self._bound(at) for name, at in lateness.instants(told, read).items()}
        for source, minutes, records, outside in self._run(lateness.count_new(self.parent), **bound):
            self._late[source, minutes] = self._late.get((source, minutes), 0) + int(records)
            self.outside += int(outside)

    def note_lateness(self) -> None:
        """Add up what was counted, in one order for all loads, so that they never wait in a circle."""
        if not self.punctuality:
            return
        for (source, minutes), records in sorted(self._late.items()):
            row = lateness.row_of(self.punctuality, self.moment, source, minutes)
            self.target.put_new_row(self.connection, LATENESS_TABLE, LATENESS_COLUMNS, "lateness_id", row)
            self._run(lateness.add_rows(), records=records, lateness_id=row["lateness_id"])

    def quarantine(self, records: Sequence[Quarantined]) -> None:
        """Set records aside, after all batches are merged; one that comes again keeps its first time.

        A bad record whose key also came in good shape is kept, but does not count: that key has landed.
        """
        for record in records:
            self._aside_keys.setdefault(record.read, set()).add(record.record_key)
            if not self._has_landed(record):
                self._set_aside[record.read] = self._set_aside.get(record.read, 0) + 1
            row = {
                **msgspec.structs.asdict(record),
                "first_seen_at": self._now(),
                "last_seen_at": self._now(),
                "resolved_at": None,
            }
            self.target.put_row(
                self.connection,
                QUARANTINE_TABLE,
                QUARANTINE_COLUMNS,
                "quarantine_id",
                {column.name: row[column.name] for column in QUARANTINE_COLUMNS},
                keep=("first_seen_at",),
            )

    def leave_out(self, read: int, keys: Iterable[str]) -> None:
        """Count keys as filtered, unless they land or are set aside in the same read."""
        chosen = list(keys)
        for start in range(0, len(chosen), _KEYS_AT_ONCE):
            some = chosen[start : start + _KEYS_AT_ONCE]
            values = {f"key{number}": key for number, key in enumerate(some)}
            self._run(merge.remember_keys(_filtered(read), len(some)), **values)
        if chosen:
            self._left_out.add(read)

    def stored(self, pipeline: str, read: int, keys: Sequence[str]) -> set[str]:  # noqa: ARG002 - see booked
        """Return those of some merged keys that are in the target."""
        found: set[str] = set()
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            some = {f"key{number}": key for number, key in enumerate(keys[start : start + _KEYS_AT_ONCE])}
            marks = ", ".join(f":{name}" for name in some)
            statement = f'SELECT "{self.parent.key}" FROM "{self.parent.name}" '
            found |= {
                row[0] for row in self._run(f'{statement} WHERE "{self.parent.key}" IN ({marks})', **some)
            }
        return found

    def marked(self, keys: Sequence[str]) -> dict[str, int]:
        """Return those of some keys whose rows are marked as gone: key → version of the row."""
        found: dict[str, int] = {}
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            some = {f"key{number}": key for number, key in enumerate(keys[start : start + _KEYS_AT_ONCE])}
            marks = ", ".join(f":{name}" for name in some)
            statement = (
                f'SELECT "{self.parent.key}", "{VERSION}" FROM "{self.parent.name}" '
                f'WHERE "{DELETED_AT}" IS NOT NULL AND "{self.parent.key}" IN ({marks})'
            )
            found |= {key: int(version) for key, version in self._run(statement, **some)}
        return found

    def resolve(self, landed: Sequence[Held], left_out: Sequence[Held]) -> int:
        """Mark quarantined records as resolved, and move them in the counts of their windows."""
        return held.resolve(self.connection, landed, left_out, self._now())

    def account(self, read: int, landed: Iterable[str], quarantined: int) -> None:
        """Let keys count in the proof of a read whose records need not be loaded again.

        Args:
            read: number of the read.
            landed: keys that should be in the target; `seal` reads them back like all others.
            quarantined: how many more keys of the read are in quarantine, and unresolved.
        """
        keys = [{"key": key} for key in landed]
        if keys:
            self.connection.execute(sa.text(merge.remember_key(read)), keys)
        self._set_aside[read] = self._set_aside.get(read, 0) + quarantined

    def seal(self, facts: WindowFacts) -> Sealing:
        """Count what of the window is in the target, and write the proof."""
        landed = self._landed(facts.read)
        quarantined = self._set_aside.get(facts.read, 0)
        filtered = self._count_filtered(facts.read)
        written = self._written.get(facts.read, Written())
        reason = why_open(
            total_before=facts.total_before,
            total_after=facts.total_after,
            landed=landed,
            quarantined=quarantined,
            filtered=filtered,
            read_before_its_end=facts.first_read_at < facts.window_end,
            proof=facts.proof,
            distinct=facts.distinct_keys,
        )
        missing = 0
        if facts.scan and reason is None:
            missing, reason = self._mark_missing(facts, facts.scan)
        before = self._run(
            f"SELECT tries, found_only FROM {WINDOW_TABLE} WHERE window_id = :id", id=facts.window_id
        ).first() or (None, None)
        tries = (before[0] or 0) + self._open_scans(facts) + 1 if reason else 0
        state = (CONTESTED if tries >= MOST_TRIES else OPEN) if reason else SEALED
        row = {
            **msgspec.structs.asdict(facts),
            **msgspec.structs.asdict(written),
            "shops": msgspec.json.encode(facts.shops).decode(),
            "landed": landed,
            "quarantined": quarantined,
            "filtered": filtered,
            "missing": missing,
            "tries": tries,
            "unread": 0,
            "found_only": (before[1] or 0) + written.inserted,
            "state": state,
            "reason": reason,
            "recorded_at": self.moment,
        }
        self.target.put_row(
            self.connection,
            WINDOW_TABLE,
            WINDOW_COLUMNS,
            "window_id",
            {column.name: self._bound(row[column.name]) for column in WINDOW_COLUMNS},
            keep=("planned_as",),
        )
        self._resolve(facts)
        return Sealing(
            window_id=facts.window_id,
            method=facts.method,
            dimension=facts.dimension,
            start=facts.window_start,
            end=facts.window_end,
            state=state,
            reason=reason,
            total=facts.total_after,
            landed=landed,
            quarantined=quarantined,
            filtered=filtered,
            missing=missing,
            **msgspec.structs.asdict(written),
        )

    def _mark_missing(self, facts: WindowFacts, scan: Scan) -> tuple[int, str | None]:
        """Mark the rows that a proven scan did not see; return how many, or why that many are not believed.

        Rows that were written since the scan began are left alone, and so are those whose record came and
        could not be stored: they are there.
        """
        aside = self._aside_keys.get(facts.read, set())
        if any(key.startswith("#") for key in aside):
            return 0, None  # a record without a key came: whose row it is cannot be told
        if aside:
            remember = sa.text(merge.remember_key(_aside(facts.read)))
            self.connection.execute(remember, [{"key": key} for key in sorted(aside)])
        ids: dict[str, Any] = {f"id{at}": one for at, one in enumerate(scan.ids)} if scan.column else {}
        covered = merge.covered(scan.column, len(scan.ids))
        seen = facts.read, _aside(facts.read), _filtered(facts.read)
        unseen = f"{covered} AND {merge.unseen(self.parent, *seen)}"
        since = self._bound(facts.first_read_at)
        living = int(self._run(merge.count_rows(self.parent, covered), **ids).scalar())
        missing = int(self._run(merge.count_rows(self.parent, unseen), since=since, **ids).scalar())
        many = missing > max(MOST_MISSING, living * MOST_MISSING_SHARE) or 1 < living == missing
        if many and not scan.asked:
            return 0, (
                f"{missing} of {living} rows were not seen, which is too many to be believed, and none was "
                "marked; if they are gone, trigger the DAG by hand"
            )
        if missing:
            self._run(merge.entomb_rows(self.parent, unseen), since=since, now=self._now(), **ids)
            for child in self.children:
                self._run(merge.entomb_orphans(self.parent, child), now=self._now())
        return missing, None

    def _open_scans(self, facts: WindowFacts) -> int:
        """Count the scans of the same records before this one that did not seal: each has its own id."""
        if not facts.scan:
            return 0
        count = self._run(
            f"SELECT COUNT(*) FROM {WINDOW_TABLE} WHERE pipeline = :pipeline AND method = :method "
            "AND dimension = :dimension AND shops = :shops AND state IN (:open, :contested) "
            "AND window_end < :end AND tries > 0",
            pipeline=facts.pipeline,
            method=facts.method,
            dimension=facts.dimension,
            shops=msgspec.json.encode(facts.shops).decode(),
            open=OPEN,
            contested=CONTESTED,
            end=self._bound(facts.window_end),
        ).scalar()
        return int(count or 0)

    # What a load into something else than a database knows by other means.

    def _has_landed(self, record: Quarantined) -> bool:
        return self._run(merge.has_seen(record.read), key=record.record_key).first() is not None

    def _landed(self, read: int) -> int:
        return int(self._run(merge.count_landed(self.parent, read)).scalar() or 0)

    def _count_filtered(self, read: int) -> int:
        if read not in self._left_out:
            return 0
        return int(self._run(merge.count_only(_filtered(read), read)).scalar() or 0)

    def _resolve(self, facts: WindowFacts) -> None:
        self._run(
            merge.resolve_quarantine(QUARANTINE_TABLE, self.parent, facts.read),
            now=self._now(),
            since=self._bound(facts.first_read_at),
            method=facts.method,
        )

    def _now(self) -> Any:
        return self.target.instant(self.moment)

    def _bound(self, value: Any) -> Any:
        return self.target.instant(value) if isinstance(value, datetime) else value

    def _run(self, statement: str, **values: Any) -> Any:
        return self.connection.execute(sa.text(statement), values)


def _aside(read: int) -> int:
    """The number under which the keys of a read are remembered that came and could not be stored."""
    return -1 - read


def _as_json(value: Any) -> str:
    """Return JSON as text, also where the driver has read it already."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _filtered(read: int) -> int:
    """The number under which the keys of a read are remembered that the pipeline's rules left out."""
    return _FILTERED - read


def _columns(table: Table) -> tuple[Column, ...]:
    return (*table.columns, *(Column(*meta) for meta in _META_COLUMNS))


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
