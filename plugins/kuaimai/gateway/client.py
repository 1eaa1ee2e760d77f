"""The client: a checked, paced, retried call with a session that can recover once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import tenacity

from kuaimai.errors import (
    ConfigError,
    KuaimaiError,
    Rejected,
    SessionError,
    Throttled,
    TooSlow,
    Transient,
)
from kuaimai.gateway import catalog
from kuaimai.gateway.answers import Answer
from kuaimai.gateway.budget import Spending
from kuaimai.gateway.wire import Params, Wire

# All catalogued data methods are reads, so repeating one is safe (reference section 5).
ATTEMPTS = 6
# A question that is too big stays too big, and each time it keeps the gateway busy for nothing.
SLOW_ATTEMPTS = 2
BACKOFF_BASE_SECONDS = 2.0
BACKOFF_CAP_SECONDS = 60.0
# The gateway refuses timestamps more than 10 minutes off; told well before that.
CLOCK_WARNING_SECONDS = 120.0


class SessionSource(Protocol):
    """Where the client gets its access token from; `kuaimai.gateway.session` keeps the real one."""

    def current(self) -> str:
        """Return the access token for the next call.

        Raises:
            SessionError: the circuit breaker is open.
        """
        ...

    def rejected(self, token: str, error: SessionError) -> str:
        """Return a token worth one more try after the gateway refused `token`.

        Raises:
            SessionError: there is none; the breaker is now open.
        """
        ...


class Client:
    """Calls catalogued methods. Safe to share between threads.

    Args:
        wire: sends one request.
        session: keeps the access token.
        budget: paces the requests, retries included.
        sleep: waits between attempts, seconds.
        attempts: how often one call is tried in all.
        on_retry: told about each failed attempt: the error, and the seconds until the next.
    """

    def __init__(
        self,
        wire: Wire,
        session: SessionSource,
        *,
        budget: Spending,
        sleep: Callable[[float], None] = time.sleep,
        attempts: int = ATTEMPTS,
        on_retry: Callable[[KuaimaiError, float], None] | None = None,
    ) -> None:
        self.wire = wire
        self.session = session
        self.budget = budget
        self.requests = 0
        self._counting = threading.Lock()
        self.clock_offset: float | None = None
        self._attempts = attempts
        self._on_retry = on_retry
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((Throttled, Transient)),
            stop=self._enough,
            wait=_wait,
            sleep=sleep,
            before_sleep=self._told,
            reraise=True,
        )

    def call(self, method: str, params: Params) -> Answer:
        """Call a method and return its answer.

        Args:
            method: a catalogued API method.
            params: business parameters.

        Raises:
            ConfigError: the catalogue does not allow the parameters.
            Rejected: refused, or answered with nothing where an empty list would say that there is nothing.
            KuaimaiError: what the last attempt ended with.
        """
        entry = catalog.method(method)
        entry.check(params)
        answer: Answer = self._retrying(self._attempt, method, params)
        if entry.is_unsaid(params, answer.body):
            # Taken for "no records", it would prove empty windows, and orders that live to be gone.
            raise Rejected(
                "the answer has neither a list nor a total, as if the appKey had lost its right",
                method=method,
                trace_id=answer.trace_id,
                hint="nothing was counted as read; run `kuaimai doctor`, and ask Kuaimai whether the appKey "
                "may still call this method",
            )
        return answer

    def _attempt(self, method: str, params: Mapping[str, Any]) -> Answer:
        token = self.session.current()
        try:
            return self._send(method, params, token)
        except SessionError as error:
            # One recovery, outside the retry loop's count: a dead session never becomes a storm.
            fresh = self.session.rejected(token, error)
        try:
            return self._send(method, params, fresh)
        except SessionError as error:
            # Refused again: the keeper opens the breaker now, not at somebody's next call.
            self.session.rejected(fresh, error)
            raise

    def _send(self, method: str, params: Mapping[str, Any], token: str) -> Answer:
        self.budget.spend()
        with self._counting:
            self.requests += 1
        try:
            answer = self.wire.send(method, params, session=token)
        except Throttled as error:
            self.budget.refused(error.retry_after)
            raise
        if answer.clock_offset is not None:
            self.clock_offset = answer.clock_offset
        return answer

    def _enough(self, state: tenacity.RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        most = min(SLOW_ATTEMPTS, self._attempts) if isinstance(error, TooSlow) else self._attempts
        return state.attempt_number >= most

    def _told(self, state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if self._on_retry and isinstance(error, KuaimaiError) and state.next_action:
            self._on_retry(error, state.next_action.sleep)


_backoff = tenacity.wait_random_exponential(multiplier=BACKOFF_BASE_SECONDS, max=BACKOFF_CAP_SECONDS)


def _wait(state: tenacity.RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = error.retry_after if isinstance(error, Throttled) else None
    return max(_backoff(state), asked or 0.0)


class FixedSession:
    """A session that is known and not refreshed: for a look by hand and for the REST form of the article."""

    def __init__(self, token: str) -> None:
        self._token = token

    def current(self) -> str:
        """Return the token."""
        if not self._token:
            raise ConfigError("there is no access token", hint="set access_token in the Connection's extra")
        return self._token

    def rejected(self, token: str, error: SessionError) -> str:  # noqa: ARG002 - the protocol's signature
        """There is nothing to recover with."""
        raise error
