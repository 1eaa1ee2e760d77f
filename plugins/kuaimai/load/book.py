"""The proof tables of a database: what is written down of windows, and what plans and commands ask of it."""
# ruff: noqa: S608 - statements name our own tables; values are bound

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import msgspec
import sqlalchemy as sa

from kuaimai.load import drift, held, lateness
from kuaimai.load.database import Beside, Database
from kuaimai.load.held import Held
from kuaimai.load.lateness import LATENESS_COLUMNS, LATENESS_TABLE
from kuaimai.load.proof import (
    CONTESTED,
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
)
from kuaimai.load.windows import PlannedWindow, ReadWindow, SealedTime, Standing, StateCount, Waiting
from kuaimai.transform.drift import Seen
from kuaimai.transform.rules import Policy
from kuaimai.transform.tables import Table

_PROOF_TABLES: dict[str, Beside] = {
    WINDOW_TABLE: ("窗口封存证明", "window_id", WINDOW_COLUMNS),
    QUARANTINE_TABLE: ("隔离记录", "quarantine_id", QUARANTINE_COLUMNS),
    LATENESS_TABLE: ("记录首次读到的延迟", "lateness_id", LATENESS_COLUMNS),
    RECONCILE_TABLE: ("夜间核对结果", "reconcile_id", RECONCILE_COLUMNS),
    SCHEMA_TABLE: ("源数据结构", "schema_id", SCHEMA_COLUMNS),
    TOTAL_TABLE: ("按店铺与状态的每日合计", "total_id", TOTAL_COLUMNS),
}


class ProofBook(Database):
    """A database with the proof tables: beside its own data, or for targets that cannot hold them."""

    def coverage(
        self, pipeline: str, dimension: str, since: datetime, until: datetime | None = None
    ) -> list[ReadWindow]:
        """Return the windows that end after an instant and begin before another.

        Empty where nothing was planned yet.
        """
        rows = self._ask(
            WINDOW_TABLE,
            "SELECT window_id, method, shops, window_start, window_end, state, proof, last_read_at, unread, "
            "planned_as, first_read_at "
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
                planned_as=row[9],
                first_read_at=None if row[10] is None else self.read_instant(row[10]),
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
            "AND (planned_as IS NULL OR planned_as IN ('interval', 'heal', 'asked'))",
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
            dimensions,
            self._sealed(pipeline),
            waiting,
            int(quarantined),
            None if since is None else self.read_instant(since),
        )

    def _sealed(self, pipeline: str) -> dict[str, SealedTime]:
        """Return by dimension which time is sealed.

        Of each set of shops a year has a hundred thousand windows. The database leaves out those that only
        continue the one before and are continued by the next; what is left is joined here. It compares
        neighbours alone: max() over all rows before would take MariaDB the square of their number.
        """
        in_turn = "OVER (PARTITION BY dimension, method, shops ORDER BY window_start, window_end)"
        joined: dict[tuple[str, str, str], list[tuple[datetime, datetime]]] = {}
        for dimension, method, shops, first, last, last_before in self._ask(
            WINDOW_TABLE,
            "SELECT dimension, method, shops, window_start, window_end, end_before FROM ("
            "SELECT dimension, method, shops, window_start, window_end, "
            f"lag(window_end) {in_turn} AS end_before, "
            f"lead(window_start) {in_turn} AS start_after, lead(window_end) {in_turn} AS end_after "
            f"FROM {WINDOW_TABLE} WHERE pipeline = :pipeline AND state = :sealed) spans "
            "WHERE end_before IS NULL OR end_before < window_start "
            # The end of a span is that of its last window, or of one that ends after the next.
            "OR start_after IS NULL OR start_after > window_end OR end_after < window_end "
            "ORDER BY dimension, method, shops, window_start, window_end",
            pipeline=pipeline,
            sealed=SEALED,
        ):
            start, end = self.read_instant(first), self.read_instant(last)
            spans = joined.setdefault((dimension, method, shops), [])
            continues = last_before is not None and self.read_instant(last_before) >= start
            if spans and (continues or spans[-1][1] >= start):
                spans[-1] = (spans[-1][0], max(spans[-1][1], end))
            else:
                spans.append((start, end))
        found: dict[str, SealedTime] = {}
        for (dimension, method, shops), spans in joined.items():
            for shop in msgspec.json.decode(shops):
                found.setdefault(dimension, {}).setdefault((method, shop), []).extend(spans)
        return found

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

    def _prepare(self, tables: Sequence[Table], beside: Mapping[str, Beside] | None = None) -> None:
        super()._prepare(tables, {**(beside or {}), **_PROOF_TABLES})


def _as_json(value: Any) -> str:
    """Return JSON as text, also where the driver has read it already."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
