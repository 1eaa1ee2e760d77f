"""From a strategy to what can be rendered and run; what cannot be is refused with the strategy's own path."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kuaimai.errors import ConfigError
from kuaimai.gateway import catalog
from kuaimai.pipeline.qeasy import compiled as made
from kuaimai.pipeline.qeasy.fields import Compiled as CompiledField
from kuaimai.pipeline.qeasy.fields import compile_fields, literal_number
from kuaimai.pipeline.qeasy.findings import Findings, near
from kuaimai.pipeline.qeasy.formats import Format, response_format
from kuaimai.pipeline.qeasy.reading import parse_strategy, read_strategy
from kuaimai.pipeline.qeasy.scope import PAGE_VARIABLES, is_variable, variable_like
from kuaimai.pipeline.qeasy.statements import compile_statement, without_last_id
from kuaimai.pipeline.qeasy.strategy import Field, Side, Strategy

# Parameters that the platform's adapters count up although the strategy writes a fixed number.
PAGE_FIELDS = frozenset(
    {"pageno", "page", "pageindex", "pagenum", "pagenumber", "currentpage", "current", "curpage"}
)
SIZE_FIELDS = frozenset({"pagesize", "limit", "pagerows", "pagerow", "size", "rows"})
_DETAIL_KEYS = ("otherapi", "detailkey", "detailkey1", "detailkey2")

# Method names of the integration platform's own pages that the gateway does not have (reference 7.2).
FICTION = {
    "trade.sold.get": "erp.trade.outstock.simple.query",
    "trade.return.get": "erp.aftersale.list.query",
    "trade.refund.get": "erp.aftersale.list.query",
    "item.inventory.get": "stock.api.status.query",
    "shop.seller.get": "erp.shop.list.query",
}
_KUAIMAI = re.compile(r"(?:erp|open|stock|item|supplier|brand|asso|allocate|purchase|warehouse)\.[a-z.]+")
_PATH_NAME = re.compile(r"\{(\w+)\}")


def load_strategy(path: Path) -> made.Compiled:
    """Read and compile a strategy file.

    Raises:
        ConfigError: the file and every reason against it, each with its field path and what to do.
    """
    strategy, findings = read_strategy(path)
    compiled = compile_strategy(strategy, findings)
    findings.check(str(path), "refused")
    return compiled


def load_text(text: str, name: str = "strategy") -> made.Compiled:
    """Do the same for the text of a strategy.

    Raises:
        ConfigError: every reason against it.
    """
    strategy, findings = parse_strategy(text, name)
    compiled = compile_strategy(strategy, findings)
    findings.check(name, "refused")
    return compiled


def compile_strategy(strategy: Strategy, findings: Findings) -> made.Compiled:
    """Compile a strategy as far as it can be; `refused` findings speak against using the result."""
    if strategy.source is None and strategy.target is None and not findings.of("refused"):
        findings.refuse("", "there is neither a source nor a target in it")
    source = target = None
    if strategy.source is not None:
        source = _Sides(strategy, findings).source(strategy.source)
    if strategy.target is not None:
        target = _Sides(strategy, findings).target(strategy.target)
    return made.Compiled(strategy, source, target, findings)


class _Sides:
    def __init__(self, strategy: Strategy, findings: Findings) -> None:
        self.strategy = strategy
        self.findings = findings

    def _fields(self, fields: Iterable[Field]) -> tuple[CompiledField, ...]:
        return compile_fields(fields, self.strategy.collections, self.findings)

    # Source

    def source(self, side: Side) -> made.Source:
        detail, other_fields, request_fields = self._detail(side)
        request, other = self._fields(request_fields), self._fields(other_fields)
        kind = self._source_kind(side)
        size = side.page_size or _fixed(SIZE_FIELDS, (*request, *other))
        if kind == "kuaimai" and size is None and (page := catalog.method(side.api).page):
            size = page.max
        source = made.Source(
            path=side.path,
            kind=kind,
            api=side.api,
            verb=side.method,
            key=self._key(side, kind),
            number=side.number,
            id_check=side.id_check,
            request=request,
            other=other,
            page_size=size,
            page=_page_field((*request, *other)),
            remedy=self._remedy(side, request),
            remedy_crontab=side.remedy.crontab if side.remedy else "",
            detail=detail,
            condition=side.condition,
            flat=self._flat(side),
            split=side.split.array if side.split else "",
            formats=self._formats(side),
            data_key=self._data_key(side, kind),
            crontab=side.crontab,
        )
        self._only_variables(source)
        self._api_names(side, request)
        if kind == "kuaimai":
            self._known_parameters(source)
        return source

    def _source_kind(self, side: Side) -> made.SourceKind:
        where = f"{side.path}api"
        if side.api == made.NO_QUERY:
            return "none"
        if side.api in catalog.method_names():
            if side.method not in ("POST", ""):
                self.findings.note(f"{side.path}method", "the gateway is asked by POST in any case")
            return "kuaimai"
        if side.api in FICTION:
            self.findings.cannot_run(
                where, f"the gateway has no method {side.api!r}", f"ask {FICTION[side.api]}"
            )
        elif _KUAIMAI.fullmatch(side.api) or "kuaimai" in side.adapter.lower():
            advice = near(side.api, catalog.method_names())
            self.findings.cannot_run(where, f"{side.api!r} is not in the catalogue of methods", advice)
        elif side.api:
            self.findings.cannot_run(
                where,
                f"{side.api!r} is another platform's: only Kuaimai's methods are asked from here",
                "its requests can be rendered and compared; keep this source where it is",
            )
        return "foreign"

    def _key(self, side: Side, kind: made.SourceKind) -> str:
        if side.id:
            return side.id
        record = catalog.method(side.api).record if kind == "kuaimai" else None
        if record is not None:
            key = catalog.record(record).key
            self.findings.warn(f"{side.path}id", f"it is missing; the catalogue's key {key!r} is taken", "")
            return key
        if side.api and kind != "none":
            self.findings.refuse(
                f"{side.path}id", "it is missing, and nothing else tells rows apart", "name the primary key"
            )
        return ""

    def _detail(self, side: Side) -> tuple[made.Detail | None, list[Field], list[Field]]:
        """Take the list → detail settings out of the parameters, in both forms that occur."""
        found: dict[str, Field] = {}
        kept: list[list[Field]] = []
        for fields in (side.other_request, side.request):
            rest = []
            for one in fields:
                if one.name in _DETAIL_KEYS:
                    found[one.name] = one
                elif one.name in ("detailApi", "detailApi.api"):
                    api = next((child for child in one.children if child.name == "api"), one)
                    found["otherapi"] = api
                    found.update({child.name: child for child in one.children if child.name != "api"})
                else:
                    rest.append(one)
            kept.append(rest)
        texts = {name: one.value for name, one in found.items() if one.value not in (None, "")}
        for name, value in texts.items():
            if not isinstance(value, str) or "{{" in value:
                self.findings.refuse(f"{found[name].path}.value", f"{name} is a name, as text")
                texts = {}
                break
        method = texts.get("otherapi")
        if method is None:
            for name in texts.keys() - {"otherapi"}:
                told = f"{name} without otherapi: no detail method is named"
                self.findings.refuse(f"{found[name].path}.field", told)
            return None, kept[0], kept[1]
        field = texts.get("detailkey2", side.id)
        detail = made.Detail(method, texts.get("detailkey1", field), field, texts.get("detailkey", ""))
        if side.api in catalog.method_names() and method not in catalog.method_names():
            where = f"{found['otherapi'].path}.value"
            advice = near(method, catalog.method_names())
            self.findings.cannot_run(where, f"{method!r} is not in the catalogue of methods", advice)
        return detail, kept[0], kept[1]

    def _remedy(self, side: Side, request: Iterable[CompiledField]) -> tuple[CompiledField, ...]:
        if side.remedy is None:
            return ()
        names = {one.field.name for one in request}
        for field in side.remedy.fields:
            if field.name not in names and names:
                self.findings.refuse(
                    f"{field.path}.field",
                    f"{field.name!r} takes the place of no field of the request",
                    near(field.name, sorted(names)),
                )
        return self._fields(side.remedy.fields)

    def _flat(self, side: Side) -> tuple[str, ...]:
        if len(side.beat_flat) > 1:
            self.findings.warn(
                f"{side.path}beatFlat",
                "with several lists it is not documented whether their elements are paired or crossed",
                "a record with elements in one of them becomes rows; one with elements in several goes to "
                "quarantine",
            )
        for number, array in enumerate(side.beat_flat):
            if side.split is not None and side.split.array == array:
                self.findings.refuse(
                    f"{side.path}beatFlat[{number}]", f"{array} is split by operation already", "delete one"
                )
        return side.beat_flat

    def _formats(self, side: Side) -> tuple[tuple[str, str, str, Format], ...]:
        found = []
        for one in side.formats:
            try:
                found.append((one.path, one.old, one.new, response_format(one.format)))
            except ValueError as err:
                if one.format:
                    told, _, advice = str(err).partition(" → ")
                    self.findings.refuse(f"{one.path}.format", told, advice)
        return tuple(found)

    def _data_key(self, side: Side, kind: made.SourceKind) -> tuple[str, ...]:
        given = side.other_response.get("DataKey")
        if given in (None, ""):
            return ()
        parts = tuple(given.split("/")) if isinstance(given, str) else ()
        if not 0 < len(parts) <= 3 or not all(parts):  # noqa: PLR2004 - the platform's own limit
            self.findings.refuse(
                f"{side.path}otherResponse.DataKey", f"{given!r} is no path", "at most three names with /"
            )
            return ()
        # The catalogue knows where Kuaimai's lists are, in all their variants.
        return () if kind == "kuaimai" else parts

    def _only_variables(self, source: made.Source) -> None:
        """While the source is asked there is no row to take a field from."""
        for field, value in source.values():
            for name in value.names():
                if not is_variable(name):
                    self.findings.refuse(
                        f"{field.path}.value", f"{{{{{name}}}}} is no variable", variable_like(name)
                    )
                elif name in PAGE_VARIABLES and source.page_size is None and name != PAGE_VARIABLES[1]:
                    self.findings.note(
                        f"{field.path}.value",
                        f"{name} needs a page size, and none is written; 200 is taken",
                        "set pagination.pageSize",
                    )

    def _api_names(self, side: Side, request: Iterable[CompiledField]) -> None:
        names = {_joined(one.field.name) for one in request}
        for name in _PATH_NAME.findall(side.api):
            if _joined(name) not in names:
                told = f"the path needs {name!r}, and the request has no such field"
                self.findings.refuse(f"{side.path}api", told, f"add a field {name} to request")

    def _known_parameters(self, source: made.Source) -> None:
        method = catalog.method(source.api)
        for one in (*source.request, *source.other):
            name = one.field.name
            if name not in method.params:
                self.findings.cannot_run(
                    f"{one.field.path}.field",
                    f"{source.api} knows no parameter {name!r}; the gateway would ignore it silently",
                    near(name, sorted(method.params)),
                )

    # Target

    def target(self, side: Side) -> made.Target:
        kind = self._target_kind(side)
        fields = without_last_id(side.request) if kind == "sql" else side.request
        request, other = self._fields(fields), self._fields(side.other_request)
        target = made.Target(
            path=side.path,
            kind=kind,
            api=side.api,
            verb=side.method,
            id_check=side.id_check,
            request=request,
            other=other,
            batch=side.batch,
            grouping=self._grouping(side),
            writeback=self._writeback(side),
            statement=compile_statement(side, request, self.findings) if kind == "sql" else None,
            crontab=side.crontab,
            connection=side.connector,
        )
        if kind == "http" and not request and side.api:
            self.findings.refuse(
                f"{side.path}request", "it is missing: nothing would be written", "list the fields to write"
            )
        if kind == "none" and (request or other):
            where = f"{side.path}{'request' if request else 'otherRequest'}"
            self.findings.note(where, f"{made.NO_WRITE} writes nothing, so it has no effect")
        return target

    def _target_kind(self, side: Side) -> made.TargetKind:
        where = f"{side.path}api"
        if side.api == made.NO_WRITE:
            return "none"
        if side.api in made.SQL_APIS:
            return "sql"
        if side.method == "SQL":
            self.findings.refuse(where, f"{side.api!r} with method SQL", near(side.api, made.SQL_APIS))
        elif side.api in catalog.method_names() or _KUAIMAI.fullmatch(side.api):
            self.findings.cannot_run(
                where, f"{side.api!r} writes into Kuaimai", "only reading Kuaimai is supported"
            )
        elif side.other_request and side.api:
            names = ", ".join(one.name for one in side.other_request)
            self.findings.cannot_run(
                f"{side.path}otherRequest",
                f"{names}: parameters of a connector of the platform that does not exist here",
                "write to a service of yours that takes the document, or into a database",
            )
        return "http"

    def _grouping(self, side: Side) -> Any:
        source = self.strategy.source
        grouping = side.grouping
        if grouping is not None and source is not None and not (source.beat_flat or source.split):
            self.findings.note(
                f"{side.path}groupCalculate", "it groups flat rows, and the source has no beatFlat"
            )
        if grouping is not None and grouping.body and not grouping.body_name:
            self.findings.refuse(
                f"{side.path}groupCalculate.bodyName", "it is missing", "name the flattened array"
            )
        return grouping

    def _writeback(self, side: Side) -> tuple[CompiledField, ...]:
        found = next((one for one in side.response if one.name == "primaryWriteback"), None)
        return self._fields(found.children) if found is not None else ()


def _joined(name: str) -> str:
    return name.replace("_", "").lower()


def _fixed(known: frozenset[str], fields: Iterable[CompiledField]) -> int | None:
    found = (literal_number(one) for one in fields if _joined(one.field.name) in known)
    return next((one for one in found if one is not None and one > 0), None)


def _page_field(fields: Iterable[CompiledField]) -> made.PageField | None:
    for one in fields:
        first = literal_number(one)
        if first is not None and _joined(one.field.name) in PAGE_FIELDS:
            return made.PageField(one.field.name, first)
    return None


def filled_path(api: str, parameters: Mapping[str, Any]) -> str:
    """Return an API path with its `{field}` filled from the request (`{app_id}` also from `appId`).

    Raises:
        ConfigError: a field is missing or empty.
    """
    by_name = {_joined(name): value for name, value in parameters.items()}

    def fill(found: re.Match[str]) -> str:
        value = parameters.get(found[1], by_name.get(_joined(found[1])))
        if value in (None, ""):
            raise ConfigError(f"the path {api} needs a value for {found[1]!r}")
        return str(value)

    return _PATH_NAME.sub(fill, api)
