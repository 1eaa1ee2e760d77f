"""What `kuaimai doctor` says of a write API: how far a request comes, and what its answer means."""

from __future__ import annotations

import socket

import pytest
import requests
from requests.adapters import HTTPAdapter
from write_api import TOKEN, write_api

from kuaimai.errors import ConfigError, Transient
from kuaimai.load.api import WriteApi
from kuaimai.load.reach import reach


@pytest.fixture
def api():
    with write_api() as made:
        yield made


def reached(url, token=TOKEN, **settings):
    with requests.Session() as transport:
        return reach(WriteApi(url, token, **settings), transport)


@pytest.fixture
def listening():
    """A port on which somebody listens and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("status", "headers", "told", "well"),
    [
        (204, {"Allow": "OPTIONS, POST"}, "it is there; whether it takes a record", True),
        (200, {}, "it is there; whether it takes a record", True),
        (200, {"Allow": "GET, HEAD, OPTIONS"}, "it takes GET, HEAD, OPTIONS, and no POST", False),
        (405, {"Allow": "POST"}, "it is there, though it takes no OPTIONS", True),
        (405, {"Allow": "GET"}, "it takes GET, and no POST", False),
        (501, {}, "a server is there that knows no OPTIONS", True),
        (403, {}, "it refuses the token, or OPTIONS", False),
        (404, {}, "nothing is there, or nothing that takes OPTIONS", False),
        (410, {}, "nothing is there any more", False),
        (418, {}, "this says nothing about records", False),
        (429, {}, "it is too busy to say more", False),
        (503, {}, "it is too busy to say more", False),
        (502, {}, "the API, or a proxy before it, is broken", False),
    ],
)
def test_every_answer_means_something(api, status, headers, told, well):
    api.options = (status, headers)
    found = reached(api.url)
    assert found.text.startswith(f"write API {api.url}: HTTP {status} to OPTIONS: {told}")
    assert (found.advice is None) is well
    assert api.calls == [("OPTIONS", "/api/orders")]


def test_path_that_is_not_there_is_told(api):
    assert "nothing is there" in reached(f"{api.url}/absent").text


def test_a_token_that_is_refused_is_told_and_shown_nowhere(api):
    with pytest.raises(ConfigError, match=r"HTTP 401 to OPTIONS: it refuses the token") as caught:
        reached(api.url, "another-token")
    assert "another-token" not in str(caught.value)


def test_address_that_leads_elsewhere_is_told_without_secrets(api):
    api.options = (308, {"Location": f"http://me:{TOKEN}@127.0.0.1:9/new?key={TOKEN}"})
    with pytest.raises(
        ConfigError, match=r"it leads to write API 127.0.0.1:9/new, and records do not"
    ) as caught:
        reached(api.url)
    assert TOKEN not in str(caught.value)


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(Transient, match="nobody listens there"):
        reached(f"http://127.0.0.1:{port}/api/orders")


def test_a_name_that_is_not_known(monkeypatch):
    def unknown(*_arguments):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    # Real names are asked of servers that are not on this machine.
    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(Transient, match="its name is not known here"):
        reached("http://erp.example.com/api/orders")


def test_tls_that_is_none_is_told(api):
    with pytest.raises(ConfigError, match="somebody listens, and TLS fails: WRONG_VERSION_NUMBER"):
        reached(api.url.replace("http:", "https:"))


def test_no_answer_ends_after_the_time_of_the_target(listening):
    with pytest.raises(Transient, match=r"connected, and no answer within 0.01 s"):
        reached(f"http://127.0.0.1:{listening}/api/orders", timeout=0.01)


def test_a_look_is_bounded_where_the_target_waits_longer(api):
    waited = []

    class Waiting(HTTPAdapter):
        def send(self, *arguments, **settings):
            waited.append(settings["timeout"])
            return super().send(*arguments, **settings)

    with requests.Session() as transport:
        transport.mount("http://", Waiting())
        reach(WriteApi(api.url, TOKEN, timeout=600), transport)
    assert waited == [10]


def test_a_proxy_that_lets_nothing_through_is_told_without_its_password(api):
    proxies = {"http": f"http://me:{TOKEN}@127.0.0.1:9"}
    with pytest.raises(Transient, match="the proxy does not let it through") as caught:
        reached(api.url, proxies=proxies)
    assert TOKEN not in str(caught.value)
    assert api.calls == []


def test_what_is_no_address_is_told():
    with pytest.raises(ConfigError, match="is no address that can be called"):
        reached("http://")
