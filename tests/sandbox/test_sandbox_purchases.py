"""The sandbox's purchases: orders and their lines, receipts, returns, what is archived, suppliers."""

from __future__ import annotations

import pytest
from sandbox_caller import text

DAY = 86_400
LISTS = {
    "purchase.order.query": ("purchase.order.get", "purchase.order.history.query", "created", "modified"),
    "warehouse.entry.list.query": (
        "warehouse.entry.list.get", "warehouse.entry.history.list.query", "created", "modified",
    ),
    "purchase.return.list.query": (
        "purchase.return.list.get", "purchase.return.history.list.query", "gmCreate", "gmModified",
    ),
}  # fmt: skip


def by_id(rows: list[dict]) -> dict[str, dict]:
    return {str(row["id"]): row for row in rows}


@pytest.mark.parametrize("method", LISTS)
def test_the_list_and_its_history_together_are_the_truth(open_box, method):
    caller = open_box()
    _, history, created, _ = LISTS[method]
    now = caller.box.clock()
    recent = by_id(caller.rows(method, size=17))
    old = by_id(
        caller.rows(history, startModified=text(now - 140 * DAY), endModified=text(now - 60 * DAY), size=5)
    )
    assert recent
    assert old
    assert recent | old == caller.box.truth(method) == caller.box.truth(history)
    assert min(row[created] for row in recent.values()) > (now - 90 * DAY) * 1000
    assert max(row[created] for row in old.values()) < (now - 90 * DAY) * 1000


@pytest.mark.parametrize("method", LISTS)
def test_changes_and_creations_by_time(open_box, clock, method):
    caller = open_box()
    _, _, created, modified = LISTS[method]
    before, since = caller.box.truth(method), clock.at
    clock.advance(DAY)
    window = {"startModified": text(since), "endModified": text(clock.at)}
    changed = by_id(caller.rows(method, **window))
    assert before | changed == caller.box.truth(method)
    assert 0 < len(changed) < len(before)
    assert changed == by_id(caller.rows(method, timeType=1, **window))
    new = by_id(caller.rows(method, timeType=2, **window))
    assert new == {key: row for key, row in changed.items() if row[created] > since * 1000}
    assert all(row[modified] >= row[created] for row in changed.values())


@pytest.mark.parametrize("method", LISTS)
def test_lines_come_from_a_detail_call_only(open_box, method):
    caller = open_box()
    detail, history = LISTS[method][:2]
    listed = caller.rows(method)
    assert not any("list" in row or "items" in row or "_lines" in row for row in listed)
    truth = caller.box.truth(detail)
    for row in listed[:3]:
        answer = caller.call(detail, id=row["id"])
        assert answer["list"] == truth[str(row["id"])]["list"]
        assert answer["total"] == len(answer["list"]) > 0
        assert not any("title" in line for line in answer["list"])
    assert caller.call(detail)["code"] == "32"
    assert caller.call(detail, id=1)["list"] == []
    old = caller.box.truth(detail).keys() - by_id(listed).keys()
    assert caller.call(detail, id=min(old))["list"] == []
    assert caller.call(history.replace("query", "get"), id=min(old))["list"] == truth[min(old)]["list"]


def test_amounts_are_fen_and_add_up(open_box):
    caller = open_box()
    lines = caller.box.truth("purchase.order.get")
    for key, order in caller.box.truth("purchase.order.query").items():
        mine = lines[key]["list"]
        assert (
            order["totalAmount"] == sum(line["amount"] for line in mine) == float(order["actualTotalAmount"])
        )
        assert order["quantity"] == sum(line["count"] for line in mine)
        assert order["arrivedQuantity"] == sum(line["arrivedQuantity"] for line in mine)
        assert order["arrivedQuantity"] == order["quantity"] or order["status"] != "FINISHED"
    repeated = [[(line["sysItemId"], line["sysSkuId"]) for line in order["list"]] for order in lines.values()]
    assert any(len(set(keys)) < len(keys) for keys in repeated)  # only the position tells such lines apart


def test_receipts_are_what_arrived(open_box):
    caller = open_box()
    orders = caller.box.truth("purchase.order.query")
    received = caller.box.truth("warehouse.entry.list.get")
    arrived = dict.fromkeys(orders, 0)
    for key, receipt in caller.box.truth("warehouse.entry.list.query").items():
        if receipt["status"] != "NOT_FINISH":
            arrived[str(receipt["purchaseOrderId"])] += receipt["quantity"]
        lines = received[key]["list"]
        assert receipt["totalDetailFee"] == sum(line["amount"] for line in lines)
        assert receipt["getGoodNum"] == sum(line["goodNum"] for line in lines)
    assert arrived == {key: order["arrivedQuantity"] for key, order in orders.items()}
    assert {order["status"] for order in orders.values()} >= {
        "WAIT_VERIFY", "GOODS_NOT_ARRIVED", "GOODS_PART_ARRIVED", "FINISHED", "GOODS_CLOSED",
    }  # fmt: skip


def test_shapes_of_the_envelope(open_box):
    caller = open_box("omit_success")
    page = caller.call("purchase.order.query")
    assert "success" not in page
    assert type(page["total"]) is str
    assert len(page["list"]) == 40
    nothing = caller.call("purchase.order.query", code="?")
    assert "list" not in nothing
    assert caller.call("warehouse.entry.list.query", code="?")["list"] == []


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("purchase.order.query", {"pageSize": "201"}, "33"),
        ("purchase.order.query", {"status": "DONE"}, "50"),
        ("purchase.order.query", {"timeType": "3"}, "50"),
        ("purchase.order.history.query", {}, "32"),
        ("purchase.order.history.query", {"startModified": text(0)}, "32"),
        (
            "warehouse.entry.history.list.query",
            {"startModified": text(0), "endModified": text(91 * DAY)},
            "50",
        ),
        ("purchase.return.list.query", {"status": "9"}, "50"),
        ("supplier.list.query", {"status": "3"}, "50"),
    ],
)
def test_refusals(open_box, method, params, code):
    assert open_box().call(method, **params)["code"] == code


def test_suppliers_are_read_in_full(open_box, clock):
    caller = open_box(suppliers=45)
    rows = caller.rows("supplier.list.query", size=20)
    assert by_id(rows) == caller.box.truth("supplier.list.query")
    assert len(rows) == 45
    assert all(row["bankNumber"] and row["mobile"] for row in rows)
    working = caller.rows("supplier.list.query", status=1)
    assert 0 < len(working) < len(rows)
    clock.advance(20 * DAY)  # they change, and no time says when
    assert by_id(caller.rows("supplier.list.query")) != by_id(rows)
    suppliers = {row["id"] for row in rows}
    assert all(row["supplierId"] in suppliers for row in caller.box.truth("purchase.order.query").values())


def test_failures_strike_these_methods_too(open_box):
    caller = open_box("429=next1:purchase.order.get", "truncated=next1:supplier.list.query", "max_bytes=2000")
    assert caller.post("purchase.order.get", id=1).status_code == 429
    assert not caller.post("supplier.list.query", pageSize=1).text.endswith("}")
    assert caller.call("purchase.order.query", pageSize=200)["code"] == "1"
