"""What one time dimension never shows, another finds, and the proof says which."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from installation import CHINA, START, mirror

from kuaimai.errors import ConfigError
from kuaimai.sandbox import Faults

HOUR = timedelta(hours=1)


def by_creation(shop, **settings):
    """Set how far the pipeline looks back by creation."""
    created, pay_time = shop.pipeline.time.further
    time = shop.pipeline.time.model_copy(update={"further": (created.model_copy(update=settings), pay_time)})
    shop.pipeline = shop.pipeline.model_copy(update={"time": time})


def hours(shop, count: int, *, each: timedelta = HOUR) -> None:
    """Let time pass, each stretch read by one live run."""
    for _ in range(count):
        start = datetime.fromtimestamp(shop.clock(), CHINA)
        shop.clock.advance(each.total_seconds())
        assert shop.run(start, start + each, live=True).sealed


def found_only(shop, dimension: str) -> int:
    ((found,),) = shop.rows(
        f"SELECT COALESCE(sum(found_only), 0) FROM kuaimai_window WHERE dimension = '{dimension}'"
    )
    return found


def missing(shop) -> set[str]:
    return {sid for sid, why in shop.differences(START).items() if why == "missing"}


def windows(shop, dimension: str) -> list[tuple[datetime, datetime]]:
    spans = shop.rows(
        "SELECT DISTINCT window_start, window_end FROM kuaimai_window "
        f"WHERE dimension = '{dimension}' ORDER BY 1, 2"
    )
    return [tuple(shop.target.read_instant(one).astimezone(CHINA) for one in span) for span in spans]


@pytest.mark.parametrize(
    "faults",
    [Faults(null_modified=0.2), Faults(late_rows=0.3, late_seconds=2700)],
    ids=["no-change-time", "later-than-the-overlap"],
)
def test_orders_that_never_come_by_upd_time_are_found_by_their_creation(tmp_path, faults):
    with mirror(tmp_path, faults=faults, orders_per_hour=120) as shop:
        shop.look_back()  # the day before, so that only what is new counts
        before = found_only(shop, "created")
        hours(shop, 2)
        shop.clock.advance(3600)  # long enough for the late ones
        hidden = missing(shop)
        assert hidden

        assert shop.look_back().sealed

        young = {
            sid
            for sid, record in shop.box.truth().items()
            if ms(START - 12 * HOUR) < record["created"] < ms(START + 2 * HOUR)
        }
        assert hidden & young
        assert missing(shop) & young == set()
        assert found_only(shop, "created") - before >= len(hidden & stored(shop)) > 0


def ms(moment: datetime) -> float:
    return moment.timestamp() * 1000


def stored(shop) -> set[str]:
    return {sid for (sid,) in shop.rows("SELECT sid FROM kuaimai_trade")}


def test_orders_without_a_change_time_are_found_in_the_night_after_they_were_paid(tmp_path):
    with mirror(tmp_path, faults=Faults(null_modified=0.2), orders_per_hour=20) as shop:
        hours(shop, 1)
        shop.clock.advance(13.9 * 3600)
        hours(shop, 1)  # heals the day
        hidden = missing(shop)
        shop.clock.advance(3.5 * 3600)

        assert shop.look_back("pay_time").sealed

        first = START.replace(hour=0)
        assert windows(shop, "pay_time") == [
            (first + timedelta(hours=at), first + timedelta(hours=at + 2)) for at in range(0, 24, 2)
        ]
        midnight = first + timedelta(days=1)
        paid = {sid for sid in hidden if ms(START) < shop.box.truth()[sid]["payTime"] < ms(midnight)}
        assert paid
        assert paid & missing(shop) == set()
        assert found_only(shop, "pay_time") >= len(paid)


def test_what_is_found_late_gets_the_fuller_record_too(tmp_path):
    with mirror(tmp_path, faults=Faults(null_modified=1.0), orders_per_hour=60) as shop:
        hours(shop, 1)
        assert stored(shop) == set()
        shop.look_back()
        ranks = dict(shop.rows("SELECT source, max(_rank) FROM kuaimai_trade GROUP BY source"))
        assert (ranks["fxg"], ranks["pdd"]) == (1, 0)


def test_the_same_time_is_read_again_under_the_same_name(tmp_path):
    with mirror(tmp_path, orders_per_hour=10) as shop:
        shop.look_back()
        first = windows(shop, "created")
        shop.clock.advance(1800)
        shop.look_back()
        at = START
        assert first == [
            (at.replace(hour=6) - timedelta(days=1), at.replace(hour=12) - timedelta(days=1)),
            (at.replace(hour=12) - timedelta(days=1), at.replace(hour=18) - timedelta(days=1)),
            (at.replace(hour=18) - timedelta(days=1), at.replace(hour=0)),
            (at.replace(hour=0), at.replace(hour=6)),
            (at.replace(hour=6), at),
        ]
        assert set(windows(shop, "created")) - set(first) == {(at.replace(hour=6), at.replace(minute=30))}


def test_run_by_hand_reads_exactly_its_interval_by_that_dimension(tmp_path):
    with mirror(tmp_path, orders_per_hour=60) as shop:
        shop.clock.advance(7200)
        assert shop.run(START + HOUR / 4, START + HOUR, dimension="created").sealed
        at = START
        assert windows(shop, "created") == [(at + HOUR / 4, at + HOUR)]
        assert shop.run(START, START + HOUR, dimension="consign_time").sealed


def test_scheduled_run_by_a_time_without_a_schedule_is_refused(tmp_path):
    with mirror(tmp_path) as shop, pytest.raises(ConfigError, match=r"time\.further"):
        shop.run(START - HOUR, START, live=True, dimension="consign_time")


@pytest.mark.parametrize("dimension", ["created", "pay_time"])
def test_outage_of_days_is_healed_in_each_dimension(tmp_path, dimension):
    with mirror(tmp_path, orders_per_hour=4) as shop:
        shop.look_back(dimension)
        began = windows(shop, dimension)[0][0]
        shop.clock.advance(4 * 86_400)
        assert shop.look_back(dimension).sealed
        reached = began
        for start, end in windows(shop, dimension):
            assert start <= reached
            reached = max(reached, end)
        now = datetime.fromtimestamp(shop.clock(), CHINA)
        assert reached == (now if dimension == "created" else now.replace(hour=0))


def test_look_back_grows_to_what_is_seen_to_come_late(tmp_path):
    # A fifth of jd's orders appear up to 20 hours after their creation; the part that is split off an order
    # carries the creation of the whole.
    with mirror(tmp_path, orders_per_hour=40) as shop:
        by_creation(shop, look_back_hours=2)
        hours(shop, 6, each=4 * HOUR)
        late = dict(
            shop.rows(
                "SELECT source, sum(records) FROM kuaimai_lateness WHERE up_to_minutes > 240 GROUP BY source"
            )
        )
        assert late["jd"] > 0
        assert shop.target.look_back("trades", 120) > 600
        shop.look_back()
        assert windows(shop, "created")[0][0] < START + 14 * HOUR
        longest = shop.rows("SELECT max(up_to_minutes) FROM kuaimai_lateness")[0][0]
        assert shop.target.look_back("trades", 120) == longest


def test_order_that_comes_later_than_the_look_back_is_counted_once(tmp_path):
    with mirror(tmp_path, orders_per_hour=120) as shop:
        by_creation(shop, look_back_hours=2)
        outside, at = [], START
        for _ in range(6):
            shop.clock.advance(3600)
            summary = shop.run(at, at + HOUR, live=True)
            at += HOUR
            outside.append(summary.outside)
            assert summary.look_back_minutes >= (120 if at > START + HOUR else 0)
        again = shop.run(at - HOUR, at, live=True)
        assert sum(outside) > 0
        assert again.outside == 0


def test_outages_backfills_and_the_first_run_say_nothing_about_lateness(tmp_path):
    with mirror(tmp_path, orders_per_hour=30) as shop:
        shop.run(START - timedelta(days=1), START)  # by hand
        shop.run(START - HOUR, START, live=True)  # the first
        assert counted(shop) == []
        shop.clock.advance(5 * 3600)
        shop.run(START + 4 * HOUR, START + 5 * HOUR, live=True)  # after an outage, which it heals
        assert counted(shop) == []
        shop.look_back()
        assert counted(shop) == []
        hours(shop, 1)
        assert counted(shop) != []


def counted(shop) -> list[tuple]:
    return shop.rows("SELECT source, up_to_minutes, records FROM kuaimai_lateness")


@pytest.mark.parametrize("server", ["sqlite", "postgres", "mariadb"])
def test_order_that_says_to_have_changed_next_year_follows_its_later_changes(request, tmp_path, server):
    servers = {"postgres": "pg_url", "mariadb": "maria_url"}
    url = request.getfixturevalue(servers[server]) if server in servers else None
    with mirror(tmp_path, url, faults=Faults(future_times=0.3), orders_per_hour=60) as shop:
        hours(shop, 1)
        assert shop.look_back().sealed
        year = START + 300 * 24 * HOUR
        early = {sid for sid, record in shop.box.truth().items() if record["updTime"] > ms(year)}
        early &= stored(shop)
        assert early

        shop.box.faults.future_times = 0.0  # set right at the source
        hours(shop, 6)

        changed = {sid for sid in early if shop.box.truth()[sid]["updTime"] > ms(START + HOUR)}
        assert changed
        assert changed & shop.differences(START).keys() == set()


def test_order_that_is_set_right_while_it_is_being_read_follows_that_change_too(tmp_path, monkeypatch):
    with mirror(tmp_path, faults=Faults(future_times=0.5), orders_per_hour=120) as shop:
        hours(shop, 1)
        send, read = shop.client.wire.send, set()

        def sending(method, params, *, session):
            given = send(method, params, session=session)
            if params.get("timeType") == "created" and given.rows(["list"]) and shop.box.faults.future_times:
                shop.box.faults.future_times = 0.0
                read.update(
                    row["sid"] for row in given.rows(["list"]) if row["updTime"] > ms(START + 99 * HOUR)
                )
                shop.clock.advance(6 * 3600)
            return given

        monkeypatch.setattr(shop.client.wire, "send", sending)
        shop.look_back()
        assert shop.run(START + HOUR, START + 7 * HOUR, live=True).sealed

        changed = {
            sid
            for sid, record in shop.box.truth().items()
            if ms(START + HOUR) < record["updTime"] < ms(START + 7 * HOUR)
        }
        changed &= {str(sid) for sid in read}
        assert changed
        assert changed & shop.differences(START).keys() == set()
