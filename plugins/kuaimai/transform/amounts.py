"""Amounts and instants as exact text, for targets that are given text."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

_TWO_PLACES = pa.decimal128(38, 2)


def amounts_as_text(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Write 59.800000 as `59.80`: all digits that mean something, at least two places, never an exponent."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    # The same amounts come again and again: fees, discounts, and most of all nothing.
    different = pc.dictionary_encode(column)
    return _as_text(different.dictionary).take(different.indices)


def _as_text(amounts: pa.Array) -> pa.Array:
    try:
        return amounts.cast(_TWO_PLACES).cast(pa.string())
    except pa.ArrowInvalid:
        pass  # some, weights mostly, have more than two places
    short = amounts.cast(_TWO_PLACES, safe=False)
    longer = pc.fill_null(pc.not_equal(short.cast(amounts.type), amounts), fill_value=False)
    exact = [f"{amount:f}".rstrip("0") for amount in pc.filter(amounts, longer).to_pylist()]
    return pc.replace_with_mask(short.cast(pa.string()), longer, pa.array(exact, pa.string()))


def instants_as_text(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Write instants in UTC as `2026-11-24 01:02:03.004Z`.

    Arrow does that too, but looks the zone up for every single value.
    """
    utc = column.cast(pa.timestamp(column.type.unit))
    return pc.binary_join_element_wise(utc.cast(pa.string()), "Z", "")
