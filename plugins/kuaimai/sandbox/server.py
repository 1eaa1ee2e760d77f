"""The sandbox over real HTTP: keep-alive, threads, form and multipart bodies, GET, and the `rest` dialect."""

from __future__ import annotations

import socket
import sys
import time
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import msgspec

from kuaimai.sandbox.control import Control
from kuaimai.sandbox.faults import Faults
from kuaimai.sandbox.gateway import Gateway, Reply
from kuaimai.sandbox.methods import METHODS, REFRESH

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from typing_extensions import Self

    from kuaimai.sandbox.gateway import RequestRecord
    from kuaimai.sandbox.tokens import DemoCredentials, SessionState
    from kuaimai.sandbox.world import World

_MAX_BODY = 1024 * 1024
_MAX_GET = 1024


class Clock:
    """The sandbox's clock: the given one, moved or stopped through the control endpoint."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._offset = 0.0
        self._frozen: float | None = None

    def __call__(self) -> float:
        """Epoch seconds."""
        return (self._now() if self._frozen is None else self._frozen) + self._offset

    def advance(self, seconds: float) -> None:
        """Move the clock by `seconds`; it stays moved."""
        self._offset += seconds

    def freeze(self, *, frozen: bool) -> None:
        """Stop the clock where it is, or let it run again (it then jumps to the present)."""
        self._frozen = self._now() if frozen else None


class Sandbox:
    """A fake Kuaimai gateway that listens while its `with` block runs.

    Args:
        world: the merchant whose data is served.
        faults: switches; none means the documented behaviour.
        now: epoch seconds; tests pass a clock that they move by hand.
        sleep: used for slow answers only.
        host: address to listen on.
        port: port to listen on, 0 for any free one.
    """

    def __init__(
        self,
        world: World,
        faults: Faults | None = None,
        now: Callable[[], float] = time.time,
        *,
        sleep: Callable[[float], None] = time.sleep,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.world = world
        self.faults = Faults() if faults is None else faults
        self.clock = Clock(now)
        self._gateway = Gateway(world, self.faults, self.clock)
        self._control = Control(self._gateway, self.clock)
        self._sleep = sleep
        self._address = (host, port)
        self._server: _Server | None = None
        self._thread: Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen and serve in the background."""
        self._server = _Server(self._address, self._gateway, self._control, self.clock, self._sleep)
        self._thread = Thread(
            target=self._server.serve_forever, args=(0.02,), name="kuaimai-sandbox", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and close every connection."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join()
        self._server.close_connections()
        self._server.server_close()
        self._server = self._thread = None

    @property
    def root(self) -> str:
        """`http://host:port`; the `rest` dialect and the control endpoints hang below it."""
        if self._server is None:
            raise RuntimeError("the sandbox is not running; use it in a with block or call start()")
        host, port = self._server.server_address[:2]
        return f"http://{host!s}:{port}"

    @property
    def url(self) -> str:
        """The gateway URL to put into a Connection."""
        return f"{self.root}/router"

    @property
    def credentials(self) -> DemoCredentials:
        """The invented credentials that are valid now."""
        return self._gateway.session.credentials()

    @property
    def session(self) -> SessionState:
        """State of the token: expiry, last refresh, how many; `expire()` and `renew()` change it."""
        return self._gateway.session

    @property
    def requests(self) -> list[RequestRecord]:
        """All gateway requests so far, oldest first, without secrets."""
        return list(self._gateway.requests)

    def truth(
        self, method: str = "erp.trade.outstock.simple.query", *, at: float | None = None
    ) -> dict[str, dict[str, Any]]:
        """Every record that a perfect reader would have now, or at epoch second `at`, by its key as text."""
        return self._gateway.truth(method, at=at)

    def bad(self) -> dict[str, str]:
        """Sids whose records a `bad_…` or `no_sid` switch spoilt, with the switch's name."""
        return self._gateway.bad()


class _Server(ThreadingHTTPServer):
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
        self._open: set[socket.socket] = set()
        self._open_lock = Lock()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

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
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the other side was faster


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave in one piece
    server: _Server

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
    reply = gateway.handle(fields, signed=method != REFRESH or "sign" in fields)
    if method == REFRESH and reply.status == 200 and reply.code is None and reply.sent is None:  # noqa: PLR2004
        reply.body = msgspec.json.encode(
            {
                "access_token": gateway.session.access_token,
                "refresh_token": gateway.session.refresh_token,
                "expires_in": int(gateway.faults.session_ttl),
            }
        )
    return reply


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
