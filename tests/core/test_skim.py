"""Skimming a page finds the same keys and times as reading it whole."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kuaimai.errors import DataError, Transient
from kuaimai.extract.skim import record_key, skim
from kuaimai.gateway import catalog
from kuaimai.gateway.answers import Answer, read_envelope

LIST_KEYS = ("list", "items")
TRADE = catalog.record("trade")


def answer(raw: bytes) -> Answer:
    return Answer("x", read_envelope("x", raw), raw)


def whole(raw: bytes) -> tuple[list[str], list[int]]:
    rows = answer(raw).rows(LIST_KEYS)
    sent = [row.get("updTime") for row in rows]
    stamps = [int(one) if isinstance(one, str) and one.isdecimal() else one for one in sent]
    return (
        [record_key(row, TRADE) for row in rows],
        [one for one in stamps if isinstance(one, int) and not isinstance(one, bool)],
    )


@pytest.mark.parametrize(
    ("raw", "keys", "stamps"),
    [
        (b'{"list":[{"sid":1,"updTime":5},{"sid":"2"}]}', ["1", "2"], [5]),
        (b'{"list":null,"items":[{"sid":6900000000000000017}]}', ["6900000000000000017"], []),
        (b'{"list":{"sid":1}}', ["1"], []),
        (b'{"x_response":{"list":[{"sid":1}]}}', ["1"], []),
        (b'{"total":0}', [], []),
        (b'{"list":[]}', [], []),
        (b'\xef\xbb\xbf{"list":[{"sid":1}]}', ["1"], []),
        (b'{"list":[{"sid":1,"memo":"\\ud83d"}]}', ["1"], []),
        (b'{"list":[{"sid":"\xff","memo":"\xff"}]}', ["\ufffd"], []),
        (b'{"list":[{"sid":1,"updTime":"2026-03-01"},{"sid":0,"updTime":true}]}', ["1", "0"], []),
    ],
)
def test_keys_and_times_in_every_envelope(raw, keys, stamps):
    skimmed = skim(answer(raw), LIST_KEYS, TRADE, "updTime")
    assert (skimmed.keys, skimmed.stamps) == (keys, stamps) == whole(raw)


def test_record_without_a_usable_key_is_known_by_its_content():
    raw = b'{"list":[{"sid":1},{"sid":null,"a":1},{"sid":null,"a":2},{"a":1},{"sid":""}]}'
    keys = skim(answer(raw), LIST_KEYS, TRADE, None).keys
    assert keys == whole(raw)[0]
    assert keys[0] == "1"
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("rows", [b'"text"', b"5", b"[1]", b"[{},null]"])
def test_what_is_no_list_of_records_is_refused(rows):
    with pytest.raises(DataError):
        skim(answer(b'{"list":' + rows + b"}"), LIST_KEYS, TRADE, None)


@pytest.mark.parametrize(
    "rows",
    [
        b'[{"sid":1,"x":[1,2}]',
        b'[{"sid":1,"x":tru}]',
        b'[{"sid":1',
        b'[{"x":NaN}]',
        b'[{"x":Infinity}]',
        b'[{"x":01}]',
    ],
)
def test_text_that_breaks_off_inside_the_rows_is_told_when_it_arrives(rows):
    with pytest.raises(Transient, match="no valid JSON"):
        read_envelope("x", b'{"list":' + rows + b"}")


def test_number_too_long_for_any_field_is_told_like_broken_text():
    raw = b'{"list":[{"sid":' + b"1" * 5000 + b"}]}"
    with pytest.raises(Transient, match="no valid JSON"):
        skim(answer(raw), LIST_KEYS, TRADE, None)


ugly = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3)
)
records = st.dictionaries(st.sampled_from(["sid", "updTime", "a"]), ugly | st.lists(ugly, max_size=2))


@given(st.lists(records, max_size=4))
def test_skimming_is_reading_only_faster(rows):
    raw = json.dumps({"list": rows, "total": len(rows)}).encode()
    skimmed = skim(answer(raw), LIST_KEYS, TRADE, "updTime")
    assert (skimmed.keys, skimmed.stamps) == whole(raw)


@pytest.mark.parametrize("name", ["code", "multiCode"])
def test_a_part_of_the_key_counts_in_either_spelling(name):
    kind = catalog.record("item_multicode")
    row = {"sysItemId": 1, name: "A-01"}
    assert skim(answer(json.dumps({"list": [row]}).encode()), ("list",), kind, None).keys == ["1//A-01"]
    assert record_key(row, kind) == "1//A-01"


@pytest.mark.parametrize("name", ["gmModified", "modified"])
def test_a_time_counts_in_either_spelling(name):
    raw = json.dumps({"list": [{"id": 1, "gmModified": None, name: 1772298000000}]}).encode()
    skimmed = skim(answer(raw), ("list",), catalog.record("purchase_return"), "gmModified")
    assert (skimmed.keys, skimmed.stamps) == (["1"], [1772298000000])


def test_the_time_that_is_asked_for_may_be_part_of_the_key():
    row = {"orderNumber": "A", "operateTime": 1772298000000, "stockChange": -3}
    raw = json.dumps({"list": [row]}).encode()
    skimmed = skim(answer(raw), ("list",), catalog.record("stock_movement"), "operateTime")
    assert (skimmed.keys, skimmed.stamps) == (["A///1772298000000/-3"], [1772298000000])


def test_key_that_numbers_its_lines_is_made_of_its_other_parts():
    kind = catalog.record("purchase_line")
    parts = [name for name in kind.key_of if name != catalog.NUMBER]
    row = dict(zip(parts, map(str, range(1, 9)), strict=False))
    raw = json.dumps({"list": [row]}).encode()
    assert skim(answer(raw), ("list",), kind, None).keys == [record_key(row, kind)]
    assert record_key(row, kind).startswith("1/2")
