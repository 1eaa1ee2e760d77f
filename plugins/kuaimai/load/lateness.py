"""How late records become visible: counted beside the data, so that the look-back can follow what happens.

A record is late by the time between its `created` and the read that first brought it. Only records count
whose creation lies in time that had been sealed without a hole until this run: then it was not the reader
that was late. So an outage, its healing and a backfill say nothing here. The part that is split off an order
carries the creation of the whole and counts with it: whoever looks by creation must look back as far.
"""
# ruff: noqa: S608 - statements name our own tables and the catalogue's columns; values are bound

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

import msgspec
import pyarrow as pa

from kuaimai.gateway.clock import GATEWAY_ZONE
from kuaimai.load import merge
from kuaimai.transform.tables import Column, Table

LATENESS_TABLE = "kuaimai_lateness"
LATENESS_COLUMNS: tuple[Column, ...] = (
    Column("lateness_id", "id", "编号"),
    Column("pipeline", "text", "管道"),
    Column("dimension", "text", "首次带来记录的时间维度"),
    Column("source", "text", "平台"),
    Column("day", "text", "读取日期（北京时间，yyyy-mm-dd）"),
    Column("up_to_minutes", "integer", "首次读到时距创建时间不超过的分钟数（5256000 为更晚）"),
    Column("records", "integer", "记录数"),
)

# Upper bounds in minutes: from one run to a week. Fixed, so that days can be added up.
BOUNDS = (5, 15, 30, 60, 120, 240, 480, 720, 1440, 2160, 2880, 4320, 7200, 10_080)
BEYOND = 5_256_000
LONGEST_LOOK_BACK = BOUNDS[-1]

# What may come later than the look-back: one record in so many. A platform with fewer records than that has
# no such share; its records count among those of all platforms together.
ONE_IN = 1000
OBSERVED_DAYS = 30


class Punctuality(msgspec.Struct, frozen=True):
    """What a load needs to know in order to say which records came late.

    Attributes:
        pipeline: name of the pipeline.
        dimension: of the windows that are loaded.
        read_at: when each read of the slice ended, by its number.
        known_since: records created since then count; see `kuaimai.extract.windows.Slice`.
        look_back_minutes: the look-back in force; 0 where there is none.
    """

    pipeline: str
    dimension: str
    read_at: tuple[datetime, ...]
    known_since: datetime
    look_back_minutes: int


def can_measure(table: Table) -> bool:
    """Whether the records of a table say when and on which platform they were made."""
    return {"created", "source"} <= {column.name for column in table.columns}


def count_new(table: Table) -> str:
    """Count staged rows that are not stored yet, by platform and lateness; the second count is those outside.

    Binds `since`, `outside`, and `b<minutes>` for each bound: instants.
    """
    ages = " ".join(f'WHEN s."created" >= :b{bound} THEN {bound}' for bound in BOUNDS)
    return f"""
        SELECT COALESCE(s."source", ''), CASE {ages} ELSE {BEYOND} END, COUNT(*),
               SUM(CASE WHEN s."created" < :outside THEN 1 ELSE 0 END)
        FROM "{merge.stage_name(table)}" s LEFT JOIN "{table.name}" t ON t."{table.key}" = s."{table.key}"
        WHERE t."{table.key}" IS NULL AND s."created" >= :since
        GROUP BY 1, 2
    """


def counted(new: pa.Table, told: Punctuality, read: int) -> tuple[dict[tuple[str, int], int], int]:
    """Count rows that are new as `count_new` does: by platform and lateness, and those outside.

    Args:
        new: a batch of rows that the target does not have.
        told: what the load knows.
        read: number of their read.
    """
    limits = instants(told, read)
    found: dict[tuple[str, int], int] = {}
    outside = 0
    for source, created in zip(
        new.column("source").to_pylist(), new.column("created").to_pylist(), strict=True
    ):
        if created is None or created < limits["since"]:
            continue
        bound = next((one for one in BOUNDS if created >= limits[f"b{one}"]), BEYOND)
        found[source or "", bound] = found.get((source or "", bound), 0) + 1
        outside += created < limits["outside"]
    return found, outside


def instants(told: Punctuality, read: int) -> dict[str, datetime]:
    """Return what `count_new` binds, for one read."""
    at = told.read_at[read]
    outside = timedelta(minutes=told.look_back_minutes or BEYOND)
    bounds = {f"b{bound}": at - timedelta(minutes=bound) for bound in BOUNDS}
    return {"since": told.known_since, "outside": at - outside, **bounds}


def add_rows() -> str:
    """Add to a row that is there; binds `records` and `lateness_id`."""
    return (
        f'UPDATE "{LATENESS_TABLE}" SET "records" = "records" + :records WHERE "lateness_id" = :lateness_id'
    )


def row_of(told: Punctuality, moment: datetime, source: str, bound: int) -> dict[str, str | int]:
    """Return the row of a platform and lateness on a day, with no records yet."""
    facts = (told.pipeline, told.dimension, source, f"{moment.astimezone(GATEWAY_ZONE):%Y-%m-%d}")
    identity = "|".join((*facts, str(bound)))
    return {
        "lateness_id": hashlib.sha256(identity.encode()).hexdigest()[:24],
        **dict(zip(("pipeline", "dimension", "source", "day"), facts, strict=True)),
        "up_to_minutes": bound,
        "records": 0,
    }


def observed() -> str:
    """Ask how many records came how late, by platform; binds `pipeline` and `day`."""
    return (
        f'SELECT "source", "up_to_minutes", SUM("records") FROM "{LATENESS_TABLE}" '
        'WHERE "pipeline" = :pipeline AND "day" >= :day GROUP BY 1, 2'
    )


def first_day(now: datetime) -> str:
    """Return the first day that still counts."""
    return f"{now.astimezone(GATEWAY_ZONE) - timedelta(days=OBSERVED_DAYS):%Y-%m-%d}"


def look_back(configured_minutes: int, seen: Iterable[tuple[str, int, int]]) -> int:
    """Return the look-back in force, in minutes.

    It is the larger of what was configured and the 99.9th percentile of what was observed, of the platform
    where that is largest, and at most a week (or what was configured, if that is more).

    Args:
        configured_minutes: never less than this.
        seen: platform, upper bound of the lateness in minutes, number of records.
    """
    platforms: dict[str, dict[int, int]] = {}
    together: dict[int, int] = {}
    for source, bound, records in seen:
        platforms.setdefault(source, {})[bound] = records
        together[bound] = together.get(bound, 0) + records
    large = [counts for counts in platforms.values() if sum(counts.values()) >= ONE_IN]
    needed = max((percentile(counts) for counts in (*large, together)), default=0)
    return max(configured_minutes, min(needed, LONGEST_LOOK_BACK))


def percentile(counts: Mapping[int, int]) -> int:
    """Return the smallest bound within which all but one record in a thousand lie; 0 where there are none."""
    above = sum(counts.values()) // ONE_IN
    for bound in sorted(counts, reverse=True):
        above -= counts[bound]
        if above < 0:
            return bound
    return 0
