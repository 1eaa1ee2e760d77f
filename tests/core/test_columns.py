"""Column by column or value by value: the same rows, the same quarantine, the same fingerprints."""

from __future__ import annotations

import json
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from orders import T0, line, order

from kuaimai.gateway.answers import Answer, encode_json, read_envelope
from kuaimai.transform import columns
from kuaimai.transform.mapping import Mapper
from kuaimai.transform.rows import Rows


def answer(raw: bytes) -> Answer:
    return Answer("x", read_envelope("x", raw), raw)


def both_ways(*pages: bytes):
    """Map the same pages by columns and by values."""
    results = []
    for fast in (True, False):
        mapper = Mapper("trade")
        into = [Rows(table) for table in mapper.tables]
        answers = [answer(page) for page in pages]
        if fast:
            bad = mapper.map_answers(answers, ("list",), into)
        else:
            bad = mapper.map([row for one in answers for row in one.rows(("list",))], into)
        tables = [rows.to_arrow(rank=0, window_id="w") for rows in into]
        results.append(
            (tables, [(one.key, one.reason, repr(one.record)) for one in bad], mapper.unknown_fields)
        )
    return results


def same(*pages: bytes):
    (tables, bad, unknown), (slow_tables, slow_bad, slow_unknown) = both_ways(*pages)
    assert bad == slow_bad
    for table, slow in zip(tables, slow_tables, strict=True):
        assert table.schema == slow.schema
        assert table.to_pylist() == slow.to_pylist()
    assert unknown == slow_unknown
    return tables, bad


def page(*records, **top) -> bytes:
    return encode_json({"total": len(records), "list": list(records), **top})


# JSON texts, because some cannot be made from Python values.
TEXTS = [
    *(
        "null",
        '""',
        '"abc"',
        '"0"',
        '"5"',
        '" 5 "',
        '"+5"',
        '"-5"',
        '"007"',
        '"0x1F"',
        '"1_000"',
        '"\\u0035"',
    ),
    *("true", "false", "0", "-0", "1", "-1", "-0.0", "12.50", "0.7000000000000000", "33.989999999999995"),
    *("1e3", "1E-18", "1e-19", "1e400", "0e99", "1e20", "9007199254740993", "6900000000000000017"),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775808", "123456789012345678901234567890"),
    *(
        "340282366920938463463374607431768211457",
        '"340282366920938463463374607431768211457"',
        "0." + "1" * 60,
    ),
    *(
        '"12345678901234567890.123456789012345678"',
        '"1.50000000000000000000000000"',
        '"1e-7"',
        '".5"',
        '"5."',
    ),
    *('"NaN"', '"Infinity"', '"1,5"', '"-"', '"."', '"e5"', '"٣"', '"1.2.3"', '"null"', '"true"'),
    *(
        "946656000000",
        '"946656000000"',
        "978278400000",
        str(T0),
        f'"{T0}"',
        f"{T0}.0",
        "1772326905",
        "100000000000",
    ),
    *(
        "99999999999",
        "100000000000000",
        '"2026-03-01 09:01:45"',
        '"2026-03-01"',
        '"2026-02-30"',
        '"9999-12-31"',
    ),
    *('"0000-00-00 00:00:00"', '"尽快🚀"', '"a\\nb"', '"\\"quoted\\""', '"back\\\\slash"', '"a\\u0000b"'),
    *(
        '"\\ud83d"',
        '"\\ud83d\\ude80"',
        '"\ufffd"',
        '"x\\u001fy"',
        '"\u2028"',
        "[]",
        "{}",
        "[1]",
        '[{"b":2},{"a":1}]',
    ),
    *('[{"a":1},{"b":2}]', '{"a":[1,{"b":null}]}', '["\\u0000"]', '[1.50,"x"]'),
]
KINDS = [
    "sid",
    "tid",
    "source",
    "num",
    "payment",
    "weight",
    "created",
    "updTime",
    "tradeTags",
    "isCancel",
    "type",
]
LINE_KINDS = ["id", "sid", "num", "price", "totalFee", "totalFree", "title", "created", "suits", "newField"]


def record_text(fields: dict[str, str]) -> bytes:
    return ("{" + ",".join(f'"{name}":{text}' for name, text in fields.items()) + "}").encode("utf-8")


@pytest.mark.parametrize("text", TEXTS)
def test_every_ugly_value_in_every_kind_of_field(text):
    records = [record_text({"sid": f'"{kind}"', "orders": "[]", kind: text}) for kind in KINDS]
    for kind in LINE_KINDS:
        lines = b'[{"id":"8%s"},%s]' % (kind.encode(), record_text({"id": f'"{kind}"', kind: text}))
        records.append(record_text({"sid": f'"l{kind}"', "orders": lines.decode()}))
    same(b'{"list":[' + b",".join(records) + b"]}")


ugly = st.sampled_from(TEXTS)
keys = st.sampled_from(["1", "2", '"2"', "3", "null", '""', "true", "4.5"])
versions = st.sampled_from([str(T0), str(T0 + 1), f'"{T0 + 2}"', "null", "946656000000"])
a_line = st.fixed_dictionaries(
    {"id": keys}, optional={name: ugly for name in LINE_KINDS if name != "id"}
).map(lambda fields: record_text(fields).decode())
a_record = st.fixed_dictionaries(
    {"sid": keys},
    optional={
        "updTime": versions,
        "orders": st.lists(a_line, max_size=3).map(lambda lines: f"[{','.join(lines)}]")
        | st.sampled_from(["null", "5", "[1]", "{}"]),
        "receiverName": ugly,
        "unheardOf": ugly,
        **{name: ugly for name in KINDS if name not in ("sid", "updTime")},
    },
).map(record_text)


@settings(deadline=None)
@given(st.lists(st.lists(a_record, max_size=5), min_size=1, max_size=3))
def test_columns_and_values_agree_on_anything(pages):
    same(*(b'{"list":[' + b",".join(records) + b"]}" for records in pages))


@settings(deadline=None, max_examples=20)
@given(st.lists(st.sampled_from(TEXTS), min_size=1, max_size=30), st.sampled_from(KINDS[1:]))
def test_a_column_of_mixed_forms(texts, kind):
    records = [record_text({"sid": str(at), kind: text}) for at, text in enumerate(texts)]
    same(b'{"list":[' + b",".join(records) + b"]}")


@pytest.mark.parametrize(
    "raw",
    [
        b'\xef\xbb\xbf{"list":[{"sid":1,"source":"mark"}]}',
        b'{"list":[{"sid":1,"source":"bad byte \xff"},{"sid":2}]}',
        b'{"list":[{"sid":1,"receiverName":"\xff\xfe"},{"sid":2,"n\xffew":1}]}',
        b'{"list":[{"sid":1,"source":"two\nlines"},{"sid":2}]}',
        b'{"list":[{"sid":1,"receiverName":"\\ud83d"},{"sid":2,"source":"\\ud83d"}]}',
        b'{"list":[{"sid":1,"tradeTags":[\n  {"id": 1}\n]},{"sid":2}]}',
        b'{\n "list": [\n {"sid" : 1 , "source" : "x" }\n ]\n}',
        b'{"list":{"sid":1,"orders":null}}',
        b'{"x_response":{"list":[{"sid":1}]}}',
        b'{"list":[{"sid":1,"sid":2,"source":"a","source":"b"}]}',
        b'{"list":[{"s\\u0069d":1,"odd\\"name":5}]}',
        b'{"total":0}',
        b'{"list":[]}',
    ],
)
def test_every_envelope_and_broken_character(raw):
    same(raw, page(order(99)))


def test_text_keeps_every_character():
    memo = '尽快🚀\n"引号",逗号\\ \t\x1f\x7f'
    ((trades, _), bad) = same(page(order(1, sellerMemo=memo), order(2, sellerMemo="")))
    assert bad == []
    assert trades.column("seller_memo").to_pylist() == [memo, ""]


def test_newest_version_of_a_key_stays_and_of_equal_ones_the_last():
    pages = [
        page(order(1, T0 + 5, sysMemo="new"), order(2, T0, sysMemo="first")),
        page(order(1, T0, sysMemo="old"), order(2, T0, sysMemo="second")),
    ]
    ((trades, _), _) = same(*pages)
    assert trades.column("sys_memo").to_pylist() == ["new", "second"]


def fingerprint(**fields) -> str:
    ((trades, _), _) = same(page(order(1, **fields)))
    return trades.column("_content_hash")[0].as_py()


@pytest.mark.parametrize("spelt", ["gmModified", "modified"])
def test_version_is_the_same_on_either_way_however_it_is_spelt(spelt):
    record = {"id": 1, "gmCreate": 1_772_000_000_000, spelt: 1_772_298_000_000}
    mapper = Mapper("purchase_return")
    by_values, by_columns = ([Rows(table) for table in mapper.tables] for _ in range(2))
    assert mapper.map([record], by_values) == []
    assert mapper.map_answers([answer(page(record))], ("list",), by_columns) == []
    for rows in (by_values, by_columns):
        assert rows[0].to_arrow(rank=0, window_id="w")["_version"].to_pylist() == [record[spelt]]


def test_fingerprint_is_of_the_content_not_of_its_form():
    assert fingerprint(payment="59.80") == fingerprint(payment=Decimal("59.8"))
    assert fingerprint(tradeTags=[{"id": 1}, {"id": 2}]) == fingerprint(tradeTags=[{"id": 2}, {"id": 1}])
    assert fingerprint(payTime="2026-03-01 09:00:00") == fingerprint(payTime=T0)


def test_fingerprint_tells_apart_what_differs():
    variants = [
        {},
        {"sysMemo": ""},
        {"sysMemo": "a"},
        {"sysMemo": "\x1f"},
        {"sellerMemo": "a"},
        {"sysMemo": "a", "sellerMemo": ""},
        {"payment": "59.81"},
        {"cost": Decimal("0.000000000000000001")},
        {"payTime": T0},
        {"isCancel": 1},
    ]
    assert len({fingerprint(**fields) for fields in variants}) == len(variants)


def test_field_that_nobody_knows_is_reported_and_slows_nothing_down():
    mapper = Mapper("trade")
    into = [Rows(table) for table in mapper.tables]
    odd = page(order(1, brandNew=[1], lines=[line(1, other="x")]), order(2))
    assert mapper.map_answers([answer(odd), answer(page(order(3, brandNew=2)))], ("list",), into) == []
    assert mapper.unknown_fields == {"brandNew", "orders.other"}
    assert [len(rows) for rows in into] == [3, 3]
    assert all(isinstance(part, pa.Table) and part.num_rows for rows in into for part in rows._parts)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.decimals(allow_nan=False, allow_infinity=False).map(str), min_size=1))
def test_any_number_in_any_spelling(texts):
    records = [
        record_text({"sid": f'"{at}{name}"', name: sent})
        for at, text in enumerate(texts)
        for sent in (text, json.dumps(text))
        for name in ("payment", "num", "updTime", "tid", "source")
    ]
    same(b'{"list":[' + b",".join(records) + b"]}")


def test_page_that_was_read_before_a_field_was_met_gets_nulls_in_its_place():
    before, after = columns.join_rows([[b"1"], [b"2"]]), columns.join_rows([[b"3", b'"x"']])
    first, second = columns.split_rows([columns.widened(before, 1), columns.widened(after, 0)], 2)
    assert (first.to_pylist(), second.to_pylist()) == (["1", "2", "3"], [None, None, '"x"'])
