"""The item catalogue: what the orders sell, further items that come and go, and their SKUs.

Prices are yuan, times epoch milliseconds. An item that was deleted is simply no longer there.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from kuaimai.sandbox.listing import Listing, Paging, Window
from kuaimai.sandbox.merchant import GOODS, SOLD_ITEMS
from kuaimai.sandbox.oddities import Marks
from kuaimai.sandbox.series import FOREVER, Series, drawn
from kuaimai.sandbox.shelf import Lived, Record, Source
from kuaimai.sandbox.world import DAY, HOUR, World

_FIRST_ITEM = 466_000_000_000_001
_FIRST_SKU = 466_000_001_000_000
_COLOURS = ("红色", "蓝色", "白色", "黑色", "绿色")
_NAMES = ("花瓶", "餐盘", "闹钟", "风扇", "地垫", "书架", "果篮🍎", "相框")
_BRANDS = ("示例牌", "样品牌", "")
_SUIT_EVERY, _GONE_EVERY = 7, 5
_WITHOUT_SKU = SOLD_ITEMS  # one such item is in every world that has more than what is sold
_SUIT, _PLAIN = "1", "0"


class Unit(NamedTuple):
    """What is sold, stocked and bought: a SKU, or an item without SKUs (`sku_id` 0 or -1).

    `price` and `cost` are fen.
    """

    item: int
    item_id: int
    sku_id: int
    item_code: str
    code: str
    title: str
    properties: str
    price: int
    cost: int

    @property
    def has_sku(self) -> bool:
        """Whether it is a SKU of its item."""
        return self.sku_id > 0


def planned(world: World, at: int) -> int:
    """How many items there have been by the second `at`, or one more."""
    return world.items + _arrivals(world).planned(at)


def life_of(world: World, n: int) -> tuple[int, int]:
    """The seconds at which item `n` appears and is deleted."""
    draws = drawn(world.seed, "item", n)
    live = n - world.items
    born = world.start_second - DAY * (200 + draws[0] % 700) if live < 0 else _arrivals(world).slot(live)
    if n <= _WITHOUT_SKU or draws[1] % _GONE_EVERY:
        return born, FOREVER
    return born, max(born, world.start_second) + HOUR + draws[2] % (5 * DAY)


def is_suit(world: World, n: int) -> bool:
    """Whether item `n` is a suit, which has no stock of its own."""
    return n > _WITHOUT_SKU and drawn(world.seed, "item", n)[3] % _SUIT_EVERY == 0


def units_of(world: World, n: int) -> tuple[Unit, ...]:
    """The SKUs of item `n`, or the item itself where it has none."""
    return _units(world.seed, n)


def _arrivals(world: World) -> Series:
    return Series("item", world.seed, world.start_second, 0, 0, 0.0, world.items_per_day)


@lru_cache(maxsize=65_536)
def _units(seed: int, n: int) -> tuple[Unit, ...]:
    item_id, item_code = _FIRST_ITEM + n, f"DEMO-{n:02d}"
    if n < SOLD_ITEMS:
        sold = [sku for sku in GOODS if sku.item_code == item_code]
        return tuple(
            Unit(
                n,
                item_id,
                sku.sku_id,
                item_code,
                sku.sku_code,
                sku.title,
                sku.properties,
                sku.price,
                sku.cost,
            )
            for sku in (sold if sold[0].sku_id > 0 else sold[:1])
        )
    draws = drawn(seed, "item", n)
    title, price, cost = f"示例{_NAMES[n % len(_NAMES)]}", 800 + draws[4] % 9_000, 300 + draws[5] % 700
    count = 0 if n == _WITHOUT_SKU else draws[6] % (len(_COLOURS) + 1)
    if not count:  # 0 and -1 both mean "no SKU"
        return (Unit(n, item_id, -(n % 2), item_code, item_code, title, "", price, cost),)
    return tuple(
        Unit(
            n, item_id, _FIRST_SKU + n * 8 + at, item_code, f"{item_code}-{colour}", title, colour,
            price + 100 * at, cost,
        )
        for at, colour in enumerate(_COLOURS[:count])
    )  # fmt: skip


def _lived(world: World, n: int, at: int) -> Lived:
    born, gone = life_of(world, n)
    if at < born:
        return [], -1, born
    if at >= gone:
        return [], gone, FOREVER
    draws = drawn(world.seed, "item", n)
    period = HOUR * (5 + draws[7] % 300)
    edit = (at - born) // period
    since = born + edit * period
    return [_record(world, n, draws, times=(born, since), edit=edit)], since, min(gone, since + period)


def _record(world: World, n: int, draws: tuple[int, ...], *, times: tuple[int, int], edit: int) -> Record:
    born, since = times
    units = units_of(world, n)
    first, suit = units[0], is_suit(world, n)
    raised = edit % 9  # an edit raises the price by ten fen, nine times, then it starts anew
    brand = _BRANDS[draws[8] % len(_BRANDS)]
    record: Record = {
        "sysItemId": first.item_id,
        "outerId": first.item_code,
        "title": first.title,
        "shortTitle": first.title[2:],
        "barcode": f"69{first.item_id % 10**11:011d}",
        "type": _SUIT if suit else _PLAIN,
        "typeTag": int(suit),
        "activeStatus": int(n < SOLD_ITEMS or edit % 6 != 5),  # noqa: PLR2004 - some edits switch it off
        "isVirtual": 0,
        "isSkuItem": int(first.has_sku),
        "purchasePrice": first.cost / 100,
        "priceOutput": (first.price + 10 * raised) / 100,
        "marketPrice": (first.price * 2) / 100,
        "otherPrice1": 0,
        "otherPrice2": 0,
        "otherPrice3": 0,
        "weight": 0.05 + draws[9] % 100 / 20,
        "x": 10.0,
        "y": 8.5,
        "z": 12.0,
        "unit": "个",
        "brand": brand,
        "catId": str(50_000_000 + draws[8] % 100),
        "classify": {"id": 70 + draws[8] % 3, "name": "家居"},
        "sellerCats": [{"cid": 800 + draws[8] % 5, "name": "示例分类"}],
        "customAttribute": [],
        "hasSupplier": 1,
        "makeGift": 0,
        "remark": f"第{edit}次修改" if edit else "",
        "created": born * 1000,
        "modified": since * 1000,
    }
    if first.has_sku:
        record["skus"] = [_sku(unit, raised, since, suit=suit) for unit in units]
    elif suit:
        record["suitSingleList"] = _suit_parts(n)
    return record


def _sku(unit: Unit, raised: int, since: int, *, suit: bool) -> Record:
    record: Record = {
        "sysItemId": unit.item_id,
        "sysSkuId": unit.sku_id,
        "skuOuterId": unit.code,
        "propertiesName": unit.properties,
        "propertiesAlias": "",
        "skuPicPath": "",
        "skuRemark": "",
        "barcode": "",
        "purchasePrice": unit.cost / 100,
        "priceOutput": (unit.price + 10 * raised) / 100,
        "weight": 0.35,
        "activeStatus": 1,
        "modified": since * 1000,
    }
    if suit:
        record["suitSingleList"] = _suit_parts(unit.item)
    return record


def _suit_parts(n: int) -> list[Record]:
    return [
        {"sysItemId": sku.item_id, "sysSkuId": sku.sku_id, "skuOuterId": sku.sku_code, "ratio": 1 + at}
        for at, sku in enumerate(GOODS[n % 30 : n % 30 + 2])
    ]


SOURCE = Source("item", planned, _lived)

LIST = Listing(
    SOURCE,
    Marks(
        "item",
        key=("sysItemId",),
        version="modified",
        stamps=frozenset({"created"}),
        time="created",
        amount="priceOutput",
        retyped="typeTag",
        dropped="barcode",
    ),
    list_key="items",
    # Measured for 500; the code is documented.
    paging=Paging(code="20002", text="页数为空或不符合规定"),
    windows=(Window("startModified", "endModified", "modified"),),
    filters={"activeStatus": "activeStatus", "type": "type"},
    orders=("modified", "created"),
)
