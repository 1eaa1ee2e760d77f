"""On Airflow 2.11, real scheduler, the package dropped in: late data and failures are heard, once."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow_home import Home
from airflow_processes import airflow_line, drop_in, eventually, running
from inbox import Inbox, open_inbox

pytestmark = pytest.mark.skipif(airflow_line() != 2, reason="alerts by SLA are of Airflow 2")

DAGS = """
from datetime import datetime, timedelta, timezone
import time

from airflow import DAG
from airflow.operators.python import PythonOperator
from airflow.timetables.interval import CronDataIntervalTimetable

from kuaimai.airflow.deadlines import bounded, last_task, lateness
from kuaimai.airflow.notifications import KuaimaiNotifier

LIMIT = timedelta(seconds=2)
FIRST = datetime.fromisoformat("2026-01-05T00:00:00+08:00")
settings = dict(
    schedule=CronDataIntervalTimetable("*/5 * * * *", timezone="Asia/Shanghai"),
    start_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=5,
    is_paused_upon_creation=False,
)


def outlive(data_interval_start):
    if data_interval_start != FIRST:
        time.sleep(600)


def fail(number):
    raise ValueError(f"slice {number} 😀: access_token=invented-0123456789 is refused")


with DAG("kuaimai_slow", **settings, **lateness("kuaimai_slow", LIMIT)) as slow:
    PythonOperator(task_id="outlive", python_callable=outlive, **last_task(LIMIT))
bounded(slow)

alert = KuaimaiNotifier()
with DAG(
    "kuaimai_broken", **settings, on_failure_callback=alert, default_args={"on_failure_callback": alert}
):
    PythonOperator.partial(task_id="extract", python_callable=fail).expand(op_args=[[1], [2], [3]])
"""


@pytest.fixture(scope="module")
def inbox() -> Iterator[Inbox]:
    with open_inbox() as opened:
        yield opened


@pytest.fixture(scope="module")
def database(new_database) -> str:
    # SQLite would force the executor that runs one task at a time, inside the scheduler.
    return new_database()


@pytest.fixture(scope="module")
def home(inbox, database, tmp_path_factory) -> Iterator[Home]:
    channels = {"config": [{"path": inbox.webhook}], "language": "en"}
    made = Home(
        tmp_path_factory.mktemp("airflow2"),
        Path(sys.executable),
        AIRFLOW_CONN_KUAIMAI_ALERTS=json.dumps({"conn_type": "apprise", "extra": channels}),
        AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=database,
        AIRFLOW__CORE__EXECUTOR="LocalExecutor",
        AIRFLOW__CORE__PARALLELISM="8",
        AIRFLOW__SCHEDULER__MIN_FILE_PROCESS_INTERVAL="2",
        AIRFLOW__SCHEDULER__PARSING_PROCESSES="1",
        AIRFLOW__WEBSERVER__BASE_URL="https://airflow.example.cn",
    )
    drop_in(made, DAGS)
    made.airflow("db", "migrate")
    # A backfill over two intervals of the past, whose first one succeeds: from there on Airflow counts what
    # is missing. The second one hangs, like the run by hand after it, and like the live run.
    backfill = "dags backfill -s 2026-01-05T00:00:00+08:00 -e 2026-01-05T00:05:00+08:00 kuaimai_slow"
    with running(made, "scheduler", backfill):
        yield made


@pytest.fixture(scope="module")
def ask(database):
    import sqlalchemy as sa

    engine = sa.create_engine(database)
    yield lambda statement: engine.connect().execute(sa.text(statement)).fetchall()
    engine.dispose()


def test_a_late_scheduled_run_is_told_once_and_neither_backfills_nor_old_runs_by_hand_are(home, inbox, ask):
    eventually(
        lambda: ask("SELECT 1 FROM dag_run WHERE run_type = 'backfill' AND state = 'running'"),
        home=home,
        what="the second interval of the backfill",
    )
    home.airflow("dags", "trigger", "kuaimai_slow", "-e", "2026-01-05T00:10:00+08:00")
    started = "SELECT run_type FROM dag_run WHERE dag_id = 'kuaimai_slow' AND state = 'running'"
    eventually(
        lambda: {"backfill", "manual", "scheduled"} <= {row[0] for row in ask(started)},
        home=home,
        what="a backfill, a run by hand and a live run side by side",
    )
    letter = eventually(lambda: inbox.about("kuaimai_slow"), home=home, what="the alert about late data")[0]
    # Airflow booked many intervals that never had a run as missed, and called with all of them; but not
    # the whole time since the backfill, which would have cost the DAG its file's time limit.
    eventually(
        lambda: ask("SELECT 1 FROM sla_miss HAVING bool_and(notification_sent)"),
        home=home,
        what="the end of the callback",
    )
    [(booked,)] = ask("SELECT count(*) FROM sla_miss")
    assert 590 < booked < 610

    [(run_id,)] = ask(
        "SELECT run_id FROM dag_run WHERE dag_id = 'kuaimai_slow' AND run_type = 'scheduled' "
        "ORDER BY execution_date LIMIT 1"
    )
    assert letter.json["title"] == "⏰ Kuaimai data is late · kuaimai_slow"
    assert "Window: 20" in letter.json["message"]
    assert (
        "Run: https://airflow.example.cn/dags/kuaimai_slow/grid?dag_run_id=scheduled__"
        in (letter.json["message"])
    )
    assert run_id.split("T")[0] in letter.json["message"]
    assert "2026-01-05" not in letter.json["message"]
    assert len(inbox.about("kuaimai_slow")) == 1


def test_mapped_tasks_that_fail_are_one_alert_with_the_error_and_without_its_secret(home, inbox, ask):
    eventually(
        lambda: ask("SELECT 1 FROM dag_run WHERE dag_id = 'kuaimai_broken' AND state = 'failed'"),
        home=home,
        what="the failure",
    )
    # The DAG's own callback comes last, from the DAG processor; when its log line is there all have spoken.
    logs = home.folder / "logs" / "scheduler"
    eventually(
        lambda: [each for each in logs.rglob("*.log") if "Kuaimai sync failed" in each.read_text("utf-8")],
        home=home,
        what="the DAG's failure callback",
    )

    [letter] = inbox.about("kuaimai_broken")
    assert letter.json["title"] == "❌ Kuaimai sync failed · kuaimai_broken"
    assert "Task: extract" in letter.json["message"]
    assert "😀: access_token=*** is refused" in letter.json["message"]
    assert "invented-0123456789" not in letter.json["message"]


def test_no_log_shows_the_address_of_the_channel(home):
    files = [*home.folder.glob("*.log"), *(home.folder / "logs").rglob("*.log")]

    assert files
    assert [
        each.name for each in files if "c0ffee-invented-token" in each.read_text("utf-8", "replace")
    ] == []
