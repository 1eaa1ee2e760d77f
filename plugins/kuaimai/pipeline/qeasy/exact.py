"""Exact decimals: what every calculation of a strategy uses instead of a float."""

from __future__ import annotations

from decimal import Context, Decimal, DivisionByZero, InvalidOperation, Overflow
from typing import Any

# MySQL's DECIMAL has 65 digits. Far more here, so that a product of two of them is still exact; what would
# have to be rounded beyond that is refused (`exact`).
_DIGITS = 200
EXACT = Context(prec=_DIGITS, traps=[InvalidOperation, DivisionByZero, Overflow])
# A number of more digits is no amount and no id; calculating with it only costs time.
_MOST_DIGITS = 100


def to_decimal(value: Any) -> Decimal:
    """Return a number, or digits in text, exactly.

    Raises:
        ValueError: it is neither, or too long to be meant.
    """
    if isinstance(value, bool):
        return Decimal(int(value))
    if isinstance(value, str):
        text = value.strip()
        try:
            number = Decimal(text)
        except InvalidOperation:
            raise ValueError(f"not a number: {value[:40]!r}") from None
        if not text.isascii() or "_" in text:
            raise ValueError(f"not a number: {value[:40]!r}")
    elif isinstance(value, int | Decimal):
        number = Decimal(value)
    else:
        raise ValueError(f"a {type(value).__name__} where a number belongs")
    return exact(number)


def exact(number: Decimal) -> Decimal:
    """Return the number if it is one that can be meant.

    Raises:
        ValueError: it is infinite or no number, or has more than a hundred digits.
    """
    if not number.is_finite():
        raise ValueError(f"not a number: {number}")
    _, digits, exponent = number.as_tuple()
    if len(digits) > _MOST_DIGITS or abs(int(exponent)) > _MOST_DIGITS:
        raise ValueError(f"a number of more than {_MOST_DIGITS} digits")
    return number or abs(number)  # there is no minus zero


def plain(number: Decimal) -> int | Decimal:
    """Return a whole number without places as an integer, any other as it is."""
    return int(number) if int(number.as_tuple().exponent) >= 0 else number
