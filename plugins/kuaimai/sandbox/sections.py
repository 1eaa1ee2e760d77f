"""Locations of a warehouse: what lies where, what was taken away for good, and every movement.

Removals are told by a method of their own, which is rare here: elsewhere a deleted record is simply gone.
"""

from __future__ import annotations

from collections.abc import Callable

from kuaimai.sandbox.items import Unit, units_of
from kuaimai.sandbox.listing import Listing, Paging, Window
from kuaimai.sandbox.merchant import SOLD_ITEMS, WAREHOUSES
from kuaimai.sandbox.oddities import Marks
from kuaimai.sandbox.series import FOREVER, Series, series, span
from kuaimai.sandbox.shelf import Lived, Record, Source
from kuaimai.sandbox.world import DAY, HOUR, World

_FIRST_PLACE = 3_970_000_000_000_001
_FIRST_MOVEMENT = 3_971_000_000_000_001
_FIRST_CHANGE = 3_972_000_000_000_001
_TYPES = ("采购上架", "波次拣选", "盘点调整", "调拨出库")
_WINDOW = (Window("startModified", "endModified", "modified"),)


def _numbers(world: World, name: str) -> Series:
    return series(world, name, world.documents_per_day, archived=world.archive_documents)


def _unit(world: World, drawn: int) -> Unit:
    sold = [unit for item in range(SOLD_ITEMS) for unit in units_of(world, item)]
    return sold[drawn % len(sold)]


def _times(world: World, n: int) -> tuple[int, int, int]:
    """When something is put onto a place, when it is counted again, and when it is removed."""
    numbers = _numbers(world, "section")
    draws, put = numbers.draws(n), numbers.slot(n)
    counted = put + HOUR + draws[0] % (10 * HOUR)
    return put, counted, counted + HOUR + draws[1] % DAY if draws[2] % 3 == 0 else FOREVER


def _place(world: World, n: int, modified: int) -> Record:
    draws = _numbers(world, "section").draws(n)
    unit, warehouse = _unit(world, draws[3]), WAREHOUSES[draws[4] % len(WAREHOUSES)]
    return {
        "id": _FIRST_PLACE + n,
        "goodsSectionCode": f"A-{draws[5] % 9 + 1}-{draws[6] % 30 + 1}-{n}",
        "warehouseId": warehouse["id"],
        "warehouseName": warehouse["name"],
        "sysItemId": unit.item_id,
        "sysSkuId": unit.sku_id,
        "outerId": unit.code,
        "goodsSectionId": 60_000 + n,
        "title": unit.title,
        "num": draws[7] % 90 - (modified % 3),
        "qualityType": int(draws[9] % 10 != 0),
        "batchNo": "",
        "remark": "",
        "created": _times(world, n)[0] * 1000,
        "modified": modified * 1000,
    }


def _places_lived(world: World, n: int, at: int) -> Lived:
    put, counted, removed = _times(world, n)
    since, until = span([put, counted, removed], at)
    return ([_place(world, n, since)] if put <= at < removed else []), since, until


def _removals_lived(world: World, n: int, at: int) -> Lived:
    removed = _times(world, n)[2]
    since, until = span([removed], at)
    return ([_place(world, n, removed)] if at >= removed else []), since, until


def _event(world: World, name: str, n: int, at: int) -> tuple[int, tuple[int, ...], tuple[int, int]]:
    numbers = _numbers(world, name)
    happened = numbers.slot(n)
    return happened, numbers.draws(n), span([happened], at)


def _movements_lived(world: World, n: int, at: int) -> Lived:
    happened, draws, around = _event(world, "movement", n, at)
    unit = _unit(world, draws[0])
    record: Record = {
        "id": _FIRST_MOVEMENT + n,
        "orderNumber": f"SJ{3_958_000_000_000_001 + draws[1] % 500}",
        "bizType": _TYPES[draws[2] % len(_TYPES)],
        "goodsSectionCode": f"A-{draws[3] % 9 + 1}-{draws[4] % 30 + 1}",
        "warehouseId": WAREHOUSES[draws[5] % len(WAREHOUSES)]["id"],
        "sysItemId": unit.item_id,
        "sysSkuId": unit.sku_id,
        "outerId": unit.code,
        "changeNum": draws[6] % 41 - 20,
        "operateName": "示例仓管员",
        "operateTime": happened * 1000,
    }
    return ([record] if at >= happened else []), *around


def _changes_lived(world: World, n: int, at: int) -> Lived:
    happened, draws, around = _event(world, "stock_change", n, at)
    unit, change = _unit(world, draws[0]), draws[1] % 61 - 30
    before = draws[2] % 200
    record: Record = {
        "orderNumber": f"CG{_FIRST_CHANGE + n}",
        "orderType": draws[4] % 6,
        "warehouseId": WAREHOUSES[draws[5] % len(WAREHOUSES)]["id"],
        "warehouseName": WAREHOUSES[draws[5] % len(WAREHOUSES)]["name"],
        "outerId": unit.code,
        "title": unit.title,
        "propertiesName": unit.properties,
        "stockChange": change,
        "beforeStock": before,
        "afterStock": before + change,
        "operateTime": happened * 1000,
        "remark": "",
    }
    return ([record] if at >= happened else []), *around


def _source(name: str, series_name: str, lived: Callable[[World, int, int], Lived]) -> Source:
    return Source(name, lambda world, at: _numbers(world, series_name).planned(at), lived)


PLACES = Listing(
    _source("section", "section", _places_lived),
    Marks(
        "section", key=("id",), version="modified", time="created", retyped="qualityType", dropped="batchNo"
    ),
    paging=Paging(max=1_000),
    windows=_WINDOW,
)
REMOVALS = Listing(
    _source("section_removal", "section", _removals_lived),
    Marks("section_removal", key=("id",), version="modified", time="created"),
    paging=Paging(),
    windows=_WINDOW,
)
MOVEMENTS = Listing(
    _source("movement", "movement", _movements_lived),
    Marks("movement", key=("id",), stamps=frozenset({"operateTime"}), time="operateTime"),
    paging=Paging(total_on="none", has_next=True, required=True),
    windows=(Window("operateStartTime", "operateEndTime", "operateTime"),),
    filters={"orderNumber": "orderNumber"},
)
CHANGES = Listing(
    _source("stock_change", "stock_change", _changes_lived),
    Marks("stock_change", key=("orderNumber",), stamps=frozenset({"operateTime"}), time="operateTime"),
    list_key="stockInOutRecordVos",
    paging=Paging(required=True),
    windows=(Window("operateTimeBegin", "operateTimeEnd", "operateTime"),),
    filters={"outerId": "outerId", "warehouseId": "warehouseId", "orderType": "orderType"},
)

METHODS: dict[str, Listing] = {
    "asso.goods.section.sku.query": PLACES,
    "asso.goods.section.sku.del.query": REMOVALS,
    "goods.section.in.out.record.query": MOVEMENTS,
    "erp.item.stock.in.out.list": CHANGES,
}
