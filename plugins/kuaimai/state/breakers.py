"""Circuit breakers: one process learns that something is hopeless, all others stop at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import delete, exc, insert, select

from kuaimai.state.tables import breaker as table

if TYPE_CHECKING:
    from kuaimai.state.database import Database


@dataclass(frozen=True)
class Breaker:
    """An open breaker.

    Attributes:
        key: what is stopped.
        reason: the first reason given, for people to read; no secrets.
        opened_at: epoch seconds.
    """

    key: str
    reason: str
    opened_at: float


def find(database: Database, key: str) -> Breaker | None:
    """The open breaker, or None if the way is free."""
    with database.transaction(writes=False) as connection:
        row = connection.execute(select(table).where(table.c.name == key)).first()
    return None if row is None else Breaker(row.name, row.reason, float(row.opened_at))


def trip(database: Database, key: str, reason: str, *, now: float) -> bool:
    """Open the breaker; the first reason stays. Returns whether it was closed before."""
    try:
        with database.transaction() as connection:
            connection.execute(insert(table).values(name=key, reason=reason, opened_at=now))
    except exc.IntegrityError:
        return False
    return True


def reset(database: Database, key: str) -> bool:
    """Close the breaker. Returns whether it was open."""
    with database.transaction() as connection:
        return bool(connection.execute(delete(table).where(table.c.name == key)).rowcount)
