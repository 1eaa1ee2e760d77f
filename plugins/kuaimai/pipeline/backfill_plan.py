"""What a backfill reads and what that costs: the figures, and the table for people."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from kuaimai.extract.windows import Slice
from kuaimai.gateway.clock import GATEWAY_ZONE

ROWS_PER_SLICE = 20_000
"""At most so many; two neighbours of one day together hold more, so slices have 10,000 or more on average."""


class PlannedDay(msgspec.Struct, frozen=True):
    """One line of a plan: a day, or what is left to read of it, of one group of shops.

    Attributes:
        start: first instant, with zone.
        end: last instant.
        shops: ids.
        archive: whether it is read from the archive.
        rows: records of the base method by the gateway's count; None where it sends none.
        slices: how many slices it is cut into.
        requests: what reading it costs; where `rows` is None, the least that it can cost.
    """

    start: datetime
    end: datetime
    shops: tuple[str, ...]
    archive: bool
    rows: int | None
    slices: int
    requests: int


class BackfillPlan(msgspec.Struct, frozen=True):
    """What a backfill reads, and what that costs.

    Attributes:
        pipeline: name of the pipeline.
        dimension: the time by which it reads.
        start: begin of the time asked for.
        end: its end.
        shops: how many shops.
        slices: in the order to read: oldest first, the archive before everything.
        days: the lines of the table.
        sealed_days: how much of the time is sealed already and left out, in days (the mean of the shops).
        probes: requests spent on planning.
        rate: the budget, requests a second.
    """

    pipeline: str
    dimension: str
    start: datetime
    end: datetime
    shops: int
    slices: tuple[Slice, ...]
    days: tuple[PlannedDay, ...]
    sealed_days: float
    probes: int
    rate: float

    @property
    def rows(self) -> int:
        """Records to read, as far as the gateway counts them."""
        return sum(day.rows or 0 for day in self.days)

    @property
    def uncounted(self) -> int:
        """How many lines of the table have no count."""
        return sum(day.rows is None for day in self.days)

    @property
    def requests(self) -> int:
        """Requests to spend; the least, if something is uncounted."""
        return sum(day.requests for day in self.days)

    @property
    def minutes(self) -> float:
        """How long that takes if nothing else spends the budget."""
        return self.requests / self.rate / 60

    @property
    def hourly_share(self) -> float:
        """The requests as a share of what the budget allows in one hour; 2.0 is two hours of all of it."""
        return self.requests / (self.rate * 3600)

    def figures(self) -> dict[str, float | int]:
        """The totals, as plain numbers."""
        return {
            "slices": len(self.slices),
            "rows": self.rows,
            "uncounted_days": self.uncounted,
            "requests": self.requests,
            "minutes": round(self.minutes, 1),
            "hourly_share": round(self.hourly_share, 3),
            "sealed_days": round(self.sealed_days, 2),
            "probes": self.probes,
        }

    def plain(self) -> dict[str, Any]:
        """The plan as plain JSON: what was asked for, the totals, the days; without the slices."""
        lines: dict[str, Any] = msgspec.to_builtins(self)
        del lines["slices"]
        return {**lines, **self.figures(), "days": lines["days"]}

    def pretty(self) -> str:
        """The plan as a table for people; times are GMT+8."""
        least = "at least " if self.uncounted else ""
        asked = (self.end - self.start) / timedelta(days=1)
        lines = [
            f"{self.pipeline} by {self.dimension}: {wall_clock(self.start)} to {wall_clock(self.end)} GMT+8",
            *_table([*(self._line(day) for day in self.days), self._total()]),
            f"{self.shops} shops; {self.sealed_days:.1f} of {asked:.1f} days are sealed already and left out",
            f"{least}{self.requests:,} requests, {self.hourly_share:.1%} of an hour's budget",
            f"{least}{self.minutes:,.1f} minutes at {self.rate:g} requests a second, if nothing goes first",
        ]
        if self.uncounted:
            lines.append("unknown: the archive sends no totals")
        return "\n".join(lines)

    def _line(self, day: PlannedDay) -> tuple[str, ...]:
        start, end = day.start.astimezone(GATEWAY_ZONE), day.end.astimezone(GATEWAY_ZONE)
        label = f"{start:%Y-%m-%d}"
        if end - start < timedelta(days=1):
            label += f" {start:%H:%M}-{'24:00' if end.date() > start.date() else f'{end:%H:%M}'}"
        least = "" if day.rows is not None else ">= "
        return (
            f"{label} archive" if day.archive else label,
            day.shops[0] if len(day.shops) == 1 else f"{day.shops[0]} + {len(day.shops) - 1}",
            "unknown" if day.rows is None else f"{day.rows:,}",
            f"{day.slices:,}",
            f"{least}{day.requests:,}",
            f"{least}{day.requests / self.rate / 60:.1f}",
        )

    def _total(self) -> tuple[str, ...]:
        least = ">= " if self.uncounted else ""
        return (
            "total",
            "",
            f"{least}{self.rows:,}",
            f"{len(self.slices):,}",
            f"{least}{self.requests:,}",
            f"{least}{self.minutes:.1f}",
        )


def wall_clock(moment: datetime) -> str:
    """Return an instant as the merchant's clock shows it, to the minute."""
    return f"{moment.astimezone(GATEWAY_ZONE):%Y-%m-%d %H:%M}"


_HEAD = ("day", "shops", "rows", "slices", "requests", "minutes")


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    columns = list(zip(_HEAD, *rows, strict=True))
    widths = [max(len(cell) for cell in column) for column in columns]
    return [
        "  ".join(
            cell.ljust(width) if at < 2 else cell.rjust(width)  # noqa: PLR2004 - the words, then the numbers
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (_HEAD, *rows)
    ]
