"""Reads a Kuaimai Connection: every field checked, every secret masked, unknown ones refused."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlsplit

from kuaimai.airflow.compat import mask_secret
from kuaimai.airflow.provider_info import CONNECTION_FIELDS
from kuaimai.errors import ConfigError
from kuaimai.gateway.session import Credentials
from kuaimai.gateway.signing import SignMethod
from kuaimai.gateway.wire import DEFAULT_URL, Dialect

DEFAULT_REQUESTS_PER_SECOND = 5.0
CONNECT_SECONDS, READ_SECONDS = 10.0, 90.0

_TRUTHS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
# Airflow's form of type HTTP writes this one by itself; unset it means nothing.
_HARMLESS_IF_UNSET = ("srv_lookup",)


@dataclass(frozen=True)
class GatewaySettings:
    """A Connection's meaning.

    Attributes:
        url: the gateway, with scheme.
        credentials: the four.
        sign_method: how requests are signed.
        requests_per_second: the appKey's budget.
        timeout: seconds to connect, seconds to wait for the next byte.
        verify: TLS verification, or the path of a CA bundle.
        proxies: by scheme, as `requests` wants them.
        dialect: the wire form.
    """

    url: str
    credentials: Credentials
    sign_method: SignMethod = "hmac-sha256"
    requests_per_second: float = DEFAULT_REQUESTS_PER_SECOND
    timeout: tuple[float, float] = (CONNECT_SECONDS, READ_SECONDS)
    verify: bool | str = True
    proxies: dict[str, str] = field(default_factory=dict, repr=False)
    dialect: Dialect = "router"

    @classmethod
    def of(cls, connection: Any) -> GatewaySettings:
        """Return the settings in an Airflow Connection of any type.

        Raises:
            ConfigError: a field is missing or malformed; the message names it.
        """
        for secret in (connection.login, connection.password, connection.extra):
            if secret:
                mask_secret(secret)
        reader = _Reader(connection.conn_id, _extra(connection))
        url = _url(connection, reader)
        credentials = Credentials(
            app_key=reader.needed("login", connection.login, "the appKey from Kuaimai's mail"),
            app_secret=reader.needed("password", connection.password, "the appSecret from Kuaimai's mail"),
            access_token=reader.needed(
                "access_token", reader.text("access_token"), "the accessToken from Kuaimai's mail"
            ),
            refresh_token=reader.needed(
                "refresh_token", reader.text("refresh_token"), "the refreshToken from Kuaimai's mail"
            ),
        )
        return cls(
            url=url,
            credentials=credentials,
            sign_method=cast("SignMethod", reader.choice("sign_method", "hmac-sha256")),
            requests_per_second=reader.positive("requests_per_second") or DEFAULT_REQUESTS_PER_SECOND,
            timeout=reader.timeout(),
            verify=reader.verify(),
            proxies=reader.proxies(),
            dialect=cast("Dialect", reader.choice("dialect", "router")),
        )


class _Reader:
    """The extra fields of one Connection; every complaint names Connection and field."""

    def __init__(self, conn_id: str, extra: dict[str, Any]) -> None:
        self._conn_id = conn_id
        self._extra = extra
        for name in extra:
            if name not in CONNECTION_FIELDS:
                near = difflib.get_close_matches(name, CONNECTION_FIELDS, 1)
                self.refuse(
                    f"extra field {name!r} is unknown",
                    f"Did you mean {near[0]!r}?" if near else f"Known are: {', '.join(CONNECTION_FIELDS)}.",
                )
        for name in ("access_token", "refresh_token"):
            if extra.get(name):
                mask_secret(str(extra[name]))

    def refuse(self, what: str, hint: str) -> Any:
        raise ConfigError(f"Connection {self._conn_id}: {what}", hint=hint)

    def needed(self, name: str, value: Any, what: str) -> str:
        text = value.strip() if isinstance(value, str) else ""
        return text or self.refuse(f"{name} is empty", f"Fill in {what}.")

    def text(self, name: str) -> str:
        value = self._extra.get(name, "")
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)  # a Connection URI turns digits into a number
        if not isinstance(value, str):
            self.refuse(f"{name} is not a text", "Put it in quotes.")
        return cast("str", value).strip()

    def choice(self, name: str, default: str) -> str:
        value = self.text(name) or default
        known: list[str] = CONNECTION_FIELDS[name]["schema"]["enum"]
        if value not in known:
            self.refuse(f"{name} {value!r} is unknown", f"Use {', '.join(known[:-1])} or {known[-1]}.")
        return value

    def positive(self, name: str, value: Any = None) -> float | None:
        value = self._extra.get(name) if value is None else value
        if value is None:
            return None
        try:
            number = math.nan if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not (math.isfinite(number) and number > 0):
            self.refuse(
                f"{name} {value!r} is not a number above 0", "Write a number such as 5, or leave it out."
            )
        return number

    def timeout(self) -> tuple[float, float]:
        value = self._extra.get("timeout")
        if isinstance(value, (list, tuple)):
            if len(value) != 2:  # noqa: PLR2004 - connect and read
                self.refuse(f"timeout {value!r} is no pair", "Write [connect seconds, read seconds].")
            connect, read = (self.positive("timeout", each) or 0.0 for each in value)
            return connect, read
        read = self.positive("timeout") or READ_SECONDS
        return min(CONNECT_SECONDS, read), read

    def verify(self) -> bool | str:
        value = self._extra.get("verify")
        if value is None or isinstance(value, bool):
            return value is not False
        if not isinstance(value, str):
            self.refuse(f"verify {value!r} is not understood", "Use true, false, or the path of a CA bundle.")
        text = str(value)
        return _TRUTHS.get(text.lower(), text)

    def proxies(self) -> dict[str, str]:
        value = self._extra.get("proxies")
        if isinstance(value, str) and value.lstrip().startswith("{"):
            try:
                value = json.loads(value)
            except ValueError:
                self.refuse("proxies is not valid JSON", 'Write {"https": "http://proxy:3128"} or a URL.')
        if isinstance(value, str):
            value = {"http": value, "https": value}
        if value is None:
            return {}
        if not isinstance(value, Mapping) or not all(
            isinstance(k, str) and isinstance(v, str) and "://" in v for k, v in value.items()
        ):
            self.refuse(
                "proxies does not name a URL for each scheme",
                'Write {"https": "http://proxy:3128"} or a URL.',
            )
        for address in value.values():
            password = urlsplit(address).password
            if password:
                mask_secret(password)
        return dict(value)


def _extra(connection: Any) -> dict[str, Any]:
    """Return the extra fields that are set; an empty one in a form means "not set"."""
    text = connection.extra
    if not text or not text.strip():
        return {}
    try:
        extra = json.loads(text)
    except ValueError:
        extra = None
    if not isinstance(extra, dict):
        raise ConfigError(
            f"Connection {connection.conn_id}: extra is not a JSON object",
            hint='Write {"access_token": "…", "refresh_token": "…"}.',
        ) from None
    # Older forms write extra__<type>__<field>.
    plain = {str(name).removeprefix("extra__kuaimai__"): value for name, value in extra.items()}
    return {
        name: value
        for name, value in plain.items()
        if value not in (None, "") and not (name in _HARMLESS_IF_UNSET and not value)
    }


def _url(connection: Any, reader: _Reader) -> str:
    host = (connection.host or "").strip()
    if not host:
        return DEFAULT_URL
    parts = urlsplit(host)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        reader.refuse(f"host {host!r} is not a URL", f"Write it with its scheme, such as {DEFAULT_URL}.")
    if parts.query or parts.fragment or parts.username or parts.password:
        reader.refuse("host is more than an address", f"Write only scheme, host and path: {DEFAULT_URL}.")
    path = parts.path
    # An AIRFLOW_CONN_… URI, which is also what the form's Test button makes, moves the path into the schema.
    if connection.schema and connection.schema not in ("http", "https") and path in ("", "/"):
        path = f"/{connection.schema.lstrip('/')}"
    place = parts.netloc
    if connection.port and not parts.port:
        place = f"{parts.hostname}:{connection.port}"
    return f"{parts.scheme}://{place}{path}"
