"""What happens to rows between the source and the target: split, filter, flatten, format, group.

A row that is filtered out is counted with its key, never dropped silently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from kuaimai.errors import DataError
from kuaimai.pipeline.qeasy import functions
from kuaimai.pipeline.qeasy.exact import plain
from kuaimai.pipeline.qeasy.formats import Format, as_text
from kuaimai.pipeline.qeasy.misfits import Misfit
from kuaimai.pipeline.qeasy.moments import read_time, to_epoch
from kuaimai.pipeline.qeasy.scope import value_at
from kuaimai.pipeline.qeasy.strategy import Condition, Grouping

Row = dict[str, Any]


# Filters


def filtered(row: Row, groups: Sequence[Sequence[Condition]]) -> Row | None:
    """Return the row as far as the conditions let it pass, or None.

    The outer list means OR, the inner one AND. A condition on a field of an array (`items.name`) keeps the
    elements that meet it, and the row with them if there is one; a strict one lets the row pass only if all
    elements meet it. Elements that any passing group keeps stay.

    Raises:
        DataError: a value cannot be compared as the condition asks.
    """
    if not groups:
        return row
    kept: dict[str, set[int]] = {}
    whole: set[str] = set()
    arrays = {array for group in groups for one in group if (array := array_of(row, one.field))}
    passed = False
    for group in groups:
        found = _passes(row, group)
        if found is None:
            continue
        passed = True
        for array in arrays:
            if array in found:
                kept.setdefault(array, set()).update(found[array])
            else:
                whole.add(array)
    if not passed:
        return None
    made = dict(row)
    for array in arrays - whole:
        made = _with_elements(made, array, kept.get(array, set()))
    return made


def _passes(row: Row, group: Sequence[Condition]) -> dict[str, set[int]] | None:
    """Return the numbers of the elements that stay, per array; None if the group does not let it pass."""
    kept: dict[str, set[int]] = {}
    for one in group:
        array = array_of(row, one.field)
        if not array:
            if not holds(one, value_at(row, one.field)):
                return None
            continue
        inner = one.field[len(array) + 1 :]
        elements = value_at(row, array)
        good = {place for place, element in enumerate(elements) if holds(one, value_at(element, inner))}
        if one.strict:
            if len(good) < len(elements) or not elements:
                return None
            continue
        kept[array] = kept.get(array, set(range(len(elements)))) & good
    return kept if all(kept.values()) else None


def array_of(row: Mapping[str, Any], path: str) -> str:
    """Return the part of a path that leads to an array of objects; empty if none does."""
    parts = path.split(".")
    for length in range(1, len(parts)):
        head = ".".join(parts[:length])
        found = row.get(head) if head in row else value_at(row, head)
        if isinstance(found, list):
            return head
    return ""


def _with_elements(row: Row, array: str, kept: set[int]) -> Row:
    head, dot, rest = array.partition(".")
    if array in row or not dot:
        return {**row, array: [one for place, one in enumerate(row[array]) if place in kept]}
    return {**row, head: _with_elements(dict(row[head]), rest, kept)}


def holds(condition: Condition, value: Any) -> bool:
    """Whether one value meets a condition; nothing (null, empty text) meets only `isnull`, `neq`, `not…`.

    Raises:
        DataError: it cannot be compared so.
    """
    empty = value is None or value in ("", [])
    if condition.logic in ("isnull", "notnull"):
        return empty is (condition.logic == "isnull")
    if empty:
        return condition.logic in ("neq", "notlike", "notin")
    try:
        return _LOGICS[condition.logic](value, condition.value)
    except ValueError as err:
        told = f"{condition.path} ({condition.field} {condition.logic}): {err}"
        raise Misfit(told, path=condition.path) from err


def _compared(value: Any, wanted: Any, *, ordered: bool = True) -> int:
    if isinstance(wanted, datetime):
        wall = read_time(value)
        if wall is None:
            raise ValueError("not a time")
        return (to_epoch(wall) > to_epoch(wanted)) - (to_epoch(wall) < to_epoch(wanted))
    left, right = _comparable(value), _comparable(wanted)
    if isinstance(left, Decimal) and isinstance(right, Decimal):
        return (left > right) - (left < right)
    # Texts compare exactly: an id is not the same as one that differs in case.
    a, b = as_text(value), as_text(wanted)
    if ordered and isinstance(left, Decimal) != isinstance(right, Decimal):
        raise ValueError(f"a number and a text: {a[:40]!r}, {b[:40]!r}")
    return (a > b) - (a < b)


def _comparable(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int | Decimal):
        return value
    try:
        return functions.number(value)
    except ValueError:
        return value


def _choices(wanted: Any) -> list[Any]:
    return wanted if isinstance(wanted, list) else [part.strip() for part in as_text(wanted).split(",")]


def _equal(value: Any, wanted: Any) -> bool:
    return _compared(value, wanted, ordered=False) == 0


def _between(value: Any, wanted: Any) -> bool:
    low, high = _choices(wanted)
    return _compared(value, low) >= 0 >= _compared(value, high)


_LOGICS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": _equal,
    "neq": lambda value, wanted: not _equal(value, wanted),
    "gt": lambda value, wanted: _compared(value, wanted) > 0,
    "egt": lambda value, wanted: _compared(value, wanted) >= 0,
    "lt": lambda value, wanted: _compared(value, wanted) < 0,
    "elt": lambda value, wanted: _compared(value, wanted) <= 0,
    "like": lambda value, wanted: as_text(wanted) in as_text(value),
    "notlike": lambda value, wanted: as_text(wanted) not in as_text(value),
    "between": _between,
    "in": lambda value, wanted: any(_equal(value, one) for one in _choices(wanted)),
    "notin": lambda value, wanted: not any(_equal(value, one) for one in _choices(wanted)),
}


# Rows from arrays


def flattened(row: Row, arrays: Sequence[str], key: str, number: str) -> list[Row]:
    """Return one row per element: the parent's fields, the element's as `<array>_<field>`, numbered keys.

    The key gets the suffix -1, -2… by position, so that it changes when the source orders its lines anew.
    Of several arrays one may have elements: whether the platform would pair or cross them is not documented.

    Raises:
        DataError: a field is not an array of objects, or several have elements.
    """
    full = [array for array in arrays if _elements(row, array)]
    if len(full) > 1:
        raise DataError(
            f"beatFlat: {' and '.join(full)} have elements, and it is not documented how both become rows"
        )
    parent = {name: value for name, value in row.items() if name not in arrays}
    made = []
    array = full[0] if full else arrays[0]
    for place, element in enumerate(_elements(row, array), start=1):
        if not isinstance(element, Mapping):
            raise DataError(f"beatFlat: {array} holds {type(element).__name__}, not objects")
        lines = {f"{array}_{name}": value for name, value in element.items()}
        made.append({**_numbered(parent, key, number, place), **lines})
    return made


def split(row: Row, array: str, key: str, number: str) -> list[Row]:
    """Return one row per element of an array, which it then holds as a single object under the same name.

    Raises:
        DataError: the field is not an array.
    """
    own = key.startswith(f"{array}.")  # the element's own key needs no number
    return [
        {**(row if own else _numbered(row, key, number, place)), array: element}
        for place, element in enumerate(_elements(row, array), start=1)
    ]


def _elements(row: Row, array: str) -> list[Any]:
    found = row.get(array)
    if found is None:
        return []
    if not isinstance(found, list):
        raise DataError(f"{array} is a {type(found).__name__}, not an array")
    return found


def _numbered(row: Row, key: str, number: str, place: int) -> Row:
    names = {
        name
        for name in (key, number)
        if isinstance(row.get(name), str | int | Decimal) and not isinstance(row[name], bool)
    }
    return {**row, **{name: f"{as_text(row[name])}-{place}" for name in names}}


def formatted(row: Row, formats: Iterable[tuple[str, str, str, Format]], now: datetime) -> Row:
    """Return the row with its derived columns; each is (path in the strategy, old, new, format).

    Raises:
        DataError: a value does not fit its format.
    """
    made = dict(row)
    for path, old, new, how in formats:
        try:
            made[new] = how.apply(value_at(made, old), now)
        except (ValueError, ArithmeticError) as err:
            raise Misfit(f"{path} ({old}): {err}", path=path) from err
    return made


# Documents from rows


def parted(rows: Sequence[Mapping[str, Any]], grouping: Grouping) -> list[list[int]]:
    """Return the documents that flat rows make, each as the places of its rows.

    Rows of one document have the same header columns. One with more lines than may be is several documents,
    each with whole lines.
    """
    documents: dict[tuple[str, ...], dict[tuple[str, ...], list[int]]] = {}
    for place, row in enumerate(rows):
        lines = documents.setdefault(_same(row, grouping.header), {})
        lines.setdefault(_same(row, grouping.body), []).append(place)
    made = []
    for lines in documents.values():
        most = (grouping.most_lines if grouping.body else None) or len(lines)
        found = list(lines.values())
        made += [
            sorted(place for line in found[start : start + most] for place in line)
            for start in range(0, len(found), most)
        ]
    return made


def joined(rows: Sequence[Mapping[str, Any]], grouping: Grouping) -> Row:
    """Return the document of rows that belong to one: header columns, and lines under the target's array.

    Columns that are neither grouped nor calculated are not part of a document, as on the platform.

    Raises:
        DataError: a calculation meets a value that is no number.
    """
    header = {name: value_at(rows[0], name) for name in grouping.header}
    header |= _calculated(rows, grouping, header=True)
    return {**header, grouping.target_body: _lines(rows, grouping)} if grouping.body else header


def _same(row: Mapping[str, Any], columns: Iterable[str]) -> tuple[str, ...]:
    return tuple(as_text(value_at(row, name)) for name in columns)


def _lines(rows: Iterable[Mapping[str, Any]], grouping: Grouping) -> list[Row]:
    lines: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        lines.setdefault(_same(row, grouping.body), []).append(row)
    return [
        {
            **{name: value_at(members[0], name) for name in grouping.body},
            **_calculated(members, grouping, header=False),
        }
        for members in lines.values()
    ]


def _calculated(rows: Iterable[Mapping[str, Any]], grouping: Grouping, *, header: bool) -> Row:
    """A column of the flattened array belongs to the lines, any other to the header."""
    made: Row = {}
    prefix = f"{grouping.body_name}_"
    for column, how in grouping.calculate.items():
        in_body = bool(grouping.body) and bool(grouping.body_name) and column.startswith(prefix)
        if in_body is header:
            continue
        values = [value for row in rows if (value := value_at(row, column)) is not None]
        try:
            made[column] = _CALCULATIONS[how](values)
        except ValueError as err:
            where = f"{grouping.path}.calculate.{column}"
            raise Misfit(f"{where} ({how}): {err}", path=where) from err
    return made


def _plainly(calculate: Callable[[list[Any]], Any]) -> Callable[[list[Any]], Any]:
    def calculated(values: list[Any]) -> Any:
        found = calculate(values)
        return plain(found) if isinstance(found, Decimal) else found

    return calculated


_CALCULATIONS: dict[str, Callable[[list[Any]], Any]] = {
    "$sum": _plainly(functions.total),
    "$avg": _plainly(functions.average),
    "$min": _plainly(lambda values: functions.extreme(min, values)),
    "$max": _plainly(lambda values: functions.extreme(max, values)),
    "$push": list,
    "$addToSet": lambda values: [one for place, one in enumerate(values) if one not in values[:place]],
    "$first": lambda values: values[0] if values else None,
    "$last": lambda values: values[-1] if values else None,
}
