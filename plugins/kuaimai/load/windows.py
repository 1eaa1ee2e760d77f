"""Windows as the proof tells of them: planned, read, sealed or not, and all of them together.

Plain structs that stages, targets and commands hand to one another.
"""

from __future__ import annotations

from datetime import datetime

import msgspec


class PlannedWindow(msgspec.Struct, frozen=True):
    """A window that is going to be read; the fields are columns of `kuaimai_window`."""

    window_id: str
    pipeline: str
    method: str
    shops: tuple[str, ...]
    dimension: str
    window_start: datetime
    window_end: datetime
    run_id: str
    planned_as: str | None = None


class Scan(msgspec.Struct, frozen=True):
    """What a reading of everything covers: all rows, or those with some ids in a column.

    Attributes:
        column: the column with the ids; empty for all rows.
        ids: the ids.
        asked: a person asked for it: then also many rows at once are believed to be gone.
        marks: whether rows that it covers and did not see are gone; not where only some are asked for.
    """

    column: str = ""
    ids: tuple[str, ...] = ()
    asked: bool = False
    marks: bool = True


class WindowFacts(msgspec.Struct, frozen=True):
    """What the extract and transform stages know about one window; the loader adds what landed.

    `scan` is there for a reading of everything: once it is proven, rows that it did not see are marked.
    `refused` is the gateway's refusal, where it gave nothing.
    """

    window_id: str
    read: int
    pipeline: str
    method: str
    shops: tuple[str, ...]
    dimension: str
    window_start: datetime
    window_end: datetime
    total_before: int | None
    total_after: int | None
    distinct_keys: int
    pages: int
    requests: int
    attempts: int
    run_id: str
    first_read_at: datetime
    last_read_at: datetime
    proof: str = "counts"
    scan: Scan | None = None
    planned_as: str | None = None
    refused: str = ""


class Written(msgspec.Struct):
    """What merging one read's batches did to the parent table, in rows."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    stale: int = 0


class Sealing(msgspec.Struct, frozen=True):
    """One window's verdict after loading.

    Attributes:
        window_id: the window.
        method: API method.
        dimension: its time dimension.
        start: first instant.
        end: last instant.
        state: `SEALED`, `OPEN` or `CONTESTED`.
        reason: why it is not sealed.
        total: the gateway's count.
        landed: its keys in the target.
        quarantined: its keys in quarantine.
        inserted: rows that this load brought first.
        updated: rows that this load changed.
        unchanged: rows that were there as they came.
        stale: rows that were older than what was there.
        missing: rows that a scan did not see, and that were marked as gone.
        filtered: its keys that the pipeline's rules left out.
    """

    window_id: str
    method: str
    dimension: str
    start: datetime
    end: datetime
    state: str
    reason: str | None
    total: int | None
    landed: int
    quarantined: int
    inserted: int
    updated: int
    unchanged: int
    stale: int
    missing: int = 0
    filtered: int = 0


class ReadWindow(msgspec.Struct, frozen=True):
    """A window of the coverage: which time of which shops, whether it is sealed, on what, and since when.

    `unread` counts how often it was planned, since it was last read to its end; `planned_as` says by whom it
    was planned first. What became visible after `first_read_at` may be missing.
    """

    window_id: str
    method: str
    shops: tuple[str, ...]
    start: datetime
    end: datetime
    state: str
    proof: str | None = None
    last_read_at: datetime | None = None
    unread: int = 0
    planned_as: str | None = None
    first_read_at: datetime | None = None


class StateCount(msgspec.Struct, frozen=True):
    """The windows of one dimension and state: how many, the latest end and read, what they found first."""

    windows: int
    end: datetime
    read_at: datetime | None
    found_only: int


class Waiting(msgspec.Struct, frozen=True):
    """The oldest window of a dimension that is not sealed, and why not."""

    start: datetime
    end: datetime
    reason: str


SealedTime = dict[tuple[str, str], list[tuple[datetime, datetime]]]
"""Method and shop → spans of sealed time."""


class Standing(msgspec.Struct, frozen=True):
    """What the proof tables say about a pipeline.

    Attributes:
        dimensions: dimension → state → its windows.
        sealed: dimension → method and shop → its sealed time, as spans that hold no hole.
        waiting: dimension → the oldest window that is open or contested.
        quarantined: records that are set aside and not resolved.
        oldest_quarantined: since when the oldest of them is.
    """

    dimensions: dict[str, dict[str, StateCount]]
    sealed: dict[str, SealedTime]
    waiting: dict[str, Waiting]
    quarantined: int
    oldest_quarantined: datetime | None
