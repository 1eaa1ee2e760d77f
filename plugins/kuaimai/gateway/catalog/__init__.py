"""The catalogue: what each method accepts and returns.

The data lives in `methods/` and `records/` beside this module, one file per area; README.md has the form.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import yaml

from kuaimai.errors import ConfigError
from kuaimai.gateway.catalog.model import (
    NUMBER,
    Archive,
    Detail,
    Dimension,
    Field,
    FieldType,
    Ids,
    Method,
    Page,
    Record,
    Scope,
    Sure,
    TimeForm,
    Times,
    snake_case,
)

__all__ = [
    "NUMBER",
    "Archive",
    "Detail",
    "Dimension",
    "Field",
    "FieldType",
    "Ids",
    "Method",
    "Page",
    "Record",
    "Scope",
    "Sure",
    "TimeForm",
    "Times",
    "areas",
    "data_of",
    "method",
    "method_names",
    "record",
    "record_names",
    "snake_case",
    "text_of",
]

# The C loader is ten times faster where libyaml is built in.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@cache
def method(name: str) -> Method:
    """Return the catalogue entry of an API method.

    Raises:
        ConfigError: the method is not in the catalogue.
    """
    entry = data_of("methods", name)
    page, scope, times = entry.get("page"), entry.get("scope"), entry.get("times")
    ids, detail = entry.get("ids"), entry.get("detail")
    return Method(
        name=name,
        label=entry["label"],
        params=frozenset(entry["params"]),
        record=entry.get("record"),
        list_keys=tuple(entry.get("list_keys", ())),
        empty_list=entry.get("empty_list", False),
        page=Page(**page) if page else None,
        scope=Scope(**scope) if scope else None,
        times=_times(times) if times else None,
        ids=Ids(**ids) if ids else None,
        detail=Detail(**detail) if detail else None,
        send=MappingProxyType({key: str(value) for key, value in entry.get("send", {}).items()}),
        not_served=frozenset(entry.get("not_served", ())),
        history=entry.get("history"),
        needs=tuple(tuple(group.split("|")) for group in entry.get("needs", ())),
        unsure=frozenset(entry.get("unsure", ())),
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
        optional=facts.get("optional", False),
    )


def _dimension(name: str, times: Mapping[str, Any], own: Mapping[str, Any]) -> Dimension:
    """Return a dimension: what all times of the method share, and what is its own."""
    given = {**{key: times[key] for key in ("start", "end", "form") if key in times}, **own}
    type_param = times.get("type_param")
    send = {type_param: str(given.pop("type", name))} if type_param else {}
    return Dimension(send=MappingProxyType(send), **{"stamp": None, **given})


@cache
def record(name: str) -> Record:
    """Return the catalogue entry of a kind of record, e.g. `trade`.

    Raises:
        ConfigError: the kind is not in the catalogue.
    """
    entry = data_of("records", name)
    return Record(
        name=name,
        label=entry["label"],
        key=entry["key"],
        fields=MappingProxyType({key: _field(key, facts) for key, facts in entry["fields"].items()}),
        version=tuple(entry.get("version", ())),
        children=MappingProxyType(dict(entry.get("children", {}))),
        parent_key=entry.get("parent_key"),
        key_of=tuple(entry.get("key_of", ())),
        unsure=frozenset(entry.get("unsure", ())),
    )


def _field(name: str, facts: Mapping[str, Any]) -> Field:
    lists = {key: tuple(str(one) for one in facts.get(key, ())) for key in ("aliases", "sentinels")}
    return Field(name, **{**facts, **lists})


def method_names() -> tuple[str, ...]:
    """Return every method of the catalogue."""
    return tuple(_texts("methods"))


def record_names() -> tuple[str, ...]:
    """Return every kind of record of the catalogue."""
    return tuple(_texts("records"))


def areas(folder: str) -> dict[str, tuple[str, ...]]:
    """Return the files of `methods` or `records`, each with the names of its entries in their order."""
    return {area: tuple(entries) for area, entries in _files(folder).items()}


def data_of(folder: str, name: str) -> dict[str, Any]:
    """Return an entry of `methods` or `records` as its file has it, with what it takes over from another.

    Raises:
        ConfigError: it is not in the catalogue.
    """
    texts = _texts(folder)
    if name not in texts:
        near = get_close_matches(name, texts, n=1)
        raise ConfigError(
            f"{name!r} is not in the catalogue", hint=f"did you mean {near[0]!r}?" if near else None
        )
    entry: dict[str, Any] = yaml.load(texts[name], Loader=_LOADER)[name]  # noqa: S506 - both are safe loaders
    like = entry.pop("like", None)
    return {**data_of(folder, like), **entry} if like else entry


def text_of(folder: str, name: str) -> str:
    """Return an entry's YAML text."""
    return _texts(folder)[name]


@cache
def _texts(folder: str) -> dict[str, str]:
    return {name: text for entries in _files(folder).values() for name, text in entries.items()}


@cache
def _files(folder: str) -> dict[str, dict[str, str]]:
    """Return the YAML text of each entry, by file and name.

    An entry is parsed when it is asked for: a DAG file needs a few, and all of them take a tenth of a second.

    Raises:
        ConfigError: two entries have one name.
    """
    found: dict[str, dict[str, str]] = {}
    seen: set[str] = set()
    for file in sorted((files(__package__) / folder).iterdir(), key=lambda path: path.name):
        if not file.name.endswith(".yaml"):
            continue
        blocks = re.split(r"^(?=[\w.]+:)", file.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
        entries = found[file.name.removesuffix(".yaml")] = {}
        for block in blocks:
            name = block.partition(":")[0]
            if name in seen:
                raise ConfigError(f"{name!r} is twice in the catalogue's {folder}")
            seen.add(name)
            entries[name] = block
    return found
