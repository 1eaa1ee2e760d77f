"""The path for any other database comes to the same rows and proofs as the fast ones."""

from __future__ import annotations

import random
from contextlib import closing
from datetime import datetime, timedelta, timezone
from decimal import Decimal

import pytest
import sqlalchemy as sa
from loads import START, bad, batch, facts, load, load_read_at, mark_gone
from orders import T0, line, order

from kuaimai.errors import ConfigError, Transient
from kuaimai.load.generic import GenericTarget
from kuaimai.load.lateness import Punctuality
from kuaimai.load.proof import MOST_TRIES
from kuaimai.load.targets import open_target
from kuaimai.transform.mapping import Mapper


@pytest.fixture(params=["postgres", "duckdb"])
def url(request, tmp_path):
    if request.param == "duckdb":
        pytest.importorskip("duckdb_engine")
        return f"duckdb:///{tmp_path}/target.duckdb"
    return request.getfixturevalue("pg_url")


@pytest.fixture
def target(url, clock):
    target = GenericTarget(url, now=clock)
    yield target
    target.close()


def rows(target, statement):
    with target.engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(statement))]


def test_other_databases_are_opened_by_this_path():
    assert type(open_target("duckdb:////tmp/target.duckdb")) is GenericTarget


def test_values_arrive_exact(target):
    memo = '尽快🚀�\n"引号",逗号' + "密" * 450
    sent = order(
        9_007_199_254_740_993,
        payment="42.00",
        cost=Decimal("33.989999999999995"),
        sellerMemo=memo,
        sysMemo="",
        payTime=T0 + 123,
    )
    load(target, [sent])
    (got,) = rows(
        target, "SELECT sid, payment, cost, seller_memo, sys_memo, consign_time, pay_time FROM kuaimai_trade"
    )
    assert got[:1] + got[3:6] == ("9007199254740993", memo, "", None)
    assert got[1:3] == (Decimal("42.00"), Decimal("33.989999999999995"))
    assert target.read_instant(got[6]).timestamp() * 1000 == T0 + 123
    assert rows(target, "SELECT oid FROM kuaimai_trade_line") == [("6900000000000000017",)]


def history(seed: int) -> list[list[dict]]:
    """Loads of a few orders that change, go back in time, lose lines and hand them over."""
    chance = random.Random(seed)
    loads = []
    for _ in range(12):
        records = []
        for sid in chance.sample(range(1, 7), 3):
            lines = [line(11 + number) for number in chance.sample(range(8), chance.randrange(4))]
            record = order(sid, T0 + chance.randrange(4), lines=lines, sysMemo=chance.choice("ab"))
            if chance.random() < 0.2:
                del record["orders"]
            records.append(record)
        loads.append(records)
    return loads


@pytest.mark.parametrize("seed", range(4))
def test_history_of_loads_ends_in_the_same_rows_as_on_a_fast_path(target, tmp_path, seed):
    fast = open_target(f"sqlite:///{tmp_path}/fast.db")
    parents = "SELECT sid, sys_memo, _version, _rank, _content_hash, _deleted_at IS NULL FROM kuaimai_trade"
    lines = "SELECT id, sid, _version, _rank, _deleted_at IS NULL FROM kuaimai_trade_line"
    for number, records in enumerate(history(seed)):
        rank, window = number % 2, f"w{number % 3}"
        quick, slow = (load(one, records, rank=rank, window=window) for one in (fast, target))
        assert slow == quick, number
        for statement in (parents, lines):
            assert sorted(rows(target, statement)) == sorted(
                (*row[:-1], bool(row[-1])) for row in rows(fast, statement)
            )
    assert rows(target, "SELECT count(*) FROM kuaimai_seen") == [(0,)]
    fast.close()


@pytest.mark.parametrize("version", [T0 - 1, T0, T0 + 1])
def test_order_that_is_marked_as_gone_is_revived_as_on_a_fast_path(target, tmp_path, version):
    gone_at = START + timedelta(hours=1)
    orders = "SELECT sid, _version FROM kuaimai_trade WHERE _deleted_at IS NULL"
    lines = "SELECT id, sid FROM kuaimai_trade_line WHERE _deleted_at IS NULL"
    late = [order(1, version, lines=[line(11)]), order(2, T0 + 1, lines=[line(12)])]
    with closing(open_target(f"sqlite:///{tmp_path}/fast.db")) as fast:
        for one in (fast, target):
            load(one, [order(1, T0, lines=[line(11), line(12)]), order(2, T0)])
            mark_gone(one, "1", gone_at)
        for seconds in (-1, 1):
            at = gone_at + timedelta(seconds=seconds)
            assert load_read_at(target, late, at) == load_read_at(fast, late, at)
            assert sorted(rows(target, orders)) == sorted(rows(fast, orders))
            assert sorted(rows(target, lines)) == sorted(rows(fast, lines))
        assert len(rows(target, orders)) == len(rows(target, lines)) == 2


def test_nothing_is_visible_of_a_load_that_fails_half_way(target):
    load(target, [order(1)])
    with pytest.raises(RuntimeError), target.loading(Mapper("trade").tables) as loading:
        loading.merge(0, batch([order(2)]))
        raise RuntimeError("the worker dies here")
    assert rows(target, "SELECT sid FROM kuaimai_trade") == [("1",)]


def test_proof_quarantine_and_coverage_are_those_of_every_database(target, clock):
    verdict = load(target, [order(1)], total=2, quarantined=[bad("7")])
    assert (verdict.state, verdict.landed, verdict.quarantined) == ("sealed", 1, 1)
    clock.advance(60)
    load(target, [order(7)], window="w2")
    assert rows(target, "SELECT count(*) FROM kuaimai_quarantine WHERE resolved_at IS NULL") == [(0,)]
    for _ in range(MOST_TRIES):
        last = load(target, [order(1)], total=9, window="w3")
    assert last.state == "contested"
    assert {one.state for one in target.coverage("trades", "upd_time", START)} == {"sealed", "contested"}
    assert target.began("trades", "upd_time") == START


def test_late_records_are_counted_as_on_a_fast_path(target, tmp_path):
    fast = open_target(f"sqlite:///{tmp_path}/fast.db", now=target.now)
    read_at = datetime.fromtimestamp(T0 / 1000, timezone.utc)
    told = Punctuality("trades", "created", (read_at,), read_at - timedelta(days=3), 60)
    records = [
        order(number, created=T0 - minutes * 60_000) for number, minutes in enumerate([1, 5, 7, 100, 9000], 1)
    ]
    counted = []
    for one in (target, fast):
        with one.loading(Mapper("trade").tables, told) as loading:
            loading.merge(0, batch(records))
            loading.seal(facts(0, 5))
        late = rows(one, "SELECT source, up_to_minutes, records FROM kuaimai_lateness ORDER BY 2")
        counted.append((late, loading.outside))
    assert counted[0] == counted[1]
    assert counted[0][1] == 1
    fast.close()


def test_column_that_the_catalogue_learnt_is_added(target):
    load(target, [order(1)])
    with target.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE kuaimai_trade DROP COLUMN seller_memo"))
    load(target, [order(2, sellerMemo="x")])
    assert rows(target, "SELECT sid, seller_memo FROM kuaimai_trade ORDER BY 1") == [("1", None), ("2", "x")]


def test_database_that_is_away_is_told_without_its_password():
    target = GenericTarget("postgresql+psycopg2://me:hidden@127.0.0.1:1/none")
    with pytest.raises(Transient) as caught:
        load(target, [order(1)])
    assert "hidden" not in str(caught.value)


def test_database_without_a_driver_is_told():
    with pytest.raises(ConfigError, match="not installed"):
        load(open_target("exotic://me:hidden@host/db"), [order(1)])
