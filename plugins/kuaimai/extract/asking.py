"""One request for a stretch of time, with the checks that every answer must pass."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone

from kuaimai.errors import DataError
from kuaimai.extract.skim import Skimmed, skim
from kuaimai.extract.windows import SCAN
from kuaimai.gateway import catalog
from kuaimai.gateway.answers import Answer
from kuaimai.gateway.client import Client
from kuaimai.gateway.clock import gateway_time

log = logging.getLogger(__name__)

# A clock that is ahead by less cannot be told from an answer that took long; overlaps are meant for that.
AHEAD_SECONDS = 30.0


@dataclass(frozen=True, order=True)
class Stretch:
    """A closed stretch of time, epoch seconds; neighbours share their edge second."""

    start: int
    end: int

    @property
    def length(self) -> int:
        """Seconds between its ends."""
        return self.end - self.start


@dataclass(frozen=True)
class Page:
    """One answer, with what a read has to know of it.

    Attributes:
        answer: as received.
        keys: of its records, in its order.
        asked_at: when the request was handed to the client, epoch seconds: the answer is never older. By the
            gateway's clock where ours was ahead, see `by_gateway`.
    """

    answer: Answer
    keys: list[str]
    asked_at: float

    @property
    def total(self) -> int | None:
        """How many records the gateway counted in the same moment, or None where it sent no count.

        An answer without a record may leave the count out (reference 6.2): there is nothing.
        """
        return 0 if self.answer.total is None and not self.keys else self.answer.total

    @property
    def complete(self) -> bool:
        """Whether the answer holds all that was there in its moment."""
        return self.total == len(set(self.keys))


class Asking:
    """Asks one method for stretches of one window of a group of shops. Safe to share between threads.

    Args:
        client: calls the gateway.
        method: a catalogued method that returns records.
        request: business parameters without the window's ends and the page, see `paging.window_request`.
        dimension: the time dimension; `SCAN` asks for everything, whatever its time.
        page_size: records per page to ask for.
        now: clock, epoch seconds.
    """

    def __init__(
        self,
        client: Client,
        method: str,
        request: Mapping[str, str],
        *,
        dimension: str,
        page_size: int,
        now: Callable[[], float] = time.time,
    ) -> None:
        entry = catalog.method(method)
        if entry.record is None or (entry.times is None and dimension != SCAN):
            raise DataError(f"{method} returns no records by {dimension!r}", method=method)
        self.method = method
        self.page_size = page_size
        self.smallest_page = entry.page.min if entry.page else page_size
        self.now = now
        self._client = client
        self._entry = entry
        self._request = dict(request)
        self._kind = catalog.record(entry.record)
        self._dimension = (
            None if dimension == SCAN or entry.times is None else entry.times.dimensions[dimension]
        )
        self._time_field = self._dimension.stamp if self._dimension else None
        self._loose = self._dimension is not None and self._dimension.loose

    def page(self, stretch: Stretch, number: int = 1, *, size: int | None = None) -> Page:
        """Ask for one page of a stretch.

        Args:
            stretch: the time to ask for.
            number: page number.
            size: records to ask for, if not the usual number.

        Raises:
            DataError: the gateway ignores the page size or the time parameters.
            KuaimaiError: the call failed for good.
        """
        if self._entry.page is None:
            return self._ask(stretch, None, {})
        return self._ask(stretch, size or self.page_size, {"pageNo": str(number)})

    def page_after(self, stretch: Stretch, cursor: str | None) -> Page:
        """Ask for the page behind a cursor, or for the first one; it carries no count.

        Raises:
            KuaimaiError: as for `page`.
        """
        more = {"useCursor": "true", "useHasNext": "true", **({"cursor": cursor} if cursor else {})}
        return self._ask(stretch, self.page_size, more)

    def _ask(self, stretch: Stretch, size: int | None, more: Mapping[str, str]) -> Page:
        ends = self._dimension.ends(stretch.start, stretch.end) if self._dimension else {}
        sized = {} if size is None else {"pageSize": str(size)}
        params = {**self._request, **ends, **sized, **more}
        asked_at = self.now()
        answer = self._client.call(self._entry.name, params)
        skimmed = self.skim(answer)
        if size is not None and len(skimmed.keys) > size:
            raise DataError(
                f"a page of {size} records was asked for, and {len(skimmed.keys)} came",
                method=self._entry.name,
                trace_id=answer.trace_id,
                hint="the gateway ignores the page size; nothing of this window was counted as read",
            )
        self._check_times(stretch, skimmed, answer)
        return Page(answer, skimmed.keys, by_gateway(min(asked_at, self.now()), answer.clock_offset))

    def count(self, stretch: Stretch) -> int | None:
        """Ask how many records there are, with the smallest page that the gateway gives."""
        return self.page(stretch, size=self.smallest_page).total

    def skim(self, answer: Answer) -> Skimmed:
        """Return the keys and times of an answer's records."""
        return skim(answer, self._entry.list_keys, self._kind, self._time_field)

    def error(self, text: str, hint: str) -> DataError:
        """Return an error about what this method answered."""
        return DataError(text, method=self._entry.name, hint=hint)

    def _check_times(self, stretch: Stretch, skimmed: Skimmed, answer: Answer) -> None:
        """Refuse an answer that mostly lies outside the stretch; keep single strays, and tell them."""
        # Rows have milliseconds, the stretch has seconds: its last second counts whole.
        first, behind = stretch.start * 1000, (stretch.end + 1) * 1000
        outside = sum(not first <= stamp < behind for stamp in skimmed.stamps)
        # Where strangers are usual, a few of them may be all that a quiet stretch brings.
        fewest = self.smallest_page if self._loose else 1
        if 2 * outside > len(skimmed.stamps) >= fewest:
            raise DataError(
                f"{outside} of {len(skimmed.stamps)} records lie outside the time that was asked for",
                method=self._entry.name,
                trace_id=answer.trace_id,
                hint="the gateway ignores the time parameters; nothing of this window was counted as read",
            )
        if outside:
            log.log(
                logging.DEBUG if self._loose else logging.WARNING,
                "%s: %d of %d records lie outside %s to %s, and are kept",
                self._entry.name,
                outside,
                len(skimmed.stamps),
                gateway_time(stretch.start),
                gateway_time(stretch.end),
            )


def by_gateway(moment: float, offset: float | None) -> float:
    """Return a moment by the gateway's clock where ours is ahead of it; both in epoch seconds.

    Else a window would count as over that the gateway has not lived through yet. It is asked of each answer,
    because a clock can be set right between two of them, or before a retry goes on with the first.

    Args:
        moment: by our clock.
        offset: the gateway's clock minus ours, seconds; None where it does not say.
    """
    return moment + offset if offset is not None and offset <= -AHEAD_SECONDS else moment


def instant(epoch_seconds: float) -> datetime:
    """Return epoch seconds as an instant in UTC."""
    return datetime.fromtimestamp(epoch_seconds, timezone.utc)
