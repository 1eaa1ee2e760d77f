"""What a pipeline makes of real records: source fields beside columns, and what would be set aside and why.

So that a mapping is written by looking. Values of personal fields that the pipeline does not keep are hidden.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa

from kuaimai.errors import ConfigError
from kuaimai.extract.skim import record_key
from kuaimai.extract.staging import Staging
from kuaimai.gateway import catalog
from kuaimai.gateway.answers import Answer, encode_json, read_envelope
from kuaimai.pipeline.spec import Pipeline
from kuaimai.pipeline.text_table import aligned, shortened
from kuaimai.transform.mapping import BadRecord, Mapper, Rows
from kuaimai.transform.personal import drop_personal
from kuaimai.transform.rules import Rules
from kuaimai.transform.tables import Table

_HIDDEN = "•••"
_EXAMPLES = 3


class FieldView(msgspec.Struct, frozen=True):
    """One field of the records, and the column it becomes.

    Attributes:
        field: the API's name; empty for a column that no field of these records has filled.
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


def preview(pipeline: Pipeline, answer: Answer, origin: str) -> Preview:
    """Map one answer as a run would, and show what became of each field.

    Args:
        pipeline: the pipeline.
        answer: a page of one of its methods.
        origin: where the page is from, for people.

    Raises:
        DataError: the answer holds something else than a list of records.
    """
    entry = catalog.method(answer.method)
    records = answer.rows(entry.list_keys)
    mapper = Mapper(pipeline.record.name, pipeline.rules)
    into = [Rows(table) for table in mapper.tables]
    bad = mapper.map_answers([answer], entry.list_keys, into)
    stored = mapper.batches(into, rank=0, window_id="preview")
    kinds = (pipeline.record, *(catalog.record(name) for name in pipeline.record.children.values()))
    found = (records, *(_lines(records, name, pipeline.record.key) for name in pipeline.record.children))
    views = [
        _table_view(table, kind, rows, batch, pipeline.rules)
        for table, kind, rows, batch in zip(mapper.tables, kinds, found, stored, strict=True)
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


def last_staged(pipeline: Pipeline, staging: Staging, only: str | None = None) -> tuple[Answer, str] | None:
    """Return the newest page with records that a run has staged, and its name; None where there is none.

    Args:
        pipeline: the pipeline.
        staging: where runs put their pages.
        only: the method to look at; None for any.
    """
    for _, rank, name in sorted(_staged(pipeline, staging), reverse=True):
        method = pipeline.source.methods[rank]
        if only not in (None, method):
            continue
        raw = staging.read_compressed(name)
        answer = Answer(method, read_envelope(method, raw), raw)
        if answer.rows(catalog.method(method).list_keys):
            return answer, name
    return None


def _staged(pipeline: Pipeline, staging: Staging) -> Iterator[tuple[float, int, str]]:
    """Yield the raw pages of the pipeline's runs: time, rank of the method, name."""
    for run in staging.names(pipeline.name):
        for piece in staging.names(f"{pipeline.name}/{run}"):
            for rank in range(len(pipeline.source.methods)):
                folder = f"{pipeline.name}/{run}/{piece}/raw/{rank}"
                for question in staging.names(folder):
                    for file in staging.names(f"{folder}/{question}"):
                        name = f"{folder}/{question}/{file}"
                        if name.endswith(".json.zst"):
                            yield staging.changed_at(name), rank, name


def _lines(records: Iterable[Mapping[str, Any]], name: str, parent: str) -> list[dict[str, Any]]:
    return [
        {"": record.get(parent), **line}
        for record in records
        for line in (record.get(name) if isinstance(record.get(name), list) else ()) or ()
        if isinstance(line, dict)
    ]


def _table_view(
    table: Table,
    kind: catalog.Record,
    records: Sequence[Mapping[str, Any]],
    batch: pa.Table,
    rules: Rules,
) -> TableView:
    rows = {row[table.key]: row for row in batch.to_pylist()}
    spelt = {name: field for field in kind.fields.values() for name in (field.name, *field.aliases)}
    columns = {field.name: column for field, column in zip(table.fields, table.columns, strict=False)}
    names = list(dict.fromkeys(name for record in records for name in record if name))
    fields = []
    for name in names:
        having = [record for record in records if record.get(name) is not None]
        field = spelt.get(name)
        column = columns.get(field.name) if field else None
        hidden = field is not None and field.personal and rules.of(kind.name, field.name).keep != "plain"
        examples = _examples(having, name)
        fields.append(
            FieldView(
                field=name,
                seen=len(having),
                given=tuple(_HIDDEN if hidden else _text(one[name]) for one in examples),
                column=column.name if column else "",
                type=column.type if column else "",
                stored=tuple(
                    _stored(rows.get(record_key(dict(one), *kind.key_fields)), column.name)
                    for one in examples
                )
                if column
                else (),
                note=_note(kind, name, field, hidden=hidden),
            )
        )
    order = {column.name: number for number, column in enumerate(table.columns)}
    fields.sort(key=lambda one: (not one.column, order.get(one.column, 0), one.field))
    return TableView(table.name, table.label, len(records), tuple(fields))


def _note(kind: catalog.Record, name: str, field: catalog.Field | None, *, hidden: bool) -> str:
    if name in kind.children:
        return f"its own table: kuaimai_{kind.children[name]}"
    if field is None:
        return "not in the catalogue: in the raw pages only"
    if hidden:
        return f"{field.label}; personal: dropped (keep_personal)"
    return field.label


def _examples(records: Sequence[Mapping[str, Any]], name: str) -> list[Mapping[str, Any]]:
    """Return a few records whose values differ, so that looking tells something."""
    chosen: dict[str, Mapping[str, Any]] = {}
    for record in records:
        chosen.setdefault(_text(record[name]), record)
        if len(chosen) == _EXAMPLES:
            break
    return list(chosen.values())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else encode_json(value).decode()


def _stored(row: Mapping[str, Any] | None, column: str) -> str:
    if row is None:
        return "set aside"
    value = row[column]
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
                one.field,
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


def check_method(pipeline: Pipeline, method: str | None) -> str:
    """Return the method to look at: the pipeline's first one unless another of its methods is named.

    Raises:
        ConfigError: the pipeline does not use that method.
    """
    if method is None:
        return pipeline.source.method
    if method not in pipeline.source.methods:
        raise ConfigError(
            f"pipeline {pipeline.name} does not use {method}",
            hint=f"it uses {', '.join(pipeline.source.methods)}",
        )
    return method
