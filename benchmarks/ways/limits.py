"""The physical limit: what a perfect program would still have to pay for the same orders, stage by stage.

    1, 8, 32    so many plain connections fetch every page and throw it away
    parse       orjson on the pages; from there to Arrow tables of the target's columns ("explode")
    write       COPY of prepared rows into temporary tables and INSERT … ON CONFLICT into the target

Prints one JSON object with seconds and CPU seconds of this process; the runner reads PostgreSQL's.
"""

from __future__ import annotations

import io
import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode, urlsplit

from asking import FACTS, Table, page_form, ready, signed

STAGE = sys.argv[2]


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


def all_pages() -> list[tuple[tuple[str, str], int]]:
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


def bodies() -> Iterator[bytes]:
    """Yield every page."""
    line = Line()
    for day, page in all_pages():
        yield line.ask(day, page, keep=True)


def parse_and_explode() -> None:
    """Take the CPU seconds of parsing with orjson and of making Arrow tables, without the download."""
    import orjson
    from by_hand import arrow

    spent = {"parse": 0.0, "explode": 0.0}
    tables = FACTS["tables"]
    arrow([{}], tables["kuaimai_trade"])  # Arrow's first array imports pandas
    for body in bodies():
        start = time.process_time()
        orders = orjson.loads(body)["list"]
        parsed = time.process_time()
        lines = [{**line, "sid": order["sid"]} for order in orders for line in order["orders"]]
        arrow(orders, tables["kuaimai_trade"])
        arrow(lines, tables["kuaimai_trade_line"])
        spent["parse"] += parsed - start
        spent["explode"] += time.process_time() - parsed
    print(json.dumps({name: round(value, 3) for name, value in spent.items()}))


def write() -> None:
    """COPY prepared CSV into stage tables and merge; once into empty tables."""
    import orjson
    import psycopg2
    from by_hand import arrow
    from pyarrow import csv

    tables = [Table("kuaimai_trade"), Table("kuaimai_trade_line")]
    prepared: list[list[bytes]] = []
    options = csv.WriteOptions(include_header=False)
    batch: list[dict[str, Any]] = []

    def prepare() -> None:
        lines = [{**line, "sid": order["sid"]} for order in batch for line in order["orders"]]
        made = []
        for table, records in zip(tables, (batch, lines), strict=True):
            buffer = io.BytesIO()
            csv.write_csv(arrow(records, FACTS["tables"][table.name]), buffer, options)
            made.append(buffer.getvalue())
        prepared.append(made)
        batch.clear()

    for body in bodies():
        batch += orjson.loads(body)["list"]
        if len(batch) >= 10_000:  # noqa: PLR2004
            prepare()
    if batch:
        prepare()
    database = psycopg2.connect(FACTS["target"])
    cursor = database.cursor()
    for table in tables:
        cursor.execute(table.create)
        cursor.execute(f"CREATE TEMPORARY TABLE stage_{table.name} (LIKE {table.name})")
    database.commit()
    with clocked() as figures:
        for made in prepared:
            for table, text in zip(tables, made, strict=True):
                cursor.copy_expert(f"COPY stage_{table.name} FROM STDIN WITH (FORMAT csv)", io.BytesIO(text))
                cursor.execute(
                    table.upsert.replace("VALUES %s", f"SELECT * FROM stage_{table.name} ORDER BY 1")
                )
                cursor.execute(f"TRUNCATE stage_{table.name}")
        database.commit()
    print(json.dumps(figures))


if __name__ == "__main__":
    ready()
    if STAGE == "parse":
        parse_and_explode()
    elif STAGE == "write":
        write()
    else:
        download(int(STAGE))
