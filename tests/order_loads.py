"""Loads of orders written out by hand, into any database."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa
from loads import MINUTES, START, bad, batch
from loads import facts as usual_facts

from kuaimai.load.windows import WindowFacts
from kuaimai.transform.mapping import Mapper

__all__ = ["START", "bad", "batch", "facts", "rows", "store"]


def facts(rank: int = 0, total: int | None = 1, after: int | None = None, window: str = "w1") -> WindowFacts:
    told = usual_facts(rank, total, window)
    return told if after is None else msgspec.structs.replace(told, total_after=after)


def store(target, records, *, rank=0, total=None, quarantined=(), read=START + MINUTES, **more):
    with target.loading(Mapper("trade").tables) as loading:
        loading.merge(rank, batch(records, rank))
        loading.quarantine(quarantined)
        told = facts(rank, len(records) if total is None else total)
        return loading.seal(msgspec.structs.replace(told, first_read_at=read, **more))


def rows(target, statement):
    with target.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(statement))]
