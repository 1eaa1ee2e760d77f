"""One request in, one reply out: failures of the plan, checks, rate limit, method, envelope."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING, Any

import msgspec

from kuaimai.sandbox.book import Book
from kuaimai.sandbox.checks import COMMON, RateLimiter, check
from kuaimai.sandbox.desk import Call, Desk, Refusal
from kuaimai.sandbox.failures import BEFORE_EFFECT
from kuaimai.sandbox.listing import Listing
from kuaimai.sandbox.methods import METHODS, REFRESH, rest_refresh
from kuaimai.sandbox.records import sid_of
from kuaimai.sandbox.tokens import SessionState, demo_credentials
from kuaimai.sandbox.trades import ORDER_LIST, OUTSTOCK

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kuaimai.sandbox.failures import Failure
    from kuaimai.sandbox.faults import Faults
    from kuaimai.sandbox.world import World

JSON = "application/json;charset=UTF-8"
HTML = "text/html;charset=UTF-8"
_SECRET_PARAMS = frozenset({"refreshToken"})
_KEPT_REQUESTS = 100_000
_BITE = 20
_PAGE = "<html><head><title>{0}</title></head><body><center><h1>{0}</h1></center></body></html>"
_TITLES = {
    "429": "429 Too Many Requests",
    "500": "500 Internal Server Error",
    "502": "502 Bad Gateway",
    "503": "503 Service Temporarily Unavailable",
    "504": "504 Gateway Time-out",
}
_REFUSALS = {
    "busy": ("1", "服务不可用，请稍后再试"),
    "too_large": ("1", "data length too large"),
    "query_failed": ("30077", "订单查询失败"),
}


@dataclass
class Reply:
    """What goes over the wire.

    Attributes:
        status: HTTP status.
        body: the whole body.
        sent: how many bytes of the body really go out before the connection is closed; None for all,
            -1 for a connection that is closed without a word.
        wait_seconds: how long the answer is held back.
        code: the code in the body, None on success or where there is no JSON.
    """

    status: int
    body: bytes
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)
    sent: int | None = None
    wait_seconds: float = 0.0
    code: str | None = None


@dataclass(frozen=True)
class RequestRecord:
    """One request that the gateway saw, without any secret.

    Attributes:
        at: epoch seconds of the sandbox's clock.
        method: API method as sent, empty if none was.
        params: business parameters as sent, without `refreshToken`.
        status: HTTP status, 0 if the connection was closed without an answer.
        code: code in the answer, None on success.
    """

    at: float
    method: str
    params: dict[str, str]
    status: int
    code: str | None


class Gateway:
    """The fake gateway without its socket.

    Args:
        world: the merchant.
        faults: switches, read anew for every request.
        now: epoch seconds of the sandbox's clock.
    """

    def __init__(self, world: World, faults: Faults, now: Callable[[], float]) -> None:
        self.faults = faults
        self.first_credentials = demo_credentials(world.seed)
        self.session = SessionState(self.first_credentials, issued_at=now(), ttl_seconds=faults.session_ttl)
        self.requests: deque[RequestRecord] = deque(maxlen=_KEPT_REQUESTS)
        self._now = now
        self._desk = Desk(world, faults, self.session)
        self._limiter = RateLimiter()
        self._lock = Lock()
        self._number = 0

    def handle(self, form: Mapping[str, str], *, rest: bool = False) -> Reply:
        """Answer one request.

        Args:
            form: all fields, decoded.
            rest: whether it came in the `rest` dialect, whose refresh needs no signature and answers in
                names of its own.
        """
        method = form.get("method", "")
        with self._lock:
            now = self._now()
            self._number += 1
            reply = self._reply(form, method, now, rest=rest)
            params = {
                name: value
                for name, value in form.items()
                if name not in COMMON and name not in _SECRET_PARAMS
            }
            status = 0 if reply.sent == -1 else reply.status
            self.requests.append(RequestRecord(now, method, params, status, reply.code))
        reply.wait_seconds += self.faults.latency_seconds
        return reply

    def prepare(self) -> None:
        """Render what the next page will probably need, while the client is busy with this one."""
        more = True
        while more:
            with self._lock:  # in small bites, so that other connections hardly wait
                more = self._desk.encode_ahead(_BITE)

    def truth(
        self,
        method: str,
        *,
        at: float | None = None,
        only: Callable[[str, dict[str, Any]], bool] | None = None,
    ) -> dict[str, dict[str, Any]]:
        """Every record that a perfect reader would have of `method` now, or at another instant, by key.

        Raises:
            KeyError: the method is unknown or lists nothing.
        """
        known = METHODS.get(method)
        if known is None or known.truth is None:
            listing = ", ".join(name for name, one in METHODS.items() if one.truth)
            raise KeyError(f"no truth for {method!r}; ask for one of {listing}")
        with self._lock:
            rows = known.truth(self._desk, self._book(at))
        return rows if only is None else {key: row for key, row in rows.items() if only(key, row)}

    def bad(self, method: str | None = None) -> dict[str, str]:
        """Keys of the records that a switch spoilt, with the switch's name; without a method those of orders.

        Raises:
            KeyError: the method is unknown.
        """
        if method is not None and method not in {OUTSTOCK, ORDER_LIST}:
            listing = METHODS[method].answer
            with self._lock:
                return listing.bad(self._desk, int(self._now())) if isinstance(listing, Listing) else {}
        with self._lock:
            book = self._book(None)
            return {
                str(sid_of(snap.row)): reason
                for n in book.numbers()
                if (reason := self._desk.badness(n)) is not None and not self._desk.has_vanished(n)
                for snap in book.visible(n)
            }

    def _book(self, at: float | None) -> Book:
        if at is None:
            self._desk.follow(self._now())
            return self._desk.book
        book = Book(self._desk.world)
        book.follow(int(at), late_share=self.faults.late_rows, late_seconds=self.faults.late_seconds)
        return book

    def _reply(self, form: Mapping[str, str], method: str, now: float, *, rest: bool) -> Reply:
        failure = self._planned_failure(method)
        if failure is not None and failure.kind in BEFORE_EFFECT:
            return _broken(failure)
        try:
            if not (rest and method == REFRESH and "sign" not in form):
                check(form, self._desk, self.first_credentials, now)
            if not self._limiter.allows(now, self.faults.rate_limit):
                return Reply(429, b"", HTML)
            if failure is not None and failure.kind in _REFUSALS:
                return self._refused(*_REFUSALS[failure.kind])
            body = self._success(form, method, now, rest=rest)
        except Refusal as refusal:
            return self._refused(refusal.code, refusal.message)
        reply = Reply(200, body)
        if failure is not None:
            _spoil(reply, failure, self.faults.slow_seconds)
        return reply

    def _refused(self, code: str, message: str) -> Reply:
        return Reply(200, self._encode({"code": code, "msg": message, "success": False}), code=code)

    def _success(self, form: Mapping[str, str], method: str, now: float, *, rest: bool) -> bytes:
        known = METHODS[method]
        answer = known.answer(self._desk, Call(method, form, now, self._number))
        if rest and method == REFRESH:
            return msgspec.json.encode(rest_refresh(self._desk))
        if not (self.faults.omit_success and known.may_omit_success):
            answer = {"success": True, **answer}
        wrap = self.faults.wrap_response or (method == REFRESH and self.faults.refresh_shape == "wrapped")
        body = self._encode(answer, wrapped_in=method.replace(".", "_") + "_response" if wrap else None)
        if self.faults.max_bytes and len(body) > self.faults.max_bytes:
            raise Refusal("1", "data length too large")
        return body

    def _encode(self, answer: dict[str, Any], *, wrapped_in: str | None = None) -> bytes:
        key = self.faults.trace_key
        if key == "random":
            key = ("traceId", "trace_id")[self._number % 2]
        answer = {key: f"{10**18 + self._number}", **answer}
        return msgspec.json.encode({wrapped_in: answer} if wrapped_in else answer)

    def _planned_failure(self, method: str) -> Failure | None:
        """The first entry of the plan that strikes; all entries count the request."""
        hits = [
            entry
            for position, entry in enumerate(self.faults.plan)
            if entry.strikes(method, self._desk.world.seed, position)
        ]
        return hits[0] if hits else None


def _broken(failure: Failure) -> Reply:
    if failure.kind == "disconnect":
        return Reply(0, b"", sent=-1)
    headers = {} if failure.retry_after is None else {"Retry-After": f"{failure.retry_after:g}"}
    if failure.kind == "429":
        return Reply(429, b"", HTML, headers)
    if failure.kind == "html":
        return Reply(200, _PAGE.format("系统维护中").encode(), HTML)
    number = failure.kind.partition("_")[0]
    return Reply(int(number), _PAGE.format(_TITLES[number]).encode(), HTML, headers)


def _spoil(reply: Reply, failure: Failure, slow_seconds: float) -> None:
    if failure.kind == "slow":
        reply.wait_seconds += slow_seconds
    elif failure.kind == "truncated":
        reply.body = reply.body[: len(reply.body) // 2]
    elif failure.kind == "lost_right":
        reply.body = b'{"success":true,"traceId":"1000000000000000000"}'
    elif failure.kind == "disconnect_mid":
        reply.sent = len(reply.body) // 2
