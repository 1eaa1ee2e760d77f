"""What is said about a session: to a task's log, to the UI, and to the person who must renew it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from kuaimai.errors import KuaimaiError, SessionError
from kuaimai.gateway.redaction import masked, redact_text
from kuaimai.gateway.tokens import DAY, Credentials, TokenRecord

State = Literal["fresh", "refreshed", "already_refreshed", "warning"]


@dataclass(frozen=True)
class SessionReport:
    """How the session is; no secrets, fit for logs and XCom.

    Attributes:
        state: `fresh` nothing to do; `refreshed` by this call; `already_refreshed` by someone else, or the
            gateway said so; `warning` it is 20 days old or more, or a refresh was due and failed.
        age_days: days since the last refresh, or since the tokens were first seen.
        days_left: days until it ends, or None if unknown.
        expires_at: epoch seconds, or None.
        last_refreshed_at: epoch seconds, or None.
        fence: number of the grant under which it was stored; 0 before the first.
        message: one sentence for people.
    """

    state: State
    age_days: float
    days_left: float | None
    expires_at: float | None
    last_refreshed_at: float | None
    fence: int
    message: str


def report_on(
    record: TokenRecord, state: State, *, name: str, now: float, trouble: str | None = None
) -> SessionReport:
    """Return the report on a record.

    Args:
        record: the live session.
        state: what happened; an old session makes `fresh` a `warning`.
        name: Connection id.
        now: epoch seconds.
        trouble: why a refresh that was due did not happen.
    """
    left = None if record.expires_at is None else (record.expires_at - now) / DAY
    age = record.age(now=now) / DAY
    if trouble or (state == "fresh" and record.is_worrying(now=now)):
        state = "warning"
    ends = "ends at an unknown time" if left is None else f"ends in {left:.1f} days"
    message = f"The session of {name} {ends}; "
    if trouble:
        message += f"a refresh was due and did not happen: {trouble}"
    elif state == "warning":
        message += f"it was not refreshed for {age:.1f} days: is the refresh running?"
    else:
        message += {"refreshed": "refreshed now.", "already_refreshed": "already refreshed."}.get(
            state, "nothing to do."
        )
    return SessionReport(
        state=state,
        age_days=age,
        days_left=left,
        expires_at=record.expires_at,
        last_refreshed_at=record.last_refreshed_at,
        fence=record.fence,
        message=message,
    )


def breaker_key(given: Credentials) -> str:
    """Return the breaker's key: this appKey with exactly these credentials."""
    return f"{lease_name(given.app_key)}:{given.fingerprint()}"


def lease_name(app_key: str) -> str:
    """Return the name of the refresh lease: one per appKey, however many Connections share it."""
    return f"session:{hashlib.sha256(app_key.encode()).hexdigest()[:16]}"


def reason_of(error: KuaimaiError, given: Credentials) -> str:
    """Return the gateway's own words, without secrets, to be stored with the breaker."""
    text = redact_text(
        error.message, (given.access_token, given.refresh_token, given.app_secret, given.app_key)
    )
    facts = ", ".join(filter(None, (error.code, error.trace_id and f"trace {error.trace_id}")))
    return f"{text} ({facts})" if facts else text


def dead_session(given: Credentials, reason: str, *, name: str) -> SessionError:
    """Return the one error that stops every job of an appKey, with what to ask Kuaimai for."""
    key = masked(given.app_key)
    return SessionError(
        f"The session of {name} (appKey {key}) is dead and could not be refreshed: {reason}. "
        "All jobs of this appKey are stopped",
        code="invalid_session",
        hint=(
            f"Ask Kuaimai support: 「开放平台 appKey {key} 的会话已失效（invalid_session），"
            "请重新签发 accessToken 和 refreshToken。」 "
            "(the session of this appKey has expired; please issue a new accessToken and refreshToken). "
            f"Put both into the extra fields of Connection {name}; the jobs then go on by themselves. "
            "If Kuaimai revived the same tokens instead, delete the Airflow Variable "
            f"kuaimai_token__{name}."
        ),
    )
