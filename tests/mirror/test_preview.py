"""A preview shows what a run would store of real records, and hides what it would drop."""

from __future__ import annotations

from datetime import timedelta

import pytest
from installation import START, mirror

from kuaimai.extract.sample import sample
from kuaimai.pipeline.preview import as_text, last_staged, preview
from kuaimai.pipeline.preview_page import as_page
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
    answer, name = last_staged(shop.pipeline, shop.staging)
    assert name.startswith("trades/run-1/")
    assert answer.rows(("list",))
    other, _ = last_staged(shop.pipeline, shop.staging, shop.pipeline.source.enrich[0])
    assert other.method == shop.pipeline.source.enrich[0]


def test_the_page_needs_nothing_else_and_escapes_what_it_shows(shop):
    answer = page_of(shop)
    answer.rows(("list",))
    page = as_page(preview(shop.pipeline, answer, "<live> & kicking"))
    assert page.startswith("<!doctype html>")
    assert "&lt;live&gt; &amp; kicking" in page
    assert not any(word in page for word in ("<script", "http://", "https://", "src=", "@import"))
