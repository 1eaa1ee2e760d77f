"""What was set aside lands once the mapping fits it, and the proof of its window still adds up."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest
import requests
import sqlalchemy as sa
from installation import START, mirror
from write_api import TOKEN, write_api

from kuaimai.load.api import RowAnswers, WriteApi
from kuaimai.load.noop import NoopTarget
from kuaimai.load.parts import LeftOut
from kuaimai.load.posting import HttpTarget
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


BOTH = BASE.replace("query}", "query, enrich: [erp.trade.list.query]}")


def say(shop, folder, text: str, base: str = BASE) -> None:
    path = folder / "trades.yaml"
    path.write_text(base + text, encoding="utf-8")
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
    # A mapping that goes wrong in another way: the reason is the one of now.
    say(shop, tmp_path, "fields: {payment: {type: text}, source: {type: integer}}\n")
    replay(shop.pipeline, shop.target)
    reasons = {
        row[0] for row in shop.rows("SELECT reason FROM kuaimai_quarantine WHERE record_key NOT LIKE '#%'")
    }
    assert reasons
    assert all("source: not a" in one for one in reasons), reasons

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


KEEP = """\
fields:
  payment: {{type: text, to: payment_as_sent}}
  buyerNick: {{keep: {nick}}}
  receiverMobile: {{keep: mask}}
  tradeInvoice: {{keep: hash}}
"""


def kept_of(shop) -> dict[str, tuple[str, ...]]:
    names = "sid, buyer_nick, receiver_mobile, trade_invoice, _content_hash"
    return {sid: tuple(more) for sid, *more in shop.rows(f"SELECT {names} FROM kuaimai_trade")}


def test_hashed_and_masked_fields_land_as_if_nothing_had_been_wrong(shop, tmp_path):
    unfit = KEEP.format(nick="hash").replace("  payment: {type: text, to: payment_as_sent}\n", "")
    say(shop, tmp_path, unfit, BOTH)
    shop.run(START - DAY, START)
    told = [record for (record,) in shop.rows("SELECT record FROM kuaimai_quarantine")]
    truth = shop.box.truth("erp.trade.list.query")
    nicks = {one["buyerNick"] for one in truth.values() if one.get("buyerNick")}
    assert nicks
    assert not [nick for nick in nicks for record in told if nick in record]
    say(shop, tmp_path, KEEP.format(nick="hash"), BOTH)
    replay(shop.pipeline, shop.target)
    held = {key for (key,) in shop.rows("SELECT record_key FROM kuaimai_quarantine")}
    replayed = {key: kept for key, kept in kept_of(shop).items() if key in held}
    with shop.target.connected() as connection:
        for table in ("kuaimai_trade", "kuaimai_trade_line", "kuaimai_window"):
            connection.execute(sa.text(f"DELETE FROM {table}"))
    shop.run(START - DAY, START)
    landed = kept_of(shop)
    assert replayed == {key: landed[key] for key in replayed}
    assert any(all(kept) for kept in replayed.values())


def test_field_that_is_to_be_kept_in_another_form_by_now_comes_out_empty(shop, tmp_path):
    unfit = KEEP.format(nick="hash").replace("  payment: {type: text, to: payment_as_sent}\n", "")
    say(shop, tmp_path, unfit, BOTH)
    shop.run(START - DAY, START)
    keys = {key for (key,) in shop.rows("SELECT record_key FROM kuaimai_quarantine")}
    say(shop, tmp_path, KEEP.format(nick="plain"), BOTH)
    assert replay(shop.pipeline, shop.target).landed > 0
    found = {key: kept for key, kept in kept_of(shop).items() if key in keys}
    assert {kept[0] for kept in found.values()} == {None}
    assert any(kept[1] for kept in found.values())


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


@pytest.fixture
def shop_of_api(tmp_path):
    """A mirror of both forms of an order into a write API, and the API."""
    with mirror(tmp_path) as shop, write_api() as api:
        shop.target.close()
        shop.target = HttpTarget(
            "my_api",
            open_target(f"sqlite:///{tmp_path}/book.db", now=shop.clock),
            api=WriteApi(
                api.url, TOKEN, rows=50, rows_key="array", answers=RowAnswers("data.result"), tries=1
            ),
            transport=requests.Session(),
            requests_per_second=1e6,
        )
        say(shop, tmp_path, "", BOTH)
        yield shop, api


def booked(shop, statement: str) -> list[tuple]:
    with shop.target.book.connected() as connection:
        return [tuple(row) for row in connection.execute(sa.text(statement))]


def read_by(shop) -> list[str]:
    """The orders of the day before the clock's start, as the gateway has them now."""
    since, until = (moment.timestamp() * 1000 for moment in (START - DAY, START))
    return sorted(sid for sid, one in shop.box.truth().items() if since <= one["updTime"] <= until)


def sent_since(api, posts: int) -> list[dict]:
    return [row for _, rows in api.posts[posts:] for row in rows]


def test_what_an_api_refused_is_sent_again_as_it_is_mapped_now_and_nothing_else(shop_of_api, tmp_path):
    shop, api = shop_of_api
    keys = read_by(shop)[:5]
    api.refused = dict.fromkeys(keys, 1)
    before = shop.run(START - DAY, START)
    assert (before.sealed, before.quarantined) == (True, 5)
    forms = Counter(one.record_key for one in shop.target.held("trades"))
    assert set(forms.values()) == {1, 2}

    posts = len(api.posts)
    api.refused, api.said = {keys[0]: 1}, "没有权限"
    say(shop, tmp_path, "fields: {payment: {to: amount_due}}\n", BOTH)
    shop.clock.advance(60)
    done = replay(shop.pipeline, shop.target)
    sent = sent_since(api, posts)
    assert sorted(row["sid"] for row in sent) == keys[1:]
    assert all(row["amount_due"] is not None and "payment" not in row for row in sent)
    assert (done.landed, done.still) == (
        forms.total() - forms[keys[0]],
        {f"{keys[0]} 没有权限": forms[keys[0]]},
    )
    # What is told of a record that still waits is what the API says now.
    assert {one.reason for one in shop.target.held("trades")} == {f"{keys[0]} 没有权限"}
    ranks = dict(booked(shop, "SELECT record_key, rank FROM kuaimai_delivery"))
    assert {key: ranks[key] for key in keys} == {key: forms[key] - 1 for key in keys}

    assert replay(shop.pipeline, shop.target).landed == forms[keys[0]]
    assert shop.target.held("trades") == []
    counts = booked(shop, "SELECT total_after, landed, quarantined, filtered FROM kuaimai_window")
    assert all(total == landed + aside + left_out for total, landed, aside, left_out in counts)
    assert sum(aside for _, _, aside, _ in counts) == 0
    assert set(api.records) == set(read_by(shop))


def test_record_in_doubt_is_not_sent_by_a_replay_until_somebody_has_looked(shop_of_api):
    shop, api = shop_of_api
    api.faults = ["lost"]
    shop.run(START - DAY, START)
    held = len(shop.target.held("trades"))
    posts = len(api.posts)
    assert held > 0
    done = replay(shop.pipeline, shop.target)
    assert (done.landed, sum(done.still.values()), len(api.posts)) == (0, held, posts)
    with shop.target.book.connected() as connection:
        connection.execute(sa.text("UPDATE kuaimai_delivery SET state = 'refused' WHERE state = 'held'"))
    assert replay(shop.pipeline, shop.target).landed == held
    assert len({row["sid"] for row in sent_since(api, posts)}) == len(sent_since(api, posts)) > 0


def test_record_that_is_not_for_the_api_by_now_is_not_sent_and_counts_as_filtered(shop_of_api):
    shop, api = shop_of_api
    api.refused = {read_by(shop)[0]: 1}
    before = shop.run(START - DAY, START)
    posts = len(api.posts)

    def nothing(_tables, _record):
        raise LeftOut("it is cancelled")

    shop.target.document = nothing
    done = replay(shop.pipeline, shop.target)
    assert (done.landed, done.still, len(api.posts)) == (0, {}, posts)
    assert done.filtered == done.waiting > 0
    assert shop.target.held("trades") == []
    counts = booked(shop, "SELECT total_after, landed, quarantined, filtered FROM kuaimai_window")
    assert all(total == landed + aside + left_out for total, landed, aside, left_out in counts)
    assert before.quarantined == 1


def test_record_that_was_kept_as_it_was_sent_is_not_mapped(shop_of_api):
    shop, api = shop_of_api
    api.refused = {read_by(shop)[0]: 1}
    shop.run(START - DAY, START)
    with shop.target.book.connected() as connection:
        connection.execute(sa.text('UPDATE kuaimai_quarantine SET request = \'{"url":"http://x"}\''))
    posts = len(api.posts)
    assert "goes out again when its window is read again" in pretty(replay(shop.pipeline, shop.target))
    assert len(api.posts) == posts
