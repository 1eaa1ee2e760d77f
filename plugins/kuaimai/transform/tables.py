"""The shape of the target's tables, derived from the catalogue: one table per kind of record."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from kuaimai.errors import ConfigError
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
    """Return the table of a record; personal fields are left out unless kept by name.

    Raises:
        ConfigError: a name to keep is not a personal field of any record in question.
    """
    kept = set(keep_personal)
    fields = tuple(field for field in record.fields.values() if not field.personal or field.name in kept)
    return Table(
        name=f"kuaimai_{record.name}",
        label=record.label,
        key=record.fields[record.key].column,
        columns=tuple(Column(field.column, field.type, field.label) for field in fields),
        fields=fields,
        parent=record.fields[record.parent_key].column if record.parent_key else None,
    )


def check_personal(records: Iterable[catalog.Record], keep_personal: Iterable[str]) -> None:
    """Refuse names to keep that are no personal fields.

    Raises:
        ConfigError: names the field and those that could be meant.
    """
    personal = {name for record in records for name, field in record.fields.items() if field.personal}
    for name in keep_personal:
        if name not in personal:
            raise ConfigError(
                f"keep_personal names {name!r}, which is no personal field of this pipeline",
                hint=f"personal fields are {', '.join(sorted(personal))}",
            )


def drop_personal(
    record: dict[str, Any], kind: catalog.Record, keep_personal: Iterable[str]
) -> dict[str, Any]:
    """Return a copy of a raw record without its personal fields, children included."""
    kept = set(keep_personal)
    hidden = {name for name, field in kind.fields.items() if field.personal and name not in kept}
    copy = {name: value for name, value in record.items() if name not in hidden}
    for name, child in kind.children.items():
        rows = copy.get(name)
        if isinstance(rows, list):
            child_kind = catalog.record(child)
            copy[name] = [
                drop_personal(row, child_kind, kept) if isinstance(row, dict) else row for row in rows
            ]
    return copy
