"""The SQL of `execute` and `batchexecute`: statements with bound values, checked against their fields.

`execute` can have statements that follow the main one for the elements of arrays (`extend_sql_n` with
`extend_params_n`); they refer to the row that it has made as `:lastInsertId`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from sqlglot import exp
from sqlglot.errors import SqlglotError

from kuaimai.load.statements import LAST_ID
from kuaimai.pipeline.qeasy import compiled as made
from kuaimai.pipeline.qeasy.fields import Compiled
from kuaimai.pipeline.qeasy.findings import Findings, near
from kuaimai.pipeline.qeasy.repeating import REPLACE, parse
from kuaimai.pipeline.qeasy.strategy import Field, Side

MAIN_PARAMS = "main_params"
_MOST_ROWS = 1000
_TOGETHER = "extend_sql_n stands in otherRequest, its array extend_params_n in request"
_EXTEND = re.compile(r"extend_(sql|params)_(\d{1,2})")


def without_last_id(request: Iterable[Field]) -> tuple[Field, ...]:
    """Return a request's fields without those that are `:lastInsertId`, which is bound when it is known."""
    return tuple(
        replace(one, children=tuple(child for child in one.children if not _is_last_id(child)))
        if _EXTEND.fullmatch(one.name)
        else one
        for one in request
    )


def compile_statement(side: Side, request: Sequence[Compiled], findings: Findings) -> made.Statement | None:
    """Compile the statements of a target; None where the main one is refused.

    Args:
        side: the target.
        request: its fields, compiled, see `without_last_id`.
        findings: gets what is wrong.
    """
    other = {one.name: one for one in side.other_request}
    for name, one in other.items():
        if name not in ("main_sql", "limit") and not _EXTEND.fullmatch(name):
            told = f"{name} is not known"
            findings.refuse(f"{one.path}.field", told, near(name, ("main_sql", "limit", "extend_sql_1")))
    main = other.get("main_sql")
    if main is None or not _written(main):
        where = f"{main.path}.value" if main else f"{side.path}otherRequest"
        findings.refuse(where, "main_sql is missing", "write the INSERT, REPLACE or UPDATE")
        return None
    batch = side.api == "batchexecute"
    limit = _limit(side, other.get("limit"), findings) if batch else 1
    text = _checked(main, _main_fields(request), findings, batch=batch)
    further = _further(side, other, {one.field.name: one for one in request}, findings)
    if any(one.last for one in further):
        _check_makes_a_row(main, findings)
    if batch and further:
        where = f"{other['extend_sql_1'].path if 'extend_sql_1' in other else side.path}.field"
        findings.refuse(where, "batchexecute has one statement", "write api execute")
    names = tuple(one.field.name for one in _main_fields(request))
    return None if text is None else made.Statement(text, names, limit, further)


def _check_makes_a_row(main: Field, findings: Findings) -> None:
    """Look whether the main statement gives the id that the others ask for."""
    where, text = f"{main.path}.value", str(main.value).strip()
    if text[:6].upper() == "UPDATE":
        findings.refuse(where, f":{LAST_ID}: an UPDATE makes no row", "write an INSERT")
    elif REPLACE.match(text):
        findings.warn(
            where,
            f":{LAST_ID}: REPLACE gives a changed record a new id, and the lines of its old one stay",
            "write INSERT … ON DUPLICATE KEY UPDATE id = LAST_INSERT_ID(id), … with the id's column",
        )
    elif "DUPLICATE KEY" in text.upper() and "LAST_INSERT_ID(" not in text.upper():
        findings.warn(
            where,
            f":{LAST_ID}: a record that is there already gives no id, and is then set aside",
            "begin the update with id = LAST_INSERT_ID(id), with the id's column",
        )


def _main_fields(request: Sequence[Compiled]) -> Sequence[Compiled]:
    """The fields of the main statement: those of `main_params`, or all that belong to no other."""
    named = next((one for one in request if one.field.name == MAIN_PARAMS), None)
    if named is not None:
        return named.children
    return [one for one in request if not _EXTEND.fullmatch(one.field.name)]


def _further(
    side: Side, other: Mapping[str, Field], request: Mapping[str, Compiled], findings: Findings
) -> tuple[made.Extension, ...]:
    written = {one.name: one for one in side.request}
    numbers = {match[2] for name in (*other, *request) if (match := _EXTEND.fullmatch(name))}
    found: list[made.Extension] = []
    for number in sorted(numbers, key=int):
        names = (f"extend_sql_{number}", f"extend_params_{number}")
        sql, params = other.get(names[0]), request.get(names[1])
        if sql is None or params is None or not _written(sql):
            here = next(one for one in (*side.request, *side.other_request) if one.name in names)
            if sql is not None and not _written(sql):
                here, told = sql, f"{names[0]} is empty"
            elif here.name == (lacks := names[0] if sql is None else names[1]):
                told = f"{lacks} stands in the wrong place"
            else:
                told = f"{here.name} has no {lacks}"
            findings.refuse(f"{here.path}.field", told, _TOGETHER)
            continue
        last = [one.name for one in written[params.field.name].children if _is_last_id(one)]
        text = _checked(sql, params.children, findings, last=[*last, LAST_ID])
        if text is not None:
            used = tuple(name for name in [*last, LAST_ID] if re.search(rf":{name}\b", text))
            found.append(made.Extension(text, params, used))
    return tuple(found)


def _checked(
    field: Field,
    fields: Iterable[Compiled],
    findings: Findings,
    *,
    batch: bool = False,
    last: Sequence[str] = (),
) -> str | None:
    """Check that a text is one statement, writes, and takes no values but the fields'; return it whole."""
    where, text = f"{field.path}.value", str(field.value).strip().rstrip(";")
    names = [one.field.name for one in fields]
    if batch:
        head = re.sub(r"\s*\(\s*\?[\s,?]*\)\s*$", "", text)
        head = head if re.search(r"\bvalues$", head, re.IGNORECASE) else f"{head} VALUES"
        text = f"{head} ({', '.join(f':{name}' for name in names)})"
    try:
        parsed = parse(text)
    except (SqlglotError, RecursionError) as err:
        findings.refuse(where, f"it is no MySQL statement: {str(err).splitlines()[0]}")
        return None
    if len(parsed) != 1 or not isinstance(parsed[0], (exp.Insert, exp.Update)):
        findings.refuse(where, "it is not one INSERT, REPLACE or UPDATE", "write one statement")
        return None
    if "?" in re.sub(r"'[^']*'|`[^`]*`", "", text) or "{{" in text:
        findings.refuse(where, "values are named", "write :name for the field name of the request")
        return None
    into = parsed[0].this
    columns = [one.name for one in into.expressions] if isinstance(into, exp.Schema) else []
    if batch and columns != names:
        findings.refuse(
            where,
            f"its columns ({', '.join(columns)}) are not the request's fields ({', '.join(names)})",
            "list both in the same order; values are assigned by position",
        )
        return None
    for name in sorted({one.name for one in parsed[0].find_all(exp.Placeholder)} - {*names, *last}):
        findings.refuse(where, f":{name} is no field of the request", near(name, names))
    return text


def _limit(side: Side, given: Field | None, findings: Findings) -> int:
    text = "" if given is None else str(given.value)
    if not text.isdecimal() or not 0 < int(text) <= _MOST_ROWS:
        where = f"{given.path}.value" if given else f"{side.path}otherRequest"
        findings.refuse(where, f"limit has to be 1 to {_MOST_ROWS} rows")
        return 1
    return int(text)


def _written(field: Field) -> bool:
    return isinstance(field.value, str) and bool(field.value.strip())


def _is_last_id(field: Field) -> bool:
    return isinstance(field.value, str) and field.value.strip() == f":{LAST_ID}"
