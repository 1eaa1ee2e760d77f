"""What a run did, all its slices together."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from kuaimai.load.proof import CONTESTED, SEALED
from kuaimai.load.windows import Sealing
from kuaimai.pipeline.manifests import Loaded
from kuaimai.pipeline.spec import Pipeline


class Summary(msgspec.Struct, frozen=True):
    """What a run did: records the gateway reported, landed, set aside; windows sealed and left open.

    `read` counts the base method only: the enriching methods return the same records again. `contested` are
    those of the open windows that scheduled runs will not read again. `outside` counts new records that were
    made longer ago than the look-back of `look_back_minutes` reaches, `missing` those that a scan did not see
    and marked as gone, `filtered` those that the pipeline's rules left out. `changes` are new at the source.
    """

    read: int
    landed: int
    quarantined: int
    inserted: int
    updated: int
    unchanged: int
    stale: int
    windows: int
    open_windows: tuple[str, ...]
    requests: int
    contested: tuple[Sealing, ...] = ()
    outside: int = 0
    look_back_minutes: int = 0
    missing: int = 0
    filtered: int = 0
    changes: tuple[str, ...] = ()

    @property
    def sealed(self) -> bool:
        """Whether every window of the run is proven complete."""
        return not self.open_windows


def summarise(pipeline: Pipeline, loaded: Iterable[Loaded]) -> Summary:
    """Add up what a run's slices did."""
    slices = list(loaded)
    base = [one for piece in slices for one in piece.windows if one.method == pipeline.source.method]
    everything = [one for piece in slices for one in piece.windows]
    return Summary(
        read=sum(piece.read for piece in slices),
        landed=sum(one.landed for one in base),
        quarantined=sum(one.quarantined for one in base),
        inserted=sum(one.inserted for one in everything),
        updated=sum(one.updated for one in everything),
        unchanged=sum(one.unchanged for one in everything),
        stale=sum(one.stale for one in everything),
        windows=len(everything),
        open_windows=tuple(
            f"{one.method} {one.window_id}: {one.reason}" for one in everything if one.state != SEALED
        ),
        requests=sum(piece.requests for piece in slices),
        contested=tuple(one for one in everything if one.state == CONTESTED),
        outside=sum(piece.outside for piece in slices),
        missing=sum(one.missing for one in everything),
        filtered=sum(one.filtered for one in base),
        changes=tuple(dict.fromkeys(change for piece in slices for change in piece.changes)),
        look_back_minutes=max((piece.look_back_minutes for piece in slices), default=0),
    )


def pretty(summary: Summary) -> str:
    """Return one line for the log."""
    gone = f", {summary.missing} gone" if summary.missing else ""
    left_out = f", {summary.filtered} filtered" if summary.filtered else ""
    state = "sealed" if summary.sealed else f"{len(summary.open_windows)} of {summary.windows} windows open"
    return (
        f"{summary.read} records read, {summary.landed} landed, {summary.quarantined} quarantined{left_out} "
        f"({summary.inserted} new, {summary.updated} updated, {summary.unchanged} unchanged, "
        f"{summary.stale} superseded{gone}), {summary.requests} requests, {state}"
    )
