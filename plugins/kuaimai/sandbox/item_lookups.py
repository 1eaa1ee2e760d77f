"""Methods that look up single items and SKUs by id or code; the id counts where both are sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kuaimai.sandbox.desk import Call, Desk, Refusal
from kuaimai.sandbox.items import LIST
from kuaimai.sandbox.listing import parts, required

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kuaimai.sandbox.shelf import Record

_MAX_ITEMS = 20
_EITHER = "系统主商品ID和商家编码不能同时为空"


def single_item(desk: Desk, call: Call) -> dict[str, Any]:
    """`item.single.get`: one item by `sysItemId` or `outerId`; 20110 where there is none (our guess)."""
    found = [item for item in _items(desk, call) if _matcher(call.params, "sysItemId", "outerId")(item)]
    if not found:
        raise Refusal("20110", "商品查询失败")
    return {"item": found[0]}


def skus_of_item(desk: Desk, call: Call) -> dict[str, Any]:
    """`erp.item.sku.list.get`: the SKUs of one item; no list where there are none, as measured."""
    matches = _matcher(call.params, "sysItemId", "outerId")
    skus = [sku for item in _items(desk, call) if matches(item) for sku in _skus(item)]
    return {"itemSkus": skus} if skus else {}


def single_sku(desk: Desk, call: Call) -> dict[str, Any]:
    """`erp.item.single.sku.get`: one SKU, in a list; live answers name it `itemSku`."""
    matches = _matcher(call.params, "sysSkuId", "skuOuterId")
    return {"itemSku": [sku for item in _items(desk, call) for sku in _skus(item) if matches(sku)]}


def items_by_id(desk: Desk, call: Call) -> dict[str, Any]:
    """`erp.item.list.get`: up to 20 items by `sysItemIds` or `outerIds`; `returnSkus` must be sent."""
    with_skus = required(call.params, "returnSkus") != "0"
    for name, code in (("sysItemIds", "20111"), ("outerIds", "20112")):
        wanted = parts(call.params.get(name, ""))
        if len(wanted) > _MAX_ITEMS:
            raise Refusal(code, f"商品数量最大支持{_MAX_ITEMS}个！")
        if name == "sysItemIds" and not all(part.isdecimal() for part in wanted):
            raise Refusal("20113", "系统主商品ID不合法")
        if wanted:
            found = [item for item in _items(desk, call) if str(item.get(name[:-1])) in wanted]
            return {
                "items": [
                    {field: value for field, value in item.items() if with_skus or field != "skus"}
                    for item in found
                ]
            }
    raise Refusal("20105", _EITHER)


def _items(desk: Desk, call: Call) -> list[Record]:
    return [LIST.served(desk, int(call.now), record) for record in LIST.records(desk, int(call.now))]


def _matcher(params: Mapping[str, str], by_id: str, by_code: str) -> Callable[[Record], bool]:
    for name in (by_id, by_code):
        if params.get(name):
            return lambda record: str(record.get(name)) == params[name]
    raise Refusal("20106" if by_id == "sysSkuId" else "20105", _EITHER)


def _skus(item: Record) -> list[Record]:
    """SKUs under the names that the SKU methods use; `title` may be empty, as measured."""
    return [
        {
            **sku,
            "itemOuterId": item["outerId"],
            "title": "",
            "hasSupplier": 1,
            "supplierName": "示例供应商",
            "supplierCode": "S001",
        }
        for sku in item.get("skus", ())
    ]
