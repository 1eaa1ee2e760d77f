"""The physical limit: what a perfect program would still have to pay for the same orders, stage by stage.

    1, 8, 32    so many plain connections fetch every page and throw it away
    parse       orjson on the pages; from there to Arrow tables of the target's columns ("explode")
    write       COPY of prepared rows into temporary tables and INSERT … ON CONFLICT into the target
    bare-work   all of this at the same time by a process a core, from pages in memory to merged rows

Prints one JSON object with seconds and CPU seconds of this process; the runner reads PostgreSQL's.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import socket
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from urllib.parse import urlencode, urlsplit

from asking import FACTS, Table, page_form, ready, signed

STAGE = sys.argv[2]
TABLES = ("kuaimai_trade", "kuaimai_trade_line")
# Day (begin and end as the gateway writes them) and number.
Page = tuple[tuple[str, str], int]
BATCH_PAGES = 50
MOST_SECONDS = 900.0


class Line:
    """A kept-alive connection that asks for pages and hands the bodies out or throws them away."""

    def __init__(self) -> None:
        url = urlsplit(FACTS["url"])
        self._socket = socket.create_connection((url.hostname, url.port))
        self._head = (
            f"POST {url.path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/x-www-form-urlencoded\r\n"
        )
        self._buffer = bytearray(1 << 20)

    def ask(self, day: tuple[str, str], page: int, *, keep: bool = False) -> bytes:
        """Return the body of one page, or nothing if it is not kept."""
        body = urlencode(signed(page_form(day, page)))
        self._socket.sendall(f"{self._head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        got = b""
        while b"\r\n\r\n" not in got:
            got += self._socket.recv(65_536)
        head, _, first = got.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        parts, have = [first], len(first)
        while have < length:
            size = self._socket.recv_into(self._buffer)
            have += size
            if keep:
                parts.append(bytes(self._buffer[:size]))
        return b"".join(parts) if keep else b""


def all_pages() -> list[Page]:
    """Return day and number of every page; the totals come from page 1 of each day."""
    line, found = Line(), []
    for day in FACTS["days"]:
        total = json.loads(line.ask(day, 1, keep=True))["total"]
        found += [(day, page) for page in range(1, -(-total // FACTS["page_size"]) + 1)]
    return found


def download(connections: int) -> None:
    """Fetch and discard every page."""
    waiting = iter(all_pages())
    lock = threading.Lock()

    def work() -> None:
        line = Line()
        while True:
            with lock:
                page = next(waiting, None)
            if page is None:
                return
            line.ask(*page)

    with clocked() as figures:
        threads = [threading.Thread(target=work) for _ in range(connections)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    print(json.dumps(figures))


@contextmanager
def clocked() -> Iterator[dict[str, float]]:
    """Measure seconds and CPU seconds of a block."""
    figures: dict[str, float] = {}
    wall, cpu = time.perf_counter(), time.process_time()
    yield figures
    figures["seconds"] = round(time.perf_counter() - wall, 3)
    figures["cpu"] = round(time.process_time() - cpu, 3)


def bodies(pages: Iterable[Page]) -> Iterator[bytes]:
    """Yield the pages' bodies."""
    line = Line()
    for day, page in pages:
        yield line.ask(day, page, keep=True)


def parse_and_explode() -> None:
    """Take the CPU seconds of parsing with orjson and of making Arrow tables, without the download."""
    import orjson
    from by_hand import arrow

    spent = {"parse": 0.0, "explode": 0.0}
    tables = FACTS["tables"]
    arrow([{}], tables["kuaimai_trade"])  # Arrow's first array imports pandas
    for body in bodies(all_pages()):
        start = time.process_time()
        orders = orjson.loads(body)["list"]
        parsed = time.process_time()
        lines = [{**line, "sid": order["sid"]} for order in orders for line in order["orders"]]
        arrow(orders, tables["kuaimai_trade"])
        arrow(lines, tables["kuaimai_trade_line"])
        spent["parse"] += parsed - start
        spent["explode"] += time.process_time() - parsed
    print(json.dumps({name: round(value, 3) for name, value in spent.items()}))


def texts(bodies: Iterable[bytes]) -> list[bytes]:
    """Return pages as the CSV texts of both tables, for COPY."""
    import orjson
    from by_hand import arrow, without_zone
    from pyarrow import csv

    options = csv.WriteOptions(include_header=False)
    orders = [order for body in bodies for order in orjson.loads(body)["list"]]
    lines = [{**line, "sid": order["sid"]} for order in orders for line in order["orders"]]
    made = []
    for name, records in zip(TABLES, (orders, lines), strict=True):
        table = without_zone(arrow(records, FACTS["tables"][name]))  # the session's zone is UTC
        buffer = io.BytesIO()
        csv.write_csv(table, buffer, options)
        made.append(buffer.getvalue())
    return made


class Target:
    """The target's two tables, filled by COPY and merge in one transaction."""

    def __init__(self) -> None:
        import psycopg2

        self._tables = [Table(name) for name in TABLES]
        self._database = psycopg2.connect(FACTS["target"], options="-c timezone=UTC")
        self._cursor = self._database.cursor()

    def create(self) -> None:
        """Make the tables; by one process, before the others look for them."""
        for table in self._tables:
            self._cursor.execute(table.create)
        self._database.commit()

    def open_stages(self) -> None:
        """Make this session's temporary tables."""
        for table in self._tables:
            self._cursor.execute(f"CREATE TEMPORARY TABLE stage_{table.name} (LIKE {table.name})")
        self._database.commit()

    def merge(self, made: Sequence[bytes]) -> None:
        """Copy and merge one batch."""
        for table, text in zip(self._tables, made, strict=True):
            stage = f"stage_{table.name}"
            self._cursor.copy_expert(f"COPY {stage} FROM STDIN WITH (FORMAT csv)", io.BytesIO(text))
            self._cursor.execute(table.upsert.replace("VALUES %s", f"SELECT * FROM {stage} ORDER BY 1"))
            self._cursor.execute(f"TRUNCATE {stage}")

    def commit(self) -> None:
        """End the transaction."""
        self._database.commit()


def write() -> None:
    """COPY prepared CSV into stage tables and merge; once into empty tables."""
    prepared = [texts(batch) for batch in batched(list(bodies(all_pages())))]
    target = Target()
    target.create()
    target.open_stages()
    with clocked() as figures:
        for made in prepared:
            target.merge(made)
        target.commit()
    print(json.dumps(figures))


def batched(pages: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Yield the pages of one COPY after the other."""
    for start in range(0, len(pages), BATCH_PAGES):
        yield pages[start : start + BATCH_PAGES]


def bare_work(pages: list[Page], all_ready: Barrier) -> None:
    """Parse, explode, copy and merge some pages that were fetched before the clock starts."""
    fetched = list(bodies(pages))
    target = Target()
    target.open_stages()
    texts(fetched[:1])  # imports
    all_ready.wait(MOST_SECONDS)
    for batch in batched(fetched):
        target.merge(texts(batch))
        target.commit()


def bare_work_together() -> None:
    """Let a process a core do the bare work at the same time; its seconds are the best that they allow."""
    Target().create()
    processes = len(os.sched_getaffinity(0))
    context = multiprocessing.get_context("spawn")
    all_ready = context.Barrier(processes + 1)
    pages = all_pages()
    workers = [
        context.Process(target=bare_work, args=(pages[first::processes], all_ready))
        for first in range(processes)
    ]
    for worker in workers:
        worker.start()
    all_ready.wait(MOST_SECONDS)
    with clocked() as figures:
        for worker in workers:
            worker.join()
    if any(worker.exitcode for worker in workers):
        raise SystemExit("a process of the bare work failed")
    print(json.dumps({"seconds": figures["seconds"], "processes": processes}))


if __name__ == "__main__":
    ready()
    if STAGE == "parse":
        parse_and_explode()
    elif STAGE == "write":
        write()
    elif STAGE == "bare-work":
        bare_work_together()
    else:
        download(int(STAGE))
