"""Only what a read has to know of a page: the keys of its records and the times it was asked for.

A page is decoded fully once, by the transform stage; here all other fields are passed over unread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec

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
    return _usable(record.get(key)) or "#" + hashlib.sha256(encode_json(record)).hexdigest()[:24]


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
    text = answer.rows_text(list_keys)
    if text is not None:
        try:
            found = _decoder(key, time_field).decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # the tolerant way decides what this is
        else:
            rows = found if isinstance(found, list) else [found]
            keys = [one for row in rows if (one := _usable(row.key))]
            if len(keys) == len(rows):
                return Skimmed(keys, _stamps(row.time for row in rows) if time_field else [])
    whole = answer.rows(list_keys)
    stamps = _stamps(row.get(time_field) for row in whole) if time_field else []
    return Skimmed([record_key(row, key) for row in whole], stamps)


def _usable(key: Any) -> str | None:
    if isinstance(key, str | int) and not isinstance(key, bool):
        return str(key) or None
    return None


def _stamps(times: Iterable[Any]) -> list[int]:
    return [time for time in times if isinstance(time, int) and not isinstance(time, bool)]


@cache
def _decoder(key: str, time_field: str | None) -> msgspec.json.Decoder[Any]:
    names = {"key": key, "time": time_field} if time_field else {"key": key}
    row = msgspec.defstruct("Row", [(name, Any, None) for name in names], rename=names)
    return msgspec.json.Decoder(row | list[row])  # type: ignore[valid-type]
