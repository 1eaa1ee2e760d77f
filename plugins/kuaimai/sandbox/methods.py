"""The methods that the sandbox answers, one entry each.

A method is a function `(desk, call) -> body` without the status keys, plus, where it lists records, a
function that gives the whole truth. Adding a method is adding an entry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from kuaimai.sandbox import (
    aftersales,
    items,
    papers,
    places,
    purchases,
    registers,
    sections,
    shipping,
    stock,
    suppliers,
)
from kuaimai.sandbox.desk import Call, Desk, Refusal
from kuaimai.sandbox.item_lookups import items_by_id, single_item, single_sku, skus_of_item
from kuaimai.sandbox.listing import Detail, Listing
from kuaimai.sandbox.records import sid_of
from kuaimai.sandbox.trades import (
    ORDER_LIST,
    OUTSTOCK,
    order_list,
    order_list_truth,
    outstock,
    outstock_truth,
)
from kuaimai.sandbox.world import GMT8

if TYPE_CHECKING:
    from kuaimai.sandbox.book import Book

REFRESH = "open.token.refresh"

Truth = dict[str, dict[str, Any]]
Answer = Callable[[Desk, Call], dict[str, Any]]


@dataclass(frozen=True)
class Method:
    """One API method.

    Attributes:
        answer: gives the body of the answer.
        truth: gives every record by its key as text, for the book of some instant; None where there is none.
        may_omit_success: its documented example has no `success`.
    """

    answer: Answer
    truth: Callable[[Desk, Book], Truth] | None = None
    may_omit_success: bool = False


def refresh(desk: Desk, call: Call) -> dict[str, Any]:
    """`open.token.refresh`: prolong the session by another 30 days."""
    faults, session = desk.faults, desk.session
    given = call.params.get("refreshToken", "")
    if not given:
        raise Refusal("32", "缺少必要参数！字段：[refreshToken]")
    if given != session.refresh_token or faults.session_dead or call.now >= session.expires_at:
        raise Refusal("invalid_session", "要刷新的会话不存在")
    if session.is_too_soon(call.now, faults.refresh_interval):
        raise Refusal("refresh_frequently", "会话刷新太频繁了，请降低频次调用")
    # The flat answer has no place for new texts, so it cannot rotate.
    rotate = faults.rotate_tokens and faults.refresh_shape != "flat"
    session.refresh(call.now, ttl_seconds=faults.session_ttl, rotate=rotate)
    if faults.refresh_shape == "flat":
        return {"code": 0}
    answer: dict[str, Any] = {
        "accessToken": session.access_token,
        "refreshToken": session.refresh_token,
        "companyId": 100001,
        "userId": 200001,
    }
    expires = _expires_in(desk)
    return {"session": answer if expires is None else {**answer, "expiresIn": expires}}


def rest_refresh(desk: Desk) -> dict[str, Any]:
    """The refresh answer of the `rest` dialect; a new refresh token is told only when there is one."""
    answer: dict[str, Any] = {"access_token": desk.session.access_token}
    expires = _expires_in(desk)
    if expires is not None:
        answer["expires_in"] = expires
    if desk.faults.rotate_tokens:
        answer["refresh_token"] = desk.session.refresh_token
    return answer


def _expires_in(desk: Desk) -> int | None:
    return {
        "seconds": int(desk.faults.session_ttl),
        "epoch_s": int(desk.session.expires_at),
        "epoch_ms": int(desk.session.expires_at * 1000),
    }.get(desk.faults.expires_unit)


def system_time(_desk: Desk, call: Call) -> dict[str, Any]:
    """`open.system.time.get`: the gateway's clock; the shape of the answer is our guess."""
    return {"time": datetime.fromtimestamp(call.now, GMT8).strftime("%Y-%m-%d %H:%M:%S")}


def _listed(how: Listing | Detail, *, may_omit_success: bool = False) -> Method:
    """The method that answers as `how` says."""
    return Method(how, truth=lambda desk, book: how.truth(desk, book.at), may_omit_success=may_omit_success)


def _answered(how: Listing | Detail | Answer) -> Method:
    return _listed(how) if isinstance(how, (Listing, Detail)) else Method(how)


METHODS: dict[str, Method] = {
    REFRESH: Method(refresh),
    "open.system.time.get": Method(system_time),
    "erp.shop.list.query": _listed(places.SHOPS, may_omit_success=True),
    "erp.warehouse.list.query": _listed(places.WAREHOUSE_LIST, may_omit_success=True),
    OUTSTOCK: Method(outstock, truth=lambda desk, book: _by_sid(outstock_truth(desk, book))),
    ORDER_LIST: Method(order_list, truth=lambda desk, book: _by_sid(order_list_truth(desk, book))),
    aftersales.AFTERSALES: _listed(aftersales.LIST),
    "erp.aftersale.operate.log.query": Method(aftersales.log_of_work_order),
    "item.list.query": _listed(items.LIST),
    "item.single.get": Method(single_item),
    "erp.item.sku.list.get": Method(skus_of_item),
    "erp.item.single.sku.get": Method(single_sku),
    "erp.item.list.get": Method(items_by_id),
    # The first version of the item methods; that they answer like the second is our guess.
    "item.list.get": Method(items_by_id),
    "item.sku.list.get": Method(skus_of_item),
    "item.supplier.list.get": _listed(registers.ITEM_SUPPLIERS),
    "stock.api.status.query": _listed(stock.LIST),
    "erp.item.warehouse.list.get": Method(stock.in_all_warehouses),
    "supplier.list.query": _listed(suppliers.LIST, may_omit_success=True),
    **{name: _listed(how, may_omit_success=True) for name, how in purchases.METHODS.items()},
    **{name: _answered(how) for name, how in papers.METHODS.items()},
    **{name: _answered(how) for name, how in registers.METHODS.items()},
    **{name: _answered(how) for name, how in sections.METHODS.items()},
    "erp.wave.logistics.order.query": _listed(shipping.DOCUMENTS),
    "erp.trade.outstock.list.query": _listed(shipping.STOCK_OUT),
    "erp.trade.trace.list": Method(
        shipping.log_of_orders, truth=lambda desk, book: shipping.LOG.truth(desk, book.at)
    ),
    "erp.item.unique.code.query": _listed(shipping.CODES),
}


def _by_sid(rows: dict[int, dict[str, Any]]) -> Truth:
    return {str(sid_of(row)): record for row, record in rows.items()}
