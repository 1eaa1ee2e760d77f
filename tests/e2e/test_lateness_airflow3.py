"""On Airflow 3, with real processes and the package dropped in: late data and failures are heard, once."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from airflow_home import Home
from airflow_processes import airflow_line, drop_in, eventually, free_port, running
from inbox import Inbox, open_inbox

pytestmark = pytest.mark.skipif(airflow_line() != 3, reason="alerts by deadline are of Airflow 3")

DAGS = """
from datetime import datetime, timedelta, timezone
import time

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG

from kuaimai.airflow.compat import CronDataIntervalTimetable
from kuaimai.airflow.deadlines import bounded, last_task, lateness
from kuaimai.airflow.notifications import KuaimaiNotifier

LIMIT = timedelta(seconds=2)
settings = dict(
    schedule=CronDataIntervalTimetable("*/5 * * * *", timezone="Asia/Shanghai"),
    start_date=datetime(2024, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
)


def outlive():
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

CALLBACKS = """
SELECT dag_run.run_type, callback.state FROM deadline
JOIN dag_run ON dag_run.id = deadline.dagrun_id JOIN callback ON callback.id = deadline.callback_id
WHERE deadline.missed
"""


@pytest.fixture(scope="module")
def inbox() -> Iterator[Inbox]:
    with open_inbox() as opened:
        yield opened


@pytest.fixture(scope="module")
def home(inbox, tmp_path_factory) -> Iterator[Home]:
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    channels = {"conn_type": "apprise", "extra": {"config": [{"path": inbox.webhook}]}}
    made = Home(
        tmp_path_factory.mktemp("airflow3"),
        Path(sys.executable),
        AIRFLOW_CONN_KUAIMAI_ALERTS=json.dumps(channels),
        AIRFLOW__API__BASE_URL=address,
        AIRFLOW__API__PORT=str(port),
        AIRFLOW__API__WORKERS="1",
        AIRFLOW__CORE__EXECUTION_API_SERVER_URL=f"{address}/execution/",
        AIRFLOW__CORE__EXECUTOR="LocalExecutor",
        AIRFLOW__CORE__PARALLELISM="4",
        AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL="5",
    )
    drop_in(made, DAGS)
    made.airflow("db", "migrate")
    with running(made, "api-server", "scheduler", "dag-processor", "triggerer"):
        yield made


def ask(home: Home, statement: str) -> list[tuple]:
    """Ask the metadata database."""
    with closing(sqlite3.connect(f"file:{home.folder}/airflow.db?mode=ro", uri=True, timeout=30)) as database:
        return database.execute(statement).fetchall()


def test_a_scheduled_run_that_outlives_its_limit_is_told_once(home, inbox):
    letter = eventually(lambda: inbox.about("kuaimai_slow"), home=home, what="the alert about late data")[0]

    assert letter.path == "/hooks/c0ffee-invented-token"
    assert letter.json["title"] == "⏰ 快麦数据延迟 · kuaimai_slow"
    assert "窗口：20" in letter.json["message"]
    assert "（北京时间）" in letter.json["message"]
    assert f"{home.variables['AIRFLOW__API__BASE_URL']}/dags/kuaimai_slow/runs/" in letter.json["message"]
    assert "怎么办：" in letter.json["message"]


def test_mapped_tasks_that_fail_are_one_alert_with_the_error_and_without_its_secret(home, inbox):
    eventually(
        lambda: ask(home, "SELECT 1 FROM dag_run WHERE dag_id = 'kuaimai_broken' AND state = 'failed'"),
        home=home,
        what="the failure",
    )
    # The DAG's own callback comes last, from the DAG processor; when its log line is there all have spoken.
    logs = home.folder / "logs" / "dag_processor"
    eventually(
        lambda: [each for each in logs.rglob("*.log") if "Kuaimai sync failed" in each.read_text("utf-8")],
        home=home,
        what="the DAG's failure callback",
    )

    letters = inbox.about("kuaimai_broken")
    assert len(letters) == 1, letters
    letter = letters[0]
    assert letter.json["title"] == "❌ 快麦同步失败 · kuaimai_broken"
    assert "任务：extract" in letter.json["message"]
    assert "😀: access_token=*** is refused" in letter.json["message"]
    assert "invented-0123456789" not in letter.json["message"]


def test_backfills_and_old_runs_by_hand_miss_their_deadline_in_silence(home, inbox):
    told = len(inbox.about("kuaimai_slow"))
    span = ("--from-date", "2026-01-05T00:00:00+08:00", "--to-date", "2026-01-05T00:05:00+08:00")
    commanded(home, "backfill", "create", "--dag-id", "kuaimai_slow", *span)
    commanded(home, "dags", "trigger", "kuaimai_slow", "--logical-date", "2026-01-04T00:00:00+08:00")
    over = eventually(
        lambda: callbacks_that_ended(home, 3),
        home=home,
        what="the deadlines of the backfill and of the run by hand",
    )

    assert over == [(kind, "success") for kind in ("backfill", "backfill", "manual")]
    assert len(inbox.about("kuaimai_slow")) == told == 1


def commanded(home: Home, *arguments: str) -> None:
    """Run a command once; again where it wrote nothing, because the scheduler was writing into SQLite."""

    def written() -> bool:
        try:
            home.airflow(*arguments)
        except AssertionError as error:
            if "database is locked" not in str(error):
                raise
            return False
        return True

    eventually(written, home=home, what=" ".join(arguments[:2]))


def callbacks_that_ended(home: Home, many: int) -> list[tuple] | None:
    """Return what became of the callbacks of runs that nobody scheduled, when so many have ended.

    Not of the scheduled ones: five minutes may end meanwhile, and one more of those comes.
    """
    ended = sorted(
        (kind, state)
        for kind, state in ask(home, CALLBACKS)
        if kind != "scheduled" and state in ("success", "failed")
    )
    return ended if len(ended) >= many else None


def test_no_log_shows_the_address_of_the_channel(home):
    files = [*home.folder.glob("*.log"), *(home.folder / "logs").rglob("*.log")]

    assert files
    assert [
        each.name for each in files if "c0ffee-invented-token" in each.read_text("utf-8", "replace")
    ] == []
