"""Trade records in the documented shape, rendered from snapshots.

Amounts of a trade are text in yuan, times are epoch milliseconds, a time that has not come is the sentinel
2000-01-01 00:00:00 GMT+8, and ids are JSON integers of which `oid` is above 2**53.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import shake_128
from typing import TYPE_CHECKING

from kuaimai.sandbox.lines import FIRST_SID, Record, lines_of, milliseconds, shares_of, sku_of, yuan
from kuaimai.sandbox.merchant import WAREHOUSES, Shop
from kuaimai.sandbox.steps import Draw, Snapshot, Step
from kuaimai.sandbox.world import INSERTED_FROM, World

if TYPE_CHECKING:
    from collections.abc import Iterable

_CIPHER_SOURCES = {"fxg": "##", "kuaishou": "$$"}
_TAOBAO_FAMILY = frozenset({"tb", "tm", "tmcs"})
_PDD_FAMILY = frozenset({"pdd", "pdd_wd"})

# Documented: Taobao and Tmall rows come without receiver, buyer, platform payment and invoice fields.
_TAOBAO_HIDDEN = (
    "receiverName", "receiverMobile", "receiverPhone", "receiverState", "receiverCity", "receiverDistrict",
    "receiverAddress", "mobileTail", "buyerNick", "buyerMessage", "openUid", "platformPaymentAmount",
    "invoiceName", "invoiceType", "tradeInvoice",
)  # fmt: skip
# Documented for PDD by an official notice; measured by others: tid, payment, payAmount, oid missing too.
_PDD_HIDDEN = (
    *_TAOBAO_HIDDEN, "tid", "payment", "payAmount", "status", "postFee", "buyerTaxNo", "paymentDiff",
)  # fmt: skip
_PDD_LINE_HIDDEN = ("tid", "oid", "payment", "payAmount", "divideOrderFee", "status")
# Our guess at "reduced private fields" for every other platform.
_OUTSTOCK_HIDDEN = ("receiverPhone", "receiverAddress", "buyerMessage", "openUid", "tradeInvoice")

_REMARKS = (
    "尽快发货😊",
    "缺货请电话联系\n谢谢",
    "包装加固📦\r\n不要放小票",
    "老客户,送赠品",
    '备注含"引号"和\t制表符',
)
_STATUSES = (
    (Step.MERGED_AWAY, ("CANCEL", "CLOSED", "作废")),
    (Step.REFUND_CLOSE, ("CLOSED", "CLOSED", "交易关闭")),
    (Step.CLOSE_UNPAID, ("CLOSED", "CLOSED", "交易关闭")),
    (Step.FINISH, ("FINISHED", "FINISHED", "交易完成")),
    (Step.SHIP, ("SELLER_SEND_GOODS", "SELLER_SEND_GOODS", "已发货")),
    (Step.AUDIT, ("FINISHED_AUDIT", "WAIT_SEND_GOODS", "已审核")),
    (Step.PAY, ("WAIT_AUDIT", "WAIT_SEND_GOODS", "待审核")),
)
_CONSTANT: Record = {
    "subSource": "",
    "taobaoId": 0,
    "companyId": 100001,
    "adjustFee": "0.00",
    "taxFee": "0.00",
    "saleFee": "0.00",
    "manualPaymentAmount": 0,
    "paymentDiff": 0,
    "theoryPostFee": 3.5,
    "packmaCost": 0.3,
    "exceptIds": "",
    "isExcep": 0,
    "isHalt": 0,
    "isPresell": 0,
    "scalping": 0,
    "splitType": -1,
    "splitSid": -1,
    "templateId": 31,
    "logisticsCompanyId": 7,
    "netWeight": 0.0,
    "volume": 0.0,
    "tradeFrom": "API",
    "salesmanId": -1,
    "destName": "",
    "invoiceName": "",
    "invoiceType": 0,
    "buyerTaxNo": "",
}
_MASKED: Record = {
    "receiverName": "示**",
    "receiverMobile": "138****0000",
    "receiverAddress": "示例路**号",
    "buyerNick": "d***o",
}
_PLACE: Record = {
    "receiverPhone": "",
    "receiverState": "示例省",
    "receiverCity": "示例市",
    "receiverDistrict": "示例区",
    "mobileTail": "0000",
}
_SHIPPED: Record = {"expressCode": "YUNDA", "expressCompanyName": "示例快递", "actualPostFee": "3.50"}
_UNSHIPPED: Record = {"expressCode": "", "expressCompanyName": "", "actualPostFee": "0.0", "outSid": ""}


def sid_of(row: int) -> int:
    """The `sid` of a sandbox row number."""
    return FIRST_SID + row


def row_of_sid(sid: int) -> int:
    """The sandbox row number of a `sid`; negative for one that was never given."""
    return sid - FIRST_SID


def tid_of(source: str, n: int) -> str:
    """The platform's number of order `n`, in a form typical for the platform."""
    if source in {"fxg", "kuaishou"}:
        return f"69{n:017d}"
    if source == "jd":
        return f"3{n:011d}"
    if source in _PDD_FAMILY:
        return f"260301-{n:015d}"
    if source == "sys":
        return f"SYS{n:012d}"
    return f"P{n:017d}"


def order_of_tid(world: World, tid: str) -> int | None:
    """The order number behind a platform order number, or None if no order has it."""
    digits = tid.rpartition("-")[2].removeprefix("SYS").removeprefix("P")
    for prefix in ("", "69", "3"):
        rest = digits.removeprefix(prefix)
        if rest.isdecimal() and int(rest) < 2 * INSERTED_FROM and world_tid(world, int(rest)) == tid:
            return int(rest)
    return None


def world_tid(world: World, n: int) -> str:
    """The platform's number of order `n` of a world."""
    return tid_of(world.shops[world.shop_index(n)].source, n)


def outstock_hidden(source: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Header and line fields that `erp.trade.outstock.simple.query` leaves out for a platform."""
    if source in _TAOBAO_FAMILY:
        return _TAOBAO_HIDDEN, ()
    if source in _PDD_FAMILY:
        return _PDD_HIDDEN, _PDD_LINE_HIDDEN
    return _OUTSTOCK_HIDDEN, ()


def status_of(snap: Snapshot) -> tuple[str, str, str]:
    """`sysStatus`, `unifiedStatus` and `chSysStatus` of a sid."""
    for step, answer in _STATUSES:
        if snap.seen & step:
            return answer
    return "WAIT_BUYER_PAY", "WAIT_BUYER_PAY", "待付款"


def full_trade(world: World, snap: Snapshot, *, null_modified: bool = False) -> Record:
    """The record of `erp.trade.list.query`; the lines are in `orders`."""
    draws = world.draws(snap.n)
    shop = world.shops[world.shop_index(snap.n, draws)]
    sys_status, unified, label = status_of(snap)
    tids = tid_of(shop.source, snap.n), tid_of(shop.source, snap.n + 1)
    lines = lines_of(world, snap, draws, tids, sys_status)
    warehouse = WAREHOUSES[draws[Draw.WAREHOUSE] % len(WAREHOUSES)]
    remarked = snap.seen & Step.REMARK
    shipped = milliseconds(snap.ship)
    record: Record = {
        "sid": FIRST_SID + snap.row,
        "shortId": 1000 + snap.row,
        "tid": tids[0],
        "userId": shop.user_id,
        "source": shop.source,
        "shopName": shop.title,
        "sourceName": shop.title,
        "type": "7,0" if snap.seen & Step.MERGE else "3,0",
        "status": f"{shop.source}_{snap.seen.bit_length()}",
        "sysStatus": sys_status,
        "unifiedStatus": unified,
        "chSysStatus": label,
        "created": snap.created * 1000,
        "payTime": milliseconds(snap.pay),
        "auditTime": milliseconds(snap.audit),
        "consignTime": shipped,
        "ptConsignTime": shipped,
        "endTime": milliseconds(snap.end),
        "timeoutActionTime": milliseconds(snap.pay + 172_800 if snap.pay else 0),
        "modified": None if null_modified else snap.modified * 1000,
        "updTime": snap.upd * 1000,
        **_CONSTANT,
        **_money(world, snap, draws),
        "tradeTags": _tags(draws),
        "exceptions": [],
        "exceptNames": [],
        "isCancel": int(sys_status in {"CLOSED", "CANCEL"}),
        "isUrgent": int(draws[Draw.BUYER] % 50 == 0),
        "warehouseId": warehouse["id"],
        "warehouseName": warehouse["name"],
        "weight": 0.35 * len(lines),
        "sellerMemo": _REMARKS[draws[Draw.REMARK] % len(_REMARKS)] if remarked else "",
        "sysMemo": f"改动{snap.touches}次" if snap.touches else "",
        "sellerFlag": draws[Draw.REMARK] % 6,
        "tradeInvoice": {},
        **_buyer(shop, snap.n, draws),
        **(_SHIPPED if snap.ship else _UNSHIPPED),
        "orders": lines,
    }
    if snap.ship:
        record["outSid"] = f"DEMO{snap.row:013d}"
    if snap.sub:
        # Manual splits are documented to carry the source of the ERP itself.
        record |= {"source": "sys", "type": "8,0", "splitType": 1, "splitSid": record["sid"] - snap.sub}
    if snap.seen & Step.REFUND_ASK and not snap.seen & (Step.REFUND_DONE | Step.REFUND_CLOSE):
        record["isRefund"] = 1  # documented to disappear when the refund is closed or done
    return record


def outstock_trade(world: World, snap: Snapshot, *, null_modified: bool = False) -> Record:
    """The record of `erp.trade.outstock.simple.query`: the same trade, fields left out by platform."""
    record = full_trade(world, snap, null_modified=null_modified)
    header, line_fields = outstock_hidden(world.shops[world.shop_index(snap.n)].source)
    _leave_out(record, header)
    for line in record["orders"] if line_fields else ():
        _leave_out(line, line_fields)
    return record


def _leave_out(record: Record, names: Iterable[str]) -> None:
    for name in names:
        record.pop(name, None)


def _money(world: World, snap: Snapshot, draws: tuple[int, ...]) -> Record:
    """Header amounts; those of a merged trade count the survivor's own lines only, as measured."""
    total = cost = 0
    for share in shares_of(world, snap, draws):
        sku = sku_of(share, draws)
        total += 0 if share.gift else sku.price * share.num
        cost += sku.cost * share.num
    discount = min(total, draws[Draw.DISCOUNT] % 900)
    postage = 800 if draws[Draw.DISCOUNT] % 7 == 0 else 0
    payable = total - discount + postage
    text = yuan(payable)
    return {
        "payment": text,
        "payAmount": text if snap.seen & Step.PAY else "0.0",
        "acPayment": text,
        "totalFee": yuan(total),
        "discountFee": yuan(discount),
        "postFee": yuan(postage) if postage else "0",
        "platformPaymentAmount": payable / 100,
        "cost": cost / 100,
        "grossProfit": (payable - cost) / 100,
    }


def _tags(draws: tuple[int, ...]) -> list[Record]:
    if draws[Draw.BUYER] % 9:
        return []
    return [{"id": 77, "tagName": "加急示例", "remark": "", "bgColor": "#fff", "fontColor": "#000"}]


def _buyer(shop: Shop, n: int, draws: tuple[int, ...]) -> Record:
    """Personal fields: cipher texts of 200 to 450 characters where the platform encrypts, else masked."""
    personal: Record = {
        **_PLACE,
        "buyerMessage": "麻烦快一点🙏" if draws[Draw.BUYER] % 5 == 0 else "",
        "openUid": f"demo-open-uid-{n}",
    }
    mark = _CIPHER_SOURCES.get(shop.source)
    if mark is None:
        return personal | _MASKED
    noise = b64encode(shake_128(b"%d" % n).digest(960)).decode()
    size = 200 + draws[Draw.BUYER] % 240
    for at, name in enumerate(_MASKED):
        personal[name] = mark + noise[at * 280 : at * 280 + size] + mark
    return personal
