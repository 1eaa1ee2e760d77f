"""The slices that a run reads: its interval, what it reads again, and what is still unsealed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta

import msgspec

from kuaimai.errors import ConfigError
from kuaimai.extract.windows import SCAN, SealedSpan, Shop, Slice, Window, plan, window_id
from kuaimai.gateway import catalog
from kuaimai.load.proof import CONTESTED, SEALED
from kuaimai.load.protocol import Coverage
from kuaimai.load.windows import PlannedWindow, ReadWindow
from kuaimai.pipeline import coverage
from kuaimai.pipeline.missed import missed_windows
from kuaimai.pipeline.scopes import serving
from kuaimai.pipeline.spec import Pipeline
from kuaimai.pipeline.together import of_each

log = logging.getLogger(__name__)

# Reason of a slice that is read because a person asked for it.
ASKED = "asked"


def plan_slices(
    pipeline: Pipeline,
    *,
    run: str,
    start: datetime,
    end: datetime,
    shops: Iterable[Shop],
    live: bool,
    target: Coverage,
    dimension: str | None = None,
    on_missed: Callable[[Window], None] | None = None,
    now: Callable[[], float] = time.time,
) -> list[Slice]:
    """Return what a run reads, and write it down in the target as windows that are still open.

    Args:
        pipeline: the pipeline.
        run: the run's id.
        start: begin of the run's interval.
        end: its end.
        shops: the shops to read.
        live: a scheduled run reaches back as its dimension says and heals what is unsealed; any other run
            covers exactly its interval.
        target: where the coverage is.
        dimension: the time by which to read; None for the pipeline's own.
        on_missed: told of time that no run has planned and none will heal; once, as it is open from then on.
        now: clock, epoch seconds.

    Raises:
        ConfigError: the interval begins earlier than the method reaches back, or a scheduled run asks for a
            dimension that the pipeline does not name.
    """
    shops = sorted(shops)
    base = pipeline.source.method
    method = catalog.method(base)
    times = method.times
    dimension = dimension or pipeline.time.dimension
    further = pipeline.time.further_by(dimension)
    interval = Window(start, end, dimension)
    look_back = 0
    scans = dimension == SCAN
    if live and not scans:
        look_back = coverage.look_back_minutes(pipeline, target)
        interval = coverage.reach(pipeline, interval, look_back)
    if not scans:
        check_reach(base, interval.start, times.reach_days if times else None, now())
    overlap = timedelta(minutes=0 if further or scans else pipeline.time.overlap_minutes)
    windows: list[ReadWindow] = []
    # A scan reads everything: what an earlier one did not get is in it.
    began = target.began(pipeline.name, dimension) if live and not scans else None
    heal_since = None
    if began is not None:
        heal_since = max(interval.start - timedelta(days=pipeline.time.heal_days), began)

        def missed(one: Coverage) -> list[PlannedWindow]:
            lost = missed_windows(
                pipeline,
                run=run,
                dimension=dimension,
                shops=shops,
                began=began,
                healed_from=heal_since,
                target=one,
            )
            if lost:
                one.announce(lost)
            return lost

        # Each target for itself: what one of them was promised says nothing of one that was added since.
        _tell_missed([one for lost in of_each(target, missed) for one in lost], on_missed)
        windows = coverage.settled_windows(
            pipeline.name, dimension, target, since=heal_since, shops={shop.id for shop in shops}
        )
    slices = plan(
        pipeline=pipeline.name,
        run=run,
        interval=interval,
        shops=shops,
        shops_per_call=method.scope.max if method.scope else max(len(shops), 1),
        longest=interval.end - interval.start if scans else timedelta(days=times.max_days if times else 1),
        coverage=[
            SealedSpan(shop, one.method, one.start, end, one.state in {SEALED, CONTESTED} and one.start < end)
            for one in windows
            for end in [coverage.covered_until(one, overlap)]
            for shop in one.shops
        ],
        methods_of={shop.id: serving(pipeline, shop) for shop in shops},
        base_method=base,
        heal_since=heal_since,
        cell=further.slot if further and live and not scans else None,
        unread=_unread(pipeline.name, dimension, windows),
    )
    if not live:
        slices = [msgspec.structs.replace(piece, reason=ASKED) for piece in slices]
    if heal_since is not None:
        # A dimension that reads whole days does so hours after they ended.
        until = interval.start if further and further.day_before else start
        known = coverage.known_since(windows, base, since=heal_since, until=until)
        slices = [_measured(piece, known, look_back) for piece in slices]
    target.announce([planned_window(base, piece) for piece in slices])
    return slices


def _tell_missed(lost: Sequence[PlannedWindow], told: Callable[[Window], None] | None) -> None:
    if not lost:
        return
    first = min(one.window_start for one in lost)
    whole = Window(first, max(one.window_end for one in lost), lost[0].dimension)
    log.warning("nobody read %s to %s, and scheduled runs do not reach back so far", whole.start, whole.end)
    if told is not None:
        told(whole)


def _unread(pipeline: str, dimension: str, windows: Iterable[ReadWindow]) -> dict[str, int]:
    """Return how often each window was planned and not read to its end, by the id of its question.

    A target that is no database, or one of several, knows it under another id.
    """
    found: dict[str, int] = {}
    for one in windows:
        asked = window_id(pipeline, one.method, Window(one.start, one.end, dimension), one.shops)
        found[asked] = max(one.unread, found.get(asked, 0))
    return found


def _measured(piece: Slice, known: Mapping[str, datetime], look_back: int) -> Slice:
    """Let a slice of the present count the records that came late."""
    since = [known[shop.id] for shop in piece.shops if shop.id in known]
    if piece.reason != "interval" or len(since) < len(piece.shops):
        return piece
    return msgspec.structs.replace(piece, known_since=max(since), look_back_minutes=look_back)


def planned_window(method: str, piece: Slice) -> PlannedWindow:
    """Return the window of a slice as a target writes it down before it is read."""
    shops = tuple(sorted(shop.id for shop in piece.shops))
    return PlannedWindow(
        window_id=window_id(piece.pipeline, method, piece.window, shops, archive=piece.archive),
        pipeline=piece.pipeline,
        method=method,
        shops=shops,
        dimension=piece.window.dimension,
        window_start=piece.window.start,
        window_end=piece.window.end,
        run_id=piece.run,
        planned_as=piece.reason,
    )


def check_reach(
    method: str, start: datetime, reach_days: int | None, now: float, *, hint: str | None = None
) -> None:
    """Refuse time that the method does not reach any more.

    Raises:
        ConfigError: it begins earlier than `reach_days` before `now`, epoch seconds.
    """
    if reach_days is not None and start.timestamp() < now - reach_days * 86_400:
        raise ConfigError(
            f"{start:%Y-%m-%d} is more than {reach_days} days ago; the gateway has archived that time and "
            "would answer with nothing",
            method=method,
            hint=hint or f"begin within the last {reach_days} days",
        )
