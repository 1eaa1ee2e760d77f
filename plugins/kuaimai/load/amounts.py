"""Amounts as exact text, for databases that are given text."""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

_TWO_PLACES = 2


def amounts_as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Write 59.800000 as `59.80`: all digits that mean something, at least two places, never an exponent."""
    text = pc.cast(column, pa.string())
    text = pc.replace_substring_regex(text, r"(\.\d{2}\d*?)0*$", r"\1")
    # Arrow writes zero and the very small with an exponent, and zero is frequent.
    text = pc.if_else(pc.equal(text, f"0E-{column.type.scale}"), "0.00", text)
    if pc.any(pc.match_substring(text, "E")).as_py():
        text = pa.chunked_array([[None if one is None else _written_out(one) for one in column.to_pylist()]])
    return text


def _written_out(value: Decimal) -> str:
    whole, _, places = f"{value:f}".partition(".")
    return f"{whole}.{places.rstrip('0').ljust(_TWO_PLACES, '0')}"
