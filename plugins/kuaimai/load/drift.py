"""What was seen of the source's fields so far, kept beside the proof: one row per pipeline and method."""
# ruff: noqa: S608 - statements name our own table; values are bound

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec
import sqlalchemy as sa

from kuaimai.load.proof import SCHEMA_TABLE
from kuaimai.transform.drift import Known, Seen, compare
from kuaimai.transform.rules import Policy


def columns_in(texts: Iterable[str]) -> dict[str, str]:
    """Return the fields beyond the catalogue that have columns, children's as `<list>.<field>`."""
    known = [msgspec.json.decode(text, type=Known) for text in texts]
    return {field: column for one in known for field, column in one.unknown.items() if column}


def first_row(pipeline: str, method: str, moment: Any) -> dict[str, Any]:
    """Return the row of a method that nothing was seen of."""
    return {
        "schema_id": hashlib.sha256(f"{pipeline}|{method}".encode()).hexdigest()[:24],
        "pipeline": pipeline,
        "method": method,
        "known": msgspec.json.encode(Known()).decode(),
        "changed_at": moment,
    }


def note(
    connection: sa.engine.Connection, row_id: str, seen: Seen, policy: Policy, moment: Any
) -> tuple[str, ...]:
    """Add what a slice saw to the row of its method, which must be there; return what is new in it."""
    # Takes the row, so that two loads at once do not both tell, or forget what the other one saw.
    connection.execute(
        sa.text(f'UPDATE "{SCHEMA_TABLE}" SET "changed_at" = :now WHERE "schema_id" = :id'),
        {"now": moment, "id": row_id},
    )
    ((text,),) = connection.execute(
        sa.text(f'SELECT "known" FROM "{SCHEMA_TABLE}" WHERE "schema_id" = :id'), {"id": row_id}
    ).fetchall()
    known, changes = compare(msgspec.json.decode(text, type=Known), seen, policy)
    connection.execute(
        sa.text(f'UPDATE "{SCHEMA_TABLE}" SET "known" = :known WHERE "schema_id" = :id'),
        {"known": msgspec.json.encode(known).decode(), "id": row_id},
    )
    return changes
