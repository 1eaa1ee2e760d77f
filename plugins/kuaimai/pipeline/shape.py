"""The part of a pipeline that shapes records: fields, filters, steps, and what to do with the unknown.

Written in a pipeline's file, checked against the catalogue here, and turned into the plain
`kuaimai.transform.rules` that the mapper follows. An error's message begins with the path of its key.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date
from difflib import get_close_matches
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from kuaimai.gateway import catalog
from kuaimai.gateway.catalog import FieldType
from kuaimai.transform.fields import CONVERTERS
from kuaimai.transform.rules import Condition, FieldRule, Filter, Keep, Policy, Rules, Step, Test

TYPES: tuple[FieldType, ...] = get_args(FieldType)
_COLUMN = re.compile(r"[a-z][a-z0-9_]{0,62}")
_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
# Their values have an order that "below" and "above" can mean.
_ORDERED = frozenset({"integer", "number", "yuan", "fen", "time"})
_LISTS: dict[str, Test] = {"in": "one_of", "not": "none_of"}
_BOUNDS: dict[str, Test] = {
    "below": "below",
    "at_most": "at_most",
    "above": "above",
    "at_least": "at_least",
}
# Columns that the nightly reconcile counts and adds up by; see `kuaimai.load.reconciling`.
_COUNTED_BY = frozenset({"user_id", "sys_status"})
_ADDED_UP = frozenset({"payment", "pay_amount"})


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _scalar(value: Any) -> str | int | bool | None:
    """Return one value of YAML as it was written: YAML makes 0.1 a float, and 2026-01-01 a date."""
    if isinstance(value, bool | int | str | None):
        return value
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, date):
        return str(value)
    raise ValueError(f"one value belongs here, not a {type(value).__name__}")


def _list(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


Scalar = Annotated[
    Any,
    BeforeValidator(_scalar),
    WithJsonSchema({"type": ["string", "number", "boolean", "null"]}),
]
Scalars = Annotated[
    tuple[Scalar, ...],
    BeforeValidator(_list),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": ["string", "number", "boolean", "null"]},
                {"type": "array", "items": {"type": ["string", "number", "boolean", "null"]}},
            ]
        }
    ),
]


class Shaped(_Strict):
    """What becomes of one field: `payment: {to: amount_due}`, or in short `sellerMemo: drop`.

    Attributes:
        to: name of its column.
        type: what it is converted to: id, text, integer, number, yuan, time, json.
        default: stands where the source sends nothing.
        drop: it gets no column.
        keep: for a person's data, which is dropped otherwise: `plain`; `hash` (SHA-256: equal values stay
            equal, but whoever tries all telephone numbers finds the one); `mask` (138****0000, 张**).
    """

    to: str | None = None
    type: FieldType | None = None
    default: Scalar = None
    drop: bool = False
    keep: Keep | None = None

    @field_validator("to")
    @classmethod
    def _a_column(cls, value: str | None) -> str | None:
        if value is not None and not _COLUMN.fullmatch(value):
            raise ValueError(f"{value!r} is no column name: lower-case letters, digits and _, at most 63")
        return value

    @model_validator(mode="after")
    def _dropped_or_shaped(self) -> Shaped:
        if self.drop and (self.to or self.type or self.keep or self.default is not None):
            raise ValueError("a field that is dropped has nothing else to say")
        return self


def _short(value: Any) -> Any:
    if not isinstance(value, dict):
        if value != "drop":
            raise ValueError(f"{value!r}: write `drop`, or a mapping of to, type, default, keep")
        return {"drop": True}
    return value


class Compared(_Strict):
    """A test of one field: a value, a list of values, or a mapping of these; several must all hold.

    Attributes:
        in_: one of these values; written `in`, or the values alone.
        not_: none of these values; written `not`.
        below: smaller, or earlier.
        at_most: that much, or smaller.
        above: greater, or later.
        at_least: that much, or greater.
        empty: true where there must be no value, false where there must be one.
    """

    in_: Scalars = Field(default=(), alias="in")
    not_: Scalars = Field(default=(), alias="not")
    below: Scalar = None
    at_most: Scalar = None
    above: Scalar = None
    at_least: Scalar = None
    empty: bool | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Compared:
        if not self.model_fields_set or any(self.said[name] in (None, ()) for name in self.said):
            raise ValueError("an empty test; say in, not, below, at_most, above, at_least or empty")
        return self

    @property
    def said(self) -> dict[str, Any]:
        """What was written, by the words of the file."""
        return self.model_dump(by_alias=True, exclude_unset=True)


def _wanted(value: Any) -> Any:
    if isinstance(value, dict):
        return value
    if value in (None, ""):
        return {"empty": True}
    return {"in": value}


Wanted = Annotated[Compared, BeforeValidator(_wanted)]


class FilterRule(_Strict):
    """Records that are left out, and counted: `{where: {sysStatus: [CLOSED]}, then: skip}`.

    Attributes:
        where: API field of the record → a value, a list of values, or a test; all must hold.
        then: `skip` passes the record over (the window counts it as filtered), `quarantine` sets it aside.
        reason: what the log and quarantine say; made from `where` if left out.
    """

    where: dict[str, Wanted] = Field(min_length=1)
    then: Literal["skip", "quarantine"]
    reason: str = ""


class StepRule(_Strict):
    """A function of yours: gets the rows of a table as a pandas DataFrame, and returns them.

    Attributes:
        run: `module:function`; the module is looked for beside the pipeline's file, then on PYTHONPATH.
        columns: columns that it adds, and their types.
    """

    run: str
    columns: dict[str, FieldType] = Field(default_factory=dict)

    @field_validator("run")
    @classmethod
    def _module_and_function(cls, value: str) -> str:
        if not _FUNCTION.fullmatch(value):
            raise ValueError(f"{value!r} is no `module:function`")
        return value

    @field_validator("columns")
    @classmethod
    def _columns(cls, value: dict[str, FieldType]) -> dict[str, FieldType]:
        for name, kind in value.items():
            if not _COLUMN.fullmatch(name):
                raise ValueError(f"{name!r} is no column name: lower-case letters, digits and _, at most 63")
            if kind == "fen":
                raise ValueError(f"{name}: amounts are in yuan by now")
        return value


def _run(value: Any) -> Any:
    return {"run": value} if isinstance(value, str) else value


def _steps(value: Any) -> Any:
    """A step without a kind of record is about the record itself, not about its lines."""
    if value is None:
        return {}
    if isinstance(value, str) or (isinstance(value, dict) and "run" in value):
        return {"": _run(value)}
    return value


def _nowhere(_key: str) -> str:
    return ""


Fields = dict[str, Annotated[Shaped, BeforeValidator(_short)]]
Steps = Annotated[dict[str, Annotated[StepRule, BeforeValidator(_run)]], BeforeValidator(_steps)]


def rules(
    record: catalog.Record,
    *,
    fields: Mapping[str, Shaped],
    keep_personal: Sequence[str],
    filters: Sequence[FilterRule],
    steps: Mapping[str, StepRule],
    policy: Policy,
    stamps: Iterable[str] = (),
    folder: str = "",
    place: Callable[[str], str] = _nowhere,
) -> Rules:
    """Check what a pipeline says about its records, and return it as the mapper takes it.

    Args:
        record: the kind of record.
        fields: `field` or `<list>.<field>` → what becomes of it.
        keep_personal: fields to keep as they are.
        filters: in their order.
        steps: kind of record, or "" for the record itself → function.
        policy: what to do with the unknown.
        stamps: fields that the pipeline's time dimensions ask by.
        folder: of the pipeline's file.
        place: gives file and line of a key, for messages of a later time.

    Raises:
        ValueError: what is wrong, after the path of the key that is.
    """
    stamps = frozenset(stamps)
    kinds = {"": record, **{name: catalog.record(kind) for name, kind in record.children.items()}}
    made: dict[str, dict[str, FieldRule]] = {kind.name: {} for kind in kinds.values()}
    for name in keep_personal:
        owners = [kind for kind in kinds.values() if name in kind.fields and kind.fields[name].personal]
        if not owners:
            personal = {one.name for kind in kinds.values() for one in kind.fields.values() if one.personal}
            raise ValueError(
                f"keep_personal: {name!r} is no personal field of this pipeline; {_near(name, personal)}"
            )
        for kind in owners:
            made[kind.name][name] = FieldRule(keep="plain")
    for path, shaped in fields.items():
        where = f"fields.{path}"
        kind, field = _find(kinds, path, where)
        if field.name in made[kind.name] and shaped.drop:
            raise ValueError(f"{where}: it is dropped here and kept in keep_personal")
        kept = shaped.keep or (made[kind.name][field.name].keep if field.name in made[kind.name] else None)
        made[kind.name][field.name] = _field_rule(kind, field, shaped, kept, where)
        counted_by = {*stamps, *_COUNTED_BY} if kind is record else _ADDED_UP
        if {field.name, field.column} & counted_by:
            _stays(field, shaped, where)
    steps_of = {name or record.name: one for name, one in steps.items()}
    for name in steps_of:
        if name not in made:
            raise ValueError(f"step.{name}: no kind of record of this pipeline; {_near(name, made)}")
    for kind in kinds.values():
        _one_column_each(kind, made[kind.name], steps_of.get(kind.name), [*fields])
    return Rules(
        fields=MappingProxyType({kind: MappingProxyType(one) for kind, one in made.items()}),
        filters=tuple(_filter(record, made[record.name], one, at) for at, one in enumerate(filters)),
        steps=MappingProxyType(
            {
                name or record.name: Step(
                    one.run, one.columns, folder, place(f"step.{name}" if name else "step")
                )
                for name, one in steps.items()
            }
        ),
        policy=policy,
    )


def _find(kinds: Mapping[str, catalog.Record], path: str, where: str) -> tuple[catalog.Record, catalog.Field]:
    """Return the field that a path means, and the kind of record that has it."""
    *lists, name = path.split(".")
    kind = kinds.get(".".join(lists))
    paths = [f"{one}.{field}" if one else field for one, kind in kinds.items() for field in kind.fields]
    if kind is None or name not in kind.fields:
        known = paths if kind is None or not lists else [*(f"{lists[0]}.{one}" for one in kind.fields)]
        raise ValueError(f"{where}: unknown field {path!r}; {_near(path, known)}")
    return kind, kind.fields[name]


def _field_rule(
    kind: catalog.Record, field: catalog.Field, shaped: Shaped, kept: Keep | None, where: str
) -> FieldRule:
    if field.personal and not kept and not shaped.drop:
        raise ValueError(
            f"{where}: a person's data is dropped unless the pipeline keeps it; add keep: plain, hash or mask"
        )
    if kept in ("hash", "mask") and shaped.type not in (None, "text"):
        raise ValueError(f"{where}.type: what is kept as {kept} is text")
    own = {kind.key, kind.parent_key, *kind.key_of, *kind.version}
    if field.name in own:
        if shaped.drop:
            raise ValueError(f"{where}: {field.name} is {_role(kind, field)} and cannot be dropped")
        for name in ("type", "default", "keep"):
            if getattr(shaped, name) is not None:
                raise ValueError(f"{where}.{name}: {field.name} is {_role(kind, field)} and stays as it is")
    default = None
    if shaped.default is not None:
        default = _typed(shaped.type or field.type, shaped.default, f"{where}.default")
    return FieldRule(shaped.to, shaped.type, default, shaped.drop, kept)


def _role(kind: catalog.Record, field: catalog.Field) -> str:
    if field.name in (kind.key, *kind.key_of):
        return f"the key of {kind.name}"
    return "the key of what it belongs to" if field.name == kind.parent_key else f"the version of {kind.name}"


def _stays(field: catalog.Field, shaped: Shaped, where: str) -> None:
    """Refuse changes to a column that planning and the reconcile find records by."""
    if shaped.drop or shaped.to or shaped.type or shaped.keep in ("hash", "mask"):
        raise ValueError(
            f"{where}: the nightly reconcile counts by {field.column}; it keeps its name and its type"
        )


def _one_column_each(
    kind: catalog.Record, made: Mapping[str, FieldRule], step: StepRule | None, paths: Sequence[str]
) -> None:
    """Refuse two columns of one name."""
    taken: dict[str, str] = {}
    names = [
        (made.get(one.name, FieldRule()).column or one.column, one.name)
        for one in kind.fields.values()
        if not made.get(one.name, FieldRule()).drop
        and (not one.personal or made.get(one.name, FieldRule()).keep)
    ]
    for column, name in names:
        if column in taken:
            given = {path.rpartition(".")[2]: path for path in paths}
            blamed = given.get(name) or given.get(taken[column]) or name
            raise ValueError(
                f"fields.{blamed}.to: {taken[column]} and {name} would both be the column {column!r}"
            )
        taken[column] = name
    for column in step.columns if step else ():
        if column in taken:
            raise ValueError(
                f"step.{kind.name}.columns.{column}: {kind.name} has this column already, by {taken[column]}"
            )


def _filter(record: catalog.Record, made: Mapping[str, FieldRule], rule: FilterRule, at: int) -> Filter:
    conditions: list[Condition] = []
    for name, wanted in rule.where.items():
        where = f"filters.{at}.where.{name}"
        if name not in record.fields or (record.key_of and name == record.key):
            if name.partition(".")[0] in record.children:
                raise ValueError(f"{where}: filters look at the record's own fields, not at its lines")
            raise ValueError(f"{where}: unknown field {name!r}; {_near(name, record.fields)}")
        kind = made.get(name, FieldRule()).type or record.fields[name].type
        conditions += _conditions(name, kind, wanted, where)
    reason = rule.reason or "filter: " + ", ".join(
        f"{name} {_said(wanted)}" for name, wanted in rule.where.items()
    )
    return Filter(tuple(conditions), rule.then == "quarantine", reason)


def _conditions(name: str, kind: FieldType, wanted: Compared, where: str) -> Iterable[Condition]:
    for word, values in wanted.said.items():
        at = f"{where}.{word}"
        if word == "empty":
            yield Condition(name, "empty" if values else "filled")
            continue
        if word in _LISTS:
            typed = tuple(_typed(kind, one, where) for one in values)
            if None in typed:
                raise ValueError(
                    f"{where}: an empty value among others; write a filter of its own: empty: true"
                )
            yield Condition(name, _LISTS[word], typed)
            continue
        if kind not in _ORDERED:
            raise ValueError(f"{at}: {name} is {kind}, which has no order; use a number or a time")
        yield Condition(name, _BOUNDS[word], (_typed(kind, values, at),))


def _typed(kind: FieldType, value: Any, where: str) -> Any:
    try:
        # Amounts are written in yuan here, in whatever unit the gateway sends them.
        return CONVERTERS["yuan" if kind == "fen" else kind](value)
    except ValueError as err:
        raise ValueError(f"{where}: {value!r} is no {kind}: {err}") from None


def _said(wanted: Compared) -> str:
    words = []
    for word, value in wanted.said.items():
        if word == "empty":
            words.append("is empty" if value else "is not empty")
        elif word == "in":
            words.append(" | ".join(map(str, value)))
        else:
            words.append(f"{word} {' | '.join(map(str, value)) if word == 'not' else value}")
    return " and ".join(words)


def _near(name: str, known: Iterable[str]) -> str:
    names = list(known)
    found = get_close_matches(name, names, n=1) or get_close_matches(
        name.lower(), [one.lower() for one in names], n=1
    )
    near = next((one for one in names if found and one.lower() == found[0].lower()), None)
    if near:
        return f"did you mean {near!r}?"
    shown = sorted(names)
    return f"known are {', '.join(shown[:12])}" + (" …" if len(shown) > 12 else "")  # noqa: PLR2004 - one line
