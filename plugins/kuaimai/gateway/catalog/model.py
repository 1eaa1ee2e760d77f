"""What the catalogue says of a method and of a kind of record; README.md has the form of the files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from typing import Any, Literal

from kuaimai.errors import ConfigError
from kuaimai.gateway.clock import gateway_time

FieldType = Literal["id", "text", "integer", "number", "yuan", "fen", "time", "json"]
TimeForm = Literal["ms", "digits", "text"]
# In `key_of`: the number of a line among those of its parent that agree in all other parts.
NUMBER = "#"
# How far a fact may be trusted: the reference says it (`stated`), only another project's program names it
# (`seen`), or it is our guess, or our own making and never sent (`made`).
Sure = Literal["stated", "seen", "guess", "made"]


@dataclass(frozen=True)
class Field:
    """One field of a record.

    Attributes:
        name: as the API spells it.
        type: see README.md; the unit of money is part of the type.
        label: the documentation's Chinese name; becomes the column comment.
        personal: a person's data, dropped unless kept by name.
        aliases: other spellings met in answers.
        unit: of a number that is no money: `kg`, `cm`, `cm3`, `day`, `ratio`.
        form: how a time is sent: epoch ms as a number or as digits, or `yyyy-MM-dd HH:mm:ss` in GMT+8. What
            is read does not depend on it.
        sentinels: values that mean "none" here; the target keeps them, except in times.
        of: the kind of record inside a nested value that is kept as JSON.
        sure: how far name and type may be trusted.
    """

    name: str
    type: FieldType
    label: str
    personal: bool = False
    aliases: tuple[str, ...] = ()
    unit: str | None = None
    form: TimeForm | None = None
    sentinels: tuple[str, ...] = ()
    of: str | None = None
    sure: Sure = "stated"

    @property
    def column(self) -> str:
        """The column's name: snake_case of the API's name."""
        return snake_case(self.name)

    @property
    def spellings(self) -> tuple[str, ...]:
        """The names under which it comes; the first one that is not null counts."""
        return (self.name, *self.aliases)

    @property
    def column_type(self) -> FieldType:
        """The type of what the target holds: fen have become yuan."""
        return "yuan" if self.type == "fen" else self.type


@dataclass(frozen=True)
class Record:
    """One kind of record.

    Attributes:
        name: e.g. `trade`.
        label: Chinese name.
        key: field that identifies the record; `_key` where only several fields together do.
        key_of: those fields; on a child they may name the parent's key too, and `#` (`NUMBER`).
        version: fields that date the record's last change, best first; empty for records without one.
        children: list field → kind of the records inside.
        parent_key: on a child, the field that names its parent.
        unsure: which of these facts are our guess.
    """

    name: str
    label: str
    key: str
    fields: Mapping[str, Field]
    version: tuple[str, ...] = ()
    children: Mapping[str, str] = field(default_factory=dict)
    parent_key: str | None = None
    key_of: tuple[str, ...] = ()
    unsure: frozenset[str] = frozenset()

    @property
    def key_fields(self) -> tuple[str, ...]:
        """The fields that identify the record, in the order in which they make its key."""
        return self.key_of or (self.key,)


@dataclass(frozen=True)
class Page:
    """Sizes of one page: least, most, and what comes if none is sent; and which pages carry the total."""

    min: int
    max: int
    total_on: Literal["first", "all", "none"]
    default: int | None = None


@dataclass(frozen=True)
class Scope:
    """The parameter by which a method is asked for some shops or warehouses only.

    Attributes:
        param: takes their ids (comma list).
        max: how many it takes.
        of: whose ids: `shop` (`userId`) or `warehouse` (`id`).
        field: the record's field with that id; None where the record does not say whose it is.
    """

    param: str
    max: int
    of: Literal["shop", "warehouse"] = "shop"
    field: str | None = None


@dataclass(frozen=True)
class Archive:
    """Where a method keeps what is older than its reach.

    Attributes:
        param: the parameter that asks for it, and `value`, what to send.
        dimensions: the dimensions it knows; it sends no totals and takes no cursor.
    """

    param: str
    value: str
    dimensions: tuple[str, ...]


@dataclass(frozen=True)
class Ids:
    """The parameter that takes ids (comma list) past all time windows, and how many it takes."""

    param: str
    max: int


@dataclass(frozen=True)
class Dimension:
    """One time by which a method can be asked.

    Attributes:
        stamp: the record's field with that time, or None.
        start, end: the parameters of the window's ends.
        send: what else the gateway must be sent, e.g. `{"timeType": "upd_time"}`.
        form: how it takes the ends: text in GMT+8 (`text`), or epoch milliseconds (`epoch_ms`).
        loose: answers may hold records outside the window.
        needs: a field without which a record never comes by this time, or None.
    """

    stamp: str | None
    start: str
    end: str
    send: Mapping[str, str] = field(default_factory=dict)
    form: Literal["text", "epoch_ms"] = "text"
    loose: bool = False
    needs: str | None = None

    def ends(self, start: float, end: float) -> dict[str, str]:
        """Return the two parameters of a window from `start` to `end`, epoch seconds, both included."""
        if self.form == "epoch_ms":
            return {self.start: str(int(start) * 1000), self.end: str(int(end) * 1000)}
        return {self.start: gateway_time(start), self.end: gateway_time(end)}


@dataclass(frozen=True)
class Times:
    """The times by which a method can be asked.

    Attributes:
        max_days: the longest window to ask for.
        reach_days: how far back the method looks; older records are archived and silently absent. None: all.
        dimensions: by name; the name is ours where the method has a pair of parameters for each time.
        archive: what is older than `reach_days`, if the method can be asked for it.
        optional: whether it can be asked without a time, for everything that it has.
    """

    max_days: int
    reach_days: int | None
    dimensions: Mapping[str, Dimension]
    archive: Archive | None = None
    optional: bool = False


@dataclass(frozen=True)
class Detail:
    """The method that returns what a list leaves out, one call per record.

    Attributes:
        method: its name.
        param: its parameter, and `field`, the record's field that goes into it.
        into: the child list that its answer becomes.
    """

    method: str
    param: str
    field: str
    into: str


@dataclass(frozen=True)
class Method:
    """One API method; README.md has the meaning of each entry.

    Attributes:
        list_keys: where an answer's records are, see `Answer.rows`; the first one present counts.
        empty_list: it is known to send its list also where there are no records; else it may leave it out.
        history: the method that holds what is older than this one's reach.
        needs: what no call may leave out: of each group of parameters at least one.
        unsure: which of the facts are our guess, e.g. `page` or `times.modified`.
    """

    name: str
    label: str
    params: frozenset[str]
    record: str | None = None
    list_keys: tuple[str, ...] = ()
    empty_list: bool = False
    page: Page | None = None
    scope: Scope | None = None
    times: Times | None = None
    ids: Ids | None = None
    detail: Detail | None = None
    send: Mapping[str, str] = field(default_factory=dict)
    not_served: frozenset[str] = frozenset()
    history: str | None = None
    needs: tuple[tuple[str, ...], ...] = ()
    unsure: frozenset[str] = frozenset()

    def check(self, params: Mapping[str, Any]) -> None:
        """Refuse parameters that the gateway would silently ignore, and what it would refuse itself.

        Raises:
            ConfigError: names the parameter and the nearest one that exists, or the one that is missing.
        """
        self.check_names(params)
        size = params.get("pageSize")
        if self.page and size is not None and not self.page.min <= int(size) <= self.page.max:
            raise ConfigError(
                f"pageSize {size} is outside {self.page.min} to {self.page.max}", method=self.name
            )
        for group in self.needs:
            if not any(name in params for name in group):
                raise ConfigError(f"{self.name} needs {' or '.join(group)}", method=self.name)

    def check_names(self, params: Iterable[str]) -> None:
        """Refuse parameters that the gateway would silently ignore.

        Raises:
            ConfigError: names the parameter and the nearest one that exists.
        """
        for name in params:
            if name not in self.params:
                near = get_close_matches(name, self.params, n=1)
                raise ConfigError(
                    f"{self.name} knows no parameter {name!r}; the gateway would ignore it silently",
                    method=self.name,
                    hint=f"did you mean {near[0]!r}?"
                    if near
                    else f"it knows {', '.join(sorted(self.params))}",
                )

    def is_unsaid(self, params: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
        """Whether an answer says nothing about records, not even that there are none.

        A lost right looks so (reference 6.5). Only where the method is known to send an empty list, only on
        a first page: later ones may end a list in any way. The archive does say so that it has nothing.
        """
        if not self.empty_list or str(params.get("pageNo", "1")) != "1" or params.get("cursor"):
            return False
        archive = self.times.archive if self.times else None
        if archive and str(params.get(archive.param)) == archive.value:
            return False
        return body.get("total") is None and {"hasNext", *self.list_keys}.isdisjoint(body)


@cache
def snake_case(name: str) -> str:
    """Return an API name as a column name: `updTime` → `upd_time`, `numIid` → `num_iid`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
