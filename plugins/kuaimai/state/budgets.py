"""The request budget of an appKey: one row, one short transaction, shared by every process and host.

GCRA: the row holds the moment of the next free request ("next free"). Taking slots moves it forward by one
interval each, so all takers together never exceed the rate, whoever they are. Slots are moments of the
database's own clock, because hosts disagree about the time.

Lanes: a taker that had to wait leaves a mark, and takers of lower lanes stand back while it is fresh. Nobody
takes slots further ahead than `HORIZON_SECONDS`, so a higher lane never waits longer than that for slots that
a lower one took first.

After HTTP 429 everybody pauses, and goes on at half the rate, which recovers over `RECOVERY_SECONDS`.

A clock that is set back leaves moments behind that lie ahead of it. They are brought back to where they can
be at most, and written so: nobody waits for the time that was set back, and no slot is granted twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sqlalchemy import exc, insert, select, text, update
from sqlalchemy.engine import Connection

from kuaimai.errors import Transient
from kuaimai.state.database import Database
from kuaimai.state.tables import budget as table

Lane = Literal["live", "reconcile", "backfill"]
LANES: tuple[Lane, ...] = get_args(Lane)

HORIZON_SECONDS = 1.0
MARK_SECONDS = 1.5
RECOVERY_SECONDS = 120.0
# Who waits for the end of a pause looks again after so long: it may have been brought forward.
LOOK_AGAIN_SECONDS = 5.0
LOWEST_FACTOR = 0.125
PAUSE_SECONDS = 2.0
# Requests that were on their way together are refused together; that is one reason to slow down, not many.
ONE_REFUSAL_SECONDS = 2.0

_RACES = 5
_CLOCKS = {
    "postgresql": "SELECT EXTRACT(EPOCH FROM clock_timestamp())",
    "mysql": "SELECT UNIX_TIMESTAMP(SYSDATE(6))",
}


@dataclass(frozen=True)
class Slots:
    """What was taken.

    Attributes:
        waits: seconds from now until each slot, in order; empty if nothing was free for this lane.
        look_again: seconds after which to ask again, if nothing was free.
        first: the first slot on the database's clock, epoch seconds; for those who want to check.
    """

    waits: tuple[float, ...]
    look_again: float = 0.0
    first: float = 0.0


def take(
    database: Database,
    name: str,
    *,
    lane: Lane,
    count: int,
    rate: float,
    burst: int,
    now: Callable[[], float] = time.time,
) -> Slots:
    """Take up to `count` slots for requests.

    Args:
        database: where the budgets are.
        name: whose budget.
        lane: who asks.
        count: how many slots are wanted at once.
        rate: requests per second of all takers together.
        burst: requests that may go out back to back after a pause.
        now: epoch seconds; only where the database has no clock of its own (SQLite, one machine).
    """
    with _locked(database, name) as (connection, row):
        at = _clock(connection, now)
        mark = max(
            (float(getattr(row, f"{other}_until")) for other in LANES[: LANES.index(lane)]), default=0.0
        )
        if at < mark <= at + MARK_SECONDS:
            return Slots((), look_again=min(mark - at, 0.5))
        interval = 1.0 / (rate * _factor(row, at))
        moments = {**_refusal(row, at), "next_free": min(float(row.next_free), at + _furthest(rate))}
        start = max(moments["next_free"], moments["blocked_until"], at)
        ahead = start - at
        granted = 0 if ahead > HORIZON_SECONDS else min(count, 1 + int((HORIZON_SECONDS - ahead) / interval))
        changes = {name: moment for name, moment in moments.items() if moment < float(getattr(row, name))}
        if granted:
            changes["next_free"] = start + granted * interval
        if ahead > 0 and lane != LANES[-1]:
            changes[f"{lane}_until"] = at + MARK_SECONDS
        if changes:
            connection.execute(update(table).where(table.c.name == name).values(**changes))
    slack = 0.0 if moments["blocked_until"] > at else (burst - 1) * interval
    waits = tuple(max(ahead + number * interval - slack, 0.0) for number in range(granted))
    look_again = 0.0 if granted else min(ahead - HORIZON_SECONDS, LOOK_AGAIN_SECONDS)
    return Slots(waits, look_again=look_again, first=start)


def slow_down(
    database: Database, name: str, *, pause_seconds: float | None, now: Callable[[], float] = time.time
) -> None:
    """Tell everyone that the gateway refused a request for coming too fast.

    Args:
        database: where the budgets are.
        name: whose budget.
        pause_seconds: what the gateway asked for, or None.
        now: as for `take`.
    """
    with _locked(database, name) as (connection, row):
        at = _clock(connection, now)
        changes = _refusal(row, at)
        changes["blocked_until"] = max(changes["blocked_until"], at + (pause_seconds or PAUSE_SECONDS))
        if abs(at - float(row.slowed_at)) > ONE_REFUSAL_SECONDS:
            changes["factor"] = max(_factor(row, at) / 2, LOWEST_FACTOR)
            changes["slowed_at"] = at
        connection.execute(update(table).where(table.c.name == name).values(**changes))


def pace(database: Database, name: str, *, now: Callable[[], float] = time.time) -> float:
    """Return the share of the rate that is used now: 1 unless the gateway has refused requests lately."""
    with database.transaction(writes=False) as connection:
        row = connection.execute(select(table).where(table.c.name == name)).first()
        return 1.0 if row is None else _factor(row, _clock(connection, now))


def _factor(row: Any, at: float) -> float:
    return min(1.0, float(row.factor) + max(at - float(row.slowed_at), 0.0) / RECOVERY_SECONDS)


def _furthest(rate: float) -> float:
    """Return how far ahead the next free moment can be: a last slot on the horizon, at the lowest rate."""
    return HORIZON_SECONDS + 1.0 / (rate * LOWEST_FACTOR)


def _refusal(row: Any, at: float) -> dict[str, float]:
    """Return when the last refusal was and until when it blocks; both earlier if it lies ahead of the clock.

    A pause keeps its length so, which is the gateway's to choose: no limit could tell a long one from a clock
    that was set back.
    """
    back = max(float(row.slowed_at) - at, 0.0)
    return {"slowed_at": float(row.slowed_at) - back, "blocked_until": float(row.blocked_until) - back}


@contextmanager
def _locked(database: Database, name: str) -> Iterator[tuple[Connection, Any]]:
    """A transaction that has locked the budget's row, which is made if need be."""
    for _ in range(_RACES):
        with database.transaction() as connection:
            row = connection.execute(select(table).where(table.c.name == name).with_for_update()).first()
            if row is not None:
                yield connection, row
                return
        # In a transaction of its own: on MySQL those that lose this race keep a shared lock on the winner's
        # row until they end, and would then wait for one another.
        with suppress(exc.IntegrityError), database.transaction() as connection:
            connection.execute(insert(table).values(name=name))
    raise Transient(f"the budget {name} could not be made: too many processes ask at once")


def _clock(connection: Connection, now: Callable[[], float]) -> float:
    """Read after the row is locked: waiting for the lock takes time."""
    statement = _CLOCKS.get(connection.dialect.name)
    return float(connection.execute(text(statement)).scalar_one()) if statement else now()
