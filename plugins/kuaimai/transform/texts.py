"""From a page's records to columns of JSON texts: which fields are taken, and which are passed over."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa
from msgspec.structs import astuple

from kuaimai.transform import columns

_NULL = msgspec.Raw(b"null")
# Such names cannot be told to the decoder; nobody has seen one.
STRANGE_NAME = re.compile(r'[\x00-\x1f"\\\ud800-\udfff]')


class Texts:
    """The JSON texts that are taken of one kind of record.

    Args:
        known: fields that may come, those that are not taken included.
        spellings: fields that are taken.

    Attributes:
        spellings: as given.
        new: further fields that are taken since they were met, each with its column; in that order.
    """

    def __init__(self, known: Collection[str], spellings: Sequence[str]) -> None:
        self.spellings = spellings
        self.new: dict[str, str] = {}
        self._known = frozenset(known)

    def struct(self, passed: Iterable[str], lists: Mapping[str, Any]) -> type[msgspec.Struct]:
        """A struct that takes the fields' JSON texts, the lists, and passes over other fields that are known.

        A field that nobody knows makes decoding fail, so that it is noticed.
        """
        # `columns` counts on the texts being first.
        names = {f"text{number}": name for number, name in enumerate([*self.spellings, *self.new])}
        width = len(names)
        names |= {f"list{number}": name for number, name in enumerate(lists)}
        rest = sorted((self._known | set(passed)) - set(names.values()))
        names |= {f"rest{number}": name for number, name in enumerate(rest) if not STRANGE_NAME.search(name)}
        fields: list[Any] = [
            (attribute, lists[name], None) if name in lists else (attribute, msgspec.Raw, _NULL)
            for attribute, name in names.items()
        ]
        return msgspec.defstruct(
            "Row",
            fields,
            namespace={"width": width},
            rename=names,
            forbid_unknown_fields=True,
            gc=False,
            kw_only=True,
        )

    def joined(self, records: Sequence[Any]) -> tuple[bytes, int]:
        """Return the JSON texts of a page's records, new fields included, and how many each has."""
        width = len(self.spellings) + len(self.new)
        # Of a page that was decoded before a field was met, the records have fewer texts.
        rows = [
            astuple(record)[:width]
            if record.width == width
            else (*astuple(record)[: record.width], *[_NULL] * (width - record.width))
            for record in records
        ]
        return columns.join_rows(rows), width

    def split(self, pages: Sequence[tuple[bytes, int]]) -> dict[str, pa.Array]:
        """Return the columns of JSON texts by spelling, new fields included."""
        names = [*self.spellings, *self.new]
        texts = [columns.widened(text, len(names) - width) for text, width in pages]
        return dict(zip(names, columns.split_rows(texts, len(names)), strict=True))
