"""What a Connection means, and what is said when it means nothing."""
# ruff: noqa: F811 - the imported fixtures are arguments

import json

import pytest
from hooked import masked  # noqa: F401

from kuaimai.airflow.gateway_settings import GatewaySettings
from kuaimai.airflow.hooks import KuaimaiHook
from kuaimai.errors import ConfigError

FIELDS = {
    "conn_type": "kuaimai",
    "host": "https://gw.superboss.cc/router",
    "login": "demoKey123456",
    "password": "demoSecret",
    "extra": {"access_token": "demoAccess", "refresh_token": "demoRefresh"},
}


@pytest.fixture
def settings(monkeypatch):
    """A function: the settings of a Connection with these fields changed and more extra fields."""

    def read(more=None, **fields):
        whole = {**FIELDS, **fields}
        if more:
            whole["extra"] = {**FIELDS["extra"], **more}
        monkeypatch.setenv("AIRFLOW_CONN_KUAIMAI_DEFAULT", json.dumps(whole))
        return KuaimaiHook().settings

    return read


def test_four_credentials_are_enough(settings):
    read = settings(host="")
    assert read.url == "https://gw.superboss.cc/router"
    assert read.credentials.app_key == "demoKey123456"
    assert read.credentials.app_secret == "demoSecret"
    assert read.credentials.access_token == "demoAccess"
    assert read.credentials.refresh_token == "demoRefresh"
    assert (read.sign_method, read.requests_per_second, read.timeout) == ("hmac-sha256", 5, (10, 90))
    assert (read.verify, read.proxies, read.dialect) == (True, {}, "router")


@pytest.mark.parametrize("conn_type", ["kuaimai", "generic", "http", ""])
def test_any_connection_type_will_do(settings, conn_type):
    assert settings(conn_type=conn_type).credentials.access_token == "demoAccess"


@pytest.mark.parametrize(
    ("extra", "name", "expected"),
    [
        ({"sign_method": "md5"}, "sign_method", "md5"),
        ({"dialect": "rest"}, "dialect", "rest"),
        ({"requests_per_second": "2.5"}, "requests_per_second", 2.5),
        ({"requests_per_second": 3}, "requests_per_second", 3),
        ({"timeout": 30}, "timeout", (10, 30)),
        ({"timeout": "5"}, "timeout", (5, 5)),
        ({"timeout": [3, 60]}, "timeout", (3, 60)),
        ({"verify": False}, "verify", False),
        ({"verify": "false"}, "verify", False),
        ({"verify": "/etc/ca.pem"}, "verify", "/etc/ca.pem"),
        ({"proxies": "http://proxy:3128"}, "proxies", dict.fromkeys(["http", "https"], "http://proxy:3128")),
        ({"proxies": {"https": "http://proxy:3128"}}, "proxies", {"https": "http://proxy:3128"}),
        ({"proxies": '{"https": "http://proxy:3128"}'}, "proxies", {"https": "http://proxy:3128"}),
        # what a form sends for fields that nobody filled in
        (
            {"sign_method": "", "timeout": None, "srv_lookup": False, "proxies": ""},
            "sign_method",
            "hmac-sha256",
        ),
        ({"extra__kuaimai__dialect": "rest"}, "dialect", "rest"),
    ],
)
def test_extra_fields(settings, extra, name, expected):
    assert getattr(settings(extra), name) == expected


@pytest.mark.filterwarnings("ignore:Encountered")  # 2.x warns of it, and tests make that an error
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"login": ""}, "login is empty → Fill in the appKey"),
        ({"password": " "}, "password is empty → Fill in the appSecret"),
        ({"extra": {"refresh_token": "r"}}, "access_token is empty"),
        ({"extra": {"access_token": "a"}}, "refresh_token is empty"),
        ({"extra": {}}, "access_token is empty"),
        ({"extra": ""}, "access_token is empty"),
        ({"extra": "not json"}, "extra is not a JSON object"),
        ({"extra": "[1]"}, "extra is not a JSON object"),
        (
            {"host": "gw.superboss.cc/router"},
            "host 'gw.superboss.cc/router' is not a URL → Write it with its scheme",
        ),
        ({"host": "ftp://gw.superboss.cc"}, "is not a URL"),
        ({"host": "https://"}, "is not a URL"),
        ({"host": "https://gw.superboss.cc/router?a=b"}, "more than an address"),
        ({"host": "https://me:hidden@gw.superboss.cc/router"}, "more than an address"),
    ],
)
def test_a_missing_or_malformed_field_is_named(settings, fields, said):
    with pytest.raises(ConfigError) as caught:
        settings(**fields)
    assert said in str(caught.value)
    assert "kuaimai_default" in str(caught.value)
    for secret in ("demoSecret", "demoAccess", "demoRefresh", "hidden"):
        assert secret not in str(caught.value)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ({"acces_token": "x"}, "'acces_token' is unknown → Did you mean 'access_token'?"),
        ({"rps": 5}, "'rps' is unknown → Known are: access_token,"),
        ({"sign_method": "sha1"}, "sign_method 'sha1' is unknown → Use hmac-sha256, hmac or md5"),
        ({"dialect": "soap"}, "dialect 'soap' is unknown → Use router or rest"),
        ({"requests_per_second": "fast"}, "requests_per_second 'fast' is not a number above 0"),
        ({"requests_per_second": 0}, "is not a number above 0"),
        ({"requests_per_second": True}, "is not a number above 0"),
        ({"timeout": -1}, "timeout -1 is not a number above 0"),
        ({"timeout": [1, 2, 3]}, "is no pair"),
        ({"verify": 7}, "verify 7 is not understood"),
        ({"proxies": "{broken"}, "proxies is not valid JSON"),
        ({"proxies": "proxy:3128"}, "proxies does not name a URL"),
        ({"proxies": 3128}, "proxies does not name a URL"),
        ({"sign_method": ["md5"]}, "sign_method is not a text"),
    ],
)
def test_an_extra_field_that_makes_no_sense_is_named(settings, extra, said):
    with pytest.raises(ConfigError) as caught:
        settings(extra)
    assert said in str(caught.value)


def test_a_missing_connection_says_how_to_make_it():
    with pytest.raises(ConfigError, match=r"no Connection nowhere.*login = appKey"):
        _ = KuaimaiHook("nowhere").settings


@pytest.mark.parametrize(
    ("host", "port", "url"),
    [
        ("https://gw.superboss.cc/router", None, "https://gw.superboss.cc/router"),
        ("http://127.0.0.1:8085/router", None, "http://127.0.0.1:8085/router"),
        ("http://127.0.0.1/router", 8085, "http://127.0.0.1:8085/router"),
        ("http://127.0.0.1:8085", None, "http://127.0.0.1:8085"),
    ],
)
def test_the_address_survives_being_written_as_a_uri(settings, monkeypatch, host, port, url):
    """Airflow's Test button, and users of AIRFLOW_CONN_…, hand the Connection over as a URI."""
    from airflow.models import Connection

    fields = {**FIELDS, "host": host, "port": port, "extra": json.dumps({**FIELDS["extra"], "timeout": 7})}
    assert settings(host=host, port=port).url == url
    monkeypatch.setenv("AIRFLOW_CONN_KUAIMAI_DEFAULT", Connection(conn_id="x", **fields).get_uri())
    read = KuaimaiHook().settings
    assert (read.url, read.timeout) == (url, (7, 7))
    assert read.credentials == settings().credentials


def test_tokens_of_digits_survive_being_written_as_a_uri(monkeypatch):
    from airflow.models import Connection

    tokens = json.dumps({"access_token": "123456", "refresh_token": "654321"})
    monkeypatch.setenv(
        "AIRFLOW_CONN_KUAIMAI_DEFAULT", Connection(conn_id="x", **{**FIELDS, "extra": tokens}).get_uri()
    )
    assert KuaimaiHook().settings.credentials.access_token == "123456"


def test_the_http_hook_never_sees_a_credential(settings):
    settings({"proxies": {"https": "http://proxy:3128"}, "verify": "/etc/ca.pem", "sign_method": "md5"})
    hook = KuaimaiHook()
    session = hook.get_conn()
    assert session.auth is None
    assert set(session.headers) == {"User-Agent", "Accept-Encoding", "Accept", "Connection"}
    assert session.proxies == {"https": "http://proxy:3128"}
    assert session.verify == "/etc/ca.pem"
    assert type(session.get_adapter("https://x")).__name__ == "TCPKeepAliveAdapter"
    assert hook.get_conn() is session
    assert hook.wire().transport is hook.client().wire.transport is session
    seen = hook.get_connection("kuaimai_default")
    assert (seen.login, seen.password) == (None, None)
    assert "demo" not in str(seen.extra)
    hook.close()
    assert hook.get_conn() is not session
    hook.close()


def test_a_hook_reads_nothing_until_it_is_used():
    hook = KuaimaiHook("nowhere")
    assert hook.kuaimai_conn_id == "nowhere"


def test_settings_hide_their_secrets(settings):
    shown = repr(settings({"proxies": "http://me:hidden@proxy:3128"}))
    for secret in ("demoSecret", "demoAccess", "demoRefresh", "hidden"):
        assert secret not in shown


def test_every_secret_is_masked_in_logs_as_soon_as_it_is_read(settings, masked):
    read = settings({"proxies": "http://me:hiddenWord@proxy:3128"})
    assert isinstance(read, GatewaySettings)
    for secret in ("demoKey123456", "demoSecret", "demoAccess", "demoRefresh", "hiddenWord"):
        assert secret not in masked(f"a log line with {secret} inside")
