"""The proof of a year is a million windows: what plans and the status ask of it is answered by an index."""

from __future__ import annotations

import logging
from datetime import datetime, timedelta, timezone

import pytest
import sqlalchemy as sa

from kuaimai.load.proof import WINDOW_INDEXES, WINDOW_TABLE
from kuaimai.load.targets import open_target
from kuaimai.load.windows import PlannedWindow

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
DATABASES = ["sqlite", "pg_url", "maria_url"]


@pytest.fixture
def url(request, tmp_path):
    server = request.param
    return f"sqlite:///{tmp_path}/target.db" if server == "sqlite" else request.getfixturevalue(server)


@pytest.fixture
def opened():
    """A function that opens a target as a new process would."""
    made = []

    def opened(url):
        made.append(open_target(url))
        return made[-1]

    yield opened
    for one in made:
        one.close()


def indexes(target):
    return {one["name"] for one in sa.inspect(target.engine).get_indexes(WINDOW_TABLE)}


def window(number, pipeline="trades", dimension="upd_time"):
    start = START + timedelta(minutes=5 * number)
    return PlannedWindow(
        window_id=f"{pipeline}-{dimension}-{number}",
        pipeline=pipeline,
        method="erp.trade.list.query",
        shops=("1",),
        dimension=dimension,
        window_start=start,
        window_end=start + timedelta(minutes=5),
        run_id="r",
        planned_as="interval",
    )


@pytest.mark.parametrize("url", DATABASES, indirect=True)
def test_a_new_table_has_them(url, opened):
    target = opened(url)
    target.prepare(())
    assert WINDOW_INDEXES.keys() <= indexes(target)


@pytest.mark.parametrize("url", DATABASES, indirect=True)
def test_a_table_that_an_older_version_made_gets_them(url, opened):
    target = opened(url)
    target.announce([window(1)])
    with target.engine.begin() as connection:
        on = f' ON "{WINDOW_TABLE}"' if url.startswith("mysql") else ""
        for name in WINDOW_INDEXES:
            connection.execute(sa.text(f'DROP INDEX "{name}"{on}'))
    assert not WINDOW_INDEXES.keys() & indexes(target)
    later = opened(url)
    later.announce([window(2)])
    assert WINDOW_INDEXES.keys() <= indexes(later)
    assert len(later.coverage("trades", "upd_time", START)) == 2


@pytest.mark.parametrize(
    ("url", "explain"), [("sqlite", "EXPLAIN QUERY PLAN "), ("pg_url", "EXPLAIN ")], indirect=["url"]
)
def test_plans_are_answered_by_them(url, explain, opened):
    target = opened(url)
    target.announce([window(n, name) for name in ("trades", "others") for n in range(1000)])
    with target.engine.begin() as connection:
        connection.execute(sa.text(f"ANALYZE {WINDOW_TABLE}"))
    asked = []

    @sa.event.listens_for(target.engine, "before_cursor_execute")
    def note(_connection, _cursor, statement, values, _context, _many):
        if f"FROM {WINDOW_TABLE}" in statement:
            asked.append((statement, values))

    now = START + timedelta(minutes=5 * 1000)
    assert len(target.coverage("trades", "upd_time", now - timedelta(hours=1), now)) == 12
    assert target.began("trades", "upd_time") == START
    sa.event.remove(target.engine, "before_cursor_execute", note)
    with target.engine.connect() as connection:
        plans = [
            "\n".join(str(row) for row in connection.exec_driver_sql(explain + statement, values))
            for statement, values in asked
        ]
    assert "kuaimai_window_end" in plans[0]
    assert "kuaimai_window_start" in plans[1]


def test_who_may_not_make_them_loads_without(pg_url, opened, caplog):
    owner = opened(pg_url)
    owner.announce([window(1)])
    with owner.engine.begin() as connection:
        for statement in (
            *(f"DROP INDEX {name}" for name in WINDOW_INDEXES),
            "CREATE ROLE kuaimai_loader LOGIN",
            "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO kuaimai_loader",
        ):
            connection.execute(sa.text(statement))
    loader = opened(pg_url.replace("postgres@", "kuaimai_loader@"))
    caplog.set_level(logging.WARNING)
    loader.announce([window(2)])
    assert len(loader.coverage("trades", "upd_time", START)) == 2
    assert 'let the owner of the table run CREATE INDEX IF NOT EXISTS "kuaimai_window_start"' in caplog.text
    assert not WINDOW_INDEXES.keys() & indexes(owner)
    owner.close()
    opened(pg_url).prepare(())
    assert WINDOW_INDEXES.keys() <= indexes(owner)


def test_on_mariadb_the_rights_that_are_asked_for_suffice(maria_url, opened):
    owner = opened(maria_url)
    owner.announce([window(1)])
    database = sa.engine.make_url(maria_url).database
    with owner.engine.begin() as connection:
        for name in WINDOW_INDEXES:
            connection.execute(sa.text(f'DROP INDEX "{name}" ON "{WINDOW_TABLE}"'))
        connection.execute(sa.text(f"CREATE USER '{database}_loader'@'localhost'"))
        connection.execute(
            sa.text(
                "GRANT SELECT, INSERT, UPDATE, CREATE, ALTER, CREATE TEMPORARY TABLES "
                f"ON \"{database}\".* TO '{database}_loader'@'localhost'"
            )
        )
    loader = opened(maria_url.replace("root@", f"{database}_loader@"))
    loader.announce([window(2)])
    assert WINDOW_INDEXES.keys() <= indexes(owner)
