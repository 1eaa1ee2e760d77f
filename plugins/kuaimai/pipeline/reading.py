"""Reading a file that people write: its content, the line of each key, and mistakes told in one line.

A mistake is told as `pipeline <file>, line <n>: <key>: <what is wrong>`, with the nearest word that would be
right. A `ValueError` from a model whose message begins with the path of a key is told at that key's line.
"""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import pydantic
import yaml
from pydantic import BaseModel

from kuaimai.errors import ConfigError

# The C loader is ten times faster where libyaml is built in.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# A pipeline nests six deep.
_DEEPEST = 100
_PATH = re.compile(r"([^\s:]+): ")
_SHAPES = {
    "dict_type": "a mapping belongs here",
    "model_type": "a mapping belongs here",
    "model_attributes_type": "a mapping belongs here",
    "tuple_type": "a list belongs here",
    "list_type": "a list belongs here",
    "string_type": "text belongs here",
    "int_type": "a whole number belongs here",
}
# What YAML makes of a value, as people call it.
_CALLED = {
    dict: "a mapping",
    list: "a list",
    str: "text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    date: "a date",
    datetime: "a time",
}
# Text, and the sign of YAML that takes over another mapping.
_KEYS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge")
_EMPTY = ("too_short", "string_too_short")
_KINDS = ("union_tag_invalid", "union_tag_not_found")
_QUOTE = "'"
_QUOTED = re.compile(r"'([^']*)'")


@dataclass(frozen=True)
class Document:
    """A YAML file.

    Attributes:
        path: where it is.
        text: as it is.
        content: its mapping.
        lines: path of a key, joined by dots → its line, from 1.
    """

    path: Path
    text: str
    content: dict[str, Any]
    lines: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return how messages call it."""
        return f"pipeline {self.path}"

    def line(self, path: str) -> int:
        """Return the line of a key; where it is not written, of the nearest thing around it."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path.rpartition(".")[0]
        return 1


def read_document(path: Path) -> Document:
    """Read a YAML file that holds one mapping.

    Raises:
        ConfigError: it cannot be read, is no YAML, names a key twice, or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        _check_depth(text)
        loader = _LOADER(text)
        try:
            node = loader.get_single_node()
            lines: dict[str, int] = {}
            _note_lines(path, node, "", lines, set())
            content = _content(path, loader, node)
        finally:
            loader.dispose()
    except OSError as err:
        raise ConfigError(f"pipeline {path} cannot be read: {err.strerror}") from err
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None)
        # A character that YAML does not allow has a position only: in bytes of UTF-8.
        at = getattr(err, "position", None)
        number = mark.line if mark else text.encode().count(b"\n", 0, at) if at is not None else None
        line = "" if number is None else f", line {number + 1}"
        why = getattr(err, "problem", None) or getattr(err, "reason", None) or err
        raise ConfigError(f"pipeline {path}{line} is not valid YAML: {one_line(str(why))}") from err
    except UnicodeDecodeError as err:
        before = err.object.count(b"\n", 0, err.start)
        raise ConfigError(
            f"pipeline {path}, line {before + 1} is not valid YAML: it is no UTF-8 text",
            hint="save the file in the encoding UTF-8",
        ) from err
    except (ValueError, RecursionError) as err:  # a number too long, or nested without end
        raise ConfigError(f"pipeline {path} is not valid YAML: {one_line(str(err))}") from err
    if not isinstance(content, dict):
        raise ConfigError(f"pipeline {path}, line 1: it must be a mapping that begins with `name:`")
    return Document(path, text, content, lines)


def _check_depth(text: str) -> None:
    """Refuse what nests deeper than any pipeline: composing it would overflow the C loader's stack.

    Raises:
        RecursionError: it does.
    """
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEEPEST:
            raise RecursionError("it nests too deeply")


def _content(path: Path, loader: Any, node: Any) -> Any:
    if not isinstance(node, yaml.MappingNode):
        return None
    for key, value in node.value:
        try:
            loader.construct_object(value, deep=True)
        except ValueError as err:  # looks like a date or a number, and is none
            line = key.start_mark.line + 1
            raise ConfigError(f"pipeline {path}, line {line}: {key.value}: {one_line(str(err))}") from err
        except (LookupError, AttributeError) as err:  # `!!bool` or `!!timestamp` before what is none
            line = key.start_mark.line + 1
            raise ConfigError(
                f"pipeline {path}, line {line}: {key.value}: the value is not what its tag says",
                hint="leave out the tag, the word that begins with !!",
            ) from err
    return loader.construct_document(node)


def _note_lines(path: Path, node: Any, at: str, lines: dict[str, int], seen: set[int]) -> None:
    """Note the line of each key below a node; what an alias repeats has its lines already."""
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        named: set[str] = set()
        for key, value in node.value:
            name = str(key.value)
            line = key.start_mark.line + 1
            if key.tag not in _KEYS:
                plain = isinstance(key, yaml.ScalarNode)
                told = f"the key {name} is no text; quote it" if plain else "a key is text"
                raise ConfigError(f"pipeline {path}, line {line}: {told}")
            if name in named and name != "<<":
                raise ConfigError(f"pipeline {path}, line {line}: the key {name!r} is there twice")
            named.add(name)
            below = f"{at}.{name}" if at else name
            lines[below] = line
            _note_lines(path, value, below, lines, seen)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            below = f"{at}.{number}"
            lines[below] = value.start_mark.line + 1
            _note_lines(path, value, below, lines, seen)


def refusal(document: Document, model: type[BaseModel], error: pydantic.ValidationError) -> ConfigError:
    """Return all mistakes of a file as one error, one line."""
    told = [_problem(document, model, detail) for detail in error.errors(include_url=False)]
    texts = [f"line {line}: {text}" for line, text in sorted(dict.fromkeys(told))]
    return ConfigError(one_line(f"{document}, {'; '.join(texts)}"))


def unknown_key(key: str, known: Iterable[str]) -> str:
    """Say that a key is unknown, and which one may be meant."""
    names = list(known)
    near = get_close_matches(key.rpartition(".")[2], names, n=1)
    advice = f"did you mean {near[0]!r}?" if near else f"known keys are {', '.join(names)}"
    return f"unknown key {key!r}; {advice}"


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the end of a message about a word that is not known: the one that may be meant, or nothing."""
    near = get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def one_line(text: str) -> str:
    """Return a text without line breaks."""
    return " ".join(text.split())


def _problem(document: Document, model: type[BaseModel], detail: Any) -> tuple[int, str]:
    """Return line and text of one mistake."""
    location = _written(document.content, detail["loc"])
    where = ".".join(map(str, location))
    line = document.line(where)
    message = str(detail["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if detail["type"] in _KINDS:
        return _no_kind(document, where, detail)
    if detail["type"] == "extra_forbidden":
        return line, unknown_key(where, _keys(model, location[:-1]))
    if detail["type"] == "missing":
        return line, f"key {where!r} is missing"
    if detail["type"] in _SHAPES:
        message = _misshapen(_SHAPES[detail["type"]], detail["input"])
    if detail["type"] in _EMPTY:
        message = "it must not be empty"
    if detail["type"] == "literal_error":
        message = _none_of(detail["input"], str(detail["ctx"]["expected"]))
    named = _PATH.match(message)
    if detail["type"] == "value_error" and named and (not where or named[1].startswith(f"{where}.")):
        return document.line(named[1]), message
    return line, f"{where}: {message}" if where else message


def _misshapen(wanted: str, given: Any) -> str:
    if given is None:
        return "it is empty; write something, or leave the key out"
    kind = _CALLED.get(type(given), type(given).__name__)
    quoted = "; quote it" if wanted.startswith("text") and not isinstance(given, dict | list) else ""
    return f"{wanted}, not {kind}{quoted}"


def _no_kind(document: Document, where: str, detail: Any) -> tuple[int, str]:
    """Return line and text where the key that says which model is meant is wrong or missing."""
    key = f"{where}.{str(detail['ctx']['discriminator']).strip(_QUOTE)}"
    if "tag" not in detail["ctx"]:
        return document.line(key), f"key {key!r} is missing"
    return document.line(key), f"{key}: {_none_of(detail['ctx']['tag'], detail['ctx']['expected_tags'])}"


def _none_of(given: Any, expected: str) -> str:
    words = _QUOTED.findall(expected)
    return f"{given!r} is none of {', '.join(words)}{nearest(str(given), words)}"


def _written(content: Any, location: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the part of an error's location that stands in the file: no names of types, no short forms."""
    found: list[Any] = []
    at = content
    for number, part in enumerate(location):
        listed = isinstance(at, list) and isinstance(part, int) and part < len(at)
        if listed or (isinstance(at, dict) and part in at):
            at = at[part]
        elif number < len(location) - 1 or not isinstance(at, dict) or part in ("", "[key]"):
            continue
        found.append(part)
    return tuple(found)


def _keys(annotation: Any, location: tuple[Any, ...]) -> list[str]:
    """Return the keys that are known at a location below a type."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _keys(inside[0], location)
    if origin in (Union, types.UnionType):
        return list(dict.fromkeys(key for one in inside for key in _keys(one, location)))
    if origin in (dict, tuple, list):
        return _keys(inside[1 if origin is dict else 0], location[1:])
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return []
    by_key = {one.alias or name: one for name, one in annotation.model_fields.items() if not one.exclude}
    if not location:
        return list(by_key)
    one = by_key.get(str(location[0]))
    return _keys(one.annotation, location[1:]) if one else []
