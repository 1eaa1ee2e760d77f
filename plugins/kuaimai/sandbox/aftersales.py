"""After-sale work orders: each is born from an order that is refunded, and lives on after the refund.

The header's amounts are yuan, the lines' `rawRefundMoney` is fen. `created` and `finished` are digits in
text, `modified` and the others numbers, all of them epoch milliseconds.
"""

from __future__ import annotations

from typing import Any

from kuaimai.sandbox.desk import Call, Desk
from kuaimai.sandbox.lines import milliseconds, shares_of, sku_of, yuan
from kuaimai.sandbox.listing import Listing, Paging, Window, required
from kuaimai.sandbox.merchant import WAREHOUSES
from kuaimai.sandbox.oddities import Marks
from kuaimai.sandbox.records import sid_of, tid_of
from kuaimai.sandbox.series import drawn, span
from kuaimai.sandbox.shelf import Lived, Record, Source
from kuaimai.sandbox.steps import Step
from kuaimai.sandbox.time_forms import as_second
from kuaimai.sandbox.world import DAY, HOUR, MINUTE, World

AFTERSALES = "erp.aftersale.list.query"
_FIRST_ID = 4_100_000_000_000_001
_FIRST_LOG = 4_160_000_000_000_001
_FIRST_SECOND_ID = 4_150_000_000_000_001
_REASONS = ("不想要了", "质量问题", "收到商品破损\n已拍照📷", "与描述不符", "未按约定时间发货")
_REFUNDED, _OPEN = 7, 3


def _is_refunded(world: World, n: int) -> bool:
    return refund_of(world, n) is not None


def refund_of(world: World, n: int) -> tuple[int, int, bool] | None:
    """When the refund of order `n` was asked for and ended, whether it was shipped; None for no refund."""
    asked = ended = 0
    shipped = False
    for second, step, _ in world.life(n):
        if step == Step.REFUND_ASK:
            asked = second
        elif step in {Step.REFUND_CLOSE, Step.REFUND_DONE}:
            ended, shipped = second, step == Step.REFUND_DONE
    return (asked, ended or asked + 6 * HOUR, shipped) if asked else None


def _lived(world: World, n: int, at: int) -> Lived:
    refund = refund_of(world, n)
    if refund is None:
        return [], *span([], at)
    asked, ended, shipped = refund
    draws = drawn(world.seed, "aftersale", n)
    noted = asked + MINUTE + draws[0] % (ended - asked - MINUTE)
    confirmed = ended + HOUR + draws[1] % (2 * DAY)  # the platform's word comes late
    steps = sorted({asked, noted, ended, confirmed})
    since, until = span(steps, at)
    if since < 0:
        return [], since, until
    first = _record(world, n, draws, since, (asked, ended, confirmed), shipped=shipped)
    if not (shipped and draws[2] % 4 == 0) or at < noted:
        return [first], since, until
    # Goods come back in two parcels: the second work order has the same platform number and names the first.
    second = first | {
        "id": _FIRST_SECOND_ID + n,
        "shortId": first["shortId"] + 500_000,
        "masterId": first["id"],
        "rawRefundMoney": "0.00",
        "refundMoney": 0,
        "items": [],
    }
    return [first, second], since, until


def _record(
    world: World,
    n: int,
    draws: tuple[int, ...],
    since: int,
    times: tuple[int, int, int],
    *,
    shipped: bool,
) -> Record:
    asked, ended, confirmed = times
    over = since >= ended
    order = world.draws(n)
    shop = world.shops[world.shop_index(n, order)]
    ownerless = draws[3] % 11 == 0  # nobody knows which order the parcel belongs to
    kind = (2 if draws[4] % 2 else 1) if shipped else 5
    snap = world.snapshots(n, since)[0]
    share = next((share for share in shares_of(world, snap, order) if not share.gift), None)
    sku = sku_of(share, order) if share is not None else None
    fen = sku.price * share.num if share is not None and sku is not None else 0
    online = _REFUNDED if over and since >= confirmed else _OPEN
    record: Record = {
        "id": _FIRST_ID + n,
        "shortId": 500 + n,
        "tid": tid_of(shop.source, n),
        "sid": -1 if ownerless else sid_of(4 * n),
        "platformId": f"145{n:016d}",
        "userId": shop.user_id,
        "source": shop.source,
        "shopName": shop.title,
        "afterSaleType": kind,
        # Measured: the status is a number, or text with a list of them.
        "status": 9 if over else "2,10" if draws[5] % 2 else 2,
        "onlineStatus": online,
        "onlineStatusText": "退款成功" if online == _REFUNDED else "处理中",
        "goodStatus": 1 + draws[6] % 4,
        "reason": draws[7] % len(_REASONS),
        "textReason": _REASONS[draws[7] % len(_REASONS)],
        "rawRefundMoney": yuan(fen),
        "refundMoney": fen / 100,
        "refundPostFee": "0.00",
        "created": str(asked * 1000),
        "finished": str(milliseconds(ended if over else 0)),
        "modified": since * 1000,
        "applyDate": (asked - 10) * 1000,
        "platformCompleteTime": milliseconds(confirmed if since >= confirmed else 0),
        "buyerName": "示**",
        "buyerPhone": "138****0000",
        "wangwangNum": f"demo_buyer_{n}",
        "refundWarehouseId": WAREHOUSES[draws[8] % len(WAREHOUSES)]["id"] if kind == 2 else -1,  # noqa: PLR2004
        "remark": "",
        "items": [],
    }
    if share is not None and sku is not None and not ownerless:
        record["items"] = [
            {
                "mainOuterId": sku.item_code,
                "outerId": sku.sku_code,
                "title": sku.title,
                "propertiesName": sku.properties,
                "receivableCount": share.num,
                "itemRealQty": share.num if over and kind == 2 else 0,  # noqa: PLR2004 - 2 is a return of goods
                "goodItemCount": share.num if over and kind == 2 else 0,  # noqa: PLR2004
                "badItemCount": 0,
                "rawRefundMoney": fen,
                "refundMoney": yuan(fen),
                "payment": yuan(fen),
                "price": yuan(sku.price),
                "type": 1,
                "isMatch": 0,
                "suite": 0,
                "isGift": 0,
                "sysItemId": sku.item_id,
                "sysSkuId": sku.sku_id,
                "itemSnapshotId": -1,
            }
        ]
    return record


_SOURCE = Source(
    "aftersale",
    planned=lambda world, at: world.planned(at),
    lived=_lived,
    belongs=_is_refunded,
    inserted=lambda world: world.inserted(),
)

LIST = Listing(
    _SOURCE,
    Marks(
        "aftersale",
        key=("id",),
        version="modified",
        stamps=frozenset({"applyDate", "finished", "platformCompleteTime", "created"}),
        time="created",
        amount="rawRefundMoney",
        retyped="shortId",
        dropped="textReason",
    ),
    paging=Paging(default=1),
    windows=(
        Window("startModified", "endModified", "modified"),
        Window("startApplyTime", "endApplyTime", "applyDate"),
        Window("startFinished", "endFinished", "finished"),
        Window("startPlatformCompleteTime", "endPlatformCompleteTime", "platformCompleteTime"),
    ),
    filters={
        "userIds": "userId",
        "warehouseIds": "refundWarehouseId",
        "tid": "tid",
        "id": "id",
        "afterSaleType": "afterSaleType",
    },
)


def log_of_work_order(desk: Desk, call: Call) -> dict[str, Any]:
    """`erp.aftersale.operate.log.query`: what was done to one work order so far."""
    asked = required(call.params, "workOrderId")
    found = [record for record in LIST.records(desk, int(call.now)) if str(record["id"]) == asked]
    rows = [
        {
            "id": _FIRST_LOG + 4 * record["shortId"] + place,
            "workOrderId": record["id"],
            "operator": "系统",
            "action": action,
            "content": record["textReason"] if place == 0 else "",
            "operateTime": int(second) * 1000,
        }
        for record in found
        for place, (action, second) in enumerate(
            (
                ("创建工单", as_second(record["created"])),
                ("解决工单", as_second(record["finished"])),
                ("平台退款完成", as_second(record["platformCompleteTime"])),
            )
        )
        if second
    ]
    return {"list": rows}
