"""The order book: which sids exist now, indexed by every time that a query can ask for.

The book follows the clock step by step: an order is planned when it appears and looked at again only when its
next step is due, so a quiet book of 200,000 orders costs nothing to keep.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from kuaimai.sandbox.steps import Draw, Snapshot, next_step
from kuaimai.sandbox.world import INSERTED_FROM, World

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TIME_TYPES = ("created", "pay_time", "consign_time", "audit_time", "upd_time")

_ROW_BITS = 44
_ROW_MASK = (1 << _ROW_BITS) - 1
_WHOLE = 65_536
_MANY = 1_000


def row_of(key: int) -> int:
    """The row number inside an index key."""
    return key & _ROW_MASK


def second_of(key: int) -> int:
    """The epoch second inside an index key."""
    return key >> _ROW_BITS


def _times(snap: Snapshot) -> tuple[int, int, int, int, int]:
    return snap.created, snap.pay, snap.ship, snap.audit, snap.upd


class Book:
    """All sids of a world that are visible at one instant.

    Args:
        world: the plan that the book follows.

    Attributes:
        revision: grows whenever any row changes; answers may be cached per revision.
        at: the second up to which the book is written.
        changed: rows that changed since the reader last cleared the set.
        rebuilt: whether everything may have changed since the reader last cleared the flag.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.revision = 0
        self.at = -1
        self.changed: set[int] = set()
        self.rebuilt = False
        self._late_share = 0.0
        self._late_seconds = 0
        self._clear()

    def _clear(self) -> None:
        self._planned = 0
        self._inserted = 0
        self._due: list[tuple[int, int]] = []
        self._indexes: tuple[list[int], ...] = tuple([] for _ in TIME_TYPES)
        self.shop_of = bytearray()  # by order number; a shop index fits a byte

    def follow(self, at: int, *, late_share: float = 0.0, late_seconds: int = 0) -> None:
        """Bring the book to the second `at`, forwards or backwards.

        `late_share` of the orders become visible `late_seconds` later than their own times say.
        """
        if (late_share, late_seconds) != (self._late_share, self._late_seconds) or at < self.at:
            self._late_share, self._late_seconds = late_share, late_seconds
            self.at = -1
            self._clear()
            self.revision += 1
        if at == self.at:
            return
        if self.at < 0:
            self._build(at)
        else:
            self._advance(at)

    def delay(self, n: int) -> int:
        """Seconds by which order `n` becomes visible too late."""
        if not self._late_share:
            return 0
        # Both orders of a merging pair are late together, so that no line is ever in two places.
        leader = n - n % 2 if n < INSERTED_FROM else n
        late = self._world.draws(leader)[Draw.LATE] < self._late_share * _WHOLE
        return self._late_seconds if late else 0

    def window(self, time_type: str, first: int, last: int) -> tuple[Sequence[int], int, int]:
        """An index and the half-open range of its keys from second `first` to `last`, both included."""
        index = self._indexes[TIME_TYPES.index(time_type)]
        return index, bisect_left(index, first << _ROW_BITS), bisect_left(index, (last + 1) << _ROW_BITS)

    def snapshot(self, row: int, at: int | None = None) -> Snapshot | None:
        """A sid as it is visible now, or at another instant; None if it does not exist then."""
        n = row // 4
        at = self.at if at is None else at
        if not self._exists(n):
            return None
        for snap in self._world.snapshots(n, at - self.delay(n)):
            if snap.row == row:
                return snap
        return None

    def touch(self, row: int) -> None:
        """Change a sid now; its `updTime` becomes the current second."""
        n = row // 4
        before = self.visible(n)
        self._world.touch(row, self.at)
        self._replace(before, self.visible(n))
        if self.delay(n):
            heappush(self._due, (self.at + self.delay(n), n))

    def insert(self) -> int:
        """Let one more order appear now; returns its number."""
        n = self._world.insert(self.at)
        self._admit_inserted()
        self.revision += 1
        return n

    def numbers(self) -> Iterable[int]:
        """All order numbers that the book knows."""
        yield from range(self._planned)
        yield from self._world.inserted()

    def _exists(self, n: int) -> bool:
        return 0 <= n < self._planned or n in self._world.inserted()

    def visible(self, n: int, at: int | None = None) -> list[Snapshot]:
        """The sids of order `n` that a reader can see now, or at another instant."""
        return self._world.snapshots(n, (self.at if at is None else at) - self.delay(n))

    def shop_of_row(self, row: int) -> int:
        """Index of the shop that a row belongs to."""
        n = row // 4
        return self.shop_of[n] if n < len(self.shop_of) else self._world.shop_index(n)

    def _build(self, at: int) -> None:
        self.at = at
        self._plan_until(at, collect=True)
        self._admit_inserted()
        self._sort()
        self.revision += 1
        self.rebuilt = True

    def _sort(self) -> None:
        for index in self._indexes:
            index.sort()
        heapify(self._due)

    def _plan_until(self, at: int, *, collect: bool) -> None:
        """Admit the regular orders that appear until `at`; `collect` leaves the sorting to the caller."""
        world = self._world
        for n in range(self._planned, world.planned(at)):
            draws = world.draws(n)
            self.shop_of.append(world.shop_index(n, draws))
            life = world.life(n)
            delay = self.delay(n)
            for snap in world.snapshots(n, at - delay, life):
                self._add(snap, collect=collect)
            due = next_step(life, at - delay)
            if due is not None:
                self._due.append((due + delay, n)) if collect else heappush(self._due, (due + delay, n))
            self._planned = n + 1

    def _admit_inserted(self) -> None:
        for n in self._world.inserted()[self._inserted :]:
            life = self._world.life(n)
            for snap in self._world.snapshots(n, self.at - self.delay(n), life):
                self._add(snap, collect=False)
            due = next_step(life, self.at - self.delay(n))
            if due is not None:
                heappush(self._due, (due + self.delay(n), n))
            self._inserted += 1

    def _advance(self, at: int) -> None:
        changed: dict[int, None] = {}
        while self._due and self._due[0][0] <= at:
            changed[heappop(self._due)[1]] = None
        for n in changed:
            life = self._world.life(n)
            delay = self.delay(n)
            self._replace(
                self._world.snapshots(n, self.at - delay, life), self._world.snapshots(n, at - delay, life)
            )
            due = next_step(life, at - delay)
            if due is not None:
                heappush(self._due, (due + delay, n))
        known = self._planned
        many = self._world.planned(at) - known > _MANY
        self._plan_until(at, collect=many)
        if many:  # a clock that jumped: sorting once is cheaper than inserting one by one
            self._sort()
        self.at = at
        if changed or self._planned != known:
            self.revision += 1

    def _add(self, snap: Snapshot, *, collect: bool) -> None:
        for index, second in zip(self._indexes, _times(snap), strict=True):
            if second:
                key = second << _ROW_BITS | snap.row
                index.append(key) if collect else insort(index, key)

    def _replace(self, before: list[Snapshot], after: list[Snapshot]) -> None:
        self.revision += 1
        self.changed.update(snap.row for snap in after)
        for snap in before:
            for index, second in zip(self._indexes, _times(snap), strict=True):
                if second:
                    del index[bisect_right(index, second << _ROW_BITS | snap.row) - 1]
        for snap in after:
            self._add(snap, collect=False)
