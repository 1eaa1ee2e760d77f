"""The shape of the target's tables, derived from the catalogue: one table per kind of record."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from kuaimai.gateway import catalog
from kuaimai.gateway.catalog import Field, FieldType
from kuaimai.transform.rules import Rules

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
        columns: the record's own, then those that a step adds, then fields that the catalogue does not know.
        fields: the record's fields with the types of their columns, in the order of `columns`.
    """

    name: str
    label: str
    key: str
    columns: tuple[Column, ...]
    fields: tuple[Field, ...]
    parent: str | None = None


def table_of(record: catalog.Record, rules: Rules | None = None) -> Table:
    """Return the table of a record; personal fields are left out unless kept by name."""
    rules = rules or Rules()
    columns, fields = [], []
    for one in record.fields.values():
        rule = rules.of(record.name, one.name)
        if rule.drop or (one.personal and not rule.keep):
            continue
        kind = "text" if rule.keep in ("hash", "mask") else rule.type or one.type
        shaped = replace(one, type=kind)
        columns.append(Column(rule.column or one.column, shaped.column_type, one.label))
        fields.append(shaped)
    step = rules.steps.get(record.name)
    added = [Column(name, kind, step.run) for name, kind in step.columns.items()] if step else []
    names = {field.name: column.name for field, column in zip(fields, columns, strict=True)}
    return Table(
        name=f"kuaimai_{record.name}",
        label=record.label,
        key=names[record.key],
        columns=(*columns, *added),
        fields=tuple(fields),
        parent=names[record.parent_key] if record.parent_key else None,
    )


def with_columns(table: Table, names: Iterable[str]) -> Table:
    """Return the table with text columns for fields that the catalogue does not know."""
    known = {column.name for column in table.columns}
    added = [Column(name, "text", "接口新增字段") for name in names if name not in known]
    return replace(table, columns=(*table.columns, *added)) if added else table
