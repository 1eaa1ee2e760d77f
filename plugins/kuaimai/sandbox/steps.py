"""The vocabulary of an order's life: what is drawn for it, what can happen to it, how it is at one time."""

from __future__ import annotations

from dataclasses import dataclass


class Draw:
    """Which of an order's 32 fixed draws decides what."""

    SHOP = 0
    PAY_DELAY = 1
    AUDIT_DELAY = 2
    SHIP_DELAY = 3
    FINISH_DELAY = 4
    FATE = 5
    REMARK = 6
    REMARK_DELAY = 7
    SPLIT = 8
    MERGE = 9
    GIFT = 10
    SUIT = 11
    LINES = 12
    ITEM = 13  # to 16, one per line
    NUM = 17  # to 20, one per line
    JITTER = 21
    BACKDATED = 22
    LATE = 23
    NULL_MODIFIED = 24
    WAREHOUSE = 25
    DISCOUNT = 26
    BAD = 27
    BUYER = 28
    GIFT_REMOVED = 29
    LOOSE = 30
    WIDE = 31


class Step:
    """What can happen to an order; the value is its bit in `Snapshot.seen`."""

    APPEAR = 1
    PAY = 2
    REMARK = 4
    GIFT_REMOVED = 8
    MERGE = 16  # took the partner's lines
    MERGED_AWAY = 32  # gave its lines to the partner
    AUDIT = 64
    SPLIT = 128
    SHIP = 256
    FINISH = 512
    CLOSE_UNPAID = 1024
    REFUND_ASK = 2048
    REFUND_CLOSE = 4096  # before shipping: the whole order is closed although it was paid
    REFUND_DONE = 8192  # after shipping: one line is refunded, the order lives on
    TOUCH = 16384  # somebody changed something nobody can see


PLATFORM_STEPS = (
    Step.APPEAR | Step.PAY | Step.SHIP | Step.FINISH | Step.CLOSE_UNPAID
    | Step.REFUND_ASK | Step.REFUND_CLOSE | Step.REFUND_DONE
)  # fmt: skip
CHILD_STEPS = Step.SPLIT | Step.SHIP | Step.FINISH

Life = list[tuple[int, int, int]]
"""Steps as (epoch second, `Step`, which sid of the order: 0 itself, 1 the split-off child)."""


@dataclass(slots=True)
class Snapshot:
    """One sid of one order at one time.

    Attributes:
        n: order number.
        sub: 0 for the order itself, 1 for the child that a split made.
        seen: bits of the `Step`s that have happened.
        created, upd: epoch seconds.
        modified, pay, audit, ship, end: epoch seconds, 0 where it has not happened.
        touches: how many times a touch changed it.
    """

    n: int
    sub: int
    seen: int
    created: int
    upd: int
    modified: int
    pay: int
    audit: int
    ship: int
    end: int
    touches: int

    @property
    def row(self) -> int:
        """The number that identifies this sid inside the sandbox."""
        return self.n * 4 + self.sub


def next_step(life: Life, at: int) -> int | None:
    """The second of the first step after `at`, or None when the order's life is over."""
    return next((second for second, _, _ in life if second > at), None)
