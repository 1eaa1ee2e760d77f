"""Batches as plain JSON, exact: for files of lines, and for other people's APIs.

Ids are text. Amounts are text too (`"59.80"`), because most readers of JSON put numbers through a float.
Instants are RFC 3339 in UTC with milliseconds. What the API sent as JSON stays JSON, digit by digit.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from kuaimai.transform.amounts import amounts_as_text
from kuaimai.transform.tables import Table


def plain_rows(table: Table, batch: pa.Table, names: Iterable[str]) -> list[dict[str, Any]]:
    """Return the named columns of a batch, a dict for each row; `msgspec.json` encodes them."""
    json = {column.name for column in table.columns if column.type == "json"}
    names = list(names)
    columns = [_plain(batch.column(name), json=name in json) for name in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def _plain(column: pa.ChunkedArray, *, json: bool) -> list[Any]:
    values: list[Any]
    if pa.types.is_decimal(column.type):
        values = amounts_as_text(column).to_pylist()
    elif pa.types.is_timestamp(column.type):
        values = pc.replace_substring(pc.cast(column, pa.string()), " ", "T").to_pylist()
    else:
        values = column.to_pylist()
    return [None if one is None else msgspec.Raw(one.encode()) for one in values] if json else values
