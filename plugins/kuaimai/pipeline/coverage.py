"""What of a dimension was read, what a scheduled run reads of it, and what its seals close."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta

import msgspec

from kuaimai.errors import ConfigError
from kuaimai.extract.windows import DAY, SCAN, Window, cell_start, gaps, sealed_since
from kuaimai.load.proof import CONTESTED, OPEN, SEALED
from kuaimai.load.protocol import Coverage
from kuaimai.load.windows import ReadWindow, Sealing
from kuaimai.pipeline.spec import CREATED, Pipeline

# Older scans that are still open have been told long ago.
SCANS_LOOKED_AT = timedelta(days=30)


def look_back_minutes(pipeline: Pipeline, target: Coverage) -> int:
    """Return how far back records are looked for by their creation; 0 where nothing looks for them."""
    hours = pipeline.time.look_back_hours
    return target.look_back(pipeline.name, hours * 60) if hours else 0


def reach(pipeline: Pipeline, interval: Window, look_back: int) -> Window:
    """Return what a scheduled run reads of its dimension, healing apart.

    Args:
        pipeline: the pipeline.
        interval: the run's own time, in its dimension.
        look_back: minutes; the look-back in force by creation.

    Raises:
        ConfigError: the pipeline does not name the dimension.
    """
    further = pipeline.time.further_by(interval.dimension)
    if interval.dimension == pipeline.time.dimension:
        overlap = timedelta(minutes=pipeline.time.overlap_minutes)
        return msgspec.structs.replace(interval, start=interval.start - overlap)
    if further is None:
        raise ConfigError(
            f"pipeline {pipeline.name} has no schedule for {interval.dimension!r}",
            hint="add it under time.further, or give start and end",
        )
    if further.day_before:
        midnight = cell_start(interval.end, DAY)
        return msgspec.structs.replace(interval, start=midnight - DAY, end=midnight)
    minutes = look_back if further.dimension == CREATED else (further.look_back_hours or 0) * 60
    earliest = min(interval.end - timedelta(minutes=minutes), interval.start)
    return msgspec.structs.replace(interval, start=cell_start(earliest, further.slot))


def known_since(
    windows: Iterable[ReadWindow], method: str, *, since: datetime, until: datetime
) -> dict[str, datetime]:
    """Return, by shop, the begin of the time without a hole that reaches `until`; shops without are absent.

    Args:
        windows: what was read.
        method: that counts.
        since: not before this.
        until: what must be reached.
    """
    covered: dict[str, list[tuple[datetime, datetime]]] = {}
    for one in windows:
        if one.method == method and one.state == SEALED:
            for shop in one.shops:
                covered.setdefault(shop, []).append((one.start, one.end))
    found = {shop: sealed_since(since, until, spans) for shop, spans in covered.items()}
    return {shop: begin for shop, begin in found.items() if begin is not None}


def settled_windows(
    pipeline: str,
    dimension: str,
    target: Coverage,
    *,
    since: datetime,
    until: datetime | None = None,
    border: datetime | None = None,
    shops: Collection[str] | None = None,
) -> list[ReadWindow]:
    """Return the windows of some time, after closing those that others have sealed since.

    A window that was planned as a whole and read in parts gives way to its parts, also while one of them is
    contested: that part speaks for itself. A contested window gives way only to seals. What begins before
    `border` stays as it is: that time lies in two stores. A shop that is not among `shops`, where they are
    known, is not the merchant's any more: no window waits for it.
    """
    windows = target.coverage(pipeline, dimension, since, until)
    waiting = [one for one in windows if one.state in {OPEN, CONTESTED}]
    # What seals the rest of a window that reaches further lies outside of the time that was asked for.
    first = min([since, *(one.start for one in waiting)])
    last = max([until, *(one.end for one in waiting)]) if until else None
    if (first, last) != (since, until):
        windows = target.coverage(pipeline, dimension, first, last)
    sealed: dict[tuple[str, str], list[tuple[datetime, datetime]]] = {}
    spoken_for: dict[tuple[str, str], list[tuple[datetime, datetime]]] = {}
    for one in windows:
        for shop in one.shops:
            if one.state == SEALED:
                sealed.setdefault((shop, one.method), []).append((one.start, one.end))
            if one.state in {SEALED, CONTESTED}:
                spoken_for.setdefault((shop, one.method), []).append((one.start, one.end))
    covered = {OPEN: spoken_for, CONTESTED: sealed}
    target.supersede(
        [
            one.window_id
            for one in windows
            if one.state in covered
            and (border is None or one.start >= border)
            and not any(
                gaps(one.start, one.end, covered[one.state].get((shop, one.method), ()))
                for shop in one.shops
                if shops is None or shop in shops
            )
        ]
    )
    return windows


def settle(pipeline: str, sealings: Iterable[Sealing], target: Coverage) -> None:
    """Close the windows whose time is sealed by now, wherever a run has read."""
    by_dimension: dict[str, list[Sealing]] = {}
    for one in sealings:
        by_dimension.setdefault(one.dimension, []).append(one)
    for dimension, ours in by_dimension.items():
        if dimension == SCAN:
            _settle_scans(pipeline, target, max(one.end for one in ours))
            continue
        since, until = min(one.start for one in ours), max(one.end for one in ours)
        settled_windows(pipeline, dimension, target, since=since, until=until)


def _settle_scans(pipeline: str, target: Coverage, reached: datetime) -> None:
    """Close scans that did not seal before one of the same records that did: it has read all of theirs."""
    windows = target.coverage(pipeline, SCAN, reached - SCANS_LOOKED_AT)
    sealed: dict[tuple[str, str], datetime] = {}
    for one in windows:
        for shop in one.shops if one.state == SEALED else ():
            sealed[shop, one.method] = max(one.end, sealed.get((shop, one.method), one.end))
    target.supersede(
        [
            one.window_id
            for one in windows
            if one.state in {OPEN, CONTESTED}
            and all((shop, one.method) in sealed and one.end < sealed[shop, one.method] for shop in one.shops)
        ]
    )


def covered_until(one: ReadWindow, overlap: timedelta) -> datetime:
    """Return until when a scheduled run need not read the time of a window again.

    What became visible late is found by the overlap of the next run. Where that run died, or did for some
    shops, nobody has read the last minutes of the window late enough.

    Args:
        one: a window that is sealed, or left to the reconcile.
        overlap: how late records may become visible.
    """
    if one.state != SEALED or one.first_read_at is None:
        return one.end
    late_enough = (one.first_read_at - overlap).replace(microsecond=0)
    return min(one.end, late_enough)
