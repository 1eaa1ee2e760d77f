"""The DAG of the night: when it runs, what its form takes, and up to when a run compares."""

from __future__ import annotations

import copy
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace

import pendulum
import pytest
from installation import SHIPPED, TRADES

from kuaimai.airflow import reconcile
from kuaimai.airflow.compat import AirflowSkipException

DAGS = Path(__file__).resolve().parents[2] / "dags"
FOUR_TEN = pendulum.datetime(2026, 3, 1, 4, 10, tz="Asia/Shanghai")


@pytest.fixture
def night(ours):
    return ours["kuaimai_reconcile"]


def context(kind, **params):
    return {
        "dag_run": SimpleNamespace(run_type=kind),
        "data_interval_end": FOUR_TEN,
        "params": {"days": 8, "pipeline": None, "shops": None, **params},
    }


def test_it_runs_every_night_by_the_merchants_clock(night, core_timetable):
    timetable = core_timetable(night)
    assert timetable.summary == "10 4 * * *"
    assert timetable.serialize()["timezone"] == "Asia/Shanghai"


def test_each_pipeline_is_a_task_behind_the_live_runs(night):
    upstream = {task.task_id: task.upstream_task_ids for task in night.tasks}
    compared = ("trades", "aftersales", "purchases", "purchase_returns", "receipts")
    kinds = (*compared, "items", "stock")  # these for their windows only
    assert upstream == {"refresh_session": set(), **{name: {"refresh_session"} for name in kinds}}
    assert {night.get_task(name).lane for name in kinds} == {"reconcile"}


def test_pipeline_with_a_mistake_takes_no_other_down(parse, tmp_path, monkeypatch):
    monkeypatch.setenv("KUAIMAI_PIPELINES", str(tmp_path))
    text = TRADES.read_text("utf-8")
    (tmp_path / "trades.yaml").write_text(text, "utf-8")
    (tmp_path / "recent.yaml").write_text(text.replace("name: trades", "name: recent"), "utf-8")
    (tmp_path / "broken.yaml").write_text(text.replace("page_size:", "page_sise:"), "utf-8")
    dags, errors = parse(DAGS)
    assert errors == {}
    assert {task.task_id for task in dags["kuaimai_reconcile"].tasks} == {
        "refresh_session",
        "recent",
        "trades",
    }


@pytest.mark.parametrize("asked", [{}, {"days": 2, "pipeline": "trades", "shops": ["900001"]}])
def test_form_takes_what_a_person_means(night, asked):
    params = copy.deepcopy(night.params)
    for name, value in asked.items():
        params[name] = value
    assert params.validate() == {"days": 8, "pipeline": None, "shops": None, **asked}


@pytest.mark.parametrize("asked", [{"days": 0}, {"days": 100}, {"pipeline": "trade"}, {"shops": "900001"}])
def test_form_refuses_what_cannot_be_compared(night, asked):
    from airflow.exceptions import ParamValidationError

    params = copy.deepcopy(night.params)
    with pytest.raises(ParamValidationError):
        for name, value in asked.items():
            params[name] = value
        params.validate()


def test_form_explains_itself_in_both_languages(night):
    for name in ("days", "pipeline", "shops"):
        field = night.params.get_param(name)
        assert " / " in field.schema["title"]
        assert any("\u4e00" <= letter <= "\u9fff" for letter in field.description)


@pytest.mark.parametrize("kind", ["scheduled", "backfill"])
def test_run_of_the_schedule_compares_until_the_end_of_its_interval(kind):
    assert reconcile._asked(context(kind)).end == FOUR_TEN


def test_run_by_hand_compares_until_now():
    now = datetime.now(timezone.utc)
    asked = reconcile._asked(context("manual", shops=["900001"]))
    assert timedelta(0) <= asked.end - now < timedelta(minutes=1)
    assert asked.shops == ("900001",)


def test_run_for_some_shops_skips_what_is_read_of_all_at_once():
    task = reconcile.KuaimaiReconcileOperator(task_id="receipts", pipeline=str(SHIPPED / "receipts.yaml"))
    with pytest.raises(AirflowSkipException, match="read of all at once"):
        task.execute(context("manual", shops=["900001"]))


def test_run_for_one_pipeline_skips_the_others():
    task = reconcile.KuaimaiReconcileOperator(task_id="trades", pipeline=str(TRADES))
    with pytest.raises(AirflowSkipException, match="for recent only"):
        task.execute(context("manual", pipeline="recent"))
