"""Every error that this package raises, grouped by what the caller should do next.

```text
KuaimaiError
├── ConfigError     change a setting, then run again; the message names the field
├── SessionError    the session is unusable: a person must renew the credentials
├── Throttled       wait `retry_after` seconds (or back off), then send the same request again
├── Transient       the same request may succeed in a moment
│   └── TooSlow     no answer came in time: ask for a smaller window
├── Rejected        the gateway understood and refused; sending it again changes nothing
│   └── TooLarge    the answer would be too large: ask for a smaller page or window
└── DataError       the data cannot be trusted or stored as it is
```

Which gateway code becomes which error is one table, `kuaimai.gateway.codes`.
"""

from __future__ import annotations

from typing import Any


class KuaimaiError(Exception):
    """Root of all errors of this package.

    Attributes:
        method: API method that was called, if any.
        code: the gateway's own code as text, if it answered with one.
        trace_id: the gateway's request id, to be quoted to Kuaimai's support.
        hint: what the reader should do, one sentence.
    """

    def __init__(
        self,
        message: str,
        *,
        method: str | None = None,
        code: str | None = None,
        trace_id: str | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.method = method
        self.code = code
        self.trace_id = trace_id
        self.hint = hint

    def __str__(self) -> str:
        facts = [
            f"{name} {value}"
            for name, value in (("method", self.method), ("code", self.code), ("trace", self.trace_id))
            if value
        ]
        text = self.message + (f" [{', '.join(facts)}]" if facts else "")
        return f"{text} → {self.hint}" if self.hint else text

    def __reduce__(self) -> tuple[Any, ...]:
        # Errors cross process borders (task runner, XCom, pools); keyword-only facts must survive.
        return _rebuild, (type(self), self.message, self.__dict__.copy())


def _rebuild(kind: type[KuaimaiError], message: str, facts: dict[str, Any]) -> KuaimaiError:
    error = kind(message)
    error.__dict__.update(facts)
    return error


class ConfigError(KuaimaiError):
    """A setting, a Connection field or a pipeline key is wrong."""


class SessionError(KuaimaiError):
    """The session is expired, disabled or cannot be refreshed; retrying makes it worse."""


class Throttled(KuaimaiError):
    """Too many requests (HTTP 429 or a throttling text).

    Attributes:
        retry_after: seconds that the gateway asked to wait, or None.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, **facts: str | None) -> None:
        super().__init__(message, **facts)
        self.retry_after = retry_after


class Transient(KuaimaiError):
    """A disconnect, a timeout, a 5xx, an unreadable answer or a busy service."""


class TooSlow(Transient):
    """The connection stood, and no answer came within the time that was given."""


class Rejected(KuaimaiError):
    """The gateway refuses this request."""


class TooLarge(Rejected):
    """The answer would exceed the gateway's limit (about 8 MB)."""


class DataError(KuaimaiError):
    """Data that breaks what the catalogue promises, or that a target cannot store."""
