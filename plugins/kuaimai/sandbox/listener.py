"""The sandbox's socket: keep-alive, threads, form and multipart bodies, GET, and the `rest` dialect."""

from __future__ import annotations

import socket
import sys
from contextlib import suppress
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import msgspec

from kuaimai.sandbox.gateway import Gateway, Reply
from kuaimai.sandbox.methods import METHODS

if TYPE_CHECKING:
    from collections.abc import Callable

    from kuaimai.sandbox.control import Clock, Control

_MAX_BODY = 1024 * 1024
_MAX_GET = 1024


class Listener(ThreadingHTTPServer):
    """Listens, and remembers its open connections so that it can end at once."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(
        self,
        address: tuple[str, int],
        gateway: Gateway,
        control: Control,
        clock: Clock,
        sleep: Callable[[float], None],
    ) -> None:
        self.gateway = gateway
        self.control = control
        self.clock = clock
        self.sleep = sleep
        self._halted = False
        self._open: set[socket.socket] = set()
        self._open_lock = Lock()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection, then serve it in a thread of its own."""
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection, then close it."""
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def run(self) -> None:
        """Accept connections until `halt`; `serve_forever` would notice its end only at its next poll."""
        while not self._halted:
            self.handle_request()

    def halt(self) -> None:
        """Let `run` end, by knocking at its door."""
        self._halted = True
        with suppress(OSError):
            host, port = self.server_address[:2]
            socket.create_connection((str(host), port), timeout=5).close()

    def close_connections(self) -> None:
        """Wake the threads that wait for the next request of a kept-alive connection."""
        with self._open_lock:
            for connection in self._open:
                _hang_up(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news; anything else is a bug and is printed."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):  # the other side may have been faster
        connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave in one piece
    server: Listener

    def do_GET(self) -> None:
        target = urlsplit(self.path)
        if target.path.startswith("/sandbox"):
            self._control("GET", target.path, dict(parse_qsl(target.query)), b"")
        elif len(self.path) >= _MAX_GET:
            self._send(Reply(414, b""))
        else:
            self._send(self.server.gateway.handle(dict(parse_qsl(target.query, keep_blank_values=True))))

    def do_POST(self) -> None:
        target = urlsplit(self.path)
        size = int(self.headers.get("Content-Length") or 0)
        if size > _MAX_BODY:
            self.close_connection = True
            self._send(Reply(200, b'{"code":"400","msg":"request too large","success":false}'))
            return
        body = self.rfile.read(size)
        query = dict(parse_qsl(target.query, keep_blank_values=True))
        if target.path.startswith("/sandbox"):
            self._control("POST", target.path, query, body)
            return
        method = target.path.rpartition("/")[2]
        if method in METHODS:
            self._send(_rest(self.server.gateway, method, body))
        else:
            self._send(self.server.gateway.handle(query | self._fields(body)))
            self.server.gateway.prepare()

    def _fields(self, body: bytes) -> dict[str, str]:
        kind = self.headers.get("Content-Type") or ""
        if kind.lower().startswith("multipart/form-data"):
            return _multipart(kind, body)
        return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))

    def _control(self, verb: str, path: str, query: dict[str, str], body: bytes) -> None:
        status, answer = self.server.control.answer(verb, path, query, body)
        self._send(Reply(status, msgspec.json.encode(answer)))

    def _send(self, reply: Reply) -> None:
        if reply.wait_seconds:
            self.server.sleep(reply.wait_seconds)
        if reply.sent == -1:
            self._cut()
            return
        self.send_response(reply.status)
        self.send_header("Content-Type", reply.content_type)
        self.send_header("Content-Length", str(len(reply.body)))
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body[: reply.sent])
        self.wfile.flush()
        if reply.sent is not None:
            self._cut()

    def _cut(self) -> None:
        self.close_connection = True
        _hang_up(self.connection)

    def date_time_string(self, timestamp: float | None = None) -> str:
        """The `Date` header follows the sandbox's clock, so that clients can see their own go wrong."""
        return super().date_time_string(int(self.server.clock() if timestamp is None else timestamp))

    def version_string(self) -> str:
        return "kuaimai-sandbox"

    def log_message(self, *_: Any) -> None:
        """Request lines are not printed; `/sandbox/requests` has them, without secrets."""


def _rest(gateway: Gateway, method: str, body: bytes) -> Reply:
    """The wire form of the seed article: JSON to `{host}/{method}`.

    The refresh needs the refresh token alone and answers `access_token` and `expires_in`; other methods carry
    the same signed fields as on the router.
    """
    try:
        sent = msgspec.json.decode(body or b"{}", type=dict[str, Any])
    except msgspec.DecodeError:
        return Reply(400, b'{"code":"400","msg":"the body is not a JSON object","success":false}', code="400")
    fields = {name: _text(value) for name, value in sent.items() if value is not None} | {"method": method}
    return gateway.handle(fields, rest=True)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()


def _multipart(content_type: str, body: bytes) -> dict[str, str]:
    message = BytesParser(policy=HTTP).parsebytes(
        b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body
    )
    fields = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        if isinstance(name, str) and isinstance(content, bytes):
            fields[name] = content.decode()
    return fields
