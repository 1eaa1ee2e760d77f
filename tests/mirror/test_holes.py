"""No hole stays unseen: what was never planned, a clock that runs ahead, shops that come and go."""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta
from functools import partial

import pytest
import sqlalchemy as sa
from installation import CHINA, START, TICK, mirror

from kuaimai.errors import Transient
from kuaimai.extract import windows
from kuaimai.extract.windows import Slice
from kuaimai.load.noop import NoopTarget
from kuaimai.load.targets import open_target
from kuaimai.pipeline import stages
from kuaimai.pipeline.coverage import settle
from kuaimai.pipeline.scopes import fetch_shops
from kuaimai.pipeline.together import together
from kuaimai.sandbox import Faults

BASE = "erp.trade.outstock.simple.query"


@pytest.fixture
def shop(tmp_path):
    with mirror(tmp_path, orders_per_hour=60) as made:
        yield made


def here(shop) -> datetime:
    return datetime.fromtimestamp(shop.clock(), CHINA)


def test_time_that_cannot_be_read_starves_no_target_that_is_no_database(shop, tmp_path, monkeypatch):
    monkeypatch.setattr("kuaimai.pipeline.slices.plan", partial(windows.plan, most_heals=2))
    target = NoopTarget("noop", open_target(f"sqlite:///{tmp_path}/state.db", now=shop.clock))
    send, dead_until = shop.client.wire.send, START + timedelta(hours=2)

    def sending(method, params, *, session):
        if method == BASE and params["startTime"] < f"{dead_until:%Y-%m-%d %H:%M:%S}":
            raise Transient("out of order")
        return send(method, params, session=session)

    def run() -> None:
        shop.runs += 1
        start = here(shop)
        plan = shop.plan(start, start + TICK, live=True, target=target)
        shop.clock.advance(TICK.total_seconds())
        for piece in plan:
            with contextlib.suppress(Transient):
                extracted = stages.extract(shop.pipeline, piece, shop.client, shop.staging, now=shop.clock)
                transformed = stages.transform(shop.pipeline, extracted, shop.staging)
                loaded = stages.load(shop.pipeline, transformed, shop.staging, target)
                settle(shop.pipeline.name, loaded.windows, target)

    run()
    shop.clock.advance(5 * 3600)
    monkeypatch.setattr(shop.client.wire, "send", sending)
    for _ in range(6):
        run()
    known = target.coverage("trades", "upd_time", START)
    target.close()
    sealed = [(one.start, one.end) for one in known if one.method == BASE and one.state == "sealed"]
    assert windows.gaps(dead_until, here(shop), sealed) == []


@contextlib.contextmanager
def ahead(shop, seconds: float):
    """Let this machine's clock run ahead of the gateway's."""
    right = shop.clock
    shop.clock = shop.target.now = shop.client.wire.now = lambda: right() + seconds
    yield
    shop.clock = shop.target.now = shop.client.wire.now = right


def test_window_that_is_over_only_by_a_clock_that_runs_ahead_is_not_sealed(shop):
    """The gateway has not lived through it yet: a count of nothing proves nothing."""
    shop.tick()
    start = here(shop)
    with ahead(shop, TICK.total_seconds()):
        early = shop.run(start, start + TICK)
    assert not early.sealed
    assert all("before its end" in why for why in early.open_windows)
    shop.clock.advance(TICK.total_seconds())
    assert shop.run(start, start + TICK).sealed
    assert shop.differences(START) == {}


def test_answers_of_a_clock_that_ran_ahead_prove_nothing_after_it_was_set_right(shop):
    """The task died, the clock was synchronised, and the retry goes on with what was staged before."""
    shop.tick()
    start = here(shop)
    (piece,) = shop.plan(start, start + TICK)
    with ahead(shop, TICK.total_seconds()):
        stages.extract(shop.pipeline, piece, shop.client, shop.staging, now=shop.clock)
    shop.clock.advance(TICK.total_seconds() + 60)
    shop.client.clock_offset = None  # as in the new process that a retry is
    assert {one.state for one in shop.one(piece).windows} == {"open"}


def test_clock_that_is_set_right_while_a_window_is_read_proves_nothing_about_what_was_asked_before(
    shop, monkeypatch
):
    source = shop.pipeline.source.model_copy(update={"page_size": 20})
    shop.pipeline = shop.pipeline.model_copy(update={"source": source})
    shop.tick()
    start = here(shop)
    (piece,) = shop.plan(start - timedelta(hours=2), start + TICK)
    send, right = shop.client.wire.send, shop.clock
    asked = []

    def sending(*args, **params):
        if len(asked) == 4:  # synchronised
            shop.clock = shop.client.wire.now = right
        asked.append(1)
        return send(*args, **params)

    monkeypatch.setattr(shop.client.wire, "send", sending)
    now = lambda: shop.clock()  # noqa: E731, PLW0108 - it is set meanwhile
    with ahead(shop, TICK.total_seconds()):
        extracted = stages.extract(shop.pipeline, piece, shop.client, shop.staging, now=now)
    assert len(asked) > 5
    assert all(read.first_read_at < read.window.end for read in extracted.reads)


def tick_without(shop, dies) -> list[Slice]:
    """Let five minutes pass and run by schedule; the tasks of some slices die. Return what was planned."""
    start = here(shop)
    shop.clock.advance(TICK.total_seconds())
    shop.runs += 1
    slices = shop.plan(start, start + TICK, live=True)
    loaded = [shop.one(piece) for piece in slices if not dies(piece)]
    settle("trades", [window for one in loaded for window in one.windows], shop.target)
    return slices


@pytest.mark.parametrize("fails", ["some shops", "some shops, and what is read again for them"])
def test_late_rows_of_shops_whose_task_died_are_read_again_though_that_of_the_others_did_not(tmp_path, fails):
    """The last run of these shops came too early for them; the next one begins behind them."""
    late = Faults(late_rows=0.3, late_seconds=420)
    with mirror(tmp_path, faults=late, orders_per_hour=900, shop_count=12) as shop:
        shop.tick()
        shop.tick()
        assert len(tick_without(shop, lambda piece: len(piece.shops) == 10)) == 2
        until = shop.clock()
        if fails != "some shops":
            planned = tick_without(shop, lambda piece: piece.reason == "heal")
            assert [piece.reason for piece in planned].count("heal") == 1
        for _ in range(3):
            shop.tick()
        behind = {sid for sid, record in shop.box.truth().items() if record["updTime"] > until * 1000}
        assert {sid: why for sid, why in shop.differences(START).items() if sid not in behind} == {}
        planned = tick_without(shop, lambda piece: False)
        assert {piece.reason for piece in planned} == {"interval"}  # nothing is read for ever


def test_outage_that_is_longer_than_runs_heal_leaves_open_windows_and_is_told_once(tmp_path):
    with mirror(tmp_path, orders_per_hour=4) as shop:
        assert shop.tick().sealed
        down = here(shop)
        shop.clock.advance(timedelta(days=9).total_seconds())
        told: list[windows.Window] = []
        for _ in range(2):
            start = here(shop)
            shop.clock.advance(TICK.total_seconds())
            shop.run(start, start + TICK, live=True, on_missed=told.append)
        (lost,) = told
        assert lost.start == down
        unread = shop.rows("SELECT window_start, window_end FROM kuaimai_window WHERE state = 'open'")
        spans = [tuple(map(shop.target.read_instant, row)) for row in unread]
        assert windows.gaps(lost.start, lost.end, spans) == []
        sealed = shop.target.coverage("trades", "upd_time", lost.end)
        assert windows.gaps(lost.end, here(shop), [(one.start, one.end) for one in sealed]) == []

        day = lost.start
        while day < lost.end:
            assert shop.run(day, min(day + timedelta(days=1), lost.end)).sealed
            day += timedelta(days=1)
        assert shop.open_windows() == 0
        assert shop.differences(START) == {}


def test_outage_of_four_months_is_told_as_far_back_as_runs_look(tmp_path):
    with mirror(tmp_path, orders_per_hour=0, faults=Faults(session_ttl=1e9)) as shop:
        assert shop.tick().sealed
        shop.clock.advance(timedelta(days=120).total_seconds())
        told: list[windows.Window] = []
        for _ in range(2):
            start = here(shop)
            shop.clock.advance(TICK.total_seconds())
            shop.run(start, start + TICK, live=True, on_missed=told.append)
        (lost,) = told
        assert lost.end - lost.start == timedelta(days=90)
        unread = shop.rows("SELECT window_start, window_end FROM kuaimai_window WHERE state = 'open'")
        spans = [tuple(map(shop.target.read_instant, row)) for row in unread]
        assert windows.gaps(lost.start, lost.end, spans) == []


def test_target_that_is_added_later_owes_nothing_of_the_time_before_and_charges_nobody(tmp_path):
    with mirror(tmp_path, orders_per_hour=1) as shop:
        told: list[windows.Window] = []

        def planned(target) -> None:
            shop.plan(
                here(shop),
                here(shop) + TICK,
                run=f"planned-{here(shop)}",
                live=True,
                target=target,
                on_missed=told.append,
            )

        planned(shop.target)  # and dies; what others have sealed since is superseded
        shop.clock.advance(timedelta(days=20).total_seconds())
        shop.run(START - timedelta(hours=1), here(shop))
        assert ("superseded",) in shop.rows("SELECT DISTINCT state FROM kuaimai_window")
        with contextlib.closing(open_target(f"sqlite:///{tmp_path}/new.db", now=shop.clock)) as added:
            planned(together([shop.target, added]))
        assert told == []


def test_time_between_what_a_person_asked_for_and_the_first_scheduled_run_is_not_missed(tmp_path):
    with mirror(tmp_path, orders_per_hour=0) as shop:
        told: list[windows.Window] = []
        shop.run(START - timedelta(days=40), START - timedelta(days=39))
        for _ in range(2):
            start = here(shop)
            shop.clock.advance(TICK.total_seconds())
            shop.run(start, start + TICK, live=True, on_missed=told.append)
        assert told == []


def test_shop_that_opens_later_is_healed_and_owes_nothing_of_the_time_before(tmp_path):
    with mirror(tmp_path, orders_per_hour=4) as shop:
        everybody = fetch_shops(shop.client)
        late = everybody[-1]
        told: list[windows.Window] = []

        def run(shops) -> None:
            shop.runs += 1
            start = here(shop)
            shop.clock.advance(timedelta(days=1).total_seconds())
            plan = shop.plan(start, here(shop), shops=shops, live=True, on_missed=told.append)
            for piece in plan:
                shop.one(piece)

        for _ in range(9):
            run(everybody[:-1])
        run(everybody)
        assert told == []
        spans = [
            (one.start, one.end)
            for one in shop.target.coverage("trades", "upd_time", START)
            if late.id in one.shops and one.method == BASE and one.state == "sealed"
        ]
        assert windows.gaps(here(shop) - timedelta(days=7), here(shop), spans) == []


def test_window_of_a_shop_that_was_removed_does_not_stay_open_for_good(shop):
    """Nobody can ask for that shop any more; what the others have is proven."""
    everybody = fetch_shops(shop.client)
    start = here(shop)
    shop.clock.advance(TICK.total_seconds())

    def plan(shops, begin):
        return shop.plan(begin, here(shop), run=f"run-{begin:%H%M}", shops=shops, live=True)

    plan(everybody, start)  # and its worker died
    left = everybody[1:]
    for _ in range(2):
        begin = here(shop)
        shop.clock.advance(TICK.total_seconds())
        for piece in plan(left, begin):
            shop.one(piece)
    plan(left, here(shop) - TICK)
    assert shop.rows("SELECT count(*) FROM kuaimai_window WHERE state = 'open' AND pages IS NULL") == [(0,)]


def test_target_that_comes_back_from_an_older_backup_is_healed_by_the_next_run(tmp_path):
    """Its proof comes back with it, so it knows what it lacks."""
    with mirror(tmp_path, orders_per_hour=12) as shop:
        assert shop.tick().sealed
        shop.target.close()
        backup = (tmp_path / "target.db").read_bytes()
        start = here(shop)
        shop.clock.advance(timedelta(hours=3).total_seconds())
        assert shop.run(start, here(shop), live=True).sealed
        assert shop.differences(START) == {}
        shop.target.close()
        (tmp_path / "target.db").write_bytes(backup)
        assert shop.differences(START)
        assert shop.tick().sealed
        assert shop.differences(START) == {}
        assert shop.open_windows() == 0


class Died(BaseException):
    """Stands for the end of a process: nothing catches it."""


def test_load_that_dies_at_any_of_its_statements_leaves_all_or_nothing(tmp_path, pg_url):
    """And never a window that is sealed without its rows; the next load lands what is missing, once."""
    tables = ("kuaimai_trade", "kuaimai_trade_line", "kuaimai_quarantine", "kuaimai_window")
    with mirror(tmp_path, pg_url, faults=Faults(bad_amount=0.1)) as shop:
        source = shop.pipeline.source.model_copy(update={"enrich": ()})
        shop.pipeline = shop.pipeline.model_copy(update={"source": source})
        (piece,) = shop.plan(START - timedelta(hours=2), START, run="once")
        extracted = stages.extract(shop.pipeline, piece, shop.client, shop.staging, now=shop.clock)
        transformed = stages.transform(shop.pipeline, extracted, shop.staging)

        def load() -> None:
            stages.load(shop.pipeline, transformed, shop.staging, shop.target)

        def held() -> list[int]:
            return [shop.rows(f"SELECT count(*) FROM {table}")[0][0] for table in tables]

        def sealed() -> int:
            return shop.rows("SELECT count(*) FROM kuaimai_window WHERE state = 'sealed'")[0][0]

        load()
        whole, windows_sealed = held(), sealed()
        assert all(whole)
        empty = f"TRUNCATE {', '.join(tables)}"
        left = [0]

        def step(*_) -> None:
            left[0] -= 1
            if not left[0]:
                raise Died

        for moment in ("before_cursor_execute", "commit"):
            died, at = True, 0
            while died:
                at += 1
                with shop.target.engine.begin() as connection:
                    connection.execute(sa.text(empty))
                left[0] = at
                sa.event.listen(shop.target.engine, moment, step)
                try:
                    load()
                    died = False
                except Died:
                    assert (held(), sealed()) in (([0] * len(tables), 0), (whole, windows_sealed))
                finally:
                    sa.event.remove(shop.target.engine, moment, step)
                load()
                assert (held(), sealed()) == (whole, windows_sealed)
            assert at > (20 if moment == "before_cursor_execute" else 1)
