"""From a value as the strategy writes it to what it means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from kuaimai.pipeline.qeasy.expressions import FUNCTION, parse_function
from kuaimai.pipeline.qeasy.findings import near
from kuaimai.pipeline.qeasy.formats import as_text
from kuaimai.pipeline.qeasy.templates import FIND, Literal, Value, parse_find, parse_template

# What the platform would carry out, and not send as text.
_COMMAND = re.compile(r"(_[a-z]+[A-Z]?\w*)\s+\S")


def parse_value(raw: Any, collections: Mapping[str, str]) -> Value:
    """Take a value apart.

    Args:
        raw: as the strategy writes it.
        collections: strategy id → landed table.

    Raises:
        ValueError: it makes no sense; the message says what to write.
    """
    if not isinstance(raw, str):
        if _holds_template(raw):
            raise ValueError("a template inside of a list or object → write it as children")
        return Literal(raw, as_text(raw))
    stripped = raw.strip()
    if re.match(rf"{FUNCTION}\b", stripped):
        return parse_function(stripped, collections)
    if re.match(rf"{FIND}\b", stripped):
        return parse_find(stripped, collections)
    if unknown := _COMMAND.match(stripped):
        raise ValueError(f"{unknown[1]} is not known → {near(unknown[1], (FUNCTION, FIND))}")
    for word in (FUNCTION, FIND):
        if re.search(rf"{word}\b", raw):
            raise ValueError(f"{word} counts only at the beginning of a value")
    template = parse_template(raw)
    return template if any(template.names()) else Literal(raw, raw)


def _holds_template(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_template, value.values()))
    if isinstance(value, list):
        return any(map(_holds_template, value))
    return isinstance(value, str) and ("{{" in value or value.startswith((FUNCTION, FIND)))
