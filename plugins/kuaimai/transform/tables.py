"""The shape of the target's tables, derived from the catalogue: one table per kind of record."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

from kuaimai.gateway import catalog
from kuaimai.gateway.catalog import Field, FieldType
from kuaimai.transform.fields import ARROW_TYPES

# Columns that every table carries beside the record's own (design, section 4).
VERSION = "_version"
RANK = "_rank"
HASH = "_content_hash"
WINDOW = "_window_id"
LOADED_AT = "_loaded_at"
DELETED_AT = "_deleted_at"
# Only in batches: how many children the record sent, null if it sent no list at all.
CHILD_COUNT = "_children"


@dataclass(frozen=True)
class Column:
    """A column: its name, the catalogue's type, and its comment."""

    name: str
    type: FieldType
    comment: str


@dataclass(frozen=True)
class Table:
    """A target table.

    Attributes:
        name: e.g. `kuaimai_trade`.
        label: Chinese name, the table's comment.
        key: key column.
        parent: on a child table, the column that holds the parent's key.
        columns: the record's own columns.
        fields: the record's fields, in the order of `columns`.
    """

    name: str
    label: str
    key: str
    columns: tuple[Column, ...]
    fields: tuple[Field, ...]
    parent: str | None = None

    @property
    def batch_schema(self) -> pa.Schema:
        """The Arrow schema of a staged batch."""
        own = [pa.field(column.name, ARROW_TYPES[column.type]) for column in self.columns]
        return pa.schema(
            [
                *own,
                pa.field(VERSION, pa.int64()),
                pa.field(RANK, pa.int16()),
                pa.field(HASH, pa.string()),
                pa.field(WINDOW, pa.string()),
                *([] if self.parent else [pa.field(CHILD_COUNT, pa.int32())]),
            ]
        )


def table_of(record: catalog.Record, keep_personal: Iterable[str] = ()) -> Table:
    """Return the table of a record; personal fields are left out unless kept by name."""
    kept = set(keep_personal)
    fields = tuple(field for field in record.fields.values() if not field.personal or field.name in kept)
    return Table(
        name=f"kuaimai_{record.name}",
        label=record.label,
        key=record.fields[record.key].column,
        columns=tuple(Column(field.column, field.column_type, field.label) for field in fields),
        fields=fields,
        parent=record.fields[record.parent_key].column if record.parent_key else None,
    )
