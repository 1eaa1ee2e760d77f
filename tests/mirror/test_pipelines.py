"""Every shipped pipeline: the mirror holds what the gateway has, value by value, and proves it."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from installation import CHINA, SHIPPED, START, mirror

from kuaimai.sandbox import Faults

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
# The week before, and the time that the sandbox's history reaches further back.
PAST = START - 8 * DAY
# What is older is left to the backfill.
RECENT = {"archive_orders": 0, "archive_documents": 0}
TIMED = ["aftersales", "purchase_returns", "purchases", "receipts"]
SCANNED = ["items", "shops", "stock", "suppliers", "warehouses"]


def scan(shop, at: datetime | None = None):
    """Read everything, as the schedule would, or by hand up to some moment."""
    return shop.look_back("scan") if at is None else shop.run(at - HOUR, at, dimension="scan")


def fill(shop):
    """Bring everything that there is into the target."""
    return shop.run(PAST, START) if shop.pipeline.name in TIMED else scan(shop)


def live(shop, minutes: int, *, each: int = 15) -> None:
    """Let time pass, each stretch read by one scheduled run."""
    for _ in range(minutes // each):
        start = datetime.fromtimestamp(shop.clock(), CHINA)
        shop.clock.advance(each * 60)
        assert shop.run(start, start + timedelta(minutes=each), live=True).sealed


def test_every_shipped_pipeline_is_tried_here():
    assert {path.stem for path in SHIPPED.glob("*.yaml")} == {"trades", *TIMED, *SCANNED}


@pytest.mark.parametrize("name", [*TIMED, *SCANNED])
def test_mirror_holds_what_the_gateway_has(tmp_path, pg_url, name):
    faults = Faults(fuzz=0.3, shuffle_lines=True)
    with mirror(tmp_path, pg_url, pipeline=name, faults=faults, **RECENT) as shop:
        summary = fill(shop)
        assert (summary.sealed, summary.landed) == (True, len(shop.truth()))
        assert summary.landed > 1
        assert shop.wrong() == []
        assert shop.open_windows() == 0
        again = fill(shop)
        assert (again.sealed, again.inserted + again.updated + again.missing) == (True, 0)


@pytest.mark.parametrize("name", [*TIMED, "items", "stock"])
def test_changes_follow_within_one_run(tmp_path, pg_url, name):
    # One purchase in a few comes back, so returns are rare.
    world = {"purchases_per_day": 400} if name == "purchase_returns" else {}
    with mirror(tmp_path, pg_url, pipeline=name, **world) as shop:
        before = set(shop.truth())
        fill(shop)
        live(shop, 120)
        changed = [one for one in shop.wrong(since=START) if "missing" in one or "has" in one]
        assert changed == []
        assert set(shop.truth()) - before or name == "stock"
        assert shop.open_windows() == 0
