"""The live session's record: which tokens count now, and who may store the next ones."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any, Protocol

from kuaimai.errors import Transient
from kuaimai.gateway.session_report import breaker_key, lease_name
from kuaimai.gateway.tokens import Credentials, TokenRecord
from kuaimai.gateway.wire import App
from kuaimai.state import Lease, LeaseTaken, Store

log = logging.getLogger(__name__)

LEASE_SECONDS = 300.0
"""Longer than a refresh can take with its timeouts; a killed refresher blocks the next one this long."""

_POLL_SECONDS = 1.0


class Vault(Protocol):
    """Where the live session lies, readable by every process: an Airflow Variable."""

    def read(self) -> dict[str, Any] | None:
        """Return the stored record, None if there is none, an empty one if it is not a JSON object."""
        ...

    def write(self, record: dict[str, Any]) -> None:
        """Replace the stored record; when this returns, other processes read the new one."""
        ...


class LiveSession:
    """Connection, vault and store of one session, seen together.

    Args:
        app: what the process signs with.
        given: the Connection's credentials, or a function that reads them again.
        vault: the live session.
        store: leases and breakers.
        name: Connection id, for messages and the lease's owner.
        now: epoch seconds.
        sleep: waits, seconds.
    """

    def __init__(
        self,
        app: App,
        given: Credentials | Callable[[], Credentials],
        *,
        vault: Vault,
        store: Store,
        name: str,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._app = app
        self._given = given
        self._vault = vault
        self._store = store
        self._name = name
        self._now = now
        self._sleep = sleep

    def read_given(self) -> Credentials:
        """Return the Connection's credentials as they are now."""
        return self._given() if callable(self._given) else self._given

    def look(self) -> tuple[Credentials, TokenRecord]:
        """Read Connection and vault, and say which tokens count."""
        given = self.read_given()
        if (given.app_key, given.app_secret) != (self._app.app_key, self._app.app_secret):
            raise Transient(
                f"appKey or appSecret of Connection {self._name} was changed while this task was running",
                hint="The next try uses the new ones.",
            )
        stored = self._vault.read()
        record = TokenRecord.parsed(stored)
        if record is not None and record.fingerprint == given.fingerprint():
            return given, record
        if record is not None and record.has_tokens_of(given):
            return given, replace(record, fingerprint=given.fingerprint())
        # No record of these credentials: they are new, or a person deleted it to have them tried again.
        if stored is not None and record is None:
            log.warning("The stored session of %s is unreadable; its Connection counts.", self._name)
        if self._store.breaker(breaker_key(given)) and self._store.close_breaker(breaker_key(given)):
            log.warning("A person renewed the session of %s: trying it again.", self._name)
        return given, TokenRecord.adopted(given, now=self._now(), fence=record.fence if record else 0)

    def write(self, record: TokenRecord, lease: Lease) -> TokenRecord:
        """Store the record unless a newer one is there; return the one that is stored then."""
        with self._store.holding(lease):
            present = TokenRecord.parsed(self._vault.read())
            if present is not None and present.fence > lease.fence:
                return present
            self._vault.write(record.as_json())
        return record

    @contextmanager
    def leased(self, settled: Callable[[TokenRecord], bool], *, patience: float) -> Iterator[Lease | None]:
        """Hold the refresh lease; None if someone else settled the matter, or kept it beyond `patience`."""
        with ExitStack() as held:
            yield self._wait_for(held, settled, patience)

    def _wait_for(
        self, held: ExitStack, settled: Callable[[TokenRecord], bool], patience: float
    ) -> Lease | None:
        owner = f"{self._name}@{socket.gethostname()}:{os.getpid()}"
        waited = 0.0
        while True:
            record = self.look()[1]
            if waited and settled(record):
                return None
            lease = self._store.lease(
                lease_name(self._app.app_key), owner=owner, ttl_seconds=LEASE_SECONDS, above=record.fence
            )
            try:
                return held.enter_context(lease)
            except LeaseTaken:
                if waited >= patience:
                    return None
            self._sleep(_POLL_SECONDS)
            waited += _POLL_SECONDS
