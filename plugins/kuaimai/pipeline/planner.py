"""Planning a backfill: what a stretch of the past costs, and the slices to read it in.

The gateway is asked how many records each day holds; slices are cut by that number, not by the clock, so
that a busy day becomes several tasks of much the same size. What is sealed already is left out. Time that is
older than the method's reach lies in the gateway's archive, which sends no totals: it is cut by the clock, a
day each.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import pairwise

import msgspec

from kuaimai.errors import ConfigError, Rejected, TooLarge
from kuaimai.extract.paging import CONNECTIONS, window_request
from kuaimai.extract.windows import BORDER, SECOND, Shop, Slice, Window, gaps, halves
from kuaimai.gateway import catalog
from kuaimai.gateway.client import Client
from kuaimai.gateway.clock import GATEWAY_ZONE
from kuaimai.load.proof import READINGS, SEALED, SUPERSEDED
from kuaimai.load.protocol import Coverage
from kuaimai.load.windows import ReadWindow
from kuaimai.pipeline import coverage
from kuaimai.pipeline.backfill_plan import ROWS_PER_SLICE, BackfillPlan, PlannedDay, wall_clock
from kuaimai.pipeline.scopes import serving
from kuaimai.pipeline.slices import planned_window
from kuaimai.pipeline.spec import Pipeline

# How long a plan may wait until it is read; a day that leaves the method's reach by then is taken for older.
WAITING = timedelta(days=2)
# Records a request brings, as a share of a page. Stretches are aimed at 0.85, and those that overflow are cut
# and asked for again: measured 0.62 to 0.67 at 200 a page, over evenly spread orders.
YIELD = 0.65

BACKFILL = "backfill"


def plan_backfill(
    pipeline: Pipeline,
    *,
    run: str,
    start: datetime,
    end: datetime,
    shops: Iterable[Shop],
    dimension: str,
    client: Client,
    rate: float,
    target: Coverage,
    rows_per_slice: int = ROWS_PER_SLICE,
    again: bool = False,
    now: Callable[[], float] = time.time,
) -> BackfillPlan:
    """Count what a stretch of the past holds and cut it into slices; nothing is read and nothing written.

    Args:
        pipeline: the pipeline.
        run: the run's id; part of every staging path.
        start: begin of the time to read, with zone.
        end: its end.
        shops: whose records.
        dimension: the time by which to read; the archive knows only some.
        client: calls the gateway; page 1 of the smallest size for each count.
        rate: the budget, requests a second.
        target: where the coverage is.
        rows_per_slice: at most so many records in a slice, unless one second holds more.
        again: read also what is sealed.
        now: clock, epoch seconds.

    Raises:
        ConfigError: the dimension is not known, or not to the archive that the time lies in; the end is not
            after the start, or lies in the future.
    """
    shops = sorted(shops)
    start, end = start.replace(microsecond=0), end.replace(microsecond=0)  # the gateway knows seconds
    instant = datetime.fromtimestamp(now(), GATEWAY_ZONE)
    border = reach(pipeline, instant)
    _check(pipeline, start, end, dimension, instant=instant, border=border)
    if rows_per_slice < pipeline.source.page_size:
        raise ConfigError(
            f"{rows_per_slice} rows a slice are fewer than a page holds",
            hint=f"give {pipeline.source.page_size} or more; {ROWS_PER_SLICE} is the default",
        )
    stretches: list[_Stretch] = []
    covered = _Coverage([] if again else target.coverage(pipeline.name, dimension, start), pipeline)
    spent = client.requests
    left = 0.0
    for day in _days(Window(start, end, dimension), border):
        archive = border is not None and day.end <= border
        for (begin, finish), group in _left_of(pipeline, day, shops, covered, archive=archive):
            left += (finish - begin) / timedelta(days=1) * len(group)
            window = Window(begin, finish, dimension)
            stretches.append(
                _Stretch(
                    pipeline, window, group, archive=archive, run=run, client=client, most=rows_per_slice
                )
            )
    _plan_all(stretches)
    slices = (piece for stretch in stretches for piece in stretch.slices)
    return BackfillPlan(
        pipeline=pipeline.name,
        dimension=dimension,
        start=start,
        end=end,
        shops=len(shops),
        slices=tuple(
            msgspec.structs.replace(piece, number=number) for number, piece in enumerate(slices, start=1)
        ),
        days=tuple(day for stretch in stretches for day in stretch.days),
        sealed_days=max((end - start) / timedelta(days=1) - left / max(len(shops), 1), 0.0),
        probes=client.requests - spent,
        rate=rate,
    )


def announce(plan: BackfillPlan, pipeline: Pipeline, target: Coverage) -> None:
    """Write the plan's windows down as open, so that a slice that is never read leaves a trace."""
    target.announce([planned_window(pipeline.source.method, piece) for piece in plan.slices])


def settle(pipeline: Pipeline, dimension: str, start: datetime, target: Coverage, now: float) -> None:
    """Close windows that an earlier plan left open or contested and whose time others have sealed since.

    Only time within the method's reach: of older time two stores were asked, and one cannot answer for both.
    """
    border = reach(pipeline, datetime.fromtimestamp(now, GATEWAY_ZONE))
    coverage.settled_windows(pipeline.name, dimension, target, since=start, border=border)


def reach(pipeline: Pipeline, instant: datetime) -> datetime | None:
    """Return the first midnight (GMT+8) that the method's normal store is sure to hold for a while; or None.

    Older time is asked of the archive.
    """
    times = catalog.method(pipeline.source.method).times
    if times is None or times.reach_days is None:
        return None
    oldest = instant.astimezone(GATEWAY_ZONE) - timedelta(days=times.reach_days) + WAITING
    return _midnight(oldest) + timedelta(days=1)


class _Coverage:
    """What was read before, by shop and method."""

    def __init__(self, windows: Iterable[ReadWindow], pipeline: Pipeline) -> None:
        times = catalog.method(pipeline.source.method).times
        self._reach = timedelta(days=(times.reach_days if times else None) or 36_500)
        self._sealed: dict[tuple[str, str], list[tuple[datetime, datetime]]] = {}
        self._open: dict[tuple[str, str], list[tuple[datetime, datetime]]] = {}
        for one in windows:
            for shop in one.shops:
                if self._proves(one):
                    self._sealed.setdefault((shop, one.method), []).append((one.start, one.end))
                elif one.state not in {SEALED, SUPERSEDED}:
                    self._open.setdefault((shop, one.method), []).append((one.start, one.end))

    def _proves(self, one: ReadWindow) -> bool:
        """Whether a seal says that nothing is missing.

        One that the normal store gave for time beyond its reach does not: the rest was in the archive.
        """
        if one.state != SEALED:
            return False
        return one.proof == READINGS or (
            one.last_read_at is not None and one.last_read_at - one.start <= self._reach
        )

    def sealed(self, shop: str, method: str) -> list[tuple[datetime, datetime]]:
        return self._sealed.get((shop, method), [])

    def left(
        self, day: Window, shop: str, base: str, further: Sequence[str], *, archive: bool
    ) -> tuple[tuple[datetime, datetime], ...]:
        """Return what of a day the base method has not sealed for a shop, or a further one has left open."""
        if archive and self._within(day, self._open.get((shop, base), ())):
            # One of the two stores was not read to its end; records may have gone to the other since.
            return ((day.start, day.end),)
        holes = gaps(day.start, day.end, self.sealed(shop, base))
        for method in further:
            for begin, finish in self._within(day, self._open.get((shop, method), ())):
                holes += gaps(begin, finish, self.sealed(shop, method))
        # The holes of several methods overlap: what is outside of all of them is taken away from the day.
        left = gaps(day.start, day.end, gaps(day.start, day.end, holes))
        # The last second of a window is read too: where the night's end, a second before a day does, nothing
        # is left.
        return tuple(hole for hole in left if hole[0] == day.start or hole[1] - hole[0] > SECOND)

    @staticmethod
    def _within(day: Window, spans: Iterable[tuple[datetime, datetime]]) -> list[tuple[datetime, datetime]]:
        clipped = [(max(begin, day.start), min(finish, day.end)) for begin, finish in spans]
        return [(begin, finish) for begin, finish in clipped if begin < finish]


class _Stretch:
    """At most a day of one group of shops: asks the gateway for counts, and collects slices and lines.

    Attributes:
        slices: what was planned; they get their numbers when all stretches are.
        days: lines of the plan.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        window: Window,
        shops: Sequence[Shop],
        *,
        archive: bool,
        run: str,
        client: Client,
        most: int,
    ) -> None:
        self.slices: list[Slice] = []
        self.days: list[PlannedDay] = []
        self._pipeline = pipeline
        self._window = window
        self._shops = shops
        self._archive = archive
        self._run = run
        self._client = client
        self._most = most

    def plan(self) -> None:
        """Ask, and cut.

        Raises:
            KuaimaiError: a count failed for good.
        """
        window, shops = self._window, self._shops
        rows = self._count(self._pipeline.source.method, window, shops)
        if not self._archive:
            self._add_counted(window, shops, rows, BACKFILL)
            return
        if rows is None or rows:
            # Where the border lies is not documented. What the normal store still has is read there, and
            # before the archive: records go from the one to the other and never back. A store that sends no
            # total may hold records too.
            self._add_counted(window, shops, rows, BORDER)
        self._slice(window, shops, BACKFILL, archive=True)
        # Each method reads twice, a page at least.
        least = 2 * sum(bool(served) for _, served in self._served(shops))
        self._day(window, shops, archive=True, rows=None, slices=1, requests=least)

    def _add_counted(self, window: Window, shops: Sequence[Shop], rows: int | None, reason: str) -> None:
        pieces = [window] if rows is None else [piece for piece, _ in self._cut(window, shops, rows)]
        for piece in pieces:
            self._slice(piece, shops, reason)
        requests = 0
        for method, served in self._served(shops):
            if served:
                requests += self._cost(self._rows_of(method, window, served, rows), len(pieces))
        self._day(window, shops, archive=False, rows=rows, slices=len(pieces), requests=requests)

    def _cut(self, window: Window, shops: Sequence[Shop], rows: int) -> list[tuple[Window, int]]:
        """Cut a stretch so that no piece has too many rows and no two neighbours could be one."""
        joined: list[tuple[Window, int]] = []
        for piece, many in self._halved(window, shops, rows):
            if joined and joined[-1][1] + many <= self._most:
                last, before = joined.pop()
                joined.append((Window(last.start, piece.end, piece.dimension), before + many))
            else:
                joined.append((piece, many))
        return joined

    def _halved(self, window: Window, shops: Sequence[Shop], rows: int) -> Iterator[tuple[Window, int]]:
        # A window cannot be cut further than a second: the gateway's times are whole seconds.
        if rows <= self._most or window.end - window.start <= SECOND:
            yield window, rows
            return
        first, second = halves(window)
        many = self._count(self._pipeline.source.method, first, shops) or 0
        yield from self._halved(first, shops, many)
        yield from self._halved(second, shops, max(rows - many, 0))

    def _served(self, shops: Sequence[Shop]) -> Iterator[tuple[str, list[Shop]]]:
        for method in self._pipeline.source.methods:
            yield method, [shop for shop in shops if method in serving(self._pipeline, shop)]

    def _rows_of(self, method: str, window: Window, shops: Sequence[Shop], base: int | None) -> int:
        if method == self._pipeline.source.method or not base:
            return base or 0
        try:
            counted = self._count(method, window, shops)
        except TooLarge:
            raise
        except Rejected:
            counted = None  # refused for one of the shops; which ones it serves shows when it is read
        return base if counted is None else counted

    def _cost(self, rows: int, pieces: int) -> int:
        """Requests to read so many rows; an empty slice takes one too."""
        return max(math.ceil(rows / (YIELD * self._pipeline.source.page_size)), pieces)

    def _count(self, method: str, window: Window, shops: Sequence[Shop]) -> int | None:
        page = catalog.method(method).page
        size = page.min if page else self._pipeline.source.page_size
        request = window_request(method, window, shops, params=self._pipeline.source.params)
        request |= {"pageNo": "1", "pageSize": str(size)}
        try:
            return self._client.call(method, request).total
        except TooLarge:
            raise
        except Rejected as refusal:
            if len(shops) == 1:
                raise
            return self._count_each(method, window, shops, refusal)

    def _count_each(
        self, method: str, window: Window, shops: Sequence[Shop], refusal: Rejected
    ) -> int | None:
        """Count shop by shop, without those that are refused; see `stages.extract`."""
        counts: list[int | None] = []
        for shop in shops:
            with suppress(Rejected):
                counts.append(self._count(method, window, [shop]))
        if not counts:
            raise refusal
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    def _slice(self, window: Window, shops: Sequence[Shop], reason: str, *, archive: bool = False) -> None:
        self.slices.append(
            Slice(self._pipeline.name, self._run, 0, window, tuple(shops), reason, archive=archive)
        )

    def _day(
        self,
        window: Window,
        shops: Sequence[Shop],
        *,
        archive: bool,
        rows: int | None,
        slices: int,
        requests: int,
    ) -> None:
        ids = tuple(shop.id for shop in shops)
        self.days.append(PlannedDay(window.start, window.end, ids, archive, rows, slices, requests))


def _plan_all(stretches: Sequence[_Stretch]) -> None:
    """Plan stretches, several at the same time: each waits for an answer before it can ask the next."""
    with ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="count") as pool:
        futures = [pool.submit(stretch.plan) for stretch in stretches]
        try:
            for future in futures:
                future.result()
        finally:
            # After an error the counts that were not begun are not asked for.
            for future in futures:
                future.cancel()


def _check(
    pipeline: Pipeline,
    start: datetime,
    end: datetime,
    dimension: str,
    *,
    instant: datetime,
    border: datetime | None,
) -> None:
    if not pipeline.has_times:
        raise ConfigError(
            f"pipeline {pipeline.name} has no past: {pipeline.source.method} knows no times, and every run "
            f"of kuaimai_{pipeline.name} reads everything",
            hint="trigger that DAG",
        )
    if end <= start:
        raise ConfigError(f"the end {wall_clock(end)} is not after the start {wall_clock(start)}")
    if end > instant:
        raise ConfigError(f"the end {wall_clock(end)} lies in the future", hint="give an end that has passed")
    for name in pipeline.source.methods:
        times = catalog.method(name).times
        known = times.dimensions if times else ()
        if dimension not in known:
            raise ConfigError(
                f"{name} cannot be read by {dimension!r}", hint=f"give one of {', '.join(known)}", method=name
            )
        if border is None or start >= border:
            continue
        archived = _archived(name)
        if dimension not in archived:
            advice = f"read by {archived[0]!r}, or " if archived else ""
            raise ConfigError(
                f"time before {wall_clock(border)} lies in the gateway's archive, which cannot be read by "
                f"{dimension!r}",
                method=name,
                hint=f"{advice}begin at {wall_clock(border)} or later",
            )


def _archived(method: str) -> tuple[str, ...]:
    """Return the dimensions by which what is older than a method's reach can be read."""
    entry = catalog.method(method)
    if entry.history:
        history = catalog.method(entry.history).times
        return tuple(history.dimensions) if history else ()
    return entry.times.archive.dimensions if entry.times and entry.times.archive else ()


def _days(interval: Window, border: datetime | None) -> list[Window]:
    """Cut an interval at every midnight of the merchant, and at the border of the archive."""
    cuts = {interval.start, interval.end}
    moment = _midnight(interval.start) + timedelta(days=1)
    while moment < interval.end:
        cuts.add(moment)
        moment += timedelta(days=1)
    if border is not None and interval.start < border < interval.end:
        cuts.add(border)
    moments = sorted(cuts)
    return [Window(a, b, interval.dimension) for a, b in pairwise(moments)]


def _left_of(
    pipeline: Pipeline, day: Window, shops: Sequence[Shop], covered: _Coverage, *, archive: bool
) -> Iterator[tuple[tuple[datetime, datetime], list[Shop]]]:
    """Yield what of a day is left to read, with the shops that share it, as many as one call may name."""
    base = pipeline.source.method
    limit = catalog.method(base).scope
    most = limit.max if limit else max(len(shops), 1)
    sharing: dict[tuple[tuple[datetime, datetime], ...], list[Shop]] = {}
    for shop in shops:
        further = [method for method in serving(pipeline, shop) if method != base]
        holes = covered.left(day, shop.id, base, further, archive=archive)
        sharing.setdefault(holes, []).append(shop)
    for holes, group in sharing.items():
        for hole in holes:
            for at in range(0, len(group), most):
                yield hole, group[at : at + most]


def _midnight(moment: datetime) -> datetime:
    return moment.astimezone(GATEWAY_ZONE).replace(hour=0, minute=0, second=0, microsecond=0)
