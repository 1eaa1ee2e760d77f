"""A planned backfill: counted, cut by rows, complete, and never in the way of live rows."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
import sqlalchemy as sa
from installation import CHINA, START, TICK, Mirror, mirror

from kuaimai.errors import ConfigError, Rejected
from kuaimai.gateway import catalog
from kuaimai.pipeline import planner, stages
from kuaimai.pipeline.scopes import SHOP_METHOD, fetch_shops
from kuaimai.pipeline.summary import summarise

DAY = timedelta(days=1)
MIDNIGHT = datetime(2026, 3, 1, tzinfo=CHINA)


def planned(shop: Mirror, start, end, *, shops=None, dimension="created", **how):
    known = fetch_shops(shop.client)
    return planner.plan_backfill(
        shop.pipeline,
        run=how.pop("run", "backfill-1"),
        start=start,
        end=end,
        shops=[each for each in known if shops is None or each.id in shops],
        dimension=dimension,
        client=shop.client,
        rate=5,
        target=shop.target,
        now=shop.clock,
        **how,
    )


def read(shop: Mirror, slices):
    return summarise(shop.pipeline, [shop.one(piece) for piece in slices])


def backfilled(shop: Mirror, start, end, **how):
    plan = planned(shop, start, end, **how)
    planner.announce(plan, shop.pipeline, shop.target)
    return plan, read(shop, plan.slices)


def orders(shop: Mirror):
    """Every order that the sandbox knows: its key, when it was created, its shop."""
    return [
        (sid, datetime.fromtimestamp(record["created"] // 1000, CHINA), str(record["userId"]))
        for sid, record in shop.box.truth().items()
    ]


def test_refused_shop_does_not_hold_up_the_plan_of_the_others(tmp_path, monkeypatch):
    start, end = MIDNIGHT - 2 * DAY, MIDNIGHT
    with mirror(tmp_path, history_orders=200) as shop:
        send = shop.client.wire.send

        def picky(method, params, *, session):
            if "900003" in params.get("userIds", ""):
                raise Rejected("shop is not authorised any more", code="20014")
            return send(method, params, session=session)

        monkeypatch.setattr(shop.client.wire, "send", picky)
        plan, summary = backfilled(shop, start, end)
        others = {f"{number}" for number in range(900001, 900007)} - {"900003"}
        assert sum(day.rows for day in plan.days) == len(created(orders(shop), start, end, others))
        assert len(summary.open_windows) == len(plan.slices)
        assert shop.rows("SELECT count(*) FROM kuaimai_trade") == [
            (len(created(orders(shop), start, end, others)),)
        ]


def created(orders, start, end, shops=None):
    """Those that were created in a stretch of time, both ends included."""
    return {sid for sid, at, shop in orders if start <= at <= end and (shops is None or shop in shops)}


def truth(shop: Mirror, start, end):
    return created(orders(shop), start, end)


def landed(shop: Mirror):
    return {sid for (sid,) in shop.rows("SELECT sid FROM kuaimai_trade")}


def test_counts_of_the_plan_are_the_truth_of_every_day_and_group_of_shops(tmp_path):
    with mirror(tmp_path, shop_count=12, bulk=3000, bulk_days=3) as shop:
        plan = planned(shop, MIDNIGHT - 2 * DAY, MIDNIGHT + timedelta(hours=9))
        assert len(plan.days) == 3 * 2
        assert {len(day.shops) for day in plan.days} == {10, 2}
        known = orders(shop)
        for day in plan.days:
            assert day.rows == len(created(known, day.start, day.end, day.shops))
        assert plan.rows == sum(day.rows for day in plan.days) > 2000


def test_requests_of_the_plan_are_what_reading_spends(tmp_path):
    with mirror(tmp_path, bulk=6000, bulk_days=2) as shop:
        plan = planned(shop, MIDNIGHT - 2 * DAY, MIDNIGHT, rows_per_slice=2000)
        before = shop.client.requests
        for piece in plan.slices:
            stages.extract(shop.pipeline, piece, shop.client, shop.staging, now=shop.clock)
        assert plan.requests == pytest.approx(shop.client.requests - before, rel=0.15)


def test_busy_hours_become_several_slices_and_quiet_ones_are_joined(tmp_path):
    most = 400
    with mirror(tmp_path, bulk=300, bulk_days=1, orders_per_hour=600) as shop:
        shop.clock.advance(15 * 3600)  # nine quiet hours, then fifteen busy ones
        plan = planned(shop, MIDNIGHT, MIDNIGHT + DAY, rows_per_slice=most)
        windows = [piece.window for piece in plan.slices]
        known = orders(shop)
        rows = [len(created(known, window.start, window.end)) for window in windows]
        assert len(windows) > 15
        # The rows of the second that two windows share belong to the first.
        assert max(rows) <= most + 10
        assert all(one + other > most for one, other in pairwise(rows))
        assert windows[0].end > MIDNIGHT + timedelta(hours=8)
        assert [windows[0].start, *(window.end for window in windows)] == [
            *(window.start for window in windows),
            MIDNIGHT + DAY,
        ]


def test_reading_the_plan_lands_the_truth_and_leaves_nothing_open(tmp_path, pg_url):
    with mirror(tmp_path, pg_url, bulk=2500, bulk_days=3) as shop:
        start = MIDNIGHT - 2 * DAY - timedelta(hours=5)
        plan, summary = backfilled(shop, start, MIDNIGHT, rows_per_slice=500)
        assert len(plan.slices) > len(plan.days) == 3
        assert summary.sealed
        assert landed(shop) == truth(shop, start, MIDNIGHT)
        assert shop.open_windows() == 0


def test_what_is_sealed_is_skipped_unless_it_is_asked_for_again(tmp_path):
    with mirror(tmp_path) as shop:
        start = MIDNIGHT - 3 * DAY
        first, _ = backfilled(shop, start, MIDNIGHT)
        second = planned(shop, start, MIDNIGHT)
        assert (second.slices, second.probes, second.sealed_days) == ((), 0, 3)
        assert "3.0 of 3.0 days are sealed already" in second.pretty()
        longer = planned(shop, start - DAY, MIDNIGHT)
        assert [(day.start, day.end) for day in longer.days] == [(start - DAY, start)]
        again = planned(shop, start, MIDNIGHT, again=True)
        assert [piece.window for piece in again.slices] == [piece.window for piece in first.slices]


def test_windows_that_end_a_second_before_the_next_leave_nothing_to_plan(tmp_path):
    with mirror(tmp_path) as shop:
        noon, second = MIDNIGHT - DAY / 2, timedelta(seconds=1)
        shop.run(MIDNIGHT - DAY, noon - second, dimension="created")
        shop.run(noon, MIDNIGHT - second, dimension="created")
        assert planned(shop, MIDNIGHT - DAY, MIDNIGHT).slices == ()


def test_run_that_was_killed_leaves_the_rest_to_a_new_one(tmp_path):
    with mirror(tmp_path) as shop:
        start = MIDNIGHT - 4 * DAY
        first = planned(shop, start, MIDNIGHT)
        planner.announce(first, shop.pipeline, shop.target)
        read(shop, first.slices[:1])
        assert shop.open_windows() == 3
        rest, summary = backfilled(shop, start, MIDNIGHT, run="backfill-2")
        assert [piece.window for piece in rest.slices] == [piece.window for piece in first.slices[1:]]
        assert summary.sealed
        assert landed(shop) == truth(shop, start, MIDNIGHT)


def test_shop_that_was_not_read_is_read_alone(tmp_path):
    with mirror(tmp_path) as shop:
        known = [each.id for each in fetch_shops(shop.client)]
        backfilled(shop, MIDNIGHT - DAY, MIDNIGHT, shops=known[:-1])
        plan = planned(shop, MIDNIGHT - DAY, MIDNIGHT)
        assert [day.shops for day in plan.days] == [(known[-1],)]
        assert plan.sealed_days == pytest.approx(5 / 6)


def test_window_that_an_enriching_method_left_open_is_read_again(tmp_path):
    with mirror(tmp_path) as shop:
        backfilled(shop, MIDNIGHT - 2 * DAY, MIDNIGHT)
        [further] = shop.pipeline.source.enrich
        with shop.target.engine.begin() as connection:
            connection.exec_driver_sql(
                "UPDATE kuaimai_window SET state = 'open' WHERE window_start = "
                f"(SELECT max(window_start) FROM kuaimai_window) AND method = '{further}'"
            )
        plan = planned(shop, MIDNIGHT - 2 * DAY, MIDNIGHT)
        assert [(day.start, day.end) for day in plan.days] == [(MIDNIGHT - DAY, MIDNIGHT)]
        served = {each.id for each in fetch_shops(shop.client)} - set(plan.days[0].shops)
        assert served  # the shops that the method does not serve are complete


def test_open_windows_of_an_earlier_plan_are_closed_when_others_have_sealed_their_time(tmp_path):
    with mirror(tmp_path) as shop:
        whole = planned(shop, MIDNIGHT - DAY, MIDNIGHT)
        planner.announce(whole, shop.pipeline, shop.target)
        backfilled(shop, MIDNIGHT - DAY, MIDNIGHT - DAY / 2)
        planner.settle(shop.pipeline, "created", MIDNIGHT - DAY, shop.target, shop.clock())
        assert shop.open_windows() == 1
        backfilled(shop, MIDNIGHT - DAY / 2, MIDNIGHT)
        planner.settle(shop.pipeline, "created", MIDNIGHT - DAY, shop.target, shop.clock())
        assert shop.open_windows() == 0


def test_contested_windows_of_an_earlier_plan_are_closed_too(tmp_path):
    with mirror(tmp_path) as shop:
        planner.announce(planned(shop, MIDNIGHT - DAY, MIDNIGHT), shop.pipeline, shop.target)
        with shop.target.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE kuaimai_window SET state = 'contested'")
        backfilled(shop, MIDNIGHT - DAY, MIDNIGHT - DAY / 2)
        planner.settle(shop.pipeline, "created", MIDNIGHT - DAY, shop.target, shop.clock())
        assert shop.open_windows() == 1
        backfilled(shop, MIDNIGHT - DAY / 2, MIDNIGHT)
        planner.settle(shop.pipeline, "created", MIDNIGHT - DAY, shop.target, shop.clock())
        assert shop.open_windows() == 0


def test_planning_reads_nothing_but_counts_and_writes_nothing(tmp_path):
    with mirror(tmp_path, bulk=3000) as shop:
        fetch_shops(shop.client)
        shop.box.requests.clear()
        calls = []
        send = shop.client.wire.send

        def watched(method, params, *, session):
            calls.append((method, params))
            return send(method, params, session=session)

        shop.client.wire.send = watched
        plan = planned(shop, MIDNIGHT - DAY, MIDNIGHT, rows_per_slice=500)
        counts = [params for method, params in calls if method in shop.pipeline.source.methods]
        assert len(counts) == plan.probes > 5
        assert {(params["pageNo"], params["pageSize"]) for params in counts} == {("1", "20")}
        assert shop.target.coverage("trades", "created", MIDNIGHT - DAY) == []
        assert not (tmp_path / "staging").exists()


def test_rows_of_the_past_never_push_newer_ones_back(tmp_path, pg_url):
    with mirror(tmp_path, pg_url, orders_per_hour=600) as shop:
        shop.clock.advance(1800)
        now = datetime.fromtimestamp(shop.clock(), CHINA)
        plan = planned(shop, START, now)
        # The slice is read, then the orders live on and are mirrored live; what was read lands last.
        staged = [
            stages.extract(shop.pipeline, piece, shop.client, shop.staging, now=shop.clock)
            for piece in plan.slices
        ]
        for _ in range(12):
            assert shop.tick().sealed
        made = [stages.transform(shop.pipeline, one, shop.staging) for one in staged]
        loaded = [stages.load(shop.pipeline, one, shop.staging, shop.target) for one in made]
        assert summarise(shop.pipeline, loaded).stale > 50
        assert shop.differences(now) == {}
        assert truth(shop, START, now) <= landed(shop)


def test_slice_that_waits_for_its_load_revives_nothing_that_was_marked_since_it_was_read(tmp_path):
    with mirror(tmp_path, history_orders=60) as shop:
        (piece,) = shop.plan(START - timedelta(hours=6), START, run="waits")
        extracted = stages.extract(shop.pipeline, piece, shop.client, shop.staging, now=shop.clock)
        waiting = stages.transform(shop.pipeline, extracted, shop.staging)
        shop.clock.advance(3600)
        shop.one(piece)
        living = "SELECT count(*) FROM kuaimai_trade WHERE _deleted_at IS NULL"
        [(there,)] = shop.rows(living)
        with shop.target.engine.begin() as connection:
            mark = "UPDATE kuaimai_trade SET _deleted_at = :at, _version = _version + 1"
            at = shop.target.instant(datetime.fromtimestamp(shop.clock(), CHINA))
            assert connection.execute(sa.text(mark), {"at": at}).rowcount == there > 0
        stages.load(shop.pipeline, waiting, shop.staging, shop.target)
        assert shop.rows(living) == [(0,)]
        shop.clock.advance(60)
        shop.run(START - timedelta(hours=6), datetime.fromtimestamp(shop.clock(), CHINA))
        assert shop.rows("SELECT count(*) FROM kuaimai_trade WHERE _deleted_at IS NOT NULL") == [(0,)]


def test_backfill_and_live_runs_beside_each_other_both_land(tmp_path, pg_url):
    with mirror(tmp_path, pg_url, orders_per_hour=600, bulk=2000, bulk_days=2) as shop:
        plan = planned(shop, START - 2 * DAY, START, rows_per_slice=300)
        done = []
        aside = threading.Thread(target=lambda: done.append(read(shop, plan.slices)))
        aside.start()
        live = [shop.tick() for _ in range(3)]
        aside.join()
        assert done[0].sealed
        assert all(summary.sealed for summary in live)
        assert truth(shop, START - 2 * DAY, START) <= landed(shop)
        assert shop.differences(START) == {}


# The archive


def test_all_orders_of_three_months_and_longer_land_whichever_store_has_them(tmp_path):
    # Orders of every day, so that some lie on each side of a border that nobody documents.
    with mirror(tmp_path, history_orders=900, days_back=100, archive_orders=60) as shop:
        start, end = START - timedelta(days=130), START - timedelta(days=80)
        plan, summary = backfilled(shop, start, end)
        assert summary.sealed
        assert landed(shop) == truth(shop, start, end)
        assert shop.open_windows() == 0
        reasons = {(piece.reason, piece.archive) for piece in plan.slices}
        assert reasons == {("backfill", False), ("border", False), ("backfill", True)}
        assert planned(shop, start, end).slices == ()


def test_interval_is_cut_at_the_border_of_the_archive(tmp_path):
    with mirror(tmp_path) as shop:
        border = planner.reach(shop.pipeline, START)
        reach = timedelta(days=catalog.method(shop.pipeline.source.method).times.reach_days)
        assert START - reach + planner.WAITING <= border < START - reach + planner.WAITING + DAY
        plan = planned(shop, border - 2 * DAY + TICK, border + DAY)
        assert [(day.start, day.archive, day.rows) for day in plan.days] == [
            (border - 2 * DAY + TICK, True, None),
            (border - DAY, True, None),
            (border, False, 0),
        ]
        assert plan.uncounted == 2
        assert "unknown" in plan.pretty()
        assert ">= " in plan.pretty().splitlines()[-5]


@pytest.mark.parametrize("dimension", ["upd_time", "audit_time"])
def test_archive_is_not_read_by_times_that_it_does_not_know(tmp_path, dimension):
    with mirror(tmp_path) as shop:
        border = planner.reach(shop.pipeline, START)
        with pytest.raises(ConfigError, match=r"archive.*cannot be read by.*read by 'created'"):
            planned(shop, border - DAY, START, dimension=dimension)
        assert planned(shop, border, border + DAY, dimension=dimension).slices


def test_seal_of_the_normal_store_says_nothing_of_what_the_archive_holds(tmp_path):
    with mirror(tmp_path, history_orders=900, days_back=100) as shop:
        oldest = MIDNIGHT - timedelta(days=90)
        plan = planned(shop, oldest, oldest + DAY)
        assert [piece.archive for piece in plan.slices] == [False, True]
        read(shop, plan.slices[:1])
        assert shop.rows("SELECT DISTINCT state FROM kuaimai_window") == [("sealed",)]
        assert [piece.archive for piece in planned(shop, oldest, oldest + DAY).slices] == [False, True]


def test_slices_that_wait_until_the_archive_has_their_time_are_never_taken_for_empty(tmp_path):
    with mirror(tmp_path, history_orders=900, days_back=100, orders_per_hour=1) as shop:
        start = planner.reach(shop.pipeline, START)
        plan = planned(shop, start, start + 2 * DAY)
        assert {piece.archive for piece in plan.slices} == {False}
        planner.announce(plan, shop.pipeline, shop.target)
        shop.clock.advance(10 * 86_400)  # somebody paused the DAG
        for piece in plan.slices:
            with pytest.raises(ConfigError, match=r"archive.*trigger the backfill again"):
                shop.one(piece)
        assert shop.rows("SELECT DISTINCT state FROM kuaimai_window") == [("open",)]

        again, summary = backfilled(shop, start, start + 2 * DAY, run="backfill-2")
        assert {piece.archive for piece in again.slices} >= {True}
        assert summary.sealed
        assert landed(shop) == truth(shop, start, start + 2 * DAY) != set()


# What is asked for wrongly


@pytest.mark.parametrize(
    ("start", "end", "how", "said"),
    [
        (MIDNIGHT, MIDNIGHT, {}, "is not after the start"),
        (MIDNIGHT, MIDNIGHT + DAY, {}, "lies in the future"),
        (MIDNIGHT - DAY, MIDNIGHT, {"dimension": "modified"}, "give one of upd_time, created"),
        (MIDNIGHT - DAY, MIDNIGHT, {"rows_per_slice": 10}, "fewer than a page holds"),
    ],
)
def test_mistakes_are_told_before_anything_is_asked(tmp_path, start, end, how, said):
    with mirror(tmp_path) as shop:
        with pytest.raises(ConfigError, match=said):
            planned(shop, start, end, **how)
        assert {one.method for one in shop.box.requests} == {SHOP_METHOD}


def test_plan_reads_as_a_table(tmp_path):
    with mirror(tmp_path, bulk=3000, bulk_days=2) as shop:
        plan = planned(shop, MIDNIGHT - DAY, MIDNIGHT + timedelta(hours=8), rows_per_slice=1000)
        head, columns, *days, total, shops, budget, minutes = plan.pretty().splitlines()
        assert head == "trades by created: 2026-02-28 00:00 to 2026-03-01 08:00 GMT+8"
        assert columns.split() == ["day", "shops", "rows", "slices", "requests", "minutes"]
        assert [line.split("  ")[0] for line in days] == ["2026-02-28", "2026-03-01 00:00-08:00"]
        assert total.split()[:3] == ["total", f"{plan.rows:,}", f"{len(plan.slices)}"]
        assert shops == "6 shops; 0.0 of 1.3 days are sealed already and left out"
        assert budget == f"{plan.requests} requests, {plan.requests / 18_000:.1%} of an hour's budget"
        assert minutes.startswith(f"{plan.requests / 300:.1f} minutes at 5 requests a second")
