"""Alert marks: of many processes that see the same trouble, one speaks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import exc, insert, select, update

from kuaimai.state.tables import alert as table

if TYPE_CHECKING:
    from kuaimai.state.database import Database


def claim(database: Database, key: str, *, now: float, quiet_seconds: float) -> bool:
    """Claim the right to alert about `key`.

    Returns:
        True for exactly one caller per `quiet_seconds`, counted from the last claim that succeeded.
    """
    with database.transaction() as connection:
        stale = (table.c.name == key) & (table.c.claimed_at <= now - quiet_seconds)
        if connection.execute(update(table).where(stale).values(claimed_at=now)).rowcount:
            return True
        if connection.execute(select(table.c.name).where(table.c.name == key)).first() is not None:
            return False
    try:
        with database.transaction() as connection:
            connection.execute(insert(table).values(name=key, claimed_at=now))
    except exc.IntegrityError:
        return False
    return True
