"""Documents that are written one after another: when each appears, and what is drawn for it.

Like the orders of a `World`, they are a pure function of the settings: nothing is stored, nothing is random.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

from kuaimai.sandbox.world import ARCHIVE_OLDEST, ARCHIVE_YOUNGEST, DAY, World

FOREVER = 2**62

_DRAWS = struct.Struct("<32H")
_WHOLE = 65_536


@lru_cache(maxsize=65_536)
def drawn(seed: int, name: str, n: int) -> tuple[int, ...]:
    """The 32 numbers of 0 to 65535 that decide everything about number `n` of `name`."""
    return _DRAWS.unpack(blake2b(f"{name}/{n}".encode(), digest_size=64, key=b"%d" % seed).digest())


def share_drawn(seed: int, name: str, text: str) -> float:
    """A number from 0 to below 1, fixed for this seed, name and text."""
    raw = blake2b(f"{name}/{text}".encode(), digest_size=4, key=b"%d" % seed).digest()
    return int.from_bytes(raw, "big") / 2**32


def span(seconds: list[int], at: int) -> tuple[int, int]:
    """Around `at`: the last of the sorted `seconds` until then and the first one after."""
    after = bisect_right(seconds, at)
    return (seconds[after - 1] if after else -1), (seconds[after] if after < len(seconds) else FOREVER)


class Series(NamedTuple):
    """Numbers 0, 1, … that appear one after another: some long ago, some in the days before, then live.

    Args:
        name: another name, another series.
        seed: the world's.
        start: epoch second from which on they appear live.
        archived: how many lie 95 to 130 days before `start`.
        before: how many lie in the `days_back` days before `start`.
        days_back: see `before`.
        per_day: how many a day appear from `start` on.
    """

    name: str
    seed: int
    start: int
    archived: int
    before: int
    days_back: float
    per_day: float

    def draws(self, n: int) -> tuple[int, ...]:
        """What is drawn for number `n`."""
        return drawn(self.seed, self.name, n)

    def slot(self, n: int) -> int:
        """The second at which number `n` appears; never decreases with `n`."""
        part = self.draws(n)[31] / _WHOLE
        if n < self.archived:
            return int(
                self.start - ARCHIVE_OLDEST + (n + part) * (ARCHIVE_OLDEST - ARCHIVE_YOUNGEST) / self.archived
            )
        n -= self.archived
        if n < self.before:
            return int(self.start - self.days_back * DAY + (n + part) * self.days_back * DAY / self.before)
        return int(self.start + (n - self.before + part) * DAY / self.per_day)

    def planned(self, at: int) -> int:
        """How many have appeared by the second `at`, or one more."""
        if at < self.start - self.days_back * DAY:
            return self.archived
        if at < self.start or not self.per_day:
            return self.archived + self.before
        return self.archived + self.before + int((at - self.start) * self.per_day / DAY) + 1


def series(world: World, name: str, per_day: float, *, archived: int = 0) -> Series:
    """A series that flows at the same rate in the world's history and after its start."""
    before = int(world.days_back * per_day)
    return Series(name, world.seed, world.start_second, archived, before, world.days_back, per_day)
