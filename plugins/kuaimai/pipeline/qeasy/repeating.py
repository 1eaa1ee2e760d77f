"""Whether a statement can be executed once more for the same values: it then changes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import sqlglot
from sqlglot import exp

REPLACE = re.compile(r"^\s*REPLACE\s+", re.IGNORECASE)
_LAST_ID = "LAST_INSERT_ID"


def parse(text: str) -> list[Any]:
    """Return the statements of a text.

    Raises:
        SqlglotError: it is no MySQL.
        RecursionError: it is nested too deeply.
    """
    # REPLACE has the form of INSERT, and the parser knows only that.
    return list(sqlglot.parse(REPLACE.sub("INSERT ", text), dialect="mysql"))


def changes_nothing_again(text: str) -> bool:
    """Return whether one INSERT, REPLACE or UPDATE can be repeated; one that adds to what is there cannot."""
    (statement,) = parse(text)
    if isinstance(statement, exp.Update):
        return not _reads_what_it_sets(statement, statement.expressions)
    if not isinstance(statement, exp.Insert):
        return False
    into = statement.find(exp.Table)
    source = statement.expression
    if (
        source is not None
        and into is not None
        and into.name in {one.name for one in source.find_all(exp.Table)}
    ):
        return False
    if REPLACE.match(text) or statement.args.get("ignore") or statement.args.get("alternative"):
        return True
    conflict = statement.args.get("conflict")
    return conflict is not None and not _reads_what_it_sets(statement, conflict.expressions)


def _reads_what_it_sets(statement: Any, assignments: Iterable[Any]) -> bool:
    assignments = list(assignments)
    into = statement.find(exp.Table)
    own = {"", *((into.name.lower(), into.alias.lower()) if into is not None else ())}
    own |= {one.this.table.lower() for one in assignments}
    changed = {one.this.name.lower() for one in assignments}
    return any(
        column.name.lower() in changed and column.table.lower() in own
        for one in assignments
        if not _keeps(one)
        for column in one.expression.find_all(exp.Column)
    )


def _keeps(assignment: Any) -> bool:
    """Whether it is `id = LAST_INSERT_ID(id)`, by which MySQL tells the id of a row that is there."""
    made = assignment.expression
    return (
        isinstance(made, exp.Anonymous)
        and made.name.upper() == _LAST_ID
        and [one.name for one in made.expressions] == [assignment.this.name]
    )
