"""Spending requests evenly: alone in one process, or together with every process of the appKey."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from kuaimai.state.budgets import Lane
from kuaimai.state.store import Store

BURST = 5
MOST_SLOTS = 4
# A slot that was not used for so long is given up: used later, it would come on top of everybody's rate.
STALE_SECONDS = 0.25


class Spending(Protocol):
    """What paces a client's requests."""

    def spend(self) -> None:
        """Wait until one more request fits into the budget, and take it."""
        ...

    def refused(self, retry_after: float | None) -> None:
        """Learn that the gateway refused a request for coming too fast."""
        ...


class Budget:
    """At most `rate` requests a second over time, at most `burst` at once; one process.

    Safe to share between threads.

    Args:
        rate: requests per second.
        burst: requests that may go out back to back after a pause.
        now: monotonic clock, seconds.
        sleep: waits, seconds.
    """

    def __init__(
        self,
        rate: float,
        *,
        burst: int = BURST,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._interval = 1.0 / rate
        self._slack = (burst - 1) * self._interval
        self._now = now
        self._sleep = sleep
        self._lock = threading.Lock()
        self._next_free = 0.0

    def spend(self) -> None:
        """Wait until one more request fits into the budget, and take it."""
        with self._lock:
            now = self._now()
            slot = max(self._next_free, now)
            self._next_free = slot + self._interval
        wait = slot - self._slack - now
        if wait > 0:
            self._sleep(wait)

    def refused(self, retry_after: float | None) -> None:
        """Hold the next requests back by what the gateway asked for."""
        with self._lock:
            self._next_free = max(self._next_free, self._now() + (retry_after or 0.0))


class SharedBudget:
    """The same budget for every process and host that opens the same coordination store.

    Slots are taken a few at a time, more while they are all used in time, so that the store is asked a few
    times a second at most. Safe to share between threads.

    Args:
        store: gives the coordination store when it is first needed.
        key: whose budget, one per appKey.
        rate: requests per second of all processes together.
        lane: who asks; lower lanes stand back.
        burst: requests that may go out back to back after a pause.
        now: monotonic clock, seconds.
        sleep: waits, seconds.
    """

    def __init__(
        self,
        store: Callable[[], Store],
        key: str,
        *,
        rate: float,
        lane: Lane = "live",
        burst: int = BURST,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._key = key
        self._rate = rate
        self._lane: Lane = lane
        self._burst = burst
        self._now = now
        self._sleep = sleep
        self._lock = threading.Lock()
        self._slots: deque[float] = deque()
        self._count = 1

    def spend(self) -> None:
        """Wait until one more request fits into everybody's budget, and take it."""
        while True:
            with self._lock:
                slot = self._next()
                wait = self._take() if slot is None else slot - self._now()
            if wait > 0:
                self._sleep(wait)
            if slot is not None:
                return

    def refused(self, retry_after: float | None) -> None:
        """Slow everybody down, and give up the slots at hand."""
        with self._lock:
            self._slots.clear()
        self._store().slow_down(self._key, pause_seconds=retry_after)

    def _next(self) -> float | None:
        while self._slots:
            slot = self._slots.popleft()
            if self._now() - slot <= STALE_SECONDS:
                return slot
            self._count = 1
        return None

    def _take(self) -> float:
        """Take slots; return after how many seconds to look again if none is free."""
        slots = self._store().take_slots(
            self._key, lane=self._lane, count=self._count, rate=self._rate, burst=self._burst
        )
        if slots.waits:
            at = self._now()
            self._slots.extend(at + wait for wait in slots.waits)
            self._count = min(self._count + 1, MOST_SLOTS)
        return slots.look_again
