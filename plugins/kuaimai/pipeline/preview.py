"""What a pipeline makes of real records: source fields beside columns, and what would be set aside and why.

So that a mapping is written by looking. Values of personal fields that the pipeline does not keep are hidden.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from kuaimai.extract.skim import record_key
from kuaimai.gateway import catalog
from kuaimai.gateway.answers import Answer, encode_json
from kuaimai.pipeline.spec import Pipeline
from kuaimai.pipeline.text_table import aligned, shortened
from kuaimai.transform.mapping import BadRecord, Mapper
from kuaimai.transform.personal import drop_personal
from kuaimai.transform.rows import Rows
from kuaimai.transform.rules import FieldRule, Rules, Step
from kuaimai.transform.tables import Column, Table

_HIDDEN = "•••"
_EXAMPLES = 3


class FieldView(msgspec.Struct, frozen=True):
    """One field of the records, and the column it becomes.

    Attributes:
        field: the API's name; empty for a column that is made here: a key, or a step's.
        seen: in how many of the records it was.
        given: examples as the gateway sent them.
        column: its column; empty where it is not stored.
        type: the catalogue's type of the column.
        stored: the same examples as they would be stored.
        note: label, or why the field is not stored.
    """

    field: str
    seen: int
    given: tuple[str, ...]
    column: str
    type: str
    stored: tuple[str, ...]
    note: str


class TableView(msgspec.Struct, frozen=True):
    """One target table: its records, and its fields."""

    table: str
    label: str
    records: int
    fields: tuple[FieldView, ...]


class Preview(msgspec.Struct, frozen=True):
    """What a pipeline makes of some records.

    Attributes:
        pipeline: its name.
        method: where the records come from.
        origin: a staging file, or the live gateway.
        records: how many there are.
        tables: parent first.
        bad: what would be set aside: key, reason, and the record as it would be kept.
        filtered: what the pipeline's filters and steps would leave out: key → reason.
    """

    pipeline: str
    method: str
    origin: str
    records: int
    tables: tuple[TableView, ...]
    bad: tuple[BadRecord, ...]
    filtered: dict[str, str] = {}


class _Sent(NamedTuple):
    """A record or a line as it was sent, the key of its row, and that of the record it belongs to."""

    fields: Mapping[str, Any]
    key: str
    record: str


def preview(
    pipeline: Pipeline, answer: Answer, origin: str, given: Mapping[str, str] | None = None
) -> Preview:
    """Map one answer as a run would, and show what became of each field.

    Args:
        pipeline: the pipeline.
        answer: a page of one of its methods.
        origin: where the page is from, for people.
        given: ids that the records were asked for by, by field; for records that leave them out.

    Raises:
        DataError: the answer holds something else than a list of records.
        ConfigError: a step failed.
    """
    entry = catalog.method(answer.method)
    records = answer.rows(entry.list_keys)
    mapper = Mapper(pipeline.record.name, pipeline.rules)
    into = [Rows(table) for table in mapper.tables]
    bad = mapper.map_answers([answer], entry.list_keys, into, given=given or {})
    stored = mapper.batches(into, rank=0, window_id="preview")
    kinds = (pipeline.record, *(catalog.record(name) for name in pipeline.record.children.values()))
    sent = _sent(mapper, [{**(given or {}), **record} for record in records])
    aside = {one.key for one in bad}
    views = [
        _table_view(table, kind, rows, batch, rules=pipeline.rules, aside=aside)
        for table, kind, rows, batch in zip(mapper.tables, kinds, sent, stored, strict=True)
    ]
    return Preview(
        pipeline=pipeline.name,
        method=answer.method,
        origin=origin,
        records=len(records),
        tables=tuple(views),
        bad=tuple(
            BadRecord(one.key, one.reason, drop_personal(one.record, pipeline.record, pipeline.rules))
            for one in bad
        ),
        filtered=dict(mapper.filtered),
    )


def _sent(mapper: Mapper, records: Iterable[dict[str, Any]]) -> list[list[_Sent]]:
    """Return the records, and the lines of each of their lists, with the keys that the mapper gives them."""
    found: list[list[_Sent]] = [[] for _ in mapper.tables]
    for record in records:
        key = record_key(record, mapper.kind)
        found[0].append(_Sent(record, key, key))
        for (name, shape), into in zip(mapper.children.items(), found[1:], strict=True):
            lines = [line for line in _listed(record.get(name)) if isinstance(line, dict)]
            try:
                keys = [values[shape.key_position] for values, _ in shape.lines(lines, key, name, [])]
            except ValueError:  # one line that does not fit sends its record to quarantine
                keys = [""] * len(lines)
            into += [_Sent(line, one, key) for line, one in zip(lines, keys, strict=True)]
    return found


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _table_view(
    table: Table,
    kind: catalog.Record,
    sent: Sequence[_Sent],
    batch: pa.Table,
    *,
    rules: Rules,
    aside: AbstractSet[str],
) -> TableView:
    rows = {row[table.key]: row for row in batch.to_pylist()}
    spelt = {name: field for field in kind.fields.values() for name in (field.name, *field.aliases)}
    columns = {field.name: column for field, column in zip(table.fields, table.columns, strict=False)}
    names = list(dict.fromkeys(name for one in sent for name in one.fields if name))
    fields = []
    for name in names:
        having = [one for one in sent if one.fields.get(name) is not None]
        field = spelt.get(name)
        column = columns.get(field.name) if field else None
        rule = rules.of(kind.name, field.name) if field else FieldRule()
        hidden = field is not None and field.personal and rule.keep != "plain"
        examples = _examples(having, name)
        fields.append(
            FieldView(
                field=name,
                seen=len(having),
                given=tuple(_HIDDEN if hidden else _text(one.fields[name]) for one in examples),
                column=column.name if column else "",
                type=column.type if column else "",
                stored=tuple(
                    _stored(rows[one.key][column.name])
                    if one.key in rows
                    else "set aside"
                    if one.record in aside
                    else "left out"
                    for one in examples
                )
                if column
                else (),
                note=_note(kind, name, field, rule),
            )
        )
    filled = {one.column for one in fields}
    fields += [
        view
        for column in table.columns
        if column.name not in filled
        and (view := _made_view(column, rows.values(), rules.steps.get(kind.name)))
    ]
    order = {column.name: number for number, column in enumerate(table.columns)}
    fields.sort(key=lambda one: (not one.column, order.get(one.column, 0), one.field))
    return TableView(table.name, table.label, len(sent), tuple(fields))


def _made_view(column: Column, rows: Iterable[Mapping[str, Any]], step: Step | None) -> FieldView | None:
    """Return a column that no field was sent for, and that is filled all the same; None where it is not."""
    values = [row[column.name] for row in rows if row[column.name] is not None]
    if not values:
        return None
    by_step = step is not None and column.name in step.columns
    return FieldView(
        field="",
        seen=len(values),
        given=(),
        column=column.name,
        type=column.type,
        stored=tuple(dict.fromkeys(map(_stored, values)))[:_EXAMPLES],
        note=f"made by step {step.run}" if step and by_step else column.comment,
    )


def _note(kind: catalog.Record, name: str, field: catalog.Field | None, rule: FieldRule) -> str:
    if name in kind.children:
        return f"its own table: kuaimai_{kind.children[name]}"
    if field is None:
        return "not in the catalogue: in the raw pages only"
    if rule.drop:
        return f"{field.label}; dropped (fields)"
    if field.personal and rule.keep != "plain":
        how = f"kept as {rule.keep}" if rule.keep else "dropped (keep_personal)"
        return f"{field.label}; personal: {how}"
    return field.label


def _examples(having: Sequence[_Sent], name: str) -> list[_Sent]:
    """Return a few records whose values differ, so that looking tells something."""
    chosen: dict[str, _Sent] = {}
    for one in having:
        chosen.setdefault(_text(one.fields[name]), one)
        if len(chosen) == _EXAMPLES:
            break
    return list(chosen.values())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else encode_json(value).decode()


def _stored(value: Any) -> str:
    if isinstance(value, Decimal):  # 0E-18 is nothing to show to anyone
        text = f"{value:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return "NULL" if value is None else str(value)


def as_text(found: Preview) -> str:
    """Return a preview for a terminal."""
    lines = [f"{found.pipeline}: {found.records} records of {found.method}, from {found.origin}"]
    for table in found.tables:
        lines += ["", f"{table.table} ({table.label}), {table.records} records"]
        rows = [("field", "seen", "as sent", "column", "type", "as stored", "note")]
        rows += [
            (
                one.field or "–",
                f"{one.seen}/{table.records}",
                shortened(one.given[0], 28) if one.given else "",
                one.column or "–",
                one.type,
                shortened(one.stored[0], 28) if one.stored else "",
                shortened(one.note, 40),
            )
            for one in table.fields
        ]
        lines += aligned(rows, indent="  ")
    lines += ["", f"{len(found.bad)} of {found.records} records would be set aside"]
    lines += [f"  {one.key}: {one.reason}" for one in found.bad]
    lines += [f"{count} would be left out: {reason}" for reason, count in left_out(found)]
    return "\n".join(lines)


def left_out(found: Preview) -> list[tuple[str, int]]:
    """Return why records would be left out, and how many for each reason, most first."""
    return Counter(found.filtered.values()).most_common()


def as_json(record: Mapping[str, Any]) -> str:
    """Return a record as indented JSON, for people."""
    return json.dumps(msgspec.to_builtins(record), ensure_ascii=False, indent=2, default=str)
