"""The sandbox's items and stock: what is sold, what vanishes, what is where."""

from __future__ import annotations

import pytest
from sandbox_caller import OUTSTOCK, text

ITEMS, STOCK = "item.list.query", "stock.api.status.query"
IN_WAREHOUSES = "erp.item.warehouse.list.get"
HOUR, DAY = 3_600, 86_400


def by_key(rows: list[dict], *parts: str) -> dict[str, dict]:
    return {"/".join(str(row[part]) for part in parts): row for row in rows}


def items(caller, **params) -> list[dict]:
    return caller.rows(ITEMS, key="items", **params)


def stock(caller, **params) -> list[dict]:
    return caller.rows(STOCK, key="stockStatusVoList", **params)


def test_all_items_in_pages(open_box):
    caller = open_box(items=30)
    pages = list(caller.pages(ITEMS, size=7, key="items"))
    rows = [row for page in pages for row in page["items"]]
    assert by_key(rows, "sysItemId") == caller.box.truth(ITEMS)
    assert {page["total"] for page in pages} == {len(rows)}
    assert len(caller.call(ITEMS)["items"]) == min(40, len(rows))
    assert caller.call(ITEMS, pageSize=500)["code"] == "20002"


def test_items_hold_what_the_orders_sell(open_box):
    caller = open_box()
    listed = caller.box.truth(ITEMS)
    lines = [line for row in caller.box.truth(OUTSTOCK).values() for line in row["orders"]]
    for line in lines:
        skus = [sku["sysSkuId"] for sku in listed[str(line["itemSysId"])].get("skus", ())]
        assert line["skuSysId"] in (skus or [-1])


def test_changes_of_items_by_time(open_box, clock):
    caller = open_box(items=40)
    before = caller.box.truth(ITEMS)
    since = clock.at
    clock.advance(2 * DAY)
    rows = items(caller, startModified=text(since), endModified=text(clock.at))
    after = caller.box.truth(ITEMS)
    assert by_key(rows, "sysItemId") == {
        key: row for key, row in after.items() if row["modified"] > since * 1000
    }
    assert any(key not in before for key in after)
    assert any(str(row["sysItemId"]) in before for row in rows)


def test_a_deleted_item_just_vanishes(open_box, clock):
    caller = open_box(items=60)
    before = caller.box.truth(ITEMS)
    clock.advance(5 * DAY)
    gone = before.keys() - caller.box.truth(ITEMS).keys()
    assert gone
    seen = {str(row["sysItemId"]) for row in items(caller, startModified=text(clock.at - 6 * DAY))}
    assert not gone & seen
    assert caller.box.truth(ITEMS, at=clock.at - 5 * DAY) == before
    assert caller.call("item.single.get", sysItemId=min(gone))["code"] == "20110"
    assert not [row for row in caller.box.truth(STOCK).values() if str(row["sysItemId"]) in gone]


def test_the_order_can_be_asked_for(open_box):
    caller = open_box(items=30)
    for field in ("modified", "created"):
        falling = [row[field] for row in items(caller, orderBy=f"{field}:desc")]
        assert falling == sorted(falling, reverse=True)
        assert [row[field] for row in items(caller, orderBy=f"{field}:asc")] == sorted(falling)
    assert caller.call(ITEMS, orderBy="modified:up")["code"] == "20004"


def test_single_items_and_skus(open_box):
    caller = open_box(items=30)
    listed = caller.box.truth(ITEMS)
    item = next(row for row in listed.values() if row.get("skus"))
    plain = next(row for row in listed.values() if not row.get("skus"))
    assert caller.call("item.single.get", sysItemId=item["sysItemId"], outerId="?")["item"] == item
    assert caller.call("item.single.get", outerId=item["outerId"])["item"] == item
    skus = caller.call("erp.item.sku.list.get", outerId=item["outerId"])["itemSkus"]
    assert [sku["sysSkuId"] for sku in skus] == [sku["sysSkuId"] for sku in item["skus"]]
    assert "itemSkus" not in caller.call("erp.item.sku.list.get", outerId=plain["outerId"])
    one = caller.call("erp.item.single.sku.get", skuOuterId=skus[0]["skuOuterId"])["itemSku"]
    assert one == skus[:1]
    assert one[0]["itemOuterId"] == item["outerId"]


def test_items_by_their_ids(open_box):
    caller = open_box()
    ids = list(caller.box.truth(ITEMS))[:3]
    found = caller.call("erp.item.list.get", sysItemIds=",".join(ids), returnSkus=1)["items"]
    assert {str(row["sysItemId"]) for row in found} == set(ids)
    assert caller.call("item.list.get", sysItemIds=",".join(ids), returnSkus=1)["items"] == found
    bare = caller.call("erp.item.list.get", outerIds=found[0]["outerId"], returnSkus=0)["items"]
    assert bare == [{name: value for name, value in found[0].items() if name != "skus"}]


@pytest.mark.parametrize(
    ("method", "params", "code"),
    [
        ("item.single.get", {}, "20105"),
        ("erp.item.single.sku.get", {}, "20106"),
        ("erp.item.list.get", {"sysItemIds": "1"}, "32"),
        ("erp.item.list.get", {"returnSkus": "1"}, "20105"),
        ("erp.item.list.get", {"sysItemIds": ",".join(["1"] * 21), "returnSkus": "1"}, "20111"),
        ("erp.item.list.get", {"outerIds": ",".join(["A"] * 21), "returnSkus": "1"}, "20112"),
        ("erp.item.list.get", {"sysItemIds": "x", "returnSkus": "1"}, "20113"),
        (STOCK, {"pageSize": "101"}, "20019"),
        (STOCK, {"pageNo": "0"}, "20001"),
        (STOCK, {"warehouseId": "1"}, "20305"),
        (STOCK, {"itemType": "9"}, "20307"),
        (IN_WAREHOUSES, {}, "20301"),
        (IN_WAREHOUSES, {"outerId": "A,B"}, "20302"),
        (IN_WAREHOUSES, {"skuOuterId": "A,B"}, "20303"),
    ],
)
def test_refusals(open_box, method, params, code):
    assert open_box().call(method, **params)["code"] == code


def test_stock_is_read_warehouse_by_warehouse(open_box):
    caller = open_box(items=60)
    rows = stock(caller, warehouseId=80001) + stock(caller, warehouseId=80002)
    truth = caller.box.truth(STOCK)
    assert by_key(rows, "sysItemId", "sysSkuId", "wareHouseId") == truth
    assert {row["stockStatus"] for row in rows} == {3, 4, 6}
    assert any(row["sellableNum"] < 0 for row in rows)
    assert {0, -1} < {row["sysSkuId"] for row in rows}
    assert all(
        row["totalAvailableStockSum"]
        == row["totalLockStock"] + row["totalAvailableStock"] + row["totalDefectiveStock"]
        for row in rows
    )
    suits = {str(row["sysItemId"]) for row in caller.box.truth(ITEMS).values() if row["type"] == "1"}
    assert suits
    assert not suits & {str(row["sysItemId"]) for row in rows}


def test_without_a_warehouse_only_the_default_one_is_seen(open_box):
    caller = open_box()
    bare = stock(caller)
    named = stock(caller, warehouseId=80001)
    assert not any("wareHouseId" in row for row in bare)
    assert [row | {"wareHouseId": 80001} for row in bare] == named


def test_stock_says_its_total_once_and_no_list_when_empty(open_box):
    caller = open_box()
    pages = list(caller.pages(STOCK, size=20, key="stockStatusVoList", warehouseId=80002))
    assert "total" in pages[0]
    assert not any("total" in page for page in pages[1:])
    nothing = caller.call(STOCK, startStockModified=text(0), endStockModified=text(1))
    assert nothing.keys() == {"traceId", "success", "total"}
    assert "stockStatusVoList" not in caller.call(STOCK, itemType=1)
    codes = ",".join(row["mainOuterId"] for row in stock(caller)[:2])
    assert {row["mainOuterId"] for row in stock(caller, mainOuterId=codes)} == set(codes.split(","))


def test_changes_of_stock_by_time(open_box, clock):
    caller = open_box()
    before = caller.box.truth(STOCK)
    since = clock.at
    clock.advance(HOUR)
    rows = stock(caller, warehouseId=80002, startStockModified=text(since), endStockModified=text(clock.at))
    changed = by_key(rows, "sysItemId", "sysSkuId", "wareHouseId")
    mirror = {key: row for key, row in (before | changed).items() if key.endswith("80002")}
    assert mirror == {key: row for key, row in caller.box.truth(STOCK).items() if key.endswith("80002")}
    assert 0 < len(changed) < len(mirror)


def test_the_stock_of_one_code_everywhere(open_box):
    caller = open_box()
    answer = caller.call(IN_WAREHOUSES, outerId="DEMO-00", pageNo=1)
    assert answer["outerId"] == "DEMO-00"
    assert len(answer["skus"]) == 4
    truth = caller.box.truth(STOCK)
    for sku in answer["skus"]:
        assert [place["id"] for place in sku["mainWareHousesStock"]] == [80001, 80002]
        for place in sku["mainWareHousesStock"]:
            row = next(
                row
                for row in truth.values()
                if row.get("skuOuterId") == sku["skuOuterId"] and row["wareHouseId"] == place["id"]
            )
            assert place["sellableNum"] == row["sellableNum"]
    assert "skus" not in caller.call(IN_WAREHOUSES, outerId="nothing")
    assert "skus" not in caller.call(IN_WAREHOUSES, outerId="DEMO-01", skuOuterId="DEMO-00-0")
