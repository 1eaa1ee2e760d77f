"""`kuaimai status` and `kuaimai doctor`, with Connections in Airflow's database and a real gateway."""
# ruff: noqa: F811 - the imported fixture is an argument

from __future__ import annotations

import json
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest
from hooked import START, connect, real_box  # noqa: F401
from installation import ROOT
from write_api import TOKEN, write_api

from kuaimai.airflow import operators
from kuaimai.cli import NOT_COMPLETE, main
from kuaimai.sandbox.methods import METHODS

PIPELINES = ROOT / "include" / "pipelines"


@pytest.fixture
def home(connect, real_box, tmp_path, monkeypatch):
    """An installation on the real clock, its target a SQLite file."""
    monkeypatch.setenv(
        "AIRFLOW_CONN_KUAIMAI_TARGET",
        json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "target.db")}),
    )
    monkeypatch.setenv("AIRFLOW_VAR_KUAIMAI_STAGING", str(tmp_path / "staging"))
    connect(real_box.credentials, host=real_box.url)
    return SimpleNamespace(box=real_box, connect=connect, folder=tmp_path)


@pytest.fixture
def ran(capsys):
    """A function that runs the command and returns its exit code and what it printed."""

    def ran(*arguments):
        capsys.readouterr()  # what others have printed
        code = main([*arguments, "--pipelines", str(PIPELINES)])
        return code, capsys.readouterr().out

    return ran


def test_doctor_finds_a_healthy_installation_healthy(home, ran):
    code, told = ran("doctor")
    assert code == 0, told
    assert {line[0] for line in told.splitlines()} == {"✓"}
    for what in (
        "pipelines",
        "staging",
        "coordination store",
        "target kuaimai_target",
        "Connection kuaimai_default",
        "session",
        "clock",
        "right to erp.shop.list.query",
        "right to erp.trade.outstock.simple.query",
        "right to erp.warehouse.list.query",
        "right to purchase.order.get",
        "rate",
    ):
        assert f"✓ {what}: " in told
    given = home.box.credentials
    for secret in (given.app_key, given.app_secret, given.access_token, given.refresh_token):
        assert secret not in told
    assert not [path for path in (home.folder / "staging").rglob("*") if path.is_file()]
    assert all(one.method != "open.token.refresh" for one in home.box.requests)


def test_doctor_says_what_is_wrong_and_what_to_do(home, ran):
    home.connect(home.box.credentials, host=home.box.url, password="wrong")
    code, told = ran("doctor")
    assert code == 1
    assert "✗ credentials: " in told
    assert "appSecret" in told.splitlines()[-1]


def test_doctor_names_the_method_that_the_gateway_does_not_give(home, ran, monkeypatch):
    monkeypatch.delitem(METHODS, "erp.trade.list.query")
    monkeypatch.delitem(METHODS, "warehouse.entry.list.get")
    code, told = ran("doctor")
    assert code == 1
    assert "✓ right to warehouse.entry.list.query" in told
    assert "✗ right to warehouse.entry.list.get" in told
    assert "✓ right to erp.trade.outstock.simple.query" in told
    assert "✗ right to erp.trade.list.query" in told


def test_doctor_tells_of_two_files_that_make_one_dag(home, capsys, tmp_path):
    folder = tmp_path / "pipelines"
    folder.mkdir()
    for name in ("one", "two"):
        (folder / f"{name}.yaml").write_text("name: shops\nsource: {method: erp.shop.list.query}\n", "utf-8")
    assert main(["doctor", "--pipelines", str(folder)]) == 1
    told = capsys.readouterr().out
    assert (
        f"✗ pipelines: pipeline {folder / 'two.yaml'}, line 1: one.yaml makes the DAG kuaimai_shops" in told
    )
    assert f"✓ pipelines: shops in {folder}" in told


def test_doctor_asks_with_the_parameters_that_a_method_needs(home, capsys, tmp_path):
    folder = tmp_path / "pipelines"
    folder.mkdir()
    (folder / "finished.yaml").write_text(
        "name: finished\nsource: {method: purchase.order.query, params: {status: FINISHED}}\n"
        "time: {dimension: created}\n",
        encoding="utf-8",
    )
    home.box.requests.clear()
    assert main(["doctor", "--pipelines", str(folder)]) == 0
    assert "✓ right to purchase.order.get: 采购单详情\n" in capsys.readouterr().out
    [asked] = [one.params for one in home.box.requests if one.method == "purchase.order.query"]
    assert (asked["status"], asked["timeType"]) == ("FINISHED", "2")


def test_doctor_names_a_target_that_cannot_be_written(home, ran, monkeypatch):
    monkeypatch.setenv(
        "AIRFLOW_CONN_KUAIMAI_TARGET", json.dumps({"conn_type": "sqlite", "host": "/proc/nowhere/target.db"})
    )
    code, told = ran("doctor", "--json")
    assert code == 1
    [target] = [one for one in json.loads(told) if one["what"] == "target kuaimai_target"]
    assert target["state"] == "failed"
    assert target["advice"]


def test_status_is_a_question_with_an_exit_code(home, ran):
    code, told = ran("status", "trades")
    assert (code, told) == (NOT_COMPLETE, "trades → kuaimai_target: nothing was read yet\n")
    now = datetime.now(START.tzinfo).replace(microsecond=0)
    run = {
        "run_id": "manual__1",
        "dag_run": SimpleNamespace(run_type="manual"),
        "params": {"start": (now - timedelta(hours=1)).isoformat(), "end": now.isoformat(), "shops": None},
    }
    plan = operators.KuaimaiPlanOperator(task_id="plan", pipeline=str(PIPELINES / "trades.yaml"))
    assert plan.execute(run)
    code, told = ran("status", "trades", "--json")
    [found] = json.loads(told)
    assert code == NOT_COMPLETE
    assert found["dimensions"][0]["open"] == len(plan.execute(run))


def test_a_pipeline_that_is_not_there_is_told(ran, capsys, home):
    assert main(["status", "trade", "--pipelines", str(PIPELINES)]) == 1
    assert "there is no pipeline 'trade'" in capsys.readouterr().err


def test_preview_shows_a_live_page_and_writes_it_down(home, ran, tmp_path):
    page = tmp_path / "preview.html"
    code, told = ran("preview", "trades", "--live", "--html", str(page))
    assert code == 0
    assert "kuaimai_trade_line" in told
    assert "the live gateway" in told
    assert "kuaimai_trade_line" in page.read_text(encoding="utf-8")


def test_every_target_of_a_pipeline_is_looked_at_and_told_of(home, capsys, tmp_path):
    folder = tmp_path / "pipelines"
    folder.mkdir()
    (folder / "orders.yaml").write_text(
        "name: orders\nsource: {method: erp.trade.outstock.simple.query}\n"
        f"targets: [{{kind: sql}}, {{kind: files, url: {tmp_path}/files}}, {{kind: noop}}]\n",
        encoding="utf-8",
    )
    assert main(["doctor", "--pipelines", str(folder)]) == 0
    told = capsys.readouterr().out
    for target in ("kuaimai_target", "orders→files", "orders→noop"):
        assert f"✓ target {target}: " in told
    assert list((tmp_path / "files").iterdir()) == []
    assert main(["status", "--pipelines", str(folder)]) == NOT_COMPLETE
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        "orders → kuaimai_target",
        "orders → files",
        "orders → noop",
    ]


def test_doctor_asks_a_write_api_whether_it_is_there_without_a_record(home, capsys, tmp_path, monkeypatch):
    folder = tmp_path / "pipelines"
    folder.mkdir()
    (folder / "orders.yaml").write_text(
        "name: orders\nsource: {method: erp.trade.outstock.simple.query}\n"
        "targets: [{kind: http, conn_id: my_api, path: /api/orders}]\n",
        encoding="utf-8",
    )
    with write_api() as api:
        access = {"conn_type": "http", "host": api.url.removesuffix("/api/orders"), "password": TOKEN}
        monkeypatch.setenv("AIRFLOW_CONN_MY_API", json.dumps(access))
        assert main(["doctor", "--pipelines", str(folder)]) == 0
        assert f"✓ target orders→my_api: write API {api.url}: HTTP 204 to OPTIONS" in capsys.readouterr().out
        # Not every API speaks of itself: a doubt is told, and fails nothing.
        api.options = (404, {})
        assert main(["doctor", "--pipelines", str(folder)]) == 0
        told = capsys.readouterr().out
        assert "! target orders→my_api: " in told
        assert "→ check host of the Connection and path of the target" in told
        monkeypatch.setenv("AIRFLOW_CONN_MY_API", json.dumps({**access, "password": "another-token"}))
        assert main(["doctor", "--pipelines", str(folder)]) == 1
        told = capsys.readouterr().out
        assert "✗ target orders→my_api: " in told
        assert "another-token" not in told
        assert {verb for verb, _ in api.calls} == {"OPTIONS"}
        assert api.posts == []
    assert main(["doctor", "--pipelines", str(folder)]) == 1
    assert "nobody listens there" in capsys.readouterr().out


def test_replay_lands_what_a_mended_pipeline_can_store(home, capsys, tmp_path):
    folder = tmp_path / "pipelines"
    folder.mkdir()
    file = folder / "orders.yaml"
    head = "name: orders\nsource: {method: erp.trade.outstock.simple.query}\n"
    # Nothing is negative, so with the sign of the filter wrong everything is set aside.
    file.write_text(
        head + "filters: [{where: {payment: {at_least: 0}}, then: quarantine, reason: wrong sign}]\n",
        encoding="utf-8",
    )
    now = datetime.now(START.tzinfo).replace(microsecond=0)
    run = {
        "run_id": "manual__1",
        "dag_run": SimpleNamespace(run_type="manual"),
        "params": {"start": (now - timedelta(hours=8)).isoformat(), "end": now.isoformat(), "shops": None},
    }
    given = {"pipeline": str(file)}
    manifest = operators.KuaimaiPlanOperator(task_id="p", **given).execute(run)
    for operator, name in (
        (operators.KuaimaiExtractOperator, "slice"),
        (operators.KuaimaiTransformOperator, "manifest"),
        (operators.KuaimaiLoadOperator, "manifest"),
    ):
        manifest = operator(task_id="t", **{name: manifest}, **given).execute(run)
    aside = sum(window["quarantined"] for one in manifest for window in one["windows"])
    assert aside > 0
    assert main(["replay", "--pipelines", str(folder)]) == NOT_COMPLETE
    assert f"{aside} wrong sign" in capsys.readouterr().out
    file.write_text(head, encoding="utf-8")
    assert main(["replay", "--pipelines", str(folder)]) == 0
    assert f"{aside} records waited, {aside} landed" in capsys.readouterr().out
    assert main(["replay", "--pipelines", str(folder)]) == 0


def test_a_file_with_a_mistake_holds_only_what_is_asked_about_all(home, capsys, tmp_path):
    folder = tmp_path / "pipelines"
    folder.mkdir()
    (folder / "small.yaml").write_text("name: small\nsource: {method: erp.trade.list.query}\n", "utf-8")
    (folder / "wrong.yaml").write_text("name: wrong\n", "utf-8")
    assert main(["status", "small", "--pipelines", str(folder)]) == NOT_COMPLETE
    assert "small → kuaimai_target" in capsys.readouterr().out
    for names in ([], ["wrong", "small"]):
        assert main(["status", *names, "--pipelines", str(folder)]) == 1
        told = capsys.readouterr()
        assert "small → kuaimai_target: nothing was read yet" in told.out
        assert "wrong.yaml, line 1: key 'source' is missing" in told.err
        assert ("there is no pipeline 'wrong'" in told.err) == bool(names)
        assert main(["replay", *names, "--pipelines", str(folder)]) == 1
        told = capsys.readouterr()
        assert "small → kuaimai_target: 0 records waited" in told.out
        assert "wrong.yaml, line 1: key 'source' is missing" in told.err
    assert (
        main(["plan", "wrong", "--from", "2026-11-01", "--to", "2026-11-02", "--pipelines", str(folder)]) == 1
    )
    assert "wrong.yaml, line 1: key 'source' is missing" in capsys.readouterr().err


def test_a_target_that_does_not_answer_holds_no_other(home, capsys, tmp_path):
    folder = tmp_path / "pipelines"
    folder.mkdir()
    (folder / "orders.yaml").write_text(
        "name: orders\nsource: {method: erp.trade.outstock.simple.query}\n"
        "targets: [{kind: sql, conn_id: not_there}, {kind: sql}]\n",
        encoding="utf-8",
    )
    assert main(["status", "--pipelines", str(folder)]) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("orders → not_there: NOT KNOWN: There is no Connection not_there")
    assert second == "orders → kuaimai_target: nothing was read yet"


def test_an_empty_folder_is_not_a_complete_mirror(home, capsys, tmp_path):
    assert main(["status", "--pipelines", str(tmp_path)]) == 1
    assert f"there is no pipeline in {tmp_path}" in capsys.readouterr().err


def test_a_live_preview_asks_as_the_pipeline_asks(home, capsys, tmp_path):
    folder = tmp_path / "pipelines"
    folder.mkdir()
    (folder / "sent.yaml").write_text(
        "name: sent\n"
        "source: {method: erp.trade.outstock.simple.query, params: {status: SELLER_SEND_GOODS}}\n",
        encoding="utf-8",
    )
    home.box.requests.clear()
    assert main(["preview", "sent", "--live", "--pipelines", str(folder)]) == 0
    assert [one.params.get("status") for one in home.box.requests if "trade" in one.method] == [
        "SELLER_SEND_GOODS"
    ]
    assert "the live gateway" in capsys.readouterr().out
