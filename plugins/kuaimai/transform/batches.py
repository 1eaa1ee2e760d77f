"""What a staged batch looks like in Arrow; apart from the tables, as parsing a DAG file needs no Arrow."""

from __future__ import annotations

import pyarrow as pa

from kuaimai.gateway.catalog import FieldType
from kuaimai.transform.tables import CHILD_COUNT, HASH, RANK, VERSION, WINDOW, Table

# 38 digits, 18 of them behind the point: room for every amount and for artefacts of the source's own
# arithmetic (33.989999999999995) without rounding anything.
DECIMAL = pa.decimal128(38, 18)
INSTANT = pa.timestamp("ms", tz="UTC")

ARROW_TYPES: dict[FieldType, pa.DataType] = {
    "id": pa.string(),
    "text": pa.string(),
    "integer": pa.int64(),
    "number": DECIMAL,
    "yuan": DECIMAL,
    "fen": DECIMAL,
    "time": INSTANT,
    "json": pa.string(),
}


def batch_schema(table: Table) -> pa.Schema:
    """Return the Arrow schema of a table's staged batches."""
    own = [pa.field(column.name, ARROW_TYPES[column.type]) for column in table.columns]
    return pa.schema(
        [
            *own,
            pa.field(VERSION, pa.int64()),
            pa.field(RANK, pa.int16()),
            pa.field(HASH, pa.string()),
            pa.field(WINDOW, pa.string()),
            *([] if table.parent else [pa.field(CHILD_COUNT, pa.int32())]),
        ]
    )


def aligned(batch: pa.Table, table: Table) -> pa.Table:
    """Return a batch with exactly the table's columns; those that it was made without are null."""
    wanted = batch_schema(table)
    if batch.schema.names == wanted.names:
        return batch
    return pa.Table.from_arrays(
        [
            batch.column(one.name) if one.name in batch.schema.names else pa.nulls(len(batch), one.type)
            for one in wanted
        ],
        schema=wanted,
    )
