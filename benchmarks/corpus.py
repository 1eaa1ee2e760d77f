"""The orders of a benchmark, rendered once: the sandbox's own records, as JSON bytes in order of `updTime`.

A corpus is a folder: `records.json` holds the records one after the other, each followed by a comma, so that
any page of any window is one slice of the file; `index.bin` holds the second, the offset and the shop of
each; `truth.json` says what must be in the database afterwards.

    python benchmarks/corpus.py 20000            (else made on demand; kept in .bench/)
"""

from __future__ import annotations

import json
import sys
import time
from array import array
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from hashlib import md5
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "plugins"))

CHINA = timezone(timedelta(hours=8))
DAYS = 10
# Fixed, so that the same settings give the same bytes on any day.
END = datetime(2026, 11, 20, tzinfo=CHINA)
START = END - timedelta(days=DAYS)
FOLDER = ROOT / ".bench"
PAGE_SIZE = 200
# Splits make more records than were planned; the surplus is left out.
_RECORDS_PER_PLANNED = 1.09
# The sandbox draws one line for 60 % of its orders, two for 30 %, three for 10 %. Orders that others measured
# had 2.0 lines (4 kB); 30/40/30 gives as many.
_LINES = (0, 0, 0, 6, 6, 6, 6, 9, 9, 9)


@dataclass(frozen=True)
class Corpus:
    """A rendered corpus.

    Attributes:
        folder: where its files are.
        truth: orders, lines, bytes, and the sums that `measure.rows_are_right` compares.
    """

    folder: Path
    truth: dict[str, Any]

    def days(self, days: int = DAYS) -> list[tuple[str, str]]:
        """The windows that every way reads: one a day, as the gateway writes times."""
        form = "%Y-%m-%d %H:%M:%S"
        return [
            (
                (START + timedelta(days=day)).strftime(form),
                (START + timedelta(days=day + 1, seconds=-1)).strftime(form),
            )
            for day in range(days)
        ]


def digest(text: str) -> int:
    """The part of a key's MD5 that PostgreSQL sums up for the same key; see `measure.rows_are_right`."""
    return int(md5(text.encode(), usedforsecurity=False).hexdigest()[:8], 16)


def corpus(orders: int) -> Corpus:
    """Return the corpus of so many orders, made if it is missing."""
    folder = FOLDER / f"corpus-{orders}"
    truth = folder / "truth.json"
    if not truth.exists():
        started = time.monotonic()
        _render(orders, folder)
        print(f"{folder.name}: rendered in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return Corpus(folder, json.loads(truth.read_text()))


def _render(orders: int, folder: Path) -> None:
    import msgspec

    from kuaimai.sandbox.book import row_of, second_of
    from kuaimai.sandbox.desk import Desk
    from kuaimai.sandbox.faults import Faults
    from kuaimai.sandbox.merchant import shop_records
    from kuaimai.sandbox.steps import Draw
    from kuaimai.sandbox.tokens import SessionState, demo_credentials
    from kuaimai.sandbox.world import World, epoch_second

    class Merchant(World):
        """The sandbox's merchant with more lines an order."""

        def draws(self, n: int) -> tuple[int, ...]:
            drawn = super().draws(n)
            return (*drawn[: Draw.LINES], _LINES[drawn[Draw.LINES] % 10], *drawn[Draw.LINES + 1 :])

    planned = int(orders / _RECORDS_PER_PLANNED)
    world = Merchant(start=END, bulk=planned, bulk_days=DAYS, orders_per_hour=0, archive_orders=0, until=END)
    desk = Desk(world, Faults(), SessionState(demo_credentials(7), issued_at=0, ttl_seconds=1e9))
    desk.follow(epoch_second(END))
    index, low, high = desk.book.window("upd_time", epoch_second(START), epoch_second(END) - 1)
    assert high - low >= orders, f"{high - low} records for {orders}: lower _RECORDS_PER_PLANNED"
    encoder = msgspec.json.Encoder()
    seconds, offsets, shops = array("q"), array("q", [0]), array("q")
    truth: dict[str, Any] = {"orders": orders, "lines": 0}
    sids = line_ids = 0
    payment = line_payment = Decimal(0)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "records.json").open("wb") as file:
        for at in range(low, low + orders):
            key = index[at]
            snap = desk.book.snapshot(row_of(key))
            assert snap is not None
            record = desk.record(snap, "outstock")
            raw = encoder.encode(record) + b","
            file.write(raw)
            seconds.append(second_of(key))
            offsets.append(offsets[-1] + len(raw))
            shops.append(int(record["userId"]))
            sids += digest(str(record["sid"]))
            payment += Decimal(str(record.get("payment") or 0))
            for line in record["orders"]:
                line_ids += digest(str(line["id"]))
                line_payment += Decimal(str(line.get("payment") or 0))
            truth["lines"] += len(record["orders"])
    with (folder / "index.bin").open("wb") as file:
        for column in (array("q", [len(seconds)]), seconds, offsets, shops):
            column.tofile(file)
    (folder / "shops.json").write_bytes(encoder.encode(shop_records(world.shops)))
    truth.update(
        bytes=offsets[-1],
        sids=sids,
        line_ids=line_ids,
        payment=str(payment),
        line_payment=str(line_payment),
    )
    (folder / "truth.json").write_text(json.dumps(truth, indent=1))


if __name__ == "__main__":
    for size in sys.argv[1:]:
        print(json.dumps(corpus(int(size)).truth))
