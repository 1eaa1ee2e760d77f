"""A person's data: dropped by default, kept only by name, plain or hashed or masked."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from kuaimai.extract.skim import sent
from kuaimai.gateway import catalog
from kuaimai.transform.fields import CONVERTERS
from kuaimai.transform.rules import Rules

# How a hashed or masked value is marked in a record that is kept.
_KEPT_AS, _VALUE = "_kept_as", "value"

# Of a name that the catalogue does not know: whose data may be in it.
_PERSONAL_NAME = re.compile(
    r"(?i)^(receiver|buyer|invoice|consignee|contact)|mobile|phone|address|id_?card|passport|e?mail$|nick"
)
_TELEPHONE = re.compile(r"\+?[0-9][0-9 -]{6,18}[0-9]")


def looks_personal(name: str) -> bool:
    """Whether a field that the catalogue does not know may hold a person's data."""
    return bool(_PERSONAL_NAME.search(name))


def hashed(text: str | None) -> str | None:
    """Return the SHA-256 of a text, in hexadecimal digits: the same for the same text, and not the text."""
    return hashlib.sha256(text.encode()).hexdigest() if text else text


def masked(text: str | None) -> str | None:
    """Return what may be shown of a text: 138****0000 of a telephone number, 张** of anything else."""
    if not text:
        return text
    if _TELEPHONE.fullmatch(text):
        return f"{text[:3]}****{text[-4:]}" if len(text) > 8 else f"****{text[-2:]}"  # noqa: PLR2004 - digits shown
    return f"{text[0]}**"


KEPT: Mapping[str, Callable[[str | None], str | None]] = MappingProxyType({"hash": hashed, "mask": masked})
"""How a pipeline may keep a person's data other than as it is."""


class Kept(msgspec.Struct, frozen=True):
    """A value that is hashed or masked already."""

    text: str


def drop_personal(record: dict[str, Any], kind: catalog.Record, rules: Rules) -> dict[str, Any]:
    """Return a copy of a raw record without its personal fields, children included.

    What a pipeline keeps hashed or masked stands in that form, and says so; see `restored`.
    """
    hidden: set[str] = set()
    known, kept = set(kind.children), {}
    for name, field in kind.fields.items():
        known |= {*field.spellings}
        keep = rules.of(kind.name, name).keep
        if field.personal and keep != "plain":
            hidden |= {*field.spellings}
            value = _kept(record, field, keep)
            if value is not None:
                kept[name] = {_KEPT_AS: keep, _VALUE: value}
    copy = {
        name: value
        for name, value in record.items()
        # A name that the catalogue does not know yet may be a person's all the same.
        if name not in hidden and (name in known or not looks_personal(name))
    }
    return _with_children(copy | kept, kind, rules, drop_personal)


def restored(record: dict[str, Any], kind: catalog.Record, rules: Rules) -> dict[str, Any]:
    """Return a copy of what `drop_personal` left of a record, to be mapped once more.

    A value in another form than the rules want by now is left out: it cannot be made from this one.
    """
    copy = {}
    for name, value in record.items():
        if isinstance(value, dict) and value.keys() == {_KEPT_AS, _VALUE}:
            if value[_KEPT_AS] == rules.of(kind.name, name).keep:
                copy[name] = Kept(value[_VALUE])
        else:
            copy[name] = value
    return _with_children(copy, kind, rules, restored)


def _kept(record: Mapping[str, Any], field: catalog.Field, keep: str | None) -> str | None:
    """Return what may be stored of a field that is hashed or masked; None where nothing may or nothing is."""
    if keep is None or keep not in KEPT:
        return None
    try:
        return KEPT[keep](CONVERTERS["json" if field.type == "json" else "text"](sent(record, field)))
    except ValueError:  # it would be no text for the column either
        return None


def _with_children(
    record: dict[str, Any],
    kind: catalog.Record,
    rules: Rules,
    done: Callable[[dict[str, Any], catalog.Record, Rules], dict[str, Any]],
) -> dict[str, Any]:
    """Return the record with something done to its lines."""
    for name, child in kind.children.items():
        rows = record.get(name)
        if isinstance(rows, list):
            child_kind = catalog.record(child)
            record[name] = [done(row, child_kind, rules) if isinstance(row, dict) else row for row in rows]
    return record
