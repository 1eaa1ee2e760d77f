"""What changes at the source: fields that are new, values of another kind, fields that come no more.

Each slice says what it saw; compared with what was seen before, that gives changes, each told once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from kuaimai.transform.rules import Policy
from kuaimai.transform.unknown import AS_SENT

# A field has vanished where so many values of it were to be expected and none came.
_EXPECTED = 50
# Beyond so many records the older ones count half, so that a habit of the source can change.
_MEMORY = 200_000


class Seen(msgspec.Struct, frozen=True):
    """What the reads of one method in a slice saw of the records' fields.

    Attributes:
        method: API method.
        records: how many records.
        filled: field that has a column → how many of them, or of their lines, had a value in it.
        unknown: field that the catalogue does not know → its column, empty if it gets none; and for values
            that did not fit, the field with `AS_SENT` behind it → their column.
        misfits: fields with a value that does not fit their type.
    """

    method: str
    records: int
    filled: Mapping[str, int]
    unknown: Mapping[str, str]
    misfits: tuple[str, ...]


class Known(msgspec.Struct, frozen=True):
    """What was seen so far; the attributes are those of `Seen`, and the fields that come no more."""

    records: int = 0
    filled: Mapping[str, int] = {}
    unknown: Mapping[str, str] = {}
    misfits: tuple[str, ...] = ()
    vanished: tuple[str, ...] = ()


def added_up(parts: Iterable[Seen]) -> tuple[Seen, ...]:
    """Return one for each method."""
    found: dict[str, Seen] = {}
    for one in parts:
        before = found.get(one.method)
        if before is None:
            found[one.method] = one
            continue
        filled = dict(before.filled)
        for field, count in one.filled.items():
            filled[field] = filled.get(field, 0) + count
        found[one.method] = Seen(
            method=one.method,
            records=before.records + one.records,
            filled=filled,
            unknown={**before.unknown, **one.unknown},
            misfits=tuple(sorted({*before.misfits, *one.misfits})),
        )
    return tuple(found.values())


def compare(known: Known, seen: Seen, policy: Policy) -> tuple[Known, tuple[str, ...]]:
    """Return what is known now, and what is new in it, one sentence for each change."""
    new = sorted(field for field in seen.unknown.keys() - known.unknown if not field.endswith(AS_SENT))
    told = [_new_field(field, seen.unknown[field], policy) for field in new]
    told += [_misfit(field, policy) for field in sorted(set(seen.misfits) - set(known.misfits))]
    vanished = {field for field in known.vanished if not seen.filled.get(field)}
    for field, count in sorted(known.filled.items()):
        expected = count / known.records * seen.records if known.records else 0
        # A field that the pipeline drops by now is not in what was seen.
        if field not in vanished and seen.filled.get(field) == 0 and expected >= _EXPECTED:
            vanished.add(field)
            told.append(f"field {field!r} comes no more: its column stays, and is empty where records change")
    share = 2 if known.records > _MEMORY else 1
    filled = {field: count // share for field, count in known.filled.items()}
    for field, count in seen.filled.items():
        # What comes no more keeps its share of the past.
        filled[field] = filled.get(field, 0) + count
    now = Known(
        records=known.records // share + seen.records,
        filled=filled,
        unknown={**known.unknown, **seen.unknown},
        misfits=tuple(sorted({*known.misfits, *seen.misfits})),
        vanished=tuple(sorted(vanished)),
    )
    return now, tuple(told)


def _new_field(field: str, column: str, policy: Policy) -> str:
    if policy == "evolve":
        what = f"it has the column {column!r}" if column else "it may hold a person's data and is not stored"
    elif policy == "freeze":
        what = "it is not stored (schema: freeze)"
    else:
        what = "records with it are set aside (schema: quarantine)"
    return f"field {field!r} is new: {what}"


def _misfit(field: str, policy: Policy) -> str:
    if policy == "evolve":
        return f"field {field!r} had a value that does not fit its type; such values are in a text column"
    return f"field {field!r} had a value that does not fit its type; such records are set aside"
