"""Records into Arrow tables of the target's columns with exact types, as an expert flattens them by hand."""

from __future__ import annotations

from typing import Any

import orjson
import pyarrow as pa
from asking import NO_TIME

DECIMAL = pa.decimal128(38, 18)


def arrow(records: list[dict[str, Any]], table: dict[str, Any]) -> pa.Table:
    """Return the columns of a target table, in their order."""
    columns = [
        _column([record.get(field) for record in records], kind) for field, _, kind in table["columns"]
    ]
    return pa.table(columns, names=[column for _, column, _ in table["columns"]])


def without_zone(table: pa.Table) -> pa.Table:
    """Return the table with its instants as UTC without saying so.

    Arrow looks the zone up for every instant that it writes as text: most of the time that its CSV takes.
    """
    fields = [
        field.with_type(pa.timestamp("ms")) if pa.types.is_timestamp(field.type) else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))


def _column(values: list[Any], kind: str) -> pa.Array:
    """Return one column; conversions run over the whole column wherever Arrow has them."""
    if kind == "time":
        stamps = [None if value in NO_TIME else value for value in values]
        return pa.array(stamps, pa.int64()).cast(pa.timestamp("ms", tz="UTC"))
    if kind == "integer":
        return pa.array(values, pa.int64())
    if kind in ("yuan", "number"):
        # Texts and numbers mixed: as text first, which Arrow casts exactly.
        texts = [None if value is None or value == "" else str(value) for value in values]
        return pa.array(texts, pa.string()).cast(DECIMAL)
    if kind == "json":
        return pa.array([None if v is None else orjson.dumps(v).decode() for v in values], pa.string())
    return pa.array([v if v is None or type(v) is str else str(v) for v in values], pa.string())
