"""A strategy as it was written, typed; what its values mean is decided when it is compiled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Direction = Literal["QUERY", "EXECUTE"]


@dataclass(frozen=True)
class Parser:
    """A value parser: its name (the platform chains several with commas) and its own parameters."""

    name: str
    params: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Field:
    """An entry of request, otherRequest, response or takeOverRequest.

    Attributes:
        name: the key that is sent, or the column.
        path: where it stands in the strategy, e.g. `request[2]`.
        type: one of `keys.TYPES`.
        value: literal or template, as written; None where there is none.
        default: literal in place of a value that comes out as null.
        required: the platform's validation flag.
        parsers: applied to the value, in this order.
        children: fields of an object, or of each element of an array.
        describe: the help text; `_autoFillResponse` marks what the platform added by itself.
    """

    name: str
    path: str
    type: str = "string"
    value: Any = None
    default: Any = None
    required: bool = False
    parsers: tuple[Parser, ...] = ()
    children: tuple[Field, ...] = ()
    describe: str = ""


@dataclass(frozen=True)
class Condition:
    """One comparison of a row filter; `strict` drops the document if one row of the array fails.

    What was written behind `timestamp:` is a `datetime` in `value`, wall clock; of several a list of them.
    """

    path: str
    field: str
    logic: str
    value: Any = None
    strict: bool = False


@dataclass(frozen=True)
class Format:
    """A derived column: `new` is `old` in a named format, e.g. `round(2)`."""

    path: str
    old: str
    new: str
    format: str


@dataclass(frozen=True)
class Remedy:
    """A second, slower pull whose named fields replace those of the request."""

    crontab: str
    fields: tuple[Field, ...]


@dataclass(frozen=True)
class Split:
    """Each element of the array becomes a row of its own (source)."""

    array: str


@dataclass(frozen=True)
class Batch:
    """So many rows become one request, listed under `rows_key` (target)."""

    rows: int
    rows_key: str = "array"


@dataclass(frozen=True)
class Grouping:
    """Flat rows become documents again.

    Attributes:
        path: where it stands in the strategy.
        header: columns whose equal values make a document.
        body: columns whose equal values make a line of it.
        body_name: the array whose flattened columns (`<body_name>_<column>`) are the lines.
        target_body: what the lines are called in the document.
        most_lines: documents with more lines are split; None for no limit.
        calculate: column → `$sum`, `$avg`, `$min`, `$max`, `$push`, `$addToSet`, `$first` or `$last`.
    """

    path: str
    header: tuple[str, ...]
    body: tuple[str, ...]
    body_name: str
    target_body: str
    most_lines: int | None
    calculate: Mapping[str, str]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a flat row that it uses; all others are not part of a document."""
        return tuple(dict.fromkeys((*self.header, *self.body, *self.calculate)))


@dataclass(frozen=True)
class Side:
    """One half of a strategy: what is asked of the source, or written to the target.

    Attributes:
        path: the prefix of its field paths, e.g. `source.metadata.`; empty where the file is this side alone.
        direction: QUERY for the source, EXECUTE for the target.
        api: method name, URL path, or a pseudo-API such as `写入空操作`.
        method: HTTP verb, or `SQL`.
        id: path of the primary key in a row.
        number: path of the business number; for display.
        id_check: whether a row whose id is there already is dropped (the platform's default) or replaces it.
        other_response: how the platform reads the envelope (StatusKey, DataKey…).
        page_size: `pagination.pageSize`, if written.
        connector: Airflow Connection of a target; ours, as the platform keeps its own elsewhere.
    """

    path: str
    direction: Direction
    api: str
    method: str = "POST"
    id: str = ""
    number: str = ""
    id_check: bool = True
    request: tuple[Field, ...] = ()
    other_request: tuple[Field, ...] = ()
    response: tuple[Field, ...] = ()
    other_response: Mapping[str, Any] = field(default_factory=dict)
    auto_fill: bool = False
    page_size: int | None = None
    condition: tuple[tuple[Condition, ...], ...] = ()
    beat_flat: tuple[str, ...] = ()
    formats: tuple[Format, ...] = ()
    split: Split | None = None
    batch: Batch | None = None
    grouping: Grouping | None = None
    remedy: Remedy | None = None
    adapter: str = ""
    crontab: str = ""
    connector: str = ""
    has_id_check: bool = True


@dataclass(frozen=True)
class Strategy:
    """A strategy file.

    Attributes:
        name: of the file, or as it names itself.
        source: what is read; None for a file that holds only a target.
        target: what is written; None for a file that holds only a source.
        collections: strategy id → landed table, for `_findCollection`.
        settings: number of settings in it: keys that are not remarks.
    """

    name: str
    source: Side | None
    target: Side | None
    collections: Mapping[str, str]
    settings: int
