"""Rows between source and target: filtered visibly, flattened, grouped, batched; a bad one is set aside."""

from __future__ import annotations

from decimal import Decimal

import pytest
import strategy_cases as cases
from hypothesis import given
from hypothesis import strategies as st

from kuaimai.pipeline.qeasy.compiling import load_strategy
from kuaimai.pipeline.qeasy.rendering import render_requests, render_writeback

ORDER = {
    "sid": 5970000000000001,
    "tid": "T1",
    "userId": 900001,
    "source": "fxg",
    "sysStatus": "WAIT_AUDIT",
    "payTime": 1772330400000,
    "payment": "59.80",
    "orders": [
        {"id": 1, "num": 2, "sysOuterId": "DEMO-A", "price": "29.90"},
        {"id": 2, "num": 1, "sysOuterId": "it's \\ ;--", "price": "0.10"},
    ],
}


def one(condition, row):
    made = cases.rendered(cases.source(condition=condition), rows=[{"id": 1, **row}])
    return made.shaped


@pytest.mark.parametrize(
    ("logic", "wanted", "passing", "failing"),
    [
        ("eq", "5", [5, "5", "5.0", Decimal("5.00")], ["6", None, "", "x"]),
        ("eq", "A1", ["A1"], ["a1", "A", None]),
        ("neq", "5", ["6", None, ""], [5]),
        ("gt", "5", [6, "10"], [5, "4", None]),
        ("egt", "5", [5], [4]),
        ("lt", 5, ["4.99"], [5]),
        ("elt", 5, [5], ["5.01"]),
        ("gt", "2026-03-01", ["2026-03-02"], ["2026-02-28 23:59:59"]),
        ("gt", "timestamp:1772330400", ["2026-03-01 10:00:01", 1772330401000], [cases.START, None]),
        ("lt", f"timestamp:{cases.START}", [1772330399], [1772330400]),
        (
            "between",
            "timestamp:2026-03-01,2026-03-02 12:00:00",
            [1772330400000, "2026-03-02 12:00:00"],
            ["2026-02-28 23:59:59", 1772424001000],
        ),
        ("like", "活动", ["大活动日"], ["别的", None]),
        ("notlike", "活动", ["别的", None], ["活动"]),
        ("between", "100,500", [100, "500", 250], [99, "501", None]),
        ("notnull", None, [0, "x"], [None, "", []]),
        ("isnull", None, [None, "", []], [0]),
        ("in", "a,b", ["a", "b"], ["c", None]),
        ("in", [1, 2], ["1"], [3]),
        ("notin", "a,b", ["c", None], ["a"]),
    ],
)
def test_comparisons(logic, wanted, passing, failing):
    condition = [[{"field": "v", "logic": logic, "value": wanted}]]
    for value in passing:
        assert len(one(condition, {"v": value}).rows) == 1, value
    for value in failing:
        assert one(condition, {"v": value}).filtered == ("1",), value


def test_what_cannot_be_compared_is_set_aside_and_not_dropped():
    shaped = one([[{"field": "v", "logic": "gt", "value": "5"}]], {"v": "many"})
    ((bad,), rows, filtered) = shaped.bad, shaped.rows, shaped.filtered
    assert (rows, filtered) == ((), ())
    assert bad.reason == "metadata.condition[0][0] (v gt): a number and a text: 'many', '5'"
    assert bad.row == {"id": 1, "v": "many"}


def test_conditions_on_nested_arrays_and_objects():
    row = {"shop": {"area": {"no": 7}}, "box": {"lines": [{"q": 1}, {"q": 5}]}}
    assert len(one([[{"field": "shop.area.no", "logic": "eq", "value": 7}]], row).rows) == 1
    ((_, kept),) = one([[{"field": "box.lines.q", "logic": "gt", "value": 3}]], row).rows
    assert kept["box"] == {"lines": [{"q": 5}]}
    both = [
        [
            {"field": "box.lines.q", "logic": "gt", "value": 3},
            {"field": "box.lines.q", "logic": "lt", "value": 4},
        ]
    ]
    assert one(both, row).filtered == ("1",)


ROWS = st.lists(
    st.fixed_dictionaries({"q": st.integers(0, 5) | st.none(), "w": st.sampled_from(["a", "b"])}), max_size=5
)


@given(st.integers(0, 5) | st.none(), ROWS, st.integers(0, 5), st.integers(0, 5), st.booleans())
def test_every_row_passes_or_is_counted_and_none_is_changed_otherwise(head, rows, low, high, strict):
    condition = [
        [{"field": "head", "logic": "egt", "value": low}],
        [{"field": "lines.q", "logic": "egt", "value": high, "strictMode": strict}],
    ]
    shaped = one(condition, {"head": head, "lines": rows})
    assert len(shaped.rows) + len(shaped.filtered) == 1
    assert shaped.bad == ()
    good = [row for row in rows if row["q"] is not None and row["q"] >= high]
    first = head is not None and head >= low
    second = bool(rows) and (len(good) == len(rows) if strict else bool(good))
    assert bool(shaped.rows) == (first or second)
    if shaped.rows:
        assert shaped.rows[0][1]["lines"] == (rows if first or strict else good)


def test_flat_rows_are_numbered_and_keep_all_but_the_array():
    made = cases.rendered(cases.source(id="sid", number="tid", beatFlat=["orders"]), rows=[ORDER])
    (key, row), (second, _) = made.shaped.rows
    assert (key, second) == ("5970000000000001-1", "5970000000000001-2")
    assert (row["tid"], row["orders_num"], row["payment"]) == ("T1-1", 2, "59.80")
    assert "orders" not in row
    for nothing in ([], None):
        made = cases.rendered(
            cases.source(id="sid", beatFlat=["orders"]), rows=[{**ORDER, "orders": nothing}]
        )
        assert (made.shaped.rows, made.shaped.bad) == ((), ())


def test_of_several_arrays_one_may_have_elements():
    source = cases.source(id="sid", beatFlat=["orders", "gifts"])
    rows = [
        {"sid": 1, "orders": [{"num": 2}], "gifts": []},
        {"sid": 2, "gifts": [{"num": 1}, {"num": 3}]},
        {"sid": 3, "orders": [{"num": 1}], "gifts": [{"num": 1}]},
        {"sid": 4},
    ]
    made = cases.rendered(source, rows=rows).shaped
    assert made.rows == (
        ("1-1", {"sid": "1-1", "orders_num": 2}),
        ("2-1", {"sid": "2-1", "gifts_num": 1}),
        ("2-2", {"sid": "2-2", "gifts_num": 3}),
    )
    (bad,) = made.bad
    assert bad.key == "3"
    assert "orders and gifts have elements" in bad.reason


def test_split_rows_keep_a_key_of_their_own_where_there_is_one():
    split = {"method": "splitArray", "arrayKey": "orders"}
    made = cases.rendered(cases.source(id="orders.id", operation=split), rows=[ORDER])
    assert [key for key, _ in made.shaped.rows] == ["1", "2"]
    assert made.shaped.rows[1][1]["orders"]["num"] == 1


@pytest.mark.parametrize("broken", [{"orders": 5}, {"orders": [7]}, {"sid": None}, {"sid": {"a": 1}}])
def test_a_row_of_another_shape_is_set_aside_whole(broken):
    row = {**ORDER, **broken}
    made = cases.rendered(cases.source(id="sid", beatFlat=["orders"]), rows=[row, ORDER])
    assert [bad.row for bad in made.shaped.bad] == [row]
    assert len(made.shaped.rows) == 2


def test_grouping_makes_documents_and_splits_long_ones():
    source = cases.source(id="sid", beatFlat=["orders"])
    target = cases.target(
        ("shop", "{{userId}}"),
        ("total", "{{payment}}"),
        {
            "field": "entries",
            "type": "array",
            "value": "lines",
            "children": [
                {"field": "code", "value": "{{lines.orders_sysOuterId}}"},
                {"field": "qty", "type": "number", "value": "{{lines.orders_num}}"},
            ],
        },
        groupCalculate={
            "headerGroup": ["userId"],
            "bodyGroup": ["orders_sysOuterId"],
            "bodyName": "orders",
            "targetBodyName": "lines",
            "bodyMaxLine": 2,
            "calculate": {"orders_num": "$sum", "payment": "$first"},
        },
    )
    other = {
        **ORDER,
        "sid": 2,
        "orders": [{"num": "0.5", "sysOuterId": "DEMO-A"}, {"num": 4, "sysOuterId": "C"}],
    }
    writes = cases.rendered(source, target, rows=[ORDER, other]).writes
    assert [write.params for write in writes] == [
        {
            "shop": "900001",
            "total": "59.80",
            "entries": [{"code": "DEMO-A", "qty": Decimal("2.5")}, {"code": "it's \\ ;--", "qty": 1}],
        },
        {"shop": "900001", "total": "59.80", "entries": [{"code": "C", "qty": 4}]},
    ]
    assert [write.keys for write in writes] == [("5970000000000001-1", "5970000000000001-2", "2-1"), ("2-2",)]


def test_the_header_of_a_long_documents_part_is_about_its_own_lines():
    target = cases.target(
        {"field": "total", "type": "number", "value": "{{amount}}"},
        groupCalculate={
            "headerGroup": ["shop"],
            "bodyGroup": ["line"],
            "bodyName": "lines",
            "bodyMaxLine": 1,
            "calculate": {"amount": "$sum"},
        },
    )
    rows = [{"id": n, "shop": 1, "line": n % 2, "amount": n} for n in (1, 2, 3, 4)]
    writes = cases.rendered(cases.source(), target, rows=rows).writes
    assert [(write.keys, write.params) for write in writes] == [
        (("1", "3"), {"total": 4}),
        (("2", "4"), {"total": 6}),
    ]


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.decimals(-(10**9), 10**9, places=3)), min_size=1, max_size=20
    )
)
def test_grouped_sums_are_exact(values):
    rows = [{"id": n, "g": group, "v": amount} for n, (group, amount) in enumerate(values)]
    target = cases.target(
        ("g", "{{g}}"),
        {"field": "v", "type": "number", "value": "{{v}}"},
        groupCalculate={"headerGroup": ["g"], "calculate": {"v": "$sum"}},
    )
    writes = cases.rendered(cases.source(), target, rows=rows).writes
    for write in writes:
        expected = sum((v for g, v in values if g == write.params["g"]), Decimal(0))
        assert write.params["v"] == expected
    assert sum(len(write.keys) for write in writes) == len(rows)


@pytest.mark.parametrize(
    ("how", "expected"),
    [("$min", 1), ("$max", 3), ("$avg", 2), ("$push", [3, 1, 2, 1]), ("$addToSet", [3, 1, 2]), ("$last", 1)],
)
def test_calculations(how, expected):
    rows = [{"id": n, "g": 1, "v": value} for n, value in enumerate([3, 1, 2, None, 1])]
    if how == "$avg":
        rows[-1]["v"] = 2
    target = cases.target(
        ("g", "{{g}}"),
        {"field": "v", "type": "array" if isinstance(expected, list) else "number", "value": "{{v}}"},
        groupCalculate={"headerGroup": ["g"], "calculate": {"v": how}},
    )
    (write,) = cases.rendered(cases.source(), target, rows=rows).writes
    assert write.params["v"] == expected


def test_batches_share_a_request_and_the_last_is_shorter():
    target = cases.target(
        ("n", "{{id}}"), operation={"method": "batchArraySave", "rows": 2, "rowsKey": "data"}
    )
    writes = cases.rendered(cases.source(), target, rows=[{"id": n} for n in (1, 2, 3)]).writes
    assert [write.params for write in writes] == [{"data": [{"n": "1"}, {"n": "2"}]}, {"data": [{"n": "3"}]}]
    assert [write.keys for write in writes] == [("1", "2"), ("3",)]


def test_a_bad_row_does_not_hold_the_others():
    target = cases.target({"field": "n", "type": "number", "value": "_function 10 / {{d}}"})
    made = cases.rendered(cases.source(), target, rows=[{"id": n, "d": n} for n in (0, 1, 2)])
    assert [write.keys for write in made.writes] == [("1",), ("2",)]
    (bad,) = made.shaped.bad
    assert (bad.key, bad.reason) == ("0", "[1].request[0] (n): _function 10 / {{d}}: division by zero")


def test_statements_have_bound_values():
    class Landed:
        def find(self, table, where, field):
            return {"DEMO-A": "S1"}.get(where["skuOuterId"])

    compiled = load_strategy(cases.OURS / "lines_to_sql.json")
    made = render_requests(compiled, cases.WINDOW, 2, [ORDER], Landed())
    assert made.source.params == {
        "timeType": "upd_time",
        "startTime": "2026-03-01 09:50:00",
        "endTime": cases.END,
        "pageNo": 2,
        "pageSize": 50,
    }
    (write,) = made.writes
    assert write.api == (
        "REPLACE INTO `order_line` (`sid`, `code`, `sku_id`, `qty`) VALUES (:sid, :code, :sku_id, :qty)"
    )
    assert write.params == [
        {"sid": "5970000000000001-1", "code": "DEMO-A", "sku_id": "S1", "qty": 2},
        {"sid": "5970000000000001-2", "code": "it's \\ ;--", "sku_id": None, "qty": 1},
    ]


def test_one_statement_per_row():
    target = cases.target(
        {
            "field": "main_params",
            "type": "object",
            "children": [{"field": "id", "value": "{{id}}"}, {"field": "tags", "value": "{{tags}}"}],
        },
        api="execute",
        method="SQL",
        otherRequest=[
            {
                "field": "main_sql",
                "value": "INSERT INTO t (id, tags) VALUES (:id, :tags) ON DUPLICATE KEY UPDATE tags = :tags",
            }
        ],
    )
    writes = cases.rendered(cases.source(), target, rows=[{"id": 1, "tags": ["a"]}, {"id": 2}]).writes
    assert [write.params for write in writes] == [[{"id": "1", "tags": '["a"]'}], [{"id": "2", "tags": None}]]


def test_our_own_example_writes_the_documents_it_describes():
    compiled = load_strategy(cases.OURS / "orders_to_api.json")
    cancelled = {**ORDER, "sid": 3, "sysStatus": "CANCEL"}
    made = render_requests(compiled, cases.WINDOW, 3, [ORDER, cancelled])
    assert made.source.params == {
        "timeType": "upd_time",
        "startTime": cases.START,
        "endTime": cases.END,
        "pageNo": "3",
        "pageSize": "200",
    }
    assert made.remedy.params["startTime"] == "2026-02-27 10:05:09"
    assert made.remedy.params["endTime"] == "2026-02-28 10:05:09"
    assert made.remedy.params["timeType"] == "upd_time"
    assert made.shaped.filtered == ("3",)
    (write,) = made.writes
    assert write.params == {
        "billNo": "KM-5970000000000001",
        "platformNo": "T1",
        "payDate": "2026-03-01",
        "amount": Decimal("59.80"),
        "shop": {"id": "900001", "platform": "fxg"},
        "lines": [
            {"code": {"FNumber": "DEMO-A"}, "qty": 2, "share": Decimal("0.67")},
            {"code": {"FNumber": "it's \\ ;--"}, "qty": 1, "share": Decimal("0.33")},
        ],
    }
    answer = {"Id": 71, "Number": "BILL-71", "other": 1}
    assert render_writeback(compiled.target, answer, cases.WINDOW) == {"id": "71", "number": "BILL-71"}


EXAMPLE = load_strategy(cases.OURS / "orders_to_api.json")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.decimals(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["num", "id", "a"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.lists(st.dictionaries(st.sampled_from([*ORDER, "x"]), JSON, max_size=9), max_size=4))
def test_any_row_is_written_filtered_or_set_aside(rows):
    made = render_requests(EXAMPLE, cases.WINDOW, 1, rows)
    assert len(made.writes) + len(made.shaped.filtered) + len(made.shaped.bad) == len(rows)
