"""One request, one answer: sign, send, read, map the error. Retrying is the client's business."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any, Literal

import requests
from urllib3.exceptions import ReadTimeoutError

from kuaimai.errors import ConfigError, Throttled, TooSlow, Transient
from kuaimai.gateway.answers import Answer, read_envelope, trace_id
from kuaimai.gateway.clock import gateway_time
from kuaimai.gateway.codes import error_in
from kuaimai.gateway.redaction import redact_text, secret_values
from kuaimai.gateway.signing import SignMethod, signature

DEFAULT_URL = "https://gw.superboss.cc/router"
PROTOCOL_VERSION = "1.0"

# Answers are read in as few pieces as they come in: `response.content` would take 10 kB at a time.
_READ_BYTES = 1 << 20

Dialect = Literal["router", "rest"]
Params = Mapping[str, "str | int | bool"]


@dataclass(frozen=True)
class App:
    """The application's own credentials, as mailed by Kuaimai."""

    app_key: str
    app_secret: str = field(repr=False)
    sign_method: SignMethod = "hmac-sha256"


class Wire:
    """Sends single requests to the gateway.

    Args:
        app: the application's credentials.
        url: the gateway's URL.
        transport: sends the POST; keeps connections alive, and holds proxies and TLS settings.
        dialect: `router` is the real protocol; `rest` is the form printed in the seed article,
            JSON POST to `{url}/{method}` with a Bearer session.
        timeout: seconds to connect, seconds to wait for the next byte.
        now: clock, epoch seconds.
    """

    def __init__(
        self,
        app: App,
        *,
        url: str,
        transport: requests.Session,
        dialect: Dialect = "router",
        timeout: tuple[float, float] = (10.0, 90.0),
        now: Callable[[], float] = time.time,
    ) -> None:
        self.app = app
        self.url = url
        self.transport = transport
        self.dialect = dialect
        self.timeout = timeout
        self.now = now

    def send(self, method: str, params: Params, *, session: str) -> Answer:
        """Send one request and return its answer; timestamp and signature are made anew each time.

        Args:
            method: API method, e.g. `erp.trade.list.query`.
            params: business parameters; booleans are sent as `true`/`false`.
            session: the access token.

        Raises:
            Throttled: HTTP 429, or a throttling text.
            TooSlow: the connection stood, and no answer came in time.
            Transient: no connection, 5xx, or an answer that is not a JSON object.
            Rejected: the gateway refuses the request.
            SessionError: the gateway refuses the session.
            ConfigError: a parameter is empty, or the host is no gateway.
        """
        fields = {name: as_text(name, value) for name, value in params.items()}
        try:
            if self.dialect == "rest":
                request = requests.Request(
                    "POST",
                    f"{self.url.rstrip('/')}/{method}",
                    json=fields,
                    headers={"Authorization": f"Bearer {session}"} if session else {},
                )
            else:
                request = requests.Request(
                    "POST",
                    self.url,
                    data=self._signed(method, fields, session),
                    headers={"Content-Type": "application/x-www-form-urlencoded;charset=UTF-8"},
                )
            with self.transport.send(
                self.transport.prepare_request(request),
                timeout=self.timeout,
                allow_redirects=False,
                **self._environment,
            ) as response:
                raw = b"".join(response.iter_content(_READ_BYTES))
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as err:
            raise ConfigError(
                f"the Connection's host is not a URL that can be called: {self.url!r}",
                hint=f"set host to {DEFAULT_URL}",
            ) from err
        except requests.exceptions.ReadTimeout as err:
            raise TooSlow(self._transport_text(err), method=method) from None
        except requests.RequestException as err:
            # A body that stops in the middle is told as a broken connection, with the time-out inside.
            if any(isinstance(cause, ReadTimeoutError) for cause in err.args):
                raise TooSlow(f"the answer stopped for {self.timeout[1]:g} s", method=method) from None
            raise Transient(self._transport_text(err), method=method) from None
        _check_status(method, response)
        body = read_envelope(method, raw)
        error = error_in(method, body)
        if error is not None:
            hidden = secret_values({**fields, "session": session, "appSecret": self.app.app_secret})
            error.message = redact_text(error.message, hidden)
            error.hint = redact_text(error.hint, hidden) if error.hint else None
            error.args = (error.message,)
            raise error
        return Answer(method, body, raw, trace_id(body), self._clock_offset(response))

    @cached_property
    def _environment(self) -> dict[str, Any]:
        """Proxies and TLS settings: the transport's own, else those of the environment.

        `post` would look them up at each request, and let the environment's come first.
        """
        own = self.transport
        return dict(
            own.merge_environment_settings(
                self.url, dict(own.proxies), stream=True, verify=own.verify, cert=own.cert
            )
        )

    def _signed(self, method: str, fields: dict[str, str], session: str) -> dict[str, str]:
        common = {
            "method": method,
            "appKey": self.app.app_key,
            "session": session,
            "timestamp": gateway_time(self.now()),
            "version": PROTOCOL_VERSION,
            "format": "json",
            "sign_method": self.app.sign_method,
        }
        clash = common.keys() & fields.keys()
        if clash:
            raise ConfigError(f"parameter {min(clash)!r} belongs to the protocol", method=method)
        signed = {**fields, **common}
        signed["sign"] = signature(signed, self.app.app_secret, self.app.sign_method)
        return signed

    def _transport_text(self, err: requests.RequestException) -> str:
        # A transport error can quote the request (a proxy URL with its password): name only the kind.
        kind = {
            requests.exceptions.ConnectTimeout: f"no connection within {self.timeout[0]:g} s",
            requests.exceptions.ReadTimeout: f"no answer within {self.timeout[1]:g} s",
            requests.exceptions.ProxyError: "the proxy refused the connection",
            requests.exceptions.SSLError: "the TLS connection failed (certificate or proxy)",
        }.get(type(err))
        return f"{kind or f'the connection broke ({type(err).__name__})'} at {self.url.split('?')[0]}"

    def _clock_offset(self, response: requests.Response) -> float | None:
        try:
            return parsedate_to_datetime(response.headers["Date"]).timestamp() - self.now()
        except (KeyError, TypeError, ValueError):
            return None


def _check_status(method: str, response: requests.Response) -> None:
    status = response.status_code
    if status == 429:  # noqa: PLR2004 - the one status that is documented by measurement
        raise Throttled("HTTP 429, too many requests", method=method, retry_after=_retry_after(response))
    if status >= 500 or status in (408, 425):  # noqa: PLR2004 - HTTP's own numbers
        raise Transient(f"HTTP {status} from the gateway", method=method)
    if status != 200:  # noqa: PLR2004
        raise ConfigError(
            f"HTTP {status}: this address does not answer like the gateway",
            method=method,
            hint=f"check the Connection's host; the gateway is {DEFAULT_URL}",
        )


def _retry_after(response: requests.Response) -> float | None:
    try:
        seconds = float(response.headers["Retry-After"])
    except (KeyError, ValueError):
        return None
    return seconds if 0 <= seconds < 3600 else None  # noqa: PLR2004 - beyond an hour it is no advice


def as_text(name: str, value: str | int | bool) -> str:  # noqa: FBT001 - a value, not a switch
    """Return a parameter exactly as it is signed and sent.

    Raises:
        ConfigError: the value is empty; whether the gateway signs empty values is not documented.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)
    if not text:
        raise ConfigError(f"parameter {name!r} is empty", hint="leave the parameter out instead")
    return text
