"""Cron expressions, checked before Airflow makes a DAG that cannot be read."""

from __future__ import annotations

import re

# The fields of a cron expression: least, most, words.
_CRON = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ("l",)),
    ("month", 1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
    ("weekday", 0, 7, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)
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
