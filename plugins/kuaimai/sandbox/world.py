"""The invented merchant: orders that are born, paid, shipped, split, merged and refunded as time passes.

A world is a pure function of (settings, time). Order number `n` has a fixed life, a list of dated steps; its
state at time `t` is the fold of the steps up to `t`. Nothing is random and nothing is stored, so two worlds
with the same settings give the same rows at the same time, on any machine and in any process. The only things
added from outside are `touch` and `insert`, by which the drift switch lets rows move while they are read.

All times are whole epoch seconds: the platform's own records carry no fractions of a second either.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from hashlib import blake2b

from kuaimai.sandbox.merchant import SHOPS, SOLD_ITEMS, Shop, shops
from kuaimai.sandbox.steps import CHILD_STEPS, PLATFORM_STEPS, Draw, Life, Snapshot, Step

GMT8 = timezone(timedelta(hours=8))
DAY = 86_400
HOUR = 3_600
MINUTE = 60

INSERTED_FROM = 1_000_000_000
"""Order numbers from here on were inserted by the drift switch."""

_DRAWS = struct.Struct("<32H")
_WHOLE = 65_536
ARCHIVE_OLDEST, ARCHIVE_YOUNGEST = 130 * DAY, 95 * DAY


# Shares of all orders, in 65536ths.
_UNPAID = int(0.04 * _WHOLE)
_REFUND_BEFORE = _UNPAID + int(0.07 * _WHOLE)
_REFUND_AFTER = _REFUND_BEFORE + int(0.04 * _WHOLE)
_REMARKED = int(0.2 * _WHOLE)
_SPLIT = int(0.12 * _WHOLE)
_MERGED = int(0.06 * _WHOLE)
_GIFT = int(0.15 * _WHOLE)
_GIFT_REMOVED = int(0.3 * _WHOLE)
_BACKDATED = int(0.2 * _WHOLE)


@lru_cache(maxsize=16_384)
def _draws(key: bytes, n: int) -> tuple[int, ...]:
    return _DRAWS.unpack(blake2b(b"%d" % n, digest_size=64, key=key).digest())


@dataclass
class World:
    """Settings of an invented merchant.

    Args:
        start: from here on orders arrive at `orders_per_hour`; naive means GMT+8. History lies before it.
        seed: another seed gives another merchant.
        orders_per_hour: live rate after `start`; 0 stops the flow.
        days_back: days of history before `start`.
        history_orders: orders in that history, evenly spread.
        bulk: this many orders instead of `history_orders`, within `bulk_days` before `start`.
        bulk_days: days over which `bulk` is spread.
        archive_orders: orders 95 to 130 days before `start`, which only `queryType=1` returns.
        shop_count: number of shops; the first six are fxg, pdd, jd, tb, sys, xhs.
        until: after this instant nothing happens any more but drift; naive means GMT+8.
        items: items that exist before `start`; the first ten are what the orders sell.
        items_per_day: further items that appear after `start`.
        suppliers: number of suppliers.
        purchases_per_day: purchase orders, in the history and live; receipts and returns follow from them.
        documents_per_day: documents of every other kind (transfers, counts, …), in the history and live.
        archive_documents: purchase orders 95 to 130 days before `start`, which only `*.history.*` returns.
    """

    start: datetime
    seed: int = 7
    orders_per_hour: float = 240.0
    days_back: float = 5.0
    history_orders: int = 600
    bulk: int = 0
    bulk_days: float = 1.0
    archive_orders: int = 40
    shop_count: int = 6
    until: datetime | None = None
    items: int = 12
    items_per_day: float = 6.0
    suppliers: int = 8
    purchases_per_day: float = 24.0
    documents_per_day: float = 12.0
    archive_documents: int = 12

    _touches: dict[int, Life] = field(default_factory=dict, init=False, repr=False)
    _inserted: list[int] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        if not 1 <= self.shop_count <= len(SHOPS):
            raise ValueError(f"shop_count must be 1 to {len(SHOPS)}, not {self.shop_count}")
        if min(self.orders_per_hour, self.history_orders, self.bulk, self.archive_orders) < 0:
            raise ValueError("orders_per_hour, history_orders, bulk and archive_orders cannot be negative")
        if self.items < SOLD_ITEMS:
            raise ValueError(f"items must be at least {SOLD_ITEMS}, what the orders sell, not {self.items}")
        if self.suppliers < 1:
            raise ValueError(f"suppliers must be at least 1, not {self.suppliers}")
        rates = self.items_per_day, self.purchases_per_day, self.documents_per_day, self.archive_documents
        if min(rates) < 0:
            raise ValueError(
                "items_per_day, purchases_per_day, documents_per_day and archive_documents cannot be negative"
            )
        self.shops: tuple[Shop, ...] = shops(self.shop_count)
        self.start_second = epoch_second(self.start)
        self.until_second = None if self.until is None else epoch_second(self.until)
        self._key = self.seed.to_bytes(8, "little", signed=True)
        self._archived = self.archive_orders
        self._before = self._archived + (self.bulk or self.history_orders)
        span = (self.bulk_days if self.bulk else self.days_back) * DAY
        self._history_from = self.start_second - span
        self._history_gap = span / max(1, self.bulk or self.history_orders)
        self._live_gap = HOUR / self.orders_per_hour if self.orders_per_hour else 0.0

    def draws(self, n: int) -> tuple[int, ...]:
        """The 32 numbers of 0 to 65535 that decide everything about order `n`."""
        return _draws(self._key, n)

    def slot(self, n: int, jitter: int) -> int:
        """The second at which order `n` first appears; never decreases with `n`."""
        if n >= INSERTED_FROM:
            return self._inserted[n - INSERTED_FROM]
        part = jitter / _WHOLE
        if n < self._archived:
            gap = (ARCHIVE_OLDEST - ARCHIVE_YOUNGEST) / self._archived
            return int(self.start_second - ARCHIVE_OLDEST + (n + part) * gap)
        if n < self._before:
            return int(self._history_from + (n - self._archived + part) * self._history_gap)
        return int(self.start_second + (n - self._before + part) * self._live_gap)

    def planned(self, at: int) -> int:
        """How many regular orders (numbers 0, 1, …) have appeared by the second `at`."""
        if self.until_second is not None:
            at = min(at, self.until_second)
        if at >= self.start_second:
            guess = self._before
            if self._live_gap:
                guess += int((at - self.start_second) / self._live_gap) + 2
        elif at >= self._history_from:
            guess = self._archived + int((at - self._history_from) / self._history_gap) + 2
            guess = min(guess, self._before)
        else:
            guess = self._archived
        while guess > 0 and self.slot(guess - 1, self.draws(guess - 1)[Draw.JITTER]) > at:
            guess -= 1
        return guess

    def archived_before(self, at: int) -> int:
        """Regular orders below this number are older than three months (90 days) at `at`."""
        return self.planned(at - 90 * DAY)

    def inserted(self) -> range:
        """Numbers of the orders that were inserted by `insert`."""
        return range(INSERTED_FROM, INSERTED_FROM + len(self._inserted))

    def shop_index(self, n: int, draws: tuple[int, ...] | None = None) -> int:
        """Which of `shops` sold order `n`; both orders of a pair that may merge belong to one shop."""
        if n < INSERTED_FROM and n % 2:
            draws = self.draws(n - 1)
        elif draws is None:
            draws = self.draws(n)
        return draws[Draw.SHOP] % len(self.shops)

    def merge_survivor(self, n: int, draws: tuple[int, ...]) -> int | None:
        """Number of the order that keeps the lines if `n` is in a pair that merges, else None."""
        if n >= INSERTED_FROM:
            return None
        first = n - n % 2
        decides = draws if n == first else self.draws(first)
        return first if decides[Draw.MERGE] < _MERGED else None

    def backdated_by(self, n: int, draws: tuple[int, ...]) -> int:
        """Seconds between an order's `created` and its first appearance (JD self-operated orders)."""
        if draws[Draw.BACKDATED] >= _BACKDATED or self.shops[self.shop_index(n, draws)].source != "jd":
            return 0
        return HOUR + draws[Draw.PAY_DELAY] % (19 * HOUR)

    def has_gift(self, draws: tuple[int, ...]) -> bool:
        """Whether an order comes with a gift line."""
        return draws[Draw.GIFT] < _GIFT

    def life(self, n: int) -> Life:
        """All dated steps of order `n`, in order, also those that lie in the future."""
        draws = self.draws(n)
        steps = self._regular_life(n, draws)
        # What drift inserts and touches happens also after `until`.
        if self.until_second is not None and n < INSERTED_FROM:
            steps = [step for step in steps if step[0] <= self.until_second]
        steps += self._touches.get(n, ())
        steps.sort()
        return steps

    def _regular_life(self, n: int, draws: tuple[int, ...]) -> Life:
        first = self.slot(n, draws[Draw.JITTER])
        survivor = self.merge_survivor(n, draws)
        fate = draws[Draw.FATE]
        steps: Life = [(first, Step.APPEAR, 0)]
        if survivor is None and fate < _UNPAID:
            return [*steps, (first + 30 * MINUTE, Step.CLOSE_UNPAID, 0)]
        backdated = survivor is None and self.backdated_by(n, draws) > 0
        paid = first if backdated else first + 5 + draws[Draw.PAY_DELAY] % (10 * MINUTE)
        steps.append((paid, Step.PAY, 0))
        if survivor is not None:
            other = n + 1 if n == survivor else survivor
            theirs = self.draws(other)
            their_paid = self.slot(other, theirs[Draw.JITTER]) + 5 + theirs[Draw.PAY_DELAY] % (10 * MINUTE)
            paid = max(paid, their_paid) + 2 * MINUTE
            if n != survivor:
                return [*steps, (paid, Step.MERGED_AWAY, 0)]
            steps.append((paid, Step.MERGE, 0))
        if draws[Draw.REMARK] < _REMARKED:
            steps.append((paid + MINUTE + draws[Draw.REMARK_DELAY] % HOUR, Step.REMARK, 0))
        if self.has_gift(draws) and draws[Draw.GIFT_REMOVED] < _GIFT_REMOVED:
            steps.append((paid + 30 + draws[Draw.GIFT_REMOVED] % (2 * MINUTE), Step.GIFT_REMOVED, 0))
        if survivor is None and _UNPAID <= fate < _REFUND_BEFORE:
            asked = paid + 5 * MINUTE + draws[Draw.AUDIT_DELAY] % HOUR
            return [
                *steps,
                (asked, Step.REFUND_ASK, 0),
                (asked + 30 * MINUTE, Step.REFUND_CLOSE, 0),
            ]
        audited = paid + 3 * MINUTE + draws[Draw.AUDIT_DELAY] % (40 * MINUTE)
        shipped = audited + HOUR + draws[Draw.SHIP_DELAY] % (16 * HOUR)
        finished = shipped + 2 * DAY + draws[Draw.FINISH_DELAY] * 5
        steps += [(audited, Step.AUDIT, 0), (shipped, Step.SHIP, 0), (finished, Step.FINISH, 0)]
        if survivor is None and draws[Draw.SPLIT] < _SPLIT and n < INSERTED_FROM:
            steps.append((audited + 30, Step.SPLIT, 0))
        if _REFUND_BEFORE <= fate < _REFUND_AFTER:
            asked = shipped + DAY + draws[Draw.REMARK_DELAY] % HOUR
            steps += [(asked, Step.REFUND_ASK, 0), (asked + 6 * HOUR, Step.REFUND_DONE, 0)]
        return steps

    def snapshots(self, n: int, at: int, life: Life | None = None) -> list[Snapshot]:
        """The sids of order `n` as they are at the second `at`: none, one, or two after a split."""
        seen = upd = child_upd = modified = 0
        last: dict[int, int] = {}
        for second, step, whose in self.life(n) if life is None else life:
            if second > at:
                break
            seen |= step
            last[step] = second
            if step & PLATFORM_STEPS:
                modified = second
            if whose == 0:
                upd = second
            if whose == 1 or step & CHILD_STEPS:
                child_upd = second
        if not seen:
            return []
        draws = self.draws(n)
        created, pay = self._created_and_paid(n, draws, last)
        ended = last.get(Step.FINISH) or last.get(Step.CLOSE_UNPAID) or last.get(Step.REFUND_CLOSE, 0)
        times = modified, pay, last.get(Step.AUDIT, 0), last.get(Step.SHIP, 0), ended
        touches = self._touches_of(n, at)
        found = [Snapshot(n, 0, seen, created, upd, *times, touches[0])]
        if seen & Step.SPLIT:
            found.append(Snapshot(n, 1, seen, created, child_upd, *times, touches[1]))
        return found

    def _created_and_paid(self, n: int, draws: tuple[int, ...], last: dict[int, int]) -> tuple[int, int]:
        """What the record shows as `created` and `payTime`, which may differ from when it became visible."""
        back = 0 if self.merge_survivor(n, draws) is not None else self.backdated_by(n, draws)
        paid = last.get(Step.PAY, 0)
        if not paid or self.pays_without_time(n, draws):
            return last[Step.APPEAR] - back, 0
        return last[Step.APPEAR] - back, paid - back

    def _touches_of(self, n: int, at: int) -> tuple[int, int]:
        """How often each sid of an order was touched until `at`."""
        touched = self._touches.get(n)
        if touched is None:
            return 0, 0
        mine = [whose for second, _, whose in touched if second <= at]
        return mine.count(0), mine.count(1)

    def pays_without_time(self, n: int, draws: tuple[int, ...]) -> bool:
        """Half of the manual orders look paid but carry the sentinel as `payTime`."""
        return draws[Draw.BUYER] % 2 == 0 and self.shops[self.shop_index(n, draws)].source == "sys"

    def touch(self, row: int, at: int) -> None:
        """Change something invisible about a sid, so that its `updTime` becomes `at`."""
        self._touches.setdefault(row // 4, []).append((at, Step.TOUCH, row % 4))

    def insert(self, at: int) -> int:
        """Let one more order appear at the second `at`; returns its number."""
        self._inserted.append(at)
        return INSERTED_FROM + len(self._inserted) - 1


def epoch_second(moment: datetime) -> int:
    """Whole epoch seconds of `moment`; a naive one is read as GMT+8."""
    return int((moment.replace(tzinfo=GMT8) if moment.tzinfo is None else moment).timestamp())
