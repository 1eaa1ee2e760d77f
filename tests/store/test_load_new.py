"""Many new records go into PostgreSQL's tables past the stages, and nothing else about them is different."""

from __future__ import annotations

import threading

import pytest
import sqlalchemy as sa
from order_loads import batch, facts, rows, store
from orders import T0, line, order

from kuaimai.load import merge, postgres
from kuaimai.load.targets import open_target
from kuaimai.transform.mapping import Mapper
from kuaimai.transform.rows import Rows


@pytest.fixture
def target(pg_url, monkeypatch):
    monkeypatch.setattr(postgres, "_FEWEST_NEW", 1)
    target = open_target(pg_url)
    yield target
    target.close()


@pytest.fixture
def staged(target, monkeypatch):
    """The keys of records that went through a stage."""
    keys = []
    usual = target.stage

    def note(connection, table, records):
        if table.parent is None:
            keys.extend(records[table.key].to_pylist())
        usual(connection, table, records)

    monkeypatch.setattr(target, "stage", note)
    return keys


def test_only_what_is_known_is_staged(target, staged):
    store(target, [order(1), order(2)])
    assert staged == []
    done = store(target, [order(1), order(2, T0 + 1000, payment="3.00"), order(3), order(4)])
    assert staged == ["1", "2"]
    assert (done.inserted, done.updated, done.unchanged, done.landed) == (2, 1, 1, 4)
    assert (done.state, rows(target, "SELECT count(*) FROM kuaimai_trade_line")) == ("sealed", [(4,)])


def test_of_records_that_belong_to_others_only_what_is_known_is_staged(target, monkeypatch):
    staged = []
    usual = target.stage
    monkeypatch.setattr(
        target, "stage", lambda *a: (staged.extend(a[2]["sys_sku_id"].to_pylist()), usual(*a))
    )
    mapper = Mapper("sku")
    for skus in ([1, 2], [1, 2, 3]):
        into = [Rows(table) for table in mapper.tables]
        assert mapper.map([{"sysItemId": 9, "sysSkuId": one} for one in skus], into) == []
        with target.loading(mapper.tables) as loading:
            loading.merge(0, mapper.batches(into, rank=0, window_id="w"))
    assert staged == ["1", "2"]
    assert rows(target, "SELECT count(*) FROM kuaimai_sku") == [(3,)]


def test_a_new_order_that_brings_a_stored_line_is_merged(target, staged):
    store(target, [order(1, lines=[line(7, num=1)])])
    done = store(target, [order(2, T0 + 1000, lines=[line(7, num=2), line(8)]), order(3)])
    assert staged == ["2"]
    assert (done.inserted, done.state) == (2, "sealed")
    assert rows(target, "SELECT id, sid, num FROM kuaimai_trade_line WHERE id IN ('7', '8') ORDER BY id") == [
        ("7", "2", 2),
        ("8", "2", 1),
    ]


def test_lines_that_a_removed_order_left_are_marked_when_it_comes_again(target, staged):
    store(target, [order(1, lines=[line(7), line(8)])])
    with target.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM kuaimai_trade"))
    store(target, [order(1, T0 + 1000, lines=[line(7)]), order(2)])
    assert staged == ["1"]
    assert rows(target, "SELECT id FROM kuaimai_trade_line WHERE _deleted_at IS NOT NULL") == [("8",)]


def test_lines_of_an_older_version_in_the_same_batch_are_left_out(target, staged):
    store(target, [order(1, lines=[line(7), line(8)]), order(1, T0 + 1000, lines=[line(7)])], total=1)
    assert staged == []
    assert rows(target, "SELECT id FROM kuaimai_trade_line") == [("7",)]


def test_another_load_that_is_quicker_is_merged_with(target, staged, monkeypatch):
    usual = postgres._as_stored
    quicker = open_target(str(target.url.render_as_string(hide_password=False)))

    def overtaken(records, moment):
        monkeypatch.setattr(postgres, "_as_stored", usual)
        store(quicker, [order(2, T0 + 5000, payment="9.00")])
        return usual(records, moment)

    monkeypatch.setattr(postgres, "_as_stored", overtaken)
    done = store(target, [order(1), order(2), order(3)])
    quicker.close()
    assert staged == ["1", "2", "3"]
    assert (done.inserted, done.stale, done.landed, done.state) == (2, 1, 3, "sealed")
    assert rows(target, "SELECT payment::text FROM kuaimai_trade WHERE sid = '2'") == [("9.00",)]


def test_loads_that_copy_and_loads_that_only_merge_do_not_wait_in_a_circle(target, monkeypatch):
    store(target, [order(1)])
    monkeypatch.setattr(postgres, "_FEWEST_NEW", 2)
    other = open_target(str(target.url.render_as_string(hide_password=False)))
    states = []
    merging = threading.Thread(
        target=lambda: states.append(store(other, [order(1, T0 + 2), order(2, T0 + 2)], window_id="w2").state)
    )
    usual = target.upsert
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"

    def met(table):
        # 2 and 3 are copied, and 1 is not merged yet.
        merging.start()
        while merging.is_alive() and not rows(target, waiting):
            pass
        return usual(table)

    monkeypatch.setattr(target, "upsert", met)
    states.append(store(target, [order(1, T0 + 1), order(2, T0 + 1), order(3, T0 + 1)]).state)
    merging.join()
    other.close()
    assert states == ["sealed", "sealed"]


def test_an_error_that_is_no_such_race_ends_the_load(target, monkeypatch):
    store(target, [order(1)])
    with target.engine.begin() as connection:
        connection.execute(sa.text("ALTER TABLE kuaimai_trade ADD CHECK (sid <> '3')"))
    with pytest.raises(Exception, match="refused a statement"):
        store(target, [order(2), order(3)])
    assert rows(target, "SELECT sid FROM kuaimai_trade") == [("1",)]


def test_a_key_that_could_not_be_looked_up_is_merged_all_the_same(target, staged):
    strange = f"a{postgres._BETWEEN_KEYS}b"
    store(target, [order(strange, lines=[line(7)])])
    done = store(target, [order(strange, T0 + 1000, lines=[line(9)]), order("c", lines=[])])
    assert staged == [strange, "c"]
    assert (done.inserted, done.updated, done.landed, done.state) == (1, 1, 2, "sealed")


def test_seen_keys_are_remembered_for_the_proof(target):
    with target.loading(Mapper("trade").tables) as loading:
        loading.merge(0, batch([order(1), order(2)]))
        found = loading.connection.execute(sa.text(f'SELECT "read", "key" FROM {merge.SEEN} ORDER BY 2'))
        assert [tuple(row) for row in found] == [(0, "1"), (0, "2")]
        assert loading.seal(facts(total=2)).state == "sealed"
