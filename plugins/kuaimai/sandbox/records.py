"""Trade records in the documented shape, rendered from snapshots.

Amounts of a trade are text in yuan, times are epoch milliseconds, a time that has not come is the sentinel
2000-01-01 00:00:00 GMT+8, and ids are JSON integers of which `oid` is above 2**53.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import shake_128
from typing import Any

from kuaimai.sandbox.merchant import GOODS, WAREHOUSES
from kuaimai.sandbox.world import INSERTED_FROM, Draw, Snapshot, Step, World

Record = dict[str, Any]

NO_TIME = 946_656_000_000
FIRST_SID = 5_970_000_000_000_000
_FIRST_LINE = 5_980_000_000_000_000
_FIRST_OID = 6_900_000_000_000_000_001
_CHILD_LINE = 8

_CIPHER_SOURCES = {"fxg": "##", "kuaishou": "$$"}
_MERGED_TYPE, _SPLIT_TYPE = "7", "8"
_SUIT_SHARE = 4_000

# Documented: Taobao and Tmall rows come without receiver, buyer, platform payment and invoice fields.
_TAOBAO_HIDDEN = (
    "receiverName", "receiverMobile", "receiverPhone", "receiverState", "receiverCity", "receiverDistrict",
    "receiverAddress", "mobileTail", "buyerNick", "buyerMessage", "openUid", "platformPaymentAmount",
    "invoiceName", "invoiceType", "tradeInvoice",
)  # fmt: skip
# Documented for PDD by an official notice; measured by others: tid, payment, payAmount and oid missing too.
_PDD_HIDDEN = (
    *_TAOBAO_HIDDEN,
    "tid",
    "payment",
    "payAmount",
    "status",
    "postFee",
    "buyerTaxNo",
    "paymentDiff",
)
_PDD_LINE_HIDDEN = ("tid", "oid", "payment", "payAmount", "divideOrderFee", "status")
# Our guess at "reduced private fields" for every other platform.
_OUTSTOCK_HIDDEN = ("receiverPhone", "receiverAddress", "buyerMessage", "openUid", "tradeInvoice")
_TAOBAO_FAMILY = frozenset({"tb", "tm", "tmcs"})
_PDD_FAMILY = frozenset({"pdd", "pdd_wd"})

_REMARKS = (
    "尽快发货😊",
    "缺货请电话联系\n谢谢",
    "包装加固📦\r\n不要放小票",
    "老客户,送赠品",
    '备注含"引号"和\t制表符',
)


def sid_of(row: int) -> int:
    """The `sid` of a sandbox row number."""
    return FIRST_SID + row


def yuan(fen: int) -> str:
    """Text in yuan with two decimals."""
    return f"{fen // 100}.{fen % 100:02d}"


def tid_of(world: World, n: int, shop_index: int | None = None) -> str:
    """The platform's order number, in a form typical for the platform."""
    source = world.shops[world.shop_index(n) if shop_index is None else shop_index].source
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
        if rest.isdecimal() and int(rest) < 2 * INSERTED_FROM and tid_of(world, int(rest)) == tid:
            return int(rest)
    return None


def outstock_hidden(source: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Header and line fields that `erp.trade.outstock.simple.query` leaves out for a platform."""
    if source in _TAOBAO_FAMILY:
        return _TAOBAO_HIDDEN, ()
    if source in _PDD_FAMILY:
        return _PDD_HIDDEN, _PDD_LINE_HIDDEN
    return _OUTSTOCK_HIDDEN, ()


def _milliseconds(second: int) -> int:
    return second * 1000 if second else NO_TIME


def _status(seen: int) -> tuple[str, str, str]:
    """`sysStatus`, `unifiedStatus`, `chSysStatus` after the steps in `seen`."""
    for step, answer in (
        (Step.MERGED_AWAY, ("CANCEL", "CLOSED", "作废")),
        (Step.REFUND_CLOSE, ("CLOSED", "CLOSED", "交易关闭")),
        (Step.CLOSE_UNPAID, ("CLOSED", "CLOSED", "交易关闭")),
        (Step.FINISH, ("FINISHED", "FINISHED", "交易完成")),
        (Step.SHIP, ("SELLER_SEND_GOODS", "SELLER_SEND_GOODS", "已发货")),
        (Step.AUDIT, ("FINISHED_AUDIT", "WAIT_SEND_GOODS", "已审核")),
        (Step.PAY, ("WAIT_AUDIT", "WAIT_SEND_GOODS", "待审核")),
    ):
        if seen & step:
            return answer
    return "WAIT_BUYER_PAY", "WAIT_BUYER_PAY", "待付款"


class Recorder:
    """Renders the records of one world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def status(self, snap: Snapshot) -> str:
        """The `sysStatus` of a trade."""
        return _status(snap.seen)[0]

    def trade(self, snap: Snapshot, *, null_modified: bool = False) -> Record:
        """The full record of `erp.trade.list.query`; the lines are in `orders`."""
        world = self._world
        draws = world.draws(snap.n)
        shop_index = world.shop_index(snap.n, draws)
        shop = world.shops[shop_index]
        sys_status, unified, label = _status(snap.seen)
        lines = self._lines(snap, draws, shop_index, sys_status)
        own = [line for line in lines if line.pop("_own")]
        total = sum(line.pop("_total") for line in own)
        cost = sum(line.pop("_cost") for line in own)
        for line in lines:
            line.pop("_total", None)
            line.pop("_cost", None)
        discount = min(total, draws[Draw.DISCOUNT] % 900)
        postage = 800 if draws[Draw.DISCOUNT] % 7 == 0 else 0
        payable = total - discount + postage
        child = snap.sub == 1
        merged = bool(snap.seen & Step.MERGE)
        warehouse = WAREHOUSES[draws[Draw.WAREHOUSE] % len(WAREHOUSES)]
        sid = sid_of(snap.row)
        shipped = bool(snap.ship)
        record: Record = {
            "sid": sid,
            "shortId": 1000 + snap.row,
            "tid": tid_of(world, snap.n, shop_index),
            "userId": shop.user_id,
            # Manual splits are documented to carry the source of the ERP itself.
            "source": "sys" if child else shop.source,
            "subSource": "",
            "shopName": shop.title,
            "taobaoId": 0,
            "companyId": 100001,
            "type": _MERGED_TYPE + ",0" if merged else f"{_SPLIT_TYPE},0" if child else "3,0",
            "status": f"{shop.source}_{snap.seen.bit_length()}",
            "sysStatus": sys_status,
            "unifiedStatus": unified,
            "chSysStatus": label,
            "created": snap.created * 1000,
            "payTime": _milliseconds(snap.pay),
            "auditTime": _milliseconds(snap.audit),
            "consignTime": _milliseconds(snap.ship),
            "ptConsignTime": _milliseconds(snap.ship),
            "endTime": _milliseconds(snap.end),
            "timeoutActionTime": _milliseconds(snap.pay + 172_800 if snap.pay else 0),
            "modified": None if null_modified else snap.modified * 1000,
            "updTime": snap.upd * 1000,
            "payment": yuan(payable),
            "payAmount": yuan(payable) if snap.seen & Step.PAY else "0.0",
            "totalFee": yuan(total),
            "discountFee": yuan(discount),
            "adjustFee": "0.00",
            "postFee": yuan(postage) if postage else "0",
            "taxFee": "0.00",
            "saleFee": "0.00",
            "acPayment": yuan(payable),
            "platformPaymentAmount": payable / 100,
            "manualPaymentAmount": 0,
            "paymentDiff": 0,
            "cost": cost / 100,
            "grossProfit": (payable - cost) / 100,
            "theoryPostFee": 3.5,
            "actualPostFee": "3.50" if shipped else "0.0",
            "packmaCost": 0.3,
            "tradeTags": _tags(draws),
            "exceptions": [],
            "exceptIds": "",
            "exceptNames": [],
            "isExcep": 0,
            "isHalt": 0,
            "isCancel": int(sys_status in {"CLOSED", "CANCEL"}),
            "isPresell": 0,
            "isUrgent": int(draws[Draw.BUYER] % 50 == 0),
            "scalping": 0,
            "splitType": 1 if child else -1,
            "splitSid": sid - 1 if child else -1,
            "warehouseId": warehouse["id"],
            "warehouseName": warehouse["name"],
            "expressCode": "YUNDA" if shipped else "",
            "expressCompanyName": "示例快递" if shipped else "",
            "outSid": f"DEMO{snap.row:013d}" if shipped else "",
            "templateId": 31,
            "logisticsCompanyId": 7,
            "weight": 0.35 * len(lines),
            "netWeight": 0.0,
            "volume": 0.0,
            "sellerMemo": _REMARKS[draws[Draw.REMARK] % len(_REMARKS)] if snap.seen & Step.REMARK else "",
            "sysMemo": f"改动{snap.touches}次" if snap.touches else "",
            "sellerFlag": draws[Draw.REMARK] % 6,
            "tradeFrom": "API",
            "salesmanId": -1,
            "sourceName": shop.title,
            "destName": "",
            "invoiceName": "",
            "invoiceType": 0,
            "buyerTaxNo": "",
            "tradeInvoice": {},
            **_buyer(shop.source, snap.n, draws),
            "orders": lines,
        }
        if snap.seen & Step.REFUND_ASK and not snap.seen & (Step.REFUND_DONE | Step.REFUND_CLOSE):
            record["isRefund"] = 1  # documented to disappear when the refund is closed or done
        return record

    def outstock(self, snap: Snapshot, *, null_modified: bool = False) -> Record:
        """The record of `erp.trade.outstock.simple.query`: the same trade with fields left out by platform."""
        record = self.trade(snap, null_modified=null_modified)
        source = self._world.shops[self._world.shop_index(snap.n)].source
        header, line_fields = outstock_hidden(source)
        for name in header:
            record.pop(name, None)
        for line in record["orders"]:
            for name in line_fields:
                line.pop(name, None)
        return record

    def _lines(self, snap: Snapshot, draws: tuple[int, ...], shop_index: int, status: str) -> list[Record]:
        """The lines that belong to a sid now.

        After a merge the survivor also holds the partner's lines, with their old `id`, `oid` and `tid`, and
        the partner holds none. A split-off line gets a new `id` and keeps its `oid`.
        """
        if snap.seen & Step.MERGED_AWAY:
            return []
        shares = _base_lines(self._world.has_gift(draws), draws)
        if snap.seen & Step.GIFT_REMOVED:
            shares = [share for share in shares if not share[3]]
        if snap.seen & Step.SPLIT:
            shares = _split(shares)[snap.sub]
        lines = [self._line(snap, snap.n, share, draws, shop_index, status) for share in shares]
        if snap.seen & Step.MERGE:
            theirs = self._world.draws(snap.n + 1)
            lines += [
                self._line(snap, snap.n + 1, share, theirs, shop_index, status)
                for share in _base_lines(self._world.has_gift(theirs), theirs)
            ]
        return lines

    def _line(
        self,
        snap: Snapshot,
        n: int,
        share: tuple[int, int, int, bool],
        draws: tuple[int, ...],
        shop_index: int,
        status: str,
    ) -> Record:
        position, identity, num, gift = share
        sku = GOODS[draws[Draw.ITEM + position % 4] % len(GOODS)]
        price = 0 if gift else sku.price
        total = price * num
        suit = position == 0 and draws[Draw.SUIT] < _SUIT_SHARE
        refund = "NO_REFUND"
        if position == 0 and snap.sub == 0 and snap.seen & Step.REFUND_ASK:
            refund = "SUCCESS" if snap.seen & (Step.REFUND_DONE | Step.REFUND_CLOSE) else "WAIT_SELLER_AGREE"
        oid = _FIRST_OID + n * 16 + position
        line: Record = {
            "id": _FIRST_LINE + n * 16 + identity,
            "sid": sid_of(snap.row),
            "tid": tid_of(self._world, n, shop_index),
            "oid": oid,
            "soid": str(oid),
            "num": num,
            "price": yuan(price),
            "totalFee": yuan(total),
            "discountFee": "0.00",
            "payment": yuan(total),
            "payAmount": yuan(total),
            "divideOrderFee": yuan(total),
            "acPayment": yuan(total),
            "adjustFee": "0.00",
            "cost": sku.cost / 100,
            "giftNum": num if gift else 0,
            "type": 1 if gift else 2 if suit else 0,
            "combineId": 0,
            "itemSysId": sku.item_id,
            "skuSysId": sku.sku_id,
            "sysItemOuterId": sku.item_code,
            "sysOuterId": sku.sku_code,
            "outerSkuId": sku.sku_code,
            "numIid": f"37{sku.item_id % 10**12:017d}",
            "skuId": f"17{sku.sku_id % 10**12:014d}",
            "title": sku.title,
            "sysTitle": sku.title,
            "sysSkuPropertiesName": sku.properties,
            "refundStatus": refund,
            "stockStatus": "NORMAL",
            "sysStatus": status,
            "status": status,
            "created": snap.created * 1000,
            "payTime": _milliseconds(snap.pay),
            "consignTime": _milliseconds(snap.ship),
            "ptConsignTime": _milliseconds(snap.ship),
            "endTime": _milliseconds(snap.end),
            "modified": snap.modified * 1000,
            "updTime": snap.upd * 1000,
            "orderExt": {"orderRemark": ""},
            "_own": n == snap.n,
            "_total": total,
            "_cost": sku.cost * num,
        }
        if refund != "NO_REFUND":
            line["refundId"] = f"145{n:016d}"
        if suit:
            line["suits"] = _suit(line["id"], sku.sku_id, num)
        return line


def _base_lines(gift: bool, draws: tuple[int, ...]) -> list[tuple[int, int, int, bool]]:  # noqa: FBT001
    """An order's lines as (position, identity inside the order, number of pieces, is a gift)."""
    count = 1 + (draws[Draw.LINES] % 10 > 5) + (draws[Draw.LINES] % 10 > 8)  # noqa: PLR2004 - 60, 30, 10 %
    lines = [(at, at, 1 + (draws[Draw.NUM + at] % 8 == 0) * 2, False) for at in range(count)]
    if gift:
        lines.append((count, count, 1, True))
    return lines


def _split(
    lines: list[tuple[int, int, int, bool]],
) -> tuple[list[tuple[int, int, int, bool]], list[tuple[int, int, int, bool]]]:
    """What the parent keeps and what the child gets: the last line, or part of the only line's pieces."""
    *kept, (position, identity, num, gift) = lines
    if kept:
        return kept, [(position, _CHILD_LINE + identity, num, gift)]
    moved = max(1, num // 2)
    return [(position, identity, max(1, num - moved), gift)], [
        (position, _CHILD_LINE + identity, moved, gift)
    ]


def _suit(line_id: int, sku_id: int, num: int) -> list[Record]:
    """The parts of a suit, with the misspelt names that the outstock page documents."""
    part = GOODS[(sku_id + 7) % len(GOODS)]
    return [
        {
            "id": line_id * 10 + 1,
            "num": num * 2,
            "itemSysid": part.item_id,
            "skuSysId": part.sku_id,
            "sysOuterId": part.sku_code,
            "totalFree": "0.00",
            "saleFree": "0.00",
            "cost": part.cost * num * 2 / 100,
        }
    ]


def _tags(draws: tuple[int, ...]) -> list[Record]:
    if draws[Draw.BUYER] % 9:
        return []
    return [{"id": 77, "tagName": "加急示例", "remark": "", "bgColor": "#fff", "fontColor": "#000"}]


def _buyer(source: str, n: int, draws: tuple[int, ...]) -> Record:
    """Personal fields: cipher texts of 200 to 450 characters where the platform encrypts, else masked."""
    mark = _CIPHER_SOURCES.get(source)
    if mark is None:
        name, mobile, address = "示**", "138****0000", "示例路**号"
        nick = "d***o"
    else:
        noise = b64encode(shake_128(b"%d" % n).digest(960)).decode()
        size = 200 + draws[Draw.BUYER] % 240
        name, mobile = mark + noise[:size] + mark, mark + noise[300 : 300 + size] + mark
        address, nick = mark + noise[600 : 600 + size] + mark, mark + noise[840 : 840 + size] + mark
    return {
        "receiverName": name,
        "receiverMobile": mobile,
        "receiverPhone": "",
        "receiverState": "示例省",
        "receiverCity": "示例市",
        "receiverDistrict": "示例区",
        "receiverAddress": address,
        "mobileTail": "0000",
        "buyerNick": nick,
        "buyerMessage": "麻烦快一点🙏" if draws[Draw.BUYER] % 5 == 0 else "",
        "openUid": f"demo-open-uid-{n}",
    }
