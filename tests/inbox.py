"""A web server on this machine that takes the place of chat servers, and keeps what it is told."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Letter:
    """One request: when it came (epoch seconds), where to, and its JSON."""

    at: float
    path: str
    json: Any


@dataclass
class Inbox:
    """What arrived so far."""

    port: int
    letters: list[Letter] = field(default_factory=list)
    status: int = 200
    answer: dict[str, Any] = field(default_factory=lambda: {"errcode": 0, "code": 0})

    @property
    def url(self) -> str:
        """The server, for a chat robot's address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def webhook(self) -> str:
        """An Apprise address of the generic webhook."""
        return f"json://127.0.0.1:{self.port}/hooks/c0ffee-invented-token"

    def about(self, text: str) -> list[Letter]:
        """Return the letters that contain a text."""
        return [each for each in self.letters if text in json.dumps(each.json, ensure_ascii=False)]


@contextlib.contextmanager
def open_inbox() -> Iterator[Inbox]:
    """Serve until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            inbox.letters.append(Letter(time.time(), self.path, json.loads(content)))
            answer = json.dumps(inbox.answer).encode()
            self.send_response(inbox.status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        inbox = Inbox(server.server_port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield inbox
        finally:
            server.shutdown()
            thread.join()
