"""The mirror equals the truth, whatever the gateway does; each fault shows the promise it could break."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from itertools import pairwise

import pytest
from installation import CHINA, START, TICK, mirror

from kuaimai.errors import ConfigError, DataError, KuaimaiError, Rejected, Transient
from kuaimai.extract.paging import CONNECTIONS, window_request
from kuaimai.extract.windows import Slice, Window
from kuaimai.pipeline import stages
from kuaimai.pipeline.reconcile import Night, reconcile
from kuaimai.pipeline.scopes import fetch_shops
from kuaimai.sandbox import Failure, Faults


def test_first_run_lands_everything_and_seals(tmp_path, pg_url):
    with mirror(tmp_path, pg_url) as shop:
        summary = shop.run(START - timedelta(days=5), START)
        assert summary.sealed
        assert summary.read == summary.landed > 500
        assert shop.differences(START - timedelta(days=5)) == {}
        assert shop.open_windows() == 0


def test_second_reading_of_the_same_time_changes_nothing(tmp_path):
    with mirror(tmp_path) as shop:
        shop.run(START - timedelta(hours=6), START)
        again = shop.run(START - timedelta(hours=6), START)
        assert (again.inserted, again.updated) == (0, 0)
        assert again.sealed


def test_five_minute_runs_follow_the_shop(tmp_path):
    with mirror(tmp_path, orders_per_hour=600) as shop:
        for _ in range(12):
            assert shop.tick().sealed
        assert shop.differences(START) == {}


@pytest.mark.parametrize(
    ("faults", "extra_runs"),
    [
        (Faults(drift=1, drift_touch=2, drift_insert=1, drift_times=3), 1),
        (Faults(drift=1, drift_touch=1), 2),  # for ever: never stands still while it is read
        (Faults(duplicates=3, shuffle_rows=True, shuffle_lines=True, unstable_ties=True), 0),
        (Faults(late_rows=0.2, late_seconds=420), 2),
        (Faults(page_cap=20), 0),
        (Faults(total_as_string=True, omit_empty_list=True, wrap_response=True, trace_key="random"), 0),
        (
            Faults(
                plan=[
                    Failure("429", share=0.1),
                    Failure("503", share=0.05),
                    Failure("disconnect", share=0.05),
                    Failure("truncated", share=0.05),
                    Failure("html", share=0.02),
                    Failure("busy", share=0.05),
                ]
            ),
            0,
        ),
        (
            Faults(
                drift=2,
                drift_times=20,
                late_rows=0.1,
                duplicates=2,
                plan=[Failure("429", share=0.1), Failure("truncated", share=0.05)],
            ),
            2,
        ),
    ],
    ids=["drift", "endless-drift", "duplicates", "late", "page-cap", "envelope", "failures", "all-at-once"],
)
def test_mirror_equals_the_truth_after_the_next_runs(tmp_path, faults, extra_runs):
    with mirror(tmp_path, faults=faults, orders_per_hour=3000) as shop:
        shop.pipeline = shop.pipeline.model_copy(
            update={"source": shop.pipeline.source.model_copy(update={"page_size": 50})}
        )
        for _ in range(4):
            shop.tick()
        until = shop.clock()
        for _ in range(extra_runs):
            shop.tick()
        # What changed after `until` is the business of later runs.
        late = {sid for sid, record in shop.box.truth().items() if record["updTime"] > until * 1000}
        assert {sid: why for sid, why in shop.differences(START).items() if sid not in late} == {}


def test_answer_that_would_be_too_large_is_read_in_parts(tmp_path):
    with mirror(tmp_path, faults=Faults(max_bytes=150_000)) as shop:
        summary = shop.run(START - timedelta(days=1), START)
        assert summary.sealed
        assert shop.rows("SELECT DISTINCT proof FROM kuaimai_window") == [("snapshot",)]
        assert max(pages for (pages,) in shop.rows("SELECT pages FROM kuaimai_window")) > 2
        assert shop.differences(START - timedelta(days=1)) == {}
        assert {code for code in (one.code for one in shop.box.requests) if code} == {"1"}


def crowd(shop, rows=120):
    """Let many orders change in one second, so that no answer of 50 can hold that second; return it."""
    shop.pipeline = shop.pipeline.model_copy(
        update={"source": shop.pipeline.source.model_copy(update={"page_size": 50})}
    )
    shop.clock.advance(300)
    moment = datetime.fromtimestamp(int(shop.clock()), CHINA)
    faults = shop.box.faults
    faults.drift, faults.drift_touch = 1, rows
    five_days = Window(START - timedelta(days=5), START, "upd_time")
    request = window_request("erp.trade.outstock.simple.query", five_days, [])
    shop.client.call("erp.trade.outstock.simple.query", {**request, "pageNo": "2", "pageSize": "200"})
    faults.drift, faults.drift_touch = 0, 1
    shop.clock.advance(600)
    return moment


@pytest.mark.parametrize("paging", ["pages", "cursor"])
def test_second_that_holds_more_than_a_page_is_read_twice_and_sealed(tmp_path, paging):
    with mirror(tmp_path, orders_per_hour=600) as shop:
        crowd(shop)
        shop.pipeline = shop.pipeline.model_copy(
            update={"source": shop.pipeline.source.model_copy(update={"paging": paging})}
        )
        assert shop.run(START, START + timedelta(minutes=15)).sealed
        assert ("counts",) in shop.rows("SELECT DISTINCT proof FROM kuaimai_window")
        assert shop.differences(START) == {}


def test_only_the_second_that_does_not_stand_still_stays_open(tmp_path):
    with mirror(tmp_path, orders_per_hour=600) as shop:
        moment = crowd(shop)
        shop.box.faults.drift = 1
        summary = shop.run(START, START + timedelta(minutes=15))
        windows = shop.rows(
            "SELECT method, window_start, window_end, state, reason FROM kuaimai_window "
            "WHERE pages IS NOT NULL ORDER BY 1, 2"
        )
        assert not summary.sealed
        reasons = {row[4].split(":")[0] for row in windows if row[3] == "open"}
        assert reasons <= {"the window moved while it was read", "its readings did not agree"}
        for method in {row[0] for row in windows}:
            parts = [row for row in windows if row[0] == method]
            assert all(one[2] == other[1] for one, other in pairwise(parts))
        open_seconds = {(row[1], row[2]) for row in windows if row[3] == "open"}
        assert 0 < len(open_seconds) <= 2
        assert all(str(moment.astimezone(timezone.utc).minute) in start for start, _ in open_seconds)
        shop.box.faults.drift = 0
        assert shop.tick().sealed
        assert shop.differences(START) == {}


def test_stretches_are_asked_for_by_several_connections_and_none_is_lost(tmp_path, monkeypatch):
    with mirror(tmp_path, history_orders=3000) as shop:
        send, busy, most = shop.client.wire.send, set(), []

        def watched(method, params, *, session):
            busy.add(threading.get_ident())
            most.append(len(busy))
            try:
                return send(method, params, session=session)
            finally:
                busy.discard(threading.get_ident())

        monkeypatch.setattr(shop.client.wire, "send", watched)
        shop.pipeline = shop.pipeline.model_copy(
            update={"source": shop.pipeline.source.model_copy(update={"page_size": 20})}
        )
        assert shop.run(START - timedelta(days=5), START).sealed
        assert max(most) == CONNECTIONS
        assert shop.differences(START - timedelta(days=5)) == {}


def test_task_that_ended_well_reads_anew_when_it_is_cleared_and_one_that_died_does_not(tmp_path):
    with mirror(tmp_path) as shop:
        window = Window(START - timedelta(hours=6), START, "upd_time")
        piece = Slice("trades", "run", 1, window, tuple(fetch_shops(shop.client)))
        one = partial(stages.extract, shop.pipeline, piece, shop.client, shop.staging, now=shop.clock)
        first = one()
        again = one()  # the worker died before it could say that it had ended
        assert sum(read.requests for read in again.reads) == 0
        assert [read.distinct for read in again.reads] == [read.distinct for read in first.reads]
        stages.ended_well([piece], shop.staging)
        shop.clock.advance(60)
        assert all(read.requests for read in one().reads)


def test_outage_is_healed_by_the_next_run(tmp_path):
    with mirror(tmp_path, orders_per_hour=600) as shop:
        shop.tick()
        shop.clock.advance(3 * 3600)
        summary = shop.tick()
        assert summary.sealed
        assert shop.differences(START) == {}


@pytest.mark.parametrize("days", [9])
def test_long_outage_is_healed_as_far_back_as_was_promised(tmp_path, days):
    with mirror(tmp_path, orders_per_hour=4) as shop:
        shop.tick()
        shop.clock.advance(days * 86_400)
        shop.tick()
        healed = max(START, datetime.fromtimestamp(shop.clock(), CHINA) - timedelta(days=7) + TICK)
        assert shop.differences(healed) == {}


def test_runs_that_failed_from_the_first_on_are_seen_and_healed(tmp_path):
    with mirror(tmp_path, orders_per_hour=600) as shop:
        real, shop.one = shop.one, lambda piece: (_ for _ in ()).throw(Transient("no disk"))
        for _ in range(3):
            assert shop.tick() is None
        assert shop.open_windows() >= 3
        shop.one = real
        assert shop.tick().sealed
        assert shop.tick().sealed
        assert shop.differences(START) == {}
        assert shop.open_windows() == 0


def test_interval_that_the_gateway_has_archived_is_refused(tmp_path):
    with mirror(tmp_path) as shop, pytest.raises(ConfigError, match="archived"):
        shop.run(START - timedelta(days=120), START - timedelta(days=119))


def test_empty_list_of_shops_is_told_because_lost_rights_look_the_same(tmp_path, monkeypatch):
    with mirror(tmp_path) as shop:
        send = shop.client.wire.send

        def none(method, params, *, session):
            answer = send(method, params, session=session)
            return replace(answer, body={"success": True, "list": []}) if "shop" in method else answer

        monkeypatch.setattr(shop.client.wire, "send", none)
        with pytest.raises(DataError, match="list of shops is empty"):
            shop.run(START - timedelta(hours=1), START)


@pytest.mark.parametrize("times", [1, 9], ids=["once", "always"])
@pytest.mark.parametrize("second", ["empty", "moved"])
def test_list_of_shops_that_comes_short_of_its_count_is_not_believed(tmp_path, monkeypatch, second, times):
    with mirror(tmp_path) as shop:
        everybody = fetch_shops(shop.client)
        send = shop.client.wire.send
        short = []

        def in_halves(method, params, *, session):
            answer = send(method, {**params, "pageNo": "1"}, session=session)
            number = int(params["pageNo"])
            rows, half = answer.body["list"], len(everybody) // 2
            if number == 1:
                short.append(len(short) < times)
            missing = [] if second == "empty" else rows[:half]
            page = (
                rows[:half] if number == 1 else (missing if short[-1] else rows[half:]) if number == 2 else []
            )
            return replace(answer, body={"success": True, "total": len(rows), "list": page})

        monkeypatch.setattr(shop.client.wire, "send", in_halves)
        if times == 1:
            assert fetch_shops(shop.client) == everybody
            assert len(short) == 2
        else:
            with pytest.raises(Transient, match="3 of 6 shops came"):
                fetch_shops(shop.client)


def test_lost_right_proves_no_window_empty_and_no_order_gone(tmp_path):
    with mirror(tmp_path, history_orders=100) as shop:
        shop.run(START - timedelta(days=2), START)
        living = "SELECT count(*) FROM kuaimai_trade WHERE _deleted_at IS NULL"
        before = shop.rows(living)
        shop.box.faults.plan = [
            Failure("lost_right", share=1.0, method=name) for name in shop.pipeline.source.methods
        ]
        shop.clock.advance(300)
        now = datetime.fromtimestamp(shop.clock(), CHINA)
        with pytest.raises(Rejected, match=r"neither a list nor a total.*kuaimai doctor"):
            shop.run(START, now, live=True)
        assert shop.open_windows() == 1
        with contextlib.suppress(KuaimaiError):
            night = Night(
                pipeline=shop.pipeline,
                run="night",
                until=now,
                shops=fetch_shops(shop.client),
                client=shop.client,
                staging=shop.staging,
                days=1,
                now=shop.clock,
            )
            reconcile(night, shop.target)
        assert shop.rows(living) == before
        shop.box.faults.plan = []
        assert shop.tick().sealed
        assert shop.open_windows() == 0


@pytest.mark.parametrize("omit_empty_list", [False, True])
def test_quiet_window_seals_with_or_without_its_empty_list(tmp_path, omit_empty_list):
    faults = Faults(omit_empty_list=omit_empty_list)
    with mirror(tmp_path, orders_per_hour=0, history_orders=0, faults=faults) as shop:
        assert shop.tick().sealed


def test_quiet_window_of_a_list_that_may_leave_out_both_seals(tmp_path):
    faults = Faults(omit_empty_list=True, no_total=True)
    with mirror(tmp_path, pipeline="purchases", archive_documents=0, faults=faults) as shop:
        shop.clock.advance(1)
        assert shop.run(START - timedelta(seconds=1), START).sealed
        assert shop.rows("SELECT distinct_keys FROM kuaimai_window") == [(0,)]


def test_total_without_rows_is_no_storm_of_requests(tmp_path, monkeypatch):
    with mirror(tmp_path) as shop:
        send = shop.client.wire.send

        def hollow(method, params, *, session):
            answer = send(method, params, session=session)
            return replace(answer, body={"success": True, "total": 500}) if "trade" in method else answer

        monkeypatch.setattr(shop.client.wire, "send", hollow)
        summary = shop.run(START - timedelta(minutes=1), START)
        assert not summary.sealed
        assert summary.requests < 20


def test_shop_that_the_enriching_method_refuses_does_not_hold_up_the_others(tmp_path, monkeypatch):
    with mirror(tmp_path) as shop:
        send = shop.client.wire.send

        def picky(method, params, *, session):
            if method == "erp.trade.list.query" and "900001" in params["userIds"]:
                raise Rejected("illegal shop", code="33")
            return send(method, params, session=session)

        monkeypatch.setattr(shop.client.wire, "send", picky)
        summary = shop.run(START - timedelta(hours=6), START)
        assert summary.sealed
        ranks = dict(shop.rows("SELECT source, max(_rank) FROM kuaimai_trade GROUP BY source"))
        assert (ranks["fxg"], ranks["jd"]) == (0, 1)


def refusing(shop, monkeypatch, *refused):
    """Let every call that names one of some shops be refused; return what undoes it."""
    send = shop.client.wire.send

    def picky(method, params, *, session):
        if any(one in params.get("userIds", "") for one in refused):
            raise Rejected("shop is not authorised any more", code="20014")
        return send(method, params, session=session)

    monkeypatch.setattr(shop.client.wire, "send", picky)
    return lambda: monkeypatch.setattr(shop.client.wire, "send", send)


def test_shop_that_the_base_method_refuses_does_not_hold_up_the_others(tmp_path, monkeypatch):
    since = START - timedelta(hours=6)
    with mirror(tmp_path) as shop:
        allowed = refusing(shop, monkeypatch, "900003")
        summary = shop.run(since, START)
        assert len(summary.open_windows) == 1
        assert "not authorised any more" in summary.open_windows[0]

        def whose(sids):
            truth = shop.box.truth()
            return {str(truth[sid]["userId"]) for sid in sids}

        assert whose(shop.differences(since)) == {"900003"}
        # Its own window says why; the one that was planned for all of them waits for it.
        assert shop.rows(
            "SELECT shops, reason LIKE '%not authorised%', proof FROM kuaimai_window "
            "WHERE state = 'open' ORDER BY length(shops)"
        )[0] == ('["900003"]', 1, "unproven")
        assert shop.open_windows() == 2
        shop.tick()
        assert whose(shop.differences(since)) == {"900003"}
        allowed()
        assert shop.tick().sealed
        assert shop.open_windows() == 0
        assert shop.differences(since) == {}


def test_run_fails_where_every_shop_is_refused(tmp_path, monkeypatch):
    with mirror(tmp_path) as shop:
        refusing(shop, monkeypatch, "9")
        with pytest.raises(Rejected, match="not authorised any more"):
            shop.run(START - timedelta(hours=6), START)


def test_window_that_failed_is_read_again_by_the_next_run(tmp_path):
    with mirror(tmp_path, orders_per_hour=600) as shop:
        shop.pipeline = shop.pipeline.model_copy(
            update={"time": shop.pipeline.time.model_copy(update={"overlap_minutes": 0})}
        )
        shop.tick()
        shop.box.faults.plan = [Failure("503", times=50)]
        assert shop.tick() is None
        shop.box.faults.plan = []
        assert shop.tick().sealed
        assert shop.differences(START) == {}


def test_run_that_failed_is_healed_with_the_time_that_it_would_have_read_again(tmp_path):
    """A row that became visible late is found by the overlap of the next run, also if that run died."""
    with mirror(tmp_path, faults=Faults(late_rows=0.3, late_seconds=420), orders_per_hour=600) as shop:
        shop.tick()
        shop.box.faults.plan = [Failure("503", share=1.0)]
        assert shop.tick() is None
        shop.clock.advance(TICK.total_seconds())  # and one run was never started
        shop.box.faults.plan = []
        until = shop.clock()
        for _ in range(3):
            shop.tick()
        late = {sid for sid, record in shop.box.truth().items() if record["updTime"] > until * 1000}
        assert {sid: why for sid, why in shop.differences(START).items() if sid not in late} == {}


def test_backfill_reads_exactly_its_interval_and_never_moves_a_row_back(tmp_path):
    with mirror(tmp_path, orders_per_hour=600) as shop:
        for _ in range(6):
            shop.tick()
        before = dict(shop.rows("SELECT sid, _version FROM kuaimai_trade"))
        filled = shop.run(START - timedelta(hours=3), START)
        after = dict(shop.rows("SELECT sid, _version FROM kuaimai_trade"))
        assert filled.sealed
        assert filled.inserted > 0
        assert all(after[sid] >= version for sid, version in before.items())
        assert shop.differences(START - timedelta(hours=3)) == {}


def test_backfill_in_pieces_gives_the_rows_that_live_runs_would_have_given(tmp_path):
    hour = timedelta(hours=1)
    (tmp_path / "live").mkdir()
    (tmp_path / "later").mkdir()
    with mirror(tmp_path / "live", orders_per_hour=300) as live:
        for _ in range(12):
            live.tick()
        expected = live.rows("SELECT sid, _version, _content_hash FROM kuaimai_trade ORDER BY sid")
        expected = [row for row in expected if row[1] >= START.timestamp() * 1000]
    with mirror(tmp_path / "later", orders_per_hour=300) as later:
        later.clock.advance(hour.total_seconds())
        at = START
        while at < START + hour:
            assert later.run(at, at + TICK).sealed
            at += TICK
        assert later.rows("SELECT sid, _version, _content_hash FROM kuaimai_trade ORDER BY sid") == expected


def test_bad_records_are_set_aside_whole_and_the_window_still_seals(tmp_path):
    faults = Faults(bad_amount=0.02, bad_time=0.02, no_sid=0.02)
    with mirror(tmp_path, faults=faults) as shop:
        summary = shop.run(START - timedelta(days=2), START)
        assert summary.sealed
        assert summary.quarantined > 0
        assert summary.read == summary.landed + summary.quarantined
        reasons = {reason.split(":")[0] for (reason,) in shop.rows("SELECT reason FROM kuaimai_quarantine")}
        assert reasons == {"payment", "payTime", "sid"}
        ((record,),) = shop.rows("SELECT record FROM kuaimai_quarantine WHERE reason LIKE 'payTime%' LIMIT 1")
        assert '"orders":[' in record
        assert "receiverName" not in record


def test_personal_fields_are_dropped_unless_kept_by_name(tmp_path):
    with mirror(tmp_path) as shop:
        shop.pipeline = shop.pipeline.model_copy(update={"keep_personal": ("receiverState",)})
        shop.run(START - timedelta(hours=3), START)
        columns = {row[1] for row in shop.rows("PRAGMA table_info(kuaimai_trade)")}
        assert "receiver_state" in columns
        assert not columns & {"receiver_name", "receiver_mobile", "buyer_nick", "receiver_address"}


def test_enriched_shops_get_the_fuller_record(tmp_path):
    with mirror(tmp_path) as shop:
        shop.run(START - timedelta(days=1), START)
        ranks = dict(
            shop.rows("SELECT source, max(_rank) FROM kuaimai_trade WHERE source <> 'sys' GROUP BY source")
        )
        assert ranks["fxg"] == ranks["jd"] == 1
        assert ranks["tb"] == ranks["pdd"] == 0


@pytest.mark.parametrize("failure", ["429", "503", "truncated", "html", "busy", "disconnect"])
def test_gateway_that_never_recovers_fails_the_run_and_stores_nothing(tmp_path, failure):
    with mirror(tmp_path) as shop:
        shop.run(START - timedelta(hours=2), START - timedelta(hours=1))
        before = shop.rows("SELECT count(*) FROM kuaimai_trade")
        shop.box.faults.plan = [Failure(failure, share=1.0)]
        with pytest.raises(KuaimaiError):
            shop.run(START - timedelta(hours=1), START)
        assert shop.rows("SELECT count(*) FROM kuaimai_trade") == before
        assert shop.open_windows() == 0


def test_page_number_that_is_ignored_is_told_and_nothing_counts_as_read(tmp_path, monkeypatch):
    with mirror(tmp_path, orders_per_hour=600) as shop:
        crowd(shop)
        send = shop.client.wire.send

        def always_page_one(method, params, *, session):
            return send(
                method, {**params, **({"pageNo": "1"} if "pageNo" in params else {})}, session=session
            )

        monkeypatch.setattr(shop.client.wire, "send", always_page_one)
        with pytest.raises(DataError, match="ignores the page number"):
            shop.run(START, START + timedelta(minutes=10))


def test_time_parameters_that_are_ignored_are_told(tmp_path, monkeypatch):
    with mirror(tmp_path) as shop:
        send = shop.client.wire.send
        wide = {"startTime": "2026-02-25 00:00:00", "endTime": "2026-02-25 23:59:59"}

        def another_day(method, params, *, session):
            return send(method, {**params, **(wide if "startTime" in params else {})}, session=session)

        monkeypatch.setattr(shop.client.wire, "send", another_day)
        with pytest.raises(DataError, match="ignores the time parameters"):
            shop.run(START - timedelta(hours=1), START)
