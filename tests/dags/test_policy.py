"""What every DAG of this package keeps to, seen as Airflow sees it: through its own parser."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from kuaimai.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
DAGS = ROOT / "dags"
TRADES = (ROOT / "include" / "pipelines" / "trades.yaml").read_text("utf-8")


@pytest.fixture
def trades(ours):
    return ours["kuaimai_trades"]


@pytest.fixture
def pipelines(tmp_path, monkeypatch):
    """A function that writes pipeline files into the folder that KUAIMAI_PIPELINES names."""
    monkeypatch.setenv("KUAIMAI_PIPELINES", str(tmp_path))

    def write(**texts: str) -> None:
        for name, text in texts.items():
            (tmp_path / f"{name}.yaml").write_text(text, "utf-8")

    return write


def test_dags_parse_with_nothing_set_up(ours):
    assert set(ours) == {
        "kuaimai_trades",
        "kuaimai_trades__created",
        "kuaimai_trades__pay_time",
        "kuaimai_aftersales",
        "kuaimai_aftersales__applied",
        "kuaimai_items",
        "kuaimai_items__scan",
        "kuaimai_purchases",
        "kuaimai_purchase_returns",
        "kuaimai_receipts",
        "kuaimai_shops",
        "kuaimai_stock",
        "kuaimai_stock__scan",
        "kuaimai_suppliers",
        "kuaimai_warehouses",
        "kuaimai_session",
        "kuaimai_backfill",
        "kuaimai_reconcile",
        "kuaimai_replay",
        "kuaimai_status",
    }


@pytest.mark.parametrize("error", [DataError, TypeError])
def test_file_that_fails_in_an_unforeseen_way_takes_no_other_down(pipelines, monkeypatch, error):
    from kuaimai.airflow import dags

    pipelines(trades=TRADES, other=TRADES.replace("name: trades", "name: other"))
    read = dags.load_pipeline

    def reading(path):
        if path.stem == "other":
            raise error("it cannot be read")
        return read(path)

    monkeypatch.setattr(dags, "load_pipeline", reading)
    found = {dag.dag_id: dag for dag in dags.pipeline_dags(Path(os.environ["KUAIMAI_PIPELINES"]))}
    assert "kuaimai_trades" in found
    assert "it cannot be read" in found["kuaimai_other"].description


def test_parsing_waits_for_no_library_of_columns():
    # The DAG processor parses every file in a process of its own, twice a minute.
    parse = (
        "import runpy, sys\n"
        f"sys.path.insert(0, {str(ROOT / 'plugins')!r})\n"
        "for path in sys.argv[1:]: runpy.run_path(path)\n"
        "print(*({'pandas', 'pyarrow', 'numpy'} & set(sys.modules)))"
    )
    files = sorted(map(str, DAGS.glob("*.py")))
    command = [sys.executable, "-W", "ignore", "-c", parse, *files]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.split("\n")[-2] == ""


def test_every_dag_has_tags_owner_docs_and_patience(ours):
    for dag in ours.values():
        assert "kuaimai" in dag.tags
        assert dag.owner == "kuaimai"
        assert dag.doc_md.strip()
        assert dag.description
        assert dag.catchup is False
        assert dag.max_active_runs == 1
        assert dag.on_failure_callback
        for task in dag.tasks:
            assert task.owner == "kuaimai"
            assert task.retries == 3
            assert task.retry_delay == timedelta(seconds=30)
            assert task.retry_exponential_backoff
            assert task.max_retry_delay == timedelta(minutes=10)
            assert task.execution_timeout


def test_the_pipelines_docs_name_tables_target_and_the_question_of_completeness(trades):
    for text in (
        "`kuaimai_trade`",
        "`kuaimai_trade_line`",
        "`kuaimai_target`",
        "state IN ('open', 'contested')",
    ):
        assert text in trades.doc_md
    assert "trades" in trades.tags


def test_further_dimensions_are_dags_of_their_own_that_go_behind_the_live_one(ours, trades, core_timetable):
    by_creation, by_payment = ours["kuaimai_trades__created"], ours["kuaimai_trades__pay_time"]
    schedules = [core_timetable(dag).summary for dag in (by_creation, by_payment)]
    assert schedules == ["*/30 * * * *", "20 3 * * *"]
    for dag, dimension in ((trades, "upd_time"), (by_creation, "created"), (by_payment, "pay_time")):
        assert {task.task_id for task in dag.tasks} == {task.task_id for task in trades.tasks}
        assert dag.get_task("plan").dimension == dimension
        lane = None if dag is trades else "reconcile"
        assert dag.get_task("plan").lane == lane
        assert arguments(dag.get_task("slice.extract")).get("lane") == lane
    assert "the last 24 hours again" in by_creation.doc_md
    assert "the day before, from midnight to midnight, in windows of 2 hours" in by_payment.doc_md
    assert "found_only" in by_payment.doc_md
    assert "`kuaimai_trades__created`, `kuaimai_trades__pay_time`" in trades.doc_md


def arguments(task) -> dict:
    """The arguments of a task, mapped or not."""
    return getattr(task, "partial_kwargs", None) or vars(task)


def test_what_is_read_as_a_whole_says_so_and_asks_for_no_time(ours):
    for name in ("shops", "warehouses", "suppliers", "items__scan", "stock__scan"):
        dag = ours[f"kuaimai_{name}"]
        assert dag.get_task("plan").dimension == "scan"
        assert {"start", "end"} & set(dag.params) == set()
        assert "`_deleted_at`" in dag.doc_md
        assert "There is no past to read" in dag.doc_md
    assert "`kuaimai_items` brings what changes meanwhile" in ours["kuaimai_items__scan"].doc_md
    assert "`kuaimai_items__scan`" in ours["kuaimai_items"].doc_md


def test_form_asks_whose_records_where_they_are_asked_for_one_after_the_other(ours):
    titles = {
        name: dag.params.get_param("shops").schema["title"]
        for name, dag in ours.items()
        if "shops" in dag.params
    }
    assert titles["kuaimai_stock"] == titles["kuaimai_stock__scan"] == "Warehouses / 仓库"
    assert titles["kuaimai_trades"] == titles["kuaimai_aftersales"] == "Shops / 店铺"
    assert not {"kuaimai_items", "kuaimai_purchases", "kuaimai_shops"} & set(titles)


def test_lines_by_further_calls_are_told(ours):
    assert "`purchase.order.get`" in ours["kuaimai_purchases"].doc_md
    assert "`warehouse.entry.list.get`" in ours["kuaimai_receipts"].doc_md
    assert "`purchase.return.list.get`" in ours["kuaimai_purchase_returns"].doc_md


def test_past_and_night_offer_only_what_they_can_serve(ours):
    backfill, reconcile = ours["kuaimai_backfill"], ours["kuaimai_reconcile"]
    offered = set(backfill.params.get_param("pipeline").schema["enum"])
    assert offered == {"trades", "aftersales", "items", "purchases", "purchase_returns", "receipts", "stock"}
    assert {task.task_id for task in reconcile.tasks} == {"refresh_session", *offered}
    for name in ("shops", "suppliers", "warehouses"):
        assert f"`{name}`" in backfill.doc_md
    for name in ("items", "shops", "stock"):
        assert f"`{name}`" in reconcile.doc_md


def test_runs_cover_five_minutes_of_the_merchants_clock(trades, core_timetable):
    import pendulum
    from airflow.timetables.base import TimeRestriction

    timetable = core_timetable(trades)
    first = pendulum.datetime(2026, 3, 1, 9, 3, tz="Asia/Shanghai")
    begin = timetable.next_dagrun_info(
        last_automated_data_interval=None, restriction=TimeRestriction(first, None, catchup=True)
    )
    after = timetable.next_dagrun_info(
        last_automated_data_interval=begin.data_interval,
        restriction=TimeRestriction(first, None, catchup=True),
    )

    assert timetable.serialize()["timezone"] == "Asia/Shanghai"
    assert begin.data_interval.start == pendulum.datetime(2026, 3, 1, 9, 5, tz="Asia/Shanghai")
    assert begin.data_interval.end - begin.data_interval.start == timedelta(minutes=5)
    assert begin.run_after == begin.data_interval.end
    assert after.data_interval.start == begin.data_interval.end


def test_tasks_follow_one_another(trades):
    upstream = {task.task_id: task.upstream_task_ids for task in trades.tasks}
    assert upstream["plan"] == {"refresh_session"}
    assert upstream["slice.extract"] == {"plan"}
    assert upstream["slice.transform"] == {"slice.extract"}
    assert upstream["slice.load"] == {"slice.transform"}
    assert upstream["seal"] >= {"plan", "slice.load"}


def test_slices_are_mapped_where_backfills_can_do_that(trades):
    from kuaimai.airflow.compat import AIRFLOW_V_3_0

    mapped = bool(list(trades.get_task("slice.load").iter_mapped_task_groups()))
    assert mapped == AIRFLOW_V_3_0


def test_pool_comes_from_the_environment(parse, monkeypatch):
    monkeypatch.setenv("KUAIMAI_POOL", "kuaimai")
    dags, _ = parse(DAGS)
    assert {task.pool for dag in dags.values() for task in dag.tasks} == {"kuaimai"}


def test_pool_is_airflows_own_if_none_is_named(ours):
    assert {task.pool for dag in ours.values() for task in dag.tasks} == {"default_pool"}


def test_orders_are_an_asset_that_other_dags_can_wait_for(trades):
    [asset] = trades.get_task("seal").outlets
    assert asset.uri == "kuaimai://kuaimai_target/kuaimai_trade"


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"start": "2026-03-01T08:00:00+08:00", "end": "2026-03-01T10:00:00+08:00"},
        {"start": "2026-03-01T08:00:00Z", "end": "2026-03-01T10:00:00Z", "shops": ["900001"]},
        {"shops": []},
    ],
)
def test_form_takes_what_a_person_means(trades, asked):
    params = copy.deepcopy(trades.params)
    for name, value in asked.items():
        params[name] = value
    assert params.validate() == {"start": None, "end": None, "shops": None, **asked}


@pytest.mark.parametrize(
    # Whether a text is a time is checked by the form, and by the run itself.
    "asked",
    [{"start": 5}, {"end": ["2026-03-01"]}, {"shops": "900001"}, {"shops": [900001]}],
)
def test_form_refuses_what_is_no_time_or_no_list(trades, asked):
    from airflow.exceptions import ParamValidationError

    params = copy.deepcopy(trades.params)
    with pytest.raises(ParamValidationError):
        for name, value in asked.items():
            params[name] = value
        params.validate()


def test_form_explains_itself_in_both_languages(trades):
    for name in ("start", "end", "shops"):
        field = trades.params.get_param(name)
        assert " / " in field.schema["title"]
        assert any("\u4e00" <= letter <= "\u9fff" for letter in field.description)


def test_two_pipelines_are_two_dags(parse, pipelines):
    pipelines(trades=TRADES, recent=TRADES.replace("name: trades", "name: recent"))
    dags, errors = parse(DAGS)
    assert errors == {}
    assert {"kuaimai_trades", "kuaimai_recent"} <= set(dags)


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (TRADES.replace("page_size:", "page_sise:"), "page_size"),
        (TRADES.replace("name: trades", "name: [trades"), "not valid YAML"),
        ("", "must be a mapping"),
    ],
)
def test_broken_pipeline_shows_its_mistake_and_takes_no_other_down(parse, pipelines, broken, said):
    pipelines(trades=TRADES, broken=broken)
    dags, errors = parse(DAGS)
    sick = dags["kuaimai_broken"]

    assert errors == {}
    assert "broken" not in dags["kuaimai_trades"].tags
    assert "broken" in sick.tags
    assert said in sick.doc_md
    assert "broken.yaml" in sick.doc_md
    with pytest.raises(Exception, match=r"broken\.yaml"):
        sick.tasks[0].execute({})


def test_a_folder_without_pipelines_is_no_error(parse, pipelines):
    pipelines()
    dags, errors = parse(DAGS)
    assert (set(dags), errors) == ({"kuaimai_session"}, {})


def test_dags_survive_the_way_through_the_schedulers_database(ours, core_timetable):
    for dag in ours.values():
        assert core_timetable(dag)


def test_start_date_lies_before_everything(ours):
    for dag in ours.values():
        assert dag.start_date <= datetime.fromisoformat("2024-01-01T00:00:00+00:00")
