"""Loads of orders written out by hand, into any database."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import msgspec
import sqlalchemy as sa

from kuaimai.load.held import Quarantined
from kuaimai.load.windows import WindowFacts
from kuaimai.transform.mapping import Mapper, Rows

START = datetime(2026, 3, 1, 1, tzinfo=timezone.utc)


def facts(rank: int = 0, total: int | None = 1, after: int | None = None, window: str = "w1") -> WindowFacts:
    return WindowFacts(
        window_id=window,
        read=rank,
        pipeline="trades",
        method="erp.trade.outstock.simple.query",
        shops=("900001",),
        dimension="upd_time",
        window_start=START,
        window_end=START + timedelta(minutes=5),
        total_before=total,
        total_after=total if after is None else after,
        distinct_keys=total or 0,
        pages=1,
        requests=2,
        attempts=1,
        run_id="test",
        first_read_at=START + timedelta(minutes=5),
        last_read_at=START + timedelta(minutes=5),
    )


def batch(records, rank=0, window="w1"):
    mapper = Mapper("trade")
    into = [Rows(table) for table in mapper.tables]
    assert mapper.map(records, into) == []
    return [rows.to_arrow(rank=rank, window_id=window) for rows in into]


def store(target, records, *, rank=0, total=None, quarantined=(), read=START + timedelta(minutes=5), **more):
    with target.loading(Mapper("trade").tables) as loading:
        loading.merge(rank, batch(records, rank))
        loading.quarantine(quarantined)
        told = facts(rank, len(records) if total is None else total)
        return loading.seal(msgspec.structs.replace(told, first_read_at=read, **more))


def bad(key):
    method = "erp.trade.outstock.simple.query"
    return Quarantined(0, f"q{key}", "trades", "v", method, key, "why", "{}", "{}", "w1")


def rows(target, statement):
    with target.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(statement))]
