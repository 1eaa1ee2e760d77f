"""The whole way with real processes on either Airflow line: a merchant's orders reach a PostgreSQL."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa
from airflow_processes import eventually, running
from deployment import DAG_ID, TICK, Deployment, deployment
from traces import everything_stored, personal_values

from kuaimai.extract.windows import Window, window_id
from kuaimai.gateway import catalog

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def there(new_database, tmp_path_factory) -> Iterator[Deployment]:
    with deployment(tmp_path_factory.mktemp("deployment"), new_database, bad_amount=0.03) as made:
        yield made


def seconds(run) -> float:
    return (run.end_date - run.queued_at).total_seconds()


def test_backfill_and_first_scheduled_run_side_by_side_land_the_truth(there, figures):
    """Intervals of the past while the live DAG begins: both come to an end, both are complete."""
    first = there.until - 5 * HOUR
    there.commands.run("dags", "unpause", DAG_ID)
    scheduled = eventually(
        lambda: there.airflow("SELECT run_id FROM dag_run WHERE run_type = 'scheduled'"),
        home=there.home,
        what="the scheduled run of the interval that just ended",
    )[0].run_id
    with running(there.home, backfill(first, first + TICK)):
        live = there.succeeded(scheduled)
        runs = eventually(lambda: backfilled(there, 2), home=there.home, what="the backfill")
    figures["first scheduled run"] = seconds(live)

    assert there.differences(live.data_interval_start - 2 * TICK, live.data_interval_end) == {}
    assert [run.state for run in runs] == ["success"] * 2
    assert there.differences(first, first + 2 * TICK) == {}
    assert there.open_windows() == []
    assert there.rows("SELECT count(*) FROM kuaimai_quarantine")[0][0] > 0


def backfill(first: datetime, last: datetime) -> str:
    from airflow_processes import airflow_line

    if airflow_line() == 2:
        return f"dags backfill {DAG_ID} --start-date {first.isoformat()} --end-date {last.isoformat()}"
    return f"backfill create --dag-id {DAG_ID} --from-date {first.isoformat()} --to-date {last.isoformat()}"


def backfilled(there: Deployment, many: int):
    runs = there.airflow(
        "SELECT state FROM dag_run WHERE run_type = 'backfill' AND state IN ('success', 'failed')"
    )
    return runs if len(runs) >= many else None


def test_idle_run_finds_nothing(there, figures):
    start = there.until - timedelta(days=30)
    before = there.rows("SELECT count(*) FROM kuaimai_trade")
    for number in range(3):
        run = f"idle_{number}"
        there.trigger(run, start, start + TICK)
        idle = there.succeeded(run)
        figures["idle run"] = seconds(idle)
        if not beside(there, idle):
            break

    assert there.rows("SELECT count(*) FROM kuaimai_trade") == before
    assert there.open_windows() == []


def beside(there: Deployment, run) -> int:
    """Count the scheduled runs that a run had to wait for, so that its time says nothing."""
    return there.airflow(
        "SELECT count(*) FROM dag_run WHERE run_type = 'scheduled' AND queued_at < :end "
        "AND (end_date IS NULL OR end_date > :start)",
        start=run.queued_at,
        end=run.end_date,
    )[0][0]


def test_run_by_hand_reads_hours_of_the_past_from_a_gateway_that_stumbles(there, figures):
    start, end = there.until - 4 * HOUR, there.until - HOUR
    for failure in ("429=at2", "truncated=at4", "html=at6", "503=at8"):
        there.box.faults.set_text(failure)
    there.trigger("hours", start, end)

    figures["three hours of orders, four failures"] = seconds(there.succeeded("hours"))
    there.box.faults.plan = []
    assert there.differences(start, end) == {}
    assert there.open_windows() == []


def test_run_by_hand_reads_the_shops_asked_for_only(there):
    start, end = there.until - 6 * HOUR, there.until - 5 * HOUR - MINUTE
    known = [str(shop.user_id) for shop in there.box.world.shops][:2]
    there.trigger("shops", start, end, shops=known)
    there.succeeded("shops")

    assert there.differences(start, end, shops=tuple(known)) == {}
    others = there.rows(
        "SELECT DISTINCT user_id FROM kuaimai_trade WHERE _version BETWEEN :first AND :last",
        first=start.timestamp() * 1000,
        last=end.timestamp() * 1000,
    )
    assert {row[0] for row in others} <= set(known)
    assert there.open_windows() == []


def test_what_is_newer_in_the_target_is_not_moved_back(there):
    start = there.until - 2 * HOUR
    newer = "UPDATE kuaimai_trade SET _version = _version + 1, sys_status = 'NEWER' WHERE sid = :sid"
    [(sid,)] = there.rows(
        "SELECT sid FROM kuaimai_trade WHERE _version BETWEEN :first AND :last LIMIT 1",
        first=start.timestamp() * 1000,
        last=(start + TICK).timestamp() * 1000,
    )
    with there.target.begin() as connection:
        connection.execute(sa.text(newer), {"sid": sid})
    with running(there.home, backfill(start, start)):
        eventually(lambda: backfilled(there, 3), home=there.home, what="the backfill")

    assert there.rows("SELECT sys_status FROM kuaimai_trade WHERE sid = :sid", sid=sid) == [("NEWER",)]
    assert there.open_windows() == []


def test_load_killed_between_its_statements_loses_and_doubles_nothing(there):
    start, end = there.until - 270 * MINUTE, there.until - 255 * MINUTE
    inside = {"first": start.timestamp() * 1000 + 1, "last": end.timestamp() * 1000}
    count = "SELECT count(*) FROM kuaimai_trade WHERE _version BETWEEN :first AND :last"
    assert there.rows(count, **inside) == [(0,)]
    with proof_taken(there, start, end):
        there.trigger("killed", start, end)
        backend = eventually(lambda: waiting_load(there), home=there.home, what="the load")[0]
        assert backend.wrote, "it should have merged rows by now"
        [(victim,)] = there.airflow(
            "SELECT pid FROM task_instance WHERE run_id = 'killed' AND task_id = 'slice.load'"
        )
        os.kill(victim, signal.SIGKILL)
        eventually(
            lambda: there.airflow(
                "SELECT 1 FROM task_instance WHERE run_id = 'killed' AND task_id = 'slice.load' "
                "AND (state = 'up_for_retry' OR try_number > 1)"
            ),
            home=there.home,
            what="the second try",
        )
        assert there.rows(count, **inside) == [(0,)]
    there.succeeded("killed")

    [(tries,)] = there.airflow(
        "SELECT try_number FROM task_instance WHERE run_id = 'killed' AND task_id = 'slice.load'"
    )
    assert tries == 2
    assert there.differences(start + timedelta(seconds=1), end) == {}
    assert there.open_windows() == []


@contextmanager
def proof_taken(there: Deployment, start: datetime, end: datetime) -> Iterator[None]:
    """Hold the key of a window's proof: its load gets as far as its last statements and waits.

    It is the enriching method's: the base method's is there already when the run is planned.
    """
    method = catalog.method("erp.trade.list.query")
    shops = [str(shop.user_id) for shop in there.box.world.shops if shop.source not in method.not_served]
    key = window_id("trades", method.name, Window(start, end, "upd_time"), shops)
    with there.target.connect() as connection, connection.begin() as held:
        connection.execute(sa.text("INSERT INTO kuaimai_window (window_id) VALUES (:key)"), {"key": key})
        yield
        held.rollback()


def waiting_load(there: Deployment):
    return there.rows(
        "SELECT pid, backend_xid IS NOT NULL AS wrote FROM pg_stat_activity "
        "WHERE wait_event_type = 'Lock' AND query LIKE '%kuaimai_window%' AND datname = current_database()"
    )


def created(there: Deployment, start: datetime, end: datetime) -> dict[str, set[str]]:
    """Orders made in an interval: those that should be in the target, and those that are."""
    first, last, bad = start.timestamp() * 1000, end.timestamp() * 1000, there.box.bad()
    truth = {
        sid
        for sid, record in there.box.truth().items()
        if first <= record["created"] <= last and sid not in bad
    }
    stored = there.rows(
        "SELECT sid FROM kuaimai_trade WHERE created BETWEEN :start AND :end AND _deleted_at IS NULL",
        start=start,
        end=end,
    )
    assert truth, "the interval is empty"
    return {"truth": truth, "target": {sid for (sid,) in stored}}


def test_the_past_is_planned_by_rows_and_read_beside_the_live_runs(there, figures):
    start, end = there.until - 26 * HOUR, there.until - 7 * HOUR
    there.commands.run("dags", "unpause", "kuaimai_backfill")
    there.start(
        "kuaimai_backfill",
        "past",
        **{"pipeline": "trades", "from": start.isoformat(), "to": end.isoformat(), "rows_per_slice": 200},
    )
    figures["backfill of a day"] = seconds(there.succeeded("past", dag_id="kuaimai_backfill"))

    found = created(there, start, end)
    assert found["target"] == found["truth"]
    # A live run may be on its way at this moment: it has planned its window and not read it yet.
    under_way = "run_id LIKE 'scheduled%' AND reason = 'planned, not read yet'"
    left = f"SELECT * FROM kuaimai_window WHERE state IN ('open', 'contested') AND NOT ({under_way})"
    assert there.rows(left) == []


def test_the_reconcile_puts_back_what_is_missing(there):
    start, end = there.until - 26 * HOUR, there.until - 7 * HOUR
    midnight = there.until.replace(hour=0, minute=0, second=0)
    lost = sorted(created(there, start, min(end, midnight))["target"])[:3]
    with there.target.begin() as connection:
        for sid in lost:
            connection.execute(sa.text("DELETE FROM kuaimai_trade WHERE sid = :sid"), {"sid": sid})
    there.commands.run("dags", "unpause", "kuaimai_reconcile")
    there.start("kuaimai_reconcile", "by_hand", days=2)
    there.succeeded("by_hand", dag_id="kuaimai_reconcile")

    assert set(lost) <= created(there, start, midnight)["target"]
    assert there.rows("SELECT count(*) FROM kuaimai_reconcile")[0][0] > 0


def test_no_secret_and_no_person_is_in_anything_that_is_written_down(there):
    """After all of the above and after every kind of failure that quotes things."""
    box, hour = there.box, there.until - 3 * HOUR
    there.connection("kuaimai_target", password="invented-wrong-password-0815")
    there.trigger("wrong_password", hour, hour + TICK)
    assert there.ended("wrong_password").state == "failed"
    # New credentials, one of them mistyped; the tokens are those that are alive by now.
    tokens = {"access_token": box.credentials.access_token, "refresh_token": box.credentials.refresh_token}
    there.connection("kuaimai_default", password="invented-wrong-secret-0815", extra=json.dumps(tokens))
    there.trigger("wrong_secret", hour, hour + 2 * TICK)  # another window: each is told once
    assert there.ended("wrong_secret").state == "failed"
    there.connection("kuaimai_default", password=box.credentials.app_secret)
    box.session.expire()
    there.trigger("dead_session", hour, hour + 3 * TICK)
    assert there.ended("dead_session").state == "failed"
    eventually(
        lambda: len(there.inbox.about("❌")) >= 3,
        home=there.home,
        what="the alerts about the failures",
    )

    now = box.credentials
    secrets = {
        *there.secrets,
        now.access_token,
        now.refresh_token,
        "invented-wrong-password-0815",
        "invented-wrong-secret-0815",
    }
    people = personal_values(box)
    written = everything_stored(there)
    assert box.session.refreshes >= 1, "the tokens should have been rotated"
    assert len(secrets) >= 8
    assert len(people) > 100
    # What is looked through does hold the failures, and the answers as they came.
    for said in ("password authentication failed", "appSecret", "could not be refreshed"):
        assert [place for place, text in written.items() if said in text], said
    assert any(person in text for place, text in written.items() if "/raw/" in place for person in people)
    leaks = [(place, secret) for place, text in written.items() for secret in secrets if secret in text]
    assert leaks == []
    known = [
        (place, person)
        for place, text in written.items()
        if "/raw/" not in place  # the gateway's answers as they came, readable by Airflow's user alone
        for person in people
        if person in text
    ]
    assert known == []
    # Neither the backfills nor the runs by hand were late, whatever time they covered.
    assert there.inbox.about("⏰") == []
