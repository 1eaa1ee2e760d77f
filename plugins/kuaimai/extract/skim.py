"""Only what a read has to know of a page: the keys of its records and the times it was asked for.

A page is decoded fully once, by the transform stage; here all other fields are passed over unread.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import msgspec
from msgspec.structs import astuple

from kuaimai.gateway import catalog
from kuaimai.gateway.answers import Answer, encode_json
from kuaimai.gateway.clock import GATEWAY_ZONE

_WALL_CLOCK = len("2026-03-01 09:00:00")


# NUL, and halves of surrogate pairs.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


# Characters; MySQL and MariaDB index no longer text.
LONGEST_KEY = 255


@dataclass(frozen=True)
class Skimmed:
    """The records of one answer, in its order.

    Attributes:
        keys: each record's key, see `record_key`; as many as there are records.
        stamps: the time field, epoch ms, of those records that have a time in it.
    """

    keys: list[str]
    stamps: list[int]


def record_key(record: dict[str, Any], kind: catalog.Record) -> str:
    """Return what identifies a record; one without a usable key is identified by its content.

    Args:
        record: as the gateway sent it.
        kind: which fields identify it, and how these are spelt.
    """
    return _joined([sent(record, kind.fields[name]) for name in _parts(kind)]) or _by_content(record)


def _parts(kind: catalog.Record) -> tuple[str, ...]:
    """The fields of a record's key; the number of a line among equal ones is given later, by the mapping."""
    return tuple(name for name in kind.key_fields if name != catalog.NUMBER)


def sent(record: Mapping[str, Any], field: catalog.Field) -> Any:
    """Return what a record holds in a field, however it is spelt; None where there is nothing."""
    return next((record[name] for name in field.spellings if record.get(name) is not None), None)


def _by_content(record: dict[str, Any]) -> str:
    return "#" + hashlib.sha256(encode_json(record)).hexdigest()[:24]


def _joined(parts: Sequence[Any]) -> str | None:
    """Join the parts of a key; a part that is missing is empty, and a key of nothing else is none."""
    if len(parts) == 1:
        return _usable(parts[0])
    usable = [_usable(part) or "" for part in parts]
    joined = "/".join(usable)
    return joined if any(usable) and len(joined) <= LONGEST_KEY else None


def skim(answer: Answer, list_keys: Sequence[str], kind: catalog.Record, time_field: str | None) -> Skimmed:
    """Return the keys and times of an answer's records.

    Args:
        answer: an answer that is no error.
        list_keys: names under which the records may be.
        kind: of the records: which fields identify one.
        time_field: the field with the time that was asked for, or None.

    Raises:
        DataError: there is something else than a list of records.
    """
    text = answer.rows_text(list_keys)
    key = tuple(kind.fields[name].spellings for name in _parts(kind))
    time = (kind.fields[time_field].spellings,) if time_field else ()
    if text is not None:
        try:
            found = _decoder(key + time).decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # the tolerant way decides what this is
        else:
            rows = found if isinstance(found, list) else [found]
            values = _values(rows, key + time)
            keys = [one for row in values if (one := _joined(row[: len(key)]))]
            if len(keys) == len(rows):
                return Skimmed(keys, _stamps(row[-1] for row in values) if time else [])
    whole = answer.rows(list_keys)
    stamps = _stamps(sent(row, kind.fields[time_field]) for row in whole) if time_field else []
    return Skimmed([record_key(row, kind) for row in whole], stamps)


def _usable(key: Any) -> str | None:
    if isinstance(key, int) and not isinstance(key, bool):
        key = str(key)
    # What no database stores is no key either: the record is known by its content.
    if not isinstance(key, str) or len(key) > LONGEST_KEY or _UNSTORABLE.search(key):
        return None
    return key or None


def _stamps(times: Iterable[Any]) -> list[int]:
    return [stamp for time in times if (stamp := _stamp(time)) is not None]


def _stamp(time: Any) -> int | None:
    """Return a time as epoch ms: sent as a number, as digits in text, or as the merchant's wall clock."""
    if isinstance(time, int) and not isinstance(time, bool):
        return time
    if isinstance(time, str):
        if time.isdecimal():
            return int(time)
        if len(time) != _WALL_CLOCK:
            return None
        try:
            return int(datetime.fromisoformat(time).replace(tzinfo=GATEWAY_ZONE).timestamp()) * 1000
        except ValueError:
            return None
    return None


@cache
def _decoder(fields: tuple[tuple[str, ...], ...]) -> msgspec.json.Decoder[Any]:
    """Return a decoder of records with nothing but some fields, each by its spellings."""
    names = {f"text{number}": name for number, name in enumerate(_names(fields))}
    row = msgspec.defstruct("Row", [(text, Any, None) for text in names], rename=names)
    return msgspec.json.Decoder(row | list[row])  # type: ignore[valid-type]


def _names(fields: tuple[tuple[str, ...], ...]) -> list[str]:
    """Return all spellings, each once: the time that was asked for may be part of the key."""
    return list(dict.fromkeys(name for spellings in fields for name in spellings))


def _values(rows: Iterable[msgspec.Struct], fields: tuple[tuple[str, ...], ...]) -> list[tuple[Any, ...]]:
    """Return the values of fields, row by row: of each field the first spelling that is not null."""
    texts = [astuple(row) for row in rows]
    names = _names(fields)
    places = [[names.index(name) for name in spellings] for spellings in fields]
    if places == [[number] for number in range(len(names))]:  # as nearly all are
        return texts
    return [
        tuple(next((row[one] for one in each if row[one] is not None), None) for each in places)
        for row in texts
    ]
