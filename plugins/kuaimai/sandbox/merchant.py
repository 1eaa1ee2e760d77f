"""What the invented merchant owns: shops, warehouses and goods. Every name and number is made up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Shop:
    """One shop; `user_id` is the shop id that every other method uses."""

    user_id: int
    source: str
    title: str
    state: int = 3


# U+FFFD is what the service itself delivers where it has damaged a shop's name.
SHOPS = (
    Shop(900001, "fxg", "示例旗舰店"),
    Shop(900002, "pdd", "示例专营店", state=4),
    Shop(900003, "jd", "示例京东\ufffd自营店"),
    Shop(900004, "tb", "示例淘宝店"),
    Shop(900005, "sys", "线下手工单"),
    Shop(900006, "xhs", "示例红薯店"),
    Shop(900007, "kuaishou", "示例快手店"),
    Shop(900008, "tm", "示例天猫店"),
    Shop(900009, "wxsph", "示例视频号店"),
    Shop(900010, "1688", "示例批发店"),
    Shop(900011, "alibabac2m", "示例工厂店"),
    Shop(900012, "open", "示例自建商城"),
)


def shops(count: int) -> tuple[Shop, ...]:
    """The first `count` shops."""
    return SHOPS[:count]


def shop_records(owned: tuple[Shop, ...]) -> list[dict[str, Any]]:
    """Rows of `erp.shop.list.query`."""
    return [
        {
            "userId": shop.user_id,
            "title": shop.title,
            "shortTitle": shop.title[:4],
            "source": shop.source,
            "nick": f"demo_shop_{shop.user_id}",
            "shopId": 70_000_000 + shop.user_id,
            "state": shop.state,
            "active": 1,
            "deadline": 1_798_732_800_000,
            "groupName": "默认组",
            "remark": "",
        }
        for shop in owned
    ]


WAREHOUSES: tuple[dict[str, Any], ...] = (
    {
        "id": 80001,
        "code": "WH-A",
        "name": "一号仓",
        "type": 0,
        "status": 1,
        "state": "示例省",
        "city": "示例市",
        "companyId": 100001,
    },
    {"id": 80002, "code": "WH-B", "name": "云仓", "type": 1, "status": 2, "companyId": 100001},
)


@dataclass(frozen=True, slots=True)
class Sku:
    """One sellable thing; `price` and `cost` are fen."""

    item_id: int
    sku_id: int
    item_code: str
    sku_code: str
    title: str
    properties: str
    price: int
    cost: int


_COLOURS = ("红色", "蓝色", "白色", "黑色")
_THINGS = ("杯子", "毛巾", "雨伞", "台灯", "背包", "水壶", "围巾", "手套", "拖鞋", "靠枕")


def _goods() -> tuple[Sku, ...]:
    made = []
    for index in range(40):
        thing, colour = divmod(index, len(_COLOURS))
        code = f"DEMO-{thing:02d}"
        made.append(
            Sku(
                item_id=466_000_000_000_001 + thing,
                # The last thing has no SKUs: the service writes -1 and repeats the main code.
                sku_id=-1 if thing == len(_THINGS) - 1 else 466_000_000_001_000 + index,
                item_code=code,
                sku_code=code if thing == len(_THINGS) - 1 else f"{code}-{colour}",
                title=f"示例{_THINGS[thing]}",
                properties="" if thing == len(_THINGS) - 1 else _COLOURS[colour],
                price=990 + index * 370,
                cost=415 + index * 131,
            )
        )
    return tuple(made)


GOODS = _goods()
SOLD_ITEMS = len(_THINGS)
"""Items that orders sell; the item catalogue begins with them."""
