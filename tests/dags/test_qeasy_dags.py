"""Qeasy strategies in the pipelines folder become DAGs; a refused one shows why and takes no other down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import strategy_cases as cases

ROOT = Path(__file__).resolve().parents[2]
DAGS = ROOT / "dags"
REFRESH = {
    "api": "open.token.refresh",
    "effect": "QUERY",
    "method": "POST",
    "number": "id",
    "id": "id",
    "idCheck": True,
    "request": [{"field": "refreshToken", "type": "string", "value": "an-old-token"}],
    "crontab": "30 3 * * *",
}
NO_WRITE = {"api": "写入空操作", "effect": "EXECUTE", "method": "POST", "idCheck": True}


@pytest.fixture
def dags(parse, tmp_path, monkeypatch):
    """A function: the DAGs of strategies, by the names of their files."""

    def dags(**strategies):
        monkeypatch.setenv("KUAIMAI_PIPELINES", str(tmp_path))
        for name, content in strategies.items():
            text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
            (tmp_path / f"{name}.json").write_text(text, encoding="utf-8")
        found, errors = parse(DAGS)
        assert errors == {}
        return found

    return dags


def tasks(dag) -> set[str]:
    return {task.task_id for task in dag.tasks}


def test_a_strategy_of_records_is_a_mirror_like_any_other(dags):
    ours = cases.ours()
    found = dags(orders_archive=ours["orders_archive"])
    dag = found["kuaimai_orders_archive"]
    assert tasks(dag) == {"refresh_session", "plan", "slice.extract", "slice.transform", "slice.load", "seal"}
    assert "轻易云" in dag.description
    past = found["kuaimai_backfill"]
    assert past.params.get_param("pipeline").schema["enum"] == ["orders_archive.json"]
    (plan,) = [task for task in past.tasks if task.task_id == "plan"]
    path = plan.render_template(plan.pipeline, {"params": {"pipeline": "orders_archive.json"}})
    assert Path(path).name == "orders_archive.json"
    assert Path(path).is_file()


def test_a_strategy_that_writes_has_a_load_and_a_seal_for_its_api(dags, core_timetable):
    found = dags(orders=cases.ours()["orders_to_api"])
    # Its omissionRemedy is a DAG beside it, with the remedy's own crontab.
    for name, schedule in {"kuaimai_orders": "*/5 * * * *", "kuaimai_orders__created": "20 3 * * *"}.items():
        dag = found[name]
        assert {"slice.load", "slice.load__kuaimai_write_api", "seal__kuaimai_write_api"} <= tasks(dag)
        assert core_timetable(dag).serialize()["expression"] == schedule


def test_flat_rows_and_grouped_ones_have_a_load_and_a_seal_of_their_own(dags):
    source = {**cases.ours()["lines_to_sql"]["source"], "operation": {}}
    line = cases.target(("row", "{{sid}}"), ("code", "{{orders_sysOuterId}}"))
    grouped = {**line, "groupCalculate": {"headerGroup": ["userId"], "calculate": {"orders_num": "$sum"}}}
    found = dags(lines=[source, line], totals=[source, grouped])
    for name in ("kuaimai_lines", "kuaimai_totals"):
        assert {"slice.load__kuaimai_write_api", "seal__kuaimai_write_api"} <= tasks(found[name])


def test_the_articles_strategies_keep_the_session_and_do_nothing(dags):
    found = dags(refresh=REFRESH, both=[REFRESH, NO_WRITE], nothing=NO_WRITE)
    for name in ("kuaimai_refresh", "kuaimai_both"):
        assert tasks(found[name]) == {"refresh_session"}
    assert tasks(found["kuaimai_nothing"]) == {"nothing_to_do"}
    assert found["kuaimai_nothing"].tasks[0].execute({}) == 0
    assert "an-old-token" not in str([vars(task) for task in found["kuaimai_refresh"].tasks])
    assert "kuaimai_backfill" not in found


def test_a_refused_strategy_shows_why(dags):
    found = dags(
        orders_archive=cases.ours()["orders_archive"],
        foreign=cases.source(api="/open/orders/single/query"),
        unknown={**REFRESH, "reqest": []},
        broken="{",
    )
    assert "broken" not in found["kuaimai_orders_archive"].tags
    for name, told in [
        ("foreign", "another platform's"),
        ("unknown", "did you mean 'request'?"),
        ("broken", "not valid JSON"),
    ]:
        sick = found[f"kuaimai_{name}"]
        assert "broken" in sick.tags
        assert told in sick.doc_md
        assert f"{name}.json" in sick.doc_md
        with pytest.raises(Exception, match=rf"{name}\.json"):
            sick.tasks[0].execute({})


def test_a_mistake_takes_no_dag_of_another_file(dags, tmp_path):
    small = "name: small\nsource: {method: erp.trade.list.query}\n"
    further = 'time: {further: [{dimension: created, schedule: "5 * * * *", look_back_hours: 9}]}\n'
    for name, text in {
        "small": "name: not right",  # would be shown as the DAG of the next one
        "some": small + further,
        "small__created": small.replace("small", "small__created"),
        "my orders": "name: [",
        "odd": "name: [",
        "other": small.replace("small", "odd"),
    }.items():
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    found = dags()
    sick = {name for name, dag in found.items() if "broken" in dag.tags}
    assert sick == {"kuaimai_small", "kuaimai_my_orders", "kuaimai_some", "kuaimai_odd_refused"}
    assert {"plan", "seal"} <= tasks(found["kuaimai_odd"])
