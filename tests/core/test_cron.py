"""How often a cron expression runs, so that the rhythms of a source and of a target can be compared."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction

import pytest

from kuaimai.pipeline.cron import five_fields, intervals, longest_pause, runs_a_day


@pytest.mark.parametrize(
    ("cron", "often"),
    [
        ("* * * * *", 1440),
        ("*/5 * * * *", 288),
        ("7-59/20 * * * *", 72),
        ("5/20 8 * * *", 3),
        ("0,30 9-18 * * *", 20),
        ("3 2,3 * * *", 2),
        ("23 2 * * *", 1),
        ("0 6 * * mon-fri", Fraction(5, 7)),
        ("0 6 * * 0,7", Fraction(2, 7)),
        ("0 6 1 * *", Fraction(1, 31)),
        ("0 6 l jan,jul *", Fraction(2, 31 * 12)),
        ("0 6 * * 5#2", Fraction(1, 7)),
    ],
)
def test_runs_a_day(cron, often):
    assert runs_a_day(five_fields(cron)) == often


@pytest.mark.parametrize(
    ("cron", "hours"),
    [
        ("*/30 * * * *", 0.5),
        ("7 * * * *", 1),
        ("*/30 9-21 * * *", 11.5),
        ("23 2 * * *", 24),
        ("0 3 * * 1", 7 * 24),
        ("0 3 * * 0,7", 7 * 24),
        ("30 12 * * 1-5", 3 * 24),
        ("0 0 1 * *", 31 * 24),
        ("0 0 1 * 1", 7 * 24),
    ],
)
def test_longest_pause(cron, hours):
    assert longest_pause(five_fields(cron)) == timedelta(hours=hours)


@pytest.mark.parametrize(
    ("cron", "first", "last", "many"),
    [
        ("*/5 * * * *", (50, 55), (23 * 60 + 50, 23 * 60 + 55), 24),
        ("0,50 9-10 * * *", (10 * 60 + 50 - 24 * 60, 9 * 60), (10 * 60, 10 * 60 + 50), 4),
        ("23 2 * * *", (143 - 24 * 60, 143), (143 - 24 * 60, 143), 1),
        ("0 6 * * 1-5", (360 - 24 * 60, 360), (360 - 24 * 60, 360), 1),
        ("0 6 * * 1", (360 - 7 * 24 * 60, 360), (360 - 7 * 24 * 60, 360), 1),
    ],
)
def test_intervals_of_a_day(cron, first, last, many):
    found = [tuple(int(one.total_seconds()) // 60 for one in ends) for ends in intervals(five_fields(cron))]
    assert (found[0], found[-1], len(found)) == (first, last, many)
