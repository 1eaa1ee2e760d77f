"""What a list leaves out comes by one call per record: complete, not asked for twice, in nobody's way."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

import pytest
from installation import CHINA, START, mirror
from moving_set import MemoryStaging

from kuaimai.errors import DataError, KuaimaiError, Rejected, Transient
from kuaimai.extract.by_id import read_ids
from kuaimai.extract.details import ask_details, composed, read_details
from kuaimai.extract.reads import Read
from kuaimai.extract.windows import Window
from kuaimai.gateway import catalog
from kuaimai.gateway.answers import Answer, encode_json, read_envelope
from kuaimai.pipeline import stages
from kuaimai.sandbox import Failure, Faults

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
GET = "purchase.order.get"


def pieces(shop, start=START - 2 * DAY, end=START, run="run"):
    return shop.plan(start, end, run=run)


def asked(shop) -> Counter[str]:
    """How often each order's lines were given."""
    return Counter(
        one.params["id"]
        for one in shop.box.requests
        if one.method == GET and one.status == 200 and one.code is None
    )


def extract(shop, piece):
    return stages.extract(shop.pipeline, piece, shop.client, shop.staging, now=shop.clock)


def finish(shop, extracted):
    transformed = stages.transform(shop.pipeline, extracted, shop.staging)
    return stages.load(shop.pipeline, transformed, shop.staging, shop.target)


def test_lines_are_asked_for_once_for_each_record_that_the_list_brings(tmp_path):
    with mirror(tmp_path, pipeline="purchases") as shop:
        summary = shop.run(START - 2 * DAY, START)
        assert set(asked(shop).values()) == {1}
        assert len(asked(shop)) == summary.landed > 10
        assert summary.requests == summary.landed + 2


def test_lines_follow_a_change_of_their_order(tmp_path, pg_url):
    with mirror(tmp_path, pg_url, pipeline="purchases") as shop:
        shop.run(START - 6 * DAY, START)
        before = shop.living(shop.pipeline.records[1])
        for _ in range(8):
            start = datetime.fromtimestamp(shop.clock(), CHINA)
            shop.clock.advance(3600)
            assert shop.run(start, start + HOUR, live=True).sealed
        after = shop.living(shop.pipeline.records[1])
        assert [key for key in before if key in after and after[key] != before[key]]
        assert shop.wrong(since=START) == []


def test_task_that_died_goes_on_where_it_was(tmp_path):
    with mirror(tmp_path, pipeline="purchases") as shop:
        piece = pieces(shop)[0]
        shop.box.faults.plan = [Failure("500", at=number, method=GET) for number in range(6, 200)]
        with pytest.raises(KuaimaiError):
            extract(shop, piece)
        given = asked(shop)
        assert given
        shop.box.faults.plan = []
        window = finish(shop, extract(shop, piece)).windows[0]
        assert window.state == "sealed"
        assert set(asked(shop).values()) == {1}
        assert asked(shop).total() > given.total()


def test_lines_of_long_ago_are_asked_for_again(tmp_path):
    with mirror(tmp_path, pipeline="purchases") as shop:
        piece = pieces(shop)[0]
        extract(shop, piece)
        shop.clock.advance(3 * 3600)
        finish(shop, extract(shop, piece))
        assert set(asked(shop).values()) == {2}


def refusing(shop, *keys: str) -> None:
    """Let the gateway refuse the lines of some orders."""
    call = shop.client.call

    def answer(method, params):
        if method == GET and (not keys or params["id"] in keys):
            raise Rejected("the gateway refused: 单据不存在", method=method, code="50")
        return call(method, params)

    shop.client.call = answer


def test_order_whose_lines_are_refused_is_set_aside_and_holds_up_no_other(tmp_path):
    with mirror(tmp_path, pipeline="purchases") as shop:
        piece = pieces(shop)[0]
        first, *others = sorted(asked_for(shop, piece))
        plain = shop.client.call
        refusing(shop, first)
        window = finish(shop, extract(shop, piece)).windows[0]
        assert (window.state, window.quarantined, window.landed) == ("sealed", 1, len(others))
        ((key, reason),) = shop.rows("SELECT record_key, reason FROM kuaimai_quarantine")
        assert key == first
        assert reason.startswith("lines: ")
        assert "单据不存在" in reason

        shop.client.call = plain
        shop.clock.advance(60)
        again = pieces(shop, run="again")[0]
        finish(shop, extract(shop, again))
        assert shop.rows("SELECT count(*) FROM kuaimai_quarantine WHERE resolved_at IS NULL") == [(0,)]


def asked_for(shop, piece) -> set[str]:
    first, last = (moment.timestamp() * 1000 for moment in (piece.window.start, piece.window.end))
    return {key for key, one in shop.truth().items() if first <= one["modified"] <= last}


def test_method_that_refuses_everything_fails_the_task(tmp_path):
    with mirror(tmp_path, pipeline="purchases") as shop:
        piece = pieces(shop)[0]
        refusing(shop)
        for _ in range(2):  # a retry does not take the refusals for answers
            with pytest.raises(Rejected, match="单据不存在"):
                extract(shop, piece)


@pytest.mark.parametrize("name", ["aftersales", "purchases"])
@pytest.mark.parametrize(
    "faults",
    [
        Faults.parse(["429=0.08", "truncated=0.05", "502=0.03", "disconnect_mid=0.03"]),
        Faults(page_cap=5, total_as_string=True),
        Faults(duplicates=2, shuffle_rows=True, shuffle_lines=True),
        Faults(wrap_response=True, omit_empty_list=True, trace_key="random"),
        Faults(drift=1, drift_times=3, page_cap=3),
    ],
    ids=["failures", "capped", "repeated", "wrapped", "moving"],
)
def test_windows_are_complete_whatever_the_gateway_does(tmp_path, name, faults):
    world = {"archive_orders": 0, "archive_documents": 0, "history_orders": 900}
    with mirror(tmp_path, pipeline=name, faults=faults, **world) as shop:
        shop.run(START - 8 * DAY, START)
        for _ in range(4):  # what moved away is in a later window
            start = datetime.fromtimestamp(shop.clock(), CHINA)
            shop.clock.advance(900)
            shop.run(start, start + HOUR / 4, live=True)
        assert shop.wrong(since=START) == []
        assert shop.open_windows() == 0


@pytest.mark.parametrize("name", ["aftersales", "items", "purchases", "receipts", "stock"])
def test_time_that_is_ignored_is_noticed(tmp_path, name):
    with mirror(tmp_path, pipeline=name, faults=Faults(ignore_time=True), items=40) as shop:
        with pytest.raises(DataError, match="lie outside the time that was asked for"):
            shop.run(START - HOUR, START)
        assert shop.open_windows() > 0


def test_list_whose_count_was_only_guessed_is_proven_by_its_readings(tmp_path):
    with mirror(tmp_path, pipeline="purchases", faults=Faults(no_total=True), archive_documents=0) as shop:
        summary = shop.run(START - 8 * DAY, START)
        assert (summary.sealed, summary.landed) == (True, len(shop.truth()))
        proofs = shop.rows("SELECT DISTINCT proof FROM kuaimai_window WHERE landed > 0")
        assert proofs == [("readings",)]
        assert shop.wrong() == []


def test_list_that_is_known_to_count_and_does_not_stays_open(tmp_path):
    with mirror(tmp_path, pipeline="aftersales", faults=Faults(no_total=True)) as shop:
        summary = shop.run(START - DAY, START)
        assert not summary.sealed
        assert "the gateway sent no total" in summary.open_windows[0]


def test_bad_records_are_set_aside_and_counted(tmp_path):
    with mirror(tmp_path, pipeline="purchases", faults=Faults(bad_amount=0.1, bad_time=0.1)) as shop:
        summary = shop.run(START - 4 * DAY, START)
        assert summary.sealed
        assert summary.quarantined > 0


class Scripted:
    """A gateway that gives an answer for each page number; other pages are empty."""

    requests = 0

    def __init__(self, *bodies):
        self.bodies = bodies

    def call(self, method, params):
        self.requests += 1
        number = int(params.get("pageNo", 1))
        body = self.bodies[number - 1] if number <= len(self.bodies) else {"list": []}
        return Answer(method, read_envelope(method, encode_json(body)), encode_json(body))


def test_lines_that_come_short_of_their_count_mark_none_as_gone(tmp_path, monkeypatch):
    with mirror(tmp_path, pipeline="purchases", archive_documents=0) as shop:
        shop.run(START - DAY, START)
        lines = shop.living(shop.pipeline.records[1])
        assert lines
        send = shop.client.wire.send

        def empty(method, params, *, session):
            if method != GET:
                return send(method, params, session=session)
            raw = encode_json({"success": True, "total": 3, "list": []})
            return Answer(method, read_envelope(method, raw), raw)

        monkeypatch.setattr(shop.client.wire, "send", empty)
        with pytest.raises(Transient, match="0 of 3 lines came"):
            shop.run(START - DAY, START)
        assert shop.living(shop.pipeline.records[1]) == lines


@pytest.mark.parametrize("second", [[], [{"outerId": "0"}]], ids=["empty", "page number ignored"])
def test_second_page_of_lines_that_brings_nothing_is_not_taken_for_their_end(second):
    detail = catalog.method("erp.allocate.task.query").detail
    first = {"list": [{"outerId": "0"}], "total": 2}
    with pytest.raises(Transient, match="1 of 2 lines came"):
        ask_details(Scripted(first, {"list": second}), detail, "DB1")


@pytest.mark.parametrize("alone", [True, False])
def test_id_that_is_counted_and_does_not_come_is_not_absent(alone):
    ids = ["1"] if alone else ["1", "2"]
    with pytest.raises(Transient, match="0 of 1 records came"):
        read_ids(
            Scripted({"list": [], "total": 1}),
            "erp.trade.outstock.simple.query",
            ids,
            window=Window(START - HOUR, START, "created"),
            shops=["900001"],
            rank=0,
            staging=MemoryStaging(),
            folder="ids",
        )


@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("by_number", [True, False], ids=["pages", "page number ignored"])
def test_lines_on_further_pages_are_not_lost_where_nothing_counts_them(counted, by_number):
    """That the lines of an allocation are counted is not sure; they come in pages all the same."""
    method = "erp.allocate.task.query"
    lines = [{"outerId": str(number)} for number in range(250 if by_number else 150)]

    class Gateway:
        requests = 0

        def call(self, method, params):
            self.requests += 1
            first = (int(params["pageNo"]) - 1) * 200 if by_number else 0
            body = {"list": lines[first : first + 200], **({"total": len(lines)} if counted else {})}
            return Answer(method, read_envelope(method, encode_json(body)), encode_json(body))

    staging = MemoryStaging()
    raw = encode_json({"list": [{"id": "1", "code": "DB1", "modified": 1_772_326_800_000}], "total": 1})
    staging.write_compressed("r/1.json.zst", raw)
    one = Read(
        method=method,
        window=Window(START - HOUR, START, "modified"),
        shops=("",),
        rank=0,
        request={},
        folder="r",
        files=("1",),
        rows=1,
        distinct=1,
        total_before=1,
        total_after=1,
        attempts=1,
        requests=1,
        first_read_at=START,
        last_read_at=START,
        proof="snapshot",
    )
    whole = read_details(Gateway(), one, staging, connections=1)
    (answer,) = composed(whole, [Answer(method, read_envelope(method, raw), raw)], staging)
    ((record,),) = [answer.rows(["list"])]
    assert record["lines"] == lines
