"""`_function` expressions: parsed once by sqlglot in MySQL's grammar, evaluated here, sent to no database.

A placeholder is a value of its own in the parsed expression; inside of quotes it becomes part of the text. So
whatever a row holds (quotes, backslashes, SQL) is data. An expression that cannot be evaluated raises
`DataError` and its row goes to quarantine; on the platform its own text would be written to the target.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, ClassVar

from sqlglot import TokenType, exp
from sqlglot.dialects.mysql import MySQL
from sqlglot.errors import SqlglotError

from kuaimai.errors import DataError
from kuaimai.pipeline.qeasy import functions
from kuaimai.pipeline.qeasy.exact import plain
from kuaimai.pipeline.qeasy.findings import near
from kuaimai.pipeline.qeasy.formats import as_text
from kuaimai.pipeline.qeasy.scope import Scope
from kuaimai.pipeline.qeasy.templates import (
    END_FIND,
    FIND,
    Find,
    Placeholder,
    parse_find,
    parse_placeholder,
    placeholders,
)

FUNCTION = "_function"

Node = Callable[[Scope], Any]

_NESTED_FIND = re.compile(rf"{FIND}\s.*?{END_FIND}", re.DOTALL)
# A value that the platform would paste as a number is one. Codes with leading zeros stay texts.
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,60})(\.\d{1,30})?")
_LONGEST = 20_000


class _Expressions(MySQL):
    """MySQL's grammar with every function left as it is called: which ones exist is decided here."""

    class Parser(MySQL.Parser):  # type: ignore[valid-type, misc]
        FUNCTIONS: ClassVar[dict[str, Any]] = {}
        FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {"CAST": MySQL.Parser.FUNCTION_PARSERS["CAST"]}
        NO_PAREN_FUNCTIONS: ClassVar[dict[Any, Any]] = {}
        # Before sqlglot 29 the remainder bound like a sum.
        TERM: ClassVar[dict[Any, Any]] = {
            token: kind for token, kind in MySQL.Parser.TERM.items() if kind is not exp.Mod
        }
        FACTOR: ClassVar[dict[Any, Any]] = {**MySQL.Parser.FACTOR, TokenType.MOD: exp.Mod}


@dataclass(frozen=True)
class Expression:
    """A compiled `_function`."""

    text: str
    bound: tuple[Placeholder | Find, ...]
    evaluate: Node

    def render(self, scope: Scope) -> Any:
        """Return the result: text, an integer, an exact decimal, or None.

        Raises:
            DataError: it cannot be evaluated for this row.
        """
        try:
            return _result(self.evaluate(scope))
        except DataError:
            raise
        except (ValueError, ArithmeticError, RecursionError) as err:
            raise DataError(f"{self.text}: {err or type(err).__name__}") from err

    def names(self) -> Iterator[str]:
        """Return the variables and fields that it refers to."""
        for one in self.bound:
            yield from one.names()


def parse_function(text: str, collections: Mapping[str, str]) -> Expression:
    """Take a `_function` apart.

    Args:
        text: as written, `_function` included.
        collections: strategy id → landed table.

    Raises:
        ValueError: it is no expression, or uses what is not supported; the message says what.
    """
    body = text.removeprefix(FUNCTION).strip()
    if not body:
        raise ValueError(f"{text!r} has no expression")
    if len(body) > _LONGEST:
        raise ValueError(f"an expression of more than {_LONGEST} characters")
    mark = _unused(body)
    bound: list[Placeholder | Find] = []

    def keep(one: Placeholder | Find) -> str:
        bound.append(one)
        return f"{mark}{len(bound) - 1}_"

    body = _NESTED_FIND.sub(lambda found: keep(parse_find(found[0], collections)), body)
    if FIND in body:
        raise ValueError(f"{text!r}: close {FIND} with {END_FIND} inside of {FUNCTION}")
    pieces, end = [], 0
    for found in placeholders(body):
        pieces += [body[end : found.start()], keep(parse_placeholder(found))]
        end = found.end()
    body = "".join((*pieces, body[end:]))
    if "{{" in body:
        raise ValueError(f"{text!r}: a placeholder is not closed → write {{{{name}}}}")
    try:
        return Expression(text, tuple(bound), _Compiler(mark, bound).node(_parsed(body, text)))
    except RecursionError as err:
        raise ValueError(f"{text[:80]!r}… nests too deeply") from err


def _unused(body: str) -> str:
    mark = "qeasy_"
    while mark in body:
        mark += "q_"
    return mark


def _parsed(body: str, text: str) -> exp.Expression:
    try:
        # In brackets, because REPLACE at the beginning would be read as a statement.
        found = _Expressions().parse(f"({body})")
    except SqlglotError as err:
        raise ValueError(f"{text!r} is no MySQL expression: {_reason(err)}") from err
    if len(found) != 1 or not isinstance(found[0], exp.Paren):
        raise ValueError(f"{text!r} is no single MySQL expression")
    return found[0].this  # type: ignore[no-any-return]


def _reason(err: SqlglotError) -> str:
    told = getattr(err, "errors", None) or []
    return str(told[0].get("description")) if told else str(err).splitlines()[0]


class _Compiler:
    """Turns a parsed expression into nested functions; what it does not know is refused by name."""

    def __init__(self, mark: str, bound: list[Placeholder | Find]) -> None:
        self._marks = re.compile(rf"{mark}(\d+)_")
        self._bound = bound
        self._kinds: dict[type[exp.Expression], Callable[[Any], Node]] = {
            exp.Paren: lambda one: self.node(one.this),
            exp.Literal: self._literal,
            exp.Null: lambda _one: _always(None),
            exp.Boolean: lambda one: _always(Decimal(int(one.this))),
            exp.Column: self._column,
            exp.Anonymous: self._call,
            exp.Case: self._case,
            exp.If: self._if,
            exp.Cast: self._cast,
            exp.Concat: lambda one: self._function("CONCAT", one.expressions),
            exp.Neg: lambda one: self._function_of(one.this, lambda value: -functions.number(value)),
            exp.Not: lambda one: self._logic(one.this),
            exp.And: lambda one: self._both(one, stop=False),
            exp.Or: lambda one: self._both(one, stop=True),
            exp.Is: self._is,
            exp.In: self._in,
            exp.Between: self._between,
            exp.Like: self._like,
            exp.NullSafeEQ: self._null_safe,
        }
        for kind, apply in _ARITHMETIC.items():
            self._kinds[kind] = self._arithmetic(apply)
        for kind, holds in _COMPARISONS.items():
            self._kinds[kind] = self._comparison(holds, ordered=kind not in (exp.EQ, exp.NEQ))

    def node(self, one: Any) -> Node:
        """Compile one part of the expression."""
        make = self._kinds.get(type(one))
        if make is None:
            name = type(one).__name__ if one is not None else "nothing"
            raise ValueError(f"{_told(one)!r} ({name}) is not supported in {FUNCTION}")
        return make(one)

    # Values

    def _literal(self, one: exp.Literal) -> Node:
        if not one.is_string:
            return _always(functions.number(str(one.this)))
        parts = self._marks.split(str(one.this))
        if len(parts) == 1:
            return _always(parts[0])
        return self._pasted(parts)

    def _pasted(self, parts: list[str]) -> Node:
        """Text with placeholders in it: every other part is the number of one."""
        pieces = [self._bound[int(part)] if place % 2 else part for place, part in enumerate(parts)]

        def pasted(scope: Scope) -> str:
            found = (one if isinstance(one, str) else one.render(scope) for one in pieces)
            return "".join("" if one is None else as_text(one) for one in found)

        return pasted

    def _column(self, one: exp.Column) -> Node:
        name = one.name
        if one.table or one.this.args.get("quoted"):
            raise ValueError(f"{_told(one)!r} is no column here → write {{{{{one.name}}}}}")
        parts = self._marks.split(name)
        if len(parts) == 1:
            if name.upper() in ("CURRENT_TIMESTAMP", "CURRENT_DATE", "LOCALTIME"):
                return self._function(name.upper(), [])
            raise ValueError(f"{name!r} is no column here → write {{{{{name}}}}}, or quote it as text")
        if parts[0] == parts[2] == "" and len(parts) == 3:  # noqa: PLR2004 - before, number, after
            single = self._bound[int(parts[1])]
            return lambda scope: _unquoted_value(single.render(scope))
        text = self._pasted(parts)  # {{LAST_SYNC_TIME}}000
        return lambda scope: _unquoted_value(text(scope))

    # Functions

    def _call(self, one: exp.Anonymous) -> Node:
        name = str(one.this).upper()
        if name in ("DATE_ADD", "DATE_SUB", "ADDDATE", "SUBDATE"):
            if len(one.expressions) != 2 or not isinstance(one.expressions[1], exp.Interval):  # noqa: PLR2004
                raise ValueError(f"{name} takes a time and INTERVAL n DAY (HOUR, MONTH…)")
            return self._shift(one.expressions[0], one.expressions[1], -1 if "SUB" in name else 1)
        return self._function(name, one.expressions)

    def _function(self, name: str, arguments: list[Any]) -> Node:
        known = functions.FUNCTIONS.get(name)
        if known is None:
            raise ValueError(f"the function {name} is not supported → {near(name, functions.FUNCTIONS)}")
        if len(arguments) < known.fewest or (known.most is not None and len(arguments) > known.most):
            wanted = str(known.fewest) if known.most == known.fewest else f"{known.fewest} or more"
            raise ValueError(f"{name} takes {wanted} arguments, not {len(arguments)}")
        if name in functions.PATTERNED and len(arguments) > 1:
            self._check_pattern(arguments[1])
        nodes = [self.node(argument) for argument in arguments]
        return lambda scope: functions.call(name, scope.now, [node(scope) for node in nodes])

    def _check_pattern(self, one: Any) -> None:
        """A pattern that is written out is looked at once, and not at each record."""
        if isinstance(one, exp.Literal) and one.is_string:
            parts = self._marks.split(str(one.this))
            if len(parts) == 1:
                functions.check_pattern(parts[0])

    def _function_of(self, one: Any, apply: Callable[[Any], Any]) -> Node:
        inner = self.node(one)

        def applied(scope: Scope) -> Any:
            value = inner(scope)
            return None if value is None else apply(value)

        return applied

    def _if(self, one: exp.If) -> Node:
        condition, then = self.node(one.this), self.node(one.args.get("true"))
        other = self._or_null(one.args.get("false"))
        return lambda scope: then(scope) if functions.truth(condition(scope)) else other(scope)

    def _case(self, one: exp.Case) -> Node:
        subject = self.node(one.this) if one.this is not None else None
        ways = [(self.node(way.this), self.node(way.args["true"])) for way in one.args["ifs"]]
        other = self._or_null(one.args.get("default"))

        def chosen(scope: Scope) -> Any:
            value = subject(scope) if subject else None
            for when, then in ways:
                found = when(scope)
                if functions.compare(value, found, ordered=False) == 0 if subject else functions.truth(found):
                    return then(scope)
            return other(scope)

        return chosen

    def _or_null(self, one: Any) -> Node:
        return _always(None) if one is None else self.node(one)

    def _cast(self, one: exp.Cast) -> Node:
        kind = one.args["to"].this.name
        sizes = [int(size.name) for size in one.args["to"].expressions]
        if kind in ("CHAR", "NCHAR", "VARCHAR", "NVARCHAR", "TEXT"):
            return self._function_of(
                one.this, lambda value: functions.text(value)[: sizes[0] if sizes else None]
            )
        if kind in ("DECIMAL", "BIGINT", "UBIGINT", "INT", "UINT"):
            places = sizes[1] if kind == "DECIMAL" and len(sizes) > 1 else 0
            return self._function_of(one.this, lambda value: functions.rounded(value, places))
        if kind in ("DATETIME", "TIMESTAMP"):
            return self._function_of(one.this, functions.moment)
        if kind == "DATE":
            return self._function_of(one.this, lambda value: functions.moment(value).date())
        raise ValueError(f"CAST … AS {kind} is not supported → CHAR, SIGNED, DECIMAL, DATE or DATETIME")

    # Operators

    def _arithmetic(self, apply: Callable[[Any, Any], Any]) -> Callable[[Any], Node]:
        def make(one: exp.Binary) -> Node:
            if isinstance(one.expression, exp.Interval) and isinstance(one, exp.Add | exp.Sub):
                return self._shift(one.this, one.expression, -1 if isinstance(one, exp.Sub) else 1)
            left, right = self.node(one.this), self.node(one.expression)

            def applied(scope: Scope) -> Any:
                a, b = left(scope), right(scope)
                return None if a is None or b is None else apply(a, b)

            return applied

        return make

    def _shift(self, when: Any, interval: exp.Interval, sign: int) -> Node:
        given, count = self.node(when), self.node(interval.this)
        unit = str(interval.args["unit"] or "").upper()

        def shifted(scope: Scope) -> Any:
            value, steps = given(scope), count(scope)
            return None if value is None or steps is None else functions.shift(value, steps, unit, sign)

        return shifted

    def _comparison(self, holds: Callable[[int], bool], *, ordered: bool) -> Callable[[Any], Node]:
        def make(one: exp.Binary) -> Node:
            left, right = self.node(one.this), self.node(one.expression)

            def compared(scope: Scope) -> Any:
                found = functions.compare(left(scope), right(scope), ordered=ordered)
                return None if found is None else functions.told(holds(found))

            return compared

        return make

    def _logic(self, one: Any) -> Node:
        inner = self.node(one)

        def negated(scope: Scope) -> Any:
            found = functions.truth(inner(scope))
            return functions.told(None if found is None else not found)

        return negated

    def _both(self, one: exp.Binary, *, stop: bool) -> Node:
        left, right = self.node(one.this), self.node(one.expression)

        def joined(scope: Scope) -> Any:
            a = functions.truth(left(scope))
            if a is stop:
                return functions.told(stop)
            b = functions.truth(right(scope))
            if b is stop:
                return functions.told(stop)
            return functions.told(None if a is None or b is None else not stop)

        return joined

    def _is(self, one: exp.Is) -> Node:
        inner = self.node(one.this)
        if isinstance(one.expression, exp.Null):
            return lambda scope: functions.told(inner(scope) is None)
        if isinstance(one.expression, exp.Boolean):
            wanted = bool(one.expression.this)
            return lambda scope: functions.told(functions.truth(inner(scope)) is wanted)
        raise ValueError(f"{_told(one)!r} is not supported → IS NULL, IS TRUE or IS FALSE")

    def _in(self, one: exp.In) -> Node:
        if not one.expressions:
            raise ValueError(f"{_told(one)!r} is not supported → IN ('a', 'b')")
        subject, choices = self.node(one.this), [self.node(choice) for choice in one.expressions]

        def found_in(scope: Scope) -> Any:
            value = subject(scope)
            found = [functions.compare(value, choice(scope), ordered=False) for choice in choices]
            return functions.told(True if 0 in found else None if None in found else False)

        return found_in

    def _between(self, one: exp.Between) -> Node:
        value, low, high = (self.node(one.args[part]) for part in ("this", "low", "high"))

        def lies(scope: Scope) -> Any:
            given = value(scope)
            below = functions.compare(given, low(scope), ordered=True)
            above = functions.compare(given, high(scope), ordered=True)
            return functions.told(None if below is None or above is None else below >= 0 >= above)

        return lies

    def _like(self, one: exp.Like) -> Node:
        value, pattern = self.node(one.this), self.node(one.expression)
        return lambda scope: functions.told(functions.like(value(scope), pattern(scope)))

    def _null_safe(self, one: exp.NullSafeEQ) -> Node:
        left, right = self.node(one.this), self.node(one.expression)

        def same(scope: Scope) -> Any:
            a, b = left(scope), right(scope)
            if a is None or b is None:
                return functions.told(a is b)
            return functions.told(functions.compare(a, b, ordered=False) == 0)

        return same


_ARITHMETIC: dict[type[exp.Expression], Callable[[Any, Any], Any]] = {
    exp.Add: functions.add,
    exp.Sub: functions.subtract,
    exp.Mul: functions.multiply,
    exp.Div: functions.divide,
    exp.IntDiv: functions.divide_whole,
    exp.Mod: functions.remainder,
}
_COMPARISONS: dict[type[exp.Expression], Callable[[int], bool]] = {
    exp.EQ: lambda found: found == 0,
    exp.NEQ: lambda found: found != 0,
    exp.GT: lambda found: found > 0,
    exp.GTE: lambda found: found >= 0,
    exp.LT: lambda found: found < 0,
    exp.LTE: lambda found: found <= 0,
}


def _always(value: Any) -> Node:
    return lambda _scope: value


def _unquoted_value(value: Any) -> Any:
    if isinstance(value, list):
        return [_unquoted_value(one) for one in value]
    if isinstance(value, dict):
        raise ValueError("an object where one value belongs")
    if isinstance(value, str):
        return functions.number(value) if _NUMBER.fullmatch(value) else value
    if isinstance(value, int):
        return Decimal(int(value))
    return value


def _result(value: Any) -> Any:
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, date):
        return functions.text(value)
    if isinstance(value, list):
        return [_result(one) for one in value]
    return value


def _told(one: Any) -> str:
    try:
        return str(one.sql("mysql"))[:80]
    except (AttributeError, SqlglotError):
        return str(one)[:80]
