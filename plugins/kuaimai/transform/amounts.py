"""Amounts and instants as exact text: for fingerprints, and for databases that are given text."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

_TWO_PLACES = pa.decimal128(38, 2)


def amounts_as_text(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """Write 59.800000 as `59.80`: all digits that mean something, at least two places, never an exponent."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    short = column.cast(_TWO_PLACES, safe=False)
    texts = short.cast(pa.string())
    longer = pc.fill_null(pc.not_equal(short.cast(column.type), column), fill_value=False)
    if not pc.any(longer).as_py():
        return texts
    # Few, and the same ones again and again (weights), so they are written one by one.
    distinct = pc.dictionary_encode(pc.filter(column, longer))
    exact = pa.array([f"{amount:f}".rstrip("0") for amount in distinct.dictionary.to_pylist()], pa.string())
    return pc.replace_with_mask(texts, longer, exact.take(distinct.indices))


def instants_as_text(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Write instants in UTC as `2026-11-24 01:02:03.004Z`.

    Arrow does that too, but looks the zone up for every single value.
    """
    utc = column.cast(pa.timestamp(column.type.unit))
    return pc.binary_join_element_wise(utc.cast(pa.string()), "Z", "")
