"""The store as the rest of the package sees it."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kuaimai.state import alerts, breakers, budgets, leases
from kuaimai.state.database import Database
from kuaimai.state.tables import short

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy.engine import URL

    from kuaimai.state.breakers import Breaker
    from kuaimai.state.budgets import Lane, Slots
    from kuaimai.state.leases import Lease


class Store:
    """Leases, breakers, budgets and alert marks, shared by all processes that open the same URL.

    Safe to use from several threads, and in a child after a fork. Every method may raise `Transient` (the
    database does not answer) and `ConfigError` (it cannot be opened, or a right is missing).

    Args:
        database: where the tables are.
        now: epoch seconds. Hosts should agree within a second or two; if they do not, a lease may end early,
            which its holder notices by the fence.
    """

    def __init__(self, database: Database, *, now: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now = now

    @classmethod
    def open(cls, url: str | URL, *, now: Callable[[], float] = time.time) -> Store:
        """A store at a SQLAlchemy URL; connects and creates its tables on first use.

        Raises:
            ConfigError: not a database URL, or its driver is missing.
        """
        return cls(Database(url), now=now)

    @property
    def place(self) -> str:
        """Where the store is, without password."""
        return self._database.place

    def close(self) -> None:
        """Give back the connections."""
        self._database.close()

    @contextmanager
    def lease(self, name: str, *, owner: str, ttl_seconds: float, above: int = 0) -> Iterator[Lease]:
        """Hold a lease for the body's time, at most `ttl_seconds`.

        Args:
            name: what to lease.
            owner: who asks, for people to read.
            ttl_seconds: when it ends by itself, so that a killed holder blocks nobody for longer.
            above: the highest fence that the caller has seen stored; the grant's will be higher.

        Raises:
            LeaseTaken: someone else holds it.
        """
        lease = leases.grant(
            self._database,
            short(name),
            owner=short(owner),
            now=self._now(),
            ttl_seconds=ttl_seconds,
            above=above,
        )
        try:
            yield lease
        finally:
            leases.release(self._database, lease)

    def still_holds(self, lease: Lease) -> bool:
        """Whether the lease is neither expired nor granted to another."""
        return leases.holds(self._database, lease, now=self._now())

    @contextmanager
    def holding(self, lease: Lease) -> Iterator[None]:
        """Run a short body during which nobody else can take the lease.

        Raises:
            LeaseLost: the lease is not held any more.
        """
        with leases.holding(self._database, lease, now=self._now()):
            yield

    def breaker(self, key: str) -> Breaker | None:
        """The open breaker of `key`, or None."""
        return breakers.find(self._database, short(key))

    def open_breaker(self, key: str, reason: str) -> bool:
        """Stop everyone who asks for `key`. Returns whether it was closed before."""
        return breakers.trip(self._database, short(key), reason, now=self._now())

    def close_breaker(self, key: str) -> bool:
        """Let everyone go on. Returns whether it was open."""
        return breakers.reset(self._database, short(key))

    def first_alert(self, key: str, *, quiet_seconds: float) -> bool:
        """Whether the caller should alert: True once per `quiet_seconds` over all processes."""
        return alerts.claim(self._database, short(key), now=self._now(), quiet_seconds=quiet_seconds)

    def take_slots(self, key: str, *, lane: Lane, count: int, rate: float, burst: int) -> Slots:
        """Take slots for requests from the budget of `key`, which all processes share."""
        return budgets.take(
            self._database, short(key), lane=lane, count=count, rate=rate, burst=burst, now=self._now
        )

    def pace(self, key: str) -> float:
        """The share of the rate of `key` that is used now: 1 unless requests were refused lately."""
        return budgets.pace(self._database, short(key), now=self._now)

    def slow_down(self, key: str, *, pause_seconds: float | None) -> None:
        """Make every taker of the budget of `key` pause and go on more slowly."""
        budgets.slow_down(self._database, short(key), pause_seconds=pause_seconds, now=self._now)
