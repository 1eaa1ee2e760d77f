"""A write API gets every record once, whatever breaks, and the proof says what it took."""

from __future__ import annotations

import json
import logging
import os
import signal
import ssl
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import pytest
import requests
import sqlalchemy as sa
import urllib3
from loads import MINUTES, START, bad, batch, facts, load
from orders import T0, line, order
from workers import workers
from write_api import TOKEN, write_api

from kuaimai.errors import ConfigError, Throttled, Transient
from kuaimai.gateway.answers import encode_json
from kuaimai.load.api import RowAnswers, WriteApi
from kuaimai.load.deliveries import DeliveryBook
from kuaimai.load.parts import LeftOut, Part
from kuaimai.load.posting import HttpTarget
from kuaimai.load.targets import open_target
from kuaimai.transform.mapping import Mapper

BATCHED = {"rows": 10, "rows_key": "array", "answers": RowAnswers("data.result")}
CRASHES = ["hold", "resend", "ask"]


@pytest.fixture
def api():
    with write_api() as made:
        yield made


@pytest.fixture
def book(request, tmp_path):
    server = getattr(request, "param", None)
    return request.getfixturevalue(server) if server else f"sqlite:///{tmp_path}/state.db"


@pytest.fixture
def opened(api, book, clock):
    """A function that opens the target with the settings given; as every process would, anew."""
    made = []

    def open_it(*, token=TOKEN, url=api.url, **settings) -> HttpTarget:
        target = HttpTarget(
            "my_api",
            open_target(book, now=clock),
            api=WriteApi(url, token, ask_url=f"{api.url}/{{key}}", **settings),
            transport=requests.Session(),
            requests_per_second=1e6,
            clock=clock,
            sleep=clock.sleep,
        )
        made.append(target)
        return target

    yield open_it
    for one in made:
        one.close()


def rows(target, statement):
    with target.book.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(statement))]


def test_each_record_is_a_request_with_its_lines(api, opened):
    verdict = load(opened(), [order(1, lines=[line(11), line(12)]), order(2)])
    assert (verdict.state, verdict.landed, verdict.inserted) == ("sealed", 2, 2)
    assert api.taken == ["1", "2"]
    assert [one["id"] for one in api.records["1"]["trade_line"]] == ["11", "12"]


def test_values_arrive_exact(api, opened):
    memo = '尽快🚀�\n"引号"' + "密" * 450
    sent = order(
        9_007_199_254_740_993,
        payment="42.00",
        cost="33.989999999999995",
        sellerMemo=memo,
        payTime=T0 + 123,
        tradeTags=[{"id": 9_007_199_254_740_993, "weight": 0.1}],
    )
    load(opened(), [sent])
    ((_, (got,)),) = api.posts
    assert got["sid"] == "9007199254740993"
    assert (got["payment"], got["cost"], got["seller_memo"]) == ("42.00", "33.989999999999995", memo)
    assert (got["pay_time"], got["consign_time"]) == ("2026-03-01T01:00:00.123Z", None)
    assert got["trade_tags"] == [{"id": 9_007_199_254_740_993, "weight": "float 0.1"}]
    assert got["trade_line"][0]["oid"] == "6900000000000000017"


def test_lists_of_records_go_with_what_stands_beside_them(api, opened):
    load(opened(rows=2, rows_key="array", body={"idCheck": False}), [order(number) for number in (1, 2, 3)])
    assert [(body["idCheck"], len(body["array"])) for body in api.bodies] == [(False, 2), (False, 1)]


def test_what_has_not_changed_is_not_sent_again_and_nothing_older_is(api, opened):
    load(opened(), [order(1, T0 + 5, sysMemo="a")])
    again = load(opened(), [order(1, T0 + 5, sysMemo="a")])
    older = load(opened(), [order(1, T0, sysMemo="b")])
    newer = load(opened(), [order(1, T0 + 6, sysMemo="c")])
    assert (again.unchanged, older.stale, newer.updated) == (1, 1, 1)
    assert {again.state, older.state, newer.state} == {"sealed"}
    assert [row["sys_memo"] for _, posted in api.posts for row in posted] == ["a", "c"]


def test_of_a_slice_every_record_goes_out_once_in_its_fullest_form(api, opened):
    target = opened()
    with target.loading(Mapper("trade").tables) as loading:
        loading.merge(0, batch([order(1), order(2)]))
        loading.merge(1, batch([order(1, sourceName="full")], rank=1))
        base, fuller = loading.seal(facts(0, 2)), loading.seal(facts(1, 1, "w2"))
    assert (base.landed, base.inserted, base.stale, fuller.inserted) == (2, 1, 1, 1)
    assert [(row["sid"], row["source_name"]) for _, posted in api.posts for row in posted] == [
        ("1", "full"),
        ("2", None),
    ]


def test_id_check_sends_a_record_once_only_though_it_changes(api, opened):
    load(opened(id_check=True), [order(1)])
    assert load(opened(id_check=True), [order(1, T0 + 1)]).unchanged == 1
    assert api.taken == ["1"]


def test_only_what_was_refused_is_sent_again(api, opened):
    api.refused = {"2": 2}
    verdict = load(opened(**BATCHED), [order(number) for number in (1, 2, 3)])
    assert (verdict.state, verdict.landed, verdict.quarantined) == ("sealed", 3, 0)
    assert [[row["sid"] for row in body["array"]] for body in api.bodies] == [["1", "2", "3"], ["2"], ["2"]]
    assert Counter(api.taken) == {"1": 1, "2": 1, "3": 1}


def test_what_stays_refused_is_set_aside_with_the_reason_and_counted(api, opened, clock):
    api.refused = {"2": 3}
    verdict = load(opened(**BATCHED), [order(number) for number in (1, 2, 3)])
    assert (verdict.state, verdict.landed, verdict.quarantined) == ("sealed", 2, 1)
    target = opened(**BATCHED)
    assert rows(target, "SELECT pipeline, record_key, reason, resolved_at FROM kuaimai_quarantine") == [
        ("trades→my_api", "2", "2 被占用", None)
    ]
    clock.advance(60)
    assert load(target, [order(number) for number in (1, 2, 3)]).landed == 3
    ((resolved,),) = rows(target, "SELECT resolved_at FROM kuaimai_quarantine")
    assert resolved is not None
    assert Counter(api.taken) == {"1": 1, "2": 1, "3": 1}


def test_slice_that_was_read_before_a_record_was_set_aside_does_not_close_its_quarantine(opened, clock):
    target = opened()
    read = datetime.fromtimestamp(clock(), tz=timezone.utc)
    clock.advance(60)
    load(target, [order(1)], total=2, quarantined=[bad("7")])
    clock.advance(60)
    load(target, [order(7)], read=read)
    assert rows(target, "SELECT resolved_at FROM kuaimai_quarantine") == [(None,)]
    load(target, [order(7)], read=read + timedelta(seconds=90))
    ((resolved,),) = rows(target, "SELECT resolved_at FROM kuaimai_quarantine")
    assert resolved is not None


def test_record_because_of_which_a_whole_request_is_refused_is_found(api, opened):
    api.banned = {"4"}
    verdict = load(opened(**BATCHED), [order(number) for number in range(1, 8)])
    assert (verdict.state, verdict.landed, verdict.quarantined) == ("sealed", 6, 1)
    assert Counter(api.taken) == {str(number): 1 for number in (1, 2, 3, 5, 6, 7)}
    ((reason,),) = rows(opened(), "SELECT reason FROM kuaimai_quarantine")
    assert "HTTP 400" in reason


BATCHES = pytest.mark.parametrize("batched", [{}, {"rows": 10, "rows_key": "array"}], ids=["single", "list"])
STATUS = RowAnswers(success="data.code", accepted=(200,), message="data.msg")


@BATCHES
@pytest.mark.parametrize(
    ("answers", "says"),
    [
        (None, {"success": False, "message": "no such shop"}),
        (STATUS, {"success": True, "data": {"code": 500, "msg": "no such shop"}}),
    ],
)
def test_answer_of_http_200_that_says_no_is_a_refusal(api, opened, batched, answers, says):
    api.banned, api.says = {"2"}, says
    verdict = load(opened(**batched, answers=answers), [order(number) for number in (1, 2, 3)])
    assert (verdict.landed, verdict.quarantined, api.taken) == (2, 1, ["1", "3"])
    ((reason,),) = rows(opened(), "SELECT reason FROM kuaimai_quarantine")
    assert reason == "no such shop"


def test_answer_that_is_a_list_speaks_of_each_record(api, opened):
    api.lists, api.refused = True, {"2": 9}
    target = opened(rows=10, rows_key="array", tries=1)
    target.keep = bytes.decode
    verdict = load(target, [order(number) for number in (1, 2, 3)])
    assert (verdict.landed, verdict.quarantined, api.taken) == (2, 1, ["1", "3"])
    kept = dict(rows(target, "SELECT record_key, writeback FROM kuaimai_delivery WHERE state = 'taken'"))
    assert {key: json.loads(text)["bill"] for key, text in kept.items()} == {"1": "BILL-1", "3": "BILL-3"}


@BATCHES
def test_answer_of_http_200_without_the_verdict_that_it_should_have_is_doubt(api, opened, batched):
    verdict = load(opened(**batched, answers=RowAnswers(success="status")), [order(1)])
    assert (verdict.landed, verdict.quarantined) == (0, 1)
    ((reason,),) = rows(opened(), "SELECT reason FROM kuaimai_quarantine")
    assert "no verdict at 'status'" in reason


def test_api_that_is_asked_and_says_no_by_http_200_has_no_record_for_it(api, opened):
    api.faults, api.says = ["500"], {"success": False}
    with pytest.raises(ConfigError, match="has to answer 404"):
        load(opened(in_doubt="ask"), [order(1)])


@pytest.mark.parametrize("fault", ["429", "503"])
def test_busy_api_is_given_the_time_it_asks_for(api, opened, clock, fault):
    api.faults = [fault, fault]
    assert load(opened(), [order(1)]).state == "sealed"
    assert clock.slept == [7.0, 7.0]
    assert api.taken == ["1"]


def test_api_that_stays_busy_leaves_the_rest_to_the_tasks_retries_and_nothing_in_doubt(api, opened):
    api.faults = ["", *["429"] * 3]
    with pytest.raises(Throttled):
        load(opened(), [order(1), order(2)])
    assert rows(opened(), "SELECT record_key, state FROM kuaimai_delivery") == [("1", "taken")]
    assert load(opened(), [order(1), order(2)]).state == "sealed"
    assert api.taken == ["1", "2"]


def test_api_that_cannot_be_reached_is_told_and_leaves_nothing_in_doubt(opened):
    with pytest.raises(Transient, match="nothing was sent"):
        load(opened(url="http://127.0.0.1:1/none"), [order(1)])
    assert rows(opened(), "SELECT count(*) FROM kuaimai_delivery") == [(0,)]


def test_handshake_that_fails_has_sent_nothing(api, opened):
    target = opened(url=api.url.replace("http:", "https:"))
    with pytest.raises(Transient, match="SSLError, nothing was sent"):
        load(target, [order(1)])
    assert rows(target, "SELECT count(*) FROM kuaimai_delivery") == [(0,)]


def test_tls_that_breaks_after_the_request_was_sent_is_doubt(api, opened, monkeypatch):
    target = opened()
    post = target.transport.request

    def broken(verb, url, **settings):
        post(verb, url, **settings)
        failed = urllib3.exceptions.SSLError(ssl.SSLError(1, "[SSL] decryption failed or bad record mac"))
        raise requests.exceptions.SSLError(urllib3.exceptions.MaxRetryError(None, url, failed))

    monkeypatch.setattr(target.transport, "request", broken)
    assert load(target, [order(1)]).quarantined == 1
    assert api.taken == ["1"]


@pytest.mark.parametrize("fault", ["lost", "500-taken", "500"])
@pytest.mark.parametrize("settled", CRASHES)
@pytest.mark.parametrize("batched", [{}, BATCHED], ids=["single", "list"])
def test_record_without_an_answer_is_never_sent_to_an_api_that_has_it(api, opened, fault, settled, batched):
    api.faults = [fault]
    verdict = load(opened(in_doubt=settled, **batched), [order(1), order(2)])
    assert verdict.state == "sealed"
    assert verdict.landed + verdict.quarantined == 2
    sent = Counter((request, row["sid"]) for request, posted in api.posts for row in posted)
    if settled == "resend":
        # The same request with the same key: an API that honours it, or that replaces by id, has one.
        assert set(api.records) == {"1", "2"}
        assert len({request for request, key in sent if key == "1"}) == 1
    else:
        assert set(Counter(api.taken).values()) <= {1}
    if settled == "ask":
        assert set(api.records) == {"1", "2"}
        assert ("GET", "/api/orders/1") in api.calls
    if settled == "hold":
        assert verdict.quarantined == (2 if batched else 1)


def test_change_of_a_record_that_is_held_stays_held(api, opened):
    api.faults = ["lost"]
    load(opened(), [order(1)])
    changed = load(opened(), [order(1, T0 + 1)])
    assert (changed.state, changed.quarantined) == ("sealed", 1)
    assert api.taken == ["1"]
    # The user looked, and changed the setting.
    assert load(opened(in_doubt="ask"), [order(1, T0 + 1)]).landed == 1
    assert api.taken == ["1", "1"]


def test_change_of_a_record_that_was_taken_before_is_sent_again(api, opened):
    load(opened(), [order(1)])
    api.faults = ["lost"]
    assert load(opened(), [order(1, T0 + 1, sysMemo="new")]).state == "sealed"
    assert api.records["1"]["sys_memo"] == "new"


@pytest.mark.parametrize("settled", CRASHES)
def test_record_on_its_way_is_no_doubt_to_another_load(api, opened, settled):
    first, second = opened(in_doubt=settled), opened(in_doubt=settled)

    def meanwhile(*_, **__):
        with pytest.raises(Transient, match="another load is sending 1 of the records"):
            load(second, [order(1, T0 + 1), order(2)])

    first.transport.hooks["response"].append(meanwhile)
    verdict = load(first, [order(1)])
    assert (verdict.state, verdict.landed, verdict.quarantined) == ("sealed", 1, 0)
    assert sorted(api.taken) == ["1", "2"]
    again = load(opened(in_doubt=settled), [order(1, T0 + 1), order(2)])
    assert (again.updated, again.unchanged) == (1, 1)
    assert sorted(api.taken) == ["1", "1", "2"]


def test_pause_that_the_api_asks_for_is_no_crash(api, opened, clock, monkeypatch):
    first, second = opened(in_doubt="resend"), opened(in_doubt="resend")
    asked = round(first.lease_seconds * 10)
    api.faults = ["429"]
    api.retry_after = asked

    def meanwhile(seconds):
        clock.sleep(seconds - 1)
        with pytest.raises(Transient, match="another load is sending"):
            load(second, [order(1)])
        clock.sleep(1)

    monkeypatch.setattr(first, "sleep", meanwhile)
    assert load(first, [order(1)]).inserted == 1
    assert (sum(clock.slept), api.taken) == (asked, ["1"])


@pytest.mark.parametrize("book", [None, "pg_url", "maria_url"], indirect=True)
def test_load_that_outlives_its_lease_does_not_overrule_the_one_that_took_over(api, opened, clock):
    first, second = opened(in_doubt="ask", **BATCHED), opened(in_doubt="ask", **BATCHED)
    api.refused = {"1": 1}

    def meanwhile(*_, **__):
        clock.advance(first.lease_seconds + 1)
        assert load(second, [order(1)]).inserted == 1

    first.transport.hooks["response"].append(meanwhile)
    with pytest.raises(Transient, match="another load is sending"):
        load(first, [order(1)])
    assert rows(opened(), "SELECT state FROM kuaimai_delivery") == [("taken",)]
    assert load(opened(in_doubt="ask", **BATCHED), [order(1)]).unchanged == 1
    assert api.taken == ["1"]


def _die_between_post_and_verdict(url, book, settled, settings, moment) -> None:
    """Load, and be killed when the answer is there and not yet written down."""
    transport = requests.Session()
    transport.hooks["response"].append(lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    made = WriteApi(url, TOKEN, in_doubt=settled, ask_url=f"{url}/{{key}}", **settings)
    target = HttpTarget("my_api", open_target(book, now=lambda: moment), api=made, transport=transport)
    load(target, [order(1), order(2)])


@pytest.mark.parametrize("settled", CRASHES)
def test_worker_killed_between_request_and_verdict_posts_nothing_twice(api, opened, book, settled, clock):
    settings = {} if settled == "hold" else BATCHED
    process = workers().Process(
        target=_die_between_post_and_verdict, args=(api.url, book, settled, settings, clock())
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert api.taken

    with pytest.raises(Transient, match="another load is sending"):
        load(opened(in_doubt=settled, **settings), [order(1), order(2)])
    # Nobody can be waiting for the answer any more.
    clock.advance(opened().lease_seconds + 1)
    verdict = load(opened(in_doubt=settled, **settings), [order(1), order(2), order(3)])
    assert verdict.state == "sealed"
    by_request = {request: {row["sid"] for row in posted} for request, posted in api.posts}
    posted = Counter(key for keys in by_request.values() for key in keys)
    assert max(posted.values()) == 1  # a repeated request counts once for an API that knows its key
    if settled != "resend":
        assert max(Counter(api.taken).values()) == 1
    assert (verdict.landed, verdict.quarantined) == ((2, 1) if settled == "hold" else (3, 0))


def test_record_that_is_not_for_the_api_is_counted_and_told_and_none_that_has_landed(
    api, opened, clock, caplog
):
    caplog.set_level(logging.INFO)

    def not_cancelled(_tables, record):
        if record["sys_status"] == "CANCEL":
            raise LeftOut("it is cancelled")
        return [Part(record["sid"], encode_json(record))]

    def target():
        made = opened(tries=1)
        made.document = not_cancelled
        return made

    api.refused["1"] = 1
    api.said = "no"
    api.banned = {"1"}
    first = load(target(), [order(1), order(2, sysStatus="CANCEL")])
    assert (first.state, first.landed, first.filtered, first.quarantined) == ("sealed", 0, 1, 1)
    assert "1 records are not for my_api, it is cancelled: 2" in caplog.text
    # What was refused, and is then cancelled, waits for nothing any more.
    clock.advance(60)
    then = load(target(), [order(1, T0 + 1, sysStatus="CANCEL")], read=START + 2 * MINUTES)
    assert (then.landed, then.filtered, then.unchanged, api.taken) == (0, 1, 0, [])
    assert rows(target(), "SELECT count(*) FROM kuaimai_quarantine WHERE resolved_at IS NULL") == [(0,)]


def test_parts_of_a_record_go_out_by_their_numbers(api, opened):
    def lines(_tables, record):
        keys = [f"{record['sid']}-{number}" for number in range(1, 13)]
        return [Part(key, encode_json({"sid": key})) for key in keys]

    target = opened()
    target.document = lines
    assert load(target, [order(2), order(1)]).landed == 2
    assert api.taken == [f"{sid}-{number}" for sid in (1, 2) for number in range(1, 13)]


def test_answer_that_says_nothing_about_records_is_doubt(api, opened):
    target = opened(rows=10, rows_key="array", answers=RowAnswers("absent"))
    assert load(target, [order(1)]).quarantined == 1
    ((reason,),) = rows(target, "SELECT reason FROM kuaimai_quarantine")
    assert "no verdicts under 'absent'" in reason


def test_token_is_refused_clearly_and_shown_nowhere(api, opened, caplog):
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ConfigError, match="refuses the token") as caught:
        load(opened(token="another-token"), [order(1)])
    api.faults = ["400"]
    target = opened()
    load(target, [order(2)])
    assert api.faults == []
    everything = " ".join(
        [
            str(caught.value),
            caplog.text,
            repr(target.api),
            *map(str, rows(target, "SELECT * FROM kuaimai_quarantine")),
            *map(str, rows(target, "SELECT * FROM kuaimai_delivery")),
        ]
    )
    assert TOKEN not in everything
    assert "another-token" not in everything
    assert "***" in everything


def test_address_that_takes_no_records_is_told(api, opened):
    with pytest.raises(ConfigError, match="does not take records"):
        load(opened(url=f"{api.url}/absent"), [order(1)])


def test_records_set_aside_before_count_and_coverage_is_the_targets_own(opened):
    target = opened()
    verdict = load(target, [order(1)], total=2, quarantined=[bad("7")])
    assert (verdict.state, verdict.quarantined) == ("sealed", 1)
    (window,) = target.coverage("trades", "upd_time", START)
    assert (window.state, window.shops) == ("sealed", ("900001",))
    assert target.book.coverage("trades", "upd_time", START) == []


def test_two_loads_with_the_same_record_send_it_once(api, opened, monkeypatch):
    """Both looked into the book before either sent: windows share their edges, and DAGs their records."""
    together = threading.Barrier(2, timeout=60)
    known = DeliveryBook.known

    def known_to_both(self, keys):
        found = known(self, keys)
        together.wait()
        return found

    targets = [opened(), opened()]
    for target in targets:
        target.book.prepare(())
    monkeypatch.setattr(DeliveryBook, "known", known_to_both)
    with ThreadPoolExecutor() as pool:
        futures = [pool.submit(load, target, [order(1), order(2)]) for target in targets]
        failures = [one.exception() for one in futures]
    monkeypatch.undo()
    assert sorted(type(one).__name__ for one in failures) == ["NoneType", "Transient"]
    assert sorted(api.taken) == ["1", "2"]
    verdict = load(opened(), [order(1), order(2)])
    assert (verdict.state, verdict.unchanged) == ("sealed", 2)
    assert sorted(api.taken) == ["1", "2"]
