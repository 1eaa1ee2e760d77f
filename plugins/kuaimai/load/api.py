"""A write API as its user describes it: one request, and what its answer says about every record in it."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from traceback import walk_tb
from typing import Any, Literal
from urllib.parse import quote

import msgspec
import requests
from urllib3.exceptions import NewConnectionError

from kuaimai.errors import ConfigError, KuaimaiError, Rejected, Throttled, Transient
from kuaimai.gateway.answers import decode_json, encode_json
from kuaimai.gateway.redaction import redact_text

_LONGEST_REASON = 300
_MOST_PATIENCE = 3600.0


@dataclass(frozen=True)
class RowAnswers:
    """Where the answer says what became of records; see `kuaimai.pipeline.outlets.Answers`."""

    rows: str = ""
    success: str = "success"
    accepted: tuple[bool | int | str, ...] = (True,)
    message: str = "message"
    index: str | None = None


@dataclass(frozen=True)
class WriteApi:
    """A write API; see `kuaimai.pipeline.outlets.HttpOutlet` for what each setting means.

    Attributes:
        url: where records are posted.
        token: Bearer token; empty for none.
        rows: records in a request.
        rows_key: key of the list; empty where the record itself is the body.
        body: what stands beside the list.
        id_check: a record is sent once only.
        in_doubt: what is done where nobody knows whether a record was taken.
        ask_url: with `{key}`: where to ask for a record.
        answers: where the answer says what was taken; None: only `success: false` is a refusal.
        timeout: seconds.
        tries: how often a request is sent in one load.
        verify: TLS verification, or the path of a CA bundle.
        proxies: by scheme, as `requests` wants them.
    """

    url: str
    token: str = field(default="", repr=False)
    rows: int = 1
    rows_key: str = ""
    body: Mapping[str, Any] = field(default_factory=dict)
    id_check: bool = False
    in_doubt: Literal["hold", "resend", "ask"] = "hold"
    ask_url: str = ""
    answers: RowAnswers | None = None
    timeout: float = 30.0
    tries: int = 3
    verify: bool | str = True
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)


class Verdict(msgspec.Struct, frozen=True):
    """What the API said about one record: taken or not, why not, and the answer itself as JSON."""

    taken: bool
    reason: str = ""
    answer: bytes = b""


class Unknown(KuaimaiError):
    """The request went out, and nobody knows what became of it."""


class Writer:
    """Posts records and asks for them.

    Args:
        api: the API.
        transport: sends the requests.
        spend: waits for room in the budget.
    """

    def __init__(
        self, api: WriteApi, *, transport: requests.Session, spend: Callable[[], None] = lambda: None
    ) -> None:
        self.api = api
        self._transport = transport
        self._spend = spend

    def post(self, bodies: Sequence[bytes], request: str) -> list[Verdict]:
        """Send records in one request; return a verdict for each, in their order.

        Args:
            bodies: the records as JSON.
            request: the request's own key, the same when the same records are sent again.

        Raises:
            Rejected: the API refuses the request as a whole (HTTP 400, 409, 413, 422, or its answer says so).
            Throttled: HTTP 429 or 503; nothing was taken.
            Transient: no connection; nothing was taken.
            ConfigError: the token or the address is wrong; nothing was taken.
            Unknown: no answer, or one that does not say what became of the records.
        """
        response = self._send("POST", self.api.url, self._whole(bodies), {"Idempotency-Key": request})
        if not response.ok or response.is_redirect:
            raise self._refusal(response)
        if self.api.answers is not None and self.api.answers.rows:
            return self._verdicts(self.api.answers, response, len(bodies))
        return self._one_verdict(response, len(bodies))

    def has(self, key: str) -> bool:
        """Ask whether the API has a record.

        Raises:
            KuaimaiError: it does not say.
        """
        url = self.api.ask_url.replace("{key}", quote(key, safe=""))
        response = self._send("GET", url, None, {})
        if response.ok and not response.is_redirect:
            if _says_no(_decoded(response.content)):
                raise ConfigError(
                    f"{place_of(url)}: HTTP {response.status_code}, but its answer says success: false",
                    hint="ask_path has to answer 404 where a record is not there",
                )
            return True
        if response.status_code == 404:  # noqa: PLR2004 - HTTP's own number
            return False
        raise self._refusal(response)

    def _send(self, verb: str, url: str, body: bytes | None, headers: dict[str, str]) -> requests.Response:
        self._spend()
        if self.api.token:
            headers = {**headers, "Authorization": f"Bearer {self.api.token}"}
        if body is not None:
            headers = {**headers, "Content-Type": "application/json; charset=utf-8"}
        try:
            return self._transport.request(
                verb,
                url,
                data=body,
                headers=headers,
                timeout=self.api.timeout,
                verify=self.api.verify,
                proxies=dict(self.api.proxies),
                allow_redirects=False,
            )
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema) as err:
            raise ConfigError(f"{place_of(url)} is no address that can be called") from err
        except requests.RequestException as err:
            # A transport error can quote what was sent: only its kind is named.
            told = f"{place_of(url)}: {type(err).__name__}"
            if _never_sent(err):
                raise Transient(
                    f"{told}, nothing was sent", hint="check that the API runs and its address"
                ) from None
            raise Unknown(f"{told} after the request was sent") from None

    def _whole(self, bodies: Sequence[bytes]) -> bytes:
        if not self.api.rows_key:
            (single,) = bodies
            return single
        rows = [msgspec.Raw(one) for one in bodies]
        return msgspec.json.encode({**self.api.body, self.api.rows_key: rows})

    def _refusal(self, response: requests.Response) -> KuaimaiError:
        status, place = response.status_code, place_of(response.url)
        if status in (408, 429, 503):
            return Throttled(f"{place}: HTTP {status}", retry_after=_retry_after(response))
        if status in (401, 403):
            return ConfigError(
                f"{place}: HTTP {status}, the API refuses the token",
                hint="check the password of the Connection",
            )
        if status in (400, 409, 413, 422):
            return Rejected(f"HTTP {status}: {self._reason(response.text)}", code=str(status))
        if status >= 500:  # noqa: PLR2004 - HTTP's own numbers
            return Unknown(f"{place}: HTTP {status}")
        return ConfigError(
            f"{place}: HTTP {status}, this address does not take records",
            hint="check host of the Connection and path of the target",
        )

    def _one_verdict(self, response: requests.Response, many: int) -> list[Verdict]:
        """Read what the answer says of the whole request; a list that is refused is like one by HTTP 400."""
        shape, said = self.api.answers, _decoded(response.content)
        if shape is None and self.api.rows_key and isinstance(said, list) and len(said) == many:
            return [self._unless_it_says_no(one) for one in said]
        if shape is None:
            taken = not _says_no(said)
        else:
            verdict = _at(said, shape.success)
            if verdict is None:
                raise Unknown(f"{place_of(response.url)}: the answer has no verdict at {shape.success!r}")
            taken = verdict in shape.accepted
        if taken:
            return [Verdict(taken=True, answer=response.content)] * many
        told = _at(said, shape.message if shape else "message")
        reason = self._reason(str(told or response.text))
        if many > 1:
            raise Rejected(reason, code=str(response.status_code))
        return [Verdict(taken=False, reason=reason)]

    def _unless_it_says_no(self, entry: Any) -> Verdict:
        if _says_no(entry):
            return Verdict(taken=False, reason=self._reason(str(_at(entry, "message") or "refused")))
        return Verdict(taken=True, answer=encode_json(entry))

    def _verdicts(self, shape: RowAnswers, response: requests.Response, many: int) -> list[Verdict]:
        place = place_of(response.url)
        try:
            found: Any = decode_json(response.content)
            for name in shape.rows.split("."):
                found = found[name]
            entries = {
                int(one[shape.index]) if shape.index else position: one for position, one in enumerate(found)
            }
            return [self._verdict(shape, entries.get(at)) for at in range(many)]
        except (LookupError, TypeError, ValueError, AttributeError):
            if _says_no(_decoded(response.content)):
                raise Rejected(self._reason(response.text), code=str(response.status_code)) from None
            raise Unknown(f"{place}: the answer has no verdicts under {shape.rows!r}") from None

    def _verdict(self, shape: RowAnswers, entry: Any) -> Verdict:
        if entry is None:
            return Verdict(taken=False, reason="the answer does not speak of this record")
        if _at(entry, shape.success) in shape.accepted:
            return Verdict(taken=True, answer=encode_json(entry))
        return Verdict(taken=False, reason=self._reason(str(_at(entry, shape.message) or "refused")))

    def _reason(self, text: str) -> str:
        return redact_text(" ".join(text.split()), [self.api.token])[:_LONGEST_REASON]


def place_of(url: str) -> str:
    """Return what an address is called in messages: nothing of it may be a secret."""
    return f"write API {url.split('?', maxsplit=1)[0].rpartition('@')[2]}"


def _decoded(content: bytes) -> Any:
    try:
        return decode_json(content)
    except ValueError:
        return None


def _at(found: Any, path: str) -> Any:
    """Return what stands at a path with dots; None where nothing does."""
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _says_no(said: Any) -> bool:
    """Whether an answer is an object with `success: false`: many APIs say so with HTTP 200."""
    return _at(said, "success") is False


def _never_sent(err: requests.RequestException) -> bool:
    if isinstance(err, requests.exceptions.ConnectTimeout):
        return True
    reason = getattr(err.args[0] if err.args else None, "reason", None)
    if isinstance(err, requests.exceptions.SSLError):
        return _in_handshake(reason)
    return isinstance(reason, NewConnectionError)


def _in_handshake(reason: Any) -> bool:
    """Whether TLS failed before there was anything to send by; later it breaks with what was sent."""
    cause = reason.args[0] if isinstance(reason, Exception) and reason.args else None
    if isinstance(cause, ssl.SSLCertVerificationError):
        return True
    frames = walk_tb(cause.__traceback__) if isinstance(cause, ssl.SSLError) else ()
    return any(frame.f_code.co_name == "do_handshake" for frame, _ in frames)


def _retry_after(response: requests.Response) -> float | None:
    try:
        seconds = float(response.headers["Retry-After"])
    except (KeyError, ValueError):
        return None
    return seconds if 0 <= seconds < _MOST_PATIENCE else None
