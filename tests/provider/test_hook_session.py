"""The hook against the sandbox: real HTTP, real Variables, real Connections, real tasks."""
# ruff: noqa: F811 - the imported fixtures are arguments

import importlib.util
import json
import os
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hooked import box, connect, hook, real_box  # noqa: F401

from kuaimai.airflow.compat import (
    AIRFLOW_V_3_0,
    is_backfill,
    is_scheduled,
    read_variable,
    stored_variables,
    write_variable,
)
from kuaimai.airflow.hooks import KuaimaiHook
from kuaimai.airflow.vaults import VariableVault
from kuaimai.errors import SessionError, Transient
from kuaimai.gateway.tokens import DAY
from kuaimai.sandbox.methods import METHODS

VARIABLE = "kuaimai_token__kuaimai_default"


def secrets_of(box):
    return (
        box.credentials.app_key,
        box.credentials.app_secret,
        box.credentials.access_token,
        box.credentials.refresh_token,
    )


def test_a_refresh_lands_in_the_variable(hook, box):
    report = hook.keeper().refresh_if_due()
    assert report.state == "refreshed"
    record = json.loads(read_variable(VARIABLE))
    assert record["access_token"] == box.credentials.access_token
    assert record["fence"] == 1
    assert hook.client().call("erp.shop.list.query", {"pageNo": 1, "pageSize": 50}).rows(["list"])


def test_the_variable_is_masked_by_its_name():
    from airflow.providers.common.compat.sdk import redact

    assert redact('{"access_token": "x"}', VARIABLE) == "***"


def test_a_dead_session_stops_every_hook(hook, box, clock):
    hook.keeper().refresh_if_due()
    clock.advance(31 * DAY)
    for each in (hook, KuaimaiHook(now=clock, sleep=clock.sleep)):
        with pytest.raises(SessionError, match="is dead"):
            each.client().call("erp.shop.list.query", {"pageNo": 1, "pageSize": 50})
        each.close()
    refused = [entry.method for entry in box.requests if entry.code == "invalid_session"]
    assert refused == ["erp.shop.list.query", "open.token.refresh"]


def test_deleting_the_variable_tries_again(hook, box, clock, session):
    hook.keeper().refresh_if_due()
    box.session.expire()
    clock.advance(DAY)
    with pytest.raises(SessionError):
        hook.client().call("erp.shop.list.query", {"pageNo": 1, "pageSize": 50})
    box.session.expires_at = clock() + DAY
    forget(session)
    assert hook.keeper().refresh_if_due().state == "refreshed"


def forget(session):
    from airflow.models import Variable

    session.query(Variable).filter(Variable.key == VARIABLE).delete()
    session.commit()


def test_a_variable_that_someone_broke_is_rebuilt(hook, box):
    write_variable(VARIABLE, "not json {", "broken by hand")
    assert VariableVault("kuaimai_default").read() == {}
    assert hook.keeper().refresh_if_due().state == "refreshed"
    assert VariableVault("kuaimai_default").read()["access_token"] == box.credentials.access_token


def test_a_rotated_pair_goes_back_into_the_connection_on_2_and_only_into_the_variable_on_3(
    hook, box, clock, session
):
    from airflow.models import Connection

    before = box.credentials
    box.faults.rotate_tokens = True
    assert hook.keeper().refresh_if_due().state == "refreshed"
    session.expire_all()
    row = session.query(Connection).filter(Connection.conn_id == "kuaimai_default").one()
    expected = before if AIRFLOW_V_3_0 else box.credentials
    assert row.extra_dejson["access_token"] == expected.access_token
    assert row.extra_dejson["refresh_token"] == expected.refresh_token
    assert row.extra_dejson["requests_per_second"] == 1000  # the rest stays
    again = KuaimaiHook(now=clock, sleep=clock.sleep)
    assert again.keeper().current() == box.credentials.access_token
    clock.advance(7 * DAY)
    assert again.keeper().refresh_if_due().state == "refreshed"
    assert again.keeper().current() == box.credentials.access_token
    again.close()


def test_an_edit_by_a_person_wins(hook, box, clock, connect):
    hook.keeper().refresh_if_due()
    box.session.expire()
    clock.advance(DAY)
    with pytest.raises(SessionError):
        hook.client().call("erp.shop.list.query", {"pageNo": 1, "pageSize": 50})
    mailed = box.session.renew(clock(), ttl_seconds=30 * DAY)
    connect(mailed, host=box.url)
    # the same hook, as in a task that is still running
    assert hook.keeper().refresh_if_due().state == "refreshed"
    assert hook.client().call("erp.shop.list.query", {"pageNo": 1, "pageSize": 50}).rows(["list"])


def test_a_connection_that_vanishes_under_a_running_task_is_a_reason_to_try_again(hook, session):
    from airflow.models import Connection

    keeper = hook.keeper()
    session.query(Connection).delete()
    session.commit()
    with pytest.raises(Transient, match="no Connection kuaimai_default"):
        keeper.current()


# The Test button


def test_it_passes_and_tells_the_days_left(hook, box, clock):
    passed, said = hook.test_connection()
    assert passed
    assert "unknown until its first refresh" in said
    hook.keeper().refresh_if_due()
    clock.advance(2 * DAY)
    assert "ends in 28.0 days" in hook.test_connection()[1]


def test_it_finds_the_session_under_an_invented_id(hook, box, clock, connect):
    hook.keeper().refresh_if_due()
    connect(box.credentials, host=box.url, conn_id="q7xk2p")
    other = KuaimaiHook("q7xk2p", now=clock)
    assert "ends in 30.0 days" in other.test_connection()[1]
    assert VARIABLE in stored_variables("kuaimai_token__")


def test_it_falls_back_where_the_clock_method_is_unknown(hook, monkeypatch):
    monkeypatch.delitem(METHODS, "open.system.time.get")
    passed, said = hook.test_connection()
    assert passed
    assert "erp.shop.list.query" in said


def test_a_success_closes_the_breaker(hook, box, clock):
    hook.keeper().refresh_if_due()
    was = box.session.expires_at
    box.session.expire()
    clock.advance(DAY)
    with pytest.raises(SessionError):
        hook.client().call("erp.shop.list.query", {"pageNo": 1, "pageSize": 50})
    box.session.expires_at = was  # Kuaimai revived the same tokens
    with pytest.raises(SessionError):
        hook.keeper().current()
    assert hook.test_connection()[0]
    assert hook.keeper().current()


def test_it_notices_a_wrong_clock(hook, box):
    box.clock.advance(300)
    assert "clock is 300 s off" in hook.test_connection()[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"password": "wrongSecret"}, "check the Connection's password (appSecret)"),
        ({"login": "wrongKey"}, "check the Connection's login"),
        ({"access_token": "wrongToken"}, "invalid_session"),
        ({"host": "http://127.0.0.1:9/router"}, "the connection broke"),
        ({"host": "127.0.0.1/router"}, "is not a URL"),
        ({"sign_method": "sha1"}, "Use hmac-sha256, hmac or md5"),
    ],
)
def test_each_fault_is_one_clear_message_without_secrets(box, clock, connect, change, said):
    connect(box.credentials, **{"host": box.url, **change})
    passed, text = KuaimaiHook(now=clock, sleep=clock.sleep).test_connection()
    assert not passed
    assert said in text
    for secret in (*secrets_of(box), "wrongSecret", "wrongToken"):
        assert secret not in text


# In tasks


DAG_FILE = """
from datetime import datetime, timezone

from kuaimai.airflow.compat import DAG, BaseOperator, CronDataIntervalTimetable, is_backfill, is_scheduled


class Refresh(BaseOperator):
    def execute(self, context):
        from kuaimai.airflow.hooks import KuaimaiHook

        hook = KuaimaiHook()
        report = hook.keeper().refresh_if_due()
        rows = hook.client().call("erp.shop.list.query", {"pageNo": 1, "pageSize": 50}).rows(["list"])
        hook.close()
        return [report.state, bool(rows), is_backfill(context), is_scheduled(context)]


with DAG(
    "session_in_a_task",
    schedule=CronDataIntervalTimetable("*/5 * * * *", timezone="Asia/Shanghai"),
    start_date=datetime(2026, 1, 1, tzinfo=timezone.utc),
    catchup=False,
) as dag:
    Refresh(task_id="first") >> Refresh(task_id="second")
"""


@pytest.fixture
def dag():
    """The DAG above, from a file in Airflow's own folder."""
    file = Path(os.environ["AIRFLOW_HOME"]) / "dags" / "session_in_a_task.py"
    file.write_text(DAG_FILE)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module.dag
    file.unlink()


def test_a_real_task_keeps_the_session_in_its_variable(real_box, connect, dag, monkeypatch):
    connect(real_box.credentials, host=real_box.url)
    monkeypatch.delenv("_AIRFLOW_PROCESS_CONTEXT")  # a task is a client
    when = "logical_date" if AIRFLOW_V_3_0 else "execution_date"
    run = dag.test(**{when: datetime(2026, 3, 1, tzinfo=timezone.utc)})
    assert run.state == "success"
    assert real_box.session.refreshes == 1
    assert json.loads(read_variable(VARIABLE))["access_token"] == real_box.credentials.access_token
    returned = {ti.task_id: ti.xcom_pull(task_ids=ti.task_id) for ti in run.get_task_instances()}
    assert returned["first"] == ["refreshed", True, False, False]
    assert returned["second"] == ["fresh", True, False, False]


def test_run_types():
    class Run:
        run_type = "backfill"

    assert is_backfill({"dag_run": Run})
    assert not is_scheduled({"dag_run": Run})
    Run.run_type = "scheduled"
    assert is_scheduled({"dag_run": Run})


def test_a_timetable_gives_a_data_interval_on_either_line():
    from airflow.timetables.interval import CronDataIntervalTimetable as Core

    table = Core("*/5 * * * *", timezone="Asia/Shanghai")
    interval = table.infer_manual_data_interval(run_after=pendulum_now())
    assert interval.end - interval.start == timedelta(minutes=5)


def pendulum_now():
    import pendulum

    return pendulum.datetime(2026, 3, 1, 0, 7, tz="UTC")
