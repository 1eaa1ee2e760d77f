"""Upserting into a SQL target: what every dialect shares. Fast paths: `postgres`, `mysql` and `sqlite`.

One load is one transaction: batches, tombstones of vanished lines, quarantine and the proof rows become
visible together or not at all.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from kuaimai.load import lateness, merge
from kuaimai.load.book import ProofBook
from kuaimai.load.held import Quarantined
from kuaimai.load.lateness import LATENESS_COLUMNS, LATENESS_TABLE, Punctuality
from kuaimai.load.lookup import pieces, rows_by_key
from kuaimai.load.proof import QUARANTINE_TABLE
from kuaimai.load.proving import Proving
from kuaimai.load.windows import Scan, WindowFacts
from kuaimai.transform.tables import DELETED_AT, VERSION, Table

# A scan that misses more rows than this, and more than this share of all, or all of them, is not believed: a
# right that was lost, or a filter that the gateway began to apply, looks just the same.
MOST_MISSING = 20
MOST_MISSING_SHARE = 0.3

# Numbers of reads count from here for keys that were left out; no slice has so many reads.
_FILTERED = -1_000_000


class SqlTarget(ProofBook):
    """A database that records are merged into, with the proof beside them."""

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

    def _load(
        self, connection: sa.engine.Connection, tables: Sequence[Table], punctuality: Punctuality | None
    ) -> Loading:
        return Loading(self, connection, tables, punctuality)

    @abstractmethod
    def _open_stage(self, connection: sa.engine.Connection, tables: Sequence[Table]) -> None: ...

    @abstractmethod
    def empty_stage(self, connection: sa.engine.Connection, table: Table) -> None:
        """Make room for the next batch."""

    @abstractmethod
    def stage(self, connection: sa.engine.Connection, table: Table, batch: pa.Table) -> None:
        """Put a batch into the table's temporary stage, the fastest way this database has."""


class Loading(Proving):
    """The open transaction of one load: records, and their proof."""

    def __init__(
        self,
        target: SqlTarget,
        connection: sa.engine.Connection,
        tables: Sequence[Table],
        punctuality: Punctuality | None = None,
    ) -> None:
        super().__init__(target, connection)
        self.target = target
        self.tables = tables
        self.parent, *self.children = tables
        self.punctuality = punctuality if punctuality and lateness.can_measure(tables[0]) else None
        self.outside = 0
        self._aside_keys: dict[int, set[str]] = defaultdict(set)
        self._left_out: set[int] = set()
        self._late: Counter[tuple[str, int]] = Counter()
        self._read_from: dict[int, datetime] = {}

    def read_from(self, read: int, began: datetime) -> None:
        """Say when a read began, else it is now: what was marked as gone since then stays so."""
        self._read_from[read] = min(began, self._read_from.get(read, began))

    def _since(self, read: int) -> Any:
        """Return when a read began, in the form that this database is given."""
        return self._bound(self._read_from.get(read, self.moment))

    def merge(self, read: int, batches: Sequence[pa.Table]) -> None:
        """Merge one batch of each table, parent first; `read` numbers the slice's reads."""
        for table, batch in zip((self.parent, *self.children), batches, strict=True):
            self.target.stage(self.connection, table, batch)
        since = self._since(read)
        stood = self._run(merge.compare(self.parent), since=since)
        standings = {how: int(count) for how, count in stood}
        new, unchanged, stale = (standings.get(how, 0) for how in (None, merge.UNCHANGED, merge.STALE))
        written = self._written[read]
        written.inserted += new
        written.updated += standings.get(merge.OLDER, 0)
        written.unchanged += unchanged
        written.stale += stale
        if self.punctuality and new:
            self._count_late(self.punctuality, read)
        self._run(merge.remember(self.parent, read))
        for statement in self.target.drop_settled(self.parent, self.children) if unchanged or stale else ():
            self._run(statement, since=since)
        if self._run(merge.has_staged(self.parent)).first():
            self._write(since)
        for table in (self.parent, *self.children):
            self.target.empty_stage(self.connection, table)

    def _write(self, since: Any) -> None:
        """Write what is staged, parents first: which lines hold depends on which parents do."""
        for statement in self.target.upsert(self.parent):
            self._run(statement, now=self._now(), since=since)
        for child in self.children:
            self._run(self.target.entomb(self.parent, child), now=self._now())
            for statement in self.target.upsert_children(self.parent, child):
                self._run(statement, now=self._now())

    def _count_late(self, told: Punctuality, read: int) -> None:
        """Count the staged rows that are new, by platform and lateness, before they are merged."""
        bound = {name: self._bound(at) for name, at in lateness.instants(told, read).items()}
        for source, minutes, records, outside in self._run(lateness.count_new(self.parent), **bound):
            self._late[source, minutes] += int(records)
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
        """Set records aside, after all batches are merged; one that comes again keeps its first time."""
        for record in records:
            self._aside_keys[record.read].add(record.record_key)
        super().quarantine(records)

    def leave_out(self, read: int, keys: Iterable[str]) -> None:
        """Count keys as filtered, unless they land or are set aside in the same read."""
        chosen = list(keys)
        self._remember(_filtered(read), chosen)
        if chosen:
            self._left_out.add(read)

    def stored(self, pipeline: str, read: int, keys: Sequence[str]) -> set[str]:  # noqa: ARG002 - see booked
        """Return those of some merged keys that are in the target."""
        key = self.parent.key
        return {row[0] for row in rows_by_key(self.connection, self.parent.name, key, [key], keys)}

    def marked(self, keys: Sequence[str]) -> dict[str, int]:
        """Return those of some keys whose rows are marked as gone: key → version of the row."""
        key, gone = self.parent.key, f'"{DELETED_AT}" IS NOT NULL'
        columns = [key, VERSION]
        found = rows_by_key(self.connection, self.parent.name, key, columns, keys, condition=gone)
        return {row[0]: int(row[1]) for row in found}

    def account(self, read: int, landed: Iterable[str], quarantined: int) -> None:
        """Let keys count in the proof of a read whose records need not be loaded again.

        Args:
            read: number of the read.
            landed: keys that should be in the target; `seal` reads them back like all others.
            quarantined: how many more keys of the read are in quarantine, and unresolved.
        """
        self._remember(read, landed)
        self._set_aside[read] += quarantined

    def _mark_missing(self, facts: WindowFacts, scan: Scan) -> tuple[int, str | None]:
        """Mark the rows that a proven scan did not see; return how many, or why that many are not believed.

        Rows that were written since the scan began are left alone, and so are those whose record came and
        could not be stored: they are there.
        """
        aside = self._aside_keys[facts.read]
        if any(key.startswith("#") for key in aside):
            return 0, None  # a record without a key came: whose row it is cannot be told
        self._remember(_aside(facts.read), aside)
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

    def _remember(self, read: int, keys: Iterable[str]) -> None:
        """Add keys to those that a read has seen."""
        for some in pieces(keys):
            values = {f"key{number}": key for number, key in enumerate(some)}
            self._run(merge.remember_keys(read, len(some)), **values)

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
            pipeline=facts.pipeline,
            method=facts.method,
        )


def _aside(read: int) -> int:
    """The number under which the keys of a read are remembered that came and could not be stored."""
    return -1 - read


def _filtered(read: int) -> int:
    """The number under which the keys of a read are remembered that the pipeline's rules left out."""
    return _FILTERED - read
