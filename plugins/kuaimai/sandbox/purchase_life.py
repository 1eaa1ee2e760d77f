"""The life of a purchase order: when it is written, approved, arrives or is closed, and what it buys."""

from __future__ import annotations

from typing import NamedTuple

from kuaimai.sandbox.items import Unit, units_of
from kuaimai.sandbox.merchant import SOLD_ITEMS, WAREHOUSES
from kuaimai.sandbox.series import Series, series
from kuaimai.sandbox.shelf import Record
from kuaimai.sandbox.world import HOUR, MINUTE, World

PARTS = 2
"""The most arrivals that an order has."""

_MAX_LINES = 4


class Line(NamedTuple):
    """One line of an order: what, how many, for how many fen each."""

    unit: Unit
    pieces: int
    price: int


class Plan(NamedTuple):
    """The whole life of purchase order `n`; times are epoch seconds, `closed` is 0 where goods arrive."""

    n: int
    draws: tuple[int, ...]
    written: int
    submitted: int
    approved: int
    arrivals: tuple[int, ...]
    closed: int

    @property
    def warehouse(self) -> Record:
        """Where the goods go."""
        return WAREHOUSES[self.draws[1] % len(WAREHOUSES)]


def _orders(world: World) -> Series:
    return series(world, "purchase", world.purchases_per_day, archived=world.archive_documents)


def planned(world: World, at: int) -> int:
    """How many orders have been written by the second `at`, or one more."""
    return _orders(world).planned(at)


def plan_of(world: World, n: int) -> Plan:
    """The life of order `n`."""
    orders = _orders(world)
    draws, written = orders.draws(n), orders.slot(n)
    submitted = written + 5 * MINUTE + draws[2] % (30 * MINUTE)
    approved = submitted + 10 * MINUTE + draws[3] % (2 * HOUR)
    if draws[4] % 12 == 0:
        return Plan(n, draws, written, submitted, approved, (), approved + HOUR)
    first = approved + HOUR + draws[5] % (16 * HOUR)
    second = first + 6 * HOUR + draws[7] % (16 * HOUR)
    return Plan(n, draws, written, submitted, approved, (first, second) if draws[6] % 2 else (first,), 0)


def lines_of(world: World, plan: Plan) -> list[Line]:
    """The order's lines; now and then two of them buy the same SKU."""
    sold = [unit for item in range(SOLD_ITEMS) for unit in units_of(world, item)]
    lines: list[Line] = []
    for at in range(1 + plan.draws[8] % _MAX_LINES):
        again = lines and plan.draws[9 + at] % 9 == 0
        unit = lines[-1].unit if again else sold[plan.draws[9 + at] % len(sold)]
        lines.append(Line(unit, 10 * (1 + plan.draws[13 + at] % 20), unit.cost))
    return lines


def arrived_by(plan: Plan, count: int, at: int) -> int:
    """How many of `count` pieces have arrived by `at`."""
    return sum(part_of(plan, count, part) for part, second in enumerate(plan.arrivals) if second <= at)


def part_of(plan: Plan, count: int, part: int) -> int:
    """How many of `count` pieces come with the given arrival."""
    first = count if len(plan.arrivals) == 1 else count * 2 // 5
    return count - first if part else first


def status_at(plan: Plan, at: int) -> str:
    """The order's `status` at the second `at`."""
    if plan.closed and at >= plan.closed:
        return "GOODS_CLOSED"
    arrived = sum(second <= at for second in plan.arrivals)
    if arrived:
        return "FINISHED" if arrived == len(plan.arrivals) else "GOODS_PART_ARRIVED"
    if at >= plan.approved:
        return "GOODS_NOT_ARRIVED"
    return "VERIFYING" if at >= plan.submitted else "WAIT_VERIFY"
