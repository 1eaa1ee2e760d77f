"""What the runs below results/ say together: ratios, the limit set by the work, headroom, the goals."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench_budget import PROMISED_SHARE
from bench_memory import PROMISED_MIB

OURS = ("kuaimai-2", "kuaimai-3", "kuaimai-4")
"""Compared is the number of processes that suits a machine best, as with an expert's ways."""
MANY_ORDERS, USUAL_ORDERS, USUAL_LATENCY = 200_000, 20_000, 0.05
EXPERT = ("dlt-expert", "dlt-expert-without-zone", "dlt-expert-upsert", "dlt-expert-adbc")
"""An expert takes the fastest of these."""
RIVALS: dict[str, tuple[tuple[str, ...], float]] = {
    "http": (("http-operator",), 20.0),
    "documented": (("dlt-documented",), 10.0),
    "expert": (EXPERT, 2.5),
}
FLAT = 0.10

Run = dict[str, Any]


class Results:
    """The runs in the files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.ways = self._read(folder / "ways.json")
        self.memory = self._read(folder / "memory.json")
        self.budget = self._read(folder / "budget.json")
        self.faults = self._read(folder / "faults.json")

    def _read(self, file: Path) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {"runs": []}
        return found

    def run(self, way: str, orders: int, latency: float, limit: int = 0) -> Run | None:
        """Return what was measured of a way under these conditions, or None."""
        wanted = {"way": way, "orders": orders, "latency": latency, "rate_limit": limit}
        return next((one for one in self.ways["runs"] if wanted.items() <= one.items()), None)

    def good(self, way: str, orders: int, latency: float = USUAL_LATENCY, limit: int = 0) -> Run | None:
        """Return the run if it ended well and wrote what it should."""
        run = self.run(way, orders, latency, limit)
        return run if run and run["ended"] == "ok" and not run["wrong"] else None

    def ours(self, orders: int, latency: float = USUAL_LATENCY, limit: int = 0) -> Run | None:
        """Return the fastest run of this package under these conditions."""
        return self.fastest(OURS, orders, latency, limit)

    def fastest(
        self, ways: Sequence[str], orders: int, latency: float = USUAL_LATENCY, limit: int = 0
    ) -> Run | None:
        """Return the fastest of some ways' good runs."""
        runs = [run for way in ways if (run := self.good(way, orders, latency, limit))]
        return min(runs, key=lambda run: float(run["wall"]), default=None)


def cpu(run: Run) -> float:
    """CPU seconds of a way and of PostgreSQL for it."""
    return float(run["cpu"]) + float(run["postgres_cpu"])


@dataclass(frozen=True)
class Bound:
    """The limit set by the work itself.

    Attributes:
        orders: how many the figures are of.
        parse: CPU seconds of orjson.
        explode: CPU seconds from there to Arrow tables.
        write: CPU seconds of PostgreSQL's COPY and merge.
        cores: of the machine.
        by_cpu: orders a second that these CPU seconds allow on the cores.
        together: orders a second of a process a core that does this work at the same time as the others;
            None if it was not measured.
    """

    orders: int
    parse: float
    explode: float
    write: float
    cores: int
    together: float | None

    @property
    def work(self) -> float:
        """CPU seconds of one order."""
        return (self.parse + self.explode + self.write) / self.orders

    @property
    def possible(self) -> float:
        """Orders a second that the bare work reached on all cores at once; by CPU seconds if not measured."""
        return self.together or self.by_cpu

    @property
    def by_cpu(self) -> float:
        """Orders a second that the CPU seconds allow."""
        return self.cores / self.work


def bound(results: Results) -> Bound | None:
    """Return the limit, of as many orders as it was measured with."""
    for orders in (MANY_ORDERS, USUAL_ORDERS):
        parse, write = results.good("parse", orders, 0.0), results.good("write", orders, 0.0)
        together = next(
            (run for each in (orders, USUAL_ORDERS) if (run := results.good("bare-work", each, 0.0))), None
        )
        if parse and write:
            return Bound(
                orders,
                parse["output"]["parse"],
                parse["output"]["explode"],
                write["postgres_cpu"],
                results.ways["machine"]["cores"],
                together["orders"] / together["output"]["seconds"] if together else None,
            )
    return None


def ours_beside(limit: Bound | None, results: Results) -> Run | None:
    """Return our run of as many orders as the limit is of: a merge into larger tables costs more."""
    return limit and results.ours(limit.orders)


def most_orders(results: Results, rival: str | None = None) -> int:
    """Return the most orders that this package, and the rival, were measured with; else the usual number."""
    for orders in (1_000_000, MANY_ORDERS):
        if results.ours(orders) and (rival is None or fastest(results, rival, orders)):
            return orders
    return USUAL_ORDERS


def fastest(results: Results, rival: str, orders: int) -> Run | None:
    """Return the best run of a rival with so many orders."""
    return results.fastest(RIVALS[rival][0], orders)


def times(results: Results, rival: str, orders: int) -> float | None:
    """Return how many times faster this package is, or None where one of the two was not measured."""
    ours, other = results.ours(orders), fastest(results, rival, orders)
    return other["wall"] / ours["wall"] if ours and other else None


@dataclass(frozen=True)
class Goal:
    """One promise about speed, memory or the budget, and what was measured.

    Attributes:
        name: of its words.
        reached: the figure as text; empty if it was not measured.
        met: whether it was.
        orders: with how many orders; 0 where it is about something else.
        wanted: orders a second that it would take, where that is more than the bare work allows; else 0.
    """

    name: str
    reached: str
    met: bool
    orders: int = 0
    wanted: float = 0.0


def goals(results: Results) -> Iterator[Goal]:
    """Yield every goal that was set."""
    limit = bound(results)
    possible = limit.possible if limit else float("inf")
    for name, (_, goal) in RIVALS.items():
        orders = most_orders(results, name)
        reached, other = times(results, name, orders), fastest(results, name, orders)
        if reached is None or other is None:
            yield Goal(name, "", met=False)
            continue
        wanted = goal * other["orders"] / other["wall"]
        met = round(reached, 1) >= goal
        yield Goal(
            name, f"{reached:.1f}", met, orders, wanted=wanted if not met and wanted > possible else 0.0
        )
    ours = ours_beside(limit, results)
    if limit and ours:
        share = ours["orders"] / ours["wall"] / limit.by_cpu
        met, half = share >= 0.5, limit.by_cpu / 2  # noqa: PLR2004 - half is the goal
        yield Goal(
            "bound", f"{share:.0%}", met, limit.orders, wanted=half if not met and half > possible else 0.0
        )
    peaks = [run["peak_mib"] for run in sorted(results.memory["runs"], key=lambda one: int(one["orders"]))]
    if peaks:
        most = max(max(one.values()) for one in peaks)
        growth = max(peaks[-1][stage] / peaks[0][stage] - 1 for stage in peaks[0])
        yield Goal("memory", f"{most:.0f} MiB", most < PROMISED_MIB)
        yield Goal("flat", f"+{growth:.0%}", growth <= FLAT)
    spent = results.budget["runs"]
    if spent:
        used = min(run["used"] for run in spent)
        over = max(run["most_in_one_second"] - run["allowed_in_one_second"] for run in spent)
        most = max(run["most_in_one_second"] for run in spent)
        yield Goal("budget", f"{used:.1%}", used >= PROMISED_SHARE)
        yield Goal("burst", f"{most}", over <= 0)
