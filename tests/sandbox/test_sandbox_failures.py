"""The sandbox's failures, switches, control endpoints and command."""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import fields
from datetime import datetime

import pytest
import requests
from sandbox_caller import OUTSTOCK, Caller

from kuaimai.sandbox import Failure, Faults, Sandbox, World
from kuaimai.sandbox.command import add_arguments, explained, serve
from kuaimai.sandbox.failures import FAILURES
from kuaimai.sandbox.world import GMT8

START = datetime(2026, 3, 1, tzinfo=GMT8)
SHOPS = "erp.shop.list.query"


@pytest.fixture
def opened(clock) -> Iterator[Callable[..., Caller]]:
    with ExitStack() as stack:

        def open_(*faults: str) -> Caller:
            world = World(START, history_orders=40, orders_per_hour=60)
            clock.at = world.start_second
            box = stack.enter_context(Sandbox(world, Faults.parse(list(faults)), clock, sleep=clock.sleep))
            return Caller(box, stack.enter_context(requests.Session()))

        yield open_


@pytest.mark.parametrize("kind", ["429", "429_html", "500", "502", "503", "504"])
def test_http_failures_come_without_json_and_then_end(opened, kind):
    caller = opened(f"{kind}=next2")
    for _ in range(2):
        answer = caller.post(SHOPS)
        assert answer.status_code == int(kind[:3])
        assert (answer.text == "") is (kind == "429")
        assert "Retry-After" not in answer.headers
        assert "json" not in answer.headers["Content-Type"]
    assert caller.call(SHOPS)["total"] == 6


def test_retry_after_is_announced_when_asked_for(opened):
    assert opened("429=next1,retry=2").post(SHOPS).headers["Retry-After"] == "2"


def test_a_disconnect_before_the_answer_has_no_effect(opened):
    caller = opened("disconnect=next1")
    token = caller.box.credentials.refresh_token
    with pytest.raises(requests.ConnectionError):
        caller.post("open.token.refresh", refreshToken=token)
    assert caller.box.session.refreshes == 0
    assert caller.call("open.token.refresh", refreshToken=token)["success"] is True


@pytest.mark.parametrize("kind", ["disconnect_mid", "truncated"])
def test_a_broken_answer_comes_after_the_effect(opened, kind):
    caller = opened(f"{kind}=next1")
    form = caller.form("open.token.refresh", refreshToken=caller.box.credentials.refresh_token)
    with pytest.raises(requests.RequestException):
        caller.http.post(caller.box.url, data=form, timeout=20).json()
    assert caller.box.session.refreshes == 1
    assert caller.http.post(caller.box.url, data=form).json()["code"] == "refresh_frequently"


def test_html_with_status_200(opened):
    answer = opened("html=next1").post(SHOPS)
    assert answer.status_code == 200
    assert answer.text.startswith("<html>")


@pytest.mark.parametrize(
    ("kind", "code", "message"),
    [("busy", "1", "稍后"), ("too_large", "1", "too large"), ("query_failed", "30077", "查询失败")],
)
def test_business_failures(opened, kind, code, message):
    answer = opened(f"{kind}=next1").call(SHOPS)
    assert (answer["code"], answer["success"]) == (code, False)
    assert message in answer["msg"]


def test_slow_answers_and_latency_use_the_given_sleep(opened, clock):
    caller = opened("slow=next1", "slow_seconds=45", "latency_seconds=0.2")
    caller.call(SHOPS)
    caller.call(SHOPS)
    assert clock.slept == [45.2, 0.2]


def test_the_rate_limit_counts_all_methods_of_the_last_second(opened, clock):
    caller = opened("rate_limit=3")
    statuses = [
        caller.post(method).status_code for method in (SHOPS, "open.system.time.get", SHOPS, SHOPS, SHOPS)
    ]
    assert statuses == [200, 200, 200, 429, 429]
    clock.advance(1)
    assert caller.post(SHOPS).status_code == 200


def test_a_failure_strikes_at_a_number_or_a_method_only(opened):
    caller = opened(f"503=at2:{SHOPS}")
    methods = ("open.system.time.get", SHOPS, "open.system.time.get", SHOPS, SHOPS)
    assert [caller.post(method).status_code for method in methods] == [200, 200, 200, 503, 200]


def test_a_share_strikes_the_same_requests_every_time(opened):
    def struck() -> list[int]:
        caller = opened("429=30%")
        return [at for at in range(60) if caller.post("open.system.time.get").status_code == 429]

    assert struck() == struck()
    assert 8 <= len(struck()) <= 30


def test_a_dead_session_refuses_everything(opened):
    caller = opened("session_dead")
    assert caller.call(SHOPS)["code"] == "invalid_session"
    token = caller.box.credentials.refresh_token
    assert caller.call("open.token.refresh", refreshToken=token)["code"] == "invalid_session"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("429", Failure("429", share=0.05)),
        ("429=0.5", Failure("429", share=0.5)),
        ("html=5%", Failure("html", share=0.05)),
        ("disconnect=next3", Failure("disconnect", times=3)),
        (f"busy=at7:{SHOPS}", Failure("busy", at=7, method=SHOPS)),
        ("slow:a.b", Failure("slow", share=0.05, method="a.b")),
        ("503=next1,retry=2.5", Failure("503", times=1, retry_after=2.5)),
    ],
)
def test_failures_are_read_from_text(text, expected):
    assert Failure.parse(text) == expected
    assert Faults.parse([text]).plan == [expected]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("drfit", "unknown fault 'drfit'.*drift"),
        ("drift=often", "'drift' must be a number"),
        ("drift=-1", "cannot be negative"),
        ("shuffle_rows=maybe", "must be true or false"),
        ("refresh_shape=square", "must be one of doc, flat, wrapped"),
        ("drift_touch", "needs a value"),
        ("429=soon", "write a share"),
        ("429=7", "share must be 0 to 1"),
        ("plan=x", "unknown fault 'plan'"),
    ],
)
def test_wrong_texts_say_what_would_be_right(text, message):
    with pytest.raises(ValueError, match=message):
        Faults.parse([text])


def test_wrong_assignments_are_refused_at_once():
    faults = Faults()
    with pytest.raises(AttributeError, match="unknown fault 'page_size'"):
        faults.page_size = 3
    with pytest.raises(ValueError, match="unknown failure"):
        faults.fail("teapot", times=1)
    with pytest.raises(ValueError, match="exactly one"):
        Failure("429")


def test_switches_have_texts_and_can_be_reset():
    faults = Faults.parse(["drift", "page_cap", "shuffle_rows", "expires_unit", "429", "late_rows=0.2"])
    assert (faults.drift, faults.page_cap, faults.shuffle_rows, faults.expires_unit) == (
        2,
        50,
        True,
        "absent",
    )
    faults.reset()
    assert faults == Faults()
    for known in fields(Faults):
        assert known.metadata["doc"]
        assert known.metadata["attacks"]
    assert all(name in explained() for name in (*FAILURES, "null_modified"))


def test_the_control_endpoints(opened, clock):
    caller = opened()
    root = f"{caller.box.root}/sandbox"
    http = caller.http

    assert http.get(f"{root}/health").json()["ok"] is True
    given = http.get(f"{root}/credentials").json()
    assert given["app_key"] == caller.box.credentials.app_key
    assert given.keys() == {"app_key", "app_secret", "access_token", "refresh_token"}

    truth = http.get(f"{root}/truth", params={"method": OUTSTOCK}).json()
    assert truth["records"] == caller.box.truth()
    assert truth["bad"] == {}
    now = http.post(f"{root}/clock", json={"advance_seconds": 3600}).json()["now"]
    assert now == clock() + 3600 == caller.box.clock()
    assert http.get(f"{root}/truth", params={"at": clock()}).json()["records"] == truth["records"]
    assert http.get(f"{root}/truth").json()["records"] != truth["records"]

    set_ = http.post(f"{root}/faults", json={"page_cap": 5, "set": ["shuffle_rows", "429=next1"]})
    values = {one["name"]: one["value"] for one in set_.json()["faults"]}
    assert (values["page_cap"], values["shuffle_rows"], len(values["plan"])) == (5, True, 1)
    assert caller.post(SHOPS).status_code == 429
    assert len(caller.call(OUTSTOCK, **caller.window())["list"]) == 5
    wrong = http.post(f"{root}/faults", json={"drift": 3, "nonsense": 1})
    assert wrong.status_code == 400
    assert "nonsense" in wrong.json()["error"]
    assert caller.box.faults.drift == 0
    http.post(f"{root}/faults", json={"reset": True})
    assert caller.box.faults == Faults()

    asked = http.get(f"{root}/requests", params={"from": 1}).json()
    assert asked["count"] == 2
    assert asked["requests"][0]["method"] == OUTSTOCK
    assert given["access_token"] not in str(asked)

    assert http.post(f"{root}/session", json={"expire": True}).json()["live"] is False
    assert http.post(f"{root}/session", json={"renew": True}).json()["live"] is True
    assert http.get(f"{root}/credentials").json()["access_token"] != given["access_token"]
    for answer in (
        http.get(f"{root}/nothing"),
        http.post(f"{root}/clock", json={}),
        http.post(f"{root}/session", json={}),
        http.post(f"{root}/faults", data=b"["),
        http.get(f"{root}/truth", params={"method": "x"}),
    ):
        assert answer.status_code in {400, 404}
        assert answer.json()["error"]


def test_a_frozen_clock_stands_still(opened, clock):
    caller = opened()
    at = caller.box.clock()
    caller.http.post(f"{caller.box.root}/sandbox/clock", json={"freeze": True})
    clock.advance(500)
    assert caller.box.clock() == at
    caller.http.post(f"{caller.box.root}/sandbox/clock", json={"freeze": False, "advance_seconds": 5})
    assert caller.box.clock() == at + 505


def test_the_command_serves_until_it_is_told_to_end():
    command = [sys.executable, "-m", "kuaimai.sandbox", "serve", "--port", "0", "--history-orders", "20"]
    command += ["--start", "2026-03-01", "--orders-per-hour", "0", "--fault", "page_cap=3"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": "plugins", "PATH": "/usr/bin:/bin"}
    ) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        assert requests.get(f"{first['control']}/health", timeout=20).json()["ok"] is True
        assert first["url"].endswith("/router")
        assert first["credentials"]["app_key"].startswith("demo-")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--fault", "drfit"], "unknown fault"),
        (["--shops", "99"], "shop_count"),
        (["--items", "9"], "items must be at least 10"),
        (["--suppliers", "0"], "suppliers must be at least 1"),
        (["--purchases-per-day", "-1"], "cannot be negative"),
        (["--fault", "schema_change=some"], "must be one of none, new, type, vanished, all"),
    ],
)
def test_the_command_explains_what_is_wrong(capsys, options, message):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert serve(parser.parse_args(options)) == 2
    assert message in capsys.readouterr().err


def test_the_command_lists_all_faults(capsys):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert serve(parser.parse_args(["--list-faults"])) == 0
    assert "null_modified" in capsys.readouterr().out
