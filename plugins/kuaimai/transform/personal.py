"""A person's data: dropped by default, kept only by name, plain or hashed or masked."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from kuaimai.gateway import catalog
from kuaimai.transform.rules import Rules

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


def drop_personal(record: dict[str, Any], kind: catalog.Record, rules: Rules) -> dict[str, Any]:
    """Return a copy of a raw record without its personal fields, children included.

    What a pipeline keeps hashed or masked only is left out too: here it would stand as it was sent.
    """
    hidden, known = set(), set(kind.children)
    for name, field in kind.fields.items():
        spellings = {name, *field.aliases}
        known |= spellings
        if field.personal and rules.of(kind.name, name).keep != "plain":
            hidden |= spellings
    copy = {
        name: value
        for name, value in record.items()
        # A name that the catalogue does not know yet may be a person's all the same.
        if name not in hidden and (name in known or not looks_personal(name))
    }
    for name, child in kind.children.items():
        rows = copy.get(name)
        if isinstance(rows, list):
            child_kind = catalog.record(child)
            copy[name] = [
                drop_personal(row, child_kind, rules) if isinstance(row, dict) else row for row in rows
            ]
    return copy
