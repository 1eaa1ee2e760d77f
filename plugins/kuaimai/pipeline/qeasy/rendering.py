"""The exact requests of a compiled strategy; nothing is sent here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from kuaimai.errors import DataError
from kuaimai.pipeline.qeasy.compiled import Compiled, Detail, Source, Target
from kuaimai.pipeline.qeasy.compiling import filled_path
from kuaimai.pipeline.qeasy.fields import Compiled as CompiledField
from kuaimai.pipeline.qeasy.fields import render_fields
from kuaimai.pipeline.qeasy.formats import as_text
from kuaimai.pipeline.qeasy.lookups import Lookups
from kuaimai.pipeline.qeasy.misfits import Misfit
from kuaimai.pipeline.qeasy.moments import RunWindow, to_wall
from kuaimai.pipeline.qeasy.scope import Scope, value_at
from kuaimai.pipeline.qeasy.shaping import Row, filtered, flattened, formatted, joined, parted, split
from kuaimai.pipeline.qeasy.statements import MAIN_PARAMS

# Where a strategy uses the size of a page without saying it.
DEFAULT_PAGE_SIZE = 200
# What a row can be wrong in; a number with a million digits is only noticed where it is written.
UNFIT = (DataError, ValueError, ArithmeticError)


@dataclass(frozen=True)
class Request:
    """A request to the source, or a write to the target.

    Attributes:
        api: method, or path with its fields filled in; for SQL the statement.
        verb: HTTP verb, or `SQL`.
        params: business parameters, or the document; for SQL the bound values.
        other: parameters of the connector, kept out of the body.
        keys: the rows that a write is about.
    """

    api: str
    verb: str
    params: Mapping[str, Any] | list[Any]
    other: Mapping[str, Any] = field(default_factory=dict)
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bad:
    """A row that cannot be shaped or written: it goes to quarantine with its reason.

    Attributes:
        key: of the row; empty where it has none.
        reason: why.
        row: the row.
        path: of the setting in the strategy that cannot take it; empty where that is none alone.
    """

    key: str
    reason: str
    row: Row
    path: str = ""


@dataclass(frozen=True)
class Shaped:
    """Rows between source and target: those that go on, keys of those filtered out, those set aside."""

    rows: tuple[tuple[str, Row], ...] = ()
    filtered: tuple[str, ...] = ()
    bad: tuple[Bad, ...] = ()


@dataclass(frozen=True)
class Rendered:
    """Everything that a run asks and writes.

    Attributes:
        source: the page's request; None without a source.
        remedy: the same request with the remedy's fields; None without a remedy.
        details: one request per row, where the strategy asks for details.
        shaped: what became of the rows.
        writes: the target's requests, in order.
    """

    source: Request | None
    remedy: Request | None
    details: tuple[Request, ...]
    shaped: Shaped
    writes: tuple[Request, ...]


def render_requests(
    compiled: Compiled,
    window: RunWindow,
    page: int = 1,
    rows: Sequence[Row] = (),
    lookups: Lookups | None = None,
) -> Rendered:
    """Return the exact requests of one page of a run.

    Args:
        compiled: the strategy.
        window: the run's window; every time comes from it.
        page: number of the page, from 1.
        rows: the source's rows, as they came.
        lookups: landed tables, for `_findCollection`.

    Raises:
        DataError: a parameter of the source cannot be made; rows that fail are in `shaped.bad`.
    """
    source = compiled.source
    request = remedy = None
    details: tuple[Request, ...] = ()
    unknown: tuple[Bad, ...] = ()
    if source is not None and source.kind != "none":
        request = source_request(source, window, page)
        if source.remedy_crontab:
            remedy = remedy_request(source, window, page)
        details, unknown = detail_requests(source, rows)
    shaped = shape(source, rows, window)
    writes, bad = render_writes(compiled.target, shaped.rows, window, lookups)
    shaped = replace(shaped, bad=(*unknown, *shaped.bad, *bad))
    return Rendered(request, remedy, details, shaped, writes)


# Source


def source_request(source: Source, window: RunWindow, page: int = 1) -> Request:
    """Return the request of one page."""
    return _asked(source, source.request, window, page)


def remedy_request(source: Source, window: RunWindow, page: int = 1) -> Request:
    """Return the request of one page of the omission remedy: its fields take the place of the request's."""
    instead = {one.field.name: one for one in source.remedy}
    return _asked(source, [instead.get(one.field.name, one) for one in source.request], window, page)


def _asked(source: Source, fields: Iterable[CompiledField], window: RunWindow, page: int) -> Request:
    scope = Scope(window, page=page, page_size=source.page_size or DEFAULT_PAGE_SIZE)
    params, other = render_fields(fields, scope), render_fields(source.other, scope)
    if source.page is not None and page > 1:
        place = params if source.page.name in params else other
        number = source.page.first + page - 1
        place[source.page.name] = str(number) if isinstance(place[source.page.name], str) else number
    return Request(filled_path(source.api, params), source.verb, params, other)


def detail_request(detail: Detail, row: Mapping[str, Any]) -> Request:
    """Return the detail call of one row of the list.

    Raises:
        DataError: the row has no value for it.
    """
    value = value_at(row, detail.field)
    if value in (None, "") or isinstance(value, list | dict):
        raise DataError(f"a row of the list has no {detail.field!r} to ask {detail.method} with")
    return Request(detail.method, "POST", {detail.param: as_text(value)})


def detail_requests(source: Source, rows: Iterable[Row]) -> tuple[tuple[Request, ...], tuple[Bad, ...]]:
    """Return the detail calls of all rows, and the rows that have nothing to ask with."""
    asked: list[Request] = []
    bad: list[Bad] = []
    if source.detail is None:
        return (), ()
    for row in rows:
        try:
            asked.append(detail_request(source.detail, row))
        except DataError as err:
            bad.append(Bad(_key_or_nothing(row, source.key), str(err), row))
    return tuple(asked), tuple(bad)


# Rows


def shape(source: Source | None, rows: Iterable[Row], window: RunWindow) -> Shaped:
    """Return what becomes of the rows before they are written: split, filter, flatten, format."""
    if source is None:
        return Shaped(tuple((str(number), row) for number, row in enumerate(rows, start=1)))
    good: list[tuple[str, Row]] = []
    out: list[str] = []
    bad: list[Bad] = []
    now = to_wall(window.now)
    for row in rows:
        try:
            passed, dropped = _shaped(source, row, now)
        except UNFIT as err:
            bad.append(_bad(_key_or_nothing(row, source.key), err, row))
            continue
        good += passed
        out += dropped
    return Shaped(tuple(good), tuple(out), tuple(bad))


def _shaped(source: Source, row: Row, now: datetime) -> tuple[list[tuple[str, Row]], list[str]]:
    """One row of the source goes on whole, filtered out in part, or not at all."""
    good: list[tuple[str, Row]] = []
    out: list[str] = []
    for part in split(row, source.split, source.key, source.number) if source.split else [row]:
        kept = filtered(part, source.condition)
        if kept is None:
            out.append(key_of(part, source.key))
            continue
        flat = flattened(kept, source.flat, source.key, source.number) if source.flat else [kept]
        good += [(key_of(one, source.key), formatted(one, source.formats, now)) for one in flat]
    return good, out


def key_of(row: Mapping[str, Any], path: str) -> str:
    """Return the row's primary key as text.

    Raises:
        DataError: it has none.
    """
    value = value_at(row, path)
    if value in (None, "") or isinstance(value, list | dict | bool):
        raise DataError(f"the row has no primary key {path!r}")
    return as_text(value)


def _bad(key: str, err: Exception, row: Row) -> Bad:
    return Bad(key, str(err), row, err.path if isinstance(err, Misfit) else "")


def _key_or_nothing(row: Mapping[str, Any], path: str) -> str:
    try:
        return key_of(row, path)
    except UNFIT:
        return ""


# Target


def render_writes(
    target: Target | None,
    rows: Sequence[tuple[str, Row]],
    window: RunWindow,
    lookups: Lookups | None = None,
) -> tuple[tuple[Request, ...], tuple[Bad, ...]]:
    """Return the target's requests for rows with their keys, and the rows that cannot be rendered."""
    if target is None or target.kind == "none":
        return (), ()
    bad: list[Bad] = []
    documents: list[tuple[tuple[str, ...], Any]] = []
    for keys, row in _documents(target, rows, bad):
        try:
            documents.append((keys, document_of(target, row, window, lookups)))
        except UNFIT as err:
            bad.append(_bad("+".join(keys), err, row))
    return tuple(_written(target, documents, window)), tuple(bad)


def _documents(
    target: Target, rows: Sequence[tuple[str, Row]], bad: list[Bad]
) -> Iterator[tuple[tuple[str, ...], Row]]:
    grouping = target.grouping
    if grouping is None:
        yield from (((key,), row) for key, row in rows)
        return
    for places in parted([row for _, row in rows], grouping):
        keys = tuple(rows[place][0] for place in places)
        members = [rows[place][1] for place in places]
        try:
            yield keys, joined(members, grouping)
        except UNFIT as err:
            bad.append(_bad("+".join(keys), err, {"rows": members}))


def document_of(target: Target, row: Row, window: RunWindow, lookups: Lookups | None = None) -> Any:
    """Return the document that a target makes of one row; of a statement the bound values.

    Raises:
        DataError: it cannot be made.
    """
    return _document(target, Scope(window, row=row, lookups=lookups))


def _document(target: Target, scope: Scope) -> Any:
    if target.statement is None:
        made = render_fields(target.request, scope)
        if not made:
            where = f"{target.path}request"
            raise Misfit(f"{where}: every field comes out empty", path=where)
        return made
    fields = {one.field.name: one for one in target.request}
    further = {one.params.field.name: one.params for one in target.statement.further}
    inside = fields[MAIN_PARAMS].children if MAIN_PARAMS in fields else target.request
    main = _bound([one for one in inside if one.field.name not in further], scope)
    if not further:
        return main
    lines = {
        name: [_bound(one.children, inner) for inner in one.scopes(scope)] for name, one in further.items()
    }
    return {MAIN_PARAMS: main, **lines}


def _bound(fields: Iterable[CompiledField], scope: Scope) -> dict[str, Any]:
    return {one.field.name: _bindable(one.render(scope)) for one in fields}


def _bindable(value: Any) -> Any:
    """Lists and objects have no place in a column but as JSON text."""
    return as_text(value) if isinstance(value, list | dict) else value


def _written(
    target: Target, documents: list[tuple[tuple[str, ...], Any]], window: RunWindow
) -> Iterator[Request]:
    other = render_fields(target.other, Scope(window)) if target.kind == "http" else {}
    if target.statement is not None:
        for part in _cut(documents, target.statement.limit):
            params = [document for _, document in part]
            yield Request(target.statement.text, "SQL", params, {}, _keys(part))
    elif target.batch is not None:
        for part in _cut(documents, target.batch.rows):
            body = {target.batch.rows_key: [document for _, document in part]}
            yield Request(target.api, target.verb, body, other, _keys(part))
    else:
        for keys, document in documents:
            yield Request(filled_path(target.api, document), target.verb, document, other, keys)


def _cut(documents: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(documents), size):
        yield documents[start : start + size]


def _keys(part: list[tuple[tuple[str, ...], Any]]) -> tuple[str, ...]:
    return tuple(key for keys, _ in part for key in keys)


def render_writeback(target: Target, answer: Mapping[str, Any], window: RunWindow) -> dict[str, Any]:
    """Return what the strategy keeps of the target's answer: its `primaryWriteback`."""
    return render_fields(target.writeback, Scope(window, row=answer))
