"""The task of the night, with Connections in Airflow's database and a real gateway."""
# ruff: noqa: F811 - the imported fixture is an argument

from __future__ import annotations

import json
import os
import time
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from hooked import START, connect  # noqa: F401
from installation import SHIPPED

from kuaimai.airflow.compat import AirflowFailException, AirflowSkipException
from kuaimai.airflow.operators import (
    KuaimaiExtractOperator,
    KuaimaiLoadOperator,
    KuaimaiPlanOperator,
    KuaimaiTransformOperator,
)
from kuaimai.airflow.reconcile import KuaimaiReconcileOperator
from kuaimai.sandbox import Sandbox, World

CHINA = START.tzinfo
TODAY = datetime.fromtimestamp(time.time(), CHINA).replace(hour=0, minute=0, second=0, microsecond=0)
PURCHASES = str(SHIPPED / "purchases.yaml")


@pytest.fixture
def installed(connect, tmp_path, monkeypatch):
    """An installation over the last days, its target a SQLite file that is still empty."""
    target = tmp_path / "target.db"
    monkeypatch.setenv(
        "AIRFLOW_CONN_KUAIMAI_TARGET", json.dumps({"conn_type": "sqlite", "host": str(target)})
    )
    monkeypatch.setenv("AIRFLOW_VAR_KUAIMAI_STAGING", str(tmp_path / "staging"))
    world = World(start=TODAY, orders_per_hour=0, days_back=3, archive_documents=0)
    with Sandbox(world) as box:
        connect(box.credentials, host=box.url)
        yield SimpleNamespace(box=box, engine=sa.create_engine(f"sqlite:///{target}"))


def context(**params) -> dict:
    run = SimpleNamespace(run_type="manual", conf={})
    asked = {"days": 2, "pipeline": None, "shops": None, **params}
    return {"run_id": "manual__1", "dag_run": run, "params": asked, "data_interval_end": None}


def night(pipeline: str = PURCHASES) -> dict[str, int]:
    return KuaimaiReconcileOperator(task_id="purchases", pipeline=pipeline, lane="reconcile").execute(
        context()
    )


def test_pipeline_that_nobody_reads_is_skipped_and_gets_no_rows(installed):
    with pytest.raises(AirflowSkipException, match="unpause kuaimai_purchases"):
        night()
    assert not sa.inspect(installed.engine).has_table("kuaimai_purchase")


def test_one_that_is_read_gets_back_what_it_lacks(installed):
    asked = {"start": (TODAY - timedelta(days=1)).isoformat(), "end": TODAY.isoformat()}
    run = context(**asked)
    given = {"pipeline": PURCHASES}
    for piece in KuaimaiPlanOperator(task_id="p", **given).execute(run):
        read = KuaimaiExtractOperator(task_id="e", slice=piece, **given).execute(run)
        made = KuaimaiTransformOperator(task_id="t", manifest=read, **given).execute(run)
        KuaimaiLoadOperator(task_id="l", manifest=made, **given).execute(run)
    with installed.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM kuaimai_purchase"))
    found = night()
    assert found["missing"] == found["repaired"] > 0


def test_contested_windows_are_read_again_in_every_target_that_can_be_opened(installed, tmp_path):
    """A target that is no database cannot be compared, and one that is missing holds up no other."""
    file = tmp_path / "own.yaml"
    text = "name: own\nsource: {method: purchase.order.query}\ntargets:\n"
    file.write_text(text + "- {kind: sql, conn_id: absent}\n- {kind: noop}\n", "utf-8")
    run = context(start=(TODAY - timedelta(days=1)).isoformat(), end=TODAY.isoformat())
    KuaimaiPlanOperator(task_id="p", pipeline=str(file)).execute(run)
    state = sa.create_engine(f"sqlite:///{os.environ['AIRFLOW_HOME']}/kuaimai_state.db")
    with state.begin() as connection:
        connection.execute(sa.text("UPDATE kuaimai_window SET state = 'contested'"))
    with pytest.raises(AirflowFailException, match="absent"):
        night(str(file))
    with state.connect() as connection:
        states = connection.execute(sa.text("SELECT DISTINCT state FROM kuaimai_window")).scalars().all()
    assert states == ["sealed"]
