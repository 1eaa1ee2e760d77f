"""The catalogue: what each method accepts and returns. Data lives in the YAML files beside this module."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Literal

import yaml

from kuaimai.errors import ConfigError
from kuaimai.gateway.clock import gateway_time

FieldType = Literal["id", "text", "integer", "number", "yuan", "time", "json"]


@dataclass(frozen=True)
class Field:
    """One field of a record.

    Attributes:
        name: as the API spells it.
        type: see the head of `records.yaml`; units are part of the type.
        label: the documentation's Chinese name; becomes the column comment.
        personal: a person's data, dropped unless kept by name.
        aliases: other spellings met in answers.
    """

    name: str
    type: FieldType
    label: str
    personal: bool = False
    aliases: tuple[str, ...] = ()

    @property
    def column(self) -> str:
        """The column's name: snake_case of the API's name."""
        return snake_case(self.name)


@dataclass(frozen=True)
class Record:
    """One kind of record.

    Attributes:
        name: e.g. `trade`.
        label: Chinese name.
        key: field that identifies the record; `_key` where only several fields together do.
        key_of: those fields; on a child they may name the parent's key too, and `#` is the line's position.
        version: fields that date the record's last change, best first; empty for records without one.
        children: list field → kind of the records inside.
        parent_key: on a child, the field that names its parent.
    """

    name: str
    label: str
    key: str
    fields: Mapping[str, Field]
    version: tuple[str, ...] = ()
    children: Mapping[str, str] = field(default_factory=dict)
    parent_key: str | None = None
    key_of: tuple[str, ...] = ()


@dataclass(frozen=True)
class Page:
    """Size limits of one page, and which pages carry the total (`first`, `all`, or `none`)."""

    min: int
    max: int
    total_on: Literal["first", "all", "none"]


@dataclass(frozen=True)
class Scope:
    """The parameter by which a method is asked for some shops or warehouses only.

    Attributes:
        param: takes their ids (comma list).
        max: how many it takes.
        of: whose ids: `shop` (`userId`) or `warehouse` (`id`).
    """

    param: str
    max: int
    of: Literal["shop", "warehouse"] = "shop"


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
    """

    max_days: int
    reach_days: int | None
    dimensions: Mapping[str, Dimension]
    archive: Archive | None = None


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
    """One API method; see the head of `methods.yaml` for the meaning of each entry."""

    name: str
    label: str
    params: frozenset[str]
    record: str | None = None
    list_keys: tuple[str, ...] = ()
    page: Page | None = None
    scope: Scope | None = None
    times: Times | None = None
    ids: Ids | None = None
    detail: Detail | None = None
    send: Mapping[str, str] = field(default_factory=dict)
    not_served: frozenset[str] = frozenset()

    def check(self, params: Mapping[str, Any]) -> None:
        """Refuse parameters that the gateway would silently ignore, and page sizes it would refuse.

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
        size = params.get("pageSize")
        if self.page and size is not None and not self.page.min <= int(size) <= self.page.max:
            raise ConfigError(
                f"pageSize {size} is outside {self.page.min} to {self.page.max}", method=self.name
            )


@cache
def method(name: str) -> Method:
    """Return the catalogue entry of an API method.

    Raises:
        ConfigError: the method is not in the catalogue.
    """
    entries = _load("methods.yaml")
    if name not in entries:
        near = get_close_matches(name, entries, n=1)
        raise ConfigError(
            f"{name!r} is not in the catalogue", hint=f"did you mean {near[0]!r}?" if near else None
        )
    entry = dict(entries[name])
    page, scope, times = entry.get("page"), entry.get("scope"), entry.get("times")
    ids, detail = entry.get("ids"), entry.get("detail")
    return Method(
        name=name,
        label=entry["label"],
        params=frozenset(entry["params"]),
        record=entry.get("record"),
        list_keys=tuple(entry.get("list_keys", ())),
        page=Page(**page) if page else None,
        scope=Scope(**scope) if scope else None,
        times=_times(times) if times else None,
        ids=Ids(**ids) if ids else None,
        detail=Detail(**detail) if detail else None,
        send=MappingProxyType({key: str(value) for key, value in entry.get("send", {}).items()}),
        not_served=frozenset(entry.get("not_served", ())),
    )


def _times(facts: Mapping[str, Any]) -> Times:
    archive = facts.get("archive")
    return Times(
        max_days=facts["max_days"],
        reach_days=facts.get("reach_days"),
        dimensions=MappingProxyType(
            {
                name: _dimension(name, facts, own if isinstance(own, dict) else {"stamp": own})
                for name, own in facts["dimensions"].items()
            }
        ),
        archive=Archive(**archive) if archive else None,
    )


def _dimension(name: str, times: Mapping[str, Any], own: Mapping[str, Any]) -> Dimension:
    """Return a dimension: what all times of the method share, and what is its own."""
    given = {**{key: times[key] for key in ("start", "end", "form") if key in times}, **own}
    type_param = times.get("type_param")
    send = {type_param: str(given.pop("type", name))} if type_param else {}
    return Dimension(send=MappingProxyType(send), **{"stamp": None, **given})


@cache
def record(name: str) -> Record:
    """Return the catalogue entry of a kind of record, e.g. `trade`."""
    entry = _load("records.yaml")[name]
    fields = {
        key: Field(
            key,
            facts["type"],
            facts["label"],
            facts.get("personal", False),
            tuple(facts.get("aliases", ())),
        )
        for key, facts in entry["fields"].items()
    }
    return Record(
        name=name,
        label=entry["label"],
        key=entry["key"],
        fields=MappingProxyType(fields),
        version=tuple(entry.get("version", ())),
        children=MappingProxyType(dict(entry.get("children", {}))),
        parent_key=entry.get("parent_key"),
        key_of=tuple(entry.get("key_of", ())),
    )


def method_names() -> tuple[str, ...]:
    """Return every method of the catalogue."""
    return tuple(_load("methods.yaml"))


def record_names() -> tuple[str, ...]:
    """Return every kind of record of the catalogue."""
    return tuple(_load("records.yaml"))


@cache
def _load(file: str) -> dict[str, Any]:
    text = (files(__package__) / file).read_text(encoding="utf-8")
    # The C loader is ten times faster where libyaml is built in.
    loaded: dict[str, Any] = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    return loaded


def snake_case(name: str) -> str:
    """Return an API name as a column name: `updTime` → `upd_time`, `numIid` → `num_iid`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
