"""Reading a window as stretches that fit one answer each, so that nothing can move while one is read.

One answer of the gateway is one moment: if it holds as many records as it counts, that stretch of time is
complete as of then. How much time fits an answer is learnt from the counts: every answer that overflows says
exactly how many records its time holds, and every complete one how dense its neighbourhood is.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from kuaimai.errors import TooLarge, TooSlow
from kuaimai.extract.asking import Asking, Page, Stretch
from kuaimai.extract.pages import READ_ATTEMPTS
from kuaimai.extract.reads import UNPROVEN
from kuaimai.extract.staged import Part, Staged

log = logging.getLogger(__name__)

# How full an answer is meant to be: more makes answers overflow, less makes more of them. At 200 records a
# page this leaves two standard deviations of a random arrival.
FILL = 0.85
# A neighbour is at most so much denser than expected before, as far as one answer can tell.
STEEPEST = 2.0
# A stretch that is too large or too slow is not halved below this, seconds.
SMALLEST_HALVED = 60


@dataclass
class _Span:
    """Time that nobody has asked for yet, and how many records a second are expected there, if known."""

    start: int
    end: int
    rate: float | None = None

    @property
    def length(self) -> int:
        return self.end - self.start

    @property
    def expected(self) -> float:
        return (self.rate or 0.0) * self.length

    def pieces(self, target: float) -> int:
        """How many stretches of `target` records it holds; a stretch has at least a second."""
        return max(1, min(math.ceil(self.expected / target), self.length))

    def cut(self, at: int) -> _Span:
        """Keep what is before second `at` of the span; return the rest. They share that second."""
        rest = _Span(self.start + at, self.end, self.rate)
        self.end = rest.start
        return rest


@dataclass
class _Flight:
    """A stretch that was asked for.

    Attributes:
        stretch: its time.
        expected: how many records were expected in it; 0 if nothing was known.
        rest: the time behind it, which waits for what this answer says about the density.
        attempt: how often it was asked for.
        settle: whether it is read page by page.
    """

    stretch: Stretch
    expected: float
    rest: _Span | None = None
    attempt: int = 1
    settle: bool = False


class Snapshots:
    """Reads one window. Use it once.

    Args:
        asking: sends the requests.
        staged: gets the answers as they arrive.
        settle: reads a stretch page by page.
        by_pages: read every stretch so: the archive counts nothing, so its answers cannot prove themselves.
        connections: how many stretches are asked for at the same time, inside the budget.
    """

    def __init__(
        self,
        asking: Asking,
        staged: Staged,
        settle: Callable[[Stretch], Part],
        *,
        by_pages: bool,
        connections: int,
    ) -> None:
        self._asking = asking
        self._staged = staged
        self._settle = settle
        self._by_pages = by_pages
        self._connections = connections
        self._cap = float(asking.page_size)
        self._idle: list[_Span] = []
        self._again: list[_Flight] = []
        self._flying: dict[Future[Page | Part], _Flight] = {}
        self._parts: list[Part] = []

    def read(self, window: Stretch, known: Sequence[Part] = ()) -> list[Part]:
        """Return the parts of a window, in order of time; neighbours share their edge second.

        Args:
            window: what to read.
            known: parts that an earlier life has read, in order of time.

        Raises:
            TooLarge: even a minute is too large for one answer.
            TooSlow: even a minute is not answered in time.
            DataError: the gateway ignores what it was asked for.
            KuaimaiError: a call failed for good. What was complete by then stays staged.
        """
        self._parts = list(known)
        self._idle = _holes(window, known)
        pool = ThreadPoolExecutor(self._connections, thread_name_prefix="stretch")
        try:
            self._launch(pool)
            while self._flying:
                done, _ = wait(self._flying, return_when=FIRST_COMPLETED)
                for future in done:
                    self._land(self._flying.pop(future), future)
                self._launch(pool)
        finally:
            # After an error the stretches that were not begun are not asked for.
            pool.shutdown(wait=True, cancel_futures=True)
        return sorted(self._parts, key=lambda part: part.stretch)

    def _launch(self, pool: ThreadPoolExecutor) -> None:
        while len(self._flying) < self._connections:
            flight = self._again.pop(0) if self._again else self._next()
            if flight is None:
                return
            self._flying[pool.submit(self._work, flight)] = flight

    def _next(self) -> _Flight | None:
        """Take the first stretch of idle time; where there is too little of it, share what waits."""
        free = self._connections - len(self._flying)
        while len(self._idle) < free and self._share():
            pass
        if not self._idle:
            return None
        span = self._idle.pop(0)
        pieces = span.pieces(self._target)
        rest = span.cut(max(1, span.length // pieces)) if pieces > 1 else None
        return _Flight(Stretch(span.start, span.end), span.expected, rest, settle=self._by_pages)

    def _share(self) -> bool:
        """Give the later half of the fullest span that is not asked for to another connection."""
        waiting = [flight.rest for flight in self._flying.values() if flight.rest]
        fullest = max(self._idle + waiting, key=lambda span: span.pieces(self._target), default=None)
        pieces = fullest.pieces(self._target) if fullest else 1
        if fullest is None or pieces == 1:
            return False
        self._idle.append(fullest.cut(fullest.length * (pieces - pieces // 2) // pieces))
        return True

    @property
    def _target(self) -> float:
        return max(1.0, FILL * self._cap)

    def _work(self, flight: _Flight) -> Page | Part:
        """Runs in a connection's own thread; an answer is forgotten as soon as it is staged."""
        if flight.settle:
            return self._settle(flight.stretch)
        page = self._asking.page(flight.stretch)
        if page.complete:
            return self._staged.keep(flight.stretch, page, attempts=flight.attempt)
        return page

    def _land(self, flight: _Flight, future: Future[Page | Part]) -> None:
        try:
            landed = future.result()
        except (TooLarge, TooSlow) as error:
            self._halve(flight, error)
        else:
            if isinstance(landed, Part):
                self._parts.append(landed)
                if not flight.settle:
                    self._learn(flight, landed.rows)
            else:
                self._not_complete(flight, landed)
        if flight.rest:
            self._idle.insert(0, flight.rest)

    def _learn(self, flight: _Flight, records: int) -> None:
        """The density goes half way to what an answer says: one answer is a small sample."""
        rate = records / max(1, flight.stretch.length)
        if flight.rest:
            known = flight.rest.rate or rate
            flight.rest.rate = min((known + rate) / 2, STEEPEST * known)
        for span in self._idle:
            if span.rate is None:
                span.rate = rate

    def _not_complete(self, flight: _Flight, page: Page) -> None:
        stretch, total, came = flight.stretch, page.total, len(page.keys)
        if total is not None and 0 < came < total:
            if came < min(self._asking.page_size, self._cap):
                self._cap = float(came)  # the gateway gives fewer than asked for, silently
            self._learn(flight, total)
            if stretch.length > 1:
                self._idle.insert(0, _Span(stretch.start, stretch.end, total / stretch.length))
            else:
                self._again.append(_Flight(stretch, total, settle=True))
        elif total is None:
            self._again.append(_Flight(stretch, came, settle=True))
        elif flight.attempt < READ_ATTEMPTS:
            self._again.append(_Flight(stretch, flight.expected, attempt=flight.attempt + 1))
        else:
            log.warning("%d records counted and %d different ones came", total, len(set(page.keys)))
            self._parts.append(self._staged.keep(stretch, page, UNPROVEN, attempts=flight.attempt))

    def _halve(self, flight: _Flight, error: TooLarge | TooSlow) -> None:
        stretch = flight.stretch
        if stretch.length <= SMALLEST_HALVED:
            raise error
        if isinstance(error, TooLarge) and flight.expected:
            self._cap = min(self._cap, max(1.0, flight.expected / 2))
        rate = flight.expected / stretch.length or None
        first = _Span(stretch.start, stretch.end, rate)
        self._idle[:0] = [first, first.cut(stretch.length // 2)]


def _holes(window: Stretch, known: Sequence[Part]) -> list[_Span]:
    """What of a window is not known yet, as dense as what is."""
    seconds = sum(part.stretch.length for part in known)
    rate = sum(part.rows for part in known) / seconds if seconds else None
    holes, reached = [], window.start
    for part in known:
        if part.stretch.start > reached:
            holes.append(_Span(reached, part.stretch.start, rate))
        reached = max(reached, part.stretch.end)
    if reached < window.end or not known:
        holes.append(_Span(reached, window.end, rate))
    return holes
