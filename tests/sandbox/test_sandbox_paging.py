"""The sandbox's order queries over HTTP: windows, pages, and everything that makes paging hard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta

import pytest
import requests
from sandbox_caller import ORDER_LIST, OUTSTOCK, Caller, text

from kuaimai.sandbox import Faults, Sandbox, World
from kuaimai.sandbox.world import GMT8

START = datetime(2026, 3, 1, tzinfo=GMT8)
HOUR, DAY = 3_600, 86_400


@pytest.fixture
def opened(clock) -> Iterator[Callable[..., Caller]]:
    """Open a sandbox whose clock stands 12 hours after its start."""
    with ExitStack() as stack:

        def open_(*faults: str, hours: float = 12, **settings) -> Caller:
            world = World(START, **({"history_orders": 110, "orders_per_hour": 8} | settings))
            clock.at = world.start_second + hours * HOUR + 0.5
            box = stack.enter_context(Sandbox(world, Faults.parse(list(faults)), clock))
            return Caller(box, stack.enter_context(requests.Session()))

        yield open_


def not_archived(caller: Caller, method: str = OUTSTOCK) -> dict[str, dict]:
    oldest = (caller.box.clock() - 60 * DAY) * 1000
    return {sid: row for sid, row in caller.box.truth(method).items() if row["created"] > oldest}


def test_page_by_page_an_ideal_reader_gets_the_truth(opened):
    caller = opened()
    pages = list(caller.pages(size=30, **caller.window()))
    rows = {str(row["sid"]): row for page in pages for row in page["list"]}
    assert rows == not_archived(caller)
    assert pages[0]["total"] == len(rows) == sum(len(page["list"]) for page in pages)
    assert not any("total" in page for page in pages[1:])
    assert [len(page["list"]) for page in pages[:-1]] == [30] * (len(pages) - 1)


def test_the_order_list_covers_some_platforms_only(opened):
    caller = opened(shop_count=12)
    rows = caller.everything(method=ORDER_LIST)
    assert rows == not_archived(caller, ORDER_LIST)
    covered = {row["userId"] for row in rows.values()}
    assert covered == {900001, 900003, 900005, 900006, 900007, 900009, 900010, 900012}
    assert all(row["payment"] for row in rows.values())
    for shop in (900002, 900004, 900008, 900011, 123):
        assert caller.call(ORDER_LIST, userIds=shop, **caller.window())["code"] == "33"
    caller.box.faults.exclude_1688 = True
    assert caller.call(ORDER_LIST, userIds=900010, **caller.window())["code"] == "33"


def test_has_next_replaces_the_total(opened):
    caller = opened()
    pages = list(caller.pages(size=30, useHasNext="true", **caller.window()))
    assert [page["hasNext"] for page in pages] == [True] * (len(pages) - 1) + [False]
    assert not any("total" in page for page in pages)


@pytest.mark.parametrize("end", ["has_next", "missing", "same", "empty"])
def test_a_cursor_leads_through_all_rows_and_ends_in_one_of_four_ways(opened, end):
    caller = opened(f"cursor_end={end}")
    seen: list[int] = []
    cursor: dict[str, str] = {}
    while True:
        page = caller.call(OUTSTOCK, pageSize=30, useCursor="true", **cursor, **caller.window())
        seen += [row["sid"] for row in page["list"]]
        assert "total" not in page
        if (
            not page["list"]
            or page.get("hasNext") is False
            or page.get("cursor") in {None, cursor.get("cursor")}
        ):
            break
        cursor = {"cursor": page["cursor"]}
    assert len(seen) == len(set(seen)) == len(not_archived(caller))
    assert ("hasNext" in page) == (end == "has_next")
    assert caller.call(OUTSTOCK, useCursor="true", cursor="?", **caller.window())["code"] == "50"


@pytest.mark.parametrize(
    ("time_type", "field"),
    [
        ("upd_time", "updTime"),
        ("created", "created"),
        ("pay_time", "payTime"),
        ("consign_time", "consignTime"),
        ("audit_time", "auditTime"),
    ],
)
def test_windows_are_strict_and_include_both_ends(opened, time_type, field):
    caller = opened()
    times = sorted(row[field] // 1000 for row in not_archived(caller).values() if row[field] > 10**12)
    first, last = times[30], times[60]
    rows = caller.rows(**caller.window(first, last, time_type))
    assert sorted(row[field] // 1000 for row in rows) == [time for time in times if first <= time <= last]
    assert len(rows) >= 31


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"pageSize": 201}, "33"),
        ({"pageSize": 0}, "20002"),
        ({"pageSize": "x"}, "20002"),
        ({"pageNo": 0}, "20001"),
        ({"pageNo": "-1"}, "20001"),
        ({"userIds": "900001,shop"}, "20014"),
        ({"userIds": ",".join(str(900001 + at) for at in range(11))}, "20015"),
        ({"sid": "12a"}, "20009"),
        ({"status": "SHIPPED"}, "50"),
        ({"timeType": "modified"}, "50"),
        ({"queryType": 2}, "50"),
        ({"queryType": 1}, "50"),
        ({"startTime": "2026-03-01"}, "50"),
        ({"startTime": "2026-03-02 00:00:00", "endTime": "2026-03-01 00:00:00"}, "50"),
        ({"startTime": ""}, "32"),
        ({"pageSize": 200}, None),
        ({"pageSize": 5}, None),
        ({"userIds": ",".join(str(900001 + at) for at in range(10))}, None),
    ],
)
def test_parameters_are_refused_with_documented_codes(opened, params, code):
    caller = opened()
    answer = caller.call(OUTSTOCK, **{**caller.window(), **params})
    assert answer.get("code") == code
    assert answer["success"] is (code is None)


def test_shops_statuses_and_ids_select_rows(opened):
    caller = opened()
    truth = not_archived(caller)
    window = caller.window()
    assert {row["userId"] for row in caller.rows(userIds="900001,900003", **window)} == {900001, 900003}
    shipped = {row["sid"] for row in caller.rows(status="FINISHED,SELLER_SEND_GOODS", **window)}
    assert shipped == {
        row["sid"] for row in truth.values() if row["sysStatus"] in {"FINISHED", "SELLER_SEND_GOODS"}
    }
    row = next(row for row in truth.values() if row["source"] == "fxg" and row["outSid"])
    for params in ({"sid": row["sid"]}, {"tid": row["tid"]}, {"outSids": row["outSid"]}):
        answer = caller.call(OUTSTOCK, **params)
        assert row in answer["list"]
        assert answer["total"] == len(answer["list"]) <= 2
    assert caller.call(OUTSTOCK, sid="1,2", tid="?", outSids="?")["list"] == []


def test_an_empty_window_is_an_empty_list_or_no_list(opened):
    caller = opened()
    window = caller.window(0, 100)
    assert caller.call(OUTSTOCK, **window)["list"] == []
    assert caller.call(OUTSTOCK, **window)["total"] == 0
    caller.box.faults.omit_empty_list = True
    assert "list" not in caller.call(OUTSTOCK, **window)


def test_the_archive_has_rules_of_its_own(opened):
    caller = opened()
    truth = caller.box.truth()
    window = caller.window(0, caller.box.clock(), "created")
    pages = list(caller.pages(size=20, queryType=1, useCursor="true", **window))
    old = {str(row["sid"]) for page in pages for row in page.get("list", ())}
    assert old == truth.keys() - not_archived(caller).keys()
    assert len(old) >= 40
    assert not any(page.keys() & {"total", "cursor", "hasNext"} for page in pages)
    empty = caller.call(OUTSTOCK, queryType=1, **caller.window(0, 100, "created"))
    assert empty.keys() == {"success", "traceId"}
    assert old.isdisjoint(str(row["sid"]) for row in caller.rows(**window))


def test_orders_move_to_the_archive_after_three_months(opened, clock):
    caller = opened("session_ttl=1e8", orders_per_hour=0)
    clock.advance(87 * DAY)
    recent = len(caller.everything())
    clock.advance(DAY)
    assert 0 < len(caller.everything()) < recent


def test_the_default_time_type_is_a_switch(opened):
    caller = opened()
    window = {**caller.window()}
    del window["timeType"]
    assert caller.call(OUTSTOCK, **window)["total"] == len(not_archived(caller))
    caller.box.faults.default_time_type = "pay_time"
    assert caller.call(OUTSTOCK, **window)["total"] < len(not_archived(caller))


def test_page_cap_total_and_small_pages_are_switches(opened):
    caller = opened("page_cap=30", "total_first_page_only=false", "strict_min_page")
    page = caller.call(OUTSTOCK, pageNo=2, pageSize=100, **caller.window())
    assert len(page["list"]) == 30
    assert page["total"] == len(not_archived(caller))
    assert caller.call(OUTSTOCK, pageSize=19, **caller.window())["code"] == "20002"


def test_too_large_answers_are_refused(opened):
    caller = opened("max_bytes=65536")
    assert caller.call(OUTSTOCK, pageSize=200, **caller.window())["msg"] == "data length too large"
    assert caller.call(OUTSTOCK, pageSize=10, **caller.window())["success"] is True


def test_duplicates_push_the_rows_behind_them_back(opened):
    caller = opened("duplicates=3")
    rows = caller.rows(size=30, **caller.window())
    repeated = [sid for sid, times in Counter(row["sid"] for row in rows).items() if times > 1]
    assert len(repeated) >= 3
    assert {str(row["sid"]) for row in rows} == not_archived(caller).keys()


def test_shuffles_change_the_order_and_nothing_else(opened):
    caller = opened("shuffle_rows", "shuffle_lines")
    one, two = (caller.call(OUTSTOCK, pageSize=200, **caller.window())["list"] for _ in range(2))
    assert [row["sid"] for row in one] != [row["sid"] for row in two]
    two_by_sid = {row["sid"]: row for row in two}
    assert one[0].keys() == two_by_sid[one[0]["sid"]].keys()
    differing = 0
    for row in one:
        mine, theirs = row["orders"], two_by_sid[row["sid"]]["orders"]
        assert sorted(line["id"] for line in mine) == sorted(line["id"] for line in theirs)
        differing += mine != theirs
    assert differing


def test_rows_of_one_second_may_change_places_between_pages(opened):
    caller = opened("unstable_ties", history_orders=100, days_back=0.0001)
    window = caller.window(caller.box.world.start_second - 60, caller.box.world.start_second, "created")
    one, two = ([row["sid"] for row in caller.rows(size=20, **window)] for _ in range(2))
    assert one != two
    assert len(one) == len(two)


def test_drift_moves_read_rows_so_that_others_are_skipped(opened):
    caller = opened("drift=2", "drift_touch=2", "drift_times=1")
    window = caller.window(0, caller.box.clock() - HOUR)
    pages = list(caller.pages(size=20, **window))
    first_read = {row["sid"] for page in pages for row in page["list"]}
    assert len(first_read) == pages[0]["total"] - 2
    second = caller.rows(size=20, **window)
    moved = [row for row in caller.rows(**caller.window(caller.box.clock() - HOUR)) if row["sysMemo"]]
    assert len(moved) == 2
    assert {row["updTime"] // 1000 for row in moved} == {int(caller.box.clock())}
    assert {
        str(row["sid"]) for row in (*second, *caller.rows(**caller.window(caller.box.clock() - HOUR)))
    } == set(not_archived(caller))


def test_drift_may_insert_orders(opened):
    caller = opened("drift=1", "drift_insert=3", "drift_touch=0", "drift_times=1")
    before = len(not_archived(caller))
    window = caller.window()
    list(caller.pages(size=30, **window))
    assert caller.call(OUTSTOCK, **window)["total"] == before + 3
    assert len(not_archived(caller)) == before + 3
    new = max(not_archived(caller))
    assert caller.call(OUTSTOCK, sid=new)["list"][0]["updTime"] // 1000 == int(caller.box.clock())


def test_drift_also_moves_rows_of_a_merchant_who_stands_still(opened):
    drift = ("drift=1", "drift_touch=2", "drift_insert=1", "drift_times=1")
    caller = opened(*drift, until=START + timedelta(hours=11))
    before = set(not_archived(caller))
    pages = caller.pages(size=20, **caller.window(0, caller.box.clock() - HOUR))
    read = {str(row["sid"]) for page in pages for row in page["list"]}
    assert len(before - read) == 2
    assert len(set(not_archived(caller)) - before) == 1


def test_drift_is_the_same_every_time(opened):
    def scan() -> list[list[int]]:
        caller = opened("drift=2")
        return [[row["sid"] for row in page["list"]] for page in caller.pages(size=20, **caller.window())]

    assert scan() == scan()


def test_late_rows_become_visible_after_their_own_time(opened, clock):
    caller = opened("late_rows=0.5", "late_seconds=600", orders_per_hour=120, hours=2)
    now = int(clock())
    window = caller.window(now - 900, now)
    at_once = {row["sid"] for row in caller.rows(**window)}
    clock.advance(600)
    later = {row["sid"] for row in caller.rows(**window) if row["updTime"] <= now * 1000}
    assert later - at_once
    assert caller.everything() == not_archived(caller)
    caller.box.faults.late_rows = 0.0
    assert caller.everything() == not_archived(caller)


def test_null_modified_orders_are_found_by_created_only(opened):
    caller = opened("null_modified=0.1")
    by_change = caller.everything()
    by_creation = {str(row["sid"]): row for row in caller.rows(**caller.window(time_type="created"))}
    assert by_creation == not_archived(caller)
    missed = [row for sid, row in by_creation.items() if sid not in by_change]
    assert missed
    assert all(row["modified"] is None for row in missed)
    assert all(row["modified"] for row in by_change.values())


def test_loose_pay_time_returns_rows_paid_before_the_window(opened):
    caller = opened("loose_pay_time=0.1")
    first = caller.box.world.start_second
    for method, strict in ((OUTSTOCK, False), (ORDER_LIST, True)):
        rows = caller.rows(method, **caller.window(first, time_type="pay_time"))
        assert all(row["payTime"] >= first * 1000 for row in rows) is strict


def test_wide_windows_may_miss_rows(opened):
    caller = opened("wide_window_misses=0.1")
    assert len(caller.everything()) < len(not_archived(caller))
    day = caller.window(caller.box.clock() - DAY)
    first = (int(caller.box.clock()) - DAY) * 1000
    assert len(caller.rows(**day)) == sum(row["updTime"] >= first for row in not_archived(caller).values())


def test_bad_records_are_served_and_named(opened):
    caller = opened("bad_time=0.03", "bad_amount=0.03", "no_sid=0.03")
    rows = caller.rows(**caller.window())
    truth = not_archived(caller)
    bad = {sid: why for sid, why in caller.box.bad().items() if sid in truth}
    assert Counter(bad.values()) == {
        "no_sid": sum("sid" not in row for row in rows),
        "bad_time": sum(not isinstance(row["payTime"], int) for row in rows),
        "bad_amount": sum(row.get("payment") == "12,3x" for row in rows),
    }
    assert len(set(bad.values())) == 3
    assert len(rows) == len(truth)


def test_live_pages_show_what_happened_until_now(opened, clock):
    caller = opened()
    seen = caller.everything()
    clock.advance(300)
    window = caller.window(clock() - 300)
    changed = {str(row["sid"]): row for row in caller.rows(**window)}
    assert changed
    assert seen | changed == not_archived(caller)


def test_truth_can_be_asked_for_another_instant(opened, clock):
    caller = opened()
    before = caller.box.truth()
    then = clock()
    clock.advance(6 * HOUR)
    assert caller.box.truth() != before
    assert caller.box.truth(at=then) == before
    with pytest.raises(KeyError, match="no truth"):
        caller.box.truth("open.token.refresh")


def test_the_same_requests_give_the_same_bytes(opened):
    def bodies() -> list[bytes]:
        caller = opened()
        return [
            caller.post(OUTSTOCK, pageNo=page, pageSize=30, **caller.window()).content for page in (1, 2, 3)
        ]

    assert bodies() == bodies()


def test_times_are_read_as_gmt8_whatever_the_zone_of_the_process(opened, monkeypatch):
    monkeypatch.setenv("TZ", "America/New_York")
    caller = opened()
    assert text(caller.box.world.start_second) == "2026-03-01 00:00:00"
    row = caller.rows(**caller.window(caller.box.clock() - HOUR))[0]
    second = row["updTime"] // 1000
    assert row in caller.rows(**caller.window(second, second))
