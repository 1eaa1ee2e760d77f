"""How often a cron expression runs, so that the rhythms of a source and of a target can be compared."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction

import pytest

from kuaimai.pipeline.cron import five_fields, longest_pause, runs_a_day


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
