"""While a set moves: what a read calls proven holds every record that was there all the time."""

from __future__ import annotations

import json
from collections import Counter
from random import Random

from moving_set import ORDERS, MemoryStaging, MovingSet, second

from kuaimai.errors import DataError
from kuaimai.extract.paging import read_parts
from kuaimai.extract.reads import COUNTS, READINGS, SNAPSHOT, UNPROVEN, Read
from kuaimai.extract.staging import Staging
from kuaimai.extract.windows import Shop, Window

METHOD = "erp.trade.outstock.simple.query"
SHOPS = [Shop("900001", "fxg")]
INTERLEAVINGS = 3000


def world(random: Random) -> MovingSet:
    """Records evenly spread, in bursts of one second, or both; calm, lively or wild."""
    seconds = random.choice((0, 1, 3, 60, 900))
    times = [random.randint(0, seconds) for _ in range(random.choice((0, 5, 19, 30, 70)))]
    if random.random() < 0.5:
        times += [random.randint(0, seconds)] * random.randint(1, 45)
    random.shuffle(times)
    restless = random.choice((0.0, 0.02, 0.1, 0.5))
    return MovingSet(
        random,
        times,
        seconds,
        order=random.choice(ORDERS),
        cap=random.choice((200, 200, 200, 9)),
        leaves=restless * random.random(),
        enters=restless * random.random(),
        slow=random.choice((0.0, 0.0, 0.5)),
    )


def read(gateway: MovingSet, staging: Staging, dimension: str = "upd_time", **how) -> list[Read]:
    window = Window(second(0), second(gateway.seconds), dimension)
    given = {"rank": 0, "page_size": 20, "folder": "r", **how}
    return read_parts(gateway, METHOD, window, SHOPS, staging=staging, **given)


def keys_of(one: Read, staging: Staging) -> set[int]:
    pages = [json.loads(staging.read_compressed(name)) for name in one.page_names(staging)]
    return {row["sid"] for page in pages for row in page["list"]}


def lost(gateway: MovingSet, reads: list[Read], staging: Staging) -> set[int]:
    """Records that stayed and that a proven read of their time has not got; its numbers must agree."""
    missing = set()
    for one in reads:
        if not one.stable:
            continue
        keys = keys_of(one, staging)
        if one.proof != READINGS:
            assert one.total_before == one.total_after == one.distinct
        assert one.distinct == len(keys)
        start, end = one.window.start.timestamp(), one.window.end.timestamp()
        first = second(0).timestamp()
        missing |= {
            key for key, time in gateway.stayed().items() if start <= first + time <= end and key not in keys
        }
    return missing


def test_no_record_that_stayed_is_missing_from_what_is_proven():
    proofs: Counter[str] = Counter()
    for seed in range(INTERLEAVINGS):
        gateway, staging = world(Random(seed)), MemoryStaging()
        try:
            reads = read(gateway, staging, by_cursor=bool(seed % 2), connections=3 if seed % 5 == 0 else 1)
        except DataError:  # two small pages of a shuffled second can be the same by chance
            proofs["refused"] += 1
            continue
        assert lost(gateway, reads, staging) == set(), seed
        assert (reads[0].window.start, reads[-1].window.end) == (second(0), second(gateway.seconds))
        proofs.update(one.proof for one in reads)
    assert proofs[SNAPSHOT] > INTERLEAVINGS / 2
    assert min(proofs[COUNTS], proofs[UNPROVEN]) > INTERLEAVINGS / 20, proofs
    assert proofs["refused"] < INTERLEAVINGS / 100


class ChangingCap(MovingSet):
    """Gives pages of another size at every request, silently."""

    def call(self, method, params):
        self.cap = self.random.choice((200, 20, 12, 7))
        return super().call(method, params)


def test_cap_that_changes_while_a_window_is_read_hides_no_record():
    proofs: Counter[str] = Counter()
    for seed in range(INTERLEAVINGS // 10):
        random = Random(seed)
        times = [random.randint(0, 60) for _ in range(70)] + [random.randint(0, 60)] * random.randint(1, 45)
        gateway = ChangingCap(random, times, 60, order=random.choice(ORDERS), leaves=0.02)
        staging = MemoryStaging()
        try:
            reads = read(gateway, staging, by_cursor=bool(seed % 2), connections=1)
        except DataError:
            proofs["refused"] += 1
            continue
        assert lost(gateway, reads, staging) == set(), seed
        proofs.update(one.proof for one in reads)
    assert proofs[SNAPSHOT] > INTERLEAVINGS / 20, proofs
