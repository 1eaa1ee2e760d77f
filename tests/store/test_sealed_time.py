"""Which time is sealed: windows joined by the database, in one pass however many there are."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta, timezone

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from kuaimai.load.proof import SEALED, WINDOW_TABLE
from kuaimai.load.targets import open_target

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
LATEST = 40
SPANS = st.lists(st.tuples(st.integers(0, LATEST), st.integers(0, 12)), min_size=1, max_size=12)


@pytest.fixture(scope="module", params=["sqlite", "new_database", "new_maria_database"])
def target(request, tmp_path_factory):
    made = (
        f"sqlite:///{tmp_path_factory.mktemp('sealed')}/target.db"
        if request.param == "sqlite"
        else request.getfixturevalue(request.param)()
    )
    target = open_target(made)
    target.prepare(())
    yield target
    target.close()


def seal(target, pipeline, spans):
    """Write windows down as sealed, in hours since the start: begin and length."""
    statement = (
        f"INSERT INTO {WINDOW_TABLE} (window_id, pipeline, method, shops, dimension, window_start, "
        "window_end, state) VALUES (:id, :pipeline, 'm', :shops, 'upd_time', :start, :end, :state)"
    )
    rows = [
        {
            "id": f"{pipeline}-{number}",
            "pipeline": pipeline,
            "shops": '["1"]',
            "start": target.instant(START + begin * HOUR),
            "end": target.instant(START + (begin + length) * HOUR),
            "state": SEALED,
        }
        for number, (begin, length) in enumerate(spans)
    ]
    with target.engine.begin() as connection:
        connection.execute(sa.text(statement), rows)


def joined(spans):
    """What is sealed, joined in the plain way."""
    found = []
    for begin, end in sorted((begin, begin + length) for begin, length in spans):
        if found and begin <= found[-1][1]:
            found[-1][1] = max(found[-1][1], end)
        else:
            found.append([begin, end])
    return [(START + begin * HOUR, START + end * HOUR) for begin, end in found]


_NUMBERS = itertools.count()


@given(spans=SPANS)
def test_windows_that_touch_are_one_span_whatever_lies_within_what(target, spans):
    pipeline = f"p{next(_NUMBERS)}"
    seal(target, pipeline, spans)
    assert sorted(target.standing(pipeline).sealed["upd_time"]["m", "1"]) == joined(spans)


@pytest.mark.parametrize(
    "spans",
    [
        [(0, 10), (2, 3), (7, 1)],  # the second ends before the third begins, the first does not
        [(0, 10), (2, 3), (7, 1), (11, 1)],
        [(0, 10), (2, 3), (10, 1), (20, 1), (20, 5), (22, 1)],
        [(0, 0), (0, 0), (1, 0)],
    ],
)
def test_long_windows_with_short_ones_in_them(target, spans):
    pipeline = f"p{next(_NUMBERS)}"
    seal(target, pipeline, spans)
    assert sorted(target.standing(pipeline).sealed["upd_time"]["m", "1"]) == joined(spans)


def test_mariadb_goes_through_the_windows_once(new_maria_database):
    """Its max() over a window's rows compares each with all others: a year would take hours."""
    target = open_target(new_maria_database())
    target.prepare(())
    many = 1000
    seal(target, "trades", [(number, 1) for number in range(many)])

    def rows_read():
        with target.engine.connect() as connection:
            counts = connection.execute(sa.text("SHOW SESSION STATUS LIKE 'Handler_read%'")).fetchall()
        return sum(int(count) for _, count in counts)

    before = rows_read()
    assert target.standing("trades").sealed["upd_time"]["m", "1"] == joined([(0, many)])
    assert rows_read() - before < 50 * many
    target.close()
