"""`kuaimai_status`: green where all that was planned is proven complete, else red, with the reason."""
# ruff: noqa: F811 - the imported fixture is an argument

from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest
from hooked import START, connect, real_box  # noqa: F401

from kuaimai.airflow import operators
from kuaimai.airflow.standing import KuaimaiStatusOperator
from kuaimai.errors import DataError


@pytest.fixture
def folder(connect, real_box, tmp_path, monkeypatch):
    """Two pipelines of an installation on the real clock; nothing was read yet."""
    monkeypatch.setenv(
        "AIRFLOW_CONN_KUAIMAI_TARGET",
        json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "target.db")}),
    )
    monkeypatch.setenv("AIRFLOW_VAR_KUAIMAI_STAGING", str(tmp_path / "staging"))
    connect(real_box.credentials, host=real_box.url)
    folder = tmp_path / "pipelines"
    folder.mkdir()
    for name, method in (("orders", "erp.trade.outstock.simple.query"), ("places", "erp.shop.list.query")):
        (folder / f"{name}.yaml").write_text(
            f"name: {name}\nsource: {{method: {method}}}\n"
            + ("time: {dimension: scan}\n" if name == "places" else ""),
            encoding="utf-8",
        )
    return folder


def asked(folder):
    """What the DAG's task answers."""
    return KuaimaiStatusOperator(task_id="complete", folder=str(folder)).execute({})


def planned(folder):
    """Plan a run of the last ten minutes by hand, and return what its tasks would get."""
    now = datetime.now(START.tzinfo).replace(microsecond=0)
    run = {
        "run_id": "manual__1",
        "dag_run": SimpleNamespace(run_type="manual"),
        "params": {"start": (now - timedelta(minutes=10)).isoformat(), "end": now.isoformat(), "shops": None},
    }
    file = str(folder / "orders.yaml")
    slices = operators.KuaimaiPlanOperator(task_id="plan", pipeline=file).execute(run)
    return run, file, slices


def read(run, file, slices):
    """Read and load what was planned."""
    for piece in slices:
        extract = operators.KuaimaiExtractOperator(task_id="extract", pipeline=file, slice=piece)
        transform = operators.KuaimaiTransformOperator(
            task_id="transform", pipeline=file, manifest=extract.execute(run)
        )
        load = operators.KuaimaiLoadOperator(
            task_id="load", pipeline=file, manifest=transform.execute(run), target="kuaimai_target"
        )
        load.execute(run)


def test_what_was_never_read_is_told_and_is_not_red(folder, caplog):
    caplog.set_level(logging.INFO)
    assert [one["complete"] for one in asked(folder)] == [False, False]
    assert "orders → kuaimai_target: nothing was read yet" in caplog.text


def test_it_is_red_while_a_window_is_open_and_green_when_it_is_sealed(folder, caplog):
    caplog.set_level(logging.INFO)
    run, file, slices = planned(folder)
    with pytest.raises(DataError, match=r"not complete, or late: orders in kuaimai_target"):
        asked(folder)
    assert "orders → kuaimai_target: NOT COMPLETE" in caplog.text
    read(run, file, slices)
    orders, _ = asked(folder)
    assert orders["complete"]
    json.dumps(orders)  # as an XCom


def test_a_target_that_does_not_answer_is_red(folder, monkeypatch):
    monkeypatch.delenv("AIRFLOW_CONN_KUAIMAI_TARGET")
    with pytest.raises(DataError, match=r"orders in kuaimai_target, places in kuaimai_target"):
        asked(folder)


def test_a_file_with_a_mistake_is_red_and_holds_no_other(folder, caplog):
    caplog.set_level(logging.INFO)
    (folder / "wrong.yaml").write_text("name: wrong\nsorce: {}\n", encoding="utf-8")
    with pytest.raises(DataError, match="a file with a mistake"):
        asked(folder)
    assert "did you mean 'source'" in caplog.text
    assert "orders → kuaimai_target" in caplog.text
