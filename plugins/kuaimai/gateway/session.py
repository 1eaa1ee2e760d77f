"""Custody of the one session: many processes use it, one at a time refreshes it, none loses it.

The Connection holds what the merchant was given, the vault holds the live session. A refresh takes a lease in
the coordination store, reads the vault again, asks the gateway once, and stores the answer before anyone uses
it, with the lease's fencing number; nobody else can take the lease while it is stored. A session that the
gateway refuses gets one attempt. If that fails, a circuit breaker stops every process of this appKey.

A vault that holds nothing usable (deleted, or not the JSON that this module writes) is rebuilt from the
Connection. Deleting the record is also how a person says "try again" when Kuaimai revived the same tokens.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from kuaimai.errors import ConfigError, KuaimaiError, SessionError, Transient
from kuaimai.gateway.codes import REFRESH_TOO_OFTEN
from kuaimai.gateway.session_record import LEASE_SECONDS, LiveSession, Vault
from kuaimai.gateway.session_report import (
    SessionReport,
    State,
    breaker_key,
    dead_session,
    reason_of,
    report_on,
)
from kuaimai.gateway.tokens import Credentials, TokenRecord
from kuaimai.gateway.wire import Wire
from kuaimai.state import Lease, LeaseLost, LeaseTaken, Store

__all__ = ["Credentials", "SessionKeeper", "SessionReport", "Vault"]

log = logging.getLogger(__name__)

REFRESH_METHOD = "open.token.refresh"

PATIENCE_SECONDS = 30.0
"""How long to wait for another process's refresh while the session is still good."""

_CACHE_SECONDS = 30.0
_VAULT_PAUSES = (1.0, 2.0, 5.0, 10.0, 20.0)  # seconds; together well inside the lease

# These refuse every call alike (key, secret, clock), so they say nothing about the session.
_NOT_THE_SESSION = frozenset({"20", "22", "23", "24", "25", "26", "28", "29", "40", "400", "401"})


class SessionKeeper:
    """Gives the access token for calls, and keeps it alive. Safe to share between threads.

    Args:
        wire: sends the refresh; signs with the same appKey and secret as `given`.
        given: the Connection's credentials, or a function that reads them again, so that a person's edit is
            seen by tasks that already run.
        vault: the live session.
        store: leases and breakers.
        name: Connection id, for messages and the lease's owner.
        now: epoch seconds.
        sleep: waits, seconds.
        on_rotation: told the new pair after it was stored; returns True if it is now in the Connection too.
    """

    def __init__(
        self,
        wire: Wire,
        given: Credentials | Callable[[], Credentials],
        *,
        vault: Vault,
        store: Store,
        name: str,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        on_rotation: Callable[[Credentials], bool] | None = None,
    ) -> None:
        self._wire = wire
        self._live = LiveSession(wire.app, given, vault=vault, store=store, name=name, now=now, sleep=sleep)
        self._store = store
        self._name = name
        self._now = now
        self._sleep = sleep
        self._on_rotation = on_rotation
        self._lock = threading.Lock()
        self._cache: tuple[float, Credentials, TokenRecord] | None = None
        # What each thread's calls were sent with: a refresh by one thread is news to the others.
        self._used = threading.local()

    def current(self) -> str:
        """Return the access token for the next call.

        Vault and Connection are read again every 30 s, the breaker every time.

        Raises:
            SessionError: the breaker is open.
            Transient: vault, Connection or store cannot be read.
        """
        with self._lock:
            now = self._now()
            if self._cache is None or not 0 <= now - self._cache[0] < _CACHE_SECONDS:
                self._cache = (now, *self._live.look())
            _, given, record = self._cache
            self._used.fence = record.fence
        self._check_breaker(given)
        return record.access_token

    def rejected(self, token: str, error: SessionError) -> str:
        """Return a token worth one more try after the gateway refused `token`.

        Raises:
            SessionError: there is none; the breaker is open now.
            Transient: the one attempt got no clear answer; the breaker stays closed.
        """
        self._forget()
        with self._live.leased(lambda record: record.access_token != token, patience=LEASE_SECONDS) as lease:
            given, record = self._live.look()
            if record.access_token == token:
                self._check_breaker(given)
                record = self._recovered(given, record, lease, error)
            self._used.fence = record.fence
            return record.access_token

    def refresh_if_due(self) -> SessionReport:
        """Refresh at 7 days of age or when the expiry is unknown; otherwise only report.

        A refresh that fails for a passing reason is a `warning` until day 27: the session is still good.

        Raises:
            SessionError: the breaker is open, the gateway refused, or the session is 27 days old and this
                refresh failed.
            Rejected: appKey, secret or clock are wrong; every call would be refused.
            ConfigError: the address is not a gateway's.
        """
        return self.refresh(force=False)

    def refresh(self, *, force: bool = False) -> SessionReport:
        """Refresh now, as `refresh_if_due` does.

        Args:
            force: also before it is due; never within 65 minutes of the last refresh.
        """

        def wanted(record: TokenRecord) -> bool:
            now = self._now()
            return record.is_due(now=now) or (force and not record.is_recent(now=now))

        given, record = self._live.look()
        self._check_breaker(given)
        if not wanted(record):
            return self._report(record, "already_refreshed" if force else "fresh")
        patience = LEASE_SECONDS if record.is_lost_soon(now=self._now()) else PATIENCE_SECONDS
        with self._live.leased(lambda seen: not wanted(seen), patience=patience) as lease:
            given, record = self._live.look()
            self._check_breaker(given)
            if not wanted(record):
                return self._report(record, "already_refreshed")
            if lease is None:
                return self._put_off(record, LeaseTaken("another process has been refreshing it for a while"))
            try:
                after, state = self._ask(given, record, lease)
            except SessionError as refusal:
                raise self._give_up(given, refusal) from refusal
            except ConfigError:
                raise
            except KuaimaiError as trouble:
                if trouble.code in _NOT_THE_SESSION:
                    raise
                return self._put_off(record, trouble)
            return self._report(after, state)

    def report(self) -> SessionReport:
        """Return how the session is, without asking the gateway and without refreshing.

        Raises:
            SessionError: the breaker is open.
        """
        given, record = self._live.look()
        self._check_breaker(given)
        return self._report(record, "fresh")

    def proved_alive(self) -> None:
        """Close the breaker: a call with these credentials has just succeeded, at a person's wish."""
        self._store.close_breaker(breaker_key(self._live.read_given()))

    def _recovered(
        self, given: Credentials, record: TokenRecord, lease: Lease | None, error: SessionError
    ) -> TokenRecord:
        """Make the one attempt for a refused session, or recognise that it was made."""
        if record.is_recent(now=self._now()):
            if record.fence > getattr(self._used, "fence", -1):
                return record  # refreshed by someone after this thread had read it
            raise self._give_up(given, error)  # the attempt was made, and did not help
        if lease is None:
            raise LeaseTaken(
                f"Another process has been refreshing the session of {self._name} for minutes",
                hint="The next try finds the outcome.",
            )
        try:
            return self._ask(given, record, lease)[0]
        except SessionError as refusal:
            raise self._give_up(given, refusal) from refusal
        except KuaimaiError as refusal:
            if refusal.code is None or refusal.code in _NOT_THE_SESSION or isinstance(refusal, Transient):
                raise
            raise self._give_up(given, refusal) from refusal

    def _ask(self, given: Credentials, record: TokenRecord, lease: Lease) -> tuple[TokenRecord, State]:
        """Send the refresh and store what came of it."""
        # Stored before it is asked: the age must count from here even if no refresh ever succeeds, and a
        # missing record would look like a person's wish to try again.
        before = self._live.write(replace(record, fence=lease.fence), lease)
        state: State = "refreshed"
        try:
            answer = self._wire.send(
                REFRESH_METHOD, {"refreshToken": before.refresh_token}, session=before.access_token
            )
            after = before.refreshed(answer.body, now=self._now())
        except KuaimaiError as error:
            if error.code != REFRESH_TOO_OFTEN:
                raise
            state, after = "already_refreshed", before.found_refreshed(now=self._now())
        kept = self._keep(before, after, lease)
        self._forget()
        self._store.close_breaker(breaker_key(given))
        return kept, state

    def _keep(self, before: TokenRecord, after: TokenRecord, lease: Lease) -> TokenRecord:
        """Store a refreshed record; if the lease was lost meanwhile, only what the vault does not know."""
        try:
            kept = self._stored(replace(after, fence=lease.fence), lease)
        except LeaseLost:
            if after.has_tokens_of(before):
                return self._live.look()[1]
            # The gateway gave a new pair to this process and to no other: unless the vault has moved on from
            # the old one, it is the only one that works.
            with self._live.leased(
                lambda seen: not seen.has_tokens_of(before), patience=LEASE_SECONDS
            ) as again:
                present = self._live.look()[1]
                return (
                    self._keep(before, after, again) if again and present.has_tokens_of(before) else present
                )
        return kept if kept.has_tokens_of(before) else self._write_back(kept, lease)

    def _stored(self, record: TokenRecord, lease: Lease) -> TokenRecord:
        """Store what the gateway just gave; it gives it once, so a vault that is away is waited for."""
        for pause in _VAULT_PAUSES:
            try:
                return self._live.write(record, lease)
            except LeaseLost:
                raise
            except Transient as error:
                log.warning("The refreshed session of %s could not be stored yet: %s", self._name, error)
                self._sleep(pause)
        return self._live.write(record, lease)

    def _write_back(self, record: TokenRecord, lease: Lease) -> TokenRecord:
        """Offer a rotated pair to the Connection; the record then belongs to the new fingerprint."""
        app = self._wire.app
        pair = Credentials(app.app_key, app.app_secret, record.access_token, record.refresh_token)
        try:
            if self._on_rotation is None or not self._on_rotation(pair):
                return record
            return self._live.write(replace(record, fingerprint=pair.fingerprint()), lease)
        except Exception as error:  # noqa: BLE001 - the pair is safe in the vault, whatever the Connection says
            log.warning(
                "The new tokens of %s are stored, but not in its Connection (%s).",
                self._name,
                type(error).__name__,
            )
            return record

    def _forget(self) -> None:
        with self._lock:
            self._cache = None

    # What is said

    def _report(self, record: TokenRecord, state: State) -> SessionReport:
        return report_on(record, state, name=self._name, now=self._now())

    def _put_off(self, record: TokenRecord, trouble: KuaimaiError) -> SessionReport:
        now = self._now()
        if not record.is_lost_soon(now=now):
            return report_on(record, "warning", name=self._name, now=now, trouble=str(trouble))
        if isinstance(trouble, LeaseTaken):
            raise trouble
        report = report_on(record, "warning", name=self._name, now=now, trouble=str(trouble))
        raise SessionError(
            report.message,
            code=trouble.code,
            trace_id=trouble.trace_id,
            hint="Renew it before it ends: afterwards only Kuaimai support can. The next run tries again.",
        ) from trouble

    def _check_breaker(self, given: Credentials) -> None:
        breaker = self._store.breaker(breaker_key(given))
        if breaker is not None:
            raise dead_session(given, breaker.reason, name=self._name)

    def _give_up(self, given: Credentials, error: KuaimaiError) -> SessionError:
        reason = reason_of(error, given)
        self._store.open_breaker(breaker_key(given), reason)
        self._forget()
        return dead_session(given, reason, name=self._name)
