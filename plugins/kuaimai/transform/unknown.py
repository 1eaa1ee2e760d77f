"""Fields that the catalogue does not know: text columns of their own, where a pipeline says `schema: evolve`.

Text stays text; everything else becomes the JSON that was sent.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Container
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kuaimai.gateway.answers import decode_json
from kuaimai.gateway.catalog import snake_case
from kuaimai.transform.fields import to_json, to_text

# A value that does not fit its column goes, as it was sent, into a column of that name and this ending.
AS_SENT = "__as_sent"
_LONGEST_NAME = 60
_ODD = re.compile(r"[^a-z0-9_]+")


def to_loose(value: Any) -> str | None:
    """Return any value as text.

    Raises:
        ValueError: no target can store it.
    """
    return to_json(value) if isinstance(value, dict | list) else to_text(value)


def loose(texts: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return a column of JSON texts as `to_loose` gives their values, and a mask of those it refuses."""
    plain = pc.match_substring_regex(texts, r'^("[^"\\]*"|-?[0-9]+|true|false)$')
    values = pc.if_else(plain, pc.ascii_trim(texts, '"'), None)
    odd = pc.fill_null(pc.invert(plain), False)  # noqa: FBT003 - Arrow's signature
    exact: list[str | None] = []
    wrong: list[bool] = []
    distinct = pc.dictionary_encode(pc.filter(texts, odd))
    for text in distinct.dictionary.to_pylist():
        try:
            exact.append(to_loose(decode_json(text.encode())))
            wrong.append(False)
        except ValueError:
            exact.append(None)
            wrong.append(True)
    at = distinct.indices
    values = pc.replace_with_mask(values, odd, pa.array(exact, pa.string()).take(at))
    nowhere = pc.and_(odd, pc.invert(odd))
    return values, pc.replace_with_mask(nowhere, odd, pa.array(wrong, pa.bool_()).take(at))


def column_of(name: str, taken: Container[str]) -> str:
    """Return the column of a field that the catalogue does not know: the same one in every run."""
    column = _ODD.sub("_", snake_case(name)).strip("_")
    # Names that are no camelCase could meet others of the same column.
    if not name.isalnum() or not name.isascii() or not column[:1].isalpha() or len(column) > _LONGEST_NAME:
        column = _told_apart(column, name)
    return _told_apart(column, name) if column in taken else column


def _told_apart(column: str, name: str) -> str:
    mark = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:6]
    return f"x_{column[: _LONGEST_NAME - 10]}_{mark}"
