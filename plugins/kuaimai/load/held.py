"""Records in quarantine: on their way in, held there, and what follows when one has landed after all.

The count of its window moves with it from `quarantined` to `landed` or `filtered`: the seal adds up.
"""
# ruff: noqa: S608 - statements name our own tables; values are bound

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import sqlalchemy as sa

from kuaimai.load.proof import QUARANTINE_TABLE, WINDOW_TABLE

AS_SENT = "url"
"""The only key of `request` where a refused record is kept as it was sent: it cannot be mapped again."""


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


class Held(msgspec.Struct, frozen=True):
    """A record in quarantine that has not landed since, by columns of `kuaimai_quarantine`."""

    quarantine_id: str
    method: str
    record_key: str
    reason: str
    request: str
    record: str
    window_id: str


HELD = (
    f'SELECT "quarantine_id", "method", "record_key", "reason", "request", "record", "window_id" '
    f'FROM "{QUARANTINE_TABLE}" WHERE "pipeline" = :pipeline AND "resolved_at" IS NULL '
    'ORDER BY "first_seen_at", "quarantine_id"'
)
OLDEST = (
    f'SELECT COUNT(*), MIN("first_seen_at") FROM "{QUARANTINE_TABLE}" '
    'WHERE "pipeline" = :pipeline AND "resolved_at" IS NULL'
)


def renew(connection: sa.engine.Connection, reasons: Mapping[str, str]) -> None:
    """Write down why records are still held, by `quarantine_id`, where that is another reason by now."""
    rows = [{"id": one, "reason": reason} for one, reason in sorted(reasons.items())]
    if rows:
        statement = (
            f'UPDATE "{QUARANTINE_TABLE}" SET "reason" = :reason '
            'WHERE "quarantine_id" = :id AND "resolved_at" IS NULL'
        )
        connection.execute(sa.text(statement), rows)


def resolve(
    connection: sa.engine.Connection, landed: Iterable[Held], left_out: Iterable[Held], now: Any
) -> int:
    """Mark records as resolved, those that landed and those that rules left out; return how many."""
    done = 0
    moved: dict[str, Counter[str]] = {}
    counted: set[tuple[str, str]] = set()
    for column, records in (("landed", landed), ("filtered", left_out)):
        for one in records:
            changed = connection.execute(
                sa.text(
                    f'UPDATE "{QUARANTINE_TABLE}" SET "resolved_at" = :now '
                    'WHERE "quarantine_id" = :id AND "resolved_at" IS NULL'
                ),
                {"now": now, "id": one.quarantine_id},
            ).rowcount
            done += changed
            # A record that is there with two reasons was counted once.
            if changed and (one.window_id, one.record_key) not in counted:
                counted.add((one.window_id, one.record_key))
                moved.setdefault(one.window_id, Counter())[column] += 1
    for window_id, counts in sorted(moved.items()):
        connection.execute(
            sa.text(
                f'UPDATE "{WINDOW_TABLE}" SET "landed" = "landed" + :landed, '
                '"filtered" = COALESCE("filtered", 0) + :filtered, "quarantined" = "quarantined" - :both '
                'WHERE "window_id" = :id AND "quarantined" >= :both'
            ),
            {
                "landed": counts["landed"],
                "filtered": counts["filtered"],
                "both": counts.total(),
                "id": window_id,
            },
        )
    return done
