"""Changes that no window has shown: the night counts by the time of change, too, and looks where it differs.

A change that becomes visible after its window was read (and after the overlap) leaves the order here with its
old time, in the slot of that time, while the gateway lists it in the slot of the new one. So both slots
differ. Where one page holds a stretch its records are compared one by one; where it does not, the counts are,
and a stretch that differs is halved until a page holds what is left of it.

Records that change at this moment leave their old slots as well. They are read by id as they are now, which
is what the next live run does anyway; nothing is ever marked as gone here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from kuaimai.extract.windows import Shop, Window
from kuaimai.load.reconciling import Aside, Ledger
from kuaimai.pipeline.mending import Mended, Mending, together

SLOT = timedelta(hours=2)
_SECOND = timedelta(seconds=1)


class Changes:
    """Compares by the dimension that live runs read by; `find` makes one where that is possible.

    Args:
        mending: the tools of this run.
        ledger: the target's rows by the time of their change.
        dimension: its name at the gateway.
        field: the record's field.
        needs: a field without which the gateway does not list a record by this time; None if there is none.
        since: when live runs began; what changed before was never asked for.
    """

    def __init__(
        self,
        mending: Mending,
        ledger: Ledger,
        *,
        dimension: str,
        field: str,
        needs: str | None,
        since: datetime,
    ) -> None:
        self._mending = mending
        self._ledger = ledger
        self._dimension = dimension
        self._field = field
        self._needs = needs
        self._since = since

    @classmethod
    def find(cls, mending: Mending) -> Changes | None:
        """Return the comparison for a pipeline that is read by the time that dates its records; else None."""
        pipeline, times = mending.pipeline, mending.base.times
        dimension = times.dimensions.get(pipeline.time.dimension) if times else None
        if dimension is None or dimension.stamp not in pipeline.record.version[:1]:
            return None
        since = mending.target.began(pipeline.name, pipeline.time.dimension)
        if since is None:
            return None
        return cls(
            mending,
            mending.ledger_by(dimension.stamp, dimension.needs),
            dimension=pipeline.time.dimension,
            field=dimension.stamp,
            needs=dimension.needs,
            since=since.replace(microsecond=0),
        )

    def day(self, midnight: datetime, shops: Sequence[Shop]) -> list[tuple[Window, Mended]]:
        """Compare the changes of one day of one group of shops; return what was found, by stretch."""
        end = midnight + timedelta(days=1)
        cuts = [max(midnight + at * SLOT, self._since) for at in range(timedelta(days=1) // SLOT)]
        slots = [
            Window(start, stop - _SECOND, self._dimension)
            for start, stop in pairwise([*cuts, end])
            if start < stop
        ]
        if not slots:
            return []
        ids = [shop.id for shop in shops]
        counts = self._ledger.counts([(slot.start, slot.end) for slot in slots])
        held = [sum(count.get(shop, 0) for shop in ids) for count in counts]
        found: list[tuple[Window, Mended]] = []
        # Neighbours that one page holds together: that costs fewer requests and compares more.
        for run in together(held, self._mending.room):
            window = Window(slots[run][0].start, slots[run][-1].end, self._dimension)
            found += self._compare(window, shops, sum(held[run]))
        return found

    def _compare(
        self,
        window: Window,
        shops: Sequence[Shop],
        held: int,
        ours: Mapping[str, int] | None = None,
    ) -> list[tuple[Window, Mended]]:
        """Compare one stretch; `ours` are the rows of a larger one that it is part of, if they are known."""
        mending = self._mending
        listed = mending.count(window, shops, held)
        stored = mending.ledger.states(listed.versions)
        newer = mending.newer(listed.versions, stored)
        if not listed.whole:
            missing = None if listed.kept is None else listed.kept - self._expected(window, shops, held)
            if missing == 0 and not newer:
                return []
            if missing is None or missing > self._pages(listed.total) or window.start == window.end:
                # Nothing to compare by, more than halving would save, or nothing left to halve: read it.
                return [(window, mending.reread(window, shops))]
        ids = [shop.id for shop in shops]
        if ours is None:
            ours = self._ledger.keys(window.start, window.end, ids)
        mine = _within(ours, window)
        if listed.whole:
            gone = mine.keys() - listed.versions.keys() - listed.left_out - mending.aside_keys()
            if not mending.by.by_id:
                gone = set()  # what has left is newer elsewhere, and met there
            if not newer and not gone:
                return []
            return [(window, mending.refresh(window, shops, newer, gone, total=len(listed.versions)))]
        found: list[tuple[Window, Mended]] = []
        for half in _halves(window):
            found += self._compare(half, shops, len(_within(mine, half)), mine)
        return found

    def _pages(self, records: int | None) -> float:
        return (records or 0) / self._mending.pipeline.source.page_size

    def _expected(self, window: Window, shops: Sequence[Shop], held: int) -> int:
        """Return how many records the gateway should count, where the target holds so many rows.

        What is in quarantine counts by the record that is there, not by the row that may have landed before.
        """
        ids = {shop.id for shop in shops}
        first, last = window.start.timestamp(), window.end.timestamp()
        aside = {one.key for one in self._mending.aside if one.shop in ids and self._listed(one, first, last)}
        before = _within(self._ledger.stamps(self._mending.aside_keys(), ids), window)
        return held - len(before) + len(aside)

    def _listed(self, one: Aside, first: float, last: float) -> bool:
        stamp = one.stamp(self._field)
        lists = self._needs is None or one.record.get(self._needs) is not None
        return lists and stamp is not None and first <= stamp // 1000 <= last


def _within(versions: Mapping[str, int], window: Window) -> dict[str, int]:
    first, last = window.start.timestamp(), window.end.timestamp()
    return {key: stamp for key, stamp in versions.items() if first <= stamp // 1000 <= last}


def _halves(window: Window) -> list[Window]:
    """Cut a stretch of whole seconds, both ends included, into two that share none."""
    seconds = int((window.end - window.start).total_seconds())
    middle = window.start + timedelta(seconds=seconds // 2)
    return [
        Window(window.start, middle, window.dimension),
        Window(middle + _SECOND, window.end, window.dimension),
    ]
