"""Time windows, and which of them a run has to read.

The gateway's windows are closed at both ends and have whole seconds (reference 6.1), so neighbouring windows
share their edge second; upserts make that harmless, and no row can fall between two windows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec


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
    """A shop: the ERP's id (`userId`) and its platform code (`source`)."""

    id: str
    source: str


class Slice(msgspec.Struct, frozen=True):
    """What one extract task reads: one window of a group of shops.

    Attributes:
        pipeline: name of the pipeline.
        run: the run that reads it; part of every staging path.
        number: position in the run's plan.
        window: the time to read.
        shops: at most as many as one call may name.
        reason: `interval` for the run's own time, `heal` for time that an earlier run left unsealed,
            `backfill` and `border` for a slice of a planned backfill (see `kuaimai.pipeline.planner`).
        archive: read the gateway's archive (`queryType=1`), where what is older than its reach lives.
    """

    pipeline: str
    run: str
    number: int
    window: Window
    shops: tuple[Shop, ...]
    reason: str = "interval"
    archive: bool = False


class SealedSpan(msgspec.Struct, frozen=True):
    """A row of the coverage: this method was read for this shop in this time."""

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
    """Return the parts of `since`..`until` that no span of `covered` covers, oldest first."""
    holes = []
    reached = since
    for start, end in sorted(covered):
        if start > reached:
            holes.append((reached, min(start, until)))
        reached = max(reached, end)
        if reached >= until:
            break
    if reached < until:
        holes.append((reached, until))
    return [(start, end) for start, end in holes if start < end]


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
    most_heals: int = 48,
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
        most_heals: at most so many healing slices in one run, half of them oldest first, half newest first,
            so that time which never seals does not keep the rest waiting.
    """
    # The present first: healing may take long, or fail.
    wanted: list[tuple[Window, tuple[Shop, ...], str]] = [
        (piece, chunk, "interval")
        for piece in split(interval, longest)
        for chunk in _chunks(sorted(shops), shops_per_call)
    ]
    if heal_since is not None:
        holes = _holes(
            interval, shops, coverage, methods_of or {}, base_method=base_method, heal_since=heal_since
        )
        heals = [
            (piece, chunk, "heal")
            for (start, end), group in sorted(holes.items())
            for piece in split(Window(start, end, interval.dimension), longest)
            for chunk in _chunks(group, shops_per_call)
        ]
        if len(heals) > most_heals:
            half = most_heals // 2
            heals = heals[:half] + heals[half - most_heals :]
        wanted += heals
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
