"""The sandbox's further methods: each one read in full, by its changes, and refused as documented."""

from __future__ import annotations

from datetime import datetime

import pytest
from sandbox_caller import OUTSTOCK, text

from kuaimai.sandbox.world import GMT8

DAY = 86_400
SMALL = {"history_orders": 60, "archive_documents": 3, "documents_per_day": 8.0, "days_back": 2.0}


def seconds(value: object) -> float:
    """A time in any of the service's forms."""
    if isinstance(value, str) and not value.isdecimal():
        return datetime.fromisoformat(value).replace(tzinfo=GMT8).timestamp()
    return int(value) / 1000


# method: key, parameters of the window, the field it asks for, what must be sent besides
BY_CHANGE = {
    "other.in.order.query": ("id", "startModified", "endModified", "modified", {}),
    "other.out.order.query": ("id", "startModified", "endModified", "modified", {}),
    "erp.allocate.task.query": ("id", "startModified", "endModified", "modified", {}),
    "allocate.out.task.query": ("id", "startModified", "endModified", "modified", {}),
    "allocate.in.task.query": ("id", "startModified", "endModified", "modified", {}),
    "inventory.sheet.query": ("id", "startModified", "endModified", "modified", {}),
    "erp.stock.product.order.query": ("id", "modifiedStart", "modifiedEnd", "modified", {}),
    "erp.aftersale.replenish.list.query": ("id", "startModified", "endModified", "modified", {}),
    "erp.aftersale.repair.list.query": ("id", "timeStart", "timeEnd", "modified", {}),
    "erp.aftersale.refund.warehouse.query": (
        "id", "startTime", "endTime", "modified", {"timeType": "modifyTime"},
    ),
    "asso.goods.section.sku.query": ("id", "startModified", "endModified", "modified", {}),
    "asso.goods.section.sku.del.query": ("id", "startModified", "endModified", "modified", {}),
    "erp.item.unique.code.query": ("uniqueCode", "updateStart", "updateEnd", "modified", {}),
}  # fmt: skip
# The same for what happens once and stays, or is asked for by another time than its last change.
BY_EVENT = {
    "erp.wms.unshelve.order.query": ("id", "startModified", "endModified", "created", {}),
    "erp.trade.waves.query": ("id", "start", "end", "created", {}),
    "goods.section.in.out.record.query": ("id", "operateStartTime", "operateEndTime", "operateTime", {}),
    "allocate.out.task.query": ("id", "startModified", "endModified", "outTime", {"timeType": "out"}),
    "erp.aftersale.repair.list.query": (
        "id",
        "timeStart",
        "timeEnd",
        "returnTime",
        {"timeType": "returnTime"},
    ),
}
DETAILS = {
    "other.in.order.get": ("other.in.order.query", "id", "id"),
    "other.out.order.get": ("other.out.order.query", "id", "id"),
    "erp.allocate.task.detail.query": ("erp.allocate.task.query", "code", "code"),
    "allocate.out.task.get": ("allocate.out.task.query", "id", "id"),
    "allocate.in.task.get": ("allocate.in.task.query", "id", "id"),
    "inventory.sheet.get": ("inventory.sheet.query", "code", "code"),
    "erp.wms.unshelve.order.get": ("erp.wms.unshelve.order.query", "id", "id"),
}

# What the header calls the pieces and the amount of its lines, where it is not quantity and totalAmount.
HEADERS = {
    "other.in.order.query": ("quantity", "totalDetailFee"),
    "other.out.order.query": ("quantity", "totalDetailFee"),
    "erp.allocate.task.query": ("outNum", "outTotalAmount"),
}


@pytest.mark.parametrize("method", BY_CHANGE)
def test_changes_added_to_what_was_there_are_the_truth(open_box, clock, method):
    key, start, end, field, besides = BY_CHANGE[method]
    caller = open_box(**SMALL)
    before = {
        str(row[key]): row
        for row in caller.rows(method, size=20, **{start: text(0), end: text(clock.at)}, **besides)
    }
    assert before == caller.box.truth(method)
    assert before
    since = int(clock.at)
    clock.advance(DAY)
    changed = caller.rows(method, size=20, **{start: text(since), end: text(clock.at)}, **besides)
    assert changed
    assert all(since <= seconds(row[field]) <= clock.at for row in changed)
    mirror = before | {str(row[key]): row for row in changed}
    after = caller.box.truth(method)
    gone = mirror.keys() - after.keys()
    assert bool(gone) == (method == "asso.goods.section.sku.query")
    assert {name: row for name, row in mirror.items() if name not in gone} == after


@pytest.mark.parametrize("method", BY_EVENT)
def test_other_times_find_what_happened_then(open_box, clock, method):
    key, start, end, field, besides = BY_EVENT[method]
    caller = open_box(**SMALL)
    first, last = clock.at - DAY, clock.at
    rows = caller.rows(method, size=20, **{start: text(first), end: text(last)}, **besides)
    inside = [row for row in caller.box.truth(method).values() if first - 1 < seconds(row[field]) <= last]
    assert 0 < len(inside) < len(caller.box.truth(method))
    assert {row[key] for row in rows} == {row[key] for row in inside}


@pytest.mark.parametrize("method", DETAILS)
def test_details_give_the_lines(open_box, method):
    query, param, field = DETAILS[method]
    caller = open_box(**SMALL)
    lines = caller.box.truth(method)
    for row in list(caller.box.truth(query).values())[:5]:
        answer = caller.call(method, **{param: row[field]})
        assert answer["list"] == lines[str(row[field])]["list"]
        pieces, amount = HEADERS.get(query, ("quantity", "totalAmount"))
        assert sum(line["quantity"] for line in answer["list"]) == row[pieces]
        assert row[amount] == pytest.approx(sum(line["amount"] for line in answer["list"]))
    assert caller.call(method)["code"] == "32"


def test_a_processing_order_is_one_object(open_box):
    caller = open_box(**SMALL)
    row = next(iter(caller.box.truth("erp.stock.product.order.query").values()))
    item = caller.call("erp.stock.product.order.get", productOrderId=row["id"])["item"]
    assert item == row | {"list": item["list"]}
    assert item["list"]


def test_old_shelving_orders_are_archived(open_box):
    caller = open_box(**SMALL)
    now = caller.box.clock()
    recent = caller.rows("erp.purchase.shelf.query")
    old = caller.rows(
        "erp.purchase.shelf.history.query",
        startModified=text(now - 140 * DAY),
        endModified=text(now - 60 * DAY),
    )
    assert old
    assert {str(row["id"]) for row in recent + old} == caller.box.truth("erp.purchase.shelf.query").keys()
    assert caller.call("erp.purchase.shelf.history.query")["code"] == "32"
    assert caller.call("erp.purchase.shelf.get", id=recent[0]["id"])["list"]


def test_removals_name_what_is_gone(open_box, clock):
    caller = open_box(**SMALL)
    before = caller.box.truth("asso.goods.section.sku.query")
    since = clock.at
    clock.advance(DAY)
    gone = before.keys() - caller.box.truth("asso.goods.section.sku.query").keys()
    removed = caller.rows(
        "asso.goods.section.sku.del.query", startModified=text(since), endModified=text(clock.at)
    )
    assert gone
    assert gone <= {str(row["id"]) for row in removed}
    page = caller.call("asso.goods.section.sku.query", pageNo=2, pageSize=5, noNeedTotal="true")
    assert "total" not in page
    assert len(caller.call("asso.goods.section.sku.query", pageSize=1000)["list"]) > 10


def test_movements_say_has_next_and_never_a_total(open_box):
    caller = open_box(**SMALL)
    pages = list(caller.pages("goods.section.in.out.record.query", size=10))
    assert [page["hasNext"] for page in pages] == [True] * (len(pages) - 1) + [False]
    assert not any("total" in page for page in pages)
    assert caller.call("goods.section.in.out.record.query", pageNo=1)["code"] == "32"
    rows = caller.rows("erp.item.stock.in.out.list", key="stockInOutRecordVos", size=10)
    assert {row["orderNumber"] for row in rows} == caller.box.truth("erp.item.stock.in.out.list").keys()


def test_shipping_documents_ask_in_milliseconds_and_answer_in_text(open_box):
    caller = open_box(shop_count=12)
    method = "erp.wave.logistics.order.query"
    now = int(caller.box.clock()) * 1000
    window = {"timeType": 1, "timeBegin": 0, "timeEnd": now}
    rows = caller.rows(method, **window)
    truth = caller.box.truth(method)
    assert {str(row["id"]): row for row in rows} == truth
    assert all(seconds(row["createTime"]) <= seconds(row["modifyTime"]) for row in rows)
    assert all(type(row["sid"]) is type(row["userId"]) is type(row["warehouseId"]) is str for row in rows)
    sources = {row["source"] for row in rows}
    assert "pdd" in sources
    assert not sources & {"tb", "tm", "1688"}
    assert all(row["tid"] and row["payment"] >= 0 for row in rows if row["source"] == "pdd")
    orders = caller.box.truth(OUTSTOCK)
    assert {row["sid"] for row in rows} <= orders.keys()
    one = rows[0]
    assert caller.call(method, sids=one["sid"])["list"] == [one]
    assert "list" not in caller.call(method, timeType=2, timeBegin=0, timeEnd=1)
    assert caller.call(method)["code"] == "32"
    assert caller.call(method, **window | {"timeType": 7})["code"] == "50"
    assert caller.call(method, timeType=1, timeBegin="2026-03-01 00:00:00", timeEnd=now)["code"] == "50"
    assert caller.call(method, sids=",".join(["1"] * 51))["code"] == "33"


def test_stock_out_papers_are_asked_for_by_status(open_box):
    caller = open_box(**SMALL)
    method = "erp.trade.outstock.list.query"
    rows = [row for status in ("WAIT", "FINISH") for row in caller.rows(method, status=status)]
    assert {str(row["sid"]): row for row in rows} == caller.box.truth(method)
    assert caller.call(method)["code"] == "32"
    assert caller.call(method, status="DONE")["code"] == "50"
    assert caller.call(method, status="WAIT", sids=",".join(["1"] * 21))["code"] == "20003"


def test_the_log_of_orders(open_box):
    caller = open_box(**SMALL)
    method = "erp.trade.trace.list"
    now = int(caller.box.clock()) * 1000
    rows = caller.rows(method, operateTimeStart=0, operateTimeEnd=now)
    assert {str(row["id"]): row for row in rows} == caller.box.truth(method)
    sid = rows[0]["sid"]
    answer = caller.call(method, sids=sid)
    assert {row["sid"] for row in answer["list"]} == {sid}
    assert answer["page"] == {"pageNo": 1, "pageSize": 50, "startRow": 0, "offsetRow": 50}
    assert caller.call(method, sids=",".join(["1"] * 201))["code"] == "20020"


REGISTERS = {
    "erp.distributor.list.query": ("list", "distributorCompanyId", {}),
    "erp.query.customers.list": ("list", "id", {}),
    "erp.trade.query.tag.list": ("list", "id", {}),
    "erp.item.tag.list": ("list", "id", {}),
    "brand.list.get": ("items", "id", {}),
    "erp.item.seller.cat.list.get": ("sellerCats", "id", {}),
    "item.classify.list.get": ("classifies", "id", {}),
    "erp.virtual.warehouse.query": ("list", "id", {"pageNo": 1, "pageSize": 500}),
}


@pytest.mark.parametrize("method", REGISTERS)
def test_registers_are_read_in_full(open_box, method):
    list_key, key, params = REGISTERS[method]
    caller = open_box(**SMALL)
    rows = caller.call(method, **{"pageSize": 200} | params)[list_key]
    assert {str(row[key]): row for row in rows} == caller.box.truth(method)


def test_carriers_are_found_by_warehouse_only(open_box):
    caller = open_box(**SMALL)
    method = "erp.trade.logistics.company.user.list"
    assert caller.call(method)["list"] == []
    rows = [row for place in (80001, 80002) for row in caller.call(method, warehouseId=place)["list"]]
    assert {str(row["id"]): row for row in rows} == caller.box.truth(method)


def test_relations_and_histories_of_items(open_box):
    caller = open_box(**SMALL)
    relations = caller.call("erp.item.supplier.list.get", outerIds="DEMO-00,DEMO-01")["suppliers"]
    truth = caller.box.truth("erp.item.supplier.list.get")
    assert len(relations) == 8
    assert all(
        truth["/".join(str(row[part]) for part in ("sysItemId", "sysSkuId", "supplierId"))] == row
        for row in relations
    )
    codes = caller.call("erp.item.outerid.list.get", outerIds="DEMO-00-0,nothing")["itemOuterIdInfos"]
    assert len(codes) == 6
    assert len({(row["userId"], row["numIid"], row["skuId"]) for row in codes}) == 6
    assert caller.call("erp.item.multicode.query", code="DEMO-00")["list"]
    one = relations[0]
    history = caller.call(
        "erp.item.history.cost.price.query", sysItemId=one["sysItemId"], sysSkuId=one["sysSkuId"]
    )["list"]
    assert len({(row["warehouseId"], row["start"]) for row in history}) == len(history) > 2
    assert "list" not in caller.call("erp.item.history.cost.price.query", sysItemId=1, sysSkuId=0)
    assert caller.call("erp.item.virtual.stock.query")["list"]


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("erp.allocate.task.query", {}, "32"),
        ("erp.allocate.task.query", {"startModified": text(0), "pageSize": "19"}, "20002"),
        ("erp.aftersale.refund.warehouse.query", {"startTime": text(0), "endTime": text(1)}, "32"),
        ("erp.aftersale.refund.warehouse.query", {"timeType": "created"}, "50"),
        ("erp.trade.query.tag.list", {"tagType": "2"}, "50"),
        ("erp.virtual.warehouse.query", {"pageNo": "1"}, "32"),
        ("erp.virtual.warehouse.query", {"pageNo": "1", "pageSize": "501"}, "33"),
        ("erp.item.supplier.list.get", {}, "20519"),
        ("erp.item.supplier.list.get", {"sysItemIds": ",".join(["1"] * 21)}, "20520"),
        ("erp.item.outerid.list.get", {}, "20146"),
        ("erp.item.outerid.list.get", {"outerIds": "nothing"}, "20150"),
        ("erp.item.history.cost.price.query", {"sysItemId": "1"}, "32"),
        (
            "erp.item.history.cost.price.query",
            {"sysItemId": "1", "sysSkuId": "0", "startTime": text(9), "endTime": text(8)},
            "40002",
        ),
        ("brand.list.get", {"pageSize": "201"}, "20002"),
    ],
)
def test_refusals(open_box, method, params, code):
    assert open_box(**SMALL).call(method, **params)["code"] == code


def test_an_empty_list_is_left_out_where_that_was_measured(open_box):
    caller = open_box(**SMALL)
    window = {"startTime": text(0), "endTime": text(1)}
    empty = caller.call("erp.aftersale.refund.warehouse.query", timeType="createTime", **window)
    assert "list" not in empty
    assert caller.call("other.in.order.query", code="?")["list"] == []
