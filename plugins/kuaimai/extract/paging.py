"""Reading one window page by page, and counting it twice.

Order and page borders are not promised by the gateway and the set moves while it is read, so a read proves
itself: the total before, the total after and the number of distinct keys must be one and the same number.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec

from kuaimai.errors import DataError, TooLarge
from kuaimai.extract.keys import DistinctKeys
from kuaimai.extract.skim import skim
from kuaimai.extract.staging import Staging
from kuaimai.extract.windows import Shop, Window, halves
from kuaimai.gateway import catalog
from kuaimai.gateway.answers import Answer
from kuaimai.gateway.client import Client
from kuaimai.gateway.wire import gateway_time

# The proof that this module brings: the gateway's counts before and after.
COUNTS = "counts"
# How often a window that moved while being read is read again before the next run gets it.
READ_ATTEMPTS = 3
# A window is not cut into parts shorter than this.
SMALLEST_PART = timedelta(minutes=1)
# Pages on their way at the same time. The budget sets the pace; this only hides the gateway's latency.
CONNECTIONS = 4
# Pages beyond what the total promises before a read is called endless.
EXTRA_PAGES = 20


class Read(msgspec.Struct, frozen=True):
    """One window of one method, as read: where the raw pages are, and the numbers of the proof.

    Attributes:
        method: API method.
        window: what was read; a part of the slice's window where that did not stand still.
        shops: ids of the shops that were asked for.
        rank: position among the pipeline's methods; the fuller record of one version has the higher rank.
        request: business parameters of the read, without page number.
        folder: staging folder of the raw pages.
        pages: number of pages there, named `00001.json.zst` and so on.
        rows: records in them.
        distinct: different keys among them; a record without a key counts by its content.
        total_before: the gateway's count on page 1, or None if it sent none.
        total_after: the gateway's count after the last page.
        attempts: how often the window was read.
        requests: calls spent.
        first_read_at: when page 1 was asked for, UTC.
        last_read_at: when the last count arrived, UTC.
        proof: what the seal rests on; see `kuaimai.load.proof`.
    """

    method: str
    window: Window
    shops: tuple[str, ...]
    rank: int
    request: dict[str, str]
    folder: str
    pages: int
    rows: int
    distinct: int
    total_before: int | None
    total_after: int | None
    attempts: int
    requests: int
    first_read_at: datetime
    last_read_at: datetime
    proof: str = COUNTS

    @property
    def stable(self) -> bool:
        """Whether the window stood still while it was read, and all of it was read."""
        return self.total_before is not None and self.total_before == self.total_after == self.distinct

    def describe(self) -> str:
        """One line for the log."""
        return (
            f"{self.rows} rows on {self.pages} pages, {self.distinct} distinct; "
            f"total {self.total_before} before and {self.total_after} after; "
            f"{self.requests} requests in {self.attempts} attempts"
        )

    def page_names(self) -> list[str]:
        """The staging names of the raw pages."""
        return [f"{self.folder}/{number:05d}.json.zst" for number in range(1, self.pages + 1)]


def read_window(
    client: Client,
    method: str,
    window: Window,
    shops: Sequence[Shop],
    *,
    rank: int,
    page_size: int,
    staging: Staging,
    folder: str,
    attempts: int = READ_ATTEMPTS,
    connections: int = CONNECTIONS,
    now: Callable[[], float] = time.time,
) -> Read:
    """Read every page of a window into staging until the counts agree, or attempts run out.

    Args:
        client: calls the gateway.
        method: a catalogued method with a time window.
        window: what to read; both ends included.
        shops: whose records.
        rank: see `Read.rank`.
        page_size: records per page to ask for.
        staging: where raw pages go as they arrive.
        folder: staging folder of this read; each attempt gets its own below it.
        attempts: how often to read a window that does not stand still.
        connections: how many pages are asked for at the same time, inside the budget.
        now: clock, epoch seconds.

    Returns:
        The last attempt. It may be unstable; whoever seals the window decides.

    Raises:
        DataError: the gateway ignores the page number or the window.
        KuaimaiError: a call failed for good; nothing of the window counts as read.
    """
    request = window_request(method, window, shops)
    spent = client.requests
    first_read_at = _instant(now())
    for attempt in range(1, attempts + 1):
        target = f"{folder}/{attempt}"
        # A task that died in the middle and runs again must not find pages of its former life.
        staging.remove(target)
        reader = _Reader(
            client, method, window, request=request, page_size=page_size, staging=staging, folder=target
        )
        reader.read(connections)
        read = Read(
            method=method,
            window=window,
            shops=tuple(shop.id for shop in shops),
            rank=rank,
            request=request,
            folder=target,
            pages=reader.pages,
            rows=reader.rows,
            distinct=len(reader.keys),
            total_before=reader.total_before,
            total_after=reader.count(),
            attempts=attempt,
            requests=client.requests - spent,
            first_read_at=first_read_at,
            last_read_at=_instant(now()),
        )
        if read.stable or read.total_before is None:
            break
    return read


def read_parts(
    client: Client,
    method: str,
    window: Window,
    shops: Sequence[Shop],
    *,
    staging: Staging,
    folder: str,
    **how: Any,
) -> list[Read]:
    """Read a window; cut it in two where it does not stand still or where the answer would be too large.

    Args:
        client: calls the gateway.
        method: a catalogued method with a time window.
        window: what to read.
        shops: whose records.
        staging: where raw pages go.
        folder: staging folder; each part gets its own below it.
        how: as for `read_window`.

    Returns:
        One read per part; together they cover the window. A part may still be unstable.

    Raises:
        TooLarge: even the smallest part is too large for one answer.
    """
    parts: list[Read] = []
    waiting = [window]
    while waiting:
        part = waiting.pop(0)
        splits = part.end - part.start > SMALLEST_PART
        try:
            read = read_window(
                client, method, part, shops, staging=staging, folder=f"{folder}/{len(parts)}", **how
            )
        except TooLarge:
            if not splits:
                raise
            waiting[:0] = halves(part)
            continue
        if read.stable or read.total_before is None or not splits:
            parts.append(read)
        else:
            waiting[:0] = halves(part)
    return parts


def window_request(method: str, window: Window, shops: Iterable[Shop]) -> dict[str, str]:
    """Return the business parameters that ask for a window: times as GMT+8 text, shops as a comma list."""
    entry = catalog.method(method)
    times, by_shop = entry.times, entry.shops
    if times is None or window.dimension not in times.dimensions:
        raise DataError(f"{method} cannot be read by {window.dimension!r}", method=method)
    request = {
        times.type_param: window.dimension,
        times.start_param: gateway_time(window.start.timestamp()),
        times.end_param: gateway_time(window.end.timestamp()),
    }
    ids = ",".join(sorted(shop.id for shop in shops))
    if by_shop and ids:
        request[by_shop.param] = ids
    return request


class _Reader:
    """One pass over the pages of a window: page 1 alone, the rest by several connections."""

    def __init__(
        self,
        client: Client,
        method: str,
        window: Window,
        *,
        request: dict[str, str],
        page_size: int,
        staging: Staging,
        folder: str,
    ) -> None:
        self.entry = catalog.method(method)
        self.client = client
        self.window = window
        self.request = request
        self.page_size = page_size
        self.staging = staging
        self.folder = folder
        self.record = catalog.record(self.entry.record or "")
        self.keys = DistinctKeys()
        self.pages = 0
        self.rows = 0
        self.total_before: int | None = None
        self._previous: list[str] = []

    def read(self, connections: int) -> None:
        answer = self._page(1, self.page_size)
        first = self._keep(1, answer)
        self.total_before = answer.total
        full_page = self.page_size
        if self.total_before and len(first) < min(self.page_size, self.total_before):
            # The gateway gives fewer than asked (a silent cap): a page of that size is a full one.
            full_page = max(len(first), 1)
        self._count(first)
        if not first:
            return  # nothing, whatever the total says; the counts decide
        self._read_promised(math.ceil((self.total_before or 0) / full_page), connections)
        on_page = len(self._previous)
        while not self._done(on_page, full_page):
            keys = self._fetch(self.pages + 1)
            self._count(keys)
            on_page = len(keys)

    def count(self) -> int | None:
        """Ask for the total once more; the smallest page that the gateway gives."""
        size = self.entry.page.min if self.entry.page else self.page_size
        return self._page(1, size).total

    def _read_promised(self, pages: int, connections: int) -> None:
        """Read page 2 to the last that the total promises. A page is staged and forgotten as it arrives."""
        if pages < 2:  # noqa: PLR2004 - page 1 is here already
            return
        pool = ThreadPoolExecutor(max_workers=min(connections, pages - 1), thread_name_prefix="page")
        try:
            for keys in pool.map(self._fetch, range(2, pages + 1)):
                self._count(keys)
        finally:
            # After an error the pages that were not begun are not asked for.
            pool.shutdown(wait=True, cancel_futures=True)

    def _fetch(self, number: int) -> list[str]:
        return self._keep(number, self._page(number, self.page_size))

    def _keep(self, number: int, answer: Answer) -> list[str]:
        times = self.entry.times
        strict = times is not None and self.window.dimension not in times.loose
        field = times.dimensions.get(self.window.dimension) if times and strict else None
        page = skim(answer, self.entry.list_keys, self.record.key, field)
        self._check_window(page.stamps)
        self.staging.write_compressed(f"{self.folder}/{number:05d}.json.zst", answer.raw)
        return page.keys

    def _count(self, keys: list[str]) -> None:
        """Add the next page, in page order."""
        if keys and keys == self._previous:
            raise DataError(
                f"pages {self.pages} and {self.pages + 1} are the same {len(keys)} records",
                method=self.entry.name,
                hint="the gateway ignores the page number; nothing of this window was counted as read",
            )
        self._previous = keys
        self.pages += 1
        self.rows += len(keys)
        self.keys.update(keys)

    def _page(self, number: int, size: int) -> Answer:
        return self.client.call(
            self.entry.name, {**self.request, "pageNo": str(number), "pageSize": str(size)}
        )

    def _done(self, on_page: int, full_page: int) -> bool:
        if on_page == 0:
            return True
        if self.total_before is None:
            return on_page < full_page
        if self.pages > self.total_before // full_page + EXTRA_PAGES:
            return True  # the counts will not agree, and the window is read again
        if self.rows < self.total_before:
            return False
        # All rows seen; a full page may hide one more that moved back, unless every key is there.
        return on_page < full_page or len(self.keys) >= self.total_before

    def _check_window(self, stamps: list[int]) -> None:
        """Refuse a page with no row inside the window: the gateway then ignores the window."""
        if not stamps:
            return
        # Rows have milliseconds, the window has seconds: its last second counts whole.
        first = self.window.start.timestamp() * 1000
        last = (self.window.end + timedelta(seconds=1)).timestamp() * 1000
        if not any(first <= stamp < last for stamp in stamps):
            raise DataError(
                f"none of {len(stamps)} records lies in the window that was asked for",
                method=self.entry.name,
                hint="the gateway ignores the time parameters; nothing of this window was counted as read",
            )


def _instant(epoch_seconds: float) -> datetime:
    return datetime.fromtimestamp(epoch_seconds, timezone.utc)
