"""The operators of the past and `kuaimai plan`, with Connections in Airflow's database and a real gateway."""
# ruff: noqa: F811 - the imported fixture is an argument

from __future__ import annotations

import json
import logging
import time
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from hooked import START, connect  # noqa: F401
from installation import TRADES

from kuaimai.airflow import backfill, operators
from kuaimai.airflow.compat import AirflowFailException, AirflowSkipException
from kuaimai.cli import main
from kuaimai.sandbox import Sandbox, World

CHINA = START.tzinfo
TODAY = datetime.fromtimestamp(time.time(), CHINA).replace(hour=0, minute=0, second=0, microsecond=0)
FIRST, LAST = TODAY - timedelta(days=3), TODAY


@pytest.fixture
def past(connect, tmp_path, monkeypatch):
    """An installation over three days of orders, its target a SQLite file."""
    target = tmp_path / "target.db"
    monkeypatch.setenv(
        "AIRFLOW_CONN_KUAIMAI_TARGET", json.dumps({"conn_type": "sqlite", "host": str(target)})
    )
    monkeypatch.setenv("AIRFLOW_VAR_KUAIMAI_STAGING", str(tmp_path / "staging"))
    with Sandbox(World(start=TODAY, orders_per_hour=0, history_orders=900, days_back=3)) as box:
        connect(box.credentials, host=box.url)
        yield SimpleNamespace(box=box, target=target)


def context(**params):
    pushed = {}
    return {
        "run_id": "manual__1",
        "ti": SimpleNamespace(xcom_push=lambda key, value: pushed.update({key: value})),
        "pushed": pushed,
        "params": {
            "pipeline": "trades",
            "from": FIRST.isoformat(),
            "to": LAST.isoformat(),
            "shops": None,
            "dimension": "created",
            "dry_run": False,
            "again": False,
            "rows_per_slice": 200,
            **params,
        },
    }


def plan(run):
    made = backfill.KuaimaiBackfillPlanOperator(task_id="plan", pipeline=str(TRADES))
    return made.execute(run)


def report(run, manifests):
    made = backfill.KuaimaiBackfillReportOperator(task_id="report", pipeline=str(TRADES), manifests=manifests)
    return made.execute(run)


def read_and_write(run, piece):
    arguments = {"pipeline": str(TRADES)}
    extracted = operators.KuaimaiExtractOperator(task_id="e", slice=piece, **arguments).execute(run)
    made = operators.KuaimaiTransformOperator(task_id="t", manifest=extracted, **arguments).execute(run)
    return operators.KuaimaiLoadOperator(task_id="l", manifest=made, **arguments).execute(run)


def windows(past):
    engine = sa.create_engine(f"sqlite:///{past.target}")
    try:
        if not sa.inspect(engine).has_table("kuaimai_window"):
            return []
        with engine.connect() as connection:
            return [state for (state,) in connection.execute(sa.text("SELECT state FROM kuaimai_window"))]
    finally:
        engine.dispose()


@pytest.fixture
def logged(caplog, capsys):
    """A function: what was logged so far; 2.x gives it to the logging module, 3.x writes it out."""
    caplog.set_level(logging.INFO)
    return lambda: caplog.text + capsys.readouterr().out


def test_the_whole_way_lands_the_past_and_a_second_run_finds_it_sealed(past, logged):
    run = {**context(), "dag_run": SimpleNamespace(run_type="manual")}
    slices = plan(run)
    assert len(slices) > 3
    assert windows(past) == ["open"] * len(slices)
    assert run["pushed"]["plan"]["rows"] > 800
    assert "an hour's budget" in logged()

    summary = report(run, [read_and_write(run, piece) for piece in slices])
    assert summary["sealed"]
    assert summary["landed"] > 800
    assert set(windows(past)) == {"sealed"}
    again = context()
    assert plan(again) == []
    assert again["pushed"]["plan"]["sealed_days"] == 3
    assert report(again, None)["sealed"]


def test_dry_run_counts_and_leaves_everything_else_undone(past, logged):
    run = context(dry_run=True)
    assert plan(run) == []
    assert run["pushed"]["plan"]["slices"] > 3
    assert "total" in logged()
    assert windows(past) == []
    with pytest.raises(AirflowSkipException, match="dry run"):
        report(run, None)


def test_window_that_is_not_sealed_fails_the_run(past):
    run = {**context(), "dag_run": SimpleNamespace(run_type="manual")}
    loaded = [read_and_write(run, piece) for piece in plan(run)]
    window, *others = loaded[0]["windows"]
    loaded[0]["windows"] = [{**window, "state": "open", "reason": "it moved"}, *others]
    with pytest.raises(AirflowFailException, match=r"1 of \d+ windows are not sealed: trigger the DAG again"):
        report(run, loaded)


def test_more_slices_than_airflow_maps_are_refused_and_none_is_written_down(past, monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "3")
    with pytest.raises(AirflowFailException, match=r"at most 3.*rows a slice"):
        plan(context())
    assert windows(past) == []


def test_time_without_zone_is_the_merchants_and_a_wrong_one_is_told(past):
    run = context(**{"from": f"{FIRST:%Y-%m-%d}", "to": f"{LAST:%Y-%m-%d}"})
    assert plan(run)[0]["window"]["start"] == FIRST.isoformat()
    with pytest.raises(AirflowFailException, match="from is not a time: 'soon'"):
        plan(context(**{"from": "soon"}))


@pytest.fixture
def terminal(monkeypatch, capsys):
    """A function that runs `kuaimai plan` over the three days; returns exit code, output, complaints."""
    monkeypatch.setenv("KUAIMAI_PIPELINES", str(TRADES.parent))
    level = logging.getLogger().level

    def run(*more: str, pipeline="trades"):
        code = main(["plan", pipeline, "--from", f"{FIRST:%Y-%m-%d}", "--to", f"{LAST:%Y-%m-%d}", *more])
        said = capsys.readouterr()
        return code, said.out, said.err

    yield run
    logging.getLogger().setLevel(level)


def test_command_prints_the_plan_and_writes_nothing(past, terminal):
    code, out, _ = terminal()
    assert code == 0
    assert out.startswith("trades by created:")
    assert windows(past) == []


def test_command_prints_json_for_programs(past, terminal):
    code, out, _ = terminal("--json", "--shops", "900001,900003", "--rows-per-slice", "200")
    told = json.loads(out)
    assert (code, told["shops"], told["pipeline"]) == (0, 2, "trades")
    assert sum(day["rows"] for day in told["days"]) == told["rows"] > 100


@pytest.mark.parametrize(
    ("more", "pipeline", "said"),
    [
        ((), "tardes", "there is no pipeline 'tardes'"),
        (("--conn-id", "nobody"), "trades", "There is no Connection nobody"),
        (("--dimension", "modified"), "trades", "give one of upd_time"),
        (("--shops", "4711"), "trades", "shop '4711' is not one of this merchant's"),
    ],
)
def test_command_tells_a_mistake_in_one_line(past, terminal, more, pipeline, said):
    code, out, err = terminal(*more, pipeline=pipeline)
    assert (code, out) == (1, "")
    assert said in err
    assert past.box.credentials.app_secret not in err
