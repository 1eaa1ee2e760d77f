"""The other papers of a warehouse: transfers, counts, miscellaneous in and out, and so on.

Their names, windows and units are documented; how their states follow one another is our guess. One entry of
the table at the end is one kind of paper.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from kuaimai.sandbox.desk import Call, Desk
from kuaimai.sandbox.items import Unit, units_of
from kuaimai.sandbox.listing import Detail, Listing, Paging, TimeType, Window, required
from kuaimai.sandbox.merchant import SOLD_ITEMS, WAREHOUSES
from kuaimai.sandbox.oddities import Marks
from kuaimai.sandbox.purchases import aged
from kuaimai.sandbox.series import Series, series, span
from kuaimai.sandbox.shelf import Lived, Record, Source
from kuaimai.sandbox.time_forms import time_text
from kuaimai.sandbox.world import HOUR, MINUTE, World

Answer = Callable[[Desk, Call], dict[str, Any]]
_ONE_PLACE = ("warehouseId", "warehouseName")
_TWO_PLACES = ("outWarehouseId", "outWarehouseName", "inWarehouseId", "inWarehouseName")
_MODIFIED = (Window("startModified", "endModified", "modified"),)


@dataclass(frozen=True)
class Paper:
    """One kind of paper.

    Attributes:
        name: of the kind.
        first_id: `id` of number 0; the others follow.
        prefix: what a `code` begins with.
        states: values of `status`, one after another.
        stamps: (field, how many steps of its life must be done before it is set); the first is the creation.
        places: fields of the warehouses.
        unit: `fen` or `yuan`, of the header's amount and of the lines' `price` and `amount`.
        amount: the header's field with the amount.
        pieces: the header's field with the number of pieces.
        creator: the field with who wrote it.
        text_times: times are `yyyy-MM-dd HH:mm:ss` instead of epoch milliseconds.
        more: further fields, from what is drawn for it.
    """

    name: str
    first_id: int
    prefix: str
    states: tuple[int | str, ...]
    stamps: tuple[tuple[str, int], ...] = (("created", 0),)
    places: tuple[str, ...] = _ONE_PLACE
    unit: str = "fen"
    amount: str = "totalAmount"
    pieces: str = "quantity"
    creator: str = "createrName"
    text_times: bool = False
    more: Callable[[int, tuple[int, ...]], Record] | None = None

    @property
    def source(self) -> Source:
        """Its records."""
        return Source(self.name, lambda world, at: self.numbers(world).planned(at), self._lived)

    @property
    def marks(self) -> Marks:
        """What the switches may touch."""
        return Marks(
            self.name,
            key=("id",),
            version="modified",
            stamps=frozenset(name for name, _ in self.stamps),
            time=self.stamps[0][0],
            amount=self.amount,
            retyped=self.pieces,
            dropped=self.creator,
        )

    def numbers(self, world: World) -> Series:
        """When each appears."""
        return series(world, self.name, world.documents_per_day, archived=world.archive_documents)

    def _lived(self, world: World, n: int, at: int) -> Lived:
        numbers = self.numbers(world)
        draws, written = numbers.draws(n), numbers.slot(n)
        pause = 10 * MINUTE + draws[0] % (5 * HOUR)
        steps = [written + pause * step for step in range(len(self.states))]
        since, until = span(steps, at)
        if since < 0:
            return [], since, until
        done = steps.index(since)
        record: Record = {
            "id": self.first_id + n,
            "code": f"{self.prefix}{self.first_id + n}",
            "shortId": 4_000 + n,
            "status": self.states[done],
            **self._where(draws),
            **self._sums(world, draws),
            self.creator: "示例仓管员",
            "remark": "易碎品⚠️\n轻放" if draws[1] % 9 == 0 else "",
            **(self.more(n, draws) if self.more is not None else {}),
        }
        for name, needed in self.stamps:
            record[name] = self._time(steps[needed] if done >= needed else 0)
        record["modified"] = self._time(since)
        return [record], since, until

    def _time(self, second: int) -> int | str:
        if self.text_times:
            return time_text(second) if second else "2000-01-01 00:00:00"
        return second * 1000 if second else 946_656_000_000

    def _where(self, draws: tuple[int, ...]) -> Record:
        first = draws[2] % len(WAREHOUSES)
        places = [WAREHOUSES[first], WAREHOUSES[1 - first]]
        return {name: places[at // 2]["id" if at % 2 == 0 else "name"] for at, name in enumerate(self.places)}

    def _sums(self, world: World, draws: tuple[int, ...]) -> Record:
        lines = _goods(world, draws)
        fen = sum(unit.cost * pieces for unit, pieces in lines)
        return {
            self.pieces: sum(pieces for _, pieces in lines),
            self.amount: fen if self.unit == "fen" else fen / 100,
        }

    def lines(self, desk: Desk, record: Record) -> list[Record]:
        """The lines of one paper."""
        draws = self.numbers(desk.world).draws(int(record["id"]) - self.first_id)
        scale = 1 if self.unit == "fen" else 100
        return [
            {
                "code": record["code"],
                "sysItemId": unit.item_id,
                "sysSkuId": unit.sku_id,
                "itemOuterId": unit.item_code,
                "outerId": unit.code,
                "propertiesName": unit.properties,
                "count": pieces,
                "quantity": pieces,
                "price": unit.cost / scale,
                "amount": unit.cost * pieces / scale,
                "remark": "",
            }
            for unit, pieces in _goods(desk.world, draws)
        ]


def _goods(world: World, draws: tuple[int, ...]) -> list[tuple[Unit, int]]:
    sold = [unit for item in range(SOLD_ITEMS) for unit in units_of(world, item)]
    return [(sold[draws[4 + at] % len(sold)], 1 + draws[8 + at] % 30) for at in range(1 + draws[3] % 3)]


def _after_sale(n: int, draws: tuple[int, ...]) -> Record:
    return {
        "workOrderId": 4_100_000_000_000_001 + draws[12] % 500,
        "sid": 5_970_000_000_000_000 + 4 * (draws[13] % 500),
        "tid": f"69{draws[13] % 500:017d}",
        "userId": 900_001 + draws[14] % 6,
        "expressCode": "YUNDA",
        "outSid": f"DEMOR{n:012d}",
    }


class _Single(Detail):
    """A method whose answer is one object `item`, header and lines together."""

    def __call__(self, desk: Desk, call: Call) -> dict[str, Any]:
        asked = required(call.params, self.param)
        for record in self.listing.records(desk, int(call.now)):
            if str(record[self.field]) == asked:
                whole = self.listing.served(desk, int(call.now), record)
                return {"item": whole | {"list": self.lines(desk, record)}}
        return {}


def _list(paper: Paper, *, windows: tuple[Window, ...] = _MODIFIED, **how: Any) -> Listing:
    listing = Listing(
        paper.source, paper.marks, windows=windows, filters={"code": "code", "status": "status"}
    )
    return replace(listing, **how)


OTHER_IN = Paper("other_in", 3_950_000_000_000_001, "QR", ("NOT_FINISH", "FINISHED"), amount="totalDetailFee")
OTHER_OUT = Paper("other_out", 3_951_000_000_000_001, "QC", (1, 4, 3), amount="totalDetailFee")
TRANSFER = Paper(
    "allocate_task",
    3_952_000_000_000_001,
    "DB",
    ("CREATED", "AUDITED", "ALLOCATE", "FINISHED"),
    places=_TWO_PLACES,
    unit="yuan",
    amount="outTotalAmount",
    pieces="outNum",
    creator="creatorName",
)
TRANSFER_OUT = Paper(
    "allocate_out",
    3_953_000_000_000_001,
    "DC",
    ("CREATED", "OUTING", "FINISHED"),
    stamps=(("created", 0), ("outTime", 2)),
    places=_TWO_PLACES,
)
TRANSFER_IN = Paper(
    "allocate_in", 3_954_000_000_000_001, "DR", ("CREATED", "ALLOCATE_OUT", "FINISHED"), places=_TWO_PLACES
)
COUNT = Paper("inventory_sheet", 3_955_000_000_000_001, "PD", (1, 2, 3))
PROCESSING = Paper(
    "product_order",
    3_956_000_000_000_001,
    "JG",
    ("WAIT_VERIFY", "WAIT_PRODUCT", "PRODUCING", "FINISHED"),
    stamps=(("created", 0), ("productTime", 2), ("finishedTime", 3)),
)
UNSHELVING = Paper("unshelve_order", 3_957_000_000_000_001, "XJ", (1, 3))
SHELVING = Paper(
    "shelf_order",
    3_958_000_000_000_001,
    "SJ",
    (0, 1),
    stamps=(("created", 0), ("shelvedTime", 1)),
    creator="creator",
    more=lambda n, _draws: {"weCode": f"SH{3_941_000_000_000_001 + n}"},
)
RETURNED = Paper(
    "refund_warehouse",
    3_959_000_000_000_001,
    "XT",
    ("WAIT_RECEIVE", "RECEIVED", "FINISHED"),
    stamps=(("created", 0), ("receiveGoodsTime", 1), ("endTime", 2), ("disposeSucTime", 2)),
    unit="yuan",
    places=("wareHouseId", "wareHouseName"),
    creator="receiveUser",
    more=_after_sale,
)
REPLENISH = Paper(
    "replenish",
    3_960_000_000_000_001,
    "BK",
    (1, 2),
    unit="yuan",
    amount="refundMoney",
    creator="sysMaker",
    more=_after_sale,
    places=(),
)
REPAIR = Paper(
    "repair",
    3_961_000_000_000_001,
    "WX",
    (1, 2, 3),
    stamps=(("created", 0), ("returnTime", 1), ("finishTime", 2)),
    unit="yuan",
    amount="repairMoney",
    places=("repairWarehouseId", "repairWarehouseName"),
    text_times=True,
    more=lambda n, draws: _after_sale(n, draws) | {"repairOrderNum": f"WX{3_961_000_000_000_001 + n}"},
)
WAVE = Paper(
    "wave",
    3_962_000_000_000_001,
    "BC",
    (1, 3),
    stamps=(("created", 0), ("pickEndTime", 1)),
    pieces="itemCount",
    more=lambda _n, draws: {"tradesCount": 1 + draws[12] % 40, "waveType": draws[13] % 3},
)

_SHELF_TIMES = TimeType("timeType", {"1": "modified", "2": "created", "3": "shelvedTime"}, default="1")
_TRANSFER_LIST = _list(
    TRANSFER,
    dates="start",
    bypass=("code",),
    paging=Paging(default=20, min=20),
)
_COUNT_LIST = _list(COUNT)
_PROCESSING_LIST = _list(
    PROCESSING,
    windows=(
        Window("modifiedStart", "modifiedEnd", "modified"),
        Window("createdStart", "createdEnd", "created"),
        Window("productTimeStart", "productTimeEnd", "productTime"),
        Window("finishedTimeStart", "finishedTimeEnd", "finishedTime"),
    ),
)
_UNSHELVING_LIST = _list(UNSHELVING, windows=(Window("startModified", "endModified", "created"),))
_SHELVING_LIST = _list(SHELVING, time_type=_SHELF_TIMES, refine=aged("created", archived=False))
_OLD_SHELVING_LIST = replace(_SHELVING_LIST, dates="both", max_days=90, refine=aged("created", archived=True))
_IN_LIST, _OUT_LIST, _TRANSFER_IN_LIST = _list(OTHER_IN), _list(OTHER_OUT), _list(TRANSFER_IN)
_TRANSFER_OUT_LIST = _list(
    TRANSFER_OUT,
    time_type=TimeType(
        "timeType",
        {"create": "created", "out": "outTime", "gm_modified": "modified"},
        default="gm_modified",
    ),
)

METHODS: dict[str, Listing | Detail | Answer] = {
    "other.in.order.query": _IN_LIST,
    "other.in.order.get": Detail(_IN_LIST, OTHER_IN.lines),
    "other.out.order.query": _OUT_LIST,
    "other.out.order.get": Detail(_OUT_LIST, OTHER_OUT.lines),
    "erp.allocate.task.query": _TRANSFER_LIST,
    "erp.allocate.task.detail.query": Detail(_TRANSFER_LIST, TRANSFER.lines, param="code", field="code"),
    "allocate.out.task.query": _TRANSFER_OUT_LIST,
    "allocate.out.task.get": Detail(_TRANSFER_OUT_LIST, TRANSFER_OUT.lines),
    "allocate.in.task.query": _TRANSFER_IN_LIST,
    "allocate.in.task.get": Detail(_TRANSFER_IN_LIST, TRANSFER_IN.lines),
    "inventory.sheet.query": _COUNT_LIST,
    "inventory.sheet.get": Detail(_COUNT_LIST, COUNT.lines, param="code", field="code"),
    "erp.stock.product.order.query": _PROCESSING_LIST,
    "erp.stock.product.order.get": _Single(_PROCESSING_LIST, PROCESSING.lines, param="productOrderId"),
    "erp.wms.unshelve.order.query": _UNSHELVING_LIST,
    "erp.wms.unshelve.order.get": Detail(_UNSHELVING_LIST, UNSHELVING.lines),
    "erp.purchase.shelf.query": _SHELVING_LIST,
    "erp.purchase.shelf.get": Detail(_SHELVING_LIST, SHELVING.lines),
    "erp.purchase.shelf.history.query": _OLD_SHELVING_LIST,
    "erp.purchase.shelf.history.get": Detail(_OLD_SHELVING_LIST, SHELVING.lines),
    "erp.aftersale.refund.warehouse.query": _list(
        RETURNED,
        windows=(Window("startTime", "endTime", ""),),
        time_type=TimeType(
            "timeType",
            {
                "createTime": "created",
                "modifyTime": "modified",
                "endTime": "endTime",
                "receiveGoodsTime": "receiveGoodsTime",
                "disposeSuc": "disposeSucTime",
            },
        ),
        omits_empty=True,
    ),
    "erp.aftersale.replenish.list.query": _list(REPLENISH),
    "erp.aftersale.repair.list.query": _list(
        REPAIR,
        windows=(Window("timeStart", "timeEnd", ""),),
        time_type=TimeType(
            "timeType",
            {"createTime": "created", "returnTime": "returnTime", "modified": "modified"},
            default="modified",
        ),
    ),
    "erp.trade.waves.query": _list(
        WAVE,
        windows=(Window("start", "end", "created"), Window("pickStartTime", "pickEndTime", "pickEndTime")),
        paging=Paging(default=20),
    ),
}
