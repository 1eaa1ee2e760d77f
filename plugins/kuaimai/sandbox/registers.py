"""Registers that hardly change: tags, brands, classes, carriers, relations of items. All invented."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kuaimai.sandbox import items
from kuaimai.sandbox.desk import Call, Desk, Refusal
from kuaimai.sandbox.listing import Listing, Paging, parts, required
from kuaimai.sandbox.merchant import SOLD_ITEMS, WAREHOUSES
from kuaimai.sandbox.oddities import Marks
from kuaimai.sandbox.series import FOREVER
from kuaimai.sandbox.shelf import Record, Source
from kuaimai.sandbox.stock import LIST as STOCK
from kuaimai.sandbox.suppliers import supplier
from kuaimai.sandbox.time_forms import as_second, time_text
from kuaimai.sandbox.trade_query import moment
from kuaimai.sandbox.world import DAY, World

Answer = Callable[[Desk, Call], dict[str, Any]]

_MAX_RELATIONS = 20
_MAX_CODES = 200

TAGS: tuple[Record, ...] = (
    {"id": 77, "tagName": "加急示例", "remark": "", "bgColor": "#fff", "fontColor": "#000", "tagType": 0},
    {"id": 78, "tagName": "礼品🎁", "remark": "", "bgColor": "#fee", "fontColor": "#000", "tagType": 0},
    {"id": 901, "tagName": "缺货", "remark": "", "bgColor": "#eee", "fontColor": "#c00", "tagType": 1},
    {"id": 902, "tagName": "地址异常", "remark": "", "bgColor": "#eee", "fontColor": "#c00", "tagType": 1},
)
DISTRIBUTORS: tuple[Record, ...] = tuple(
    {
        "distributorCompanyId": 5_579 + at,
        "distributorCompanyName": f"示例分销商{at + 1}",
        "distributorLevel": str(1 + at % 3),
        "showState": 1 + at % 2,
        "contactName": f"联系人{at + 1}",
        "mobile": "138****0000",
        "created": 1_700_000_000_000 + at,
    }
    for at in range(6)
)
CUSTOMERS: tuple[Record, ...] = tuple(
    {
        "id": 30_001 + at,
        "code": f"C{at + 1:04d}",
        "nick": f"demo_customer_{at + 1}",
        "name": f"示例客户{at + 1}公司",
        "level": 1 + at % 5,
        "status": int(at % 4 > 0),
        "contactPhone": "0571-00000000",
        "bankAccount": f"6222000000{at:08d}",
        "remark": "",
    }
    for at in range(23)
)
BRANDS: tuple[Record, ...] = tuple(
    {"id": 61 + at, "name": name} for at, name in enumerate(("示例牌", "样品牌"))
)
ITEM_TAGS: tuple[Record, ...] = tuple(
    {"id": 41 + at, "name": name, "styleType": at + 1} for at, name in enumerate(("新品", "爆款🔥", "清仓"))
)
SELLER_CATS: tuple[Record, ...] = tuple(
    {"id": 800 + at, "parentId": 0, "name": f"示例分类{at + 1}"} for at in range(5)
)
CLASSES: tuple[Record, ...] = tuple(
    {"id": 70 + at, "parentId": 0, "name": name} for at, name in enumerate(("家居", "服饰", "灯具"))
)
CARRIERS: tuple[Record, ...] = tuple(
    {
        "id": 7 + at * len(WAREHOUSES) + place,
        "name": name,
        "cpCode": code,
        "warehouseId": warehouse["id"],
        "liveStatus": 1,
    }
    for place, warehouse in enumerate(WAREHOUSES)
    for at, (name, code) in enumerate((("示例快递", "YUNDA"), ("示例速运", "SF"), ("示例物流", "DBKD")))
)
VIRTUAL_WAREHOUSES: tuple[Record, ...] = tuple(
    {
        "id": 81_001 + at,
        "name": f"虚拟仓{at + 1}",
        "warehouseId": WAREHOUSES[at % len(WAREHOUSES)]["id"],
        "status": 1,
        "created": time_text(1_700_000_000 + at * DAY),
        "modified": time_text(1_710_000_000 + at * DAY),
    }
    for at in range(3)
)


def _fixed(name: str, rows: tuple[Record, ...]) -> Source:
    """A source whose records are always the same."""
    return Source(name, lambda _world, _at: len(rows), lambda _world, n, _at: ([rows[n]], 0, FOREVER))


def _register(
    name: str,
    rows: tuple[Record, ...],
    *,
    key: str = "id",
    list_key: str = "list",
    paging: Paging | None = None,
    filters: dict[str, str] | None = None,
    allowed: dict[str, frozenset[str]] | None = None,
) -> Listing:
    return Listing(
        _fixed(name, rows),
        Marks(name, key=(key,)),
        list_key=list_key,
        paging=Paging(max=None, total_on="none") if paging is None else paging,
        filters=filters or {},
        allowed=allowed or {},
    )


def _only_of_a_warehouse(_desk: Desk, call: Call, found: list[Record]) -> list[Record]:
    """Measured: without `warehouseId` nothing is found."""
    return found if call.params.get("warehouseId") else []


CARRIER_LIST = Listing(
    _fixed("carrier", CARRIERS),
    Marks("carrier", key=("id",)),
    paging=Paging(max=None, total_on="none"),
    filters={"warehouseId": "warehouseId"},
    refine=_only_of_a_warehouse,
)


def _item_suppliers(world: World, n: int, at: int) -> tuple[list[Record], int, int]:
    found, since, until = items.SOURCE.lived(world, n, at)
    if not found:
        return [], since, until
    rows = []
    for place, unit in enumerate(items.units_of(world, n)):
        seller = supplier(world, (n + place) % world.suppliers)
        rows.append(
            {
                "sysItemId": unit.item_id,
                "sysSkuId": max(unit.sku_id, 0),
                "outerId": unit.item_code,
                "skuOuterId": unit.code if unit.has_sku else "",
                "supplierId": seller["id"],
                "supplierCode": seller["code"],
                "supplierName": seller["name"],
                "supplierPurchasePrice": unit.cost / 100,
                "remark": "",
            }
        )
    return rows, since, until


def _asked_for(_desk: Desk, call: Call, found: list[Record]) -> list[Record]:
    """One of four id lists must be sent, of 20 ids at most."""
    names = {"sysItemIds": "20520", "sysSkuIds": "20521", "outerIds": "20522", "skuOuterIds": "20523"}
    for param, code in names.items():
        if len(parts(call.params.get(param, ""))) > _MAX_RELATIONS:
            raise Refusal(code, f"数量最大支持{_MAX_RELATIONS}个！字段：[{param}]")
    if not any(call.params.get(param) for param in names):
        raise Refusal("20519", "参数必须四选一")
    return found


ITEM_SUPPLIERS = Listing(
    Source("item_supplier", items.planned, _item_suppliers),
    Marks("item_supplier", key=("sysItemId", "sysSkuId", "supplierId"), amount="supplierPurchasePrice"),
    list_key="suppliers",
    paging=Paging(max=None, total_on="none"),
    filters={param: param[:-1] for param in ("sysItemIds", "sysSkuIds", "outerIds", "skuOuterIds")},
    refine=_asked_for,
)


def platform_codes(desk: Desk, call: Call) -> dict[str, Any]:
    """`erp.item.outerid.list.get`: which items of the shops a code stands for, up to 200 codes a call.

    Measured: when no code of the call is known, the answer is code 20150.
    """
    by_code = parts(call.params.get("outerIds", ""))
    by_item = parts(call.params.get("numIidList", ""))
    if not (by_code or by_item):
        raise Refusal("20146", "商家编码不能为空")
    if len(by_code) > _MAX_CODES:
        raise Refusal("33", f"商家编码数量最大支持{_MAX_CODES}个！")
    rows = [
        {
            "userId": shop.user_id,
            "numIid": f"37{unit.item_id % 10**12:017d}",
            "skuId": f"17{unit.sku_id % 10**12:014d}",
            "outerId": unit.code,
            "sysItemId": unit.item_id,
            "sysSkuId": unit.sku_id,
            "title": unit.title,
        }
        for n in range(SOLD_ITEMS)
        for unit in items.units_of(desk.world, n)
        for shop in desk.world.shops
    ]
    wanted = [row for row in rows if row["outerId"] in by_code or row["numIid"] in by_item]
    if call.params.get("userId"):
        wanted = [row for row in wanted if str(row["userId"]) == call.params["userId"]]
    if not wanted:
        raise Refusal("20150", "查询商品对应关系异常")
    return {"itemOuterIdInfos": wanted}


def more_codes(desk: Desk, call: Call) -> dict[str, Any]:
    """`erp.item.multicode.query`: further bar codes of one code."""
    code = call.params.get("code", "")
    rows = [
        {
            "sysItemId": item["sysItemId"],
            "outerId": item["outerId"],
            "barcode": item["barcode"],
            "multiCode": more,
        }
        for item in items.LIST.records(desk, int(call.now))
        if not code or code in {item["outerId"], item["barcode"]}
        for more in (f"{item['barcode']}01", f"{item['barcode']}02")
    ]
    return {"list": rows}


def cost_history(desk: Desk, call: Call) -> dict[str, Any]:
    """`erp.item.history.cost.price.query`: what one SKU cost over time; no list when there is nothing."""
    item, sku = required(call.params, "sysItemId"), required(call.params, "sysSkuId")
    first = moment(call.params, "startTime") if call.params.get("startTime") else 0
    last = moment(call.params, "endTime") if call.params.get("endTime") else int(call.now)
    if first > last:
        raise Refusal("40002", "开始时间不能大于结束时间")
    rows = [
        {
            "sysItemId": record["sysItemId"],
            "sysSkuId": record["sysSkuId"],
            "warehouseId": record["wareHouseId"],
            "start": time_text(begun),
            "end": time_text(begun + 30 * DAY - 1),
            "price": round(record["purchasePrice"] * (1 + begun // DAY % 5 / 100), 2),
        }
        for record in STOCK.records(desk, int(call.now))
        if str(record["sysItemId"]) == item and str(max(record["sysSkuId"], 0)) == str(max(int(sku), 0))
        for begun in range(desk.world.start_second - 90 * DAY, int(call.now), 30 * DAY)
        if begun <= last and begun + 30 * DAY > first
    ]
    return {"list": rows} if rows else {}


def _virtual_stock(world: World, n: int, at: int) -> tuple[list[Record], int, int]:
    """A third of the real warehouse's stock."""
    found, since, until = STOCK.source.lived(world, n, at)
    rows = [
        {
            "id": place["id"],
            "sysItemId": record["sysItemId"],
            "sysSkuId": record["sysSkuId"],
            "virtualStock": record["totalAvailableStock"] // 3,
            "modified": time_text(as_second(record["stockModifiedTime"])),
        }
        for record in found
        for place in VIRTUAL_WAREHOUSES
        if record["wareHouseId"] == place["warehouseId"]
    ]
    return rows, since, until


VIRTUAL_STOCK = Listing(
    Source("virtual_stock", STOCK.source.planned, _virtual_stock),
    Marks("virtual_stock", key=("id", "sysItemId", "sysSkuId")),
    paging=Paging(total_on="first"),
)


METHODS: dict[str, Listing | Answer] = {
    "erp.distributor.list.query": _register(
        "distributor",
        DISTRIBUTORS,
        key="distributorCompanyId",
        paging=Paging(default=20),
        filters={
            "distributorCompanyIds": "distributorCompanyId",
            "distributorName": "distributorCompanyName",
        },
    ),
    "erp.query.customers.list": _register(
        "customer",
        CUSTOMERS,
        paging=Paging(default=20),
        filters={
            "code": "code",
            "nick": "nick",
            "name": "name",
            "level": "level",
            "enableStatus": "status",
        },
    ),
    "erp.trade.query.tag.list": _register(
        "trade_tag",
        TAGS,
        filters={"tagType": "tagType"},
        allowed={"tagType": frozenset({"0", "1"})},
    ),
    "erp.item.tag.list": _register("item_tag", ITEM_TAGS, filters={"name": "name"}),
    "brand.list.get": _register(
        "brand", BRANDS, list_key="items", paging=Paging(code="20002", text="页数为空或不符合规定")
    ),
    "erp.item.seller.cat.list.get": _register("seller_cat", SELLER_CATS, list_key="sellerCats"),
    "item.classify.list.get": _register("classify", CLASSES, list_key="classifies"),
    "erp.item.supplier.list.get": ITEM_SUPPLIERS,
    "erp.item.outerid.list.get": platform_codes,
    "erp.item.multicode.query": more_codes,
    "erp.item.history.cost.price.query": cost_history,
    "erp.virtual.warehouse.query": _register(
        "virtual_warehouse",
        VIRTUAL_WAREHOUSES,
        paging=Paging(max=500, required=True),
        filters={"name": "name"},
    ),
    "erp.item.virtual.stock.query": VIRTUAL_STOCK,
    "erp.trade.logistics.company.user.list": CARRIER_LIST,
}
