"""The delivery book: which record was handed to somebody else's API, with which content, and what it said.

One row per target and record, in the coordination store's database. Before a request goes out its records are
written down as sent, afterwards with the verdict. A record that is found as sent is in doubt: nobody knows
whether the API took it.
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
from kuaimai.load.sql import SqlTarget
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
    writeback: str | None = None


class DeliveryBook:
    """The deliveries of one target.

    Args:
        book: the coordination store's database.
        target: what stands in the column `target`.
    """

    def __init__(self, book: SqlTarget, target: str) -> None:
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
            moment: when the load began.

        Raises:
            Transient: another load has sent one of them meanwhile.
        """
        changed = ", ".join(
            f'"{one.name}" = :{one.name}' for one in DELIVERY_COLUMNS if one.name != "delivery_id"
        )
        statement = sa.text(
            f'UPDATE "{DELIVERY_TABLE}" SET {changed} WHERE "delivery_id" = :delivery_id '
            'AND "state" = :known_state AND "request" = :known_request'
        )
        with self._book.connected() as connection:
            for row in self._rows(deliveries, moment):
                known = before[row["record_key"]]
                if known is None:
                    # An empty row first: another load that has it new waits for this commit.
                    new = {**row, "state": _NEW, "request": ""}
                    self._book.put_new_row(connection, DELIVERY_TABLE, DELIVERY_COLUMNS, "delivery_id", new)
                was = (_NEW, "") if known is None else (known.state, known.request)
                guard = {"known_state": was[0], "known_request": was[1]}
                if connection.execute(statement, {**row, **guard}).rowcount != 1:
                    raise Transient(
                        f"{self._target}: another load is sending the record {row['record_key']}",
                        hint="nothing of this request was sent; the task tries again and sees what was taken",
                    )

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

    def write(self, deliveries: Sequence[Delivery], moment: datetime) -> None:
        """Write rows down, in one transaction."""
        rows = self._rows(deliveries, moment)
        statements = {
            False: self._book.upsert_row(DELIVERY_TABLE, DELIVERY_COLUMNS, "delivery_id"),
            True: self._book.upsert_row(DELIVERY_TABLE, DELIVERY_COLUMNS, "delivery_id", keep=("sent_at",)),
        }
        with self._book.connected() as connection:
            for answered, statement in statements.items():
                chosen = [row for row in rows if (row["answered_at"] is not None) == answered]
                if chosen:
                    connection.execute(sa.text(statement), chosen)

    def restore(self, before: Mapping[str, Delivery | None], moment: datetime) -> None:
        """Put rows back as they were before a request that was surely not taken."""
        gone = [{"id": self._id(key)} for key, one in sorted(before.items()) if one is None]
        if gone:
            statement = f'DELETE FROM "{DELIVERY_TABLE}" WHERE "delivery_id" = :id'
            with self._book.connected() as connection:
                connection.execute(sa.text(statement), gone)
        self.write([one for one in before.values() if one is not None], moment)

    def _id(self, key: str) -> str:
        return hashlib.sha256(f"{self._target}|{key}".encode()).hexdigest()[:24]
