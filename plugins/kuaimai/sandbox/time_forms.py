"""The forms in which the service writes times, and epoch seconds."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from kuaimai.sandbox.oddities import NO_TIME, OTHER_NO_TIME
from kuaimai.sandbox.world import GMT8

MILLISECONDS = 1_000
_SENTINELS = frozenset({NO_TIME, OTHER_NO_TIME})


def as_second(value: Any) -> int:
    """Epoch second of a time in any of the service's forms; 0 for none and for a sentinel."""
    if isinstance(value, str):
        if not value:
            return 0
        if not value.isdecimal():
            return int(datetime.fromisoformat(value).replace(tzinfo=GMT8).timestamp())
        value = int(value)
    return 0 if not value or value in _SENTINELS else int(value) // MILLISECONDS


def in_form_of(value: Any, second: int) -> int | str:
    """An epoch second in the form in which `value` is written."""
    if isinstance(value, str):
        return str(second * MILLISECONDS) if value.isdecimal() else time_text(second)
    return second * MILLISECONDS


def time_text(second: int) -> str:
    """`yyyy-MM-dd HH:mm:ss` in GMT+8."""
    return datetime.fromtimestamp(second, GMT8).strftime("%Y-%m-%d %H:%M:%S")
