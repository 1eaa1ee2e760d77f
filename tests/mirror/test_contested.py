"""A window that never adds up is told once, keeps nothing waiting, and is closed by the first seal."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import pytest
from installation import START, mirror

from kuaimai.errors import Transient
from kuaimai.extract import windows
from kuaimai.gateway.clock import GATEWAY_ZONE
from kuaimai.load.proof import MOST_TRIES

BASE = "erp.trade.outstock.simple.query"


@pytest.fixture
def shop(tmp_path):
    with mirror(tmp_path, orders_per_hour=60) as made:
        yield made


def miscount(shop, monkeypatch, moment: datetime) -> list[bool]:
    """Let the gateway report one order too many wherever a moment is asked for, until the list is emptied."""
    send, wrong = shop.client.wire.send, [True]

    def sending(method, params, *, session):
        answer = send(method, params, session=session)
        if method != BASE or "total" not in answer.body or not wrong:
            return answer
        start, end = (
            datetime.strptime(params[name], "%Y-%m-%d %H:%M:%S").replace(tzinfo=GATEWAY_ZONE)
            for name in ("startTime", "endTime")
        )
        if not start <= moment <= end:
            return answer
        return replace(answer, body={**answer.body, "total": answer.body["total"] + 1})

    monkeypatch.setattr(shop.client.wire, "send", sending)
    return wrong


def states(shop) -> dict[str, int]:
    return dict(shop.rows("SELECT state, count(*) FROM kuaimai_window GROUP BY state"))


def test_window_that_never_adds_up_is_contested_and_left_alone(shop, monkeypatch):
    wrong = miscount(shop, monkeypatch, START + timedelta(minutes=2, seconds=30))
    told = []
    for _ in range(MOST_TRIES + 4):
        told += shop.tick().contested
    assert {(one.method, one.dimension) for one in told} == {(BASE, "upd_time")}
    assert all(one.start <= START + timedelta(minutes=2, seconds=30) <= one.end for one in told)
    assert all(one.end - one.start < timedelta(minutes=5) for one in told)
    assert len({one.window_id for one in told}) == len(told)
    assert set(states(shop)) <= {"sealed", "superseded", "contested"}
    assert shop.open_windows() == len(told)

    before = len(shop.box.requests)
    calm = shop.tick()
    assert calm.sealed
    assert all("09:02" not in one.params.get("startTime", "") for one in shop.box.requests[before:])
    assert shop.differences(START) == {}

    wrong.clear()
    assert shop.run(START, START + timedelta(minutes=5)).sealed
    assert set(states(shop)) == {"sealed", "superseded"}


def test_what_never_adds_up_keeps_no_outage_from_being_healed(shop, monkeypatch):
    miscount(shop, monkeypatch, START + timedelta(minutes=2, seconds=30))
    shop.tick()
    shop.clock.advance(3 * 3600)
    for _ in range(MOST_TRIES + 1):
        shop.tick()
    assert states(shop).get("open", 0) == 0
    assert shop.differences(START) == {}
    assert shop.tick().sealed


def test_time_that_cannot_even_be_read_starves_no_later_time(shop, monkeypatch):
    """The gateway fails for the oldest hours: whoever heals them dies in the call, and no load counts it."""
    shop.tick()
    shop.clock.advance(5 * 3600)
    monkeypatch.setattr("kuaimai.pipeline.slices.plan", partial(windows.plan, most_heals=2))
    send, dead_until = shop.client.wire.send, START + timedelta(hours=2)

    def sending(method, params, *, session):
        start = params.get("startTime", "9999")
        if method == BASE and start < f"{dead_until:%Y-%m-%d %H:%M:%S}":
            raise Transient("out of order")
        return send(method, params, session=session)

    def run() -> None:
        """Take each slice for itself, as mapped tasks do."""
        now = datetime.fromtimestamp(shop.clock(), GATEWAY_ZONE)
        shop.runs += 1
        plan = shop.plan(now, now + timedelta(minutes=5), live=True)
        shop.clock.advance(300)
        for piece in plan:
            with contextlib.suppress(Transient):
                shop.one(piece)

    monkeypatch.setattr(shop.client.wire, "send", sending)
    for _ in range(6):
        run()
    missing = shop.differences(dead_until)
    assert missing == {}

    dead_until = START - timedelta(hours=1)  # the first run's overlap lies before START
    for _ in range(3):
        run()
    assert shop.differences(START) == {}
    assert shop.tick().sealed
    assert set(states(shop)) == {"sealed"}
