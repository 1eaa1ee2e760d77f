"""One budget for everybody: never more than the rate, live before backfill, and one 429 slows all."""

from __future__ import annotations

import contextlib
import threading
from itertools import pairwise

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from kuaimai.gateway.budget import STALE_SECONDS, Budget, SharedBudget
from kuaimai.state import Store
from kuaimai.state.budgets import HORIZON_SECONDS
from kuaimai.state.database import Database

KEY = "budget:demo"


def opened(folder, now):
    return contextlib.closing(Store.open(f"sqlite:///{folder}/state.db", now=now))


@pytest.fixture
def store(tmp_path, clock):
    with opened(tmp_path, clock) as store:
        yield store


def shared(store, clock, *, rate=5.0, lane="live", sleep=None):
    return SharedBudget(lambda: store, KEY, rate=rate, lane=lane, now=clock, sleep=sleep or clock.sleep)


def most_in_one_second(moments):
    return max(sum(1 for other in moments if 0 <= other - moment < 1.0) for moment in moments)


def test_burst_goes_out_at_once_and_then_the_rate_holds(clock):
    budget = Budget(5, burst=5, now=clock, sleep=clock.sleep)
    start = clock()
    for _ in range(30):
        budget.spend()
    assert clock() - start == pytest.approx(5.0)


def test_one_process_alone_uses_the_whole_budget(store, clock):
    budget, start = shared(store, clock), clock()
    for _ in range(100):
        budget.spend()
    assert clock() - start == pytest.approx((100 - 5) / 5, rel=0.02)


def test_two_processes_together_keep_the_rate(store, clock):
    one, other, sent = shared(store, clock), shared(store, clock), []
    for _ in range(60):
        for budget in (one, other):
            budget.spend()
            sent.append(clock())
    assert most_in_one_second(sent) <= 5 + 5
    assert sent[-1] - sent[0] >= (len(sent) - 5 - 8) / 5


def test_slot_that_was_not_used_in_time_is_given_up(store, clock):
    budget, sent = shared(store, clock, rate=10), []
    for _ in range(10):
        budget.spend()
    for _ in range(5):
        clock.advance(STALE_SECONDS * 20)
        for _ in range(8):
            budget.spend()
            sent.append(clock())
    assert most_in_one_second(sent) <= 10 + 5


def test_backfill_stands_back_while_live_work_waits(store, clock):
    waiting = []
    live, backfill = shared(store, clock), shared(store, clock, lane="backfill", sleep=waiting.append)
    for _ in range(20):
        live.spend()
    assert store.take_slots(KEY, lane="backfill", count=1, rate=5, burst=5).waits == ()
    clock.advance(10)
    backfill.spend()
    assert waiting == []


def test_live_work_never_waits_long_behind_a_backfill(store, clock):
    for _ in range(50):
        store.take_slots(KEY, lane="backfill", count=4, rate=5, burst=5)
    slots = store.take_slots(KEY, lane="live", count=1, rate=5, burst=5)
    assert (slots.waits or (slots.look_again,))[0] <= HORIZON_SECONDS + 2 / 5


def test_one_refusal_slows_everybody_and_the_rate_comes_back(store, clock):
    one, other = shared(store, clock), shared(store, clock)
    one.spend()
    one.refused(3.0)
    one.refused(3.0)  # another request of the same moment: one reason, not two
    start = clock()
    other.spend()
    assert clock() - start >= 3.0
    start = clock()
    for _ in range(20):
        other.spend()
    slowed = clock() - start
    assert slowed > 1.5 * 20 / 5
    clock.advance(300)
    for _ in range(10):
        other.spend()
    start = clock()
    for _ in range(50):
        other.spend()
    assert clock() - start == pytest.approx(10, rel=0.1)


@pytest.mark.parametrize("back", [0.5, 3.0, 3600.0])
def test_clock_that_is_set_back_stops_nobody_for_long_and_grants_nothing_twice(tmp_path, clock, back):
    ahead = [0.0]  # how far the database's clock is ahead of the time that really passes
    with opened(tmp_path, lambda: clock() + ahead[0]) as store:
        sent, budgets = [], [shared(store, clock) for _ in range(3)]
        for number in range(60):
            if number == 30:
                ahead[0] -= back
            budgets[number % 3].spend()
            sent.append(clock())
    assert most_in_one_second(sent) <= 5 + 5
    assert max(later - earlier for earlier, later in pairwise(sent)) <= 4


def test_clock_that_was_set_back_on_postgres_stops_nobody_for_long(pg_url, clock):
    with contextlib.closing(Store.open(pg_url)) as store, contextlib.closing(Database(pg_url)) as database:
        one = shared(store, clock)
        one.spend()
        one.refused(2.0)
        with database.transaction() as connection:
            moments = ("next_free", "blocked_until", "slowed_at")
            moved = ", ".join(f"{name} = {name} + 3600" for name in moments)
            connection.execute(sa.text(f"UPDATE kuaimai_budget SET {moved}"))
        for _ in range(2):
            slots = store.take_slots(KEY, lane="live", count=1, rate=5, burst=5)
            assert slots.look_again <= 4
        with database.transaction(writes=False) as connection:
            now = connection.execute(sa.text("SELECT EXTRACT(EPOCH FROM clock_timestamp())")).scalar_one()
            (row,) = connection.execute(sa.text(f"SELECT {', '.join(moments)} FROM kuaimai_budget"))
        assert max(row) <= float(now) + 4


def test_pause_that_the_gateway_asked_for_is_kept_and_ends_in_time_whatever_the_clock_does(tmp_path, clock):
    ahead = [0.0]
    with opened(tmp_path, lambda: clock() + ahead[0]) as store:
        one, other = shared(store, clock), shared(store, clock)
        for back, asked in ((0.0, 320.0), (7200.0, 2.0), (7200.0, 60.0)):
            one.spend()
            one.refused(asked)
            ahead[0] -= back
            start = clock()
            other.spend()
            assert asked <= clock() - start <= asked + 4
            clock.advance(300)


def test_refusal_after_a_clock_was_set_back_slows_down_too(store, clock):
    store.slow_down(KEY, pause_seconds=None)
    clock.advance(-3600)
    before = store.pace(KEY)
    store.slow_down(KEY, pause_seconds=None)
    assert store.pace(KEY) == pytest.approx(before / 2)


def test_who_waits_for_a_slot_keeps_nobody_from_telling_of_a_refusal(store, clock):
    told = []

    def sleep(seconds):
        refusing = threading.Thread(target=budget.refused, args=(None,), daemon=True)
        refusing.start()
        refusing.join(5)
        told.append((seconds, not refusing.is_alive()))
        clock.advance(120)

    budget = shared(store, clock, sleep=sleep)
    budget.spend()
    budget.refused(60.0)
    budget.spend()
    assert told
    assert all(free and seconds <= 5 for seconds, free in told)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0, 0.4)), min_size=10, max_size=60))
def test_however_three_lanes_interleave_the_slots_keep_the_rate(tmp_path_factory, steps):
    at = [1_700_000_000.0]
    store = Store.open(f"sqlite:///{tmp_path_factory.mktemp('b')}/s.db", now=lambda: at[0])
    found = []
    for lane, pause in steps:
        taken = store.take_slots(KEY, lane=("live", "reconcile", "backfill")[lane], count=3, rate=10, burst=5)
        found += [taken.first + number / 10 for number in range(len(taken.waits))]
        at[0] += pause
    store.close()
    found.sort()
    assert all(later - earlier >= 1 / 10 - 1e-6 for earlier, later in pairwise(found))
