"""Which runs are late, and what is told about them; the processes that find out are in tests/e2e."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
from airflow_processes import airflow_line
from inbox import open_inbox

from kuaimai.airflow.compat import DAG, BaseOperator, CronDataIntervalTimetable
from kuaimai.airflow.deadlines import bounded, deadline_missed, last_task, lateness
from kuaimai.airflow.notifications import KuaimaiNotifier

# Of a library that one of Apprise's many plugins imports.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr':DeprecationWarning")

LIMIT = timedelta(minutes=10)
only_3 = pytest.mark.skipif(airflow_line() != 3, reason="deadlines are of Airflow 3")
only_2 = pytest.mark.skipif(airflow_line() != 2, reason="SLAs are of Airflow 2")


@pytest.fixture
def inbox(monkeypatch, tmp_path):
    with open_inbox() as opened:
        state = {"conn_type": "sqlite", "host": str(tmp_path / "state.db")}
        alerts = {"conn_type": "apprise", "extra": {"config": {"path": opened.webhook}, "quiet_minutes": 0}}
        monkeypatch.setenv("AIRFLOW_CONN_KUAIMAI_STATE", json.dumps(state))
        monkeypatch.setenv("AIRFLOW_CONN_KUAIMAI_ALERTS", json.dumps(alerts))
        yield opened


def missed(run_type: str = "scheduled", state: str = "running") -> None:
    """Call the callback as the triggerer does, with what the scheduler sends along."""
    run = {
        "dag_id": "kuaimai_trades",
        "dag_run_id": "a_run",
        "data_interval_start": "2026-03-01T01:00:00Z",
        "data_interval_end": "2026-03-01T01:05:00Z",
        "run_type": run_type,
        "state": state,
        "conf": {},
    }
    asyncio.run(deadline_missed(late_after_seconds=LIMIT.total_seconds(), context={"dag_run": run}))


@pytest.mark.parametrize("state", ["queued", "running", "failed"])
def test_a_scheduled_run_past_its_deadline_is_late(inbox, state):
    missed(state=state)

    [letter] = inbox.letters
    assert letter.json["title"] == "⏰ 快麦数据延迟 · kuaimai_trades"
    assert "窗口：2026-03-01 09:00 – 09:05（北京时间）" in letter.json["message"]
    assert "（限 10 分钟）" in letter.json["message"]


@pytest.mark.parametrize("run_type", ["backfill", "manual", "asset_triggered"])
def test_other_runs_are_never_late(inbox, run_type):
    missed(run_type)

    assert inbox.letters == []


def test_what_came_late_but_came_is_not_told(inbox):
    missed(state="success")

    assert inbox.letters == []


def test_a_failure_that_was_told_is_not_told_again_as_late(inbox):
    start = datetime(2026, 3, 1, 1, 0, tzinfo=timezone.utc)
    run = SimpleNamespace(
        dag_id="kuaimai_trades",
        run_id="a_run",
        data_interval_start=start,
        data_interval_end=start + timedelta(minutes=5),
    )
    KuaimaiNotifier(sleep=lambda _seconds: None).notify({"dag_run": run})
    missed(state="failed")

    assert [each.json["title"] for each in inbox.letters] == ["❌ 快麦同步失败 · kuaimai_trades"]


def test_the_callback_never_raises(inbox):
    asyncio.run(deadline_missed(late_after_seconds=1, context=None))
    asyncio.run(deadline_missed(late_after_seconds=1, context={"dag_run": {"run_type": "scheduled"}}))


def a_dag() -> DAG:
    with DAG(
        "kuaimai_trades",
        schedule=CronDataIntervalTimetable("*/5 * * * *", timezone="Asia/Shanghai"),
        start_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
        catchup=False,
        **lateness("kuaimai_trades", LIMIT),
    ) as dag:
        BaseOperator(task_id="seal", **last_task(LIMIT))
    return dag


@only_3
def test_the_deadline_counts_from_the_queue_and_its_callback_can_be_imported_anywhere():
    from importlib import import_module

    from airflow.sdk.definitions.deadline import DeadlineReference

    [deadline] = bounded(a_dag()).deadline
    module, _, name = deadline.callback.path.rpartition(".")

    assert deadline.reference == DeadlineReference.DAGRUN_QUEUED_AT
    assert deadline.interval == LIMIT
    assert getattr(import_module(module), name) is deadline_missed
    assert last_task(LIMIT) == {}


@only_3
def test_what_is_stored_of_the_dag_holds_the_deadline_and_no_secret():
    from airflow.serialization import serialized_objects

    # 3.1 has it under the name that it had on 2.x.
    how = getattr(serialized_objects, "DagSerialization", None) or serialized_objects.SerializedDAG
    stored = json.dumps(how.to_dict(bounded(a_dag()))["dag"]["deadline"])

    assert "DagRunQueuedAtDeadline" in stored
    assert "kuaimai.airflow.deadlines.deadline_missed" in stored


@pytest.fixture
def booked(session):
    """Make runs of 2.x in the metadata database; return a function that books misses and calls back."""
    from airflow.models import DagRun

    def make(*runs: tuple[int, str, str]) -> None:
        for window, run_type, state in runs:
            start = datetime(2026, 3, 1, 1, 0, tzinfo=timezone.utc) + window * timedelta(minutes=5)
            session.add(
                DagRun(
                    dag_id="kuaimai_trades",
                    run_id=f"{run_type}__{window}",
                    run_type=run_type,
                    state=state,
                    execution_date=start,
                    data_interval=(start, start + timedelta(minutes=5)),
                )
            )
        session.commit()

    def call(*ends: int) -> None:
        first = datetime(2026, 3, 1, 1, 0, tzinfo=timezone.utc)
        misses = [SimpleNamespace(execution_date=first + end * timedelta(minutes=5)) for end in ends]
        a_dag().sla_miss_callback(None, "", "", misses, [])

    yield SimpleNamespace(make=make, call=call)
    session.query(DagRun).delete()
    session.commit()


@only_2
def test_of_the_booked_misses_only_scheduled_runs_without_success_are_late(inbox, booked):
    booked.make(
        (0, "backfill", "running"),
        (1, "manual", "running"),
        (2, "scheduled", "success"),
        (3, "scheduled", "running"),
    )
    # Airflow books under the following interval, and those without a run as well.
    booked.call(-200, -1, 1, 2, 3, 4, 5, 6)

    [letter] = inbox.letters
    assert "窗口：2026-03-01 09:15 – 09:20（北京时间）" in letter.json["message"]
    assert "运行：scheduled__3" in letter.json["message"]


@only_2
def test_of_several_late_runs_the_newest_is_told(inbox, booked):
    booked.make((0, "scheduled", "running"), (1, "scheduled", "queued"))
    booked.call(1, 2)

    [letter] = inbox.letters
    assert "运行：scheduled__1" in letter.json["message"]


@only_2
def test_misses_without_a_run_are_silent(inbox, booked):
    booked.call(*range(100))
    booked.call()

    assert inbox.letters == []


@only_2
def test_the_search_for_late_intervals_begins_at_most_600_intervals_ago(clock):
    import pendulum
    from airflow.timetables.base import DataInterval

    clock.at = pendulum.datetime(2026, 3, 1, 1, 2).timestamp()
    dag = bounded(a_dag(), now=clock)
    old = pendulum.datetime(2025, 1, 1, 1, 0)
    recent = pendulum.datetime(2026, 3, 1, 0, 30)

    def following(start: pendulum.DateTime, **how) -> pendulum.DateTime:
        return dag.next_dagrun_info(DataInterval(start, start.add(minutes=5)), **how).logical_date

    assert following(old, restricted=False) == pendulum.datetime(2026, 2, 26, 23, 0)
    assert following(recent, restricted=False) == recent.add(minutes=5)
    assert following(old) > recent  # what the scheduler asks is not touched
    assert last_task(LIMIT) == {"sla": LIMIT}
