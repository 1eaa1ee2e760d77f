"""Named formats of single values: behind the pipe of a template, and in `formatResponse`.

Numbers stay exact; a value that a format cannot take raises `ValueError` instead of becoming something else.
Sources: reference 5.3 and 5.4, and the platform's page on value formatting.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from typing import Any

from kuaimai.gateway.answers import encode_json
from kuaimai.pipeline.qeasy.exact import EXACT, exact, to_decimal
from kuaimai.pipeline.qeasy.findings import near
from kuaimai.pipeline.qeasy.moments import DATETIME, read_time, to_epoch

Formatter = Callable[[Any, datetime], Any]

_LONG_TEXT = 15
_NAMED = re.compile(r"(\w+)\s*(?:\(\s*(.*?)\s*\)|:\s*(.*?))?\s*", re.DOTALL)
_MOST_PLACES = 18
_AGO = (
    (365 * 86_400, "年"),
    (30 * 86_400, "个月"),
    (7 * 86_400, "周"),
    (86_400, "天"),
    (3_600, "小时"),
    (60, "分钟"),
)


@dataclass(frozen=True)
class Format:
    """A format with its argument, ready to be applied.

    Attributes:
        text: as written.
        apply: takes the value and the wall clock time of the run; None stays None.
    """

    text: str
    apply: Formatter


def pipe_format(text: str) -> Format:  # noqa: PLR0911 - one line per format
    """Return the format behind a template's pipe, e.g. `datetime`; the case of its name does not matter.

    Raises:
        ValueError: it is not known, or its argument makes no sense.
    """
    name, argument = _split(text)
    kind = name.lower()
    if kind in ("datetime", "date", "time") and argument is None:
        pattern = {"datetime": DATETIME, "date": "%Y-%m-%d", "time": "%H:%M:%S"}[kind]
        return Format(text, _timed(lambda wall, _now: wall.strftime(pattern)))
    if kind == "timestamp":
        return Format(text, _timed(lambda wall, _now: to_epoch(wall)))
    if kind == "timestamp_ms":
        return Format(text, _timed(lambda wall, _now: to_epoch(wall) * 1000))
    if kind == "string":
        return Format(text, _given(as_text))
    if kind == "number":
        return Format(text, _given(_rounding(_places(argument, 0))))
    if kind == "json_encode":
        return Format(text, _given(lambda value: encode_json(value).decode()))
    if kind == "replace" and argument is not None and argument.count(",") == 1:
        old, new = (_unquoted(part) for part in argument.split(","))
        return Format(text, _given(lambda value: as_text(value).replace(old, new)))
    if kind in ("datetime", "date", "format", "adddays"):
        raise ValueError(
            f"the format {text!r} is from the newer documentation only → "
            "write _function DATE_FORMAT(…, '%Y-%m-%d') or DATE_ADD(…, INTERVAL n DAY)"
        )
    known = ("datetime", "date", "time", "timestamp", "timestamp_ms", "string", "number", "json_encode")
    raise ValueError(f"unknown format {text!r} → {near(name, known)}")


def response_format(text: str) -> Format:  # noqa: PLR0911 - one line per format
    """Return a format of `formatResponse`, e.g. `round(2)`.

    Raises:
        ValueError: it is not known, or its argument makes no sense.
    """
    name, argument = _split(text)
    patterns = {
        "date": "%Y-%m-%d",
        "time": "%H:%M:%S",
        "datetime": "%Y-%m-%d %H:%M",  # without seconds, unlike the pipe's
        "shortdate": "%m-%d",
        "shorttime": "%H:%M",
        "shortdatetime": "%m-%d %H:%M",
    }
    kind = name.lower()
    if kind in patterns:
        return Format(text, _timed(lambda wall, _now: wall.strftime(patterns[kind])))
    if kind == "datedescription":
        return Format(text, _timed(_ago))
    if kind == "longtext":
        most = _places(argument, _LONG_TEXT, most=10_000)
        return Format(text, _given(lambda value: _shortened(as_text(value), most)))
    if kind == "intval":
        return Format(text, _given(lambda value: int(to_decimal(value).to_integral_value(ROUND_DOWN))))
    if kind == "round":
        return Format(text, _given(_rounding(_places(argument, 2))))
    if kind == "amount":
        cents = _rounding(2)
        return Format(text, _given(lambda value: _amount(cents(value))))
    if kind == "implode":
        separator = "," if argument is None else _unquoted(argument)
        return Format(text, _given(lambda value: _joined(value, separator)))
    known = (
        *("date", "time", "dateTime", "shortDate", "shortTime", "shortDateTime", "dateDescription"),
        *("longText", "intval", "round", "amount", "implode"),
    )
    raise ValueError(f"unknown format {text!r} → {near(name, known)}")


def as_text(value: Any) -> str:
    """Return a value as the text that is sent: numbers exactly, true/false, lists and objects as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return format(exact(value), "f")
    if isinstance(value, datetime):
        return value.strftime(DATETIME)
    if isinstance(value, list | dict):
        return encode_json(value).decode()
    return str(value)


def _given(apply: Callable[[Any], Any]) -> Formatter:
    return lambda value, _now: None if value is None else apply(value)


def _timed(apply: Callable[[datetime, datetime], Any]) -> Formatter:
    def formatted(value: Any, now: datetime) -> Any:
        wall = read_time(value)
        return None if wall is None else apply(wall, now)

    return formatted


def _rounding(places: int) -> Callable[[Any], Decimal]:
    unit = Decimal(1).scaleb(-places)
    return lambda value: to_decimal(value).quantize(unit, ROUND_HALF_UP, context=EXACT)


def _amount(value: Decimal) -> str:
    return ("-" if value < 0 else "") + f"￥{abs(value):,.2f}"


def _ago(wall: datetime, now: datetime) -> str:
    seconds = int((now - wall).total_seconds())
    for length, unit in _AGO:
        if seconds >= length:
            count = seconds // length
            return f"{'一' if count == 1 else count}{unit}前"
    return "刚刚"


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}..."


def _joined(value: Any, separator: str) -> str:
    if not isinstance(value, list):
        raise ValueError(f"a {type(value).__name__} where a list belongs")
    return separator.join("" if one is None else as_text(one) for one in value)


def _split(text: str) -> tuple[str, str | None]:
    found = _NAMED.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"not a format: {text!r}")
    argument = found[2] if found[2] is not None else found[3]
    return found[1], argument or None


def _places(argument: str | None, default: int, *, most: int = _MOST_PLACES) -> int:
    if argument is None:
        return default
    if not argument.isdecimal() or int(argument) > most:
        raise ValueError(f"{argument!r} is no whole number from 0 to {most}")
    return int(argument)


def _unquoted(text: str) -> str:
    text = text.strip() or text
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
