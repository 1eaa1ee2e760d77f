"""The proof of a load: what is set aside, and the seal of each read, written in one transaction."""
# ruff: noqa: S608 - statements name our own tables; values are bound

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import msgspec
import sqlalchemy as sa

from kuaimai.load import held
from kuaimai.load.book import ProofBook
from kuaimai.load.held import Held, Quarantined
from kuaimai.load.proof import (
    CONTESTED,
    MOST_TRIES,
    OPEN,
    QUARANTINE_COLUMNS,
    QUARANTINE_TABLE,
    SEALED,
    WINDOW_COLUMNS,
    WINDOW_TABLE,
    why_open,
)
from kuaimai.load.windows import Scan, Sealing, WindowFacts, Written


class Proving(ABC):
    """The open transaction that writes the proof of a load.

    What has landed is known to each kind of load by its own means.
    """

    def __init__(self, book: ProofBook, connection: sa.engine.Connection) -> None:
        self.book = book
        self.connection = connection
        self.moment = datetime.fromtimestamp(book.now(), tz=timezone.utc)
        self._written: dict[int, Written] = defaultdict(Written)
        self._set_aside: Counter[int] = Counter()

    def quarantine(self, records: Sequence[Quarantined]) -> None:
        """Set records aside, after all batches are merged; one that comes again keeps its first time.

        A bad record whose key also came in good shape is kept, but does not count: that key has landed.
        """
        for record in records:
            if not self._has_landed(record):
                self._set_aside[record.read] += 1
            row = {
                **msgspec.structs.asdict(record),
                "first_seen_at": self._now(),
                "last_seen_at": self._now(),
                "resolved_at": None,
            }
            self.book.put_row(
                self.connection,
                QUARANTINE_TABLE,
                QUARANTINE_COLUMNS,
                "quarantine_id",
                {column.name: row[column.name] for column in QUARANTINE_COLUMNS},
                keep=("first_seen_at",),
            )

    def refusals(self, keys: Sequence[str]) -> dict[str, str]:  # noqa: ARG002 - a database takes all, or fails
        """Return why the target did not take some of the keys that were merged, as far as it says."""
        return {}

    def resolve(self, landed: Sequence[Held], left_out: Sequence[Held], still: Mapping[str, str]) -> int:
        """Mark quarantined records as resolved, and move them in the counts of their windows.

        `still` are those that stay: quarantine_id → why, as of now.
        """
        held.renew(self.connection, still)
        return held.resolve(self.connection, landed, left_out, self._now())

    def seal(self, facts: WindowFacts) -> Sealing:
        """Count what of a window has landed, and write the proof."""
        landed = self._landed(facts.read)
        quarantined = self._set_aside[facts.read]
        filtered = self._count_filtered(facts.read)
        written = self._written[facts.read]
        reason = facts.refused or why_open(
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
        if facts.scan and facts.scan.marks and reason is None:
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
        self.book.put_row(
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

    @abstractmethod
    def _has_landed(self, record: Quarantined) -> bool:
        """Whether the key of a record that is set aside has landed in the same read."""

    @abstractmethod
    def _landed(self, read: int) -> int:
        """Count the keys of a read that are in the target."""

    @abstractmethod
    def _count_filtered(self, read: int) -> int:
        """Count the keys of a read that the pipeline's rules left out, and that did not land."""

    @abstractmethod
    def _mark_missing(self, facts: WindowFacts, scan: Scan) -> tuple[int, str | None]:
        """Mark the rows that a proven scan did not see; return how many, or why so many are not believed."""

    @abstractmethod
    def _resolve(self, facts: WindowFacts) -> None:
        """Close quarantined records of this method that have landed after all."""

    def _now(self) -> Any:
        return self.book.instant(self.moment)

    def _bound(self, value: Any) -> Any:
        return self.book.instant(value) if isinstance(value, datetime) else value

    def _run(self, statement: str, **values: Any) -> Any:
        return self.connection.execute(sa.text(statement), values)
