"""The delivery book: which record was handed to somebody else's API, with which content, and what it said.

One row per target and record, in the coordination store's database. Before a request goes out its records are
written down as sent, with the time until which its sender may wait for the answer, afterwards with the
verdict. A record that is found as sent after that time is in doubt: its sender is dead, and nobody knows
whether the API took it. Until then it is on its way, and another load leaves it alone.

No two senders have a record with one `sent_until`, since the next one begins after it: what a sender writes
down is written where that is still its own, so that one which outlives its time spoils nothing.
"""
# ruff: noqa: S608 - statements name our own table; values are bound

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
import sqlalchemy as sa

from kuaimai.errors import Transient
from kuaimai.load.book import ProofBook
from kuaimai.transform.tables import Column

DELIVERY_TABLE = "kuaimai_delivery"
DELIVERY_COLUMNS: tuple[Column, ...] = (
    Column("delivery_id", "id", "投递编号"),
    Column("target", "text", "管道→目标"),
    Column("record_key", "id", "记录主键"),
    Column(
        "state", "text", "状态（sent 已发出、结果未知 / taken 对方已接收 / refused 对方拒收 / held 存疑搁置）"
    ),
    Column("reason", "text", "拒收或搁置原因"),
    Column("version", "integer", "最近发出的版本"),
    Column("rank", "integer", "最近发出的来源级别"),
    Column("content", "text", "最近发出内容的指纹"),
    Column("request", "text", "最近一次请求的编号（Idempotency-Key）"),
    Column("taken_version", "integer", "对方已接收的版本"),
    Column("taken_rank", "integer", "对方已接收的来源级别"),
    Column("taken_content", "text", "对方已接收内容的指纹"),
    Column("sent_at", "time", "发出时间"),
    Column("answered_at", "time", "得到结果的时间"),
    Column("sent_until", "integer", "发送方最迟等到何时（毫秒时间戳；过后仍为 sent 即结果未知）"),
    Column("writeback", "text", "对方返回中保留的内容（JSON，即 primaryWriteback）"),
)
_AT_ONCE = 500

SENT = "sent"
TAKEN = "taken"
REFUSED = "refused"
HELD = "held"
# Only inside the transaction that claims a record.
_NEW = "new"


class Delivery(msgspec.Struct, frozen=True):
    """What is known of one record.

    Attributes:
        record_key: the record.
        state: `SENT`, `TAKEN`, `REFUSED` or `HELD`.
        reason: why it was refused or is held.
        version: what was sent last: the record's version,
        rank: the rank of the method that it came from,
        content: the fingerprint of its JSON,
        request: and the key of the request that it was in.
        taken_version: what the API took last: its version,
        taken_rank: its rank,
        taken_content: and its fingerprint.
        sent_until: until when its sender may wait for the answer, epoch milliseconds; None where none does.
        writeback: what is kept of the API's answer, as JSON; None where nothing is.
    """

    record_key: str
    state: str
    reason: str | None
    version: int
    rank: int
    content: str
    request: str
    taken_version: int | None = None
    taken_rank: int | None = None
    taken_content: str | None = None
    sent_until: int | None = None
    writeback: str | None = None

    def is_on_its_way(self, now: float) -> bool:
        """Return whether its sender may still be waiting for the answer, at an instant in epoch seconds."""
        return self.state == SENT and self.sent_until is not None and self.sent_until > now * 1000


class DeliveryBook:
    """The deliveries of one target.

    Args:
        book: the coordination store's database.
        target: what stands in the column `target`.
    """

    def __init__(self, book: ProofBook, target: str) -> None:
        self._book = book
        self._target = target

    def prepare(self) -> None:
        """Make what is missing of the table."""
        self._book.prepare((), {DELIVERY_TABLE: ("投递记录", "delivery_id", DELIVERY_COLUMNS)})

    def known(self, keys: Iterable[str]) -> dict[str, Delivery]:
        """Return what is known of some records, by key."""
        wanted = sorted({self._id(key) for key in keys})
        names = msgspec.structs.fields(Delivery)
        columns = ", ".join(f'"{one.name}"' for one in names)
        statement = sa.text(
            f'SELECT {columns} FROM "{DELIVERY_TABLE}" WHERE "delivery_id" IN :ids'
        ).bindparams(sa.bindparam("ids", expanding=True))
        found: dict[str, Delivery] = {}
        with self._book.connected() as connection:
            for at in range(0, len(wanted), _AT_ONCE):
                for row in connection.execute(statement, {"ids": wanted[at : at + _AT_ONCE]}):
                    one = Delivery(*row)
                    found[one.record_key] = one
        return found

    def claim(
        self, deliveries: Sequence[Delivery], before: Mapping[str, Delivery | None], moment: datetime
    ) -> None:
        """Write records down as sent, all or none, where they are still as they were before.

        Args:
            deliveries: what is going to be sent.
            before: what was known of each of them.
            moment: now.

        Raises:
            Transient: another load has sent one of them meanwhile.
        """
        with self._book.connected() as connection:
            for row in self._rows(deliveries, moment):
                known = before[row["record_key"]]
                if known is None:
                    # An empty row first: another load that has it new waits for this commit.
                    new = {**row, "state": _NEW, "request": "", "sent_until": None}
                    self._book.put_new_row(connection, DELIVERY_TABLE, DELIVERY_COLUMNS, "delivery_id", new)
                if not self._change(connection, row, known):
                    raise Transient(
                        f"{self._target}: another load is sending the record {row['record_key']}",
                        hint="nothing of this request was sent; the task tries again and sees what was taken",
                    )

    def settle(
        self, deliveries: Sequence[Delivery], before: Mapping[str, Delivery], moment: datetime
    ) -> None:
        """Write down what became of records, where they are still as they were before.

        Where another load has taken a record over meanwhile, what that load finds out holds.
        """
        with self._book.connected() as connection:
            for row in self._rows(deliveries, moment):
                self._change(connection, row, before[row["record_key"]], keep=("sent_at",))

    def restore(
        self, before: Mapping[str, Delivery | None], sent: Mapping[str, Delivery], moment: datetime
    ) -> None:
        """Put rows that are still ours back as they were before a request that was surely not taken."""
        self.settle([one for one in before.values() if one is not None], sent, moment)
        gone = [
            {"delivery_id": self._id(key), **_guard(sent[key])}
            for key, one in sorted(before.items())
            if one is None
        ]
        if gone:
            statement = f'DELETE FROM "{DELIVERY_TABLE}" WHERE {_AS_KNOWN}'
            with self._book.connected() as connection:
                connection.execute(sa.text(statement), gone)

    def take(self, deliveries: Sequence[Delivery], moment: datetime) -> None:
        """Write down what the API has taken: that holds, whoever else has sent it since."""
        rows = self._rows(deliveries, moment)
        statement = self._book.upsert_row(DELIVERY_TABLE, DELIVERY_COLUMNS, "delivery_id", keep=("sent_at",))
        if rows:
            with self._book.connected() as connection:
                connection.execute(sa.text(statement), rows)

    @staticmethod
    def _change(
        connection: sa.engine.Connection,
        row: Mapping[str, Any],
        known: Delivery | None,
        keep: Sequence[str] = (),
    ) -> bool:
        """Write a row, unless it is not as it was known; return whether it was."""
        changed = ", ".join(
            f'"{one.name}" = :{one.name}'
            for one in DELIVERY_COLUMNS
            if one.name != "delivery_id" and one.name not in keep
        )
        statement = sa.text(f'UPDATE "{DELIVERY_TABLE}" SET {changed} WHERE {_AS_KNOWN}')
        return connection.execute(statement, {**row, **_guard(known)}).rowcount == 1

    def _rows(self, deliveries: Sequence[Delivery], moment: datetime) -> list[dict[str, Any]]:
        now = self._book.instant(moment)
        return [
            {
                **msgspec.structs.asdict(one),
                "delivery_id": self._id(one.record_key),
                "target": self._target,
                "sent_at": now,
                "answered_at": None if one.state == SENT else now,
            }
            for one in sorted(deliveries, key=lambda one: one.record_key)
        ]

    def _id(self, key: str) -> str:
        return hashlib.sha256(f"{self._target}|{key}".encode()).hexdigest()[:24]


_AS_KNOWN = (
    '"delivery_id" = :delivery_id AND "state" = :known_state AND "request" = :known_request '
    'AND COALESCE("sent_until", 0) = :known_until'
)


def _guard(known: Delivery | None) -> dict[str, Any]:
    """Return what a row must still hold, as it was known."""
    state, request, until = (
        (_NEW, "", None) if known is None else (known.state, known.request, known.sent_until)
    )
    return {"known_state": state, "known_request": request, "known_until": until or 0}
