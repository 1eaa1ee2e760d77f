"""Reading a stretch page by page, where one answer cannot hold it, until two readings in a row agree.

Pages of a moving set prove nothing by themselves. But a record that left the stretch does not come back, so
what two readings both hold was there all the time between them; and if the gateway counted as many meanwhile,
nothing else was (docs/adr/0005). The first reading may have been begun by an earlier life of the same task.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from kuaimai.extract.asking import Asking, Page, Stretch
from kuaimai.extract.keys import DistinctKeys
from kuaimai.extract.reads import COUNTS, READINGS, UNPROVEN
from kuaimai.extract.staged import Part, Staged, page_file

# How often a stretch that did not stand still is read again before the next run gets it.
READ_ATTEMPTS = 3

# A page, and its name if it is staged already.
_Known: TypeAlias = tuple[str | None, Page]


@dataclass
class _Reading:
    """One pass over a stretch.

    Attributes:
        total: the gateway's count at the beginning of the pass, or None.
        keys: what came.
        files: staging names of its pages.
        rows: records that came, repeated ones included.
        asked_at: when it began.
        saw_end: whether it ended with an empty page. One that holds only what came before may also be that
            of a gateway whose silent cap became smaller on the way; more may be behind it.
    """

    asked_at: float
    total: int | None = None
    saw_end: bool = False
    keys: set[str] = field(default_factory=set)
    files: list[str] = field(default_factory=list)
    rows: int = 0


def read_settled(
    asking: Asking,
    stretch: Stretch,
    staged: Staged,
    *,
    by_cursor: bool = False,
    archive: bool = False,
    attempts: int = READ_ATTEMPTS,
) -> Part:
    """Read a stretch again and again until two readings in a row hold the same records.

    Args:
        asking: sends the requests.
        stretch: what to read.
        staged: gets the pages.
        by_cursor: let the gateway's cursor lead from page to page instead of page numbers.
        archive: the gateway counts nothing there: equal keys are all the proof there is.
        attempts: how often a reading may differ from the one before.

    Returns:
        The last reading; unproven if no two agreed, or if the gateway counted other records.

    Raises:
        DataError: the gateway ignores page numbers, sizes or times.
        KuaimaiError: a call failed for good.
    """
    for attempt in range(2, attempts + 2):
        staged.forget(f"{staged.name(stretch)}/{attempt}")  # of a former life of this task
    reader = _Reader(asking, stretch, staged, by_cursor=by_cursor, archive=archive)
    last = reader.read(1)
    for attempt in range(2, attempts + 2):
        if last.total is None and not archive:
            break  # nothing can be proven
        before, last = last, reader.read(attempt, expected=len(last.keys) if last.saw_end else None)
        counts_agree = archive or before.total == last.total == len(last.keys)
        if before.keys == last.keys and counts_agree:
            return _part(stretch, last, before, READINGS if archive else COUNTS, attempt)
    return _part(stretch, last, last, UNPROVEN, attempt)


class _Reader:
    """Passes over one stretch, page after page; each page is staged and forgotten as it arrives."""

    def __init__(
        self, asking: Asking, stretch: Stretch, staged: Staged, *, by_cursor: bool, archive: bool
    ) -> None:
        self._asking = asking
        self._stretch = stretch
        self._staged = staged
        self._cursor = by_cursor and not archive
        self._counts = not archive

    def read(self, attempt: int, expected: int | None = None) -> _Reading:
        """Read all pages once.

        Args:
            attempt: number of the pass.
            expected: where the gateway counts nothing, how many records the pass before has found, if it has
                seen the end: a short page may be a silently capped one. None goes on until nothing new comes.
        """
        reading = _Reading(self._asking.now())
        if self._cursor:
            reading.total = self._asking.count(self._stretch)
        folder = f"{self._staged.name(self._stretch)}/{attempt}"
        known = self._staged.pages(folder, self._asking) if attempt == 1 else iter(())
        pages = self._by_cursor(known) if self._cursor else self._by_number(known)
        before: set[str] = set()
        for number, (staged, page) in enumerate(pages, start=1):
            if number == 1:
                reading.asked_at = min(reading.asked_at, page.asked_at)
                if self._counts and not self._cursor:
                    reading.total = page.total
            keys = set(page.keys)
            if keys and keys == before:
                raise self._asking.error(
                    f"pages {number - 1} and {number} are the same {len(keys)} records",
                    f"the gateway ignores the {'cursor' if self._cursor else 'page number'}; "
                    "nothing of this window was counted as read",
                )
            name = staged or f"{folder}/{page_file(number, page.asked_at)}"
            if staged is None:
                self._staged.write(name, page.answer)
            reading.files.append(name)
            reading.rows += len(page.keys)
            nothing_new, reading.saw_end = keys <= reading.keys, not keys
            reading.keys |= keys
            wanted = expected if reading.total is None else reading.total
            if nothing_new or (wanted is not None and len(reading.keys) >= wanted):
                break
            before = keys
        return reading

    def _by_number(self, known: Iterator[_Known]) -> Iterator[_Known]:
        number = 0
        for number, one in enumerate(known, start=1):  # noqa: B007 - goes on behind the loop
            yield one
        while True:
            number += 1
            yield None, self._asking.page(self._stretch, number)

    def _by_cursor(self, known: Iterator[_Known]) -> Iterator[_Known]:
        """Follow the cursor. How a scan ends is not documented: all that was seen or is likely ends it."""
        sent: set[str] = set()
        cursor = ""
        while True:
            name, page = next(known, None) or (None, self._asking.page_after(self._stretch, cursor or None))
            yield name, page
            sent.add(cursor)
            cursor = str(page.answer.body.get("cursor") or "")
            if str(page.answer.body.get("hasNext")).lower() == "false" or cursor in sent | {""}:
                return


def _part(stretch: Stretch, last: _Reading, before: _Reading, proof: str, attempts: int) -> Part:
    keys = DistinctKeys()
    keys.update(last.keys)
    files = tuple(last.files)
    return Part(stretch, files, keys, last.rows, before.total, last.total, proof, before.asked_at, attempts)
