"""The lines of a trade: what a sid holds now, after gifts were taken out, orders split and orders merged.

* A split moves the last line, or part of the only line's pieces, to the child: the child's line has a new
  `id` and the same `oid`; a line that moved whole is gone from the parent.
* A merge moves all lines of the partner to the survivor: they keep `id`, `oid` and `tid` and get the
  survivor's `sid`; the partner stays as a cancelled trade without lines.
* A removed gift line is gone from `orders[]` without a trace.

That lines behave like this is our guess; documented is only that `oid` repeats after a split and that a
merged trade holds lines of several `tid`s.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any, NamedTuple

from kuaimai.sandbox.merchant import GOODS, Sku
from kuaimai.sandbox.steps import Draw, Snapshot, Step
from kuaimai.sandbox.world import World

Record = dict[str, Any]

NO_TIME = 946_656_000_000
FIRST_SID = 5_970_000_000_000_000
_FIRST_LINE = 5_980_000_000_000_000
_FIRST_OID = 6_900_000_000_000_000_001
_CHILD_LINE = 8
_SUIT_SHARE = 4_000
_LINES_PER_ORDER = 16

_ZERO = {"discountFee": "0.00", "adjustFee": "0.00"}


class Share(NamedTuple):
    """One line of an order: its place in the order, its identity, its pieces."""

    position: int
    identity: int
    num: int
    gift: bool


@lru_cache(maxsize=65_536)
def yuan(fen: int) -> str:
    """Text in yuan with two decimals."""
    return f"{fen // 100}.{fen % 100:02d}"


def milliseconds(second: int) -> int:
    """Epoch milliseconds, or the sentinel for a time that has not come."""
    return second * 1000 if second else NO_TIME


def lines_of(
    world: World, snap: Snapshot, draws: tuple[int, ...], tids: tuple[str, str], status: str
) -> list[Record]:
    """The lines that a sid holds now; `tids` are the platform numbers of the order and of its partner."""
    if snap.seen & Step.MERGED_AWAY:
        return []
    shared = _shared(snap, status)
    lines = [
        _line(snap, snap.n, share, draws, tid=tids[0], shared=shared)
        for share in shares_of(world, snap, draws)
    ]
    if snap.seen & Step.MERGE:
        theirs = world.draws(snap.n + 1)
        lines += [
            _line(snap, snap.n + 1, share, theirs, tid=tids[1], shared=shared)
            for share in _base_shares(world, theirs)
        ]
    return lines


def shares_of(world: World, snap: Snapshot, draws: tuple[int, ...]) -> list[Share]:
    """The order's own lines that a sid holds now, without those of a merged partner."""
    shares = _base_shares(world, draws)
    if snap.seen & Step.GIFT_REMOVED:
        shares = [share for share in shares if not share.gift]
    if snap.seen & Step.SPLIT:
        return _split(shares)[snap.sub]
    return shares


def sku_of(share: Share, draws: tuple[int, ...]) -> Sku:
    """What a line sells."""
    return GOODS[draws[Draw.ITEM + share.position % 4] % len(GOODS)]


def _base_shares(world: World, draws: tuple[int, ...]) -> list[Share]:
    drawn = draws[Draw.LINES] % 10
    count = 1 + (drawn > 5) + (drawn > 8)  # noqa: PLR2004 - one line 60 %, two 30 %, three 10 %
    shares = [Share(at, at, 1 + (draws[Draw.NUM + at] % 8 == 0) * 2, gift=False) for at in range(count)]
    if world.has_gift(draws):
        shares.append(Share(count, count, 1, gift=True))
    return shares


def _split(shares: list[Share]) -> tuple[list[Share], list[Share]]:
    """What the parent keeps and what the child gets."""
    *kept, last = shares
    if kept:
        return kept, [last._replace(identity=_CHILD_LINE + last.identity)]
    moved = max(1, last.num // 2)
    return [last._replace(num=max(1, last.num - moved))], [
        last._replace(identity=_CHILD_LINE + last.identity, num=moved)
    ]


def _shared(snap: Snapshot, status: str) -> Record:
    """What all lines of a sid have in common."""
    shipped = milliseconds(snap.ship)
    return {
        "sid": FIRST_SID + snap.row,
        "combineId": 0,
        "stockStatus": "NORMAL",
        "sysStatus": status,
        "status": status,
        "created": snap.created * 1000,
        "payTime": milliseconds(snap.pay),
        "consignTime": shipped,
        "ptConsignTime": shipped,
        "endTime": milliseconds(snap.end),
        "modified": snap.modified * 1000,
        "updTime": snap.upd * 1000,
    }


def _line(
    snap: Snapshot, n: int, share: Share, draws: tuple[int, ...], *, tid: str, shared: Record
) -> Record:
    sku = sku_of(share, draws)
    total = yuan(0 if share.gift else sku.price * share.num)
    suit = share.position == 0 and draws[Draw.SUIT] < _SUIT_SHARE
    oid = _FIRST_OID + n * _LINES_PER_ORDER + share.position
    identity = _FIRST_LINE + n * _LINES_PER_ORDER + share.identity
    line: Record = {
        "id": identity,
        "tid": tid,
        "oid": oid,
        "soid": str(oid),
        "num": share.num,
        "price": yuan(0 if share.gift else sku.price),
        "totalFee": total,
        "payment": total,
        "payAmount": total,
        "divideOrderFee": total,
        "acPayment": total,
        "giftNum": share.num if share.gift else 0,
        "type": 1 if share.gift else 2 if suit else 0,
        "refundStatus": "NO_REFUND",
        **_ZERO,
        **shared,
        **_goods_fields(sku),
        "orderExt": {"orderRemark": ""},
    }
    if n == snap.n and share.position == 0 and snap.sub == 0 and snap.seen & Step.REFUND_ASK:
        over = snap.seen & (Step.REFUND_DONE | Step.REFUND_CLOSE)
        line["refundStatus"] = "SUCCESS" if over else "WAIT_SELLER_AGREE"
        line["refundId"] = f"145{n:016d}"
    if suit:
        line["suits"] = _suit(identity, sku.sku_id, share.num)
    return line


@cache
def _goods_fields(sku: Sku) -> Record:
    return {
        "cost": sku.cost / 100,
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
    }


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
