"""A call is checked before it is sent, paced, retried where that helps, and says what to do where not."""

from __future__ import annotations

import io
import json
import threading
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests

from kuaimai.errors import ConfigError, Rejected, SessionError, Throttled, TooLarge, TooSlow, Transient
from kuaimai.gateway.budget import Budget
from kuaimai.gateway.client import ATTEMPTS, SLOW_ATTEMPTS, Client, FixedSession
from kuaimai.gateway.wire import App, Wire
from kuaimai.sandbox import Failure, Faults, Sandbox, World

SHOPS = "erp.shop.list.query"
ORDERS = "erp.trade.outstock.simple.query"
WINDOW = {"timeType": "upd_time", "startTime": "2023-11-15 00:00:00", "endTime": "2023-11-15 23:59:59"}


@pytest.fixture(scope="module")
def world():
    from datetime import datetime, timedelta, timezone

    return World(seed=7, start=datetime(2023, 11, 15, tzinfo=timezone(timedelta(hours=8))))


@pytest.fixture
def box(world, clock):
    over = threading.Event()
    with Sandbox(world, faults=Faults(), now=clock, sleep=lambda _: over.wait()) as box:
        yield box
        over.set()  # what was slow comes when nobody waits for it any more


@pytest.fixture
def http():
    with requests.Session() as session:
        yield session


@pytest.fixture
def make(box, clock, http):
    def make(*, token=None, secret=None, sign_method="hmac-sha256", session=None, **wire):
        given = box.credentials
        return Client(
            Wire(
                App(wire.pop("app_key", given.app_key), secret or given.app_secret, sign_method),
                url=wire.pop("url", box.url),
                transport=http,
                now=wire.pop("now", clock),
                **wire,
            ),
            session or FixedSession(token or given.access_token),
            budget=Budget(1000, now=clock, sleep=clock.sleep),
            sleep=clock.sleep,
        )

    return make


@pytest.mark.parametrize("sign_method", ["hmac-sha256", "hmac", "md5"])
def test_every_sign_method_is_accepted(make, sign_method):
    assert make(sign_method=sign_method).call(SHOPS, {"pageNo": "1", "pageSize": "50"}).total >= 4


def test_odd_characters_survive_signing_and_transport(make):
    make().call(SHOPS, {"pageNo": "1", "pageSize": "50", "title": "旗舰店 A+B&C=1 %20#"})


@pytest.mark.parametrize(
    "kind", ["429", "429_html", "500", "502", "503", "504", "disconnect", "truncated", "html", "busy"]
)
def test_failure_that_passes_is_retried_with_a_new_timestamp_and_signature(make, box, clock, kind):
    box.faults.plan = [Failure(kind, times=3)]
    assert make().call(SHOPS, {"pageNo": "1", "pageSize": "50"}).total >= 4
    assert len(box.requests) == 4
    assert len([pause for pause in clock.slept if pause > 0]) == 3


def test_retry_after_more_than_ten_minutes_is_still_signed_for_its_own_time(make, box, clock):
    box.faults.plan = [Failure("429", times=5, retry_after=700)]
    make().call(SHOPS, {"pageNo": "1", "pageSize": "50"})
    assert clock.slept[-1] >= 700


def test_retries_end(make, box):
    box.faults.plan = [Failure("429", share=1.0)]
    with pytest.raises(Throttled):
        make().call(SHOPS, {"pageNo": "1", "pageSize": "50"})
    assert len(box.requests) == ATTEMPTS


def test_answer_that_does_not_come_is_given_up_in_time(make, box):
    box.faults.plan = [Failure("slow", times=1)]
    assert make(timeout=(1.0, 2.0)).call(SHOPS, {"pageNo": "1", "pageSize": "50"}).total >= 4


def test_question_that_is_too_slow_is_tried_twice_and_no_more(make, box):
    box.faults.plan = [Failure("slow", times=6)]
    with pytest.raises(TooSlow, match=r"no answer within 0\.1 s"):
        make(timeout=(1.0, 0.1)).call(SHOPS, {"pageNo": "1", "pageSize": "50"})
    assert len(box.requests) == SLOW_ATTEMPTS == 2


@pytest.mark.parametrize(
    ("change", "error", "advice"),
    [
        ({"secret": "wrong"}, Rejected, "appSecret"),
        ({"app_key": "wrong"}, Rejected, "appKey from Kuaimai's mail"),
        ({"now": lambda: 1_700_000_000 - 3600}, Rejected, "clock is off"),
        ({"url": "http://127.0.0.1:9/router"}, Transient, "127.0.0.1:9"),
        ({"url": "ftp://gw.example"}, ConfigError, "set host to https://gw.superboss.cc/router"),
    ],
    ids=["secret", "key", "clock", "nobody", "no-url"],
)
def test_wrong_setting_gives_one_error_that_says_what_to_do(make, change, error, advice):
    with pytest.raises(error, match=advice):
        make(**change).call(SHOPS, {"pageNo": "1", "pageSize": "50"})


def test_address_that_is_no_gateway_is_named(make, box):
    with pytest.raises(ConfigError, match="does not answer like the gateway"):
        make(url=f"{box.root}/sandbox/nowhere").call(SHOPS, {"pageNo": "1", "pageSize": "50"})


def test_too_large_answer_asks_for_less_instead_of_a_retry(make, box):
    box.faults.plan = [Failure("too_large", times=1)]
    with pytest.raises(TooLarge, match="smaller page or window"):
        make().call(ORDERS, {**WINDOW, "pageNo": "1", "pageSize": "200"})
    assert len(box.requests) == 1


def test_parameter_that_the_gateway_would_ignore_is_refused_before_it_is_sent(make, box):
    with pytest.raises(ConfigError, match=r"'page_no'.*did you mean 'pageNo'"):
        make().call(ORDERS, {**WINDOW, "page_no": "1"})
    assert box.requests == []


@pytest.mark.parametrize("size", [19, 201])
def test_page_size_outside_the_limits_is_refused_before_it_is_sent(make, box, size):
    with pytest.raises(ConfigError, match="outside 20 to 200"):
        make().call(ORDERS, {**WINDOW, "pageNo": "1", "pageSize": str(size)})
    assert box.requests == []


def test_empty_parameter_is_refused_because_nobody_knows_how_it_is_signed(make):
    with pytest.raises(ConfigError, match="'title' is empty"):
        make().call(SHOPS, {"title": ""})


class _Recovering:
    def __init__(self, token):
        self.token = token
        self.asked = 0

    def current(self):
        return "dead"

    def rejected(self, token, error):
        self.asked += 1
        if self.token is None or token == self.token:
            raise error
        return self.token


def test_session_that_recovers_lets_the_call_go_on(make, box):
    session = _Recovering(box.credentials.access_token)
    assert make(session=session).call(SHOPS, {"pageNo": "1", "pageSize": "50"}).total >= 4
    assert session.asked == 1


def test_session_that_does_not_recover_is_not_hammered(make, box):
    session = _Recovering(None)
    with pytest.raises(SessionError):
        make(session=session).call(SHOPS, {"pageNo": "1", "pageSize": "50"})
    assert (session.asked, len(box.requests)) == (1, 1)


def test_session_refused_again_after_recovery_is_given_up_at_once(make, box):
    box.faults.session_dead = True
    session = _Recovering(box.credentials.access_token)
    with pytest.raises(SessionError):
        make(session=session).call(SHOPS, {"pageNo": "1", "pageSize": "50"})
    assert (session.asked, len(box.requests)) == (2, 2)


def test_clock_of_the_gateway_is_compared_with_ours(make, box, clock):
    client = make(now=lambda: clock() - 300)
    client.call(SHOPS, {"pageNo": "1", "pageSize": "50"})
    assert abs(client.clock_offset - 300) < 2


def test_budget_lets_a_burst_through_and_then_keeps_the_rate(clock):
    budget = Budget(5, burst=5, now=clock, sleep=clock.sleep)
    start = clock()
    for _ in range(30):
        budget.spend()
    assert clock() - start == pytest.approx(5.0)


class Echo(requests.adapters.BaseAdapter):
    """A gateway that says in its error what it was sent."""

    def send(self, request, **_):
        sent = dict(parse_qsl(request.body))
        error = {"success": False, "code": "50", "msg": sent["refreshToken"], "solution": sent["session"]}
        response = requests.Response()
        response.status_code, response.request, response.url = 200, request, request.url
        response.raw = io.BytesIO(json.dumps(error).encode())
        return response

    def close(self):
        pass


def test_secret_that_the_gateway_echoes_is_masked_in_message_and_hint(make, box, http):
    http.mount(box.url, Echo())
    with pytest.raises(Rejected) as error:
        make().call("open.token.refresh", {"refreshToken": "refresh-secret"})
    assert "refresh-secret" not in str(error.value)
    assert box.credentials.access_token not in str(error.value)


class Proxy(BaseHTTPRequestHandler):
    """An HTTP proxy that notes what goes through it."""

    def do_POST(self):
        self.server.passed.append(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        onward = HTTPConnection(urlsplit(self.path).netloc)
        onward.request("POST", self.path, body, {"Content-Type": self.headers["Content-Type"]})
        whole = onward.getresponse().read()
        onward.close()
        self.send_response(200)
        self.send_header("Content-Length", str(len(whole)))
        self.end_headers()
        self.wfile.write(whole)

    def log_message(self, *_):
        pass


def test_proxy_of_the_environment_is_used_and_that_of_the_connection_comes_before_it(
    make, box, http, monkeypatch
):
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with HTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        proxy.passed = []
        serving = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        address = f"http://127.0.0.1:{proxy.server_port}"
        try:
            monkeypatch.setenv("http_proxy", address)
            assert make().call(SHOPS, {"pageNo": "1", "pageSize": "50"}).total >= 4
            monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # where nobody listens
            http.proxies = {"http": address}
            assert make().call(SHOPS, {"pageNo": "1", "pageSize": "50"}).total >= 4
        finally:
            proxy.shutdown()
            serving.join()
    assert proxy.passed == [box.url] * 2


def test_ca_bundle_of_the_environment_does_not_replace_that_of_the_connection(make, http, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/the/environments.pem")
    http.verify = "/the/connections.pem"
    with pytest.raises(OSError, match="the/connections"):
        make(url="https://127.0.0.1:1/router").call(SHOPS, {"pageNo": "1", "pageSize": "50"})


def test_no_secret_is_in_any_error(make, box):
    given = box.credentials
    box.faults.session_dead = True
    with pytest.raises(SessionError) as dead:
        make().call(SHOPS, {"pageNo": "1", "pageSize": "50"})
    for secret in (given.app_secret, given.access_token, given.refresh_token):
        assert secret not in str(dead.value)
        assert secret not in repr(App(given.app_key, given.app_secret))
