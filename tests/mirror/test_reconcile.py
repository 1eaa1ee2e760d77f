"""The nightly reconcile finds what counts betray, mends it by id, marks what is gone, says what it did."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
import sqlalchemy as sa
from installation import CHINA, START, TRADES, mirror
from msgspec.structs import replace

from kuaimai.errors import ConfigError, DataError, Rejected, TooLarge, Transient
from kuaimai.extract.reads import UNPROVEN
from kuaimai.gateway.answers import Answer, encode_json
from kuaimai.pipeline import planner
from kuaimai.pipeline import reconcile as reconciling
from kuaimai.pipeline.scopes import fetch_shops
from kuaimai.pipeline.spec import load_pipeline
from kuaimai.sandbox import Faults

BASE = "erp.trade.outstock.simple.query"
FULLER = "erp.trade.list.query"
DAYS = 2
# One request of either time for as many slots as a page holds together, here a day.
QUIET = {(BASE, "created"): DAYS, (BASE, "upd_time"): DAYS}
MIDNIGHT = START.replace(hour=0)
SINCE = MIDNIGHT - timedelta(days=DAYS)
SLOTS = DAYS * 12
WINDOW = ("startTime", "endTime")


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def shop(request, tmp_path):
    """A mirror of the last days, complete."""
    servers = {"postgres": "pg_url", "mariadb": "maria_url"}
    url = request.getfixturevalue(servers[request.param]) if request.param in servers else None
    with mirror(tmp_path, url, history_orders=300) as made:
        made.run(SINCE, START)
        yield made


def reconcile(shop, *, days=DAYS, shops=None):
    shop.runs += 1
    night = reconciling.Night(
        pipeline=shop.pipeline,
        run=f"reconcile-{shop.runs}",
        until=datetime.fromtimestamp(shop.clock(), CHINA),
        shops=shops or fetch_shops(shop.client),
        client=shop.client,
        staging=shop.staging,
        days=days,
        now=shop.clock,
    )
    return reconciling.reconcile(night, shop.target)


def asked(shop, since):
    """Count the requests since a moment: of windows, by their time, and of ids."""
    kinds = Counter()
    for one in list(shop.box.requests)[since:]:
        if "trade" in one.method:
            kinds[one.method, "ids" if "sid" in one.params else one.params["timeType"]] += 1
    return kinds


def truth(shop, since=MIDNIGHT - timedelta(days=DAYS), until=MIDNIGHT):
    first, last = since.timestamp() * 1000, until.timestamp() * 1000
    return {sid: one for sid, one in shop.box.truth().items() if first <= one["created"] < last}


def forget(shop, sids):
    """Take orders out of the target, as if they had never come."""
    with shop.target.engine.begin() as connection:
        for table in ("kuaimai_trade", "kuaimai_trade_line"):
            connection.execute(
                sa.text(f"DELETE FROM {table} WHERE sid IN :sids").bindparams(
                    sa.bindparam("sids", expanding=True)
                ),
                {"sids": list(sids)},
            )


def living(shop):
    return {sid for (sid,) in shop.rows("SELECT sid FROM kuaimai_trade WHERE _deleted_at IS NULL")}


def some(shop, count=3):
    """A few orders of one slot, and of one more."""
    return sorted(truth(shop))[:count]


def test_quiet_night_costs_one_request_for_neighbouring_slots_that_a_page_holds(shop):
    since = len(shop.box.requests)
    outcome = reconcile(shop)
    assert asked(shop, since) == QUIET
    assert outcome.problems == []
    assert (outcome.total("missing"), outcome.total("tombstoned")) == (0, 0)
    assert outcome.total("gateway") == len(truth(shop)) > 80


# A slot (two hours) has 8, 85, 120 and 250 orders: with all, one, none and none of its neighbours on a page.
@pytest.mark.parametrize(("per_day", "requests"), [(96, 1), (1020, 6), (1440, 12), (3000, 12)])
def test_quiet_day_costs_at_most_one_request_for_each_slot(tmp_path, per_day, requests):
    with mirror(tmp_path, orders_per_hour=0, bulk=per_day * 2, bulk_days=2) as shop:
        day = MIDNIGHT - timedelta(days=1)
        shop.run(day, START)
        since = len(shop.box.requests)
        outcome = reconcile(shop, days=1)
        assert (outcome.problems, outcome.total("missing")) == ([], 0)
        assert outcome.total("gateway") == len(truth(shop, since=day)) > 0.9 * per_day
        assert asked(shop, since)[BASE, "created"] == requests


def test_difference_in_one_of_several_slots_on_a_page_costs_that_slot_alone(shop):
    """The page shows every record's slot by its own time: the others of the page are not read again."""
    lost = some(shop, 1)
    forget(shop, lost)
    since = len(shop.box.requests)
    outcome = reconcile(shop)
    assert (outcome.total("missing"), outcome.total("repaired"), outcome.problems) == (1, 1, [])
    assert outcome.total("gateway") == len(truth(shop))
    windows = [
        tuple(datetime.fromisoformat(one.params[at]) for at in WINDOW)
        for one in list(shop.box.requests)[since:]
        if one.params.get("timeType") == "created"
    ]
    slot = timedelta(hours=2)
    lengths = Counter(end - start for start, end in windows)
    second = timedelta(seconds=1)
    assert lengths.pop(12 * slot - second) == DAYS
    assert lengths.keys() == {slot - second}


def test_order_of_a_slots_last_second_belongs_to_that_slot_also_on_a_page_of_several(tmp_path):
    with mirror(tmp_path, orders_per_hour=0, bulk=86_400 // 240, bulk_days=1) as shop:
        day = MIDNIGHT - timedelta(days=1)
        shop.run(day, START)
        edges = {sid: one["created"] // 1000 for sid, one in truth(shop, since=day).items()}
        verdicts = reconcile(shop, days=1).days[0].verdicts
        assert len(verdicts) == 12
        for one in verdicts:
            first, last = one.window.start.timestamp(), one.window.end.timestamp()
            assert one.gateway == sum(first <= created <= last for created in edges.values())
        assert sum(one.gateway for one in verdicts) == len(edges)


def test_page_of_several_slots_that_overflows_is_no_word_on_any_of_them(tmp_path):
    """The target lacks a third of what would be one page: what it holds is no measure of what is there."""
    with mirror(tmp_path, orders_per_hour=0, bulk=1400, bulk_days=2) as shop:
        shop.run(SINCE, START)
        lost = sorted(truth(shop))[::3]
        forget(shop, lost)
        outcome = reconcile(shop)
        assert (outcome.total("missing"), outcome.total("repaired")) == (len(lost), len(lost))
        assert (outcome.problems, outcome.total("gateway")) == ([], len(truth(shop)))
        assert shop.differences(SINCE) == {}
        since = len(shop.box.requests)
        assert reconcile(shop).problems == []
        assert asked(shop, since)[BASE, "created"] <= DAYS * 6 + 1


def test_slots_whose_orders_are_too_large_an_answer_are_counted_all_the_same(tmp_path):
    with mirror(tmp_path, orders_per_hour=0, bulk=1400, bulk_days=2) as shop:
        shop.run(SINCE, START)
        lost = some(shop)
        forget(shop, lost)
        shop.box.faults.max_bytes = 120_000  # about thirty orders
        outcome = reconcile(shop)
        assert (outcome.total("missing"), outcome.total("repaired"), outcome.problems) == (
            len(lost),
            len(lost),
            [],
        )
        assert outcome.total("gateway") == len(truth(shop))


@pytest.mark.parametrize("answer", ["too large", "not counted"])
def test_several_slots_that_do_not_fit_an_answer_are_asked_for_one_by_one_from_then_on(
    tmp_path, monkeypatch, answer
):
    with mirror(tmp_path, history_orders=300) as shop:
        shop.run(SINCE, START)
        lost = some(shop)
        forget(shop, lost)
        send, joined = shop.client.wire.send, []

        def sending(method, params, *, session):
            given = send(method, params, session=session)
            start, end = (datetime.fromisoformat(params.get(at, "2026-01-01")) for at in WINDOW)
            if params.get("timeType") != "created" or end - start < timedelta(hours=2):
                return given
            joined.append(start)
            if answer == "too large":
                raise TooLarge("data length too large")
            body = {name: value for name, value in given.body.items() if name != "total"}
            return Answer(method, body, encode_json(body))

        monkeypatch.setattr(shop.client.wire, "send", sending)
        since = len(shop.box.requests)
        outcome = reconcile(shop)
        assert (outcome.total("repaired"), outcome.problems) == (len(lost), [])
        assert len(joined) == 1
        assert asked(shop, since)[BASE, "created"] >= SLOTS
        assert shop.differences(SINCE) == {}


def test_missing_orders_are_read_by_their_ids_and_by_nothing_else(shop):
    lost = some(shop)
    forget(shop, lost)
    since = len(shop.box.requests)
    outcome = reconcile(shop)
    assert (outcome.total("missing"), outcome.total("repaired"), outcome.problems) == (3, 3, [])
    named = {
        sid
        for one in list(shop.box.requests)[since:]
        if one.method == BASE and "sid" in one.params
        for sid in one.params["sid"].split(",")
    }
    assert named == set(lost)
    assert shop.differences(SINCE) == {}
    since = len(shop.box.requests)
    assert reconcile(shop).total("missing") == 0
    assert asked(shop, since) == QUIET


def test_mended_orders_come_in_their_fuller_form(shop):
    query = "SELECT sid, _rank, _content_hash FROM kuaimai_trade ORDER BY sid"
    before = shop.rows(query)
    forget(shop, sorted(truth(shop))[:12])
    reconcile(shop)
    assert shop.rows(query) == before


def test_mended_slot_has_a_sealed_row_of_its_own(shop):
    forget(shop, some(shop))
    reconcile(shop)
    rows = shop.rows(
        "SELECT state, total_before, total_after, landed, inserted FROM kuaimai_window "
        "WHERE dimension = 'created'"
    )
    assert rows
    assert {row[0] for row in rows} == {"sealed"}
    assert all(row[1] == row[2] == row[3] for row in rows)
    assert sum(row[4] for row in rows) == 3


def test_slot_is_not_sealed_where_one_part_of_its_reading_is_not_proven(tmp_path, monkeypatch):
    with mirror(tmp_path, history_orders=100) as shop:
        shop.run(SINCE, START)
        forget(shop, some(shop, 1))
        read = reconciling.read_parts

        def reading(*args, **more):
            """Add a second in which no two readings agreed, though the counts did."""
            reads = read(*args, **more)
            empty = {"files": (), "rows": 0, "distinct": 0, "total_before": 0, "total_after": 0}
            return [*reads, replace(reads[0], proof=UNPROVEN, **empty)]

        monkeypatch.setattr(reconciling, "read_parts", reading)
        outcome = reconcile(shop)
        assert outcome.total("repaired") == 1
        [problem] = outcome.problems
        assert "did not agree" in problem
        assert shop.open_windows() == 1


def test_slot_that_is_missing_almost_whole_is_read_page_by_page(tmp_path):
    with mirror(tmp_path, bulk=400, bulk_days=1) as shop:
        day = MIDNIGHT - timedelta(days=1)
        shop.run(day, START)
        lost = set(truth(shop, since=day))
        forget(shop, lost)
        since = len(shop.box.requests)
        outcome = reconcile(shop, days=1)
        assert (outcome.total("repaired"), outcome.problems) == (len(lost), [])
        assert shop.differences(day) == {}
        # By their ids all of them would have cost one call for every twenty.
        assert asked(shop, since)[BASE, "ids"] < len(lost) / 20 / 2


def test_order_that_vanished_is_marked_with_its_lines_and_revived_when_it_comes_back(shop):
    before = living(shop)
    lines = shop.rows("SELECT id FROM kuaimai_trade_line WHERE _deleted_at IS NULL ORDER BY id")
    shop.box.faults.vanished = 0.03
    gone = before - set(shop.box.truth())
    outcome = reconcile(shop)
    marked = {sid for day in outcome.days for one in day.verdicts for sid in one.tombstoned}
    assert marked
    assert marked <= gone
    assert living(shop) == before - marked
    assert outcome.problems == []
    assert shop.rows(
        "SELECT count(*) FROM kuaimai_trade_line l JOIN kuaimai_trade t ON t.sid = l.sid "
        "WHERE t._deleted_at IS NOT NULL AND l._deleted_at IS NULL"
    ) == [(0,)]
    ((listed,),) = shop.rows("SELECT sum(tombstoned) FROM kuaimai_reconcile")
    assert listed == len(marked)

    shop.box.faults.vanished = 0.0
    outcome = reconcile(shop)
    assert (outcome.total("repaired"), outcome.problems) == (len(marked), [])
    assert living(shop) == before
    assert shop.rows("SELECT id FROM kuaimai_trade_line WHERE _deleted_at IS NULL ORDER BY id") == lines


def test_one_missing_and_one_too_many_are_seen_though_the_counts_agree(shop):
    """Slots of a page or less are compared by keys, at no further request."""
    lost = some(shop, 1)[0]
    (created, user) = shop.rows(f"SELECT created, user_id FROM kuaimai_trade WHERE sid = '{lost}'")[0]
    forget(shop, [lost])
    with shop.target.engine.begin() as connection:
        connection.execute(
            sa.text(
                "INSERT INTO kuaimai_trade (sid, user_id, created, _version, _rank, _content_hash) "
                "VALUES ('1', :user, :created, 0, 0, '')"
            ),
            {"user": user, "created": created},
        )
    outcome = reconcile(shop)
    assert (outcome.total("missing"), outcome.total("repaired"), outcome.total("tombstoned")) == (1, 1, 1)
    assert "1" not in living(shop)
    assert lost in living(shop)


def test_more_vanished_orders_than_believable_are_left_and_told(shop, monkeypatch):
    monkeypatch.setattr(reconciling, "MOST_TOMBSTONES", 5)
    before = len(living(shop))
    shop.box.faults.vanished = 0.3
    outcome = reconcile(shop)
    assert outcome.total("tombstoned") == 5
    assert len(living(shop)) == before - 5
    with pytest.raises(DataError, match=r"differences remain.*created 2026-02.*gone from the gateway"):
        reconciling.check(outcome)


def test_right_that_was_lost_marks_nothing_and_is_told(tmp_path, monkeypatch):
    """All is well, the gateway says, and lists nothing: not the slots, and no order by its id."""
    with mirror(tmp_path, history_orders=100) as shop:
        shop.run(SINCE, START)
        before = living(shop)
        slots = Counter(one["created"] // 7_200_000 for one in truth(shop).values())
        assert 1 in slots.values()  # a slot's only order may well be gone, so the slots alone do not tell
        send = shop.client.wire.send

        def sending(method, params, *, session):
            if "trade" in method:
                body = {"success": True, "traceId": "1", "total": 0, "list": []}
                return Answer(method, body, encode_json(body))
            return send(method, params, session=session)

        monkeypatch.setattr(shop.client.wire, "send", sending)
        outcome = reconcile(shop)
        assert (living(shop), outcome.total("tombstoned")) == (before, 0)
        with pytest.raises(DataError, match="too many to be believed"):
            reconciling.check(outcome)
        told = shop.rows("SELECT problem FROM kuaimai_reconcile")
        assert all("too many to be believed" in problem for (problem,) in told)
        monkeypatch.undo()
        assert reconcile(shop).problems == []


def silence(shop, monkeypatch, lost):
    """Let the gateway say that all is well, and leave a shop's orders out of its lists and answers by id."""
    send = shop.client.wire.send

    def sending(method, params, *, session):
        answer = send(method, params, session=session)
        rows = answer.body.get("list") if "trade" in method else None
        if not rows:
            return answer
        kept = [row for row in rows if str(row["userId"]) != lost]
        body = {**answer.body, "list": kept}
        if params.get("pageNo", "1") == "1" and "total" in body:
            asked_for = {**params, "userIds": lost, "pageSize": "20"}
            alone = send(method, asked_for, session=session).body["total"]
            body["total"] -= alone if "sid" not in params else len(rows) - len(kept)
        return Answer(method, body, encode_json(body))

    monkeypatch.setattr(shop.client.wire, "send", sending)


def test_shop_that_answers_with_nothing_keeps_its_orders_and_is_told_while_others_go_on(
    tmp_path, monkeypatch
):
    """Its right was lost and nobody says so; of all shops together its few orders would be believable."""
    with mirror(tmp_path, history_orders=300) as shop:
        shop.run(SINCE, START)
        owner = {sid: str(one["userId"]) for sid, one in truth(shop).items()}
        sizes = Counter(owner.values())
        lost = min(sizes, key=lambda one: (sizes[one], one))
        assert 1 < sizes[lost] <= 20
        gone = next(sid for sid in sorted(owner) if owner[sid] != lost and sizes[owner[sid]] > 3)
        before = living(shop)
        # One order of another shop is really gone.
        stranger = {"sid": "1", "user": owner[gone]}
        with shop.target.engine.begin() as connection:
            connection.execute(
                sa.text(
                    "INSERT INTO kuaimai_trade (sid, user_id, created, _version, _rank, _content_hash) "
                    "SELECT :sid, :user, created, 0, 0, '' FROM kuaimai_trade WHERE sid = :as"
                ),
                {**stranger, "as": gone},
            )
        silence(shop, monkeypatch, lost)
        outcome = reconcile(shop)
        marked = [sid for day in outcome.days for one in day.verdicts for sid in one.tombstoned]
        assert marked == ["1"]
        assert living(shop) == before
        with pytest.raises(DataError, match=f"of shop {lost}, {sizes[lost]} of {sizes[lost]} records"):
            reconciling.check(outcome)
        monkeypatch.undo()
        assert reconcile(shop).problems == []


def test_orders_that_no_live_run_can_see_are_found(tmp_path):
    with mirror(tmp_path, faults=Faults(null_modified=0.1)) as shop:
        shop.run(SINCE, START)
        assert set(truth(shop)) - living(shop)
        outcome = reconcile(shop)
        assert outcome.total("missing") == outcome.total("repaired") > 0
        assert set(truth(shop)) <= living(shop)


@pytest.mark.parametrize("switch", ["bad_amount", "bad_time", "no_sid"])
def test_records_in_quarantine_are_accounted_for(tmp_path, switch):
    with mirror(tmp_path, faults=Faults(**{switch: 0.05})) as shop:
        shop.run(SINCE, START)
        assert shop.rows("SELECT count(*) FROM kuaimai_quarantine")[0][0] > 0
        since = len(shop.box.requests)
        outcome = reconcile(shop)
        assert outcome.problems == []
        assert (outcome.total("missing"), outcome.total("tombstoned")) == (0, 0)
        assert asked(shop, since) == QUIET


def test_bad_record_that_was_never_seen_goes_to_quarantine(tmp_path):
    with mirror(tmp_path, faults=Faults(bad_amount=0.05, no_sid=0.05)) as shop:
        shop.run(SINCE, START)
        with shop.target.engine.begin() as connection:
            connection.execute(sa.text("DELETE FROM kuaimai_quarantine"))
        outcome = reconcile(shop)
        assert outcome.problems == []
        assert outcome.total("missing") > 0
        quarantined = shop.rows("SELECT count(DISTINCT record_key) FROM kuaimai_quarantine")[0][0]
        assert quarantined >= outcome.total("missing")
        again = reconcile(shop)
        assert (again.total("missing"), again.problems) == (0, [])


def test_totals_by_shop_and_status_are_those_of_the_gateway(shop):
    forget(shop, some(shop))
    reconcile(shop)
    expected: dict[tuple, list] = {}
    for record in truth(shop).values():
        day = datetime.fromtimestamp(record["created"] / 1000, CHINA).date().isoformat()
        held = expected.setdefault(
            (day, str(record["userId"]), record["sysStatus"]), [0, Decimal(0), Decimal(0)]
        )
        held[0] += 1
        for line in record["orders"]:
            held[1] += Decimal(str(line.get("payment") or 0))
            held[2] += Decimal(str(line.get("payAmount") or 0))
    rows = shop.rows("SELECT day, shop, status, orders, payment, pay_amount FROM kuaimai_reconcile_total")
    assert {row[:3]: [row[3], Decimal(str(row[4])), Decimal(str(row[5]))] for row in rows} == expected


def test_report_of_a_day_is_replaced_by_the_next_one(shop):
    reconcile(shop)
    forget(shop, some(shop))
    reconcile(shop)
    rows = shop.rows(
        "SELECT day, gateway_count, target_count, repaired, run_id FROM kuaimai_reconcile ORDER BY day"
    )
    assert len(rows) == DAYS
    assert sum(row[3] for row in rows) == 3
    assert all(row[1] == row[2] for row in rows)
    assert len({row[4] for row in rows}) == 1


def test_report_of_shops_that_are_grouped_otherwise_by_now_is_replaced_too(tmp_path):
    """A shop was added: its group is another one, and its days must not stand there twice."""
    with mirror(tmp_path, history_orders=100) as shop:
        shop.run(SINCE, START)
        shops = fetch_shops(shop.client)
        reconcile(shop, shops=shops[:-1])
        with shop.target.engine.begin() as connection:
            connection.execute(sa.text("UPDATE kuaimai_reconcile SET problem = 'an old one'"))
        outcome = reconcile(shop)
        rows = shop.rows("SELECT gateway_count, problem FROM kuaimai_reconcile")
        assert (len(rows), {problem for _, problem in rows}) == (DAYS, {None})
        assert sum(count for count, _ in rows) == outcome.total("gateway")
        # What was found of other shops stays.
        reconcile(shop, shops=shops[:1])
        reconcile(shop, shops=shops[1:])
        assert len(shop.rows("SELECT day FROM kuaimai_reconcile")) == 2 * DAYS


def test_log_names_days_totals_and_what_is_gone(shop):
    shop.box.faults.vanished = 0.03
    text = reconciling.pretty(reconcile(shop))
    assert "2026-02-28" in text
    assert "WAIT_SEND_GOODS" in text or "FINISHED" in text
    assert "marked with _deleted_at" in text


@pytest.mark.parametrize("state", ["open", "contested"])
def test_windows_that_could_not_be_sealed_are_read_again(tmp_path, state):
    with mirror(tmp_path) as shop:
        start = MIDNIGHT - timedelta(hours=5)
        real, shop.one = shop.one, lambda piece: (_ for _ in ()).throw(Transient("no disk"))
        with pytest.raises(Transient):
            shop.run(start, start + timedelta(hours=1))
        with shop.target.engine.begin() as connection:
            connection.execute(sa.text("UPDATE kuaimai_window SET state = :state"), {"state": state})
        assert shop.open_windows() == 1
        shop.one = real
        outcome = reconcile(shop, days=1)
        assert outcome.retried >= 1
        assert outcome.still_open == ()
        assert shop.open_windows() == 0


def refuse(shop, monkeypatch, starts):
    """Let the gateway fail for windows that begin at some moments; return which are asked for."""
    send, dead = shop.client.wire.send, {f"{start:%Y-%m-%d %H:%M:%S}" for start in starts}
    seen = []

    def sending(method, params, *, session):
        if method == BASE and params.get("timeType") == "upd_time":
            seen.append(params["startTime"])
            if params["startTime"] in dead:
                raise Transient("out of order")
        return send(method, params, session=session)

    monkeypatch.setattr(shop.client.wire, "send", sending)
    return seen


def test_window_that_cannot_be_read_keeps_nothing_else_from_the_night(tmp_path, monkeypatch):
    with mirror(tmp_path, history_orders=100) as shop:
        shop.run(SINCE, START)
        lost = some(shop)
        forget(shop, lost)
        hour = timedelta(hours=1)
        bad = MIDNIGHT - 5 * hour
        for run in ("dead", "dead again"):
            shop.plan(bad, bad + hour, run=run)
        shop.plan(bad + hour, bad + 2 * hour, run="dead")
        seen = refuse(shop, monkeypatch, [bad])
        outcome = reconcile(shop)
        assert (outcome.total("repaired"), shop.open_windows()) == (len(lost), 1)
        [problem] = outcome.problems
        assert "upd_time 2026-02-28 19:00:00 to 20:00:00" in problem
        assert "out of order" in problem
        # What could not be read most often waits for what may be read.
        assert seen.index("2026-02-28 20:00:00") < seen.index("2026-02-28 19:00:00")


def test_shop_that_the_gateway_refuses_keeps_no_other_from_being_compared(tmp_path, monkeypatch):
    with mirror(tmp_path, history_orders=100) as shop:
        shop.run(SINCE, START)
        lost = [sid for sid, one in sorted(truth(shop).items()) if str(one["userId"]) != "900003"][:3]
        forget(shop, lost)
        before = living(shop)
        send = shop.client.wire.send

        def sending(method, params, *, session):
            if "900003" in params.get("userIds", ""):
                raise Rejected("the shop is not authorised any more")
            return send(method, params, session=session)

        monkeypatch.setattr(shop.client.wire, "send", sending)
        outcome = reconcile(shop)
        assert (outcome.total("repaired"), living(shop)) == (3, before | set(lost))
        assert outcome.problems == ["shop 900003 is refused: the shop is not authorised any more"]
        with pytest.raises(Rejected):
            reconcile(shop, shops=[one for one in fetch_shops(shop.client) if one.id == "900003"])


def test_windows_that_never_seal_keep_no_later_ones_waiting_for_ever(tmp_path, monkeypatch):
    with mirror(tmp_path, history_orders=0, orders_per_hour=0) as shop:
        monkeypatch.setattr("kuaimai.pipeline.rereading.MOST_RETRIES", 2)
        shop.run(MIDNIGHT - timedelta(days=1), START)
        starts = [MIDNIGHT - timedelta(hours=at) for at in range(6, 1, -1)]
        for start in starts:
            shop.plan(start, start + timedelta(minutes=30), run="dead")
        refuse(shop, monkeypatch, starts[:3])
        for _ in range(3):
            reconcile(shop, days=1)
            shop.clock.advance(24 * 3600)
        assert shop.open_windows() == 3


def test_windows_that_a_backfill_still_reads_are_left_to_it(tmp_path):
    with mirror(tmp_path, history_orders=100) as shop:
        shop.run(MIDNIGHT - timedelta(days=1), START)
        made = planner.plan_backfill(
            shop.pipeline,
            run="past",
            start=MIDNIGHT - timedelta(hours=3),
            end=MIDNIGHT,
            shops=fetch_shops(shop.client),
            dimension="pay_time",
            client=shop.client,
            rate=5.0,
            target=shop.target,
            now=shop.clock,
        )
        planner.announce(made, shop.pipeline, shop.target)
        assert reconcile(shop, days=1).retried == 0
        assert shop.open_windows() == len(made.slices) > 0


def test_killed_in_the_middle_it_changes_nothing_that_the_next_night_would_not_find(shop, monkeypatch):
    forget(shop, sorted(truth(shop))[::20])
    before = living(shop)
    send, calls = shop.client.wire.send, []

    def dies(method, params, *, session):
        calls.append(method)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return send(method, params, session=session)

    monkeypatch.setattr(shop.client.wire, "send", dies)
    with pytest.raises(KeyboardInterrupt):
        reconcile(shop)
    assert living(shop) >= before
    monkeypatch.undo()
    assert reconcile(shop).problems == []
    assert shop.differences(SINCE) == {}


def test_days_in_the_archive_are_refused_because_everything_would_look_gone(tmp_path):
    with mirror(tmp_path) as shop, pytest.raises(ConfigError, match="archive"):
        reconcile(shop, days=100)


def test_answer_that_is_cut_short_does_not_look_like_a_vanished_order(shop, monkeypatch):
    """How many ids a call takes is our guess: if the gateway looks at fewer, nothing is marked."""
    before = living(shop)
    shop.box.faults.vanished = 0.1
    gone = before - set(shop.box.truth())
    send = shop.client.wire.send

    def only_two(method, params, *, session):
        if "sid" in params:
            params = {**params, "sid": ",".join(params["sid"].split(",")[:2])}
        return send(method, params, session=session)

    monkeypatch.setattr(shop.client.wire, "send", only_two)
    reconcile(shop)
    assert before - living(shop) <= gone


def test_answers_as_they_came_are_nowhere_but_below_raw(tmp_path):
    """They hold personal data; who looks after such files looks there."""
    with mirror(tmp_path) as shop:
        day = MIDNIGHT - timedelta(days=1)
        shop.run(day, START)
        forget(shop, sorted(truth(shop, since=day))[:3])
        assert reconcile(shop, days=1).total("repaired") == 3
        answers = list((tmp_path / "staging").rglob("*.json.zst"))
        assert answers
        assert [path for path in answers if "raw" not in path.parts] == []


def hourly(shop, until):
    """Run the live pipeline every hour."""
    while (start := datetime.fromtimestamp(shop.clock(), CHINA)) < until:
        shop.clock.advance(3600)
        assert shop.run(start, start + timedelta(hours=1), live=True).sealed


def outdate(shop, sids):
    """Put orders back to their first state, as if no later change of them had ever come."""
    records = shop.box.truth()
    with shop.target.engine.begin() as connection:
        for sid in sids:
            connection.execute(
                sa.text(
                    "UPDATE kuaimai_trade SET upd_time = created, _version = :version, "
                    "sys_status = 'WAIT_BUYER_PAY' WHERE sid = :sid"
                ),
                {"sid": sid, "version": records[sid]["created"]},
            )


@pytest.mark.parametrize("bulk", [0, 2600], ids=["slots-of-one-page", "slots-of-many"])
def test_later_changes_that_no_list_by_change_shows_are_found(tmp_path, bulk):
    """Orders without `modified` never come by `upd_time`, however often they change."""
    with mirror(tmp_path, faults=Faults(null_modified=0.1), orders_per_hour=0, bulk=bulk) as shop:
        day = MIDNIGHT - timedelta(days=1)
        shop.run(day, START)
        reconcile(shop, days=1)
        assert set(truth(shop, since=day)) <= living(shop)
        hourly(shop, START + timedelta(hours=12))
        untold = set(shop.differences(day)) & set(truth(shop, since=day))
        assert untold
        since = len(shop.box.requests)
        outcome = reconcile(shop, days=1)
        assert outcome.problems == []
        assert outcome.total("changed") >= len(untold)
        assert set(shop.differences(day)) & set(truth(shop, since=day)) == set()
        # Where a page does not hold its slot, those that no list shows are asked for by id, twenty a call.
        hidden = sum(one["modified"] is None for one in truth(shop, since=day).values())
        assert asked(shop, since)[BASE, "ids"] <= hidden // 20 + len(untold) + 1


def test_change_that_became_visible_after_the_overlap_is_found_by_the_time_of_the_change(tmp_path):
    """Also of an order that was made long before the days that are compared by creation."""
    faults = Faults(late_rows=0.3, late_seconds=3 * 3600)
    with mirror(tmp_path, faults=faults, orders_per_hour=0) as shop:
        for back in range(6, -1, -1):
            start = START - timedelta(days=back + 1)
            shop.run(start, start + timedelta(days=1), dimension="created")
        shop.run(START - timedelta(hours=1), START, live=True)
        hourly(shop, MIDNIGHT + timedelta(days=1, hours=4))
        today = MIDNIGHT.timestamp() * 1000, (MIDNIGHT + timedelta(days=1)).timestamp() * 1000

        def late():
            records = shop.box.truth()
            return {
                sid
                for sid in shop.differences(START)
                if START.timestamp() * 1000 <= records[sid]["updTime"] < today[1]
            }

        assert {sid for sid in late() if shop.box.truth()[sid]["created"] < today[0]}
        outcome = reconcile(shop, days=1)
        assert outcome.problems == []
        assert outcome.total("changed") > 0
        assert late() == set()
        assert reconcile(shop, days=1).total("changed") == 0


def test_change_that_was_never_seen_among_many_is_found_without_reading_them_all(tmp_path):
    with mirror(tmp_path, orders_per_hour=0, bulk=4000) as shop:
        day = MIDNIGHT - timedelta(days=1)
        shop.run(day, START)
        records = truth(shop, since=day)
        noon = (day + timedelta(hours=12)).timestamp() * 1000
        changed = [
            sid
            for sid, one in sorted(records.items())
            if one["updTime"] < MIDNIGHT.timestamp() * 1000 and one["updTime"] - one["created"] > 7_200_000
        ]
        lost = [sid for sid in changed if records[sid]["created"] < noon][:2]
        assert len(lost) == 2
        outdate(shop, lost)
        since = len(shop.box.requests)
        outcome = reconcile(shop, days=1)
        assert (outcome.total("changed"), outcome.problems) == (2, [])
        assert shop.differences(day) == {}
        # Reading the day by its changes would take one request for every 170 orders or so.
        calls = asked(shop, since)
        assert calls[BASE, "created"] == 9
        assert calls[BASE, "upd_time"] < 12 + 16
        assert calls[BASE, "ids"] <= 4


def test_changes_that_were_missed_in_masses_are_all_found(tmp_path):
    with mirror(tmp_path, orders_per_hour=0, bulk=2600) as shop:
        day = MIDNIGHT - timedelta(days=1)
        shop.run(day, START)
        records = truth(shop, since=day)
        evening = (MIDNIGHT - timedelta(hours=4)).timestamp() * 1000
        lost = [sid for sid, one in records.items() if evening <= one["updTime"] < evening + 7_200_000]
        outdate(shop, lost)
        outcome = reconcile(shop, days=1)
        assert outcome.total("changed") >= len(lost) > 100
        assert outcome.problems == []
        assert shop.differences(day) == {}


def test_order_that_the_mirror_knows_newer_than_the_gateways_page_stays(shop):
    """A live run may have landed a change while the night compared."""
    known = some(shop)
    with shop.target.engine.begin() as connection:
        for sid in known:
            connection.execute(
                sa.text("UPDATE kuaimai_trade SET _version = _version + 1000 WHERE sid = :sid"), {"sid": sid}
            )
    before = shop.rows("SELECT sid, _version FROM kuaimai_trade ORDER BY sid")
    outcome = reconcile(shop)
    assert outcome.problems == []
    assert shop.rows("SELECT sid, _version FROM kuaimai_trade ORDER BY sid") == before


def test_record_that_does_not_say_when_it_changed_is_compared_by_reading_it(tmp_path, monkeypatch):
    with mirror(tmp_path, orders_per_hour=0) as shop:
        day = MIDNIGHT - timedelta(days=1)
        wanted = set(sorted(truth(shop, since=day))[-20:])
        send = shop.client.wire.send

        def without_times(method, params, *, session):
            answer = send(method, params, session=session)
            rows = answer.body.get("list") if "trade" in method else None
            if not rows:
                return answer
            listed = [
                {**row, "updTime": None, "modified": None} if str(row["sid"]) in wanted else row
                for row in rows
            ]
            body = {**answer.body, "list": listed}
            return Answer(method, body, encode_json(body))

        monkeypatch.setattr(shop.client.wire, "send", without_times)
        shop.run(day, START, dimension="created")
        reconcile(shop, days=1)
        query = "SELECT sid, sys_status FROM kuaimai_trade"
        before = dict(shop.rows(query))
        shop.clock.advance(12 * 3600)
        shop.run(START, START + timedelta(hours=12), live=True)
        now = {sid: one["sysStatus"] for sid, one in shop.box.truth().items()}
        assert {sid for sid in wanted if before[sid] != now[sid]}
        outcome = reconcile(shop, days=1)
        assert outcome.problems == []
        stored = dict(shop.rows(query))
        assert {sid: stored[sid] for sid in wanted} == {sid: now[sid] for sid in wanted}


def test_time_before_the_live_runs_began_is_not_counted_by_change(tmp_path):
    """What changed then was never asked for; a backfill reads it, if anybody wants it."""
    with mirror(tmp_path) as shop:
        shop.run(MIDNIGHT - timedelta(days=1), START, dimension="created")
        before = living(shop)
        since = len(shop.box.requests)
        outcome = reconcile(shop, days=1)
        assert asked(shop, since) == {(BASE, "created"): 1}
        assert (outcome.total("changed"), living(shop)) == (0, before)


@pytest.mark.parametrize("switch", ["bad_amount", "bad_time"])
def test_quarantined_change_is_not_asked_for_every_night(tmp_path, switch):
    with mirror(tmp_path, orders_per_hour=0) as shop:
        shop.run(SINCE, START)
        setattr(shop.box.faults, switch, 0.1)
        hourly(shop, START + timedelta(hours=12))
        first = reconcile(shop)
        since = len(shop.box.requests)
        second = reconcile(shop)
        assert first.problems == second.problems == []
        assert asked(shop, since)[BASE, "ids"] == 0


def test_what_the_night_has_read_gives_the_look_back_no_more_to_heal(shop):
    """The first run by creation reads its look-back; the reconcile promised nothing before that."""
    forget(shop, sorted(truth(shop))[::10])
    assert reconcile(shop).total("repaired") > 5
    plan = shop.plan(START - timedelta(minutes=30), START, run="first", live=True, dimension="created")
    assert {piece.reason for piece in plan} == {"interval"}


def test_pages_that_filters_let_overflow_cost_no_more_than_single_slots_would(tmp_path):
    """The target does not know how many orders they leave out; the first page that overflows tells."""
    with mirror(tmp_path, orders_per_hour=0, bulk=1700, bulk_days=2) as shop:
        file = tmp_path / "trades.yaml"
        own = "filters: [{where: {sysStatus: [SELLER_SEND_GOODS, FINISHED]}, then: skip}]\n"
        file.write_text(TRADES.read_text(encoding="utf-8") + own, encoding="utf-8")
        shop.pipeline = load_pipeline(file)
        shop.run(SINCE, START)
        since = len(shop.box.requests)
        outcome = reconcile(shop)
        assert (outcome.problems, outcome.total("missing")) == ([], 0)
        assert outcome.total("gateway") == len(truth(shop))
        assert asked(shop, since)[BASE, "created"] < SLOTS


def test_what_filters_leave_out_is_no_difference(tmp_path):
    with mirror(tmp_path, history_orders=300) as shop:
        file = tmp_path / "trades.yaml"
        file.write_text(
            TRADES.read_text(encoding="utf-8")
            + "filters: [{where: {sysStatus: [CLOSED, CANCEL]}, then: skip}]\n",
            encoding="utf-8",
        )
        shop.pipeline = load_pipeline(file)
        shop.run(SINCE, START)
        [(left_out,)] = shop.rows(
            f"SELECT sum(filtered) FROM kuaimai_window WHERE method = '{BASE}' AND dimension = 'upd_time'"
        )
        assert left_out > 0
        first = reconcile(shop)
        assert first.problems == []
        assert shop.rows("SELECT count(*) FROM kuaimai_trade WHERE _deleted_at IS NOT NULL") == [(0,)]
        again = reconcile(shop)
        assert (again.problems, again.total("missing"), again.total("repaired")) == ([], 0, 0)


def test_orders_that_say_to_have_changed_next_year_are_read_by_id_and_trouble_no_night(tmp_path):
    with mirror(tmp_path, faults=Faults(future_times=0.2), history_orders=300) as shop:
        shop.run(SINCE, START, dimension="created")
        assert any(record["updTime"] > (shop.clock() + 86_400) * 1000 for record in truth(shop).values())
        for _ in range(2):
            assert reconcile(shop).problems == []
            shop.clock.advance(24 * 3600)
