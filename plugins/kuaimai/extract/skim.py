"""Only what a read has to know of an answer: the keys of its records and the times it was asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kuaimai.gateway.answers import Answer, encode_json


@dataclass(frozen=True)
class Skimmed:
    """The records of one answer, in its order.

    Attributes:
        keys: each record's key, see `record_key`; as many as there are records.
        stamps: the time field, epoch ms, of those records that have a number in it.
    """

    keys: list[str]
    stamps: list[int]


def record_key(record: dict[str, Any], key: str) -> str:
    """Return what identifies a record; one without a usable key is identified by its content."""
    value = record.get(key)
    if isinstance(value, str | int) and not isinstance(value, bool) and value != "":
        return str(value)
    return "#" + hashlib.sha256(encode_json(record)).hexdigest()[:24]


def skim(answer: Answer, list_keys: Sequence[str], key: str, time_field: str | None) -> Skimmed:
    """Return the keys and times of an answer's records.

    Args:
        answer: an answer that is no error.
        list_keys: names under which the records may be.
        key: the field that identifies a record.
        time_field: the field with the time that was asked for, or None.

    Raises:
        DataError: there is something else than a list of records.
    """
    rows = answer.rows(list_keys)
    times = [row.get(time_field) for row in rows] if time_field else []
    stamps = [time for time in times if isinstance(time, int) and not isinstance(time, bool)]
    return Skimmed([record_key(row, key) for row in rows], stamps)
