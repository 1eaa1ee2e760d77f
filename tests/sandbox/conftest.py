"""Sandboxes for tests of single methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime

import pytest
import requests
from sandbox_caller import Caller

from kuaimai.sandbox import Faults, Sandbox, World
from kuaimai.sandbox.world import GMT8


@pytest.fixture
def open_box(clock) -> Iterator[Callable[..., Caller]]:
    """Open a sandbox whose clock stands some hours after its start."""
    with ExitStack() as stack:

        def open_(*faults: str, hours: float = 12, **settings) -> Caller:
            start = datetime(2026, 3, 1, tzinfo=GMT8)
            world = World(start, **({"history_orders": 300, "orders_per_hour": 4} | settings))
            clock.at = world.start_second + hours * 3_600 + 0.5
            box = stack.enter_context(Sandbox(world, Faults.parse(list(faults)), clock))
            return Caller(box, stack.enter_context(requests.Session()))

        yield open_
