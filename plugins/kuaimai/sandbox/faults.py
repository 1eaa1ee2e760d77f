"""Every switch of the sandbox, with the promise of the product that it attacks.

The defaults are the behaviour that is documented or was measured by others. A switch can be set when the
sandbox is made, at any time through `box.faults`, and by `POST /sandbox/faults`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from kuaimai.sandbox.failures import FAILURES, Failure

_ON = ("true", "yes", "on", "1")
_OFF = ("false", "no", "off", "0")


def _switch(doc: str, *, default: Any, attacks: str, bare: Any = None, choices: tuple[str, ...] = ()) -> Any:
    """One field: its default, what it does, what it attacks, and the value that its bare name means."""
    return field(default=default, metadata={"doc": doc, "attacks": attacks, "bare": bare, "choices": choices})


@dataclass
class Faults:
    """All switches. Assigning an unknown name or an impossible value raises at once."""

    # --- session
    session_dead: bool = _switch(
        "every call answers invalid_session", default=False, attacks="one attempt, then the breaker opens"
    )
    session_ttl: float = _switch(
        "seconds that a session lives", default=2_592_000.0, attacks="refresh comes in time", bare=3_600.0
    )
    refresh_interval: float = _switch(
        "seconds between refreshes before refresh_frequently",
        default=3_600.0,
        attacks="never refreshed twice an hour",
    )
    refresh_shape: str = _switch(
        "doc: session object; flat: success and code 0 without any session; wrapped: one level deeper",
        default="doc",
        attacks="the session survives every answer",
        bare="wrapped",
        choices=("doc", "flat", "wrapped"),
    )
    expires_unit: str = _switch(
        "what expiresIn counts",
        default="seconds",
        attacks="expiry is known whatever the unit",
        bare="absent",
        choices=("seconds", "epoch_s", "epoch_ms", "absent"),
    )
    rotate_tokens: bool = _switch(
        "a refresh replaces both texts; the old pair is dead",
        default=False,
        attacks="one owner of the session",
    )
    missing_sign_code: str = _switch(
        "401: one code when sign, timestamp or appKey is missing; precise: 24, 40, 22",
        default="401",
        attacks="errors say what to do",
        bare="precise",
        choices=("401", "precise"),
    )

    # --- transport
    plan: list[Failure] = field(
        default_factory=list,
        metadata={"doc": "failures of single requests", "attacks": "nothing lost, nothing doubled"},
    )
    slow_seconds: float = _switch(
        "how long the failure `slow` waits", default=30.0, attacks="read time-out and retry"
    )
    latency_seconds: float = _switch("wait before every answer", default=0.0, attacks="throughput", bare=0.2)
    rate_limit: int = _switch(
        "requests per second per appKey, then HTTP 429; 0 is off", default=0, attacks="polite", bare=15
    )
    max_bytes: int = _switch(
        "larger answers become code 1 'data length too large'",
        default=8 * 1024 * 1024,
        attacks="complete",
        bare=65_536,
    )

    # --- envelope
    omit_success: bool = _switch(
        "shop and warehouse answers without `success`", default=False, attacks="tolerant reading"
    )
    wrap_response: bool = _switch(
        "answers inside {method_with_underscores}_response", default=False, attacks="tolerant reading"
    )
    trace_key: str = _switch(
        "name of the request id",
        default="traceId",
        attacks="errors can be quoted to support",
        bare="random",
        choices=("traceId", "trace_id", "random"),
    )
    total_as_string: bool = _switch("`total` as text", default=False, attacks="complete")
    total_first_page_only: bool = _switch("`total` only on page 1", default=True, attacks="complete")
    no_total: bool = _switch(
        "lists other than orders never say their `total`", default=False, attacks="complete: full scans"
    )
    omit_empty_list: bool = _switch("no `list` key when nothing was found", default=False, attacks="complete")

    # --- paging
    page_cap: int = _switch("silently caps pageSize; 0 is off", default=0, attacks="complete", bare=50)
    strict_min_page: bool = _switch(
        "trade pageSize below 20 is refused with 20002", default=False, attacks="errors say what to do"
    )
    default_time_type: str = _switch(
        "timeType when none is sent; the documents disagree",
        default="upd_time",
        attacks="complete",
        bare="pay_time",
        choices=("upd_time", "pay_time"),
    )
    cursor_end: str = _switch(
        "how a cursor scan ends: hasNext false, no cursor, the same cursor again, or an empty page",
        default="has_next",
        attacks="complete",
        bare="missing",
        choices=("has_next", "missing", "same", "empty"),
    )
    ignore_time: bool = _switch(
        "time parameters are ignored, as if they were misspelt: every row comes",
        default=False,
        attacks="exact: rows outside their window",
    )
    duplicates: int = _switch(
        "every page begins with this many rows of the page before",
        default=0,
        attacks="exactly once visible",
        bare=1,
    )
    shuffle_rows: bool = _switch(
        "rows inside a page come in another order each time", default=False, attacks="exact"
    )
    shuffle_lines: bool = _switch(
        "orders[] comes in another order each time", default=False, attacks="no false differences"
    )
    unstable_ties: bool = _switch(
        "rows of the same second change places between two pages", default=False, attacks="complete"
    )
    drift: int = _switch(
        "before every n-th later page, rows already read are touched; 0 is off",
        default=0,
        attacks="complete",
        bare=2,
    )
    drift_touch: int = _switch("rows that one drift moves to a newer updTime", default=1, attacks="complete")
    drift_insert: int = _switch("orders that one drift inserts", default=0, attacks="complete", bare=1)
    drift_times: int = _switch(
        "drifts until the set stands still; 0 is for ever", default=0, attacks="complete", bare=1
    )

    # --- records
    late_rows: float = _switch(
        "share of records that become visible late", default=0.0, attacks="complete: the overlap", bare=0.05
    )
    late_seconds: int = _switch("how late they become visible", default=420, attacks="complete: the overlap")
    null_modified: float = _switch(
        "share of orders with modified null, which upd_time queries never return",
        default=0.0,
        attacks="complete: further dimensions",
        bare=0.02,
    )
    future_times: float = _switch(
        "share of orders that changed a year from now, as they say; upd_time queries never return them",
        default=0.0,
        attacks="exact: what changes later is newer",
        bare=0.02,
    )
    loose_pay_time: float = _switch(
        "share of orders that pay_time queries of outstock return up to 42 days too early",
        default=0.0,
        attacks="exact: rows outside their window",
        bare=0.01,
    )
    wide_window_misses: float = _switch(
        "share of rows that windows above one day leave out", default=0.0, attacks="complete", bare=0.01
    )
    vanished: float = _switch(
        "share of records that no longer exist: no query finds them and the truth is without them",
        default=0.0,
        attacks="complete: deletions are marked",
        bare=0.01,
    )
    bad_time: float = _switch(
        "share of records with a time (orders: payTime) that is no time",
        default=0.0,
        attacks="nothing silently dropped",
        bare=0.01,
    )
    bad_amount: float = _switch(
        "share of records with an amount (orders: payment) that is no amount",
        default=0.0,
        attacks="nothing silently dropped",
        bare=0.01,
    )
    no_sid: float = _switch(
        "share of records without their key (orders: sid)",
        default=0.0,
        attacks="nothing silently dropped",
        bare=0.01,
    )
    fuzz: float = _switch(
        "share of records with odd but legal values: ids above 2^53, emoji, U+FFFD, line breaks, cipher text "
        "of 450 characters, numbers in text, sentinel times",
        default=0.0,
        attacks="exact, nothing silently dropped",
        bare=0.2,
    )
    schema_change: str = _switch(
        "records that changed at or after `schema_change_at` have a new field, another type, or lack a field",
        default="none",
        attacks="nothing silently dropped: schema policy",
        bare="all",
        choices=("none", "new", "type", "vanished", "all"),
    )
    schema_change_at: float = _switch(
        "epoch second from which on the schema is another", default=0.0, attacks="schema policy"
    )
    exclude_1688: bool = _switch(
        "order list treats 1688 shops like Taobao; sources disagree",
        default=False,
        attacks="coverage is told",
    )

    def __setattr__(self, name: str, value: Any) -> None:
        known = type(self).__dataclass_fields__.get(name)
        if known is None:
            raise AttributeError(f"unknown fault {name!r}; known are {', '.join(names())}")
        object.__setattr__(self, name, _checked(name, value, known))

    def fail(self, kind: str, **when: Any) -> None:
        """Add a `Failure` to the plan; the keywords are those of `Failure`."""
        self.plan.append(Failure(kind, **when))

    def set_text(self, text: str) -> None:
        """Set a switch from `name` or `name=value`, or add a failure such as `429=0.05`.

        Raises:
            ValueError: the name is unknown or the value does not fit; the message lists what would.
        """
        name, has_value, value = text.partition("=")
        if name.partition(":")[0] in FAILURES:
            self.plan.append(Failure.parse(text))
            return
        known = type(self).__dataclass_fields__.get(name)
        if known is None or name == "plan":
            every = ", ".join([*(one for one in names() if one != "plan"), *FAILURES])
            raise ValueError(f"unknown fault {name!r}; known are {every}")
        if has_value:
            setattr(self, name, value)
        elif known.type == "bool":
            setattr(self, name, True)
        elif known.metadata["bare"] is not None:
            setattr(self, name, known.metadata["bare"])
        else:
            raise ValueError(f"fault {name!r} needs a value: {name}=…")

    @classmethod
    def parse(cls, texts: list[str]) -> Faults:
        """Faults from texts such as `drift`, `page_cap=50`, `429=next3:erp.shop.list.query`."""
        faults = cls()
        for text in texts:
            faults.set_text(text)
        return faults

    def reset(self) -> None:
        """Put every switch back to its default and empty the plan."""
        for name, value in Faults().__dict__.items():
            setattr(self, name, value)


def names() -> list[str]:
    """Names of all switches."""
    return [known.name for known in fields(Faults)]


def described(faults: Faults) -> list[dict[str, Any]]:
    """Every switch with its value, default, meaning and the promise it attacks, for people to read."""
    plain = Faults()
    return [
        {
            "name": known.name,
            "value": [repr(entry) for entry in faults.plan]
            if known.name == "plan"
            else getattr(faults, known.name),
            "default": getattr(plain, known.name),
            "doc": known.metadata["doc"],
            "attacks": known.metadata["attacks"],
            **({"choices": known.metadata["choices"]} if known.metadata.get("choices") else {}),
        }
        for known in fields(Faults)
    ]


def _checked(name: str, value: Any, known: Any) -> Any:
    """`value` in the type of the switch, converted from text where it came as text."""
    choices = known.metadata.get("choices")
    if choices and value not in choices:
        raise ValueError(f"fault {name!r} must be one of {', '.join(choices)}, not {value!r}")
    if known.type == "bool" and isinstance(value, str):
        if value.lower() not in _ON + _OFF:
            raise ValueError(f"fault {name!r} must be true or false, not {value!r}")
        return value.lower() in _ON
    if known.type in {"int", "float"}:
        try:
            number = int(value) if known.type == "int" else float(value)
        except (TypeError, ValueError):
            raise ValueError(f"fault {name!r} must be a number, not {value!r}") from None
        if number < 0:
            raise ValueError(f"fault {name!r} cannot be negative")
        return number
    return value
