"""Purchase orders, the receipts that they lead to, and what is sent back. All amounts are fen.

An order is written, put up for approval, approved, arrives in one or two parts and is finished; some are
closed instead. Each arrival is a receipt, some goods go back. Lists have no lines: a detail call gives them.
What was created more than 90 days ago is only found by the `…history…` methods.
"""

from __future__ import annotations

from kuaimai.sandbox.desk import Call, Desk
from kuaimai.sandbox.items import Unit
from kuaimai.sandbox.lines import milliseconds
from kuaimai.sandbox.listing import Detail, Listing, Paging, Refine, TimeType, Window
from kuaimai.sandbox.oddities import Marks
from kuaimai.sandbox.purchase_life import (
    PARTS,
    Line,
    Plan,
    arrived_by,
    lines_of,
    part_of,
    plan_of,
    planned,
    status_at,
)
from kuaimai.sandbox.series import span
from kuaimai.sandbox.shelf import Lived, Record, Source
from kuaimai.sandbox.suppliers import supplier
from kuaimai.sandbox.time_forms import as_second
from kuaimai.sandbox.world import DAY, HOUR, MINUTE, World

_FIRST_ORDER = 3_940_000_000_000_001
_FIRST_RECEIPT = 3_941_000_000_000_001
_FIRST_RETURN = 3_942_000_000_000_001
_HISTORY_DAYS = 90
_ORDER_STATUSES = frozenset({
    "WAIT_VERIFY", "VERIFYING", "GOODS_NOT_ARRIVED", "GOODS_PART_ARRIVED", "FINISHED", "GOODS_CLOSED",
})  # fmt: skip
_RECEIPT_STATUSES = frozenset({"NOT_FINISH", "STATUS_UNIQUE_CODE_RECEIVING", "FINISHED", "SHELVED", "CLOSED"})
_RETURN_STATUSES = {0: "已作废", 1: "待出库", 2: "已审核", 3: "已出库", 4: "出库中", 5: "草稿"}


def _order_lived(world: World, n: int, at: int) -> Lived:
    plan = plan_of(world, n)
    since, until = span(
        sorted({plan.written, plan.submitted, plan.approved, *plan.arrivals} | {plan.closed} - {0}), at
    )
    return ([_order(world, plan, since)] if since >= 0 else []), since, until


def _order(world: World, plan: Plan, since: int) -> Record:
    lines = lines_of(world, plan)
    ordered = sum(line.pieces for line in lines)
    amount = sum(line.pieces * line.price for line in lines)
    arrived = sum(arrived_by(plan, line.pieces, since) for line in lines)
    received = sum(arrived_by(plan, line.pieces, since) * line.price for line in lines)
    seller = supplier(world, plan.draws[0] % world.suppliers)
    status = status_at(plan, since)
    ended = since if status in {"FINISHED", "GOODS_CLOSED"} else 0
    # Measured: amounts are fen, as numbers with a fraction or as text, mixed in one record.
    return {
        "id": _FIRST_ORDER + plan.n,
        "code": f"CG{_FIRST_ORDER + plan.n}",
        "shortId": 2000 + plan.n,
        "status": status,
        "supplierId": seller["id"],
        "supplierCode": seller["code"],
        "supplierName": seller["name"],
        "supplier": {
            name: seller[name] for name in ("id", "code", "name", "mobile", "bankNumber", "accountBank")
        },
        "receiveWarehouseId": plan.warehouse["id"],
        "receiveWarehouseName": plan.warehouse["name"],
        "quantity": ordered,
        "arrivedQuantity": arrived,
        "receiveQuantity": arrived,
        "totalAmount": float(amount),
        "actualTotalAmount": str(amount),
        "discountAmount": 0.0,
        "cancelAmount": 0,
        "receivedAmount": float(received),
        "freight": "1200" if plan.draws[17] % 4 == 0 else "0",
        "financeStatus": "WAIT_FINANCE",
        "createrName": "示例采购员",
        "remark": "加急📦\n请周五前到货" if plan.draws[18] % 10 == 0 else "",
        "created": plan.written * 1000,
        "modified": since * 1000,
        "deliveryDate": (plan.written + 3 * DAY) * 1000,
        "finishDate": milliseconds(ended),
    }


def _number(record: Record, first: int) -> int:
    return int(record["id"]) - first


def _order_lines(desk: Desk, record: Record) -> list[Record]:
    plan = plan_of(desk.world, _number(record, _FIRST_ORDER))
    at = as_second(record["modified"])
    return [
        {
            "purchaseOrderId": record["id"],
            "code": record["code"],
            **_goods(line.unit),
            "supplierCode": record["supplierCode"],
            "count": line.pieces,
            "quantity": line.pieces,
            "arrivedQuantity": arrived_by(plan, line.pieces, at),
            "price": float(line.price),
            "amount": float(line.pieces * line.price),
            "totalFee": float(line.pieces * line.price),
            "amendAmount": 0,
            "deliveryDate": record["deliveryDate"],
            "remark": "",
        }
        for line in lines_of(desk.world, plan)
    ]


def _goods(unit: Unit) -> Record:
    """`itemOuterId` is the main code, `outerId` the SKU's; the title is never given, as measured."""
    return {
        "sysItemId": unit.item_id,
        "sysSkuId": unit.sku_id,
        "itemOuterId": unit.item_code,
        "outerId": unit.code,
        "propertiesName": unit.properties,
    }


def _receipts_lived(world: World, n: int, at: int) -> Lived:
    plan = plan_of(world, n)
    records: list[Record] = []
    edges = []
    for part, arrival in enumerate(plan.arrivals):
        steps = [arrival - 20 * MINUTE, arrival, arrival + 2 * HOUR]
        since, until = span(steps, at)
        edges.append((since, until))
        if since >= 0:
            records.append(_receipt(world, plan, part, since))
    if not edges:
        return [], *span([], at)
    return records, max(since for since, _ in edges), min(until for _, until in edges)


def _receipt(world: World, plan: Plan, part: int, since: int) -> Record:
    arrival = plan.arrivals[part]
    parts = [(line, part_of(plan, line.pieces, part)) for line in lines_of(world, plan)]
    pieces = sum(count for _, count in parts)
    bad = plan.draws[19 + part] % 3 if since >= arrival else 0
    seller = supplier(world, plan.draws[0] % world.suppliers)
    shelved = since >= arrival + 2 * HOUR
    receipt_id = _FIRST_RECEIPT + plan.n * PARTS + part
    return {
        "id": receipt_id,
        "code": f"SH{receipt_id}",
        "purchaseOrderId": _FIRST_ORDER + plan.n,
        "purchaseOrderCode": f"CG{_FIRST_ORDER + plan.n}",
        "busyType": "PURCHASE",
        "busyTypeDesc": "采购收货",
        "status": "SHELVED" if shelved else "FINISHED" if since >= arrival else "NOT_FINISH",
        "supplierId": seller["id"],
        "supplierCode": seller["code"],
        "supplierName": seller["name"],
        "warehouseId": plan.warehouse["id"],
        "warehouseName": plan.warehouse["name"],
        "quantity": pieces,
        "getGoodNum": pieces - bad if since >= arrival else 0,
        "getBadNum": bad,
        "shelvedQuantity": pieces - bad if shelved else 0,
        "totalDetailFee": sum(line.price * count for line, count in parts),
        "financeStatus": "WAIT_FINANCE",
        "createrName": "示例仓管员",
        "flag": -1,
        "remark": "",
        "created": (arrival - 20 * MINUTE) * 1000,
        "modified": since * 1000,
        "finished": milliseconds(arrival if since >= arrival else 0),
    }


def _receipt_lines(desk: Desk, record: Record) -> list[Record]:
    n, part = divmod(_number(record, _FIRST_RECEIPT), PARTS)
    plan = plan_of(desk.world, n)
    done = record["status"] != "NOT_FINISH"
    bad = record["getBadNum"]
    lines = []
    for at, line in enumerate(lines_of(desk.world, plan)):
        count = part_of(plan, line.pieces, part)
        mine = bad if at == 0 else 0
        lines.append(
            {
                "code": record["code"],
                **_goods(line.unit),
                "supplierCode": record["supplierCode"],
                "supplierName": record["supplierName"],
                "count": count,
                "quantity": count,
                "goodNum": count - mine if done else 0,
                "badNum": mine,
                "price": line.price,
                "amount": line.price * count,
                "remark": "",
            }
        )
    return lines


def _returns_lived(world: World, n: int, at: int) -> Lived:
    plan = plan_of(world, n)
    if not plan.arrivals or plan.draws[21] % 5:
        return [], *span([], at)
    written = plan.arrivals[-1] + HOUR + plan.draws[22] % (5 * HOUR)
    since, until = span([written, written + 2 * HOUR], at)
    if since < 0:
        return [], since, until
    seller = supplier(world, plan.draws[0] % world.suppliers)
    over = 0 if plan.draws[23] % 6 == 0 else 3  # some are given up, the others leave the house
    status = over if since > written else 1
    line = lines_of(world, plan)[0]
    pieces = _returned(plan, line)
    record: Record = {
        "id": _FIRST_RETURN + n,
        "code": f"CT{_FIRST_RETURN + n}",
        "shortId": 3000 + n,
        "status": status,
        "statusName": _RETURN_STATUSES[status],
        "purchaseOrderId": _FIRST_ORDER + n,
        "supplierId": seller["id"],
        "supplierCode": seller["code"],
        "supplierName": seller["name"],
        "warehouseId": plan.warehouse["id"],
        "warehouseName": plan.warehouse["name"],
        "returnNum": pieces,
        "actualReturnNum": pieces if status == 3 else 0,  # noqa: PLR2004 - 3 is "left the house"
        "totalAmount": pieces * line.price,
        "financeStatus": "WAIT_FINANCE",
        "tagName": "",
        "createrName": "示例采购员",
        "remark": "",
        "gmCreate": written * 1000,
        "gmModified": since * 1000,
    }
    return [record], since, until


def _returned(plan: Plan, line: Line) -> int:
    return 1 + plan.draws[24] % (line.pieces // 2)


def _return_lines(desk: Desk, record: Record) -> list[Record]:
    plan = plan_of(desk.world, _number(record, _FIRST_RETURN))
    line = lines_of(desk.world, plan)[0]
    return [
        {
            "code": record["code"],
            **_goods(line.unit),
            "supplierCode": record["supplierCode"],
            "supplierName": record["supplierName"],
            "returnNum": record["returnNum"],
            "actualReturnNum": record["actualReturnNum"],
            "price": line.price,
            "amount": record["totalAmount"],
            "remark": "",
        }
    ]


def aged(created: str, *, archived: bool) -> Refine:
    """Only what was created within the last 90 days, or only what is older; by creation is our guess."""

    def refine(_desk: Desk, call: Call, found: list[Record]) -> list[Record]:
        border = call.now - _HISTORY_DAYS * DAY
        return [record for record in found if (as_second(record[created]) < border) is archived]

    return refine


def _listing(
    source: Source,
    marks: Marks,
    *,
    created: str,
    statuses: frozenset[str],
    archived: bool,
    like_order: bool = False,
) -> Listing:
    return Listing(
        source,
        marks,
        paging=Paging(),
        windows=(Window("startModified", "endModified", marks.version),),
        time_type=TimeType("timeType", {"1": marks.version, "2": created}, default="1"),
        dates="both" if archived else "none",
        max_days=_HISTORY_DAYS if archived else None,
        filters={"id": "id", "code": "code", "status": "status"},
        allowed={"status": statuses},
        refine=aged(created, archived=archived),
        text_total=like_order and not archived,
        omits_empty=like_order,
    )


_ORDERS = (
    Source("purchase", planned, _order_lived),
    Marks(
        "purchase",
        key=("id",),
        version="modified",
        stamps=frozenset({"created"}),
        time="created",
        amount="totalAmount",
        retyped="quantity",
        dropped="financeStatus",
    ),
)
_RECEIPTS = (
    Source("receipt", planned, _receipts_lived),
    Marks(
        "receipt",
        key=("id",),
        version="modified",
        stamps=frozenset({"created"}),
        time="created",
        amount="totalDetailFee",
        retyped="quantity",
        dropped="busyTypeDesc",
    ),
)
_RETURNS = (
    Source("purchase_return", planned, _returns_lived),
    Marks(
        "purchase_return",
        key=("id",),
        version="gmModified",
        stamps=frozenset({"gmCreate"}),
        time="gmCreate",
        amount="totalAmount",
        retyped="returnNum",
        dropped="tagName",
    ),
)
_RETURN_CODES = frozenset(str(code) for code in _RETURN_STATUSES)

ORDERS, OLD_ORDERS = (
    _listing(
        *_ORDERS,
        created="created",
        statuses=_ORDER_STATUSES,
        archived=archived,
        like_order=True,
    )
    for archived in (False, True)
)
RECEIPTS, OLD_RECEIPTS = (
    _listing(*_RECEIPTS, created="created", statuses=_RECEIPT_STATUSES, archived=archived)
    for archived in (False, True)
)
RETURNS, OLD_RETURNS = (
    _listing(*_RETURNS, created="gmCreate", statuses=_RETURN_CODES, archived=archived)
    for archived in (False, True)
)

METHODS: dict[str, Listing | Detail] = {
    "purchase.order.query": ORDERS,
    "purchase.order.get": Detail(ORDERS, _order_lines),
    "purchase.order.history.query": OLD_ORDERS,
    "purchase.order.history.get": Detail(OLD_ORDERS, _order_lines),
    "warehouse.entry.list.query": RECEIPTS,
    "warehouse.entry.list.get": Detail(RECEIPTS, _receipt_lines),
    "warehouse.entry.history.list.query": OLD_RECEIPTS,
    "warehouse.entry.history.list.get": Detail(OLD_RECEIPTS, _receipt_lines),
    "purchase.return.list.query": RETURNS,
    "purchase.return.list.get": Detail(RETURNS, _return_lines),
    "purchase.return.history.list.query": OLD_RETURNS,
    "purchase.return.history.list.get": Detail(OLD_RETURNS, _return_lines),
}
