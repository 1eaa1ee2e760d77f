"""What lies on a shelf: all records of one kind as they are at one instant.

Where the `Book` indexes hundreds of thousands of orders, a shelf simply keeps each record until its next
change.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kuaimai.sandbox.series import share_drawn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kuaimai.sandbox.faults import Faults
    from kuaimai.sandbox.world import World

Record = dict[str, Any]
Lived = tuple[list[Record], int, int]
"""Records, and the seconds from which and before which they are so."""


@dataclass(frozen=True)
class Source:
    """Where the records of one kind come from.

    Attributes:
        name: of the kind.
        planned: how many numbers have appeared at a second, or a few more.
        lived: the records of one number at a second, none where it is not there (yet, or any more).
        belongs: which of the numbers have records at all; None for all.
        inserted: further numbers, that the drift switch made.
        stays: `vanished` leaves it alone, because other methods are asked by its ids.
    """

    name: str
    planned: Callable[[World, int], int]
    lived: Callable[[World, int, int], Lived]
    belongs: Callable[[World, int], bool] | None = None
    inserted: Callable[[World], range] | None = None
    stays: bool = False


class Shelf:
    """The records of one source.

    Args:
        source: where they come from.
        world: the merchant.
    """

    def __init__(self, source: Source, world: World) -> None:
        self._source = source
        self._world = world
        self._scanned = 0
        self._known: list[int] = []
        self._kept: dict[int, Lived] = {}
        self.touches: dict[str, list[int]] = {}

    def records(self, faults: Faults, at: int) -> list[Record]:
        """All records at epoch second `at`; they are shared, so nobody changes them.

        `late_rows` and `vanished` are heeded here, because they decide what there is.
        """
        source, seed = self._source, self._world.seed
        if self._world.until_second is not None:
            at = min(at, self._world.until_second)
        found: list[Record] = []
        vanished = 0.0 if source.stays else faults.vanished
        for n in self._numbers(at):
            if vanished and share_drawn(seed, f"{source.name}/vanished", str(n)) < vanished:
                continue
            late = faults.late_rows and share_drawn(seed, f"{source.name}/late", str(n)) < faults.late_rows
            found += self._lived(n, at - faults.late_seconds if late else at)
        return found

    def touch(self, key: str, at: int) -> None:
        """Change something invisible about a record, so that its version becomes `at`."""
        self.touches.setdefault(key, []).append(at)

    def touched(self, key: str, at: int) -> int:
        """The last touch of a record until `at`, 0 for none."""
        return max((second for second in self.touches.get(key, ()) if second <= at), default=0)

    def _numbers(self, at: int) -> Iterator[int]:
        planned = self._source.planned(self._world, at)
        belongs = self._source.belongs
        if planned > self._scanned:
            fresh = range(self._scanned, planned)
            self._known += fresh if belongs is None else (n for n in fresh if belongs(self._world, n))
            self._scanned = planned
        yield from self._known
        for n in () if self._source.inserted is None else self._source.inserted(self._world):
            if belongs is None or belongs(self._world, n):
                yield n

    def _lived(self, n: int, at: int) -> list[Record]:
        kept = self._kept.get(n)
        if kept is None or not kept[1] <= at < kept[2]:
            kept = self._kept[n] = self._source.lived(self._world, n, at)
        return kept[0]
