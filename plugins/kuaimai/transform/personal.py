"""A person's data: dropped by default, kept only by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from kuaimai.gateway import catalog

_PERSONAL_PREFIXES = ("receiver", "buyer", "invoice")


def drop_personal(
    record: dict[str, Any], kind: catalog.Record, keep_personal: Iterable[str]
) -> dict[str, Any]:
    """Return a copy of a raw record without its personal fields, children included."""
    kept = set(keep_personal)
    hidden = {name for name, field in kind.fields.items() if field.personal and name not in kept}
    copy = {
        name: value
        for name, value in record.items()
        # A name that the catalogue does not know yet may be a person's all the same.
        if name not in hidden and (name in kind.fields or not name.startswith(_PERSONAL_PREFIXES))
    }
    for name, child in kind.children.items():
        rows = copy.get(name)
        if isinstance(rows, list):
            child_kind = catalog.record(child)
            copy[name] = [
                drop_personal(row, child_kind, kept) if isinstance(row, dict) else row for row in rows
            ]
    return copy
