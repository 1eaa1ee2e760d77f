"""A preview shows what a run would store of real records, and hides what it would drop."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta

import pytest
from installation import SHIPPED, START, mirror

from kuaimai.errors import Rejected
from kuaimai.extract.sample import sample
from kuaimai.gateway import catalog
from kuaimai.gateway.answers import read_envelope
from kuaimai.pipeline.preview import as_text, preview
from kuaimai.pipeline.preview_page import as_page
from kuaimai.pipeline.samples import last_staged, live_page
from kuaimai.pipeline.spec import load_pipeline
from kuaimai.sandbox import Faults


@pytest.fixture
def shop(tmp_path):
    with mirror(tmp_path, faults=Faults(bad_amount=0.1)) as shop:
        yield shop


def page_of(shop):
    return sample(shop.client, shop.pipeline.source.method, now=shop.clock(), hours=24, records=200)


def test_every_value_is_shown_as_a_run_stores_it(shop):
    shop.run(START - timedelta(days=1), START)
    found = preview(shop.pipeline, page_of(shop), "live")
    trade, line = found.tables
    assert (trade.table, line.table) == ("kuaimai_trade", "kuaimai_trade_line")
    assert trade.records == found.records > 20
    columns = {one.column: one for one in trade.fields if one.column}
    assert columns["payment"].type == "yuan"
    landed = {row[0] for row in shop.rows("SELECT sid FROM kuaimai_trade")}
    shown = set(columns["sid"].stored) - {"set aside"}
    assert shown
    assert shown <= landed


def test_what_would_be_set_aside_is_what_a_run_sets_aside(shop):
    shop.run(START - timedelta(days=1), START)
    found = preview(shop.pipeline, page_of(shop), "live")
    aside = dict(shop.rows("SELECT record_key, reason FROM kuaimai_quarantine"))
    assert found.bad
    assert {one.key: one.reason for one in found.bad}.items() <= aside.items()
    assert all(f"{one.key}: {one.reason}" in as_text(found) for one in found.bad)
    assert "E-18" not in as_text(found)
    assert ".0000" not in as_text(found)


def test_people_stay_hidden_in_terminal_and_page(shop):
    answer = page_of(shop)
    found = preview(shop.pipeline, answer, "live")
    rows = answer.rows(("list",))
    names = {row["receiverState"] for row in rows if row.get("receiverState")}
    assert names
    field = next(one for one in found.tables[0].fields if one.field == "receiverState")
    assert (set(field.given), field.column) == ({"•••"}, "")
    assert not any(name in text for name in names for text in (as_text(found), as_page(found)))


def test_the_last_staged_page_is_found(shop):
    assert last_staged(shop.pipeline, shop.staging) is None
    shop.run(START - timedelta(days=1), START)
    answer, name, _ = last_staged(shop.pipeline, shop.staging)
    assert name.startswith("trades/run-1/")
    assert answer.rows(("list",))
    other, *_ = last_staged(shop.pipeline, shop.staging, shop.pipeline.source.enrich[0])
    assert other.method == shop.pipeline.source.enrich[0]


def test_the_page_needs_nothing_else_and_escapes_what_it_shows(shop):
    answer = page_of(shop)
    answer.rows(("list",))
    page = as_page(preview(shop.pipeline, answer, "<live> & kicking"))
    assert page.startswith("<!doctype html>")
    assert "&lt;live&gt; &amp; kicking" in page
    assert not any(word in page for word in ("<script", "http://", "https://", "src=", "@import"))


@pytest.mark.parametrize("name", sorted(path.stem for path in SHIPPED.glob("*.yaml")))
def test_a_live_page_is_asked_for_and_shown_as_a_run_does(tmp_path, name):
    with mirror(tmp_path, pipeline=name) as shop:
        method = catalog.method(shop.pipeline.source.method)
        found = preview(shop.pipeline, *live_page(shop.pipeline, shop.client, method.name, now=shop.clock()))
        asked = [one.params for one in shop.box.requests if one.method == method.name]
        assert len(asked) == 1
        assert found.records
        assert all(table.records for table in found.tables)
        # No record is bad, so every value has a place: of lines without an id of their own too.
        texts = {text for table in found.tables for field in table.fields for text in field.stored}
        assert not texts & {"set aside", "left out"}
        if method.scope:
            assert asked[0][method.scope.param]
        if method.detail:
            details = [one for one in shop.box.requests if one.method == method.detail.method]
            assert len(details) == found.records <= 20


def test_a_warehouse_without_changes_is_passed_by(tmp_path):
    with mirror(tmp_path, pipeline="stock") as shop:
        call = shop.client.call
        asked = []

        def nothing_in_the_first(method, params):
            answer = call(method, params)
            if method != shop.pipeline.source.method:
                return answer
            asked.append(params["warehouseId"])
            raw = b'{"stockStatusVoList": [], "total": 0}'
            return replace(answer, body=read_envelope(method, raw), raw=raw) if len(asked) == 1 else answer

        shop.client.call = nothing_in_the_first
        answer, origin, _ = live_page(
            shop.pipeline, shop.client, shop.pipeline.source.method, now=shop.clock()
        )
        assert len(asked) == 2
        assert origin.endswith(f"warehouse {asked[1]}")
        assert answer.rows(catalog.method(answer.method).list_keys)


def test_lines_that_are_refused_are_shown_as_what_sets_their_record_aside(tmp_path):
    with mirror(tmp_path, pipeline="purchases") as shop:
        call = shop.client.call
        refused = []

        def refuse_the_first(method, params):
            if method == "purchase.order.get" and refused in ([], [params["id"]]):
                refused[:] = [params["id"]]
                raise Rejected("the gateway refused: 单据不存在", method=method, code="50")
            return call(method, params)

        shop.client.call = refuse_the_first
        method = shop.pipeline.source.method
        found = preview(shop.pipeline, *live_page(shop.pipeline, shop.client, method, now=shop.clock()))
        assert [one.key for one in found.bad] == refused
        assert "单据不存在" in found.bad[0].reason


def test_a_staged_page_is_shown_with_its_lines(tmp_path):
    with mirror(tmp_path, pipeline="purchases") as shop:
        shop.run(START - timedelta(days=1), START)
        spent = shop.client.requests
        found = preview(shop.pipeline, *last_staged(shop.pipeline, shop.staging))
        assert shop.client.requests == spent
        order, line = found.tables
        landed = {row[0] for row in shop.rows("SELECT _key FROM kuaimai_purchase_line")}
        assert (found.bad, line.records) == ((), len(landed))
        assert order.records == found.records > 10


def test_a_staged_page_is_shown_with_the_warehouse_that_it_was_asked_for(tmp_path):
    with mirror(tmp_path, pipeline="stock") as shop:
        call = shop.client.call

        def without_warehouses(method, params):
            """As rows of the default warehouse come."""
            answer = call(method, params)
            raw = re.sub(rb'"wareHouseId":\d+,', b"", answer.raw)
            return replace(answer, body=read_envelope(method, raw), raw=raw)

        shop.client.call = without_warehouses
        shop.run(START - timedelta(days=1), START)
        found = preview(shop.pipeline, *last_staged(shop.pipeline, shop.staging))
        assert found.bad == ()
        [warehouse] = [one for one in found.tables[0].fields if one.column == "ware_house_id"]
        landed = {row[0] for row in shop.rows("SELECT ware_house_id FROM kuaimai_stock")}
        assert set(warehouse.stored) < landed
        assert warehouse.stored


def test_what_a_filter_passes_over_is_not_called_set_aside(shop, tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text(
        "name: some\nsource: {method: erp.trade.outstock.simple.query}\n"
        "filters: [{where: {sid: {empty: false}}, then: skip}]\n",
        encoding="utf-8",
    )
    found = preview(load_pipeline(path), page_of(shop), "live")
    [sid] = [field for field in found.tables[0].fields if field.field == "sid"]
    assert set(sid.stored) <= {"left out", "set aside"}
    assert "left out" in sid.stored


def test_what_the_pipeline_makes_of_columns_is_shown(shop, tmp_path):
    (tmp_path / "preview_rules.py").write_text(
        "def add_margin(rows):\n    rows['margin'] = rows['payment'] - rows['cost']\n    return rows\n",
        encoding="utf-8",
    )
    path = tmp_path / "some.yaml"
    path.write_text(
        "name: some\nsource: {method: erp.trade.outstock.simple.query}\n"
        "fields: {sellerMemo: drop, buyerNick: {keep: hash}}\n"
        "step: {run: 'preview_rules:add_margin', columns: {margin: yuan}}\n",
        encoding="utf-8",
    )
    found = preview(load_pipeline(path), page_of(shop), "live")
    fields = {one.field or one.column: one for one in found.tables[0].fields}
    assert fields["margin"].note == "made by step preview_rules:add_margin"
    assert fields["margin"].seen > 20
    assert fields["margin"].stored
    assert fields["sellerMemo"].note.endswith("; dropped (fields)")
    assert fields["buyerNick"].note.endswith("; personal: kept as hash")
    assert fields["receiverState"].note.endswith("; personal: dropped (keep_personal)")
    assert "made by step preview_rules:add_margin" in as_text(found)
    assert "made by step preview_rules:add_margin" in as_page(found)
