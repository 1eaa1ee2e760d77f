"""Somebody else's write API over real HTTP, in the manner of the seed article, with faults by the request."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "a-token-that-nobody-may-see"


class WriteApi:
    """What the API has, and how it answers.

    Attributes:
        posts: every request that it took: key of the request, and the records in it.
        calls: every request, by verb and path.
        faults: what happens to the next requests, one each: `400`, `429`, `500`, `503` (not taken), `lost`
            (taken, and the connection ends without an answer), `500-taken`.
        refused: how often a record, by its key, is refused among others.
        banned: keys because of which a whole request is refused.
        key: the records' key.
        said: why it refuses a record.
        retry_after: seconds that a busy API asks for.
        lists: whether its answer is the list of verdicts alone.
        says: what it answers, by HTTP 200, to a request with a banned record in place of HTTP 400.
        options: what it answers to OPTIONS, where path and token are right: status and headers.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.posts: list[tuple[str, list[dict[str, Any]]]] = []
        self.calls: list[tuple[str, str]] = []
        self.bodies: list[Any] = []
        self.faults: list[str] = []
        self.refused: dict[str, int] = {}
        self.banned: set[str] = set()
        self.key = "sid"
        self.retry_after = 7
        self.said = "被占用"
        self.lists = False
        self.says: dict[str, Any] = {}
        self.options: tuple[int, dict[str, str]] = (204, {"Allow": "OPTIONS, POST"})

    @property
    def taken(self) -> list[str]:
        """The keys it took, in order, as often as it took them."""
        return [row[self.key] for _, rows in self.posts for row in rows]

    @property
    def records(self) -> dict[str, dict[str, Any]]:
        """What it has now, by key."""
        return {row[self.key]: row for _, rows in self.posts for row in rows}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def api(self) -> WriteApi:
        return self.server.api  # type: ignore[attr-defined]

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, body: Any, **headers: str) -> None:
        text = json.dumps(body, ensure_ascii=False).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(text))}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(text)

    def do_GET(self) -> None:
        self.api.calls.append(("GET", self.path))
        there = self.path.rpartition("/")[2] in self.api.records
        self.answer(200 if there or self.api.says else 404, {} if there else self.api.says)

    def do_OPTIONS(self) -> None:
        self.api.calls.append(("OPTIONS", self.path))
        if self.is_ours():
            status, headers = self.api.options
            self.send_response(status)
            for name, value in {**headers, "Content-Length": "0"}.items():
                self.send_header(name, value)
            self.end_headers()

    def is_ours(self) -> bool:
        if self.path != "/api/orders":
            self.answer(404, {})
        elif self.headers["Authorization"] != f"Bearer {TOKEN}":
            self.answer(401, {"message": f"no such token: {self.headers['Authorization']}"})
        else:
            return True
        return False

    def do_POST(self) -> None:
        self.api.calls.append(("POST", self.path))
        text = self.rfile.read(int(self.headers["Content-Length"])).decode()
        if self.is_ours():
            self.take(text, self.api.faults.pop(0) if self.api.faults else "")

    def take(self, text: str, fault: str) -> None:
        if fault in ("400", "429", "500", "503"):
            self.answer(int(fault), {"message": f"broken by {TOKEN}"}, Retry_After=str(self.api.retry_after))
            return
        # Amounts are texts and ids are texts: nothing here can go through a float.
        body = json.loads(text, parse_float=lambda number: f"float {number}")
        self.api.bodies.append(body)
        rows = body.get("array", [body])
        if any(row[self.api.key] in self.api.banned for row in rows):
            self.answer(200 if self.api.says else 400, self.api.says or {"message": "a record is wrong"})
            return
        answers = [self.verdict(row[self.api.key]) for row in rows]
        good = [row for row, one in zip(rows, answers, strict=True) if one["success"]]
        self.api.posts.append((self.headers["Idempotency-Key"], good))
        if fault == "lost":
            self.close_connection = True
        else:
            whole = {"Id": len(self.api.posts), "data": {"code": 200, "result": answers}}
            self.answer(500 if fault == "500-taken" else 200, answers if self.api.lists else whole)

    def verdict(self, key: str) -> dict[str, Any]:
        if not self.api.refused.get(key):
            return {"success": True, "bill": f"BILL-{key}"}
        self.api.refused[key] -= 1
        return {"success": False, "message": f"{key} {self.api.said}"}


@contextmanager
def write_api() -> Iterator[WriteApi]:
    """Serve the API on a port of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.api = WriteApi(f"http://127.0.0.1:{server.server_port}/api/orders")  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server.api  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
