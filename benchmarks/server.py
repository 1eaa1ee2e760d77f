"""A gateway that is not the bottleneck: pages of a rendered corpus, sent from the page cache by the kernel.

It answers what every way really asks (windows by `upd_time`, page numbers and sizes, shop ids, the list of
shops) with the sandbox's own records and envelope, `total` on page 1 only.
Signatures are not checked, on purpose: a benchmark of clients must not pay for the server's hashing; that the
clients sign rightly is what the tests against the sandbox show.

A thread a connection; `os.sendfile` moves a page without Python touching it, outside the interpreter lock.

    python benchmarks/server.py --orders 20000 --latency 0.05 --rate-limit 15

The first line on its output is JSON: the URL. On SIGTERM it stops; `GET /log` gives when requests arrived.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import signal
import socket
import sys
import threading
import time
from array import array
from bisect import bisect_left
from collections import deque
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from corpus import CHINA, FOLDER

OUTSTOCK = "erp.trade.outstock.simple.query"
SHOPS = "erp.shop.list.query"
_MOST_A_PAGE = 200
_HEAD = (
    b"HTTP/1.1 %d %s\r\nContent-Type: application/json;charset=UTF-8\r\n"
    b"Date: %s\r\nContent-Length: %d\r\n\r\n"
)
_TAIL = b"]}"


class Pages:
    """A corpus, opened: which slice of its file answers a query."""

    def __init__(self, folder: Path) -> None:
        with (folder / "index.bin").open("rb") as file:
            size = array("q")
            size.fromfile(file, 1)
            self.seconds, self.offsets, self.shops = array("q"), array("q"), array("q")
            self.seconds.fromfile(file, size[0])
            self.offsets.fromfile(file, size[0] + 1)
            self.shops.fromfile(file, size[0])
        self.file = os.open(folder / "records.json", os.O_RDONLY)
        self.bytes = mmap.mmap(self.file, 0, prot=mmap.PROT_READ)
        self.shop_list = json.loads((folder / "shops.json").read_bytes())
        self.shop_ids = frozenset(str(row["userId"]) for row in self.shop_list)

    def window(self, first: int, last: int) -> tuple[int, int]:
        """The half-open range of records from second `first` to `last`, both included."""
        return bisect_left(self.seconds, first), bisect_left(self.seconds, last + 1)

    @lru_cache(maxsize=64)  # noqa: B019 - lives as long as the process
    def of_shops(self, low: int, high: int, wanted: frozenset[str]) -> list[int]:
        """The records of some of the shops in a range."""
        ids = {int(one) for one in wanted}
        return [at for at in range(low, high) if self.shops[at] in ids]


class RateLimiter:
    """Like the sandbox's: counts the requests of the last second."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._recent: deque[float] = deque()
        self._lock = threading.Lock()

    def allows(self) -> bool:
        """Whether one more request fits; a refused one does not count."""
        if not self._per_second:
            return True
        with self._lock:
            now = time.monotonic()
            while self._recent and self._recent[0] <= now - 1:
                self._recent.popleft()
            if len(self._recent) >= self._per_second:
                return False
            self._recent.append(now)
            return True


class Server:
    """Accepts connections and answers on each in a thread of its own.

    Args:
        pages: what to serve.
        latency: seconds between a request and its answer.
        rate_limit: requests a second beyond which HTTP 429 is the answer; 0 for none.
    """

    def __init__(self, pages: Pages, *, latency: float = 0.0, rate_limit: int = 0) -> None:
        self.pages = pages
        self.latency = latency
        self.limiter = RateLimiter(rate_limit)
        self.log: list[tuple[float, int]] = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.listener.getsockname()[1]

    def serve(self) -> None:
        """Accept until the process ends."""
        while True:
            connection, _ = self.listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._converse, args=(connection,), daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        waiting = b""
        with connection:
            while True:
                try:
                    while (end := waiting.find(b"\r\n\r\n")) < 0:
                        more = connection.recv(65_536)
                        if not more:
                            return
                        waiting += more
                    head, waiting = waiting[:end].decode("latin-1"), waiting[end + 4 :]
                    line, *headers = head.split("\r\n")
                    length = next((int(h[15:]) for h in headers if h[:15].lower() == "content-length:"), 0)
                    while len(waiting) < length:
                        waiting += connection.recv(65_536)
                    body, waiting = waiting[:length], waiting[length:]
                    self._answer(connection, line, body)
                except OSError:
                    return  # the client went away

    def _answer(self, connection: socket.socket, line: str, body: bytes) -> None:
        if line.startswith("GET /log"):
            self._send(connection, 200, json.dumps(self.log).encode())
            return
        arrived = time.time()
        query = dict(parse_qsl(line.split(" ")[1].partition("?")[2]))
        form = {**query, **dict(parse_qsl(body.decode()))}
        allowed = self.limiter.allows()
        self.log.append((arrived, 200 if allowed else 429))
        if self.latency:
            time.sleep(self.latency)
        if not allowed:
            self._send(connection, 429, b"")
            return
        method = form.get("method", "")
        try:
            if method == OUTSTOCK:
                self._orders(connection, form)
            elif method == SHOPS:
                rows = self.pages.shop_list
                self._send(connection, 200, json.dumps({"total": len(rows), "list": rows}).encode())
            else:
                self._refuse(connection, "21", f"the benchmark's server does not know {method!r}")
        except (KeyError, ValueError) as error:
            self._refuse(connection, "50", f"the benchmark's server does not understand: {error!r}")

    def _orders(self, connection: socket.socket, form: dict[str, str]) -> None:
        pages = self.pages
        if form["timeType"] != "upd_time" or form.get("useCursor") == "true" or form.get("queryType") == "1":
            raise ValueError("only windows of upd_time by page number")
        low, high = pages.window(_second(form["startTime"]), _second(form["endTime"]))
        size = min(int(form.get("pageSize", "20")), _MOST_A_PAGE)
        skip = (int(form.get("pageNo", "1")) - 1) * size
        shops = (
            frozenset(form["userIds"].split(",")) & pages.shop_ids if form.get("userIds") else pages.shop_ids
        )
        found = range(low, high) if shops == pages.shop_ids else pages.of_shops(low, high, shops)
        total = b'"total":%d,' % len(found) if skip == 0 else b""
        opening = b'{"success":true,"traceId":"%d",%s"list":[' % (time.time_ns(), total)
        rows = found[skip : skip + size]
        if not rows:
            self._send(connection, 200, opening + _TAIL)
        elif isinstance(rows, range):
            start, end = pages.offsets[rows[0]], pages.offsets[rows[-1] + 1] - 1
            length = len(opening) + end - start + len(_TAIL)
            connection.sendall(_head(200, length) + opening, socket.MSG_MORE)
            while start < end:
                start += os.sendfile(connection.fileno(), pages.file, start, end - start)
            connection.sendall(_TAIL)
        else:
            records = (pages.bytes[pages.offsets[at] : pages.offsets[at + 1] - 1] for at in rows)
            self._send(connection, 200, opening + b",".join(records) + _TAIL)

    def _refuse(self, connection: socket.socket, code: str, message: str) -> None:
        self._send(connection, 200, json.dumps({"success": False, "code": code, "msg": message}).encode())

    def _send(self, connection: socket.socket, status: int, body: bytes) -> None:
        connection.sendall(_head(status, len(body)) + body)


def _head(status: int, length: int) -> bytes:
    reason = b"OK" if status == 200 else b"Too Many Requests"  # noqa: PLR2004
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime()).encode()
    return _HEAD % (status, reason, date, length)


@lru_cache(maxsize=10_000)
def _second(text: str) -> int:
    return int(datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=CHINA).timestamp())


def main(arguments: Any = None) -> None:
    """Serve one corpus until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--orders", type=int, required=True)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds")
    parser.add_argument("--rate-limit", type=int, default=0, help="requests a second; 0 for none")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    pages = Pages(FOLDER / f"corpus-{options.orders}")
    server = Server(pages, latency=options.latency, rate_limit=options.rate_limit)
    print(json.dumps({"url": f"http://127.0.0.1:{server.port}/router", "pid": os.getpid()}), flush=True)
    server.serve()


if __name__ == "__main__":
    main()
