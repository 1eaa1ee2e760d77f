"""The sandbox's merchant: determinism, lives of orders, and the shape of their records."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timezone

import msgspec
import pytest

from kuaimai.sandbox import Faults, World
from kuaimai.sandbox.book import TIME_TYPES, Book, row_of, second_of
from kuaimai.sandbox.gateway import Gateway
from kuaimai.sandbox.listing import Listing
from kuaimai.sandbox.methods import METHODS
from kuaimai.sandbox.records import full_trade, order_of_tid, outstock_trade, sid_of
from kuaimai.sandbox.steps import Step
from kuaimai.sandbox.time_forms import as_second
from kuaimai.sandbox.world import GMT8

START = datetime(2026, 3, 1, tzinfo=GMT8)
HOUR, DAY = 3_600, 86_400
NO_TIME = 946_656_000_000


def book_at(world: World, hours: float) -> Book:
    book = Book(world)
    book.follow(world.start_second + int(hours * HOUR))
    return book


def records(world: World, book: Book) -> dict[int, dict]:
    return {snap.row: outstock_trade(world, snap) for n in book.numbers() for snap in book.visible(n)}


@pytest.fixture(scope="module")
def world() -> World:
    return World(START, orders_per_hour=60)


@pytest.fixture(scope="module")
def day_later(world) -> dict[int, dict]:
    return records(world, book_at(world, 24))


def test_the_same_seed_and_time_give_the_same_bytes():
    one, two = World(START, history_orders=99), World(START.replace(tzinfo=None), history_orders=99)
    assert msgspec.json.encode(list(records(one, book_at(one, 1)).values())) == msgspec.json.encode(
        list(records(two, book_at(two, 1)).values())
    )
    other = World(START, seed=8, history_orders=99)
    assert records(other, book_at(other, 1)) != records(one, book_at(one, 1))


def test_following_the_clock_step_by_step_ends_where_a_jump_ends(world):
    walked = Book(world)
    for hours in (0, 0.1, 1, 1.5, 20, 3, 3.5, 12):
        walked.follow(world.start_second + int(hours * HOUR))
    jumped = book_at(world, 12)
    for time_type in TIME_TYPES:
        assert walked.window(time_type, 0, 10**10) == jumped.window(time_type, 0, 10**10)


def test_every_record_of_every_method_follows_from_settings_and_time_alone(clock):
    settings = {"orders_per_hour": 6, "history_orders": 60, "items": 30, "days_back": 2.0}
    clock.at = World(START).start_second
    walked = Gateway(World(START, **settings), Faults(), clock)
    listed = [name for name, method in METHODS.items() if method.truth is not None]
    assert len(listed) > 50
    for hours in (0.3, 1, 9, 20, 20.4, 20.9, 20.7):
        clock.at = World(START).start_second + hours * HOUR
        for name in listed:
            walked.truth(name)
    jumped = Gateway(World(START, **settings), Faults(), clock)
    for name in listed:
        assert msgspec.json.encode(walked.truth(name)) == msgspec.json.encode(jumped.truth(name)), name


def test_no_record_changes_without_its_version(clock):
    settings = {"orders_per_hour": 6, "history_orders": 60, "items": 30, "days_back": 2.0}
    clock.at = first = World(START).start_second
    gateway = Gateway(World(START, **settings), Faults(), clock)
    versions = {
        name: method.answer.marks.version
        for name, method in METHODS.items()
        if isinstance(method.answer, Listing) and method.answer.marks.version
    }
    assert len(versions) > 20
    before = {name: gateway.truth(name) for name in versions}
    for hours in (0.5, 3, 9, 30):
        last, clock.at = clock.at, first + hours * HOUR
        for name, version in versions.items():
            now = gateway.truth(name)
            changed = [row[version] for key, row in now.items() if before[name].get(key) != row]
            assert all(last < as_second(value) <= clock.at for value in changed), name
            same = [row for key, row in now.items() if before[name].get(key) == row]
            assert all(as_second(row[version]) <= last for row in same), name
            before[name] = now


def test_nothing_is_visible_before_it_happened(world):
    now = world.start_second + 7 * HOUR
    seen = records(world, book_at(world, 7))
    times = [row[name] for row in seen.values() for name in ("created", "updTime", "payTime", "consignTime")]
    assert max(times) <= now * 1000
    assert all(time % 1000 == 0 for time in times)


def test_history_holds_five_hundred_trades_over_five_days(world):
    history = records(world, book_at(world, 0)).values()
    recent = [row for row in history if row["created"] >= (world.start_second - 5 * DAY) * 1000]
    assert len(recent) > 500
    assert len({row["created"] // 86_400_000 for row in recent}) >= 5
    assert {row["source"] for row in history} >= {"fxg", "pdd", "jd", "tb", "sys", "xhs"}
    assert {row["warehouseId"] for row in history} == {80001, 80002}


def test_every_five_minutes_orders_appear_and_change():
    world = World(START)
    book = book_at(world, 30)
    index, low, high = book.window(
        "upd_time", world.start_second + 29 * HOUR, world.start_second + 30 * HOUR - 1
    )
    slots = Counter((second_of(key) - world.start_second) // 300 for key in index[low:high])
    assert len(slots) == 12
    created = book.window("created", world.start_second + 29 * HOUR, world.start_second + 30 * HOUR - 1)
    assert 200 < created[2] - created[1] < high - low


def test_upd_time_is_the_time_of_the_last_change(world):
    book = book_at(world, 12)
    for n in range(40, 400):
        life = world.life(n)
        assert life == sorted(life)
        assert book.visible(n)[0].upd == max(at for at, _, sub in life if at <= book.at and sub == 0)
        for at, _, _ in life:
            before, after = world.snapshots(n, at - 1), world.snapshots(n, at)
            assert {snap.upd for snap in after} >= {at}
            assert before != after


def test_all_kinds_of_lives_are_lived(world):
    seen = 0
    for snap in (one for n in range(3_000) for one in world.snapshots(n, world.start_second + 90 * DAY)):
        seen |= snap.seen
    assert seen == Step.TOUCH - 1


def test_until_ends_all_lives():
    world = World(START, until=START.replace(hour=2), history_orders=99)
    assert records(world, book_at(world, 2)) == records(world, book_at(world, 200))
    assert (
        max(row["updTime"] for row in records(world, book_at(world, 200)).values())
        <= (world.start_second + 2 * HOUR) * 1000
    )


def test_start_may_carry_any_zone_and_none_means_gmt8():
    utc = START.astimezone(timezone.utc)
    assert (
        World(utc).start_second == World(START).start_second == World(START.replace(tzinfo=None)).start_second
    )


def test_line_ids_are_unique_and_oids_repeat_after_a_split(day_later):
    lines = [line for row in day_later.values() for line in row["orders"]]
    assert len({line["id"] for line in lines}) == len(lines)
    assert all(line["sid"] == row["sid"] for row in day_later.values() for line in row["orders"])
    oids = Counter(line["oid"] for line in lines if "oid" in line)
    repeated = [oid for oid, times in oids.items() if times > 1]
    assert repeated
    assert min(oids) > 2**53
    assert any(float(oid) != oid for oid in oids)


def test_splits_move_lines_to_a_child(world, day_later):
    children = [row for row in day_later.values() if row["splitType"] == 1]
    assert len(children) > 30
    for child in children:
        parent = day_later[child["splitSid"] - sid_of(0)]
        n = (parent["sid"] - sid_of(0)) // 4
        at = next(at for at, step, _ in world.life(n) if step == Step.SPLIT)
        before = full_trade(world, world.snapshots(n, at - 1)[0])
        together = Counter()
        for line in (*parent["orders"], *child["orders"]):
            together[line["skuSysId"]] += line["num"]
        assert child["source"] == "sys"
        assert child["updTime"] >= at * 1000 <= parent["updTime"]
        assert len(before["orders"]) <= len(parent["orders"]) + len(child["orders"])
        assert together.keys() == {line["skuSysId"] for line in before["orders"]}


def test_merges_move_lines_and_leave_a_cancelled_trade(world, day_later):
    merged = [
        row for row in day_later.values() if len({line["tid"] for line in row["orders"] if "tid" in line}) > 1
    ]
    assert len(merged) > 10
    for row in merged:
        partner = day_later[row["sid"] - sid_of(0) + 4]
        assert (partner["sysStatus"], partner["isCancel"], partner["orders"]) == ("CANCEL", 1, [])
        n = (partner["sid"] - sid_of(0)) // 4
        before = full_trade(world, world.snapshots(n, partner["updTime"] // 1000 - 1)[0])
        assert {line["id"] for line in before["orders"]} <= {line["id"] for line in row["orders"]}
        own = sum(float(line["payment"]) for line in row["orders"] if line["tid"] == row["tid"])
        assert float(row["totalFee"]) == pytest.approx(own)


def test_gift_lines_vanish_and_are_recognised_by_gift_num(world):
    gone = 0
    for n in range(2_000):
        life = world.life(n)
        for at, step, _ in life:
            if step == Step.GIFT_REMOVED:
                before = full_trade(world, world.snapshots(n, at - 1)[0])["orders"]
                after = full_trade(world, world.snapshots(n, at)[0])["orders"]
                lost = {line["id"] for line in before} - {line["id"] for line in after}
                assert [line["giftNum"] for line in before if line["id"] in lost] == [1]
                gone += 1
    assert gone > 20


def test_records_have_the_documented_shape(day_later):
    rows = list(day_later.values())
    lines = [line for row in rows for line in row["orders"]]
    assert all(isinstance(row["sid"], int) and 10**15 < row["sid"] < 2**53 for row in rows)
    assert all(isinstance(row["totalFee"], str) and float(row["totalFee"]) >= 0 for row in rows)
    assert all(isinstance(row["cost"], float) for row in rows)
    assert any(row["payTime"] == NO_TIME for row in rows)
    assert any(row["consignTime"] == NO_TIME for row in rows)
    assert any(row["sysStatus"] == "CLOSED" and row["payTime"] != NO_TIME for row in rows)
    assert any(
        row["source"] == "sys" and row["payTime"] == NO_TIME and row["sysStatus"] == "FINISHED"
        for row in rows
    )
    assert any("\ufffd" in row["shopName"] for row in rows)
    assert any("\n" in row["sellerMemo"] for row in rows)
    assert any("😊" in row["sellerMemo"] for row in rows)
    assert any(row["isRefund"] == 1 for row in rows if "isRefund" in row)
    assert any(line["giftNum"] > 0 and line["type"] == 1 for line in lines)
    assert any(line["suits"][0].keys() >= {"totalFree", "itemSysid"} for line in lines if "suits" in line)
    assert any(line["skuSysId"] == -1 for line in lines)
    assert {line["refundStatus"] for line in lines} == {"NO_REFUND", "WAIT_SELLER_AGREE", "SUCCESS"}
    assert {"payAmount": "0.0"}.items() <= next(
        row for row in rows if row["sysStatus"] == "WAIT_BUYER_PAY"
    ).items()
    assert any(row["postFee"] == "0" for row in rows if "postFee" in row)


def test_personal_fields_are_cipher_texts_or_missing_by_platform(day_later):
    for row in day_later.values():
        platform = {900001: "fxg", 900002: "pdd", 900004: "tb"}.get(row["userId"])
        if platform == "fxg":
            assert 200 <= len(row["receiverName"]) <= 450
            assert row["receiverName"].startswith("##")
            assert row["receiverName"] != row["receiverMobile"]
        elif platform in {"pdd", "tb"}:
            assert not row.keys() & {
                "receiverName",
                "receiverMobile",
                "buyerNick",
                "mobileTail",
                "tradeInvoice",
            }
        if platform == "pdd":
            assert not row.keys() & {"tid", "payment", "payAmount", "status", "postFee"}
            assert not any(line.keys() & {"tid", "oid", "payment"} for line in row["orders"])


def test_jd_orders_may_appear_long_after_their_creation(world):
    late = [
        snap
        for n in range(2_000)
        for snap in world.snapshots(n, world.start_second + 30 * DAY)
        if snap.created < world.life(n)[0][0]
    ]
    assert len(late) > 20
    assert {world.shops[world.shop_index(snap.n)].source for snap in late} == {"jd"}
    assert all(HOUR <= world.life(snap.n)[0][0] - snap.created < DAY for snap in late)


def test_platform_numbers_lead_back_to_their_orders(world):
    for n in range(200):
        record = full_trade(world, world.snapshots(n, world.start_second + 90 * DAY)[0])
        assert order_of_tid(world, record["tid"]) == n
    assert order_of_tid(world, "nobody's") is None
    assert order_of_tid(world, "69") is None


def test_bulk_orders_lie_in_their_days_and_are_indexed():
    world = World(START, bulk=3_000, bulk_days=2, orders_per_hour=0, archive_orders=0)
    book = book_at(world, 0)
    _, low, high = book.window("upd_time", world.start_second - 2 * DAY, world.start_second)
    assert high - low > 3_000
    index, low, high = book.window("created", 0, 10**10)
    assert len({row_of(key) // 4 for key in index[low:high]}) == 3_000


@pytest.mark.parametrize(
    "settings", [{"shop_count": 0}, {"shop_count": 13}, {"orders_per_hour": -1}, {"bulk": -1}]
)
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match=r"must be|cannot be"):
        World(START, **settings)
