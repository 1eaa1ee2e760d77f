"""Rows looked up by their keys, some hundred in one statement: every database takes so many values."""
# ruff: noqa: S608 - statements are composed of the catalogue's names and our own; values are bound

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from kuaimai.load import merge

AT_ONCE = 500


def pieces(keys: Iterable[str]) -> Iterator[list[str]]:
    """Yield keys in order, as many at a time as one statement takes."""
    wanted = sorted(keys)
    for at in range(0, len(wanted), AT_ONCE):
        yield wanted[at : at + AT_ONCE]


def rows_by_key(
    connection: sa.engine.Connection,
    table: str,
    key: str,
    columns: Sequence[str],
    keys: Iterable[str],
    *,
    condition: str = "",
) -> list[Any]:
    """Return some columns of those rows that have one of some keys.

    Args:
        connection: to the database.
        table: its name.
        key: the column that holds the keys.
        columns: what to return of each row, in this order.
        keys: which rows.
        condition: what else must hold of them.
    """
    also = f" AND {condition}" if condition else ""
    statement = sa.text(
        f'SELECT {merge.quoted(columns)} FROM "{table}" WHERE "{key}" IN :keys{also}'
    ).bindparams(sa.bindparam("keys", expanding=True))
    return [row for some in pieces(keys) for row in connection.execute(statement, {"keys": some}).fetchall()]
