"""Cron expressions, checked before Airflow makes a DAG that cannot be read."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from datetime import timedelta
from fractions import Fraction
from itertools import pairwise

# The fields of a cron expression: least, most, words.
_CRON = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ("l",)),
    ("month", 1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
    ("weekday", 0, 7, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)
# How many values a field has when it says nothing, for counting; a weekday's 0 and 7 are one.
_WHOLE = (60, 24, 31, 12, 7)
_CRON_PART = re.compile(r"(?:\*|(\w+)(?:-(\w+))?)(?:/[1-9]\d*)?(?:#[1-5])?", re.ASCII)


def five_fields(value: str) -> str:
    """Return a cron expression that has five fields, each with values that it can have.

    Raises:
        ValueError: names the field that is wrong.
    """
    fields = value.split()
    if len(fields) != len(_CRON):
        raise ValueError("a cron expression has five fields, e.g. */5 * * * *")
    for field, (name, least, most, words) in zip(fields, _CRON, strict=True):
        for part in field.split(","):
            found = _CRON_PART.fullmatch(part)
            ends = [one.lower() for one in found.groups() if one] if found else [""]
            if not all(one in words or (one.isdecimal() and least <= int(one) <= most) for one in ends):
                allowed = f"{least} to {most}" + (f", {' '.join(words)}" if words else "")
                raise ValueError(
                    f"{part!r} is no {name}: {allowed}, or e.g. */5; a cron expression has five fields"
                )
    return value


def runs_a_day(value: str) -> Fraction:
    """Return how often a cron expression runs on an average day, about: months count 31 days, all of them.

    Args:
        value: an expression that `five_fields` has let pass.
    """
    shares = map(len, _fields(value))
    minutes, hours, *days = (min(share, whole) for share, whole in zip(shares, _WHOLE, strict=True))
    often = Fraction(minutes * hours)
    for share, whole in zip(days, _WHOLE[2:], strict=True):
        often *= Fraction(share, whole)
    return often


def longest_pause(value: str) -> timedelta:
    """Return the longest time between two runs of a cron expression, about: months are long ones.

    Args:
        value: an expression that `five_fields` has let pass.
    """
    minutes, hours, days, months, weekdays = _fields(value)
    times = sorted(60 * hour + minute for hour in hours for minute in minutes)
    apart = _days_apart(days, weekdays, max) + 31 * (max(_steps(months, 12)) - 1)
    overnight = times[0] + (24 * 60) * apart - times[-1]
    steps = [later - earlier for earlier, later in pairwise(times)]
    return timedelta(minutes=max([overnight, *steps]))


def intervals(value: str) -> list[tuple[timedelta, timedelta]]:
    """Return what lies between a run and the one before it, for each hour of a day, about.

    Where several intervals of one hour are equally long, only the last of them is returned. The day before
    is the nearest one that has runs.

    Args:
        value: an expression that `five_fields` has let pass.

    Returns:
        Begins and ends, from midnight before the end.
    """
    minutes, hours, days, _, weekdays = _fields(value)
    times = sorted(60 * hour + minute for hour in hours for minute in minutes)
    steps = pairwise([times[-1] - 24 * 60 * _days_apart(days, weekdays, min), *times])
    found = {(end // 60, end - begin): (begin, end) for begin, end in steps}
    return [(timedelta(minutes=begin), timedelta(minutes=end)) for begin, end in found.values()]


def _days_apart(
    days: Collection[int], weekdays: Collection[int], which: Callable[[Iterable[int]], int]
) -> int:
    """How many days lie between days with runs: `max` gives the most, `min` the fewest."""
    # Where both a day of the month and a weekday are given, either of them is enough.
    given = [
        which(_steps(found, whole))
        for found, whole in ((days, 31), ({day % 7 for day in weekdays}, 7))
        if len(found) < whole
    ]
    return min(given, default=1)


def _steps(found: Collection[int], whole: int) -> list[int]:
    """The steps from one value to the next, round and round."""
    values = sorted(found)
    return [later - earlier for earlier, later in pairwise([*values, values[0] + whole])]


def _fields(value: str) -> list[set[int]]:
    """The values of each of the five fields."""
    return [
        _values(field, least, most, words)
        for field, (_, least, most, words) in zip(value.split(), _CRON, strict=True)
    ]


def _values(field: str, least: int, most: int, words: tuple[str, ...]) -> set[int]:
    """The values of one field; of words only their number counts."""
    found: set[int] = set()
    for part in field.lower().split(","):
        ends, _, step = part.partition("#")[0].partition("/")
        low, _, high = ends.partition("-")
        first = least if low == "*" else _number(low, least, words)
        # `5/10` begins at 5 and has no end.
        last = most if low == "*" or (step and not high) else _number(high or low, least, words)
        found.update(range(first, max(first, last) + 1, int(step or 1)))
    return found


def _number(text: str, least: int, words: tuple[str, ...]) -> int:
    return int(text) if text.isdecimal() else words.index(text) + least
