"""What a pipeline's file says about records holds from the gateway to the rows; every seal adds up."""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from decimal import Decimal

import pytest
from installation import START, mirror

from kuaimai.errors import ConfigError
from kuaimai.pipeline.scopes import fetch_scopes
from kuaimai.pipeline.spec import load_pipeline
from kuaimai.pipeline.summary import summarise
from kuaimai.sandbox import Faults

BASE = """\
name: trades
source: {method: erp.trade.outstock.simple.query, enrich: [erp.trade.list.query]}
time: {dimension: upd_time}
"""
DAY = timedelta(days=1)


@pytest.fixture
def shop(tmp_path):
    with mirror(tmp_path) as shop:
        yield shop


def say(shop, folder, text: str) -> None:
    """Let the pipeline's file say something more."""
    path = folder / "trades.yaml"
    path.write_text(BASE + text, encoding="utf-8")
    shop.pipeline = load_pipeline(path)


def columns(shop, table: str) -> set[str]:
    return {row[1] for row in shop.rows(f"PRAGMA table_info({table})")}


def test_fields_are_renamed_typed_defaulted_dropped_and_kept(shop, tmp_path):
    say(
        shop,
        tmp_path,
        """\
fields:
  payment: {to: amount_due}
  weight: {type: text}
  sellerMemo: drop
  destName: {to: partner}
  auditTime: {default: "2026-01-01 00:00:00"}
  buyerNick: {keep: hash}
  receiverMobile: {keep: mask}
  receiverState: {keep: plain}
  orders.title: {to: item_title}
  orders.giftNum: {type: number}
""",
    )
    assert shop.run(START - DAY, START).sealed
    assert {"amount_due", "weight", "buyer_nick", "receiver_mobile", "partner"} <= columns(
        shop, "kuaimai_trade"
    )
    assert not {"payment", "seller_memo", "receiver_name", "dest_name"} & columns(shop, "kuaimai_trade")
    truth = shop.box.truth()
    rows = shop.rows(
        "SELECT sid, amount_due, weight, buyer_nick, receiver_mobile, receiver_state, audit_time "
        "FROM kuaimai_trade"
    )
    assert len(rows) > 50
    for sid, due, weight, nick, mobile, state, audited in rows:
        record = truth[sid]
        assert due is None or Decimal(due) == Decimal(record["payment"])
        assert weight in (None, str(record["weight"]))
        sent = record.get("buyerNick")
        assert nick is None or nick == (hashlib.sha256(sent.encode()).hexdigest() if sent else sent)
        assert mobile in (None, "", f"{(record.get('receiverMobile') or '?')[0]}**")
        assert state in (None, record.get("receiverState"))
        assert record.get("auditTime") or audited == "2025-12-31 16:00:00.000Z"
    titles = {str(line["id"]): line["title"] for record in truth.values() for line in record["orders"]}
    for key, title in shop.rows("SELECT id, item_title FROM kuaimai_trade_line"):
        assert title == titles[key]


def test_skipped_records_are_counted_and_one_that_landed_before_stays(shop, tmp_path):
    say(shop, tmp_path, "")
    shop.run(START - DAY, START - DAY / 2)
    (before,) = shop.rows("SELECT count(*) FROM kuaimai_trade WHERE sys_status = 'FINISHED'")[0]
    assert before > 0
    say(
        shop,
        tmp_path,
        "filters:\n- {where: {sysStatus: [FINISHED, CLOSED]}, then: skip, reason: 已结束}\n"
        "- {where: {payment: {at_least: 300}, userId: {not: 900001}}, then: quarantine, reason: 大额}\n",
    )
    summary = shop.run(START - DAY, START)
    assert summary.sealed
    truth = list(shop.box.truth().values())
    within = [one for one in truth if one["updTime"] >= (START - DAY).timestamp() * 1000]
    skipped = [one for one in within if one["sysStatus"] in ("FINISHED", "CLOSED")]
    aside = [
        one
        for one in within
        if one not in skipped and Decimal(one.get("payment", 0)) >= 300 and one["userId"] != 900001
    ]
    assert skipped
    assert aside
    assert summary.filtered == len(skipped)
    assert summary.quarantined == len(aside)
    assert summary.read == summary.landed + summary.filtered + summary.quarantined
    assert shop.rows("SELECT count(*) FROM kuaimai_trade WHERE sys_status = 'FINISHED'") == [(before,)]
    assert {row[0] for row in shop.rows("SELECT DISTINCT reason FROM kuaimai_quarantine")} == {"大额"}
    # Whatever was read: what the gateway reported is landed, set aside or filtered.
    for total, *parts in shop.rows(
        "SELECT total_after, landed, quarantined, filtered FROM kuaimai_window WHERE state = 'sealed'"
    ):
        assert total == sum(part or 0 for part in parts)


def test_step_computes_exactly_and_what_it_leaves_out_is_filtered(shop, tmp_path):
    (tmp_path / "rules_of_a_test.py").write_text(
        """\
from decimal import Decimal

def margin(orders):
    assert str(orders["sid"].dtype) == "string[pyarrow]", orders["sid"].dtype
    orders["margin"] = orders["payment"] - orders["cost"]
    orders["platform"] = orders["source"].str.upper()
    return orders[orders["sys_status"] != "CLOSED"]

def lines(rows):
    return rows[rows["num"] > 0].iloc[::-1]
""",
        encoding="utf-8",
    )
    say(
        shop,
        tmp_path,
        """\
step:
  trade: {run: "rules_of_a_test:margin", columns: {margin: yuan, platform: text}}
  trade_line: rules_of_a_test:lines
""",
    )
    summary = shop.run(START - DAY, START)
    assert summary.sealed
    truth = shop.box.truth()
    closed = {
        sid
        for sid, one in truth.items()
        if one["sysStatus"] == "CLOSED" and one["updTime"] >= (START - DAY).timestamp() * 1000
    }
    assert summary.filtered == len(closed) > 0
    rows = shop.rows("SELECT sid, margin, platform FROM kuaimai_trade")
    for sid, margin, platform in rows:
        record = truth[sid]
        if margin is not None:
            assert Decimal(margin) == Decimal(record["payment"]) - Decimal(str(record["cost"]))
        assert platform == record["source"].upper()
    assert sum(row[1] is not None for row in rows) > 50
    assert not closed & {row[0] for row in rows}
    assert not closed & {row[0] for row in shop.rows("SELECT DISTINCT sid FROM kuaimai_trade_line")}
    again = shop.run(START - DAY, START)
    assert (again.inserted, again.updated, again.sealed) == (0, 0, True)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (
            "raise KeyError('payment of what')",
            "step bad_steps:go failed on kuaimai_trade: KeyError: 'payment of what'",
        ),
        ("return None", "returned a NoneType"),
        ("return rows['no_such_column']", "KeyError: 'no_such_column' (bad_steps.py, line 4)"),
        ("return rows.drop(columns='sid')", "lost the key 'sid'"),
        ("return rows.drop(columns='payment')", "lost the column 'payment'"),
        ("return pd.concat([rows, rows])", "returned a key of kuaimai_trade twice"),
        ("return rows.assign(sid='1' + rows['sid'])", "returned keys that kuaimai_trade did not have"),
        (
            "return rows.assign(margin=rows['payment'])",
            "declare it in the pipeline's file: columns: {margin: yuan}",
        ),
        ("return rows.assign(payment=1.5)", "floating-point numbers"),
        ("return rows.assign(created=pd.Timestamp('2026-01-01'))", "times without a zone"),
        ("return rows.assign(payment='much')", "'payment'"),
    ],
)
def test_step_that_fails_fails_the_task_with_its_own_message(shop, tmp_path, body, told):
    import sys

    sys.modules.pop("bad_steps", None)
    (tmp_path / "bad_steps.py").write_text(
        f"import pandas as pd\n\ndef go(rows):\n    {body}\n", encoding="utf-8"
    )
    say(shop, tmp_path, "step: bad_steps:go\n")
    with pytest.raises(ConfigError) as error:
        shop.run(START - timedelta(hours=4), START)
    assert told in str(error.value)
    assert re.match(r"pipeline .*\.yaml, line \d+: step bad_steps:go ", str(error.value))
    assert shop.rows("SELECT count(*) FROM kuaimai_quarantine") == [(0,)]


def test_module_that_cannot_be_imported_is_told(shop, tmp_path):
    say(shop, tmp_path, "step: no_such_rules_at_all:go\n")
    with pytest.raises(ConfigError, match=r"put no_such_rules_at_all.py beside the pipeline's file"):
        shop.run(START - timedelta(hours=4), START)


CHANGED = Faults(schema_change="all", schema_change_at=START.timestamp())


@pytest.mark.parametrize("policy", ["evolve", "freeze", "quarantine"])
def test_change_of_the_source_follows_the_policy_loses_nothing_and_is_told_once(tmp_path, policy):
    with mirror(tmp_path, orders_per_hour=1200, faults=CHANGED) as shop:
        say(shop, tmp_path, f"schema: {policy}\n")
        quiet = shop.run(START - DAY, START)
        assert (quiet.changes, quiet.quarantined) == ((), 0)
        told: list[str] = []
        for _ in range(4):
            summary = shop.tick()
            assert summary.sealed
            told += summary.changes
        assert len(told) == len(set(told))
        base = [one.partition(": ")[2] for one in told if one.startswith("erp.trade.outstock")]
        assert any("is new" in one for one in base)
        # Records that are set aside say nothing about fields that still come.
        assert any("comes no more" in one for one in base) == (policy != "quarantine")
        truth = {
            sid: one for sid, one in shop.box.truth().items() if one["updTime"] >= START.timestamp() * 1000
        }
        landed = {row[0] for row in shop.rows("SELECT sid FROM kuaimai_trade")}
        aside = {row[0] for row in shop.rows("SELECT record_key FROM kuaimai_quarantine")}
        changed = set(truth) & (landed | aside)
        assert len(changed) > 50
        assert bool(aside) == (policy == "quarantine")
        if policy == "evolve":
            stored = dict(shop.rows("SELECT sid, platform_extra FROM kuaimai_trade"))
            assert {stored[sid] for sid in truth if sid in stored} == {"新字段"}
        else:
            assert "platform_extra" not in columns(shop, "kuaimai_trade")


def test_shops_that_the_method_does_not_serve_are_left_out_and_told(shop, tmp_path, caplog):
    path = tmp_path / "orders.yaml"
    path.write_text("name: orders\nsource: {method: erp.trade.list.query}\n", encoding="utf-8")
    shop.pipeline = load_pipeline(path)
    shops = fetch_scopes(shop.pipeline, shop.client)
    assert not {one.source for one in shops} & {"tb", "pdd"}
    assert "does not serve pdd, tb" in caplog.text
    pieces = shop.plan(START - DAY, START, run="by-hand", shops=shops)
    loaded = [shop.one(piece) for piece in pieces]
    summary = summarise(shop.pipeline, loaded)
    assert summary.sealed
    assert summary.landed > 0
