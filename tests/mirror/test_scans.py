"""Reading everything: what is gone is marked and comes back, and nothing is marked that is there."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa
from installation import CHINA, mirror

from kuaimai.errors import DataError
from kuaimai.load.files import FilesTarget, current
from kuaimai.load.noop import NoopTarget
from kuaimai.load.proof import MOST_TRIES
from kuaimai.load.targets import open_target
from kuaimai.pipeline import stages
from kuaimai.pipeline.scopes import fetch_scopes
from kuaimai.pipeline.spec import load_pipeline
from kuaimai.sandbox import Faults
from kuaimai.transform.mapping import Mapper

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def scan(shop, *, live: bool = True):
    """Read everything as the schedule would, in a run of its own hour."""
    now = datetime.fromtimestamp(shop.clock(), CHINA)
    shop.clock.advance(3600)
    return shop.run(now, now + HOUR, live=live, dimension="scan")


def gone(shop, table: str) -> set[str]:
    return {key for (key,) in shop.rows(f"SELECT sys_item_id FROM {table} WHERE _deleted_at IS NOT NULL")}


def states(shop) -> list[str]:
    return [state for (state,) in shop.rows("SELECT state FROM kuaimai_window ORDER BY window_start")]


def test_deleted_item_is_marked_with_its_skus_and_comes_back(tmp_path, pg_url):
    with mirror(tmp_path, pg_url, pipeline="items", items=40) as shop:
        assert (scan(shop).missing, gone(shop, "kuaimai_item")) == (0, set())
        there = set(shop.truth())
        shop.box.faults.vanished = 0.2
        vanished = there - set(shop.truth())
        summary = scan(shop)
        assert (summary.sealed, summary.missing) == (True, len(vanished))
        assert gone(shop, "kuaimai_item") == vanished
        assert set() < gone(shop, "kuaimai_sku") <= vanished
        assert shop.wrong() == []
        assert shop.rows("SELECT sum(missing) FROM kuaimai_window") == [(len(vanished),)]

        shop.box.faults.vanished = 0.0
        assert scan(shop).sealed
        assert gone(shop, "kuaimai_item") == set()
        assert shop.wrong() == []


@pytest.fixture(params=["sqlite", "mariadb", "duckdb"])
def other_database(request, tmp_path):
    """Databases beside PostgreSQL, each with statements of its own."""
    if request.param == "mariadb":
        return request.getfixturevalue("maria_url")
    if request.param == "duckdb":
        pytest.importorskip("duckdb_engine")
    return f"{request.param}:///{tmp_path}/other.db"


def test_every_database_marks_what_is_gone(tmp_path, other_database):
    with mirror(tmp_path, other_database, pipeline="items", items=40) as shop:
        scan(shop)
        there = set(shop.truth())
        shop.box.faults.vanished = 0.2
        shop.box.faults.bad_amount = 0.1  # these are set aside, and are there
        vanished = there - set(shop.truth())
        assert scan(shop).missing == len(vanished) > 0
        assert gone(shop, "kuaimai_item") == vanished
        assert set() < gone(shop, "kuaimai_sku") <= vanished
        shop.box.faults.reset()
        assert scan(shop).missing == 0
        assert gone(shop, "kuaimai_item") == gone(shop, "kuaimai_sku") == set()


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_files_tell_by_their_time_what_a_scan_did_not_see(tmp_path, form, caplog):
    """As docs/targets.md says."""
    with mirror(tmp_path, pipeline="items", items=40, items_per_day=0) as shop:
        book = open_target(f"sqlite:///{tmp_path}/state.db", now=shop.clock)
        shop.target.close()
        shop.target = FilesTarget("files", book, root=tmp_path / "files", form=form)
        scan(shop)
        there = set(shop.truth())
        shop.box.faults.vanished = 0.2
        assert scan(shop).sealed
        assert "what is gone is marked in databases only" in caplog.text
        items, _ = current(tmp_path / "files", Mapper("item").tables, form)
        with book.connected() as connection:
            [began] = connection.execute(
                sa.text("SELECT max(first_read_at) FROM kuaimai_window WHERE state = 'sealed'")
            ).one()
        seen = dict(zip(items["sys_item_id"].to_pylist(), items["_loaded_at"].to_pylist(), strict=True))
        assert {key for key, at in seen.items() if at < book.read_instant(began)} == there - set(shop.truth())
        assert there > set(shop.truth())


def test_target_that_keeps_nothing_misses_nothing_that_is_gone(tmp_path, caplog):
    with mirror(tmp_path, pipeline="items", items=40, items_per_day=0) as shop:
        shop.target.close()
        shop.target = NoopTarget("noop", open_target(f"sqlite:///{tmp_path}/state.db", now=shop.clock))
        assert scan(shop).sealed
        assert "what is gone" not in caplog.text


def test_items_that_end_by_themselves_are_marked_night_by_night(tmp_path, pg_url):
    with mirror(tmp_path, pg_url, pipeline="items", items=40, items_per_day=24) as shop:
        missing = 0
        for _ in range(4):
            shop.clock.advance(23 * 3600)
            summary = scan(shop)
            missing += summary.missing
            assert summary.sealed
            assert shop.wrong() == []
        assert missing > 0


def test_each_warehouse_is_read_and_marked_on_its_own(tmp_path, pg_url):
    with mirror(tmp_path, pg_url, pipeline="stock", items=30) as shop:
        scan(shop)
        shop.box.faults.vanished = 0.2
        shop.clock.advance(60)
        left = set(shop.truth())
        now = datetime.fromtimestamp(shop.clock(), CHINA)
        piece = shop.plan(
            now - HOUR,
            now,
            run="one",
            shops=[one for one in fetch_scopes(shop.pipeline, shop.client) if one.id == "80001"],
            dimension="scan",
        )
        assert sum(window.missing for window in shop.one(piece[0]).windows) > 0
        marked = dict(
            shop.rows("SELECT _key, ware_house_id FROM kuaimai_stock WHERE _deleted_at IS NOT NULL")
        )
        assert set(marked.values()) == {"80001"}
        scan(shop, live=False)
        assert set(shop.living(shop.pipeline.record)) == left


def test_list_that_is_suddenly_empty_or_much_shorter_marks_nothing(tmp_path):
    with mirror(tmp_path, pipeline="items", items=60, items_per_day=0) as shop:
        scan(shop)
        shop.box.faults.vanished = 0.9
        summary = scan(shop)
        assert (summary.sealed, summary.missing) == (False, 0)
        assert "too many to be believed" in summary.open_windows[0]
        assert gone(shop, "kuaimai_item") == set()
        shop.box.faults.vanished = 0.0
        assert scan(shop).sealed
        assert states(shop) == ["sealed", "superseded", "sealed"]


def test_shop_list_that_is_empty_marks_nothing(tmp_path):
    with mirror(tmp_path, pipeline="suppliers") as shop:
        shop.look_back("scan")
        shop.box.faults.vanished = 1.0
        summary = scan(shop)
        assert "8 of 8 rows were not seen" in summary.open_windows[0]


def test_what_a_person_asks_for_by_hand_is_believed(tmp_path):
    with mirror(tmp_path, pipeline="items", items=60, items_per_day=0) as shop:
        scan(shop)
        shop.box.faults.vanished = 0.9
        assert scan(shop, live=False).missing == 60 - len(shop.truth()) > 30
        assert shop.wrong() == []


def test_scans_that_never_seal_are_told(tmp_path):
    with mirror(tmp_path, pipeline="items", items=60, items_per_day=0) as shop:
        scan(shop)
        shop.box.faults.vanished = 0.9
        contested = [len(scan(shop).contested) for _ in range(MOST_TRIES)]
        assert contested == [0] * (MOST_TRIES - 1) + [1]
        shop.box.faults.vanished = 0.0
        scan(shop)
        assert shop.open_windows() == 0


def test_item_that_is_written_while_the_scan_reads_is_not_marked(tmp_path, pg_url):
    with mirror(tmp_path, pg_url, pipeline="items", items=40, items_per_day=48) as shop:
        scan(shop)
        now = datetime.fromtimestamp(shop.clock(), CHINA)
        (piece,) = shop.plan(now - HOUR, now, run="slow", live=True, dimension="scan")
        extracted = stages.extract(shop.pipeline, piece, shop.client, shop.staging, now=shop.clock)
        before = set(shop.truth())
        shop.clock.advance(2 * 3600)
        assert shop.run(now, now + 2 * HOUR, live=True).inserted > 0
        new = set(shop.truth()) - before
        transformed = stages.transform(shop.pipeline, extracted, shop.staging)
        (window,) = stages.load(shop.pipeline, transformed, shop.staging, shop.target).windows
        assert window.state == "sealed"
        assert new
        assert new & gone(shop, "kuaimai_item") == set()


def test_row_whose_record_came_and_cannot_be_stored_is_not_marked(tmp_path):
    with mirror(tmp_path, pipeline="items", items=40, items_per_day=0) as shop:
        scan(shop)
        shop.box.faults.bad_amount = 0.3
        summary = scan(shop)
        assert summary.quarantined > 0
        assert (summary.sealed, summary.missing) == (True, 0)


def test_record_without_its_key_hides_which_row_is_gone(tmp_path):
    with mirror(tmp_path, pipeline="items", items=40, items_per_day=0) as shop:
        scan(shop)
        shop.box.faults.no_sid = 0.1
        summary = scan(shop)
        assert summary.quarantined > 0
        assert (summary.sealed, summary.missing) == (True, 0)


def test_scan_over_several_pages_needs_two_readings_that_agree(tmp_path):
    with mirror(tmp_path, pipeline="items", items=450, items_per_day=0) as shop:
        first = scan(shop)
        assert (first.sealed, first.landed, first.requests) == (True, 450, 7)
        assert shop.rows("SELECT proof, total_before, total_after FROM kuaimai_window") == [
            ("counts", 450, 450)
        ]
        assert shop.wrong() == []


@pytest.mark.parametrize(
    "faults",
    [
        Faults(no_total=True),
        Faults(page_cap=50),
        Faults(total_as_string=True, total_first_page_only=False),
        Faults(duplicates=3),
        Faults(unstable_ties=True, shuffle_rows=True),
        Faults(drift=2, drift_times=2),
        Faults.parse(["429=0.2", "truncated=0.1", "502=0.1"]),
    ],
    ids=["no-total", "capped-pages", "text-total", "duplicates", "any-order", "moving", "failures"],
)
def test_scan_is_complete_whatever_the_gateway_does(tmp_path, faults):
    with mirror(tmp_path, pipeline="items", items=230, items_per_day=0, faults=faults) as shop:
        # A set that moves under every reading is for the next run.
        assert scan(shop).sealed or scan(shop).sealed
        assert shop.wrong() == []
        assert shop.open_windows() == 0


def test_scan_that_never_stands_still_stays_open_and_marks_nothing(tmp_path):
    with mirror(tmp_path, pipeline="items", items=230) as shop:
        scan(shop)
        shop.box.faults.drift, shop.box.faults.drift_touch = 1, 40
        summary = scan(shop)
        if not summary.sealed:
            assert summary.missing == 0
        shop.box.faults.reset()
        assert scan(shop).sealed
        assert shop.wrong() == []
        assert shop.open_windows() == 0


def test_pages_that_are_all_the_same_are_refused(tmp_path):
    with mirror(tmp_path, pipeline="items", items=230) as shop:
        call = shop.client.call
        shop.client.call = lambda method, params: call(method, {**params, "pageNo": "1"})
        with pytest.raises(DataError, match="the gateway ignores the page number"):
            scan(shop)


def test_list_without_pages_and_count_is_read_twice(tmp_path):
    with mirror(tmp_path, pipeline="warehouses") as shop:
        summary = scan(shop)
        assert (summary.sealed, summary.landed, summary.requests) == (True, 2, 2)
        assert shop.rows("SELECT proof FROM kuaimai_window") == [("readings",)]
        assert [json.loads(ids) for (ids,) in shop.rows("SELECT shops FROM kuaimai_window")] == [[""]]


def say(shop, folder, text: str) -> None:
    path = folder / "own.yaml"
    path.write_text(text, encoding="utf-8")
    shop.pipeline = load_pipeline(path)


def test_column_that_tells_whose_a_row_is_may_have_another_name(tmp_path):
    with mirror(tmp_path, pipeline="stock", items=30) as shop:
        say(
            shop,
            tmp_path,
            "name: own\nsource: {method: stock.api.status.query}\nfields: {wareHouseId: {to: wh}}\n",
        )
        scan(shop)
        shop.box.faults.vanished = 0.2
        left = set(shop.truth())
        assert scan(shop, live=False).missing > 0
        living = {key for (key,) in shop.rows("SELECT _key FROM kuaimai_stock WHERE _deleted_at IS NULL")}
        assert living == left


def test_scan_of_some_records_marks_none_of_the_others(tmp_path):
    """An item that is switched off leaves the selection, and is still there."""
    with mirror(tmp_path, pipeline="items", items=60) as shop:
        scan(shop)
        off = shop.rows("SELECT count(*) FROM kuaimai_item WHERE active_status = 0")
        assert off != [(0,)]
        say(
            shop,
            tmp_path,
            "name: own\nsource: {method: item.list.query, params: {activeStatus: '1'}}\n"
            "time: {dimension: modified, further: [{dimension: scan, schedule: '30 2 * * *'}]}\n",
        )
        assert (scan(shop).missing, gone(shop, "kuaimai_item")) == (0, set())


def test_scan_of_some_records_that_never_seals_is_told_as_well(tmp_path, monkeypatch):
    """Each scan has a window of its own: they are counted together, though none of them marks anything."""
    with mirror(tmp_path, pipeline="items", items=60) as shop:
        say(
            shop,
            tmp_path,
            "name: own\nsource: {method: item.list.query, params: {activeStatus: '1'}}\n"
            "time: {dimension: modified, further: [{dimension: scan, schedule: '30 2 * * *'}]}\n",
        )
        send = shop.client.wire.send

        def miscounts(method, params, *, session):
            answer = send(method, params, session=session)
            total = answer.body.get("total")
            return answer if total is None else replace(answer, body={**answer.body, "total": total + 1})

        monkeypatch.setattr(shop.client.wire, "send", miscounts)
        assert [len(scan(shop).contested) for _ in range(MOST_TRIES)] == [0] * (MOST_TRIES - 1) + [1]
