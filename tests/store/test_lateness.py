"""How late records come is counted beside the data, and says how far back to look."""

from __future__ import annotations

import contextlib
import threading
from datetime import datetime, timedelta, timezone

import pytest
import sqlalchemy as sa
from orders import T0, order

from kuaimai.load.lateness import BEYOND, Punctuality, look_back, percentile
from kuaimai.load.targets import open_target
from kuaimai.transform.mapping import Mapper
from kuaimai.transform.rows import Rows

MINUTE = 60_000
NOW = datetime.fromtimestamp(T0 / 1000, timezone.utc)


@pytest.fixture(params=["pg_url", "maria_url", "sqlite"])
def url(request, tmp_path):
    return (
        f"sqlite:///{tmp_path}/target.db"
        if request.param == "sqlite"
        else request.getfixturevalue(request.param)
    )


@pytest.fixture
def target(url):
    target = open_target(url, now=NOW.timestamp)
    yield target
    target.close()


def load(target, records, *, days: float = 3, look_back_minutes: int = 1440, source: str = "fxg") -> int:
    told = Punctuality("trades", "created", (NOW,), NOW - timedelta(days=days), look_back_minutes)
    with target.loading(Mapper("trade").tables, told) as loading:
        loading.merge(0, batch([{**one, "source": source} for one in records]))
    return loading.outside


def batch(records):
    mapper = Mapper("trade")
    into = [Rows(table) for table in mapper.tables]
    assert mapper.map(records, into) == []
    return [rows.to_arrow(rank=0, window_id="w1") for rows in into]


def made(sid: int, minutes: float):
    return order(sid, created=int(T0 - minutes * MINUTE))


def counted(target) -> list[tuple]:
    with target.engine.connect() as connection:
        statement = "SELECT source, up_to_minutes, records FROM kuaimai_lateness ORDER BY 1, 2"
        return [tuple(row) for row in connection.execute(sa.text(statement))]


def test_new_records_are_counted_by_platform_and_by_how_late_they_came(target):
    load(target, [made(1, 3), made(2, 5), made(3, 5.1), made(4, 1440), made(5, 2 * 1440)])
    load(target, [made(6, 3)], source="jd")
    assert counted(target) == [
        ("fxg", 5, 2),
        ("fxg", 15, 1),
        ("fxg", 1440, 1),
        ("fxg", 2880, 1),
        ("jd", 5, 1),
    ]


def test_record_that_was_there_or_was_made_in_time_nobody_had_read_says_nothing(target):
    load(target, [made(1, 3)])
    load(target, [made(1, 3), made(2, 3), made(3, 4 * 1440), order(4, created=None)])
    assert counted(target) == [("fxg", 5, 2)]


def test_records_outside_of_the_look_back_are_told(target):
    assert load(target, [made(1, 60), made(2, 61)], look_back_minutes=60) == 1
    assert load(target, [made(3, 1441)], look_back_minutes=0) == 0


def test_load_that_cannot_say_leaves_no_trace(target):
    with target.loading(Mapper("trade").tables) as loading:
        loading.merge(0, batch([made(1, 3)]))
    assert counted(target) == []


def test_loads_at_the_same_time_add_up(url):
    with contextlib.closing(open_target(url)) as target:
        target.announce([])

    def one(first: int) -> None:
        target = open_target(url, now=NOW.timestamp)
        for number in range(first, first + 10, 2):
            load(target, [made(number, 500), made(number + 1, 3)])
        target.close()

    threads = [threading.Thread(target=one, args=(100 * each,)) for each in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    target = open_target(url)
    assert counted(target) == [("fxg", 5, 15), ("fxg", 720, 15)]
    target.close()


def test_look_back_of_a_target_follows_the_last_thirty_days(target):
    assert target.look_back("trades", 1440) == 1440
    load(target, [made(1, 2000)])
    assert target.look_back("trades", 1440) == 2160
    assert target.look_back("others", 1440) == 1440
    target.now = (NOW + timedelta(days=31)).timestamp
    assert target.look_back("trades", 1440) == 1440


def test_percentile_leaves_out_one_in_a_thousand():
    assert percentile({}) == 0
    assert percentile({5: 999, 60: 1}) == 5
    assert percentile({5: 998, 60: 2}) == 60
    assert percentile({5: 10, 60: 1}) == 60
    assert percentile({5: 1_998, 60: 1, 1440: 1}) == 5


def test_platform_with_many_records_speaks_for_itself_and_small_ones_together():
    many = [("fxg", 5, 100_000)]
    assert look_back(60, many) == 60
    assert look_back(60, [*many, ("jd", 5, 900), ("jd", 1440, 100)]) == 1440
    assert look_back(60, [*many, ("sys", 2880, 5)]) == 60
    assert look_back(60, [("sys", 2880, 5)]) == 2880
    assert look_back(60, [("sys", BEYOND, 5)]) == 7 * 1440
    assert look_back(9 * 1440, [("sys", BEYOND, 5)]) == 9 * 1440
