"""What the last task of a run tells a person: windows that were given up, and orders that came very late."""

from __future__ import annotations

import json
import time
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest
from inbox import open_inbox

from kuaimai.airflow.compat import AirflowSkipException
from kuaimai.airflow.operators import KuaimaiSealOperator
from kuaimai.load.held import Quarantined
from kuaimai.load.targets import open_target
from kuaimai.load.windows import Sealing
from kuaimai.pipeline.manifests import Loaded, to_manifest
from kuaimai.transform.mapping import Mapper

START = datetime(2026, 3, 1, 1, tzinfo=timezone.utc)
FIVE_MINUTES = timedelta(minutes=5)

# Of a library that one of Apprise's many plugins imports.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr':DeprecationWarning")


@pytest.fixture
def inbox():
    with open_inbox() as opened:
        yield opened


@pytest.fixture
def seal(inbox, monkeypatch, tmp_path):
    """A function that runs the last task of a run, numbered by five minutes, after what its slices loaded."""
    for conn_id, given in {
        "KUAIMAI_STATE": {"conn_type": "sqlite", "host": str(tmp_path / "state.db")},
        "KUAIMAI_TARGET": {"conn_type": "sqlite", "host": str(tmp_path / "target.db")},
    }.items():
        monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id}", json.dumps(given))
    path = tmp_path / "trades.yaml"
    path.write_text("name: trades\nsource: {method: erp.trade.outstock.simple.query}\n", "utf-8")

    def run(number: int, *windows: Sealing, language: str = "zh", **facts) -> None:
        extra = {"config": [{"path": inbox.webhook}], "language": language, "quiet_minutes": 0}
        alerts = json.dumps({"conn_type": "apprise", "extra": extra})
        monkeypatch.setenv("AIRFLOW_CONN_KUAIMAI_ALERTS", alerts)
        loaded = Loaded("trades", 1, windows, read=1, requests=1, **facts)
        operator = KuaimaiSealOperator(task_id="seal", pipeline=str(path), manifests=[to_manifest(loaded)])
        operator.execute(context(number))

    return run


def context(number: int) -> dict:
    start = START + number * FIVE_MINUTES
    run = SimpleNamespace(
        dag_id="kuaimai_trades",
        run_id=f"scheduled__{start.isoformat()}",
        run_type="scheduled",
        data_interval_start=start,
        data_interval_end=start + FIVE_MINUTES,
        conf={},
    )
    return {
        "dag_run": run,
        "ti": SimpleNamespace(
            task_id="seal", state="running", dag_id="kuaimai_trades", xcom_push=lambda **_: None
        ),
        "params": {},
        "data_interval_start": start,
        "data_interval_end": start + FIVE_MINUTES,
    }


def sealing(state: str, reason: str | None = None, minute: int = 0) -> Sealing:
    return Sealing(
        window_id=f"w{minute}",
        method="erp.trade.outstock.simple.query",
        dimension="upd_time",
        start=START + timedelta(minutes=minute),
        end=START + timedelta(minutes=minute + 1),
        state=state,
        reason=reason,
        total=12,
        landed=11,
        quarantined=0,
        inserted=0,
        updated=0,
        unchanged=11,
        stale=0,
    )


WHY = "12 records reported, 11 landed and 0 quarantined"


def test_contested_window_is_told_once_with_its_time_and_reason(seal, inbox):
    for number in (7, 8):
        with pytest.raises(AirflowSkipException):
            seal(number, sealing("contested", WHY), sealing("contested", WHY, 2), sealing("sealed"))
    [letter] = inbox.letters
    assert letter.json["title"] == "⚠️ 快麦窗口对不上数 · kuaimai_trades"
    lines = letter.json["message"].splitlines()
    assert lines[:2] == [
        "窗口：2026-03-01 09:00 – 09:01（北京时间）",
        f"情况：erp.trade.outstock.simple.query (upd_time): {WHY} (+1)",
    ]
    assert "夜间核对" in lines[-1]
    assert "state = 'contested'" in lines[-1]


def test_contested_window_is_told_in_english(seal, inbox):
    with pytest.raises(AirflowSkipException):
        seal(0, sealing("contested", WHY), language="en")
    assert "nightly reconcile" in inbox.letters[0].json["message"]


def test_open_and_sealed_windows_are_no_news(seal, inbox):
    with pytest.raises(AirflowSkipException):
        seal(0, sealing("open", WHY))
    seal(1, sealing("sealed"))
    assert inbox.letters == []


def test_orders_that_came_later_than_the_look_back_are_told_once_a_day(seal, inbox):
    for number in (0, 5, 12 * 24):
        seal(number, sealing("sealed"), outside=3, look_back_minutes=1440)
    assert [letter.json["title"] for letter in inbox.letters] == ["⚠️ 快麦有订单来得太晚 · kuaimai_trades"] * 2
    lines = inbox.letters[0].json["message"].splitlines()
    assert lines[1] == "情况：3 records > 24 h"
    assert "look_back_hours" in lines[-1]


def set_aside(folder, hours: float) -> None:
    """Put a record into quarantine so many hours ago."""
    target = open_target(f"sqlite:///{folder}/target.db", now=lambda: time.time() - hours * 3600)
    with target.loading(Mapper("trade").tables) as loading:
        held = Quarantined(0, "q1", "trades", "v", "erp.trade.list.query", "1", "why", "{}", "{}", "w")
        loading.quarantine([held])
    target.close()


def test_record_that_waits_in_quarantine_for_a_day_is_told_once_a_day(seal, inbox, tmp_path, monkeypatch):
    set_aside(tmp_path, 23)
    seal(0, sealing("sealed"))
    assert inbox.letters == []
    monkeypatch.setenv("AIRFLOW_VAR_KUAIMAI_QUARANTINE_HOURS", "12")
    for number in (1, 2, 12 * 24):
        seal(number, sealing("sealed"))
    assert [letter.json["title"] for letter in inbox.letters] == ["⚠️ 快麦有记录被隔离 · kuaimai_trades"] * 2
    assert "1 records" in inbox.letters[0].json["message"]
    assert "kuaimai_replay" in inbox.letters[0].json["message"]


def test_change_of_the_source_is_told(seal, inbox):
    seal(0, sealing("sealed"), changes=("erp.trade.list.query: field 'a' is new",), language="en")
    assert inbox.letters[0].json["title"] == "ℹ️ Kuaimai sends other fields · kuaimai_trades"
    assert "field 'a' is new" in inbox.letters[0].json["message"]
