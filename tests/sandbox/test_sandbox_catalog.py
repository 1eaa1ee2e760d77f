"""The catalogue describes everything that the sandbox serves, and takes every value of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sandbox_caller import Caller

from kuaimai.gateway import catalog
from kuaimai.gateway.answers import Answer, read_envelope
from kuaimai.sandbox.methods import METHODS
from kuaimai.transform.fields import CONVERTERS

DETAILED = [name for name in METHODS if catalog.method(name).detail]
# The truth of a detail method is its answers, not their lines.
DETAILS = {detail.method for name in DETAILED if (detail := catalog.method(name).detail)}
LISTED = [
    name
    for name, method in METHODS.items()
    if method.truth and catalog.method(name).record and name not in DETAILS
]


def strangers(kind: str, rows: list[dict[str, Any]]) -> Iterator[str]:
    """Name the fields that the catalogue does not know, and the values that it does not take."""
    record = catalog.record(kind)
    known = {name: one for one in record.fields.values() for name in (one.name, *one.aliases)}
    for row in rows:
        yield from (f"{kind} knows no {name}" for name in row.keys() - known.keys() - record.children.keys())
        for name in row.keys() & known.keys():
            one = known[name]
            try:
                CONVERTERS[one.type](row[name])
            except ValueError as err:
                yield f"{kind}.{name}: {err}"
            if one.of:
                inside = row[name] if isinstance(row[name], list) else [row[name]]
                yield from strangers(one.of, [part for part in inside if part])
        for list_field, child in record.children.items():
            yield from strangers(child, row.get(list_field) or [])


def some(rows: dict[str, dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Pick rows from everywhere, old and new."""
    return list(rows.values())[:: max(len(rows) // most, 1)]


def exact(value: Any) -> Any:
    """Read a value as it would come over HTTP."""
    raw = json.dumps({"value": value}).encode()
    return read_envelope("x", raw)["value"]


def test_sandbox_and_catalogue_have_the_same_methods():
    assert set(METHODS) == set(catalog.method_names())


def test_every_record_is_described(open_box):
    box: Caller = open_box(documents_per_day=30)
    found = {
        problem
        for name in LISTED
        for problem in strangers(catalog.method(name).record or "", exact(some(box.box.truth(name), 40)))
    }
    assert found == set()


@pytest.mark.parametrize("name", DETAILED)
def test_every_line_is_described(open_box, name):
    caller: Caller = open_box(history_orders=0, documents_per_day=30)
    asked = catalog.method(name).detail
    assert asked
    lines = []
    for row in some(caller.box.truth(name), 5):
        raw = caller.post(asked.method, **{asked.param: row[asked.field]}).content
        answer = Answer(asked.method, read_envelope(asked.method, raw), raw)
        lines += answer.rows(catalog.method(asked.method).list_keys)
    assert lines
    assert set(strangers(catalog.method(asked.method).record or "", lines)) == set()
