"""The request budget with real processes on real databases."""

from __future__ import annotations

from itertools import pairwise

import pytest
from workers import workers

from kuaimai.state import Store

KEY = "budget:demo"


def _take_many(url, slots):
    store = Store.open(url)
    for _ in range(40):
        taken = store.take_slots(KEY, lane="live", count=3, rate=200, burst=5)
        slots.put([taken.first + number / 200 for number in range(len(taken.waits))])
    store.close()


@pytest.mark.parametrize("database", ["sqlite", "postgres", "mariadb"])
def test_processes_never_get_the_same_slot_nor_slots_closer_than_the_rate(request, tmp_path, database):
    if database == "sqlite":
        url = f"sqlite:///{tmp_path}/s.db"
    else:
        url = request.getfixturevalue({"postgres": "pg_url", "mariadb": "maria_url"}[database])
    context = workers()
    slots = context.Queue()
    processes = [context.Process(target=_take_many, args=(url, slots)) for _ in range(3)]
    for process in processes:
        process.start()
    found = sorted(moment for _ in range(3 * 40) for moment in slots.get(timeout=300))
    for process in processes:
        process.join(300)
    assert len(found) > 3 * 40
    assert all(later - earlier >= 1 / 200 - 1e-6 for earlier, later in pairwise(found))
