"""Running a strategy by itself: its own requests to the gateway, its rows, its writes; without Airflow.

A strategy whose source returns records that the catalogue knows becomes a mirror instead, whose windows are
proven (`kuaimai.pipeline.qeasy.mirror`). This is for the rest, such as the refresh of a session.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from kuaimai.errors import ConfigError, DataError
from kuaimai.gateway import catalog
from kuaimai.gateway.answers import Answer
from kuaimai.pipeline.qeasy.compiled import Compiled, Source
from kuaimai.pipeline.qeasy.lookups import Lookups
from kuaimai.pipeline.qeasy.moments import RunWindow
from kuaimai.pipeline.qeasy.rendering import (
    Bad,
    Request,
    detail_requests,
    render_writeback,
    render_writes,
    shape,
    source_request,
)
from kuaimai.pipeline.qeasy.scope import value_at
from kuaimai.pipeline.qeasy.shaping import Row

# No window has so many pages; a gateway that repeats itself is noticed long before.
_MOST_PAGES = 10_000


class Gateway(Protocol):
    """What asks the gateway: `kuaimai.gateway.client.Client`."""

    def call(self, method: str, params: Mapping[str, Any]) -> Answer:
        """Call a method."""
        ...


class Sink(Protocol):
    """Where writes go."""

    def send(self, write: Request) -> Mapping[str, Any]:
        """Write, and return the answer.

        Raises:
            KuaimaiError: it was not written.
        """
        ...


@dataclass(frozen=True)
class Ran:
    """What a run did.

    Attributes:
        asked: the requests to the source, list and details.
        rows: how many rows came.
        filtered: keys of rows that the conditions did not let pass.
        bad: rows that were set aside, with their reasons.
        written: the writes that were sent.
        writebacks: what the strategy keeps of each answer (`primaryWriteback`).
    """

    asked: tuple[Request, ...] = ()
    rows: int = 0
    filtered: tuple[str, ...] = ()
    bad: tuple[Bad, ...] = ()
    written: tuple[Request, ...] = ()
    writebacks: tuple[Mapping[str, Any], ...] = ()


def run_strategy(
    compiled: Compiled,
    window: RunWindow,
    *,
    gateway: Gateway,
    sink: Sink | None = None,
    lookups: Lookups | None = None,
) -> Ran:
    """Run a strategy for a window. Nothing is remembered: the same window gives the same requests again.

    Raises:
        ConfigError: it cannot be run here; the message says why.
        KuaimaiError: a request failed for good; run the same window again.
    """
    compiled.findings.check(compiled.name, "not_run")
    asked: list[Request] = []
    rows: list[Row] = []
    unknown: tuple[Bad, ...] = ()
    if compiled.source is not None and compiled.source.kind == "kuaimai":
        for page_rows in _pages(compiled.source, gateway, window, asked):
            rows += page_rows
        rows, unknown = _with_details(compiled.source, gateway, rows, asked)
    shaped = shape(compiled.source, rows, window)
    writes, bad = render_writes(compiled.target, shaped.rows, window, lookups)
    if writes and sink is None:
        raise ConfigError(
            f"strategy {compiled.name} writes to {writes[0].api}, and nothing was given to write with"
        )
    answers = [sink.send(write) for write in writes] if sink is not None else []
    target = compiled.target
    kept = [render_writeback(target, answer, window) for answer in answers] if target is not None else []
    return Ran(
        tuple(asked),
        len(rows),
        shaped.filtered,
        (*unknown, *shaped.bad, *bad),
        writes,
        tuple(one for one in kept if one),
    )


def _pages(source: Source, gateway: Gateway, window: RunWindow, asked: list[Request]) -> Iterator[list[Row]]:
    """Yield page after page until the gateway's count is reached, or nothing new comes.

    A short page ends nothing: a page size above the gateway's own is cut silently.
    """
    seen: set[str] = set()
    total: int | None = None
    for number in range(1, _MOST_PAGES + 1):
        request = source_request(source, window, number)
        asked.append(request)
        answer = gateway.call(request.api, _sendable(request.params))
        rows = _rows(source, answer)
        yield rows
        total = answer.total if answer.total is not None else total
        keys = {str(value_at(row, source.key)) for row in rows}
        nothing_new = keys <= seen
        seen |= keys
        if not source.pages or nothing_new or (total is not None and len(seen) >= total):
            return
    raise DataError(f"{source.api} does not end: more than {_MOST_PAGES} pages", method=source.api)


def _rows(source: Source, answer: Answer) -> list[Row]:
    """The records of an answer; an answer that is no list is one row, named by its method."""
    method = catalog.method(source.api)
    if method.list_keys:
        return answer.rows(method.list_keys)
    row = dict(answer.body)
    return [row if value_at(row, source.key) is not None else {**row, source.key: source.api}]


def _with_details(
    source: Source, gateway: Gateway, rows: list[Row], asked: list[Request]
) -> tuple[list[Row], tuple[Bad, ...]]:
    """Put the list of each detail answer into its row, under the name that the strategy gives."""
    if source.detail is None:
        return rows, ()
    requests, bad = detail_requests(source, rows)
    wrong = [one.row for one in bad]
    good = [row for row in rows if row not in wrong]
    method = catalog.method(source.detail.method)
    made = []
    for row, request in zip(good, requests, strict=True):
        asked.append(request)
        answer = gateway.call(request.api, _sendable(request.params))
        name = source.detail.list_key or (method.list_keys[0] if method.list_keys else "detail")
        made.append({**row, name: answer.rows(method.list_keys or (name,))})
    return made, bad


def _sendable(params: Mapping[str, Any] | list[Any]) -> dict[str, Any]:
    """The gateway refuses empty parameters; one that comes out empty is left out, as the platform does."""
    return {name: value for name, value in dict(params).items() if value != ""}
