"""How a method lists the records of a shelf: its windows, filters, pages and the shape of its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from kuaimai.sandbox.desk import Call, Desk, Refusal
from kuaimai.sandbox.oddities import Marks, badness, odd, reshaped, spoilt
from kuaimai.sandbox.shelf import Record, Source
from kuaimai.sandbox.time_forms import MILLISECONDS, as_second, in_form_of
from kuaimai.sandbox.trade_query import moment, whole_number
from kuaimai.sandbox.world import DAY

if TYPE_CHECKING:
    from kuaimai.sandbox.faults import Faults

Refine = Callable[[Desk, Call, list[Record]], list[Record]]


@dataclass(frozen=True)
class Window:
    """A pair of time parameters, both ends included, and the field of the record that they ask for."""

    start: str
    end: str
    stamp: str


@dataclass(frozen=True)
class TimeType:
    """The parameter that says which field a window asks for.

    Attributes:
        param: its name.
        stamps: its values and the fields they stand for.
        default: the value when none is sent; None where one must be sent (32).
    """

    param: str
    stamps: Mapping[str, str]
    default: str | None = None


@dataclass(frozen=True)
class Paging:
    """Limits of one page.

    Attributes:
        default: page size when none is sent.
        max: the largest one; None for no paging at all.
        min: the smallest one.
        code: how a larger one is refused.
        text: what the refusal says.
        total_on: `all` pages, the `first` one, or `none`.
        has_next: whether the answer says if there are more.
        required: page number and size must be sent.
    """

    default: int = 40
    max: int | None = 200
    min: int = 1
    code: str = "33"
    text: str = "单页数量不能超过{max}！"
    total_on: str = "all"
    has_next: bool = False
    required: bool = False


@dataclass(frozen=True)
class Listing:
    """One list method.

    Attributes:
        source: what it lists.
        marks: key, version and stamps of its records.
        list_key: where the records are in the answer.
        paging: limits of a page.
        windows: time parameters.
        time_type: what decides the field of the window, where it is a parameter.
        dates: which parts of the first window must be sent: `none`, `start` or `both`.
        bypass: parameters that make the window unnecessary.
        epoch: times are sent as epoch milliseconds instead of text.
        max_days: the longest window; None for any.
        filters: parameters with a comma list, and the field that must have one of the values.
        allowed: parameters with a comma list, and the only values they may have (50).
        refine: what else decides which records are found.
        orders: fields that `orderBy` may name, as `field:desc` or `field:asc`; a bare one means desc.
        omits_empty: the list key is left out when nothing was found.
        text_total: `total` is text, as the documented example shows it.
    """

    source: Source
    marks: Marks
    list_key: str = "list"
    paging: Paging = field(default_factory=Paging)
    windows: tuple[Window, ...] = ()
    time_type: TimeType | None = None
    dates: str = "none"
    bypass: tuple[str, ...] = ()
    epoch: bool = False
    max_days: int | None = None
    filters: Mapping[str, str] = field(default_factory=dict)
    allowed: Mapping[str, frozenset[str]] = field(default_factory=dict)
    refine: Refine | None = None
    orders: tuple[str, ...] = ()
    omits_empty: bool = False
    text_total: bool = False

    def __call__(self, desk: Desk, call: Call) -> dict[str, Any]:
        """Answer a call."""
        page_no, size = self._page(call.params, desk.faults)
        search = _Search(self, desk, call)
        rows = search.rows()
        start = (page_no - 1) * (size - min(desk.faults.duplicates, size - 1))
        if start and self.marks.version and desk.drift_is_due() and self._drift(desk, call, rows[:start]):
            rows = search.rows()
        if desk.faults.unstable_ties:
            rows.sort(key=lambda row: (row[0], Random(f"{call.number}/{row[1]}").random()))  # noqa: S311
        page = rows[start : start + size]
        served = [self.served(desk, int(call.now), record) for _, _, record in page]
        if desk.faults.shuffle_rows:
            Random(call.number).shuffle(served)  # noqa: S311 - not a secret
        if desk.faults.shuffle_lines:
            served = [shuffled(record, f"{call.number}/{at}") for at, record in enumerate(served)]
        return self._body(desk.faults, call, served, total=len(rows), more=start + size < len(rows))

    def _body(
        self, faults: Faults, call: Call, served: list[Record], *, total: int, more: bool
    ) -> dict[str, Any]:
        body: dict[str, Any] = {}
        paging = self.paging
        page_no = int(call.params.get("pageNo") or 1)
        said = paging.total_on == "all" or (
            paging.total_on == "first" and (page_no == 1 or not faults.total_first_page_only)
        )
        if said and not faults.no_total and call.params.get("noNeedTotal") != "true":
            body["total"] = str(total) if faults.total_as_string or self.text_total else total
        if paging.has_next:
            body["hasNext"] = more
        if served or not (self.omits_empty or faults.omit_empty_list):
            body[self.list_key] = served
        return body

    def served(self, desk: Desk, now: int, record: Record) -> Record:
        """A record as it goes over the wire: private fields left out, the switches applied."""
        key, faults, seed = self.key(record), desk.faults, desk.world.seed
        changed_at = as_second(record.get(self.marks.version)) if self.marks.version else now
        record = {name: value for name, value in record.items() if not name.startswith("_")}
        record = odd(record, self.marks, key, faults, seed)
        record = reshaped(record, self.marks, faults, changed_at)
        return spoilt(record, self.marks, badness(self.marks, key, faults, seed))

    def key(self, record: Record) -> str:
        """What identifies a record, as text; parts are joined by `/`."""
        return "/".join(str(record.get(part, "")) for part in self.marks.key)

    def records(self, desk: Desk, at: int) -> list[Record]:
        """Every record at epoch second `at`, before the switches change what it says."""
        shelf = desk.shelf(self.source)
        records = shelf.records(desk.faults, at)
        if not shelf.touches or not self.marks.version:
            return records
        return [self._touched(record, shelf.touched(self.key(record), at)) for record in records]

    def _touched(self, record: Record, second: int) -> Record:
        version = record.get(self.marks.version)
        if second <= as_second(version):
            return record
        return record | {self.marks.version: in_form_of(version, second)}

    def truth(self, desk: Desk, at: int) -> dict[str, Record]:
        """Every record that a perfect reader would have at epoch second `at`, by its key."""
        return {self.key(record): self.served(desk, at, record) for record in self.records(desk, at)}

    def bad(self, desk: Desk, at: int) -> dict[str, str]:
        """Keys of the records that a `bad_…` switch spoilt, with the switch's name."""
        keys = (self.key(record) for record in self.records(desk, at))
        found = ((key, badness(self.marks, key, desk.faults, desk.world.seed)) for key in keys)
        return {key: reason for key, reason in found if reason is not None}

    def _page(self, params: Mapping[str, str], faults: Faults) -> tuple[int, int]:
        paging = self.paging
        if paging.max is None:
            return 1, 2**31
        for name in ("pageNo", "pageSize") if paging.required else ():
            if not params.get(name):
                raise Refusal("32", f"缺少必要参数！字段：[{name}]")
        page_no = whole_number(params, "pageNo", 1, code="20001")
        size = whole_number(params, "pageSize", paging.default, code="20002")
        if size > paging.max:
            raise Refusal(paging.code, paging.text.format(max=paging.max))
        if size < paging.min:
            raise Refusal("20002", "页数为空或不符合规定")
        return page_no, min(size, faults.page_cap) if faults.page_cap else size

    def _drift(self, desk: Desk, call: Call, served: list[tuple[int, str, Record]]) -> bool:
        """Move records that were already read to a newer version, so that the ones behind them move up."""
        chooser = desk.drift()
        for _, key, _ in chooser.sample(served, min(desk.faults.drift_touch, len(served))):
            desk.shelf(self.source).touch(key, int(call.now))
        return True


class _Search:
    """What one call asks for."""

    def __init__(self, listing: Listing, desk: Desk, call: Call) -> None:
        self._listing = listing
        self._desk = desk
        self._call = call
        self._spans = [] if desk.faults.ignore_time else list(_spans(listing, call.params))
        self._wanted = {
            name: frozenset(parts(call.params[param]))
            for param, name in listing.filters.items()
            if call.params.get(param)
        }
        for param, values in listing.allowed.items():
            if not values.issuperset(parts(call.params.get(param, ""))):
                raise Refusal("50", f"参数不合法！字段：[{param}]")
        self._order = self._sorted_by()

    def rows(self) -> list[tuple[int, str, Record]]:
        """(second, key, record) of what is found, ascending; newest first where `orderBy` says so."""
        listing = self._listing
        found = listing.records(self._desk, int(self._call.now))
        for name, values in self._wanted.items():
            found = [record for record in found if _is_one_of(record.get(name), values)]
        for stamp, first, last in self._spans:
            found = [record for record in found if _is_within(record.get(stamp), first, last)]
        if listing.refine is not None:
            found = listing.refine(self._desk, self._call, found)
        by = self._spans[0][0] if self._spans else listing.marks.version
        if self._order is not None:
            by = self._order[0]
        rows = [(as_second(record.get(by)), listing.key(record), record) for record in found]
        rows.sort(key=lambda row: row[:2], reverse=self._order is not None and self._order[1])
        return rows

    def _sorted_by(self) -> tuple[str, bool] | None:
        """The field to sort by, and whether the newest come first."""
        asked = self._call.params.get("orderBy", "")
        if not asked or not self._listing.orders:
            return None
        name, _, way = asked.partition(":")
        if name not in self._listing.orders or way not in {"", "asc", "desc"}:
            raise Refusal("20004", "排序方式不合法！字段：[orderBy]")
        return name, way != "asc"


def parts(text: str) -> list[str]:
    """The members of a comma list."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _spans(listing: Listing, params: Mapping[str, str]) -> list[tuple[str, int, int]]:
    """(field, first second, last second) of every window that is asked for."""
    stamp = _stamp(listing, params)
    spans = []
    for at, window in enumerate(listing.windows):
        given = [name for name in (window.start, window.end) if params.get(name)]
        if at == 0 and not any(params.get(name) for name in listing.bypass):
            needed = {"none": (), "start": (window.start,), "both": (window.start, window.end)}[listing.dates]
            for name in needed:
                if name not in given:
                    raise Refusal("32", f"缺少必要参数！字段：[{name}]")
        if not given:
            continue
        first = _second(listing, params, window.start) if window.start in given else 0
        last = _second(listing, params, window.end) if window.end in given else 2**40
        if first > last:
            raise Refusal("50", f"开始时间不能大于结束时间！字段：[{window.start}]")
        if listing.max_days is not None and last - first > listing.max_days * DAY:
            raise Refusal("50", f"起始时间和结束时间间隔不能超过{listing.max_days}天！字段：[{window.start}]")
        spans.append((stamp or window.stamp, first, last))
    return spans


def _stamp(listing: Listing, params: Mapping[str, str]) -> str | None:
    kinds = listing.time_type
    if kinds is None:
        return None
    asked = params.get(kinds.param) or kinds.default
    if asked is None:
        if any(params.get(name) for name in listing.bypass):
            return None
        raise Refusal("32", f"缺少必要参数！字段：[{kinds.param}]")
    if asked not in kinds.stamps:
        raise Refusal("50", f"查询的时间类型不合法！字段：[{kinds.param}]")
    return kinds.stamps[asked]


def _second(listing: Listing, params: Mapping[str, str], name: str) -> int:
    if not listing.epoch:
        return moment(params, name)
    if not params[name].isdecimal():
        raise Refusal("50", f"时间格式不合法！字段：[{name}]")
    return int(params[name]) // MILLISECONDS


def _is_within(value: Any, first: int, last: int) -> bool:
    second = as_second(value)
    return bool(second) and first <= second <= last


def _is_one_of(value: Any, wanted: frozenset[str]) -> bool:
    """Whether a field has a wanted value; a status may itself be a list such as `2,10`."""
    return not wanted.isdisjoint(str(value).split(","))


def shuffled(record: Record, salt: str) -> Record:
    """The record with its nested lists in another order."""
    chooser = Random(salt)  # noqa: S311 - not a secret
    return {
        name: chooser.sample(value, len(value)) if isinstance(value, list) else value
        for name, value in record.items()
    }


@dataclass(frozen=True)
class Detail:
    """A method that gives the lines of one document.

    Attributes:
        listing: whose records have the lines.
        lines: the lines of a record.
        param: the parameter that names the document; required (32).
        field: the field of the record that it means.
        list_key: where the lines are in the answer.
    """

    listing: Listing
    lines: Callable[[Desk, Record], list[Record]]
    param: str = "id"
    field: str = "id"
    list_key: str = "list"

    def __call__(self, desk: Desk, call: Call) -> dict[str, Any]:
        """Answer a call; an unknown document has no lines (our guess)."""
        asked = required(call.params, self.param)
        lines: list[Record] = []
        for record in self._documents(desk, call):
            if str(record[self.field]) == asked:
                lines = self.lines(desk, record)
        if desk.faults.shuffle_lines:
            Random(call.number).shuffle(lines)  # noqa: S311 - not a secret
        total: int | str = str(len(lines)) if desk.faults.total_as_string else len(lines)
        return {"total": total, self.list_key: lines}

    def _documents(self, desk: Desk, call: Call) -> list[Record]:
        found = self.listing.records(desk, int(call.now))
        refine = self.listing.refine
        return found if refine is None else refine(desk, call, found)

    def truth(self, desk: Desk, at: int) -> dict[str, Record]:
        """The lines of every document, by what the method is asked with: `{"list": […]}`."""
        return {
            str(record[self.field]): {self.list_key: self.lines(desk, record)}
            for record in self.listing.records(desk, at)
        }


def required(params: Mapping[str, str], name: str) -> str:
    """A parameter that must be sent."""
    if not params.get(name):
        raise Refusal("32", f"缺少必要参数！字段：[{name}]")
    return params[name]
