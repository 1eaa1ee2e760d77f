"""On Airflow 3 a rotated pair goes back into the Connection through the real REST API."""
# ruff: noqa: F811 - the imported fixtures are arguments

import json
import os
import socket
import threading
from pathlib import Path

import pytest
from hooked import box, connect, hook  # noqa: F401

from kuaimai.airflow.compat import AIRFLOW_V_3_0
from kuaimai.airflow.hooks import KuaimaiHook

pytestmark = [
    pytest.mark.skipif(not AIRFLOW_V_3_0, reason="Airflow 2 lets tasks write Connections"),
    pytest.mark.filterwarnings("ignore"),  # the API server's own
]


@pytest.fixture(scope="module")
def api():
    """Airflow's API server in a thread; its address, user and password."""
    import uvicorn
    from airflow.api_fastapi.app import create_app

    file = Path(os.environ["AIRFLOW_HOME"]) / "simple_auth_manager_passwords.json.generated"
    file.write_text(json.dumps({"admin": "adminPassword"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            server = uvicorn.Server(
                uvicorn.Config(create_app(apps="core"), log_level="warning", lifespan="on")
            )
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
            thread.start()
            # Bound is not listening: until it has started, connections are refused.
            while thread.is_alive() and not server.started:
                thread.join(0.05)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", "admin", "adminPassword"
            server.should_exit = True
            thread.join(20)


@pytest.fixture
def connect_api(monkeypatch, api):
    """A function: the Connection to the API, some fields changed."""

    def make(host=api[0], login=api[1], password=api[2]):
        fields = {"conn_type": "http", "host": host, "login": login, "password": password}
        monkeypatch.setenv("AIRFLOW_CONN_KUAIMAI_AIRFLOW_API", json.dumps(fields))

    return make


def extra_of(session):
    from airflow.models import Connection

    session.expire_all()
    session.rollback()
    return session.query(Connection).filter(Connection.conn_id == "kuaimai_default").one().extra_dejson


def test_a_rotated_pair_goes_back_through_the_api(hook, box, session, connect_api):
    connect_api()
    box.faults.rotate_tokens = True
    assert hook.keeper().refresh_if_due().state == "refreshed"
    extra = extra_of(session)
    assert extra["access_token"] == box.credentials.access_token
    assert extra["refresh_token"] == box.credentials.refresh_token
    assert extra["requests_per_second"] == 1000
    again = KuaimaiHook(now=box.clock)
    assert again.keeper().report().state == "fresh"
    assert again.keeper().current() == box.credentials.access_token
    again.close()


def test_an_api_that_refuses_costs_nothing(hook, box, session, connect_api, caplog):
    connect_api(password="wrongPassword")
    before = box.credentials
    box.faults.rotate_tokens = True
    assert hook.keeper().refresh_if_due().state == "refreshed"
    assert extra_of(session)["access_token"] == before.access_token
    assert hook.keeper().current() == box.credentials.access_token
    assert "not in its Connection (HTTPError)" in caplog.text
    assert "wrongPassword" not in caplog.text


def test_an_api_address_that_is_none_costs_nothing_either(hook, box, connect_api, caplog):
    connect_api(host="airflow.example")
    box.faults.rotate_tokens = True
    assert hook.keeper().refresh_if_due().state == "refreshed"
    assert hook.keeper().current() == box.credentials.access_token
    assert "not in its Connection (ConfigError)" in caplog.text
