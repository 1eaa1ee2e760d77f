"""Switches that change what a record says: spoilt values, odd but legal values, and a changed schema."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kuaimai.sandbox.series import share_drawn

if TYPE_CHECKING:
    from kuaimai.sandbox.faults import Faults

Record = dict[str, Any]

NO_TIME = 946_656_000_000
OTHER_NO_TIME = 978_278_400_000
NEW_FIELD = "platformExtra"
"""The field that `schema_change=new` adds."""

_ABOVE_53_BITS = 9_007_199_254_740_993
_TEXTS = (
    "急单🚚📦 含emoji👨\u200d👩\u200d👧",
    "坏掉的\ufffd\ufffd字符",
    "第一行\n第二行\r\n第三行\t制表",
    "$$" + "mY8+/x=" * 64 + "$$",  # cipher text of 452 characters
)
_ASCII = 128


@dataclass(frozen=True)
class Marks:
    """What the switches may touch in the records of one kind.

    Attributes:
        name: of the kind; another name, other records are hit.
        key: fields that identify a record; they stay as they are.
        version: the field that says when the record last changed, empty for none.
        stamps: fields that windows ask for; they always stay times.
        time: the field that `bad_time` spoils, empty for none.
        amount: the field that `bad_amount` spoils, empty for none.
        retyped: the field whose type `schema_change=type` changes.
        dropped: the field that `schema_change=vanished` takes away.
    """

    name: str
    key: tuple[str, ...]
    version: str = ""
    stamps: frozenset[str] = frozenset()
    time: str = ""
    amount: str = ""
    retyped: str = ""
    dropped: str = ""


def badness(marks: Marks, key: str, faults: Faults, seed: int) -> str | None:
    """What spoils the record with this key: a switch's name, or None."""
    kinds = {"no_sid": len(marks.key) == 1, "bad_time": bool(marks.time), "bad_amount": bool(marks.amount)}
    left = 1.0
    for name, fits in kinds.items():
        share = getattr(faults, name)
        if fits and share:
            left = share_drawn(seed, f"{marks.name}/bad", key) if left == 1.0 else left
            left -= share
            if left < 0:
                return name
    return None


def spoilt(record: Record, marks: Marks, bad: str | None) -> Record:
    """The record as a `bad_…` switch leaves it."""
    if bad == "no_sid":
        return {name: value for name, value in record.items() if name != marks.key[0]}
    if bad == "bad_time":
        return record | {marks.time: "2026-13-45 99:00"}
    if bad == "bad_amount":
        return record | {marks.amount: "12,3x"}
    return record


def odd(record: Record, marks: Marks, key: str, faults: Faults, seed: int) -> Record:
    """The record with odd values if the switch `fuzz` hits it: legal ones, all of them seen somewhere."""
    if not faults.fuzz or share_drawn(seed, f"{marks.name}/fuzz", key) >= faults.fuzz:
        return record
    fixed = {*marks.key, marks.version}
    kind = int(share_drawn(seed, f"{marks.name}/oddity", key) * 7)
    if kind < len(_TEXTS):
        return {
            name: _TEXTS[kind] if name not in fixed and _is_free_text(value) else value
            for name, value in record.items()
        }
    change = (_with_large_ids, _with_numbers_in_text, _with_sentinels)[kind - len(_TEXTS)]
    return change(record, fixed | marks.stamps)


def _is_free_text(value: object) -> bool:
    return isinstance(value, str) and (not value or any(ord(letter) >= _ASCII for letter in value))


def _with_large_ids(record: Record, fixed: set[str]) -> Record:
    """Ids that no float holds; but for those of shops and warehouses, which methods are asked by."""
    kept = {*fixed, "userId", "warehouseId", "wareHouseId", "companyId"}
    return {
        name: value + _ABOVE_53_BITS
        if name not in kept and name.endswith("Id") and isinstance(value, int) and value > 0
        else value
        for name, value in record.items()
    }


def _with_numbers_in_text(record: Record, fixed: set[str]) -> Record:
    return {
        name: str(value) if name not in fixed and type(value) in {int, float} else value
        for name, value in record.items()
    }


def _with_sentinels(record: Record, fixed: set[str]) -> Record:
    return {
        name: OTHER_NO_TIME
        if name not in fixed and name.endswith(("Time", "Date", "deadline")) and isinstance(value, int)
        else value
        for name, value in record.items()
    }


def reshaped(record: Record, marks: Marks, faults: Faults, changed_at: int) -> Record:
    """The record as it is since the schema changed; `changed_at` is the second of its last change.

    Records that have not changed since stay as they were, so that a mirror can be compared with the truth.
    """
    if faults.schema_change == "none" or changed_at < faults.schema_change_at:
        return record
    what = faults.schema_change
    record = dict(record)
    if what in {"new", "all"}:
        record[NEW_FIELD] = "新字段"
    if what in {"type", "all"} and marks.retyped in record:
        record[marks.retyped] = f"V{record[marks.retyped]}"
    if what in {"vanished", "all"}:
        record.pop(marks.dropped, None)
    return record
