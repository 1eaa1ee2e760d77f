"""Fields with their values compiled: from a scope to the parameters or the document that is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from kuaimai.errors import DataError
from kuaimai.pipeline.qeasy.exact import plain, to_decimal
from kuaimai.pipeline.qeasy.findings import Findings
from kuaimai.pipeline.qeasy.formats import as_text
from kuaimai.pipeline.qeasy.misfits import Misfit
from kuaimai.pipeline.qeasy.moments import DATETIME, read_time, to_epoch
from kuaimai.pipeline.qeasy.scope import Scope
from kuaimai.pipeline.qeasy.strategy import Field, Parser
from kuaimai.pipeline.qeasy.templates import Literal, Value
from kuaimai.pipeline.qeasy.values import parse_value


@dataclass(frozen=True)
class Compiled:
    """A field, ready to be rendered.

    Attributes:
        field: as it was read.
        value: its value; None where it has none.
        array: path of the source array whose elements `children` are rendered for; empty for one object.
        children: fields inside.
    """

    field: Field
    value: Value | None
    array: str
    children: tuple[Compiled, ...]

    def render(self, scope: Scope) -> Any:
        """Return what is sent; None is not sent at all.

        Raises:
            DataError: the value cannot be made, is required and empty, or is not of the field's type.
        """
        field = self.field
        try:
            found = self._found(scope)
        except Misfit:
            raise  # of a field inside
        except (DataError, ValueError, ArithmeticError) as err:
            raise Misfit(f"{field.path} ({field.name}): {err}", path=field.path) from err
        if found in (None, "") and field.required and self.value is not None:
            raise Misfit(f"{field.path} ({field.name}): it is required, and comes out empty", path=field.path)
        return found

    def _found(self, scope: Scope) -> Any:
        if self.children:
            found: Any = self._document(scope)
        else:
            found = None if self.value is None else self.value.render(scope)
        for parser in self.field.parsers:
            found = None if found is None else PARSERS[parser.name](found, parser, self.field)
        if found is None:
            found = self.field.default
        if found is None or self.field.parsers or self.children:
            return found
        return to_type(found, self.field.type)

    def _document(self, scope: Scope) -> Any:
        if self.field.type != "array":
            return render_fields(self.children, scope) or None
        if not self.array:
            made = render_fields(self.children, scope)
            return [made] if made else None
        if scope.value(self.array) is None:
            return None
        return [render_fields(self.children, inner) for inner in self.scopes(scope)]

    def scopes(self, scope: Scope) -> list[Scope]:
        """Return a scope for each element of the array; the one given where the field is of no array."""
        if not self.array:
            return [scope]
        elements = scope.value(self.array)
        if not isinstance(elements, list):
            elements = [] if elements is None else [elements]
        return [scope.within(self.array, one) for one in elements]

    def values(self) -> Iterator[tuple[Field, Value]]:
        """Return this field's value and those inside."""
        if self.value is not None:
            yield self.field, self.value
        for child in self.children:
            yield from child.values()


def render_fields(fields: Iterable[Compiled], scope: Scope) -> dict[str, Any]:
    """Return the object that the fields make; fields without a value are left out, as on the platform."""
    made = {}
    for one in fields:
        value = one.render(scope)
        if value is not None:
            made[one.field.name] = value
    return made


def compile_fields(
    fields: Iterable[Field], collections: Mapping[str, str], findings: Findings
) -> tuple[Compiled, ...]:
    """Compile fields; what makes no sense goes to the findings."""
    return tuple(_compiled(one, collections, findings) for one in fields)


def _compiled(field: Field, collections: Mapping[str, str], findings: Findings) -> Compiled:
    children = compile_fields(field.children, collections, findings)
    if field.children and field.type not in ("object", "array"):
        findings.refuse(f"{field.path}.type", f"a {field.type} with children", "write object or array")
    value: Value | None = None
    array = ""
    if field.type == "array" and children and field.value not in (None, ""):
        array = _array(field, findings)
    elif children and field.value not in (None, "", {}, []):
        findings.refuse(f"{field.path}.value", "an object has a value and children", "delete one of them")
    elif field.value is not None and (field.value != "" or field.type == "string"):
        # An empty text is no number and no time: a form that was left empty, so nothing is sent.
        try:
            value = parse_value(field.value, collections)
            if isinstance(value, Literal) and not field.parsers:
                value = Literal(to_type(value.value, field.type), value.text)
        except (ValueError, ArithmeticError) as err:
            told, _, advice = str(err).partition(" → ")
            findings.refuse(f"{field.path}.value", told, advice)
            value = None
    return Compiled(field, value, array, children)


def _array(field: Field, findings: Findings) -> str:
    """The bare name of the source array; braces around it are the same."""
    text = field.value.strip() if isinstance(field.value, str) else ""
    name = text.removeprefix("{{").removesuffix("}}").strip()
    if not name or any(sign in name for sign in "{}|' "):
        told = f"{field.value!r} is not the name of an array of the source row"
        findings.refuse(f"{field.path}.value", told, "write the bare name, e.g. details")
    return name


def to_type(value: Any, kind: str) -> Any:
    """Return a value as the field's declared type.

    Raises:
        ValueError: it cannot be one.
    """
    if kind == "string":
        return value if isinstance(value, list | dict) else as_text(value)
    if kind in ("int", "integer"):
        number = to_decimal(value)
        if number != number.to_integral_value():
            raise ValueError(f"not a whole number: {value}")
        return int(number)
    if kind in ("number", "float"):
        return plain(to_decimal(value))
    if kind in ("bool", "boolean"):
        text = str(value).lower()
        if text not in ("true", "1", "false", "0"):
            raise ValueError(f"neither true nor false: {value!r}")
        return text in ("true", "1")
    if kind in ("datetime", "date", "timestamp"):
        return _to_time(value, kind)
    wanted: type = dict if kind == "object" else list
    if not isinstance(value, wanted):
        raise ValueError(f"text or a number where an {kind} belongs: {as_text(value)[:40]!r}")
    return value


def _to_time(value: Any, kind: str) -> Any:
    wall = read_time(value)
    if wall is None:
        return None
    if kind == "timestamp":
        return to_epoch(wall)
    return wall.strftime(DATETIME if kind == "datetime" else "%Y-%m-%d")


# Value parsers


def _to_array(value: Any, parser: Parser, _field: Field) -> list[Any]:
    if isinstance(value, list):
        return value
    text = as_text(value)
    return [part.strip() for part in text.split(_separator(parser))] if text.strip() else []


def _to_string(value: Any, parser: Parser, _field: Field) -> str:
    if not isinstance(value, list):
        return as_text(value)
    return _separator(parser).join("" if one is None else as_text(one) for one in value)


def _separator(parser: Parser) -> str:
    given = parser.params.get("params", ",")
    if not isinstance(given, str) or not given:
        raise ValueError(f"{parser.name} needs a separator, e.g. ','")
    return given


def _unique(value: Any, _parser: Parser, _field: Field) -> Any:
    if not isinstance(value, list):
        return value
    return [one for place, one in enumerate(value) if one not in value[:place]]


def _key_values(value: Any, _parser: Parser, _field: Field) -> Any:
    if not isinstance(value, dict):
        raise ValueError(f"ConvertJson takes an object, not {as_text(value)[:40]!r}")
    return [{"Key": int(key) if key.isdecimal() else key, "Value": one} for key, one in value.items()]


def _workflow(value: Any, parser: Parser, field: Field) -> dict[str, Any]:
    return {
        "fieldName": field.name,
        "fieldValue": value,
        "view": parser.params.get("view", True),
        "edit": parser.params.get("edit", True),
        "fieldId": parser.params["fieldId"],
    }


PARSERS: dict[str, Callable[[Any, Parser, Field], Any]] = {
    "StringToArray": _to_array,
    "ArrayToString": _to_string,
    "ArrayUnique": _unique,
    "ConvertObjectParser": lambda value, parser, _field: {str(parser.params["params"]): value},
    "ConvertTwoStageObjectParser": lambda value, parser, _field: {
        str(parser.params["params1"]): {str(parser.params["params2"]): value}
    },
    "ConvertJson": _key_values,
    "K3WiseHeiHuCustomParser": lambda value, parser, _field: [
        {"keyName": parser.params["params"], "keyValue": value}
    ],
    "workflowRequestTableFields": _workflow,
}


def literal_number(one: Compiled) -> int | None:
    """Return the whole number that a field always sends, or None."""
    if not isinstance(one.value, Literal):
        return None
    value = one.value.value
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    whole = isinstance(value, int) and not isinstance(value, bool)
    return int(value) if whole or (isinstance(value, Decimal) and value == int(value)) else None
