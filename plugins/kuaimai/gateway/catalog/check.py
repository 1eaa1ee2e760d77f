"""Whether the catalogue holds together: what one entry says of another must be there."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import fields as attributes
from typing import get_args

from kuaimai.errors import ConfigError
from kuaimai.gateway import catalog
from kuaimai.gateway.catalog.model import NUMBER, Field, FieldType, Method, Record, Sure, TimeForm

# The field that holds a key of several parts.
COMPOSED_KEY = "_key"

_UNITS = {"kg", "cm", "day", "ratio"}
_METHOD_ENTRIES = {one.name for one in attributes(Method)} - {"name"}
_RECORD_ENTRIES = {one.name for one in attributes(Record)} - {"name"}

# Names that speak of a person: buyers and receivers, staff, and suppliers' contact and bank data.
_PERSONAL = re.compile(
    r"receiver|buyer|invoice|phone|mobile|address|contact|email|fax|wechat|wangwang|alipay|bank|nick$|openUid"
    r"|^(qq|zip|tax)$|taxNo|creat(e|o)r|createdName|submitName|audd?it(t|or)?Name|operator|operateName|staff"
    r"|maker$|person$|receiveUser|inventoryName",
    re.IGNORECASE,
)
# A shop's main account is the merchant's own, and a web address is no person's.
_NOT_PERSONAL = {("shop", "nick"), ("supplier", "webAddress")}
_TEXT_TYPES = {"id", "text", "json"}


def problems(methods: Iterable[str] | None = None, records: Iterable[str] | None = None) -> list[str]:
    """Return what is wrong with the catalogue, one sentence each; none for one that holds together.

    Args:
        methods: the methods to look at; all without it.
        records: the kinds of records to look at; all without it.
    """
    found = []
    for name in catalog.method_names() if methods is None else methods:
        found += [f"{name}: {problem}" for problem in _of_method(name)]
    for name in catalog.record_names() if records is None else records:
        found += [f"{name}: {problem}" for problem in _of_record(name)]
    if records is None:
        found += [f"{name}: no method, list or field leads to it" for name in _unreachable()]
    return found


def _of_method(name: str) -> Iterator[str]:
    try:
        entry, method = catalog.data_of("methods", name), catalog.method(name)
    except (ConfigError, KeyError, TypeError) as err:
        yield f"cannot be read: {err}"
        return
    yield from _strangers(entry, _METHOD_ENTRIES)
    if not method.label:
        yield "has no label"
    yield from (f"unsure: {fact!r} is no fact of it" for fact in method.unsure if not _is_fact(method, fact))
    asked = [("send", one) for one in method.send]
    asked += [("needs", one) for group in method.needs for one in group]
    asked += [("page", one) for one in ("pageNo", "pageSize") if method.page]
    asked += [("scope", method.scope.param)] if method.scope else []
    asked += [("ids", method.ids.param)] if method.ids else []
    for dimension, facts in (method.times.dimensions if method.times else {}).items():
        asked += [(f"times.{dimension}", one) for one in (facts.start, facts.end, *facts.send)]
    if method.times and method.times.archive:
        asked.append(("times.archive", method.times.archive.param))
        for one in method.times.archive.dimensions:
            if one not in method.times.dimensions:
                yield f"times.archive: knows no dimension {one!r}"
    yield from (f"{fact}: no parameter {param!r}" for fact, param in asked if param not in method.params)
    if method.page and not method.page.min <= (method.page.default or method.page.max) <= method.page.max:
        yield "page: least, default and most are out of order"
    yield from _answer(method)


def _answer(method: Method) -> Iterator[str]:
    """What is wrong with what a method returns."""
    if len(set(method.list_keys)) < len(method.list_keys):
        yield "list_keys: one is named twice"
    if method.record is None:
        if method.list_keys or method.times or method.detail:
            yield "returns records of no kind"
    elif method.record not in catalog.record_names():
        yield f"record: there is no kind {method.record!r}"
    else:
        record = catalog.record(method.record)
        yield from _where(method, record)
        yield from _detail(method, record)
        yield from _history(method)


def _where(method: Method, record: Record) -> Iterator[str]:
    if not method.list_keys:
        yield "list_keys: there are none"
    if method.scope and method.scope.field is not None and method.scope.field not in record.fields:
        yield f"scope: {record.name} has no field {method.scope.field!r}"
    carried = re.findall(r"\[([^\]]*)\]", "".join(method.list_keys))
    for name in ",".join(carried).split(",") if carried else ():
        if name not in record.fields:
            yield f"list_keys: {record.name} has no field {name!r}"
    for name, dimension in (method.times.dimensions if method.times else {}).items():
        if dimension.stamp is not None and not _is_time(record, dimension.stamp):
            yield f"times.{name}: {record.name} has no time {dimension.stamp!r}"


def _history(method: Method) -> Iterator[str]:
    if method.history is None:
        return
    if method.history not in catalog.method_names():
        yield f"history: there is no method {method.history!r}"
    elif catalog.method(method.history).record != method.record:
        yield "history: returns records of another kind"


def _detail(method: Method, record: Record) -> Iterator[str]:
    detail = method.detail
    if detail is None:
        return
    if detail.method not in catalog.method_names():
        yield f"detail: there is no method {detail.method!r}"
        return
    asked = catalog.method(detail.method)
    if detail.param not in asked.params:
        yield f"detail: {asked.name} has no parameter {detail.param!r}"
    if detail.field not in record.fields:
        yield f"detail: {record.name} has no field {detail.field!r}"
    if record.children.get(detail.into) != asked.record:
        yield f"detail: {record.name} has no list {detail.into!r} of what {asked.name} returns"


def _of_record(name: str) -> Iterator[str]:
    try:
        entry, record = catalog.data_of("records", name), catalog.record(name)
    except (ConfigError, KeyError, TypeError) as err:
        yield f"cannot be read: {err}"
        return
    yield from _strangers(entry, _RECORD_ENTRIES)
    if not record.label:
        yield "has no label"
    yield from (f"unsure: {fact!r} is no fact of it" for fact in record.unsure if fact not in _RECORD_ENTRIES)
    yield from _key(record)
    yield from (f"version: no time {one!r}" for one in record.version if not _is_time(record, one))
    for list_field, kind in record.children.items():
        if list_field in record.fields:
            yield f"children: {list_field!r} is a field as well"
        if kind not in catalog.record_names():
            yield f"children: there is no kind {kind!r}"
        elif catalog.record(kind).parent_key is None:
            yield f"children: {kind} has no parent_key"
    for one in record.fields.values():
        yield from (f"{one.name}: {problem}" for problem in _of_field(record, one))
    spellings = Counter(name for one in record.fields.values() for name in (one.name, *one.aliases))
    # YAML would take the last of two without a word.
    written = Counter(re.findall(r"^    (\w+): ", catalog.text_of("records", name), re.MULTILINE))
    yield from (f"{one!r} is written twice" for one, times in written.items() if times > 1)
    columns = Counter(one.column for one in record.fields.values())
    yield from (f"{one!r} spells two fields" for one, times in spellings.items() if times > 1)
    yield from (f"two fields share the column {one!r}" for one, times in columns.items() if times > 1)


def _key(record: Record) -> Iterator[str]:
    if record.key not in record.fields:
        yield f"key: no field {record.key!r}"
    elif record.fields[record.key].column_type != "id":
        yield "key: is no id; MySQL has no key on a text, and an empty text would be one"
    if (record.key == COMPOSED_KEY) != bool(record.key_of):
        yield f"key_of: belongs to the key {COMPOSED_KEY!r}, and to no other"
    for part in record.key_of:
        if part == NUMBER and record.parent_key is None:
            yield "key_of: only lines are numbered"
        if part not in record.fields and part != NUMBER:
            yield f"key_of: no field {part!r}"
    if record.parent_key is not None and record.parent_key not in record.fields:
        yield f"parent_key: no field {record.parent_key!r}"


def _of_field(record: Record, one: Field) -> Iterator[str]:
    numeric = one.type in ("number", "integer")
    wrong = {
        f"there is no type {one.type!r}": one.type not in get_args(FieldType),
        f"sure: there is no {one.sure!r}": one.sure not in get_args(Sure),
        "has no label": not one.label,
        "columns that begin with _ are ours": one.column.startswith("_") and one.name != COMPOSED_KEY,
        f"unit {one.unit!r} does not fit": one.unit is not None and not (numeric and one.unit in _UNITS),
        f"form {one.form!r} does not fit": one.form not in (None, *get_args(TimeForm))
        or (one.form is not None and one.type != "time"),
        "the sentinels of times are the same everywhere": one.type == "time" and bool(one.sentinels),
        "sounds like a person's data, and is not marked `personal`": _speaks_of_a_person(record, one)
        and not one.personal,
    }
    yield from (problem for problem, there in wrong.items() if there)
    if one.of is not None:
        yield from _inside(one, one.of)


def _speaks_of_a_person(record: Record, one: Field) -> bool:
    if one.type not in _TEXT_TYPES or (record.name, one.name) in _NOT_PERSONAL:
        return False
    return _PERSONAL.search(one.name) is not None


def _inside(one: Field, kind: str) -> Iterator[str]:
    if one.type != "json" or kind not in catalog.record_names():
        yield f"of: {kind!r} does not fit"
        return
    held = ", ".join(inner.name for inner in catalog.record(kind).fields.values() if inner.personal)
    if held and not one.personal:
        yield f"holds a person's data ({held}), and is not marked `personal`"


def _strangers(entry: dict[str, object], known: set[str]) -> Iterator[str]:
    yield from (f"there is no entry {name!r}" for name in entry if name not in known)


def _is_time(record: Record, name: str) -> bool:
    return name in record.fields and record.fields[name].type == "time"


def _is_fact(method: Method, fact: str) -> bool:
    """Whether `page`, `page.max` or `times.created` names something that the method has."""
    outer, _, inner = fact.partition(".")
    if outer not in _METHOD_ENTRIES:
        return False
    value = getattr(method, outer)
    if not inner:
        return value is not None
    return hasattr(value, inner) or inner in getattr(value, "dimensions", ())


def _unreachable() -> list[str]:
    led_to = {catalog.method(name).record for name in catalog.method_names()}
    for name in catalog.record_names():
        record = catalog.record(name)
        led_to |= {*record.children.values(), *(one.of for one in record.fields.values())}
    return [name for name in catalog.record_names() if name not in led_to]
