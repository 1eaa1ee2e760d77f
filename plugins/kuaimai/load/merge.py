"""The statements of a load, as PostgreSQL and SQLite take them; where MySQL differs, `mysql` has the text.

Batches are put into temporary stage tables first; from there everything is set-based. A stored row gives way
only to a newer version, to a fuller record of the same version, or to other content of the very same; one
that is marked as gone, to any version whose reading began (`:since`) after the mark. Lines are as their order
says.
Names come from the catalogue and from this package, never from data.
"""
# ruff: noqa: S608 - statements are composed of the catalogue's names; values are bound

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from kuaimai.gateway.catalog import FieldType
from kuaimai.transform.tables import (
    CHILD_COUNT,
    DELETED_AT,
    HASH,
    LOADED_AT,
    RANK,
    VERSION,
    WINDOW,
    Column,
    Table,
)

SEEN = "kuaimai_seen"

# How a staged row stands to the stored one: that is newer, the same, or gives way.
STALE, UNCHANGED, OLDER = "stale", "unchanged", "older"


def stage_name(table: Table) -> str:
    """The temporary table that a batch is put into."""
    return f"stage_{table.name}"


def create_table(name: str, key: str, columns: Iterable[Column], types: Mapping[FieldType, str]) -> str:
    """Make a table."""
    parts = [
        f'"{column.name}" {types[column.type]}{" PRIMARY KEY" if column.name == key else ""}'
        for column in columns
    ]
    return f'CREATE TABLE IF NOT EXISTS "{name}" ({", ".join(parts)})'


def add_column(name: str, column: Column, types: Mapping[FieldType, str]) -> str:
    """Add a column that the catalogue learnt since the table was made."""
    return f'ALTER TABLE "{name}" ADD COLUMN "{column.name}" {types[column.type]}'


def create_stage(table: Table, types: Mapping[FieldType, str], suffix: str = "") -> str:
    """Make the temporary table for a batch."""
    parts = [f'"{name}" {types[kind]}' for name, kind in stage_columns(table)]
    return f'CREATE TEMPORARY TABLE "{stage_name(table)}" ({", ".join(parts)}){suffix}'


def stage_columns(table: Table) -> list[tuple[str, FieldType]]:
    """The columns of a stage, name and type: those of the batch schema, in order."""
    meta: list[tuple[str, FieldType]] = [
        (VERSION, "integer"),
        (RANK, "integer"),
        (HASH, "text"),
        (WINDOW, "id"),
    ]
    if table.parent is None:
        meta.append((CHILD_COUNT, "integer"))
    return [*((column.name, column.type) for column in table.columns), *meta]


def create_seen(suffix: str = "") -> str:
    """Make the temporary list of keys that this load has seen, by read."""
    return f'CREATE TEMPORARY TABLE "{SEEN}" ("read" integer, "key" text){suffix}'


def compare(table: Table) -> str:
    """Count the staged rows by how they stand to what is stored; new ones have no standing.

    Stored rows are looked up one by one, in a subquery that no planner turns into reading the whole target.
    """
    return f"""
        SELECT "standing", COUNT(*) FROM (
            SELECT (SELECT CASE WHEN {_stays("t", "s")} THEN '{STALE}'
                                WHEN {_is_same("t", "s")} THEN '{UNCHANGED}' ELSE '{OLDER}' END
                    FROM "{table.name}" t WHERE t."{table.key}" = s."{table.key}") AS "standing"
            FROM "{stage_name(table)}" s) stood
        GROUP BY "standing"
    """


def drop_settled(parent: Table, children: Sequence[Table], delete: str = "DELETE FROM") -> str:
    """Take those staged parents out of the merge for which nothing would be written, lines included.

    So their rows are not even locked. Their lines are as stored when as many were sent as are stored, and as
    many are stored as they were sent.
    """
    of_parent = f't."{parent.key}"'
    stored = " + ".join(f"(SELECT COUNT(*) {_living(child, of_parent)})" for child in children)
    as_sent = " + ".join(
        f"""(SELECT COUNT(*) {_living(child, of_parent)} AND (
                SELECT 1 FROM "{stage_name(child)}" l
                WHERE l."{child.key}" = c."{child.key}" AND l."{child.parent}" = c."{child.parent}"
                  AND {_is_same("c", "l")} LIMIT 1) = 1)"""
        for child in children
    )
    sent = f's."{CHILD_COUNT}"'
    lines = f" AND ({sent} IS NULL OR {sent} = {stored} AND {sent} = {as_sent})" if children else ""
    return f"""
        {delete} "{stage_name(parent)}" AS s WHERE (
            SELECT CASE WHEN {_stays("t", "s")} OR {_is_same("t", "s")}{lines}
                        THEN 1 ELSE 0 END
            FROM "{parent.name}" t WHERE t."{parent.key}" = s."{parent.key}") = 1
    """


def has_staged(table: Table) -> str:
    """Ask whether any row is staged."""
    return f'SELECT 1 FROM "{stage_name(table)}" LIMIT 1'


def remember(table: Table, read: int) -> str:
    """Add the staged keys to the list of seen keys."""
    return (
        f'INSERT INTO "{SEEN}" ("read", "key") SELECT {int(read)}, "{table.key}" FROM "{stage_name(table)}"'
    )


def remember_keys(read: int, count: int) -> str:
    """Add `count` keys, `:key0` and so on, to the list of seen keys."""
    rows = ", ".join(f"({int(read)}, :key{number})" for number in range(count))
    return f'INSERT INTO "{SEEN}" ("read", "key") VALUES {rows}'


def count_only(first: int, other: int) -> str:
    """Count the keys that one read has seen and another has not."""
    return f"""
        SELECT COUNT(*) FROM (
            SELECT "key", MAX(CASE WHEN "read" = {int(other)} THEN 1 ELSE 0 END) AS "other" FROM "{SEEN}"
            WHERE "read" IN ({int(first)}, {int(other)}) GROUP BY "key") k
        WHERE "other" = 0
    """


def has_seen(read: int) -> str:
    """Ask whether a key of this read was merged."""
    return f'SELECT 1 FROM "{SEEN}" WHERE "read" = {int(read)} AND "key" = :key'


def upsert(table: Table) -> str:
    """Merge the staged rows into a table that has no parent."""
    return upsert_from(table, f'FROM "{stage_name(table)}" s WHERE true')


def upsert_children(parent: Table, child: Table) -> str:
    """Merge the staged lines whose parent is stored in exactly the version that the lines came with."""
    return upsert_from(
        child,
        f'FROM "{stage_name(child)}" s '
        f'WHERE (s."{child.parent}", s."{VERSION}") IN '
        f'(SELECT s."{parent.key}", s."{VERSION}" {_current(parent)})',
    )


def entomb(parent: Table, child: Table) -> str:
    """Mark lines that their order, in its stored version, no longer contains. They are not removed."""
    return f"""
        UPDATE "{child.name}" SET "{DELETED_AT}" = :now
        WHERE "{DELETED_AT}" IS NULL
          AND "{child.parent}" IN
              (SELECT s."{parent.key}" {_current(parent)} AND s."{CHILD_COUNT}" IS NOT NULL)
          AND NOT EXISTS (
              SELECT 1 FROM "{stage_name(child)}" l
              JOIN "{stage_name(parent)}" p
                ON p."{parent.key}" = l."{child.parent}" AND p."{VERSION}" = l."{VERSION}"
              WHERE l."{child.key}" = "{child.name}"."{child.key}"
                AND l."{child.parent}" = "{child.name}"."{child.parent}")
    """


def count_landed(table: Table, read: int) -> str:
    """Count the seen keys that are in the target, by reading them back."""
    return f"""
        SELECT COUNT(*) FROM (SELECT DISTINCT "key" FROM "{SEEN}" WHERE "read" = {int(read)}) k
        WHERE EXISTS (SELECT 1 FROM "{table.name}" t WHERE t."{table.key}" = k."key")
    """


def covered(column: str, ids: int) -> str:
    """The condition of living rows that a scan covers: all, or those with `:id0`, `:id1`… in a column."""
    within = f' AND "{column}" IN ({", ".join(f":id{at}" for at in range(ids))})' if column else ""
    return f'"{DELETED_AT}" IS NULL{within}'


def unseen(table: Table, *reads: int) -> str:
    """The condition of rows that none of some reads has seen, and nobody has written since `:since`."""
    numbers = ", ".join(str(int(read)) for read in reads)
    return (
        f'"{LOADED_AT}" < :since '
        f'AND "{table.key}" NOT IN (SELECT "key" FROM "{SEEN}" WHERE "read" IN ({numbers}))'
    )


def count_rows(table: Table, condition: str) -> str:
    """Count the rows of a table that fulfil a condition."""
    return f'SELECT COUNT(*) FROM "{table.name}" WHERE {condition}'


def entomb_rows(table: Table, condition: str) -> str:
    """Mark the rows of a table that fulfil a condition. They are not removed."""
    return f'UPDATE "{table.name}" SET "{DELETED_AT}" = :now WHERE {condition}'


def entomb_orphans(parent: Table, child: Table) -> str:
    """Mark the lines of the rows that were marked at this moment."""
    return f"""
        UPDATE "{child.name}" SET "{DELETED_AT}" = :now
        WHERE "{DELETED_AT}" IS NULL
          AND "{child.parent}" IN (SELECT "{parent.key}" FROM "{parent.name}" WHERE "{DELETED_AT}" = :now)
    """


def insert(name: str, names: Sequence[str]) -> str:
    """Insert one row: its values are bound by the names of their columns."""
    return f'INSERT INTO "{name}" ({quoted(names)}) VALUES ({", ".join(f":{one}" for one in names)})'


def upsert_row(name: str, columns: Sequence[Column], key: str, keep: Sequence[str] = ()) -> str:
    """Insert or replace one row of a proof table; the columns in `keep` stay as first written."""
    names = [column.name for column in columns]
    changed = ", ".join(f'"{one}" = excluded."{one}"' for one in names if one != key and one not in keep)
    return f'{insert(name, names)} ON CONFLICT ("{key}") DO UPDATE SET {changed}'


def insert_row(name: str, columns: Sequence[Column], key: str) -> str:
    """Insert one row of a proof table unless its key is there."""
    return f'{insert(name, [column.name for column in columns])} ON CONFLICT ("{key}") DO NOTHING'


def resolve_quarantine(quarantine: str, table: Table, read: int) -> str:
    """Close quarantined records of this pipeline and method whose key has landed after all.

    Only what was read after they were set aside (`:since`) closes them: a slice that waited for its load may
    bring a state from before.
    """
    return f"""
        UPDATE "{quarantine}" SET "resolved_at" = :now
        WHERE "pipeline" = :pipeline AND "method" = :method AND "resolved_at" IS NULL
          AND "last_seen_at" < :since
          AND "record_key" IN (SELECT "key" FROM "{SEEN}" WHERE "read" = {int(read)})
          AND EXISTS (SELECT 1 FROM "{table.name}" t WHERE t."{table.key}" = "record_key")
    """


def _current(parent: Table) -> str:
    """The staged parents that are now stored in the staged version, and alive, as the rest of a SELECT."""
    return f"""
        FROM "{stage_name(parent)}" s
        WHERE EXISTS (
            SELECT 1 FROM "{parent.name}" t
            WHERE t."{parent.key}" = s."{parent.key}"
              AND t."{VERSION}" = s."{VERSION}" AND t."{RANK}" = s."{RANK}"
              AND t."{DELETED_AT}" IS NULL)
    """


def staged_names(table: Table) -> list[str]:
    """The columns that a target row takes from the stage."""
    return [*(column.name for column in table.columns), VERSION, RANK, HASH, WINDOW]


def _living(child: Table, of_parent: str) -> str:
    return f'FROM "{child.name}" c WHERE c."{child.parent}" = {of_parent} AND c."{DELETED_AT}" IS NULL'


def _stays(old: str, new: str) -> str:
    """Whether a stored row is newer or fuller than the one that arrives, or marked since that was read."""
    newer = f'({old}."{VERSION}", {old}."{RANK}") > ({new}."{VERSION}", {new}."{RANK}")'
    return f'({newer} AND {old}."{DELETED_AT}" IS NULL OR {old}."{DELETED_AT}" > :since)'


def _is_same(old: str, new: str) -> str:
    """Whether a stored row is there as it arrives."""
    equal = " AND ".join(f'{old}."{name}" = {new}."{name}"' for name in (VERSION, RANK, HASH))
    return f'({equal} AND {old}."{DELETED_AT}" IS NULL)'


def gives_way(table: Table, old: str, new: str) -> str:
    """The condition under which a stored row gives way to an arriving one.

    Args:
        table: the table; its lines come only with an order that holds, so any of their marks may go.
        old: what names the stored row in the statement.
        new: what names the arriving one.
    """
    revived = "IS NOT NULL" if table.parent else "<= :since"
    return f"""
        ({old}."{DELETED_AT}" {revived} OR {old}."{DELETED_AT}" IS NULL AND (
            ({new}."{VERSION}", {new}."{RANK}") > ({old}."{VERSION}", {old}."{RANK}")
            OR {new}."{VERSION}" = {old}."{VERSION}" AND {new}."{RANK}" = {old}."{RANK}"
               AND {new}."{HASH}" <> {old}."{HASH}"))
    """


def upsert_from(table: Table, source: str, first: str = "") -> str:
    """Merge what `source` gives as `s`, the rest of a SELECT, in the order of `first`, and then of keys."""
    staged = staged_names(table)
    names = [*staged, LOADED_AT]
    changed = ", ".join(f'"{name}" = excluded."{name}"' for name in names if name != table.key)
    return f"""
        INSERT INTO "{table.name}" ({quoted(names)})
        SELECT {", ".join(f's."{name}"' for name in staged)}, :now {source}
        ORDER BY {first}s."{table.key}"
        ON CONFLICT ("{table.key}") DO UPDATE SET {changed}, "{DELETED_AT}" = NULL
        WHERE {gives_way(table, f'"{table.name}"', "excluded")}
    """


def quoted(names: Iterable[str]) -> str:
    """Names, as a list in a statement."""
    return ", ".join(f'"{name}"' for name in names)
