"""Time windows, and which of them a run has to read.

The gateway's windows are closed at both ends and have whole seconds (reference 6.1), so neighbouring windows
share their edge second; upserts make that harmless, and no row can fall between two windows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from kuaimai.gateway.clock import GATEWAY_ZONE

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
# The dimension of a reading of everything, whatever its time: for methods that know no times, and for what
# they never tell, that a record is gone. Its window is the run's own time.
SCAN = "scan"
# Time that is healed is cut at the full hours: what did not seal is asked for under the same name again.
HEAL_CELL = timedelta(hours=1)
# Reason of a slice that reads the normal store for time that the archive is asked for as well.
BORDER = "border"
# Healing slices of one run, oldest first. The rest waits for the next run.
MOST_HEALS = 48


class Window(msgspec.Struct, frozen=True, order=True):
    """A closed stretch of time in one time dimension.

    Attributes:
        start: first instant, with zone.
        end: last instant, with zone.
        dimension: e.g. `upd_time`.
    """

    start: datetime
    end: datetime
    dimension: str


class Shop(msgspec.Struct, frozen=True, order=True):
    """Whose records are asked for: a shop by the ERP's id (`userId`) and its platform code (`source`).

    A warehouse, for methods that are asked by warehouse, has its id and the source `WAREHOUSE`; for methods
    that are asked for everything at once there is one `EVERYTHING`.
    """

    id: str
    source: str


WAREHOUSE = "warehouse"
EVERYTHING = Shop("", "")


class Slice(msgspec.Struct, frozen=True):
    """What one extract task reads: one window of a group of shops.

    Attributes:
        pipeline: name of the pipeline.
        run: the run that reads it; part of every staging path.
        number: position in the run's plan.
        window: the time to read.
        shops: at most as many as one call may name.
        reason: `interval` for the run's own time, `heal` for time that an earlier run left unsealed,
            `backfill` and `border` for a slice of a planned backfill (see `kuaimai.pipeline.planner`),
            `asked` for what a person asked for, or Airflow's own backfill.
        archive: read the gateway's archive (`queryType=1`), where what is older than its reach lives.
        known_since: from when on all of these shops' time was sealed, without a hole, before this run began:
            a row created since then that is new now became visible late. None: nothing can be said.
        look_back_minutes: how far back rows are looked for by their creation; 0 where nothing looks for them.
    """

    pipeline: str
    run: str
    number: int
    window: Window
    shops: tuple[Shop, ...]
    reason: str = "interval"
    archive: bool = False
    known_since: datetime | None = None
    look_back_minutes: int = 0


class SealedSpan(msgspec.Struct, frozen=True):
    """A row of the coverage: this method was read for this shop in this time.

    Attributes:
        shop: id of the shop.
        method: API method.
        start: first instant.
        end: last instant.
        sealed: whether a scheduled run can leave it alone: it is proven complete, or left to the reconcile.
    """

    shop: str
    method: str
    start: datetime
    end: datetime
    sealed: bool


def window_id(
    pipeline: str, method: str, window: Window, shops: Iterable[str], *, archive: bool = False
) -> str:
    """Return the stable id of one window's proof: the same question always has the same id.

    The archive's answer proves nothing about the normal store, so it has an id of its own.
    """
    facts = (
        pipeline,
        method,
        window.dimension,
        str(int(window.start.timestamp())),
        str(int(window.end.timestamp())),
        ",".join(sorted(shops)),
        *(("archive",) if archive else ()),
    )
    return hashlib.sha256("|".join(facts).encode()).hexdigest()[:24]


def split(window: Window, longest: timedelta) -> list[Window]:
    """Cut a window into pieces of at most `longest`; neighbours share their edge."""
    pieces = []
    start = window.start
    while start < window.end:
        end = min(start + longest, window.end)
        pieces.append(Window(start, end, window.dimension))
        start = end
    return pieces


def cells(window: Window, size: timedelta) -> list[Window]:
    """Cut a window where the merchant's clock shows a multiple of `size` since midnight.

    So the same time is asked for under the same `window_id` by every run. What lies before the first such
    moment, or after the last, is a piece of its own.

    Args:
        window: what to cut.
        size: a part of a day, or a day.
    """
    pieces = []
    start = window.start
    while start < window.end:
        end = min(cell_start(start, size) + size, window.end)
        pieces.append(Window(start, end, window.dimension))
        start = end
    return pieces


def cell_start(moment: datetime, size: timedelta) -> datetime:
    """Return the last moment, not after this one, at which a cell of `size` begins in GMT+8."""
    midnight = moment.astimezone(GATEWAY_ZONE).replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight + (moment - midnight) // size * size


def halves(window: Window) -> list[Window]:
    """Cut a window in two at a whole second; the parts share that second."""
    middle = (window.start + (window.end - window.start) / 2).replace(microsecond=0)
    return [
        Window(window.start, middle, window.dimension),
        Window(middle, window.end, window.dimension),
    ]


def gaps(
    since: datetime, until: datetime, covered: Iterable[tuple[datetime, datetime]]
) -> list[tuple[datetime, datetime]]:
    """Return the parts of `since`..`until` that no span of `covered` covers, oldest first.

    The gateway knows whole seconds and reads both ends: a span that begins a second behind another leaves
    nothing out.
    """
    holes = []
    reached = following = since
    for start, end in sorted(covered):
        if start > following:
            holes.append((reached, min(start, until)))
        if end >= reached:
            reached, following = end, end + SECOND
        if reached >= until:
            break
    if reached < until:
        holes.append((reached, until))
    return [(start, end) for start, end in holes if start < end]


def sealed_since(
    since: datetime, until: datetime, covered: Iterable[tuple[datetime, datetime]]
) -> datetime | None:
    """Return the begin of the time without a hole that reaches `until`, or `since`; None if none does."""
    holes = gaps(since, until, covered)
    if not holes:
        return since
    return holes[-1][1] if holes[-1][1] < until else None


def plan(
    *,
    pipeline: str,
    run: str,
    interval: Window,
    shops: Sequence[Shop],
    shops_per_call: int,
    longest: timedelta,
    coverage: Sequence[SealedSpan] = (),
    methods_of: Mapping[str, Sequence[str]] | None = None,
    base_method: str = "",
    heal_since: datetime | None = None,
    most_heals: int = MOST_HEALS,
    cell: timedelta | None = None,
    unread: Mapping[str, int] | None = None,
) -> list[Slice]:
    """Return what a run reads: its own interval, and what earlier runs left unsealed before it.

    Args:
        pipeline: name of the pipeline.
        run: id of the run.
        interval: the run's own time, overlap included.
        shops: all shops to read.
        shops_per_call: how many shops one call may name.
        longest: the longest window to ask for.
        coverage: what was read before; empty for a run that covers exactly its interval.
        methods_of: shop id → the methods that serve the shop; each must be sealed.
        base_method: decides what is complete; further methods are healed only where they were read before.
        heal_since: begin of the time that must be sealed; None heals nothing.
        most_heals: at most so many healing slices in one run, oldest first.
        cell: cut the interval and what is healed by the clock, in cells of this size; None leaves the
            interval as it is and heals by the hour.
        unread: `window_id` → how often that window was planned and not read to its end. What could not be
            read lets all others go first, so that it starves none of them.
    """
    # The present first: healing may take long, or fail.
    wanted: list[tuple[Window, tuple[Shop, ...], str]] = [
        (piece, chunk, "interval")
        for piece in (cells(interval, cell) if cell else split(interval, longest))
        for chunk in _chunks(sorted(shops), shops_per_call)
    ]
    if heal_since is not None:
        holes = _holes(
            interval, shops, coverage, methods_of or {}, base_method=base_method, heal_since=heal_since
        )
        heals = [
            (piece, chunk, "heal")
            for (start, end), group in sorted(holes.items())
            for piece in cells(
                Window(start, end, interval.dimension),
                # What is missing from a long outage was never asked for: large pieces cost fewer requests.
                (cell or HEAL_CELL) if end - start < DAY else min(longest, DAY),
            )
            for chunk in _chunks(group, shops_per_call)
        ]
        failed = unread or {}
        heals.sort(
            key=lambda heal: failed.get(
                window_id(pipeline, base_method, heal[0], [shop.id for shop in heal[1]]), 0
            )
        )
        wanted += heals[:most_heals]
    return [
        Slice(pipeline, run, number, window, chunk, reason)
        for number, (window, chunk, reason) in enumerate(wanted, start=1)
    ]


def _holes(
    interval: Window,
    shops: Sequence[Shop],
    coverage: Sequence[SealedSpan],
    methods_of: Mapping[str, Sequence[str]],
    *,
    base_method: str,
    heal_since: datetime,
) -> dict[tuple[datetime, datetime], list[Shop]]:
    """Group shops by the holes they share."""
    spans: dict[tuple[str, str], list[SealedSpan]] = {}
    for span in coverage:
        spans.setdefault((span.shop, span.method), []).append(span)
    holes: dict[tuple[datetime, datetime], list[Shop]] = {}
    for shop in sorted(shops):
        for method in methods_of.get(shop.id, ()):
            known = spans.get((shop.id, method), [])
            if method == base_method:
                since = heal_since
            elif known:
                since = max(heal_since, min(span.start for span in known))
            else:
                continue
            covered = [(span.start, span.end) for span in known if span.sealed]
            for hole in gaps(since, interval.start, covered):
                group = holes.setdefault(hole, [])
                if shop not in group:
                    group.append(shop)
    return holes


def _chunks(shops: Sequence[Shop], size: int) -> list[tuple[Shop, ...]]:
    return [tuple(shops[at : at + size]) for at in range(0, len(shops), size)]
