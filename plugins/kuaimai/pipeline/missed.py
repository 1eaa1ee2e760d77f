"""Time that nobody planned, and that scheduled runs do not reach back to: written down, so that it shows.

After an outage that is longer than what runs heal, the older part of it would be in no window at all, and the
question "what is not sealed?" would leave it out. It gets open windows of a day; a run by hand closes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from kuaimai.extract.windows import DAY, Shop, Window, cells, gaps, window_id
from kuaimai.gateway import catalog
from kuaimai.load.protocol import Coverage
from kuaimai.load.windows import PlannedWindow, ReadWindow
from kuaimai.pipeline.spec import Pipeline

PLANNED_AS = "missed"
# What scheduled runs plan; None is of a version that did not say.
_SCHEDULED = (None, "interval", "heal", PLANNED_AS)
# An outage that began earlier is told as far back as this; most methods do not reach further either. A shop
# that was away for longer while others were read counts as one that came later.
_FURTHEST = timedelta(days=90)


def missed_windows(
    pipeline: Pipeline,
    *,
    run: str,
    dimension: str,
    shops: Sequence[Shop],
    began: datetime,
    healed_from: datetime,
    target: Coverage,
) -> list[PlannedWindow]:
    """Return windows for the time between two instants that no window of the base method has.

    Only what lies behind a scheduled window counts as missed: nobody promised to read what is before the
    first one, of a shop that came later, or between times that a person asked for. The whole past is looked
    at only where something is missing at the border itself, which an outage must cross.

    Args:
        pipeline: the pipeline.
        run: the run's id.
        dimension: the time by which it reads.
        shops: the merchant's shops.
        began: when scheduled runs began.
        healed_from: from when on this run heals by itself.
        target: where the coverage is.
    """
    base = catalog.method(pipeline.source.method)
    if began >= healed_from:
        return []

    def planned(since: datetime) -> list[ReadWindow]:
        windows = target.coverage(pipeline.name, dimension, since, healed_from)
        return [one for one in windows if one.method == base.name]

    at_border = _spans(planned(healed_from - DAY))
    if all(_reaches(at_border.get(shop.id, ()), healed_from) for shop in shops):
        return []
    since = furthest = healed_from - _FURTHEST
    windows = planned(since)
    while not (promised := _spans(one for one in windows if one.planned_as in _SCHEDULED)) and since > began:
        # Whose time it is that was missed shows where runs stopped; only there is more of the past looked at.
        since -= _FURTHEST
        windows = planned(since)
    past = _spans(windows)
    holes: dict[tuple[datetime, datetime], list[str]] = {}
    for shop in sorted(shops):
        if shop.id not in promised:
            continue
        first = max(furthest, min(start for start, _ in promised[shop.id]))
        for hole in gaps(first, healed_from, past[shop.id]):
            holes.setdefault(hole, []).append(shop.id)
    most = base.scope.max if base.scope else max(len(shops), 1)
    return [
        PlannedWindow(
            window_id=window_id(pipeline.name, base.name, day, group),
            pipeline=pipeline.name,
            method=base.name,
            shops=group,
            dimension=dimension,
            window_start=day.start,
            window_end=day.end,
            run_id=run,
            planned_as=PLANNED_AS,
        )
        for (start, end), ids in sorted(holes.items())
        for day in cells(Window(start, end, dimension), DAY)
        for group in (tuple(ids[at : at + most]) for at in range(0, len(ids), most))
    ]


def _spans(windows: Iterable[ReadWindow]) -> dict[str, list[tuple[datetime, datetime]]]:
    """Return, by shop, the time that was planned; what came of it does not matter here."""
    found: dict[str, list[tuple[datetime, datetime]]] = {}
    for one in windows:
        for shop in one.shops:
            found.setdefault(shop, []).append((one.start, one.end))
    return found


def _reaches(spans: Sequence[tuple[datetime, datetime]], moment: datetime) -> bool:
    return any(start < moment <= end for start, end in spans)
