"""The DAG of the past: its form, its order, and that it stays behind the live runs."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
from installation import TRADES

ROOT = Path(__file__).resolve().parents[2]
DAGS = ROOT / "dags"
ASKED = {"pipeline": "trades", "from": "2026-02-01T08:00:00+08:00", "to": "2026-03-01T08:00:00+08:00"}


@pytest.fixture
def past(ours):
    return ours["kuaimai_backfill"]


@pytest.fixture
def slices(past):
    return [past.get_task(f"slice.{name}") for name in ("extract", "transform", "load")]


def test_nothing_runs_by_itself_and_nothing_is_ever_late(past):
    assert past.timetable.can_be_scheduled is False
    assert not getattr(past, "deadline", None)
    assert not getattr(past, "sla_miss_callback", None)
    assert all(getattr(task, "sla", None) is None for task in past.tasks)


def test_tasks_follow_one_another(past):
    upstream = {task.task_id: task.upstream_task_ids for task in past.tasks}
    assert upstream == {
        "refresh_session": set(),
        "plan": {"refresh_session"},
        "slice.extract": {"plan"},
        "slice.transform": {"slice.extract"},
        "slice.load": {"slice.transform"},
        "report": {"plan", "slice.load"},
    }


def test_slices_are_mapped_on_either_line_a_few_at_a_time(slices):
    for task in slices:
        assert list(task.iter_mapped_task_groups())
        assert task.max_active_tis_per_dagrun == 4


def test_live_tasks_go_first_and_what_is_read_is_written_before_more_is_read(past, slices):
    extract, transform, load = slices
    assert extract.lane == "backfill"
    assert extract.priority_weight < transform.priority_weight < load.priority_weight < 0
    for task in past.tasks:
        assert task.priority_weight < 0
        assert "absolute" in repr(task.weight_rule).lower()


def test_form_takes_what_a_person_means(past):
    params = copy.deepcopy(past.params)
    for name, value in {**ASKED, "shops": ["900001"], "dry_run": True}.items():
        params[name] = value
    assert params.validate() == {
        **ASKED,
        "shops": ["900001"],
        "dimension": None,
        "dry_run": True,
        "again": False,
        "rows_per_slice": 20_000,
    }


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"from": ASKED["from"]},
        {name: value for name, value in ASKED.items() if name != "pipeline"},
        {**ASKED, "pipeline": "../../etc/passwd"},
        {**ASKED, "dimension": "made"},
        {**ASKED, "rows_per_slice": 10},
        {**ASKED, "shops": "900001"},
    ],
)
def test_form_refuses_what_cannot_be_meant(past, asked):
    from airflow.exceptions import ParamValidationError

    params = copy.deepcopy(past.params)
    with pytest.raises(ParamValidationError):
        for name, value in asked.items():
            params[name] = value
        params.validate()


def test_form_explains_itself_in_both_languages(past):
    for name in past.params:
        field = past.params.get_param(name)
        assert " / " in field.schema["title"]
        assert any("\u4e00" <= letter <= "\u9fff" for letter in field.description)


def test_pipeline_that_is_chosen_is_the_file_that_is_read(past):
    for task in past.tasks:
        if task.task_id == "refresh_session":
            continue
        path = task.render_template(task.pipeline, {"params": {"pipeline": "trades"}})
        assert Path(path).resolve() == TRADES


def test_every_sound_pipeline_can_be_chosen(parse, tmp_path, monkeypatch):
    monkeypatch.setenv("KUAIMAI_PIPELINES", str(tmp_path))
    text = TRADES.read_text("utf-8")
    for name in ("trades", "recent"):
        (tmp_path / f"{name}.yaml").write_text(text.replace("name: trades", f"name: {name}"), "utf-8")
    (tmp_path / "broken.yaml").write_text("name: [", "utf-8")
    dags, errors = parse(DAGS)
    assert errors == {}
    assert dags["kuaimai_backfill"].params.get_param("pipeline").schema["enum"] == ["recent", "trades"]


def test_without_a_pipeline_there_is_no_dag_of_the_past(parse, tmp_path, monkeypatch):
    monkeypatch.setenv("KUAIMAI_PIPELINES", str(tmp_path))
    dags, errors = parse(DAGS)
    assert ("kuaimai_backfill" in dags, errors) == (False, {})
