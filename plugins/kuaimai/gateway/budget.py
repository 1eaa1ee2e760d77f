"""Spending requests evenly: GCRA, a single "next free moment" per budget."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


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
        burst: int = 5,
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
