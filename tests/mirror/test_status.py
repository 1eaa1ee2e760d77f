"""What `kuaimai status` says is what the proof tables hold."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
import sqlalchemy as sa
from installation import CHINA, START, mirror

from kuaimai.pipeline import planner
from kuaimai.pipeline.scopes import fetch_shops
from kuaimai.pipeline.status import pretty, status
from kuaimai.sandbox import Faults


def told(shop):
    now = datetime.fromtimestamp(shop.clock(), timezone.utc)
    found = status(shop.pipeline, shop.target, "kuaimai_target", now)
    return found, pretty([found], now)


@pytest.mark.parametrize("database", ["sqlite", "pg_url", "maria_url"])
def test_status_follows_the_mirror(tmp_path, request, database):
    url = None if database == "sqlite" else request.getfixturevalue(database)
    with mirror(tmp_path, url) as shop:
        found, text = told(shop)
        assert (found.dimensions, found.complete) == ((), False)
        assert text == "trades → kuaimai_target: nothing was read yet"

        shop.tick()
        found, text = told(shop)
        [own] = found.dimensions
        assert found.complete
        assert (own.dimension, own.open, own.contested) == ("upd_time", 0, 0)
        assert own.complete_until == datetime.fromtimestamp(shop.clock(), CHINA)
        assert own.sealed >= 1
        assert text.startswith("trades → kuaimai_target: complete\n")

        # A run that planned and died leaves its window open; nothing before it is in doubt.
        begin = datetime.fromtimestamp(shop.clock(), CHINA)
        shop.plan(begin, begin + timedelta(minutes=5), run="dead")
        found, text = told(shop)
        [own] = found.dimensions
        assert not found.complete
        assert own.complete_until == begin
        assert "NOT COMPLETE" in text
        assert "planned, not read yet" in text


@pytest.mark.parametrize("database", ["sqlite", "pg_url", "maria_url"])
def test_complete_from_is_where_the_last_hole_ends(tmp_path, request, database):
    url = None if database == "sqlite" else request.getfixturevalue(database)
    with mirror(tmp_path, url) as shop:
        now = datetime.fromtimestamp(shop.clock(), CHINA)
        hour = timedelta(hours=1)

        def complete():
            [own] = told(shop)[0].dimensions
            return own.complete_from, own.complete_until

        shop.run(now - 2 * hour, now - hour)
        shop.run(now - hour, now)
        assert complete() == (now - 2 * hour, now)
        # Nobody planned the hour before: what lies behind it is sealed, but not one with the present.
        shop.run(now - 5 * hour, now - 3 * hour)
        assert complete() == (now - 2 * hour, now)
        shop.run(now - 3 * hour, now - 2 * hour)
        assert complete() == (now - 5 * hour, now)
        # An open window ends what can be said, wherever it lies.
        shop.plan(now - 4 * hour, now - 3.5 * hour, run="dead")
        assert complete() == (now - 5 * hour, now - 4 * hour)


def test_complete_from_is_of_all_shops(tmp_path):
    with mirror(tmp_path) as shop:
        shop.tick()
        [own] = told(shop)[0].dimensions
        later = own.complete_from + timedelta(minutes=2)
        # As if one shop had been added two minutes later than the others.
        with shop.target.engine.begin() as connection:
            connection.execute(
                sa.text(
                    "INSERT INTO kuaimai_window "
                    "(window_id, pipeline, method, shops, dimension, window_start, window_end, state) "
                    "SELECT window_id || '+', pipeline, method, '[\"new\"]', dimension, :start, window_end, "
                    "state FROM kuaimai_window"
                ),
                {"start": shop.target.instant(later)},
            )
        [own] = told(shop)[0].dimensions
        assert own.complete_from == later


def test_windows_of_the_night_that_end_a_second_earlier_leave_no_hole(tmp_path):
    with mirror(tmp_path) as shop:
        now = datetime.fromtimestamp(shop.clock(), CHINA)
        hour = timedelta(hours=1)
        shop.run(now - 2 * hour, now - hour - timedelta(seconds=1))
        shop.run(now - hour, now)
        [own] = told(shop)[0].dimensions
        assert (own.complete_from, own.complete_until) == (now - 2 * hour, now)


def test_further_time_that_stands_still_is_late(tmp_path):
    with mirror(tmp_path) as shop:
        shop.tick()
        shop.look_back()
        shop.clock.advance(3 * 3600)
        shop.tick()
        found, text = told(shop)
        assert found.late == ("created",)
        assert "LATE by created" in text
        shop.look_back()
        assert told(shop)[0].late == ()


def test_further_time_that_only_a_backfill_has_read_has_no_schedule_to_be_late(tmp_path):
    with mirror(tmp_path) as shop:
        shop.tick()
        now = datetime.fromtimestamp(shop.clock(), CHINA)
        plan = planner.plan_backfill(
            shop.pipeline,
            run="backfill",
            start=now - timedelta(days=2),
            end=now - timedelta(days=1),
            shops=fetch_shops(shop.client),
            dimension="created",
            client=shop.client,
            rate=5,
            target=shop.target,
            now=shop.clock,
        )
        planner.announce(plan, shop.pipeline, shop.target)
        for piece in plan.slices:
            shop.one(piece)
        found, _ = told(shop)
        assert [one.dimension for one in found.dimensions] == ["upd_time", "created"]
        assert (found.complete, found.late) == (True, ())


def test_old_time_that_is_open_makes_no_schedule_late(tmp_path):
    with mirror(tmp_path) as shop:
        shop.tick()
        now = datetime.fromtimestamp(shop.clock(), CHINA)
        shop.plan(now - timedelta(days=20), now - timedelta(days=19), run="backfill")
        found, text = told(shop)
        assert (found.complete, found.late) == (False, ())
        assert "LATE" not in text


def test_target_with_a_schedule_of_its_own_is_late_by_that(tmp_path):
    with mirror(tmp_path) as shop:
        apart = {"kind": "sql", "conn_id": "archive", "schedule": "23 2 * * *"}
        content = shop.pipeline.model_dump(exclude_unset=True, exclude={"target"}) | {
            "targets": [{"kind": "sql", "conn_id": "own"}, apart]
        }
        spec = type(shop.pipeline).model_validate(content)
        shop.tick()
        shop.clock.advance(24 * 3600)
        now = datetime.fromtimestamp(shop.clock(), timezone.utc)
        assert status(spec, shop.target, "own", now).late == ("upd_time",)
        assert status(spec, shop.target, "archive", now).late == ()
        assert status(spec, shop.target, "archive", now + timedelta(hours=2)).late == ("upd_time",)


def test_status_tells_when_the_schedule_stands_still(tmp_path):
    with mirror(tmp_path) as shop:
        shop.tick()
        shop.clock.advance(14 * 60)
        assert told(shop)[0].late == ()
        shop.clock.advance(2 * 60)
        found, text = told(shop)
        assert found.late == ("upd_time",)
        assert "LATE by upd_time" in text
        assert " 16 min " in text


def test_status_counts_what_is_in_quarantine(tmp_path):
    with mirror(tmp_path, faults=Faults(bad_amount=0.2)) as shop:
        shop.run(START - timedelta(days=1), START)
        found, text = told(shop)
        assert found.quarantined == shop.rows("SELECT count(*) FROM kuaimai_quarantine")[0][0] > 0
        assert f"{found.quarantined} records in quarantine, the oldest since" in text
