"""The gateway's side of a session: who is signed in, until when, and when it may be refreshed.

Documented: a session lives 30 days; a refresh prolongs it to 30 days from now and leaves both texts as they
were, is allowed once per hour, and must come before the session is dead. Our guess: with `rotate_tokens` the
old pair dies at the moment of the refresh.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b


@dataclass(frozen=True, slots=True)
class DemoCredentials:
    """What a merchant would get by mail; invented, and worth nothing outside the sandbox."""

    app_key: str
    app_secret: str = field(repr=False)
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)


def demo_credentials(seed: int) -> DemoCredentials:
    """The invented credentials that belong to a seed."""
    mark = blake2b(b"%d" % seed, digest_size=6).hexdigest()
    return DemoCredentials(
        app_key=f"demo-key-{mark}",
        app_secret=f"demo-secret-{mark}-not-real",
        access_token=f"demo-access-{mark}-0",
        refresh_token=f"demo-refresh-{mark}-0",
    )


class SessionState:
    """The one live session of the sandbox's appKey.

    Attributes:
        access_token, refresh_token: what the gateway accepts at the moment.
        expires_at: epoch seconds.
        refreshed_at: epoch seconds of the last refresh, None before the first one.
        refreshes: how many refreshes succeeded.
    """

    def __init__(self, credentials: DemoCredentials, *, issued_at: float, ttl_seconds: float) -> None:
        self._first = credentials
        self._generation = 0
        self.access_token = credentials.access_token
        self.refresh_token = credentials.refresh_token
        self.expires_at = issued_at + ttl_seconds
        self.refreshed_at: float | None = None
        self.refreshes = 0

    def is_live(self, token: str, now: float) -> bool:
        """Whether `token` is the session's access token and has not expired."""
        return token == self.access_token and now < self.expires_at

    def is_too_soon(self, now: float, interval_seconds: float) -> bool:
        """Whether the last refresh is less than `interval_seconds` ago."""
        return self.refreshed_at is not None and now < self.refreshed_at + interval_seconds

    def refresh(self, now: float, *, ttl_seconds: float, rotate: bool) -> None:
        """Prolong the session; `rotate` also replaces both texts."""
        self.expires_at = now + ttl_seconds
        self.refreshed_at = now
        self.refreshes += 1
        if rotate:
            self._issue()

    def expire(self) -> None:
        """Kill the session at once, as when nobody refreshed it for 30 days."""
        self.expires_at = float("-inf")

    def renew(self, now: float, *, ttl_seconds: float) -> DemoCredentials:
        """Issue a new pair, as Kuaimai's support does by mail after a session died."""
        self._issue()
        self.expires_at = now + ttl_seconds
        self.refreshed_at = None
        return self.credentials()

    def credentials(self) -> DemoCredentials:
        """The four credentials that are valid now."""
        return DemoCredentials(
            self._first.app_key, self._first.app_secret, self.access_token, self.refresh_token
        )

    def _issue(self) -> None:
        self._generation += 1
        self.access_token = f"{self._first.access_token[:-2]}-{self._generation}"
        self.refresh_token = f"{self._first.refresh_token[:-2]}-{self._generation}"
