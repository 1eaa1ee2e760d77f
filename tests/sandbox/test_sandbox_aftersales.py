"""The sandbox's after-sale work orders: their windows, their pages, their mixed units."""

from __future__ import annotations

import json

from sandbox_caller import ORDER_LIST, OUTSTOCK, text

AFTERSALES = "erp.aftersale.list.query"
NO_TIME = "946656000000"
DAY = 86_400


def by_id(rows: list[dict]) -> dict[str, dict]:
    return {str(row["id"]): row for row in rows}


def test_page_by_page_an_ideal_reader_gets_the_truth(open_box):
    caller = open_box()
    pages = list(
        caller.pages(AFTERSALES, size=7, startModified=text(0), endModified=text(caller.box.clock()))
    )
    rows = [row for page in pages for row in page["list"]]
    assert by_id(rows) == caller.box.truth(AFTERSALES)
    assert len(rows) > 20
    assert {page["total"] for page in pages} == {len(rows)}
    assert [row["modified"] for row in rows] == sorted(row["modified"] for row in rows)


def test_the_default_page_holds_one_row(open_box):
    caller = open_box()
    assert len(caller.call(AFTERSALES)["list"]) == 1
    assert len(caller.call(AFTERSALES, pageSize=200)["list"]) > 1
    assert caller.call(AFTERSALES, pageSize=201)["code"] == "33"
    assert caller.call(AFTERSALES, pageNo=0)["code"] == "20001"


def test_the_names_that_orders_know_are_ignored(open_box):
    caller = open_box()
    everything = caller.call(AFTERSALES, pageSize=200)["total"]
    ignored = caller.call(AFTERSALES, timeType="upd_time", startTime=text(0), endTime=text(1), pageSize=200)
    assert ignored["total"] == everything
    assert caller.call(AFTERSALES, startModified="2026-03-01")["code"] == "50"
    assert caller.call(AFTERSALES, startModified=text(9), endModified=text(8))["code"] == "50"


def test_each_window_asks_for_its_own_field(open_box):
    caller = open_box()
    truth = caller.box.truth(AFTERSALES).values()
    first, last = caller.box.clock() - 3 * DAY, caller.box.clock() - DAY
    for start, end, field in (
        ("startModified", "endModified", "modified"),
        ("startApplyTime", "endApplyTime", "applyDate"),
        ("startFinished", "endFinished", "finished"),
        ("startPlatformCompleteTime", "endPlatformCompleteTime", "platformCompleteTime"),
    ):
        rows = caller.rows(AFTERSALES, **{start: text(first), end: text(last)})
        inside = [row for row in truth if first - 1 < int(row[field]) / 1000 <= last]
        assert by_id(rows) == by_id(inside)
        assert 0 < len(rows) < len(truth)


def test_amounts_are_yuan_in_the_header_and_fen_in_the_lines(open_box):
    rows = open_box().rows(AFTERSALES)
    with_lines = [row for row in rows if row["items"]]
    assert with_lines
    assert any(not row["items"] and row["sid"] == -1 for row in rows)
    for row in with_lines:
        line = row["items"][0]
        assert type(line["rawRefundMoney"]) is int
        assert row["rawRefundMoney"] == line["refundMoney"] == f"{line['rawRefundMoney'] / 100:.2f}"
        assert row["refundMoney"] == line["rawRefundMoney"] / 100


def test_times_are_digits_in_text_and_statuses_may_be_lists(open_box):
    rows = open_box(orders_per_hour=40).rows(AFTERSALES)
    assert all(row["created"].isdecimal() and type(row["modified"]) is int for row in rows)
    assert {row["status"] for row in rows} == {2, 9, "2,10"}
    assert all((row["finished"] == NO_TIME) == (row["status"] != 9) for row in rows)


def test_work_orders_belong_to_refunded_orders(open_box):
    caller = open_box(archive_orders=0)
    orders = caller.box.truth(OUTSTOCK)
    refunded = {line["refundId"] for row in orders.values() for line in row["orders"] if line.get("refundId")}
    rows = caller.rows(AFTERSALES)
    assert {row["platformId"] for row in rows} == refunded
    split = [row for row in rows if "masterId" in row]
    assert split
    assert all(str(row["masterId"]) in by_id(rows) for row in split)


def test_the_log_of_a_work_order(open_box):
    caller = open_box()
    done = next(row for row in caller.rows(AFTERSALES) if row["onlineStatus"] == 7)
    log = caller.call("erp.aftersale.operate.log.query", workOrderId=done["id"])["list"]
    assert [row["operateTime"] for row in log] == [
        int(done["created"]), int(done["finished"]), done["platformCompleteTime"],
    ]  # fmt: skip
    assert caller.call("erp.aftersale.operate.log.query")["code"] == "32"


def test_a_refund_changes_its_work_order_days_later(open_box, clock):
    caller = open_box(hours=1)
    before = caller.box.truth(AFTERSALES)
    clock.advance(2 * DAY)
    changed = caller.rows(AFTERSALES, startModified=text(clock.at - 2 * DAY), endModified=text(clock.at))
    moved = [row for row in changed if str(row["id"]) in before and row["onlineStatus"] == 7]
    assert moved
    assert caller.box.truth(AFTERSALES, at=clock.at - 2 * DAY) == before


def test_switches_hold_for_this_list_too(open_box):
    caller = open_box("total_as_string", "page_cap=5", "shuffle_rows", "trace_key=trace_id")
    page = caller.call(AFTERSALES, pageSize=50)
    assert page["total"] == str(len(caller.box.truth(AFTERSALES)))
    assert len(page["list"]) == 5
    assert "trace_id" in page
    caller.box.faults.reset()
    caller.box.faults.ignore_time = True
    everything = caller.call(AFTERSALES, startModified=text(0), endModified=text(1), pageSize=200)
    assert by_id(everything["list"]) == caller.box.truth(AFTERSALES)
    caller.box.faults.set_text("no_total")
    assert "total" not in caller.call(AFTERSALES)
    caller.box.faults.set_text("omit_empty_list")
    assert "list" not in caller.call(AFTERSALES, id=1)


def test_rows_that_were_read_move_while_the_next_page_is_asked_for(open_box):
    caller = open_box("drift=2", "drift_touch=3", "drift_times=1")
    window = {"startModified": text(0), "endModified": text(caller.box.clock())}
    rows = [row["id"] for row in caller.rows(AFTERSALES, size=10, **window)]
    truth = caller.box.truth(AFTERSALES)
    assert len(set(rows)) < len(truth)  # rows moved up, over the page border
    again = by_id(caller.rows(AFTERSALES, size=200, **window))
    assert again == truth
    assert sum(row["modified"] == int(caller.box.clock()) * 1000 for row in truth.values()) == 3


def test_late_vanished_and_spoilt_rows(open_box):
    caller = open_box()
    everything = caller.box.truth(AFTERSALES)
    caller.box.faults.vanished = 0.3
    left = caller.box.truth(AFTERSALES)
    assert 0 < len(left) < len(everything)
    assert by_id(caller.rows(AFTERSALES)) == left
    caller.box.faults.reset()
    caller.box.faults.late_rows, caller.box.faults.late_seconds = 1.0, 2 * DAY
    assert caller.box.truth(AFTERSALES).keys() < everything.keys()
    caller.box.faults.reset()
    for switch in ("no_sid", "bad_time", "bad_amount"):
        setattr(caller.box.faults, switch, 0.2)
    bad = caller.box.bad(AFTERSALES)
    assert set(bad.values()) == {"no_sid", "bad_time", "bad_amount"}
    rows = caller.rows(AFTERSALES)
    assert sum("id" not in row for row in rows) == list(bad.values()).count("no_sid")
    spoilt = [str(row["id"]) for row in rows if "id" in row and not row["created"].isdecimal()]
    assert sorted(spoilt) == sorted(key for key, why in bad.items() if why == "bad_time")


def test_odd_values_are_served_and_true(open_box):
    caller = open_box("fuzz=0.9")
    rows = caller.rows(AFTERSALES, size=200)
    assert by_id(rows) == caller.box.truth(AFTERSALES)
    everything = json.dumps(rows, ensure_ascii=False)
    assert "🚚" in everything
    assert "\ufffd\ufffd" in everything
    assert any(row["refundWarehouseId"] > 2**53 for row in rows if type(row["refundWarehouseId"]) is int)
    assert any(len(row["textReason"]) > 450 for row in rows)
    assert any(type(row["shortId"]) is str for row in rows)
    orders = caller.rows(ORDER_LIST, **caller.window())
    assert "🚚" in json.dumps(orders, ensure_ascii=False)


def test_the_schema_changes_at_an_instant(open_box, clock):
    caller = open_box()
    caller.box.faults.schema_change = "all"
    caller.box.faults.schema_change_at = clock.at
    before = caller.rows(AFTERSALES)
    assert all("platformExtra" not in row and "textReason" in row for row in before)
    clock.advance(DAY)
    for method, version, key in ((AFTERSALES, "modified", "id"), (OUTSTOCK, "updTime", "sid")):
        rows = caller.box.truth(method).values()
        changed = [row for row in rows if row[version] >= caller.box.faults.schema_change_at * 1000]
        assert 0 < len(changed) < len(rows)
        assert [row for row in rows if "platformExtra" in row] == changed
        assert all(str(row["shortId"]).startswith("V") for row in changed)
        assert all(type(row[key]) is int for row in rows)
    assert by_id(caller.rows(AFTERSALES)) == caller.box.truth(AFTERSALES)
