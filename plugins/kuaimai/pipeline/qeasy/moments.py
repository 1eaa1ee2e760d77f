"""Times: the window of a run, and the forms in which times come and are written. All in GMT+8."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from kuaimai.gateway.clock import GATEWAY_ZONE
from kuaimai.pipeline.qeasy.exact import exact
from kuaimai.transform.fields import NO_TIME_MS

DATETIME = "%Y-%m-%d %H:%M:%S"

# Epoch numbers from here on are milliseconds: in seconds this would be the year 5138.
_MILLISECONDS_FROM = 10**11
_LATEST_SECOND = 253_402_271_999  # 9999-12-31
_NO_TIME = ("0000-00-00", "9999-12-31")
_TEXT = re.compile(
    r"(\d{4})[-/](\d{1,2})[-/](\d{1,2})(?:[T ](\d{1,2}):(\d{2})(?::(\d{2})(?:\.\d+)?)?)?(Z|[+-]\d{2}:?\d{2})?"
)
_COMPACT = re.compile(r"((?:19|20)\d{2})(\d{2})(\d{2})(?:(\d{2})(\d{2})(\d{2}))?")
_EPOCH = re.compile(r"\d{9,13}")


@dataclass(frozen=True)
class RunWindow:
    """What a run covers; every time in its requests comes from here and from nowhere else.

    `LAST_SYNC_TIME` is the start, `CURRENT_TIME` the end. They are the scheduler's, not the time of an
    earlier dispatch: a run that failed is repeated with the same window, so nothing advances past a failure.

    Attributes:
        start: first instant, with zone.
        end: last instant, with zone.
        now: the moment of the run, with zone; what `NOW()` and `DAYS_AGO_n` count from.
    """

    start: datetime
    end: datetime
    now: datetime

    def __post_init__(self) -> None:
        """Refuse times without a zone: they would mean something else on every machine."""
        for name in ("start", "end", "now"):
            if getattr(self, name).tzinfo is None:
                raise ValueError(f"the window's {name} has no zone")


def to_wall(moment: datetime) -> datetime:
    """Return an instant as the merchant's wall clock shows it, without zone."""
    return moment.astimezone(GATEWAY_ZONE).replace(tzinfo=None)


def to_epoch(wall: datetime) -> int:
    """Return the epoch second of a wall clock time."""
    return int(wall.replace(tzinfo=GATEWAY_ZONE).timestamp())


def read_time(value: Any) -> datetime | None:
    """Return the wall clock time that a value means; None for nothing and for the API's "no time" values.

    Accepts epoch seconds and milliseconds as numbers or digits, `yyyy-MM-dd[ HH:mm[:ss]]` with dashes or
    slashes, with `T` and with a zone, and `yyyyMMdd[HHmmss]`.

    Raises:
        ValueError: it is none of these.
    """
    if value is None or value == "":
        return None
    if isinstance(value, datetime):
        return to_wall(value) if value.tzinfo else value
    if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
        raise ValueError(f"a {type(value).__name__} is no time")
    if isinstance(value, str):
        text = value.strip()
        if text.startswith(_NO_TIME):
            return None
        if found := _TEXT.fullmatch(text) or _COMPACT.fullmatch(text):
            return _from_parts(text, found)
        if not _EPOCH.fullmatch(text):
            raise ValueError(f"not a time: {value!r}")
        return _from_epoch(Decimal(text))
    return _from_epoch(exact(Decimal(value)))


def _from_epoch(value: Decimal) -> datetime | None:
    if value == 0 or value in NO_TIME_MS:
        return None
    seconds = int(value) // 1000 if abs(value) >= _MILLISECONDS_FROM else int(value)
    if not 0 < seconds <= _LATEST_SECOND:
        raise ValueError(f"not a time: {value}")
    return to_wall(datetime.fromtimestamp(seconds, GATEWAY_ZONE))


def _from_parts(text: str, found: re.Match[str]) -> datetime:
    zone = found[7] if found.re is _TEXT else None
    try:
        wall = datetime(*(int(part or 0) for part in found.groups()[:6]))  # type: ignore[arg-type]  # noqa: DTZ001 - a wall clock
    except ValueError:
        raise ValueError(f"not a time: {text!r}") from None
    if zone is None:
        return wall
    offset = timedelta()
    if zone != "Z":
        hours, minutes = int(zone[1:3]), int(zone[-2:])
        offset = timedelta(hours=hours, minutes=minutes) * (-1 if zone[0] == "-" else 1)
    return wall - offset + timedelta(hours=8)
