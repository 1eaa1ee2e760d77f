"""Which time a run covers: the scheduler's interval, or what a person asked for."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pendulum
import pytest

from kuaimai.airflow.interval import run_interval, scan_interval
from kuaimai.errors import ConfigError
from kuaimai.extract.windows import EVERYTHING, WAREHOUSE, Shop

CHINA = timezone(timedelta(hours=8))
NINE = pendulum.datetime(2026, 3, 1, 9, tz="Asia/Shanghai")
FIVE_PAST = NINE.add(minutes=5)


def context(kind, **params):
    return {
        "dag_run": SimpleNamespace(run_type=kind),
        "data_interval_start": NINE,
        "data_interval_end": FIVE_PAST,
        "params": {"start": None, "end": None, "shops": None, **params},
    }


@pytest.mark.parametrize(
    ("kind", "live"),
    [("scheduled", True), ("backfill", False), ("manual", False), ("asset_triggered", False)],
)
def test_interval_is_the_schedulers_and_only_scheduled_runs_heal(kind, live):
    asked = run_interval(context(kind))
    assert (asked.start, asked.end, asked.live) == (NINE, FIVE_PAST, live)
    assert type(asked.start) is type(asked.end) is datetime


def test_params_win_and_a_text_without_zone_is_the_merchants_clock():
    asked = run_interval(context("manual", start="2026-02-01T08:00:00", end="2026-02-02 08:00"))
    assert asked.start == datetime(2026, 2, 1, 8, tzinfo=CHINA)
    assert asked.end == datetime(2026, 2, 2, 8, tzinfo=CHINA)
    assert not asked.live


def test_text_with_a_zone_keeps_it():
    asked = run_interval(context("manual", start="2026-02-01T00:00:00Z", end="2026-02-01T11:30:00+09:30"))
    assert asked.start == datetime(2026, 2, 1, 8, tzinfo=CHINA)
    assert asked.end == datetime(2026, 2, 1, 2, tzinfo=timezone.utc)


def test_params_on_a_scheduled_run_cover_exactly_what_they_say():
    assert not run_interval(context("scheduled", start="2026-02-01", end="2026-02-02")).live


def test_it_is_written_as_the_merchants_wall_clock():
    utc = {
        **context("scheduled"),
        "data_interval_start": NINE.in_tz("UTC"),
        "data_interval_end": FIVE_PAST.in_tz("UTC"),
    }
    assert str(run_interval(utc)) == "2026-03-01 09:00:00 to 2026-03-01 09:05:00"


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"start": "2026-02-01"}, "give both start and end, or neither"),
        ({"end": "2026-02-01"}, "give both start and end, or neither"),
        ({"start": "soon", "end": "2026-02-01"}, "start is not a time: 'soon'"),
        ({"start": "2026-02-01", "end": "2026-02-30"}, "end is not a time: '2026-02-30'"),
        ({"start": "2026-02-02", "end": "2026-02-01"}, "is not after start"),
        ({"start": "2026-02-01", "end": "2026-02-01"}, "is not after start"),
        ({"start": "P1D", "end": "2026-02-01"}, "start is not a moment: 'P1D'"),
    ],
)
def test_impossible_times_are_told(params, said):
    with pytest.raises(ConfigError, match=r"not|neither") as told:
        run_interval(context("manual", **params))
    assert said in str(told.value)


@pytest.mark.parametrize(("start", "end"), [(None, None), (NINE, NINE)])
def test_run_without_an_interval_asks_for_one(start, end):
    run = {**context("manual"), "data_interval_start": start, "data_interval_end": end}
    with pytest.raises(ConfigError, match="trigger it with the params start and end"):
        run_interval(run)


def test_shops_are_chosen_by_id_and_an_unknown_one_is_told():
    shops = [Shop("1", "fxg"), Shop("2", "jd")]
    assert run_interval(context("manual", shops=["2"])).chosen(shops) == [Shop("2", "jd")]
    assert run_interval(context("manual", shops=[])).chosen(shops) == shops
    with pytest.raises(ConfigError, match=r"shop '3' is not one of this merchant's.*1, 2"):
        run_interval(context("manual", shops=["3"])).chosen(shops)


def test_warehouses_are_chosen_by_id_too():
    warehouses = [Shop("80001", WAREHOUSE), Shop("80002", WAREHOUSE)]
    assert run_interval(context("manual", shops=["80002"])).chosen(warehouses) == warehouses[1:]
    with pytest.raises(ConfigError, match=r"warehouse '3' is not one of this merchant's.*80001, 80002"):
        run_interval(context("manual", shops=["3"])).chosen(warehouses)


def test_nobody_can_be_chosen_where_there_is_one_question():
    assert run_interval(context("scheduled")).chosen([EVERYTHING]) == [EVERYTHING]
    with pytest.raises(ConfigError, match="reads everything at once"):
        run_interval(context("manual", shops=["900001"])).chosen([EVERYTHING])


@pytest.mark.parametrize(("kind", "live"), [("scheduled", True), ("backfill", True), ("manual", False)])
def test_only_a_person_vouches_for_what_a_scan_misses(kind, live):
    asked = scan_interval({**context(kind), "params": {}})
    assert (asked.start, asked.end, asked.live) == (NINE, FIVE_PAST, live)


@pytest.mark.parametrize(("start", "end"), [(None, None), (NINE, NINE)])
def test_scan_by_hand_needs_no_interval(start, end):
    run = {**context("manual"), "data_interval_start": start, "data_interval_end": end, "params": {}}
    run["dag_run"].start_date = FIVE_PAST
    asked = scan_interval(run)
    assert (asked.start, asked.end, asked.live) == (FIVE_PAST.subtract(minutes=1), FIVE_PAST, False)
