"""The past of other records than orders: by their own times, beyond the reach too, with their lines."""

from __future__ import annotations

from datetime import timedelta

import pytest
from installation import START, mirror

from kuaimai.errors import ConfigError
from kuaimai.pipeline import planner
from kuaimai.pipeline.scopes import fetch_scopes
from kuaimai.pipeline.summary import summarise
from kuaimai.sandbox import Faults

DAY = timedelta(days=1)


def plan(shop, start, end, dimension):
    return planner.plan_backfill(
        shop.pipeline,
        run="past",
        start=start,
        end=end,
        shops=fetch_scopes(shop.pipeline, shop.client),
        dimension=dimension,
        client=shop.client,
        rate=5.0,
        target=shop.target,
        rows_per_slice=1000,
        now=shop.clock,
    )


def read(shop, made):
    planner.announce(made, shop.pipeline, shop.target)
    return summarise(shop.pipeline, [shop.one(piece) for piece in made.slices])


@pytest.mark.parametrize(
    ("name", "dimension", "days"),
    [
        ("aftersales", "applied", 12),
        ("purchases", "created", 10),
        ("purchase_returns", "created", 10),
        ("receipts", "modified", 8),
    ],
)
def test_past_is_counted_read_and_sealed(tmp_path, pg_url, name, dimension, days):
    with mirror(tmp_path, pg_url, pipeline=name, archive_orders=0, archive_documents=0) as shop:
        made = plan(shop, START - days * DAY, START, dimension)
        assert made.rows == len(shop.truth()) > 0
        summary = read(shop, made)
        assert (summary.sealed, summary.landed) == (True, made.rows)
        assert shop.wrong() == []
        assert shop.open_windows() == 0
        assert plan(shop, START - days * DAY, START, dimension).slices == ()


def test_purchases_older_than_the_reach_come_from_the_history_with_their_lines(tmp_path, pg_url):
    with mirror(tmp_path, pg_url, pipeline="purchases", archive_documents=6, purchases_per_day=2) as shop:
        start = START - 131 * DAY
        made = plan(shop, start, START - 90 * DAY, "created")
        assert {piece.archive for piece in made.slices} == {True}
        summary = read(shop, made)
        assert summary.sealed
        border = (START - 90 * DAY).timestamp() * 1000
        old = {key for key, one in shop.truth().items() if one["created"] < border}
        assert len(old) == 6
        assert set(shop.living(shop.pipeline.record)) == old
        lines = {row["purchase_order_id"] for row in shop.living(shop.pipeline.records[1]).values()}
        assert lines == old
        methods = {request.method for request in shop.box.requests}
        assert {"purchase.order.history.query", "purchase.order.history.get"} <= methods
        assert plan(shop, start, START - 90 * DAY, "created").slices == ()


@pytest.mark.parametrize("no_total", [False, True], ids=["with-totals", "without-totals"])
def test_past_across_the_border_comes_from_both_stores(tmp_path, no_total):
    with mirror(
        tmp_path,
        pipeline="purchases",
        archive_documents=6,
        purchases_per_day=4,
        days_back=92,
        faults=Faults(no_total=no_total),
    ) as shop:
        start, end = START - 92 * DAY, START - 84 * DAY
        assert read(shop, plan(shop, start, end, "created")).sealed
        first, last = start.timestamp() * 1000, end.timestamp() * 1000
        past = {key for key, one in shop.truth().items() if first <= one["created"] < last}
        assert set(shop.living(shop.pipeline.record)) == past


def test_what_is_read_as_a_whole_has_no_past(tmp_path):
    with mirror(tmp_path, pipeline="shops") as shop, pytest.raises(ConfigError, match="has no past"):
        plan(shop, START - DAY, START, "created")
