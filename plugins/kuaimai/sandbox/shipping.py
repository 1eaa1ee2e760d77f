"""What follows an order on its way: shipping documents, its log, and the codes glued onto its pieces."""

from __future__ import annotations

from typing import Any

from kuaimai.sandbox.desk import Call, Desk, Refusal
from kuaimai.sandbox.lines import shares_of, sku_of
from kuaimai.sandbox.listing import Listing, Paging, TimeType, Window, parts
from kuaimai.sandbox.merchant import WAREHOUSES
from kuaimai.sandbox.oddities import Marks
from kuaimai.sandbox.records import full_trade, sid_of, tid_of
from kuaimai.sandbox.series import span
from kuaimai.sandbox.shelf import Lived, Record, Source
from kuaimai.sandbox.steps import Draw, Step
from kuaimai.sandbox.time_forms import time_text
from kuaimai.sandbox.world import World

_FIRST_DOCUMENT = 123_450_001
_FIRST_STOCK_OUT = 3_980_000_000_000_001
_MAX_STOCK_OUT = 20
_FIRST_LOG = 7_700_000_000_000_001
_STEPS_PER_ORDER = 16
_NOT_SHIPPED_HERE = frozenset({"tb", "tm", "tmcs", "1688", "alibabac2m"})
_STATUS_NAMES = {10: "待处理", 50: "已发货", 90: "已作废"}
_WAITING, _SENT, _VOID = 10, 50, 90
_MAX_IDS = 50
_MAX_LOGGED, _MAX_OPERATORS = 200, 20
_NO_TIME = "2000-01-01 00:00:00"
_ACTIONS = {
    Step.APPEAR: "下载订单", Step.PAY: "付款", Step.REMARK: "修改备注", Step.GIFT_REMOVED: "删除赠品",
    Step.MERGE: "合并订单", Step.MERGED_AWAY: "作废订单", Step.AUDIT: "审核", Step.SPLIT: "拆分订单",
    Step.SHIP: "发货", Step.FINISH: "交易完成", Step.CLOSE_UNPAID: "交易关闭", Step.REFUND_ASK: "申请退款",
    Step.REFUND_CLOSE: "退款关闭", Step.REFUND_DONE: "退款完成", Step.TOUCH: "修改订单",
}  # fmt: skip


def _is_shipped_here(world: World, n: int) -> bool:
    source = world.shops[world.shop_index(n)].source
    return source not in _NOT_SHIPPED_HERE and any(step == Step.AUDIT for _, step, _ in world.life(n))


def _documents_lived(world: World, n: int, at: int) -> Lived:
    """One document for an order from its audit on; it is void when the order is merged away or closed."""
    life = world.life(n)
    audited = next(second for second, step, _ in life if step == Step.AUDIT)
    since, until = span([second for second, _, _ in life if second >= audited], at)
    if since < 0:
        return [], since, until
    snap = world.snapshots(n, since)[0]
    trade = full_trade(world, snap)
    status = _SENT if snap.ship else _VOID if snap.seen & Step.REFUND_CLOSE else _WAITING
    shop = world.shops[world.shop_index(n)]
    record: Record = {
        "id": _FIRST_DOCUMENT + n,
        "userId": str(shop.user_id),
        "sid": str(sid_of(snap.row)),
        "shortId": str(trade["shortId"]),
        "tid": tid_of(shop.source, n),
        "source": shop.source,
        "outSid": trade["outSid"],
        "expressCode": trade["expressCode"],
        "status": status,
        "statusName": _STATUS_NAMES[status],
        "warehouseId": str(trade["warehouseId"]),
        "warehouseName": trade["warehouseName"],
        "waveId": 1_000 + n // 20,
        "payment": float(trade["payment"]),
        "payAmount": float(trade["payAmount"]),
        "sellerMemo": trade["sellerMemo"],
        "createTime": time_text(audited),
        "modifyTime": time_text(since),
        "consignTime": time_text(snap.ship) if snap.ship else _NO_TIME,
        "payTime": time_text(snap.pay) if snap.pay else _NO_TIME,
        "orderTime": time_text(snap.created),
        "promiseTime": time_text(snap.created + 172_800),
        "printTime": time_text(audited + 60) if since > audited else _NO_TIME,
    }
    return [record], since, until


def _few_enough(_desk: Desk, call: Call, found: list[Record]) -> list[Record]:
    for name in _BY_ID:
        if len(parts(call.params.get(name, ""))) > _MAX_IDS:
            raise Refusal("33", f"查询数量最大支持{_MAX_IDS}个！字段：[{name}]")
    return found


_BY_ID = {"sids": "sid", "shortIds": "shortId", "tids": "tid", "outSids": "outSid", "waveIds": "waveId"}
DOCUMENTS = Listing(
    Source(
        "shipping_document",
        planned=lambda world, at: world.planned(at),
        lived=_documents_lived,
        belongs=_is_shipped_here,
    ),
    Marks(
        "shipping_document",
        key=("id",),
        version="modifyTime",
        stamps=frozenset({"createTime", "consignTime", "payTime", "orderTime", "promiseTime", "printTime"}),
        time="createTime",
        amount="payment",
        retyped="status",
        dropped="waveId",
    ),
    windows=(Window("timeBegin", "timeEnd", ""),),
    time_type=TimeType("timeType", {
        "1": "createTime", "2": "consignTime", "3": "payTime", "4": "orderTime", "5": "promiseTime",
        "6": "printTime",
    }),
    dates="both",
    bypass=tuple(_BY_ID),
    epoch=True,
    filters={"userIds": "userId", "statusList": "status", **_BY_ID},
    refine=_few_enough,
    omits_empty=True,
)  # fmt: skip


def _log_lived(world: World, n: int, at: int) -> Lived:
    life = world.life(n)
    since, until = span([second for second, _, _ in life], at)
    rows: list[Record] = [
        {
            "id": _FIRST_LOG + n * _STEPS_PER_ORDER + place,
            "sid": sid_of(n * 4 + whose),
            "action": _ACTIONS[step],
            "content": "",
            "operator": "系统",
            "operateTime": second * 1000,
        }
        for place, (second, step, whose) in enumerate(life[:_STEPS_PER_ORDER])
        if second <= at
    ]
    return rows, since, until


LOG = Listing(
    Source("trade_log", planned=lambda world, at: world.planned(at), lived=_log_lived),
    Marks("trade_log", key=("id",), stamps=frozenset({"operateTime"}), time="operateTime", dropped="content"),
    paging=Paging(default=50),
    windows=(Window("operateTimeStart", "operateTimeEnd", "operateTime"),),
    epoch=True,
    filters={"sids": "sid", "operators": "operator", "action": "action"},
    refine=lambda _desk, call, found: _within_limits(call, found),
)


def _stock_out_lived(world: World, n: int, at: int) -> Lived:
    """The stock-out paper of one order: open from its audit, finished when it is shipped."""
    records, since, until = _documents_lived(world, n, at)
    return (
        [
            {
                "code": f"XC{_FIRST_STOCK_OUT + n}",
                "sid": int(record["sid"]),
                "tid": record["tid"],
                "outSid": record["outSid"],
                "status": "FINISH" if record["status"] == _SENT else "WAIT",
                "warehouseId": int(record["warehouseId"]),
                "created": record["createTime"],
                "remark": "",
            }
            for record in records
        ],
        since,
        until,
    )


def _with_a_status(_desk: Desk, call: Call, found: list[Record]) -> list[Record]:
    if not call.params.get("status"):
        raise Refusal("32", "缺少必要参数！字段：[status]")
    for name, code in (("sids", "20003"), ("shortIds", "20005")):
        if len(parts(call.params.get(name, ""))) > _MAX_STOCK_OUT:
            raise Refusal(code, f"数量最大支持{_MAX_STOCK_OUT}组！字段：[{name}]")
    return found


STOCK_OUT = Listing(
    Source(
        "stock_out",
        planned=lambda world, at: world.planned(at),
        lived=_stock_out_lived,
        belongs=_is_shipped_here,
    ),
    Marks("stock_out", key=("sid",), time="created", dropped="outSid"),
    filters={"status": "status", "sids": "sid", "tids": "tid", "outSids": "outSid"},
    allowed={"status": frozenset({"WAIT", "FINISH"})},
    refine=_with_a_status,
)


def _within_limits(call: Call, found: list[Record]) -> list[Record]:
    for name, most, code in (("sids", _MAX_LOGGED, "20020"), ("operators", _MAX_OPERATORS, "20021")):
        if len(parts(call.params.get(name, ""))) > most:
            raise Refusal(code, f"数量最大支持{most}组！字段：[{name}]")
    return found


def log_of_orders(desk: Desk, call: Call) -> dict[str, Any]:
    """`erp.trade.trace.list`: what was done to orders; the answer repeats its page in `page`."""
    answer = LOG(desk, call)
    page_no, size = int(call.params.get("pageNo") or 1), int(call.params.get("pageSize") or 50)
    page = {"pageNo": page_no, "pageSize": size, "startRow": (page_no - 1) * size, "offsetRow": size}
    return {**answer, "page": page}


def _codes_lived(world: World, n: int, at: int) -> Lived:
    life = world.life(n)
    steps = [second for second, step, _ in life if step in {Step.AUDIT, Step.SHIP}]
    since, until = span(steps, at)
    if since < 0:
        return [], since, until
    snap, draws = (
        world.snapshots(n, steps[0])[0],
        world.draws(n),
    )  # a code stays, also when its order is split
    shipped = since if since > steps[0] else 0
    rows: list[Record] = [
        {
            "uniqueCode": f"UC{n:010d}{share.position:02d}",
            "sid": sid_of(snap.row),
            "status": 4 if shipped else 2,
            "sysItemId": sku.item_id,
            "sysSkuId": sku.sku_id,
            "outerId": sku.sku_code,
            "warehouseId": WAREHOUSES[draws[Draw.WAREHOUSE] % len(WAREHOUSES)]["id"],
            "remark": "",
            "created": steps[0] * 1000,
            "modified": since * 1000,
            "receiveTime": steps[0] * 1000,
            "consignTime": shipped * 1000 or 946_656_000_000,
        }
        for share in shares_of(world, snap, draws)
        for sku in (sku_of(share, draws),)
    ]
    return rows, since, until


CODES = Listing(
    Source("unique_code", planned=lambda world, at: world.planned(at), lived=_codes_lived),
    Marks(
        "unique_code",
        key=("uniqueCode",),
        version="modified",
        stamps=frozenset({"created", "consignTime", "receiveTime"}),
        time="created",
    ),
    paging=Paging(max=500),
    windows=(
        Window("updateStart", "updateEnd", "modified"),
        Window("createStart", "createEnd", "created"),
        Window("consignStart", "consignEnd", "consignTime"),
        Window("receiveTimeStart", "receiveTimeEnd", "receiveTime"),
    ),
    filters={"sids": "sid", "uniqueCodes": "uniqueCode"},
)
