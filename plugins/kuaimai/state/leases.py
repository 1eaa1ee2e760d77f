"""Leases with fencing numbers: at most one holder of a name, and a late one can be told from the present one.

A lease ends by release or by time, so a killed process blocks nobody for longer than its time to live. Every
grant raises the name's fence by one; whoever stores something under a lease stores the fence with it.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import case, exc, insert, select, update

from kuaimai.errors import Transient
from kuaimai.state.tables import lease as table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kuaimai.state.database import Database

_RACES = 5  # lost insert races before giving up; one is already rare


class LeaseTaken(Transient):
    """Someone else holds the lease; it ends by itself."""


class LeaseLost(Transient):
    """The lease expired and may have been granted to another; nothing may be stored under it any more."""


@dataclass(frozen=True)
class Lease:
    """One grant.

    Attributes:
        name: what is leased.
        owner: who asked, for people to read; two grants to one owner are still two grants.
        fence: grows with every grant of this name, by one, starting at 1.
    """

    name: str
    owner: str
    fence: int


def grant(
    database: Database, name: str, *, owner: str, now: float, ttl_seconds: float, above: int = 0
) -> Lease:
    """Take the lease if it is free or expired.

    Args:
        database: where the leases are.
        name: what to lease.
        owner: who asks, for people to read.
        now: epoch seconds.
        ttl_seconds: when it ends by itself.
        above: the highest fence that the caller has seen stored; the grant's is higher, even if this store
            was deleted meanwhile and began to count anew.

    Raises:
        LeaseTaken: it is held, also if the holder has the same owner text (a killed task's next try waits for
            the expiry, because nothing proves that the first one is dead).
    """
    free = (table.c.name == name) & (table.c.expires_at <= now)
    highest = case((table.c.fence < above, above), else_=table.c.fence)
    for _ in range(_RACES):
        with database.transaction() as connection:
            # The update locks the row, so the fence read after it is the one that it wrote.
            taken = connection.execute(
                update(table).where(free).values(owner=owner, fence=highest + 1, expires_at=now + ttl_seconds)
            ).rowcount
            row = connection.execute(select(table).where(table.c.name == name)).first()
        if row is not None and taken:
            return Lease(name, owner, int(row.fence))
        if row is not None:
            left = max(row.expires_at - now, 0.0)
            raise LeaseTaken(
                f"{name} is held by {row.owner} for {left:.0f} more seconds at most",
                hint="Wait; the next try will find it free.",
            )
        try:
            with database.transaction() as connection:
                connection.execute(
                    insert(table).values(
                        name=name, owner=owner, fence=above + 1, expires_at=now + ttl_seconds
                    )
                )
        except exc.IntegrityError:
            continue  # another process inserted first; look again
        return Lease(name, owner, above + 1)
    raise LeaseTaken(f"{name} could not be leased: too many processes ask at once", hint="Try again.")


def release(database: Database, lease: Lease) -> None:
    """End the lease; without effect if it was lost. The row stays, so that the fence never falls."""
    with database.transaction() as connection:
        connection.execute(update(table).where(_is(lease)).values(owner="", expires_at=0.0))


def holds(database: Database, lease: Lease, *, now: float) -> bool:
    """Whether this grant is the latest one and has not expired."""
    with database.transaction(writes=False) as connection:
        row = connection.execute(select(table.c.expires_at).where(_is(lease))).first()
    return row is not None and row.expires_at > now


@contextmanager
def holding(database: Database, lease: Lease, *, now: float) -> Iterator[None]:
    """Keep everyone else from taking the lease while the body runs, even if its time ends meanwhile.

    The row stays locked, so "check that I still hold it, then store" cannot be cut in two. The body must be
    short.

    Raises:
        LeaseLost: it is not held any more; the body does not run.
    """
    with database.transaction() as connection:
        row = connection.execute(select(table.c.expires_at).where(_is(lease)).with_for_update()).first()
        if row is None or row.expires_at <= now:
            raise LeaseLost(
                f"{lease.name} (grant {lease.fence}) expired before its holder was done",
                hint="Nothing was stored; run it again.",
            )
        yield


def _is(lease: Lease):  # type: ignore[no-untyped-def]  # noqa: ANN202  # the expression's type differs in 1.4 and 2.x
    return (table.c.name == lease.name) & (table.c.fence == lease.fence)
