"""What is known about a session: the given credentials, the live record, and how old is too old.

Pure values and rules; who may refresh, and where the record lives, is `kuaimai.gateway.session`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from decimal import Decimal
from typing import Any

DAY = 86_400.0
LIFETIME = 30 * DAY
"""Seconds a session lives after its issue or refresh (reference 3)."""

SPACING = 65 * 60.0
"""Seconds between two refreshes; the gateway allows one an hour, five minutes are for clocks that differ."""

_DUE, _WARN, _FAIL = 7 / 30, 20 / 30, 27 / 30  # days 7, 20 and 27 of a 30-day session

_EPOCH_MILLISECONDS_FROM = 1e12
_EPOCH_SECONDS_FROM = 1e9


@dataclass(frozen=True)
class Credentials:
    """The four credentials that Kuaimai mails to a merchant."""

    app_key: str
    app_secret: str = field(repr=False)
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)

    def fingerprint(self) -> str:
        """Return 16 hex characters that change when any of the four does, and that give none of them away."""
        whole = f"{self.app_key}\n{self.app_secret}\n{self.access_token}\n{self.refresh_token}"
        return hashlib.sha256(whole.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class TokenRecord:
    """The live session, as it lies in the vault. All times are epoch seconds (UTC).

    Attributes:
        access_token: sent as `session` with each call.
        refresh_token: sent with a refresh.
        obtained_at: when this installation first had the credentials that the record began with.
        last_refreshed_at: when the last refresh succeeded, or None.
        expires_at: when the session ends, or None if nobody said.
        fingerprint: of the Connection that the record belongs to.
        fence: the lease's number under which it was written; it never falls.
    """

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    obtained_at: float
    last_refreshed_at: float | None
    expires_at: float | None
    fingerprint: str
    fence: int

    @classmethod
    def adopted(cls, given: Credentials, *, now: float, fence: int = 0) -> TokenRecord:
        """Return a record that begins with the Connection's own tokens; their expiry is unknown."""
        return cls(given.access_token, given.refresh_token, now, None, None, given.fingerprint(), fence)

    @classmethod
    def parsed(cls, stored: Mapping[str, Any] | None) -> TokenRecord | None:
        """Return the record in `stored`, or None if it lacks what makes it usable."""
        if stored is None:
            return None
        access, fresh = stored.get("access_token"), stored.get("refresh_token")
        fingerprint, obtained = stored.get("fingerprint"), _seconds(stored.get("obtained_at"))
        if not (_is_text(access) and _is_text(fresh) and _is_text(fingerprint)) or obtained is None:
            return None
        fence = stored.get("fence")
        return cls(
            access_token=str(access),
            refresh_token=str(fresh),
            obtained_at=obtained,
            last_refreshed_at=_seconds(stored.get("last_refreshed_at")),
            expires_at=_seconds(stored.get("expires_at")),
            fingerprint=str(fingerprint),
            fence=fence if isinstance(fence, int) and not isinstance(fence, bool) else 0,
        )

    def as_json(self) -> dict[str, Any]:
        """Return the record as the vault keeps it."""
        return asdict(self)

    def has_tokens_of(self, other: Credentials | TokenRecord) -> bool:
        """Whether both hold the same pair."""
        return (self.access_token, self.refresh_token) == (other.access_token, other.refresh_token)

    def refreshed(self, body: Mapping[str, Any], *, now: float) -> TokenRecord:
        """Return the record after a successful refresh that answered `body`.

        A missing or empty token keeps its old text; a missing expiry means the full lifetime.
        """
        access, fresh, expires = _told(body)
        return replace(
            self,
            access_token=access or self.access_token,
            refresh_token=fresh or self.refresh_token,
            last_refreshed_at=now,
            expires_at=expiry(expires, now=now),
        )

    def found_refreshed(self, *, now: float) -> TokenRecord:
        """Return the record after the gateway said that it was refreshed within the last hour."""
        return replace(self, last_refreshed_at=now, expires_at=now - 3600 + LIFETIME)

    def age(self, *, now: float) -> float:
        """Return seconds since the last refresh, or since the tokens were first seen."""
        return max(
            now - (self.obtained_at if self.last_refreshed_at is None else self.last_refreshed_at), 0.0
        )

    def is_due(self, *, now: float) -> bool:
        """Whether a refresh should be made: old enough or of unknown expiry, and not too soon."""
        if self.is_recent(now=now):
            return False
        return self.expires_at is None or self.age(now=now) >= _DUE * self._lifetime()

    def is_recent(self, *, now: float) -> bool:
        """Whether it was refreshed less than `SPACING` ago, so that no refresh may be made."""
        return self.last_refreshed_at is not None and now - self.last_refreshed_at < SPACING

    def is_worrying(self, *, now: float) -> bool:
        """Whether people should hear about it: day 20 of 30 and later."""
        return self.age(now=now) >= _WARN * self._lifetime()

    def is_lost_soon(self, *, now: float) -> bool:
        """Whether a failed refresh must fail the task: day 27 of 30 and later."""
        return self.age(now=now) >= _FAIL * self._lifetime()

    def _lifetime(self) -> float:
        if self.expires_at is None:
            return LIFETIME
        began = self.obtained_at if self.last_refreshed_at is None else self.last_refreshed_at
        told = self.expires_at - began
        # One refresh an hour is allowed, so no session can live shorter: such a number was in another unit.
        return min(told, LIFETIME) if told >= SPACING else LIFETIME


def expiry(told: Any, *, now: float) -> float:
    """Return when a session ends, in epoch seconds, from an `expiresIn` of undocumented unit.

    The rule of reference 3.1: above 1e12 epoch milliseconds, above 1e9 epoch seconds, above 0 seconds from
    now, anything else (also a moment already past) 30 days from now; never later than 30 days from now.

    >>> expiry("3600", now=1_700_000_000.0)
    1700003600.0
    """
    latest = now + LIFETIME
    value = _seconds(told)
    if value is None or value <= 0:
        return latest
    if value > _EPOCH_MILLISECONDS_FROM:
        value /= 1000
    elif value <= _EPOCH_SECONDS_FROM:
        value += now
    return min(value, latest) if value > now else latest


def _told(body: Mapping[str, Any]) -> tuple[str | None, str | None, Any]:
    """Find access token, refresh token and expiry in any of the documented and seen shapes."""
    inner = next((v for k, v in body.items() if k.endswith("_response") and isinstance(v, Mapping)), body)
    session = inner.get("session")
    facts = session if isinstance(session, Mapping) else inner
    return (
        _text(facts, "accessToken", "access_token"),
        _text(facts, "refreshToken", "refresh_token"),
        next((facts[k] for k in ("expiresIn", "expires_in", "expireTime") if facts.get(k) is not None), None),
    )


def _text(facts: Mapping[str, Any], *names: str) -> str | None:
    return next((str(facts[name]).strip() for name in names if _is_text(facts.get(name))), None)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None
