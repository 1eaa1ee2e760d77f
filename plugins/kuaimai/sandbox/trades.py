"""The two order queries: which orders they find, in which pages, in which shape."""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b
from random import Random
from typing import TYPE_CHECKING, Any

from kuaimai.sandbox.book import Book, row_of, second_of
from kuaimai.sandbox.desk import Call, Desk, Refusal
from kuaimai.sandbox.records import order_of_tid, row_of_sid, status_of
from kuaimai.sandbox.steps import Draw
from kuaimai.sandbox.trade_query import TradeQuery, read_trade_query
from kuaimai.sandbox.world import DAY

if TYPE_CHECKING:
    from kuaimai.sandbox.faults import Faults

OUTSTOCK = "erp.trade.outstock.simple.query"
ORDER_LIST = "erp.trade.list.query"

# Documented: Taobao and Tmall never; by official notice: PDD never; measured: alibabac2m refused.
_NOT_IN_ORDER_LIST = frozenset({"tb", "tm", "tmcs", "pdd", "pdd_wd", "alibabac2m"})
_WHOLE = 65_536
_LOOSE_DAYS = 42
_FOR_EVER = 2**40


def outstock(desk: Desk, call: Call) -> dict[str, Any]:
    """`erp.trade.outstock.simple.query`: all shops, fields left out by platform."""
    return _answer(desk, call, "outstock", frozenset(range(len(desk.world.shops))))


def order_list(desk: Desk, call: Call) -> dict[str, Any]:
    """`erp.trade.list.query`: full records, without the shops of some platforms."""
    return _answer(desk, call, "full", order_list_shops(desk))


def order_list_shops(desk: Desk) -> frozenset[int]:
    """Indexes of the shops that the order list returns."""
    return frozenset(
        index
        for index, shop in enumerate(desk.world.shops)
        if shop.source not in _NOT_IN_ORDER_LIST and not (shop.source == "1688" and desk.faults.exclude_1688)
    )


def outstock_truth(desk: Desk, book: Book) -> dict[int, dict[str, Any]]:
    """Every trade that exists, by row, as outstock returns it."""
    return _truth(desk, book, "outstock", frozenset(range(len(desk.world.shops))))


def order_list_truth(desk: Desk, book: Book) -> dict[int, dict[str, Any]]:
    """Every trade of the shops that the order list covers, by row."""
    return _truth(desk, book, "full", order_list_shops(desk))


def _truth(desk: Desk, book: Book, flavour: str, shops: frozenset[int]) -> dict[int, dict[str, Any]]:
    return {
        snap.row: desk.record(snap, flavour)
        for n in book.numbers()
        if desk.world.shop_index(n) in shops and not desk.has_vanished(n)
        for snap in book.visible(n)
    }


def _answer(desk: Desk, call: Call, flavour: str, shops: frozenset[int]) -> dict[str, Any]:
    faults = desk.faults
    query = read_trade_query(call, faults)
    desk.follow(call.now)
    wanted = _wanted_shops(desk, query, shops, flavour)
    loose = flavour == "outstock" and query.time_type == "pay_time"
    size = min(query.page_size, faults.page_cap) if faults.page_cap else query.page_size
    keys = _keys(desk, query, wanted, loose=loose)
    start = _start(query, keys, size, faults)
    if start and desk.drift_is_due():
        _drift(desk, keys[:start])
        keys = _keys(desk, query, wanted, loose=loose)
        start = _start(query, keys, size, faults)
    if faults.unstable_ties:
        keys = sorted(keys, key=lambda key: (second_of(key), _mix(call.number, key)))
    page = keys[start : start + size]
    desk.ahead = [(row_of(key), flavour) for key in keys[start + size : start + 2 * size]]
    return _envelope(query, faults, _Page(keys, page, start, size), _rows(desk, call, flavour, page))


def _rows(desk: Desk, call: Call, flavour: str, page: list[int]) -> list[Any]:
    rows = [desk.encoded(row_of(key), flavour, call) for key in page]
    if desk.faults.shuffle_rows:
        Random(call.number).shuffle(rows)  # noqa: S311 - not a secret
    return rows


class _Page:
    """Where a page lies in its scan."""

    def __init__(self, keys: list[int], page: list[int], start: int, size: int) -> None:
        self.total = len(keys)
        self.keys = page
        self.has_next = start + size < len(keys)


def _envelope(query: TradeQuery, faults: Faults, page: _Page, rows: list[Any]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    if query.use_cursor:
        _add_cursor(body, query, faults, page)
    elif query.use_has_next:
        body["hasNext"] = page.has_next
    elif not query.archive and (query.page_no == 1 or not faults.total_first_page_only):
        body["total"] = str(page.total) if faults.total_as_string else page.total
    if rows or not (query.archive or faults.omit_empty_list):
        body["list"] = rows
    return body


def _add_cursor(body: dict[str, Any], query: TradeQuery, faults: Faults, page: _Page) -> None:
    """The cursor names the last key served; how a scan ends is not documented, so it is a switch."""
    after = f"{page.keys[-1]:x}" if page.keys else query.cursor
    if faults.cursor_end == "has_next" or query.use_has_next:
        body["hasNext"] = page.has_next
    if page.has_next or faults.cursor_end in {"has_next", "empty"}:
        body["cursor"] = after
    elif faults.cursor_end == "same":
        body["cursor"] = query.cursor or after


def _start(query: TradeQuery, keys: list[int], size: int, faults: Faults) -> int:
    """Where in `keys` the asked page begins."""
    repeated = min(faults.duplicates, size - 1)
    if not query.use_cursor:
        return (query.page_no - 1) * (size - repeated)
    if not query.cursor:
        return 0
    try:
        last = int(query.cursor, 16)
    except ValueError:
        raise Refusal("50", "游标不合法！字段：[cursor]") from None
    served = sum(1 for key in keys if key <= last)
    return max(0, served - repeated) if served < len(keys) else served


def _wanted_shops(desk: Desk, query: TradeQuery, shops: frozenset[int], flavour: str) -> frozenset[int]:
    if not query.user_ids:
        return shops
    known = {shop.user_id: index for index, shop in enumerate(desk.world.shops)}
    wanted = frozenset(known[user_id] for user_id in query.user_ids if user_id in known)
    # Measured: a Taobao-family shop, or a value that is no shop at all, is refused by the order list.
    if flavour == "full" and (not wanted <= shops or len(wanted) < len(query.user_ids)):
        raise Refusal("33", "非法的店铺编号！字段：[userIds]")
    return wanted & shops


def _keys(desk: Desk, query: TradeQuery, wanted: frozenset[int], *, loose: bool) -> list[int]:
    """Index keys of all rows that a query finds, in ascending order of time."""
    faults = desk.faults
    settings = (
        faults.null_modified, faults.loose_pay_time, faults.wide_window_misses, faults.vanished,
        faults.ignore_time, faults.future_times,
    )  # fmt: skip
    identity = (query.identity, wanted, loose, settings)
    return desk.found(identity, lambda: _search(desk, query, wanted, loose=loose))


def _search(desk: Desk, query: TradeQuery, wanted: frozenset[int], *, loose: bool) -> list[int]:
    faults, world, book = desk.faults, desk.world, desk.book
    if query.by_id:
        keys = _by_id(desk, query)
    else:
        first, last = (0, _FOR_EVER) if faults.ignore_time else (query.first, query.last)
        index, low, high = book.window(query.time_type, first, last)
        keys = list(index[low:high])
        if loose and faults.loose_pay_time:
            keys = _loose(desk, query) + keys
        if query.time_type == "upd_time" and (faults.null_modified or faults.future_times):
            keys = [key for key in keys if not desk.is_unseen_by_change(row_of(key) // 4)]
        if faults.wide_window_misses and query.last - query.first > DAY:
            keys = [key for key in keys if not _drawn(desk, key, Draw.WIDE, faults.wide_window_misses)]
    if faults.vanished:
        keys = [key for key in keys if not desk.has_vanished(row_of(key) // 4)]
    archived = world.archived_before(book.at)
    if query.archive:
        keys = [key for key in keys if row_of(key) // 4 < archived]
    elif archived:
        keys = [key for key in keys if row_of(key) // 4 >= archived]
    if len(wanted) < len(world.shops):
        keys = [key for key in keys if book.shop_of_row(row_of(key)) in wanted]
    if query.statuses:
        keys = [key for key in keys if _status_of(desk, key) in query.statuses]
    return keys


def _by_id(desk: Desk, query: TradeQuery) -> list[int]:
    """Rows named by sid, tid or waybill number; their keys carry no time."""
    rows = [row_of_sid(sid) for sid in query.sids]
    for tid in query.tids:
        n = order_of_tid(desk.world, tid)
        rows += [] if n is None else [n * 4, n * 4 + 1]
    for out_sid in query.out_sids:
        digits = out_sid.removeprefix("DEMO")
        rows += [int(digits)] if digits.isdecimal() else []
    named = Counter(row for row in rows if row >= 0)
    keys = []
    for row in sorted(named):
        snap = desk.book.snapshot(row)
        if snap is not None and (not query.out_sids or snap.ship or query.sids or query.tids):
            keys.append(row)
    return keys


def _loose(desk: Desk, query: TradeQuery) -> list[int]:
    index, low, high = desk.book.window("pay_time", query.first - _LOOSE_DAYS * DAY, query.first - 1)
    return [key for key in index[low:high] if _drawn(desk, key, Draw.LOOSE, desk.faults.loose_pay_time)]


def _drawn(desk: Desk, key: int, draw: int, share: float) -> bool:
    return desk.world.draws(row_of(key) // 4)[draw] < share * _WHOLE


def _status_of(desk: Desk, key: int) -> str:
    snap = desk.book.snapshot(row_of(key))
    return "" if snap is None else status_of(snap)[0]


def _drift(desk: Desk, served: list[int]) -> None:
    """Move rows that were already read to a newer `updTime`, so that the rows behind them move up."""
    for key in desk.drift().sample(served, min(desk.faults.drift_touch, len(served))):
        desk.touch(row_of(key))
    for _ in range(desk.faults.drift_insert):
        desk.book.insert()


def _mix(number: int, key: int) -> bytes:
    return blake2b(f"{number}/{key}".encode(), digest_size=8).digest()
