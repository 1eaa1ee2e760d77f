"""The values of a strategy: literals, templates, `_function` expressions and `_findCollection` lookups.

Everything is taken apart once, when the strategy is compiled; rendering then only looks values up. A value
from a row is data at all times: it is never parsed as a template, as an expression or as SQL.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from kuaimai.errors import DataError
from kuaimai.pipeline.qeasy.formats import Format, as_text, pipe_format
from kuaimai.pipeline.qeasy.scope import Scope

FIND = "_findCollection"
END_FIND = "_endFind"

_PLACEHOLDER = re.compile(r"\{\{(?P<double>.*?)\}\}|\{(?P<single>PAGINATION_\w+)\}", re.DOTALL)
_SPACED = re.compile(r"(\S+)\s+((?i:datetime|date|timestamp_ms|timestamp|time))")
_FIND = re.compile(rf"{FIND}\s+find\s+(\S+)\s+from\s+(\S+)\s+where\s+(.+)", re.DOTALL)
_CONDITION = re.compile(r"([^\s={}]+)=((?:\{\{.*?\}\}|[^\s{])*)(?:\s+|$)", re.DOTALL)


class Value(Protocol):
    """A compiled value."""

    @property
    def text(self) -> str:
        """As it is written."""
        ...

    def render(self, scope: Scope) -> Any:
        """Return what is sent.

        Raises:
            DataError: it cannot be made from this row; the message names the value as it is written.
        """
        ...

    def names(self) -> Iterator[str]:
        """Return the variables and fields that it refers to."""
        ...


@dataclass(frozen=True)
class Literal:
    """A value that is sent as it is written."""

    value: Any
    text: str = ""

    def render(self, scope: Scope) -> Any:  # noqa: ARG002 - the protocol's signature
        """Return it."""
        return self.value

    def names(self) -> Iterator[str]:
        """It refers to nothing."""
        return iter(())


@dataclass(frozen=True)
class Placeholder:
    """`{{name|format}}`."""

    text: str
    name: str
    formats: tuple[Format, ...] = ()

    def render(self, scope: Scope) -> Any:
        """Return the variable or field, formatted."""
        value = scope.value(self.name)
        try:
            for one in self.formats:
                value = one.apply(value, scope.now)
        except (ValueError, ArithmeticError) as err:
            raise DataError(f"{self.text}: {err}") from err
        return value

    def names(self) -> Iterator[str]:
        """Return the one name."""
        yield self.name


@dataclass(frozen=True)
class Template:
    """Text with placeholders in it. One placeholder alone keeps its value's type; a null is empty text."""

    text: str
    parts: tuple[str | Placeholder, ...]

    def render(self, scope: Scope) -> Any:
        """Return the text, or the value of the only placeholder."""
        if len(self.parts) == 1 and isinstance(self.parts[0], Placeholder):
            return self.parts[0].render(scope)
        found = (part if isinstance(part, str) else part.render(scope) for part in self.parts)
        return "".join("" if part is None else as_text(part) for part in found)

    def names(self) -> Iterator[str]:
        """Return the names of its placeholders."""
        for part in self.parts:
            if isinstance(part, Placeholder):
                yield part.name


@dataclass(frozen=True)
class Find:
    """`_findCollection find field from strategy where a={{x}} b={{y}}`."""

    text: str
    field: str
    strategy: str
    table: str
    where: Mapping[str, Template]

    def render(self, scope: Scope) -> Any:
        """Return what is found, or None."""
        if scope.lookups is None:
            raise DataError(f"{self.text}: no landed tables can be asked here")
        values = {name: template.render(scope) for name, template in self.where.items()}
        return scope.lookups.find(self.table, values, self.field)

    def names(self) -> Iterator[str]:
        """Return what the conditions refer to."""
        for template in self.where.values():
            yield from template.names()


def parse_template(text: str) -> Template:
    """Take text with placeholders apart.

    Raises:
        ValueError: a placeholder is not closed, is empty, or names an unknown format.
    """
    parts: list[str | Placeholder] = []
    end = 0
    for found in _PLACEHOLDER.finditer(text):
        if found.start() > end:
            parts.append(text[end : found.start()])
        parts.append(parse_placeholder(found))
        end = found.end()
    if end < len(text) or not parts:
        parts.append(text[end:])
    if any(isinstance(part, str) and "{{" in part for part in parts):
        raise ValueError(f"{text!r}: a placeholder is not closed → write {{{{name}}}}")
    return Template(text, tuple(parts))


def placeholders(text: str) -> Iterator[re.Match[str]]:
    """Return the placeholders of a text, in order."""
    return _PLACEHOLDER.finditer(text)


def parse_placeholder(found: re.Match[str]) -> Placeholder:
    """Take one placeholder apart.

    Raises:
        ValueError: it is empty, or names an unknown format.
    """
    text = found[0]
    if found["single"]:
        return Placeholder(text, found["single"])
    name, *formats = (part.strip() for part in found["double"].split("|"))
    if not formats and (spaced := _SPACED.fullmatch(name)):
        name, formats = spaced[1], [spaced[2]]
    if not name or "{" in name:
        raise ValueError(f"{text!r} names nothing")
    if name.startswith(("$", "source.", "system.")):
        raise ValueError(f"{text!r} is of the newer documentation's dialect → write {{{{LAST_SYNC_TIME}}}}")
    return Placeholder(text, name, tuple(pipe_format(one) for one in formats))


def parse_find(text: str, collections: Mapping[str, str]) -> Find:
    """Take a lookup apart.

    Raises:
        ValueError: its form is wrong, or no landed table is named for its strategy.
    """
    found = _FIND.fullmatch(text.strip().removesuffix(END_FIND).strip())
    if found is None:
        raise ValueError(f"{text!r} → write {FIND} find <field> from <strategy> where a={{{{x}}}} …")
    field, strategy, conditions = found[1], found[2], found[3].strip()
    where: dict[str, Template] = {}
    end = 0
    for one in _CONDITION.finditer(conditions):
        if one.start() != end:
            break
        where[one[1]] = parse_template(_unquoted(one[2]))
        end = one.end()
    if end < len(conditions) or not where:
        raise ValueError(f"{conditions[end:]!r} is no condition → write field={{{{value}}}} without spaces")
    if strategy not in collections:
        raise ValueError(
            f"the store of strategy {strategy} is not here → name the landed table: "
            f'"collections": {{"{strategy}": "kuaimai_…"}} beside "metadata"'
        )
    return Find(text, field, strategy, collections[strategy], where)


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == "'" else text
