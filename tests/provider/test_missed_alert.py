"""After an outage that is longer than runs heal, the next plan tells a person which time nobody will read."""
# ruff: noqa: F811 - the imported fixture is an argument

from __future__ import annotations

import json
import time
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
from hooked import connect, real_box  # noqa: F401
from inbox import open_inbox

from kuaimai.airflow.operators import KuaimaiPlanOperator
from kuaimai.load.targets import open_target
from kuaimai.load.windows import PlannedWindow

# Of a library that one of Apprise's many plugins imports.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr':DeprecationWarning")
NOW = datetime.fromtimestamp(time.time() // 300 * 300, timezone.utc)
TICK = timedelta(minutes=5)
DOWN = NOW - timedelta(days=9)


def context() -> dict:
    interval = {"data_interval_start": NOW - TICK, "data_interval_end": NOW}
    run = SimpleNamespace(dag_id="kuaimai_trades", run_id="r", run_type="scheduled", conf={}, **interval)
    task = SimpleNamespace(task_id="plan", state="running", dag_id="kuaimai_trades")
    return {"dag_run": run, "ti": task, "run_id": "r", "params": {}, **interval}


def test_time_that_no_run_will_heal_is_told_once(connect, real_box, monkeypatch, tmp_path):
    path = tmp_path / "trades.yaml"
    path.write_text("name: trades\nsource: {method: erp.trade.outstock.simple.query}\n", "utf-8")
    target_file = tmp_path / "target.db"
    with open_inbox() as inbox:
        alerts = {"config": [{"path": inbox.webhook}], "language": "en", "quiet_minutes": 0}
        for name, given in {
            "STATE": {"conn_type": "sqlite", "host": str(tmp_path / "state.db")},
            "TARGET": {"conn_type": "sqlite", "host": str(target_file)},
            "ALERTS": {"conn_type": "apprise", "extra": alerts},
        }.items():
            monkeypatch.setenv(f"AIRFLOW_CONN_KUAIMAI_{name}", json.dumps(given))
        connect(real_box.credentials, host=real_box.url)
        shops = tuple(sorted(real_box.truth("erp.shop.list.query")))
        target = open_target(f"sqlite:///{target_file}")
        method = "erp.trade.outstock.simple.query"
        last = PlannedWindow("w", "trades", method, shops, "upd_time", DOWN - TICK, DOWN, "r", "interval")
        target.announce([last])
        target.close()

        plan = KuaimaiPlanOperator(task_id="plan", pipeline=str(path))
        for _ in range(2):
            assert plan.execute(context())
    [letter] = inbox.letters
    assert letter.json["title"] == "⚠️ Kuaimai time was never read · kuaimai_trades"
    china = timezone(timedelta(hours=8))
    assert f"{DOWN.astimezone(china):%Y-%m-%d %H:%M}" in letter.json["message"]
    assert "Trigger this DAG with these times" in letter.json["message"]
