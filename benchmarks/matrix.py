"""What `make bench` runs: steps with the minutes that each takes on two quiet cores."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench_faults import FAULTS, USUAL
from bench_ways import LIMITS, RESULTS, WAYS
from corpus import FOLDER, PAGE_SIZE

SCRIPTS = Path(__file__).resolve().parent
EVERY = tuple(WAYS)
BARE = ("parse", "write", "bare-work")
DOWNLOADS = ("download-1", "download-8", "download-32")

# Where a way was never measured: orders a second, a start, and what its slowest connection waits for a page.
_UNKNOWN_RATE = 500.0
_START_SECONDS = 8.0
_AROUND_SECONDS = 2.0  # the gateway, the database, comparing with the truth
_RENDERED_A_SECOND = 2_000.0
_FAULT_SECONDS = 10.0


@dataclass(frozen=True)
class Step:
    """One script with its arguments.

    Attributes:
        name: for the command line and for going on after a break.
        environment: the virtual environment that runs it.
        command: the script and its arguments.
        seconds: how long it takes, about.
    """

    name: str
    environment: str
    command: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Cells:
    """Ways under the same conditions: one call of bench_ways.py."""

    ways: tuple[str, ...]
    orders: int
    latency: float = 0.05
    rate_limit: int = 0
    repeat: int = 1

    @property
    def name(self) -> str:
        """The conditions in a word."""
        limit = f"-limit-{self.rate_limit}" if self.rate_limit else ""
        kind = "limits" if set(self.ways) <= set(LIMITS) else "ways"
        return f"{kind}-{self.orders}-{self.latency * 1000:.0f}ms{limit}"

    def step(self, measured: Iterable[dict[str, object]]) -> Step:
        """The step that measures them; a way that takes four times as long as thought is ended."""
        each = [_seconds(way, self, measured) for way in self.ways]
        rendering = 0.0 if _rendered(self.orders) else self.orders / _RENDERED_A_SECOND
        return Step(
            self.name,
            "bench",
            (
                *("bench_ways.py", *self.ways, "--orders", str(self.orders)),
                *("--latency", str(self.latency), "--rate-limit", str(self.rate_limit)),
                *("--repeat", str(self.repeat), "--most-seconds", f"{max(170.0, 4 * max(each)):.0f}"),
            ),
            sum(each) * self.repeat + rendering,
        )


def _rendered(orders: int) -> bool:
    return (FOLDER / f"corpus-{orders}" / "truth.json").exists()


def _seconds(way: str, cells: Cells, measured: Iterable[dict[str, object]]) -> float:
    """How long one run takes: as it did, or as it did with other orders, or a guess."""
    runs = [one for one in measured if one["way"] == way and one["ended"] == "ok"]
    same = [
        one
        for one in runs
        if (one["orders"], one["latency"], one["rate_limit"])
        == (cells.orders, cells.latency, cells.rate_limit)
    ]
    if same:
        return float(str(same[0]["wall"])) + _AROUND_SECONDS
    rates = [float(str(one["orders_per_second"])) for one in runs if one["latency"] == cells.latency]
    alone = cells.orders / PAGE_SIZE * cells.latency
    working = cells.orders / (max(rates) if rates else _UNKNOWN_RATE)
    if way in LIMITS:
        return _START_SECONDS + alone + working / 4
    return _START_SECONDS + _AROUND_SECONDS + working + (0 if rates else alone)


def _fixed(*, memory: Sequence[str], idle_runs: int) -> list[Step]:
    return [
        Step("parse", "airflow3", ("bench_parse.py",), 60),
        Step("stages", "airflow3", ("bench_stages.py",), 60),
        Step("idle-run", "airflow3", ("bench_idle_run.py", str(idle_runs)), 90 + 60 * (idle_runs + 1)),
        Step("faults", "bench", ("bench_faults.py",), len(FAULTS) * len(USUAL) * _FAULT_SECONDS),
        Step("memory", "bench", ("bench_memory.py", *memory), sum(20 + int(size) / 4_000 for size in memory)),
        Step("budget", "bench", ("bench_budget.py",), 150),
    ]


def selection(*, whole: bool) -> list[Step]:
    """Return the steps: every way and every claim once, or the whole matrix."""
    measured = json.loads(RESULTS.read_text())["runs"] if RESULTS.exists() else []
    if whole:
        fixed = _fixed(memory=("20000", "200000", "1000000"), idle_runs=4)
        cells = [
            Cells(EVERY, 20_000, repeat=2),
            Cells(EVERY, 20_000, latency=0.0),
            Cells(EVERY, 20_000, latency=0.2),
            Cells(EVERY, 20_000, rate_limit=15),
            Cells(BARE, 20_000, latency=0.0),
            *(Cells(DOWNLOADS, 20_000, latency=latency) for latency in (0.0, 0.05, 0.2)),
            Cells(("kuaimai-4", "kuaimai-3", "dlt-expert", "dlt-expert-without-zone"), 200_000, repeat=3),
            Cells(("session", "http-operator", "dlt-documented", "dlt-tuned"), 200_000),
            Cells(("kuaimai-4",), 200_000, rate_limit=15),
            Cells(BARE, 200_000, latency=0.0),
            Cells(("kuaimai-4", "dlt-expert"), 1_000_000),
        ]
    else:
        fixed = _fixed(memory=("20000", "200000"), idle_runs=2)
        cells = [
            Cells(EVERY, 20_000),
            Cells(("kuaimai-4", "session", "http-operator", "dlt-documented"), 20_000, rate_limit=15),
            Cells(BARE, 20_000, latency=0.0),
            Cells(("download-8", "download-32"), 20_000),
            Cells(("kuaimai-4", "kuaimai-3", "dlt-expert"), 200_000),
        ]
    return fixed + _unique(one.step(measured) for one in cells)


def _unique(steps: Iterable[Step]) -> list[Step]:
    """Name steps with the same conditions apart, so that each can be named and gone on with."""
    found: dict[str, Step] = {}
    for step in steps:
        name, number = step.name, 2
        while name in found:
            name, number = f"{step.name}-{number}", number + 1
        found[name] = Step(name, step.environment, step.command, step.seconds)
    return list(found.values())
