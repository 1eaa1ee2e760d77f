"""Reading one window of one method into staging, complete and proven, or not proven and told.

The window is read as snapshots (`snapshots`), a second that holds more than an answer page by page (`pages`).
What is proven becomes one `Read`, whatever it took; docs/adr/0005 argues why nothing can be lost on the way.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

from kuaimai.errors import DataError
from kuaimai.extract.asking import Asking, Stretch, instant
from kuaimai.extract.keys import DistinctKeys
from kuaimai.extract.pages import read_settled
from kuaimai.extract.reads import COUNTS, READINGS, SNAPSHOT, UNPROVEN, Read
from kuaimai.extract.snapshots import Snapshots
from kuaimai.extract.staged import Part, Staged, question_name
from kuaimai.extract.staging import Staging
from kuaimai.extract.windows import SCAN, Shop, Window
from kuaimai.gateway import catalog
from kuaimai.gateway.client import Client

__all__ = ["CONNECTIONS", "Read", "read_parts", "window_request"]

# How the catalogue calls the fact that a method counts its records.
TOTAL_ON = "page.total_on"
# Requests on their way at the same time. The budget sets the pace; this only hides the gateway's latency.
CONNECTIONS = 8


def read_parts(
    client: Client,
    method: str,
    window: Window,
    shops: Sequence[Shop],
    *,
    rank: int,
    page_size: int,
    staging: Staging,
    folder: str,
    archive: bool = False,
    by_cursor: bool = False,
    params: Mapping[str, str] | None = None,
    by_readings: bool = False,
    connections: int = CONNECTIONS,
    now: Callable[[], float] = time.time,
) -> list[Read]:
    """Read a window into staging; go on where an earlier life of the same task has died.

    Args:
        client: calls the gateway.
        method: a catalogued method with a time window.
        window: what to read; both ends included, whole seconds.
        shops: whose records.
        rank: see `Read.rank`.
        page_size: records per page to ask for.
        staging: where raw answers go as they arrive.
        folder: staging folder; the read gets its own below it, named by its question.
        archive: ask for what the gateway has archived (`queryType=1`).
        by_cursor: read a second that holds more than a page by cursor instead of page numbers.
        params: business parameters that are sent with every request.
        by_readings: prove the window by two readings that agree, whatever the gateway counts.
        connections: how many requests are on their way at the same time, inside the budget.
        now: clock, epoch seconds.

    Returns:
        One read per stretch of the window with one verdict, in order of time, sharing their edges: a single
        one where everything is proven. An unproven one says so; whoever seals the window leaves it open.

    Raises:
        DataError: the gateway ignores the time parameters, the page size or the page number.
        TooLarge: even a minute is too large for one answer.
        KuaimaiError: a call failed for good; what was complete by then need not be asked for again.
    """
    spent = client.requests
    request = window_request(method, window, shops, archive=archive, params=params)
    asking = Asking(client, method, request, dimension=window.dimension, page_size=page_size, now=now)
    whole = Stretch(math.floor(window.start.timestamp()), math.floor(window.end.timestamp()))
    staged = Staged(staging, f"{folder}/{question_name(method, request, shops)}", whole.start)
    uncounted = archive or by_readings or not counts(method)
    guessed = TOTAL_ON in catalog.method(method).unsure

    def settle(stretch: Stretch) -> Part:
        # Where it is only our guess that the gateway counts, two readings that agree do without its count.
        silent = uncounted or (guessed and asking.count(stretch) is None)
        return read_settled(asking, stretch, staged, by_cursor=by_cursor, archive=silent)

    snapshots = Snapshots(asking, staged, settle, by_pages=uncounted, connections=connections)
    parts = snapshots.read(whole, staged.complete(asking))
    reads: list[Read] = []
    for run in _runs(parts):
        part = _joined(run)
        reads.append(
            Read(
                method=method,
                window=(covered := _window(window, whole, part.stretch)),
                shops=tuple(shop.id for shop in shops),
                rank=rank,
                request=window_request(method, covered, shops, archive=archive, params=params),
                folder=staged.folder,
                files=part.files,
                rows=part.rows,
                distinct=len(part.keys),
                total_before=part.total_before,
                total_after=part.total_after,
                attempts=part.attempts,
                # What was spent on finding the stretches belongs to the window as a whole.
                requests=0 if reads else client.requests - spent,
                first_read_at=instant(part.asked_at),
                last_read_at=instant(now()),
                proof=part.proof,
            ).without_names(staging)
        )
    return reads


def counts(method: str) -> bool:
    """Whether the gateway says how many records of a method there are."""
    page = catalog.method(method).page
    return page is not None and page.total_on != "none"


def window_request(
    method: str,
    window: Window,
    shops: Iterable[Shop],
    *,
    archive: bool = False,
    params: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the business parameters that ask for a window: its times, whose records, what is sent always.

    Args:
        method: a catalogued method.
        window: the time; by `SCAN` everything is asked for.
        shops: whose records; those without an id need no parameter.
        archive: ask for what the gateway has archived.
        params: business parameters of the pipeline.

    Raises:
        DataError: the method, or its archive, cannot be asked by this dimension.
    """
    entry = catalog.method(method)
    times, scope = entry.times, entry.scope
    request = {**entry.send, **(params or {})}
    if window.dimension != SCAN:
        if times is None or window.dimension not in times.dimensions:
            raise DataError(f"{method} cannot be read by {window.dimension!r}", method=method)
        dimension = times.dimensions[window.dimension]
        request |= {**dimension.send, **dimension.ends(window.start.timestamp(), window.end.timestamp())}
    if archive:
        kept = times.archive if times else None
        known = kept.dimensions if kept else ()
        if kept is None or window.dimension not in known:
            raise DataError(
                f"the archive of {method} cannot be read by {window.dimension!r}",
                method=method,
                hint=f"read it by one of {', '.join(known)}" if known else "it has none that we know of",
            )
        request[kept.param] = kept.value
    ids = ",".join(sorted(shop.id for shop in shops if shop.id))
    if scope and ids:
        request[scope.param] = ids
    return request


def _runs(parts: Iterable[Part]) -> list[list[Part]]:
    """Group neighbours that are proven; a part that is not stands alone."""
    runs: list[list[Part]] = []
    for part in parts:
        if runs and UNPROVEN not in (part.proof, runs[-1][-1].proof):
            runs[-1].append(part)
        else:
            runs.append([part])
    return runs


def _joined(run: Sequence[Part]) -> Part:
    """Make one part of neighbours.

    Each part's own count is equal to its own keys, so the count of all is the number of keys of all. Records
    of a second that two neighbours share are in both, and so is one that moved from a stretch into another
    while they were read; it is one record, and counts once.
    """
    if len(run) == 1:
        return run[0]
    keys = DistinctKeys()
    for part in run:
        keys.merge(part.keys)
    proofs = {part.proof for part in run}
    weakest = next(proof for proof in (READINGS, COUNTS, SNAPSHOT) if proof in proofs)
    total = None if weakest == READINGS else len(keys)
    return Part(
        stretch=Stretch(run[0].stretch.start, run[-1].stretch.end),
        files=tuple(file for part in run for file in part.files),
        keys=keys,
        rows=sum(part.rows for part in run),
        total_before=total,
        total_after=total,
        proof=weakest,
        asked_at=min(part.asked_at for part in run),
        attempts=max(part.attempts for part in run),
    )


def _window(window: Window, whole: Stretch, stretch: Stretch) -> Window:
    """Return a stretch as a window; an edge that it shares with the whole stays exactly that."""

    def moment(second: int) -> datetime:
        return datetime.fromtimestamp(second, window.start.tzinfo)

    return Window(
        window.start if stretch.start == whole.start else moment(stretch.start),
        window.end if stretch.end == whole.end else moment(stretch.end),
        window.dimension,
    )
