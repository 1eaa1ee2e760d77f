"""How complete a mirror is: what its coverage and its quarantine say, in one look."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import msgspec

from kuaimai.extract.windows import DAY, SCAN, sealed_since
from kuaimai.gateway.clock import GATEWAY_ZONE
from kuaimai.load.proof import CONTESTED, OPEN, SEALED, SUPERSEDED
from kuaimai.load.protocol import Target
from kuaimai.load.windows import SealedTime, Standing
from kuaimai.pipeline.cron import longest_pause
from kuaimai.pipeline.outlets import LATE_APART
from kuaimai.pipeline.spec import Pipeline
from kuaimai.pipeline.text_table import aligned


class DimensionStatus(msgspec.Struct, frozen=True):
    """What was read by one time dimension.

    Attributes:
        dimension: e.g. `upd_time`.
        complete_from: since when every instant up to `complete_until` is sealed, of all shops; None: of no
            time, or a reading of everything, which has none.
        complete_until: of everything that was planned, nothing is missing before this; None: nothing planned.
        sealed, open, contested, superseded: windows by state.
        last_read_at: when a window of it was last read; None: never.
        found_only: records that no other dimension had brought before.
        oldest_open: the oldest window that is not sealed, and why, in one line.
    """

    dimension: str
    complete_from: datetime | None
    complete_until: datetime | None
    sealed: int
    open: int
    contested: int
    superseded: int
    last_read_at: datetime | None
    found_only: int
    oldest_open: str | None = None


class PipelineStatus(msgspec.Struct, frozen=True):
    """One pipeline in one target.

    Attributes:
        pipeline: its name.
        target: where the rows go.
        dimensions: by time dimension, the pipeline's own first.
        late: dimensions whose schedule should have read more by now.
        quarantined: records that are set aside and not resolved.
        oldest_quarantined: since when the oldest of them is; None: there is none.
        unknown: why the target could not be asked; empty: it was.
    """

    pipeline: str
    target: str
    dimensions: tuple[DimensionStatus, ...] = ()
    late: tuple[str, ...] = ()
    quarantined: int = 0
    oldest_quarantined: datetime | None = None
    unknown: str = ""

    @property
    def complete(self) -> bool:
        """Whether everything that was planned is proven complete."""
        return bool(self.dimensions) and not any(one.open or one.contested for one in self.dimensions)


def status(pipeline: Pipeline, target: Target, where: str, now: datetime) -> PipelineStatus:
    """Return how complete a pipeline's mirror is.

    Args:
        pipeline: the pipeline.
        target: one of its targets.
        where: what the target is called.
        now: with zone.

    Raises:
        KuaimaiError: the target does not answer.
    """
    standing = target.standing(pipeline.name)
    planned = [one for one in pipeline.time.dimensions if one in standing.dimensions]
    others = sorted(standing.dimensions.keys() - set(planned))
    dimensions = tuple(_dimension(name, standing) for name in (*planned, *others))
    return PipelineStatus(
        pipeline=pipeline.name,
        target=where,
        dimensions=dimensions,
        late=tuple(
            name
            for name in planned
            # Where only a backfill or the night has read, there is no schedule to be late.
            if target.began(pipeline.name, name) is not None
            and _stands_still(pipeline, where, name, standing, now)
        ),
        quarantined=standing.quarantined,
        oldest_quarantined=standing.oldest_quarantined,
    )


def _stands_still(pipeline: Pipeline, where: str, dimension: str, standing: Standing, now: datetime) -> bool:
    """Tell whether the schedule of a dimension should have sealed more by now.

    What counts is the newest that was sealed: an old window that is open does not make the schedule late.
    """
    states = standing.dimensions[dimension]
    reached = states[SEALED].end if SEALED in states else None
    if reached is None and dimension in standing.waiting:
        reached = standing.waiting[dimension].start
    return reached is not None and now - reached > _patience(pipeline, where, dimension)


def _patience(pipeline: Pipeline, where: str, dimension: str) -> timedelta:
    """Return how far what is sealed of a dimension may lie behind while its schedule keeps its time."""
    further = pipeline.time.further_by(dimension)
    if further is not None:
        # Those that read the day before end at a midnight, which the run may follow by a day.
        behind = DAY if further.day_before else timedelta(0)
        return longest_pause(further.schedule) + behind + timedelta(minutes=further.late_after_minutes)
    apart = next((one for one in pipeline.apart if one.name == where), None)
    if apart is not None and apart.schedule:
        return longest_pause(apart.schedule) + LATE_APART
    return longest_pause(pipeline.schedule) + timedelta(minutes=pipeline.late_after_minutes)


def _dimension(name: str, standing: Standing) -> DimensionStatus:
    states = standing.dimensions[name]
    waiting = standing.waiting.get(name)
    done = states[SEALED].end if SEALED in states else None
    until = min(done, waiting.start) if done and waiting else waiting.start if waiting else done
    return DimensionStatus(
        dimension=name,
        complete_from=_unbroken(standing.sealed.get(name, {}), until) if until and name != SCAN else None,
        complete_until=until,
        sealed=states[SEALED].windows if SEALED in states else 0,
        open=states[OPEN].windows if OPEN in states else 0,
        contested=states[CONTESTED].windows if CONTESTED in states else 0,
        superseded=states[SUPERSEDED].windows if SUPERSEDED in states else 0,
        last_read_at=max((one.read_at for one in states.values() if one.read_at), default=None),
        found_only=sum(one.found_only for one in states.values()),
        oldest_open=f"{_clock(waiting.start)} to {_clock(waiting.end)}: {waiting.reason}"
        if waiting
        else None,
    )


def _unbroken(sealed: SealedTime, until: datetime) -> datetime | None:
    """Return since when nobody has a hole before an instant; what was not read any more by then has none."""
    begun: list[datetime] = []
    for spans in sealed.values():
        earliest = min(start for start, _ in spans)
        if max(end for _, end in spans) >= until and earliest < until:
            since = sealed_since(earliest, until, spans)
            if since is not None:
                begun.append(since)
    return max(begun, default=None)


def pretty(found: Iterable[PipelineStatus], now: datetime) -> str:
    """Return statuses as text for a terminal; times in GMT+8."""
    lines: list[str] = []
    for one in found:
        lines.append(f"{one.pipeline} → {one.target}: {_verdict(one)}")
        rows = [_row(each, now) for each in one.dimensions]
        if rows:
            lines += aligned([_HEAD, *rows], indent="    ")
        lines += [
            f"    ! {each.dimension}: {each.oldest_open}" for each in one.dimensions if each.oldest_open
        ]
        if one.quarantined:
            since = f", the oldest since {_clock(one.oldest_quarantined)}" if one.oldest_quarantined else ""
            lines.append(f"    ! {one.quarantined} records in quarantine{since} (kuaimai replay)")
    return "\n".join(lines)


def _verdict(one: PipelineStatus) -> str:
    if one.unknown:
        return f"NOT KNOWN: {one.unknown}"
    verdict = "complete" if one.complete else "NOT COMPLETE" if one.dimensions else "nothing was read yet"
    return f"{verdict}, LATE by {', '.join(one.late)}" if one.late else verdict


_HEAD = (
    *("by", "complete from", "until", "behind"),
    *("sealed", "open", "contested", "only found here", "last read"),
)


def _row(one: DimensionStatus, now: datetime) -> tuple[str, ...]:
    return (
        one.dimension,
        "" if one.complete_from is None else _clock(one.complete_from),
        _clock(one.complete_until),
        "" if one.complete_until is None else _ago(now - one.complete_until),
        str(one.sealed),
        str(one.open),
        str(one.contested),
        str(one.found_only),
        _clock(one.last_read_at),
    )


def _clock(moment: datetime | None) -> str:
    return "never" if moment is None else moment.astimezone(GATEWAY_ZONE).strftime("%Y-%m-%d %H:%M:%S")


def _ago(distance: timedelta) -> str:
    minutes = max(0, int(distance.total_seconds() // 60))
    days, hours = divmod(minutes, 1440)[0], minutes % 1440 // 60
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


def plain(found: PipelineStatus) -> dict[str, Any]:
    """Return a status as JSON for programs; instants in UTC."""
    built: dict[str, Any] = msgspec.to_builtins(found)
    return {**built, "complete": found.complete}
