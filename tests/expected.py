"""What the target must hold for records of the gateway, worked out value by value and without our own code.

Only names and types come from the catalogue.
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

from kuaimai.gateway import catalog
from kuaimai.gateway.catalog import Field, Record

CHINA = timezone(timedelta(hours=8))
NO_TIME = {946_656_000_000, 978_278_400_000}


def rows_of(kind: Record, records: list[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return table → key → column → value."""
    tables: dict[str, dict[str, dict[str, Any]]] = {}
    for record in records:
        row = _row(kind, record)
        tables.setdefault(kind.name, {})[row[_column(kind, kind.key)]] = row
        for list_field, name in kind.children.items():
            child = catalog.record(name)
            made = [
                _row(child, {**line, child.parent_key: record[kind.key]})
                for line in record.get(list_field) or ()
            ]
            tables.setdefault(name, {}).update(keyed(child, made))
    return tables


def keyed(kind: Record, rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return rows by their key. Numbered ones are numbered anew, by their values: lists come in any order."""
    key = _column(kind, kind.key)
    if "#" not in kind.key_of:
        return {row[key]: row for row in rows}
    seen: Counter[str] = Counter()
    found = {}
    for row in sorted(rows, key=lambda row: [_text(value) for name, value in row.items() if name != key]):
        same = row[key].rpartition("/")[0]
        found[f"{same}/{seen[same]}"] = {**row, key: f"{same}/{seen[same]}"}
        seen[same] += 1
    return found


def _text(value: Any) -> str:
    return f"{value.normalize():f}" if isinstance(value, Decimal) else str(value)


def plain(field: Field, value: Any) -> Any:
    """Return a value of the target in the form of `rows_of`."""
    if isinstance(value, datetime):
        return round(value.timestamp() * 1000)
    if value is not None and field.type in {"number", "yuan", "fen"}:
        return Decimal(value)
    if value is not None and field.type == "json":
        text = value if isinstance(value, str) else json.dumps(value)
        return _unordered(json.loads(text, parse_float=Decimal))
    return value


def _column(kind: Record, name: str) -> str:
    return kind.fields[name].column


def _row(kind: Record, record: dict[str, Any]) -> dict[str, Any]:
    row = {
        field.column: _value(field, _sent(field, record))
        for field in kind.fields.values()
        if not field.personal
    }
    if kind.key_of:
        parts = [None if name == "#" else row[_column(kind, name)] for name in kind.key_of]
        texts = ["" if part is None else str(part) for part in parts]
        row[_column(kind, kind.key)] = "/".join(texts)
    return row


def _sent(field: Field, record: dict[str, Any]) -> Any:
    names = (field.name, *field.aliases)
    return next((record[name] for name in names if record.get(name) is not None), None)


def _value(field: Field, value: Any) -> Any:  # noqa: PLR0911 - one way out per type
    if value is None:
        return None
    if field.type in {"id", "text"}:
        text = str(value)
        return text if text or field.type == "text" else None
    if value == "":
        return None
    if field.type == "integer":
        return int(value)
    if field.type in {"number", "yuan"}:
        return Decimal(str(value))
    if field.type == "fen":
        return Decimal(str(value)) / 100
    if field.type == "time":
        return _moment(value)
    return _unordered(json.loads(json.dumps(value), parse_float=Decimal))


def _moment(value: Any) -> int | None:
    if isinstance(value, str) and "-" in value:
        moment = datetime.strptime(value, "%Y-%m-%d %H:%M:%S").replace(tzinfo=CHINA)
        value = int(moment.timestamp()) * 1000
    return None if int(value) in NO_TIME or int(value) <= 0 else int(value)


def _unordered(value: Any) -> Any:
    """Lists come in another order at every call."""
    return sorted(value, key=lambda one: json.dumps(one, default=str)) if isinstance(value, list) else value
