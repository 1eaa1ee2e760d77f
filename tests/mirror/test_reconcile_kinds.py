"""The night compares records other than orders too, each kind as far as its method allows."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa
from installation import CHINA, START, mirror

from kuaimai.errors import ConfigError
from kuaimai.gateway import catalog
from kuaimai.load.noop import NoopTarget
from kuaimai.pipeline import reconcile as reconciling
from kuaimai.pipeline.comparison import comparison
from kuaimai.pipeline.scopes import fetch_scopes
from kuaimai.pipeline.spec import load_pipeline

DAYS = 3
MIDNIGHT = START.replace(hour=0)
PAST = START - timedelta(days=9)
WORLD = {"archive_orders": 0, "archive_documents": 0}
KINDS = ["aftersales", "purchases", "receipts", "purchase_returns"]
WITH_IDS = ["aftersales", "purchases"]


@pytest.fixture(params=KINDS)
def shop(request, tmp_path, pg_url):
    """A mirror of the last days, complete."""
    with mirror(tmp_path, pg_url, pipeline=request.param, purchases_per_day=40, **WORLD) as made:
        assert made.run(PAST, START).sealed
        assert len(born(made)) > 5
        yield made


def reconcile(shop, *, days=DAYS):
    shop.runs += 1
    night = reconciling.Night(
        pipeline=shop.pipeline,
        run=f"reconcile-{shop.runs}",
        until=datetime.fromtimestamp(shop.clock(), CHINA),
        shops=fetch_scopes(shop.pipeline, shop.client),
        client=shop.client,
        staging=shop.staging,
        days=days,
        now=shop.clock,
    )
    return reconciling.reconcile(night, shop.target)


def born(shop) -> list[str]:
    """The keys of the records that were made in the days that are compared."""
    field = comparison(shop.pipeline).field
    first, last = (MIDNIGHT - timedelta(days=DAYS)).timestamp() * 1000, MIDNIGHT.timestamp() * 1000
    return sorted(key for key, one in shop.truth().items() if first <= int(one[field]) < last)


def asked(shop, since: int) -> int:
    """Count the requests since a moment, those for shops left out."""
    return sum("shop" not in one.method for one in list(shop.box.requests)[since:])


def forget(shop, keys) -> None:
    """Take records out of the target, with their lines, as if they had never come."""
    parent, *children = shop.pipeline.records
    named = sa.bindparam("keys", expanding=True)
    with shop.target.engine.begin() as connection:
        for kind in (*children, parent):
            column = kind.fields[kind.parent_key or kind.key].column
            statement = sa.text(f"DELETE FROM kuaimai_{kind.name} WHERE {column} IN :keys")
            connection.execute(statement.bindparams(named), {"keys": list(keys)})


def gone(shop) -> set[str]:
    table = f"kuaimai_{shop.pipeline.record.name}"
    return {key for (key,) in shop.rows(f"SELECT id FROM {table} WHERE _deleted_at IS NOT NULL")}


def test_quiet_night_costs_a_request_for_each_day_and_few_by_change(shop):
    since = len(shop.box.requests)
    outcome = reconcile(shop)
    assert outcome.problems == []
    assert [outcome.total(name) for name in ("missing", "changed", "tombstoned")] == [0, 0, 0]
    assert outcome.total("gateway") == len(born(shop))
    assert asked(shop, since) <= 2 * DAYS + 2


def test_missing_records_come_back_with_their_lines(shop):
    lost = born(shop)[::4]
    forget(shop, lost)
    outcome = reconcile(shop)
    assert (outcome.total("missing"), outcome.total("repaired")) == (len(lost), len(lost))
    assert outcome.problems == []
    assert shop.wrong() == []
    assert reconcile(shop).total("missing") == 0


def test_change_that_no_window_has_shown_is_brought(shop):
    """Those that were not seen to change are here with an old version; the gateway lists the new one."""
    kind = shop.pipeline.record
    changed = kind.fields[kind.version[0]].column
    old = born(shop)[::5]
    statement = f"UPDATE kuaimai_{kind.name} SET {changed} = {changed} - interval '1 hour', "
    with shop.target.engine.begin() as connection:
        connection.execute(
            sa.text(f"{statement} _version = _version - 3600000 WHERE id IN :keys").bindparams(
                sa.bindparam("keys", expanding=True)
            ),
            {"keys": old},
        )
    assert shop.wrong()
    outcome = reconcile(shop)
    assert outcome.problems == []
    assert outcome.total("changed") >= len(old)
    assert shop.wrong() == []


def test_record_that_the_gateway_has_no_longer_is_marked_with_its_lines(shop):
    before = set(born(shop))
    shop.box.faults.vanished = 0.15
    lost = before - set(shop.truth())
    assert lost
    outcome = reconcile(shop)
    assert outcome.problems == []
    assert outcome.total("tombstoned") == len(lost)
    assert gone(shop) == lost
    assert not any(shop.living(child).keys() & lost for child in shop.pipeline.records[1:])
    shop.box.faults.vanished = 0.0
    assert reconcile(shop).total("repaired") == len(lost)
    assert gone(shop) == set()
    assert shop.wrong() == []


@pytest.mark.parametrize("name", ["receipts", "purchase_returns"])
def test_what_nobody_can_ask_for_is_not_believed_to_be_gone_all_at_once(tmp_path, name):
    """A lost right looks just the same."""
    with mirror(tmp_path, pipeline=name, purchases_per_day=40, **WORLD) as shop:
        shop.run(PAST, START)
        shop.box.faults.vanished = 1.0
        outcome = reconcile(shop)
        assert any("too many to be believed" in problem for problem in outcome.problems)
        assert gone(shop) == set()


@pytest.mark.parametrize("name", ["purchases", "receipts"])
def test_list_that_is_never_counted_is_compared_by_its_keys(tmp_path, name):
    with mirror(tmp_path, pipeline=name, purchases_per_day=40, **WORLD) as shop:
        shop.box.faults.no_total = True
        assert shop.run(PAST, START).sealed
        lost = born(shop)[::6]
        forget(shop, lost)
        outcome = reconcile(shop)
        assert (outcome.total("repaired"), outcome.problems) == (len(lost), [])
        assert shop.wrong() == []


def test_what_is_read_as_a_whole_is_left_to_its_scans(tmp_path):
    with (
        mirror(tmp_path, pipeline="items") as shop,
        pytest.raises(ConfigError, match="by the creation of its records"),
    ):
        reconcile(shop)


@pytest.mark.parametrize("name", ["items", "stock", "trades"])
def test_contested_windows_are_read_again_also_where_nothing_can_be_compared(tmp_path, name):
    """Of what scans compare, and in targets that are no databases."""
    with mirror(tmp_path, pipeline=name, **WORLD) as shop:
        book = shop.target
        target = NoopTarget("noop", book) if name == "trades" else book
        shop.plan(MIDNIGHT - timedelta(hours=2), MIDNIGHT, run="dead", target=target)
        assert shop.open_windows() > 0
        with book.engine.begin() as connection:
            connection.execute(sa.text("UPDATE kuaimai_window SET state = 'contested'"))
        night = reconciling.Night(
            pipeline=shop.pipeline,
            run="night",
            until=datetime.fromtimestamp(shop.clock(), CHINA),
            shops=fetch_scopes(shop.pipeline, shop.client),
            client=shop.client,
            staging=shop.staging,
            now=shop.clock,
        )
        outcome = reconciling.mend(night, target)
        assert (outcome.days, outcome.problems) == ((), [])
        assert outcome.retried > 0
        assert shop.open_windows() == 0


def test_column_that_is_compared_by_may_have_another_name_but_must_be_there(tmp_path):
    path = tmp_path / "own.yaml"
    text = "name: own\nsource: {method: warehouse.entry.list.query}\nfields:\n"
    path.write_text(f"{text}  created: {{to: made_at}}\n", "utf-8")
    assert comparison(load_pipeline(path)) is not None
    text = "name: own\nsource: {method: erp.aftersale.list.query}\nfields:\n"
    path.write_text(f"{text}  applyDate: drop\n", "utf-8")
    assert comparison(load_pipeline(path)) is None


def test_night_that_is_tried_again_believes_no_page_of_its_first_try(shop):
    first = reconcile(shop)
    shop.runs -= 1  # the same run, cleared
    before = set(born(shop))
    shop.box.faults.vanished = 0.15
    lost = before - set(shop.truth())
    assert lost
    assert first.problems == reconcile(shop).problems == []
    shop.runs -= 1
    shop.box.faults.vanished = 0.0
    assert reconcile(shop).total("repaired") == len(lost)
    assert gone(shop) == set()


def test_history_holds_nothing_of_the_days_that_are_compared(tmp_path):
    path = tmp_path / "old.yaml"
    path.write_text("name: old\nsource: {method: purchase.order.history.query}\n", "utf-8")
    assert comparison(load_pipeline(path)) is None


@pytest.mark.parametrize("name", WITH_IDS)
def test_one_that_is_missing_is_asked_for_alone(tmp_path, name):
    with mirror(tmp_path, pipeline=name, purchases_per_day=40, **WORLD) as shop:
        shop.run(PAST, START)
        forget(shop, born(shop)[:1])
        since = len(shop.box.requests)
        assert reconcile(shop).total("repaired") == 1
        named = [one for one in list(shop.box.requests)[since:] if one.params.get("id") in born(shop)]
        detail = catalog.method(shop.pipeline.source.method).detail
        assert len(named) == (2 if detail else 1)
