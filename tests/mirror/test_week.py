"""A simulated week in which everything goes wrong at once; the counts are printed."""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from datetime import datetime, timedelta

import pytest
from doomed import killed
from installation import CHINA, START, TRADES, mirror

from kuaimai.errors import KuaimaiError
from kuaimai.pipeline import reconcile
from kuaimai.pipeline.manifests import to_manifest
from kuaimai.pipeline.scopes import fetch_shops
from kuaimai.sandbox import Failure, Faults

TICK = timedelta(hours=3)
TICKS_A_DAY = 8
DAYS = 7
KILL = 3  # tick of every day at which the worker is killed
CLOCK_ERRORS = (0, -240, 300, 0, 150, -60, 0)  # seconds, a step every midnight

# Few orders of the time before the week: the first night finds them one by one.
WORLD = {"orders_per_hour": 12, "history_orders": 100, "days_back": 2}
FAULTS = {
    "late_rows": 0.05,
    "late_seconds": 9000,  # long after the overlap of ten minutes
    "null_modified": 0.03,
    "duplicates": 1,
    "shuffle_rows": True,
    "shuffle_lines": True,
    "unstable_ties": True,
    "total_as_string": True,
    "trace_key": "random",
}


def storms() -> list[Failure]:
    return [
        Failure("429", share=0.04),
        Failure("503", share=0.01),
        Failure("truncated", share=0.02),
        Failure("disconnect", share=0.02),
        Failure("html", share=0.01),
        Failure("busy", share=0.01),
    ]


@pytest.fixture
def wrong_zone(monkeypatch):
    monkeypatch.setenv("TZ", "America/Los_Angeles")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.long
def test_a_week_of_everything_at_once_ends_as_a_mirror_of_the_truth(  # noqa: C901, PLR0915 - a week is long
    tmp_path, wrong_zone, capsys
):
    happened: Counter[str] = Counter()
    chance = random.Random(7)
    mended: list[reconcile.Outcome] = []
    with mirror(tmp_path, faults=Faults(plan=storms(), **FAULTS), **WORLD) as shop:

        def here() -> datetime:
            return datetime.fromtimestamp(shop.clock(), CHINA)

        def attempt(what: str, do) -> None:
            try:
                do()
                happened[what] += 1
            except KuaimaiError:
                happened[f"{what} failed"] += 1

        def doomed(start: datetime, end: datetime) -> None:
            plan = shop.plan(start, end, run=f"doomed-{start:%d%H%M}", live=True)
            given = shop.box.credentials
            facts = {
                "pipeline": str(TRADES),
                "staging": str(tmp_path / "staging"),
                "target": shop.url,
                "url": shop.box.url,
                "app_key": given.app_key,
                "app_secret": given.app_secret,
                "access_token": given.access_token,
                "now": shop.clock(),
            }
            steps = chance.randint(2, 40)
            happened["killed"] += killed([to_manifest(piece) for piece in plan], facts, steps)

        def nightly() -> reconcile.Outcome:
            shop.runs += 1
            night = reconcile.Night(
                pipeline=shop.pipeline,
                run=f"reconcile-{shop.runs}",
                until=here(),
                shops=fetch_shops(shop.client),
                client=shop.client,
                staging=shop.staging,
                now=shop.clock,
            )
            return reconcile.reconcile(night, shop.target)

        for tick in range(DAYS * TICKS_A_DAY):
            error = CLOCK_ERRORS[tick // TICKS_A_DAY]
            shop.client.wire.now = lambda error=error: shop.clock() + error
            start = here()
            shop.clock.advance(TICK.total_seconds())
            end = here()
            if tick % TICKS_A_DAY == KILL:
                with contextlib.suppress(KuaimaiError):
                    doomed(start, end)
            else:
                attempt("live", lambda start=start, end=end: shop.run(start, end, live=True))
            if tick % 4 == 1:
                attempt("created", shop.look_back)
            if end.hour == 3:
                since = end - timedelta(days=1)
                attempt(
                    "pay_time",
                    lambda since=since, end=end: shop.run(since, end, live=True, dimension="pay_time"),
                )
            if end.hour == 6:
                attempt("reconcile", lambda: mended.append(nightly()))
        # The storm ends, the next runs and one more night come.
        shop.box.faults.plan = []
        for _ in range(7):
            start = here()
            shop.clock.advance(TICK.total_seconds())
            attempt("live", lambda start=start: shop.run(start, here(), live=True))
        attempt("created", shop.look_back)
        last = here().replace(hour=0)
        late = shop.differences(START)
        outcome = nightly()
        mended += [outcome]

        truth = shop.box.truth()
        settled = {sid for sid, one in truth.items() if one["updTime"] < last.timestamp() * 1000}
        differ = {sid: why for sid, why in shop.differences(START).items() if sid in settled}
        states = dict(shop.rows("SELECT state, count(*) FROM kuaimai_window GROUP BY state"))
        found = {name: sum(one.total(name) for one in mended) for name in ("missing", "repaired", "changed")}
        unmodified = sum(truth[sid]["modified"] is None for sid in settled)
        with capsys.disabled():
            print(f"\na week: {len(truth)} orders, {len(shop.box.requests)} requests, {dict(happened)}")  # noqa: T201 - the counts are asked for
            print(f"windows: {states}; found in the nights: {found}; left to the last: {len(late)}")  # noqa: T201
            print(f"{len(settled)} orders compared, {unmodified} without `modified`: {len(differ)} differ")  # noqa: T201
        assert happened["killed"] >= DAYS
        assert found["changed"] > 0
        assert outcome.problems == []
        assert differ == {}
        assert set(states) <= {"sealed", "superseded"}
