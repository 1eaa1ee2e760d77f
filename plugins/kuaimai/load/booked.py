"""Targets that cannot hold their own proof: it is booked in the coordination store's database.

The tables are those that a database target has beside its data. In their column `pipeline` stands
`<pipeline>→<target>`, so that several targets, and several pipelines, share them.

Data and proof are not one transaction here: records are handed over first, then the proof is written. What
dies in between leaves an open window, the window is read again, and handing over the same records again must
change nothing. No transaction is open while records are handed over: the coordination store has other guests.
"""
# ruff: noqa: S608 - statements name our own tables; values are bound

from __future__ import annotations

import hashlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone

import msgspec
import pyarrow as pa
import sqlalchemy as sa

from kuaimai.load.book import ProofBook
from kuaimai.load.held import Held, Quarantined, renew, resolve
from kuaimai.load.lateness import Punctuality
from kuaimai.load.proof import QUARANTINE_TABLE
from kuaimai.load.proving import Proving
from kuaimai.load.windows import PlannedWindow, ReadWindow, Scan, Sealing, Standing, WindowFacts, Written
from kuaimai.transform.drift import Seen
from kuaimai.transform.rules import Policy
from kuaimai.transform.tables import Table

log = logging.getLogger(__name__)


class BookedTarget(ABC):
    """A target without tables of its own.

    Args:
        name: of the target, in its pipeline.
        book: the coordination store's database.
    """

    def __init__(self, name: str, book: ProofBook) -> None:
        self.name = name
        self.book = book
        self.now = book.now

    def booked(self, pipeline: str) -> str:
        """Return what stands in the column `pipeline` of the proof."""
        return f"{pipeline}→{self.name}"

    def announce(self, windows: Sequence[PlannedWindow]) -> None:
        """Write down what is going to be read."""
        self.book.announce(
            [
                msgspec.structs.replace(
                    one, window_id=self._own(one.window_id), pipeline=self.booked(one.pipeline)
                )
                for one in windows
            ]
        )

    def coverage(
        self, pipeline: str, dimension: str, since: datetime, until: datetime | None = None
    ) -> list[ReadWindow]:
        """Return the windows that end after an instant and begin before another."""
        return self.book.coverage(self.booked(pipeline), dimension, since, until)

    def began(self, pipeline: str, dimension: str) -> datetime | None:
        """Return the start of the first window that was ever planned, or None."""
        return self.book.began(self.booked(pipeline), dimension)

    def supersede(self, window_ids: Sequence[str]) -> None:
        """Close windows that are not sealed, and whose time other windows have sealed since."""
        self.book.supersede(window_ids)

    def look_back(self, pipeline: str, configured_minutes: int) -> int:
        """Return how far back to look for records by their creation, in minutes."""
        return self.book.look_back(self.booked(pipeline), configured_minutes)

    @contextmanager
    def loading(
        self, tables: Sequence[Table], punctuality: Punctuality | None = None
    ) -> Iterator[BookedLoad]:
        """Open a load. `punctuality` is for targets that know which records are new to them."""
        self.book.prepare(())
        yield self._load(tables, punctuality)

    def held(self, pipeline: str) -> list[Held]:
        """Return the records of a pipeline in quarantine that did not land since, the oldest first."""
        return self.book.held(self.booked(pipeline))

    def oldest_held(self, pipeline: str) -> tuple[int, datetime | None]:
        """Return how many these are, and since when the oldest is there."""
        return self.book.oldest_held(self.booked(pipeline))

    def known_columns(self, pipeline: str) -> dict[str, str]:
        """Return the fields beyond the catalogue that have columns: field → column."""
        return self.book.known_columns(self.booked(pipeline))

    def note_seen(self, pipeline: str, seen: Seen, policy: Policy) -> tuple[str, ...]:
        """Remember what a slice saw of the fields; return what nobody was told of yet, a sentence each."""
        return self.book.note_seen(self.booked(pipeline), seen, policy)

    def standing(self, pipeline: str) -> Standing:
        """Return what the proof says about a pipeline, all windows together."""
        return self.book.standing(self.booked(pipeline))

    def try_rights(self) -> str:
        """Try the coordination store's database, which holds the proof; more where a target can be tried."""
        self.book.try_rights()
        return "its proof can be written into the coordination store's database"

    def close(self) -> None:
        """Close the connections."""
        self.book.close()

    def signed(self, one: WindowFacts) -> WindowFacts:
        """Return the facts of a window under this target's name."""
        return msgspec.structs.replace(
            one, window_id=self._own(one.window_id), pipeline=self.booked(one.pipeline)
        )

    def set_aside(self, one: Quarantined) -> Quarantined:
        """Return a quarantined record under this target's name."""
        return msgspec.structs.replace(
            one,
            quarantine_id=self._own(one.quarantine_id),
            window_id=self._own(one.window_id),
            pipeline=self.booked(one.pipeline),
        )

    def _own(self, shared_id: str) -> str:
        return hashlib.sha256(f"{self.name}|{shared_id}".encode()).hexdigest()[:24]

    @abstractmethod
    def _load(self, tables: Sequence[Table], punctuality: Punctuality | None) -> BookedLoad: ...


class BookedLoad(ABC):
    """One load into such a target.

    Attributes:
        outside: records that came later than the look-back reaches, where the target can know.
        moment: when the load began.
        keeps_rows: whether what was merged stays somewhere, so that one could miss that a record is gone.
        originals: returns records of a read as they came, by key, given the read and keys; what is refused is
            kept so. By default none are known.
    """

    keeps_rows = True

    def __init__(self, target: BookedTarget, tables: Sequence[Table]) -> None:
        self.target = target
        self.tables = tables
        self.outside = 0
        self.moment = datetime.fromtimestamp(target.now(), tz=timezone.utc)
        self.originals: Callable[[int, Collection[str]], Mapping[str, str]] = lambda _read, _keys: {}
        self._aside: list[Quarantined] = []
        self._left_out: dict[int, set[str]] = {}

    def read_from(self, read: int, began: datetime) -> None:  # noqa: B027 - nothing is ever marked here
        """Learn when a read began."""

    @abstractmethod
    def merge(self, read: int, batches: Sequence[pa.Table]) -> None:
        """Take one batch of each table, parent first."""

    @abstractmethod
    def standing(self, read: int) -> set[str]:
        """Return the keys of a read that are in the target."""

    @abstractmethod
    def written(self, read: int) -> Written:
        """Return what became of a read's rows."""

    def refused(self, facts: WindowFacts) -> list[Quarantined]:  # noqa: ARG002 - for targets that can refuse
        """Return the records of a read that the target will not take."""
        return []

    def quarantine(self, records: Sequence[Quarantined]) -> None:
        """Set records aside, after all batches are merged."""
        self._aside += records

    def leave_out(self, read: int, keys: Iterable[str]) -> None:
        """Count keys as filtered, unless they land or are set aside in the same read."""
        self._left_out.setdefault(read, set()).update(keys)

    def stored(self, pipeline: str, read: int, keys: Sequence[str]) -> set[str]:  # noqa: ARG002 - see posting
        """Return those of some merged keys that are in the target."""
        return self.standing(read) & set(keys)

    def marked(self, keys: Sequence[str]) -> dict[str, int]:  # noqa: ARG002 - nothing is ever marked here
        """Return those of some keys whose rows are marked as gone."""
        return {}

    def refusals(self, keys: Sequence[str]) -> dict[str, str]:  # noqa: ARG002 - for targets that can refuse
        """Return why the target did not take some of the keys that were merged, as far as it says."""
        return {}

    def resolve(self, landed: Sequence[Held], left_out: Sequence[Held], still: Mapping[str, str]) -> int:
        """Mark quarantined records as resolved, and move them in the counts of their windows.

        `still` are those that stay: quarantine_id → why, as of now.
        """
        with self.target.book.connected() as connection:
            renew(connection, still)
            return resolve(connection, landed, left_out, self.target.book.instant(self.moment))

    def seal(self, facts: WindowFacts) -> Sealing:
        """Count what of the window is in the target, and write the proof and what was set aside."""
        standing = self.standing(facts.read)
        aside = [one for one in self._aside if one.read == facts.read] + self.refused(facts)
        with self.target.book.connected() as connection:
            proof = _Proof(self, connection, standing, {facts.read: self.written(facts.read)})
            proof.left_out = self._left_out.get(facts.read, set())
            proof.quarantine([self.target.set_aside(one) for one in aside])
            return proof.seal(self.target.signed(facts))


class _Proof(Proving):
    """The transaction that writes the proof of one read."""

    def __init__(
        self,
        load: BookedLoad,
        connection: sa.engine.Connection,
        standing: set[str],
        written: dict[int, Written],
    ) -> None:
        super().__init__(load.target.book, connection)
        self.moment = load.moment
        self._keeps_rows = load.keeps_rows
        self._standing = standing
        self._written = written
        self.left_out: set[str] = set()

    def _has_landed(self, record: Quarantined) -> bool:
        return record.record_key in self._standing

    def _landed(self, read: int) -> int:  # noqa: ARG002 - it is about one read
        return len(self._standing)

    def _mark_missing(self, facts: WindowFacts, scan: Scan) -> tuple[int, str | None]:  # noqa: ARG002
        """Mark nothing: what was handed over is not ours to look through, or to take back."""
        if self._keeps_rows:
            log.warning("%s: what is gone is marked in databases only", facts.pipeline)
        return 0, None

    def _count_filtered(self, read: int) -> int:  # noqa: ARG002 - it is about one read
        return len(self.left_out - self._standing)

    def _resolve(self, facts: WindowFacts) -> None:
        """Close quarantined records of this method that were read after they were set aside, and landed."""
        waiting = self.connection.execute(
            sa.text(
                f'SELECT "quarantine_id", "record_key" FROM "{QUARANTINE_TABLE}" '
                'WHERE "pipeline" = :pipeline AND "method" = :method AND "resolved_at" IS NULL '
                'AND "last_seen_at" < :since'
            ),
            {
                "pipeline": facts.pipeline,
                "method": facts.method,
                "since": self._bound(facts.first_read_at),
            },
        ).fetchall()
        landed = [{"id": row[0], "now": self._now()} for row in waiting if row[1] in self._standing]
        if landed:
            statement = f'UPDATE "{QUARANTINE_TABLE}" SET "resolved_at" = :now WHERE "quarantine_id" = :id'
            self.connection.execute(sa.text(statement), landed)
