"""The sandbox at the wire: checks and their order, signatures, body forms, sessions."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import datetime

import pytest
import requests
from sandbox_caller import ORDER_LIST, OUTSTOCK, Caller, text

from kuaimai.sandbox import Faults, Sandbox, World
from kuaimai.sandbox.signature import expected_sign, is_signed
from kuaimai.sandbox.world import GMT8

START = datetime(2026, 3, 1, tzinfo=GMT8)
DAY = 86_400


@pytest.fixture
def caller(clock) -> Iterator[Caller]:
    clock.at = World(START).start_second
    with Sandbox(World(START, history_orders=60), Faults(), clock) as box, requests.Session() as http:
        yield Caller(box, http)


OFFICIAL = {
    "appKey": "123456",
    "session": "test",
    "method": "open.system.time.get",
    "format": "json",
    "version": "1.0",
    "timestamp": "2020-09-21 16:58:00",
}
SAMPLE = {
    "appKey": "123456",
    "endTime": "2023-07-21 23:59:59",
    "method": "erp.trade.list.query",
    "pageNo": "1",
    "pageSize": "20",
    "session": "test",
    "startTime": "2023-07-21 09:30:40",
    "timeType": "upd_time",
    "timestamp": "2023-08-07 14:04:08",
    "version": "1.0",
}
CHINESE = {
    "appKey": "demoKey",
    "session": "demoSession",
    "method": "erp.shop.list.query",
    "format": "json",
    "version": "1.0",
    "timestamp": "2026-01-02 03:04:05",
    "pageNo": "1",
    "pageSize": "50",
    "name": "旗舰店 A+B&C=1",
}


@pytest.mark.parametrize(
    ("fields", "secret", "sign_method", "sign"),
    [
        (
            OFFICIAL,
            "helloworld",
            "hmac-sha256",
            "7905D5EF37CA177B9219DBFA603F773A7616F424D545E731AAFBB992408F6CEE",
        ),
        (OFFICIAL, "helloworld", "hmac", "33F8A0DBB3DB1E60E210A7307DD15075"),
        (OFFICIAL, "helloworld", "md5", "F1D3BB43123A50C78EBCB84CD301A340"),
        (OFFICIAL, "helloworld", None, "AF47641CA197A1755E4EB7BA0EEEA981"),
        (SAMPLE, "testsecret", None, "5A6E50C4ECD5BE47CC7E654B295E822D"),
        (CHINESE, "demoSecret", "md5", "7A3F2BE0584D5C182711452FFF610FE9"),
        (CHINESE, "demoSecret", "hmac", "96D2A3634FFC0A0A1DF91E0D1185B81D"),
        (
            CHINESE,
            "demoSecret",
            "hmac-sha256",
            "54687F57C22151E57CB48543CA4053993546D8090F89F8E2FBD3F7E1230207D1",
        ),
    ],
)
def test_the_documented_signatures_are_accepted_and_nothing_else(fields, secret, sign_method, sign):
    form = {**fields, **({"sign_method": sign_method} if sign_method else {})}
    assert expected_sign(form, secret) == sign.lower()
    assert is_signed({**form, "sign": sign}, secret)
    assert is_signed({**form, "sign": sign.lower()}, secret)
    assert not is_signed({**form, "sign": sign[:-1]}, secret)
    assert not is_signed({**form, "sign": sign}, secret + "x")
    assert not is_signed({**form, "version": "2.0", "sign": sign}, secret)


def test_an_unknown_sign_method_never_fits():
    assert not is_signed({**OFFICIAL, "sign_method": "sha1", "sign": "00"}, "helloworld")
    assert not is_signed({**OFFICIAL, "sign_method": "sha1", "sign": "非"}, "helloworld")


def test_empty_values_may_be_signed_or_left_out():
    form = {**OFFICIAL, "name": ""}
    with_empty = expected_sign(form, "helloworld")
    without_empty = expected_sign(form, "helloworld", keep_empty=False)
    assert is_signed({**form, "sign": with_empty}, "helloworld")
    assert is_signed({**form, "sign": without_empty}, "helloworld")


def test_checks_come_in_the_documented_order(caller):
    """A request that is wrong in every way; each repair uncovers the next check."""
    good = caller.form(OUTSTOCK)
    form = {"version": "2.0", "timeType": "wrong"}
    codes = []
    for repair in (
        {},
        {"sign": "0" * 64, "timestamp": "never", "appKey": "nobody", "version": ""},
        {"method": "trade.sold.get"},
        {"method": OUTSTOCK},
        {"version": "2.0"},
        {"version": "1.0"},
        {"appKey": good["appKey"]},
        {"session": "somebody else's"},
        {"session": good["session"]},
        {"timestamp": good["timestamp"]},
    ):
        form |= repair
        codes.append(caller.http.post(caller.box.url, data=form).json()["code"])
    codes.append(caller.call(OUTSTOCK, timeType="wrong")["code"])
    assert codes == ["401", "26", "27", "28", "29", "23", "20", "invalid_session", "40", "25", "50"]
    assert caller.http.post(caller.box.url).json()["code"] == "400"


def test_missing_signature_fields_have_codes_of_their_own_behind_a_switch(caller):
    caller.box.faults.missing_sign_code = "precise"
    for name, code in (("sign", "24"), ("timestamp", "40"), ("appKey", "22")):
        form = caller.form(OUTSTOCK)
        del form[name]
        assert caller.http.post(caller.box.url, data=form).json()["code"] == code


@pytest.mark.parametrize(
    ("off", "code"), [(599, None), (-599, None), (601, "40"), (-601, "40"), (8 * 3600, "40")]
)
def test_the_clock_may_be_ten_minutes_off(caller, off, code):
    form = caller.form("erp.shop.list.query")
    form["timestamp"] = text(caller.box.clock() + off)
    answer = caller.http.post(caller.box.url, data=caller.sign(form)).json()
    assert answer.get("code") == code


def test_a_wrong_secret_is_a_wrong_signature(caller):
    form = caller.form(OUTSTOCK)
    form["sign"] = expected_sign(form, "another secret") or ""
    answer = caller.http.post(caller.box.url, data=form).json()
    assert (answer["code"], answer["success"]) == ("25", False)
    assert answer["msg"] == f"服务方法({OUTSTOCK}:1.0)的签名无效"


def test_urlencoded_multipart_and_get_are_the_same_request(caller):
    form = caller.form("erp.shop.list.query", name="旗舰店 A+B&C=1")
    answers = [
        caller.http.post(caller.box.url, data=form),
        caller.http.post(caller.box.url, files={name: (None, value) for name, value in form.items()}),
        caller.http.get(caller.box.url, params=form),
    ]
    assert [answer.json()["list"] for answer in answers] == [answers[0].json()["list"]] * 3
    assert answers[0].headers["Content-Type"] == "application/json;charset=UTF-8"
    assert caller.http.get(caller.box.url, params={**form, "more": "x" * 1000}).status_code == 414


def test_unknown_parameters_are_ignored(caller):
    window = caller.window()
    first = caller.call(OUTSTOCK, pageSize=20, **window)["list"]
    assert caller.call(OUTSTOCK, pageSize=20, page_no=2, pageNumber=2, **window)["list"] == first


def test_the_date_header_follows_the_sandbox_clock(caller):
    assert caller.post("open.system.time.get").headers["Date"] == "Sat, 28 Feb 2026 16:00:00 GMT"
    assert caller.call("open.system.time.get")["time"] == "2026-03-01 00:00:00"


def test_requests_are_remembered_without_secrets(caller):
    given = caller.box.credentials
    caller.call("open.token.refresh", refreshToken=given.refresh_token)
    caller.call("erp.shop.list.query", pageSize=50)
    caller.call(ORDER_LIST, userIds="900002", **caller.window())
    seen = caller.box.requests
    assert [(one.method, one.status, one.code) for one in seen] == [
        ("open.token.refresh", 200, None),
        ("erp.shop.list.query", 200, None),
        (ORDER_LIST, 200, "33"),
    ]
    assert seen[1].params == {"pageSize": "50"}
    assert seen[1].at == caller.box.clock()
    secrets = (given.app_key, given.app_secret, given.access_token, given.refresh_token)
    assert not any(secret in repr(seen) or secret in repr(given) for secret in secrets[1:])


def test_a_refresh_prolongs_the_session_once_an_hour(caller, clock):
    token = caller.box.credentials.refresh_token
    clock.advance(29 * DAY)
    first = caller.call("open.token.refresh", refreshToken=token)
    assert first["session"]["refreshToken"] == token
    assert first["session"]["expiresIn"] == 30 * DAY
    clock.advance(3599)
    assert caller.call("open.token.refresh", refreshToken=token)["code"] == "refresh_frequently"
    assert caller.call("erp.shop.list.query")["success"] is True
    clock.advance(1)
    assert caller.call("open.token.refresh", refreshToken=token)["success"] is True
    assert caller.box.session.refreshes == 2
    clock.advance(30 * DAY)
    assert caller.call("erp.shop.list.query")["code"] == "invalid_session"
    assert caller.call("open.token.refresh", refreshToken=token)["code"] == "invalid_session"
    caller.box.session.renew(clock(), ttl_seconds=30 * DAY)
    assert caller.call("erp.shop.list.query")["success"] is True


def test_a_refresh_needs_the_right_token(caller):
    assert caller.call("open.token.refresh")["code"] == "32"
    assert caller.call("open.token.refresh", refreshToken="another")["code"] == "invalid_session"


def test_refresh_answers_come_in_three_shapes_and_four_units(caller, clock):
    faults = caller.box.faults
    faults.refresh_interval = 0

    def refreshed() -> dict:
        return caller.call("open.token.refresh", refreshToken=caller.box.credentials.refresh_token)

    end = int(clock()) + 30 * DAY
    for unit, value in (("seconds", 30 * DAY), ("epoch_s", end), ("epoch_ms", end * 1000), ("absent", None)):
        faults.expires_unit = unit
        assert refreshed()["session"].get("expiresIn") == value
    faults.refresh_shape = "flat"
    assert refreshed().keys() == {"success", "traceId", "code"}
    faults.refresh_shape = "wrapped"
    assert refreshed()["open_token_refresh_response"]["session"]["companyId"] == 100001


def test_rotation_kills_the_old_pair(caller):
    caller.box.faults.rotate_tokens = True
    old = caller.form("erp.shop.list.query")
    before = caller.box.credentials
    session = caller.call("open.token.refresh", refreshToken=before.refresh_token)["session"]
    assert session["accessToken"] not in {before.access_token, before.refresh_token}
    assert caller.http.post(caller.box.url, data=old).json()["code"] == "invalid_session"
    assert caller.call("erp.shop.list.query")["success"] is True


def test_the_rest_dialect_refreshes_with_the_refresh_token_alone(caller):
    token = caller.box.credentials.refresh_token
    address = f"{caller.box.root}/open.token.refresh"
    answer = caller.http.post(address, json={"refreshToken": token}).json()
    assert answer["access_token"] == caller.box.credentials.access_token
    assert answer["expires_in"] == 30 * DAY
    assert caller.http.post(address, json={"refreshToken": token}).json()["code"] == "refresh_frequently"
    assert caller.http.post(address, json={"refreshToken": "x"}).json()["code"] == "invalid_session"
    assert caller.http.post(address, data=b"[").status_code == 400
    assert token not in repr(caller.box.requests)


def test_the_rest_dialect_knows_rotation_units_and_failures(caller):
    address = f"{caller.box.root}/open.token.refresh"
    faults = caller.box.faults
    faults.rotate_tokens, faults.expires_unit, faults.refresh_interval = True, "absent", 0

    def refreshed() -> requests.Response:
        return caller.http.post(address, json={"refreshToken": caller.box.credentials.refresh_token})

    assert refreshed().json() == {
        "access_token": caller.box.credentials.access_token,
        "refresh_token": caller.box.credentials.refresh_token,
    }
    faults.fail("truncated", times=1)
    with pytest.raises(requests.JSONDecodeError):
        refreshed().json()


def test_the_rest_dialect_carries_the_signed_fields_for_every_other_method(caller):
    form = caller.form("erp.shop.list.query", pageSize=2)
    address = f"{caller.box.root}/router/erp.shop.list.query"
    assert len(caller.http.post(address, json={**form, "pageSize": 2}).json()["list"]) == 2
    del form["sign"]
    assert caller.http.post(address, json=form).json()["code"] == "401"


def test_envelope_switches(caller):
    faults = caller.box.faults
    faults.omit_success, faults.total_as_string, faults.trace_key = True, True, "trace_id"
    answer = caller.call("erp.shop.list.query")
    assert answer["total"] == "6"
    assert "success" not in answer
    assert "trace_id" in answer
    faults.reset()
    faults.wrap_response = True
    assert "list" in caller.call("erp.warehouse.list.query")["erp_warehouse_list_query_response"]
    faults.reset()
    faults.trace_key = "random"
    keys = {next(iter(caller.call("erp.warehouse.list.query"))) for _ in range(4)}
    assert keys == {"traceId", "trace_id"}


def test_shops_are_paged_and_the_filter_id_has_no_effect(caller):
    assert [shop["source"] for shop in caller.call("erp.shop.list.query", id=900001)["list"]] == [
        "fxg", "pdd", "jd", "tb", "sys", "xhs",
    ]  # fmt: skip
    assert [shop["userId"] for shop in caller.call("erp.shop.list.query", pageNo=2, pageSize=4)["list"]] == [
        900005,
        900006,
    ]
    assert caller.box.truth("erp.shop.list.query").keys() == {f"{900001 + at}" for at in range(6)}
    assert len(caller.call("erp.warehouse.list.query")["list"]) == 2
    assert [one["id"] for one in caller.call("erp.warehouse.list.query", code="WH-B")["list"]] == [80002]
    caller.box.faults.vanished = 1.0  # other methods are asked by their ids
    assert len(caller.call("erp.shop.list.query")["list"]) == 6


def test_one_connection_serves_many_requests_and_many_threads_are_served(caller):
    assert caller.post("erp.shop.list.query").raw.version == 11
    answers = []

    def read() -> None:
        with requests.Session() as http:
            own = Caller(caller.box, http)
            answers.extend(own.call("erp.shop.list.query")["total"] for _ in range(5))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [6] * 20


def test_a_sandbox_that_does_not_run_has_no_address():
    with pytest.raises(RuntimeError, match="not running"):
        _ = Sandbox(World(START)).url
