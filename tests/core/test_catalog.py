"""The catalogue is complete, holds together, and refuses what the gateway would ignore."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kuaimai.errors import ConfigError, DataError
from kuaimai.gateway import catalog
from kuaimai.gateway.answers import Answer, read_envelope
from kuaimai.gateway.catalog.check import problems
from kuaimai.gateway.catalog.document import catalogue_page

# Every read method for syncing that open.kuaimai.com has, core first, then further.
READ_METHODS = """
open.system.time.get erp.shop.list.query erp.warehouse.list.query erp.trade.list.query
erp.trade.outstock.simple.query erp.trade.outstock.list.query erp.wave.logistics.order.query
erp.aftersale.list.query erp.aftersale.refund.warehouse.query item.list.query item.single.get
erp.item.sku.list.get erp.item.single.sku.get erp.item.list.get stock.api.status.query
erp.item.warehouse.list.get purchase.order.query purchase.order.get warehouse.entry.list.query
warehouse.entry.list.get purchase.return.list.query purchase.return.list.get supplier.list.query

erp.distributor.list.query erp.query.customers.list erp.trade.query.tag.list erp.item.tag.list brand.list.get
erp.item.seller.cat.list.get item.classify.list.get erp.item.supplier.list.get erp.item.outerid.list.get
erp.item.multicode.query erp.item.history.cost.price.query erp.item.stock.in.out.list
erp.virtual.warehouse.query erp.item.virtual.stock.query erp.purchase.shelf.query erp.purchase.shelf.get
other.in.order.query other.in.order.get other.out.order.query other.out.order.get erp.allocate.task.query
erp.allocate.task.detail.query allocate.out.task.query allocate.out.task.get allocate.in.task.query
allocate.in.task.get inventory.sheet.query inventory.sheet.get erp.stock.product.order.query
erp.stock.product.order.get erp.wms.unshelve.order.query erp.wms.unshelve.order.get
asso.goods.section.sku.query asso.goods.section.sku.del.query goods.section.in.out.record.query
erp.aftersale.replenish.list.query erp.aftersale.repair.list.query erp.aftersale.operate.log.query
erp.trade.trace.list erp.trade.waves.query erp.item.unique.code.query erp.trade.logistics.company.user.list
purchase.order.history.query purchase.order.history.get warehouse.entry.history.list.query
warehouse.entry.history.list.get purchase.return.history.list.query purchase.return.history.list.get
erp.purchase.shelf.history.query erp.purchase.shelf.history.get
"""


def test_every_read_method_is_there():
    assert set(READ_METHODS.split()) - set(catalog.method_names()) == set()


def test_whole_catalogue_holds_together():
    assert problems() == []


def test_columns_are_snake_case():
    assert [catalog.snake_case(name) for name in ("updTime", "numIid", "sid", "isExcep", "_key")] == [
        "upd_time",
        "num_iid",
        "sid",
        "is_excep",
        "_key",
    ]


def test_call_without_what_the_method_needs_is_refused():
    method = catalog.method("erp.item.warehouse.list.get")
    method.check({"skuOuterId": "A-RED", "pageNo": "1"})
    with pytest.raises(ConfigError, match="needs outerId or skuOuterId"):
        method.check({"pageNo": "1"})


def test_name_that_is_nearly_right_is_told():
    with pytest.raises(ConfigError) as told:
        catalog.method("purchase.order.querry")
    assert told.value.hint == "did you mean 'purchase.order.query'?"
    with pytest.raises(ConfigError) as told:
        catalog.record("aftersales")
    assert told.value.hint == "did you mean 'aftersale'?"


def test_archived_method_is_like_the_one_it_continues():
    now, old = (catalog.method(f"purchase.order.{name}") for name in ("query", "history.query"))
    assert now.history == old.name
    assert old.history is None
    assert (old.record, old.list_keys, old.page) == (now.record, now.list_keys, now.page)
    assert old.times
    assert old.times.reach_days is None


def rows(method: str, body: dict) -> list[dict]:
    raw = json.dumps(body).encode()
    return Answer(method, read_envelope(method, raw), raw).rows(catalog.method(method).list_keys)


def test_records_in_lists_of_lists_carry_what_they_lie_in():
    red, blue = {"id": 1, "sellableNum": 5}, {"id": 2, "sellableNum": -3}
    body = {
        "success": True,
        "outerId": "DEMO-A",
        "skus": [
            {"skuOuterId": "DEMO-A-RED", "mainWareHousesStock": [red, blue]},
            {"skuOuterId": "DEMO-A-BLUE", "mainWareHousesStock": [red]},
            {"skuOuterId": "DEMO-A-NONE"},
        ],
    }
    assert rows("erp.item.warehouse.list.get", body) == [
        {"outerId": "DEMO-A", "skuOuterId": "DEMO-A-RED", **red},
        {"outerId": "DEMO-A", "skuOuterId": "DEMO-A-RED", **blue},
        {"outerId": "DEMO-A", "skuOuterId": "DEMO-A-BLUE", **red},
    ]


def test_field_of_the_record_itself_wins_over_one_of_what_it_lies_in():
    inner = {"numIid": "1", "outerId": "its own"}
    body = {"itemOuterIdInfos": [{"outerId": "above", "tbItemList": [inner, {"numIid": "2"}]}]}
    assert [row["outerId"] for row in rows("erp.item.outerid.list.get", body)] == ["its own", "above"]


@pytest.mark.parametrize(
    "body",
    [{"success": True}, {"outerId": "DEMO-A"}, {"skus": []}, {"skus": None}, {"skus": [{"skuOuterId": "A"}]}],
)
def test_lists_of_lists_that_are_not_there_are_no_records(body):
    assert rows("erp.item.warehouse.list.get", body) == []


@pytest.mark.parametrize("skus", [5, [5], [{"mainWareHousesStock": "x"}], [{"mainWareHousesStock": [1]}]])
def test_what_is_no_list_of_lists_is_refused(skus):
    with pytest.raises(DataError, match="not a list of records"):
        rows("erp.item.warehouse.list.get", {"skus": skus})


def test_either_spelling_of_a_list_is_found():
    sku = {"sysSkuId": 1}
    assert rows("erp.item.single.sku.get", {"itemSku": [sku]}) == [sku]
    assert rows("erp.item.single.sku.get", {"itemSkus": [sku]}) == [sku]
    assert rows("item.single.get", {"item": {"sysItemId": 2}}) == [{"sysItemId": 2}]


@pytest.mark.parametrize(
    "body",
    [
        {"item": {"id": 1, "list": [{"outerId": "A"}]}},
        {"item": {"id": 1, "items": [{"outerId": "A"}]}},
        {"item": None, "list": [{"outerId": "A"}]},
    ],
)
def test_lines_are_found_wherever_they_are_said_to_be(body):
    assert rows("erp.stock.product.order.get", body) == [{"outerId": "A"}]


def test_times_that_are_asked_for_in_milliseconds():
    times = catalog.method("erp.trade.trace.list").times
    assert times
    assert times.dimensions["operated"].ends(1_772_326_800, 1_772_326_860) == {
        "operateTimeStart": "1772326800000",
        "operateTimeEnd": "1772326860000",
    }


@pytest.fixture
def edited():
    """Change the text of an entry for one test."""

    def forget() -> None:
        for known in (catalog.method, catalog.record):
            known.cache_clear()

    def edit(folder: str, name: str, old: str, new: str) -> None:
        text = catalog.text_of(folder, name)
        assert old in text
        catalog._texts(folder)[name] = text.replace(old, new, 1)
        forget()

    yield edit
    catalog._texts.cache_clear()
    forget()


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("purchase.order.query", "record: purchase", "record: purchases", "there is no kind 'purchases'"),
        (
            "purchase.order.query",
            "record: purchase",
            "record: receipt",
            "receipt has no list 'lines'",
        ),
        ("purchase.order.query", "list_keys: [list]", "list_keys: []", "list_keys: there are none"),
        ("purchase.order.query", "list_keys: [list]", "list_keys: [list, list]", "one is named twice"),
        ("purchase.order.query", "param: id, field: id", "param: ids, field: id", "has no parameter 'ids'"),
        ("purchase.order.query", "field: id, into", "field: ids, into", "has no field 'ids'"),
        ("purchase.order.query", "method: purchase.order.get", "method: purchase.get", "no method"),
        (
            "purchase.order.query",
            "history: purchase.order",
            "history: purchase",
            "there is no method",
        ),
        ("purchase.order.query", "stamp: modified", "stamp: modifed", "has no time 'modifed'"),
        ("purchase.order.query", "stamp: modified", "stamp: code", "has no time 'code'"),
        ("purchase.order.query", "start: startModified", "start: start", "no parameter 'start'"),
        ("purchase.order.query", "type_param: timeType", "type_param: type", "no parameter 'type'"),
        ("purchase.order.query", "pageNo, ", "", "page: no parameter 'pageNo'"),
        ("purchase.order.query", "max: 200", "max: 20", "page: least, default and most"),
        ("purchase.order.query", "unsure: [page.total_on", "unsure: [page.total", "'page.total' is no fact"),
        ("purchase.order.query", "label: ", "lable: x\n  label: ", "there is no entry 'lable'"),
        ("purchase.order.query", "default: 40", "defualt: 40", "cannot be read"),
        ("erp.item.list.get", "returnSkus: 1", "returnSku: 1", "send: no parameter 'returnSku'"),
        ("erp.item.outerid.list.get", "[outerId].tb", "[outer].tb", "has no field 'outer'"),
        ("stock.api.status.query", "param: warehouseId", "param: warehouse", "scope: no parameter"),
        ("stock.api.status.query", "field: wareHouseId", "field: warehouseId", "scope: stock has no field"),
        ("erp.trade.list.query", "like: erp.trade", "like: trade", "is not in the catalogue"),
    ],
)
def test_fault_in_a_method_is_told(edited, name, old, new, told):
    edited("methods", name, old, new)
    assert any(told in problem and problem.startswith(name) for problem in problems([name], []))


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("purchase", "key: id", "key: ident", "key: no field 'ident'"),
        ("purchase", "key: id", "key: quantity", "key: is no id"),
        ("purchase", "key: id", "key: code", "key: is no id"),
        ("purchase", "key: id", "key: id\n  key_of: [id]", "key_of: belongs to"),
        ("purchase", "version: [modified", "version: [changed", "version: no time 'changed'"),
        ("purchase", "purchase_line }", "purchase_lines }", "no kind 'purchase_lines'"),
        ("purchase", "lines: purchase_line", "lines: supplier", "supplier has no parent_key"),
        ("purchase", "lines: purchase_line", "code: purchase_line", "'code' is a field as well"),
        ("purchase", "type: fen", "type: cent", "there is no type 'cent'"),
        ("purchase", "sure: seen", "sure: maybe", "sure: there is no 'maybe'"),
        ("purchase", "label: 采购单编号", 'label: ""', "id: has no label"),
        ("purchase", "    code:", "    shortID:", "share the column 'short_id'"),
        ("purchase", "    code:", "    shortId:", "'shortId' is written twice"),
        ("purchase", "    code:", "    _version:", "columns that begin with _"),
        ("purchase", "{ type: text,", "{ type: text, aliases: [id],", "'id' spells two fields"),
        ("purchase", "personal: true, of: supplier", "of: supplier", "holds a person's data (contactName"),
        ("purchase", "of: supplier", "of: vendor", "of: 'vendor' does not fit"),
        ("purchase", "    code:", "    buyerCode:", "sounds like a person's data"),
        ("purchase", "    code: { type: text", "    code: { type: text, form: ms", "form 'ms' does not fit"),
        ("purchase", "    code: { type: text", "    code: { type: text, unit: kg", "unit 'kg' does not fit"),
        ("purchase", "    created: { type", "    created: { sentinels: [0], type", "sentinels of times"),
        ("purchase_line", "sysSkuId, ", "sysSku, ", "key_of: no field 'sysSku'"),
        ("purchase_line", "parent_key: purchaseOrderId", "parent_key: x", "parent_key: no field 'x'"),
        ("purchase_line", "  parent_key: purchaseOrderId\n", "", "only lines are numbered"),
    ],
)
def test_fault_in_a_record_is_told(edited, name, old, new, told):
    edited("records", name, old, new)
    assert any(told in problem and problem.startswith(name) for problem in problems([], [name]))


def test_kind_that_nothing_leads_to_is_told(edited):
    edited("methods", "brand.list.get", "record: brand", "record: item_tag")
    assert problems() == ["brand: no method, list or field leads to it"]


def test_page_of_the_catalogue_is_up_to_date():
    page = Path(__file__).parents[2] / "docs" / "catalogue.md"
    assert page.read_text(encoding="utf-8") == catalogue_page(), (
        "run: PYTHONPATH=plugins python -m kuaimai.gateway.catalog.document > docs/catalogue.md"
    )


def test_page_of_the_catalogue_names_everything():
    page = catalogue_page()
    for name in catalog.method_names():
        assert f"#### `{name}` {catalog.method(name).label}" in page
    for name in catalog.record_names():
        for field in catalog.record(name).fields.values():
            assert f"| `{field.name}` | `{field.column}` | " in page
