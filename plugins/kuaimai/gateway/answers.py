"""Reading an answer: tolerant of every envelope that was documented or seen, lossless in its numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec

from kuaimai.errors import DataError, Transient

# float_hook: a JSON number like 21.5 becomes Decimal("21.5"); integers of any size stay exact.
_decoder = msgspec.json.Decoder(float_hook=Decimal)
# Checks the whole text, but makes nothing of the members: seven eighths of decoding a page are saved.
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_encoder = msgspec.json.Encoder(decimal_format="number")


def decode_json(raw: bytes | msgspec.Raw) -> Any:
    """Return the JSON value in `raw`; fractions as `Decimal`, integers exact.

    Characters that strict JSON forbids are let through; the fields they are in decide about them.

    Raises:
        ValueError: the bytes are not JSON, for example cut off in the middle.
    """
    try:
        return _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # One broken character (half an emoji, a raw line break, a bad byte) must not hide a whole page.
        text = bytes(raw).decode("utf-8-sig", "replace")
        try:
            return json.loads(text, parse_float=Decimal, parse_constant=_refuse, strict=False)
        except RecursionError as err:
            raise ValueError("the JSON is nested too deeply") from err


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def encode_json(value: Any) -> bytes:
    """Return `value` as JSON, the inverse of `decode_json`: a `Decimal` is written as a number."""
    try:
        return _encoder.encode(value)
    except UnicodeEncodeError:
        # Half a surrogate pair: kept readable as an escape.
        return json.dumps(value, default=str, ensure_ascii=True, separators=(",", ":")).encode()


class Body(Mapping[str, Any]):
    """A JSON object whose members are decoded when they are asked for; the text is known to be whole."""

    def __init__(self, method: str, members: dict[str, msgspec.Raw]) -> None:
        self._method = method
        self._members = members

    def __getitem__(self, name: str) -> Any:
        """Return a member's value.

        Raises:
            Transient: it is too deep, or holds a number too long, to be a value.
        """
        text = self._members[name]
        try:
            return decode_json(text)
        except ValueError as err:
            raise _no_json(self._method, bytes(text)) from err

    def __iter__(self) -> Iterator[str]:
        """Return the members' names."""
        return iter(self._members)

    def __len__(self) -> int:
        """Return the number of members."""
        return len(self._members)

    def text(self, name: str) -> msgspec.Raw | None:
        """Return a member's JSON text as it was sent, or None where there is none or it is null."""
        text = self._members.get(name)
        return None if text is None or _begin(text) == b"null" else text


@dataclass(frozen=True)
class Answer:
    """One answer of the gateway.

    Attributes:
        method: the API method that was called.
        body: the JSON object, one `…_response` wrapper removed; its members are decoded when asked for.
        raw: the bytes as received.
        trace_id: the gateway's request id, if it sent one.
        clock_offset: the gateway's clock minus ours in seconds, from the HTTP `Date` header, or None.
    """

    method: str
    body: Mapping[str, Any]
    raw: bytes = field(repr=False)
    trace_id: str | None = None
    clock_offset: float | None = None

    def rows(self, list_keys: Sequence[str]) -> list[dict[str, Any]]:
        """Return the records under the first of `list_keys` that is present; none present means no rows.

        A key may lead through lists: `skus.stocks` are all `stocks` of all `skus`. Fields in brackets are
        given to the records inside: `[outerId].skus[skuOuterId].stocks` adds the answer's `outerId` and each
        SKU's `skuOuterId` to that SKU's stocks.

        Raises:
            DataError: the key holds something that is not a list of objects.
        """
        for key in list_keys:
            rows = self._inside(self.body, key.split("."), {})
            if rows is not None:
                return rows
        return []

    def _inside(
        self, outer: Mapping[str, Any], path: Sequence[str], given: dict[str, Any]
    ) -> list[dict[str, Any]] | None:
        name, _, carried = path[0].removesuffix("]").partition("[")
        rows: Any = outer.get(name) if name else [outer]
        if rows is None:
            return None
        if isinstance(rows, dict):
            rows = [rows]
        if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
            raise DataError(
                f"the answer's {name!r} is not a list of records", method=self.method, trace_id=self.trace_id
            )
        if len(path) == 1:
            return [{**given, **row} for row in rows] if given else rows
        found: list[dict[str, Any]] | None = None
        for row in rows:
            more = {one: row[one] for one in carried.split(",") if one in row}
            inside = self._inside(row, path[1:], {**given, **more})
            if inside is not None:
                found = found or []
                found += inside
        return found

    def rows_text(self, list_keys: Sequence[str]) -> msgspec.Raw | None:
        """Return the JSON text under the first of `list_keys` that is present, for a decoder of one's own.

        None where there is none, or where the answer could only be decoded as a whole: `rows` knows more.
        """
        if not isinstance(self.body, Body):
            return None
        return next(filter(None, map(self.body.text, list_keys)), None)

    @property
    def total(self) -> int | None:
        """The number of records that the gateway reports, sent as a number or as text, or None."""
        total = self.body.get("total")
        if isinstance(total, str) and total.strip().isdigit():
            return int(total)
        return total if isinstance(total, int) and not isinstance(total, bool) else None


def read_envelope(method: str, raw: bytes) -> Mapping[str, Any]:
    """Return the JSON object in `raw` with one `…_response` level unwrapped.

    The text is checked to its end, but only what strict JSON forbids costs decoding it here.

    Raises:
        Transient: the answer is not a JSON object; a proxy page or a cut connection, worth another try.
    """
    try:
        members = _members.decode(raw)
        if len(members) == 1:
            ((key, inner),) = members.items()
            if key.endswith("_response") and _begin(inner).startswith(b"{"):
                members = _members.decode(inner)
        return Body(method, members)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _read_tolerantly(method, raw)


def _read_tolerantly(method: str, raw: bytes) -> dict[str, Any]:
    try:
        body = decode_json(raw)
    except ValueError as err:
        raise _no_json(method, raw) from err
    if isinstance(body, dict) and len(body) == 1:
        ((key, inner),) = body.items()
        if isinstance(key, str) and key.endswith("_response") and isinstance(inner, dict):
            body = inner
    if not isinstance(body, dict):
        raise Transient(f"the gateway answered a JSON {type(body).__name__}, not an object", method=method)
    return body


def _begin(text: msgspec.Raw) -> bytes:
    return bytes(memoryview(text)[:4])


def _no_json(method: str, raw: bytes) -> Transient:
    start = raw[:80].decode("utf-8", "replace").strip()
    what = "an HTML page" if start.startswith("<") else "no valid JSON"
    return Transient(
        f"the gateway answered {what} ({len(raw)} bytes)",
        method=method,
        hint="if this repeats, check the Connection's host and whether a proxy answers in its place",
    )


def trace_id(body: Mapping[str, Any]) -> str | None:
    """Return the request id under either of its two spellings."""
    found = body.get("traceId", body.get("trace_id"))
    return None if found is None else str(found)
