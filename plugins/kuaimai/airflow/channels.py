"""Carries a message to the channels of the Connection `kuaimai_alerts`, through Apprise.

The addresses of chat robots are their passwords. Here is the only place that reads them, and while it works
nothing that Apprise or the HTTP library logs can show them.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from kuaimai.airflow.compat import AirflowNotFoundException, BaseHook, mask_secret
from kuaimai.airflow.messages import LANGUAGES, Language, one_line
from kuaimai.errors import ConfigError
from kuaimai.gateway.redaction import MASK

DEFAULT_CONN_ID = "kuaimai_alerts"
QUIET_MINUTES = 15.0

_EXAMPLE = '{"config": [{"path": "dingtalk://TOKEN"}], "language": "zh"}'
_LOGGERS = ("apprise", "urllib3.connectionpool")
# Of these schemes the host is an ordinary host name; of a chat robot's it is the token.
_ORDINARY_HOST = re.compile(r"^(https?|jsons?|xmls?|forms?|mailtos?)$")
_SHORTEST_SECRET = 5


@dataclass(frozen=True)
class AlertSettings:
    """What the Connection says.

    Attributes:
        addresses: Apprise addresses, tokens included.
        language: of the messages.
        quiet_seconds: how long further alerts of the same DAG and kind are folded into the first.
    """

    addresses: tuple[str, ...] = field(default=(), repr=False)
    language: Language = "zh"
    quiet_seconds: float = QUIET_MINUTES * 60


def alert_settings(conn_id: str) -> AlertSettings:
    """Return the settings in the Connection; its secrets are masked in Airflow's logs from now on.

    Raises:
        ConfigError: there is no such Connection, it cannot be read, or a field is malformed.
    """
    from airflow.providers.apprise.hooks.apprise import AppriseHook

    try:
        connection = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        raise ConfigError(
            f"no alert was sent, there is no Connection {conn_id}",
            hint=f"create it: type apprise, extra {_EXAMPLE} (docs/alerts.md)",
        ) from None
    except Exception as error:
        raise ConfigError(
            f"no alert was sent, Connection {conn_id} cannot be read ({type(error).__name__})",
            hint="check the API server, the secrets backend and the Fernet key",
        ) from error
    try:
        extra = connection.extra_dejson
        config = AppriseHook(conn_id).get_config_from_conn(connection)
        entries = config if isinstance(config, list) else [config]
        addresses = tuple(str(entry["path"]).strip() for entry in entries)
    except (KeyError, TypeError, ValueError, json.JSONDecodeError):
        # Not chained: the error of a JSON parser quotes the text, and that holds tokens.
        raise ConfigError(
            f"no alert was sent, Connection {conn_id} has no channels that can be read",
            hint=f"its extra should look like {_EXAMPLE} (docs/alerts.md)",
        ) from None
    for address in addresses:
        for secret in secrets_of(address):
            mask_secret(secret)
    return AlertSettings(addresses, _language(extra, conn_id), _quiet_seconds(extra, conn_id))


def _language(extra: Mapping[str, Any], conn_id: str) -> Language:
    language = extra.get("language") or "zh"
    if language not in LANGUAGES:
        raise ConfigError(
            f"no alert was sent, Connection {conn_id}: language {language!r} is not known",
            hint=f"write one of {', '.join(LANGUAGES)}",
        )
    return cast("Language", language)


def _quiet_seconds(extra: Mapping[str, Any], conn_id: str) -> float:
    minutes = extra.get("quiet_minutes", QUIET_MINUTES)
    try:
        return max(float(minutes), 0.0) * 60
    except (TypeError, ValueError):
        raise ConfigError(
            f"no alert was sent, Connection {conn_id}: quiet_minutes is not a number: {minutes!r}",
            hint="write a number of minutes, such as 15",
        ) from None


def secrets_of(address: str) -> frozenset[str]:
    """Return the parts of an Apprise address that open its channel; long enough to be worth masking."""
    scheme, _, rest = address.partition("://")
    parts = urlsplit(f"//{rest}")
    found = {address, rest, *re.split(r"[/?&=;,\s]", parts.path), *re.split(r"[/?&=;,\s]", parts.query)}
    found.update(address.split())  # Apprise takes blanks for the gaps of a list
    account, _, host = parts.netloc.rpartition("@")
    found.update(account.split(":"))
    if not _ORDINARY_HOST.match(scheme.lower()):
        found.add(host)
    found |= {unquote(each) for each in found}
    return frozenset(each for each in found if len(each) >= _SHORTEST_SECRET)


def deliver(
    settings: AlertSettings,
    title: str,
    body: str,
    *,
    severe: bool,
    sleep: Callable[[float], None],
    log: Callable[[str], None],
) -> bool:
    """Send a message to every channel; one that does not answer is tried once more.

    Args:
        settings: the channels.
        title: one line.
        body: the lines below.
        severe: whether somebody should act now.
        sleep: waits that many seconds.
        log: is told in one line about each channel that could not be reached.

    Returns:
        Whether at least one channel took it.
    """
    waiting = list(enumerate(settings.addresses, start=1))
    for pause in (3.0, None):
        waiting = [each for each in waiting if not _send(each[1], title, body, severe=severe)]
        if waiting and pause is not None:
            sleep(pause)
    for number, address in waiting:
        scheme = one_line(address.partition("://")[0]) if "://" in address else "no scheme"
        log(f"channel {number} ({scheme}) did not take the alert; check its address and the network")
    return len(waiting) < len(settings.addresses)


def try_channels(conn_id: str = DEFAULT_CONN_ID) -> tuple[str, list[str]]:
    """Send a test message to every channel; return how many took it, and what is wrong with the others.

    Raises:
        ConfigError: the Connection is missing or malformed.
    """
    settings = alert_settings(conn_id)
    troubles: list[str] = []
    deliver(
        settings,
        "✅ kuaimai 测试 / test",
        "告警通道可用。\nAlerts of the Kuaimai DAGs will arrive here.",
        severe=False,
        sleep=time.sleep,
        log=troubles.append,
    )
    channels = len(settings.addresses)
    return f"{channels - len(troubles)} of {channels} channels took it", troubles


def _send(address: str, title: str, body: str, *, severe: bool) -> bool:
    import apprise

    with _discreet(secrets_of(address)):
        try:
            channel = apprise.Apprise()
            return channel.add(address) and bool(
                channel.notify(
                    body=body,
                    title=title,
                    notify_type=apprise.NotifyType.FAILURE if severe else apprise.NotifyType.WARNING,
                    body_format=apprise.NotifyFormat.TEXT,
                )
            )
        except Exception:  # noqa: BLE001 - one broken channel must not keep the others from hearing
            return False


@contextmanager
def _discreet(secrets: frozenset[str]) -> Iterator[None]:
    # Both libraries write whole addresses at level DEBUG, Apprise also in warnings about malformed ones.
    def harmless(record: logging.LogRecord) -> bool:
        if record.levelno < logging.INFO:
            return False
        text = record.getMessage()
        for secret in sorted(secrets, key=len, reverse=True):
            text = text.replace(secret, MASK)
        record.msg, record.args = text, None
        return True

    loggers = [logging.getLogger(name) for name in _LOGGERS]
    for logger in loggers:
        logger.addFilter(harmless)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(harmless)
