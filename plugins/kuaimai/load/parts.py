"""What a record is sent as: itself, parts with a verdict of their own, or a share of a joint document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Protocol

import msgspec

from kuaimai.transform.tables import Table


class Part(msgspec.Struct, frozen=True):
    """What is sent of a record.

    Attributes:
        key: the record's, where the part is all of it; else one that no other part of the target has.
        body: JSON.
    """

    key: str
    body: bytes


class LeftOut(Exception):
    """A record that is not for the target; the text says why."""


# Makes what is sent of a record, given the tables; raises `LeftOut` where the record is not for this target.
Documents = Callable[[Sequence[Table], Mapping[str, object]], Sequence[Part]]


class Document(msgspec.Struct, frozen=True):
    """A record, or a part of one, as it is sent: key, version and rank, JSON, and the fingerprint of that."""

    key: str
    version: int
    rank: int
    body: bytes
    content: str


class Joins(Protocol):
    """Makes one document of the parts of several records; what becomes of it becomes of them all."""

    def groups(self, parts: Sequence[Document]) -> tuple[list[list[Document]], dict[str, str]]:
        """Return the parts of each document, and by key the reasons of parts that fit into none."""
        ...

    def document(self, parts: Sequence[Document]) -> bytes:
        """Return the document of such a group, as JSON."""
        ...


def in_order(key: str) -> tuple[str, int]:
    """Return what sorts keys so that a record's parts, `<record>-1` to `<record>-12`, come as they count."""
    record, _, number = key.rpartition("-")
    return (record, int(number)) if record and number.isascii() and number.isdigit() else (key, 0)


def fold(
    parts: Mapping[str, Sequence[str]], outcomes: MutableMapping[str, str], reasons: MutableMapping[str, str]
) -> None:
    """Say of each record what its parts' verdicts make of it: it is there when all of them are.

    Args:
        parts: keys of a record's parts, by the record's key.
        outcomes: by key, what became of it; nothing where it is not there.
        reasons: by key, why it was refused or is held.
    """
    for record, keys in parts.items():
        wrong = [f"{key}: {reasons[key]}" for key in keys if key in reasons and key != record]
        found = {outcomes.get(key, "") for key in keys}
        if wrong:
            reasons[record] = wrong[0] + (f"; and {len(wrong) - 1} more" if len(wrong) > 1 else "")
        elif found and "" not in found:
            # Some parts new or changed, others not: the record has changed.
            outcomes[record] = found.pop() if len(found) == 1 else "updated"
