"""The one table from a gateway answer to an error: (method, code) first, then the code alone.

Numbers are reused with other meanings per method, so the method decides first (reference 4.3 and 4.4).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kuaimai.errors import KuaimaiError, Rejected, SessionError, Throttled, TooLarge, Transient
from kuaimai.gateway.answers import trace_id


@dataclass(frozen=True)
class Meaning:
    """What a code means: the error it becomes, and what the reader should do."""

    error: type[KuaimaiError]
    hint: str


_SIGN = Meaning(
    Rejected,
    "check the Connection's password (appSecret) and sign_method, and this machine's clock",
)
_BUG = Meaning(Rejected, "this is a fault of this package: please report it with the trace id")
_BUSY = Meaning(Transient, "the service is busy; the request is repeated later")
_SHOP = Meaning(Rejected, "leave this shop to the outstock method; its platform is not served here")
_PAGE = Meaning(Rejected, "lower page_size in the pipeline to what the catalogue allows")
_SHOPS = Meaning(Rejected, "ask for at most 10 shop ids in one call")

GLOBAL_CODES: dict[str, Meaning] = {
    "1": _BUSY,
    "9": Meaning(Transient, "the service failed inside; if it repeats, send the trace id to Kuaimai"),
    "20": _BUG,
    "21": Meaning(SessionError, "the session is invalid: renew the access token"),
    "22": _BUG,
    "23": Meaning(Rejected, "check the Connection's login: it must be the appKey from Kuaimai's mail"),
    "24": _BUG,
    "25": _SIGN,
    "26": _BUG,
    "27": Meaning(Rejected, "the method is unknown there; ask Kuaimai whether the appKey may use it"),
    "28": _BUG,
    "29": _BUG,
    "32": Meaning(Rejected, "a required parameter is missing; check the pipeline's params"),
    "33": Meaning(Rejected, "a parameter is not acceptable; the gateway's message says which"),
    "40": Meaning(Rejected, "this machine's clock is off by more than 10 minutes: synchronise it (NTP)"),
    "50": Meaning(Rejected, "a parameter has a value that is not allowed; the gateway's message says which"),
    "400": Meaning(Rejected, "check the parameters; the gateway's message says which"),
    "401": Meaning(Rejected, "the signature parameters arrived incomplete; check the proxies on the way"),
    "20014": Meaning(Rejected, "a shop id is malformed"),
    "20015": _SHOPS,
    "30077": _BUSY,
    "invalid_session": Meaning(SessionError, "the session has expired or is disabled"),
}

METHOD_CODES: dict[tuple[str, str], Meaning] = {
    ("erp.trade.list.query", "33"): _SHOP,
    ("erp.trade.list.query", "20002"): _PAGE,
    ("erp.trade.outstock.simple.query", "20002"): _PAGE,
    # Undocumented, seen by one project (reference 4.4): the result is too big for one window.
    ("erp.trade.list.query", "20027"): Meaning(TooLarge, "ask for a smaller window"),
    ("erp.trade.outstock.simple.query", "20027"): Meaning(TooLarge, "ask for a smaller window"),
}

REFRESH_TOO_OFTEN = "refresh_frequently"
GLOBAL_CODES[REFRESH_TOO_OFTEN] = Meaning(
    Rejected, "the session was refreshed within the last hour and is still good"
)

_TOO_LARGE = re.compile(r"长度|过大|太大|too large|too long", re.IGNORECASE)
_THROTTLED = re.compile(r"频繁|限流|稍后|too many", re.IGNORECASE)
_TIMED_OUT = re.compile(r"超时|time ?out", re.IGNORECASE)


def error_in(method: str, body: Mapping[str, Any]) -> KuaimaiError | None:
    """Return the error that `body` reports, or None for a success.

    Success means: `success` is not false and there is no code but 0 (reference 4.1; both keys may be absent).
    """
    code = body.get("code")
    code = None if code is None else str(code).strip()
    failed = body.get("success") is False or str(body.get("success")).lower() == "false"
    if not failed and code in (None, "", "0"):
        return None
    message = str(body.get("msg") or body.get("message") or body.get("subMsg") or "no message")
    meaning = _meaning(method, code, message)
    return meaning.error(
        f"the gateway refused: {message}",
        method=method,
        code=code,
        trace_id=trace_id(body),
        hint=" ".join(filter(None, (meaning.hint, _solution(body)))),
    )


def _meaning(method: str, code: str | None, message: str) -> Meaning:
    if code == "1" and _TOO_LARGE.search(message):
        return Meaning(TooLarge, "ask for a smaller page or window")
    known = METHOD_CODES.get((method, code or "")) or GLOBAL_CODES.get(code or "")
    if known is not None:
        return known
    # An unknown code is permanent, except where its text says that waiting helps (reference 4.3).
    if _THROTTLED.search(message):
        return Meaning(Throttled, "too many requests; the same request is sent again later")
    if _TIMED_OUT.search(message):
        return _BUSY
    return Meaning(Rejected, "the code is not documented; send the trace id to Kuaimai")


def _solution(body: Mapping[str, Any]) -> str | None:
    solution = body.get("solution")
    return f"(the gateway says: {solution})" if isinstance(solution, str) and solution else None
