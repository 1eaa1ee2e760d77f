"""The endpoints below `/sandbox/`: for tests, the demo and people, never for the product."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import msgspec

from kuaimai.sandbox.faults import Faults, described
from kuaimai.sandbox.methods import METHODS

if TYPE_CHECKING:
    from collections.abc import Callable

    from kuaimai.sandbox.gateway import Gateway

Answer = tuple[int, dict[str, Any]]


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


class Control:
    """Answers control requests with (HTTP status, JSON object)."""

    def __init__(self, gateway: Gateway, clock: Clock) -> None:
        self._gateway = gateway
        self._clock = clock
        self._doors: dict[tuple[str, str], Callable[[dict[str, str], dict[str, Any]], dict[str, Any]]] = {
            ("GET", "health"): self._health,
            ("GET", "truth"): self._truth,
            ("GET", "requests"): self._requests,
            ("GET", "credentials"): self._credentials,
            ("GET", "faults"): self._faults,
            ("POST", "faults"): self._set_faults,
            ("POST", "clock"): self._set_clock,
            ("GET", "session"): self._session,
            ("POST", "session"): self._set_session,
        }

    def answer(self, verb: str, path: str, query: dict[str, str], body: bytes) -> Answer:
        """Route one control request."""
        door = self._doors.get((verb, path.removeprefix("/sandbox").strip("/")))
        if door is None:
            listing = ", ".join(f"{one} /sandbox/{name}" for one, name in self._doors)
            return 404, {"error": f"no {verb} {path}; there are {listing}"}
        try:
            return 200, door(query, msgspec.json.decode(body or b"{}", type=dict[str, Any]))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            return 400, {"error": str(error.args[0] if error.args else error)}

    def _health(self, _query: dict[str, str], _body: dict[str, Any]) -> dict[str, Any]:
        return {
            "ok": True,
            "now": self._clock(),
            "methods": list(METHODS),
            "requests": len(self._gateway.requests),
        }

    def _truth(self, query: dict[str, str], _body: dict[str, Any]) -> dict[str, Any]:
        method = query.get("method", "erp.trade.outstock.simple.query")
        at = float(query["at"]) if "at" in query else None
        return {
            "method": method,
            "at": self._clock() if at is None else at,
            "records": self._gateway.truth(method, at=at),
            "bad": self._gateway.bad(method),
        }

    def _requests(self, query: dict[str, str], _body: dict[str, Any]) -> dict[str, Any]:
        records = list(self._gateway.requests)
        since = int(query.get("from", "0"))
        return {"count": len(records), "requests": [asdict(record) for record in records[since:]]}

    def _credentials(self, _query: dict[str, str], _body: dict[str, Any]) -> dict[str, Any]:
        return asdict(self._gateway.session.credentials())

    def _faults(self, _query: dict[str, str], _body: dict[str, Any]) -> dict[str, Any]:
        return {"faults": described(self._gateway.faults)}

    def _set_faults(self, _query: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
        """`{"page_cap": 50, "set": ["429=next3"], "reset": true}`; nothing changes if one part is wrong."""
        faults = self._gateway.faults
        trial = Faults()
        for target in (trial, faults):
            if body.get("reset"):
                target.reset()
            for text in body.get("set", ()):
                target.set_text(text)
            for name, value in body.items():
                if name not in {"reset", "set"}:
                    if name == "plan":
                        raise ValueError('failures are added with {"set": ["429=next3"]}')
                    setattr(target, name, value)
        return self._faults({}, {})

    def _set_clock(self, _query: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
        """`{"advance_seconds": 300}` moves the clock, `{"freeze": true}` stops it."""
        if not body.keys() & {"advance_seconds", "freeze"}:
            raise ValueError("give advance_seconds or freeze")
        if "freeze" in body:
            self._clock.freeze(frozen=bool(body["freeze"]))
        self._clock.advance(float(body.get("advance_seconds", 0)))
        return {"now": self._clock()}

    def _session(self, _query: dict[str, str], _body: dict[str, Any]) -> dict[str, Any]:
        session = self._gateway.session
        return {
            "live": self._clock() < session.expires_at,
            "seconds_left": max(0.0, session.expires_at - self._clock()),
            "refreshed_at": session.refreshed_at,
            "refreshes": session.refreshes,
        }

    def _set_session(self, _query: dict[str, str], body: dict[str, Any]) -> dict[str, Any]:
        """`{"expire": true}` kills the session; `{"renew": true}` issues a new pair, as support would."""
        session = self._gateway.session
        if body.get("renew"):
            session.renew(self._clock(), ttl_seconds=self._gateway.faults.session_ttl)
        elif body.get("expire"):
            session.expire()
        else:
            raise ValueError("give expire or renew")
        return self._session({}, {})
