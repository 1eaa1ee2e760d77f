"""One load written out by hand: records of `orders`, and the facts of their window."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
import pyarrow as pa
import sqlalchemy as sa

from kuaimai.load.held import Quarantined
from kuaimai.load.protocol import Target
from kuaimai.load.sql import SqlTarget
from kuaimai.load.windows import Sealing, WindowFacts, Written
from kuaimai.transform.mapping import Mapper
from kuaimai.transform.rows import Rows

METHOD = "erp.trade.outstock.simple.query"
START = datetime(2026, 3, 1, 1, tzinfo=timezone.utc)
MINUTES = timedelta(minutes=5)


def facts(read: int = 0, total: int | None = 1, window: str = "w1") -> WindowFacts:
    return WindowFacts(
        window_id=window,
        read=read,
        pipeline="trades",
        method=METHOD,
        shops=("900001",),
        dimension="upd_time",
        window_start=START,
        window_end=START + MINUTES,
        total_before=total,
        total_after=total,
        distinct_keys=total or 0,
        pages=1,
        requests=2,
        attempts=1,
        run_id="test",
        first_read_at=START + MINUTES,
        last_read_at=START + MINUTES,
    )


def batch(records: Sequence[dict[str, Any]], rank: int = 0, window: str = "w1") -> list[pa.Table]:
    mapper = Mapper("trade")
    into = [Rows(table) for table in mapper.tables]
    assert mapper.map(records, into) == []
    return [rows.to_arrow(rank=rank, window_id=window) for rows in into]


def load(
    target: Target,
    records: Sequence[dict[str, Any]],
    *,
    total: int | None = None,
    rank: int = 0,
    window: str = "w1",
    quarantined: Sequence[Quarantined] = (),
    read: datetime = START + MINUTES,
) -> Sealing:
    """Load records and seal their window, whose total is by default their number, read at an instant."""
    with target.loading(Mapper("trade").tables) as loading:
        loading.merge(0, batch(records, rank, window))
        loading.quarantine(quarantined)
        told = facts(0, len(records) if total is None else total, window)
        return loading.seal(msgspec.structs.replace(told, first_read_at=read))


def load_read_at(target: Target, records: Sequence[dict[str, Any]], at: datetime) -> Written:
    """Load records that were read at an instant, and return what became of their rows."""
    with target.loading(Mapper("trade").tables) as loading:
        loading.read_from(0, at)
        loading.merge(0, batch(records))
        sealing = loading.seal(facts(0, len(records)))
    return Written(sealing.inserted, sealing.updated, sealing.unchanged, sealing.stale)


def mark_gone(target: SqlTarget, key: str, at: datetime) -> None:
    """Mark an order and its lines as gone, as a scan or the nightly reconcile does."""
    with target.engine.begin() as connection:
        for table in ("kuaimai_trade", "kuaimai_trade_line"):
            statement = f"UPDATE {table} SET _deleted_at = :at WHERE sid = :key AND _deleted_at IS NULL"
            connection.execute(sa.text(statement), {"at": target.instant(at), "key": key})


def bad(key: str) -> Quarantined:
    return Quarantined(0, f"q{key}", "trades", "v", METHOD, key, "why", "{}", "{}", "w1")
