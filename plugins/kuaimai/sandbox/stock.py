"""Stock per SKU and warehouse. It changes all the time, may be negative, and suits have none of their own."""

from __future__ import annotations

from typing import Any

from kuaimai.sandbox.desk import Call, Desk, Refusal
from kuaimai.sandbox.items import Unit, is_suit, life_of, planned, units_of
from kuaimai.sandbox.listing import Listing, Paging, Window
from kuaimai.sandbox.merchant import WAREHOUSES
from kuaimai.sandbox.oddities import Marks
from kuaimai.sandbox.series import FOREVER, drawn
from kuaimai.sandbox.shelf import Lived, Record, Source
from kuaimai.sandbox.trade_query import whole_number
from kuaimai.sandbox.world import MINUTE, World

_NONE, _OVERSOLD, _IN_STOCK = 3, 4, 6
_DEFAULT_PAGE = 20
_ITEM_TYPES = frozenset({"0", "1", "2", "3"})


def _lived(world: World, n: int, at: int) -> Lived:
    """The stock of all SKUs of item `n` in all warehouses."""
    born, gone = life_of(world, n)
    if at < born:
        return [], -1, born
    if at >= gone or is_suit(world, n):
        return [], born, FOREVER
    records = []
    since, until = born, gone
    for unit in units_of(world, n):
        for warehouse in WAREHOUSES:
            place = f"stock/{warehouse['id']}/{unit.sku_id}"
            period = MINUTE * (20 + drawn(world.seed, place, n)[0] % 2_000)
            count = (at - born) // period
            changed = born + count * period
            since, until = max(since, changed), min(until, changed + period)
            draws = drawn(world.seed, f"{place}/{n}", count)
            records.append(_record(unit, warehouse, draws, changed))
    return records, since, until


def _record(unit: Unit, warehouse: dict[str, Any], draws: tuple[int, ...], changed: int) -> Record:
    available, lock, defective = draws[0] % 300 - 15, draws[1] % 20, draws[2] % 3
    if draws[3] % 12 == 0:
        available = 0
    allocated = draws[4] % 4 if available > 0 else 0
    sellable = available - allocated
    record: Record = {
        "mainOuterId": unit.item_code,
        "outerId": unit.item_code,
        "sysItemId": unit.item_id,
        "sysSkuId": unit.sku_id,
        "wareHouseId": warehouse["id"],
        "title": unit.title,
        "propertiesName": unit.properties,
        "remark": "",
        "stockStatus": _IN_STOCK if sellable > 0 else _OVERSOLD if sellable < 0 else _NONE,
        "totalAvailableStockSum": lock + available + defective,
        "totalLockStock": lock,
        "totalAvailableStock": available,
        "totalDefectiveStock": defective,
        "sellableNum": sellable,
        "allocateNum": allocated,
        "purchaseNum": draws[5] % 60,
        "onTheWayNum": draws[6] % 10,
        "refundStock": draws[7] % 3,
        "purchaseStock": 0,
        "virtualStock": 0,
        "purchasePrice": unit.cost / 100,
        "sellingPrice": unit.price / 100,
        "stockModifiedTime": changed * 1000,
    }
    if unit.has_sku:
        record["skuOuterId"] = unit.code
    return record


def _in_one_warehouse(_desk: Desk, call: Call, found: list[Record]) -> list[Record]:
    """Measured: without `warehouseId` only the default warehouse is seen, and no row says which it is."""
    if call.params.get("itemType", "0") not in _ITEM_TYPES:
        raise Refusal("20307", "商品类型不合法！字段：[itemType]")
    if call.params.get("itemType", "0") != "0":  # a suit has no stock of its own
        return []
    asked = call.params.get("warehouseId") or ""
    if asked and asked not in {str(warehouse["id"]) for warehouse in WAREHOUSES}:
        raise Refusal("20305", "仓库ID不合法！字段：[warehouseId]")
    place = int(asked or WAREHOUSES[0]["id"])
    rows = [record for record in found if record["wareHouseId"] == place]
    if asked:
        return rows
    return [{name: value for name, value in row.items() if name != "wareHouseId"} for row in rows]


LIST = Listing(
    Source("stock", planned, _lived),
    Marks(
        "stock",
        key=("sysItemId", "sysSkuId", "wareHouseId"),
        version="stockModifiedTime",
        time="stockModifiedTime",
        amount="sellingPrice",
        retyped="stockStatus",
        dropped="title",
    ),
    list_key="stockStatusVoList",
    paging=Paging(default=_DEFAULT_PAGE, max=100, code="20019", text="页数不能超过{max}", total_on="first"),
    windows=(Window("startStockModified", "endStockModified", "stockModifiedTime"),),
    filters={"mainOuterId": "mainOuterId", "skuOuterId": "skuOuterId", "stockStatuses": "stockStatus"},
    refine=_in_one_warehouse,
    omits_empty=True,
)

_IN_WAREHOUSE = (
    "stockStatus", "totalAvailableStockSum", "totalLockStock", "totalAvailableStock", "totalDefectiveStock",
    "sellableNum",
)  # fmt: skip


def in_all_warehouses(desk: Desk, call: Call) -> dict[str, Any]:
    """`erp.item.warehouse.list.get`: one `outerId` or `skuOuterId` in all warehouses."""
    main, code = call.params.get("outerId", ""), call.params.get("skuOuterId", "")
    if not (main or code):
        raise Refusal("20301", "商家编码和规格商家编码不能同时为空")
    for text, refusal in ((main, "20302"), (code, "20303")):
        if "," in text:
            raise Refusal(refusal, "只支持查询一个商家编码")
    page_no = whole_number(call.params, "pageNo", 1, code="20001")
    size = whole_number(call.params, "pageSize", _DEFAULT_PAGE, code="20002")
    skus: dict[str, list[Record]] = {}
    for record in LIST.records(desk, int(call.now)):
        mine: str = record.get("skuOuterId") or record["outerId"]
        if (not main or record["mainOuterId"] == main) and (not code or mine == code):
            skus.setdefault(mine, []).append(record)
            main_code = record["mainOuterId"]
    if not skus:
        return {}
    listed = [
        {"skuOuterId": mine, "mainWareHousesStock": [_in_warehouse(record) for record in records]}
        for mine, records in skus.items()
    ]
    return {"outerId": main_code, "skus": listed[(page_no - 1) * size : page_no * size]}


def _in_warehouse(record: Record) -> Record:
    warehouse = next(one for one in WAREHOUSES if one["id"] == record["wareHouseId"])
    named = {name: warehouse[name] for name in ("id", "code", "name", "type", "status")}
    return named | {name: record[name] for name in _IN_WAREHOUSE}
