"""Whether a write API is there, asked without a record: by OPTIONS, which changes nothing.

Its name, port, TLS and path answer, or one line says which of them does not. What an API says to OPTIONS is a
hint, not a promise: only a record shows whether it takes records.
"""

from __future__ import annotations

import socket

import msgspec
import requests
from urllib3.exceptions import NewConnectionError

from kuaimai.errors import ConfigError, KuaimaiError, Transient
from kuaimai.load.api import WriteApi, place_of

# Seconds for a connection, and as many for its answer.
_LONGEST = 10.0
_LONGEST_ALLOW = 100
_LOOK_AT_PATH = "check host of the Connection and path of the target"
_LOOK_AT_API = "look whether the API runs"
_SHOWS_LATER = "whether it takes a record shows with the first one"
_BUSY = ("it is too busy to say more", "look again; loads wait by themselves")
# What else an answer means, and what to look at; nothing where all is well.
_MEANS: dict[int, tuple[str, str | None]] = {
    403: ("it refuses the token, or OPTIONS", "check the password of the Connection"),
    404: ("nothing is there, or nothing that takes OPTIONS", _LOOK_AT_PATH),
    405: (f"it is there, though it takes no OPTIONS; {_SHOWS_LATER}", None),
    408: _BUSY,
    410: ("nothing is there any more", _LOOK_AT_PATH),
    429: _BUSY,
    501: (f"a server is there that knows no OPTIONS; {_SHOWS_LATER}", None),
    503: _BUSY,
}
_REFUSED_TOKEN = 401
_NO_SUCH_VERB = 405
_BROKEN = 500


class Reached(msgspec.Struct, frozen=True):
    """What an address answered.

    Attributes:
        text: the address and its answer, in one line.
        advice: what to look at where the answer does not speak for the address; None: it does.
    """

    text: str
    advice: str | None = None


def reach(api: WriteApi, transport: requests.Session) -> Reached:
    """Ask an API what it takes; wait ten seconds at most for a connection, and for the answer.

    Raises:
        ConfigError: it is no address, its TLS fails, it leads elsewhere, or it refuses the token.
        Transient: its name is not known, nobody listens there, or no answer comes.
    """
    seconds = min(api.timeout, _LONGEST)
    try:
        response = transport.request(
            "OPTIONS",
            api.url,
            headers={"Authorization": f"Bearer {api.token}"} if api.token else {},
            timeout=seconds,
            verify=api.verify,
            proxies=dict(api.proxies),
            allow_redirects=False,
            stream=True,  # only the head of the answer is looked at
        )
    except requests.RequestException as err:
        raise _unreachable(place_of(api.url), err, seconds) from None
    response.close()
    return _read(place_of(api.url), response)


def _read(place: str, response: requests.Response) -> Reached:
    status = response.status_code
    told = f"{place}: HTTP {status} to OPTIONS"
    if response.is_redirect:
        raise ConfigError(
            f"{told}: it leads to {place_of(response.headers['Location'])}, and records do not follow",
            hint="write the address that takes them into the Connection and the target's path",
        )
    if status == _REFUSED_TOKEN:
        raise ConfigError(f"{told}: it refuses the token", hint="check the password of the Connection")
    takes = response.headers.get("Allow", "").upper()[:_LONGEST_ALLOW]
    if takes and "POST" not in takes and (response.ok or status == _NO_SUCH_VERB):
        return Reached(f"{told}: it takes {takes}, and no POST", _LOOK_AT_PATH)
    if response.ok:
        return Reached(f"{told}: it is there; {_SHOWS_LATER}")
    broken = ("the API, or a proxy before it, is broken", _LOOK_AT_API)
    other = broken if status >= _BROKEN else ("this says nothing about records", _LOOK_AT_PATH)
    means, advice = _MEANS.get(status, other)
    return Reached(f"{told}: {means}", advice)


def _unreachable(place: str, err: requests.RequestException, seconds: float) -> KuaimaiError:
    """Return how far it came. A transport error can quote a secret, a proxy's password: it is not quoted."""
    reason = getattr(err.args[0] if err.args else None, "reason", None)
    if isinstance(err, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
        return ConfigError(f"{place} is no address that can be called", hint=_LOOK_AT_PATH)
    if isinstance(err, requests.exceptions.SSLError):
        cause = reason.args[0] if isinstance(reason, Exception) and reason.args else None
        why = getattr(cause, "verify_message", None) or getattr(cause, "reason", None) or "it broke"
        return ConfigError(
            f"{place}: somebody listens, and TLS fails: {why}",
            hint="check http or https; a CA of your own goes as `verify` into the Connection's extra",
        )
    how, hint = "nobody listens there", "check host and port; does the API run?"
    if isinstance(err, requests.exceptions.ProxyError):
        how, hint = "the proxy does not let it through", "check `proxies` in the Connection's extra"
    elif isinstance(err, requests.exceptions.ConnectTimeout):
        how, hint = f"no connection within {seconds:g} s", "check host and port, and firewalls"
    elif isinstance(err, requests.exceptions.ReadTimeout):
        how, hint = f"connected, and no answer within {seconds:g} s", _LOOK_AT_API
    elif not isinstance(reason, NewConnectionError):
        how, hint = f"the connection broke ({type(err).__name__})", _LOOK_AT_API
    # urllib3 1 has no error of its own for names.
    elif isinstance(reason.__cause__ or reason.__context__, socket.gaierror):
        how, hint = "its name is not known here", "check host, and this machine's DNS"
    return Transient(f"{place}: {how}", hint=hint)
