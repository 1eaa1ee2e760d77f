"""One value at a time: from what the API sends to what the catalogue promises, exact or refused.

Nothing passes through a float. A value that does not fit its type raises `ValueError`; the record then goes
to quarantine whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from kuaimai.extract.skim import LONGEST_KEY
from kuaimai.gateway.answers import encode_json
from kuaimai.gateway.catalog import FieldType
from kuaimai.gateway.clock import GATEWAY_ZONE

# "No time" in the API: 2000-01-01 and 2001-01-01, both 00:00 +08:00 (reference 8.1).
NO_TIME_MS = frozenset({946_656_000_000, 978_278_400_000})

# 1973 to 5138: outside, the unit is not milliseconds.
MOMENTS = range(10**11, 10**14)

_NO_TIME_TEXTS = ("0000-00-00", "9999-12-31")

_WHOLE_DIGITS = 20
_DECIMAL_PLACES = 18
_FEN_PLACES = 2  # 1 yuan is 100 fen
_INT64 = range(-(2**63), 2**63)
# Text that no target stores: NUL, and halves of surrogate pairs.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_TEXT_TIME = re.compile(r"\d{4}-\d{2}-\d{2}( \d{2}:\d{2}:\d{2})?")


def to_text(value: Any) -> str | None:
    """Return text; numbers become their digits, lists and objects are refused."""
    if value is None:
        return None
    if isinstance(value, str):
        if _UNSTORABLE.search(value):
            raise ValueError("text holds a character that cannot be stored (NUL or half a surrogate pair)")
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | Decimal):
        return str(value)
    raise ValueError(f"a {type(value).__name__} where text belongs")


def to_id(value: Any) -> str | None:
    """Return an id as text; an empty one is none."""
    if isinstance(value, Decimal):
        raise ValueError(f"an id with a fraction: {value}")
    text = to_text(value) or None
    if text and len(text) > LONGEST_KEY:
        raise ValueError(
            f"an id of {len(text)} characters, more than the {LONGEST_KEY} that every target stores"
        )
    return text


def to_integer(value: Any) -> int | None:
    """Return a whole number in 64 bits; digits in text and true/false are accepted."""
    if value is None or value == "":
        return None
    if isinstance(value, int):  # bool is an int: true is 1
        number = int(value)
    elif isinstance(value, str | Decimal):
        exact = _decimal(value)
        if exact.adjusted() >= _WHOLE_DIGITS:  # int(Decimal("1e99999999")) would never end
            raise ValueError(f"a whole number beyond 64 bits: {value}")
        number = int(exact)
        if number != exact:
            raise ValueError(f"not a whole number: {value}")
    else:
        raise ValueError(f"a {type(value).__name__} where a whole number belongs")
    if number not in _INT64:
        raise ValueError(f"a whole number beyond 64 bits: {value}")
    return number


def to_decimal(value: Any) -> Decimal | None:
    """Return an exact decimal from a number or from text; no unit is changed."""
    return _amount(value, 0)


def fen_to_yuan(value: Any) -> Decimal | None:
    """Return an amount in yuan, exactly, from one in fen."""
    return _amount(value, _FEN_PLACES)


def _amount(value: Any, shift: int) -> Decimal | None:
    """Return an exact decimal with its point moved `shift` places to the left."""
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        raise ValueError(f"a {type(value).__name__} where an amount belongs")
    number = _decimal(value)
    if not number:
        return Decimal(0)
    sign, digits, exponent = number.as_tuple()
    # Looked at digit by digit: arithmetic would round at the context's precision first.
    places = shift - int(exponent)
    while places > _DECIMAL_PLACES and digits[-1] == 0:
        digits, places = digits[:-1], places - 1
    if number.adjusted() - shift >= _WHOLE_DIGITS or places > _DECIMAL_PLACES:
        raise ValueError(f"not an amount of {_WHOLE_DIGITS} digits and {_DECIMAL_PLACES} places: {value}")
    return Decimal((sign, digits, -places))


def to_epoch_ms(value: Any) -> int | None:
    """Return an instant as epoch milliseconds; the API's "no time" values are none.

    Accepts epoch ms as a number or digits, and `yyyy-MM-dd[ HH:mm:ss]` in GMT+8.
    """
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        raise ValueError("true/false where a time belongs")
    if isinstance(value, str):
        text = value.strip()
        if text.startswith(_NO_TIME_TEXTS):
            return None
        if _TEXT_TIME.fullmatch(text):
            moment = datetime.fromisoformat(text).replace(tzinfo=GATEWAY_ZONE)
            stamp = int(moment.timestamp()) * 1000
        else:
            stamp = to_integer(text) or 0
    elif isinstance(value, int | Decimal):
        stamp = to_integer(value) or 0
    else:
        raise ValueError(f"a {type(value).__name__} where a time belongs")
    if stamp <= 0 or stamp in NO_TIME_MS:
        return None
    if stamp not in MOMENTS:
        raise ValueError(f"not an instant in milliseconds: {value}")
    return stamp


def to_json(value: Any) -> str | None:
    """Return a nested value as JSON text; lists are sorted, as their order changes from call to call."""
    if value is None:
        return None
    if isinstance(value, list):
        parts = sorted(encode_json(element) for element in value)
        text = b"[" + b",".join(parts) + b"]"
    else:
        text = encode_json(value)
    if b"\\u0000" in text:
        raise ValueError("text holds a character that cannot be stored (NUL)")
    return text.decode()


CONVERTERS: dict[FieldType, Callable[[Any], Any]] = {
    "id": to_id,
    "text": to_text,
    "integer": to_integer,
    "number": to_decimal,
    "yuan": to_decimal,
    "fen": fen_to_yuan,
    "time": to_epoch_ms,
    "json": to_json,
}


def _decimal(value: str | int | Decimal) -> Decimal:
    try:
        number = Decimal(value.strip()) if isinstance(value, str) else Decimal(value)
    except InvalidOperation:
        raise ValueError(f"not a number: {value!r}") from None
    if not number.is_finite():
        raise ValueError(f"not a number: {value!r}")
    return number
