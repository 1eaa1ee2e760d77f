"""The DAG that maps quarantine again: by hand only, for one pipeline or all, into every target."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from loads import facts

from kuaimai.airflow.compat import AirflowFailException
from kuaimai.airflow.replay import KuaimaiReplayOperator
from kuaimai.load.held import Quarantined
from kuaimai.load.targets import open_target
from kuaimai.transform.mapping import Mapper

DAGS = Path(__file__).resolve().parents[2] / "dags"
METHOD = "erp.trade.outstock.simple.query"
RECORD = {"sid": 7, "payment": "12元", "updTime": 1772298000000, "orders": []}


@pytest.fixture
def shop(monkeypatch, tmp_path):
    """A target with one order in quarantine, and the file of a pipeline that cannot store it yet."""
    url = f"sqlite:///{tmp_path}/target.db"
    monkeypatch.setenv(
        "AIRFLOW_CONN_KUAIMAI_TARGET",
        json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "target.db")}),
    )
    target = open_target(url)
    held = Quarantined(
        0, "q1", "trades", "v", METHOD, "7", "payment: not a number", "{}", json.dumps(RECORD), "w1"
    )
    with target.loading(Mapper("trade").tables) as loading:
        loading.quarantine([held])
        assert loading.seal(facts(total=1)).state == "sealed"
    target.close()
    path = tmp_path / "trades.yaml"
    path.write_text(f"name: trades\nsource: {{method: {METHOD}}}\n", "utf-8")
    return path


def run(path, **params):
    operator = KuaimaiReplayOperator(task_id="replay", pipelines={"trades": str(path)})
    return operator.execute({"params": {"pipeline": None, "ids": None, **params}})


def test_it_runs_by_hand_only_and_offers_the_pipelines(ours):
    dag = ours["kuaimai_replay"]
    assert [task.task_id for task in dag.tasks] == ["replay"]
    assert "trades" in dag.params.get_param("pipeline").schema["enum"]


def test_mended_mapping_lands_what_waited(shop):
    counts = {"waiting": 1, "landed": 0, "filtered": 0, "still": 1}
    assert run(shop) == {"trades→kuaimai_target": counts}
    shop.write_text(shop.read_text("utf-8") + "fields: {payment: {type: text}}\n", "utf-8")
    assert run(shop, ids=["another"])["trades→kuaimai_target"]["waiting"] == 0
    counts = {"waiting": 1, "landed": 1, "filtered": 0, "still": 0}
    assert run(shop, pipeline="trades", ids=["q1"]) == {"trades→kuaimai_target": counts}
    assert run(shop)["trades→kuaimai_target"]["waiting"] == 0


def test_unknown_pipeline_is_told(shop):
    with pytest.raises(AirflowFailException, match="there are trades"):
        run(shop, pipeline="orders")
