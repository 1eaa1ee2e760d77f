"""The catalogue is complete, holds together, and refuses what the gateway would ignore."""

from __future__ import annotations

import json

import pytest

from kuaimai.errors import ConfigError, DataError
from kuaimai.gateway import catalog
from kuaimai.gateway.answers import Answer, read_envelope
from kuaimai.gateway.catalog.check import problems


@pytest.mark.parametrize("name", catalog.method_names())
def test_method_holds_together(name):
    assert problems([name], []) == []


@pytest.mark.parametrize("name", catalog.record_names())
def test_record_holds_together(name):
    assert problems([], [name]) == []


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
