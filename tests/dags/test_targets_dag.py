"""A pipeline with several targets has a load and a seal of its own for each."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SEVERAL = """name: trades
source: {method: erp.trade.outstock.simple.query}
targets:
  - {kind: sql, conn_id: warehouse}
  - {kind: files, url: /data/mirror}
  - {kind: noop}
"""


@pytest.fixture
def dag(parse, tmp_path, monkeypatch):
    monkeypatch.setenv("KUAIMAI_PIPELINES", str(tmp_path))
    (tmp_path / "trades.yaml").write_text(SEVERAL, "utf-8")
    dags, errors = parse(ROOT / "dags")
    assert errors == {}
    return dags["kuaimai_trades"]


def test_a_target_with_a_rhythm_of_its_own_has_its_own_dag(parse, core_timetable, tmp_path, monkeypatch):
    monkeypatch.setenv("KUAIMAI_PIPELINES", str(tmp_path))
    further = "time: {further: [{dimension: created, schedule: '5 * * * *', look_back_hours: 24}]}\n"
    text = SEVERAL.replace("/data/mirror", "/data/mirror, schedule: '23 2 * * *'") + further
    (tmp_path / "trades.yaml").write_text(text, "utf-8")
    dags, errors = parse(ROOT / "dags")
    assert errors == {}
    ours, files, late = (dags[f"kuaimai_trades{one}"] for one in ("", "__files", "__created"))

    def seals(dag):
        return {task.target for task in dag.tasks if task.task_id.startswith("seal")}

    assert seals(ours) == {"warehouse", "noop"}
    assert seals(files) == {"files"}
    # What a further time finds is late for everybody.
    assert seals(late) == {"warehouse", "files", "noop"}
    # Each plans by what its own targets have.
    assert [set(dag.get_task("plan").targets) for dag in (ours, files)] == [{"warehouse", "noop"}, {"files"}]
    assert core_timetable(files).serialize()["expression"] == "23 2 * * *"
    assert files.get_task("plan").dimension == "upd_time"
    assert "`files` alone" in files.doc_md


def test_each_target_has_its_own_load_and_seal(dag):
    assert {task.task_id for task in dag.tasks} == {
        "refresh_session",
        "plan",
        "slice.extract",
        "slice.transform",
        *("slice.load", "slice.load__files", "slice.load__noop"),
        *("seal", "seal__files", "seal__noop"),
    }
    for name in ("", "__files", "__noop"):
        assert dag.get_task(f"seal{name}").upstream_task_ids == {"plan", f"slice.load{name}"}
        assert dag.get_task(f"slice.load{name}").upstream_task_ids == {"slice.transform"}


def test_each_target_tells_of_its_own_data(dag):
    outlets = {task: dag.get_task(task).outlets[0].uri for task in ("seal", "seal__files", "seal__noop")}
    assert outlets == {
        "seal": "kuaimai://warehouse/kuaimai_trade",
        "seal__files": "kuaimai://files/kuaimai_trade",
        "seal__noop": "kuaimai://noop/kuaimai_trade",
    }
    assert "`warehouse`, `files`, `noop`" in dag.doc_md
