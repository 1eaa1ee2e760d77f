"""What was set aside lands once the mapping fits it, and the proof of its window still adds up."""

from __future__ import annotations

from datetime import timedelta

import pytest
import sqlalchemy as sa
from installation import START, mirror

from kuaimai.load.noop import NoopTarget
from kuaimai.load.targets import open_target
from kuaimai.pipeline.replay import pretty, replay
from kuaimai.pipeline.spec import load_pipeline
from kuaimai.sandbox import Faults

BASE = """\
name: trades
source: {method: erp.trade.outstock.simple.query}
time: {dimension: upd_time}
"""
DAY = timedelta(days=1)


def say(shop, folder, text: str) -> None:
    path = folder / "trades.yaml"
    path.write_text(BASE + text, encoding="utf-8")
    shop.pipeline = load_pipeline(path)


@pytest.fixture(params=["sqlite", "postgres"])
def shop(tmp_path, request):
    url = request.getfixturevalue("pg_url") if request.param == "postgres" else None
    with mirror(tmp_path, url, faults=Faults(bad_amount=0.1, no_sid=0.02)) as shop:
        say(shop, tmp_path, "")
        yield shop


def adds_up(shop) -> bool:
    rows = shop.rows("SELECT total_after, landed, quarantined, filtered FROM kuaimai_window")
    return all(total == sum(part or 0 for part in parts) for total, *parts in rows)


def unresolved(shop) -> int:
    return shop.rows("SELECT count(*) FROM kuaimai_quarantine WHERE resolved_at IS NULL")[0][0]


def test_mapping_that_fits_lets_them_land_and_the_seal_adds_up(shop, tmp_path):
    before = shop.run(START - DAY, START)
    held = unresolved(shop)
    assert before.quarantined == held > 5
    unfit = replay(shop.pipeline, shop.target)
    assert (unfit.waiting, unfit.landed) == (held, 0)
    assert "payment: not a number" in pretty(unfit)

    say(shop, tmp_path, "fields: {payment: {type: text, to: payment_as_sent}}\n")
    done = replay(shop.pipeline, shop.target)
    nameless = shop.rows("SELECT count(*) FROM kuaimai_quarantine WHERE record_key LIKE '#%'")[0][0]
    assert done.landed == held - nameless > 0
    assert unresolved(shop) == nameless == sum(done.still.values())
    assert adds_up(shop)
    landed = {row[0] for row in shop.rows("SELECT sid FROM kuaimai_trade")}
    once = [row[0] for row in shop.rows("SELECT record_key FROM kuaimai_quarantine") if row[0][0] != "#"]
    assert set(once) <= landed
    states = dict(shop.rows("SELECT state, count(*) FROM kuaimai_window GROUP BY state"))
    assert set(states) == {"sealed"}
    assert replay(shop.pipeline, shop.target).waiting == nameless
    again = shop.run(START - DAY, START)
    assert (again.sealed, again.quarantined) == (True, nameless)


def test_record_that_a_filter_leaves_out_by_now_counts_as_filtered(shop, tmp_path):
    shop.run(START - DAY, START)
    held = unresolved(shop)
    say(shop, tmp_path, "filters: [{where: {sid: {empty: false}}, then: skip}]\n")
    done = replay(shop.pipeline, shop.target)
    assert done.filtered == held - sum(done.still.values()) > 0
    assert done.landed == 0
    assert adds_up(shop)
    assert unresolved(shop) == sum(done.still.values())


def test_replay_never_moves_a_newer_row_back(shop, tmp_path):
    shop.run(START - DAY, START)
    say(shop, tmp_path, "fields: {payment: {type: text, to: payment_as_sent}}\n")
    # The order came well a moment later, in a newer version, by another run.
    ((key,), *_) = shop.rows("SELECT record_key FROM kuaimai_quarantine WHERE record_key NOT LIKE '#%'")
    done = replay(shop.pipeline, shop.target)
    version = shop.rows(f"SELECT _version FROM kuaimai_trade WHERE sid = '{key}'")
    with shop.target.connected() as connection:
        from sqlalchemy import text

        connection.execute(text(f"UPDATE kuaimai_trade SET _version = _version + 5 WHERE sid = '{key}'"))
        connection.execute(
            text(f"UPDATE kuaimai_quarantine SET resolved_at = NULL WHERE record_key = '{key}'")
        )
    again = replay(shop.pipeline, shop.target)
    assert (done.landed > 0, again.landed) == (True, 1)
    assert shop.rows(f"SELECT _version FROM kuaimai_trade WHERE sid = '{key}'") == [(version[0][0] + 5,)]


def test_replay_of_an_older_version_leaves_a_row_that_is_gone_as_it_is(shop, tmp_path):
    shop.run(START - DAY, START)
    say(shop, tmp_path, "fields: {payment: {type: text, to: payment_as_sent}}\n")
    ((key,), *_) = shop.rows("SELECT record_key FROM kuaimai_quarantine WHERE record_key NOT LIKE '#%'")
    replay(shop.pipeline, shop.target)
    # A newer version landed by another run, and is gone by now; the quarantine still has the older one.
    with shop.target.connected() as connection:
        for statement in (
            "UPDATE kuaimai_trade SET _version = _version + 5, _deleted_at = _loaded_at WHERE sid = :key",
            "UPDATE kuaimai_trade_line SET _deleted_at = _loaded_at WHERE sid = :key",
            "UPDATE kuaimai_quarantine SET resolved_at = NULL WHERE record_key = :key",
        ):
            connection.execute(sa.text(statement), {"key": key})
    ours = f"SELECT _version, _deleted_at FROM kuaimai_trade WHERE sid = '{key}'"
    lines = f"SELECT count(*) FROM kuaimai_trade_line WHERE sid = '{key}' AND _deleted_at IS NULL"
    before = shop.rows(ours)
    assert replay(shop.pipeline, shop.target).landed == 1
    assert shop.rows(ours) == before
    assert shop.rows(lines) == [(0,)]


def test_target_without_tables_is_replayed_by_its_book(tmp_path):
    with mirror(tmp_path, faults=Faults(bad_amount=0.1)) as shop:
        say(shop, tmp_path, "targets: [{kind: noop}]\n")
        shop.target.close()
        book = open_target(f"sqlite:///{tmp_path}/book.db", now=shop.clock)
        shop.target = NoopTarget("noop", book)
        before = shop.run(START - DAY, START)
        assert before.sealed
        assert before.quarantined > 0
        say(shop, tmp_path, "targets: [{kind: noop}]\nfields: {payment: {type: text}}\n")
        done = replay(shop.pipeline, shop.target)
        assert done.landed == before.quarantined
        assert shop.target.held("trades") == []
        assert shop.target.oldest_held("trades") == (0, None)
