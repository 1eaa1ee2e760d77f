"""What a load promises, on PostgreSQL, MariaDB and SQLite alike."""

from __future__ import annotations

import re
import threading
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import msgspec
import pytest
import sqlalchemy as sa
from loads import load_read_at, mark_gone
from mariadb_server import admin
from order_loads import START, bad, batch, facts, rows, store
from orders import T0, line, order

from kuaimai.errors import ConfigError, Transient
from kuaimai.gateway import catalog
from kuaimai.load import merge, postgres
from kuaimai.load.proof import MOST_TRIES
from kuaimai.load.targets import open_target
from kuaimai.load.windows import PlannedWindow, Written
from kuaimai.transform.mapping import Mapper

# PostgreSQL by either driver; SQLAlchemy 1.4 knows no psycopg 3.
POSTGRES = ["postgres"] if sa.__version__.startswith("1.") else ["postgres", "psycopg"]


# PostgreSQL takes many new records another way than few.
@pytest.fixture(params=[*POSTGRES, *(f"{each}, as if many" for each in POSTGRES), "mariadb", "sqlite"])
def url(request, tmp_path, monkeypatch):
    server, _, many = request.param.partition(", ")
    if server == "sqlite":
        return f"sqlite:///{tmp_path}/target.db"
    if many:
        monkeypatch.setattr(postgres, "_FEWEST_NEW", 1)
    return server_url(request, server)


def server_url(request, server):
    if server == "psycopg":
        return request.getfixturevalue("pg_url").replace("+psycopg2", "+psycopg")
    return request.getfixturevalue({"postgres": "pg_url", "mariadb": "maria_url"}[server])


@pytest.fixture
def target(url):
    target = open_target(url)
    yield target
    target.close()


def test_values_arrive_exact(target):
    store(
        target,
        [
            order(
                5970000000000001,
                payment="42.00",
                cost=Decimal("33.989999999999995"),
                payTime=T0 + 123,
                sellerMemo='尽快🚀\n"引号",逗号',
                sysMemo="",
                tradeTags=[{"id": 77, "tagName": "加急"}],
            )
        ],
    )
    ((sid, payment, cost, memo, empty, consigned),) = rows(
        target, "SELECT sid, payment, cost, seller_memo, sys_memo, consign_time FROM kuaimai_trade"
    )
    assert (sid, memo, empty, consigned) == ("5970000000000001", '尽快🚀\n"引号",逗号', "", None)
    assert (Decimal(payment), Decimal(cost)) == (Decimal("42.00"), Decimal("33.989999999999995"))
    ((oid, parent),) = rows(target, "SELECT oid, sid FROM kuaimai_trade_line")
    assert (oid, parent) == ("6900000000000000017", "5970000000000001")
    ((paid,),) = rows(target, "SELECT pay_time FROM kuaimai_trade")
    paid = target.read_instant(paid)
    assert round(paid.timestamp() * 1000) == T0 + 123


def test_same_load_twice_writes_nothing_twice(target):
    first = store(target, [order(1), order(2)])
    again = store(target, [order(1), order(2)])
    assert (first.inserted, first.unchanged) == (2, 0)
    assert (again.inserted, again.updated, again.unchanged, again.state) == (0, 0, 2, "sealed")
    assert rows(target, "SELECT count(*) FROM kuaimai_trade_line") == [(2,)]


def test_older_version_never_overwrites_a_newer_one(target):
    store(target, [order(1, T0 + 5000, payment="2.00", lines=[line(11), line(12)])])
    late = store(target, [order(1, T0, payment="1.00", lines=[line(11, num=9)])])
    assert (late.stale, late.landed, late.state) == (1, 1, "sealed")
    assert [Decimal(value) for (value,) in rows(target, "SELECT payment FROM kuaimai_trade")] == [2]
    assert rows(target, "SELECT id, num FROM kuaimai_trade_line WHERE _deleted_at IS NULL ORDER BY id") == [
        ("11", 1),
        ("12", 1),
    ]


def test_fuller_record_of_the_same_version_wins_in_either_order(target):
    store(target, [order(1, sourceName="full")], rank=1)
    base = store(target, [order(1)], rank=0)
    assert base.stale == 1
    assert rows(target, "SELECT source_name FROM kuaimai_trade") == [("full",)]
    store(target, [order(2)], rank=0)
    store(target, [order(2, sourceName="full")], rank=1)
    assert rows(target, "SELECT source_name FROM kuaimai_trade WHERE sid = '2'") == [("full",)]


def test_same_version_with_other_content_is_taken(target):
    store(target, [order(1, sysMemo="a")])
    changed = store(target, [order(1, sysMemo="b")])
    assert changed.updated == 1
    assert rows(target, "SELECT sys_memo FROM kuaimai_trade") == [("b",)]


def test_line_that_left_its_order_is_marked_and_comes_back(target):
    store(target, [order(1, T0, lines=[line(11), line(12)])])
    store(target, [order(1, T0 + 1, lines=[line(11)])])
    living = "SELECT id FROM kuaimai_trade_line WHERE _deleted_at IS NULL ORDER BY id"
    assert rows(target, living) == [("11",)]
    assert rows(target, "SELECT count(*) FROM kuaimai_trade_line") == [(2,)]
    store(target, [order(1, T0 + 2, lines=[line(11), line(12)])])
    assert rows(target, living) == [("11",), ("12",)]


@pytest.mark.parametrize("child_first", [True, False])
def test_line_that_moved_to_a_split_order_lives_there_once(target, child_first):
    store(target, [order(1, T0, lines=[line(11), line(12)])])
    parts = [order(2, T0 + 1, lines=[line(12)]), order(1, T0 + 1, lines=[line(11)])]
    for part in parts if child_first else reversed(parts):
        store(target, [part])
    assert rows(target, "SELECT id, sid FROM kuaimai_trade_line WHERE _deleted_at IS NULL ORDER BY id") == [
        ("11", "1"),
        ("12", "2"),
    ]


def test_order_sent_without_a_list_of_lines_keeps_the_lines_it_had(target):
    store(target, [order(1, T0, lines=[line(11)])])
    bare = order(1, T0 + 1)
    del bare["orders"]
    store(target, [bare])
    assert rows(target, "SELECT count(*) FROM kuaimai_trade_line WHERE _deleted_at IS NULL") == [(1,)]


@pytest.mark.parametrize(
    ("total", "quarantined", "state"),
    [(2, 0, "sealed"), (3, 1, "sealed"), (3, 0, "open"), (1, 0, "open"), (None, 0, "open")],
)
def test_window_is_sealed_only_by_the_equation(target, total, quarantined, state):
    with target.loading(Mapper("trade").tables) as loading:
        loading.merge(0, batch([order(1), order(2)]))
        loading.quarantine([bad(str(90 + number)) for number in range(quarantined)])
        verdict = loading.seal(facts(0, total))
    assert (verdict.state, verdict.reason is None) == (state, state == "sealed")
    assert rows(target, "SELECT state, landed, quarantined FROM kuaimai_window") == [(state, 2, quarantined)]


def test_window_that_moved_stays_open(target):
    with target.loading(Mapper("trade").tables) as loading:
        loading.merge(0, batch([order(1), order(2)]))
        verdict = loading.seal(facts(0, 2, after=3))
    assert verdict.reason == "the window moved while it was read: 2 records before, 3 after"


def test_quarantined_record_is_closed_when_it_lands_after_all(target, clock):
    target.now = clock
    store(target, [order(1)], total=2, quarantined=[bad("7")])
    clock.advance(60)
    store(target, [order(7)])
    ((first, last, resolved),) = rows(
        target, "SELECT first_seen_at, last_seen_at, resolved_at FROM kuaimai_quarantine"
    )
    assert first == last
    assert resolved is not None


def test_slice_that_was_read_before_a_record_went_bad_does_not_close_its_quarantine(target, clock):
    """Its load was held up: the older state that it brings says nothing about the newer one."""
    target.now = clock
    read = datetime.fromtimestamp(clock(), tz=timezone.utc)
    clock.advance(60)
    store(target, [order(1)], total=2, quarantined=[bad("7")])
    clock.advance(60)
    store(target, [order(7)], read=read)
    assert rows(target, "SELECT resolved_at FROM kuaimai_quarantine") == [(None,)]
    store(target, [order(7)], read=read + timedelta(seconds=90))
    ((resolved,),) = rows(target, "SELECT resolved_at FROM kuaimai_quarantine")
    assert resolved is not None


def test_what_one_pipeline_lands_does_not_close_what_another_has_set_aside(target, clock):
    """They may ask more of a record: the other one would set it aside again."""
    target.now = clock
    store(target, [order(1)], total=2, quarantined=[bad("7")])
    clock.advance(60)
    store(target, [order(7)], pipeline="orders_too")
    assert rows(target, "SELECT resolved_at FROM kuaimai_quarantine") == [(None,)]


def test_bad_record_whose_key_also_came_in_good_shape_counts_once(target):
    verdict = store(target, [order(1), order(2)], total=2, quarantined=[bad("1")])
    assert (verdict.state, verdict.landed, verdict.quarantined) == ("sealed", 2, 0)
    assert rows(target, "SELECT count(*) FROM kuaimai_quarantine") == [(1,)]


def test_nothing_is_visible_of_a_load_that_fails_half_way(target):
    store(target, [order(1)])
    with pytest.raises(RuntimeError), target.loading(Mapper("trade").tables) as loading:
        loading.merge(0, batch([order(2)]))
        raise RuntimeError("the worker dies here")
    assert rows(target, "SELECT sid FROM kuaimai_trade") == [("1",)]
    assert rows(target, "SELECT count(*) FROM kuaimai_window") == [(1,)]


def test_coverage_comes_back_with_zone(target):
    assert target.coverage("trades", "upd_time", START) == []
    assert target.began("trades", "upd_time") is None
    store(target, [order(1)])
    (window,) = target.coverage("trades", "upd_time", START)
    assert target.began("trades", "upd_time") == window.start == START
    assert (window.shops, window.end, window.state) == (("900001",), START + timedelta(minutes=5), "sealed")


def planned(window_id="w1"):
    method = "erp.trade.outstock.simple.query"
    end = START + timedelta(minutes=5)
    return PlannedWindow(window_id, "trades", method, ("900001",), "upd_time", START, end, "test")


def test_window_that_was_planned_and_never_read_is_open(target):
    target.announce([planned()])
    assert rows(target, "SELECT state, reason FROM kuaimai_window") == [("open", "planned, not read yet")]
    store(target, [order(1)])
    target.announce([planned()])  # planned once more: what is proven stays proven
    assert rows(target, "SELECT state, reason FROM kuaimai_window") == [("sealed", None)]


def test_window_counts_how_often_it_was_planned_and_not_read_to_its_end(target):
    for _ in range(3):
        target.announce([planned()])
    assert [one.unread for one in target.coverage("trades", "upd_time", START)] == [3]
    store(target, [order(1)], total=2)
    assert [one.unread for one in target.coverage("trades", "upd_time", START)] == [0]
    target.announce([planned()])
    store(target, [order(1)])
    target.announce([planned()])  # what is sealed waits for nobody
    assert [one.unread for one in target.coverage("trades", "upd_time", START)] == [0]


@pytest.mark.parametrize("reason", ["backfill", "border", "reconcile"])
def test_time_that_was_read_apart_from_the_schedule_is_not_when_it_began(target, reason):
    target.announce([msgspec.structs.replace(planned("w2"), planned_as=reason)])
    assert target.began("trades", "upd_time") is None
    store(target, [order(1)])
    assert target.began("trades", "upd_time") == START


def test_open_window_is_closed_when_others_have_sealed_its_time(target):
    target.announce([planned("w2")])
    store(target, [order(1)])
    target.supersede(["w1", "w2"])
    assert rows(target, "SELECT window_id, state FROM kuaimai_window ORDER BY 1") == [
        ("w1", "sealed"),
        ("w2", "superseded"),
    ]


def test_window_that_never_seals_becomes_contested_and_one_seal_ends_it(target):
    seen = []
    for _ in range(MOST_TRIES + 1):
        seen.append(store(target, [order(1)], total=2).state)
        ((tries, state),) = rows(target, "SELECT tries, state FROM kuaimai_window")
        assert (tries, state) == (len(seen), seen[-1])
    assert seen == ["open"] * (MOST_TRIES - 1) + ["contested"] * 2
    assert store(target, [order(1), order(2)]).state == "sealed"
    assert rows(target, "SELECT tries, state FROM kuaimai_window") == [(0, "sealed")]


def test_contested_window_is_closed_when_others_have_sealed_its_time(target):
    for _ in range(MOST_TRIES):
        store(target, [order(1)], total=2)
    target.supersede(["w1"])
    assert rows(target, "SELECT state FROM kuaimai_window") == [("superseded",)]


def test_proof_says_how_many_keys_this_window_brought_first(target):
    store(target, [order(1), order(2)])
    store(target, [order(1), order(2, T0 + 1), order(3)])
    by_creation = msgspec.structs.replace(facts(0, 4, window="w2"), dimension="created")
    with target.loading(Mapper("trade").tables) as loading:
        loading.merge(0, batch([order(number) for number in (1, 2, 3, 4)], window="w2"))
        loading.seal(by_creation)
    assert rows(target, "SELECT window_id, found_only FROM kuaimai_window ORDER BY 1") == [
        ("w1", 3),
        ("w2", 1),
    ]


def test_proof_table_of_an_older_version_gets_its_new_columns(target):
    store(target, [order(1)])
    with target.engine.begin() as connection:
        for name in ("tries", "found_only"):
            connection.execute(sa.text(f"ALTER TABLE kuaimai_window DROP COLUMN {name}"))
    target.announce([planned("w2")])
    store(target, [order(1)], total=2)
    assert rows(target, "SELECT window_id, tries, found_only FROM kuaimai_window ORDER BY 1") == [
        ("w1", 1, 0),
        ("w2", None, None),
    ]


def test_window_read_before_its_end_stays_open(target):
    with target.loading(Mapper("trade").tables) as loading:
        loading.merge(0, batch([order(1)]))
        verdict = loading.seal(msgspec.structs.replace(facts(0, 1), first_read_at=START))
    assert verdict.state == "open"
    assert "before its end" in verdict.reason


def test_two_versions_of_an_order_in_one_batch_leave_the_lines_of_the_newer(target):
    older = order(1, T0, lines=[line(11), line(12)])
    newer = order(1, T0 + 1, lines=[line(11)])
    for records in ([older, newer], [newer, older]):
        store(target, records, total=1)
        assert rows(target, "SELECT id FROM kuaimai_trade_line WHERE _deleted_at IS NULL") == [("11",)]


def test_line_that_is_gone_though_its_order_looks_the_same_is_marked(target):
    store(target, [order(1, T0, lines=[line(11), line(12)])])
    store(target, [order(1, T0, lines=[line(11)])])
    assert rows(target, "SELECT id FROM kuaimai_trade_line WHERE _deleted_at IS NULL") == [("11",)]


def test_line_that_moves_to_an_order_of_an_older_version_is_not_lost(target):
    store(target, [order(1, T0 + 5, lines=[line(11), line(12)])])
    store(target, [order(1, T0 + 6, lines=[line(11)]), order(2, T0, lines=[line(12)])])
    assert rows(target, "SELECT id, sid FROM kuaimai_trade_line WHERE _deleted_at IS NULL ORDER BY id") == [
        ("11", "1"),
        ("12", "2"),
    ]


def test_order_that_is_marked_as_gone_is_revived_only_by_what_was_read_since(target):
    orders = "SELECT sid, sys_memo FROM kuaimai_trade WHERE _deleted_at IS NULL ORDER BY sid"
    lines = "SELECT id, sid FROM kuaimai_trade_line WHERE _deleted_at IS NULL ORDER BY id"
    gone_at = START + timedelta(hours=1)
    before, after = gone_at - timedelta(seconds=1), gone_at + timedelta(seconds=1)
    for version in (T0 - 1, T0, T0 + 1):
        stored = [order(1, T0, lines=[line(11), line(12)], sysMemo="stored"), order(2, T0)]
        load_read_at(target, stored, after)
        mark_gone(target, "1", gone_at)
        # Another order has taken over one of the lines; it is alive.
        late = [
            order(1, version, lines=[line(11)], sysMemo="late"),
            order(2, T0 + 1, lines=[line(12)], sysMemo="alive"),
        ]
        assert load_read_at(target, late, before) == Written(updated=1, stale=1)
        assert rows(target, orders) == [("2", "alive")]
        assert rows(target, lines) == [("12", "2")]
        assert load_read_at(target, late, after) == Written(updated=1, unchanged=1)
        assert rows(target, orders) == [("1", "late"), ("2", "alive")]
        assert rows(target, lines) == [("11", "1"), ("12", "2")]
        with target.engine.begin() as connection:
            for table in ("kuaimai_trade", "kuaimai_trade_line"):
                connection.execute(sa.text(f"DELETE FROM {table}"))


@pytest.mark.parametrize("server", ["postgres", "mariadb"])
def test_two_loads_that_meet_at_a_new_order_leave_only_the_newer_lines(request, server):
    url = server_url(request, server)
    older, newer = open_target(url), open_target(url)
    with older.loading(Mapper("trade").tables) as first:
        pass
    done = threading.Event()
    with older.loading(Mapper("trade").tables) as first:
        first.merge(0, batch([order(1, T0, lines=[line(11), line(12)])]))
        waiting = threading.Thread(
            target=lambda: (store(newer, [order(1, T0 + 1, lines=[line(11)])]), done.set())
        )
        waiting.start()
        assert not done.wait(0.3)  # it waits for the first one's commit
    waiting.join(30)
    assert rows(newer, "SELECT id FROM kuaimai_trade_line WHERE _deleted_at IS NULL") == [("11",)]
    older.close()
    newer.close()


def test_column_that_the_catalogue_learnt_later_is_added(target):
    store(target, [order(1)])
    with target.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE kuaimai_trade DROP COLUMN sys_memo"))
    store(target, [order(1, T0 + 1, sysMemo="new")])
    assert rows(target, "SELECT sys_memo FROM kuaimai_trade") == [("new",)]


def test_postgres_does_not_even_lock_a_row_that_did_not_change(pg_url):
    target = open_target(pg_url)
    records = [order(1, lines=[line(11), line(12)]), order(2, T0 + 5)]
    store(target, records)
    again = store(target, [records[0], order(2, T0)])
    assert (again.unchanged, again.stale) == (1, 1)
    for table in Mapper("trade").tables:
        assert rows(target, f"SELECT count(*) FROM {table.name} WHERE xmax <> 0") == [(0,)]
    target.close()


@pytest.mark.parametrize("stored", [0, 1000])
def test_postgres_never_compares_a_batch_row_by_row_with_another_table(pg_url, stored):
    target = open_target(pg_url)
    records = [order(key, T0, lines=[line(key)]) for key in range(1, 1001)]
    store(target, records[:stored] or [order(9999)])
    parent, child = Mapper("trade").tables
    with target.loading([parent, child]) as loading:
        for table, piece in zip((parent, child), batch(records), strict=True):
            target.stage(loading.connection, table, piece)
        for statement in (
            merge.compare(parent),
            *target.drop_settled(parent, [child]),
            *target.upsert(parent),
            target.entomb(parent, child),
            *target.upsert_children(parent, child),
        ):
            if "INDEX" in statement:
                loading.connection.execute(sa.text(statement))
                continue
            bound = {name: START for name in ("now", "since") if f":{name}" in statement}
            plan = loading.connection.execute(sa.text(f"EXPLAIN {statement}"), bound).scalars().all()
            # A nested loop without an index, and the whole target instead of what was asked for.
            assert not [step for step in plan if "Join Filter" in step], "\n".join(plan)
            assert not [step for step in plan if "Seq Scan on kuaimai_" in step], "\n".join(plan)
    target.close()


def test_columns_carry_the_chinese_names_as_comments(pg_url):
    target = open_target(pg_url)
    store(target, [order(1)])
    ((comment,),) = rows(
        target,
        "SELECT col_description('kuaimai_trade'::regclass, attnum) FROM pg_attribute "
        "WHERE attrelid = 'kuaimai_trade'::regclass AND attname = 'upd_time'",
    )
    assert comment == "系统更新时间"
    target.close()


def test_target_without_rights_names_the_grant(pg_url):
    owner = open_target(pg_url)
    with owner.engine.begin() as connection:
        connection.execute(sa.text("CREATE ROLE reader LOGIN"))
    reader = open_target(pg_url.replace("postgres@", "reader@"))
    with pytest.raises(ConfigError, match=r"too few rights.*GRANT CREATE"):
        store(reader, [order(1)])
    reader.close()
    with owner.engine.begin() as connection:
        connection.execute(sa.text("DROP ROLE reader"))
    owner.close()


def test_table_under_row_level_security_is_told_with_what_to_do(pg_url):
    owner = open_target(pg_url)
    store(owner, [order(1)])
    with owner.engine.begin() as connection:
        connection.execute(sa.text("CREATE ROLE writer LOGIN"))
        connection.execute(sa.text("GRANT ALL ON ALL TABLES IN SCHEMA public TO writer"))
        connection.execute(sa.text("GRANT ALL ON SCHEMA public TO writer"))
        for name in ("kuaimai_trade", "kuaimai_trade_line"):
            connection.execute(sa.text(f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY"))
    writer = open_target(pg_url.replace("postgres@", "writer@"))
    for many in (1, 600):  # merged, and copied
        with pytest.raises(ConfigError, match="row-level security") as caught:
            store(writer, [order(10_000 + number) for number in range(many)])
        assert 'ALTER ROLE "writer" BYPASSRLS' in (caught.value.hint or "")
    with owner.engine.begin() as connection:
        connection.execute(sa.text("ALTER ROLE writer BYPASSRLS"))
    assert store(writer, [order(20_000)]).reason is None
    writer.close()
    with owner.engine.begin() as connection:
        connection.execute(sa.text("DROP OWNED BY writer"))
        connection.execute(sa.text("DROP ROLE writer"))
    owner.close()


def test_database_that_is_not_there_is_named(pg_url):
    target = open_target(pg_url.replace("/test_", "/absent_"))
    with pytest.raises(ConfigError, match="cannot be opened"):
        store(target, [order(1)])


def test_server_that_does_not_answer_is_tried_again_later():
    target = open_target("postgresql+psycopg2://postgres@127.0.0.1:1/none")
    with pytest.raises(Transient, match=r"check that it runs.*nothing of this window was stored"):
        store(target, [order(1)])


def test_sqlite_folder_that_is_missing_is_named(tmp_path):
    target = open_target(f"sqlite:///{tmp_path}/absent/target.db")
    with pytest.raises(ConfigError, match="the folder exists"):
        store(target, [order(1)])


@pytest.fixture
def maria(maria_url):
    target = open_target(maria_url)
    yield target
    target.close()


def test_mysql_has_tables_for_every_kind_of_record(maria):
    for kind in catalog.record_names():
        with maria.loading(Mapper(kind).tables):
            pass


def test_mariadb_columns_carry_the_chinese_names_and_the_zone_as_comments(maria):
    store(maria, [order(1)])
    found = dict(
        rows(
            maria,
            "SELECT column_name, column_comment FROM information_schema.columns "
            "WHERE table_schema = DATABASE() AND table_name = 'kuaimai_trade'",
        )
    )
    assert (found["upd_time"], found["sid"]) == ("系统更新时间（UTC）", "系统订单号")


@pytest.mark.parametrize("name", ["mysql", "mysql+pymysql", "mariadb", "mariadb+pymysql"])
def test_any_name_of_mysql_in_a_url_is_understood(maria_url, name):
    target = open_target(maria_url.replace("mysql+pymysql", name))
    assert store(target, [order(1)]).state == "sealed"
    target.close()


def test_driver_that_was_never_tried_is_named():
    target = open_target("mysql+mysqlconnector://root@localhost/none")
    with pytest.raises(ConfigError, match="the target's driver is mysqlconnector"):
        store(target, [order(1)])


def test_mariadb_keeps_texts_and_ids_to_the_last_character(maria):
    memo = "a\\'b\\\\n\"%s :now %% \r\n\t\x1a🚀�" + "密" * 450
    store(maria, [order("x"), order("x "), order("X", sysMemo=memo)])
    assert rows(maria, "SELECT sid FROM kuaimai_trade ORDER BY sid") == [("X",), ("x",), ("x ",)]
    assert rows(maria, "SELECT sys_memo FROM kuaimai_trade WHERE sid = 'X'") == [(memo,)]


def test_mariadb_takes_a_batch_in_statements_that_the_server_accepts(maria, mariadb, monkeypatch):
    monkeypatch.setattr("kuaimai.load.mysql._STATEMENT_BYTES", 20_000)
    memos = {str(number): "备注" * number for number in range(1, 2000, 100)}
    assert store(maria, [order(sid, sysMemo=memo) for sid, memo in memos.items()]).landed == len(memos)
    assert dict(rows(maria, "SELECT sid, sys_memo FROM kuaimai_trade")) == memos


def test_load_on_mariadb_waits_for_no_rows_of_another_load(mariadb, maria):
    store(maria, [order(1)])
    maria.close()
    with admin(mariadb) as cursor:
        cursor.execute("SET GLOBAL innodb_lock_wait_timeout = 1")
        try:
            with maria.loading(Mapper("trade").tables) as loading:
                # Few rows: as a whole they would be read faster than by the index, and locked one and all.
                loading.merge(0, batch([order(2), order(4)]))
                assert store(maria, [order(1, updTime=T0 + 1), order(3)]).landed == 2
        finally:
            cursor.execute("SET GLOBAL innodb_lock_wait_timeout = 50")


def test_mariadb_whose_index_was_dropped_by_hand_is_told_how_to_make_it(maria):
    store(maria, [order(1)])
    with maria.connected() as connection:
        connection.execute(sa.text('DROP INDEX "kuaimai_trade_line_parent" ON "kuaimai_trade_line"'))
    with pytest.raises(ConfigError, match="kuaimai_trade_line_parent") as refused:
        store(maria, [order(2)])
    assert "CREATE INDEX" in refused.value.hint


def test_mariadb_that_accepts_only_small_packets_is_told_which_setting_to_raise(mariadb, maria):
    store(maria, [order(1)])
    maria.close()
    with admin(mariadb) as cursor:
        cursor.execute("SELECT @@max_allowed_packet")
        ((before,),) = cursor.fetchall()
        cursor.execute("SET GLOBAL max_allowed_packet = 16384")
        try:
            assert store(maria, [order(sid, sysMemo="x" * 3000) for sid in range(10, 40)]).landed == 30
            with pytest.raises(ConfigError, match=r"kuaimai_trade has 2\d+ bytes.*max_allowed_packet"):
                store(maria, [order(2, sysMemo="x" * 20_000)])
        finally:
            cursor.execute(f"SET GLOBAL max_allowed_packet = {before}")
    assert store(maria, [order(2)]).landed == 1


def test_mariadb_stores_instants_in_utc_whatever_its_own_zone_is(mariadb, maria):
    with admin(mariadb) as cursor:
        cursor.execute("SET GLOBAL time_zone = '+08:00'")
        try:
            store(maria, [order(1, payTime=T0 + 123)])
        finally:
            cursor.execute("SET GLOBAL time_zone = 'SYSTEM'")
    assert rows(maria, "SELECT CAST(pay_time AS char) FROM kuaimai_trade") == [("2026-03-01 01:00:00.123",)]


def test_mariadb_column_that_cannot_hold_a_value_refuses_it_instead_of_cutting_it(maria):
    store(maria, [order(1)])
    with maria.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE kuaimai_trade MODIFY sys_memo varchar(3)"))
    with pytest.raises(ConfigError, match=r"refused a statement.*sys_memo.*changed by hand"):
        store(maria, [order(2, sysMemo="four")])
    assert rows(maria, "SELECT sid FROM kuaimai_trade") == [("1",)]


@pytest.mark.parametrize(("again", "written"), [(0, 0), (1, 4)], ids=["unchanged", "newer"])
def test_mariadb_writes_nothing_for_a_row_that_did_not_change(maria, again, written):
    store(maria, [order(1), order(2)])
    parent, child = Mapper("trade").tables
    with maria.loading([parent, child]) as loading:
        for table, piece in zip(
            (parent, child), batch([order(1, T0 + again), order(2, T0 + again)]), strict=True
        ):
            maria.stage(loading.connection, table, piece)
        before = undo_entries(loading)
        for statement in (
            *maria.upsert(parent),
            maria.entomb(parent, child),
            *maria.upsert_children(parent, child),
        ):
            moments = dict.fromkeys(("now", "since"), maria.instant(START))
            loading.connection.execute(sa.text(statement), moments)
        assert undo_entries(loading) - before == written


def undo_entries(loading):
    """How many changes of rows the one open transaction has made."""
    ((_, _, text),) = loading.connection.execute(sa.text("SHOW ENGINE INNODB STATUS"))
    return sum(map(int, re.findall(r"undo log entries (\d+)", text)))


def test_no_statement_for_mysql_names_a_temporary_table_twice():
    # MariaDB allows it; MySQL answers "Can't reopen table".
    target = open_target("mysql+pymysql://root@localhost/none")
    parent, child = Mapper("trade").tables
    statements = [
        *target.upsert(parent),
        *target.upsert_children(parent, child),
        target.entomb(parent, child),
        *target.drop_settled(parent, [child]),
        merge.compare(parent),
        merge.has_staged(parent),
        merge.remember(parent, 0),
        merge.has_seen(0),
        merge.count_landed(parent, 0),
        merge.resolve_quarantine("kuaimai_quarantine", parent, 0),
    ]
    temporary = [merge.stage_name(parent), merge.stage_name(child), merge.SEEN]
    assert {
        name: statement for statement in statements for name in temporary if statement.count(f'"{name}"') > 1
    } == {}


def test_two_mariadb_loads_over_the_same_keys_in_opposite_order_end_with_both_landed(maria_url):
    keys = [list(range(1, 11)), list(range(11, 21))]
    ready = threading.Barrier(2, timeout=30)
    outcomes = []

    def run(pieces, at):
        target = open_target(maria_url)
        for attempt in range(5):
            try:
                with target.loading(Mapper("trade").tables) as loading:
                    for piece in pieces:
                        loading.merge(0, batch([order(sid, at) for sid in piece]))
                        if not attempt and piece is pieces[0]:
                            ready.wait()
                    outcomes.append(loading.seal(facts(0, 20, window=f"w{at}")).state)
                break
            except Transient as error:
                outcomes.append(str(error))
        target.close()

    store_first = open_target(maria_url)
    store(store_first, [order(100)])  # the tables are there
    threads = [
        threading.Thread(target=run, args=(keys, T0)),
        threading.Thread(target=run, args=(keys[::-1], T0 + 1)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    # Each holds the half that the other wants: the server picks a victim, whose next try lands.
    assert sum(outcome == "sealed" for outcome in outcomes) == 2
    assert sum("Deadlock" in outcome and "the load is repeated" in outcome for outcome in outcomes) == 1
    found = rows(store_first, f"SELECT count(*), min(_version) FROM kuaimai_trade WHERE _version > {T0}")
    assert found == [(20, T0 + 1)]
    store_first.close()


def test_mariadb_user_without_rights_is_told_what_to_grant_and_with_that_it_works(mariadb, maria_url):
    database = sa.engine.make_url(maria_url).database
    with admin(mariadb) as cursor:
        cursor.execute("CREATE OR REPLACE USER 'writer'@'localhost' IDENTIFIED BY 'hidden'")
        cursor.execute(f"GRANT SELECT ON {database}.* TO 'writer'@'localhost'")
        target = open_target(maria_url.replace("root@", "writer:hidden@"))
        with pytest.raises(ConfigError, match="too few rights") as caught:
            store(target, [order(1)])
        assert "hidden" not in str(caught.value)
        target.close()
        cursor.execute(caught.value.hint.replace("'%'", "'localhost'"))
        assert store(target, [order(1)], quarantined=[bad("7")], total=2).state == "sealed"
        target.close()
        with pytest.raises(ConfigError, match="cannot be opened"):
            store(open_target(maria_url.replace("root@", "writer:wrong@")), [order(1)])
        cursor.execute("DROP USER 'writer'@'localhost'")


def test_mariadb_database_that_is_not_there_is_named(maria_url):
    with pytest.raises(ConfigError, match="cannot be opened"):
        store(open_target(maria_url.replace("/test_", "/absent_")), [order(1)])


def test_mysql_server_that_does_not_answer_is_tried_again_later():
    pytest.importorskip("pymysql")
    target = open_target("mysql+pymysql://root@127.0.0.1:1/none")
    with pytest.raises(Transient, match=r"check that it runs.*nothing of this window was stored"):
        store(target, [order(1)])
